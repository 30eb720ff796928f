"""The map: chain id -> hash of what the log last said about that chain (SPEC 6).

A compact sparse Merkle tree over 256-bit keys, SHA3-256. Bit 0 of a key is the most significant bit of its
first byte; at depth n a key goes left when its bit n is 0. A subtree is hashed by what it holds:

    no key        EMPTY = 32 zero bytes
    one key       leaf  = H("map-leaf", key, value hash)      whatever its depth
    more keys     node  = H("map-node", left, right)          either side may be EMPTY

    value hash  = H("map-value", u64 last seq, chain head, u64 index of the chain's last leaf)

H is the tagged hash of SPEC 1.4. The root of the empty map is EMPTY, that of a map of one key its leaf.
For two keys 00.. and 40.. (they part at bit 1) the root is node(node(leaf 00, leaf 40), EMPTY).

A proof is a list of siblings, the DEEPEST FIRST, in the order in which they are folded towards the root; its
length is the depth. It shows one of three things at the end of the key's path: a leaf with this key (present),
EMPTY (absent), or a leaf with another key that shares the path (absent).

Limits: at most 256 siblings, one for each bit. The deepest sibling is never EMPTY: a lone key is its subtree, so
such a proof would say the same at another depth, and every map gives exactly one proof for a key.

Not checked here: that the root is the committed one, that it was replayed by auditors, or that the tree is
canonical elsewhere than on this path. A root of a malformed tree can show a key present and absent; auditors
recompute roots from the log, which is why "current" and "absent" need their quorum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha3_256
from struct import Struct

from verifier.encoding import HASH_SIZE, MAX_U64, tag
from verifier.errors import Malformed, NotProven, RootMismatch
from verifier.record import NamedTuple

EMPTY = bytes(HASH_SIZE)
KEY_BITS = 8 * HASH_SIZE
MAX_SIBLINGS = KEY_BITS  # SPEC 6.3: one sibling for each bit of the key

LEAF_TAG = tag("map-leaf")
NODE_TAG = tag("map-node")
VALUE_TAG = tag("map-value")
_VALUE = Struct(">Q32sQ")  # last seq, head, index


class Place(NamedTuple):
    """What a map holds where a key belongs: its value hash; or None, and then `terminal` as in `verify_absence`."""

    key: bytes
    value_hash: bytes | None
    terminal: tuple[bytes, bytes] | None
    siblings: Sequence[bytes]


def map_value(last_seq: int, head: bytes, index: int) -> bytes:
    """The value hash of a chain whose last entry is `last_seq`, logged at leaf `index`."""
    if (last_seq | index) >> 63:
        raise Malformed(f"want numbers of at most {MAX_U64}", "map value", (last_seq, index))
    return sha3_256(VALUE_TAG + _VALUE.pack(last_seq, _sized_hash(head, "map head"), index)).digest()


def leaf_hash(key: bytes, value_hash: bytes) -> bytes:
    """The hash of a subtree that holds this key alone. Sizes are the caller's to check: this is hot."""
    return sha3_256(LEAF_TAG + key + value_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a subtree that holds at least two keys. Sizes are the caller's to check: this is hot."""
    return sha3_256(NODE_TAG + left + right).digest()


def fold(nodes: dict[int, bytes], changed: Iterable[int]) -> None:
    """Hashes anew every node above the changed ones, each once: 1 is the top, 2n and 2n+1 are the halves of place n.

    It says `node_hash` by itself: nearly all hashes of a replay are made here.
    """
    get, above = nodes.get, {0}
    for place in changed:
        while (place := place >> 1) not in above:
            above.add(place)
    for place in sorted(above, reverse=True)[:-1]:  # the deepest ones first
        left = 2 * place
        nodes[place] = sha3_256(NODE_TAG + get(left, EMPTY) + get(left + 1, EMPTY)).digest()


def verify_presence(key: bytes, value_hash: bytes, siblings: Sequence[bytes], root: bytes) -> bytes:
    """Returns the value hash: the map with this root holds it under `key`."""
    _check_shape(key, siblings, root)
    leaf = leaf_hash(key, _sized_hash(value_hash, "map value"))
    _verify_path(key, leaf, siblings, root)
    return value_hash


def verify_absence(key: bytes, terminal: tuple[bytes, bytes] | None, siblings: Sequence[bytes], root: bytes) -> bytes:
    """Returns the key: the map with this root has no value for it.

    `terminal` is what stands where the key would be: None for EMPTY, else another key and its value hash.
    """
    _check_shape(key, siblings, root)
    shown = EMPTY if terminal is None else _other_leaf(key, terminal, len(siblings))
    _verify_path(key, shown, siblings, root)
    return key


def verify_place(place: Place, root: bytes) -> Place:
    """The place, once the map with this root has it."""
    if place.value_hash is None:
        verify_absence(place.key, place.terminal, place.siblings, root)
    else:
        verify_presence(place.key, place.value_hash, place.siblings, root)
    return place


def updated_root(places: Sequence[Place], updates: Mapping[bytes, bytes], root: bytes) -> bytes:
    """The root after these updates of a map with this root, of which the place of every updated key is shown.

    Keys are only ever added and changed, so the siblings that are not updated stay what they are. Two keys that share
    a path down to some depth show that part of it twice; both led to the root, so both show the same.
    """
    by_key = {place.key: verify_place(place, root) for place in places}
    if missing := updates.keys() - by_key.keys():
        raise NotProven("broken-proof", f"map: the place of {min(missing).hex()} is not shown")
    return _fold_places([by_key[key] for key in sorted(updates)], updates, 0) if updates else root


def _fold_places(places: list[Place], updates: Mapping[bytes, bytes], depth: int) -> bytes:
    """The new hash of the subtree at `depth` in which all these places lie."""
    if any(len(place.siblings) == depth for place in places):
        return _subtree(_leaves(places, updates, depth), depth)
    sides: tuple[list[Place], list[Place]] = ([], [])
    for place in places:
        sides[_bit(place.key, depth)].append(place)
    hashes = [
        _fold_places(side, updates, depth + 1) if side else places[0].siblings[len(places[0].siblings) - 1 - depth]
        for side in sides
    ]
    return node_hash(hashes[0], hashes[1])


def _leaves(places: list[Place], updates: Mapping[bytes, bytes], depth: int) -> dict[bytes, bytes]:
    """All keys of a subtree that had one key or none, after the updates."""
    if any(len(place.siblings) != depth for place in places):
        raise NotProven("broken-proof", "map: one path ends where another one goes on")
    leaves = dict([place.terminal for place in places if place.terminal is not None])
    return leaves | {place.key: updates[place.key] for place in places}


def _subtree(leaves: dict[bytes, bytes], depth: int) -> bytes:
    """The hash of a subtree that holds just these keys, which agree in the first `depth` bits."""
    if len(leaves) < 2:
        return next((leaf_hash(*leaf) for leaf in leaves.items()), EMPTY)
    sides: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for key, value_hash in leaves.items():
        sides[_bit(key, depth)][key] = value_hash
    return node_hash(_subtree(sides[0], depth + 1), _subtree(sides[1], depth + 1))


def _bit(key: bytes, depth: int) -> int:
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def _other_leaf(key: bytes, terminal: tuple[bytes, bytes], depth: int) -> bytes:
    """The hash of a leaf that stands in the way of `key`: another key, on the same path down to `depth`."""
    if type(terminal) is not tuple or len(terminal) != 2:
        raise Malformed("want a key and a value hash", "map terminal")
    other, value_hash = _sized_hash(terminal[0], "map terminal key"), _sized_hash(terminal[1], "map terminal value")
    if other == key:
        raise NotProven("broken-proof", "map: absence shown by the key itself")
    if _path(other, depth) != _path(key, depth):
        raise NotProven("broken-proof", f"map: the leaf in the way does not share the first {depth} bits")
    return leaf_hash(other, value_hash)


def _verify_path(key: bytes, computed: bytes, siblings: Sequence[bytes], root: bytes) -> None:
    """Folds the siblings, deepest first, and compares with the root."""
    path = _path(key, len(siblings))
    for sibling in siblings:
        pair = sibling + computed if path & 1 else computed + sibling
        computed = sha3_256(NODE_TAG + pair).digest()
        path >>= 1
    if computed != root:
        raise RootMismatch("map", root, computed)


def _path(key: bytes, depth: int) -> int:
    """The first `depth` bits of a key; the lowest bit of the number is the deepest one."""
    return int.from_bytes(key, "big") >> (KEY_BITS - depth)


def _check_shape(key: bytes, siblings: Sequence[bytes], root: bytes) -> None:
    _sized_hash(key, "map key")
    _sized_hash(root, "map root")
    if len(siblings) > MAX_SIBLINGS:
        raise Malformed(f"want at most {MAX_SIBLINGS}", "map siblings", len(siblings))
    for sibling in siblings:
        _sized_hash(sibling, "map siblings")
    if siblings and siblings[0] == EMPTY:
        raise Malformed("deepest sibling is empty", "map siblings")


def _sized_hash(value: bytes, where: str) -> bytes:
    if type(value) is not bytes or len(value) != HASH_SIZE:
        raise Malformed(f"want {HASH_SIZE} bytes", where, value)
    return value
