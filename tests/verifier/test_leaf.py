"""Leaves: five tags, exact lengths, one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.entry import MAX_ENTRIES
from verifier.errors import Malformed
from verifier.leaf import EnrolmentLeaf, EntryLeaf, Leaf, LogKeyLeaf, LossLeaf, MapLeaf, decode_leaf, encode_leaf

A, B = b"a" * 32, b"b" * 32
EXAMPLES = [
    (EntryLeaf(A, 7, B), b"\x01" + A + bytes(7) + b"\x07" + B),
    (MapLeaf(A), b"\x02" + A),
    (EnrolmentLeaf(A), b"\x03" + A),
    (LossLeaf(A), b"\x04" + A),
    (LogKeyLeaf(A), b"\x05" + A),
]


@pytest.mark.parametrize(("leaf", "data"), EXAMPLES)
def test_leaf_has_the_bytes_of_the_spec(leaf: Leaf, data: bytes) -> None:
    """Each kind is written as SPEC 6.1 says and read back as the same value of the same type."""
    assert encode_leaf(leaf) == data
    assert decode_leaf(data) == leaf
    assert type(decode_leaf(data)) is type(leaf)


@pytest.mark.parametrize(("leaf", "data"), EXAMPLES)
def test_decode_leaf_refuses_other_lengths(leaf: Leaf, data: bytes) -> None:
    """Nothing shorter or longer is a leaf."""
    for other in [data[:n] for n in range(len(data))] + [data + b"\0"]:
        with pytest.raises(Malformed):
            decode_leaf(other)


@given(st.binary(min_size=33, max_size=73))
def test_decode_leaf_accepts_one_spelling(data: bytes) -> None:
    """What is accepted is exactly what `encode_leaf` gives back."""
    try:
        leaf = decode_leaf(data)
    except Malformed:
        return
    assert encode_leaf(leaf) == data


@pytest.mark.parametrize("number", [0, 6, 255])
def test_decode_leaf_refuses_unknown_kinds(number: int) -> None:
    """A tag that has no meaning is refused."""
    with pytest.raises(Malformed, match="unknown kind"):
        decode_leaf(bytes([number]) + A)


def test_leaf_refuses_a_seq_beyond_a_chain() -> None:
    """A chain has 16,384 entries at most, so no leaf names a later one."""
    decode_leaf(encode_leaf(EntryLeaf(A, MAX_ENTRIES - 1, B)))
    with pytest.raises(Malformed, match="seq"):
        encode_leaf(EntryLeaf(A, MAX_ENTRIES, B))
    with pytest.raises(Malformed, match="seq"):
        decode_leaf(b"\x01" + A + MAX_ENTRIES.to_bytes(8, "big") + B)


@pytest.mark.parametrize(
    "leaf",
    [EntryLeaf(A[1:], 0, B), EntryLeaf(A[1:], 0, B + b"x"), EntryLeaf(A, 0, B + b"x"), MapLeaf(b""), LossLeaf(A + A)],
)
def test_encode_leaf_refuses_hashes_of_another_size(leaf: Leaf) -> None:
    """A hash that is not 32 bytes never gets into a leaf, though the sum of lengths may be right."""
    with pytest.raises(Malformed):
        encode_leaf(leaf)
