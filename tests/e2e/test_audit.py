"""The periodic audit with real processes: an honest log, then one that lies with the honest one's key."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from audit.mirror import Mirror
from audit.node import allow_log, create_node, read_key
from tests.e2e.test_main_path import NODES, World, run
from tests.fakes import FakeLog, digest
from tests.reference import mth
from tests.vector_cases.evidence import tips_below
from verifier.note import cosign, format_note, parse_note, parse_private_key
from verifier.tile import ENTRIES, encode_entry_bundle, encode_hash_tile, parse_tile_path

pytestmark = pytest.mark.e2e


class Liar(BaseHTTPRequestHandler):
    """Serves the checkpoint and the tiles of a fake log."""

    log: FakeLog
    note: bytes

    def do_GET(self) -> None:
        data = self.note if self.path == "/checkpoint" else self._tile()
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"")

    def _tile(self) -> bytes | None:
        tile, leaves = parse_tile_path(self.path.removeprefix("/")), self.log.leaves
        if tile.level == ENTRIES:
            items = leaves[tile.number * 256 :][: tile.width]
        else:
            span = 256**tile.level
            starts = range(tile.number * 256 * span, len(leaves) - span + 1, span)
            items = [mth(leaves[start : start + span]) for start in starts][: tile.width]
        encode = encode_entry_bundle if tile.level == ENTRIES else encode_hash_tile
        return encode(items) if len(items) == tile.width else None

    def log_message(self, *_: object) -> None:
        """Says nothing on standard error."""


class Scene:
    """A log and its nodes, a node `eve` that audits it, and the means to lie in the log's name."""

    def __init__(self, world: World) -> None:
        self.world, self.eve = world, world.directory / "eve"
        create_node(self.eve, "eve.example")
        allow_log(self.eve, world.made["vkey"], world.server.url)

    def audit(self, node: Path, *more: str, policy: bool = True) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "audit", "audit", "--data", str(node), *more]
        words += (
            ["--policy", str(self.world.log / "policy"), "--auditors", str(self.world.log / "auditors")]
            if policy
            else []
        )
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def fake(self) -> FakeLog:
        """A log with the real one's key and leaves, as far as eve holds them."""
        signer = parse_private_key((self.world.log / "log.key").read_text().removesuffix("\n"))
        log = FakeLog(signer.verifier_key.name, signer.secret_bytes())
        (path,) = (self.eve / "mirror").glob("*.db")
        mirror = Mirror(path)
        log.leaves = [leaf for part in mirror.held(0, mirror.size) for leaf in part]
        mirror.close()
        log.tips = tips_below(log, len(log.leaves))
        return log

    def judge(self, findings: list[dict[str, str]], kind: str) -> None:
        """A third person with nothing but public keys is convinced, in a process of its own."""
        found = next(one for one in findings if one["kind"] == kind)
        words = ("verify", "--evidence", found["evidence"], "--policy", self.world.log / "policy")
        assert run(*words, expect=3)["proves"] == kind


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    world = World(tmp_path_factory.mktemp("audit"))
    world.serve()
    run("seed", "new", world.seed)
    enrolled = ("--server", world.server.url, "--seed", world.seed, "--token", world.made["token"])
    run("enrol", *enrolled, "--policy", world.log / "policy", "--auditors", world.log / "auditors")
    world.wait_scanned()
    yield Scene(world)
    world.stop()


@pytest.fixture(scope="module")
def honest(scene: Scene) -> Scene:
    """The scene after audits of an honest log that said nothing."""
    ok, report = scene.world.directory / "audit.ok", scene.world.directory / "report.json"
    for text in ("first\n", "second\n"):
        if text != "first\n":
            (scene.world.folder / "minutes.txt").write_text(text)
            scene.world.wait_scanned()
        done = scene.audit(scene.eve, "--last-success", str(ok), "--report", str(report), "--budget", "5m")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ok.read_text().strip().isdigit()
    assert json.loads(report.read_text())["findings"] == []
    return scene


def grown(log: FakeLog) -> None:
    log.grow(3)


def forked(log: FakeLog) -> None:
    log.leaves[0] = log.leaves[0][:-1] + bytes([log.leaves[0][-1] ^ 1])
    log.grow(3)


def chain_broken(log: FakeLog) -> None:
    log.add_entry(sorted(log.tips)[0], digest(b"x", 1), seq=99)
    log.add_map()


def map_wrong(log: FakeLog) -> None:
    log.add_entry(sorted(log.tips)[0], digest(b"x", 1))
    log.add_map(digest(b"map", 0))


def lie(scene: Scene, tmp_path: Path, log: FakeLog, note: bytes) -> list[dict[str, str]]:
    """What eve finds when the log at her address is this one. Her directory is a copy."""
    eve, ok = tmp_path / "eve", tmp_path / "ok"
    shutil.copytree(scene.eve, eve)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneLiar", (Liar,), {"log": log, "note": note}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        allow_log(eve, scene.world.made["vkey"], f"http://127.0.0.1:{server.server_port}")
        done = scene.audit(eve, "--json", "--last-success", str(ok))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    value = json.loads(done.stdout)
    assert value["exit"] == done.returncode
    assert not ok.exists()
    findings: list[dict[str, str]] = value["findings"]
    return findings


@pytest.mark.parametrize(
    ("change", "kind"), [(forked, "fork"), (chain_broken, "chain-broken"), (map_wrong, "map-wrong")]
)
def test_audit_convicts_a_lying_log(
    honest: Scene, tmp_path: Path, change: Callable[[FakeLog], None], kind: str
) -> None:
    """A fork, a broken chain and a wrong map: exit 3, and a file that convinces a third person."""
    log = honest.fake()
    change(log)
    honest.judge(lie(honest, tmp_path, log, log.checkpoint()), kind)


def test_audit_convicts_nobody_for_growing(honest: Scene, tmp_path: Path) -> None:
    """The same with honest leaves: the missing quorum is all that there is to say."""
    log = honest.fake()
    grown(log)
    assert [one["kind"] for one in lie(honest, tmp_path, log, log.checkpoint())] == ["quorum-lost"]


def test_audit_convicts_a_log_that_was_rolled_back(honest: Scene, tmp_path: Path) -> None:
    """A smaller tree, signed as the newest by witnesses that had signed a bigger one."""
    log = honest.fake()
    size = next(index for index, leaf in enumerate(log.leaves) if leaf[:1] == b"\x02") + 1
    note = parse_note(log.checkpoint(size))
    signers = [read_key(honest.world.directory / name / "witness.key") for name in NODES]
    lines = [cosign(note.text, signer, 1_900_000_000) for signer in signers]
    note = note._replace(signatures=(*note.signatures, *lines))
    honest.judge(lie(honest, tmp_path, log, format_note(note)), "rollback")


def test_audit_says_stale_and_unreachable(honest: Scene, tmp_path: Path) -> None:
    """An old tree is exit 2; a log that is not there exit 1, in one line; neither renews the last success."""
    ok = tmp_path / "ok"
    honest.world.wait_for(
        lambda: honest.audit(honest.eve, "--max-age", "0s", "--last-success", str(ok)).returncode == 2
    )
    allow_log(honest.eve, honest.world.made["vkey"], "http://127.0.0.1:9")
    done = honest.audit(honest.eve, "--last-success", str(ok))
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert done.stdout.startswith("unreachable test.example/files: the log: ")
    allow_log(honest.eve, honest.world.made["vkey"], honest.world.server.url)
    assert not ok.exists()
    assert honest.audit(honest.eve, "--last-success", str(ok)).returncode == 0
    assert ok.exists()
