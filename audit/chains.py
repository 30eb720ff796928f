"""Rows of chains and owners, and chains replayed from what is stored.

    current = find_current(conn, source, file_id)        the row: where the file's newest chain stands
    chain = load_chain(conn, store, current)             the whole chain, replayed by the verifier's own rules

A row repeats what its entries say, so that the common operations need no replay. `fsck` compares both.

Roots: a folder belongs to its one enrolled owner, and in a Nextcloud each user's files to the root which that user
enrolled; else to the instance root; else, while nobody has enrolled anything, to a custodial root, which the server
makes when the first entry is recorded.

    Roots().of(conn, source, "alice")        alice's root in this Nextcloud, else the instance's, else a custodial one
    Roots().of(conn, source, "")             of a folder
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, case, func, insert, literal_column, select

from audit.errors import Fatal
from audit.schema import ONE, ZERO, ChainRow, EntryRow, LostLeaf, Owner, Pending, Source, sql, table
from audit.store import Store
from verifier.chain import Binding, Chain, Ending, closing_taints, link, open_step
from verifier.ed25519 import load_private_key
from verifier.entry import Closed, Content
from verifier.errors import Malformed
from verifier.keys import KEY_SIZE, owner_root
from verifier.leaf import EnrolmentLeaf, encode_leaf
from verifier.proof import Line

OWNER, INSTANCE, CUSTODIAL = "owner", "instance", "custodial"
FOLDER_SPEC = "folder:"  # all that is in such a source has one owner
IS_FOLDER: Any = literal_column(f"'{FOLDER_SPEC}%'")  # what such a spec is like, in a statement
LIVE, DELETED, CLOSED = "live", "deleted", "closed"


class OwnerRow(NamedTuple):
    """What the recorder needs of an owner."""

    id: int
    kind: str
    user: str
    owner_key: bytes
    blinding_key: bytes
    root: bytes


class Current(NamedTuple):
    """A row of `chains`, in the order of its columns."""

    id: int
    source: int
    file_id: int
    generation: int
    owner: int
    chain_id: bytes
    last_seq: int
    head: bytes
    status: str
    version: int
    size: int | None
    digest: bytes | None
    path: str | None
    predecessor: int | None
    user: str

    @property
    def content(self) -> Content | None:
        return None if self.size is None or self.digest is None else Content(self.size, self.digest)


_CHAINS, _ENTRIES, _OWNERS, _PENDING = table(ChainRow), table(EntryRow), table(Owner), table(Pending)
_SOURCES = table(Source)
_FIND_CURRENT = sql(
    select(_CHAINS)
    .where(_CHAINS.c.source == bindparam("source"), _CHAINS.c.file_id == bindparam("file_id"))
    .order_by(_CHAINS.c.id.desc())
    .limit(ONE)
    .offset(ZERO)
)
_files = func.json_each(bindparam("files")).table_valued("value")
_FIND_ALL_CURRENT = sql(
    select(_CHAINS)
    .where(_CHAINS.c.source == bindparam("source"), _CHAINS.c.file_id.in_(select(_files.c.value)))
    .order_by(_CHAINS.c.id)
)
_at_path = (
    select(_CHAINS)
    .where(_CHAINS.c.source == bindparam("source"), _CHAINS.c.path == bindparam("path"))
    .order_by(case((_CHAINS.c.status == bindparam("live"), ZERO), else_=ONE), _CHAINS.c.id.desc())
    .limit(bindparam("limit"))
    .offset(ZERO)
)
_FIND_AT_PATH = sql(_at_path)
_FIND_OWN_AT_PATH = sql(_at_path.where(_CHAINS.c.owner == bindparam("owner")))
_GET_CHAIN = sql(select(_CHAINS).where(_CHAINS.c.id == bindparam("chain")))
_READ_STEPS = sql(
    select(_ENTRIES.c.entry, _ENTRIES.c.content, _ENTRIES.c.path, _ENTRIES.c.context)
    .where(_ENTRIES.c.chain == bindparam("chain"), _ENTRIES.c.seq >= bindparam("first"))
    .order_by(_ENTRIES.c.seq)
)
_OWNER_COLUMNS = [_OWNERS.c[name] for name in OwnerRow._fields]
_GET_OWNER = sql(select(*_OWNER_COLUMNS).where(_OWNERS.c.id == bindparam("owner")))
_FIND_OWNER = sql(
    select(*_OWNER_COLUMNS).where(
        _OWNERS.c.active == ONE,
        _OWNERS.c.kind == bindparam("kind"),
        _OWNERS.c.source.is_not_distinct_from(bindparam("source")),
        _OWNERS.c.chains_of == bindparam("chains_of"),
    )
)
_GET_SPEC = sql(select(_SOURCES.c.spec).where(_SOURCES.c.id == bindparam("source")))
_INSERT_OWNER = sql(insert(_OWNERS))
_INSERT_PENDING = sql(insert(_PENDING))


_LOST = table(LostLeaf)
HAS_LOST = sql(select(_LOST.c.leaf_index).limit(ONE).offset(ZERO))
_LOST_STEPS = sql(select(_LOST.c.seq, _LOST.c.x).where(_LOST.c.name == bindparam("name")).order_by(_LOST.c.seq))


def follow_lost(conn: sqlite3.Connection, name: bytes, head: bytes) -> tuple[int, bytes]:
    """The last seq and head of a chain's lost steps, from the head before them; -1 and that head where none is lost."""
    seq = -1
    for seq, x in conn.execute(_LOST_STEPS, (name,)):
        head = x if seq == 0 else link(head, name, seq, x)
    return seq, head


