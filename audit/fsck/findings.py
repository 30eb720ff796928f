"""What the checks of a log share: where they read, what they found, how far they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import func, select

from audit.schema import TreeRow, sql, table
from audit.store import Store
from verifier.entry import entry_hash
from verifier.leaf import EntryLeaf, encode_leaf
from verifier.note import VerifierKey
from verifier.policy import Policy

MAX_FINDINGS = 1_000  # kept; the rest is counted
PROGRESS_EVERY = 1_000  # rows

_FIRST_SIGNED = sql(select(func.min(table(TreeRow).c.signed_at)))

Progress = Callable[[str, int, int], object]  # what is being checked, how many of them are done, how many there are


class Finding(NamedTuple):
    """Something that is not as it has to be: which check found it, where, and what it is."""

    kind: str
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}: {self.what}"


class Report(NamedTuple):
    """What was found; `total` counts all findings, of which the first MAX_FINDINGS are listed."""

    findings: list[Finding]
    total: int
    counts: dict[str, int]


class Keys(NamedTuple):
    """Whose signatures the notes have to bear."""

    log: VerifierKey
    witnesses: Policy
    auditors: Policy | None


class Unreadable(Exception):
    """What comes next can't be checked; the finding is made already."""


class Check:
    """One run over one committed state."""

    def __init__(self, store: Store, keys: Keys, progress: Progress, conn: sqlite3.Connection) -> None:
        self.store, self.progress, self.conn = store, progress, conn
        self.findings: list[Finding] = []
        self.total = 0
        self.counts: dict[str, int] = {}
        self.log_keys = store.log_keys or (keys.log,)
        # A seal from before a declared loss names a tree of the old origin, which is not here.
        self.declared = -1 if store.loss is None else conn.execute(_FIRST_SIGNED).fetchone()[0] or 0
        self.announced: set[bytes] = set()  # keys after the first one, by their leaves
        policies = [keys.witnesses] if keys.auditors is None else [keys.witnesses, keys.auditors]
        cosigners = [witness.key for policy in policies for witness in policy.witnesses.values()]
        self.cosigners = dict(enumerate(cosigners))

    def find(self, kind: str, place: str, what: str) -> None:
        self.total += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, place, what))

    def counted(self, what: str, statement: str, of: str) -> Iterator[Any]:
        """The rows of a statement, with progress; `of` is the table they come from, one row each."""
        (total,) = self.conn.execute(f"SELECT count(*) FROM {of}").fetchone()  # noqa: S608  # a constant
        done = 0
        for done, row in enumerate(self.conn.execute(statement), 1):
            yield row
            if done % PROGRESS_EVERY == 0:
                self.progress(what, done, total)
        self.progress(what, done, total)
        self.counts[what] = done

    def announce(self, place: str, public_key: bytes) -> None:
        """A leaf for a new log key, once for each."""
        if public_key in self.announced or public_key not in [key.public_key for key in self.log_keys[1:]]:
            self.find("leaf", place, "announces a key that this log has not got, or once more")
        self.announced.add(public_key)


class Ahead:
    """Rows in ascending order of their first columns, of which those are taken that are asked for, in order too."""

    def __init__(self, rows: Iterator[Any], width: int, left: Callable[[Any], object]) -> None:
        self._rows, self._width, self._left = rows, width, left
        self._next = next(rows, None)

    def take(self, *wanted: int) -> Any:
        """The row that begins with these values, or None. Rows before it are left over, as nobody asked for them."""
        while self._next is not None and self._next[: self._width] < wanted:
            self._skip()
        if self._next is None or self._next[: self._width] != wanted:
            return None
        row, self._next = self._next, next(self._rows, None)
        return row

    def end(self) -> None:
        while self._next is not None:
            self._skip()

    def _skip(self) -> None:
        self._left(self._next)
        self._next = next(self._rows, None)


def entry_leaf(name: bytes, seq: int, head: bytes, entry: bytes) -> bytes:
    """The leaf of a stored entry."""
    return encode_leaf(EntryLeaf(name, seq, entry_hash(entry) if seq else head))


def shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
