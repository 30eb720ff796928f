"""One walk over all leaves, up to tiles, map and every signed tree; and the retained versions of the map on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from sqlalchemy import bindparam, func, literal_column, select

from audit.errors import Fatal
from audit.fsck.findings import Ahead, Check, entry_leaf, shown
from audit.mapstore import CREATE_MAP_PAGES, MapError, MapStore
from audit.publisher import Signed, read_proof_tree
from audit.schema import (
    ZERO,
    BundleRow,
    ChainRow,
    EntryRow,
    LostLeaf,
    MapPage,
    Owner,
    TileRow,
    TreeRow,
    sql,
    table,
)
from audit.tree import build_tile, read_tile
from verifier.chain import link
from verifier.checkpoint import open_checkpoint
from verifier.errors import Error
from verifier.leaf import EnrolmentLeaf, EntryLeaf, LogKeyLeaf, LossLeaf, MapLeaf, decode_leaf
from verifier.loss import loss_leaf, parse_loss
from verifier.map import map_value
from verifier.merkle import append_leaf, fold_right, leaf_hash
from verifier.note import verify_cosignatures
from verifier.policy import AUDITOR_SUFFIX
from verifier.tile import TILE_WIDTH, decode_entry_bundle

_CHAINS, _ENTRIES, _OWNERS, _LOST = table(ChainRow), table(EntryRow), table(Owner), table(LostLeaf)
_PAGES, _TREES, _TILES, _BUNDLES = table(MapPage), table(TreeRow), table(TileRow), table(BundleRow)

_LOST_RANGE = sql(select(func.min(_LOST.c.leaf_index), func.max(_LOST.c.leaf_index)))
_LOST_LEAVES = sql(select(_LOST).order_by(_LOST.c.leaf_index))
_joined = _ENTRIES.join(_CHAINS, _CHAINS.c.id == _ENTRIES.c.chain)
_leaf = (_CHAINS.c.chain_id, _ENTRIES.c.seq, _ENTRIES.c.head, _ENTRIES.c.entry)
_LOGGED = sql(
    select(_ENTRIES.c.leaf_index, *_leaf)
    .select_from(_joined)
    .where(_ENTRIES.c.leaf_index.is_not(None))
    .order_by(_ENTRIES.c.leaf_index)
)
_ENROLLED = sql(
    select(_OWNERS.c.enrolled_index, _OWNERS.c.root)
    .where(_OWNERS.c.enrolled_index.is_not(None))
    .order_by(_OWNERS.c.enrolled_index)
)
_ALL_TREES = sql(select(_TREES).order_by(_TREES.c.size))
_ALL_BUNDLES = sql(select(_BUNDLES).order_by(_BUNDLES.c.n))
_NEWEST_SIZE = sql(select(func.coalesce(func.max(_TREES.c.size), ZERO)))
_FIRST_SIZE = sql(select(func.min(_TREES.c.size)))
_TREE_AT = sql(select(_TREES.c.map_root).where(_TREES.c.size == bindparam("size")))
_roots = select(_PAGES.c.version).where(_PAGES.c.prefix == literal_column("x''"))
_NOT_RETAINED = sql(select(_TREES.c.size).where(_TREES.c.size >= bindparam("size"), _TREES.c.size.not_in(_roots)))


def check_leaves(check: Check) -> None:
    """Leaves against entries and owners, tiles, roots and commitments of all signed trees, signatures in all notes."""
    with closing(sqlite3.connect("", isolation_level=None)) as replay:  # a file of SQLite's own, gone afterwards
        replay.execute(CREATE_MAP_PAGES)
        _Leaves(check, replay).run()
    for key in check.log_keys[1:]:
        if key.public_key not in check.announced:
            check.find("leaf", f"log key {key.key_id.hex()}", "no leaf says that this log has got it")


def check_maps(check: Check) -> None:
    """Every retained version is whole on disk and has the root that was signed; those that proofs need are there."""
    maps, checked = MapStore(), None
    versions = maps.versions(check.conn)
    for done, version in enumerate(versions, 1):
        place = f"map {version}"
        try:
            root = maps.check(check.conn, version, checked)
            checked = version
            if check.conn.execute(_TREE_AT, (version,)).fetchone() != (root,):
                check.find("map", place, "root is not that of a signed tree of this size")
        except MapError as error:
            check.find("map", place, str(error))
            checked = None
        check.progress("map versions", done, len(versions))
    check.counts["map versions"] = len(versions)
    tree = read_proof_tree(check.conn)
    for (size,) in check.conn.execute(_NOT_RETAINED, (tree.size if tree else 0,)):
        check.find("map", f"map {size}", "is not there, and proofs need it")


class _Leaves:
    """One walk over all leaves: against entries and owners, and up to tiles, map and every signed tree."""

    def __init__(self, check: Check, replay: sqlite3.Connection) -> None:
        conn, find = check.conn, check.find
        self._check, self._conn, self._replay, self._find = check, conn, replay, find
        self._maps = MapStore()
        self._entries = Ahead(conn.execute(_LOGGED), 1, lambda row: self._not_there("step", *row[:3:2]))
        self._lost = Ahead(conn.execute(_LOST_LEAVES), 1, lambda row: self._not_there("lost leaf", *row[:2]))
        first, last = conn.execute(_LOST_RANGE).fetchone()
        self._came_back = range(first or 0, last or 0)  # trees that were signed in between left their commitment alone
        # the head of every chain, where steps were lost
        self._heads: dict[bytes, bytes] = _Forgetful() if last is None else {}
        self._owners = Ahead(conn.execute(_ENROLLED), 1, lambda row: self._not_there("owner", *row))
        self._trees = Ahead(conn.execute(_ALL_TREES), 1, lambda row: self._no_leaves(row[0]))
        self._levels: list[list[bytes]] = []  # of each level the hashes of the tile that is being filled
        self._numbers: list[int] = []  # and its number
        self._peaks: list[bytes] = []
        self._changed: dict[bytes, bytes] = {}  # of the map since the last tree
        self._again = range(0)  # leaves of the origin before: their trees and keys are not ours

    def run(self) -> None:
        (size,) = self._conn.execute(_NEWEST_SIZE).fetchone()
        index, tiles = 0, 0
        for number, data in self._check.counted("bundles", _ALL_BUNDLES, "bundles"):
            place = f"bundle {number}"
            try:
                if number * TILE_WIDTH != index:
                    raise Fatal(f"want bundle {index // TILE_WIDTH} here")
                leaves = decode_entry_bundle(data, min(TILE_WIDTH, size - index))
            except (Error, Fatal) as error:
                self._find("leaf", place, f"{error}; nothing behind it can be checked")
                return
            for leaf in leaves:
                self._leaf(index, leaf)
                index += 1
        for level, hashes in enumerate(self._levels):
            tiles += self._numbers[level] + bool(hashes)
            if hashes:
                self._tile(level, hashes)
        (rows,) = self._conn.execute(sql(select(func.count()).select_from(_TILES))).fetchone()
        if rows != tiles:
            self._find("tile", "tiles", f"got {rows} rows, want {tiles}")
        for ahead in (self._entries, self._owners, self._trees, self._lost):
            ahead.end()
        self._check.counts["leaves"] = index

    def _leaf(self, index: int, data: bytes) -> None:
        place = f"leaf {index}"
        hashed = leaf_hash(data)
        self._peaks = append_leaf(self._peaks, index, hashed)
        self._grow(0, hashed)
        try:
            leaf = decode_leaf(data)
        except Error as error:
            self._find("leaf", place, str(error))
            return
        lost = self._lost.take(index)
        if lost is not None:
            self._check_lost(index, leaf, lost)
        elif isinstance(leaf, EntryLeaf):
            row = self._entries.take(index)
            if row is None or data != entry_leaf(*row[1:]):
                self._find("leaf", place, "is not the leaf of the entry that belongs there")
            if row is not None:
                self._changed[row[1]] = map_value(row[2], row[3], index)
                self._heads[row[1]] = row[3]
        elif isinstance(leaf, EnrolmentLeaf) and self._owners.take(index) != (index, leaf.root):
            self._find("leaf", place, "enrols a root that no owner has")
        elif isinstance(leaf, LogKeyLeaf) and index not in self._again:
            self._check.announce(place, leaf.public_key)
        elif isinstance(leaf, LossLeaf):
            self._check_loss(index, data)
        tree = self._trees.take(index + 1)
        if tree is not None and isinstance(leaf, MapLeaf):
            self._tree(Signed._make(tree), leaf.root)
        elif isinstance(leaf, MapLeaf) and (index in self._came_back or index in self._again):
            self._replay_map(index + 1, {"committed": leaf.root})
        elif tree is not None or isinstance(leaf, MapLeaf):
            self._find("leaf", place, "want a map commitment at the end of each signed tree, and nowhere else")

    def _check_loss(self, index: int, data: bytes) -> None:
        """Leaf 0 of a log that has declared a loss; up to its first tree, the leaves of the origin before follow."""
        if index:
            self._find("leaf", f"leaf {index}", "declares a loss, which only the first leaf may")
        elif self._check.store.loss is None or data != loss_leaf(parse_loss(self._check.store.loss)):
            self._find("leaf", "leaf 0", "declares another loss than the store knows")
        else:
            (first,) = self._conn.execute(_FIRST_SIZE).fetchone()
            self._again = range(first or 0)

    def _check_lost(self, index: int, leaf: object, lost: tuple[int, bytes, int | None, bytes | None]) -> None:
        """A leaf that came back from a mirror is what `lost_leaves` says, and moves its chain on in the map."""
        _, name, seq, x = lost
        if isinstance(leaf, LogKeyLeaf):
            self._check.announced.add(leaf.public_key)
        short = LogKeyLeaf(name) if isinstance(leaf, LogKeyLeaf) else EnrolmentLeaf(name)
        if leaf != (short if seq is None or x is None else EntryLeaf(name, seq, x)):
            self._find("leaf", f"leaf {index}", "is not the one that came back from a mirror")
        elif seq is not None and x is not None:
            head = x if seq == 0 else link(self._heads.get(name, b""), name, seq, x)
            self._heads[name] = head
            self._changed[name] = map_value(seq, head, index)

    def _grow(self, level: int, hashed: bytes) -> None:
        """Adds a hash to the tile that is being filled on a level."""
        if level == len(self._levels):
            self._levels.append([])
            self._numbers.append(0)
        self._levels[level].append(hashed)
        if len(self._levels[level]) == TILE_WIDTH:
            root = self._tile(level, self._levels[level])
            self._levels[level] = []
            self._numbers[level] += 1
            self._grow(level + 1, root)

    def _tile(self, level: int, hashes: list[bytes]) -> bytes:
        """Compares the stored tile; returns the root over it, which is one hash of the tile above once it is full."""
        data, root = build_tile(hashes)
        if read_tile(self._conn, level, self._numbers[level]) != (len(hashes), data):
            self._find("tile", f"tile {level}/{self._numbers[level]}", "is missing, or is not what its leaves lead to")
        return root[0] if root else b""

    def _tree(self, tree: Signed, committed: bytes) -> None:
        place = f"tree {tree.size}"
        if fold_right(self._peaks) != tree.root:
            self._find("tree", place, "root is not that of its leaves")
        self._replay_map(tree.size, {"committed": committed, "stored": tree.map_root})
        _check_notes(self._check, tree, place)

    def _replay_map(self, size: int, roots: dict[str, bytes]) -> None:
        replayed = self._maps.update(self._replay, size, self._changed)
        self._maps.prune(self._replay, size)
        self._changed.clear()
        for what, root in roots.items():
            if root != replayed:
                self._find("tree", f"tree {size}", f"the {what} map root is not that of a replay of its leaves")

    def _not_there(self, what: str, index: int, name: object) -> None:
        self._find("leaf", f"leaf {index}", f"{what} {shown(name)} says that it stands there, and it does not")

    def _no_leaves(self, size: int) -> None:
        self._find("tree", f"tree {size}", "was signed, and its leaves do not end there")


class _Forgetful(dict[bytes, bytes]):
    """Keeps nothing: where no step was lost, no head is asked for, and memory stays flat."""

    def __setitem__(self, key: bytes, value: bytes) -> None:
        pass


def _check_notes(check: Check, tree: Signed, place: str) -> None:
    """All notes are of this tree, each line of a known key holds, and the row's marks fit them."""
    for note in dict.fromkeys((tree.signed, tree.first_note, tree.newest_note)):
        if note is None:
            continue
        try:
            parsed, checkpoint = open_checkpoint(note, *check.log_keys)
            verify_cosignatures(parsed, check.cosigners)
        except Error as error:
            check.find("note", place, str(error))
            continue
        if (checkpoint.size, checkpoint.root) != (tree.size, tree.root):
            check.find("note", place, f"states size {checkpoint.size} and root {checkpoint.root.hex()}")
        if tree.audited and note == tree.newest_note:
            if not any(line.name.endswith(AUDITOR_SUFFIX) for line in parsed.signatures):
                check.find("note", place, "is marked as audited, and no auditor has signed")
    if (tree.first_note is None) != (tree.published_at is None):
        check.find("note", place, "has a first note or a time of publication without the other")
