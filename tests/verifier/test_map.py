"""The map's proofs (SPEC 6): what holds, and each way to make a false one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import map_reference as reference
from verifier.encoding import tagged, u64
from verifier.errors import Malformed, NotProven, RootMismatch
from verifier.map import (
    EMPTY,
    MAX_SIBLINGS,
    Place,
    leaf_hash,
    map_value,
    node_hash,
    updated_root,
    verify_absence,
    verify_presence,
)

V = b"\x11" * 32
W = b"\x22" * 32
OTHER_ROOT = b"\x99" * 32


def key_of(*bits: int) -> bytes:
    """A key that starts with these bits and goes on with zeros."""
    return int("".join(map(str, bits)).ljust(256, "0"), 2).to_bytes(32, "big")


def flip(key: bytes, bit: int) -> bytes:
    return (int.from_bytes(key, "big") ^ 1 << (255 - bit)).to_bytes(32, "big")


ZERO, QUARTER, HALF = key_of(0), key_of(0, 1), key_of(1)
THREE = {ZERO: V, QUARTER: W, HALF: V}
PAIR = {ZERO: V, QUARTER: W}  # they part at bit 1, so the right half is empty


@st.composite
def close_maps(draw: st.DrawFn) -> tuple[dict[bytes, bytes], bytes]:
    """A map with some keys that share up to 255 bits, and a key to ask for."""
    keys = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=6))
    for bit in draw(st.lists(st.integers(0, 255), max_size=6)):
        keys.append(flip(draw(st.sampled_from(keys)), bit))
    asked = draw(st.sampled_from([*keys, flip(keys[0], draw(st.integers(0, 255)))]))
    return {key: tagged("test", key) for key in draw(st.lists(st.sampled_from(keys)))}, asked


@given(close_maps())
def test_map_proof_of_the_reference_verifies(case: tuple[dict[bytes, bytes], bytes]) -> None:
    """Every proof of the slow reference holds, for presence and for absence, and for that alone."""
    entries, key = case
    root = reference.build_map(entries)
    value_hash, siblings, terminal = reference.prove(entries, key)
    if value_hash is None:
        assert key == verify_absence(key, terminal, siblings, root)
        with pytest.raises((RootMismatch, Malformed)):
            verify_presence(key, V, siblings, root)
    else:
        assert value_hash == verify_presence(key, value_hash, siblings, root)
        with pytest.raises((RootMismatch, Malformed)):
            verify_absence(key, None, siblings, root)


def test_map_value_commits_to_seq_head_and_index() -> None:
    """The value hash is the tagged hash of three fixed-size fields."""
    assert tagged("map-value", u64(3), V, u64(9)) == map_value(3, V, 9)
    assert map_value(9, V, 3) != map_value(3, V, 9)


@pytest.mark.parametrize(("seq", "index"), [(1 << 63, 0), (0, 1 << 63), (-1, 0), (0, -1)])
def test_map_value_takes_numbers_of_63_bits(seq: int, index: int) -> None:
    """Numbers that no other part of the format may have are refused here, too."""
    with pytest.raises(Malformed, match="map value"):
        map_value(seq, V, index)


def test_map_hashes_are_the_tagged_ones() -> None:
    """The constants of the hot path say what SPEC 1.3 says."""
    assert tagged("map-leaf", ZERO, V) == leaf_hash(ZERO, V)
    assert tagged("map-node", V, W) == node_hash(V, W)


def test_map_of_nothing_and_of_one_key_are_constants_of_the_format() -> None:
    """The empty root is 32 zero bytes, the root of one key is its leaf, and both prove with no sibling."""
    assert bytes(32) == EMPTY == reference.build_map({})
    assert ZERO == verify_absence(ZERO, None, [], EMPTY)
    assert V == verify_presence(ZERO, V, [], leaf_hash(ZERO, V))
    assert HALF == verify_absence(HALF, (ZERO, V), [], leaf_hash(ZERO, V))


def test_map_root_of_the_docstring() -> None:
    """Bit 0 is the most significant bit of byte 0; siblings come deepest first."""
    root = node_hash(node_hash(leaf_hash(ZERO, V), leaf_hash(QUARTER, W)), EMPTY)
    assert root == reference.build_map(PAIR)
    assert V == verify_presence(ZERO, V, [leaf_hash(QUARTER, W), EMPTY], root)
    assert HALF == verify_absence(HALF, None, [node_hash(leaf_hash(ZERO, V), leaf_hash(QUARTER, W))], root)


def test_padded_depth_is_malformed_even_if_the_root_fits() -> None:
    """Attack: a lone leaf pushed down under empty siblings, in a tree that was built that way."""
    leaf = leaf_hash(ZERO, V)
    padded = node_hash(node_hash(leaf, EMPTY), EMPTY)
    with pytest.raises(Malformed, match="deepest sibling is empty"):
        verify_presence(ZERO, V, [EMPTY, EMPTY], padded)
    with pytest.raises(Malformed, match="deepest sibling is empty"):
        verify_absence(QUARTER, None, [EMPTY], EMPTY)


def test_more_than_256_siblings_are_malformed() -> None:
    """Attack: a path longer than the key, so that its upper part is nobody's."""
    computed = leaf_hash(ZERO, V)
    for _ in range(MAX_SIBLINGS + 1):
        computed = node_hash(computed, W)
    with pytest.raises(Malformed, match="at most 256"):
        verify_presence(ZERO, V, [W] * (MAX_SIBLINGS + 1), computed)


