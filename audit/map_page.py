"""A page of the map of SPEC 6.3: four levels of it, in one row (`audit.mapstore`).

A page belongs to a prefix of the key, one byte per nibble; the root page has the prefix b"". It holds what lies one
to four levels below its own place, by heap index: 2 and 3 are its children, 16..31 its sixteen slots. A slot with
two keys or more continues in the page whose prefix is one nibble longer.

    page = u32 interior bitmap || u32 leaf bitmap || nodes || leaves        bit i = heap index i, both in heap order
    node = hash                     heap index 2..15
         | hash || u64 version      heap index 16..31: a reference to the child page
    leaf = key || value hash        at the highest place where its key is alone

A page has at least two keys, except the root page: no bit at all is the empty map, leaf bit 1 the map of one key.

Decoded, a page is 32 nodes by heap index, and a leaf stands at every index from its highest place down to its slot, so
that each level can be folded from the one below. Index 1 is the page's own place. One set of keys has one page:
`check_page` computes everything anew from the slots, the bytes included. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from struct import Struct

from audit.errors import Damaged
from verifier.encoding import HASH_SIZE
from verifier.map import EMPTY, leaf_hash, node_hash

LAYOUTS = 4096  # interior bitmaps whose layout is remembered, about 2 KiB each

LEAF_SIZE = 2 * HASH_SIZE
REF_SIZE = HASH_SIZE + 8
MAX_DEPTH = 2 * HASH_SIZE  # nibbles of a key: every page lies above
SLOT0 = 16  # heap index of the first slot
ALL_SLOTS = 0xFFFF_0000
TOP = 0b1100  # heap indexes 2 and 3
BITMAPS = Struct(">II")
NO_PAGE = BITMAPS.pack(0, 0)  # as a root page: the empty map

# Nothing (no key), a leaf, or an interior node (a hash; at a slot a reference). The size tells which.
Node = bytes | None


def decode_page(page: bytes, depth: int) -> list[Node]:
    """The nodes of a page. Index 1 is left empty unless the map is a single leaf."""
    interior, leaf = BITMAPS.unpack_from(page)
    nodes: list[Node] = [None] * 32
    for i, part in _layout(interior):
        nodes[i] = page[part]
    pos = len(page) - LEAF_SIZE * leaf.bit_count()
    for i in _bits(leaf):
        node = page[pos : pos + LEAF_SIZE]
        pos += LEAF_SIZE
        place = SLOT0 + nibble(node, depth)
        while place >= i:
            nodes[place] = node
            place >>= 1
    return nodes


def encode_page(nodes: list[Node]) -> bytes:
    """The one encoding of folded nodes."""
    interior = leaf = 0
    inner: list[bytes] = []
    leaves: list[bytes] = []
    for i, node in enumerate(nodes):
        if node is None:
            continue
        if len(node) != LEAF_SIZE:
            if i > 1:
                interior |= 1 << i
                inner.append(node)
        elif i == 1 or nodes[i >> 1] is not node:
            leaf |= 1 << i
            leaves.append(node)
    return BITMAPS.pack(interior, leaf) + b"".join(inner) + b"".join(leaves)


def fold_page(nodes: list[Node], changed: int) -> None:
    """Computes anew every node above the changed ones (a bitmap of heap indexes), up to index 1."""
    for i in range(SLOT0 - 1, 0, -1):
        if changed >> 2 * i & 3:
            changed |= 1 << i
            left, right = nodes[2 * i], nodes[2 * i + 1]
            if (left is None or right is None) and _is_lone(left or right):
                nodes[i] = left or right  # a lone leaf is lifted
            else:
                nodes[i] = node_hash(hash_node(left), hash_node(right))


def _is_lone(node: Node) -> bool:
    """Whether a subtree holds at most one key, told from its only side that is not empty."""
    return node is None or len(node) == LEAF_SIZE


def hash_node(node: Node) -> bytes:
    if node is None:
        return EMPTY
    if len(node) == LEAF_SIZE:
        return leaf_hash(node[:HASH_SIZE], node[HASH_SIZE:])
    return node[:HASH_SIZE]


@lru_cache(maxsize=LAYOUTS)
def _layout(interior: int) -> tuple[tuple[int, slice], ...]:
    """Where each interior node of a page stands: the few shapes of a tree's pages repeat."""
    parts = []
    pos = BITMAPS.size
    for i in _bits(interior):
        end = pos + (HASH_SIZE if i < SLOT0 else REF_SIZE)
        parts.append((i, slice(pos, end)))
        pos = end
    return tuple(parts)


def descend(page: bytes, digit: int, siblings: list[bytes]) -> Node:
    """What the key with this nibble meets in a page: nothing, a leaf or a reference. Adds the siblings on the way."""
    interior, leaf = BITMAPS.unpack_from(page)
    if not interior and leaf in (0, 0b10):  # a root page with fewer than two keys
        return _node(page, interior, leaf, 1)
    slot = SLOT0 + digit
    for i in (slot >> 3, slot >> 2, slot >> 1, slot):
        siblings.append(hash_node(_node(page, interior, leaf, i ^ 1)))
        if not interior >> i & 1:
            break
    return _node(page, interior, leaf, i)


def _node(page: bytes, interior: int, leaf: int, i: int) -> Node:
    """The node at one heap index, without decoding the page."""
    bit = 1 << i
    if interior & bit:
        before = interior & bit - 1
        pos = BITMAPS.size + HASH_SIZE * before.bit_count() + 8 * (before >> SLOT0).bit_count()
        return page[pos : pos + (HASH_SIZE if i < SLOT0 else REF_SIZE)]
    if leaf & bit:
        pos = len(page) - LEAF_SIZE * (leaf >> i).bit_count()
        return page[pos : pos + LEAF_SIZE]
    return None


def check_page(page: object, prefix: bytes) -> list[Node]:
    """The nodes of a page in which everything follows from the slots, the bytes included."""
    if type(page) is not bytes or not _has_size(page) or len(prefix) >= MAX_DEPTH:
        raise Damaged("not a page")
    nodes = decode_page(page, len(prefix))
    digits = digits_of(prefix)
    fold_page(nodes, ALL_SLOTS)
    if encode_page(nodes) != page:
        raise Damaged("its nodes do not follow from its slots")
    if any(node is not None and len(node) == LEAF_SIZE and not node.hex().startswith(digits) for node in nodes[SLOT0:]):
        raise Damaged("holds a key of another page")
    return nodes


def _has_size(page: bytes) -> bool:
    if len(page) < BITMAPS.size:
        return False
    interior, leaf = BITMAPS.unpack_from(page)
    inner = HASH_SIZE * interior.bit_count() + 8 * (interior >> SLOT0).bit_count()
    return not (interior & 3 or leaf & 1) and len(page) == BITMAPS.size + inner + LEAF_SIZE * leaf.bit_count()


def _bits(bitmap: int) -> Iterator[int]:
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


def nibble(key: bytes, depth: int) -> int:
    byte = key[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def digits_of(prefix: bytes) -> str:
    """A prefix as hexadecimal digits, one for each nibble."""
    return prefix.hex()[1::2]
