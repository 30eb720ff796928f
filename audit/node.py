"""A node: witness and auditor for its peers' logs, over HTTP (c2sp.org/tlog-witness, SPEC 8).

    create_node(Path("node"), "example.org/node")       once: keys, and the memory of what they signed
    allow_log(Path("node"), vkey, url)                  which logs; with a url their leaves are mirrored and replayed
    app = create_app(open_node(Path("node")))            served by `node serve` on 127.0.0.1:8461 (`audit.server`)

    POST /add-checkpoint          a cosignature as witness
    POST /audit                   a cosignature as auditor, for the signed checkpoint in the body
    GET  /ORIGINHASH/checkpoint   the newest checkpoint cosigned as witness (hex SHA-256 of the origin)
    GET  /mirror/ORIGINHASH/checkpoint, .../tile/entries/N    the leaves that the auditor holds, up to what it signed;
                                  for a log that has lost them (no hash tiles: they follow from the leaves)
    GET  /                        names and keys        GET /healthz     200 while the store can be read

    node/witness.key, node/auditor.key   0600, PRIVATE+KEY+NAME+ID+KEY; the auditor's name is NAME/auditor
    node/witness.db                      what was signed; never in a backup that may be restored
    node/mirror/ORIGINHASH.db            leaves and replay; may be lost, and is set aside (.damaged) where it is damaged

The functions below raise domain errors; HTTP numbers exist in `STATUS` alone. Bodies are bounded while they are read,
whatever Content-Length says, and have to arrive within READ_TIMEOUT_S.

The witness's transaction runs on the event loop: one fsync, and requests are served one after the other anyway. Replays
run in threads. What goes out to logs is `GET` without redirects, bounded and timed.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from audit.auditor import Auditor
from audit.clock import system_clock
from audit.directory import NODE_KEY_FILE
from audit.errors import Conflict, Fatal, PeerFailed, TryLater
from audit.evidence import of_row
from audit.http import HttpFetch, TooLarge, TooSlow, fetch_nothing, read_body
from audit.key_file import read_signer, write_signer
from audit.mirror import read_held, read_mirrored
from audit.peers import check_address
from audit.tile_reader import Fetch
from audit.witness import (
    MAX_REQUEST_SIZE,
    Decision,
    Ended,
    Head,
    Inconsistent,
    Retired,
    UnknownLog,
    Untrusted,
    decide,
    format_request,
    open_log_note,
    parse_request,
)
from audit.witness_store import AUDITOR, WITNESS, Log, Offence, Store, create_store, open_store
from verifier.checkpoint import parse_checkpoint_unverified
from verifier.errors import Malformed, NotVerified, Usage
from verifier.note import (
    COSIGNATURE,
    MAX_NOTE_SIZE,
    SIGNATURE,
    Note,
    SignerKey,
    format_note,
    format_vkey,
    parse_note,
    parse_vkey,
    verify_cosignature,
)
from verifier.policy import AUDITOR_SUFFIX
from verifier.tile import ENTRIES, parse_tile_path, tile_width

HOST, PORT = "127.0.0.1", 8461
MEMORY_TIMEOUT_S = 3  # at start, for each log at the same time: one that is cut off must not hold up the others
RETRY_AFTER_S = 1
KEY_FILES = {WITNESS: NODE_KEY_FILE, AUDITOR: "auditor.key"}
STORE_FILE = "witness.db"
MIRROR_FOLDER = "mirror"

Clock = Callable[[], int]  # POSIX seconds


STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLarge, 413),
    (TooSlow, 408),
    (Malformed, 400),
    (Untrusted, 403),
    (Retired, 403),
    (Ended, 403),
    (UnknownLog, 404),
    (Conflict, 409),
    (Inconsistent, 422),
    (TryLater, 503),
    (PeerFailed, 503),
    (Fatal, 500),
)
ANSWERED = tuple([error for error, _ in STATUS])


# The directory


def create_node(folder: Path, name: str) -> tuple[str, str]:
    """A new node's directory; returns the vkeys of witness and auditor. Nothing that exists is touched."""
    if name.endswith(AUDITOR_SUFFIX):
        raise Usage(f"node name: {AUDITOR_SUFFIX} at the end is for the auditor's key, which gets it by itself")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        _check_made(folder)
        raise Usage(f"{folder} exists and is not empty: a node is made once, and opened from then on")
    names = {WITNESS: name, AUDITOR: name + AUDITOR_SUFFIX}
    signers = {role: SignerKey(names[role], COSIGNATURE, os.urandom(32)) for role in names}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / MIRROR_FOLDER).mkdir(mode=0o700)
    create_store(folder / STORE_FILE, {role: format_vkey(signer.verifier_key) for role, signer in signers.items()})
    for role, signer in signers.items():  # last: without both, a directory never opens and has never signed
        write_signer(str(folder / KEY_FILES[role]), signer)
    return format_vkey(signers[WITNESS].verifier_key), format_vkey(signers[AUDITOR].verifier_key)