def find_current(conn: sqlite3.Connection, source: int, file_id: int) -> Current | None:
    """The chain that a file has now, closed or not."""
    row = conn.execute(_FIND_CURRENT, (source, file_id)).fetchone()
    return None if row is None else Current._make(row)


def find_all_current(conn: sqlite3.Connection, source: int, files: Sequence[int]) -> dict[int, Current]:
    """The chains that these files have now; a file without any is not in it."""
    rows = map(Current._make, conn.execute(_FIND_ALL_CURRENT, (source, json.dumps(files))))
    return {current.file_id: current for current in rows}  # by rising id: the newest stays


def find_at_path(
    conn: sqlite3.Connection, source: int, path: str, owners: Collection[int] | None = None
) -> Current | None:
    """The chain that the live file at a path has, else the one that the file has now which was there last.

    Paths are those of a user; where several users' files are under these owners, a path may mean several of them.
    """
    found: list[Current] = []
    if owners is None:
        found += map(Current._make, conn.execute(_FIND_AT_PATH, (source, path, LIVE, 1)))
    for owner in owners or ():
        found += map(Current._make, conn.execute(_FIND_OWN_AT_PATH, (source, path, owner, LIVE, 2)))
    live = [current for current in found if current.status == LIVE]
    if len(live) > 1:
        raise Malformed("files of several users have it: ask by file id", "path")
    return find_current(conn, source, (live or found)[0].file_id) if found else None


def get_chain(conn: sqlite3.Connection, chain: int) -> Current:
    """The row of a chain that is known to exist."""
    row = conn.execute(_GET_CHAIN, (chain,)).fetchone()
    if row is None:
        raise Fatal(f"chain {chain}: missing")
    return Current._make(row)


def get_owner(conn: sqlite3.Connection, owner: int) -> OwnerRow:
    """The row of an owner that is known to exist."""
    row = conn.execute(_GET_OWNER, (owner,)).fetchone()
    if row is None:
        raise Fatal(f"owner {owner}: missing")
    return OwnerRow._make(row)


def make_binding(conn: sqlite3.Connection, store: Store, current: Current) -> Binding:
    """What the chain belongs to, with the owner's public key, as the owner's verifier knows it."""
    owner = get_owner(conn, current.owner)
    source_id = store.source_id(conn, current.source)
    return Binding(store.log_name, source_id, owner.root, current.file_id, current.chain_id, owner.owner_key)


