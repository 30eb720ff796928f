"""What a Nextcloud shows of files, as values, and the one interface through which everything else reads them.

    async with session ...:
        for node in await session.list_folder("letters"): ...
        reading = await session.read("letters/a.odt", node.etag)

A Session is one user's view: their files, the versions of those, their trash. WebDAV with an app password, AppAPI as
that user, and the fake of the tests give the same values. Nothing in them is trusted: times, sizes, etags and
checksums are the server's or even the uploader's claims; a digest is always computed here, from the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from audit.errors import PeerFailed


class Broken(PeerFailed):
    """The server answers, and says that it failed: of one file or version this may be so for good."""


class Node(NamedTuple):
    """A file or folder of one user. Times in POSIX seconds; 0 and "" where the server does not say."""

    file_id: int
    path: str  # below the user's root, names joined by "/", decoded; "" is the root itself
    is_folder: bool
    etag: str  # without quotes
    mtime: int  # the uploader's claim
    size: int
    upload_time: int
    owner: str  # uid of the storage's owner, who need not be this user
    mount: str  # "" for the user's own storage, else Nextcloud's word: shared, group, external, ...
    mime: str
    is_encrypted: bool | None  # end-to-end: the bytes are ciphertext; None where only its folder could say so


class Version(NamedTuple):
    """An entry of a file's version list. The one whose id is the file's mtime is the current content: no bytes there.

    It is the last one, except after a version was restored or the mtime set back.
    """

    version_id: str  # the mtime in whole seconds, as text; a storage with versions of its own may use other words
    mtime: int
    size: int
    author: str


class Trashed(NamedTuple):
    """A deleted file that can be restored."""

    file_id: int
    name: str  # in the trash: "a.odt.d1795372693"
    path: str  # where it was, below the user's root; "" where the server cannot say it
    deleted_at: int
    size: int
    mtime: int


class Reading(NamedTuple):
    """Bytes that were read from beginning to end."""

    size: int
    sha3_256: bytes


class Session(Protocol):
    """One user's view of one Nextcloud.

    Absent things are None or an empty list; `audit.errors.TryLater` means come again (locked, busy, changed while it
    was read), `PeerFailed` that the server did not answer or not as WebDAV says.
    """

    user: str

    async def instance_id(self) -> str:
        """Nextcloud's instance id, as at the end of `oc:id`."""

    async def list_folder(self, path: str) -> list[Node]:
        """The folder itself first, then what is directly in it; empty where it is gone."""

    async def stat(self, path: str) -> Node | None:
        """The file or folder at a path."""

    async def find(self, file_id: int) -> Node | None:
        """The file with this id, wherever this user has it."""

    async def read(self, path: str, etag: str) -> Reading:
        """The current bytes, hashed as they stream; TryLater where the file has another etag by now."""

    async def list_versions(self, file_id: int) -> Sequence[Version]:
        """The version list, the current content included, by mtime, oldest first; empty where there is none."""

    async def read_version(self, file_id: int, version_id: str) -> Reading | None:
        """The bytes of an older version; None once it has expired.

        Never ask for the current one: Nextcloud answers 404, 500, older bytes, or older bytes cut to another length.
        """

    async def list_trash(self) -> list[Trashed]:
        """What this user can restore."""
