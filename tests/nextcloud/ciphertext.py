"""A client of the app end_to_end_encryption: what it asks over OCS, and how its uploads go. Ciphertext is any bytes.

folder = await open_encrypted(hand, "Secret")          keys, a folder, its mark; None where the app is not there
async with folder.locked():                            lock, metadata, … , unlock: what was written shows from then on
    await folder.put("4f2a", b"ciphertext", START)

Seen on 1.18.4 (32.0.1, API 2) and 1.13.2 (27.1.10, API 1). An upload lies under another name until the unlock, and then
takes the place of the file that was there: another file id, no version of the old one, nothing in the trash.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.nextcloud.clouds import Hand

AGENT = "Mozilla/5.0 (Linux) mirall/3.13.0 (test)"
JSON = {"format": "json"}


class EncryptedFolder:
    """One folder of one user. `api`: 1, or 2 where metadata is signed and locks are counted."""

    def __init__(self, hand: Hand, path: str, file_id: int, api: int) -> None:
        self.hand, self.path, self.file_id, self.api = hand, path, file_id, api
        self.token, self.changes = "", 0

    async def ask(self, method: str, what: str, data: dict[str, str] | None = None, **headers: str) -> tuple[int, str]:
        at = f"/ocs/v2.php/apps/end_to_end_encryption/api/v{self.api}/{what}"
        sent = {"User-Agent": AGENT, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = await self.hand.client.request(method, at, params=JSON, data=data, headers=sent)
        return answer.status_code, answer.text

    async def lock(self) -> int:
        status, text = await self.ask("POST", f"lock/{self.file_id}", x_nc_e2ee_counter=str(self.changes + 1))
        if status == 200:
            self.token, self.changes = json.loads(text)["ocs"]["data"]["e2e-token"], self.changes + 1
        return status

    async def describe(self) -> None:
        """The folder's metadata: keys and names, encrypted. No file of the user's, whatever changes in it."""
        version = "1.2" if self.api == 1 else "2.0"
        data = {"metaData": json.dumps({"metadata": {"version": version, "change": self.changes}, "files": {}})}
        method, at = "POST" if self.changes == 1 else "PUT", f"meta-data/{self.file_id}"
        signed = {"e2e_token": self.token, "x_nc_e2ee_signature": "c2lnbmVk"}
        status, text = await self.ask(method, at, {**data, "e2e-token": self.token}, **signed)
        assert status == 200, text

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        assert await self.lock() == 200
        await self.describe()
        yield
        status, text = await self.ask("DELETE", f"lock/{self.file_id}", e2e_token=self.token)
        assert status == 200, text

    async def put(self, name: str, data: bytes, mtime: int, token: str | None = None) -> int:
        headers = {"User-Agent": AGENT, "e2e-token": token or self.token, "X-OC-Mtime": str(mtime)}
        return await self.hand.do("PUT", self.hand.at(f"{self.path}/{name}"), content=data, headers=headers)

    async def delete(self, name: str) -> int:
        headers = {"User-Agent": AGENT, "e2e-token": self.token}
        return await self.hand.do("DELETE", self.hand.at(f"{self.path}/{name}"), headers=headers)


async def open_encrypted(hand: Hand, path: str) -> EncryptedFolder | None:
    """A new folder that is marked as encrypted."""
    told = json.loads((await hand.client.get("/ocs/v2.php/cloud/capabilities", params=JSON)).content)
    app = told["ocs"]["data"]["capabilities"].get("end-to-end-encryption")
    if not app:
        return None
    assert await hand.make_folder(path) == 201
    ask = '<?xml version="1.0"?><d:propfind xmlns:d="DAV:"><d:prop><o:fileid xmlns:o="http://owncloud.org/ns"/></d:prop></d:propfind>'
    listed = await hand.client.request("PROPFIND", hand.at(path), content=ask, headers={"Depth": "0"})
    file_id = int(listed.text.partition("fileid>")[2].partition("<")[0])
    folder = EncryptedFolder(hand, path, file_id, int(app["api-version"][0]))
    for method, what, data in (
        ("POST", "public-key", {"csr": _request(hand.uid)}),
        ("POST", "private-key", {"privateKey": "encrypted by a phrase that no server knows"}),
        ("PUT", f"encrypted/{file_id}", {}),
    ):
        status, text = await folder.ask(method, what, data)
        assert status == 200, (what, text)
    return folder


def _request(uid: str) -> str:
    """A certificate request for a key of this user's, in PEM."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, uid)])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode("ascii")
