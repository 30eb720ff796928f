"""What evidence convicts a log of, if it holds: SPEC 9.1, a function for each kind.

    proven = verify_evidence(parse_evidence(data), log_keys, cosigners)      Proven, or NotProven
    proven.fault                                                            fork, chain-broken, map-wrong; rollback
    proven.accused                                                          the log; or, of a rollback, the cosigner

Nobody honest can ever be convicted: all that is compared is under the accused one's own signature, or that of a key
which it has handed on to, or leads there by hashes. Not checked here: whose key this is, and which of two forked
histories is the true one.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier.chain import Binding, genesis, link
from verifier.checkpoint import Checkpoint, open_checkpoint
from verifier.encoding import HASH_SIZE
from verifier.entry import entry_hash
from verifier.errors import BadSignature, Malformed, NotProven, NotVerified, RootMismatch
from verifier.evidence import (
    CHANGED_LEAF,
    OTHER_PREFIX,
    ROLLED_BACK,
    TWO_HISTORIES,
    TWO_ROOTS,
    TWO_SUCCESSORS,
    Evidence,
    format_evidence,
    parse_evidence,
)
from verifier.leaf import ENTRY, ENTRY_SIZE, MAP, MapLeaf, encode_leaf
from verifier.map import EMPTY, map_value, verify_place, verify_presence
from verifier.merkle import append_leaf, fold_right, leaf_hash, verify_consistency, verify_inclusion
from verifier.note import SIGNATURE, Note, VerifierKey, find_signature, make_key, verify_cosignature
from verifier.proof import Proof
from verifier.record import NamedTuple
from verifier.replay import CHAIN_BROKEN, find_broken

FORK, ROLLBACK = "fork", "rollback"  # what a proof convicts of, besides `replay.CHAIN_BROKEN` and `MAP_WRONG`


class Proven(NamedTuple):
    """What an evidence file shows: of which log, what it convicts of, how, in a sentence; and whom, if not the log."""

    origin: str
    fault: str
    statement: str
    cosigner: str | None = None

    @property
    def accused(self) -> str:
        return self.cosigner or self.origin


def verify_evidence(
    evidence: Evidence, log_keys: Sequence[VerifierKey], cosigners: Sequence[VerifierKey] = ()
) -> Proven:
    """What the evidence proves; NotProven where all that it shows can be true at once (`no-contradiction`)."""
    if evidence.kind == TWO_ROOTS:
        return _two_roots(evidence, log_keys)
    if evidence.kind == OTHER_PREFIX:
        return _other_prefix(evidence, log_keys)
    if evidence.kind == ROLLED_BACK:
        return _rolled_back(evidence, log_keys, cosigners)
    if evidence.kind == TWO_HISTORIES:
        return _two_histories(evidence, log_keys)
    if evidence.kind == TWO_SUCCESSORS:
        return _two_successors(evidence, log_keys)
    if evidence.kind == CHANGED_LEAF:
        return _changed_leaf(evidence, log_keys)
    return _broken_replay(evidence, log_keys)


def find_proven(
    value: dict[str, object], log_keys: Sequence[VerifierKey], cosigners: Sequence[VerifierKey] = ()
) -> Proven | None:
    """What a third person makes of this evidence as a file; None where that is nothing, or where it is too big."""
    try:
        return verify_evidence(parse_evidence(format_evidence(value)), log_keys, cosigners)
    except (Malformed, NotVerified):
        return None


def nothing_proven(message: str) -> NotProven:
    return NotProven("no-contradiction", message)


def _open_two(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> list[tuple[Note, Checkpoint]]:
    """Both notes, the smaller tree first. Foreign logs may have extension lines."""
    opened = [open_checkpoint(note, *log_keys, extensions=True) for note in evidence.notes]
    if opened[0][1].origin != opened[1][1].origin:
        raise nothing_proven("the notes are of two logs")
    return sorted(opened, key=lambda pair: pair[1].size)


def _two_roots(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    (_, one), (_, other) = _open_two(evidence, log_keys)
    if one.size != other.size:
        raise nothing_proven(f"the trees have sizes {one.size} and {other.size}: one may continue the other")
    if one.root == other.root:
        raise nothing_proven("both notes state the same tree")
    return Proven(one.origin, FORK, f"the log signed two different trees of size {one.size}")


def _other_prefix(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    (_, small), (_, big) = _open_two(evidence, log_keys)
    if not 0 < small.size < big.size:
        raise nothing_proven(f"want two sizes, got {small.size} and {big.size}")
    if evidence.root == small.root:
        raise nothing_proven(f"the tree of size {big.size} grew out of the signed one of size {small.size}")
    verify_consistency(small.size, evidence.root, big.size, big.root, evidence.hashes)
    message = f"the log signed a tree of size {big.size} whose first {small.size} leaves are not those that it signed"
    return Proven(small.origin, FORK, message)


def _rolled_back(evidence: Evidence, log_keys: Sequence[VerifierKey], cosigners: Sequence[VerifierKey]) -> Proven:
    """[R] Against the cosigner alone: with one cosigner's key and a log's honest notes anybody can make it."""
    (small_note, small), (big_note, big) = _open_two(evidence, log_keys)
    if small.size == big.size:
        raise nothing_proven("both trees have the same size")
    bad: BadSignature | Malformed | None = None
    signers = 0
    for key in cosigners:
        try:
            at = [time_of(note, key) for note in (small_note, big_note)]
        except (BadSignature, Malformed) as error:  # its own business: it hides nobody else
            bad = error
            continue
        signers += None not in at
        if at[0] is not None and at[1] is not None and at[0] > at[1]:
            message = f"{key.name} signed size {small.size} as the newest tree after it had signed size {big.size}"
            return Proven(small.origin, ROLLBACK, message, key.name)
    if bad is not None:
        raise bad
    if not signers:
        raise NotProven("unwitnessed", "no cosigner whose key is given has signed both trees")
    raise nothing_proven("whoever signed both trees signed the smaller one first, or at the same time")


def time_of(note: Note, key: VerifierKey) -> int | None:
    """The time of the cosigner's line; None where it has none."""
    return None if find_signature(note, key) is None else verify_cosignature(note, key)


