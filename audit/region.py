"""A region: one row of an auditor's replay, with chains that lie close together and the map over them (SPEC 6.3).

The map is cut into regions at every fourth bit. A region has a prefix, one byte per nibble, and knows its subtree by
place: 1 is the top of the region, 2n and 2n+1 are the halves of place n, and so 16 to 31 are its sixteen slots.

    nodes      place -> hash         of each subtree with a key; a lone key stands at its highest place, nothing below
    places     key -> place          the keys that the region holds itself
    tips       key -> tip            their newest entries
    children   the slots that go on in a region of their own, whose prefix is one nibble longer

A region with more than MAX_TIPS keys hands its fuller slots down to children, hashes and all. So a row has some
dozens of chains and some 4 KiB: small enough to be rewritten for one leaf, large enough that the leaves of a chunk
share it. Places are below 2^63; keys that agree in more bits are handed down, too. A row is

    check (16) || u8 keys || u16 children, bit i = slot 16 + i || per key: key, u64 place, u64 seq, head, u64 index
    || per node: u64 place, hash

where the check is the beginning of SHA-256 over the prefix and the rest: a bit that fell over on the disk must not
look like a lie of the log. Pure: rows come and go in `audit.regions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import chain
from struct import Struct, pack

from audit.errors import Damaged
from verifier.map import EMPTY, KEY_BITS, fold, leaf_hash, map_value
from verifier.replay import Tip

MAX_TIPS = 64
TOP = 1
SLOT0 = 16
BELOW = 2 * SLOT0  # places from here on lie below a slot
MAX_PLACE = 2**63 - 1

HEAD = Struct(">BH")
HELD = Struct(">32sQQ32sQ")
NODE = Struct(">Q32s")
CHECK_SIZE = 16


class Region:
    """The chains below one prefix, as far as no child has them."""

    __slots__ = ("_keys", "children", "nodes", "places", "prefix", "tips")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.nodes: dict[int, bytes] = {}
        self.places: dict[bytes, int] = {}
        self.tips: dict[bytes, Tip] = {}
        self.children: set[int] = set()
        self._keys: dict[int, bytes] | None = None  # places the other way round, made for the first new key

    def top(self) -> bytes:
        """The hash of the whole subtree."""
        return self.nodes.get(TOP, EMPTY)

    def child_prefix(self, slot: int) -> bytes:
        return self.prefix + bytes((slot - SLOT0,))

    # Updates

    def update(self, tips: Mapping[bytes, Tip], tops: Iterable[tuple[int, bytes]]) -> bytes:
        """The top as of a map commitment at which these chains and children's tops had become what is given here.

        Commitments come in order. `tips` of the region is not looked at: it is at the end of the chunk already.
        """
        nodes, places, changed = self.nodes, self.places, []
        for key, tip in tips.items():
            place = places.get(key) or self._insert(key)
            nodes[place] = leaf_hash(key, map_value(*tip))
            changed.append(place)
        for slot, top in tops:
            nodes[slot] = top
            changed.append(slot)
        fold(nodes, changed)
        return nodes[TOP]

    def _insert(self, key: bytes) -> int:
        """The highest place where the key is alone. Whoever stood there alone goes further down."""
        nodes, bits = self.nodes, KEY_BITS - 4 * len(self.prefix)
        path, below = self._path(key, bits), bits
        while (path >> below) in nodes:
            below -= 1
        other = self._keys_by_place().pop(path >> (below + 1), None)
        if other is not None:  # its place is an inner node from now on, and so is each one that both go through
            value, other_path = nodes[path >> (below + 1)], self._path(other, bits)
            parted = (path ^ other_path).bit_length() - 1
            nodes.update([(path >> bit, EMPTY) for bit in range(below, parted, -1)])
            self._put(other, other_path >> parted, value)
            below = parted
        self._put(key, path >> below, EMPTY)
        return path >> below

    def _path(self, key: bytes, bits: int) -> int:
        """The place of the key below which there is none; above it are those without the last bits."""
        return (int.from_bytes(key, "big") & ((1 << bits) - 1)) | (1 << bits)

    def _put(self, key: bytes, place: int, value: bytes) -> None:
        self.places[key], self._keys_by_place()[place], self.nodes[place] = place, key, value

    def held_at(self, place: int) -> bytes | None:
        """The key that is alone at this place."""
        return self._keys_by_place().get(place)

    def _keys_by_place(self) -> dict[int, bytes]:
        if self._keys is None:
            self._keys = {place: key for key, place in self.places.items()}
        return self._keys

    def half(self, key: bytes, place: int) -> int:
        """The place below this one where the key belongs."""
        bit = 4 * len(self.prefix) + place.bit_length() - 1
        return place << 1 | key[bit >> 3] >> (7 - (bit & 7)) & 1

    # Children

    def is_crowded(self) -> bool:
        """Whether there are more keys, or deeper places, than a row may have."""
        return len(self.tips) > MAX_TIPS or max(self.nodes, default=0) > MAX_PLACE

    def hand_down(self) -> list[Region]:
        """New children for all slots with two keys or more."""
        children: dict[int, Region] = {}
        for place in [place for place in self.nodes if place >= BELOW]:
            slot, inner = split_place(place)
            if slot not in children:
                children[slot] = Region(self.child_prefix(slot))
                children[slot].nodes[TOP] = self.nodes[slot]
            children[slot].nodes[inner] = self.nodes.pop(place)
        for key, place in [held for held in self.places.items() if held[1] >= BELOW]:
            slot, inner = split_place(place)
            children[slot].places[key] = inner
            children[slot].tips[key] = self.tips.pop(key)
            del self.places[key]
        self.children.update(children)
        self._keys = None
        return list(children.values())


def split_place(place: int) -> tuple[int, int]:
    """A place below a slot: the slot, and the place as its child counts it."""
    shift = place.bit_length() - SLOT0.bit_length()
    slot = place >> shift
    return slot, place ^ (slot ^ TOP) << shift


# Rows


def encode_region(region: Region) -> bytes:
    """The row of a region that is not crowded."""
    tips, nodes = region.tips, region.nodes
    children = sum([1 << slot - SLOT0 for slot in region.children])
    parts = [HEAD.pack(len(tips), children)]
    parts += [HELD.pack(key, place, *tips[key]) for key, place in region.places.items()]
    parts.append(pack(">" + "Q32s" * len(nodes), *chain.from_iterable(nodes.items())))
    data = b"".join(parts)
    return check_of(region.prefix, data) + data


def decode_region(prefix: bytes, row: object) -> Region:
    """The region that was written; its rows are our own, so the check is all that is asked."""
    if not isinstance(row, bytes) or check_of(prefix, row[CHECK_SIZE:]) != row[:CHECK_SIZE]:
        raise Damaged("not what was written")
    data = row[CHECK_SIZE:]
    region = Region(prefix)
    held, children = HEAD.unpack_from(data)
    nodes = HEAD.size + held * HELD.size
    for key, place, seq, head, index in HELD.iter_unpack(data[HEAD.size : nodes]):
        region.places[key], region.tips[key] = place, (seq, head, index)
    region.nodes = dict(NODE.iter_unpack(data[nodes:]))
    region.children = {SLOT0 + i for i in range(SLOT0) if children >> i & 1} if children else set()
    return region


def check_of(prefix: bytes, data: bytes) -> bytes:
    return sha256(prefix + b"/" + data).digest()[:CHECK_SIZE]
