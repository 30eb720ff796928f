"""A Nextcloud on this very machine, read from its database and its data directory: both read-only.

    host = open_host(HostConfig("/var/www/nextcloud/data", "mysql://reader:...@localhost/nextcloud", "oc_", "ocab12"))
    session = HostSession(host, "alice")             the values of `audit.nextcloud.values`
    rows = host.page(after=0)                        by rising file id, for `audit.nextcloud.catchup`

Some thousand times quicker than WebDAV, and it holds no lock that a user could feel. The price: what is read bypasses
Nextcloud, so it counts only where disk and database agree. Bytes count when the stat of the file did not move while
they were read (`audit.hashing`), the row of oc_filecache has the same etag, mtime and size before and after, and the
disk shows the size and modification time of that row. Otherwise it is TryLater: somebody is writing, or the file was
changed behind Nextcloud's back, and WebDAV has to tell.

Covered are home storages, DATA/USER/files. Not covered, and said: object storage, external storages, group folders
(none of them is a home), and server-side encryption, where the disk holds ciphertext (it begins with HBEGIN) and only
WebDAV gives what users see. Old versions are DATA/USER/files_versions/PATH.v<mtime>: which there are is the disk's to
say, since Nextcloud writes rows for older ones only when somebody lists them; a row adds size and author.

Rows of paths are found by md5(path), as Nextcloud does: its collations take "A" for "a". Tables, from Nextcloud 27 on:
oc_storages, oc_filecache, oc_filecache_extended, oc_mimetypes, oc_files_versions, oc_files_trash.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Sequence
from hashlib import md5
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Engine, MetaData, String, Table, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from audit import hashing
from audit.errors import PeerFailed, TryLater
from audit.hashing import Hashed, Problem, Seen
from audit.nextcloud.values import Node, Reading, Session, Trashed, Version
from verifier.errors import Usage

PAGE = 2_000  # rows of oc_filecache at a time
MAX_STORAGE_ID = 64  # longer ids stand in oc_storages as their md5
HOME = "home::"
FILES, VERSIONS, TRASH = "files", "files_versions", "files_trashbin/files"
FOLDER_TYPE = "httpd/unix-directory"
ENCRYPTED_START = b"HBEGIN:"
DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "postgresql": "postgresql+psycopg"}


class HostConfig(NamedTuple):
    """Where it is. `database`: sqlite:/PATH, mysql://USER:PASSWORD@HOST/NAME or postgresql://USER:PASSWORD@HOST/NAME."""

    data: str
    database: str
    prefix: str
    instance: str

    def __repr__(self) -> str:
        return f"HostConfig(data={self.data!r}, instance={self.instance!r})"  # the database's address has a password


class Row(NamedTuple):
    """A row of oc_filecache with its neighbours."""

    file_id: int
    storage: int
    path: str
    parent: int
    size: int
    mtime: int
    storage_mtime: int
    encrypted: int
    etag: str
    mime: str
    upload_time: int | None
    folder_encrypted: int | None  # end-to-end: the mark of the folder that it is in


class Tables:
    """The columns that are read, and no other."""

    def __init__(self, prefix: str) -> None:
        data = MetaData()

        def table(name: str, numbers: str, texts: str) -> Table:
            columns: list[Column[Any]] = [Column(column, BigInteger) for column in numbers.split()]
            columns += [Column(column, String) for column in texts.split()]
            return Table(prefix + name, data, *columns)

        self.storages = table("storages", "numeric_id", "id")
        self.files = table(
            "filecache", "fileid storage parent mimetype size mtime storage_mtime encrypted", "path path_hash etag"
        )
        self.extended = table("filecache_extended", "fileid upload_time", "")
        self.mimetypes = table("mimetypes", "id", "mimetype")
        self.versions = table("files_versions", "file_id timestamp size", "metadata")
        self.trash = table("files_trash", "", "id user location timestamp")

    def rows(self) -> Any:
        """Selects Row."""
        f, x, m, above = self.files.c, self.extended.c, self.mimetypes.c, self.files.alias("above")
        joined = self.files.outerjoin(self.extended, f.fileid == x.fileid).join(self.mimetypes, f.mimetype == m.id)
        joined = joined.outerjoin(above, f.parent == above.c.fileid)
        columns = (f.fileid, f.storage, f.path, f.parent, f.size, f.mtime, f.storage_mtime, f.encrypted, f.etag)
        return select(*columns, m.mimetype, x.upload_time, above.c.encrypted).select_from(joined)


def open_host(config: HostConfig) -> Host:
    """Opens both, and reads once; Usage says what is wrong with the configuration."""
    data = os.path.realpath(config.data)
    try:
        root = hashing.open_root(data)
    except OSError as error:
        raise Usage(f"data directory: {data}: {hashing.describe(error)}") from None
    host = Host(data, root, make_engine(config.database), Tables(config.prefix), config.instance)
    try:
        host.homes(())
    except PeerFailed as error:
        host.close()
        raise Usage(f"{error}: is it Nextcloud's, and is the prefix {config.prefix!r} right?") from None
    return host


