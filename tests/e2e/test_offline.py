"""`verify` opens no socket: shown without a network, and by listening to what the interpreter does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builder import SOURCE, World
from verifier.entry import Operation
from verifier.keys import ReaderKey, format_reader
from verifier.proof import format_proof

WATCH = """
import sys
def refuse(event, arguments):
    if event.startswith("socket.") or event in ("os.system", "subprocess.Popen"):
        raise SystemExit(f"verify did {event}")
sys.addaudithook(refuse)
from audit.__main__ import main
code = main(sys.argv[1:])
assert "socket" not in sys.modules and "_socket" not in sys.modules, "socket was imported"
sys.exit(code)
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command that verifies an honest file, as a reader with policies would type it."""
    world = World()
    world.now = int(time.time()) - 60
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.publish()
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "a.txt.proof").write_bytes(format_proof(world.prove(1)))
    (tmp_path / "policy").write_bytes(world.policy_text)
    (tmp_path / "auditors").write_bytes(world.auditors_text)
    reader = ReaderKey(world.log_name, SOURCE, world.owner.public, world.owner.blinding)
    (tmp_path / "reader").write_bytes(format_reader(reader))
    os.chmod(tmp_path / "reader", 0o600)
    files = ("--reader", "reader", "--policy", "policy", "--auditors", "auditors")
    return ["verify", "a.txt", *files, "--as", "a.txt"]


def test_verify_without_a_network(words: list[str], tmp_path: Path) -> None:
    """In a network namespace that has nothing, not even a loopback that is up, the answer is VERIFIED."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot make a network namespace here (unshare -n, as root)")
    command = [unshare, "-n", sys.executable, "-m", "audit", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=with_path())
    assert (done.returncode, done.stdout.split("\n")[0]) == (0, "VERIFIED  a.txt"), done.stderr


def test_verify_touches_no_socket(words: list[str], tmp_path: Path) -> None:
    """No socket is made, no other program started, and the socket module is not even imported."""
    command = [sys.executable, "-c", WATCH, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=with_path())
    assert done.returncode == 0, done.stderr


def with_path() -> dict[str, str]:
    """This tree is importable from anywhere."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
