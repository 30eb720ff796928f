"""The Merkle tree against published vectors, the RFC's recursion, and broken proofs."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import reference
from verifier import merkle
from verifier.errors import Error, Malformed, RootMismatch

# The eight leaf inputs of the RFC 6962 implementations' tests, and the root of each tree over the first ones.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
ACCUMULATED_SIZE = 130  # a little more than a power of two
ACCUMULATED = "fc1bfaf428e71e99f4b30df2f7c272580380a09afe71e45789c5667417d1de1e"

sizes = st.integers(1, 2**62)


class Tree:
    """Hashes of complete subtrees, as a store holds them; every answer is made of these."""

    def __init__(self, entries: list[bytes]) -> None:
        level = [merkle.leaf_hash(entry) for entry in entries]
        self.leaves, self.hashes = level, [level]
        while len(level) > 1:
            level = [merkle.node_hash(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
            self.hashes.append(level)

    def range_hash(self, begin: int, end: int) -> bytes:
        return merkle.fold_right([self.hashes[level][index] for level, index in merkle.complete_subtrees(begin, end)])

    def root(self, size: int) -> bytes:
        return self.range_hash(0, size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return [self.range_hash(*r) for r in merkle.inclusion_ranges(index, size)]

    def consistency(self, old: int, new: int) -> list[bytes]:
        return [self.range_hash(*r) for r in merkle.consistency_ranges(old, new)]


ENTRIES = [bytes([i]) for i in range(ACCUMULATED_SIZE)]
TREE = Tree(ENTRIES)


def test_roots_equal_published_ones() -> None:
    """The trees over the RFC's test leaves have the published roots, by every way to compute them."""
    inputs = [bytes.fromhex(text) for text in INPUTS]
    tree = Tree(inputs)
    peaks: list[bytes] = []
    for size, root in enumerate(ROOTS):
        assert root == tree.root(size).hex() == merkle.fold_right(peaks).hex() == reference.mth(inputs[:size]).hex()
        assert peaks == [tree.hashes[level][index] for level, index in merkle.compact_range(size)]
        if size < len(inputs):
            peaks = merkle.append_leaf(peaks, size, tree.leaves[size])
    assert ROOTS[0] == merkle.EMPTY_ROOT.hex()


def test_all_small_trees_equal_reference() -> None:
    """Roots, inclusion and consistency proofs of all trees up to 130 leaves are the RFC's, folded into one hash."""
    fast, slow = sha256(), sha256()
    for n in range(ACCUMULATED_SIZE + 1):
        entries = ENTRIES[:n]
        fast.update(TREE.root(n))
        slow.update(reference.mth(entries))
        for m in range(n):
            fast.update(b"".join(TREE.inclusion(m, n)) + b"".join(TREE.consistency(m, n)))
            slow.update(b"".join(reference.path(m, entries)) + b"".join(reference.consistency(m, entries)))
    assert slow.hexdigest() == fast.hexdigest() == ACCUMULATED


def test_inclusion_holds_for_its_own_index_only() -> None:
    """Every proof of every tree up to 40 leaves leads to the root, and from no other index of that tree."""
    for size in range(1, 41):
        root = TREE.root(size)
        for index in range(size):
            proof = TREE.inclusion(index, size)
            assert merkle.verify_inclusion(index, size, TREE.leaves[index], proof, root) == root
            for other in range(-1, size + 2):
                if other != index:
                    with pytest.raises((Malformed, RootMismatch)):
                        merkle.verify_inclusion(other, size, TREE.leaves[index], proof, root)


def test_consistency_holds_for_its_own_sizes_only() -> None:
    """Every proof of every pair of sizes up to 40 holds, and from no other old size (but 0 and 0)."""
    for new in range(41):
        for old in range(new + 1):
            proof = TREE.consistency(old, new)
            assert merkle.verify_consistency(old, TREE.root(old), new, TREE.root(new), proof) == TREE.root(new)
            for other in range(-1, new + 2):
                if other != old:
                    with pytest.raises((Malformed, RootMismatch)):
                        merkle.verify_consistency(other, TREE.root(old), new, TREE.root(new), proof)


