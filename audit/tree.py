"""The log's Merkle tree on disk: tiles with their inner nodes, and entry bundles.

    size = append_leaves(conn, size, leaves)             in the writer's transaction
    tree = Tree()                                        one per process, shared by its threads
    tree.root(conn, size), tree.inclusion(conn, index, size), tree.consistency(conn, old_size, new_size)

A row holds what tlog-tiles calls a tile, up to 256 hashes, and behind them every complete node above them within the
tile, level by level. Of width w that is

    w hashes || w >> 1 nodes || w >> 2 nodes || ... || w >> 7 nodes

so that the published tile is the row's beginning, and an inclusion path is one slice for each level. The single node
on top of a full tile is a hash of the tile above. A node, once complete, never changes; a row is only replaced by a
wider one. So any stored tile answers for every tree that it has the nodes of: roots and proofs of all earlier sizes
come from the same rows.

`Tree` keeps upper tiles in memory, least recently used first out, and the hashes of ragged right edges, which all
proofs in one tree share. It must only be given connections that see committed rows: what a rolled back transaction
wrote would be wrong for ever.

Not checked when read: that hashes fit together. `publisher` compares the root with the last signed one before it signs
another, `fsck` recomputes everything, and whoever gets a proof verifies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from sqlite3 import Connection
from threading import Lock

from sqlalchemy import bindparam, insert, select

from audit.errors import Fatal, Refused
from audit.schema import BundleRow, TileRow, sql, table
from verifier.encoding import HASH_SIZE
from verifier.errors import Malformed
from verifier.merkle import (
    Range,
    complete_subtrees,
    consistency_ranges,
    fold_right,
    inclusion_ranges,
    leaf_hash,
)
from verifier.tile import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    cut_entry_bundle,
    decode_entry_bundle,
    encode_entry_bundle,
    tile_width,
)

CACHED_TILES = 512  # upper tiles, 16 KiB each: 8 MiB hold every upper tile of 33 million leaves
CACHED_EDGES = 4_096  # some 200 bytes each; all proofs in one tree need no more than one for each of its levels
MASK = TILE_WIDTH - 1
FULL = tuple([(level, 2 * TILE_WIDTH - (2 * TILE_WIDTH >> level)) for level in range(TILE_HEIGHT)])  # level, its offset

_TILES, _BUNDLES = table(TileRow), table(BundleRow)
_READ_TILE = sql(select(_TILES.c.width, _TILES.c.data).where(_TILES.c.id == bindparam("id")))
_WRITE_TILE = sql(insert(_TILES).prefix_with("OR REPLACE"))
_READ_BUNDLE = sql(select(_BUNDLES.c.data).where(_BUNDLES.c.n == bindparam("n")))
_WRITE_BUNDLE = sql(insert(_BUNDLES).prefix_with("OR REPLACE"))

StoredTile = tuple[int, bytes]  # width, nodes


def tile_id(level: int, number: int) -> int:
    """The row id of a tile."""
    return level << 56 | number


# Writing


def append_leaves(conn: Connection, size: int, leaves: Sequence[bytes]) -> int:
    """Writes tiles and bundles for leaves that follow the first `size` ones; returns the new size."""
    _append_bundles(conn, size, leaves)
    hashes = list(map(leaf_hash, leaves))
    level, position = 0, size
    while hashes:
        hashes = _append_hashes(conn, level, position, hashes)
        position >>= TILE_HEIGHT
        level += 1
    return size + len(leaves)


def _append_hashes(conn: Connection, level: int, position: int, hashes: list[bytes]) -> list[bytes]:
    """Puts hashes at `position` and on of a level; returns the roots of the tiles that became full."""
    number, have = divmod(position, TILE_WIDTH)
    if have:
        width, data = _require_tile(conn, level, number, have)
        hashes = [data[i : i + HASH_SIZE] for i in range(0, have * HASH_SIZE, HASH_SIZE)] + hashes
    rows, roots = [], []
    for start in range(0, len(hashes), TILE_WIDTH):
        part = hashes[start : start + TILE_WIDTH]
        data, root = build_tile(part)
        rows.append((tile_id(level, number), len(part), data))
        roots += root
        number += 1
    conn.executemany(_WRITE_TILE, rows)
    return roots


def build_tile(hashes: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The row of a tile with these hashes, and the root over it in a list; an empty one while it is not full."""
    data = b"".join(hashes)
    parts = [data]
    for _ in range(1, TILE_HEIGHT):
        # Pairs of hashes are adjacent: a node hashes 64 bytes of the level below. An odd last one has no pair yet.
        data = b"".join([sha256(b"\x01" + data[i : i + 64]).digest() for i in range(0, len(data) - 63, 64)])
        parts.append(data)
    root = [sha256(b"\x01" + data).digest()] if len(hashes) == TILE_WIDTH else []
    return b"".join(parts), root


def _append_bundles(conn: Connection, size: int, leaves: Sequence[bytes]) -> None:
    number, have = divmod(size, TILE_WIDTH)
    waiting = [*read_bundle(conn, number, have), *leaves] if have else leaves
    starts = range(0, len(waiting), TILE_WIDTH)
    rows = [(number + i, encode_entry_bundle(waiting[at : at + TILE_WIDTH])) for i, at in enumerate(starts)]
    conn.executemany(_WRITE_BUNDLE, rows)


# Reading


