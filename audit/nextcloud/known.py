"""What a source remembers of a Nextcloud, and its queue of files to look at. Rows in, rows out; no network.

    add(conn, source, [Hint(80, "alice", "ev.txt")], now)       many at once; the same file twice is one entry
    for dirty in take(conn, source, limit, now): ...            the oldest that are due; they stay until
    finish(conn, dirty)                                         looked at: gone, unless a hint came meanwhile
    retry(conn, dirty, now, "locked")                           later, and later each time; `why` is for coverage

A hint says "look there", by file id where it is known, else by user and path; it never says what happened. The queue is
in log.db: whoever added to it before a crash finds it afterwards, and a look leaves it in the transaction that records
what it found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import bindparam, case, delete, exists, func, insert, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert as upsert

from audit.nextcloud.hints import Hint as EventHint
from audit.nextcloud.look import Known
from audit.schema import (
    EMPTY,
    ONE,
    ZERO,
    NextcloudDirty,
    NextcloudFolder,
    NextcloudKnown,
    NextcloudReads,
    sql,
    table,
)

MAX_WHY = 200  # characters
RETRY_FIRST_S, RETRY_MOST_S = 5, 6 * 3600
URGENT = 0  # due since ever


class Hint(NamedTuple):
    """Where to look. `file_id` 0 where it is not known; `predates`: found by the first walk of its user."""

    file_id: int
    user: str
    path: str
    predates: bool = False


def from_event(event: EventHint) -> Hint:
    """The hint of an event, as the queue keeps it."""
    return Hint(event.file_id or 0, event.user, event.path or "")


class Dirty(NamedTuple):
    """An entry of the queue, as it was when it was taken."""

    source: int
    file_id: int
    place: str
    user: str
    path: str
    predates: int
    hits: int
    tries: int


_KNOWN, _FOLDERS, _DIRTY = table(NextcloudKnown), table(NextcloudFolder), table(NextcloudDirty)
_of_source = _DIRTY.c.source == bindparam("source_")
_key = _of_source & (_DIRTY.c.file_id == bindparam("file_id_")) & (_DIRTY.c.place == bindparam("place_"))
_add = upsert(_DIRTY)
_new = _add.excluded
_ADD = sql(
    _add.values(
        {
            name: bindparam(name)
            for name in ("source", "file_id", "place", "user", "path", "predates", "first_at", "last_at", "due_at")
        }
        | {"hits": ONE, "tries": ZERO, "why": EMPTY}
    ).on_conflict_do_update(
        index_elements=["source", "file_id", "place"],
        set_={
            "user": _new.user,
            "path": _new.path,
            "predates": func.max(_DIRTY.c.predates, _new.predates),
            "last_at": _new.last_at,
            "due_at": func.min(_DIRTY.c.due_at, _new.due_at),
            "hits": _DIRTY.c.hits + ONE,
        },
    )
)
_TAKE = sql(
    select(*[_DIRTY.c[name] for name in Dirty._fields])
    .where(_of_source, _DIRTY.c.due_at <= bindparam("now"))
    .order_by(_DIRTY.c.due_at, _DIRTY.c.first_at)
    .limit(bindparam("limit"))
    .offset(ZERO)
)
_FINISH = sql(delete(_DIRTY).where(_key, _DIRTY.c.hits == bindparam("hits_")))
_RETRY = sql(
    update(_DIRTY)
    .values(
        due_at=case((_DIRTY.c.hits == bindparam("hits_"), bindparam("due")), else_=_DIRTY.c.due_at),
        tries=_DIRTY.c.tries + ONE,
        why=bindparam("because"),
    )
    .where(_key)
)
_HITS = sql(select(_DIRTY.c.hits).where(_key))
_NEXT_DUE = sql(select(func.min(_DIRTY.c.due_at)).where(_of_source))
_COUNT = sql(select(func.count()).select_from(_DIRTY).where(_of_source))
_known_columns = [_KNOWN.c[name] for name in Known._fields]
_GET_KNOWN = sql(
    select(*_known_columns).where(_KNOWN.c.source == bindparam("source"), _KNOWN.c.file_id == bindparam("file_id"))
)
_IDS = sql(
    select(_KNOWN.c.file_id).where(
        _KNOWN.c.source == bindparam("source"), _KNOWN.c.file_id.between(bindparam("first"), bindparam("last"))
    )
)
_IN_FOLDER = sql(
    select(*_known_columns).where(
        _KNOWN.c.source == bindparam("source"),
        _KNOWN.c.viewer == bindparam("viewer"),
        _KNOWN.c.folder == bindparam("folder"),
        _KNOWN.c.in_trash == ZERO,
    )
)
_IN_TRASH = sql(
    select(*_known_columns)
    .where(
        _KNOWN.c.source == bindparam("source"),
        _KNOWN.c.viewer == bindparam("viewer"),
        _KNOWN.c.in_trash == ONE,
        _KNOWN.c.file_id > bindparam("after"),
    )
    .order_by(_KNOWN.c.file_id)
    .limit(bindparam("limit"))
    .offset(ZERO)
)
_OLDEST_CHECKED = sql(
    select(*_known_columns)
    .where(
        _KNOWN.c.source == bindparam("source"),
        _KNOWN.c.in_trash == ZERO,
        tuple_(_KNOWN.c.checked, _KNOWN.c.file_id) > tuple_(bindparam("checked"), bindparam("file_id")),
        _KNOWN.c.checked < bindparam("before"),
        ~exists(ONE).where(
            _DIRTY.c.source == _KNOWN.c.source, _DIRTY.c.file_id == _KNOWN.c.file_id, _DIRTY.c.tries > ZERO
        ),
    )
    .order_by(_KNOWN.c.checked, _KNOWN.c.file_id)
    .limit(bindparam("limit"))
    .offset(ZERO)
)
_SAME_METADATA = sql(
    select(_KNOWN.c.file_id)
    .where(
        *[_KNOWN.c[name] == bindparam(name) for name in ("source", "etag", "mtime", "size", "upload_time", "digest")],
        _KNOWN.c.file_id != bindparam("file_id"),
    )
    .limit(bindparam("limit"))
    .offset(ZERO)
)
_COUNT_KNOWN = sql(
    select(func.count()).select_from(_KNOWN).where(_KNOWN.c.source == bindparam("source"), _KNOWN.c.in_trash == ZERO)
)
_below = (_KNOWN.c.folder == bindparam("folder")) | (
    (_KNOWN.c.folder >= bindparam("first")) & (_KNOWN.c.folder < bindparam("end"))
)
_BELOW = sql(
    select(_KNOWN.c.file_id, _KNOWN.c.viewer, _KNOWN.c.path).where(
        _KNOWN.c.source == bindparam("source"),
        _KNOWN.c.viewer == bindparam("viewer"),
        _KNOWN.c.in_trash == ZERO,
        _below,
    )
)
_DROP_BELOW = sql(
    delete(_FOLDERS).where(
        _FOLDERS.c.source == bindparam("source_"),
        _FOLDERS.c.viewer == bindparam("viewer_"),
        (_FOLDERS.c.path == bindparam("folder_"))
        | ((_FOLDERS.c.path >= bindparam("first_")) & (_FOLDERS.c.path < bindparam("end_"))),
    )
)
_READS = table(NextcloudReads)
_GET_READS = sql(
    select(_READS.c.files, _READS.c.bytes, _READS.c.milliseconds).where(
        _READS.c.source == bindparam("source"), _READS.c.day == bindparam("day")
    )
)
_PUT_READS = sql(insert(_READS).prefix_with("OR REPLACE"))
_PUT_KNOWN = sql(insert(_KNOWN).prefix_with("OR REPLACE"))
_DROP_KNOWN = sql(
    delete(_KNOWN).where(_KNOWN.c.source == bindparam("source_"), _KNOWN.c.file_id == bindparam("file_id_"))
)
_GET_FOLDER = sql(
    select(_FOLDERS.c.etag).where(
        _FOLDERS.c.source == bindparam("source"),
        _FOLDERS.c.viewer == bindparam("viewer"),
        _FOLDERS.c.path == bindparam("path"),
    )
)
_ANY_FOLDER = sql(
    select(_FOLDERS.c.path)
    .where(_FOLDERS.c.source == bindparam("source"), _FOLDERS.c.viewer == bindparam("viewer"))
    .limit(ONE)
    .offset(ZERO)
)
_SUBFOLDERS = sql(
    select(_FOLDERS.c.path, _FOLDERS.c.etag).where(
        _FOLDERS.c.source == bindparam("source"),
        _FOLDERS.c.viewer == bindparam("viewer"),
        _FOLDERS.c.parent == bindparam("parent"),
        _FOLDERS.c.path != EMPTY,
    )
)
_PUT_FOLDER = sql(insert(_FOLDERS).prefix_with("OR REPLACE"))


# -- the queue ----------------------------------------------------------------------------------------------------


def add(conn: sqlite3.Connection, source: int, hints: Iterable[Hint], now: int, is_urgent: bool = False) -> None:
    """Queues them, in the caller's transaction; one that is queued already counts as hinted once more.

    What is urgent comes before everything else, however much a walk has queued.
    """
    rows, due = [], URGENT if is_urgent else now
    for hint in hints:
        place = "" if hint.file_id else f"{hint.user}/{hint.path}"
        rows.append((source, hint.file_id, place, hint.user, hint.path, int(hint.predates), now, now, due))
    conn.executemany(_ADD, rows)


def take(conn: sqlite3.Connection, source: int, limit: int, now: int) -> list[Dirty]:
    """The oldest that are due; up to URGENT, what events told of. Nothing is marked: `Looker` knows what is in hand."""
    return list(map(Dirty._make, conn.execute(_TAKE, (source, now, limit))))


def finish(conn: sqlite3.Connection, dirty: Dirty) -> None:
    """Takes it from the queue, unless a hint came since it was taken."""
    conn.execute(_FINISH, (*dirty[:3], dirty.hits))


def retry(conn: sqlite3.Connection, dirty: Dirty, now: int, why: str) -> None:
    """Puts it off: twice as long with each try, up to some hours. A hint that came meanwhile is not put off with it."""
    pause = min(RETRY_MOST_S, RETRY_FIRST_S << min(dirty.tries, 16))
    conn.execute(_RETRY, (dirty.hits, now + pause, why[:MAX_WHY], *dirty[:3]))


def count_hits(conn: sqlite3.Connection, dirty: Dirty) -> int | None:
    """How many hints there are for it by now; None where it is not queued."""
    row = conn.execute(_HITS, dirty[:3]).fetchone()
    return None if row is None else int(row[0])


def next_due(conn: sqlite3.Connection, source: int) -> int | None:
    """When the first of the queue is due; None where it is empty."""
    due: int | None = conn.execute(_NEXT_DUE, (source,)).fetchone()[0]
    return due


def count_dirty(conn: sqlite3.Connection, source: int) -> int:
    return int(conn.execute(_COUNT, (source,)).fetchone()[0])


# -- files and folders --------------------------------------------------------------------------------------------


def get_known(conn: sqlite3.Connection, source: int, file_id: int) -> Known | None:
    row = conn.execute(_GET_KNOWN, (source, file_id)).fetchone()
    return None if row is None else Known._make(row)


def list_known(conn: sqlite3.Connection, source: int, viewer: str, folder: str) -> dict[int, Known]:
    """What a folder held when it was looked at last, by file id."""
    rows = map(Known._make, conn.execute(_IN_FOLDER, (source, viewer, folder)))
    return {known.file_id: known for known in rows}


def list_in_trash(conn: sqlite3.Connection, source: int, viewer: str, after: int, limit: int) -> list[Known]:
    """Deleted files that could be restored when they were looked at last; a page of them, by rising file id."""
    return list(map(Known._make, conn.execute(_IN_TRASH, (source, viewer, after, limit))))


def put_known(conn: sqlite3.Connection, source: int, found: Iterable[Known]) -> None:
    rows = [(source, *known[:3], known.path.rpartition("/")[0], *known[3:]) for known in found]
    conn.executemany(_PUT_KNOWN, rows)


def list_ids(conn: sqlite3.Connection, source: int, first: int, last: int) -> set[int]:
    """Which files of a range are known."""
    return {file_id for (file_id,) in conn.execute(_IDS, (source, first, last))}


def drop_known(conn: sqlite3.Connection, source: int, file_id: int) -> None:
    conn.execute(_DROP_KNOWN, (source, file_id))


def get_folder(conn: sqlite3.Connection, source: int, viewer: str, path: str) -> str | None:
    """The etag with which everything below a folder was seen; None where that is not so."""
    row = conn.execute(_GET_FOLDER, (source, viewer, path)).fetchone()
    return str(row[0]) if row is not None and row[0] else None


def has_folder(conn: sqlite3.Connection, source: int, viewer: str, path: str) -> bool:
    """Whether a folder was ever entered; of a root, whether it was once seen whole."""
    return conn.execute(_GET_FOLDER, (source, viewer, path)).fetchone() is not None


def is_begun(conn: sqlite3.Connection, source: int, viewer: str) -> bool:
    """Whether a walk has come past a user's root, or ended there."""
    return conn.execute(_ANY_FOLDER, (source, viewer)).fetchone() is not None


