"""Rows on recording: one entry for each durable commit against a bare insert, and batches against our own single ones.

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
from bench.measure import PER_S, Row, at_least, interleave, loop

BATCH = 1_000
READ_ROW = "SELECT entry, content, path, context, head, leaf_index FROM entries ORDER BY chain DESC, seq DESC LIMIT 1"
CREATE = (
    "CREATE TABLE entries (chain INTEGER, seq INTEGER, entry BLOB, content BLOB, path BLOB, context BLOB, head BLOB,"
    " leaf_index INTEGER, PRIMARY KEY (chain, seq)) WITHOUT ROWID"
)
INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def rows(data: Data, temporary: str, rounds: int, calls: int) -> list[Row]:
    """Three contenders in one interleaved run."""
    conn, insert = bare(data, os.path.join(temporary, "bare.db"))
    chosen = random.Random(1)

    def record(count: int) -> Callable[[], object]:
        def call() -> None:
            at = now()
            files = [chosen.randint(1, data.files) for _ in range(count)]
            data.recorder.record([observe(data.source, file_id, next(versions), at) for file_id in files])

        return call

    versions = itertools.count(10)
    in_batches = loop(record(BATCH), 1)
    times = interleave(rounds, one=loop(record(1), calls), bare=loop(insert, calls), batch=lambda: in_batches() / BATCH)
    conn.close()
    return [
        at_least("durable recording, one by one", times["one"], times["bare"], 0.45, PER_S, "bare sqlite3 FULL insert"),
        at_least(f"durable recording, batches of {BATCH:,}", times["batch"], times["one"], 8, PER_S, "one by one"),
    ]


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
