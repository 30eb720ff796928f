"""A Nextcloud for tests, over HTTP: WebDAV of files, versions and trash, bulk upload, and the bits of OCS around them.

It answers in the form of real ones (27 and 32), keeps what `model.Cloud` keeps, and can lie: `lie` sees each request
first and may answer it; `pause`, while set, holds the body of every GET after its first byte, as a slow reader would.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.nextcloud.model import Answer, Cloud, File, Folder, Node, Trash, User

INSTANCE = "ocfakeinst01"
ADMIN, ADMIN_PASSWORD = "admin", "admin-password"
APP, APP_SECRET = "nc_audit", "app-secret"
METHODS = "GET PUT POST DELETE PROPFIND PROPPATCH SEARCH MKCOL MOVE COPY".split()
DAV, OC, NC = "{DAV:}", "{http://owncloud.org/ns}", "{http://nextcloud.org/ns}"
PREFIX = {DAV: "d", OC: "oc", NC: "nc"}
XMLNS = 'xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns" xmlns:oc="http://owncloud.org/ns" xmlns:nc="http://nextcloud.org/ns"'
ERROR = (
    '<?xml version="1.0" encoding="utf-8"?>\n<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns">\n'
    "  <s:exception>Sabre\\DAV\\Exception</s:exception>\n  <s:message/>\n</d:error>\n"
)


class FakeNextcloud:
    """The application is `app`; the state is `cloud`."""

    def __init__(self, now: int = 1_800_000_000) -> None:
        self.cloud = Cloud(now)
        self.cloud.add_user(ADMIN, ADMIN_PASSWORD)
        self.lie: Callable[[Request], Response | None] = lambda request: None
        self.pause: asyncio.Event | None = None
        self.reading = asyncio.Event()
        self.requests = self.running = self.most_running = 0
        self.delay_s = 0.0
        self.sent_auth: list[object] = []
        self.wants_session = False  # users' keys are opened in a session alone: other reads end in 500, and begin one
        self.encryption = ""  # the version of end_to_end_encryption: 1.13.2, 1.18.4
        self.encryption_agents: set[str] = set()  # whom else it shows encrypted folders, as the administrator has said
        self.webhooks: dict[int, dict[str, object]] | None = {}  # None: the app is disabled
        self.links: list[tuple[str, tuple[str, ...], str]] = []  # uid, path and password of `link-N`
        self._grants: dict[str, tuple[str, str] | None] = {}
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=METHODS)])

    def grant(self, token: str, uid: str, password: str) -> None:
        """The user agrees in the browser (Login Flow v2)."""
        self.cloud.users[uid].passwords.add(password)
        self._grants[token] = (uid, password)

    async def _answer(self, request: Request) -> Response:
        self.requests += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay_s)
            return self.lie(request) or self._begin_session(request) or await self._route(request)
        except Answer as answer:
            return Response(ERROR, answer.status, media_type="application/xml; charset=utf-8")
        finally:
            self.running -= 1

    def _begin_session(self, request: Request) -> Response | None:
        if not self.wants_session or request.method != "GET" or "/remote.php/dav/" not in request.url.path:
            return None
        uid = self._user(request).uid
        if request.cookies.get("session") == uid:
            return None
        return Response(ERROR, 500, {"Set-Cookie": f"session={uid}; path=/; HttpOnly"})

    async def _route(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii").split("?")[0]
        names = tuple(unquote(part) for part in path.split("/") if part)
        body = await request.body()
        match names:
            case ("index.php", "login", "v2", *rest):
                return self._login(request, body, rest)
            case ("ocs", _, *rest):
                return self._ocs(request, body, rest)
            case ("public.php", "webdav", *rest):
                return self._public(request, body, tuple(rest))
            case ("remote.php", "dav", *rest):
                return self._dav(request, self._user(request), body, tuple(rest))
        raise Answer(404)

    def _user(self, request: Request) -> User:
        if "authorization-app-api" in request.headers:
            uid, secret = b64decode(request.headers["authorization-app-api"]).decode().split(":", 1)
            if request.headers.get("ex-app-id") != APP or secret != APP_SECRET:
                raise Answer(401)
            return self.cloud.users.get(uid) or refuse(401)
        with suppress(ValueError, KeyError):
            kind, token = request.headers["authorization"].split(" ")
            uid, password = b64decode(token).decode().split(":", 1)
            user = self.cloud.users.get(uid)
            if kind == "Basic" and user and password in user.passwords:
                return user
        raise Answer(401)

    # OCS and login

    def _ocs(self, request: Request, body: bytes, rest: list[str]) -> Response:
        match request.method, rest:
            case "GET", ["apps", "app_api", "api", "v1", "users"]:
                if b64decode(request.headers.get("authorization-app-api", "")).decode() != f":{APP_SECRET}":
                    raise Answer(401)
                return ocs(sorted(self.cloud.users))
            case method, ["apps", "webhook_listeners", "api", "v1", "webhooks", *number]:
                return self._webhooks(request, method, body, number)
            case "GET", ["cloud", "capabilities"]:
                self._user(request)
                app = {"end-to-end-encryption": {"enabled": True}} if self.encryption else {}
                return ocs({"capabilities": {"files": {}, **app}})
            case "GET", ["cloud", "user"]:
                return ocs({"id": self._user(request).uid})
            case "GET", ["core", "getapppassword"]:
                user = self._user(request)
                user.passwords.add(password := f"app-password-of-{user.uid}")
                return ocs({"apppassword": password})
            case "POST", ["cloud", "users"] if self._user(request).uid == ADMIN:
                form = parse_qs(body.decode())
                self.cloud.add_user(form["userid"][0], form["password"][0])
                return ocs({"id": form["userid"][0]})
            case "POST", ["apps", "files_sharing", "api", "v1", "shares"]:
                form = parse_qs(body.decode())
                path = tuple(form["path"][0].strip("/").split("/"))
                if form["shareType"] == ["3"]:
                    self.links.append((self._user(request).uid, path, ""))
                    return ocs({"id": len(self.links), "token": f"link-{len(self.links)}"})
                self.cloud.share(self._user(request), path, form["shareWith"][0])
                return ocs({})
            case "PUT", ["apps", "files_sharing", "api", "v1", "shares", number]:
                if (password := parse_qs(body.decode()).get("password")) is not None:
                    self.links[int(number) - 1] = (*self.links[int(number) - 1][:2], password[0])
                return ocs({})
            case "DELETE", ["cloud", "users", uid] if self._user(request).uid == ADMIN:
                del self.cloud.users[uid]
                return ocs([])
        raise Answer(404)

    def _webhooks(self, request: Request, method: str, body: bytes, number: list[str]) -> Response:
        """Secrets are shown encrypted; what is not given is null, and empty filters come back as empty lists."""
        if self.webhooks is None:
            raise Answer(404)
        if self._user(request).uid != ADMIN:
            raise Answer(403)
        if method == "GET":
            uri = request.query_params.get("uri")
            return ocs([row for row in self.webhooks.values() if uri is None or row["uri"] == uri])
        if method == "DELETE":
            return ocs(self.webhooks.pop(int(number[0])) is not None)
        row = json.loads(body)
        key = int(number[0]) if number else max(self.webhooks, default=0) + 1
        self.sent_auth.append(row["authData"])
        row |= {"id": key, "authData": "encrypted", "eventFilter": row.get("eventFilter") or [], "appId": None}
        self.webhooks[key] = row
        return ocs(row)

    def _login(self, request: Request, body: bytes, rest: list[str]) -> Response:
        base = f"{request.url.scheme}://{request.url.netloc}"
        if not rest:
            token = f"poll-{len(self._grants)}"
            self._grants[token] = None
            poll = {"token": token, "endpoint": f"{base}/index.php/login/v2/poll"}
            return JSONResponse({"poll": poll, "login": f"{base}/index.php/login/v2/flow/{token}"})
        granted = self._grants.pop(token, None) if (token := parse_qs(body.decode())["token"][0]) else None
        if granted is None:
            self._grants[token] = None
            raise Answer(404)
        return JSONResponse({"server": base, "loginName": granted[0], "appPassword": granted[1]})

    # WebDAV

    def _public(self, request: Request, body: bytes, names: tuple[str, ...]) -> Response:
        """Metadata below a public link: its folder, or the one file."""
        given = b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        for number, (uid, path, password) in enumerate(self.links, 1):
            if given == f"link-{number}:{password}":
                owner = self.cloud.users[uid]
                node = self.cloud.get(owner, (*path, *names))
                at = "/".join(["/public.php/webdav", *map(quote, names)])
                return multistatus(body, [(at, node_properties(node, owner))])
        raise Answer(401)

    def _dav(self, request: Request, user: User, body: bytes, names: tuple[str, ...]) -> Response:
        match names:
            case () if request.method == "SEARCH":
                return self._search(user, body)
            case ("bulk",) if request.method == "POST":
                return self._bulk(user, request, body)
            case ("files", uid, *path) if uid == user.uid:
                return self._files(request, user, body, tuple(path))
            case ("versions", uid, "versions", file_id, *version) if uid == user.uid:
                return self._versions(request, user, body, file_id, version)
            case ("trashbin", uid, "trash", *name) if uid == user.uid:
                return self._trash(request, user, body, name)
        raise Answer(404)

    def _files(self, request: Request, user: User, body: bytes, path: tuple[str, ...]) -> Response:
        cloud, mtime = self.cloud, request.headers.get("x-oc-mtime")
        match request.method:
            case "PROPFIND":
                node = cloud.get(user, path)
                self._refuse_strangers(request, node)
                found = [(path, node)]
                if request.headers.get("depth") != "0" and isinstance(node, Folder):
                    found += [((*path, name), child) for name, child in node.children.items()]
                rows = [(href(user, at, one), node_properties(one, user) | self._mark(user, at)) for at, one in found]
                return multistatus(body, rows)
            case "GET":
                if "if-match" in request.headers and cloud.find(user, path) is None:
                    raise Answer(412)
                file = cloud.get(user, path)
                if not isinstance(file, File):
                    raise Answer(501)
                if request.headers.get("if-match", f'"{file.etag}"') != f'"{file.etag}"':
                    raise Answer(412)
                headers = {"ETag": f'"{file.etag}"', "OC-ETag": f'"{file.etag}"', "Set-Cookie": f"session={user.uid}"}
                return self._stream(file, file.data, headers)
            case "PUT":
                is_new = cloud.find(user, path) is None
                file = cloud.put(user, path, body, None if mtime is None else int(mtime))
                return Response(None, 201 if is_new else 204, {"OC-FileId": f"{file.file_id:08}{INSTANCE}"})
            case "MKCOL":
                cloud.make_folder(user, path)
            case "DELETE":
                cloud.delete(user, path)
                return Response(None, 204)
            case "PROPPATCH":
                stamp = re.search(rb"lastmodified>([0-9]+)<", body) or refuse(400)
                cloud.touch(user, path, int(stamp[1]))
                return Response(f"<d:multistatus {XMLNS}/>", 207)
            case "MOVE":
                cloud.move(user, path, destination(request, user))
            case "COPY":
                cloud.copy(user, path, destination(request, user))
        return Response(None, 201)

    def _refuse_strangers(self, request: Request, node: Node) -> None:
        """An encrypted folder is listed for clients that say what they are: in a header (from 1.17 on), or by name."""
        if self.encryption and isinstance(node, Folder) and node.is_encrypted:
            says_so = request.headers.get("x-e2ee-supported") == "true" and self._says_it_of_files
            if not says_so and request.headers.get("user-agent") not in self.encryption_agents:
                raise Answer(403)

    @property
    def _says_it_of_files(self) -> bool:
        return self.encryption >= "1.17"

    def _mark(self, user: User, path: tuple[str, ...]) -> dict[str, str]:
        if not self._says_it_of_files:
            return {}
        node = self.cloud.get(user, path)
        folder = node if isinstance(node, Folder) else self.cloud.get(user, path[:-1])
        return {NC + "e2ee-is-encrypted": "1" if folder.is_encrypted else "0"}

    def _versions(self, request: Request, user: User, body: bytes, file_id: str, version: list[str]) -> Response:
        found = self.cloud.file_by_id(user, int(file_id))
        if found is None:
            raise Answer(404)
        base, file = f"/remote.php/dav/versions/{quote(user.uid)}/versions/{file_id}/", found[1]
        match request.method, version:
            case "PROPFIND", []:
                rows = [(f"{base}{mtime}", version_properties(mtime, *row)) for mtime, row in file.versions().items()]
                return multistatus(body, [(base, {DAV + "resourcetype": "<d:collection/>"}), *rows])
            case "GET", [mtime] if mtime.isdigit() and int(mtime) in file.old:
                size, _ = file.rows[int(mtime)]  # said of the row, whatever bytes are there
                return self._stream(None, file.old[int(mtime)], {"ETag": mtime}, size)
            case "GET", [mtime] if mtime.isdigit() and int(mtime) in file.ghosts:
                raise Answer(500)
            case "MOVE", [mtime]:
                self.cloud.restore_version(user, int(file_id), int(mtime))
                return Response(None, 201)
        raise Answer(404)

    def _trash(self, request: Request, user: User, body: bytes, name: list[str]) -> Response:
        base = f"/remote.php/dav/trashbin/{quote(user.uid)}/trash/"
        match request.method, name:
            case "PROPFIND", []:
                rows = [(base + quote(item.name), trash_properties(item)) for item in user.trash.values()]
                return multistatus(body, [(base, {DAV + "resourcetype": "<d:collection/>"}), *rows])
            case "MOVE", [one]:
                self.cloud.restore_from_trash(user, one)
                return Response(None, 201)
        raise Answer(404)

    def _search(self, user: User, body: bytes) -> Response:
        literal = re.search(rb"<d:literal>([0-9]+)</d:literal>", body) or refuse(400)
        found = self.cloud.file_by_id(user, int(literal[1]))
        return multistatus(body, [(href(user, *found), less(node_properties(found[1], user)))] if found else [])

    def _bulk(self, user: User, request: Request, body: bytes) -> Response:
        boundary = request.headers["content-type"].split("boundary=")[1].encode()
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, data = part.lstrip(b"\r\n").partition(b"\r\n\r\n")
            fields = dict(line.decode().lower().split(": ", 1) for line in head.split(b"\r\n"))
            names = tuple(fields["x-file-path"].strip("/").split("/"))
            size = int(fields["content-length"])
            self.cloud.put(user, names, data[:size], int(fields["x-file-mtime"]), bulk=True)
        return JSONResponse({})

    def _stream(self, file: File | None, data: bytes, headers: dict[str, str], size: int | None = None) -> Response:
        async def body() -> AsyncIterator[bytes]:
            if file is not None:
                file.readers += 1
            try:
                yield data[:1]
                self.reading.set()
                if self.pause is not None:
                    await self.pause.wait()
                yield data[1:]
            finally:
                if file is not None:
                    file.readers -= 1

        return StreamingResponse(
            body(), headers={**headers, "Content-Length": str(len(data) if size is None else size)}
        )


def ocs(data: object) -> Response:
    return JSONResponse({"ocs": {"meta": {"status": "ok", "statuscode": 200, "message": "OK"}, "data": data}})


def refuse(status: int) -> NoReturn:
    raise Answer(status)


def destination(request: Request, user: User) -> tuple[str, ...]:
    names = [unquote(part) for part in urlsplit(request.headers["destination"]).path.split("/") if part]
    return tuple(names[4:]) if names[:4] == ["remote.php", "dav", "files", user.uid] else refuse(403)


def href(user: User, path: tuple[str, ...], node: Node) -> str:
    at = "".join("/" + quote(name) for name in (user.uid, *path))
    return f"/remote.php/dav/files{at}{'/' if isinstance(node, Folder) else ''}"


def node_properties(node: Node, user: User) -> dict[str, str]:
    """What a real one says of a file, or of a folder, which has no length and no upload time."""
    is_file = isinstance(node, File)
    found = {
        DAV + "getetag": f"&quot;{node.etag}&quot;",
        DAV + "getlastmodified": http_date(node.mtime),
        DAV + "resourcetype": "" if is_file else "<d:collection/>",
        OC + "id": f"{node.file_id:08}{INSTANCE}",
        OC + "fileid": str(node.file_id),
        OC + "size": str(size_of(node)),
        OC + "owner-id": escape(node.owner),
        NC + "mount-type": node.mount if node.owner == user.uid else "shared",
    }
    if isinstance(node, File):
        found |= {DAV + "getcontentlength": str(len(node.data)), DAV + "getcontenttype": "text/plain"}
        found[NC + "upload_time"] = str(node.upload_time)
    else:
        found[NC + "is-encrypted"] = "1" if node.is_encrypted else "0"
    return found


def less(properties: dict[str, str]) -> dict[str, str]:
    """What a SEARCH says: no owner, and an upload time of 0."""
    return {tag: value for tag, value in properties.items() if tag != OC + "owner-id"} | {NC + "upload_time": "0"}


def version_properties(mtime: int, size: int, author: str) -> dict[str, str]:
    found = {DAV + "getlastmodified": http_date(mtime), DAV + "getcontentlength": str(size), DAV + "resourcetype": ""}
    return found | ({NC + "version-author": escape(author)} if author else {})


def trash_properties(item: Trash) -> dict[str, str]:
    node = item.node
    found = {
        DAV + "getlastmodified": http_date(node.mtime),
        DAV + "resourcetype": "" if isinstance(node, File) else "<d:collection/>",
        OC + "fileid": str(node.file_id),
        OC + "size": str(size_of(node)),
        NC + "trashbin-original-location": escape(item.path),
        NC + "trashbin-deletion-time": str(item.deleted_at),
    }
    return found | ({DAV + "getcontentlength": str(len(node.data))} if isinstance(node, File) else {})


def size_of(node: Node) -> int:
    return len(node.data) if isinstance(node, File) else sum(size_of(child) for child in node.children.values())


def multistatus(body: bytes, rows: list[tuple[str, dict[str, str]]]) -> Response:
    """Each row with the properties that were asked for: those found under 200, the others under 404."""
    prop = ElementTree.fromstring(body).find(f".//{DAV}prop")
    asked = [element.tag for element in prop] if prop is not None else []
    said = "".join(response_xml(at, asked, found) for at, found in rows)
    text = f'<?xml version="1.0"?>\n<d:multistatus {XMLNS}>{said}</d:multistatus>\n'
    return Response(text, 207, media_type="application/xml; charset=utf-8")


def response_xml(at: str, asked: list[str], found: dict[str, str]) -> str:
    parts = ""
    for status, wanted in (("200 OK", True), ("404 Not Found", False)):
        props = "".join(
            f"<{(n := prefixed(tag))}>{found.get(tag, '')}</{n}>" for tag in asked if (tag in found) == wanted
        )
        if props:
            parts += f"<d:propstat><d:prop>{props}</d:prop><d:status>HTTP/1.1 {status}</d:status></d:propstat>"
    return f"<d:response><d:href>{at}</d:href>{parts}</d:response>"


def prefixed(tag: str) -> str:
    namespace, name = tag.rsplit("}", 1)
    return f"{PREFIX[namespace + '}']}:{name}"


def http_date(seconds: int) -> str:
    """Years of four digits, as long as a test wants no others."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def webhook_bodies(fake: FakeNextcloud) -> list[bytes]:
    """What webhook_listeners would have sent so far, were none of it lost."""
    return [json.dumps(event).encode() for event in fake.cloud.events]
