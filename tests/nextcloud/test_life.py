"""A user's files in a Nextcloud, from the first upload to `verify`, with real processes: one log, four nodes.

Against the tests' own Nextcloud, served on loopback; and against a real one where NEXTCLOUD_URL,
NEXTCLOUD_ADMIN_USER and NEXTCLOUD_ADMIN_PASSWORD name it, with a throw-away user.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.e2e.test_main_path import NODES, Served, World, run
from tests.nextcloud.clouds import Cloud, Hand, fake_cloud, real_cloud, throw_away_user
from verifier.login import Login, format_login

pytestmark = pytest.mark.e2e
START = 1_700_000_000


@asynccontextmanager
async def on_loopback(cloud: Cloud) -> AsyncIterator[Cloud]:
    """The fake behind HTTP, since other processes ask it; a real one as it is."""
    if cloud.fake is None:
        yield cloud
        return
    server = uvicorn.Server(uvicorn.Config(cloud.fake.app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield cloud._replace(url=f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)


class Life(World):
    """The processes around one user's files."""

    hand: Hand

    def record(self, url: str) -> None:
        """Starts the log on this Nextcloud, and enrols the user."""
        for file in ("policy", "auditors"):
            text = (self.log / file).read_text()
            (self.log / file).write_text(
                text.replace("quorum none\n", f"group nodes 3 {' '.join(NODES)}\nquorum nodes\n")
            )
        account = {"user": self.hand.uid, "password": self.hand.password}
        config = self.log / "nextcloud.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"url": url, "accounts": [account]}))
        words = ("--source", f"nextcloud:{url}", "--scan-every", "1s", "--publish-after", "1s", "--enrol-first")
        self.server = Served("serve", "--data", self.log, *words)
        for name in NODES:
            run("node", "allow", self.made["vkey"], self.server.url, "--data", self.directory / name)
        token = run("token", "--data", self.log, "--user", self.hand.uid)["token"]
        run("seed", "new", self.seed)
        policies = ("--policy", self.log / "policy", "--auditors", self.log / "auditors", "--user", self.hand.uid)
        run("enrol", "--server", self.server.url, "--seed", self.seed, "--token", token, *policies)

    async def settle(self) -> None:
        """Until what the user did is recorded, cosigned and replayed."""
        await asyncio.to_thread(self.wait_scanned)

    def judge(self, path: str, data: bytes, expect: int = 0) -> dict[str, Any]:
        """What `verify` says of these bytes at this path, with the proof that the log gives now."""
        copy, proof = self.directory / "copy", self.directory / "copy.proof"
        copy.write_bytes(data)
        run("prove", path, "--server", self.server.url, "--seed", self.seed, "-o", proof)
        words = ("--proof", proof, "--seed", self.seed, "--as", path)
        return run("verify", copy, *words, expect=expect)

    def steps(self) -> list[str]:
        """The operations in the proof that was judged last."""
        command = [sys.executable, "-m", "audit", "inspect", str(self.directory / "copy.proof"), "--json"]
        shown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return [step["operation"] for step in shown["steps"]]


