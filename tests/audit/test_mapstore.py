"""The map on disk against the slow reference: proofs of every version, pruning, damage, threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.cache import Cache
from audit.map_page import ALL_SLOTS, SLOT0, decode_page, encode_page, fold_page
from audit.mapstore import CREATE_MAP_PAGES, MapDamaged, MapStore, NotRetained, OutOfOrder
from tests import map_reference as reference
from verifier.encoding import tagged, u64
from verifier.errors import Malformed
from verifier.map import EMPTY, leaf_hash, verify_absence, verify_presence

Entries = dict[bytes, bytes]

FORMS = (CREATE_MAP_PAGES, CREATE_MAP_PAGES + " WITHOUT ROWID")


def key(n: int) -> bytes:
    return tagged("test-key", u64(n))


def value(n: int) -> bytes:
    return tagged("test-value", u64(n))


def flip(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << (8 * len(data) - 1 - bit)).to_bytes(len(data), "big")


def create(form: str = CREATE_MAP_PAGES, path: str = ":memory:") -> sqlite3.Connection:
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(form)
    return conn


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    with closing(create()) as connection:
        yield connection


def assert_proves(store: MapStore, conn: sqlite3.Connection, version: int, entries: Entries, key: bytes) -> None:
    """The proof is the reference's, and the verifier takes it."""
    root = reference.build_map(entries)
    proof = store.prove(conn, key, version)
    assert reference.prove(entries, key) == tuple(proof)
    if proof.value_hash is None:
        verify_absence(key, proof.terminal, proof.siblings, root)
    else:
        verify_presence(key, proof.value_hash, proof.siblings, root)


def row_count(conn: sqlite3.Connection) -> int:
    count: int = conn.execute("SELECT count(*) FROM map_pages").fetchone()[0]
    return count


@st.composite
def batches(draw: st.DrawFn) -> list[Entries]:
    """Updates in order, over keys of which some share up to 255 bits; values come and come back."""
    keys = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=12))
    for bit in draw(st.lists(st.integers(0, 255), max_size=12)):
        keys.append(flip(draw(st.sampled_from(keys)), bit))
    values = st.sampled_from([value(n) for n in range(3)])
    return draw(st.lists(st.dictionaries(st.sampled_from(keys), values, max_size=12), min_size=1, max_size=5))


@given(batches(), st.sampled_from(FORMS), st.sampled_from([0, 2000, 2**25]), st.data())
def test_map_equals_the_reference_at_every_version(
    updates: list[Entries], form: str, cache_bytes: int, data: st.DataObject
) -> None:
    """Roots, items and proofs of each retained version are the reference's, before and after pruning."""
    with closing(create(form)) as conn:
        store = MapStore(cache_bytes)
        states: dict[int, Entries] = {}
        state: Entries = {}
        for i, batch in enumerate(updates):
            state = state | batch
            states[10 * i] = state
            assert reference.build_map(state) == store.update(conn, 10 * i, batch)
        asked = [*state, flip(key(0), data.draw(st.integers(0, 255)))]
        for keep_from in (0, data.draw(st.sampled_from(sorted(states)))):
            store.prune(conn, keep_from)
            for version, entries in states.items():
                if version >= keep_from:
                    assert reference.build_map(entries) == store.root(conn, version) == store.check(conn, version)
                    assert sorted(entries.items()) == list(store.items(conn, version))
                    for one in asked:
                        assert_proves(store, conn, version, entries, one)


def test_map_of_a_thousand_keys_equals_the_reference(conn: sqlite3.Connection) -> None:
    """Several levels of pages, built in batches, prove like the reference with a cold store as with a warm one."""
    store = MapStore()
    entries: Entries = {}
    for version in range(1, 5):
        batch = {key(n): value(n + version) for n in range(0, 250 * version, version)}
        entries |= batch
        store.update(conn, version, batch)
    assert reference.build_map(entries) == store.check(conn, 4)
    for n in range(0, 1500, 97):
        assert_proves(store, conn, 4, entries, key(n))
        assert_proves(MapStore(), conn, 4, entries, key(n))


def test_map_of_a_thousand_keys_does_not_depend_on_the_order(conn: sqlite3.Connection) -> None:
    """One batch or many, forwards or backwards: the same root and the same pages."""
    entries = {key(n): value(n) for n in range(1000)}
    root = MapStore().update(conn, 1, entries)
    with closing(create()) as other:
        for version, n in enumerate(reversed(range(1000))):
            last = MapStore().update(other, version, {key(n): value(n)})
        assert root == last