def test_full_depth_verifies() -> None:
    """Two keys that differ in the last bit alone have 256 siblings."""
    entries = {ZERO: V, flip(ZERO, 255): W}
    value_hash, siblings, _ = reference.prove(entries, ZERO)
    assert 256 == len(siblings)
    assert value_hash == verify_presence(ZERO, V, siblings, reference.build_map(entries))


def test_absence_shown_by_the_key_itself_does_not_hold() -> None:
    """Attack: the key's own leaf (or an older value's) offered as the leaf that stands in its way."""
    _, siblings, _ = reference.prove(THREE, ZERO)
    with pytest.raises(NotProven, match="by the key itself"):
        verify_absence(ZERO, (ZERO, V), siblings, reference.build_map(THREE))


def test_absence_shown_by_a_leaf_off_the_path_does_not_hold() -> None:
    """Attack: a leaf that is in the map, at the place where its own key leads, offered for a key elsewhere."""
    _, siblings, _ = reference.prove(THREE, QUARTER)
    near = flip(QUARTER, 7)
    assert near == verify_absence(near, (QUARTER, W), siblings, reference.build_map(THREE))
    with pytest.raises(NotProven, match="first 2 bits"):
        verify_absence(ZERO, (QUARTER, W), siblings, reference.build_map(THREE))


def test_leaf_misplaced_by_the_server_shows_no_absence() -> None:
    """Attack: a committed tree with a foreign leaf where the key's own belongs; the root fits, the path does not."""
    root = node_hash(leaf_hash(HALF, W), leaf_hash(HALF, V))
    with pytest.raises(NotProven, match="first 1 bits"):
        verify_absence(ZERO, (HALF, W), [leaf_hash(HALF, V)], root)


def test_absence_of_a_present_key_fails() -> None:
    """Attack: EMPTY claimed where a leaf stands."""
    _, siblings, _ = reference.prove(THREE, ZERO)
    with pytest.raises(RootMismatch):
        verify_absence(ZERO, None, siblings, reference.build_map(THREE))


def test_absence_with_a_cut_path_fails() -> None:
    """Attack: an interior node passed off as empty by dropping the deepest sibling."""
    _, siblings, _ = reference.prove(THREE, ZERO)
    with pytest.raises(RootMismatch):
        verify_absence(ZERO, None, siblings[1:], reference.build_map(THREE))


def test_node_passed_off_as_a_leaf_fails() -> None:
    """Attack: leaf and node hash 64 bytes each; only the tag tells them apart."""
    left, right = leaf_hash(ZERO, V), leaf_hash(HALF, V)
    with pytest.raises(RootMismatch):
        verify_presence(left, right, [], node_hash(left, right))


def test_old_value_fails_against_the_new_root() -> None:
    """Attack: yesterday's state of a chain with today's siblings."""
    _, siblings, _ = reference.prove(THREE, ZERO)
    with pytest.raises(RootMismatch) as failure:
        verify_presence(ZERO, W, siblings, reference.build_map(THREE))
    assert failure.value.expected == reference.build_map(THREE)
    assert failure.value.computed == reference.build_map({**THREE, ZERO: W})


