"""One way to do what users do, against the fake or against a real Nextcloud.

NEXTCLOUD_URL, NEXTCLOUD_ADMIN_USER, NEXTCLOUD_ADMIN_PASSWORD    where a real one is; throw-away users are made on it

async with throw_away_user(cloud) as (hand, session):
    await hand.put("a.txt", b"one", mtime=1_700_000_000)      # the user's own client
    node = await session.stat("a.txt")                        # what we say of it
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import md5
from typing import NamedTuple

import httpx

from audit.nextcloud.client import Account, Config, DavSession, Secret, open_sessions
from audit.nextcloud.dav import encode_href
from tests.nextcloud.fake import ADMIN, ADMIN_PASSWORD, FakeNextcloud

READ, DROP = 1, 4  # what a public link allows
TRIES = 50


class Cloud(NamedTuple):
    url: str
    admin: str
    password: str
    fake: FakeNextcloud | None

    @property
    def transport(self) -> httpx.AsyncBaseTransport | None:
        return None if self.fake is None else httpx.ASGITransport(self.fake.app)


def fake_cloud() -> Cloud:
    return Cloud("https://cloud.example", ADMIN, ADMIN_PASSWORD, FakeNextcloud())


def real_cloud() -> Cloud | None:
    """The one that the environment names."""
    url = os.environ.get("NEXTCLOUD_URL")
    if not url:
        return None
    return Cloud(url.rstrip("/"), os.environ["NEXTCLOUD_ADMIN_USER"], os.environ["NEXTCLOUD_ADMIN_PASSWORD"], None)


@asynccontextmanager
async def throw_away_user(cloud: Cloud) -> AsyncIterator[tuple[Hand, DavSession]]:
    """A user with an app password, gone afterwards."""
    uid, password = f"audit-test-{secrets.token_hex(6)}", secrets.token_hex(16)
    async with as_client(cloud, cloud.admin, cloud.password) as admin:
        made = await admin.post("/ocs/v2.php/cloud/users", data={"userid": uid, "password": password})
        assert made.status_code == 200, made.text
        try:
            async with as_client(cloud, uid, password) as user:
                answer = await user.get("/ocs/v2.php/core/getapppassword", params={"format": "json"})
            app_password = json.loads(answer.content)["ocs"]["data"]["apppassword"]
            config = Config(cloud.url, (Account(uid, Secret(app_password)),), None)
            async with open_sessions(config, cloud.transport) as sessions, as_client(cloud, uid, app_password) as user:
                yield Hand(user, uid, app_password, password), sessions[0]
        finally:
            await admin.delete(f"/ocs/v2.php/cloud/users/{uid}")


async def drop(cloud: Cloud, token: str, name: str, data: bytes) -> int:
    """Somebody without an account leaves a file at a public link, at the address for that or the older one."""
    status = 404
    async with as_client(cloud, token, "") as visitor:
        for names in (("public.php", "dav", "files", token, name), ("public.php", "webdav", name)):
            at, headers = encode_href(names), {"X-Requested-With": "XMLHttpRequest"}
            status = (await visitor.put(at, content=data, headers=headers)).status_code
            if status != 404:
                break
    return status


def as_client(cloud: Cloud, uid: str, password: str) -> httpx.AsyncClient:
    headers = {"OCS-APIRequest": "true"}
    return httpx.AsyncClient(
        base_url=cloud.url,
        auth=(uid, password),
        headers=headers,
        transport=cloud.transport,
        trust_env=False,
        timeout=60,
    )


class Hand:
    """What a user does, with any WebDAV client. Paths as in `Node.path`.

    `password` is an app password, `account_password` the one to log in with.
    """

    def __init__(self, client: httpx.AsyncClient, uid: str, password: str = "", account_password: str = "") -> None:
        self.client, self.uid, self.password = client, uid, password
        self.account_password = account_password

    async def put(self, path: str, data: bytes, mtime: int | None = None) -> int:
        """The status; the file id is in what a Session says."""
        headers = {} if mtime is None else {"X-OC-Mtime": str(mtime)}
        return await self.do("PUT", self.at(path), content=data, headers=headers)

    async def save(self, path: str, data: bytes, mtime: int | None = None) -> None:
        """As a client does it: once more while somebody reads the file, who holds Nextcloud's lock meanwhile."""
        for _ in range(TRIES):
            status = await self.put(path, data, mtime)
            if status != 423:
                break
            await asyncio.sleep(0.1)
        assert status in (201, 204), status

    async def make_folder(self, path: str) -> int:
        return await self.do("MKCOL", self.at(path))

    async def delete(self, path: str) -> int:
        return await self.do("DELETE", self.at(path))

    async def move(self, path: str, target: str) -> int:
        return await self.do("MOVE", self.at(path), headers={"Destination": self.url(self.at(target))})

    async def copy(self, path: str, target: str) -> int:
        return await self.do("COPY", self.at(path), headers={"Destination": self.url(self.at(target))})

    async def touch(self, path: str, mtime: int) -> int:
        body = (
            '<?xml version="1.0"?><d:propertyupdate xmlns:d="DAV:"><d:set><d:prop>'
            f"<d:lastmodified>{mtime}</d:lastmodified></d:prop></d:set></d:propertyupdate>"
        )
        return await self.do("PROPPATCH", self.at(path), content=body.encode())

    async def restore_version(self, file_id: int, version_id: str) -> int:
        base = ("remote.php", "dav", "versions", self.uid)
        target = self.url(encode_href((*base, "restore", "target")))
        at = encode_href((*base, "versions", str(file_id), version_id))
        return await self.do("MOVE", at, headers={"Destination": target})

    async def restore_from_trash(self, name: str) -> int:
        base = ("remote.php", "dav", "trashbin", self.uid)
        target = self.url(encode_href((*base, "restore", name)))
        return await self.do("MOVE", encode_href((*base, "trash", name)), headers={"Destination": target})

    async def bulk(self, path: str, data: bytes, mtime: int) -> int:
        head = f"X-File-Path: /{path}\r\nX-File-MD5: {md5(data).hexdigest()}\r\nX-File-MTime: {mtime}\r\n"
        body = f"--bnd\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n--bnd--\r\n"
        headers = {"Content-Type": "multipart/related; boundary=bnd"}
        return await self.do("POST", "/remote.php/dav/bulk", content=body, headers=headers)

    async def put_chunks(self, path: str, chunks: Sequence[bytes], mtime: int) -> int:
        """Chunked upload, version 2, as clients do it for large files."""
        folder = encode_href(("remote.php", "dav", "uploads", self.uid, f"upload-{secrets.token_hex(8)}"))
        headers = {"Destination": self.url(self.at(path)), "OC-Total-Length": str(sum(map(len, chunks)))}
        assert await self.do("MKCOL", folder, headers=headers) == 201
        for number, chunk in enumerate(chunks, 1):
            assert await self.do("PUT", f"{folder}/{number:05}", content=chunk, headers=headers) == 201
        return await self.do("MOVE", f"{folder}/.file", headers={**headers, "X-OC-Mtime": str(mtime)})

    async def purge(self, name: str) -> int:
        """Takes something out of the trash for good."""
        return await self.do("DELETE", encode_href(("remote.php", "dav", "trashbin", self.uid, "trash", name)))

    async def link(self, path: str, permissions: int, password: str = "") -> str:
        """The token of a public link. Permissions: 1 read, 4 upload and see nothing (file drop)."""
        at, form = "/ocs/v2.php/apps/files_sharing/api/v1/shares", {"path": f"/{path}", "shareType": "3"}
        made = await self.client.post(f"{at}?format=json", data=form)
        assert made.status_code == 200, made.text
        share = json.loads(made.content)["ocs"]["data"]
        # 27 takes these permissions in a second step alone.
        form = {"permissions": str(permissions)} | ({"password": password} if password else {})
        changed = await self.client.put(f"{at}/{share['id']}", data=form)
        assert changed.status_code == 200, changed.text
        token: str = share["token"]
        return token

    async def share(self, path: str, recipient: str) -> int:
        form = {"path": f"/{path}", "shareType": "0", "shareWith": recipient, "permissions": "31"}
        answer = await self.client.post("/ocs/v2.php/apps/files_sharing/api/v1/shares", data=form)
        return answer.status_code

    async def lock(self, path: str, kind: int) -> int:
        """A lock of the app files_lock. Kinds: 0 this user's, 1 an app's, which not even this user may write under."""
        return await self.do("LOCK", self.at(path), headers={"X-User-Lock": "1", "X-User-Lock-Type": str(kind)})

    async def unlock(self, path: str, kind: int) -> int:
        return await self.do("UNLOCK", self.at(path), headers={"X-User-Lock": "1", "X-User-Lock-Type": str(kind)})

    async def do(self, method: str, at: str, content: bytes = b"", headers: dict[str, str] | None = None) -> int:
        return (await self.client.request(method, at, content=content, headers=headers)).status_code

    def at(self, path: str) -> str:
        return encode_href(("remote.php", "dav", "files", self.uid, *path.split("/")))

    def url(self, at: str) -> str:
        return str(self.client.base_url).rstrip("/") + at
