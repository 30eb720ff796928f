"""The network edge of the client: requests to one log, over HTTP, with bounds.

    server = Server("https://audit.example.org")
    server.offer()                                           what the log says of itself: a claim, to be compared
    server.proof(signer, None, 17, size="40")                the bytes of a proof, not verified

Plain http is for this machine alone (127.0.0.0/8, ::1, localhost); all else is https with a verified certificate.
Redirects are not followed, proxies and environment variables not used, every answer is bounded in size and time.

What can go wrong has two names: NotProven, when nothing can be had at the moment (`unreachable`, `no-proof`,
`not-published`), and Usage, when the server refuses. Nothing that arrives is believed here.
"""

from __future__ import annotations

import time
from contextlib import suppress
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from verifier import ed25519
from verifier.canonical import encode_value, members, parse_object
from verifier.encoding import decode_base64, decode_decimal, decode_hashes, encode_base64
from verifier.errors import Malformed, NotProven, Usage
from verifier.keys import check_source_id, parse_log_name
from verifier.loss import MAX_LOSS_SIZE, parse_loss
from verifier.merkle import MAX_PROOF_HASHES
from verifier.note import MAX_NOTE_SIZE
from verifier.proof import MAX_PROOF_SIZE, Declared, Line
from verifier.record import NamedTuple
from verifier.request import (
    MAX_TARGET,
    NONCE_SIZE,
    Authorization,
    Enrolment,
    format_authorization,
    request_message,
)

if TYPE_CHECKING:
    from http.client import HTTPConnection

MAX_ANSWER = 64 * 1024  # bytes; enrolment answers hold a note besides
MAX_SOURCES = 1_024
TIMEOUT_S = 30.0  # for each step of a connection
TOTAL_S = 300.0  # for a whole answer, headers too: a server that sends a byte now and then is cut off
PIECE = 64 * 1024
DEFAULT_RETRY_S, MAX_RETRY_S = 1.0, 10.0
SHOWN = 300  # characters of a server's message


class Unauthorised(Usage):
    """The server does not accept who asks."""


class Credentials(Protocol):
    """Who asks: an owner's key (`Signer`), a Nextcloud user (`verifier.login`), a public link (`verifier.link`)."""

    def authorization(self, method: str, target: str, now: int, body: bytes) -> str:
        """The Authorization header of a request."""


class Signer(NamedTuple):
    """Who signs requests: the owner's keys for one log."""

    log_name: str
    public: bytes
    private: bytes

    def __repr__(self) -> str:
        return f"Signer(log_name={self.log_name!r}, public={self.public.hex()})"

    def authorization(self, method: str, target: str, now: int, body: bytes) -> str:
        """The owner's signature over the request (SPEC 11.1)."""
        message = request_message(self.log_name, method, target, now, body)
        signature = ed25519.load_private_key(self.private).sign(message)
        return format_authorization(Authorization(self.public, now, signature))


class Answer(NamedTuple):
    """A whole answer. `retry_s` is how long the server asks to wait, within our bounds."""

    status: int
    body: bytes
    retry_s: float


class Offer(NamedTuple):
    """What a log says of itself to someone who wants to enrol: claims, all of them."""

    log: str
    vkey: str
    sources: tuple[str, ...]
    nonce: bytes


class Inclusion(NamedTuple):
    """Where the log says that the enrolment is, unverified."""

    root: bytes
    leaf_index: int
    checkpoint: bytes
    hashes: list[bytes]


