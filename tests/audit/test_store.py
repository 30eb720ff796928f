"""The store: created once, opened strictly, durable or refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.errors import Fatal, Refused, TryLater
from audit.schema import SCHEMA_VERSION, LogTable
from audit.store import Store, create_store, open_store
from tests.audit.log_setup import LogSetup
from verifier.keys import format_log_name

ORIGIN = "log.example/files"
LOG_NAME = format_log_name(ORIGIN, bytes(32))


@pytest.fixture
def directory(tmp_path: Path) -> str:
    create_store(str(tmp_path / "log"), ORIGIN, LOG_NAME, 7)
    return str(tmp_path / "log")


@pytest.fixture
def store(directory: str) -> Iterator[Store]:
    store = open_store(directory)
    yield store
    store.close()


class BadCommit:
    """A connection whose COMMIT reports failure, before or after it persisted."""

    def __init__(self, conn: sqlite3.Connection, persisted: bool) -> None:
        self.conn, self.persisted = conn, persisted

    def __getattr__(self, name: str) -> object:
        return getattr(self.conn, name)

    def execute(self, statement: str, *values: Any) -> object:
        if statement == "COMMIT":
            if self.persisted:
                self.conn.execute(statement)
            raise sqlite3.OperationalError("disk I/O error")
        return self.conn.execute(statement, *values)


def test_create_store_makes_private_files(directory: str) -> None:
    """What holds openings and custodial keys is readable by its user alone."""
    assert stat.S_IMODE(os.stat(os.path.join(directory, "log.db")).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700


def test_create_store_refuses_a_second_log(directory: str) -> None:
    """Nothing is ever created over a log that exists."""
    with pytest.raises(Refused, match="holds a log already"):
        create_store(directory, ORIGIN, LOG_NAME, 8)


def test_open_store_refuses_to_create(tmp_path: Path) -> None:
    """A missing log is not made on the way: that would hide its loss."""
    with pytest.raises(Refused, match="there is none"):
        open_store(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_open_store_refuses_a_half_made_log(tmp_path: Path) -> None:
    """A file that a crash left without its version is no log."""
    (tmp_path / "log.db").touch()
    with pytest.raises(Refused, match="created completely"):
        open_store(str(tmp_path))


@pytest.mark.parametrize(
    ("version", "why"), [(SCHEMA_VERSION + 1, "newer program"), (SCHEMA_VERSION - 1, "nextcloud-audit upgrade")]
)
def test_open_store_refuses_another_schema(directory: str, version: int, why: str) -> None:
    """A newer or older schema is refused with what to do about it."""
    conn = sqlite3.connect(os.path.join(directory, "log.db"))
    with conn:
        conn.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(version).encode(),))
    conn.close()
    with pytest.raises(Refused, match=why):
        open_store(directory)


def test_open_store_knows_names_and_is_durable(store: Store) -> None:
    """Names come from the file; the writer waits for the disk and keeps references whole."""
    assert (store.origin, store.log_name) == (ORIGIN, LOG_NAME)
    with store.lock:
        settings = [
            store._writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "page_size")
        ]
    assert settings == ["wal", 2, 1, 8192]
    tables = {row[0] for row in store.reader().execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == set(LogTable.metadata.tables)


def test_transaction_writes_all_or_nothing(store: Store) -> None:
    """An error inside leaves nothing; the store goes on."""

    def write_and_fail() -> None:
        with store.transaction() as conn:
            conn.execute("INSERT INTO bundles VALUES (1, x'00')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with store.transaction() as conn:
        conn.execute("INSERT INTO bundles VALUES (2, x'00')")
    assert store.reader().execute("SELECT n FROM bundles").fetchall() == [(2,)]


@pytest.mark.parametrize("persisted", [False, True])
def test_failed_commit_stops_the_store(store: Store, persisted: bool) -> None:
    """After a COMMIT of unknown outcome nothing more is written; only a new start knows what is there."""
    store._writer = BadCommit(store._writer, persisted)  # type: ignore[assignment]
    with pytest.raises(Fatal), store.transaction() as conn:
        conn.execute("INSERT INTO bundles VALUES (1, x'00')")
    with pytest.raises(Fatal, match="no more writes"), store.transaction():
        pass
    assert len(store.reader().execute("SELECT n FROM bundles").fetchall()) == persisted


def test_locked_database_is_pushback(store: Store, directory: str) -> None:
    """Where another program holds the database, the caller is told to try later and nothing is lost."""
    other = sqlite3.connect(os.path.join(directory, "log.db"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._writer.execute("PRAGMA busy_timeout=1")
    with pytest.raises(TryLater), store.transaction():
        pass
    other.execute("ROLLBACK")
    other.close()
    with store.transaction():
        pass


def test_readers_cannot_write_and_see_one_state(store: Store) -> None:
    """A reader's snapshot does not move while the writer commits, and no reader can write."""
    with store.snapshot() as reader:
        before = reader.execute("SELECT count(*) FROM bundles").fetchone()
        with store.transaction() as conn:
            conn.execute("INSERT INTO bundles VALUES (1, x'00')")
        assert reader.execute("SELECT count(*) FROM bundles").fetchone() == before
    assert store.reader().execute("SELECT count(*) FROM bundles").fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError):
        store.reader().execute("DELETE FROM bundles")


def test_each_thread_has_its_own_reader(store: Store) -> None:
    """Connections are not shared between threads."""
    found: list[sqlite3.Connection] = []
    thread = threading.Thread(target=lambda: found.append(store.reader()))
    thread.start()
    thread.join()
    assert found[0] is not store.reader()
    assert store.reader() is store.reader()


def test_sources_keep_their_id(store: Store) -> None:
    """A source is added once; neither its id nor another one's can be taken over."""
    row = store.add_source("folder:/a", "folder:1")
    assert store.add_source("folder:/a", "folder:1") == row
    with pytest.raises(Refused, match="want folder:1"):
        store.add_source("folder:/a", "folder:2")
    with pytest.raises(Refused, match="belongs to another"):
        store.add_source("folder:/b", "folder:1")
    with pytest.raises(Refused, match="source id"):
        store.add_source("folder:/b", "No Spaces")


def test_file_ids_are_never_given_twice(store: Store, directory: str) -> None:
    """Each range starts where the last one ended, after a restart as well."""
    row = store.add_source("folder:/a", "folder:1")
    first = store.new_file_ids(row, 5)
    store.close()
    again = open_store(directory)
    try:
        assert (list(first), again.new_file_ids(row, 2)) == ([1, 2, 3, 4, 5], range(6, 8))
        with pytest.raises(Refused, match="there is no 9"):
            again.new_file_ids(9, 1)
        with pytest.raises(Refused, match="at once"):
            again.new_file_ids(row, 0)
    finally:
        again.close()


def test_checkpoint_says_when_a_reader_keeps_an_old_copy(tmp_path: Path) -> None:
    """While a snapshot is open, what was erased may still stand in the write-ahead log; that is said, not hidden."""
    log = LogSetup(tmp_path / "log")
    log.store._writer.execute("PRAGMA busy_timeout=50")
    with log.store.snapshot() as conn:
        conn.execute("SELECT count(*) FROM meta").fetchone()
        log.store.add_source("folder:/srv/other", "folder:f1")
        with pytest.raises(TryLater, match="old copy"):
            log.store.checkpoint_wal()
    log.store.checkpoint_wal()
    log.close()
