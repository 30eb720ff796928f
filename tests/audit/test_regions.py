"""An auditor's replay by regions against the slow references: findings, maps, proofs, crowded and damaged regions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import region as region_module
from audit.errors import Damaged
from audit.region import Region, decode_region, encode_region
from audit.regions import RegionDamaged, Regions
from tests import map_reference as reference
from verifier.chain import link
from verifier.encoding import tagged, u64
from verifier.leaf import EnrolmentLeaf, EntryLeaf, LossLeaf, MapLeaf, encode_leaf
from verifier.map import Place, map_value
from verifier.replay import BrokenRule, Known, Tip, find_broken

CREATE = "CREATE TABLE regions (prefix BLOB PRIMARY KEY NOT NULL, data BLOB NOT NULL)"


Lie = Callable[["Leaves"], None]


def key(n: int) -> bytes:
    return tagged("test-key", u64(n))


def flip(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << (8 * len(data) - 1 - bit)).to_bytes(len(data), "big")


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(CREATE)
        yield connection


class Leaves:
    """A log's leaves and what the slow references say of them."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.tips: dict[bytes, Tip] = {}

    def add(self, chain_id: bytes, skip: int = 0) -> None:
        """The next entry of a chain; with `skip` it is another one than the next."""
        tip, index = self.tips.get(chain_id), len(self.leaves)
        seq = 0 if tip is None else tip[0] + 1
        x = tagged("test-x", u64(index))
        self.leaves.append(encode_leaf(EntryLeaf(chain_id, seq + skip, x)))
        self.tips[chain_id] = (seq, x if tip is None else link(tip[1], chain_id, seq, x), index)

    def commit(self, wrong: bool = False) -> None:
        root = reference.build_map(self.values())
        self.leaves.append(encode_leaf(MapLeaf(flip(root, 7) if wrong else root)))

    def values(self) -> dict[bytes, bytes]:
        return {chain_id: map_value(*tip) for chain_id, tip in self.tips.items()}

    def known(self, chain_id: bytes) -> Known:
        value_hash, siblings, terminal = reference.prove(self.values(), chain_id)
        return Known(Place(chain_id, value_hash, terminal, siblings), self.tips.get(chain_id))


def replay(conn: sqlite3.Connection, leaves: list[bytes], ends: list[int]) -> BrokenRule | None:
    """Replays the leaves in chunks with these ends, each with regions opened anew."""
    first = 0
    for end in [*sorted(ends), len(leaves)]:
        try:
            Regions(conn).replay(first, leaves[first:end])
        except BrokenRule as broken:
            return broken
        first = max(first, end)
    return None


@st.composite
def chain_ids(draw: st.DrawFn) -> list[bytes]:
    """Chain ids of which some share up to 255 bits."""
    ids = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=10))
    for bit in draw(st.lists(st.integers(0, 255), max_size=10)):
        ids.append(flip(draw(st.sampled_from(ids)), bit))
    return ids


def build(data: st.DataObject, ids: list[bytes], lies: bool) -> Leaves:
    log = Leaves()
    kinds = ["entry"] * 6 + ["map"] * 2 + ["enrolment"] + ["gap", "wrong map", "loss", "form"] * lies
    for kind in data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=30)):
        if kind in ("entry", "gap"):
            log.add(data.draw(st.sampled_from(ids)), skip=int(kind == "gap"))
        elif kind in ("map", "wrong map"):
            log.commit(wrong=kind == "wrong map")
        elif kind == "form":
            log.leaves.append(b"\x03" + bytes(31))
        else:
            log.leaves.append(encode_leaf((LossLeaf if kind == "loss" else EnrolmentLeaf)(bytes(32))))
    return log


@given(chain_ids(), st.data(), st.sampled_from([1, 2, 64]))
def test_replay_finds_the_leaf_that_one_after_the_other_finds(ids: list[bytes], data: st.DataObject, most: int) -> None:
    """Region by region, in whatever chunks, the first broken leaf is the one that a plain walk stops at, if any."""
    log = build(data, ids, lies=True)
    ends = data.draw(st.lists(st.integers(0, len(log.leaves)), max_size=3))
    nothing = [Known(Place(chain_id, None, None, []), None) for chain_id in sorted(set(ids))]
    want = find_broken(0, log.leaves, len(log.leaves) + 1, nothing)
    with closing(sqlite3.connect(":memory:")) as conn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_module, "MAX_TIPS", most)
        conn.execute(CREATE)
        got = replay(conn, log.leaves, ends)
    assert (want and (want.index, want.fault, want.why)) == (got and (got.index, got.fault, got.why))


def gap(log: Leaves) -> None:
    log.add(key(1), skip=1)


def other_gap(log: Leaves) -> None:
    log.add(key(2), skip=3)


def wrong_map(log: Leaves) -> None:
    log.commit(wrong=True)


def wrong_form(log: Leaves) -> None:
    log.leaves.append(b"\x09")


