"""README, "Set up a federation of four": its lines run as they stand, with real processes; the ports alone differ."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
PORTS = ("8460", "8461", "8462", "8463", "8464")
TIMEOUT_S = 240  # twelve seconds of processor time, on machines that do other things as well

pytestmark = pytest.mark.e2e


def commands() -> str:
    """The block of commands in that section."""
    section = re.search(r"^## Set up a federation of four\n(.*?)^## ", README.read_text("utf-8"), re.M | re.S)
    assert section is not None
    (block,) = re.findall(r"^```bash\n(.*?)^```$", section[1], re.M | re.S)
    return str(block)


def on_free_ports(block: str) -> str:
    """The same commands where nobody else listens. The ports are taken all at once, so that they differ."""
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", block)) == set(PORTS)
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    free = {port: str(sock.getsockname()[1]) for port, sock in zip(PORTS, taken, strict=True)}
    for sock in taken:
        sock.close()
    return re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{free[found[1]]}", block)


def run(block: str, directory: Path) -> tuple[int, str]:
    """Exit code and output of the block, in a process group that is gone afterwards, whatever happened."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    output = directory.with_suffix(".out")
    with open(output, "wb") as file:
        process = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", block],
            cwd=directory,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    return code, output.read_text("utf-8", "replace")


def test_readme_federation_works_word_for_word(tmp_path: Path) -> None:
    """Four nodes, a log, an owner: the README's lines end in VERIFIED by three of four, and all nodes answer."""
    directory = tmp_path / "federation"
    directory.mkdir()
    code, output = run(on_free_ports(commands()), directory)
    assert code == 0, output
    assert "VERIFIED  files/report.txt" in output, output
    assert output.count("(quorum operators (3 of 4))") == 2, output
    assert output.count("nothing to say: quorum operators (3 of 4), q = 3, ov = 2") == 2, output
    assert output.count("health       witness answered ") >= 3, output
