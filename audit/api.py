"""The log over HTTP: thin routes, and the one table from errors to statuses (SPEC 11).

    GET  /proof/17, /proof?path=a%2Fb.odt      signed; a proof's bytes       GET  /checkpoint    newest published note
    POST /seals, POST /closings                signed; an owner's word       GET  /tile/...      tlog-tiles
    GET  /loss                                 what was declared lost
    GET  /enrolment, POST /enrolment           one-time token and nonce      GET  /status, /healthz, /openapi.json
    GET  /enrolment/ROOT                       inclusion of an enrolment
    POST /hook, POST /nodes                    events of a Nextcloud: where to look, on disk before the 200

Every error has one form, {"error":{"reason":"not-found","message":"..."}}, and no number in JSON is a JSON number. What
a key may not have and what does not exist are the same 404, byte for byte. Bodies are bounded while they are read,
targets before they are looked at. Every answer says how it may be cached: a tile never changes, all else is of the
moment.

Routes raise domain errors and know no status. A short proof is made right here on the event loop, where it takes less
than a change of threads would; long ones and everything that writes run in threads.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil
from sqlite3 import Connection
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI
from sqlalchemy import bindparam, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from audit import openapi
from audit.chains import Current, find_at_path, find_current, get_chain, load_chain
from audit.enrolment import (
    AlreadyEnrolled,
    EnrolmentRefused,
    Own,
    Unauthorised,
    authorise,
    find_own,
    list_sources,
)
from audit.errors import AuditError, Busy, Conflict, Fatal, PeerFailed, Refused, TryLater
from audit.http import TooLarge, TooSlow, read_body
from audit.nextcloud.access import Access, Guessed, NotVisible, Seen, check_bearer, check_from_appapi
from audit.nextcloud.hints import MAX_EVENT, Hint, parse_listener, parse_webhook
from audit.prover import withhold
from audit.publisher import read_newest_signed, read_proof_tree
from audit.schema import Owner, sql, table
from audit.service import Service
from audit.tree import read_published_tile
from verifier.canonical import encode_value, members, parse_object
from verifier.encoding import decode_base64, decode_decimal, encode_base64, encode_hashes
from verifier.entry import MAX_ENTRIES, MAX_PATH, Seal, decode_entry, decode_seal
from verifier.errors import Error, Malformed, NotVerified
from verifier.keys import check_source_id
from verifier.note import format_vkey
from verifier.proof import MAX_REPLACED, format_proof
from verifier.request import MAX_TARGET
from verifier.tile import parse_tile_path

MAX_BODY = 64 * 1024  # SPEC 11: of every request
LONG_CHAIN = 256  # entries of all its generations; a longer proof is made in a thread
MAX_LONG = 2  # of them at a time: one may take 16 MiB and more while it is made
RETRY_AFTER_S = 2
OFFERS_PER_S, OFFERS_AT_ONCE = 10.0, 100  # requests of anybody for a nonce
ENROLMENTS_PER_S, ENROLMENTS_AT_ONCE = 1.0, 20

NO_STORE = "no-store"
IMMUTABLE = "public, max-age=31536000, immutable"
JSON, TEXT, BINARY = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
PROOF_HEADERS = [
    (name.encode("ascii"), value.encode("ascii"))
    for name, value in {**SECURITY, "cache-control": NO_STORE, "content-type": JSON}.items()
]

_OWNERS = table(Owner)
_FIND_ROOT = sql(select(_OWNERS.c.enrolled_index).where(_OWNERS.c.root == bindparam("root")))
_QUERY = ("path", "source", "from", "size", "replaces")
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")
_ROOT = re.compile(r"[0-9a-f]{64}")
_PROOF = re.compile(r"/proof(?:/([^/]+))?")


class NotFound(Refused):
    """There is no such thing, or not for this key: nobody is told which."""

    def __init__(self) -> None:
        super().__init__("there is no such thing here, or it is not yours to have")


class NotPublished(TryLater):
    """It is recorded, and no published tree holds it yet."""


class TooMany(TryLater):
    """More requests of a kind than this log answers in a while."""


class TooLong(Malformed):
    """A request target beyond its bound."""


class WrongMethod(Refused):
    """A method that proofs do not have."""

    def __init__(self) -> None:
        super().__init__("Method Not Allowed")


STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (TooLarge, 413, "too-large"),
    (TooSlow, 408, "too-slow"),
    (TooLong, 414, "too-long"),
    (WrongMethod, 405, "method"),
    (TooMany, 429, "too-many"),
    (Guessed, 429, "too-many"),
    (Unauthorised, 401, "unauthorised"),
    (EnrolmentRefused, 403, "refused"),
    (NotFound, 404, "not-found"),
    (AlreadyEnrolled, 409, "enrolled"),
    (Malformed, 400, "malformed"),
    (NotVerified, 403, "not-verified"),
    (Error, 400, "usage"),
    (Conflict, 409, "conflict"),
    (NotPublished, 503, "not-published"),
    (TryLater, 503, "try-later"),
    (PeerFailed, 502, "peer"),
    (Refused, 422, "refused"),
    (Fatal, 500, "fatal"),
    (Exception, 500, "fault"),
)


class Question(NamedTuple):
    """What a proof is asked for: a file id or a path, and what the client has seen."""

    file_id: int | None
    path: str | None
    source: str | None
    from_seq: int
    size: int | None
    replaces: tuple[int, ...]


# Answers


def answer(body: bytes, media: str = JSON, status: int = 200, cache: str = NO_STORE, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body, status, {**SECURITY, "cache-control": cache, "content-type": media, **named})


def answer_json(value: object, status: int = 200) -> Response:
    return answer(encode_json(value), status=status)


def encode_json(value: object) -> bytes:
    return encode_value(value).encode("utf-8")


def refusal(error: Exception) -> Response:
    """The answer to an error; here alone it gets its status."""
    status, reason = next((number, word) for kind, number, word in STATUS if isinstance(error, kind))
    told = "a fault of the log itself; its operator finds more in its output"
    message = told if status == 500 else str(error)
    headers = {"retry_after": str(_retry_after(error))} if status in (429, 503) else {}
    if isinstance(error, TooLarge | TooSlow):
        headers["connection"] = "close"  # the rest of the body is not waited for
    if status == 405:
        headers["allow"] = "GET, HEAD"
    if status == 401:
        headers["www_authenticate"] = "NextcloudAudit"
    return answer(error_body(reason, message), status=status, **headers)


def _retry_after(error: Exception) -> int:
    """What a Nextcloud that is asked asks for, else a moment."""
    return max(RETRY_AFTER_S, ceil(error.retry_s)) if isinstance(error, Busy | Guessed) else RETRY_AFTER_S


def error_body(reason: str, message: str) -> bytes:
    return encode_json({"error": {"reason": reason, "message": message}})


async def _on_error(_: Request, error: Exception) -> Response:
    return refusal(error)


async def _on_http_error(_: Request, error: Exception) -> Response:
    """What the router says: no such route, no such method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return refusal(NotFound())
    return answer(error_body("method", error.detail), status=error.status_code, **dict(error.headers or {}))


