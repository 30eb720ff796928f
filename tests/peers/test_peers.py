"""Our log and our node against implementations of the same specifications that share no line with ours."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from audit.errors import Conflict, PeerFailed
from audit.federation import Federation, Peer, make_client
from audit.node import allow_log, create_node, open_node
from audit.publisher import Accepted, Publisher, Signed, Target
from audit.witness import FORK
from tests.audit.log_setup import ORIGIN, LogSetup, secret
from tests.audit.wire import running
from tests.fakes import FakeLog
from tests.peers.install import HOME, PYTHON, why_absent
from verifier.entry import Operation
from verifier.note import format_vkey, parse_note
from verifier.policy import WITNESSES, cosigned_times, parse_policy

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
PATIENCE_S = 30
AICS_NAME = "aics-witness.example/w"


class Other(NamedTuple):
    """A witness that others wrote: its key, where it listens, and the origins whose misbehaviour it kept."""

    vkey: str
    url: str
    evidence: Callable[[], list[str]] | None


@pytest.fixture(scope="session", autouse=True)
def peers() -> None:
    """Skips out loud where they are not installed. In CI that is a failure."""
    if (reason := why_absent()) is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def aics_witness(folder: Path, origin: str, vkey: str) -> Iterator[Other]:
    """`aics-witness serve`, as its own documentation says it is set up."""
    command, config = HOME / "bin" / "aics-witness", str(folder / "witness.json")

    def run(*words: str) -> str:
        done = subprocess.run([command, *words], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        return done.stdout

    own = run("init", "--config", config, "--name", AICS_NAME, "--listen", "127.0.0.1:0").strip()
    run("add-log", "--config", config, "--origin", origin, "--vkey", vkey)
    process = subprocess.Popen([command, "serve", "--config", config], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = next(filter(None, (re.search(r"listening on (\S+)", line) for line in process.stderr)))

        def evidence() -> list[str]:
            return [item["origin"] for item in json.loads(run("evidence", "--config", config))]

        yield Other(own, found[1], evidence)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


@contextmanager
def witness_log(folder: Path, origin: str, vkey: str) -> Iterator[Other]:
    """witness-log's service behind tests/peers/witness_log_server.py."""
    words = [PYTHON, HERE / "witness_log_server.py", "11" * 32, folder / "state", origin, vkey]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        own, port = process.stdout.readline().strip(), process.stdout.readline().strip()
        yield Other(own, f"http://127.0.0.1:{port}", None)
    finally:
        process.communicate(timeout=PATIENCE_S)


class Town:
    """Our log with one witness, and the couriers between them."""

    def __init__(self, log: LogSetup, other: Other) -> None:
        self.log = log
        log.clock.now = int(time.time())
        key = format_vkey(log.signer.verifier_key)
        text = f"log {key}\nwitness w {other.vkey} {other.url}\ngroup g 1 w\nquorum g\n"
        self.policy = parse_policy(text.encode(), WITNESSES)
        self.publisher = Publisher(log.store, log.maps, log.tree, log.signer, self.policy, None)
        self.said: list[str] = []

    async def during(self, story: Callable[[Federation], Awaitable[None]]) -> None:
        """Runs a story beside couriers that know nothing yet, as after a start."""
        self.heard = asyncio.Queue[Accepted]()
        none = self.log.auditor_policy._replace(witnesses={})
        async with make_client() as client, asyncio.timeout(PATIENCE_S):
            federation = Federation(
                client,
                self.publisher,
                self.policy,
                none,
                lambda: int(time.time()),
                lambda _, accepted: self.heard.put_nowait(accepted),
                say=self.said.append,
            )
            couriers = asyncio.create_task(federation.run())
            try:
                await story(federation)
            finally:
                couriers.cancel()

    def grow(self, files: int) -> Target:
        """So many files more, in a signed tree."""
        first = self.log.store.reader().execute("SELECT count(*) FROM entries").fetchone()[0]
        for number in range(first, first + files):
            self.log.see(Operation.CREATED, number + 1, b"x", f"file {number}")
        target = self.publisher.integrate_and_sign(int(time.time()))
        assert target is not None
        return target

    def times(self) -> dict[str, int]:
        """When which witness cosigned what is published."""
        published = self.published()
        return cosigned_times(self.policy, parse_note(published.newest_note))

    def published(self) -> Signed:
        published = self.publisher.published()
        assert published is not None
        return published