def test_proof_of_one_key_fails_for_another() -> None:
    """Attack: the value of a chain shown for a chain beside it."""
    value_hash, siblings, _ = reference.prove(THREE, QUARTER)
    assert value_hash is not None
    for key in (ZERO, HALF, flip(QUARTER, 255)):
        with pytest.raises(RootMismatch):
            verify_presence(key, value_hash, siblings, reference.build_map(THREE))


def test_root_first_siblings_fail() -> None:
    """The order is part of the format: deepest first."""
    _, siblings, _ = reference.prove(THREE, ZERO)
    with pytest.raises(RootMismatch):
        verify_presence(ZERO, V, siblings[::-1], reference.build_map(THREE))


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33), "0" * 32, None, 7])
def test_wrong_sizes_are_malformed(bad: object) -> None:
    """Attack: a field shifted into its neighbour by odd sizes; and nothing but our own errors comes out."""
    wrong: bytes = bad  # type: ignore[assignment]
    with pytest.raises(Malformed, match="map key"):
        verify_presence(wrong, V, [W], OTHER_ROOT)
    with pytest.raises(Malformed, match="map value"):
        verify_presence(ZERO, wrong, [W], OTHER_ROOT)
    with pytest.raises(Malformed, match="map siblings"):
        verify_presence(ZERO, V, [W, wrong], OTHER_ROOT)
    with pytest.raises(Malformed, match="map root"):
        verify_absence(ZERO, None, [W], wrong)
    with pytest.raises(Malformed, match="map terminal key"):
        verify_absence(ZERO, (wrong, V), [W], OTHER_ROOT)
    with pytest.raises(Malformed, match="map terminal value"):
        verify_absence(ZERO, (HALF, wrong), [W], OTHER_ROOT)
    with pytest.raises(Malformed, match="map head"):
        map_value(1, wrong, 2)


def test_terminal_of_another_shape_is_malformed() -> None:
    """A terminal is a pair or nothing."""
    for terminal in ((HALF,), (HALF, V, W), [HALF, V]):
        with pytest.raises(Malformed, match="map terminal"):
            verify_absence(ZERO, terminal, [], OTHER_ROOT)  # type: ignore[arg-type]


def test_accumulated_maps_have_one_known_hash() -> None:
    """All maps of the first 0..130 test keys, folded into one hash for other implementations to reproduce."""
    entries: dict[bytes, bytes] = {}
    roots = [reference.build_map(entries)]
    for n in range(130):
        entries[tagged("test-key", u64(n))] = map_value(n, tagged("test-head", u64(n)), n + 1)
        roots.append(reference.build_map(entries))
    assert "88461325258c2b016e5e798a809f4fb0257c3759cfd9fff74a7a40cafb2a0c46" == tagged("test-maps", *roots).hex()


# Updates from places alone


@st.composite
def updates_of_close_maps(draw: st.DrawFn) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """A map, and values for some of its keys and for some that it lacks."""
    entries, asked = draw(close_maps())
    keys = [*entries, asked]
    for bit in draw(st.lists(st.integers(0, 255), max_size=6)):
        keys.append(flip(draw(st.sampled_from(keys)), bit))
    return entries, {key: tagged("new", key) for key in draw(st.lists(st.sampled_from(keys)))}


def place_of(entries: dict[bytes, bytes], key: bytes) -> Place:
    value_hash, siblings, terminal = reference.prove(entries, key)
    return Place(key, value_hash, terminal, siblings)


@given(updates_of_close_maps(), st.booleans())
def test_map_update_from_places_is_that_of_the_whole_map(
    case: tuple[dict[bytes, bytes], dict[bytes, bytes]], more: bool
) -> None:
    """The places of the updated keys give the root that the reference has over all keys; more places change nothing."""
    entries, updates = case
    shown = {*updates, *(entries if more else ())}
    places = [place_of(entries, key) for key in shown]
    got = updated_root(places, updates, reference.build_map(entries))
    assert got == reference.build_map(entries | updates)


def test_map_update_wants_every_place_under_the_root() -> None:
    """A place of another map, a place that is not shown, and a false absence are refused."""
    root, update = reference.build_map(THREE), {ZERO: V, HALF: V}
    zero, half = place_of(THREE, ZERO), place_of(THREE, HALF)
    with pytest.raises(NotProven, match="not shown"):
        updated_root([zero], update, root)
    for wrong in (place_of(PAIR, ZERO), zero._replace(value_hash=None), zero._replace(siblings=zero.siblings[1:])):
        with pytest.raises(RootMismatch):
            updated_root([wrong, half], update, root)