@pytest.fixture(params=["fake", "real"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    if request.param == "fake":
        return fake_cloud()
    real = real_cloud()
    if real is None:
        pytest.skip("NEXTCLOUD_URL is not set: no real Nextcloud was asked")
    return real


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    codes = made.stop()
    assert set(codes) <= {0}


def test_life_of_files_ends_in_verify(cloud: Cloud, life: Life) -> None:
    """Each thing that users do is in the history as what it was, and the current bytes are VERIFIED, no others."""

    async def run_life() -> None:
        async with on_loopback(cloud) as reached, throw_away_user(reached) as (hand, session):
            life.hand = hand
            assert await hand.put("old.txt", b"before us", START) == 201
            life.record(reached.url)
            await life.settle()
            life.judge("old.txt", b"before us")
            assert life.steps() == ["adopted"]
            await edits(life, hand)
            await moves(life, hand)
            await versions(life, hand, session)
            await trash(life, hand, session)
            await equal_metadata(life, hand)
            await as_user(life, reached)
            server_word(life)

    asyncio.run(run_life())


async def edits(life: Life, hand: Hand) -> None:
    """Twenty edits, some within one look; the last one stands, every one that was seen is a version."""
    for number in range(20):
        await hand.put("notes.txt", b"edit %d" % number, START + 10 * number)
        if number in (0, 9):
            await life.settle()
    await life.settle()
    life.judge("notes.txt", b"edit 19")
    assert life.steps()[0] == "created"
    assert set(life.steps()[1:]) <= {"written", "gap"}
    older = life.judge("notes.txt", b"edit 9", expect=1)
    assert older["findings"][0]["reason"] == "bytes"
    assert older["older_version"] is not None


async def moves(life: Life, hand: Hand) -> None:
    """A rename and a move of the folder keep the history; a copy starts one of its own."""
    assert await hand.make_folder("Büro") == 201
    assert await hand.move("notes.txt", "Büro/notes 2.txt") == 201
    await life.settle()
    assert await hand.move("Büro", "Office") == 201
    await life.settle()
    life.judge("Office/notes 2.txt", b"edit 19")
    assert life.steps()[-2:] == ["moved", "moved"]
    assert await hand.copy("Office/notes 2.txt", "copy.txt") == 201
    await life.settle()
    life.judge("copy.txt", b"edit 19")
    assert life.steps()[0] in ("copied", "created")


async def versions(life: Life, hand: Hand, session: Any) -> None:
    """A version that is brought back is a revert to what was logged."""
    await hand.put("contract.txt", b"one", START)
    await life.settle()
    await hand.put("contract.txt", b"two", START + 100)
    await life.settle()
    node = await session.stat("contract.txt")
    assert await hand.restore_version(node.file_id, str(START)) in (201, 204)
    await life.settle()
    life.judge("contract.txt", b"one")
    assert life.steps() == ["created", "written", "reverted"]


async def trash(life: Life, hand: Hand, session: Any) -> None:
    """Deleted is NOT PROVEN as current; restored, the same history goes on."""
    assert await hand.delete("contract.txt") == 204
    await life.settle()
    gone = life.judge("contract.txt", b"one", expect=2)
    assert gone["findings"][0]["reason"] == "deleted"
    (item,) = await session.list_trash()
    assert await hand.restore_from_trash(item.name) == 201
    await life.settle()
    life.judge("contract.txt", b"one")
    assert life.steps()[-2:] == ["deleted", "restored"]


async def equal_metadata(life: Life, hand: Hand) -> None:
    """Other bytes under the same size, time and etag end as a new version or as altered, never unnoticed."""
    await hand.bulk("pay.txt", b"pay 100 to alice", START)
    await life.settle()
    life.judge("pay.txt", b"pay 100 to alice")
    await hand.bulk("pay.txt", b"pay 999 to mario", START)
    await life.settle()
    life.judge("pay.txt", b"pay 100 to alice", expect=1)
    assert life.steps()[-1] in ("written", "altered")


async def as_user(life: Life, cloud: Cloud) -> None:
    """With an app password alone the user gets the same proof; a wrong one gets none."""
    login, proof = life.directory / "login.json", life.directory / "user.proof"
    login.touch(mode=0o600)
    login.write_bytes(format_login(Login(cloud.url, life.hand.uid, life.hand.password)))
    words = ("--server", life.server.url, "--login", login, "-o", proof)
    asked = await asyncio.to_thread(run, "prove", "old.txt", *words)
    assert asked["steps"] == "1"
    login.write_bytes(format_login(Login(cloud.url, life.hand.uid, "wrong")))
    await asyncio.to_thread(run, "prove", "old.txt", *words, expect=4)


def server_word(life: Life) -> None:
    """The whole log derives again, and nothing that Nextcloud shows is uncovered."""
    assert life.server.stop() == 0
    run("fsck", "--data", life.log)
    report = run("coverage", "--data", life.log, expect=None)
    assert report["exit"] == 0, report
