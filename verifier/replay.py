"""The replay of SPEC 6.4: which leaf may follow which. One place for the rules, two ways to use them.

    map commitment R, entry, entry, entry of a chain that skips a seq        broken: "chain-broken"
    map commitment R, entry, entry, map commitment of another map           broken: "map-wrong"

An auditor holds every leaf and knows every chain (`audit.mirror`): `check_form`, `next_tip`, `check_map`, `check_last`.
A third person is shown a stretch (`find_broken`): what R held of the chains in it, and all leaves up to the one that
breaks a rule. Chains whose place in R is not shown are not judged, nor is a commitment that covers one of them. So
nothing but a broken rule is ever found broken.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier.chain import link_leaf
from verifier.entry import MAX_ENTRIES
from verifier.errors import Malformed, NotVerified
from verifier.leaf import MAP, EntryLeaf, Leaf, LossLeaf, MapLeaf, decode_leaf, encode_leaf
from verifier.map import EMPTY, Place, map_value, updated_root
from verifier.record import NamedTuple

CHAIN_BROKEN = "chain-broken"
MAP_WRONG = "map-wrong"
MAP_ROOT = "map root"  # how the word on a wrong map begins

Tip = tuple[int, bytes, int]  # the newest entry of a chain: its seq, the head after it, the index of its leaf


class BrokenRule(NotVerified):
    """The leaf at `index` breaks a rule: which kind of rule, and how."""

    def __init__(self, index: int, fault: str, why: str) -> None:
        super().__init__(f"leaf {index}: {why}")
        self.index, self.fault, self.why = index, fault, why


# The rules


def check_form(index: int, data: bytes) -> Leaf:
    """The leaf, which has a form of SPEC 6.1; a declared loss stands at index 0 alone."""
    try:
        leaf = decode_leaf(data)
    except Malformed as error:
        raise BrokenRule(index, CHAIN_BROKEN, str(error)) from None
    if type(leaf) is LossLeaf and index != 0:
        raise BrokenRule(index, CHAIN_BROKEN, "declared loss: want index 0")
    return leaf


def next_tip(tip: Tip | None, index: int, data: bytes) -> Tip:
    """The chain's tip after this entry leaf, which has to be the next one of its chain; seq 0 starts one.

    Nearly all leaves of a log come through here, so the fields are cut out by hand; `decode_leaf` says the same, and a
    test holds both together.
    """
    seq = int.from_bytes(data[33:41], "big")
    want = 0 if tip is None else tip[0] + 1
    if seq != want or seq >= MAX_ENTRIES:
        why = f"seq of chain {data[1:33].hex()}: got {seq}, want {want}, below {MAX_ENTRIES}"
        raise BrokenRule(index, CHAIN_BROKEN, why)
    return seq, data[41:] if tip is None else link_leaf(tip[1], data[1:]), index


def check_map(index: int, got: bytes, want: bytes) -> bytes:
    """The root that a map commitment has to say."""
    if got != want:
        raise BrokenRule(index, MAP_WRONG, f"{MAP_ROOT}: got {got.hex()}, want {want.hex()}")
    return want


def check_last(index: int, data: bytes) -> bytes:
    """The last leaf of a signed tree, which commits to the map."""
    if data[:1] != bytes([MAP]):
        raise BrokenRule(index, CHAIN_BROKEN, "the last leaf is no map commitment")
    return data


# A stretch of leaves


class Known(NamedTuple):
    """A chain's place in the map that the stretch starts from; the tip is None where the map lacks the chain."""

    place: Place
    tip: Tip | None


def find_broken(first: int, leaves: Sequence[bytes], size: int, chains: Sequence[Known]) -> BrokenRule | None:
    """The first leaf in a tree of `size` that breaks a rule; `leaves` are those from number `first` on.

    With first = 0 the map before is the empty one. Else the first leaf is the commitment to the map before, or, where
    it is none, there is nothing to judge a seq or a map by, and only the forms of leaves are looked at.
    """
    stretch = _Stretch(first, chains)
    try:
        for index, data in enumerate(leaves, first):
            leaf = check_form(index, data)
            if index == size - 1:
                check_last(index, data)
            stretch.follow(index, leaf)
    except BrokenRule as broken:
        return broken
    return None


class _Stretch:
    """What is known while the leaves of a stretch go by."""

    def __init__(self, first: int, chains: Sequence[Known]) -> None:
        self._first, self._places = first, [known.place for known in chains]
        self._tips = {known.place.key: known.tip for known in chains}
        self._base = EMPTY if first == 0 else None  # the root of the map before
        self._moved: set[bytes] = set()

    def follow(self, index: int, leaf: Leaf) -> None:
        if type(leaf) is EntryLeaf:
            self._moved.add(leaf.chain_id)
            if self._base is not None and leaf.chain_id in self._tips:
                self._tips[leaf.chain_id] = next_tip(self._tips[leaf.chain_id], index, encode_leaf(leaf))
        elif type(leaf) is MapLeaf:
            if self._base is None:
                self._base = leaf.root if index == self._first else None
            elif self._moved <= self._tips.keys():
                values = {key: map_value(*tip) for key in self._moved if (tip := self._tips[key]) is not None}
                check_map(index, leaf.root, updated_root(self._places, values, self._base))
