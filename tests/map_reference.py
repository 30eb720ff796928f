"""The map of SPEC 6 once more, slow and obvious: recursion over all keys, no pages, no shared code.

A map is a dictionary from 32-byte keys to 32-byte value hashes. Only tests use this.
"""

from __future__ import annotations

from hashlib import sha3_256

EMPTY = b"\0" * 32


def build_map(entries: dict[bytes, bytes]) -> bytes:
    """The root of the map."""
    return subtree_hash(sorted(entries.items()), 0)


def prove(entries: dict[bytes, bytes], key: bytes) -> tuple[bytes | None, list[bytes], tuple[bytes, bytes] | None]:
    """(value hash or None, siblings deepest first, the other leaf that shows absence or None)."""
    here, depth = sorted(entries.items()), 0
    siblings: list[bytes] = []
    while len(here) > 1:
        left, right = split(here, depth)
        here, other = (right, left) if bit(key, depth) else (left, right)
        siblings.insert(0, subtree_hash(other, depth + 1))
        depth += 1
    if here and here[0][0] == key:
        return here[0][1], siblings, None
    return None, siblings, here[0] if here else None


def subtree_hash(items: list[tuple[bytes, bytes]], depth: int) -> bytes:
    if not items:
        return EMPTY
    if len(items) == 1:
        return sha3_256(b"nextcloud-audit/1/map-leaf\0" + items[0][0] + items[0][1]).digest()
    left, right = split(items, depth)
    below = subtree_hash(left, depth + 1) + subtree_hash(right, depth + 1)
    return sha3_256(b"nextcloud-audit/1/map-node\0" + below).digest()


def split(items: list[tuple[bytes, bytes]], depth: int) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    return [i for i in items if not bit(i[0], depth)], [i for i in items if bit(i[0], depth)]


def bit(key: bytes, depth: int) -> int:
    """Bit 0 is the most significant bit of byte 0."""
    return int(format(key[depth // 8], "08b")[depth % 8])
