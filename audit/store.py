"""DIR/log.db: creating it, opening it, its one writer and its readers.

    create_store(directory, origin, log_name, now)     a command that a human types once
    store = open_store(directory)                      refuses what is missing, half made, or of a newer version
    with store.transaction() as conn: ...              one writer at a time; durable when the block is left
    with store.snapshot() as conn: ...                 this thread's read-only connection, one state for all reads

SQLite in WAL mode with synchronous=FULL: a COMMIT that returned is on disk. Readers never wait for the writer. Pages
have 8 KiB, which holds a tile in three and a page of the map in one.

What a failure leaves. An error inside a transaction rolls back: nothing was written, and OperationalError (locked,
disk full) becomes TryLater; a damaged file is Fatal. A COMMIT that fails may have persisted or not; the store then
refuses every further write with Fatal, and the process has to start again, which reads what is really there.

The file holds custodial private keys and every opening: 0600, in a directory of 0700.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from audit.errors import Fatal, Refused, TryLater
from audit.schema import ONE, SCHEMA_VERSION, LogTable, Meta, Source, create_tables, sql, table
from verifier.errors import Error
from verifier.files import sync_directory_of
from verifier.keys import check_origin, check_source_id, parse_log_name
from verifier.note import VerifierKey, parse_vkey

FILE_NAME = "log.db"
PAGE_SIZE = 8192
BUSY_TIMEOUT_MS = 10_000
WRITER_CACHE_KIB = 32 * 1024  # pages that a batch touches, of chains all over the file
CHECKPOINT_PAGES = 16_384  # of the write-ahead log (128 MiB): pages that many commits change are moved once
MAX_FILE_IDS = 1_000_000  # allotted at once

_META, _SOURCES = table(Meta), table(Source)
_put = upsert(_META).values(key=bindparam("key"), value=bindparam("value"))
_PUT_META = sql(_put.on_conflict_do_update(index_elements=["key"], set_={"value": _put.excluded.value}))
_SELECT_META = sql(select(_META.c.key, _META.c.value))
_ADD_SOURCE = sql(insert(_SOURCES).values(source_id=bindparam("source_id"), spec=bindparam("spec"), next_file_id=ONE))
_FIND_SOURCE = sql(select(_SOURCES.c.id, _SOURCES.c.source_id).where(_SOURCES.c.spec == bindparam("spec")))
_SOURCE_ID = sql(select(_SOURCES.c.source_id).where(_SOURCES.c.id == bindparam("source")))
_LIST_SOURCES = sql(select(_SOURCES.c.id, _SOURCES.c.source_id, _SOURCES.c.spec).order_by(_SOURCES.c.id))
_SCANNED = sql(select(_SOURCES.c.scanned).where(_SOURCES.c.id == bindparam("source")))
_SET_SCANNED = sql(update(_SOURCES).values(scanned=bindparam("now")).where(_SOURCES.c.id == bindparam("source")))
_NEXT_FILE_ID = sql(
    update(_SOURCES)
    .values(next_file_id=_SOURCES.c.next_file_id + bindparam("count"))
    .where(_SOURCES.c.id == bindparam("source"))
    .returning(_SOURCES.c.next_file_id)
)


class Store:
    """An open log.db. Made by `open_store`; the writer's connection is used under `lock` alone."""

    def __init__(
        self,
        path: str,
        writer: sqlite3.Connection,
        origin: str,
        log_name: str,
        log_keys: tuple[VerifierKey, ...] = (),
        loss: bytes | None = None,
    ) -> None:
        self.path = path
        self.origin = origin
        self.log_name = log_name
        self.log_keys = log_keys  # all that ever signed, the first one first; empty while there is but one
        self.loss = loss  # the declarations of a log that has lost leaves (`verifier.loss`)
        self.lock = threading.RLock()
        self._writer = writer
        self._failed: str | None = None
        self._source_ids: dict[int, str] = {}
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The writer's connection in a transaction; what the block wrote is durable once it is left."""
        with self.lock:
            if self._failed:
                raise Fatal(f"log.db: no more writes after {self._failed}")
            conn = self._writer
            self._run("BEGIN IMMEDIATE")
            try:
                yield conn
            except BaseException as error:
                self._roll_back(error)
                _raise_ours(error)
                raise
            try:
                conn.execute("COMMIT")
            except BaseException as error:
                self._failed = f"a commit that may have persisted or not: {error}"
                raise Fatal(f"log.db: {self._failed}") from error

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """This thread's reader, in a read transaction: what it sees is one committed state."""
        conn = self.reader()
        conn.execute("BEGIN")
        try:
            yield conn
        except sqlite3.Error as error:
            _raise_ours(error)
            raise
        finally:
            if conn.in_transaction:  # nothing was written; a COMMIT could fail where the file is damaged
                conn.execute("ROLLBACK")

    def reader(self) -> sqlite3.Connection:
        """This thread's read-only connection. Each statement on its own sees the newest committed state."""
        conn: sqlite3.Connection | None = getattr(self._local, "conn", None)
        if conn is None:
            conn = _connect(self.path, "ro", sqlite3.Connection)
            self._local.conn = conn
            with self.lock:
                self._readers.append(conn)
        return conn

    def close(self) -> None:
        """Closes every connection. No other thread may use the store any more."""
        with self.lock:
            for conn in (*self._readers, self._writer):
                conn.close()
            self._readers.clear()

    def add_source(self, spec: str, source_id: str) -> int:
        """The row id of the source with this spec, added if it is new; the id of a known one can't change."""
        try:
            check_source_id(source_id)
        except Error as error:
            raise Refused(str(error)) from None
        with self.transaction() as conn:
            known = conn.execute(_FIND_SOURCE, (spec,)).fetchone()
            if known is None:
                try:
                    return int(conn.execute(_ADD_SOURCE, (source_id, spec)).lastrowid or 0)
                except sqlite3.IntegrityError:
                    raise Refused(f"source id: {source_id} belongs to another source") from None
            if known[1] != source_id:
                raise Refused(f"source id: got {source_id}, want {known[1]} for {spec}")
            return int(known[0])

    def source_id(self, conn: sqlite3.Connection, source: int) -> str:
        """The text id of a source, as chain ids and proofs name it."""
        known = self._source_ids.get(source)
        if known is None:
            row = conn.execute(_SOURCE_ID, (source,)).fetchone()
            if row is None:
                raise Refused(f"source: there is no {source}")
            known = self._source_ids[source] = str(row[0])  # never changes
        return known

    def list_sources(self, scheme: str) -> list[tuple[int, str, str]]:
        """Row id, text id and place (what follows `scheme:`) of every source of this scheme."""
        start = f"{scheme}:"
        rows = self.reader().execute(_LIST_SOURCES).fetchall()
        return [(row, name, spec.removeprefix(start)) for row, name, spec in rows if spec.startswith(start)]

    def scanned(self, source: int) -> int | None:
        """When the last scan of a source ended; None before the first one did."""
        when: int | None = self.reader().execute(_SCANNED, (source,)).fetchone()[0]
        return when

    def set_scanned(self, source: int, now: int) -> None:
        with self.transaction() as conn:
            conn.execute(_SET_SCANNED, (now, source))

    def new_file_ids(self, source: int, count: int) -> range:
        """File ids that no file of this source has had or will have; those that stay unused are lost, no harm done."""
        if not 1 <= count <= MAX_FILE_IDS:
            raise Refused(f"file ids: got {count}, want 1 to {MAX_FILE_IDS} at once")
        with self.transaction() as conn:
            row = conn.execute(_NEXT_FILE_ID, (count, source)).fetchone()
            if row is None:
                raise Refused(f"source: there is no {source}")
            return range(row[0] - count, row[0])

    def checkpoint_wal(self) -> None:
        """Moves the write-ahead log into the database and empties it, so that what was erased is gone from both.

        TryLater: somebody still reads the state before; what was written is durable, and only the old copy is left.
        """
        with self.lock:
            try:
                busy = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error as error:
                _raise_ours(error)
                raise
        if busy:
            raise TryLater("log.db: logged and deleted, but a reader keeps an old copy in the write-ahead log for now")

    def _run(self, statement: str) -> None:
        try:
            self._writer.execute(statement)
        except sqlite3.Error as error:
            _raise_ours(error)
            raise

    def _roll_back(self, cause: BaseException) -> None:
        try:
            if self._writer.in_transaction:  # SQLite itself may have rolled back (disk full)
                self._writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._failed = f"{cause!r}, and a rollback that failed: {error}"
            raise Fatal(f"log.db: {self._failed}") from error