def test_empty_map_is_a_version_too(conn: sqlite3.Connection) -> None:
    """A commitment to nothing is written, proves absence, and is told from a version that is not there."""
    store = MapStore()
    with pytest.raises(NotRetained, match="got 4"):
        store.root(conn, 4)
    assert EMPTY == store.update(conn, 5, {})
    assert (None, [], None) == store.prove(conn, key(1), 5)
    with pytest.raises(NotRetained, match="got 4"):
        store.prove(conn, key(1), 4)


def test_single_key_is_the_root(conn: sqlite3.Connection) -> None:
    """The map of one key has that key's leaf hash as its root, and no sibling."""
    store = MapStore()
    assert leaf_hash(key(1), value(1)) == store.update(conn, 1, {key(1): value(1)})
    assert (value(1), [], None) == store.prove(conn, key(1), 1)
    assert (None, [], (key(1), value(1))) == store.prove(conn, key(2), 1)


def test_version_between_two_updates_is_the_older_one(conn: sqlite3.Connection) -> None:
    """A version that was never written reads as the newest one below it."""
    store = MapStore()
    old = store.update(conn, 10, {key(1): value(1)})
    new = store.update(conn, 20, {key(1): value(2)})
    assert [old, old, new, new] == [store.root(conn, version) for version in (10, 19, 20, 2**62)]


def test_update_writes_changed_pages_only(conn: sqlite3.Connection) -> None:
    """One value rewrites the pages on its path; the same value again, or nothing, the root page alone."""
    store = MapStore()
    store.update(conn, 1, {key(n): value(n) for n in range(5000)})
    before = row_count(conn)
    store.update(conn, 2, {key(7): value(0)})
    path = row_count(conn) - before
    assert 3 <= path <= 5
    store.update(conn, 3, {key(7): value(0)})
    store.update(conn, 4, {})
    assert before + path + 2 == row_count(conn)


def test_update_out_of_order_is_refused(conn: sqlite3.Connection) -> None:
    """Versions strictly increase, so that a row never changes."""
    store = MapStore()
    store.update(conn, 5, {key(1): value(1)})
    for version in (5, 4):
        with pytest.raises(OutOfOrder, match=f"got {version}, want above 5"):
            store.update(conn, version, {key(1): value(2)})


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33)])
def test_keys_and_values_of_another_size_are_malformed(conn: sqlite3.Connection, bad: bytes) -> None:
    """Nothing is written when a key or value hash is not 32 bytes."""
    store = MapStore()
    for updates in ({bad: value(1)}, {key(1): bad}, {key(0): value(0), key(1): bad}):
        with pytest.raises(Malformed, match="want 32 bytes"):
            store.update(conn, 1, updates)
    assert 0 == row_count(conn)
    store.update(conn, 1, {})
    with pytest.raises(Malformed, match="map key"):
        store.prove(conn, bad, 1)


def test_prune_deletes_what_nobody_sees_and_no_more(conn: sqlite3.Connection) -> None:
    """Rows left are exactly those that a retained version reaches; pruning again deletes nothing."""
    store = MapStore()
    store.update(conn, 1, {key(n): value(n) for n in range(2000)})
    for version in range(2, 12):
        store.update(conn, version, {key(n): value(n + version) for n in range(version, 2000, 191)})
    for keep_from in (4, 5, 9):
        before = row_count(conn)
        want = reachable(conn, range(keep_from, 12))
        assert before - len(want) == store.prune(conn, keep_from) > 0
        assert want == set(conn.execute("SELECT prefix, version FROM map_pages"))
        assert 0 == store.prune(conn, keep_from)
    with pytest.raises(NotRetained, match="got 8"):
        store.prove(conn, key(1), 8)


def reachable(conn: sqlite3.Connection, versions: range) -> set[tuple[bytes, int]]:
    """For each version and prefix the newest row that is not above it, by the plainest SQL."""
    sql = "SELECT prefix, max(version) FROM map_pages WHERE version <= ? GROUP BY prefix"
    return {row for version in versions for row in conn.execute(sql, (version,))}