def read_ending(conn: sqlite3.Connection, current: Current) -> Ending:
    """The end of a closed chain, from its last entry alone: what its successor has to name and keep."""
    data, *openings = conn.execute(_READ_STEPS, (current.id, current.last_seq)).fetchone()
    step = open_step(data, tuple(openings))
    closed = step.entry.argument
    if not isinstance(closed, Closed):
        raise Fatal(f"chain {current.chain_id.hex()}: status closed, and its last entry is not")
    taints = closing_taints(closed, current.chain_id, current.last_seq)
    return Ending(current.chain_id, current.last_seq, current.head, step.content, step.path, taints)


def load_chain(conn: sqlite3.Connection, store: Store, current: Current) -> Chain:
    """The chain, replayed from its entries by the verifier's own rules; any damage raises one of its errors."""
    before = None if current.predecessor is None else read_ending(conn, get_chain(conn, current.predecessor))
    chain = Chain(make_binding(conn, store, current), before)
    for data, *openings in conn.execute(_READ_STEPS, (current.id, 0)):
        chain.append(open_step(data, tuple(openings)))
    if chain.head != current.head:
        raise Fatal(f"chain {current.chain_id.hex()}: entries lead to another head than the stored one")
    return chain


def read_lines(conn: sqlite3.Connection, chain: int) -> list[Line]:
    """All steps of a chain as they are stored."""
    return [Line(*row) for row in conn.execute(_READ_STEPS, (chain, 0))]


class Roots:
    """Which root new chains get; remembered until `clear`. Used by the writer alone."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, str], OwnerRow] = {}

    def of(self, conn: sqlite3.Connection, source: int, user: str) -> OwnerRow:
        """The owner of a user's files in a source; makes the custodial one where there is none at all."""
        owner = self._owners.get((source, user))
        if owner is None:
            owner = find_enrolled(conn, source, user) or find_owner(conn, CUSTODIAL, None) or _add_custodial(conn)
            self._owners[source, user] = owner
        return owner

    def clear(self) -> None:
        """Forgets everything: after an enrolment, and after a rollback, which may have taken an owner with it."""
        self._owners.clear()


def find_enrolled(conn: sqlite3.Connection, source: int, user: str = "") -> OwnerRow | None:
    """The enrolled owner of a user's files, or of a folder: their own, else the instance root."""
    return find_owner(conn, OWNER, source, user) or find_owner(conn, INSTANCE, None)


def find_owner(conn: sqlite3.Connection, kind: str, source: int | None, chains_of: str = "") -> OwnerRow | None:
    row = conn.execute(_FIND_OWNER, (kind, source, chains_of)).fetchone()
    return None if row is None else OwnerRow._make(row)


def chains_of(conn: sqlite3.Connection, source: int | None, user: str) -> str:
    """Whose files in a source become this user's by enrolment: their own; in a folder all, whoever they are there."""
    row = None if source is None else conn.execute(_GET_SPEC, (source,)).fetchone()
    return "" if row is None or row[0].startswith(FOLDER_SPEC) else user


def add_owner(
    conn: sqlite3.Connection, owner: OwnerRow, source: int | None, private_key: bytes | None, chains_of: str = ""
) -> OwnerRow:
    """Inserts the row and its enrolment leaf, which is pending."""
    keys = owner.owner_key, owner.blinding_key, owner.root
    row = None, source, owner.user, owner.kind, *keys, private_key, None, 1, chains_of
    added = conn.execute(_INSERT_OWNER, row).lastrowid
    conn.execute(_INSERT_PENDING, (None, encode_leaf(EnrolmentLeaf(owner.root)), None, None, added))
    return owner._replace(id=added or 0)


def _add_custodial(conn: sqlite3.Connection) -> OwnerRow:
    """A root whose keys the server makes and holds: there is a chain, and it proves nothing against the server."""
    private_key, blinding_key = os.urandom(KEY_SIZE), os.urandom(KEY_SIZE)
    owner_key = load_private_key(private_key).public_key().public_bytes_raw()
    owner = OwnerRow(0, CUSTODIAL, "", owner_key, blinding_key, owner_root(owner_key, blinding_key))
    return add_owner(conn, owner, None, private_key)
