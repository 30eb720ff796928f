"""A Nextcloud over WebDAV: `values.Session` for a user with an app password, or for any user through AppAPI.

    DIR/nextcloud.json (0600)   {"url":"https://cloud.example.org","accounts":[{"user":"alice","password":"…"}]}
                          or    {"url":"https://cloud.example.org","appapi":{"id":"…","version":"1.0.0","secret":"…"}}
                          and   "host":{"data":"/srv/data","database":"mysql://…","prefix":"oc_","instance":"oc…"}
                                on the Nextcloud's own machine: bytes then come from its disk (`samehost`)
                          and   "limits":{…}, see `limits`

    async with open_sessions(read_config(directory)) as sessions:
        for session in sessions: await session.list_folder("")

All sessions of one server share its connections, and at most AT_ONCE requests run at a time. Redirects are not
followed, proxies and the environment not used, cookies not kept (one user's would go out with another's request),
compression not asked for. Answers are bounded in size and in time. Nothing is ever written to the server; a secret
stands in the headers of a request and nowhere else. What is end-to-end encrypted is read as it lies there.

A user's own cookies are sent to read what else ends in 500, and for nothing else: with encryption at rest under users'
own keys Nextcloud 32 opens these in a login session alone, which the answer with the 500 begins.

| answer | becomes |
|---|---|
| 404 | None, or an empty list; TryLater for `read` |
| 412, another etag | TryLater: changed or gone since it was listed |
| 423 locked, 429, 502, 503, 504 | Busy, with the wait that it asks for |
| 401 twice (a burst of logins can refuse a good one) | PeerFailed: a new app password is needed; for `believes` once |
| redirects, other statuses, TLS, no connection, no WebDAV, compressed, cut short | PeerFailed |

Reading the current content holds Nextcloud's shared lock as long as the transfer lasts: writers get 423 meanwhile. The
bytes are hashed as they come and kept nowhere, which is faster than a network brings them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha3_256
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import httpx

from audit.answers import parse_retry_after, read_answer
from audit.errors import Busy, PeerFailed, TryLater
from audit.nextcloud import dav
from audit.nextcloud.limits import NO_LIMITS, Limits, parse_limits
from audit.nextcloud.samehost import HostConfig, HostFirst, open_host
from audit.nextcloud.values import Broken, Node, Reading, Session, Trashed, Version
from verifier.client import is_loopback
from verifier.encoding import check_text, decode_decimal
from verifier.errors import Malformed, Usage
from verifier.files import read_secret

CONFIG = "nextcloud.json"
AT_ONCE = 4  # requests at a time; PHP has few workers, and users come first
CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S = 10, 120
ANSWER_TIMEOUT_S = 600  # for a whole listing
SLOWEST = 16 << 10  # bytes per second below which a transfer is given up: it holds a lock
MAX_RETRY_AFTER_S, RETRY_AFTER_S = 3600, 5
LOCKED_RETRY_S = 0  # one file is locked: the server itself has time
MAX_CONFIG, MAX_ACCOUNTS, MAX_USERS = 1 << 20, 1_000, 1_000_000
MAX_OCS = 64 << 20
MAX_NAME = 255
MAX_HOST = 4_096  # bytes of a path, or of a database's address
AA_VERSION = "4.0.0"
READS_CIPHERTEXT = {"X-E2EE-Supported": "true"}  # else end_to_end_encryption (31 on) shows us no encrypted folder: 403
_T = TypeVar("_T")
MAX_COOKIES = 16
_COOKIE = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128})=(?P<value>[!#-+\--:<-\[\]-~]{0,1024})(;|$)")
_CAPABILITIES = "/ocs/v2.php/cloud/capabilities?format=json"
_BUSY = {423: "locked", 429: "too many requests", 502: "bad gateway", 503: "unavailable", 504: "gateway timeout"}


class NotAccepted(PeerFailed):
    """The password or secret is not, or no longer, accepted."""


class NotAllowed(PeerFailed):
    """Known there, and not entitled to this."""


class Failed(Broken):
    """The server failed (500). `cookies`: of the login session that its answer began."""

    def __init__(self, message: str, cookies: dict[str, str]) -> None:
        super().__init__(message)
        self.cookies = cookies


class Secret:
    """A password that no repr, message or traceback shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"


class Account(NamedTuple):
    """A user and an app password of theirs."""

    user: str
    password: Secret


class AppAPI(NamedTuple):
    """An external app, which may act as any user."""

    app: str
    version: str
    secret: Secret


class Config(NamedTuple):
    """Where a Nextcloud is, and as whom it is read: `accounts`, or `appapi`."""

    url: str
    accounts: tuple[Account, ...]
    appapi: AppAPI | None
    host: HostConfig | None = None
    limits: Limits = NO_LIMITS


# The configuration


def read_config(directory: str) -> Config:
    """The configuration in DIR/nextcloud.json, a file that only its owner may read."""
    path = os.path.join(directory, CONFIG)
    data, warnings = read_secret(path, CONFIG, MAX_CONFIG)
    if warnings:
        raise Usage(f"{CONFIG}: {'; '.join(warnings)}")
    return parse_config(data)


def read_limits(directory: str) -> Limits:
    """How fast that Nextcloud is to be read; the usual where nothing is configured."""
    return read_config(directory).limits if os.path.lexists(os.path.join(directory, CONFIG)) else NO_LIMITS


def parse_config(data: bytes) -> Config:
    """Strict: unknown and repeated members are refused, and no message holds a value."""
    try:
        found = json.loads(data, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise Malformed("no JSON, or a member twice", CONFIG) from None
    names = {"url", "appapi" if "appapi" in _keys(found) else "accounts"} | _keys(found) & {"host", "limits"}
    members = _object(found, names, CONFIG)
    url = check_url(members["url"])
    host = _host(members["host"]) if "host" in members else None
    limits = _limits(members["limits"]) if "limits" in members else NO_LIMITS
    if "appapi" in members:
        app = _object(members["appapi"], {"id", "version", "secret"}, "appapi")
        return Config(
            url, (), AppAPI(_header(app, "id"), _header(app, "version"), Secret(_header(app, "secret"))), host, limits
        )
    accounts = members["accounts"]
    if type(accounts) is not list or not 1 <= len(accounts) <= MAX_ACCOUNTS:
        raise Malformed(f"want 1 to {MAX_ACCOUNTS} of them", "accounts")
    parsed = tuple(_account(account) for account in accounts)
    if len({account.user for account in parsed}) != len(parsed):
        raise Malformed("a user twice", "accounts")
    return Config(url, parsed, None, host, limits)


def check_url(value: object) -> str:
    """A base URL without a slash at its end: https, or http on loopback, where nobody can listen in."""
    try:
        parts = urlsplit(check_text(value, "url", 2_048))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Malformed("no URL", "url") from None
    if (
        parts.username is not None
        or parts.password is not None
        or parts.query
        or parts.fragment
        or not host
        or port == 0
    ):
        raise Malformed("want https://HOST[:PORT][/PATH] and nothing else", "url")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise Malformed("want https: a password must not travel in the clear (http only on loopback)", "url")
    path = parts.path.rstrip("/").removesuffix("/index.php")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _account(value: object) -> Account:
    members = _object(value, {"user", "password"}, "account")
    user, password = _text(members, "user"), _text(members, "password")
    if ":" in user:
        raise Malformed("no colon can be in it", "user")
    return Account(user, Secret(password))


def _host(value: object) -> HostConfig:
    members = _object(value, set(HostConfig._fields), "host")
    return HostConfig(*(_text(members, name, MAX_HOST) for name in HostConfig._fields))


def _limits(value: object) -> Limits:
    members = _object(value, _keys(value), "limits")
    return parse_limits({name: _text(members, name) for name in members})


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _keys(value: object) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def _object(value: object, names: set[str], where: str) -> dict[str, object]:
    if not isinstance(value, dict) or set(value) != names:
        raise Malformed(f"want an object with {', '.join(sorted(names))}", where)
    return value


def _text(members: dict[str, object], name: str, limit: int = MAX_NAME) -> str:
    value = members[name]
    try:
        return check_text(value, name, limit)
    except Malformed as error:
        raise Malformed(error.what, name) from None  # what was got may be the secret


def _header(members: dict[str, object], name: str) -> str:
    value = _text(members, name)
    if not value.isascii():
        raise Malformed("want ASCII", name)
    return value


# One server


@asynccontextmanager
async def open_sessions(
    config: Config, transport: httpx.AsyncBaseTransport | None = None, at_once: int = AT_ONCE
) -> AsyncIterator[Sequence[Session]]:
    """A session for each account, or through AppAPI for each user that there is."""
    async with make_client(transport, at_once) as client:
        sessions = await _dav_sessions(config, Server(config.url, client, at_once))
        if config.host is None:
            yield sessions
            return
        host = await asyncio.to_thread(open_host, config.host)
        try:
            yield [HostFirst(session, host) for session in sessions]
        finally:
            host.close()


async def _dav_sessions(config: Config, server: Server) -> list[DavSession]:
    if config.appapi is None:
        return [DavSession(server, account.user, basic(account)) for account in config.accounts]
    app = config.appapi
    users = await list_users(server, as_user(app, ""))
    return [DavSession(server, user, as_user(app, user)) for user in users]


def make_client(transport: httpx.AsyncBaseTransport | None = None, at_once: int = AT_ONCE) -> httpx.AsyncClient:
    """A client that follows nothing, keeps no cookie and reads no environment."""
    return httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"Accept-Encoding": "identity", "User-Agent": "nextcloud-audit", **READS_CIPHERTEXT},
        limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once),
        timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
    )


def as_user(app: AppAPI, user: str) -> dict[str, str]:
    """AppAPI's four headers; an empty user is the app itself."""
    token = b64encode(f"{user}:{app.secret.reveal()}".encode()).decode("ascii")
    return {
        "AA-VERSION": AA_VERSION,
        "EX-APP-ID": app.app,
        "EX-APP-VERSION": app.version,
        "AUTHORIZATION-APP-API": token,
    }


def basic(account: Account) -> dict[str, str]:
    """An account's own header."""
    token = b64encode(f"{account.user}:{account.password.reveal()}".encode()).decode("ascii")
    return {"Authorization": f"Basic {token}"}


async def list_users(server: Server, headers: dict[str, str]) -> list[str]:
    """The uids that AppAPI may act as."""
    path = "/ocs/v1.php/apps/app_api/api/v1/users?format=json"
    async with server.ask("GET", path, {**headers, "OCS-APIRequest": "true"}, "the list of users") as response:
        if response is None:
            raise PeerFailed("nextcloud: AppAPI is not installed there (404)")
        data = await read_answer(response, MAX_OCS, "nextcloud: the list of users")
    try:
        users = json.loads(data)["ocs"]["data"]
        if type(users) is not list or len(users) > MAX_USERS:
            raise TypeError
        return [check_text(user, "uid", MAX_NAME) for user in users]
    except (ValueError, TypeError, KeyError, RecursionError, Malformed):
        raise PeerFailed("nextcloud: the list of users is not as OCS says") from None


class Server:
    """One Nextcloud at its address, asked by all sessions, a bounded number of requests at a time.

    `believes`: the first 401 counts. Strangers' passwords are never sent twice: each refusal counts there against us.
    """

    def __init__(self, url: str, client: httpx.AsyncClient, at_once: int = AT_ONCE, believes: bool = False) -> None:
        self.url, self._client, self._gate = url, client, asyncio.Semaphore(at_once)
        self._tries = (True,) if believes else (False, True)  # whether it is the last one
        self.names = tuple(unquote(name) for name in urlsplit(url).path.split("/") if name)
        self._encrypts: bool | None = None

    async def encrypts(self, headers: dict[str, str]) -> bool:
        """Whether end-to-end encryption is installed there; asked once."""
        if self._encrypts is None:
            what = "its capabilities"
            async with self.ask("GET", _CAPABILITIES, {**headers, "OCS-APIRequest": "true"}, what) as response:
                data = b"" if response is None else await read_answer(response, MAX_OCS, f"nextcloud: {what}")
            self._encrypts = b'"end-to-end-encryption"' in data
        return self._encrypts

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, headers: dict[str, str], what: str, body: bytes | None = None
    ) -> AsyncIterator[httpx.Response | None]:
        """The answer, its body still to be read; None for 404. `what` names it in messages."""
        async with self._gate:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S) as deadline:
                    for last in self._tries:
                        async with self._client.stream(
                            method, self.url + path, content=body, headers=headers
                        ) as response:
                            if response.status_code == httpx.codes.UNAUTHORIZED and not last:
                                continue
                            found = _check(response, what)
                            deadline.reschedule(asyncio.get_running_loop().time() + _time_for(found))
                            yield found
                            return
            except TimeoutError:
                raise PeerFailed(f"nextcloud: {what}: no whole answer in time") from None
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                raise PeerFailed(f"nextcloud: {what}: {_reason(error)}") from None

    async def propfind(
        self, names: tuple[str, ...], depth: str, body: bytes, headers: dict[str, str], method: str = "PROPFIND"
    ) -> list[dav.Response]:
        """The responses of a multistatus; none for 404."""
        path, what = dav.encode_href(names), f"{method} {dav.encode_href(names)}"
        sent = {**headers, "Depth": depth, "Content-Type": "application/xml; charset=utf-8"}
        async with self.ask(method, path, sent, what, body) as response:
            if response is None:
                return []
            if response.status_code != httpx.codes.MULTI_STATUS:
                raise PeerFailed(f"nextcloud: {what}: want status 207, got {response.status_code}")
            listing = dav.Multistatus(what)
            async for chunk in response.aiter_raw():
                listing.feed(chunk)
            return listing.close()

    async def read(self, names: tuple[str, ...], headers: dict[str, str], etag: str | None = None) -> Reading | None:
        """The bytes at a path, hashed; None for 404. With an etag, TryLater unless it is still the file's."""
        path = dav.encode_href(names)
        sent = headers if etag is None else {**headers, "If-Match": f'"{etag}"'}
        async with self.ask("GET", path, sent, f"GET {path}") as response:
            if response is None:
                return None
            if response.status_code != httpx.codes.OK:
                raise PeerFailed(f"nextcloud: GET {path}: want status 200, got {response.status_code}")
            if etag is not None and _etag(response) != etag:
                raise TryLater(f"GET {path}: changed since it was listed")
            digest, size = sha3_256(), 0
            async for chunk in response.aiter_raw():
                digest.update(chunk)
                size += len(chunk)
            if (said := _length(response)) is not None and said != size:
                raise PeerFailed(f"nextcloud: GET {path}: {size} bytes came, want {said} as the header says")
            return Reading(size, digest.digest())


def _check(response: httpx.Response, what: str) -> httpx.Response | None:
    """The response of a good status, None for 404."""
    status = response.status_code
    if status == httpx.codes.NOT_FOUND:
        return None
    if status == httpx.codes.UNAUTHORIZED:
        raise NotAccepted(f"nextcloud: {what}: 401, the password or secret is not accepted: make a new app password")
    if status in (httpx.codes.FORBIDDEN, httpx.codes.METHOD_NOT_ALLOWED):
        raise NotAllowed(f"nextcloud: {what}: status {status}")
    if status == httpx.codes.PRECONDITION_FAILED:
        raise TryLater(f"{what}: changed or gone since it was listed")
    if status in _BUSY:
        usual = LOCKED_RETRY_S if status == httpx.codes.LOCKED else RETRY_AFTER_S
        raise Busy(
            f"nextcloud: {what}: {status} {_BUSY[status]}", parse_retry_after(response, MAX_RETRY_AFTER_S, usual)
        )
    if 300 <= status < 400:
        raise PeerFailed(f"nextcloud: {what}: {status}, redirects are not followed: configure the address it leads to")
    if not 200 <= status < 300:
        if status == httpx.codes.INTERNAL_SERVER_ERROR:
            raise Failed(f"nextcloud: {what}: status {status}", _cookies(response))
        raise PeerFailed(f"nextcloud: {what}: status {status}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise PeerFailed(f"nextcloud: {what}: the answer is compressed, which nobody asked for")
    return response


def _cookies(response: httpx.Response) -> dict[str, str]:
    """Names and values, at most MAX_COOKIES of them; what has no plain form is left out."""
    found = map(_COOKIE.match, response.headers.get_list("set-cookie")[:MAX_COOKIES])
    return {one["name"]: one["value"] for one in found if one and one["value"] != "deleted"}


def _time_for(response: httpx.Response | None) -> float:
    length = None if response is None else _length(response)
    return ANSWER_TIMEOUT_S + (length or 0) / SLOWEST


def _length(response: httpx.Response) -> int | None:
    value = response.headers.get("content-length")
    try:
        return None if value is None else decode_decimal(value, "content-length")
    except Malformed:
        raise PeerFailed("nextcloud: the content-length is no number") from None


def _etag(response: httpx.Response) -> str:
    """`OC-ETag` is Nextcloud's own; a web server on the way may have changed the other one."""
    value = str(response.headers.get("oc-etag") or response.headers.get("etag", ""))
    return value.removeprefix("W/").strip('"')


def _reason(error: Exception) -> str:
    """What failed, without the request that the error holds."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not accepted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({getattr(cause, 'reason', None) or 'handshake'})"
        cause = cause.__cause__ or cause.__context__
    return {"ConnectError": "no connection", "RemoteProtocolError": "the answer was cut short or is no HTTP"}.get(
        type(error).__name__, type(error).__name__
    )


# One user


class DavSession:
    """`values.Session` over WebDAV."""

    def __init__(self, server: Server, user: str, headers: dict[str, str]) -> None:
        self.user, self._server, self._headers = user, server, headers
        self._session: dict[str, str] = {}
        self._dav = (*server.names, "remote.php", "dav")
        self._files = (*self._dav, "files", user)
        self._trash = (*self._dav, "trashbin", user, "trash")

    def __repr__(self) -> str:
        return f"DavSession({self._server.url}, {self.user!r})"

    async def instance_id(self) -> str:
        found = await self._propfind(self._files, "0", dav.NODE_PROPERTIES)
        if not found:
            raise PeerFailed(f"nextcloud: {self.user!r} has no files there (404)")
        return _said(lambda: dav.parse_instance_id(found))

    async def list_folder(self, path: str) -> list[Node]:
        nodes = await self._nodes(path, "1")
        below = f"{path}/" if path else ""
        for node in nodes[1:]:
            if not node.path.startswith(below) or "/" in node.path[len(below) :] or not node.path:
                raise PeerFailed(f"nextcloud: listing of {path!r}: {node.path!r} is not directly in it")
        marked = bool(nodes and nodes[0].is_encrypted)  # often only the folder is
        return [node._replace(is_encrypted=marked or bool(node.is_encrypted)) for node in nodes]

    async def stat(self, path: str) -> Node | None:
        nodes = await self._nodes(path, "0")
        if not nodes or nodes[0].is_folder or nodes[0].is_encrypted is not None:
            return nodes[0] if nodes else None
        return nodes[0]._replace(is_encrypted=await self._is_in_encrypted(path))

    async def _is_in_encrypted(self, path: str) -> bool:
        """Whether the folder of a file is marked, where only the folder says so (before 31)."""
        folder = path.rpartition("/")[0]
        if not folder or not await self._server.encrypts(self._headers):
            return False
        above = await self._nodes(folder, "0")
        return bool(above and above[0].is_encrypted)

    async def find(self, file_id: int) -> Node | None:
        body = dav.search_by_id(self.user, file_id)
        found = await self._propfind(self._dav, "infinity", body, "SEARCH")
        nodes = _said(lambda: dav.parse_nodes(found, self._files))
        for node in sorted(nodes, key=lambda node: (node.mount != "", node.path)):
            whole = await self.stat(node.path)  # SEARCH leaves out owner (27) and upload time
            if whole is not None and whole.file_id == file_id:
                return whole
        return None

    async def read(self, path: str, etag: str) -> Reading:
        reading = await self._content(self._at(path), etag)
        if reading is None:
            raise TryLater(f"{path!r}: gone since it was listed")
        return reading

    async def list_versions(self, file_id: int) -> list[Version]:
        base = self._versions(file_id)
        found = await self._propfind(base, "1", dav.VERSION_PROPERTIES)
        return _said(lambda: dav.parse_versions(found, base))

    async def read_version(self, file_id: int, version_id: str) -> Reading | None:
        return await self._content((*self._versions(file_id), version_id))

    async def _content(self, names: tuple[str, ...], etag: str | None = None) -> Reading | None:
        """Bytes, in a login session where they are given in no other way: one of this user's, for reading alone."""
        for last in (False, False, True):
            cookie = {"Cookie": "; ".join(f"{name}={self._session[name]}" for name in self._session)}
            try:
                return await self._server.read(names, self._headers | (cookie if self._session else {}), etag)
            except Failed as failed:
                begun = self._session | failed.cookies
                if last or begun == self._session:
                    raise
                self._session = begun
        raise AssertionError

    async def list_trash(self) -> list[Trashed]:
        try:
            found = await self._server.propfind(self._trash, "1", dav.TRASH_PROPERTIES, self._headers)
        except Malformed:  # a name that XML cannot hold makes the whole answer unreadable, but only where it is text
            found = await self._propfind(self._trash, "1", dav.TRASH_WITHOUT_PATHS)
        return _said(lambda: dav.parse_trash(found, self._trash))

    async def _nodes(self, path: str, depth: str) -> list[Node]:
        found = await self._propfind(self._at(path), depth, dav.NODE_PROPERTIES)
        nodes = _said(lambda: dav.parse_nodes(found, self._files))
        if nodes and nodes[0].path != path:
            raise PeerFailed(f"nextcloud: asked for {path!r}, got {nodes[0].path!r}")
        return nodes

    async def _propfind(
        self, names: tuple[str, ...], depth: str, body: bytes, method: str = "PROPFIND"
    ) -> list[dav.Response]:
        try:
            return await self._server.propfind(names, depth, body, self._headers, method)
        except Malformed as error:
            raise PeerFailed(f"nextcloud: {error}") from None

    def _at(self, path: str) -> tuple[str, ...]:
        return (*self._files, *(path.split("/") if path else ()))

    def _versions(self, file_id: int) -> tuple[str, ...]:
        return (*self._dav, "versions", self.user, "versions", str(file_id))


def _said(parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except Malformed as error:
        raise PeerFailed(f"nextcloud: {error}") from None
