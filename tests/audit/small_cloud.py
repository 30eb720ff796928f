"""A Nextcloud of a few files in memory, as the interface of `audit.nextcloud.values` shows it, with its traps.

In-place etags; versions called by mtime, made at the next write, never of empty content; equal mtimes collapse; bulk
uploads that change bytes under equal metadata; a trash that takes the version rows along. Folder etags move up to the
root with everything that changes below.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha3_256

from audit.errors import PeerFailed, TryLater
from audit.nextcloud.values import Broken, Node, Reading, Trashed, Version


def reading_of(data: bytes) -> Reading:
    return Reading(len(data), sha3_256(data).digest())


class File:
    def __init__(self, file_id: int, owner: str, path: str, data: bytes, mtime: int, upload_time: int) -> None:
        self.file_id, self.owner, self.path = file_id, owner, path
        self.data, self.mtime, self.upload_time = data, mtime, upload_time
        self.versions: dict[int, bytes] = {}
        self.deleted_at = 0
        self.mount = ""
        self.sizes: dict[int, int] = {}  # what the list says of a version, where it lies

    @property
    def etag(self) -> str:
        return f"{self.mtime}-{self.file_id}-{len(self.data)}"


class SmallCloud:
    """What the users do, and `opener()` as a source sees it."""

    def __init__(self, *users: str) -> None:
        self.users = list(users) or ["alice"]
        self.files: dict[int, File] = {}
        self.etags: dict[tuple[str, str], int] = {}
        self.now = 1_000
        self.next_id = 10
        self.instance = "oc1"
        self.on_read: Callable[[File], None] = lambda file: None
        self.faulty: set[int] = set()  # versions whose reading ends in 500
        self.broken: set[str] = set()  # paths that cannot be listed or read
        self.on_broken: Callable[[str], None] = lambda path: None
        self.listed: list[str] = []
        self.reads: list[str] = []

    # -- what people do --

    def put(self, path: str, data: bytes, mtime: int | None = None, user: str = "alice") -> int:
        file = self.at(user, path)
        mtime = self.now if mtime is None else mtime
        if file is None:
            self.next_id += 1
            file = self.files[self.next_id] = File(self.next_id, user, path, data, mtime, self.now)
        else:
            if file.data:
                file.versions[file.mtime] = file.data
            file.data, file.mtime, file.upload_time = data, mtime, self.now
        self.moved(user, path)
        return file.file_id

    def bulk(self, path: str, data: bytes, user: str = "alice") -> None:
        """Other bytes of the same size: no metadata of the file changes, only the folders' etags."""
        file = self.at(user, path)
        assert file is not None
        file.data = data
        self.moved(user, path)

    def touch(self, path: str, mtime: int, user: str = "alice") -> None:
        file = self.at(user, path)
        assert file is not None
        file.mtime = mtime
        self.moved(user, path)

    def move(self, path: str, to: str, user: str = "alice") -> None:
        for file in self.files.values():
            if file.owner == user and not file.deleted_at and (file.path == path or file.path.startswith(path + "/")):
                file.path = to + file.path[len(path) :]
        self.moved(user, path)
        self.moved(user, to)

    def copy(self, path: str, to: str, user: str = "alice") -> int:
        file = self.at(user, path)
        assert file is not None
        self.next_id += 1
        copy = self.files[self.next_id] = File(self.next_id, user, to, file.data, file.mtime, file.upload_time)
        copy.versions = dict(file.versions)
        self.moved(user, to)
        return copy.file_id

    def delete(self, path: str, user: str = "alice") -> None:
        file = self.at(user, path)
        assert file is not None
        file.deleted_at = self.now
        self.moved(user, path)

    def restore(self, file_id: int, path: str) -> None:
        file = self.files[file_id]
        file.deleted_at, file.path = 0, path
        self.moved(file.owner, path)

    def revert(self, file_id: int, mtime: int) -> None:
        """A version restored: the old mtime, and the two contents swapped."""
        file = self.files[file_id]
        data = file.versions.pop(mtime)
        if file.data:
            file.versions[file.mtime] = file.data
        file.data, file.mtime = data, mtime
        self.moved(file.owner, file.path)

    def give(self, file_id: int, user: str, path: str) -> None:
        file = self.files[file_id]
        self.moved(file.owner, file.path)
        file.owner, file.path = user, path
        self.moved(user, path)

    def purge(self, file_id: int) -> None:
        self.moved(self.files[file_id].owner, self.files[file_id].path)
        del self.files[file_id]

    # -- what a session asks --

    def at(self, user: str, path: str) -> File | None:
        there = (f for f in self.files.values() if f.owner == user and f.path == path and not f.deleted_at)
        return next(there, None)

    def moved(self, user: str, path: str) -> None:
        while path:
            path = path.rpartition("/")[0]
            self.etags[user, path] = self.etags.get((user, path), 0) + 1

    def folders(self, user: str) -> set[str]:
        found = {""}
        for file in self.files.values():
            path = file.path
            while file.owner == user and not file.deleted_at and path:
                path = path.rpartition("/")[0]
                found.add(path)
        return found

    def opener(self) -> Callable[[], object]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[list[SmallSession]]:
            yield [SmallSession(self, user) for user in self.users]

        return opened


