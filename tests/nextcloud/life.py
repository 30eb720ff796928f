"""The processes around the files of a Nextcloud's users: one log, four nodes, and each user's own device.

life.record(cloud.url, [hand])            starts the log on this Nextcloud; each user enrols
await life.settle()                       until what they did is recorded, cosigned and replayed
life.judge("a.txt", b"one")               what `verify` says of these bytes, as the first user
life.steps()                              ["created", "written"]: the proof that was judged last
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from tests.e2e.test_main_path import NODES, Served, World, run
from tests.nextcloud.clouds import Cloud, Hand
from verifier.login import Login, format_login

START = 1_700_000_000
OFTEN, NEVER = "1s", "10h"  # between scans


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
    """One log and its nodes, beside a Nextcloud. The first user who enrols is the one that `judge` asks as."""

    url: str
    hands: Sequence[Hand]

    def record(
        self,
        url: str,
        hands: Sequence[Hand],
        scan_every: str = OFTEN,
        instance: bool = False,
        host: dict[str, str] | None = None,
    ) -> None:
        """Starts the log on this Nextcloud, and enrols the users, the organisation's root before them."""
        for file in ("policy", "auditors"):
            text = (self.log / file).read_text()
            (self.log / file).write_text(
                text.replace("quorum none\n", f"group nodes 3 {' '.join(NODES)}\nquorum nodes\n")
            )
        self.url, self.hands = url, hands
        accounts = [{"user": hand.uid, "password": hand.password} for hand in hands]
        config = self.log / "nextcloud.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"url": url, "accounts": accounts} | ({} if host is None else {"host": host})))
        self.start(scan_every)
        for name in NODES:
            run("node", "allow", self.made["vkey"], self.server.url, "--data", self.directory / name)
        if instance:
            self._enrol_instance()
        for hand in hands:
            self.enrol(hand)

    def start(self, scan_every: str = OFTEN, *more: str | Path, port: int = 0) -> None:
        """The log. A `port` that it had before is one that others still know."""
        words = ("--source", f"nextcloud:{self.url}", "--publish-after", "1s", "--enrol-first", *more)
        self.server = Served("serve", "--data", self.log, "--scan-every", scan_every, *words, port=port)

    @property
    def port(self) -> int:
        return int(self.server.url.rsplit(":", 1)[1])

    def enrol(self, hand: Hand) -> None:
        token = run("token", "--data", self.log, "--user", hand.uid)["token"]
        self._enrol(self.seed_of(hand), token, "--user", hand.uid)

    @property
    def instance(self) -> Path:
        """The organisation's own seed, for what is no user's."""
        return self.directory / "instance" / "seed.txt"

    def _enrol_instance(self) -> None:
        self.instance.parent.mkdir()
        token = run("token", "--data", self.log, "--instance", "--user", "records")["token"]
        self._enrol(self.instance, token, "--user", "records")

    def _enrol(self, seed: Path, token: str, *more: str) -> None:
        run("seed", "new", seed)
        policies = ("--policy", self.log / "policy", "--auditors", self.log / "auditors")
        run("enrol", "--server", self.server.url, "--seed", seed, "--token", token, *policies, *more)

    def seed_of(self, hand: Hand) -> Path:
        """Each user's device is a directory of its own, with the state beside the seed."""
        folder = self.directory / f"device-{self.hands.index(hand)}"
        folder.mkdir(exist_ok=True)
        return folder / "seed.txt"

    async def settle(self) -> None:
        """Until what the users did is recorded, cosigned and replayed."""
        await asyncio.to_thread(self.wait_scanned)

    @property
    def copy(self) -> Path:
        return self.directory / "copy"

    @property
    def proof(self) -> Path:
        return self.directory / "copy.proof"

    def judge(
        self, path: str, data: bytes, expect: int = 0, hand: Hand | None = None, seed: Path | None = None
    ) -> dict[str, Any]:
        """What `verify` says of these bytes at this path, with the proof that the log gives now."""
        seed = seed or self.seed_of(hand or self.hands[0])
        self.copy.write_bytes(data)
        run("prove", path, "--server", self.server.url, "--seed", seed, "-o", self.proof)
        return run("verify", self.copy, "--proof", self.proof, "--seed", seed, "--as", path, expect=expect)

    def shown(self, proof: Path | None = None) -> list[dict[str, Any]]:
        """The steps in a proof, that which was judged last unless another is named."""
        command = [sys.executable, "-m", "audit", "inspect", str(proof or self.proof), "--json"]
        inspected = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        steps: list[dict[str, Any]] = inspected["steps"]
        return steps

    def steps(self, proof: Path | None = None) -> list[str]:
        """The operations in it."""
        return [step["operation"] for step in self.shown(proof)]

    def login(self, user: str, password: str) -> Path:
        """The login file of a Nextcloud user."""
        file = self.directory / "login.json"
        file.touch(mode=0o600)
        file.write_bytes(format_login(Login(self.url, user, password)))
        return file


class Occ(NamedTuple):
    """The command line of the Nextcloud under test: NEXTCLOUD_ROOT is the folder that holds `occ`."""

    root: Path

    def __call__(self, *words: str, answer: str = "") -> str:
        return self._php("occ", *words, answer=answer)

    def cron(self) -> None:
        """All background jobs that are due, the delivery of webhooks among them."""
        self._php("cron.php")

    def host(self) -> dict[str, str]:
        """Where its data and its database are, as `nextcloud.json` wants it."""
        system = json.loads(self("config:list", "system", "--private"))["system"]
        if system["dbtype"] != "sqlite3":
            pytest.skip(f"this Nextcloud has {system['dbtype']}: nothing was read from its database")
        data = system["datadirectory"]
        found = {"data": data, "database": f"sqlite:{data}/owncloud.db"}
        return found | {"prefix": system.get("dbtableprefix", "oc_"), "instance": system["instanceid"]}

    def _php(self, *words: str, answer: str = "") -> str:
        command = ["php", "-d", "memory_limit=1G", *words]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, input=answer)
        assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout
