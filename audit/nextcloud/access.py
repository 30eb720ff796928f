"""Which file a Nextcloud user may have a proof of: what Nextcloud itself shows that user, and nothing else.

    access = Access(source, source_id, config, client)
    seen = await access.find(headers, path="Shared/plan.odt", file_id=None)        Seen(584, owns=False), or NotVisible

Who asks says so in one of these ways, and Nextcloud is asked in the same way, as that user (SPEC 11.4):

    Authorization: Basic USER:APP-PASSWORD             an app password (`nextcloud-audit login`)
    Authorization: NextcloudShare TOKEN:PASSWORD       a public link, with its password or an empty one, in base64
    AUTHORIZATION-APP-API: UID:SECRET                  AppAPI, where this log is an external app; the secret is compared

Nextcloud is asked before anything is looked up here. What the user may not read and what does not exist are the same
NotVisible. A path is the user's own: where a share is mounted in their files, or below a link's folder; a link to one
file has no path, and any that is named means that file.

[R] Nextcloud counts each wrong password against our address, and after ten in half an hour answers 429 to every login
from there, ours too: no scan would go on. So at most REFUSALS of them reach it in REFUSED_S: none is sent twice, what
was refused is remembered for that long, and what was never accepted is not sent while only the last one is left, which
is for those whom Nextcloud knows. What is remembered of passwords stands under a keyed hash, with the uid (login names
may differ): every request is still Nextcloud's to allow.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import NamedTuple

import httpx

from audit.answers import read_answer
from audit.enrolment import Unauthorised
from audit.errors import Refused, TryLater
from audit.nextcloud.client import AppAPI, Config, DavSession, NotAccepted, NotAllowed, Secret, Server, as_user
from audit.nextcloud.values import Node
from verifier.encoding import check_text, decode_base64
from verifier.entry import encode_path
from verifier.errors import Malformed

SHARE = "NextcloudShare"
MAX_CREDENTIALS = 2_048  # bytes
MAX_ANSWER = 64 * 1024
UIDS, UID_TTL_S = 4_096, 300.0
SPELLINGS = 16  # of one user's, or one link's, name and password
REFUSALS, REFUSED_S = 4, 1_800.0  # far below Nextcloud's 10 in that time, which others behind our address share
_NOT_APPAPI = "AUTHORIZATION-APP-API: does not come from this app's Nextcloud, or from none of its users"
_NONE = "there is no such file for this user"
_WHO = "/ocs/v2.php/cloud/user?format=json"


class NotVisible(Refused):
    """This user has no such file, or may not read it: nobody is told which."""


class Guessed(TryLater):
    """So many wrong passwords came that Nextcloud is asked about none for a while."""

    def __init__(self, retry_s: float) -> None:
        super().__init__("too many wrong passwords came: new ones are looked at again later")
        self.retry_s = retry_s


class Refusals:
    """What Nextcloud refused of late, and the right to ask: as many at a time as may still be refused."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._asking, self._changed = clock, 0, asyncio.Condition()
        self._refused: list[tuple[bytes, float]] = []  # key, and when it is forgotten; at most REFUSALS of them

    @asynccontextmanager
    async def asking(self, key: bytes, is_known: bool) -> AsyncIterator[None]:
        """The right to ask once; NotAccepted in the block uses it up."""
        most = REFUSALS if is_known else REFUSALS - 1
        async with self._changed:
            while self._left(key, most) <= self._asking:
                await self._changed.wait()
            self._asking += 1
        try:
            yield
        except NotAccepted:
            self._refused.append((key, self._clock() + REFUSED_S))
            raise
        finally:
            self._asking -= 1
            async with self._changed:
                self._changed.notify_all()

    def _left(self, key: bytes, most: int) -> int:
        """How many may be asking; refuses what was refused, and everything once that many were."""
        now = self._clock()
        self._refused = [(one, until) for one, until in self._refused if now < until]
        if any(one == key for one, _ in self._refused):
            raise NotAccepted("nextcloud: refused before")
        if len(self._refused) >= most:
            raise Guessed(self._refused[0][1] - now)
        return most - len(self._refused)


