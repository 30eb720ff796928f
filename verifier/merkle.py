"""The log's Merkle tree: roots, inclusion and consistency proofs (RFC 6962 2.1, RFC 9162 2.1; SHA-256).

    leaf hash = SHA-256(00 || entry)      node hash = SHA-256(01 || left || right)      empty tree = SHA-256("")

A tree of n leaves splits at the largest power of two below n. Seven leaves, with complete subtrees as (level, index):

                    root
              /              \\
           (2,0)              o            compact_range(7)       = [(2,0), (1,2), (0,6)], left to right
          /     \\           /   \\         root                   = fold_right of their three hashes
       (1,0)   (1,1)     (1,2)   |         inclusion_ranges(2, 7) = [(3,4), (0,2), (4,7)]
       /  \\    /  \\     /  \\     |
      0    1   2    3   4    5    6

The path of a leaf goes up in two parts. As long as its node and the last leaf's node differ, the sibling stands
where the bit of the index says (`inner` steps). From there on the leaf's node holds the right edge, so every
sibling left is a complete subtree to its left, one for each bit of the index that is set (`border` steps). Index and
size alone thus fix how many hashes a proof has and on which side each goes: one spelling for each proof, and a proof
of one (index, size) fits no other of a different shape. Callers must take the size from the *signed* checkpoint.

A consistency proof is the path, in the new tree, of the last complete subtree of the old tree; the siblings on the
left also rebuild the old root. C2SP rules: equal sizes or an old size of 0 need an empty proof (tlog-witness), at
most 63 hashes (only beyond 2^62 leaves would a consistency proof want one more).

Not checked here: who signed the root (`note`, `checkpoint`, `policy`), and what an entry means.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from verifier.encoding import HASH_SIZE, MAX_U64
from verifier.errors import Malformed, RootMismatch

EMPTY_ROOT = sha256(b"").digest()
MAX_PROOF_HASHES = 63  # c2sp.org/tlog-witness: "MUST NOT send more than 63 consistency proof lines"

Range = tuple[int, int]  # leaves begin..end-1
Subtree = tuple[int, int]  # (level, index): leaves index * 2^level .. (index + 1) * 2^level - 1


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(00 || entry) (RFC 6962 2.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(01 || left || right) (RFC 6962 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bytes:
    """The root, once the proof leads there: the entry with this leaf hash is number `index` of the `size` entries."""
    _check_hashes("root", root)
    computed = root_from_inclusion(index, size, leaf, proof)
    if computed != root:
        raise RootMismatch(f"inclusion of index {index} in size {size}", root, computed)
    return root


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that a proof leads to from a leaf hash at `index` of `size` (RFC 9162 2.1.3.2). Proves nothing yet."""
    _check_size("inclusion proof size", size)
    if not 0 <= index < size:
        raise Malformed(f"want an index below the size {size}", "inclusion proof index", index)
    _check_hashes("leaf hash", leaf)
    inner = _check_path("inclusion proof", index, size - 1, proof)
    node = leaf
    for sibling in proof[:inner]:
        pair = sibling + node if index & 1 else node + sibling
        node = sha256(b"\x01" + pair).digest()
        index >>= 1
    for sibling in proof[inner:]:
        node = sha256(b"\x01" + sibling + node).digest()
    return node


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bytes:
    """The new root, once the proof holds: the old tree's leaves are the new tree's first ones (RFC 9162 2.1.4.2).

    The roots of empty trees are checked as well, so a size 0 never goes with a root of the signer's choice.
    """
    where = "consistency proof"
    _check_size(f"{where} new size", new_size)
    if not 0 <= old_size <= new_size:
        raise Malformed(f"want an old size of at most {new_size}", where, old_size)
    _check_hashes("old root", old_root)
    _check_hashes("new root", new_root)
    if old_size in (0, new_size):
        if proof:
            raise Malformed(f"want no hashes from size {old_size} to {new_size}", where, len(proof))
        if old_size == 0:
            _same(f"{where}, empty tree", old_root, EMPTY_ROOT)
        if old_size == new_size:
            _same(f"{where}, equal sizes", new_root, old_root)
        return new_root
    computed_old, computed_new = roots_from_consistency(old_size, old_root, new_size, proof)
    _same(f"{where} from size {old_size}, old tree", old_root, computed_old)
    _same(f"{where} from size {old_size} to {new_size}, new tree", new_root, computed_new)
    return new_root