@given(st.data())
def test_proofs_refuse_any_change(data: st.DataObject) -> None:
    """No changed bit, dropped, added or swapped hash, no other leaf or root passes."""
    size = data.draw(st.integers(2, ACCUMULATED_SIZE))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size - 1))
    leaf, root, old_root = TREE.leaves[index], TREE.root(size), TREE.root(old)
    for proof, check in (
        (TREE.inclusion(index, size), lambda p: merkle.verify_inclusion(index, size, leaf, p, root)),
        (TREE.consistency(old, size), lambda p: merkle.verify_consistency(old, old_root, size, root, p)),
    ):
        check(proof)
        place = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[place][0] ^ 1]) + proof[place][1:]
        changes = [
            [*proof[:place], flipped, *proof[place + 1 :]],
            proof[:place] + proof[place + 1 :],
            [*proof[:place], proof[place], *proof[place:]],
            [*proof[:place], proof[place][:31], *proof[place + 1 :]],
            [*proof[:place], proof[place] + b"\0", *proof[place + 1 :]],
        ]
        if len(proof) > 1:
            changes.append([proof[-1], *proof[1:-1], proof[0]])
        for changed in changes:
            with pytest.raises((Malformed, RootMismatch)):
                check(changed)


def test_empty_trees_have_one_root() -> None:
    """From size 0 only an empty proof and the empty root pass; a size of 0 never has another root (tlog-witness)."""
    root, other = TREE.root(5), b"\1" * 32
    assert merkle.verify_consistency(0, merkle.EMPTY_ROOT, 5, root, []) == root
    assert merkle.verify_consistency(0, merkle.EMPTY_ROOT, 0, merkle.EMPTY_ROOT, []) == merkle.EMPTY_ROOT
    with pytest.raises(Malformed, match="want no hashes from size 0 to 5, got 1"):
        merkle.verify_consistency(0, merkle.EMPTY_ROOT, 5, root, [other])
    for arguments in ((0, other, 5, root), (0, other, 0, other), (0, merkle.EMPTY_ROOT, 0, other)):
        with pytest.raises(RootMismatch):
            merkle.verify_consistency(*arguments, [])


def test_equal_sizes_want_equal_roots() -> None:
    """Two roots of one size are a mismatch, and there is no proof between them."""
    with pytest.raises(RootMismatch, match="equal sizes") as caught:
        merkle.verify_consistency(5, TREE.root(5), 5, TREE.root(6), [])
    assert (caught.value.expected, caught.value.computed) == (TREE.root(6), TREE.root(5))
    with pytest.raises(Malformed, match="want no hashes"):
        merkle.verify_consistency(5, TREE.root(5), 5, TREE.root(5), [TREE.root(5)])


def test_mismatch_names_both_roots() -> None:
    """The error holds the signed root and the one that the path led to."""
    proof, root = TREE.inclusion(3, 7), TREE.root(7)
    with pytest.raises(RootMismatch, match="inclusion of index 3 in size 7: path leads to root") as caught:
        merkle.verify_inclusion(3, 7, TREE.leaves[4], proof, root)
    assert caught.value.expected == root
    assert caught.value.computed == merkle.root_from_inclusion(3, 7, TREE.leaves[4], proof)


def test_consistency_checks_both_roots() -> None:
    """A right proof with a wrong old or new root is a mismatch that names the tree."""
    wrong = b"\1" * 32
    for new in range(2, 41):
        for old in range(1, new):
            proof = TREE.consistency(old, new)
            with pytest.raises(
                RootMismatch, match="new tree" if old.bit_count() == 1 else f"from size {old}, old tree"
            ):
                merkle.verify_consistency(old, wrong, new, TREE.root(new), proof)
            with pytest.raises(RootMismatch, match=f"from size {old} to {new}, new tree"):
                merkle.verify_consistency(old, TREE.root(old), new, wrong, proof)