@pytest.mark.parametrize("lies", list(permutations([gap, other_gap, wrong_map, wrong_form], 2)))
def test_the_first_of_several_broken_rules_is_found(conn: sqlite3.Connection, lies: list[Lie]) -> None:
    """In one chunk, a leaf that breaks a rule is not overlooked for a later one of another kind or chain."""
    log = Leaves()
    log.add(key(1))
    log.commit()
    lies[0](log)
    log.commit()
    lies[1](log)
    broken = replay(conn, log.leaves, [])
    assert broken is not None
    assert broken.index == 2


@given(chain_ids(), st.data(), st.sampled_from([1, 2, 64]))
def test_regions_prove_what_the_reference_proves(ids: list[bytes], data: st.DataObject, most: int) -> None:
    """However crowded the regions are, tips and map proofs of present and absent chains are the reference's."""
    log = build(data, ids, lies=False)
    ends = data.draw(st.lists(st.integers(0, len(log.leaves)), max_size=3))
    with closing(sqlite3.connect(":memory:")) as conn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_module, "MAX_TIPS", most)
        conn.execute(CREATE)
        assert replay(conn, log.leaves, ends) is None
        for chain_id in [*ids, flip(ids[0], data.draw(st.integers(0, 255)))]:
            assert log.known(chain_id) == Regions(conn).prove(chain_id)


def test_crowded_regions_have_children(conn: sqlite3.Connection) -> None:
    """A thousand chains in two chunks lie in many rows, none of more than MAX_TIPS, and prove like the reference."""
    log = Leaves()
    for n in range(1000):
        log.add(key(n))
    log.commit()
    for n in range(0, 2000, 2):
        log.add(key(n))
    log.commit()
    assert replay(conn, log.leaves, [900, 1001]) is None
    rows = [decode_region(*row) for row in conn.execute("SELECT prefix, data FROM regions")]
    assert 17 <= len(rows) <= 273
    assert max(len(region.tips) for region in rows) <= region_module.MAX_TIPS
    assert log.tips == {chain_id: tip for region in rows for chain_id, tip in region.tips.items()}
    for n in range(0, 2500, 97):
        assert log.known(key(n)) == Regions(conn).prove(key(n))


def test_chain_ids_that_share_most_bits_are_handed_down(conn: sqlite3.Connection) -> None:
    """Two chains that part at the last bit have a place below 2^63 in the last of many regions."""
    log = Leaves()
    log.add(key(0))
    log.add(flip(key(0), 255))
    log.commit()
    assert replay(conn, log.leaves, []) is None
    assert log.known(key(0)) == Regions(conn).prove(key(0))
    assert conn.execute("SELECT count(*) FROM regions").fetchone()[0] > 45


# Damage


@pytest.fixture
def hundred(conn: sqlite3.Connection) -> Leaves:
    log = Leaves()
    for n in range(100):
        log.add(key(n))
    log.commit()
    assert replay(conn, log.leaves, []) is None
    return log


def some_row(conn: sqlite3.Connection) -> tuple[bytes, bytes]:
    row: tuple[bytes, bytes] = conn.execute("SELECT prefix, data FROM regions WHERE prefix <> x'' LIMIT 1").fetchone()
    return row


def test_every_changed_byte_of_a_row_is_noticed() -> None:
    """What the disk garbles is damage, and never looks like a lie of the log."""
    region = Region(b"\x03")
    region.tips = {b"\x30" + bytes(31): (0, key(1), 5), b"\x38" + bytes(31): (2, key(2), 7)}
    region.update(region.tips, [])
    row = encode_region(region)
    back = decode_region(b"\x03", row)
    assert (region.tips, region.places, region.nodes) == (back.tips, back.places, back.nodes)
    for bad in [row[:i] + bytes((row[i] ^ 1,)) + row[i + 1 :] for i in range(len(row))] + [
        b"",
        "text",
        row[:-1],
        row + b"x",
    ]:
        with pytest.raises(Damaged):
            decode_region(b"\x03", bad)
    with pytest.raises(Damaged):
        decode_region(b"\x04", row)


def test_damaged_rows_are_not_used(conn: sqlite3.Connection, hundred: Leaves) -> None:
    """A row that is gone, garbled, or older than its parent says stops the replay, and is no broken rule."""
    prefix, old = some_row(conn)
    chain_id = next(one for one in hundred.tips if one[0] >> 4 == prefix[0])
    hundred.add(chain_id)
    hundred.commit()
    Regions(conn).replay(101, hundred.leaves[101:])
    hundred.add(chain_id)
    for bad, why in (("DELETE FROM", "missing"), (old, "parent names"), (b"", "not what was written")):
        conn.execute("SAVEPOINT before")
        if isinstance(bad, str):
            conn.execute("DELETE FROM regions WHERE prefix = ?", (prefix,))
        else:
            conn.execute("UPDATE regions SET data = ? WHERE prefix = ?", (bad, prefix))
        with pytest.raises(RegionDamaged, match=f"region {prefix[0]:x}: .*{why}"):
            Regions(conn).replay(103, hundred.leaves[103:])
        with pytest.raises(RegionDamaged):
            Regions(conn).prove(chain_id)
        conn.execute("ROLLBACK TO before")
    Regions(conn).replay(103, hundred.leaves[103:])
