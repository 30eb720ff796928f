"""One log and its nodes as real processes on loopback: started, copied and stopped from outside.

Everything goes through the installed command `nextcloud-audit`, as an operator would type it. Only copying a
deployment looks into its directories: databases are copied with SQLite's own backup, while their processes run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

ORIGIN = "demo.example/files"
NODES = ("ada", "bea", "cem", "dov")
THRESHOLD = 3
START_TIMEOUT_S = 60
PUBLISH_TIMEOUT_S = 120
POLL_S = 0.1

T = TypeVar("T")


class DemoFailed(Exception):
    """Something went otherwise than the demo says. The message is for the user."""


def command() -> list[str]:
    """The installed command, or the same program by its module where no script was installed."""
    script = Path(sys.executable).with_name("nextcloud-audit")
    return [str(script)] if script.exists() else [sys.executable, "-m", "audit"]


def run(*words: str, expect: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `nextcloud-audit WORDS` to its end; another exit code than expected stops the demo."""
    done = subprocess.run(
        [*command(), *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd, check=False
    )
    if expect is not None and done.returncode != expect:
        shown = f"{shown_command(*words)}: exit {done.returncode}, want {expect}\n{done.stdout}{done.stderr}"
        raise DemoFailed(shown)
    return done


def together(commands: list[tuple[str, ...]]) -> None:
    """Runs several commands at once."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda words: run(*words), commands))


def shown_command(*words: str) -> str:
    return shlex.join(["nextcloud-audit", *words])


class Served:
    """A process that says `listening on URL`, with its log beside its directory."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.directory = directory
        self.log_path = directory.with_name(directory.name + ".log")
        with open(self.log_path, "ab") as output:
            start = output.tell()
            words = (*command(), *words, "--listen", "127.0.0.1:0")
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._said_from = start

    @cached_property
    def url(self) -> str:
        """Where it listens; waits until it does."""
        return wait_for(lambda: self._find_url(self._said_from), START_TIMEOUT_S, f"{self.directory.name} to listen")

    def _find_url(self, start: int) -> str | None:
        if self.process.poll() is not None:
            raise DemoFailed(f"{self.directory.name} ended: {self.log_path.read_text()[-2000:]}")
        for line in self.log_path.read_bytes()[start:].decode(errors="replace").splitlines():
            if line.startswith("listening on "):
                return line.removeprefix("listening on ").strip()
        return None

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Deployment:
    """A log and four nodes below one directory; three of four must cosign, and three of four must replay."""

    def __init__(self, directory: Path, source: Path | None) -> None:
        self.directory, self.source = directory, source
        self.log: Served | None = None
        self.nodes: list[Served] = []

    def create(self) -> str:
        """Makes keys and stores; returns the enrolment token."""
        self.directory.mkdir(parents=True, exist_ok=True)
        together([("node", "init", "--data", str(self.directory / n), "--name", f"{n}.example") for n in NODES])
        made = json.loads(run("init", "--data", str(self.directory / "log"), "--origin", ORIGIN, "--json").stdout)
        self.vkey = str(made["vkey"])
        return str(made["token"])

    def start(self) -> None:
        """Starts the nodes, writes the policies with their addresses, then starts the log and has it allowed."""
        for name in NODES:
            data = self.directory / name
            self.nodes.append(Served(data, "node", "serve", "--data", str(data)))
        described = [get_json(node.url + "/") for node in self.nodes]
        for kind, file in (("witness", "policy"), ("auditor", "auditors")):
            (self.directory / "log" / file).write_text(self._policy([str(d[kind]["vkey"]) for d in described]))
        data = self.directory / "log"
        scan = ("--source", f"folder:{self.source}", "--scan-every", "1s") if self.source else ()
        scan = (*scan, "--publish-after", "1s")
        self.log = Served(data, "serve", "--data", str(data), *scan)
        url = self.log.url
        together([("node", "allow", "--data", str(self.directory / name), self.vkey, url) for name in NODES])

    def _policy(self, vkeys: list[str]) -> str:
        lines = [f"log {self.vkey}"]
        for name, vkey, node in zip(NODES, vkeys, self.nodes, strict=True):
            lines.append(f"witness {name} {vkey} {node.url}")
        return "\n".join([*lines, f"group nodes {THRESHOLD} {' '.join(NODES)}", "quorum nodes", ""])

    @property
    def url(self) -> str:
        assert self.log is not None
        return self.log.url

    def status(self) -> dict[str, Any]:
        return get_json(self.url + "/status")

    def wait_scanned(self) -> None:
        """Until a whole scan that began from now on is recorded, cosigned and replayed."""
        scans = int(self.status()["scans"])
        wait_for(lambda: int(self.status()["scans"]) >= scans + 2, PUBLISH_TIMEOUT_S, "a scan of the folder")
        self.wait_published()

    def wait_witnessed(self) -> None:
        """Until the witnesses' quorum has cosigned the newest tree, whatever auditors say."""
        wait_for(self._all_witnessed, PUBLISH_TIMEOUT_S, "witnesses")

    def _all_witnessed(self) -> bool:
        status = self.status()
        return bool(status["published"]) and status["published"]["size"] == status["size"]

    def wait_published(self) -> None:
        wait_for(self._all_published, PUBLISH_TIMEOUT_S, "witnesses and auditors")

    def _all_published(self) -> bool:
        status = self.status()
        audited, published = status["audited"], status["published"]
        return not int(status["pending"]) and bool(audited) and audited["size"] == published["size"] == status["size"]

    def copy(self, directory: Path) -> Deployment:
        """The same keys and history once more, not started: what a dishonest operator can always make."""
        other = Deployment(directory, None)
        other.vkey = self.vkey
        copy_live(self.directory, directory)
        return other

    def stop(self) -> None:
        for served in [self.log, *self.nodes]:
            if served is not None:
                served.stop()
        self.log, self.nodes = None, []


def copy_live(source: Path, target: Path) -> None:
    """Copies a directory whose databases may be in use."""
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".db":
            copy.parent.mkdir(parents=True, exist_ok=True)
            with sqlite3.connect(path) as old, sqlite3.connect(copy) as new:
                old.backup(new)
            os.chmod(copy, 0o600)
        elif not path.name.endswith(("-wal", "-shm", ".lock", ".log")):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)


def get_json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        value = json.load(answer)
    assert isinstance(value, dict)
    return value


def wait_for(probe: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Asks until the answer is true. Processes are watched from outside here, so there is nothing to wait on."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            value = probe()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            value = None
        if value:
            return value
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(POLL_S)