def test_hashes_have_32_bytes() -> None:
    """Leaf, roots and siblings of another length are Malformed, so no boundary between hashes can be moved."""
    root = TREE.root(2)
    for arguments in ((0, 2, b"", [TREE.leaves[1]], root), (0, 2, TREE.leaves[0], [TREE.leaves[1]], root[:31])):
        with pytest.raises(Malformed, match="want hashes of 32 bytes"):
            merkle.verify_inclusion(*arguments)
    for old, new in ((root[:31], TREE.root(3)), (root, TREE.root(3) + b"\0")):
        with pytest.raises(Malformed, match="want hashes of 32 bytes"):
            merkle.verify_consistency(2, old, 3, new, TREE.consistency(2, 3))
    for place in range(3):
        proof = TREE.inclusion(3, 7)
        proof[place] = proof[place][:31]
        with pytest.raises(Malformed, match="inclusion proof: want hashes of 32 bytes, got 31"):
            merkle.verify_inclusion(3, 7, TREE.leaves[3], proof, TREE.root(7))
    for place in range(len(TREE.consistency(3, 7))):
        proof = TREE.consistency(3, 7)
        proof[place] += b"\0"
        with pytest.raises(Malformed, match="consistency proof: want hashes of 32 bytes, got 33"):
            merkle.verify_consistency(3, TREE.root(3), 7, TREE.root(7), proof)


def test_sizes_have_bounds() -> None:
    """No size above 2^63-1, and at most 63 hashes."""
    leaf = b"\0" * 32
    merkle.root_from_inclusion(0, 2**63 - 1, leaf, [leaf] * merkle.MAX_PROOF_HASHES)
    with pytest.raises(Malformed, match="want at most"):
        merkle.root_from_inclusion(0, 2**63, leaf, [leaf] * 63)
    with pytest.raises(Malformed, match="want at most 63 hashes, got 64"):
        merkle.verify_consistency(3, leaf, 2**63 - 1, leaf, [leaf] * 64)
    with pytest.raises(Malformed, match="multiple of its largest subtree"):
        merkle.complete_subtrees(1, 3)
    with pytest.raises(Malformed, match="want 2 hashes for size 3, got 1"):
        merkle.append_leaf([leaf], 3, leaf)
    for wrong in (lambda: merkle.inclusion_ranges(4, 4), lambda: merkle.consistency_ranges(5, 4)):
        with pytest.raises(Malformed):
            wrong()


@given(sizes, st.data())
def test_ranges_of_any_size_add_up(size: int, data: st.DataObject) -> None:
    """In trees of any size a proof's ranges and what the verifier knows cover every leaf once, as subtrees."""
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    inclusion = [*merkle.inclusion_ranges(index, size), (index, index + 1)]
    consistency = merkle.consistency_ranges(old, size) if old < size else [(0, size)]
    if old.bit_count() == 1 and old < size:
        consistency = [(0, old), *consistency]
    for ranges in (inclusion, consistency, [(0, size)]):
        ends = sorted(ranges)
        assert [b for b, _ in ends] + [size] == [0] + [e for _, e in ends]
        for begin, end in ends:
            spans = [(i << level, (i + 1) << level) for level, i in merkle.complete_subtrees(begin, end)]
            assert [b for b, _ in spans] + [end] == [begin] + [e for _, e in spans]


def test_published_inclusion_cases(shared_dir: Path) -> None:
    """All 98 cases of the merkle library end as it says."""
    for name, case in _cases(shared_dir / "vectors" / "merkle-inclusion.json"):
        proof, leaf, root = _proof(case), _bytes(case["leafHash"]), _bytes(case["root"])
        refused = _is_refused(merkle.verify_inclusion, case["leafIdx"], case["treeSize"], leaf, proof, root)
        assert refused == case["wantErr"], name


def test_published_consistency_cases(shared_dir: Path) -> None:
    """All 98 cases of the merkle library end as it says but one: there, roots of 12 bytes are equal to each other.

    Those from size 0, an error there and none in C2SP, are refused for their roots or hashes.
    """
    for name, case in _cases(shared_dir / "vectors" / "merkle-consistency.json"):
        proof, old, new = _proof(case), _bytes(case["root1"]), _bytes(case["root2"])
        refused = _is_refused(merkle.verify_consistency, case["size1"], old, case["size2"], new, proof)
        short = name == "additional/sizes-are-equal-one-and-proof-is-empty"
        assert refused == (case["wantErr"] or short), name


def _cases(path: Path) -> list[tuple[str, dict[str, Any]]]:
    cases = list(json.loads(path.read_text()).items())
    assert len(cases) == 98
    return cases


def _proof(case: dict[str, Any]) -> list[bytes]:
    return [_bytes(text) for text in case["proof"] or []]


def _bytes(text: str | None) -> bytes:
    return b64decode(text or "")


def _is_refused(check: Callable[..., bytes], *arguments: object) -> bool:
    try:
        check(*arguments)
    except Error:
        return True
    return False
