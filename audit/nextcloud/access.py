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

A wrong password costs Nextcloud work and is counted there against our address, so Unauthorised answers are bounded by
the caller. Login names may differ from uids: which uid it is, is asked once for each password, and kept for a while
under a keyed hash.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

import httpx

from audit.answers import read_answer
from audit.enrolment import Unauthorised
from audit.errors import Refused
from audit.nextcloud.client import AppAPI, Config, DavSession, NotAccepted, NotAllowed, Secret, Server, as_user
from audit.nextcloud.values import Node
from verifier.encoding import check_text, decode_base64
from verifier.entry import encode_path
from verifier.errors import Malformed

SHARE = "NextcloudShare"
MAX_CREDENTIALS = 2_048  # bytes
MAX_ANSWER = 64 * 1024
UIDS, UID_TTL_S = 4_096, 300.0
_NOT_APPAPI = "AUTHORIZATION-APP-API: does not come from this app's Nextcloud, or from none of its users"
_NONE = "there is no such file for this user"
_WHO = "/ocs/v2.php/cloud/user?format=json"


class NotVisible(Refused):
    """This user has no such file, or may not read it: nobody is told which."""


class Seen(NamedTuple):
    """A file as its user has it. `owns`: it lies in their own storage, so its whole history is theirs to know."""

    file_id: int
    owns: bool


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
        self._server, self._appapi, self._clock = Server(config.url, client), config.appapi, clock
        self._secret = os.urandom(32)
        self._uids: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def is_for(self, headers: Mapping[str, str]) -> bool:
        """Whether a request names a Nextcloud user at all."""
        scheme = headers.get("authorization", "").partition(" ")[0]
        return scheme in ("Basic", SHARE) or self._appapi is not None and "authorization-app-api" in headers

    async def find(self, headers: Mapping[str, str], path: str | None, file_id: int | None) -> Seen:
        """The file at a path or with an id, as this user sees it."""
        try:
            user, session = await self._session(headers)
            if path is not None and not _is_path(path):
                raise NotVisible(_NONE)
            node = await self._look(session, path, file_id)
        except NotAccepted:
            raise Unauthorised("Authorization: Nextcloud does not accept it") from None
        except NotAllowed:  # a link that only takes files in says 405 to every question
            raise NotVisible(_NONE) from None
        if node is None or node.is_folder or file_id is not None and node.file_id != file_id:
            raise NotVisible(_NONE)
        return Seen(node.file_id, bool(user) and node.owner == user and node.mount == "")

    async def _look(self, session: DavSession, path: str | None, file_id: int | None) -> Node | None:
        if isinstance(session, LinkSession):
            root = await session.stat("")
            if root is None or not root.is_folder:
                return root
            return None if path is None else await session.stat(path)
        return await (session.stat(path) if path is not None else session.find(file_id or 0))

    async def _session(self, headers: Mapping[str, str]) -> tuple[str, DavSession]:
        """The uid that asks ("" for a link) and that user's view."""
        if self._appapi is not None and "authorization-app-api" in headers:
            user = check_appapi(headers, self._appapi)
            return user, DavSession(self._server, user, as_user(self._appapi, user))
        scheme, _, value = headers.get("authorization", "").partition(" ")
        name, password = parse_credentials(value)
        basic = {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode("ascii")}
        if scheme == SHARE:
            return "", LinkSession(self._server, name, basic)
        uid = await self._uid(basic)
        return uid, DavSession(self._server, uid, basic)

    async def _uid(self, headers: dict[str, str]) -> str:
        """Whose password it is. Every later request carries the password itself, so an old answer opens nothing."""
        key = hmac.digest(self._secret, headers["Authorization"].encode("ascii"), sha256)
        known = self._uids.get(key)
        if known is not None and self._clock() < known[1]:
            return known[0]
        async with self._server.ask("GET", _WHO, {**headers, "OCS-APIRequest": "true"}, "who asks") as response:
            data = b"" if response is None else await read_answer(response, MAX_ANSWER, "nextcloud: who asks")
        uid = parse_uid(data)
        self._uids[key] = uid, self._clock() + UID_TTL_S
        if len(self._uids) > UIDS:
            self._uids.popitem(last=False)
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
