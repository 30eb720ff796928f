"""Five hosts, each with a log over a folder and a node that cosigns all five, as real processes in namespaces.

    DIR/1/log  DIR/1/node  DIR/1/files  DIR/1/log.txt  DIR/1/node.txt       and so on; each log's quorum is 4 of 5

Files change all the time, and everything that is published is collected all the time, from the wire and the stores,
for `tests.hosts.checks`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from audit.directory import AUDITORS_FILE, POLICY_FILE, Created, create_log
from audit.node import allow_log, create_node
from tests.hosts import network
from tests.hosts.checks import Seen
from tests.hosts.network import HOSTS, Inside, address, namespace
from verifier.note import parse_vkey

LOG_PORT, NODE_PORT, RELAY_PORT = 8460, 8461, 9460
QUORUM = 4
START_S = 60
RECOVER_S = 30  # after the end of a fault every honest log publishes again
AUDITED_S = 60  # and is replayed
POLL_S = 0.1
MAX_FILES = 25
LOG, NODE = "log", "node"
PROGRAM = Path(sys.executable).with_name("nextcloud-audit")


class Host:
    """A host's two processes and what they work on."""

    def __init__(self, world: Path, number: int) -> None:
        self.number, self.home = number, world / str(number)
        self.files = self.home / "files"
        self.files.mkdir(parents=True)
        self.inside = Inside(number)
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.made: Created = create_log(str(self.home / LOG), f"host{number}.example/files", int(time.time()))
        self.vkeys = create_node(self.home / NODE, f"host{number}.example")
        self.key = parse_vkey(self.made.vkey)

    @property
    def origin(self) -> str:
        return self.key.name

    def url(self, what: str) -> str:
        return f"http://{address(self.number)}:{LOG_PORT if what == LOG else NODE_PORT}"

    def start(self, what: str, fake_time: str | None = None, home: Path | None = None, at: int | None = None) -> None:
        """Starts the log or the node; `home` and `at` are those of a copy on another host."""
        home = home or self.home
        words = ["serve", "--source", f"folder:{home / 'files'}", "--scan-every", "1s", "--publish-after", "1s"]
        words = words if what == LOG else ["node", "serve"]
        listen = self.url(what).removeprefix("http://")
        before = ["ip", "netns", "exec", namespace(at or self.number)]
        if fake_time:
            before += ["env", f"LD_PRELOAD={network.find_faketime()}", f"FAKETIME={fake_time}"]
        command = [*before, str(PROGRAM), *words, "--data", str(home / what), "--listen", listen, "--behind-tls"]
        with open(home / f"{what}.txt", "a") as said:
            self.running[f"{what}@{home}"] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True
            )

    def stop(self, what: str, how: signal.Signals = signal.SIGKILL, home: Path | None = None) -> None:
        process = self.running.pop(f"{what}@{home or self.home}")
        process.send_signal(how)
        process.wait(60)

    def halt(self) -> None:
        """Both processes end as a service manager ends them."""
        for what in (LOG, NODE):
            self.stop(what, signal.SIGTERM)

    def run(self, fake_time: str | None = None) -> None:
        for what in (NODE, LOG):
            self.start(what, fake_time)

    def died(self) -> list[str]:
        return [what for what, process in self.running.items() if process.poll() is not None]

    def ask(self, what: str, path: str, body: bytes | None = None, timeout_s: float = 5) -> bytes:
        """A request from the host itself, which no fault of the network touches."""

        def request() -> bytes:
            with urllib.request.urlopen(self.url(what) + path, data=body, timeout=timeout_s) as answer:
                data: bytes = answer.read()
                return data

        return self.inside.run(request)

    def status(self) -> dict[str, Any]:
        value = json.loads(self.ask(LOG, "/status"))
        assert isinstance(value, dict)
        return value

    def answers(self, what: str) -> bool:
        try:
            self.ask(what, "/healthz")
        except OSError:
            return False
        return True

    def words(self, what: str, lines: int = 15) -> str:
        """The last words of a process, for whoever reads a failure."""
        return "\n".join((self.home / f"{what}.txt").read_text().splitlines()[-lines:])