def put_meta(conn: sqlite3.Connection, key: str, value: bytes) -> None:
    """Says this from now on."""
    conn.execute(_PUT_META, (key, value))


def create_store(directory: str, origin: str, log_name: str, now: int) -> None:
    """Makes an empty log.db for this log in `directory`; refuses where one stands already."""
    check_origin(origin)
    parse_log_name(log_name)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, FILE_NAME)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise Refused(f"log.db: {directory} holds a log already") from None
    meta = {"schema_version": SCHEMA_VERSION, "origin": origin, "log_name": log_name, "created": now}
    conn = sqlite3.connect(path, isolation_level=None)
    try:
        conn.execute(f"PRAGMA page_size={PAGE_SIZE}")
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute("BEGIN")  # a crash before the COMMIT leaves a file without version, which open_store refuses
        create_tables(conn, LogTable.metadata)
        for key, value in meta.items():
            put_meta(conn, key, str(value).encode("utf-8"))
        conn.execute("COMMIT")
    finally:
        conn.close()
    sync_directory_of(path)


def open_store(directory: str, factory: type[sqlite3.Connection] = sqlite3.Connection) -> Store:
    """The log in `directory`, whose schema is the one that this program knows. `factory` makes the writer."""
    path = os.path.join(directory, FILE_NAME)
    if not os.path.exists(path):
        raise Refused(f"log.db: there is none in {directory}; creating a log is a command of its own")
    try:
        conn = _connect(path, "rw", factory)
    except sqlite3.OperationalError as error:
        raise Refused(f"log.db: {directory} cannot be read ({error})") from None
    try:
        meta = _read_meta(conn)
        log_keys = tuple([parse_vkey(vkey, "log.db log_keys") for vkey in meta.get("log_keys", "").split()])
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute("PRAGMA foreign_keys=ON")
        conn.execute("PRAGMA secure_delete=ON")  # from the first write on: a page that splits leaves copies behind
        conn.execute(f"PRAGMA cache_size=-{WRITER_CACHE_KIB}")
        conn.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    except BaseException as error:
        conn.close()
        _raise_ours(error)
        raise
    loss = meta["loss"].encode("utf-8") if "loss" in meta else None
    return Store(path, conn, meta["origin"], meta["log_name"], log_keys, loss)


