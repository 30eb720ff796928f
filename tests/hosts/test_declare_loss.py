"""A log whose disk was put back to an older copy, and nobody has what came after: the way out, by the command line.

No network of its own is needed, but a minute: real processes publish a tree for each of a dozen steps.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_main_path import NODES, Served, World, run

CALM, LOST = "ä b/plan.txt", "minutes.txt"


class Ruin(World):
    """Two files; `minutes.txt` changes after the copy that is put back, together with the nodes' mirrors."""

    def stop_all(self) -> None:
        self.server.stop()
        for node in self.nodes:
            node.stop()

    def start_nodes(self) -> None:
        ports = [int(node.url.rsplit(":", 1)[1]) for node in self.nodes]
        words = [("node", "serve", "--data", self.directory / name) for name in NODES]
        self.nodes = [Served(*one, port=port) for one, port in zip(words, ports, strict=True)]

    def start_log(self) -> None:
        port = int(self.server.url.rsplit(":", 1)[1])
        self.server = Served("serve", "--data", self.log, "--scan-every", "1s", port=port)

    def copy(self, to: Path) -> None:
        """What a backup of all these machines holds: not the witnesses' memories, which never go into one."""
        to.mkdir()
        shutil.copy(self.log / "log.db", to)
        for name in NODES:
            shutil.copytree(self.directory / name / "mirror", to / name)

    def put_back(self, backup: Path) -> None:
        for file in self.log.glob("log.db*"):
            file.unlink()
        shutil.copy(backup / "log.db", self.log)
        for name in NODES:
            shutil.rmtree(self.directory / name / "mirror")
            shutil.copytree(backup / name, self.directory / name / "mirror")

    def seal(self, path: str, *more: str, expect: int = 0) -> dict[str, Any]:
        words = ("--server", self.server.url, "--seed", self.seed, "--as", path, *more)
        return run("seal", self.folder / path, *words, expect=expect)

    def reasons(self, path: str, *more: str, expect: int) -> list[str]:
        self.prove(path)
        proof = self.directory / "file.proof"
        words = ("--proof", str(proof), "--seed", str(self.seed), "--as", path, *more)
        return [finding["reason"] for finding in run("verify", self.folder / path, *words, expect=expect)["findings"]]


@pytest.fixture
def ruin(tmp_path: Path) -> Iterator[Ruin]:
    made = Ruin(tmp_path)
    made.serve()
    run("seed", "new", made.seed)
    enrolled = ("--server", made.server.url, "--seed", made.seed, "--token", made.made["token"])
    run("enrol", *enrolled, "--policy", made.log / "policy", "--auditors", made.log / "auditors")
    made.wait_scanned()
    made.stop_all()
    made.copy(tmp_path / "backup")
    made.start_nodes()
    made.start_log()
    (made.folder / LOST).write_text("second\n")
    made.wait_scanned()
    for path in (CALM, LOST):
        made.prove(path)
        made.verify(path)
    made.stop_all()
    made.put_back(tmp_path / "backup")
    made.start_nodes()
    made.start_log()
    yield made
    assert set(made.stop()) <= {0}


def refused(ruin: Ruin, *words: str) -> str:
    """What `recover` says when it does nothing."""
    command = [sys.executable, "-m", "audit", "recover", "--data", str(ruin.log), *words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_declare_loss_from_end_to_end(ruin: Ruin) -> None:
    """Nothing is signed, nobody has it, it is declared; every file is NOT PROVEN until its owner seals it."""
    ruin.wait_for(lambda: bool(ruin.status()["paused"]))
    ruin.server.stop()
    assert "--declare-loss" in refused(ruin, "--from", ruin.nodes[0].url)
    assert "say --yes" in refused(ruin, "--declare-loss")
    done = run("recover", "--data", ruin.log, "--declare-loss", "--yes")
    assert (done["origin"], done["log"]) == ("test.example/files/2", ruin.made["log"])
    assert (Path(done["before"]) / "log.db").exists()
    for name in NODES:
        run("node", "allow", "--data", ruin.directory / name, done["vkey"], ruin.server.url)
    ruin.start_log()
    ruin.wait_scanned()

    assert ruin.reasons(CALM, expect=2) == ["unknown-log"]  # the old policy: nobody is moved silently
    policies = ("--policy", str(ruin.log / "policy"), "--auditors", str(ruin.log / "auditors"))
    assert ruin.reasons(CALM, *policies, "--replace-policy", expect=2) == ["declared-loss"]
    assert ruin.reasons(LOST, expect=1) == ["pinned", "declared-loss"]

    assert ruin.seal(CALM, expect=2)["sealed_at"] is None  # a loss is accepted by name alone
    ruin.seal(CALM, "--accept", "loss")
    assert ruin.reasons(CALM, "--require-seal", expect=0) == []
    ruin.seal(LOST, "--accept", "loss")
    ruin.prove(LOST)
    ruin.verify(LOST)
    (ruin.folder / LOST).write_text("third\n")
    ruin.wait_scanned()
    ruin.prove(LOST)
    ruin.verify(LOST)

    words = ("--policy", str(ruin.log / "policy"), "--auditors", str(ruin.log / "auditors"))
    assert run("audit", "--data", ruin.directory / NODES[0], *words)["findings"] == []
    ruin.server.stop()
    checked = subprocess.run(
        [sys.executable, "-m", "audit", "fsck", "--data", str(ruin.log), "--json"],
        *(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(checked.stdout)["findings"] == []
