"""The tables of DIR/log.db, once, as SQLModel classes.

    sources ─┬─ chains ── entries          what was recorded, with the openings of every part
             └─ owners                     whose root a chain belongs to
    pending                               leaves that are recorded and not yet in the tree, in order
    tiles, bundles, map_pages, trees      the log as it was signed: hashes, leaves, map, checkpoints
    lost_leaves                           leaves whose entries or owners a restored store no longer has
    folder_known, nextcloud_*             what scanning remembers, and what has to be looked at
    tokens, meta                          enrolment; version and names

An entry is *pending* while its leaf stands in `pending`, *integrated* once `entries.leaf_index` is set, and *published*
once a row of `trees` with `first_note` covers that index. Hot statements are SQLAlchemy core over these tables,
compiled to text once (`sql`) and run on the raw connection: a core call costs more than the statement itself.

The schema version stands in `meta` from the first commit on. A table that changes makes it one higher, and
`audit.upgrade` has the way there from the version before.
"""

from __future__ import annotations

from collections.abc import Collection
from sqlite3 import Connection
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, MetaData, Table, UniqueConstraint, literal_column
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import registry
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.expression import ClauseElement
from sqlmodel import Field, SQLModel

SCHEMA_VERSION = 3

_INTEGER = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER names SQLite's own row id
_WITHOUT_ROWID = {"sqlite_with_rowid": False}


def _int(**options: Any) -> Any:
    return Field(sa_type=_INTEGER, **options)


class LogTable(SQLModel, registry=registry()):
    """Base of the tables in log.db; other files of a node have a registry of their own."""


class Meta(LogTable, table=True):
    """schema_version, origin, log_name, created: each as UTF-8; log_keys once there are two, oldest first; loss.

    Also two rows for each cosigner, see `audit.health` and `audit.publisher`.
    """

    __tablename__ = "meta"
    key: str = Field(primary_key=True)
    value: bytes


class Source(LogTable, table=True):
    """A Nextcloud or a folder. `next_file_id` counts up and never goes back: a file id is never used twice."""

    __tablename__ = "sources"
    id: int | None = _int(default=None, primary_key=True)
    source_id: str = Field(unique=True)
    spec: str = Field(unique=True)
    next_file_id: int = _int(default=1)
    scanned: int | None = _int(default=None)


class Owner(LogTable, table=True):
    """An enrolled root. The private key is there for custodial roots alone, whose owner is the server itself.

    `chains_of`: whose files in the source are this owner's: a user of a Nextcloud; empty for all that a folder holds.
    """

    __tablename__ = "owners"
    __table_args__ = (
        CheckConstraint("kind IN ('owner', 'instance', 'custodial')"),
        CheckConstraint("(kind = 'custodial') = (private_key IS NOT NULL)"),
        CheckConstraint("(kind = 'owner') = (source IS NOT NULL)"),
        Index("owners_by_place", "source", "chains_of"),
        Index("owners_by_key", "owner_key"),
    )
    id: int | None = _int(default=None, primary_key=True)
    source: int | None = _int(default=None, foreign_key="sources.id")
    user: str
    kind: str
    owner_key: bytes
    blinding_key: bytes
    root: bytes = Field(unique=True)
    private_key: bytes | None = None
    enrolled_index: int | None = _int(default=None)
    active: int = _int(default=1)
    chains_of: str = ""


class ChainRow(LogTable, table=True):
    """Where a chain stands. The file's current chain is the one with the highest id.

    The chain id is a function of the columns that are unique together; an index over it would be written at a random
    place for every new file. `user`: in whose storage of a Nextcloud the file is; empty in a folder.
    """

    __tablename__ = "chains"
    __table_args__ = (
        UniqueConstraint("source", "file_id", "owner", "generation"),
        Index("chains_by_path", "source", "path", "owner"),
        Index("chains_by_owner", "source", "status", "user", "owner"),
        CheckConstraint("status IN ('live', 'deleted', 'closed')"),
    )
    id: int | None = _int(default=None, primary_key=True)
    source: int = _int(foreign_key="sources.id")
    file_id: int = _int()
    generation: int = _int()
    owner: int = _int(foreign_key="owners.id")
    chain_id: bytes
    last_seq: int = _int()
    head: bytes
    status: str
    version: int = _int()
    size: int | None = _int(default=None)
    digest: bytes | None = None
    path: str | None = None
    predecessor: int | None = _int(default=None, foreign_key="chains.id")
    user: str = ""


class EntryRow(LogTable, table=True):
    """An entry, the chain head after it, and what opens its parts (salt || data); an erased opening is NULL."""

    __tablename__ = "entries"
    __table_args__ = _WITHOUT_ROWID
    chain: int = _int(primary_key=True, foreign_key="chains.id")
    seq: int = _int(primary_key=True)
    entry: bytes
    content: bytes | None = None
    path: bytes | None = None
    context: bytes | None = None
    head: bytes
    leaf_index: int | None = _int(default=None)


class Pending(LogTable, table=True):
    """A leaf that waits for the next tree. It names the entry or the owner that gets its index."""

    __tablename__ = "pending"
    n: int | None = _int(default=None, primary_key=True)
    leaf: bytes
    chain: int | None = _int(default=None)
    seq: int | None = _int(default=None)
    owner: int | None = _int(default=None)


class LostLeaf(LogTable, table=True):
    """A leaf of the tree that came back from a mirror (`audit.recovery`); what it committed to is gone.

    `name` is the chain id, with seq and x as in the leaf; or the root of an owner, without.
    """

    __tablename__ = "lost_leaves"
    leaf_index: int = _int(primary_key=True)
    name: bytes = Field(index=True)
    seq: int | None = _int(default=None)
    x: bytes | None = None