# Reading requests


def target_of(scope: Scope) -> str:
    """The request target as it stands on the request line: what a client signs."""
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    data = raw + b"?" + query if query else raw
    if len(data) > MAX_TARGET:
        raise TooLong(f"want at most {MAX_TARGET} bytes", "request target", len(data))
    return data.decode("latin-1")


def parse_question(file_id: str | None, query: str) -> Question:
    """The query of a proof request, strictly: known names, each once but `replaces`, values percent-encoded UTF-8."""
    found: dict[str, list[str]] = {name: [] for name in _QUERY}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in found or len(found[name]) >= (MAX_REPLACED if name == "replaces" else 1):
            raise Malformed(f"want each once at most of {', '.join(_QUERY)}", "query", name)
        found[name].append(_unescape(value, name))
    one = {name: (values[0] if values else None) for name, values in found.items()}
    if (file_id is None) == (one["path"] is None):
        raise Malformed("want a file id, as in /proof/17, or ?path=", "request target")
    return Question(
        None if file_id is None else decode_decimal(file_id, "file"),
        one["path"],
        None if one["source"] is None else check_source_id(one["source"]),
        decode_decimal(one["from"] or "0", "from", MAX_ENTRIES - 1),
        None if one["size"] is None else decode_decimal(one["size"], "size"),
        tuple([decode_decimal(value, "replaces") for value in found["replaces"]]),
    )


def _unescape(value: str, name: str) -> str:
    if not value or not _ESCAPES.fullmatch(value):
        raise Malformed("want percent-encoded text", name, value)
    try:
        text = unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8", name) from None
    if len(text.encode("utf-8")) > MAX_PATH:
        raise Malformed(f"want at most {MAX_PATH} bytes", name)
    return text