def _two_histories(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    one, other = evidence.proofs
    if (one.log, one.chain_id) != (other.log, other.chain_id):
        raise nothing_proven("the proofs are of two chains")
    origins = {open_checkpoint(proof.checkpoint, *log_keys)[1].origin for proof in (one, other)}
    if len(origins) != 1:  # [R] after a declared loss a chain may go on otherwise (SPEC 6.5), and that is said
        raise nothing_proven("the proofs are of two origins")
    heads = [_proven_heads(proof, log_keys) for proof in (one, other)]
    for seq, (left, right) in enumerate(zip(*heads, strict=False)):
        if left != right:
            return Proven(origins.pop(), FORK, f"two signed histories of one chain differ at step {seq}")
    raise nothing_proven("both histories agree in every step that they share")


def _two_successors(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    from verifier.loss import open_declared

    (one, first), (other, second) = evidence.declared
    trees = [open_declared(declared, origin, log_keys)[1] for origin, declared in evidence.declared]
    if trees[0].origin != trees[1].origin:
        raise nothing_proven("the notes are of two logs")
    if (one, first.key, first.kept) == (other, second.key, second.kept):
        raise nothing_proven("both declare the same origin with the same key and the same leaves")
    if (one, first.key) == (other, second.key):
        kept = f"with {first.kept} leaves, and with {second.kept}"
        return Proven(trees[0].origin, FORK, f"the log said that it goes on as {one!r} {kept}")
    return Proven(trees[0].origin, FORK, f"the log said that it goes on as {one!r}, and as {other!r} with another key")


def _changed_leaf(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    """[R] A leaf at or above `kept` may have been lost; below it, only a map commitment may be another one."""
    from verifier.loss import open_declared, shift_after

    ((origin, declared),) = evidence.declared
    _, lost = open_declared(declared, origin, log_keys)
    _, old = open_checkpoint(evidence.notes[0], *log_keys, extensions=True)
    try:
        new_key = make_key(origin, SIGNATURE, declared.key, "declared.key")
    except Malformed as error:
        raise NotProven("loss-note", str(error)) from None
    _, new = open_checkpoint(evidence.notes[1], new_key, extensions=True)
    if old.origin != lost.origin:
        raise nothing_proven("the notes are of two logs")
    index, (first, was, now) = evidence.leaf_index, evidence.leaves
    place = index + shift_after(first)
    shown = ((0, old, first), (index, old, was), (place, new, now))
    for (number, tree, leaf), path in zip(shown, evidence.paths, strict=True):
        verify_inclusion(number, tree.size, leaf_hash(leaf), path, tree.root)
    if place == 0 or index >= declared.kept:
        raise nothing_proven(f"leaf {index} is none of those that the log said it has kept")
    if was == now or was[:1] == now[:1] == bytes([MAP]):
        raise nothing_proven(f"leaf {place} of {origin!r} is the one that has to stand there")
    why = f"the log said that {origin!r} has its first {declared.kept} leaves; leaf {index} is another one there"
    return Proven(old.origin, CHAIN_BROKEN, why)


def _proven_heads(proof: Proof, log_keys: Sequence[VerifierKey]) -> list[bytes]:
    """The chain's head after each entry, once the last one is what the signed tree commits to."""
    _, tree = open_checkpoint(proof.checkpoint, *log_keys)
    if tree.size == 0 or proof.first_seq or len(proof.entries) != proof.map.seq + 1:
        raise NotProven("incomplete", "want whole proofs of a tree that is not empty")
    commitment = leaf_hash(encode_leaf(MapLeaf(proof.map.root)))
    verify_inclusion(tree.size - 1, tree.size, commitment, proof.commitment, tree.root)
    value = map_value(proof.map.seq, proof.map.head, proof.map.leaf_index)
    verify_presence(proof.chain_id, value, proof.map.siblings, proof.map.root)
    heads, head = [], genesis(Binding(proof.log, proof.source, proof.root, proof.file_id, proof.chain_id, None))
    for seq, line in enumerate(proof.entries):
        head = link(head, proof.chain_id, seq, entry_hash(line.entry))
        heads.append(head)
    if head != proof.map.head:
        raise RootMismatch("entries", proof.map.head, head)
    return heads


def _broken_replay(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    _, tree = open_checkpoint(evidence.notes[0], *log_keys)
    peaks, end = evidence.peaks, evidence.size + len(evidence.leaves)
    if not evidence.size < end <= tree.size:
        raise Malformed(f"want one or more, within the signed size {tree.size}", "leaves", len(evidence.leaves))
    for number, leaf in enumerate(evidence.leaves, evidence.size):
        peaks = append_leaf(peaks, number, leaf_hash(leaf))
    verify_consistency(end, fold_right(peaks), tree.size, tree.root, evidence.hashes)
    _check_places(evidence)
    broken = find_broken(evidence.size, evidence.leaves, tree.size, evidence.chains)
    if broken is None:
        raise nothing_proven("every leaf that is shown follows its chain, and every map that can be judged is right")
    if broken.index != end - 1:
        raise Malformed(f"want leaf {broken.index} as the last one, it breaks a rule already", "leaves", end - 1)
    return Proven(tree.origin, broken.fault, f"leaf {broken.index} under a signed root: {broken.why}")


def _check_places(evidence: Evidence) -> None:
    """One commitment to start from, one at the end at most; each chain in between, at its place in that map."""
    first, *later = evidence.leaves
    if any(leaf[:1] == bytes([MAP]) for leaf in later[:-1]):
        raise Malformed("want no map commitment but the first leaf and the last one", "leaves")
    touched = {leaf[1 : 1 + HASH_SIZE] for leaf in evidence.leaves if len(leaf) == ENTRY_SIZE and leaf[0] == ENTRY}
    if any(known.place.key not in touched for known in evidence.chains):
        raise Malformed("want no chain but those of the leaves", "chains")
    if evidence.size == 0:
        root = EMPTY
    elif len(first) == 1 + HASH_SIZE and first[0] == MAP:
        root = first[1:]
    elif evidence.chains:
        raise Malformed("want no chains where the first leaf commits to no map", "chains")
    else:
        return
    for known in evidence.chains:
        verify_place(known.place, root)