def make_engine(database: str) -> Engine:
    """A connection pool that can't write."""
    try:
        url = make_url(database.replace("sqlite:/", "sqlite:////", 1) if database.startswith("sqlite:/") else database)
    except ArgumentError:
        raise Usage("database: want sqlite:/PATH, mysql://... or postgresql://...") from None
    driver = DRIVERS.get(url.drivername)
    if driver is None:
        raise Usage(f"database: got {url.drivername}, want one of {', '.join(DRIVERS)}")
    url = url.set(drivername=driver)
    if driver == "sqlite":
        return create_engine(f"sqlite:///file:{_quote(url)}?mode=ro&uri=true")
    engine = create_engine(url, pool_pre_ping=True)
    statement = (
        "SET SESSION TRANSACTION READ ONLY" if driver.startswith("mysql") else "SET default_transaction_read_only = on"
    )

    @event.listens_for(engine, "connect")
    def forbid_writing(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.commit()

    return engine


def _quote(url: URL) -> str:
    from urllib.parse import quote

    return quote(f"/{(url.database or '').lstrip('/')}")


class Host:
    """An open Nextcloud on this machine. Everything blocks; sessions call it in threads."""

    def __init__(self, data: str, root: int, engine: Engine, tables: Tables, instance: str) -> None:
        self.data, self.root, self._engine, self._tables, self.instance = data, root, engine, tables, instance

    def close(self) -> None:
        os.close(self.root)
        self._engine.dispose()

    def fetch(self, statement: Any) -> list[Any]:
        """All rows of a statement, in a transaction of its own. No secret of the configuration is in the error."""
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(statement).fetchall())
        except SQLAlchemyError as error:
            raise PeerFailed(f"database: {type(error.__cause__ or error).__name__}") from None

    # -- rows ---------------------------------------------------------------------------------------------------

    def homes(self, users: Collection[str]) -> dict[int, str]:
        """Storage number -> user, of those users that have a home here."""
        storages = self._tables.storages.c
        rows = self.fetch(select(storages.numeric_id, storages.id).where(storages.id.like(HOME + "%")))
        found = {number: user for number, name in rows if (user := name.removeprefix(HOME)) in users}
        hashed = ((self.home_of(user), user) for user in users if _is_hashed(HOME + user))
        return found | {number: user for number, user in hashed if number is not None}

    def home_of(self, user: str) -> int | None:
        """The number of a user's home storage."""
        name = HOME + user
        if _is_hashed(name):
            name = _md5(name)
        storages = self._tables.storages.c
        found = self.fetch(select(storages.numeric_id, storages.id).where(storages.id == name))
        return next((number for number, known in found if known == name), None)

    def row(self, storage: int, path: str) -> Row | None:
        """The row at a path of a storage, compared byte by byte."""
        f = self._tables.files.c
        found = self.fetch(self._tables.rows().where(f.storage == storage, f.path_hash == _md5(path)))
        return next((Row._make(row) for row in found if row[2] == path), None)

    def row_of(self, storage: int, file_id: int) -> Row | None:
        f = self._tables.files.c
        found = self.fetch(self._tables.rows().where(f.storage == storage, f.fileid == file_id))
        return Row._make(found[0]) if found else None

    def page(self, after: int) -> list[Row]:
        """Rows of all storages with a file id above `after`, in that order; none at the end."""
        f = self._tables.files.c
        found = self.fetch(self._tables.rows().where(f.fileid > after).order_by(f.fileid).limit(PAGE))
        return [Row._make(row) for row in found]

    def rows_of(self, file_ids: Sequence[int]) -> dict[int, Row]:
        """These rows as they are now, by file id."""
        found = self.fetch(self._tables.rows().where(self._tables.files.c.fileid.in_(file_ids)))
        return {row[0]: Row._make(row) for row in found}

    def measure(self, storages: Sequence[int]) -> tuple[int, int]:
        """How many files, and bytes in them, there are in these homes, so that progress has an end."""
        f, m = self._tables.files.c, self._tables.mimetypes.c
        is_file = f.path.like(f"{FILES}/%") & (m.mimetype != FOLDER_TYPE)
        joined = self._tables.files.join(self._tables.mimetypes, f.mimetype == m.id)
        counted = select(func.count(), func.coalesce(func.sum(f.size), 0)).select_from(joined)
        files = size = 0
        for start in range(0, len(storages), PAGE):
            found = self.fetch(counted.where(is_file, f.storage.in_(storages[start : start + PAGE])))
            files, size = files + int(found[0][0]), size + int(found[0][1])
        return files, size

    def children(self, folder: Row) -> list[Row]:
        f = self._tables.files.c
        found = self.fetch(self._tables.rows().where(f.storage == folder.storage, f.parent == folder.file_id))
        return [Row._make(row) for row in found]

    def versions(self, file_id: int) -> list[Version]:
        return self.versions_of([file_id]).get(file_id, [])

    def versions_of(self, file_ids: Sequence[int]) -> dict[int, list[Version]]:
        """The rows of these files' versions, by mtime."""
        v = self._tables.versions.c
        wanted = select(v.file_id, v.timestamp, v.size, v.metadata).where(v.file_id.in_(file_ids)).order_by(v.timestamp)
        found: dict[int, list[Version]] = {}
        for file_id, time, size, metadata in self.fetch(wanted):
            found.setdefault(file_id, []).append(Version(str(time), time, size, _author(metadata)))
        return found

    def trash(self, user: str, storage: int) -> list[Trashed]:
        t = self._tables.trash.c
        found = []
        for name, location, deleted in self.fetch(select(t.id, t.location, t.timestamp).where(t.user == user)):
            row = self.row(storage, f"{TRASH}/{name}.d{deleted}")
            if row is not None:
                path = name if location in ("", ".") else f"{location.strip('/')}/{name}"
                item = Trashed(row.file_id, f"{name}.d{deleted}", path, int(deleted), row.size, row.mtime)
                found.append(item)
        return found

    # -- bytes --------------------------------------------------------------------------------------------------

    def read(self, user: str, row: Row) -> Reading:
        """The bytes of a file that the database describes so, before and after they were read."""
        seen = self.seen(user, row)
        result = hashing.hash_file(self.root, seen)
        if self.row_of(row.storage, row.file_id) != row:
            raise TryLater(f"{row.path}: changed while it was read")
        return self.judge(user, row, result)

    def read_path(self, user: str, path: str) -> Reading | None:
        """The bytes of an old version, which no row describes; None where there is none."""
        full = f"{user}/{path}"
        try:
            seen = hashing.find_file(self.root, full)
        except OSError as error:
            raise PeerFailed(f"{path}: {hashing.describe(error)}") from None
        if seen is None:
            return None
        result = hashing.hash_file(self.root, seen)
        if isinstance(result, Problem):
            if result.reason == "vanished":
                return None
            raise TryLater(f"{path}: {result.detail}")
        self.refuse_ciphertext(full)
        return Reading(result.seen.size, result.digest)

    def seen(self, user: str, row: Row) -> Seen:
        """The file on disk, which has to look as its row says."""
        path = f"{user}/{row.path}"
        try:
            seen = hashing.find_file(self.root, path)
        except OSError as error:
            raise PeerFailed(f"{row.path}: {hashing.describe(error)}") from None
        if row.encrypted:
            raise _ciphertext(row.path)
        if seen is None or (seen.size, seen.mtime_ns // 1_000_000_000) != (row.size, row.storage_mtime):
            raise TryLater(f"{row.path}: disk and database disagree: being written, or changed behind Nextcloud's back")
        return seen

    def judge(self, user: str, row: Row, result: Hashed | Problem) -> Reading:
        """What was read, where it is what the row says."""
        if isinstance(result, Problem):
            kind = PeerFailed if result.reason == "unreadable" else TryLater
            raise kind(f"{row.path}: {result.detail}")
        if (result.seen.size, result.seen.mtime_ns // 1_000_000_000) != (row.size, row.storage_mtime):
            raise TryLater(f"{row.path}: changed while it was read")
        self.refuse_ciphertext(f"{user}/{row.path}")
        return Reading(result.seen.size, result.digest)

    def refuse_ciphertext(self, path: str) -> None:
        try:
            fd = hashing.open_file(self.root, path)
        except OSError:
            raise TryLater(f"{path}: gone") from None
        try:
            if os.read(fd, len(ENCRYPTED_START)) == ENCRYPTED_START:
                raise _ciphertext(path)
        finally:
            os.close(fd)


class HostSession:
    """One user's home, as `audit.nextcloud.values.Session`."""

    def __init__(self, host: Host, user: str) -> None:
        self.user, self._host = user, host
        self._storage: int | None = None

    async def instance_id(self) -> str:
        return self._host.instance

    async def list_folder(self, path: str) -> list[Node]:
        return await asyncio.to_thread(self._list_folder, path)

    async def stat(self, path: str) -> Node | None:
        return await asyncio.to_thread(self._stat, path)

    async def find(self, file_id: int) -> Node | None:
        return await asyncio.to_thread(self._find, file_id)

    async def read(self, path: str, etag: str) -> Reading:
        return await asyncio.to_thread(self._read, path, etag)

    async def list_versions(self, file_id: int) -> Sequence[Version]:
        return await asyncio.to_thread(self._list_versions, file_id)

    async def read_version(self, file_id: int, version_id: str) -> Reading | None:
        return await asyncio.to_thread(self._read_version, file_id, version_id)

    async def list_trash(self) -> list[Trashed]:
        return await asyncio.to_thread(lambda: self._host.trash(self.user, self._home()))

    def _home(self) -> int:
        if self._storage is None:
            self._storage = self._host.home_of(self.user)
        if self._storage is None:
            raise PeerFailed(
                f"user {self.user!a}: has no home storage on this host (object storage, or never logged in)"
            )
        return self._storage

    def _row(self, path: str) -> Row | None:
        return self._host.row(self._home(), f"{FILES}/{path}" if path else FILES)

    def _list_folder(self, path: str) -> list[Node]:
        folder = self._row(path)
        if folder is None:
            return []
        rows = sorted(self._host.children(folder), key=lambda row: row.path)
        return [to_node(row, self.user) for row in (folder, *rows)]

    def _stat(self, path: str) -> Node | None:
        row = self._row(path)
        return None if row is None else to_node(row, self.user)

    def _find(self, file_id: int) -> Node | None:
        row = self._host.row_of(self._home(), file_id)
        return to_node(row, self.user) if row is not None and _is_below(row.path, FILES) else None

    def _read(self, path: str, etag: str) -> Reading:
        row = self._row(path)
        if row is None or row.etag != etag:
            raise TryLater(f"{path}: is another file by now")
        return self._host.read(self.user, row)

    def _list_versions(self, file_id: int) -> Sequence[Version]:
        return self._host.versions(file_id) if self._find(file_id) else []

    def _read_version(self, file_id: int, version_id: str) -> Reading | None:
        node = self._find(file_id)
        if node is None:
            return None
        return self._host.read_path(self.user, f"{VERSIONS}/{node.path}.v{version_id}")


class HostFirst:
    """A user's view over WebDAV, whose bytes come from this machine's disk wherever disk and database agree.

    What Nextcloud shows (folders, mounts, versions, trash) is WebDAV's to say; of the bytes that it would send, the
    disk has most, and reading them there holds no lock.
    """

    def __init__(self, session: Session, host: Host) -> None:
        self.user, self.host = session.user, host
        self._dav, self._disk = session, HostSession(host, session.user)

    async def instance_id(self) -> str:
        shown, here = await self._dav.instance_id(), await self._disk.instance_id()
        if shown != here:
            raise Usage(f"host: instance {here!a} is not the one at the url, which is {shown!a}")
        return shown

    async def list_folder(self, path: str) -> list[Node]:
        return await self._dav.list_folder(path)

    async def stat(self, path: str) -> Node | None:
        return await self._dav.stat(path)

    async def find(self, file_id: int) -> Node | None:
        return await self._dav.find(file_id)

    async def read(self, path: str, etag: str) -> Reading:
        try:
            return await self._disk.read(path, etag)
        except (TryLater, PeerFailed):
            return await self._dav.read(path, etag)

    async def list_versions(self, file_id: int) -> Sequence[Version]:
        return await self._dav.list_versions(file_id)

    async def read_version(self, file_id: int, version_id: str) -> Reading | None:
        try:
            found = await self._disk.read_version(file_id, version_id)
        except (TryLater, PeerFailed):
            found = None
        return found or await self._dav.read_version(file_id, version_id)

    async def list_trash(self) -> list[Trashed]:
        return await self._dav.list_trash()


def to_node(row: Row, user: str) -> Node:
    path = row.path.removeprefix(FILES).removeprefix("/")
    is_folder = row.mime == FOLDER_TYPE
    times = row.mtime, row.size, row.upload_time or 0
    is_encrypted = bool(row.encrypted if is_folder else row.folder_encrypted)
    return Node(row.file_id, path, is_folder, row.etag, *times, user, "", row.mime, is_encrypted)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder + "/")


def is_file(row: Row) -> bool:
    """Whether a row is a file that its user sees."""
    return _is_below(row.path, FILES) and row.mime != FOLDER_TYPE


def _is_hashed(storage: str) -> bool:
    return len(storage.encode("utf-8")) > MAX_STORAGE_ID


def _author(metadata: object) -> str:
    """Who wrote a version, as newer Nextclouds note it; "" where they don't."""
    try:
        values = json.loads(metadata) if isinstance(metadata, str) else metadata
    except ValueError:
        return ""
    author = values.get("author") if isinstance(values, dict) else None
    return author if isinstance(author, str) else ""


def _md5(text: str) -> str:
    return md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()


def _ciphertext(path: str) -> PeerFailed:
    return PeerFailed(f"{path}: encrypted on disk: only WebDAV gives the bytes that users see")
