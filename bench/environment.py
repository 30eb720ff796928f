"""A clean environment beside this one: the wheel as people install it, and the peers that are Python packages.

    with Environment(root, temporary) as environment:
        environment.python, environment.command("nextcloud-audit")
        with environment.pymerkle(size) as peer: ...             a contender that runs in a process of its own

The wheel is built from this tree and installed with the base lock, not editable, bytecode compiled, as
`pip install nextcloud-audit` does. `requirements/bench.txt` locks the peers. What can't be had raises Failed with a
reason, and its rows say "skipped".
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import Round
from bench.progress import say

PIP_TIMEOUT_S = 600
PEERS = os.path.join(os.path.dirname(__file__), "peers")


class Failed(Exception):
    """Something that a row needs is not there, and why."""


class Environment:
    """A virtual environment in a temporary directory; made when it is first needed."""

    def __init__(self, root: str, temporary: str) -> None:
        self._root, self._temporary = root, temporary
        self._directory = os.path.join(temporary, "venv")
        self._why_no_wheel: str | None = None
        self._why_no_peers: str | None = None

    @property
    def python(self) -> str:
        return self.command("python")

    def command(self, name: str) -> str:
        return os.path.join(self._directory, "bin", name)

    def make(self) -> None:
        """Makes it; what fails is remembered for the rows that need it."""
        say("making a clean environment with the wheel and the peers ...")
        try:
            run(sys.executable, "-m", "venv", self._directory)
            self._pip("install", "--require-hashes", "-r", os.path.join(self._root, "requirements", "base.txt"))
            wheels = os.path.join(self._temporary, "wheels")
            run(
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
                *("--wheel-dir", wheels, self._root),
            )
            self._pip("install", "--no-deps", "--no-index", *glob.glob(os.path.join(wheels, "*.whl")))
        except Failed as error:
            self._why_no_wheel = self._why_no_peers = str(error)
            return
        try:
            self._pip("install", "--require-hashes", "-r", os.path.join(self._root, "requirements", "bench.txt"))
        except Failed as error:
            self._why_no_peers = str(error)

    def require_wheel(self) -> None:
        if self._why_no_wheel:
            raise Failed(f"no clean environment ({self._why_no_wheel})")

    def require_peers(self) -> None:
        if self._why_no_peers:
            raise Failed(f"requirements/bench.txt is not installed ({self._why_no_peers})")

    @contextmanager
    def pymerkle(self, size: int) -> Iterator[Round]:
        """Inclusion proofs by pymerkle from a SQLite tree of so many leaves; a round asks for a few of them."""
        self.require_peers()
        database = os.path.join(self._temporary, "pymerkle.db")
        process = subprocess.Popen(
            [self.python, os.path.join(PEERS, "pymerkle_tree.py"), database, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def one_round() -> float:
            asked.write("round\n")
            asked.flush()
            line = answers.readline()
            if not line:
                raise Failed("pymerkle ended")
            return float(line)

        try:
            if answers.readline() != "ready\n":
                raise Failed("pymerkle did not start")
            yield one_round
        finally:
            asked.close()
            process.wait()
            answers.close()

    def _pip(self, *words: str) -> None:
        verb, *rest = words
        run(self.python, "-m", "pip", "--disable-pip-version-check", "--no-input", verb, "--quiet", *rest)


def clean_environment() -> dict[str, str]:
    """The variables of this process, without those that change how Python starts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*words: str) -> None:
    """Runs a command to its end; Failed with the last line of what it said."""
    done = subprocess.run(
        words,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PIP_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["no output"]
        raise Failed(f"{os.path.basename(words[0])} {' '.join(words[1:5])}: {lines[-1]}")
