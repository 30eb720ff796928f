"""What the log holds: five kinds of leaves, told apart by their first byte (SPEC 6.1).

    01 || chain id (32) || u64 seq || x (32)      73 bytes   an entry; x = head_0 at seq 0, else d_i
    02 || map root (32)                           33 bytes   the map over all leaves below this one
    03 || root (32)                               33 bytes   an owner's root is enrolled
    04 || hash (32)                               33 bytes   declared loss: of the old origin's last cosigned note
    05 || public key (32)                         33 bytes   a new log key: from here on it may sign as well

A leaf is an entry of the tree in RFC 6962's sense: its hash there is SHA-256(00 || leaf). The tags are distinct and
the lengths exact, so every leaf has one meaning and one spelling. One leaf for each entry of each chain: whoever
replays all leaves can compute every chain head, and a past that was rewritten can't be continued.

Not checked here, as it needs the leaves before: that seq counts up in each chain, that a map root is that of a
replay, that the last leaf of a tree is a map commitment, and that a declared loss stands at index 0.
"""

from __future__ import annotations

from verifier.encoding import HASH_SIZE, Reader, u64
from verifier.entry import MAX_ENTRIES
from verifier.errors import Malformed
from verifier.record import NamedTuple

ENTRY = 1
MAP = 2
ENROLMENT = 3
LOSS = 4
LOG_KEY = 5

ENTRY_SIZE = 1 + HASH_SIZE + 8 + HASH_SIZE
HASH_LEAF_SIZE = 1 + HASH_SIZE


class EntryLeaf(NamedTuple):
    """Entry `seq` of a chain. `x` is the chain head after it at seq 0, from then on the hash of the entry."""

    chain_id: bytes
    seq: int
    x: bytes


class MapLeaf(NamedTuple):
    """The map's root over all leaves below this one."""

    root: bytes


class EnrolmentLeaf(NamedTuple):
    """An owner's root, which binds owner key and blinding key, was enrolled."""

    root: bytes


class LossLeaf(NamedTuple):
    """The log continues another one, whose last cosigned note has this hash, and says that it lost what came after."""

    hash: bytes


class LogKeyLeaf(NamedTuple):
    """The log's next key. No verifier takes a key from here: it tells everybody that one is on its way."""

    public_key: bytes


Leaf = EntryLeaf | MapLeaf | EnrolmentLeaf | LossLeaf | LogKeyLeaf

_HASH_LEAVES: dict[int, type[MapLeaf] | type[EnrolmentLeaf] | type[LossLeaf] | type[LogKeyLeaf]] = {
    MAP: MapLeaf,
    ENROLMENT: EnrolmentLeaf,
    LOSS: LossLeaf,
    LOG_KEY: LogKeyLeaf,
}
_TAGS = {kind: bytes([number]) for number, kind in _HASH_LEAVES.items()}
_ENTRY_TAG = bytes([ENTRY])


def encode_leaf(leaf: Leaf) -> bytes:
    """Leaf to bytes (SPEC 6.1)."""
    if isinstance(leaf, EntryLeaf):
        chain_id, seq, x = leaf
        data, size = b"".join((_ENTRY_TAG, chain_id, u64(seq), x)), ENTRY_SIZE
        if seq >= MAX_ENTRIES or len(chain_id) != HASH_SIZE:
            raise Malformed(f"want a seq below {MAX_ENTRIES} and a chain id of {HASH_SIZE} bytes", "leaf", leaf)
    else:
        data, size = _TAGS[type(leaf)] + leaf[0], HASH_LEAF_SIZE
    if len(data) != size:
        raise Malformed(f"want {size} bytes", "leaf", len(data))
    return data


def decode_leaf(data: bytes) -> Leaf:
    """Bytes to leaf; every byte string that this accepts is exactly what `encode_leaf` gives back."""
    reader = Reader(data, "leaf")
    number = reader.u8()
    if number == ENTRY:
        chain_id, seq, x = reader.hash(), reader.u64(), reader.hash()
        if seq >= MAX_ENTRIES:
            raise Malformed(f"seq must be below {MAX_ENTRIES}", "leaf", seq)
        leaf: Leaf = EntryLeaf(chain_id, seq, x)
    elif number in _HASH_LEAVES:
        leaf = _HASH_LEAVES[number](reader.hash())
    else:
        raise Malformed("unknown kind", "leaf", number)
    reader.end()
    return leaf