class FolderKnown(LogTable, table=True):
    """What a scan of a folder found last, so that the next one reads only what changed."""

    __tablename__ = "folder_known"
    __table_args__ = (Index("folder_known_by_path", "source", "path"), _WITHOUT_ROWID)
    source: int = _int(primary_key=True, foreign_key="sources.id")
    file_id: int = _int(primary_key=True)
    path: str
    device: int = _int()
    inode: int = _int()
    size: int = _int()
    mtime_ns: int = _int()
    ctime_ns: int = _int()
    digest: bytes
    checked: int = _int()


class NextcloudKnown(LogTable, table=True):
    """What was recorded last about a file of a Nextcloud, and the metadata that it had then.

    `viewer`: by whose account it was seen; `folder`: where it is, so that a walk finds what a folder held; `in_trash`:
    it is deleted, and can be restored; `checked`: when its bytes were read last.
    """

    __tablename__ = "nextcloud_known"
    __table_args__ = (
        Index("nextcloud_known_by_folder", "source", "viewer", "folder"),
        Index("nextcloud_known_by_checked", "source", "in_trash", "checked", "file_id"),
        Index("nextcloud_known_by_etag", "source", "etag"),
        _WITHOUT_ROWID,
    )
    source: int = _int(primary_key=True, foreign_key="sources.id")
    file_id: int = _int(primary_key=True)
    user: str
    viewer: str
    folder: str
    path: str
    etag: str
    mtime: int = _int()
    size: int = _int()
    upload_time: int = _int()
    digest: bytes
    checked: int = _int()
    in_trash: int = _int(default=0)


class NextcloudFolder(LogTable, table=True):
    """A folder as it was when everything below it had been looked at or queued; `""` is a user's root."""

    __tablename__ = "nextcloud_folders"
    __table_args__ = (Index("nextcloud_folders_by_parent", "source", "viewer", "parent"), _WITHOUT_ROWID)
    source: int = _int(primary_key=True, foreign_key="sources.id")
    viewer: str = Field(primary_key=True)
    path: str = Field(primary_key=True)
    parent: str
    etag: str


class NextcloudDirty(LogTable, table=True):
    """A file that has to be looked at. `place` is empty where the file id is known, else "user/path".

    `hits` counts up with every hint, so that whoever has looked knows whether one came meanwhile. `predates`: it was
    there when the first walk of its user came by.
    """

    __tablename__ = "nextcloud_dirty"
    __table_args__ = (Index("nextcloud_dirty_by_due", "source", "due_at", "first_at"), _WITHOUT_ROWID)
    source: int = _int(primary_key=True, foreign_key="sources.id")
    file_id: int = _int(primary_key=True)
    place: str = Field(primary_key=True)
    user: str
    path: str
    predates: int = _int(default=0)
    first_at: int = _int()
    last_at: int = _int()
    due_at: int = _int()
    hits: int = _int(default=1)
    tries: int = _int(default=0)
    why: str = ""


class NextcloudReads(LogTable, table=True):
    """How much of its budget the re-reading of stored bytes has used on a day."""

    __tablename__ = "nextcloud_reads"
    __table_args__ = _WITHOUT_ROWID
    source: int = _int(primary_key=True, foreign_key="sources.id")
    day: int = _int(primary_key=True)
    files: int = _int(default=0)
    bytes: int = _int(default=0)
    milliseconds: int = _int(default=0)


class TileRow(LogTable, table=True):
    """Up to 256 hashes of one level and the complete nodes above them (`audit.tree`); id = level << 56 | number."""

    __tablename__ = "tiles"
    id: int | None = _int(default=None, primary_key=True)
    width: int = _int()
    data: bytes


class BundleRow(LogTable, table=True):
    """Up to 256 leaves, as the entry bundle of tlog-tiles."""

    __tablename__ = "bundles"
    n: int | None = _int(default=None, primary_key=True)
    data: bytes


class MapPage(LogTable, table=True):
    """A page of the map (`audit.mapstore`)."""

    __tablename__ = "map_pages"
    prefix: bytes = Field(primary_key=True)
    version: int = _int(primary_key=True)
    data: bytes


class TreeRow(LogTable, table=True):
    """A tree that was signed. `first_note`: with the witnesses' first quorum; `newest_note`: all that is known."""

    __tablename__ = "trees"
    size: int = _int(primary_key=True)
    root: bytes
    map_root: bytes
    signed_at: int = _int()
    signed: bytes
    first_note: bytes | None = None
    newest_note: bytes
    audited: int = _int(default=0)
    published_at: int | None = _int(default=None)


class Token(LogTable, table=True):
    """An enrolment token, by its hash: it works once. `kind` as that of the owner that it makes, and `/replace`."""

    __tablename__ = "tokens"
    token_hash: bytes = Field(primary_key=True)
    user: str
    source: int | None = _int(default=None, foreign_key="sources.id")
    used: int = _int(default=0)
    kind: str = "owner"


def table(model: type[SQLModel]) -> Table:
    """The core table of a model."""
    return LogTable.metadata.tables[str(model.__tablename__)]


def sql(statement: ClauseElement) -> str:
    """A core statement as SQLite text with `?` in the order of its bind parameters."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))


def create_tables(conn: Connection, metadata: MetaData, there: Collection[str] = ()) -> None:
    """The tables as SQLModel describes them, but for those that are there, and all indexes. The caller commits."""
    for made in metadata.sorted_tables:
        if made.name not in there:
            conn.execute(sql(CreateTable(made)))
        for index in sorted(made.indexes, key=lambda index: str(index.name)):
            conn.execute(sql(CreateIndex(index)))


# Numbers that belong to a statement itself, since a plain 1 would become one more `?`.
ZERO: Any = literal_column("0")
ONE: Any = literal_column("1")
EMPTY: Any = literal_column("''")