def test_prune_between_versions_keeps_the_visible_one(conn: sqlite3.Connection) -> None:
    """Retaining from a version that has no rows of its own keeps what it reads."""
    store = MapStore()
    store.update(conn, 10, {key(1): value(1)})
    root = store.update(conn, 20, {key(1): value(2)})
    store.update(conn, 30, {key(1): value(3)})
    assert 0 == store.prune(conn, 9)
    assert 1 == store.prune(conn, 25)
    assert root == store.root(conn, 25)


def put_page(conn: sqlite3.Connection, prefix: bytes, page: object) -> None:
    conn.execute("UPDATE map_pages SET data = ? WHERE prefix = ?", (page, prefix))


def some_page(conn: sqlite3.Connection) -> tuple[bytes, bytes]:
    """A child page with references, nodes and leaves: (prefix, data)."""
    row: tuple[bytes, bytes] = conn.execute(
        "SELECT prefix, data FROM map_pages WHERE length(prefix) = 1 ORDER BY length(data) DESC LIMIT 1"
    ).fetchone()
    return row


@pytest.fixture
def sixty(conn: sqlite3.Connection) -> Entries:
    """Sixty keys and one that shares 255 bits with the first, at version 1."""
    entries = {key(n): value(n) for n in range(60)} | {flip(key(0), 255): value(0)}
    MapStore().update(conn, 1, entries)
    return entries


def test_every_changed_byte_of_a_page_is_noticed_by_check(conn: sqlite3.Connection, sixty: Entries) -> None:
    """No byte of a child page can change, versions in references included."""
    prefix, page = some_page(conn)
    for i in range(len(page)):
        put_page(conn, prefix, page[:i] + bytes((page[i] ^ 0x10,)) + page[i + 1 :])
        with pytest.raises(MapDamaged):
            MapStore().check(conn, 1)
    put_page(conn, prefix, page)
    assert reference.build_map(sixty) == MapStore().check(conn, 1)


def test_every_damaged_page_is_noticed_before_it_is_served(conn: sqlite3.Connection, sixty: Entries) -> None:
    """Whatever a child page is replaced by, neither a proof nor an update is made from it, and the row is named."""
    prefix, page = some_page(conn)
    below = next(one for one in sixty if one[0] >> 4 == prefix[0])
    empty, text = b"", "text"
    hash_changed, leaf_changed = flip(page, 8 * 8), flip(page, 8 * len(page) - 1)
    for bad in (empty, text, page[:7], page[:-1], page + b"x", bytes(8), hash_changed, leaf_changed):
        put_page(conn, prefix, bad)
        with pytest.raises(MapDamaged, match=f"map page {prefix[0]:x} at version 1: "):
            MapStore().prove(conn, below, 1)
        with pytest.raises(MapDamaged):
            MapStore().update(conn, 2, {below: value(99)})
    assert 0 == conn.execute("SELECT count(*) FROM map_pages WHERE version = 2").fetchone()[0]


def test_missing_page_is_noticed(conn: sqlite3.Connection, sixty: Entries) -> None:
    """A row that is gone is damage, never absence."""
    prefix, _ = some_page(conn)
    conn.execute("DELETE FROM map_pages WHERE prefix = ?", (prefix,))
    below = next(one for one in sixty if one[0] >> 4 == prefix[0])
    with pytest.raises(MapDamaged, match="missing"):
        MapStore().prove(conn, below, 1)


def test_older_page_in_place_of_a_newer_is_noticed(conn: sqlite3.Connection, sixty: Entries) -> None:
    """A page that was right once does not pass for the one that the parent names."""
    prefix, page = some_page(conn)
    below = next(one for one in sixty if one[0] >> 4 == prefix[0])
    MapStore().update(conn, 2, {below: value(99)})
    put_page(conn, prefix, page)
    MapStore().prove(conn, below, 1)
    with pytest.raises(MapDamaged, match="hash that its parent names"):
        MapStore().prove(conn, below, 2)


def test_damaged_root_page_is_noticed(conn: sqlite3.Connection, sixty: Entries) -> None:
    """The root page is checked against itself."""
    page = conn.execute("SELECT data FROM map_pages WHERE prefix = x''").fetchone()[0]
    for bad in (flip(page, 8 * 8), flip(page, 8 * len(page) - 9), page[:-1], b""):
        put_page(conn, b"", bad)
        for act in (MapStore().root, MapStore().check, MapStore().items):
            with pytest.raises(MapDamaged):
                list(act(conn, 1))