@pytest.mark.parametrize("start", [aics_witness, witness_log])
def test_other_witness_cosigns_our_log(tmp_path: Path, start: Callable[..., Iterator[Other]]) -> None:
    """Growth, a new start that knows no size, the same tree again; and of another history it signs nothing."""
    log = LogSetup(tmp_path / "log")
    vkey = format_vkey(log.signer.verifier_key)
    (tmp_path / "other").mkdir()
    with start(tmp_path / "other", log.signer.verifier_key.name, vkey) as other:
        town = Town(log, other)

        async def grow(federation: Federation) -> None:
            for files in (1, 3, 300):
                federation.witness_desk.put(town.grow(files))
                assert (await town.heard.get()).published

        async def again(federation: Federation) -> None:
            published = town.published()
            target = Target(published.size, published.root, published.newest_note)
            federation.witness_desk.put(target)
            assert (await town.heard.get()).valid == ("w",)
            federation.witness_desk.put(town.grow(5))
            assert (await town.heard.get()).published

        asyncio.run(town.during(grow))
        began = int(time.time())
        asyncio.run(town.during(again))
        assert town.times()["w"] >= began
        assert town.said == []
        asyncio.run(check_regression(town, other))
        asyncio.run(offer_forks(town, other))
    log.close()


async def check_regression(town: Town, other: Other) -> None:
    """What its monitoring endpoint shows, where it has one, is the tree that we published."""
    async with make_client() as client:
        seen = await Peer(client, "w", other.url).newest_seen(town.log.signer.verifier_key) if other.evidence else None
    if other.evidence:
        assert seen is not None
        assert (seen.size, seen.root) == (town.published().size, town.published().root)


async def offer_forks(town: Town, other: Other) -> None:
    """The same key signs another history of the same size, and of a greater one: no cosignature, and it is kept."""
    size = town.published().size
    forked = FakeLog(ORIGIN, secret("log")).grow(size + 5)
    async with make_client() as client:
        peer = Peer(client, "w", other.url)
        for new in (size, size + 6):
            with pytest.raises(PeerFailed, match="got status 422"):
                await peer.cosign(forked.checkpoint(new), size, list(forked.proof(size, new)))
        with pytest.raises(Conflict) as caught:
            await peer.cosign(forked.checkpoint(), 0, [])
        assert caught.value.known_size == size
    if other.evidence:
        assert set(other.evidence()) == {ORIGIN}


def test_our_node_cosigns_a_log_that_others_wrote(tmp_path: Path) -> None:
    """aics-tlog signs and verifies, aics-witness's client carries: it accepts our cosignatures, and forks get none."""
    process = subprocess.Popen(
        [PYTHON, HERE / "aics_log.py", "22" * 32], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    witness, _ = create_node(tmp_path / "node", "node.example/w")
    allow_log(tmp_path / "node", process.stdout.readline().strip())
    node = open_node(tmp_path / "node")
    with running(node, lambda: int(time.time())) as port:
        told, _ = process.communicate(f"http://127.0.0.1:{port}\n{witness}\n", timeout=PATIENCE_S)
    assert told.splitlines() == [
        *[f"{size} True 1" for size in (1, 5, 5, 256, 257, 300)],
        "300 WitnessRejected 422",
        "400 WitnessRejected 422",
    ]
    assert [item.kind for item in node.store.evidence()].count(FORK) == 1
    node.close()
