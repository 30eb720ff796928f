"""The tree on disk against the slow reference."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit import tree as tree_module
from audit.errors import Fatal, Refused
from audit.store import Store, create_store, open_store
from audit.tree import Tree, append_leaves, read_bundle, read_published_tile, tile_id
from tests.audit.log_setup import read_leaf
from tests.reference import consistency, mth, path
from verifier.keys import format_log_name
from verifier.merkle import leaf_hash, verify_consistency, verify_inclusion
from verifier.tile import ENTRIES, Tile, decode_entry_bundle, encode_entry_bundle, plan_tiles

LEAVES = [i.to_bytes(4, "big") * (1 + i % 3) for i in range(66_000)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    create_store(str(tmp_path), "log.example", format_log_name("log.example", bytes(32)), 1)
    store = open_store(str(tmp_path))
    yield store
    store.close()


def grow(store: Store, *sizes: int) -> sqlite3.Connection:
    """Appends leaves up to each size, each in a transaction of its own."""
    size = 0
    for wanted in sizes:
        with store.transaction() as conn:
            size = append_leaves(conn, size, LEAVES[size:wanted])
        assert size == wanted
    return store.reader()


def test_tree_answers_as_the_reference_for_every_small_size(store: Store) -> None:
    """Roots, inclusion and consistency proofs of every size up to 40, from the rows of a tree of 40."""
    conn, tree = grow(store, *range(1, 41)), Tree()
    for size in range(41):
        leaves = LEAVES[:size]
        assert tree.root(conn, size) == mth(leaves)
        for index in range(size):
            assert tree.inclusion(conn, index, size) == path(index, leaves)
        for old in range(size + 1):
            assert tree.consistency(conn, old, size) == consistency(old, leaves)


@pytest.mark.parametrize("steps", [(600,), (255, 256, 257, 511, 512, 600), (1, 300, 301, 600)])
def test_tree_is_the_same_however_it_grew(store: Store, steps: tuple[int, ...]) -> None:
    """Batches of any size, across the edges of tiles, give the reference's tree."""
    conn, tree = grow(store, *steps), Tree()
    for size in (1, 255, 256, 257, 511, 512, 513, 600):
        assert tree.root(conn, size) == mth(LEAVES[:size])
        for index in {0, size // 2, size - 1, min(255, size - 1), min(256, size - 1)}:
            assert tree.inclusion(conn, index, size) == path(index, LEAVES[:size])
    assert [read_leaf(conn, i) for i in (0, 255, 256, 599)] == [LEAVES[i] for i in (0, 255, 256, 599)]


def test_tree_of_three_levels_proves_what_it_holds(store: Store) -> None:
    """Beyond 65,536 leaves, where a third level of tiles begins, old and new sizes keep being provable."""
    conn, tree = grow(store, 65_000, 66_000), Tree(cached_tiles=2)
    roots = {size: tree.root(conn, size) for size in (1, 256, 65_000, 65_535, 65_536, 65_537, 66_000)}
    for size, root in roots.items():
        for index in {0, 255, 256, size // 2, size - 1}:
            if index < size:
                proof = tree.inclusion(conn, index, size)
                verify_inclusion(index, size, leaf_hash(LEAVES[index]), proof, root)
        for old, old_root in roots.items():
            if old <= size:
                verify_consistency(old, old_root, size, root, tree.consistency(conn, old, size))


def test_published_tiles_are_those_of_the_spec(store: Store) -> None:
    """Every tile and bundle that tlog-tiles asks for, full or partial, at the present and at earlier sizes."""
    conn = grow(store, 256, 300, 700)
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:700]]
    for size in (1, 255, 256, 300, 512, 700):
        for tile in plan_tiles(0, size):
            data, first = read_published_tile(conn, tile, size), tile.number * 256
            if tile.level == ENTRIES:
                assert decode_entry_bundle(data, tile.width) == LEAVES[first : first + tile.width]
            elif tile.level == 0:
                assert data == b"".join(hashes[first : first + tile.width])
            else:
                assert data == b"".join(mth(LEAVES[i * 256 : i * 256 + 256]) for i in range(tile.width))


def test_published_tile_beyond_the_size_is_refused(store: Store) -> None:
    """A tile that the published tree does not call for is not given, though its rows exist."""
    conn = grow(store, 300)
    for tile in (Tile(0, 0, 100), Tile(ENTRIES, 0, 100), Tile(0, 1, 1), Tile(1, 0, 1)):
        with pytest.raises(Refused, match="no such tile"):
            read_published_tile(conn, tile, 99)


def test_tree_never_answers_from_rows_that_are_missing(store: Store) -> None:
    """A size beyond the stored leaves, or a lost row, stops the log instead of giving a wrong proof."""
    conn, tree = grow(store, 300), Tree()
    with pytest.raises(Fatal, match="tile 0/1"):
        tree.root(conn, 301)
    with pytest.raises(Fatal, match="bundle 1"):
        read_bundle(conn, 1, 45)
    with store.transaction() as writer:
        writer.execute("DELETE FROM tiles WHERE id = ?", (tile_id(0, 0),))
        writer.execute("DELETE FROM bundles WHERE n = 0")
    with pytest.raises(Fatal, match="tile 0/0"):
        tree.inclusion(conn, 3, 300)
    with pytest.raises(Fatal, match="bundle 0"):
        read_leaf(conn, 3)


def test_cached_tile_gives_way_to_a_wider_one(store: Store) -> None:
    """The tile at the right edge is read again once the tree asks for more than the kept copy has."""
    tree = Tree()
    tree.root(grow(store, 600), 600)
    with store.transaction() as conn:
        append_leaves(conn, 600, LEAVES[600:1100])
    assert tree.root(store.reader(), 1100) == mth(LEAVES[:1100])


def test_edges_are_kept_within_bounds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs of many sizes stay right when edges are forgotten on the way, and no more than so many are kept."""
    monkeypatch.setattr(tree_module, "CACHED_EDGES", 3)
    conn, tree = grow(store, 600), Tree()
    for size in (599, 515, 600, 301, 599, 7):
        assert tree.inclusion(conn, 2, size) == path(2, LEAVES[:size])
        assert tree.consistency(conn, 5, size) == consistency(5, LEAVES[:size])
        assert 0 < len(tree._edges) <= 3


def test_root_is_computed_from_the_tiles(store: Store) -> None:
    """A root never comes from the edges that are kept for proofs: whoever compares it wants to know what is on disk."""
    conn, tree = grow(store, 300), Tree()
    tree.inclusion(conn, 3, 300)
    root = tree.root(conn, 300)
    with store.transaction() as writer:
        data = writer.execute("SELECT data FROM tiles WHERE id = 1").fetchone()[0]
        writer.execute("UPDATE tiles SET data = ? WHERE id = 1", (bytes(len(data)),))
    assert tree.root(conn, 300) != root


def test_bundle_is_encoded_as_the_spec_says(store: Store) -> None:
    """The stored bundle is the very bytes that are served when it is full."""
    conn = grow(store, 256)
    assert conn.execute("SELECT data FROM bundles").fetchone()[0] == encode_entry_bundle(LEAVES[:256])