class Server:
    """One log, by its address."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.scheme, self.host, self.port, self.base = _parse_url(url)

    def is_at(self, url: str) -> bool:
        """Whether an address is on this very server, below its base."""
        try:
            scheme, host, port, base = _parse_url(url)
        except Usage:
            return False
        return (scheme, host, port) == (self.scheme, self.host, self.port) and f"{base}/".startswith(f"{self.base}/")

    # -- what can be asked --------------------------------------------------------------------------------------

    def offer(self) -> Offer:
        answer = self._send("GET", "/enrolment")
        if answer.status != 200:
            raise _refused(answer)
        log, vkey, sources, nonce = members(_object(answer), "enrolment", "log", "vkey", "sources", "nonce")
        parse_log_name(log, "enrolment log")
        if type(vkey) is not str:
            raise Malformed("want a string", "enrolment vkey", vkey)
        if type(sources) is not list or len(sources) > MAX_SOURCES:
            raise Malformed(f"want a list of at most {MAX_SOURCES}", "enrolment sources")
        named = tuple([check_source_id(source, "enrolment sources") for source in sources])
        return Offer(str(log), vkey, named, decode_base64(nonce, "enrolment nonce", size=NONCE_SIZE))

    def enrol(self, enrolment: Enrolment, signature: bytes) -> None:
        e = enrolment
        fields = {"log": e.log, "source": e.source, "user": e.user, "token": e.token, "nonce": encode_base64(e.nonce)}
        fields |= {"owner": encode_base64(e.owner), "blinding": encode_base64(e.blinding)}
        answer = self._send("POST", "/enrolment", _body(**fields, signature=encode_base64(signature)))
        if answer.status != 202:
            raise _refused(answer)

    def enrolled(self, root: bytes) -> Inclusion | float | None:
        """Where the root is; or the seconds to wait, while it is not published; or None, if the log knows no such."""
        answer = self._send("GET", f"/enrolment/{root.hex()}", limit=2 * MAX_NOTE_SIZE)
        if answer.status == 404:
            return None
        if answer.status == 503:
            return answer.retry_s
        if answer.status != 200:
            raise _refused(answer)
        shown, index, checkpoint, hashes = members(
            _object(answer), "enrolment", "root", "index", "checkpoint", "hashes"
        )
        if shown != root.hex():
            raise Malformed(f"want {root.hex()}", "enrolment root", shown)
        if type(checkpoint) is not str:
            raise Malformed("want a signed note", "enrolment checkpoint", checkpoint)
        path = decode_hashes(hashes, "enrolment hashes", MAX_PROOF_HASHES)
        return Inclusion(root, decode_decimal(index, "enrolment index"), checkpoint.encode(), path)

    def loss(self) -> list[Declared]:
        """What the log has declared lost, the newest first; empty where nothing is."""
        answer = self._send("GET", "/loss", limit=MAX_LOSS_SIZE)
        if answer.status == 404:
            return []
        if answer.status != 200:
            raise _refused(answer)
        return parse_loss(answer.body)

    def proof(self, who: Credentials, path: str | None, file_id: int | None, **asked: str | list[str]) -> bytes:
        """The bytes of a proof. `asked`: source, from, size, replaces."""
        target = "/proof" if file_id is None else f"/proof/{file_id}"
        query = [("path", path)] if path is not None and file_id is None else []
        for name, value in asked.items():
            query += [(name, one) for one in (value if isinstance(value, list) else [value])]
        if query:
            target += "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query)
        answer = self._send("GET", target, who=who, limit=MAX_PROOF_SIZE)
        if answer.status == 200:
            return answer.body
        if answer.status in (404, 503):
            reason = "no-proof" if answer.status == 404 else "not-published"
            raise NotProven(reason, f"the log gives no proof: {_message(answer)}")
        raise _refused(answer)

    def seal(self, signer: Signer, source: str, file_id: int, generation: int, seal: bytes) -> int:
        """Hands a seal in; the answer is the seq that it gets in the chain, which is the server's word for now."""
        body = _body(source=source, file=str(file_id), generation=str(generation), seal=encode_base64(seal))
        answer = self._send("POST", "/seals", body, signer)
        if answer.status not in (200, 202):
            raise _refused(answer)
        return decode_decimal(members(_object(answer), "seal", "seq")[0], "seal seq")

    def close(self, signer: Signer, source: str, file_id: int, generation: int, line: Line) -> int:
        """Hands in the signed end of a chain (SPEC 4.7), with its openings; the answer is its seq."""
        parts = dict(zip(Line._fields, [encode_base64(part or b"") for part in line], strict=True))
        body = _body(source=source, file=str(file_id), generation=str(generation), **parts)
        answer = self._send("POST", "/closings", body, signer)
        if answer.status != 202:
            raise _refused(answer)
        return decode_decimal(members(_object(answer), "closing", "seq")[0], "closing seq")

    def degraded_since(self) -> int | None:
        """Since when the log says that its quorum is out of reach. Only a word to show: None where there is none."""
        try:
            answer = self._send("GET", "/status")
            since = _object(answer).get("degraded_since") if answer.status == 200 else None
            return None if since is None else decode_decimal(since, "status degraded_since")
        except (NotProven, Malformed):
            return None

    def post(self, target: str, body: bytes, media: str) -> tuple[int, bytes]:
        """Status and body of an answer to somebody else's protocol (`verifier.login`)."""
        answer = self._send("POST", target, body, media=media)
        return answer.status, answer.body

    # -- how ----------------------------------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        who: Credentials | None = None,
        limit: int = MAX_ANSWER,
        media: str = "application/json",
    ) -> Answer:
        from http.client import HTTPException

        target = self.base + target
        if len(target) > MAX_TARGET:
            raise Usage(f"request: want at most {MAX_TARGET} bytes, got {len(target)}: ask by file id")
        headers = {"Accept": "application/json", "User-Agent": "nextcloud-audit", "Connection": "close"}
        if body:
            headers["Content-Type"] = media
        if who is not None:
            headers["Authorization"] = who.authorization(method, target, int(time.time()), body)
        try:
            return self._exchange(method, target, body, headers, limit)
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise NotProven(
                "unreachable", f"server {self.host}:{self.port} does not answer: {reason[:SHOWN]}"
            ) from None

    def _exchange(self, method: str, target: str, body: bytes, headers: dict[str, str], limit: int) -> Answer:
        from http.client import HTTPConnection, HTTPSConnection

        kind = HTTPSConnection if self.scheme == "https" else HTTPConnection
        connection = kind(self.host, self.port, timeout=TIMEOUT_S)
        deadline = Deadline(connection, TOTAL_S)
        try:
            connection.request(method, target, body or None, headers)
            response = connection.getresponse()
            data = bytearray()
            while piece := response.read1(PIECE):
                data += piece
                if len(data) > limit:
                    raise Malformed(f"want at most {limit} bytes", "answer of the server")
            declared = response.getheader("Content-Length", "")
            if declared.isdigit() and int(declared) != len(data):
                raise OSError("the answer was cut short")
            return Answer(response.status, bytes(data), _retry(response.getheader("Retry-After")))
        finally:
            passed = deadline.end()
            connection.close()
            if passed:
                raise TimeoutError(f"no whole answer within {TOTAL_S:.0f} s")


