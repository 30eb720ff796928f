"""From a scan of a folder to the log: what `audit.folder` saw becomes observations, and is remembered.

    source = add_folder(store, "folder:/srv/letters")           its row; the id is made once and kept
    summary = source.scan(Job(store, recorder))

Entries and what the next scan compares with (`folder_known`) are written in one transaction, so that nothing is
recorded twice after a crash and nothing is forgotten. Adopted files come in batches while they are hashed: a first
scan that is interrupted goes on where it was. So do moves: whose new path is another's old one comes after it, and only
those that change paths in a circle go together, however many these are. File ids count up and are never used again, the
inode is only a hint for moves.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select

from audit.batch import Observation
from audit.chains import find_enrolled
from audit.errors import Refused
from audit.folder import Change, Known, Problem, Progress, scan
from audit.recorder import Recorder
from audit.schema import FolderKnown, sql, table
from audit.store import Store
from verifier.entry import Content, Operation
from verifier.errors import Usage

SCHEME = "folder"
BATCH = 1_000  # observations in one transaction
MIGRATE_LIMIT = 2**31
OPERATIONS = ("adopted", "created", "written", "moved", "touched", "altered", "deleted")

_KNOWN = table(FolderKnown)
_READ_KNOWN = sql(select(*[_KNOWN.c[name] for name in Known._fields]).where(_KNOWN.c.source == bindparam("source")))
_PUT_KNOWN = sql(insert(_KNOWN).prefix_with("OR REPLACE"))
_DROP_KNOWN = sql(
    delete(_KNOWN).where(_KNOWN.c.source == bindparam("source"), _KNOWN.c.file_id == bindparam("file_id"))
)


class Stopped(Exception):
    """A scan that was asked to stop: what it recorded stays, the next one goes on."""


class Job(NamedTuple):
    """What a scan or a look works on, and how: the same for every source."""

    store: Store
    recorder: Recorder
    clock: Callable[[], float] = time.time
    progress: Callable[[Progress], object] | None = None  # may raise Stopped
    exclude: Sequence[str] = ()  # paths that are not the source's: the log's own directory
    enrolled_only: bool = False  # nothing is read whose owner has not enrolled
    full: bool = False  # every byte is read again, changed or not


class FolderSource(NamedTuple):
    """A folder that the log knows."""

    row: int
    source_id: str
    path: str

    @property
    def name(self) -> str:
        return self.path

    def scan(self, job: Job) -> Summary:
        """As `audit.sources` wants it."""
        if job.enrolled_only and find_enrolled(job.store.reader(), self.row) is None:
            return Summary(self.source_id, {}, [], 0)
        return _Scan(job, self).run()


class Summary(NamedTuple):
    """What a scan recorded, by operation, and what it could not look at."""

    source_id: str
    counts: dict[str, int]
    problems: list[Problem]
    migrated: int

    @property
    def recorded(self) -> int:
        return sum(self.counts.values()) + self.migrated


def parse_spec(spec: str) -> str:
    """The absolute path in `folder:PATH`."""
    scheme, _, path = spec.partition(":")
    if scheme != SCHEME or not path:
        raise Usage(f"source: got {spec!r}, want folder:PATH")
    return os.path.realpath(path)


def add_folder(store: Store, spec: str, random: Callable[[int], bytes] = os.urandom) -> FolderSource:
    """The folder as a source of this log, known or new. Its id is random, so that it says nothing about the path."""
    path = parse_spec(spec)
    if not os.path.isdir(path):
        raise Usage(f"source: {path} is not a directory")
    spec = f"{SCHEME}:{path}"
    if all(source.path != path for source in list_folders(store)):
        store.add_source(spec, f"{SCHEME}:{random(8).hex()}")
    return next(source for source in list_folders(store) if source.path == path)


def list_folders(store: Store) -> list[FolderSource]:
    """Every folder that the log knows."""
    return [FolderSource(*known) for known in store.list_sources(SCHEME)]


class _Scan:
    def __init__(self, job: Job, source: FolderSource) -> None:
        self._job, self._source = job, source
        self._store, self._recorder, self._clock = job.store, job.recorder, job.clock
        self._counts = dict.fromkeys(OPERATIONS, 0)

    def run(self) -> Summary:
        """Everything in the summary is durable when this returns."""
        job, conn = self._job, self._store.reader()
        first = self._store.scanned(self._source.row) is None
        known = {row[1]: Known._make(row) for row in conn.execute(_READ_KNOWN, (self._source.row,))}
        problems: list[Problem] = []
        root, exclude, progress = self._source.path, job.exclude, job.progress
        found = scan(root, known, full=job.full, first=first, exclude=exclude, progress=progress)
        with closing(found):  # type: ignore[type-var]  # a generator, said to be an iterator
            changes = _without_problems(found, problems)
            for is_move, group in groupby(changes, key=lambda change: change.operation == "moved"):
                for batch in _batches(_in_turn(list(group)) if is_move else ([change] for change in group)):
                    self._record(batch)
        if any(problem.reason == "root" for problem in problems):
            return Summary(self._source.source_id, self._counts, problems, 0)
        self._store.set_scanned(self._source.row, int(self._clock()))
        migrated = self._recorder.migrate(self._source.row, MIGRATE_LIMIT)
        return Summary(self._source.source_id, self._counts, problems, migrated)

    def _record(self, changes: Sequence[Change]) -> None:
        """Records a batch and what the next scan has to know of it, in one transaction."""
        fresh = sum(change.known is None for change in changes)
        ids = iter(self._store.new_file_ids(self._source.row, fresh) if fresh else ())
        file_ids = [change.known.file_id if change.known else next(ids) for change in changes]
        pairs = list(zip(file_ids, changes, strict=True))
        observations = [self._observe(file_id, change) for file_id, change in pairs if change.operation != "seen"]
        now = int(self._clock())

        def remember(conn: sqlite3.Connection) -> None:
            rows = [self._row(file_id, change, now) for file_id, change in pairs if change.seen]
            conn.executemany(_PUT_KNOWN, rows)
            gone = [(self._source.row, file_id) for file_id, change in pairs if change.seen is None]
            conn.executemany(_DROP_KNOWN, gone)

        try:
            self._recorder.record(observations, remember)
        except Refused as error:
            at = "" if error.position is None else f" (file id {observations[error.position].file_id})"
            raise Refused(f"{error}{at}", error.position) from error
        for change in changes:
            if change.operation in self._counts:
                self._counts[change.operation] += 1

    def _observe(self, file_id: int, change: Change) -> Observation:
        operation = Operation[change.operation.upper()]
        if change.seen is None or change.digest is None:
            return Observation(self._source.row, file_id, operation, 0)
        mtime = max(0, change.seen.mtime_ns // 1_000_000_000)
        content = Content(change.seen.size, change.digest)
        return Observation(self._source.row, file_id, operation, mtime, content, change.seen.path)

    def _row(self, file_id: int, change: Change, now: int) -> tuple[object, ...]:
        assert change.seen is not None
        assert change.digest is not None
        return self._source.row, file_id, *change.seen, change.digest, now


def _in_turn(moves: Sequence[Change]) -> Iterator[list[Change]]:
    """Moves that have to go together, so that no two files ever share a path: one, or a whole circle.

    a -> b -> c: whoever leaves a path comes before whoever takes it.
    """
    leaving = {move.known.path: move for move in moves if move.known}
    for first in moves:
        row, move = [], leaving.pop(_old(first), None)
        while move is not None:
            row.append(move)
            move = leaving.pop(_new(move), None)
        if row and _new(row[-1]) == _old(first):
            yield row
        else:
            yield from ([one] for one in reversed(row))


def _old(move: Change) -> str:
    assert move.known is not None
    return move.known.path


def _new(move: Change) -> str:
    assert move.seen is not None
    return move.seen.path


def _batches(groups: Iterable[list[Change]]) -> Iterator[list[Change]]:
    """Groups whole, about BATCH changes at a time."""
    batch: list[Change] = []
    for group in groups:
        if batch and len(batch) + len(group) > BATCH:
            yield batch
            batch = []
        batch += group
    if batch:
        yield batch


def _without_problems(items: Iterator[Change | Problem], problems: list[Problem]) -> Iterator[Change]:
    for item in items:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            yield item