def read_bundle(conn: Connection, number: int, width: int) -> list[bytes]:
    """The first `width` leaves of a bundle, which must have at least as many."""
    row = conn.execute(_READ_BUNDLE, (number,)).fetchone()
    if row is None:
        raise Fatal(f"bundle {number}: missing")
    # Strict decoding wants the exact width, and a stored bundle may have more leaves than the tree that is asked for.
    try:
        return decode_entry_bundle(cut_entry_bundle(row[0], width), width)
    except Malformed as error:
        raise Fatal(f"bundle {number}: {error}") from error


def read_published_tile(conn: Connection, tile: Tile, size: int) -> bytes:
    """The bytes of a tile or an entry bundle as tlog-tiles wants them, for a log of this size."""
    level, number, width = tile
    if not 1 <= width <= tile_width(level, number, size):
        raise Refused(f"tile: a tree of size {size} has no such tile")
    if level == ENTRIES:
        return encode_entry_bundle(read_bundle(conn, number, width))
    return _require_tile(conn, level, number, width)[1][: width * HASH_SIZE]


def read_tile(conn: Connection, level: int, number: int) -> StoredTile | None:
    """A tile's row: its width and its nodes."""
    row: StoredTile | None = conn.execute(_READ_TILE, (tile_id(level, number),)).fetchone()
    return row


def _require_tile(conn: Connection, level: int, number: int, width: int) -> StoredTile:
    row = read_tile(conn, level, number)
    if row is None or row[0] < width:
        raise Fatal(f"tile {level}/{number}: got {row and row[0]} hashes, want {width}")
    return row


class Tree:
    """Roots and proofs of every size up to the newest committed one."""

    def __init__(self, cached_tiles: int = CACHED_TILES) -> None:
        # Two generations: when the young one is full, the old one goes. A hit costs no lock; a race costs a miss.
        self._limit = max(1, cached_tiles // 2)
        self._young: dict[int, StoredTile] = {}
        self._old: dict[int, StoredTile] = {}
        self._lock = Lock()
        self._edges: dict[Range, bytes] = {}

    def root(self, conn: Connection, size: int) -> bytes:
        """The root over the first `size` leaves."""
        return self._fold(conn, 0, size)

    def inclusion(self, conn: Connection, index: int, size: int) -> list[bytes]:
        """The inclusion proof of leaf `index` in the tree of this size."""
        path: list[bytes] = []
        level = 0
        # As long as the tile is full in this tree: eight slices, without a look at ranges.
        while index >> TILE_HEIGHT < size >> (level + TILE_HEIGHT):
            self._climb(conn, level, index, path)
            level += TILE_HEIGHT
            index >>= TILE_HEIGHT
        # From here on as in a tree whose leaves are the nodes of this level, of which the last may be ragged.
        for begin, end in inclusion_ranges(index, ((size - 1) >> level) + 1):
            path.append(self._range(conn, begin << level, min(end << level, size)))
        return path

    def consistency(self, conn: Connection, old_size: int, new_size: int) -> list[bytes]:
        """The consistency proof between two sizes (empty from 0 and between equal ones)."""
        return [self._range(conn, *leaves) for leaves in consistency_ranges(old_size, new_size)]

    def _climb(self, conn: Connection, level: int, index: int, path: list[bytes]) -> None:
        """Adds the siblings on the way from a node to the top of its tile, which is full."""
        _, data = self._tile(conn, level // TILE_HEIGHT, index >> TILE_HEIGHT, TILE_WIDTH)
        at = index & MASK
        for above, offset in FULL:
            start = (offset + (at >> above ^ 1)) * HASH_SIZE
            path.append(data[start : start + HASH_SIZE])

    def _range(self, conn: Connection, begin: int, end: int) -> bytes:
        """The root over a range of leaves that stands in a proof."""
        size = end - begin
        if size & (size - 1) == 0 and begin & (size - 1) == 0:  # most are one complete subtree
            level = size.bit_length() - 1
            return self._node(conn, level, begin >> level)
        edge = self._edges.get((begin, end))
        if edge is None:
            edge = self._fold(conn, begin, end)
            if len(self._edges) >= CACHED_EDGES:
                self._edges.clear()
            self._edges[begin, end] = edge
        return edge

    def _fold(self, conn: Connection, begin: int, end: int) -> bytes:
        """The root over a range, from the tiles."""
        return fold_right([self._node(conn, level, index) for level, index in complete_subtrees(begin, end)])

    def _node(self, conn: Connection, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        tile_level, above = divmod(level, TILE_HEIGHT)
        number, at = index >> (TILE_HEIGHT - above), index & (MASK >> above)
        width, data = self._tile(conn, tile_level, number, (at + 1) << above)
        for i in range(above):
            at += width >> i
        return data[at * HASH_SIZE : (at + 1) * HASH_SIZE]

    def _tile(self, conn: Connection, level: int, number: int, width: int) -> StoredTile:
        """A tile of at least this width. Level 0 is read each time: there are too many to keep."""
        if level == 0:
            return _require_tile(conn, level, number, width)
        key = tile_id(level, number)
        tile = self._young.get(key)
        if tile is None or tile[0] < width:
            tile = self._old.get(key)
            if tile is None or tile[0] < width:
                tile = _require_tile(conn, level, number, width)
            self._keep(key, tile)
        return tile

    def _keep(self, key: int, tile: StoredTile) -> None:
        with self._lock:
            if len(self._young) >= self._limit:
                self._old, self._young = self._young, {}
            self._young[key] = tile