class SmallSession:
    """`values.Session` over it."""

    def __init__(self, cloud: SmallCloud, user: str) -> None:
        self.cloud, self.user = cloud, user

    async def instance_id(self) -> str:
        return self.cloud.instance

    async def list_folder(self, path: str) -> list[Node]:
        self.cloud.listed.append(f"{self.user}/{path}")
        if path in self.cloud.broken:
            raise PeerFailed("answered 500")
        folders = self.cloud.folders(self.user)
        if path not in folders:
            return []
        below = [self._folder(other) for other in sorted(folders) if other and other.rpartition("/")[0] == path]
        files = [self._node(f) for f in self._mine() if f.path.rpartition("/")[0] == path]
        return [self._folder(path), *below, *files]

    async def stat(self, path: str) -> Node | None:
        return next((self._node(f) for f in self._mine() if f.path == path), None)

    async def find(self, file_id: int) -> Node | None:
        return next((self._node(f) for f in self._mine() if f.file_id == file_id), None)

    async def read(self, path: str, etag: str) -> Reading:
        self.cloud.reads.append(path)
        file = next((f for f in self._mine() if f.path == path), None)
        if file is None or file.etag != etag:
            raise TryLater("changed")
        if path in self.cloud.broken:
            self.cloud.on_broken(path)
            raise PeerFailed("answered 403")
        reading = reading_of(file.data)
        self.cloud.on_read(file)
        return reading

    async def list_versions(self, file_id: int) -> Sequence[Version]:
        file = self.cloud.files[file_id]
        found = {mtime: len(data) for mtime, data in file.versions.items()}
        if file.data:
            found[file.mtime] = len(file.data)
        return [Version(str(mtime), mtime, file.sizes.get(mtime, found[mtime]), file.owner) for mtime in sorted(found)]

    async def read_version(self, file_id: int, version_id: str) -> Reading | None:
        if int(version_id) in self.cloud.faulty:
            raise Broken(f"version {version_id}: status 500")
        data = self.cloud.files[file_id].versions.get(int(version_id))
        return None if data is None or f"v{version_id}" in self.cloud.broken else reading_of(data)

    async def list_trash(self) -> list[Trashed]:
        return [
            Trashed(f.file_id, f"x.d{f.deleted_at}", f.path, f.deleted_at, len(f.data), f.mtime)
            for f in self.cloud.files.values()
            if f.deleted_at and f.owner == self.user
        ]

    def _mine(self) -> list[File]:
        return [f for f in self.cloud.files.values() if f.owner == self.user and not f.deleted_at]

    def _folder(self, path: str) -> Node:
        etag = str(self.cloud.etags.get((self.user, path), 0))
        mounts = {f.mount for f in self._mine() if path and f.path.startswith(f"{path}/")}
        mount = mounts.pop() if len(mounts) == 1 else ""
        return Node(1_000_000, path, True, f"{path}#{etag}", 0, 0, 0, self.user, mount, "", False)

    def _node(self, f: File) -> Node:
        owner = self.user if f.mount else f.owner
        return Node(
            f.file_id, f.path, False, f.etag, f.mtime, len(f.data), f.upload_time, owner, f.mount, "text/plain", False
        )
