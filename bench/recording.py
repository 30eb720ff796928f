"""Rows on recording: one entry for each durable commit against a bare insert, and batches against our own single ones.

Two kinds of batches: of files that are new, as in a first scan, and of files chosen at random among all that the log
knows. In the first, chains and entries go to the ends of their tables; in the second, each goes to pages of its own.

Both sides run on the same file system, WAL and synchronous=FULL. The bare row has the bytes of ours, in one table;
we write the entry, its leaf, the chain's new end, and check which operation may follow.
"""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
from collections.abc import Callable

from bench.dataset import Data, now, observe
from bench.measure import PER_S, Round, Row, at_least, interleave, loop, shown

BATCH = 1_000
ONE = "durable recording, one by one"
FIRST = f"durable recording, batches of {BATCH:,} new files"
KNOWN = f"durable recording, batches of {BATCH:,} over random files"
READ_ROW = "SELECT entry, content, path, context, head, leaf_index FROM entries ORDER BY chain DESC, seq DESC LIMIT 1"
CREATE = (
    "CREATE TABLE entries (chain INTEGER, seq INTEGER, entry BLOB, content BLOB, path BLOB, context BLOB, head BLOB,"
    " leaf_index INTEGER, PRIMARY KEY (chain, seq)) WITHOUT ROWID"
)
INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def rows(data: Data, temporary: str, rounds: int, calls: int) -> list[Row]:
    """All contenders in one interleaved run; how quick the disk is decides much of it, so that is measured as well."""
    conn, insert = bare(data, os.path.join(temporary, "bare.db"))
    chosen = random.Random(1)

    def record(count: int) -> Callable[[], object]:
        def call() -> None:
            at = now()
            files = [chosen.randint(1, data.files) for _ in range(count)]
            data.recorder.record([observe(data.source, file_id, next(versions), at) for file_id in files])

        return call

    def scan() -> None:
        at = now()
        data.recorder.record([observe(data.source, next(new_files), 0, at) for _ in range(BATCH)])

    versions, new_files = itertools.count(10), itertools.count(data.files + 1)
    first, known = loop(scan, 1), loop(record(BATCH), 1)
    contenders: dict[str, Round] = {"one": loop(record(1), calls), "bare": loop(insert, calls)}
    page = os.open(os.path.join(temporary, "pages"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    contenders["sync"] = loop(lambda: append_page(page), calls)
    contenders |= {"first": lambda: first() / BATCH, "known": lambda: known() / BATCH}
    times = interleave(rounds, **contenders)
    conn.close()
    os.close(page)
    return [
        at_least(ONE, times["one"], times["bare"], 0.45, PER_S, "bare sqlite3 FULL insert"),
        shown(ONE, times["one"], times["sync"], PER_S, "the disk: bare appends of a page, synced"),
        at_least(FIRST, times["first"], times["one"], 8, PER_S, "one by one, known files"),
        at_least(KNOWN, times["known"], times["one"], 8, PER_S, "one by one, known files"),
    ]


def append_page(page: int) -> None:
    """The least that any durable write is."""
    os.write(page, bytes(8192))
    os.fdatasync(page)


def bare(data: Data, path: str) -> tuple[sqlite3.Connection, Callable[[], object]]:
    """A database of one table, and a call that inserts a row of the same size, durably."""
    row = data.store.reader().execute(READ_ROW).fetchone()
    conn = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA page_size=8192", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", CREATE):
        conn.execute(statement)
    number = itertools.count()

    def insert() -> None:
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(INSERT, (next(number), 0, *row))
        conn.execute("COMMIT")

    return conn, insert
