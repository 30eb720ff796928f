"""The proof of a file, from what is stored: the hot path of the service.

    prover = Prover(store, maps, tree)                       one per process, shared by its threads
    data = prover.prove(source, file_id, size=40, from_seq=3, replaces=(3,))

Proofs speak of the newest tree that auditors replayed, or, where no auditor ever did, of the newest published one. All
reads of one proof see one committed state. What a proof says is not judged here: a damaged row gives a proof that no
verifier accepts.

What stays the same for a tree, its note, its map commitment, and the consistency proofs from earlier published
trees, is kept while that tree is the newest; the rest is some ten look-ups by primary key.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from sqlalchemy import bindparam, select

from audit.chains import HAS_LOST, Current, OwnerRow, find_current, follow_lost, get_chain, get_owner
from audit.errors import Refused, TryLater
from audit.mapstore import MapStore
from audit.publisher import Signed, read_proof_tree
from audit.schema import ONE, ZERO, ChainRow, EntryRow, LostLeaf, TreeRow, sql, table
from audit.store import Store
from audit.tree import Tree
from verifier.chain import Binding, genesis
from verifier.entry import SETS_CONTENT, Operation, Seal, decode_entry
from verifier.keys import chain_id as compute_chain_id
from verifier.loss import parse_loss
from verifier.proof import (
    MAX_REPLACED,
    MAX_REPLACED_STEPS,
    Absence,
    Bracket,
    Earlier,
    Included,
    InMap,
    Line,
    Loss,
    Proof,
    Replaced,
    Since,
    format_proof,
)

MAX_BRACKETS = 4_096  # published trees whose consistency with the newest one is kept, some 3 KiB each

_SEALED = Operation.SEALED.value
_FREES = (Operation.DELETED, Operation.CLOSED, Operation.MOVED, Operation.RESTORED)

_CHAINS, _ENTRIES, _TREES = table(ChainRow), table(EntryRow), table(TreeRow)
_READ_LINES = sql(
    select(
        *(_ENTRIES.c[name] for name in ("entry", "content", "path", "context", "head", "leaf_index")),
    )
    .where(_ENTRIES.c.chain == bindparam("chain"), _ENTRIES.c.leaf_index < bindparam("size"))
    .order_by(_ENTRIES.c.seq)
)
_published = select(_TREES.c.size).where(_TREES.c.first_note.is_not(None)).limit(ONE).offset(ZERO)
_FIRST_ABOVE = sql(_published.where(_TREES.c.size > bindparam("index")).order_by(_TREES.c.size))
_FIRST_NOTE = sql(select(_TREES.c.first_note).where(_TREES.c.size == bindparam("size")))
_LAST_UP_TO = sql(_published.where(_TREES.c.size <= bindparam("index")).order_by(_TREES.c.size.desc()))

_LOST = table(LostLeaf)
_LOST_STEP = sql(
    select(_LOST.c.seq)
    .where(_LOST.c.name == bindparam("name"), _LOST.c.leaf_index < bindparam("size"))
    .limit(ONE)
    .offset(ZERO)
)

Row = tuple[bytes, bytes | None, bytes | None, bytes | None, bytes, int]  # entry, openings, head, leaf index


class Head(NamedTuple):
    """What every proof in one tree shares. `brackets`: earlier published trees by size."""

    size: int
    note: bytes
    map_root: bytes
    commitment: list[bytes]
    brackets: dict[int, Bracket]
    has_lost: bool  # whether any step was lost: only then is each chain looked at
    loss: Loss | None  # what this log has declared lost, and leaf 0


def withhold(proof: Proof) -> Proof:
    """The proof for somebody who may read the file and does not own it: contents, and no path, actor or remark.

    Where its owner keeps it, and who had it before, is not theirs to know. What their verifier then says: SPEC 11.4.
    """
    entries = [line._replace(path=None, context=None) for line in proof.entries]
    earlier = [one._replace(step=one.step._replace(path=None, context=None)) for one in proof.earlier]
    return proof._replace(entries=entries, earlier=earlier, replaced=[])


class Prover:
    """Makes proofs; keeps what belongs to the newest tree."""

    def __init__(self, store: Store, maps: MapStore, tree: Tree) -> None:
        self._store, self._maps, self._tree = store, maps, tree
        self._head: Head | None = None
        self._owners: dict[int, OwnerRow] = {}

    def prove(
        self,
        source: int,
        file_id: int,
        *,
        size: int | None = None,
        from_seq: int = 0,
        replaces: Sequence[int] = (),
    ) -> bytes:
        """The bytes of the proof. Refused: no such file. TryLater: no published tree holds it yet."""
        with self._store.snapshot() as conn:
            return format_proof(self.build(conn, source, file_id, size, from_seq, replaces))

    def build(
        self,
        conn: Connection,
        source: int,
        file_id: int,
        size: int | None = None,
        from_seq: int = 0,
        replaces: Sequence[int] = (),
    ) -> Proof:
        """The proof as a value, in the newest tree that proofs speak of."""
        return self.build_for(conn, find_current(conn, source, file_id), size, from_seq, replaces)

    def build_for(
        self,
        conn: Connection,
        current: Current | None,
        size: int | None = None,
        from_seq: int = 0,
        replaces: Sequence[int] = (),
        owners: Collection[int] | None = None,
    ) -> Proof:
        """The same for whoever has looked up the file's chain in this very state.

        `owners`: no chain under another one is shown, but for the end that the first generation has to name.
        """
        head = self._current_head(conn)
        chain, rows = self._chain_in(conn, head, current, owners)
        source, owner = chain.source, self._owner(conn, chain.owner)
        last = rows[-1][5]
        version = max(seq for seq, row in enumerate(rows) if row[0][1] in SETS_CONTENT)
        place = self._maps.prove(conn, chain.chain_id, head.size)
        if not from_seq < len(rows):
            from_seq = 0
        return Proof(
            self._store.log_name,
            self._store.source_id(conn, source),
            chain.file_id,
            chain.generation,
            owner.root,
            chain.chain_id,
            from_seq,
            [Line(*row[:4]) for row in rows[from_seq:]],
            InMap(head.map_root, len(rows) - 1, rows[-1][4], last, place.siblings),
            head.note,
            head.commitment,
            self._tree.inclusion(conn, last, head.size),
            None if version == len(rows) - 1 else self._included(conn, rows[version][5], head.size),
            self._bracket(conn, head, _FIRST_ABOVE, last),
            self._bracket(conn, head, _LAST_UP_TO, last),
            None if size is None else self._since(conn, size, head.size),
            self._sealed(conn, rows, head.size),
            self._earlier(conn, chain, head),
            [self._replaced(conn, head, source, old, owners) for old in replaces[:MAX_REPLACED]],
            head.loss,
        )

    # -- the tree -----------------------------------------------------------------------------------------------

    def _current_head(self, conn: Connection) -> Head:
        row = read_proof_tree(conn)
        if row is None:
            raise TryLater("proof: nothing is published yet")
        head = self._head
        if head is None or (head.size, head.note) != (row.size, row.newest_note):
            kept = head.brackets if head is not None and head.size == row.size else {}
            head = self._head = self.head_of(conn, row, kept)
        return head

    def head_of(self, conn: Connection, row: Signed, brackets: dict[int, Bracket]) -> Head:
        """What the proofs in this tree share."""
        commitment = self._tree.inclusion(conn, row.size - 1, row.size)
        has_lost = conn.execute(HAS_LOST).fetchone() is not None
        loss = None
        if self._store.loss is not None:
            loss = Loss(parse_loss(self._store.loss), self._tree.inclusion(conn, 0, row.size))
        return Head(row.size, row.newest_note, row.map_root, commitment, brackets, has_lost, loss)

    def _bracket(self, conn: Connection, head: Head, statement: str, index: int) -> Bracket | None:
        """The published tree next to an index, on the side that the statement looks."""
        row = conn.execute(statement, (index,)).fetchone()
        if row is None or row[0] > head.size:
            return None
        size: int = row[0]
        bracket = head.brackets.get(size)
        if bracket is None:
            note = conn.execute(_FIRST_NOTE, (size,)).fetchone()[0]
            bracket = Bracket(note, self._tree.consistency(conn, size, head.size))
            if len(head.brackets) >= MAX_BRACKETS:
                head.brackets.clear()
            head.brackets[size] = bracket
        return None if (size, bracket.checkpoint) == (head.size, head.note) else bracket

    def _included(self, conn: Connection, index: int, size: int) -> Included:
        return Included(index, self._tree.inclusion(conn, index, size))

    def _since(self, conn: Connection, old_size: int, size: int) -> Since | None:
        """None where the client has seen more than this tree: the proof cannot start from there."""
        return Since(old_size, self._tree.consistency(conn, old_size, size)) if 0 < old_size <= size else None

    def _sealed(self, conn: Connection, rows: list[Row], size: int) -> Since | None:
        newest = next((row[0] for row in reversed(rows) if row[0][1] == _SEALED), None)
        if newest is None:
            return None
        seal = decode_entry(newest).argument
        assert isinstance(seal, Seal)
        if self._store.loss is not None and seal.tree_size <= size:
            if self._tree.root(conn, seal.tree_size) != seal.tree_root:
                return None  # a tree of an origin before this one (SPEC 6.5)
        return self._since(conn, seal.tree_size, size)

    def _owner(self, conn: Connection, row: int) -> OwnerRow:
        """The owner of a chain; its keys never change."""
        owner = self._owners.get(row)
        if owner is None:
            owner = self._owners[row] = get_owner(conn, row)
        return owner

    # -- chains -------------------------------------------------------------------------------------------------

    def _has_lost(self, conn: Connection, head: Head, chain: Current) -> bool:
        return head.has_lost and conn.execute(_LOST_STEP, (chain.chain_id, head.size)).fetchone() is not None

    def _before_last(self, conn: Connection, head: Head, chain: Current, rows: list[Row]) -> bytes:
        """The head before a chain's last entry, also where the steps before it were lost."""
        before = rows[-2][4] if len(rows) > 1 else b""
        return follow_lost(conn, chain.chain_id, before)[1] if head.has_lost else before

    def _chain_in(
        self,
        conn: Connection,
        head: Head,
        current: Current | None,
        owners: Collection[int] | None,
        ended: bool = False,
    ) -> tuple[Current, list[Row]]:
        """The newest generation that the tree holds, with its rows; `ended`: of a lost one the end is enough."""
        if current is None or owners is not None and current.owner not in owners:
            raise Refused("proof: no such file")
        while True:
            rows: list[Row] = conn.execute(_READ_LINES, (current.id, head.size)).fetchall()
            if self._has_lost(conn, head, current) and not (ended and rows and rows[-1][0][1] == Operation.CLOSED):
                raise TryLater(
                    "proof: this server has lost steps of the file, and its chain ends with `closed`; the next "
                    "generation, once it is in a published tree, can be proven"
                )
            if rows:
                return current, rows
            if current.predecessor is None:
                raise TryLater("proof: recorded, and not yet in a published tree")
            current = get_chain(conn, current.predecessor)
            if owners is not None and current.owner not in owners:  # it was another one's, and stays theirs
                raise TryLater("proof: recorded, and not yet in a published tree")

    def _earlier(self, conn: Connection, chain: Current, head: Head) -> list[Earlier]:
        found: list[Earlier] = []
        while chain.predecessor is not None:
            root = chain.owner
            chain = get_chain(conn, chain.predecessor)
            rows: list[Row] = conn.execute(_READ_LINES, (chain.id, head.size)).fetchall()
            siblings = self._maps.prove(conn, chain.chain_id, head.size).siblings
            before = self._before_last(conn, head, chain, rows)
            found.append(Earlier(chain.chain_id, before, Line(*rows[-1][:4]), rows[-1][5], siblings))
            if chain.owner != root:
                break  # generations count per root; the other root's own proof tells the rest
        return found

    def _replaced(
        self, conn: Connection, head: Head, source: int, file_id: int, owners: Collection[int] | None
    ) -> Replaced:
        """The steps of another file since it gave up a path, and that no generation of it follows."""
        chain, rows = self._chain_in(conn, head, find_current(conn, source, file_id), owners, ended=True)
        owner = self._owner(conn, chain.owner)
        source_id = self._store.source_id(conn, source)
        first = max((seq for seq, row in enumerate(rows) if row[0][1] in _FREES), default=len(rows) - 1)
        first = max(first, len(rows) - MAX_REPLACED_STEPS)
        binding = Binding(self._store.log_name, source_id, owner.root, file_id, chain.chain_id, None)
        before = rows[first - 1][4] if first else genesis(binding)
        if self._has_lost(conn, head, chain):
            first, before = len(rows) - 1, self._before_last(conn, head, chain, rows)
        following = compute_chain_id(owner.blinding_key, source_id, file_id, chain.generation + 1)
        return Replaced(
            file_id,
            chain.generation,
            before,
            [Line(*row[:4]) for row in rows[first:]],
            rows[-1][5],
            self._maps.prove(conn, chain.chain_id, head.size).siblings,
            self._absence(conn, head, following) if rows[-1][0][1] == Operation.CLOSED else None,
        )

    def _absence(self, conn: Connection, head: Head, chain_id: bytes) -> Absence:
        shown = self._maps.prove(conn, chain_id, head.size)
        return Absence(None if shown.terminal is None else b"".join(shown.terminal), shown.siblings)
