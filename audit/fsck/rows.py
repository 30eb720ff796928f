"""Rows against each other: SQLite's file, what sources remember of files, and what waits for the tree."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, LargeBinary, literal_column, select

from audit.chains import DELETED, IS_FOLDER, LIVE, find_current
from audit.fsck.findings import Ahead, Check, Unreadable, entry_leaf
from audit.schema import (
    ONE,
    ZERO,
    ChainRow,
    EntryRow,
    FolderKnown,
    LogTable,
    NextcloudKnown,
    Owner,
    Pending,
    Source,
    sql,
    table,
)
from verifier.leaf import LOG_KEY, EnrolmentLeaf, encode_leaf

_LOG_KEY = bytes([LOG_KEY])

_CHAINS, _ENTRIES, _KNOWN, _OWNERS = table(ChainRow), table(EntryRow), table(FolderKnown), table(Owner)
_PENDING, _SOURCES, _IN_NEXTCLOUD = table(Pending), table(Source), table(NextcloudKnown)

_ALL_KNOWN = sql(
    select(*[_KNOWN.c[name] for name in ("source", "file_id", "path", "size", "digest")], _SOURCES.c.next_file_id)
    .select_from(_KNOWN.join(_SOURCES, _SOURCES.c.id == _KNOWN.c.source))
    .order_by(_KNOWN.c.source, _KNOWN.c.file_id)
)
_ALL_IN_NEXTCLOUD = sql(
    select(*[_IN_NEXTCLOUD.c[name] for name in ("source", "file_id", "user", "path", "digest", "in_trash")]).order_by(
        _IN_NEXTCLOUD.c.source, _IN_NEXTCLOUD.c.file_id
    )
)
_UNKNOWN = sql(
    select(_CHAINS.c.id, _CHAINS.c.file_id)
    .select_from(
        _CHAINS.join(_SOURCES, _SOURCES.c.id == _CHAINS.c.source).outerjoin(
            _KNOWN, (_KNOWN.c.source == _CHAINS.c.source) & (_KNOWN.c.file_id == _CHAINS.c.file_id)
        )
    )
    .where(
        _CHAINS.c.status == literal_column("'live'"),
        _SOURCES.c.spec.like(IS_FOLDER),
        _SOURCES.c.scanned.is_not(None),
        _KNOWN.c.file_id.is_(None),
    )
)
_joined = _ENTRIES.join(_CHAINS, _CHAINS.c.id == _ENTRIES.c.chain)
_leaf = (_CHAINS.c.chain_id, _ENTRIES.c.seq, _ENTRIES.c.head, _ENTRIES.c.entry)
_WAITING = sql(
    select(_ENTRIES.c.chain, _ENTRIES.c.seq, *_leaf)
    .select_from(_joined)
    .where(_ENTRIES.c.leaf_index.is_(None))
    .order_by(_ENTRIES.c.chain, _ENTRIES.c.seq)
)
_UNENROLLED = sql(select(_OWNERS.c.id, _OWNERS.c.root).where(_OWNERS.c.enrolled_index.is_(None)).order_by(_OWNERS.c.id))
_PENDING_ENTRIES = sql(select(_PENDING).where(_PENDING.c.chain.is_not(None)).order_by(_PENDING.c.chain, _PENDING.c.seq))
_PENDING_OTHERS = sql(select(_PENDING).where(_PENDING.c.chain.is_(None)).order_by(_PENDING.c.owner))


def _wrong_types(column: Any) -> str:
    """The statement that finds what SQLite lets a column hold against its type."""
    kind: Any = literal_column(f"typeof({column.name})")
    is_number, is_blob = isinstance(column.type, BigInteger), isinstance(column.type, LargeBinary)
    wanted = ["integer" if is_number else "blob" if is_blob else "text", *(["null"] if column.nullable else [])]
    wrong = kind.not_in([literal_column(f"'{name}'") for name in wanted])
    return sql(select(kind).select_from(column.table).where(wrong).limit(ONE).offset(ZERO))


_WRONG_TYPES = [
    (f"{made.name}.{column.name}", _wrong_types(column))
    for made in LogTable.metadata.sorted_tables
    for column in made.columns
]


def check_file(check: Check) -> None:
    """Pages, types, references. What has a wrong type could not even be compared: then this is all."""
    check.progress("pages", 0, 1)
    for (what,) in check.conn.execute("PRAGMA integrity_check(100)"):
        if what != "ok":
            check.find("file", "log.db", str(what))
    for place, statement in _WRONG_TYPES:
        for (kind,) in check.conn.execute(statement):
            check.find("file", place, f"holds {kind}")
    if check.findings:
        raise Unreadable
    for child, rowid, parent, _ in check.conn.execute("PRAGMA foreign_key_check"):
        check.find("file", child, f"row {rowid} refers to what is not in {parent}")


def check_folders(check: Check) -> None:
    """What the next scan or look compares with is what the chains say, in both directions."""
    for source, file_id, *seen, next_id in check.counted("known files", _ALL_KNOWN, "folder_known"):
        place = f"source {source} file {file_id}"
        current = find_current(check.conn, source, file_id)
        if current is None or current.status != LIVE:
            check.find("folder", place, "is known from a scan, and has no live chain")
        elif [current.path, current.size, current.digest] != seen:
            check.find("folder", place, "path, size or digest of the last scan are not those of its chain")
        if file_id >= next_id:
            check.find("folder", place, f"file id was never given out, the next one is {next_id}")
    for chain, file_id in check.conn.execute(_UNKNOWN):
        check.find("folder", f"chain {chain} (file {file_id})", "is live, and no scan knows of it")
    for source, file_id, *seen, in_trash in check.counted("known in Nextcloud", _ALL_IN_NEXTCLOUD, "nextcloud_known"):
        place = f"source {source} file {file_id}"
        current = find_current(check.conn, source, file_id)
        if current is None or current.status != (DELETED if in_trash else LIVE):
            check.find("nextcloud", place, "is known from a look, and its chain says otherwise")
        elif not in_trash and [current.user, current.path, current.digest] != seen:
            check.find("nextcloud", place, "user, path or digest of the last look are not those of its chain")


def check_pending(check: Check) -> None:
    """What is not in the tree waits exactly once, in the order of its chain."""
    waiting = Ahead(check.conn.execute(_WAITING), 2, lambda row: _not_pending(check, row[:2]))
    before = (0, 0)  # chain, n
    for n, leaf, chain, seq, owner in check.counted("pending", _PENDING_ENTRIES, "pending"):
        row = waiting.take(chain, seq)
        if row is None or owner is not None:
            check.find("pending", f"pending {n}", f"step {seq} of chain {chain} does not wait for the tree")
        elif leaf != entry_leaf(*row[2:]):
            check.find("pending", f"pending {n}", f"is not the leaf of step {seq} of chain {chain}")
        if before[0] == chain and before[1] >= n:
            check.find("pending", f"pending {n}", f"step {seq} of chain {chain} is out of order")
        before = chain, n
    waiting.end()
    owners = Ahead(check.conn.execute(_UNENROLLED), 1, lambda row: _not_pending(check, ("owner", row[0])))
    for n, leaf, _, _, owner in check.conn.execute(_PENDING_OTHERS):
        if owner is None and leaf[:1] == _LOG_KEY:
            check.announce(f"pending {n}", leaf[1:])
            continue
        row = None if owner is None else owners.take(owner)
        if row is None or leaf != encode_leaf(EnrolmentLeaf(row[1])):
            check.find("pending", f"pending {n}", f"is not the enrolment of an owner who waits (got {owner})")
    owners.end()


def _not_pending(check: Check, row: tuple[Any, ...]) -> None:
    place = f"{row[0]} {row[1]}" if row[0] == "owner" else f"chain {row[0]} step {row[1]}"
    check.find("pending", place, "is neither in the tree nor pending")