def read_version(conn: sqlite3.Connection) -> int:
    """The schema version of a log, whatever it is."""
    return _read_any_meta(conn)[0]


def _read_any_meta(conn: sqlite3.Connection) -> tuple[int, dict[str, str]]:
    try:
        meta = {str(key): value.decode("utf-8") for key, value in conn.execute(_SELECT_META)}
        version, _ = int(meta["schema_version"]), (meta["origin"], meta["log_name"])
    except (sqlite3.DatabaseError, AttributeError, KeyError, ValueError) as error:
        raise Refused(f"log.db: not a log that was created completely ({error})") from None
    return version, meta


def _read_meta(conn: sqlite3.Connection) -> dict[str, str]:
    version, meta = _read_any_meta(conn)
    if version != SCHEMA_VERSION:
        older = "stop the service, and run `nextcloud-audit upgrade --data DIR`"
        newer = "a newer program made it; install that version" if version > SCHEMA_VERSION else older
        raise Refused(f"log.db: got schema version {version}, want {SCHEMA_VERSION}: {newer}")
    return meta


def _raise_ours(error: BaseException) -> None:
    """What SQLite says in the words of the service; anything else is the caller's own affair."""
    if isinstance(error, sqlite3.OperationalError):  # locked, disk full, read-only
        raise TryLater(f"log.db: {error}") from error
    if type(error) is sqlite3.DatabaseError:  # malformed, or no database
        raise Fatal(f"log.db: {error}; `fsck` says more") from error


def _connect(path: str, mode: str, factory: type[sqlite3.Connection]) -> sqlite3.Connection:
    """A raw connection in autocommit mode; threads are kept apart by the store, not by sqlite3."""
    uri, timeout = f"file:{quote(os.path.abspath(path))}?mode={mode}", BUSY_TIMEOUT_MS / 1000
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=timeout, factory=factory
    )