def list_subfolders(conn: sqlite3.Connection, source: int, viewer: str, path: str) -> dict[str, str]:
    return dict(conn.execute(_SUBFOLDERS, (source, viewer, path)).fetchall())


def put_folder(conn: sqlite3.Connection, source: int, viewer: str, path: str, etag: str) -> None:
    conn.execute(_PUT_FOLDER, (source, viewer, path, path.rpartition("/")[0], etag))


def list_below(conn: sqlite3.Connection, source: int, viewer: str, path: str) -> Iterator[Hint]:
    """Every file that was in a folder or below it."""
    for file_id, user, place in conn.execute(_BELOW, (source, viewer, path, path + "/", path + "0")):  # "0" follows "/"
        yield Hint(file_id, user, place)


def drop_below(conn: sqlite3.Connection, source: int, viewer: str, path: str) -> None:
    """Forgets that a folder and those below it have been seen."""
    conn.execute(_DROP_BELOW, (source, viewer, path, path + "/", path + "0"))


# -- reading again ------------------------------------------------------------------------------------------------


class Reads(NamedTuple):
    """What re-reading has used of its budget on a day."""

    files: int
    bytes: int
    milliseconds: int


def list_oldest(conn: sqlite3.Connection, source: int, after: tuple[int, int], before: int, limit: int) -> list[Known]:
    """Files whose bytes were read last before a time, the longest ago first; a page after (checked, file id).

    What could not be read is tried again by the queue. Here it would be the oldest for ever, and come before all else.
    """
    return list(map(Known._make, conn.execute(_OLDEST_CHECKED, (source, *after, before, limit))))


def find_twin(conn: sqlite3.Connection, source: int, known: Known) -> int | None:
    """The one other file that has the very metadata and bytes of this one: Nextcloud gives them to a copy alone."""
    values = source, known.etag, known.mtime, known.size, known.upload_time, known.digest, known.file_id, 2
    found = conn.execute(_SAME_METADATA, values).fetchall() if known.etag and known.upload_time else []
    return int(found[0][0]) if len(found) == 1 else None


def count_known(conn: sqlite3.Connection, source: int) -> int:
    return int(conn.execute(_COUNT_KNOWN, (source,)).fetchone()[0])


def get_reads(conn: sqlite3.Connection, source: int, day: int) -> Reads:
    row = conn.execute(_GET_READS, (source, day)).fetchone()
    return Reads(0, 0, 0) if row is None else Reads._make(row)


def put_reads(conn: sqlite3.Connection, source: int, day: int, reads: Reads) -> None:
    conn.execute(_PUT_READS, (source, day, *reads))