class World:
    """Everything, from `start` to `close`."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.directory, self.chance = directory, chance
        network.create()
        self.hosts = {number: Host(directory, number) for number in HOSTS}
        for host in self.hosts.values():
            self._write_policies(host)
        self.seen = Seen({host.origin: host.home / LOG for host in self.hosts.values()}, self._nodes())
        self.policies = self.seen.policies
        self.dishonest: set[int] = set()
        self.paused: set[int] = set()  # hosts whose store is another one for now: nothing is read from it
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._change_files, self._watch)]
        self._marks = 0
        self.errors: list[BaseException] = []

    def _nodes(self) -> list[Path]:
        return [host.home / NODE for host in self.hosts.values()]

    def _write_policies(self, host: Host) -> None:
        for role, file in enumerate((POLICY_FILE, AUDITORS_FILE)):
            lines = [f"log {host.made.vkey}"]
            for peer in self.hosts.values():
                lines.append(f"witness h{peer.number} {peer.vkeys[role]} {peer.url(NODE)}")
                if role == 0:
                    allow_log(peer.home / NODE, host.made.vkey, host.url(LOG))
            lines += [f"group all {QUORUM} {' '.join(f'h{number}' for number in HOSTS)}", "quorum all"]
            (host.home / LOG / file).write_text("".join(line + "\n" for line in lines))

    def start(self) -> None:
        for host in self.hosts.values():
            for what in (NODE, LOG):
                host.start(what)
        for thread in self._threads:
            thread.start()
        self.all_publish(within_s=START_S)

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            if thread.ident:
                thread.join(30)
        network.remove()
        for host in self.hosts.values():
            host.inside.close()
            for process in host.running.values():
                process.wait(30)

    @property
    def honest(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.number not in self.dishonest]

    # -- what goes on all the time --

    def _change_files(self) -> None:
        chance = random.Random(self.chance.random())
        while not self._closing.wait(0.15):
            host = self.hosts[chance.choice(list(HOSTS))]
            try:
                change_a_file(host.files, chance)
            except OSError:
                pass  # a directory that is being put back

    def _watch(self) -> None:
        """Reads what each log publishes and has recorded, over and over."""
        try:
            while not self._closing.wait(0.3):
                for host in self.hosts.values():
                    try:
                        self.seen.add_note(host.ask(LOG, "/checkpoint"))
                    except OSError:
                        pass  # down, or nothing published yet
                    if host.number not in self.paused | self.dishonest:
                        self.seen.look(host.origin)
        except BaseException as error:
            self.errors.append(error)
            raise

    # -- waiting, always for something --

    def wait_for(self, what: str, probe: Callable[[], bool], within_s: float) -> float:
        """Seconds until it is true. Other processes can only be watched from outside."""
        begin = time.monotonic()
        while not probe():
            took = time.monotonic() - begin
            assert took < within_s, f"{what}: not after {took:.0f} s\n{self.describe()}"
            time.sleep(POLL_S)
        return time.monotonic() - begin

    def hold(self, seconds: float) -> None:
        """How long a fault lasts; nothing is waited for."""
        self._closing.wait(seconds)

    def mark(self, hosts: Iterable[Host] | None = None) -> str:
        """A new file on these hosts: what is published with it in it was published after now."""
        self._marks += 1
        name = f"mark-{self._marks}"
        for host in hosts or self.honest:
            (host.files / name).write_text(name)
        return name

    def all_publish(self, hosts: list[Host] | None = None, within_s: float = RECOVER_S) -> tuple[float, float]:
        """Seconds until each has published, and until each was replayed, a file that is written now."""
        hosts = hosts or self.honest
        name, begin = self.mark(hosts), time.monotonic()
        self.wait_for("published", lambda: all(self.is_published(host, name) for host in hosts), within_s)
        published = time.monotonic() - begin
        self.wait_for("replayed", lambda: all(self.seen.is_audited(h.origin, name) for h in hosts), AUDITED_S)
        return published, time.monotonic() - begin

    def is_published(self, host: Host, name: str) -> bool:
        """Whether the log serves a checkpoint, with its quorum, that covers this file."""
        index = self.seen.leaf_index(host.origin, name)
        if index is None:
            return False
        try:
            note = host.ask(LOG, "/checkpoint")
        except OSError:
            return False
        self.seen.add_note(note)
        return self.seen.quorum_size(note) > index

    def recover(self) -> tuple[float, float]:
        """The end of a fault: everyone publishes again in time, and every invariant holds."""
        took = self.all_publish()
        self.check()
        return took

    def check(self) -> None:
        assert not self.errors, self.errors
        for host in self.hosts.values():
            assert not host.died(), f"{host.died()}: ended by itself\n{self.describe()}"
        self.seen.check({host.origin for host in self.honest})
        checks = [(host, self._fsck(host)) for host in self.honest]
        for host, process in checks:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, f"fsck of host {host.number}: {out}{err}"

    def _fsck(self, host: Host) -> subprocess.Popen[str]:
        command = [str(PROGRAM), "fsck", "--data", str(host.home / LOG)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def sizes(self, hosts: Iterable[Host]) -> dict[int, int]:
        """By host, the size of the newest tree that had its quorum."""
        return {host.number: self.seen.published_size(host.origin) for host in hosts}

    def describe(self) -> str:
        lines = []
        for host in self.hosts.values():
            try:
                status = host.status()
                lines.append(f"host {host.number}: {status}")
            except OSError as error:
                lines.append(f"host {host.number}: {error}")
            lines += [host.words(what) for what in (LOG, NODE)]
        return "\n".join(lines)


def change_a_file(folder: Path, chance: random.Random) -> None:
    """Creates, writes, renames or deletes some file."""
    names = [path for path in folder.iterdir() if not path.name.startswith("mark-")]
    data = chance.randbytes(chance.randrange(1, 2_000))
    new = folder / f"file-{chance.randrange(10**9)}"
    if not names or len(names) < MAX_FILES and chance.random() < 0.3:
        new.write_bytes(data)
    elif chance.random() < 0.6:
        chance.choice(names).write_bytes(data)
    elif chance.random() < 0.5:
        chance.choice(names).rename(new)
    else:
        chance.choice(names).unlink()


def copy_directory(source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    os.sync()