def test_page_in_another_spelling_is_noticed(conn: sqlite3.Connection) -> None:
    """A leaf below its highest place, or twice, is not what the encoder writes."""
    MapStore().update(conn, 1, {bytes(32): value(1)})
    leaf = bytes(32) + value(1)
    for bad in ((1 << 2, leaf), (1 << 16, leaf), (1 << 3, leaf), (1 << 1 | 1 << 2, leaf + leaf), (1 << 0, leaf)):
        put_page(conn, b"", bytes(4) + bad[0].to_bytes(4, "big") + bad[1])
        with pytest.raises(MapDamaged):
            MapStore().root(conn, 1)


def test_key_in_the_wrong_page_is_noticed(conn: sqlite3.Connection) -> None:
    """A tree whose hashes all fit, with a key where its bits do not lead, is damage."""
    MapStore().update(conn, 1, {b"\x30" + bytes(31): value(1), b"\x31" + bytes(31): value(2)})
    nodes = decode_page(conn.execute("SELECT data FROM map_pages WHERE prefix = x''").fetchone()[0], 0)
    nodes[SLOT0 + 5], nodes[SLOT0 + 3] = nodes[SLOT0 + 3], None
    fold_page(nodes, ALL_SLOTS)
    put_page(conn, b"", encode_page(nodes))
    conn.execute("UPDATE map_pages SET prefix = x'05' WHERE prefix = x'03'")
    with pytest.raises(MapDamaged, match="key of another page"):
        MapStore().check(conn, 1)


def test_rolled_back_update_leaves_no_trace(conn: sqlite3.Connection) -> None:
    """Pages cached from a transaction that was undone never answer for the version written in its stead."""
    store, entries = MapStore(), {key(n): value(n) for n in range(300)}
    store.update(conn, 1, entries)
    conn.execute("BEGIN")
    store.update(conn, 2, {key(1): value(77), key(2): value(78)})
    store.prove(conn, key(1), 2)
    conn.execute("ROLLBACK")
    assert_proves(store, conn, 2, entries, key(1))
    entries[key(2)] = value(79)
    store.update(conn, 2, {key(2): value(79)})
    for n in range(5):
        assert_proves(store, conn, 2, entries, key(n))


def test_warm_proof_reads_the_root_row_alone(conn: sqlite3.Connection) -> None:
    """Once read, pages come from memory, also at a later version that still refers to them."""
    store = MapStore()
    store.update(conn, 1, {key(n): value(n) for n in range(3000)})
    statements: list[str] = []
    conn.set_trace_callback(statements.append)
    store.prove(conn, key(5), 1)
    assert 1 == len(statements)
    cold = MapStore()
    cold.prove(conn, key(5), 1)
    statements.clear()
    cold.prove(conn, key(5), 1)
    assert 1 == len(statements)


def test_cache_stays_below_its_limit() -> None:
    """Entries and their overhead never pass the limit; what is used stays, what is not goes."""
    cache = Cache(100_000)
    for n in range(1000):
        cache.put(key(n), bytes(500))
        assert cache.get(key(0)) is not None
    held = [n for n in range(1000) if cache.get(key(n)) is not None]
    assert 40 <= len(held) <= 100_000 // 700
    assert 0 in held
    cache.put(key(1), bytes(100_000))
    assert cache.get(key(1)) is None


def test_readers_in_threads_prove_while_the_writer_goes_on(tmp_path: Path) -> None:
    """One store, a connection per thread: every proof holds for the version that was asked for."""
    path = str(tmp_path / "map.db")
    store, failures = MapStore(200_000), list[BaseException]()
    with closing(create(path=path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        first = store.update(writer, 1, {key(n): value(n) for n in range(400)})

        def read() -> None:
            try:
                with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                    for n in range(400):
                        proof = store.prove(reader, key(n), 1)
                        verify_presence(key(n), value(n), proof.siblings, first)
            except BaseException as failure:
                failures.append(failure)

        threads = [Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in range(2, 12):
            writer.execute("BEGIN")
            store.update(writer, version, {key(n): value(n + version) for n in range(0, 400, version)})
            writer.execute("COMMIT")
        for thread in threads:
            thread.join()
    assert [] == failures