def _check_made(folder: Path) -> None:
    """Usage where there is a store and not both keys, which are written last."""
    missing = [file for file in KEY_FILES.values() if not (folder / file).exists()]
    if missing and (folder / STORE_FILE).exists():
        raise Usage(
            f"{folder} has {STORE_FILE} and no {' and no '.join(missing)}. If `node init` was cut short there, it "
            "never signed anything: remove the directory, and run it again. If this was a node, put its keys back"
        )


def open_node(folder: Path, fetch: Fetch | None = None, factory: type[sqlite3.Connection] = sqlite3.Connection) -> Node:
    """The node of a directory that `create_node` made. Nothing is created that is missing."""
    if not (folder / STORE_FILE).exists() and not any((folder / file).exists() for file in KEY_FILES.values()):
        raise Usage(f"{folder}: holds no node; `nextcloud-audit node init --data {folder}` makes one")
    _check_made(folder)
    signers = {role: read_key(folder / file) for role, file in KEY_FILES.items()}
    vkeys = {role: format_vkey(signer.verifier_key) for role, signer in signers.items()}
    store = open_store(folder / STORE_FILE, vkeys, factory, lambda row: of_row(row, row.time) is not None)
    return Node(folder, store, signers[WITNESS], signers[AUDITOR], fetch or HttpFetch(), factory)


def read_key(path: Path) -> SignerKey:
    """The cosigner's key in a file that nobody else may read."""
    return read_signer(str(path), "node key", COSIGNATURE)


def allow_log(folder: Path, vkey: str, url: str = "", rotates: bool = False, only: bool = False) -> str:
    """Watch this log, and with a url mirror and replay it. A running node knows it at the next request.

    Returns the url by which it is replayed, given now or before; "" where there is none.
    """
    node = open_node(folder, fetch=fetch_nothing)
    try:
        node.allow_log(vkey, url, rotates)
        if only:
            node.store.trust_only(parse_vkey(vkey, "log vkey"))
        log = node.store.log(parse_vkey(vkey, "log vkey").name)
        return log.url if log else ""
    finally:
        node.close()


