"""How much of a Nextcloud is covered: what is known, chained, read again lately, waiting, unreadable, and nobody's.

    report = measure(conn, source, source_id, now, days)
    report.is_whole        nothing waits, nothing failed, every file was read within `days`, and at least one walk ended

Nothing that was not checked counts as covered. What lies in folders that could not be listed is not even counted: as
long as one is not seen whole, `unseen_folders` is above 0, and the numbers of files are lower bounds.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select

from audit.chains import LIVE
from audit.nextcloud.known import Reads, count_dirty, count_known, get_reads
from audit.nextcloud.limits import NO_LIMITS, Budget
from audit.schema import EMPTY, ZERO, ChainRow, NextcloudDirty, NextcloudFolder, NextcloudKnown, Source, sql, table

DAY_S = 86_400
MAX_REASONS = 20
A_PACE = 16  # files that were read again today, and say how long one takes

_KNOWN, _FOLDERS, _DIRTY = table(NextcloudKnown), table(NextcloudFolder), table(NextcloudDirty)
_CHAINS, _SOURCES = table(ChainRow), table(Source)


def _count(made: Any, *conditions: Any) -> str:
    return sql(select(func.count()).select_from(made).where(made.c.source == bindparam("source"), *conditions))


_TRASHED = _count(_KNOWN, _KNOWN.c.in_trash != ZERO)
_READ_SINCE = _count(_KNOWN, _KNOWN.c.in_trash == ZERO, _KNOWN.c.checked >= bindparam("since"))
_CHAINED = sql(
    select(func.count())
    .select_from(
        _KNOWN.join(
            _CHAINS,
            (_CHAINS.c.source == _KNOWN.c.source)
            & (_CHAINS.c.file_id == _KNOWN.c.file_id)
            & (_CHAINS.c.status == bindparam("live")),
        )
    )
    .where(_KNOWN.c.source == bindparam("source"), _KNOWN.c.in_trash == ZERO)
)
_OLDEST = sql(
    select(func.min(_KNOWN.c.checked)).where(_KNOWN.c.source == bindparam("source"), _KNOWN.c.in_trash == ZERO)
)
_BYTES = sql(
    select(func.coalesce(func.sum(_KNOWN.c.size), ZERO)).where(
        _KNOWN.c.source == bindparam("source"), _KNOWN.c.in_trash == ZERO
    )
)
_UNSEEN = _count(_FOLDERS, _FOLDERS.c.etag == EMPTY)
_WALKED = _count(_FOLDERS, _FOLDERS.c.path == EMPTY, _FOLDERS.c.etag != EMPTY)
_WHY = sql(
    select(_DIRTY.c.why, func.count(), func.min(_DIRTY.c.user), func.min(_DIRTY.c.path))
    .where(_DIRTY.c.source == bindparam("source"), _DIRTY.c.tries != ZERO)
    .group_by(_DIRTY.c.why)
    .order_by(func.count().desc(), _DIRTY.c.why)
    .limit(bindparam("limit"))
    .offset(ZERO)
)
_SCANNED = sql(select(_SOURCES.c.scanned).where(_SOURCES.c.id == bindparam("source")))


class Unreadable(NamedTuple):
    """Files that failed for one reason, and one of them."""

    why: str
    files: int
    example: str


class Coverage(NamedTuple):
    """One Nextcloud. `oldest_read` is None where nothing is known."""

    source_id: str
    days: int
    accounts_walked: int
    unseen_folders: int
    files: int
    chained: int
    read_again: int
    in_trash: int
    waiting: int
    oldest_read: int | None
    scanned: int | None
    unreadable: tuple[Unreadable, ...]
    bytes: int
    budget: Budget
    today: Reads

    @property
    def needs_days(self) -> float | None:
        """How long the budget takes for everything: all bytes at its full rate, or all files at the pace of today.

        The share, many small files or a slow server may keep the pace below that rate. None where nothing bounds it,
        or where it has no time at all.
        """
        if not self.budget.hours:
            return None
        a_day_s, today = self.budget.hours * 3600, self.today
        rate, found = self.budget.bytes_per_s, []
        if rate:
            found.append(self.bytes / (a_day_s * rate))
        if today.files >= A_PACE:
            found.append(self.files * today.milliseconds / today.files / (a_day_s * 1000))
        return max(found, default=None)

    @property
    def is_whole(self) -> bool:
        complete = self.accounts_walked > 0 and not self.unseen_folders and not self.waiting and not self.unreadable
        return complete and self.files == self.chained == self.read_again


def measure(
    conn: sqlite3.Connection, source: int, source_id: str, now: int, days: int, budget: Budget = NO_LIMITS.budget
) -> Coverage:
    """What the tables say, in one state of them where the caller gives a snapshot."""

    def one(statement: str, *values: object) -> Any:
        return conn.execute(statement, values).fetchone()[0]

    why = conn.execute(_WHY, (source, MAX_REASONS)).fetchall()
    return Coverage(
        source_id,
        days,
        one(_WALKED, source),
        one(_UNSEEN, source),
        count_known(conn, source),
        one(_CHAINED, LIVE, source),
        one(_READ_SINCE, source, now - days * DAY_S),
        one(_TRASHED, source),
        count_dirty(conn, source),
        one(_OLDEST, source),
        one(_SCANNED, source),
        tuple(Unreadable(reason, count, f"{user}/{path}") for reason, count, user, path in why),
        one(_BYTES, source),
        budget,
        get_reads(conn, source, now // DAY_S),
    )