class Seen(NamedTuple):
    """A file as its user has it. `owns`: it lies in their own storage, so its whole history is theirs to know."""

    file_id: int
    owns: bool


class _Accepted(OrderedDict[bytes, tuple[str, float, str]]):
    """Passwords that were accepted once: each with its uid, how long that holds, and whose it is. The newest UIDS.

    [R] Of each user, or link, at most SPELLINGS: a login name may be written in many ways, and a link without a
    password takes any; nobody puts the others out. Links have a list of their own, since whoever has one has many.
    """

    def add(self, key: bytes, uid: str, now: float, whose: str) -> None:
        self[key] = uid, now + UID_TTL_S, whose
        self.move_to_end(key)
        same = [one for one, (_, _, other) in self.items() if other == whose]
        if len(same) > SPELLINGS:
            del self[same[0]]
        if len(self) > UIDS:
            self.popitem(last=False)


class Access:
    """Asks the Nextcloud of a source on behalf of those who ask us. `source`: its row, and its id."""

    def __init__(
        self,
        source: int,
        source_id: str,
        config: Config,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self.source_id = source, source_id
        self._server, self._appapi, self._clock = Server(config.url, client, believes=True), config.appapi, clock
        self._secret, self._refusals = os.urandom(32), Refusals(clock)
        self._accepted = _Accepted(), _Accepted()  # users, links

    def is_for(self, headers: Mapping[str, str]) -> bool:
        """Whether a request names a Nextcloud user at all."""
        scheme = headers.get("authorization", "").partition(" ")[0]
        return scheme in ("Basic", SHARE) or self._appapi is not None and "authorization-app-api" in headers

    async def find(self, headers: Mapping[str, str], path: str | None, file_id: int | None) -> Seen:
        """The file at a path or with an id, as this user sees it."""
        try:
            if self._appapi is not None and "authorization-app-api" in headers:
                user = check_appapi(headers, self._appapi)
                node = await self._look(DavSession(self._server, user, as_user(self._appapi, user)), path, file_id)
            else:
                user, node = await self._find_with_password(headers, path, file_id)
        except NotAccepted:
            raise Unauthorised("Authorization: Nextcloud does not accept it") from None
        except NotAllowed:  # a link that only takes files in says 405 to every question
            raise NotVisible(_NONE) from None
        if node is None or node.is_folder or file_id is not None and node.file_id != file_id:
            raise NotVisible(_NONE)
        return Seen(node.file_id, bool(user) and node.owner == user and node.mount == "")

    async def _find_with_password(
        self, headers: Mapping[str, str], path: str | None, file_id: int | None
    ) -> tuple[str, Node | None]:
        """The uid that asks ("" for a link), and the file."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        name, password = parse_credentials(value)
        basic = {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode("ascii")}
        key = hmac.digest(self._secret, f"{scheme} {basic['Authorization']}".encode("ascii"), sha256)
        accepted = self._accepted[scheme == SHARE]
        async with self._refusals.asking(key, key in accepted):
            try:
                uid = "" if scheme == SHARE else await self._uid(accepted, key, basic)
                link = LinkSession(self._server, name, basic) if scheme == SHARE else None
                node = await self._look(link or DavSession(self._server, uid, basic), path, file_id)
            except NotAccepted:
                accepted.pop(key, None)
                raise
        if scheme == SHARE:
            accepted.add(key, "", self._clock(), name)
        return uid, node

    async def _look(self, session: DavSession, path: str | None, file_id: int | None) -> Node | None:
        if path is not None and not _is_path(path):
            raise NotVisible(_NONE)
        if isinstance(session, LinkSession):
            root = await session.stat("")
            if root is None or not root.is_folder:
                return root
            return None if path is None else await session.stat(path)
        return await (session.stat(path) if path is not None else session.find(file_id or 0))

    async def _uid(self, accepted: _Accepted, key: bytes, headers: dict[str, str]) -> str:
        """Whose password it is. Every later request carries the password itself, so an old answer opens nothing."""
        known = accepted.get(key)
        if known is not None and self._clock() < known[1]:
            accepted.move_to_end(key)
            return known[0]
        async with self._server.ask("GET", _WHO, {**headers, "OCS-APIRequest": "true"}, "who asks") as response:
            data = b"" if response is None else await read_answer(response, MAX_ANSWER, "nextcloud: who asks")
        uid = parse_uid(data)
        accepted.add(key, uid, self._clock(), uid)
        return uid


class LinkSession(DavSession):
    """What a public link shows: its root is the shared folder, or the one shared file."""

    def __init__(self, server: Server, token: str, headers: dict[str, str]) -> None:
        super().__init__(server, "", headers)
        self._files = (*server.names, "public.php", "webdav")


def parse_credentials(value: str) -> tuple[str, str]:
    """Name and password out of RFC 7617's base64."""
    if len(value) > MAX_CREDENTIALS:
        raise Unauthorised(f"Authorization: want at most {MAX_CREDENTIALS} bytes")
    try:
        name, colon, password = decode_base64(value, "Authorization").decode("utf-8").partition(":")
        check_text(name, "Authorization", MAX_CREDENTIALS)
        if password:
            check_text(password, "Authorization", MAX_CREDENTIALS)
    except (Malformed, UnicodeDecodeError):
        raise Unauthorised("Authorization: want base64 of NAME:PASSWORD") from None  # without what it was
    if not colon:
        raise Unauthorised("Authorization: want base64 of NAME:PASSWORD")
    return name, password


def check_appapi(headers: Mapping[str, str], app: AppAPI) -> str:
    """The uid for which AppAPI passes a request on; the app itself and nobody at all are no users."""
    uid = _uid_from_appapi(headers, app)
    if not uid:
        raise Unauthorised(_NOT_APPAPI)
    try:
        return check_text(uid.decode("utf-8"), "uid", MAX_CREDENTIALS)
    except (Malformed, UnicodeDecodeError):
        raise Unauthorised("AUTHORIZATION-APP-API: no uid") from None


def check_from_appapi(headers: Mapping[str, str], app: AppAPI) -> None:
    """Whether this comes from this app's Nextcloud, on whosoever's behalf: an event may be nobody's."""
    _uid_from_appapi(headers, app)


def check_bearer(headers: Mapping[str, str], secret: Secret) -> None:
    """Whether this comes from who was given the secret. Says nothing of what was sent."""
    given = headers.get("authorization", "").encode("latin-1", "replace")
    if not hmac.compare_digest(given, b"Bearer " + secret.reveal().encode("ascii")):
        raise Unauthorised("Authorization: want Bearer and the secret in the log's hook.secret")


def _uid_from_appapi(headers: Mapping[str, str], app: AppAPI) -> bytes:
    try:
        given = decode_base64(headers.get("authorization-app-api", ""), "AUTHORIZATION-APP-API")
    except Malformed:
        given = b""
    uid, _, secret = given.partition(b":")
    same = hmac.compare_digest(secret, app.secret.reveal().encode("utf-8"))
    if not same or headers.get("ex-app-id") != app.app:
        raise Unauthorised(_NOT_APPAPI)
    return uid


def parse_uid(data: bytes) -> str:
    """The uid in OCS's answer about the current user."""
    try:
        return check_text(json.loads(data)["ocs"]["data"]["id"], "uid", MAX_CREDENTIALS)
    except (ValueError, KeyError, TypeError, RecursionError, Malformed):
        raise Unauthorised("Authorization: Nextcloud does not say whose it is") from None


def _is_path(path: str) -> bool:
    """Whether any file can have it: a name like `..` would climb out of the address that is asked."""
    try:
        return bool(encode_path(path))
    except Malformed:
        return False