class Node:
    """An open node: two keys, the memory of what they signed, and the mirrors."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        witness: SignerKey,
        auditor: SignerKey,
        fetch: Fetch,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.store, self.witness, self._auditor_key, self.fetch = store, witness, auditor, fetch
        self.names = (witness.verifier_key.name, auditor.verifier_key.name)
        self._mirrors = folder / MIRROR_FOLDER
        self.auditor = Auditor(store, auditor, self.names, folder / MIRROR_FOLDER, fetch, factory)

    def close(self) -> None:
        self.auditor.close()
        self.store.close()

    async def aclose(self) -> None:
        self.close()
        if isinstance(self.fetch, HttpFetch):
            await self.fetch.aclose()

    def allow_log(self, vkey: str, url: str = "", rotates: bool = False) -> None:
        """See `allow_log` above; the log's key is a plain signer's, and none of ours."""
        key = parse_vkey(vkey, "log vkey")
        if key.algorithm != SIGNATURE:
            raise Usage(f"log {key.name}: got a key of type 0x{key.algorithm:02x}, want 0x{SIGNATURE:02x}")
        own = (self.witness.verifier_key, self._auditor_key.verifier_key)
        if key.name in self.names or key.public_key in [signer.public_key for signer in own]:
            raise Usage(f"log {key.name}: has this node's own name or key")
        self.store.allow_log(key, check_url(url), rotates)

    def add_checkpoint(self, body: bytes, now: int) -> bytes:
        """The witness's signature line, once the checkpoint is on disk as the newest of its log."""
        request = parse_request(body)
        origin = request.checkpoint.origin
        log = self.store.log(origin)
        own_lines = request.note
        note = open_log_note(request.note, log.signers if log else (), origin, self.names)
        self.remember(own_lines)
        request = request._replace(note=note)
        offence = Offence(format_request(request.old_size, request.proof, format_note(note)), note.text)

        def answer(head: Head | None, latest: int) -> Decision:
            return decide(request, head, latest, now, self.witness)

        return self.store.advance(WITNESS, origin, offence, now, answer)

    async def audit(self, body: bytes, clock: Clock) -> bytes:
        """The auditor's signature line. Where the log's server fails, the log is named, and not our address for it."""
        try:
            return await self.auditor.audit(body, clock)
        except PeerFailed as error:
            message = str(error)
            for log in self.store.logs():
                message = message.replace(log.url.rstrip("/"), log.origin) if log.url else message
            raise PeerFailed(message) from None

    async def check_memory(self) -> None:
        """Compares our store with our own cosignatures that logs publish; one who does not answer is passed over."""
        await asyncio.gather(*[self._check_log(log) for log in self.store.logs() if log.url])

    async def _check_log(self, log: Log) -> None:
        try:
            async with asyncio.timeout(MEMORY_TIMEOUT_S):
                data = await self.fetch(f"{log.url.rstrip('/')}/checkpoint", MAX_NOTE_SIZE)
            note = parse_note(data)
            open_log_note(note, log.keys, log.origin, self.names)
            self.remember(note)
        except (TimeoutError, PeerFailed, Malformed, UnknownLog, Untrusted):
            pass

    def remember(self, note: Note) -> None:
        """[R] Retires this node if one of its keys signed more of this log than its store knows."""
        checkpoint = parse_checkpoint_unverified(note.text, extensions=True)
        for signer, key in ((WITNESS, self.witness), (AUDITOR, self._auditor_key)):
            try:
                at = verify_cosignature(note, key.verifier_key)
            except (Malformed, NotVerified):
                continue  # no line of ours, or somebody else's attempt at one
            head = self.store.head(signer, checkpoint.origin)
            known = head is not None and (
                (checkpoint.size, checkpoint.root) == (head.size, head.root) or checkpoint.size < head.size
            )
            if head is None or not known or at > head.time:
                self.store.retire(
                    f"retired: {key.verifier_key.name} cosigned size {checkpoint.size} of {checkpoint.origin} at {at}, "
                    "and its store does not know that: it is an older copy. It signs nothing any more; make a new node "
                    "with new keys (`node init`), and have it named in the policies instead"
                )

    def mirror_note(self, origin_hash: str) -> bytes:
        """The newest checkpoint that the auditor signed, all of whose leaves are mirrored here.

        Where the mirror has lost some, the one that those which are left were verified against: better than nothing.
        """
        return self._held_note(origin_hash, self._audited_note(origin_hash))

    def _audited_note(self, origin_hash: str) -> bytes:
        found = self.store.note_by_hash(AUDITOR, origin_hash)
        if found is None:
            raise UnknownLog("mirror: no log of this origin hash is mirrored here")
        return found

    def _held_note(self, origin_hash: str, found: bytes) -> bytes:
        """Reads the mirror's file and nothing of the store: may run in any thread."""
        size, held = read_held(self._mirrors / f"{origin_hash}.db")
        for note in (found, held):
            if note and parse_checkpoint_unverified(parse_note(note).text).size <= size:
                return note
        raise UnknownLog("mirror: its leaves are lost, and are fetched again at the next audit")

    async def mirror_tile(self, origin_hash: str, path: str) -> bytes:
        """A bundle of the mirrored leaves, as its log serves it, read in a thread.

        The store is asked here: its transactions are the loop's, and no thread may see one that is half done.
        """
        return await asyncio.to_thread(self._read_tile, origin_hash, self._audited_note(origin_hash), path)

    def _read_tile(self, origin_hash: str, found: bytes, path: str) -> bytes:
        size = parse_checkpoint_unverified(parse_note(self._held_note(origin_hash, found)).text).size
        tile = parse_tile_path(path)
        if tile.level != ENTRIES or not 1 <= tile.width <= tile_width(ENTRIES, tile.number, size):
            raise UnknownLog("mirror: has the bundles of entries below its size, and no other tiles")
        return read_mirrored(self._mirrors / f"{origin_hash}.db", tile.number, tile.width)

    def describe(self, audits: bool = True) -> dict[str, object]:
        """What the node says of itself."""
        return {
            "witness": {"name": self.names[0], "vkey": format_vkey(self.witness.verifier_key)},
            "auditor": {"name": self.names[1], "vkey": format_vkey(self._auditor_key.verifier_key)},
            "retired": self.store.retired(),
            "logs": [{"origin": log.origin, "audited": audits and bool(log.url)} for log in self.store.logs()],
        }


