"""A file's history as a look needs it, read back from the log itself: nothing else has to be kept in step with it.

    history = read_history(conn, find_current(conn, source, file_id))

Every generation is read, since an old version in Nextcloud's list may have been told of in an earlier one. Seqs are
given for the newest one alone: an entry may name those of its own chain only.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import bindparam, select

from audit.chains import Current, get_chain
from audit.nextcloud.look import NOTHING, History, Past
from audit.schema import EntryRow, sql, table
from verifier.entry import SALT_SIZE, SETS_CONTENT, Content, Expired, Operation, decode_content, decode_entry

_ENTRIES = table(EntryRow)
_READ = sql(
    select(_ENTRIES.c.entry, _ENTRIES.c.content).where(_ENTRIES.c.chain == bindparam("chain")).order_by(_ENTRIES.c.seq)
)
_CARRIES = {Operation.MOVED, Operation.TOUCHED}


def read_history(conn: sqlite3.Connection, current: Current | None) -> History:
    """What the chain of a file says, and those before it."""
    if current is None:
        return NOTHING
    generations = [current]
    while (before := generations[-1].predecessor) is not None:
        generations.append(get_chain(conn, before))
    told: list[Past] = []
    mtimes: frozenset[int] = frozenset()
    mtime = 0
    for chain in reversed(generations):
        own, mtimes, mtime = _read_chain(conn, chain, mtimes, mtime)
        told = [past._replace(seq=None) for past in told] + own
    return History(current.status, current.path, current.content, mtime, current.version, tuple(told))


def _read_chain(
    conn: sqlite3.Connection, chain: Current, before: frozenset[int], mtime: int
) -> tuple[list[Past], frozenset[int], int]:
    """The versions of one chain, and the mtimes of its current content; `before` are those that it starts with."""
    found: dict[int, Past] = {}
    version = -1
    for data, opening in conn.execute(_READ, (chain.id,)):
        entry = decode_entry(data)
        if entry.operation in SETS_CONTENT:
            version = entry.seq
            is_next = entry.operation is Operation.ADOPTED and entry.argument is not None
            own = frozenset((entry.mtime,)) if entry.mtime or not is_next else before
            found[version] = Past(version, _open(opening), own, True)
        elif entry.operation in _CARRIES:
            found[version] = found[version]._replace(mtimes=found[version].mtimes | {entry.mtime})
        elif isinstance(entry.argument, Expired):
            for seq in entry.argument.seqs:
                found[seq] = found[seq]._replace(has_bytes=False)
        if entry.operation in SETS_CONTENT | _CARRIES:
            mtime = entry.mtime or mtime
    return list(found.values()), found[version].mtimes, mtime


def _open(opening: bytes | None) -> Content | None:
    return None if opening is None else decode_content(opening[SALT_SIZE:])
