"""A log and its nodes in one process: every request goes through the real applications, none through a socket."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from types import MappingProxyType

import httpx
from fastapi import FastAPI

from audit.api import create_app
from audit.directory import Created, Directory, create_log, open_log
from audit.nextcloud.inbox import NO_KEYS, EventKeys
from audit.node import Node, allow_log, create_node, open_node
from audit.node import create_app as create_node_app
from audit.publisher import REFRESH_S
from audit.scanning import FolderSource, add_folder
from audit.service import Pace, Service
from audit.sources import ScanSource
from audit.witness_store import AUDITOR, WITNESS
from tests.fakes import NOW, FakeClock
from verifier import ed25519
from verifier.client import Signer
from verifier.encoding import decode_base64, encode_base64
from verifier.keys import OwnerKeys, derive_keys
from verifier.request import Enrolment, enrolment_message

ORIGIN = "log.example/files"
LOG_URL = "http://log.test"
NAMES = ("ada", "bea", "cem", "dov")
PATIENCE_S = 60
QUICK = Pace(publish_after_s=0, scan_every_s=3600, tick_s=0.05)


class Switch(httpx.AsyncBaseTransport):
    """The way to an application, which can be cut."""

    def __init__(self, app: FastAPI) -> None:
        self._to_app = httpx.ASGITransport(app)
        self.is_up = True
        self.date: int | None = None  # what time the node says it is
        self.only_reads = False  # it says what it has, and signs nothing
        self.forget = False  # it knows nothing

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self.is_up:
            raise httpx.ConnectError("cut by the test", request=request)
        if self.forget or (self.only_reads and request.method != "GET"):
            return httpx.Response(404 if self.forget else 503, stream=httpx.ByteStream(b""))
        response = await self._to_app.handle_async_request(request)
        if self.date is not None:
            response.headers["date"] = formatdate(self.date, usegmt=True)
        return response


class Town:
    """`service` does not run until `service.running()`; `client` asks the log from outside."""

    def __init__(self, directory: Path, quorum: int = 3, nodes: int = 4, pace: Pace = QUICK) -> None:
        self.path, self.folder, self.pace = directory, directory / "files", pace
        self.folder.mkdir()
        self.clock = FakeClock()
        self.said: list[str] = []
        self.fatal: list[BaseException] = []
        self.made: Created = create_log(str(directory / "log"), ORIGIN, NOW)
        self.nodes: list[Node] = []
        self.switches: dict[str, Switch] = {}
        for name in NAMES[:nodes]:
            self._add_node(name)
        if quorum:
            for file in ("policy", "auditors"):
                self._write_quorum(file, quorum)
        self.open()

    def _add_node(self, name: str) -> None:
        home = self.path / name
        vkeys = create_node(home, f"{name}.example")
        allow_log(home, self.made.vkey, LOG_URL)
        node = open_node(home, self._fetch)
        self.nodes.append(node)
        self.switches[name] = Switch(create_node_app(node, self.clock))
        for file, vkey in zip(("policy", "auditors"), vkeys, strict=True):
            path = self.path / "log" / file
            text = path.read_text().removesuffix("quorum none\n")
            path.write_text(f"{text}witness {name} {vkey} http://{name}.test\nquorum none\n")

    def _write_quorum(self, file: str, quorum: int) -> None:
        path = self.path / "log" / file
        text = path.read_text().removesuffix("quorum none\n")
        path.write_text(f"{text}group nodes {quorum} {' '.join(self.switches)}\nquorum nodes\n")

    async def _fetch(self, url: str, limit: int) -> bytes:
        answer = await self.client.get(url)
        assert answer.status_code == 200, url
        assert len(answer.content) <= limit
        return answer.content

    def open(self, enrol_first: bool = False) -> None:
        """Opens the log, as after a start."""
        log = open_log(str(self.path / "log"))
        self.source: FolderSource = add_folder(log.store, f"folder:{self.folder}")
        self._serve(log, self.source, enrol_first)

    def _serve(self, log: Directory, source: ScanSource, enrol_first: bool, keys: EventKeys = NO_KEYS) -> None:
        self.service = Service(
            log,
            [source],
            clock=self.clock,
            pace=self.pace,
            enrol_first=enrol_first,
            say=self.said.append,
            on_fatal=self.fatal.append,
            make_client=self._make_client,
            event_keys=keys,
        )
        self.app = create_app(self.service)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url=LOG_URL)

    def _make_client(self) -> httpx.AsyncClient:
        mounts = {f"http://{name}.test": switch for name, switch in self.switches.items()}
        return httpx.AsyncClient(mounts=mounts)

    def reopen(self) -> None:
        self.service.store.close()
        self.open()

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.service.store.close()

    def back_up(self) -> None:
        """Keeps a copy of the store as it is, for `restore`."""
        self.service.store.checkpoint_wal()
        shutil.copy(self.path / "log" / "log.db", self.path / "backup.db")

    def restore(self) -> None:
        """The stopped log is put back to the copy, and open again."""
        self.service.store.close()
        for file in (self.path / "log").glob("log.db*"):
            file.unlink()
        shutil.copy(self.path / "backup.db", self.path / "log" / "log.db")
        self.open()

    # What people do

    def write(self, path: str, data: str) -> None:
        (self.folder / path).write_text(data)

    def keys(self, name: str = "owner") -> OwnerKeys:
        return derive_keys(name.encode().ljust(32, b"\0"), self.made.log_name)

    def signer(self, name: str = "owner") -> Signer:
        keys = self.keys(name)
        return Signer(self.made.log_name, keys.public, keys.private)

    async def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        signer: Signer | None = None,
        at: int | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> httpx.Response:
        """A request as the client sends it, signed where there is a signer."""
        headers = dict(headers)
        if signer is not None:
            now = self.clock.now if at is None else at
            headers["Authorization"] = signer.authorization(method, target, now, body)
        request = self.client.build_request(method, LOG_URL + target, content=body or None, headers=headers)
        assert request.url.raw_path.decode() == target
        return await self.client.send(request)

    async def offer(self) -> bytes:
        answer = await self.send("GET", "/enrolment")
        return decode_base64(answer.json()["nonce"], "nonce")

    async def enrol(self, name: str = "owner", **changed: object) -> httpx.Response:
        """An enrolment as the client makes it, but for what is changed before it is signed."""
        keys = self.keys(name)
        plain = Enrolment(
            self.made.log_name, self.source.source_id, "owner", self.made.token, b"", keys.public, keys.blinding
        )
        enrolment = plain._replace(nonce=changed.pop("nonce", None) or await self.offer())  # type: ignore[arg-type]
        enrolment = enrolment._replace(**changed)  # type: ignore[arg-type]
        signature = ed25519.load_private_key(keys.private).sign(enrolment_message(enrolment))
        return await self.send("POST", "/enrolment", enrolment_body(enrolment, signature))

    async def until(self, probe: Callable[[], object]) -> None:
        """Lets the loops run until this is true."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not probe():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            told = [self.service.status(), *self.said[-20:]]
            raise AssertionError(f"not within {PATIENCE_S} s: {told}") from None

    async def run_until(self, probe: Callable[[], object], enrol: bool = False, trees: int = 5) -> None:
        """Runs until this is true, and again until the first node holds all that any of them saw: see `mirrored`."""
        async with self.service.running():
            if enrol:
                if self.service._enrol_first:
                    await self.until(lambda: self.service.scans)  # which finds no owner; the next one is theirs
                assert (await self.enrol()).status_code == 202
            await self.until(probe)
        if not self.mirrored():
            assert trees, "the first node replays no tree"
            self.clock.now += REFRESH_S  # then there is another tree, and it is asked again
            before = self.size()
            await self.run_until(lambda: self.all_published() and self.size() != before, trees=trees - 1)

    def size(self) -> object:
        return self.service.status()["size"]

    def all_published(self) -> bool:
        """Whether nothing is pending, and the newest tree has both quorums."""
        status = self.service.status()
        return status["pending"] == "0" and status["size"] != "0" and status["audited"] == {"size": status["size"]}

    def mirrored(self) -> bool:
        """Whether the first node, which a quorum may do without, has replayed the newest tree that any node saw."""
        origin = self.service.store.origin
        held = self.nodes[0].store.head(AUDITOR, origin)
        seen = [head.size for node in self.nodes if (head := node.store.head(WITNESS, origin)) is not None]
        return held is not None and held.size == max(seen)


def enrolment_body(enrolment: Enrolment, signature: bytes) -> bytes:
    import json

    e = enrolment
    fields = {"log": e.log, "source": e.source, "user": e.user, "token": e.token, "nonce": encode_base64(e.nonce)}
    fields |= {"owner": encode_base64(e.owner), "blinding": encode_base64(e.blinding)}
    return json.dumps({**fields, "signature": encode_base64(signature)}, separators=(",", ":")).encode()