# Addresses


def check_url(url: str) -> str:
    """A log's prefix that tile paths can be put after; empty means none."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise Usage("log url: holds a name or a password, want http(s)://HOST/PATH alone: addresses are no secrets")
    return check_address(url, "log url") if url else ""


# HTTP


def create_app(node: Node, clock: Clock = system_clock, audits: bool = True) -> FastAPI:
    """The node's HTTP interface; one that does not audit mirrors nothing. Closing the application closes the node."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await node.check_memory()
        yield
        await node.aclose()

    async def add_checkpoint(request: Request) -> Response:
        async def line() -> bytes:
            return node.add_checkpoint(await read_body(request, MAX_REQUEST_SIZE), clock())

        return await answer(line())

    async def audit(request: Request) -> Response:
        async def line() -> bytes:
            return await node.audit(await read_body(request, MAX_NOTE_SIZE), clock)

        return await answer(line())

    async def checkpoint(request: Request) -> Response:
        async def note() -> bytes:
            found = node.store.note_by_hash(WITNESS, request.path_params["origin_hash"])
            if found is None:
                raise UnknownLog("checkpoint: none cosigned for this origin hash")
            return found

        return await answer(note())

    async def mirror_checkpoint(request: Request) -> Response:
        async def note() -> bytes:
            return node.mirror_note(request.path_params["origin_hash"])

        return await answer(note())

    async def mirror_tile(request: Request) -> Response:
        origin_hash, path = request.path_params["origin_hash"], request.path_params["path"]
        return await answer(node.mirror_tile(origin_hash, f"tile/{path}"), "application/octet-stream")

    async def describe(_: Request) -> Response:
        return JSONResponse(node.describe(audits))

    async def healthz(_: Request) -> Response:
        async def ok() -> bytes:
            node.store.logs()
            return b"ok\n"

        return await answer(ok())

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.add_route("/add-checkpoint", add_checkpoint, methods=["POST"])
    if audits:
        app.add_route("/audit", audit, methods=["POST"])
    app.add_route("/mirror/{origin_hash}/checkpoint", mirror_checkpoint, methods=["GET"])
    app.add_route("/mirror/{origin_hash}/tile/{path:path}", mirror_tile, methods=["GET"])
    app.add_route("/{origin_hash}/checkpoint", checkpoint, methods=["GET"])
    app.add_route("/healthz", healthz, methods=["GET"])
    app.add_route("/", describe, methods=["GET"])
    return app


async def answer(work: Awaitable[bytes], media_type: str = "text/plain; charset=utf-8") -> Response:
    """The response for what `work` returns or raises."""
    try:
        return Response(await work, media_type=media_type)
    except ANSWERED as error:
        return refusal(error)


def refusal(error: Exception) -> Response:
    """The status and body for an error; the only place that knows both."""
    status = next(number for kind, number in STATUS if isinstance(error, kind))
    if isinstance(error, Conflict):  # tlog-witness: the size in decimal, a newline, and this type
        return Response(f"{error.known_size}\n", status, {"content-type": "text/x.tlog.size"})
    headers = {}
    if status == 503:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if isinstance(error, TooLarge | TooSlow):
        headers["connection"] = "close"  # the rest of the body is not waited for
    return Response(f"{error}\n", status, headers, media_type="text/plain; charset=utf-8")