def roots_from_consistency(
    old_size: int, old_root: bytes, new_size: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The old and the new root that a proof leads to, 0 < old size < new size. Proves nothing yet.

    `old_root` is used where the old tree is one complete subtree, which a proof does not repeat.
    """
    where = "consistency proof"
    if len(proof) > MAX_PROOF_HASHES:
        raise Malformed(f"want at most {MAX_PROOF_HASHES} hashes", where, len(proof))
    level = _trailing_zeros(old_size)
    index, last = (old_size - 1) >> level, (new_size - 1) >> level
    if index == 0:  # the old tree is one complete subtree, whose hash the verifier knows: its root
        start, path = old_root, proof
    elif proof:
        start, path = proof[0], proof[1:]
        _check_hashes(where, start)
    else:
        raise Malformed("want at least one hash", where, 0)
    inner = _check_path(where, index, last, path)
    old = new = start
    for step, sibling in enumerate(path):
        if step >= inner or index >> step & 1:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    return old, new


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The leaves under each hash of the inclusion proof, in proof order; only the last range may be ragged."""
    if not 0 <= index < size:
        raise Malformed(f"want an index below the size {size}", "inclusion proof index", index)
    return _sibling_ranges(0, index, size)


def consistency_ranges(old_size: int, new_size: int) -> list[Range]:
    """The leaves under each hash of the consistency proof, in proof order (none from 0 or between equal sizes)."""
    if not 0 <= old_size <= new_size:
        raise Malformed(f"want an old size of at most {new_size}", "consistency proof", old_size)
    if old_size in (0, new_size):
        return []
    level = _trailing_zeros(old_size)
    index = (old_size - 1) >> level
    start = [] if index == 0 else [(index << level, old_size)]
    return start + _sibling_ranges(level, index, new_size)


def complete_subtrees(begin: int, end: int) -> list[Subtree]:
    """The complete subtrees, left to right, that make up a range of the two functions above (or a whole tree)."""
    subtrees = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin & ((1 << level) - 1):
            raise Malformed("want a range that starts on a multiple of its largest subtree", "range", (begin, end))
        subtrees.append((level, begin >> level))
        begin += 1 << level
    return subtrees


def compact_range(size: int) -> list[Subtree]:
    """The complete subtrees of a tree of this size, left to right: one for each bit of the size that is set."""
    return complete_subtrees(0, size)


def fold_right(hashes: Sequence[bytes]) -> bytes:
    """The root over the hashes of `complete_subtrees`, left to right; of no hashes, the empty tree's root."""
    if not hashes:
        return EMPTY_ROOT
    node = hashes[-1]
    for left in reversed(hashes[:-1]):
        node = node_hash(left, node)
    return node


def append_leaf(peaks: Sequence[bytes], size: int, leaf: bytes) -> list[bytes]:
    """The hashes of `compact_range(size + 1)`, given those of `compact_range(size)` and the next leaf hash."""
    if len(peaks) != size.bit_count():
        raise Malformed(f"want {size.bit_count()} hashes for size {size}", "compact range", len(peaks))
    kept = len(peaks) - _trailing_zeros(size + 1)  # as many merges as the size ends in ones
    return [*peaks[:kept], fold_right([*peaks[kept:], leaf])]


def extend_peaks(peaks: Sequence[bytes], size: int, hashes: Sequence[bytes]) -> list[bytes]:
    """The hashes of `compact_range` after more leaves, level by level: one pass instead of one call for each leaf."""
    old, new, nodes = list(peaks), [], list(hashes)
    while nodes:
        if size & 1:
            nodes.insert(0, old.pop())
        if len(nodes) & 1:
            new.append(nodes.pop())
        nodes = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
        size >>= 1
    return [*old, *reversed(new)]


def _sibling_ranges(level: int, index: int, size: int) -> list[Range]:
    """Siblings on the way up from node (level, index) in a tree of `size`; those beyond the right edge do not exist."""
    ranges = []
    last = (size - 1) >> level
    while last:
        sibling = index ^ 1
        if sibling <= last:
            ranges.append((sibling << level, min((sibling + 1) << level, size)))
        level, index, last = level + 1, index >> 1, last >> 1
    return ranges


def _check_path(where: str, index: int, last: int, path: Sequence[bytes]) -> int:
    """The number of inner steps, once the path has as many hashes as a node at `index` of 0..`last` needs."""
    inner = (index ^ last).bit_length()
    want = inner + (index >> inner).bit_count()
    if len(path) != want:
        raise Malformed(f"want {want} hashes on the path", where, len(path))
    _check_hashes(where, *path)
    return inner


def _check_hashes(where: str, *hashes: bytes) -> None:
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise Malformed(f"want hashes of {HASH_SIZE} bytes", where, len(value))


def _check_size(where: str, size: int) -> None:
    if not 0 <= size <= MAX_U64:
        raise Malformed(f"want at most {MAX_U64}", where, size)


def _same(what: str, expected: bytes, computed: bytes) -> None:
    if expected != computed:
        raise RootMismatch(what, expected, computed)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1