class Bucket:
    """Lets through `per_s` requests, and a burst of `at_once`; more of them raise TooMany."""

    def __init__(self, per_s: float, at_once: int) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._left, self._then = float(at_once), 0

    def take(self, now: int) -> None:
        self.check(now)
        self._left -= 1

    def check(self, now: int) -> None:
        """Whether one may be taken; none is."""
        self._left = min(self._at_once, self._left + max(0, now - self._then) * self._per_s)
        self._then = now
        if self._left < 1:
            raise TooMany("too many requests of this kind: wait a little")


# Routes


class Api:
    """What the routes do; one for each service."""

    def __init__(self, service: Service) -> None:
        self.service, self.store = service, service.store
        self._long = asyncio.Semaphore(MAX_LONG)
        self._offers = Bucket(OFFERS_PER_S, OFFERS_AT_ONCE)
        self._enrolments = Bucket(ENROLMENTS_PER_S, ENROLMENTS_AT_ONCE)

    # -- the log ------------------------------------------------------------------------------------------------

    async def healthz(self, _: Request) -> Response:
        """200 while the store can be read."""
        read_newest_signed(self.store.reader())
        return answer_json({"status": "ok"})

    async def status(self, _: Request) -> Response:
        """How the log stands: what is pending, published and audited, and since when cosigners are out of reach."""
        return answer_json(await asyncio.to_thread(self.service.status))

    async def checkpoint(self, _: Request) -> Response:
        """The newest published checkpoint, signed and cosigned (c2sp.org/tlog-checkpoint)."""
        published = self.service.publisher.published()
        if published is None:
            raise NotFound
        return answer(published.newest_note, TEXT)

    async def loss(self, _: Request) -> Response:
        """What this log has declared lost, for whoever replays it (SPEC 6.5)."""
        if self.store.loss is None:
            raise NotFound
        return answer(self.store.loss)

    async def tile(self, request: Request) -> Response:
        """A tile of hashes or a bundle of entries (c2sp.org/tlog-tiles), up to the last signed size."""
        tile = parse_tile_path(target_of(request.scope).removeprefix("/"))
        with self.store.snapshot() as conn:
            signed = read_newest_signed(conn)
            try:
                data = read_published_tile(conn, tile, signed.size if signed else 0)
            except Refused:
                raise NotFound from None
        return answer(data, BINARY, cache=IMMUTABLE)

    # -- enrolment ----------------------------------------------------------------------------------------------

    async def offer(self, _: Request) -> Response:
        """What an enrolment is signed for, with a nonce for it."""
        now = self.service.clock()
        self._offers.take(now)
        return answer_json(
            {
                "log": self.store.log_name,
                "vkey": format_vkey(self.service.directory.signer.verifier_key),
                "sources": list_sources(self.store.reader()),
                "nonce": encode_base64(self.service.enrolments.nonces.issue(now)),
            }
        )

    async def enrol(self, request: Request) -> Response:
        """Makes the key in the body the owner of a source; its leaf is in one of the next trees."""
        now = self.service.clock()
        self._enrolments.take(now)
        root = await asyncio.to_thread(self.service.enrolments.enrol, await read_body(request, MAX_BODY), now)
        self.service.enrolled()
        return answer_json({"root": root.hex()}, 202)

    async def enrolled(self, request: Request) -> Response:
        """Shows that an enrolment is in the newest tree that proofs are made in."""
        root = request.path_params["root"]
        if not _ROOT.fullmatch(root):
            raise Malformed("want 64 lower-case hex digits", "root", root)
        with self.store.snapshot() as conn:
            row = conn.execute(_FIND_ROOT, (bytes.fromhex(root),)).fetchone()
            if row is None:
                raise NotFound
            tree = read_proof_tree(conn)
            if row[0] is None or tree is None or row[0] >= tree.size:
                raise NotPublished("enrolment: recorded, and in no published tree yet")
            hashes = self.service.tree.inclusion(conn, row[0], tree.size)
        note = tree.newest_note.decode("utf-8")
        return answer_json({"root": root, "index": str(row[0]), "checkpoint": note, "hashes": encode_hashes(hashes)})

    # -- for owners ---------------------------------------------------------------------------------------------

    async def proof(self, scope: Scope, file: str | None) -> bytes:
        """The bytes of a proof. Who may have it and what it says come from one committed state."""
        if scope["method"] not in ("GET", "HEAD"):
            raise WrongMethod
        access = self.service.access
        if access is not None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            if access.is_for(headers):
                return await self._proof_as_user(access, headers, scope, file)
        owner = self._authorise(scope, b"")
        question = parse_question(file, scope["query_string"].decode("latin-1"))
        with self.store.snapshot() as conn:
            own, current = self._find(conn, owner, question)
            if not question.replaces and not is_long(conn, current):
                return self._prove(conn, own, current, question)
        async with self._long:
            return await asyncio.to_thread(self._prove_aside, owner, question)

    async def _proof_as_user(self, access: Access, headers: dict[str, str], scope: Scope, file: str | None) -> bytes:
        """The proof of a file that Nextcloud shows this user. Nextcloud is asked first, whatever is asked for."""
        target_of(scope)
        question = parse_question(file, scope["query_string"].decode("latin-1"))
        try:
            seen = await access.find(headers, question.path, question.file_id)
        except NotVisible:
            raise NotFound from None
        if question.source not in (None, access.source_id):
            raise NotFound
        async with self._long:
            return await asyncio.to_thread(self._prove_seen, access.source, seen, question)

    def _prove_seen(self, source: int, seen: Seen, question: Question) -> bytes:
        with self.store.snapshot() as conn:
            current = find_current(conn, source, seen.file_id)
            if current is None:
                raise NotFound
            try:
                proof = self.service.prover.build_for(conn, current, question.size, question.from_seq)
            except TryLater as error:
                raise NotPublished(str(error)) from None
            return format_proof(proof if seen.owns else withhold(proof))

    def _prove_aside(self, owner: bytes, question: Question) -> bytes:
        with self.store.snapshot() as conn:
            return self._prove(conn, *self._find(conn, owner, question), question)

    def _find(self, conn: Connection, owner: bytes, question: Question) -> tuple[Own, Current]:
        """The chain that is asked for, once this key is that of its owner."""
        own = self._own(conn, owner, question.source)
        if question.file_id is not None:
            return own, _own_chain(conn, own, question.file_id)
        assert question.path is not None
        return own, _check_own(own, find_at_path(conn, own.source, question.path, own.owners))

    def _prove(self, conn: Connection, own: Own, current: Current, question: Question) -> bytes:
        asked = question.size, question.from_seq, question.replaces, own.owners
        try:
            return format_proof(self.service.prover.build_for(conn, current, *asked))
        except TryLater as error:
            raise NotPublished(str(error)) from None
        except Refused:  # one of `replaces` is no file
            raise NotFound from None

    async def seal(self, request: Request) -> Response:
        """Logs an owner's seal; the same one again is not logged again."""
        body = await read_body(request, MAX_BODY)
        owner = self._authorise(request.scope, body)
        source_id, file, generation, data = members(
            parse_object(body, "seal"), "seal", "source", "file", "generation", "seal"
        )
        file_id = decode_decimal(file, "file")
        own = self._own(self.store.reader(), owner, check_source_id(source_id))
        seal = decode_seal(decode_base64(data, "seal"))
        seq, is_new = await asyncio.to_thread(
            self._record_seal, own, file_id, decode_decimal(generation, "generation"), seal
        )
        if is_new:
            self.service.changed()
        return answer_json({"seq": str(seq)}, 202 if is_new else 200)

    def _record_seal(self, own: Own, file_id: int, generation: int, seal: Seal) -> tuple[int, bool]:
        current = _own_chain(self.store.reader(), own, file_id)
        if current.generation != generation:
            raise Refused(f"generation: got {generation}, want {current.generation}")
        try:
            return self.service.recorder.record_seal(own.source, file_id, seal).seq, True
        except Refused:
            # The chain takes no seal twice. Where this very one is there, an answer was lost on the way.
            with self.store.snapshot() as conn:  # the chain may have gone on since it was looked up
                seals = load_chain(conn, self.store, _own_chain(conn, own, file_id)).seals
            for sealed in seals:
                if sealed.seal == seal:
                    return sealed.position, False
            raise

    async def close(self, request: Request) -> Response:
        """Logs the end of a chain as its owner signed it: steps that were seen are lost for good (SPEC 4.7)."""
        body = await read_body(request, MAX_BODY)
        owner = self._authorise(request.scope, body)
        names = ("source", "file", "generation", "entry", "content", "path", "context")
        source_id, file, generation, *data = members(parse_object(body, "closing"), "closing", *names)
        file_id = decode_decimal(file, "file")
        own = self._own(self.store.reader(), owner, check_source_id(source_id))
        entry, *openings = [decode_base64(value, name) for value, name in zip(data, names[3:], strict=True)]
        current = _own_chain(self.store.reader(), own, file_id)
        if current.generation != decode_decimal(generation, "generation"):
            raise Refused(f"generation: got {generation}, want {current.generation}")
        parts = (openings[0], openings[1], openings[2])
        await asyncio.to_thread(self.service.recorder.record_close, own.source, file_id, entry, parts)
        self.service.changed()
        return answer_json({"seq": str(decode_entry(entry).seq)}, 202)

    # -- for the Nextcloud --------------------------------------------------------------------------------------

    async def hook(self, request: Request) -> Response:
        """A webhook of Nextcloud 30 or later: answered once the files that it hints at are queued, durably."""
        secret = self.service.event_keys.hook
        if secret is None or not self.service.inbox.sources:
            raise NotFound
        check_bearer(request.headers, secret)
        return await self._take_in(parse_webhook(await read_body(request, MAX_EVENT)))

    async def nodes(self, request: Request) -> Response:
        """A file event as AppAPI passes it on (Nextcloud 27 to 31): answered once it is queued, durably."""
        app = self.service.event_keys.appapi
        if app is None or not self.service.inbox.sources:
            raise NotFound
        check_from_appapi(request.headers, app)
        return await self._take_in(parse_listener(await read_body(request, MAX_EVENT)))

    async def _take_in(self, hints: Sequence[Hint]) -> Response:
        await self.service.inbox.add(hints)
        return answer_json({"hints": str(len(hints))})

    def _authorise(self, scope: Scope, body: bytes) -> bytes:
        """The key that signed this request."""
        target = target_of(scope)
        header = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
        return authorise(header, self.store.log_name, scope["method"], target, body, self.service.clock())

    def _own(self, conn: Connection, owner: bytes, source_id: str | None) -> Own:
        """What this key may have of the source that is meant."""
        own = find_own(conn, owner, source_id)
        if not own:
            raise NotFound
        if len(own) > 1:
            raise Malformed("this key owns several: want source=", "query")
        return own[0]


