"""The main path with real processes: one log, four nodes, a folder; enrol, record, publish, prove, verify, seal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.node import allow_log, create_node

NODES = ("ada", "bea", "cem", "dov")
DEADLINE_S = 60

pytestmark = pytest.mark.e2e


def run(*words: str | Path, expect: int | None = 0) -> dict[str, Any]:
    """Runs `nextcloud-audit WORDS --json`; returns what it printed."""
    command = [sys.executable, "-m", "audit", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert expect in (None, done.returncode), f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return {"exit": done.returncode, **(json.loads(done.stdout) if done.stdout.startswith("{") else {})}


class Served:
    """A process that says where it listens."""

    def __init__(self, *words: str | Path, port: int = 0) -> None:
        self._words = words
        command = [sys.executable, "-m", "audit", *map(str, words), "--listen", f"127.0.0.1:{port}"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        self.url = line.removeprefix("listening on ").strip()

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class World:
    """Everything below one directory."""

    patience_s = DEADLINE_S

    def __init__(self, directory: Path) -> None:
        self.directory, self.folder = directory, directory / "files"
        self.log, self.seed = directory / "log", directory / "seed.txt"
        self.folder.mkdir()
        (self.folder / "minutes.txt").write_text("first\n")
        (self.folder / "ä b").mkdir()
        (self.folder / "ä b" / "plan.txt").write_text("plan\n")
        self.made = run("init", "--data", self.log, "--origin", "test.example/files")
        self.nodes = [self._start_node(name) for name in NODES]
        self.server: Served

    def _start_node(self, name: str) -> Served:
        vkeys = create_node(self.directory / name, f"{name}.example")
        node = Served("node", "serve", "--data", self.directory / name)
        for vkey, file in zip(vkeys, ("policy", "auditors"), strict=True):
            text = (self.log / file).read_text().removesuffix("quorum none\n")
            (self.log / file).write_text(f"{text}witness {name} {vkey} {node.url}\nquorum none\n")
        return node

    def serve(self) -> None:
        for file in ("policy", "auditors"):
            text = (self.log / file).read_text()
            quorum = f"group nodes 3 {' '.join(NODES)}\nquorum nodes\n"
            (self.log / file).write_text(text.replace("quorum none\n", quorum))
        words = ("--source", f"folder:{self.folder}", "--scan-every", "1s", "--enrol-first")
        self.server = Served("serve", "--data", self.log, *words)
        for name in NODES:
            allow_log(self.directory / name, self.made["vkey"], self.server.url)

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.server.url + "/status", timeout=20) as answer:
            value = json.load(answer)
        assert isinstance(value, dict)
        return value

    def wait_scanned(self) -> None:
        """Until a scan that began from now on is recorded, cosigned and replayed."""
        scans = int(self.status()["scans"])

        def all_published() -> bool:
            status = self.status()
            done = status["published"] and status["audited"] and status["audited"]["size"] == status["size"]
            return int(status["scans"]) >= scans + 2 and status["pending"] == "0" and bool(done)

        self.wait_for(all_published)

    def wait_for(self, probe: Callable[[], bool]) -> None:
        """Other processes can only be watched from outside."""
        deadline = time.monotonic() + self.patience_s
        while not probe():
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.1)

    def prove(self, path: str, expect: int = 0) -> Path:
        proof = self.directory / "file.proof"
        run("prove", path, "--server", self.server.url, "--seed", self.seed, "-o", proof, expect=expect)
        return proof

    def verify(self, path: str, *more: str, expect: int = 0) -> None:
        proof = self.directory / "file.proof"
        words = ("--proof", str(proof), "--seed", str(self.seed), "--as", path, *more)
        run("verify", self.folder / path, *words, expect=expect)

    def stop(self) -> list[int]:
        running = [*self.nodes, self.server] if hasattr(self, "server") else self.nodes  # skipped before it was started
        return [served.stop() for served in running if served.process.poll() is None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("main"))
    made.serve()
    run("seed", "new", made.seed)
    enrolled = ("--server", made.server.url, "--seed", made.seed, "--token", made.made["token"])
    run("enrol", *enrolled, "--policy", made.log / "policy", "--auditors", made.log / "auditors")
    made.wait_scanned()
    yield made
    assert set(made.stop()) <= {0}


def test_main_path_verifies_an_edited_file(world: World) -> None:
    """A recorded, cosigned, replayed and proven file is VERIFIED; with one byte changed it is CHANGED."""
    file = world.folder / "minutes.txt"
    file.write_text("second\n")
    world.wait_scanned()
    world.prove("minutes.txt")
    world.verify("minutes.txt")
    file.write_text("Second\n")
    world.verify("minutes.txt", expect=1)
    file.write_text("second\n")
    world.verify("minutes.txt")


def test_main_path_follows_a_rename(world: World) -> None:
    """A renamed file keeps its history under the new path, a path in Unicode with a space included."""
    os.rename(world.folder / "ä b" / "plan.txt", world.folder / "ä b" / "plan 2.txt")
    world.wait_scanned()
    world.prove("ä b/plan 2.txt")
    world.verify("ä b/plan 2.txt")


def test_main_path_gives_nobody_else_a_proof(world: World) -> None:
    """Without the owner's signature there is no proof, whether the file exists or not."""
    for target in ("/proof/1", "/proof/999", "/proof?path=minutes.txt"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(world.server.url + target, timeout=20)
        assert caught.value.code == 401
        caught.value.close()


def test_main_path_seals(world: World) -> None:
    """A device's seal is logged, published, and satisfies --require-seal."""
    words = ("--server", world.server.url, "--seed", world.seed, "--as", "ä b/plan 2.txt")
    run("seal", world.folder / "ä b" / "plan 2.txt", *words)
    world.wait_scanned()
    world.prove("ä b/plan 2.txt")
    world.verify("ä b/plan 2.txt", "--require-seal")


def test_main_path_survives_a_kill(world: World) -> None:
    """A log that is killed and started again goes on, and what it had published is still part of what it publishes."""
    port = int(world.server.url.rsplit(":", 1)[1])
    world.server.process.kill()
    world.server.process.wait()
    assert world.server.process.stdout is not None
    world.server.process.stdout.close()
    words = ("serve", "--data", world.log, "--scan-every", "1s")
    world.server = Served(*words, port=port)
    (world.folder / "minutes.txt").write_text("third\n")
    world.wait_scanned()
    world.prove("minutes.txt")
    world.verify("minutes.txt")


def test_main_path_after_a_lost_seed(world: World) -> None:
    """A token that replaces lets the owner enrol anew: each file is NOT PROVEN until the new device has sealed it."""
    file = world.folder / "minutes.txt"
    world.prove("minutes.txt")
    world.verify("minutes.txt")
    (world.directory / "new").mkdir()
    world.seed = world.directory / "new" / "seed.txt"
    run("seed", "new", world.seed)
    plain = run("token", "--data", world.log, "--user", world.made["user"])["token"]
    words = ("--policy", world.log / "policy", "--auditors", world.log / "auditors", "--server", world.server.url)
    run("enrol", *words, "--seed", world.seed, "--token", plain, expect=4)
    token = run("token", "--data", world.log, "--user", world.made["user"], "--replace")["token"]
    run("enrol", *words, "--seed", world.seed, "--token", token)
    run("enrol", *words, "--seed", world.directory / "seed.txt", "--token", token, expect=4)  # used, and no way back
    world.wait_scanned()
    world.prove("minutes.txt")
    world.verify("minutes.txt", expect=2)
    sealing = ("seal", file, "--server", world.server.url, "--seed", world.seed, "--as", "minutes.txt")
    said = subprocess.run(
        [sys.executable, "-m", "audit", *map(str, sealing)], capture_output=True, text=True, check=False
    )
    named = re.search(r"not accepted: --accept ([0-9a-f]{16}:[0-9]+) ", said.stderr)
    assert named is not None, said.stderr
    run(*sealing, "--accept", named[1])
    world.wait_scanned()
    world.prove("minutes.txt")
    world.verify("minutes.txt", "--require-seal")
    run("fsck", "--data", world.log)
