"""The replay of SPEC 6.4 over a stretch of leaves, of which the state before is known for some chains.

    map commitment R, entry, entry, entry of a chain that skips a seq        broken: "chain-broken"
    map commitment R, entry, entry, map commitment of another map           broken: "map-wrong"

An auditor holds every leaf and knows every chain (`audit.auditor`). A third person is shown a stretch: what R held of
the chains in it, and all leaves up to the one that breaks a rule. Chains whose place in R is not shown are not judged,
nor is a commitment that covers one of them. So nothing but a broken rule is ever found broken.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier.chain import link
from verifier.errors import Malformed
from verifier.leaf import EntryLeaf, LossLeaf, MapLeaf, decode_leaf
from verifier.map import EMPTY, Place, map_value, updated_root
from verifier.record import NamedTuple

CHAIN_BROKEN = "chain-broken"
MAP_WRONG = "map-wrong"


class Tip(NamedTuple):
    """The newest entry of a chain: its seq, the head after it, the index of its leaf."""

    seq: int
    head: bytes
    leaf_index: int


class Known(NamedTuple):
    """A chain's place in the map that the stretch starts from; the tip is None where the map lacks the chain."""

    place: Place
    tip: Tip | None


class Broken(NamedTuple):
    """The first leaf that breaks a rule, which kind of rule, and how."""

    leaf_index: int
    fault: str
    why: str


def find_broken(first: int, leaves: Sequence[bytes], size: int, chains: Sequence[Known]) -> Broken | None:
    """The first leaf in a tree of `size` that breaks a rule; `leaves` are those from number `first` on.

    With first = 0 the map before is the empty one. Else the first leaf is the commitment to the map before, or, where
    it is none, there is nothing to judge a seq or a map by, and only the forms of leaves are looked at.
    """
    tips = {known.place.key: known.tip for known in chains}
    base = EMPTY if first == 0 else None
    moved: set[bytes] = set()
    for index, data in enumerate(leaves, first):
        try:
            leaf = decode_leaf(data)
        except Malformed as error:
            return Broken(index, CHAIN_BROKEN, str(error))
        if type(leaf) is LossLeaf and index != 0:
            return Broken(index, CHAIN_BROKEN, "a declared loss stands at index 0 alone")
        if type(leaf) is MapLeaf:
            if base is not None and moved <= tips.keys():
                want = updated_root([known.place for known in chains], _values(moved, tips), base)
                if want != leaf.root:
                    return Broken(index, MAP_WRONG, f"commits to map {leaf.root.hex()}, the leaves give {want.hex()}")
            elif index == first:
                base = leaf.root
        elif index == size - 1:
            return Broken(index, CHAIN_BROKEN, "the last leaf of a tree is a map commitment")
        elif type(leaf) is EntryLeaf:
            moved.add(leaf.chain_id)
            if base is not None and leaf.chain_id in tips:
                tip = tips[leaf.chain_id]
                if leaf.seq != (want_seq := 0 if tip is None else tip.seq + 1):
                    return Broken(index, CHAIN_BROKEN, f"seq {leaf.seq} of a chain whose next seq is {want_seq}")
                head = leaf.x if tip is None else link(tip.head, leaf.chain_id, leaf.seq, leaf.x)
                tips[leaf.chain_id] = Tip(leaf.seq, head, index)
    return None


def _values(moved: set[bytes], tips: dict[bytes, Tip | None]) -> dict[bytes, bytes]:
    return {chain_id: map_value(*tip) for chain_id in moved if (tip := tips[chain_id]) is not None}