def is_long(conn: Connection, current: Current) -> bool:
    """Whether a proof of this chain reads much: also earlier generations, which are shown till this is published."""
    entries = current.last_seq + 1
    while entries <= LONG_CHAIN and current.predecessor is not None:
        current = get_chain(conn, current.predecessor)
        entries += current.last_seq + 1
    return entries > LONG_CHAIN


def _own_chain(conn: Connection, own: Own, file_id: int) -> Current:
    return _check_own(own, find_current(conn, own.source, file_id))


def _check_own(own: Own, current: Current | None) -> Current:
    """The chain of a file, if it is theirs; else it is as if there were none."""
    if current is None or not own.has(current.owner):
        raise NotFound
    return current


class App(FastAPI):
    """FastAPI, and before it the hot path: /proof and /proof/17 as plain ASGI.

    Routing and middleware alone would take about as long as all reads for a proof.
    """

    api: Api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _PROOF.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if asked is None:
            return await super().__call__(scope, receive, send)
        try:
            body = await self.api.proof(scope, asked[1])
        except Exception as error:
            await refusal(error)(scope, receive, send)
            if isinstance(error, AuditError | Error):
                return
            raise  # the server says more
        headers = [*PROOF_HEADERS, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def create_app(service: Service) -> FastAPI:
    """The application; the service runs while the application does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    api = Api(service)
    app = App(**openapi.ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    for method, path, endpoint in (
        ("GET", "/healthz", api.healthz),
        ("GET", "/status", api.status),
        ("GET", "/checkpoint", api.checkpoint),
        ("GET", "/loss", api.loss),
        ("GET", "/enrolment", api.offer),
        ("POST", "/enrolment", api.enrol),
        ("GET", "/enrolment/{root}", api.enrolled),
        ("POST", "/seals", api.seal),
        ("POST", "/closings", api.close),
        ("POST", "/hook", api.hook),
        ("POST", "/nodes", api.nodes),
        ("GET", "/tile/{path:path}", api.tile),
    ):
        documented = openapi.ROUTES[method, path]
        app.add_api_route(path, endpoint, methods=[method], response_class=Response, response_model=None, **documented)
    app.api = api
    for kind in (AuditError, Error, Exception):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.openapi = lambda: openapi.describe(app)  # type: ignore[method-assign]
    return app