class Deadline:
    """Cuts a connection after so many seconds, whatever it is read for: a status line, headers, a body."""

    def __init__(self, connection: HTTPConnection, seconds: float) -> None:
        from threading import Timer

        self._connection, self._passed = connection, False
        self._timer = Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> bool:
        """No more cutting; whether it was done."""
        self._timer.cancel()
        self._timer.join()
        return self._passed

    def _cut(self) -> None:
        self._passed = True
        socket = self._connection.sock
        if socket is not None:
            with suppress(OSError):  # closed by then
                socket.shutdown(SHUT_RDWR)


def _parse_url(url: str) -> tuple[str, str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise Usage(f"server: got {url!r}, want an address like https://audit.example.org")
    if parts.scheme == "http" and not is_loopback(host):
        raise Usage(f"server: {url!r} is not on this machine, so it has to be https")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether nobody can listen in on the way there."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry(header: str | None) -> float:
    seconds = float(header) if header and header.isascii() and header.isdigit() and len(header) < 6 else DEFAULT_RETRY_S
    return min(max(seconds, 0.1), MAX_RETRY_S)


def _body(**fields: str) -> bytes:
    return encode_value(fields).encode("utf-8")


def _object(answer: Answer) -> dict[str, object]:
    return parse_object(answer.body, "answer of the server")


def _message(answer: Answer) -> str:
    """What the server says about a refusal. Its words are shown, escaped by whoever prints them, and cut."""
    try:
        fields = parse_object(answer.body, "answer").get("error")
        if type(fields) is dict and type(fields.get("message")) is str:
            return f"{fields['message'][:SHOWN]} (status {answer.status})"
    except Malformed:
        pass
    return f"status {answer.status}"


def _refused(answer: Answer) -> Usage:
    if 300 <= answer.status < 400:
        return Usage(f"server: it redirects (status {answer.status}), which is not followed: use the final address")
    return (Unauthorised if answer.status == 401 else Usage)(f"server: it refuses: {_message(answer)}")
