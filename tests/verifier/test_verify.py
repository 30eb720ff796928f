"""The main path, step by step; each attack that a rule of the design stops has a test named after it.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests import map_reference, reference
from tests.builder import ORIGIN, SIGNATURE, SOURCE, History, World, content_of, secret, sign_seal
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.entry import (
    Closed,
    CloseReason,
    ContextField,
    Erased,
    Expired,
    ExpiryReason,
    Gap,
    GapReason,
    Operation,
    Part,
    Predecessor,
    Reverted,
    Taint,
    TaintKind,
)
from verifier.errors import Malformed, NotVerified, Usage
from verifier.leaf import MapLeaf, encode_leaf
from verifier.map import map_value
from verifier.merkle import verify_consistency
from verifier.note import Note, SignerKey, cosign, format_note, format_vkey, parse_note, sign_note
from verifier.policy import AUDITORS, WITNESSES, check_separate, parse_policy
from verifier.proof import Bracket, Included, Proof, Since, format_proof, parse_proof
from verifier.verdict import Memory, Question, Report, Verdict
from verifier.verify import verify

VERIFIED = ("VERIFIED",)
ALTERED = TaintKind.ALTERED


def said(report: Report) -> tuple[str, ...]:
    """The verdict and every reason, in order."""
    return report.verdict.value, *(finding.reason for finding in report.findings)


def a_file(world: World | None = None) -> World:
    """A world with one file that was created, written and moved, next to two others, in two published trees."""
    world = world or World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.record(2, Operation.CREATED, b"other", "b.txt")
    world.publish()
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record(3, Operation.CREATED, b"third", "c.txt")
    world.record(1, Operation.MOVED, b"two", "d.txt")
    world.publish()
    return world


def created(*data: bytes, path: str = "a.txt") -> World:
    """A world with file 1, created and then written with each data, in one published tree for each."""
    world = World()
    for number, content in enumerate(data or (b"one",)):
        world.record(1, Operation.WRITTEN if number else Operation.CREATED, content, path)
        world.publish()
    return world


def ask(world: World, data: bytes | None = b"two", proof: Proof | None = None, **asked: object) -> tuple[str, ...]:
    """The verdict about file 1 at its own path, in the newest tree unless a proof is given."""
    memory = asked.pop("memory", None)
    chain = world.histories[1].chain
    path = asked.pop("path", chain.path)
    return said(world.verify(proof or world.prove(1), data, memory, path=path, **asked))  # type: ignore[arg-type]


def key_of(world: World, seq: int, file_id: int = 1) -> tuple[bytes, int]:
    """How a seal's `accepts` names a step of a file."""
    return world.histories[file_id].binding.chain_id, seq


def noted(world: World, size: int, witnesses: list[int], auditors: list[int] | None = None) -> bytes:
    """A checkpoint of the world's tree, cosigned by its first nodes at these times."""
    text = format_checkpoint(Checkpoint(ORIGIN, size, reference.mth(world.leaves[:size])))
    times = list(zip(world.witnesses, witnesses, strict=False))
    times += zip(world.auditors, auditors or witnesses, strict=False)
    lines = [sign_note(text, world.log)] + [cosign(text, signer, time) for signer, time in times]
    return format_note(Note(text, tuple(lines)))


def test_verify_honest_file() -> None:
    """An honest log, its owner and the right bytes give VERIFIED."""
    world = a_file()
    proof = world.prove(1)
    assert parse_proof(format_proof(proof)) == proof
    report = world.verify(proof, b"two", path="d.txt")
    assert report.findings == []
    assert report.verdict is Verdict.VERIFIED
    assert report.pins_checkpoint
    assert report.pins_chain


@pytest.mark.parametrize("size", range(1, 18))
def test_verify_honest_file_in_trees_of_every_shape(size: int) -> None:
    """Whatever the size of the tree and the place of the leaves, an honest proof is VERIFIED."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    for number in range(size):
        world.record(number + 2, Operation.CREATED, b"x", f"{number}.txt")
    world.record(1, Operation.TOUCHED, b"one", "a.txt")
    world.publish()
    assert ask(world, b"one") == VERIFIED


# -- step 1: names ----------------------------------------------------------------------------------------------


def test_verify_refuses_proof_for_another_log() -> None:
    """The name of the log is the user's, never the proof's."""
    world = a_file()
    assert ask(world, proof=world.prove(1)._replace(log=ORIGIN + "+" + "0" * 64)) == ("NOT PROVEN", "other-log")


def test_verify_refuses_proof_for_another_source() -> None:
    """The source id was pinned at enrolment; the same file id elsewhere is another file."""
    elsewhere = a_file(World(source="folder:elsewhere"))
    proof = elsewhere.prove(1)
    assert ask(elsewhere) == VERIFIED
    assert ask(a_file(), proof=proof) == ("NOT PROVEN", "other-source")
    assert ask(a_file(), proof=proof._replace(source=SOURCE)) == ("NOT PROVEN", "other-chain")


def test_verify_refuses_other_owner_or_custodial_root() -> None:
    """A chain under a root that the server made itself is nobody's proof."""
    custodial = a_file(World(seed=bytes(32)))
    assert ask(a_file(), proof=custodial.prove(1)) == ("NOT PROVEN", "not-owner")
    assert ask(custodial) == VERIFIED


def test_verify_refuses_second_chain_for_one_file() -> None:
    """The owner computes the chain id, so a second chain has no place to go."""
    world = a_file()
    second = world.binding(1)._replace(chain_id=bytes(32))
    world.histories[9] = History(second, 0, None)
    world.record(9, Operation.CREATED, b"evil", "d.txt")
    world.publish()
    proof = world.prove(9)._replace(file_id=1)
    assert ask(world, b"evil", proof) == ("NOT PROVEN", "other-chain")
    assert ask(world) == VERIFIED


def test_verify_refuses_chain_of_another_file_under_the_asked_id() -> None:
    """A proof of file 2 that calls itself file 1 has the chain id of file 2."""
    world = a_file()
    proof = world.prove(2)
    assert ask(world, b"other", proof, path="b.txt") == VERIFIED
    assert ask(world, b"other", proof, path="b.txt", file_id=1) == ("NOT PROVEN", "other-file")
    assert ask(world, b"other", proof._replace(file_id=1), path="b.txt") == ("NOT PROVEN", "other-chain")


# -- step 2: the log's signature --------------------------------------------------------------------------------


def test_verify_refuses_checkpoint_of_unknown_log_key() -> None:
    """Another key under the log's name signs nothing."""
    world, impostor = a_file(), World()
    impostor.log = SignerKey(ORIGIN, SIGNATURE, secret("another key"))
    a_file(impostor)
    assert ask(world, proof=impostor.prove(1)) == ("NOT PROVEN", "unsigned")


def test_verify_refuses_checkpoint_of_unknown_origin() -> None:
    """A key speaks for the origin that it is named after, and for no other."""
    world = a_file()
    size = max(world.notes)
    text = format_checkpoint(Checkpoint("other.example/files", size, reference.mth(world.leaves)))
    note = format_note(Note(text, (sign_note(text, world.log),)))
    assert ask(world, proof=world.prove(1)._replace(checkpoint=note)) == ("NOT PROVEN", "unknown-log")


def test_verify_refuses_forged_log_signature() -> None:
    """A line of the log's key that does not hold refuses the note."""
    world = a_file()
    note = parse_note(world.notes[max(world.notes)])
    line = note.signatures[0]._replace(blob=bytes(64))
    forged = format_note(note._replace(signatures=(line, *note.signatures[1:])))
    assert ask(world, proof=world.prove(1)._replace(checkpoint=forged)) == ("NOT PROVEN", "bad-signature")


def test_verify_refuses_empty_tree() -> None:
    """A signed tree of size 0 has no last leaf that could commit to a map."""
    world = a_file()
    empty = world.note(0, reference.mth([]))
    assert ask(world, proof=world.prove(1)._replace(checkpoint=empty)) == ("NOT PROVEN", "empty-tree")


def test_verify_finds_fork_of_same_size() -> None:
    """Two signed trees of one size with two roots: FORK, with both notes as evidence, and nothing is pinned."""
    mine, other = a_file(), World()
    other.record(1, Operation.CREATED, b"evil", "a.txt")
    other.record(2, Operation.CREATED, b"other", "b.txt")
    size = other.publish()
    proof = other.prove(1)
    assert ask(other, b"evil", proof) == VERIFIED
    report = other.verify(proof, b"evil", Memory(mine.notes[size]), path="a.txt")
    assert said(report) == ("FORK", "fork")
    assert report.evidence is not None
    assert report.evidence["notes"] == [mine.notes[size].decode(), other.notes[size].decode()]
    assert not report.pins_checkpoint
    assert not report.pins_chain


def two_logs() -> tuple[World, World, SignerKey]:
    """Two logs of one operator in one policy, with the same nodes; the second one's key."""
    one, two = a_file(), World()
    other = SignerKey("other.example/files", SIGNATURE, secret("other log"))
    line = f"log {format_vkey(other.verifier_key)}\n".encode()
    one.policy_text, one.auditors_text = line + one.policy_text, line + one.auditors_text
    two.record(1, Operation.CREATED, b"evil", "d.txt")
    while len(two.leaves) < len(one.leaves) - 1:
        two.record(len(two.leaves) + 6, Operation.CREATED, b"x", "x")
    two.publish()
    text = format_checkpoint(Checkpoint("other.example/files", len(two.leaves), reference.mth(two.leaves)))
    lines = [sign_note(text, other)] + [cosign(text, signer, two.now) for signer in two.witnesses + two.auditors]
    two.notes[len(two.leaves)] = format_note(Note(text, tuple(lines)))
    return one, two, other


def test_verify_refuses_checkpoint_of_another_log_of_the_policy() -> None:
    """[R] The log's permanent name binds the origin: another log of the same policy speaks for itself alone."""
    one, two, _ = two_logs()
    assert ask(one) == VERIFIED
    assert ask(one, b"evil", two.prove(1)) == ("NOT PROVEN", "unknown-log")


def test_verify_raises_no_fork_alarm_between_two_logs() -> None:
    """Trees of one size of two logs are no fork, neither in a proof nor in what was seen."""
    one, two, _ = two_logs()
    note = two.notes[max(two.notes)]
    assert ask(one, proof=one.prove(1)._replace(first=Bracket(note, []))) == ("NOT PROVEN", "unknown-log")
    assert ask(one, memory=Memory(note)) == ("NOT PROVEN", "unknown-log")


@pytest.mark.parametrize("member", ["first", "before"])
def test_verify_finds_fork_between_the_checkpoints_of_one_proof(member: str) -> None:
    """An earlier checkpoint that is no earlier state, but another tree of the same size, is a FORK."""
    world, other = a_file(), World()
    other.record(5, Operation.CREATED, b"evil", "a.txt")
    size = max(world.notes)
    while len(other.leaves) < size - 1:
        other.record(len(other.leaves) + 6, Operation.CREATED, b"x", "x")
    other.publish()
    proof = world.prove(1)._replace(**{member: Bracket(other.notes[size], [])})
    assert ask(world, proof=proof) == ("FORK", "fork")


# -- step 3: witnesses ------------------------------------------------------------------------------------------


def test_verify_refuses_two_of_three_cosignatures() -> None:
    """One witness short of the quorum is unwitnessed, and the checkpoint is not pinned."""
    world = a_file()
    size = max(world.notes)
    short = world.prove(1)._replace(checkpoint=world.note(size, reference.mth(world.leaves), 2), first=None)
    report = world.verify(short, b"two", path="d.txt")
    assert said(report) == ("NOT PROVEN", "unwitnessed")
    assert not report.pins_checkpoint
    three = world.note(size, reference.mth(world.leaves), 3, 3)
    assert ask(world, proof=short._replace(checkpoint=three)) == VERIFIED


def test_verify_refuses_cosignatures_of_another_tree() -> None:
    """Cosignatures copied from another checkpoint do not hold."""
    world = a_file()
    small, big = (parse_note(world.notes[size]) for size in sorted(world.notes))
    mixed = format_note(Note(big.text, (big.signatures[0], *small.signatures[1:])))
    proof = world.prove(1)._replace(checkpoint=mixed, first=None)
    assert ask(world, proof=proof) == ("NOT PROVEN", "bad-signature", "bad-signature")


def test_verify_refuses_one_witness_counted_twice() -> None:
    """A line repeated is refused; a quorum is a set of keys."""
    world = a_file()
    note = parse_note(world.note(max(world.notes), reference.mth(world.leaves), 2))
    twice = format_note(note._replace(signatures=(*note.signatures, note.signatures[2])))
    with pytest.raises(Malformed, match="one signature line"):
        ask(world, proof=world.prove(1)._replace(checkpoint=twice))


def test_verify_refuses_auditors_in_place_of_witnesses() -> None:
    """Witness and auditor sign the same bytes, and neither counts for the other."""
    world = a_file()
    root = reference.mth(world.leaves)
    proof = world.prove(1)._replace(first=None)
    no_witness = proof._replace(checkpoint=world.note(max(world.notes), root, 0, 4))
    assert ask(world, proof=no_witness) == ("NOT PROVEN", "unwitnessed")
    no_auditor = proof._replace(checkpoint=world.note(max(world.notes), root, 4, 0))
    assert ask(world, proof=no_auditor) == ("NOT PROVEN", "not-replayed")


@pytest.mark.parametrize(("nodes", "threshold"), [(4, 2), (2, 1)])
def test_verify_refuses_policy_whose_quorums_need_not_overlap(nodes: int, threshold: int) -> None:
    """With ov = 0 two histories pass though nobody lies, so nothing is VERIFIED."""
    assert ask(a_file(World(nodes, threshold))) == ("NOT PROVEN", "weak-policy")
    assert ask(a_file(World(nodes, threshold + 1))) == VERIFIED


def test_verify_refuses_quorum_none() -> None:
    """`quorum none` asks nothing of anybody: neither witnessed nor replayed."""
    for role, reason in (("policy_text", "weak-policy"), ("auditors_text", "not-replayed")):
        world = a_file()
        setattr(world, role, getattr(world, role).replace(b"quorum g", b"quorum none"))
        assert ask(world) == ("NOT PROVEN", reason)


def test_verify_refuses_auditor_key_in_witness_policy() -> None:
    """Each policy refuses the other's key names, and one public key in both files is found."""
    world = World()
    with pytest.raises(Malformed, match="must not end in /auditor"):
        parse_policy(world.auditors_text, WITNESSES)
    with pytest.raises(Malformed, match="must end in /auditor"):
        parse_policy(world.policy_text, AUDITORS)
    twin = SignerKey("n0.example/auditor", world.witnesses[0].verifier_key.algorithm, secret("witness n0.example"))
    both = world.policy_file([twin, *world.auditors[1:]], 3)
    with pytest.raises(Malformed, match="witness's as well"):
        check_separate(parse_policy(world.policy_text, WITNESSES), parse_policy(both, AUDITORS))
    check_separate(world.trust.witnesses, world.trust.auditors)
    a_file(world)
    one_file = world.trust._replace(auditors=world.trust.witnesses)
    with pytest.raises(Malformed, match="one of witnesses and one of auditors"):
        verify(world.prove(1), one_file, Question(world.now, content_of(b"two"), "d.txt"), Memory())


# -- step 4: auditors -------------------------------------------------------------------------------------------


def test_verify_refuses_map_that_nobody_replayed() -> None:
    """The server's own word for the map is not "current"; with two of three auditors it still is its own word."""
    for auditors in (0, 1, 2):
        world = World()
        world.record(1, Operation.CREATED, b"one", "a.txt")
        world.publish(auditors=auditors)
        assert ask(world, b"one") == ("NOT PROVEN", "not-replayed")
    assert ask(created(), b"one") == VERIFIED


def test_verify_refuses_map_naming_older_head() -> None:
    """A map that leaves out the last entry is one that no honest auditor signs."""
    world = created(b"one", b"two")
    older = world.histories[1].records[0]
    chain = world.histories[1].chain
    world.map[world.histories[1].binding.chain_id] = map_value(0, chain.heads[0], older.index)
    size = world.publish(auditors=0)
    proof = world.prove(1, size=min(world.notes))
    leaves, mapped = world.leaves, world.maps[size]
    lie = proof._replace(
        map=proof.map._replace(root=map_reference.build_map(mapped), siblings=[]),
        checkpoint=world.notes[size],
        commitment=reference.path(size - 1, leaves),
        last=reference.path(older.index, leaves),
        first=None,
    )
    assert ask(world, b"one", lie) == ("NOT PROVEN", "not-replayed")


def test_verify_refuses_older_map_in_a_newer_tree() -> None:
    """The map commitment must be the LAST leaf: that of an older tree, though logged, is not the newest."""
    world = created(b"one", b"two")
    old, new = world.prove(1, size=min(world.notes)), world.prove(1)
    size = min(world.notes)
    mixed = old._replace(checkpoint=new.checkpoint, commitment=reference.path(size - 1, world.leaves), first=None)
    assert ask(world, b"one", mixed) == ("NOT PROVEN", "broken-proof")
    assert ask(world, b"one", mixed._replace(commitment=new.commitment)) == ("NOT PROVEN", "broken-proof")
    assert ask(world) == VERIFIED


# -- step 5: the tree that was seen before ----------------------------------------------------------------------


def test_verify_refuses_tree_that_does_not_continue_the_one_seen() -> None:
    """Another history of another size: a consistency proof that fails is NOT PROVEN, without evidence of a fork."""
    mine, other = created(), World()
    seen = Memory(mine.notes[min(mine.notes)])
    for number in range(3):
        other.record(number + 1, Operation.CREATED, b"one", "a.txt")
    other.publish()
    size = min(mine.notes)
    report = other.verify(other.prove(1, pinned=size), b"one", seen, path="a.txt")
    assert said(report) == ("NOT PROVEN", "broken-proof")
    assert not report.pins_checkpoint
    assert report.evidence is None


def test_verify_refuses_old_root_or_size_from_the_proof() -> None:
    """What was seen comes from the state: a proof that starts from another size is unconnected."""
    world = a_file()
    first, second = sorted(world.notes)
    world.record(4, Operation.CREATED, b"x", "x")
    world.publish()
    seen = Memory(world.notes[second])
    assert ask(world, proof=world.prove(1, pinned=second), memory=seen) == VERIFIED
    assert ask(world, proof=world.prove(1, pinned=first), memory=seen) == ("NOT PROVEN", "unconnected")
    assert ask(world, proof=world.prove(1), memory=seen) == ("NOT PROVEN", "unconnected")
    other = reference.consistency(first, world.leaves)
    relabelled = world.prove(1)._replace(pinned=Since(second, other))
    assert len(other) == len(reference.consistency(second, world.leaves))
    assert ask(world, proof=relabelled, memory=seen) == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_older_tree_than_seen() -> None:
    """A smaller tree than the one seen is stale, and it does not replace it."""
    world = a_file()
    world.record(4, Operation.CREATED, b"x", "x")
    small, big = max(world.notes), world.publish()
    report = world.verify(world.prove(1, size=small), b"two", Memory(world.notes[big]), path="d.txt")
    assert said(report) == ("NOT PROVEN", "stale")
    assert not report.pins_checkpoint
    assert ask(world, proof=world.prove(1, size=small)) == VERIFIED


def test_verify_finds_rollback_signed_later_by_a_witness_is_fork() -> None:
    """A witness that signs a smaller tree after a bigger one has lied: FORK, and both notes show it."""
    world = a_file()
    small = max(world.notes)
    world.record(4, Operation.CREATED, b"x", "x")
    big = world.publish()
    world.tick(60)
    later = noted(world, small, [world.now] * 4)
    proof = world.prove(1, size=small)._replace(checkpoint=later)
    report = world.verify(proof, b"two", Memory(world.notes[big]), path="d.txt")
    assert said(report) == ("FORK", "fork")
    assert report.evidence is not None
    assert report.evidence["notes"] == [world.notes[big].decode(), later.decode()]
    assert ask(world, proof=proof) == VERIFIED
    same_time = noted(world, small, [world.now - 70] * 4)
    assert ask(world, proof=proof._replace(checkpoint=same_time), memory=Memory(world.notes[big])) == (
        "NOT PROVEN",
        "stale",
    )


def test_verify_lets_no_malformed_part_hide_a_fork() -> None:
    """Once a fork is found its evidence is reported, though a later part is not in its format at all."""
    world = a_file()
    small = max(world.notes)
    world.record(4, Operation.CREATED, b"x", "x")
    memory = Memory(world.notes[world.publish()])
    world.tick(60)
    again = noted(world, small, [world.now] * 4)
    proof = world.prove(1, size=small)._replace(checkpoint=again, last=[bytes(32)] * 40)
    with pytest.raises(Malformed):
        ask(world, proof=proof)
    assert ask(world, proof=proof, memory=memory) == ("FORK", "fork")


def test_verify_pins_the_checkpoint_whatever_the_files_verdict() -> None:
    """A witnessed tree that continues the one seen is remembered even when the file is CHANGED; the chain is not."""
    world = a_file()
    report = world.verify(world.prove(1), b"evil", path="d.txt")
    assert (said(report), report.pins_checkpoint, report.pins_chain) == (("CHANGED", "bytes"), True, False)
    report = world.verify(world.prove(1), None, path="d.txt")
    assert (said(report), report.pins_checkpoint, report.pins_chain) == (VERIFIED, True, False)


# -- steps 6, 7 and 9: commitment, map, entries -----------------------------------------------------------------


def test_verify_refuses_tree_whose_last_leaf_is_no_map_commitment() -> None:
    """A tree that ends in an entry commits to no map, whoever signed it."""
    world = a_file()
    size = max(world.notes)
    proof = world.prove(1, size=size)
    world.record(4, Operation.CREATED, b"x", "x")
    leaves = world.leaves
    lie = proof._replace(
        checkpoint=world.note(size + 1, reference.mth(leaves)),
        commitment=reference.path(size - 1, leaves),
        last=reference.path(proof.map.leaf_index, leaves),
        first=None,
        before=None,
    )
    assert ask(world, proof=lie) == ("NOT PROVEN", "broken-proof")
    assert ask(world, proof=lie._replace(commitment=reference.path(size, leaves))) == ("NOT PROVEN", "broken-proof")
    assert ask(world, proof=proof) == VERIFIED


@pytest.mark.parametrize("change", ["root", "seq", "head", "leaf_index", "siblings"])
def test_verify_refuses_other_values_than_the_map_holds(change: str) -> None:
    """Root, last seq, head, leaf index and siblings hang together."""
    world = a_file()
    shown = world.prove(1).map
    other = {"root": bytes(32), "seq": 1, "head": bytes(32), "leaf_index": 0, "siblings": [bytes([1]) * 32]}
    proof = world.prove(1)._replace(map=shown._replace(**{change: other[change]}))
    assert ask(world, proof=proof) == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_absent_siblings_of_the_map() -> None:
    """A deepest sibling that is the empty constant would let one key stand at two depths."""
    world = a_file()
    shown = world.prove(1).map
    proof = world.prove(1)._replace(map=shown._replace(siblings=[bytes(32), *shown.siblings]))
    with pytest.raises(Malformed, match="deepest sibling is empty"):
        ask(world, proof=proof)


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_verify_refuses_dropped_entry(seq: int) -> None:
    """The last entry, the first, or one between: the log holds one more than the proof shows."""
    world = a_file()
    entries = list(world.prove(1).entries)
    del entries[seq]
    report = world.verify(world.prove(1)._replace(entries=entries), b"two", path="d.txt")
    assert said(report) == ("CHANGED", "history")
    assert report.findings[0].seq == seq


def test_verify_refuses_dropped_last_entry_under_its_own_map() -> None:
    """Without its last entry the history does not reach the head in the map, nor does a shorter seq."""
    world = a_file()
    proof = world.prove(1)
    short = proof._replace(entries=proof.entries[:-1], map=proof.map._replace(seq=1))
    assert ask(world, proof=short) == ("NOT PROVEN", "broken-proof")
    assert ask(world, proof=proof._replace(entries=[])) == ("CHANGED", "history")


def test_verify_refuses_rewritten_history() -> None:
    """An entry replaced by another one does not hash to the head that the log committed to."""
    world, other = created(b"one", b"two", b"three"), created(b"one", b"evil", b"three")
    honest, forged = world.prove(1), other.prove(1)
    lie = honest._replace(entries=[honest.entries[0], forged.entries[1], honest.entries[2]])
    report = world.verify(lie, b"three", Memory(None, honest), path="a.txt")
    assert said(report) == ("CHANGED", "history")
    assert report.findings[0].seq == 1
    assert ask(world, b"three", honest) == VERIFIED


def test_verify_refuses_rewritten_history_continued() -> None:
    """A rewritten past can't be continued: auditors recompute every head from the leaves, and get another map."""
    honest, world, other = (created(b"one", data) for data in (b"two", b"two", b"evil"))
    history, chain = world.histories[1], world.histories[1].chain
    history.records[1].line = other.histories[1].records[1].line
    chain.head = chain.heads[1] = other.histories[1].chain.head
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish(auditors=0)
    assert ask(world, b"three") == ("NOT PROVEN", "not-replayed")
    seen = Memory(honest.notes[4], honest.prove(1))
    assert ask(world, b"three", world.prove(1, pinned=4), memory=seen) == ("CHANGED", "not-replayed", "pinned")
    honest.record(1, Operation.WRITTEN, b"three", "a.txt")
    honest.publish()
    assert ask(honest, b"three", honest.prove(1, pinned=4), memory=seen) == VERIFIED


def test_verify_refuses_entry_that_is_in_the_map_and_not_in_the_log() -> None:
    """A chain tail must be proven into the tree, not only into a commitment of the server's."""
    world = created(b"one")
    history = world.histories[1]
    world.record(1, Operation.WRITTEN, b"evil", "a.txt", leaf=False)
    world.map[history.binding.chain_id] = map_value(1, history.chain.head, 0)
    history.records[1].index = 0
    world.publish()
    assert ask(world, b"evil") == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_leaf_that_set_the_content_outside_the_log() -> None:
    """The leaf that set the current content is in the tree; without it, or with another one, nothing is proven."""
    world = a_file()
    proof = world.prove(1)
    assert proof.current is not None
    assert ask(world, proof=proof) == VERIFIED
    assert ask(world, proof=proof._replace(current=None)) == ("NOT PROVEN", "broken-proof")
    written = created(b"one", b"two").prove(1)
    with pytest.raises(Malformed, match="want null"):  # where the last leaf set the content, it is shown once
        ask(world, proof=written._replace(current=proof.current), path="a.txt")
    other = Included(proof.current.leaf_index, reference.path(0, world.leaves))
    assert ask(world, proof=proof._replace(current=other)) == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_index_malleability() -> None:
    """A leaf and its path fit one index of the signed size alone: at every other one the proof is refused."""
    world = a_file()
    proof = world.prove(1)
    assert proof.current is not None
    for index in range(len(world.leaves) + 2):
        current = proof._replace(current=proof.current._replace(leaf_index=index))
        last = proof._replace(map=proof.map._replace(leaf_index=index))
        for lie, right in ((current, proof.current.leaf_index), (last, proof.map.leaf_index)):
            try:
                verdict = ask(world, proof=lie)
            except Malformed:
                assert index != right
                continue
            assert verdict == (VERIFIED if index == right else ("NOT PROVEN", "broken-proof"))


def test_verify_refuses_wrong_opening() -> None:
    """An opening that does not open the logged commitment is a changed history."""
    world = a_file()
    proof = world.prove(1)
    for name in ("content", "path", "context"):
        line = proof.entries[1]._replace(**{name: getattr(proof.entries[0], name)})
        lie = proof._replace(entries=[proof.entries[0], line, proof.entries[2]])
        assert ask(world, proof=lie) == ("CHANGED", "history")


# -- step 8: generations ----------------------------------------------------------------------------------------


def two_generations(*, signed: bool = True, tainted: bool = False) -> World:
    """File 1 was closed and continued; in its first generation the bytes may have changed with no operation."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    if tainted:
        world.record(1, Operation.ALTERED, b"two", "a.txt")
    else:
        world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.publish()
    world.close(1, signed=signed)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return world


def test_verify_honest_generations() -> None:
    """A chain that was closed by its owner and continued is VERIFIED, also after a third start."""
    world = two_generations()
    assert ask(world) == VERIFIED
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    proof = world.prove(1)
    assert [len(proof.earlier), proof.generation] == [2, 2]
    assert ask(world) == VERIFIED


def test_verify_refuses_generation_without_closed_predecessor() -> None:
    """The earlier chain's last entry must be `closed`, and be what the map says of it."""
    world = created(b"one", b"two")
    old = world.histories[1]
    ending = (old.binding.chain_id, old.chain.seq, old.chain.head)
    world.histories[1] = History(world.binding(1, 1), 1, None)
    world.histories[1].previous = old
    world.record(1, Operation.ADOPTED, b"evil", "a.txt", Predecessor(*ending), replay=False)
    world.publish()
    assert ask(world, b"evil", path="a.txt") == ("NOT PROVEN", "generations")


def test_verify_refuses_generations_left_out() -> None:
    """Every earlier generation is shown: none, or one too few, or one twice, is refused."""
    world = two_generations()
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    proof = world.prove(1)
    one, two = proof.earlier
    for earlier in ([], [one], [two], [one, one], [two, one]):
        assert ask(world, proof=proof._replace(earlier=earlier)) == ("NOT PROVEN", "generations")
    assert ask(world) == VERIFIED


@pytest.mark.parametrize("change", ["before", "leaf_index", "siblings"])
def test_verify_refuses_earlier_generation_that_is_not_in_the_map(change: str) -> None:
    """Head, last entry and leaf index of the earlier generation are those in the same map."""
    world = two_generations()
    proof = world.prove(1)
    other = {"before": bytes(32), "leaf_index": 0, "siblings": [bytes([1]) * 32]}
    lie = proof._replace(earlier=[proof.earlier[0]._replace(**{change: other[change]})])
    assert ask(world, proof=lie) == ("NOT PROVEN", "broken-proof")


@pytest.mark.parametrize(
    ("data", "path", "named"),
    [
        (b"evil", "a.txt", (None, None, None)),
        (b"two", "b.txt", (None, None, None)),
        (b"two", "a.txt", (bytes(32), None, None)),
        (b"two", "a.txt", (None, 1, None)),
        (b"two", "a.txt", (None, None, bytes(32))),
        (b"two", "a.txt", None),
    ],
    ids=["content", "path", "chain", "seq", "head", "nothing"],
)
def test_verify_refuses_adopted_that_does_not_continue_the_chain_before(
    data: bytes, path: str, named: tuple[bytes | int | None, ...] | None
) -> None:
    """`adopted` names exactly the end before, and keeps content and path."""
    world = created(b"one", b"two")
    world.close(1)
    end = world.histories[1].chain.ending()
    right = (end.chain_id, end.seq, end.head)
    history = History(world.binding(1, 1), 1, end)
    history.previous = world.histories[1]
    world.histories[1] = history
    argument = None
    if named is not None:
        argument = Predecessor(*(mine or his for mine, his in zip(named, right, strict=True)))  # type: ignore[arg-type]
    world.record(1, Operation.ADOPTED, data, path, argument, replay=False)
    world.publish()
    assert ask(world, data, path=path) == ("CHANGED", "illegal")
    assert ask(two_generations()) == VERIFIED


@pytest.mark.parametrize("first", [Operation.CREATED, Operation.COPIED])
def test_verify_refuses_generation_that_sheds_taints_by_starting_anew(first: Operation) -> None:
    """[R] Only `adopted` continues a chain: `created` or `copied` would leave behind what stood against it."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.record(1, Operation.ALTERED, b"two", "a.txt")
    world.publish()
    world.close(1)
    history = History(world.binding(1, 1), 1, None)
    history.previous, world.histories[1] = world.histories[1], history
    world.record(1, first, b"two", "a.txt", context={ContextField.COPIED_FROM: "z"})
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")
    assert ask(two_generations()) == VERIFIED


@pytest.mark.parametrize("part", list(Part))
def test_verify_refuses_withheld_opening_of_an_earlier_close(part: Part) -> None:
    """[R] What `adopted` must keep is shown: nothing can erase parts of a chain's last entry."""
    world = two_generations()
    proof = world.prove(1)
    end = proof.earlier[0]
    hidden = end._replace(step=end.step._replace(**{part.word: None}))
    assert ask(world, proof=proof._replace(earlier=[hidden])) == ("NOT PROVEN", "opening-missing")


def test_verify_refuses_strangers_a_generation_without_predecessor() -> None:
    """[R] Whoever can't compute chain ids still wants to see as many ends as there were generations."""
    world = created(b"one", b"two")
    world.record_seal(1)
    size = world.publish()
    seen = world.prove(1)
    world.histories[1] = History(world.binding(1, 1), 1, None)
    world.record(1, Operation.ADOPTED, b"two", "a.txt")
    world.publish()
    world.record_seal(1)
    world.publish()
    trust, question = world.trust._replace(blinding=None), Question(world.now, content_of(b"two"), "a.txt")
    for memory in (Memory(), Memory(world.notes[size], seen)):
        report = verify(world.prove(1, pinned=size), trust, question, memory)
        assert said(report) == ("NOT PROVEN", "generations")


def test_verify_refuses_predecessor_that_is_not_shown() -> None:
    """A first generation that continues another chain shows that chain's end."""
    world = World()
    world.record(1, Operation.ADOPTED, b"one", "a.txt", Predecessor(bytes(32), 3, bytes(32)), replay=False)
    world.publish()
    assert ask(world, b"one", path="a.txt") == ("NOT PROVEN", "predecessor")


def test_verify_refuses_unsigned_close_until_sealed() -> None:
    """After a close that the owner did not sign, only the owner's seal that names it brings VERIFIED."""
    world = two_generations(signed=False)
    assert ask(world) == ("NOT PROVEN", "unsigned-close")
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record_seal(1)
    world.publish()
    assert ask(world) == ("NOT PROVEN", "unsigned-close")
    end = world.prove(1).earlier[0]
    world.record_seal(1, accepts=((end.chain_id, 2),))
    world.publish()
    assert ask(world) == VERIFIED


def test_verify_refuses_close_signed_by_another_key() -> None:
    """A signature under `closed` that is not the owner's is an illegal step, not an unsigned close."""
    world = created(b"one", b"two")
    owner, world.owner_signer = world.owner_signer, SignerKey("owner", SIGNATURE, secret("server"))
    history = world.histories[1]
    history.chain.binding = history.chain.binding._replace(owner_key=world.owner_signer.verifier_key.public_key)
    history.binding = history.chain.binding
    world.close(1)
    world.owner_signer = owner
    world.continue_(1, b"two", "a.txt")
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")


def test_verify_refuses_taint_dropped_at_close() -> None:
    """A taint lives on in the next generation; a `closed` that does not list it is illegal."""
    assert ask(two_generations(tainted=True)) == ("CHANGED", "altered")
    world = two_generations(tainted=True)
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.record(1, Operation.MOVED, b"three", "b.txt")
    world.publish()
    assert ask(world, b"three") == ("CHANGED", "altered")
    chain_id = world.prove(1).earlier[0].chain_id
    world.record_seal(1, accepts=((chain_id, 1),))
    world.publish()
    assert ask(world, b"three") == VERIFIED


def test_verify_refuses_close_that_does_not_list_every_taint() -> None:
    """The chain itself shows that its `closed` hides a taint, or names one that nobody knows."""
    for taints in ((), (Taint(bytes(32), 1, ALTERED),)):
        world = World()
        world.record(1, Operation.CREATED, b"one", "a.txt")
        world.record(1, Operation.ALTERED, b"two", "a.txt")
        world.publish()
        closed = Closed(CloseReason.FULL, taints, b"")
        world.record(1, Operation.CLOSED, b"two", "a.txt", closed, replay=False)
        world.publish()
        assert ask(world, path="a.txt") == ("CHANGED", "illegal")


# -- step 10: what stands against the history -------------------------------------------------------------------


def altered() -> World:
    """The bytes of file 1 changed with no operation, after two honest versions."""
    world = World()
    world.record(1, Operation.CREATED, b"zero", "a.txt")
    world.record(1, Operation.WRITTEN, b"one", "a.txt")
    world.record(1, Operation.ALTERED, b"evil", "a.txt")
    world.publish()
    return world


HIDING: dict[str, list[tuple[Operation, bytes | None, str | None]]] = {
    "nothing": [],
    "written": [(Operation.WRITTEN, b"two", "a.txt")],
    "written back": [(Operation.WRITTEN, b"one", "a.txt")],
    "moved": [(Operation.MOVED, b"evil", "b.txt")],
    "touched": [(Operation.TOUCHED, b"evil", "a.txt")],
    "restored": [(Operation.DELETED, None, None), (Operation.RESTORED, b"evil", "a.txt")],
}


@pytest.mark.parametrize("hiding", HIDING.values(), ids=HIDING.keys())
def test_verify_refuses_altered_hidden_by_later_operations(
    hiding: list[tuple[Operation, bytes | None, str | None]],
) -> None:
    """[R] `altered` stays CHANGED through written, moved, touched, deleted and restored: only a seal clears it."""
    world = altered()
    for operation, data, path in hiding:
        world.record(1, operation, data, path)
    world.publish()
    data = hiding[-1][1] if hiding else b"evil"
    report = world.verify(world.prove(1), data, path=world.histories[1].chain.path)  # type: ignore[arg-type]
    assert said(report) == ("CHANGED", "altered")
    assert report.findings[0].seq == 2
    world.record_seal(1, accepts=(key_of(world, 2),))
    world.publish()
    assert ask(world, data) == VERIFIED


def test_verify_refuses_altered_hidden_by_later_written() -> None:
    """[R] The case of the design by its name: a server-said `written` over altered bytes hides nothing."""
    world = altered()
    world.record(1, Operation.WRITTEN, b"new", "a.txt")
    world.publish()
    assert ask(world, b"new") == ("CHANGED", "altered")
    assert ask(created(b"zero", b"one", b"new"), b"new") == VERIFIED


def test_verify_clears_altered_by_revert_to_before_it_alone() -> None:
    """[R] `reverted` to a version from before the alteration mends it; to one from after it, or to itself, not."""
    world = altered()
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.publish()
    assert ask(world, b"one") == VERIFIED
    world = altered()
    world.record(1, Operation.WRITTEN, b"one", "a.txt")
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(3))
    world.publish()
    assert ask(world, b"one") == ("CHANGED", "altered")
    world.record(1, Operation.REVERTED, b"evil", "a.txt", Reverted(2))
    world.publish()
    assert ask(world, b"evil") == ("CHANGED", "altered")


def test_verify_refuses_taint_cleared_through_an_erased_part() -> None:
    """[R] Where the older content is not shown, a revert to it clears nothing; erasing it is no way there."""
    world = altered()
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.publish()
    assert ask(world, b"one") == VERIFIED
    world.erase(world.histories[1], 1, Part.CONTENT)
    assert ask(world, b"one")[:2] == ("CHANGED", "altered")
    world = altered()
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.ERASED, argument=Erased(1, Part.CONTENT), replay=False)
    world.publish()
    assert ask(world, b"one") == ("CHANGED", "illegal")


def test_verify_refuses_gap_hidden_by_later_operations() -> None:
    """[R] `gap` is NOT PROVEN until the owner's seal accepts it; a revert does not clear it."""
    world = created(b"one", b"two")
    world.record(1, Operation.GAP, argument=Gap(GapReason.UNOBSERVED))
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.record(1, Operation.REVERTED, b"two", "a.txt", Reverted(1))
    world.publish()
    assert ask(world) == ("NOT PROVEN", "gap")
    world.record_seal(1, accepts=(key_of(world, 2),))
    world.publish()
    assert ask(world) == VERIFIED


def test_verify_says_altered_before_gap_and_unsigned_close() -> None:
    """The worst of what stands against a history is the verdict."""
    world = two_generations(signed=False, tainted=True)
    world.record(1, Operation.GAP, argument=Gap(GapReason.UNKNOWN))
    world.publish()
    assert ask(world)[:2] == ("CHANGED", "altered")
    gap = two_generations(signed=False)
    gap.record(1, Operation.GAP, argument=Gap(GapReason.UNKNOWN))
    gap.publish()
    assert ask(gap)[:2] == ("NOT PROVEN", "gap")


def test_verify_lets_a_seal_in_the_making_mend_what_it_accepts() -> None:
    """A seal is made for a proof that passes everything but what this seal will accept, and for nothing else."""
    world = altered()
    world.record(1, Operation.GAP, argument=Gap(GapReason.UNKNOWN))
    world.publish()
    both = frozenset({key_of(world, 2), key_of(world, 3)})
    assert ask(world, b"evil", mends=both) == VERIFIED
    report = world.verify(world.prove(1), b"evil", path="a.txt", mends=both)
    assert not report.pins_chain  # until the seal is there, it is not VERIFIED
    assert ask(world, b"evil", mends=frozenset({key_of(world, 2)})) == ("NOT PROVEN", "gap")
    assert ask(world, b"evil", mends=frozenset({key_of(world, 3)})) == ("CHANGED", "altered")


@pytest.mark.parametrize("part", list(Part))
@pytest.mark.parametrize("seq", [0, 2])
def test_verify_refuses_missing_opening(part: Part, seq: int) -> None:
    """[R] An opening that is not there, and that no `erased` entry names, is NOT PROVEN."""
    world = a_file()
    world.erase(world.histories[1], seq, part)
    path = None if part is Part.PATH and seq == 2 else "d.txt"
    assert ask(world, path=path, file_id=1) == ("NOT PROVEN", "opening-missing")


def test_verify_refuses_missing_opening_in_place_of_altered() -> None:
    """An opening withheld next to an alteration does not soften CHANGED."""
    world = altered()
    world.erase(world.histories[1], 0, Part.CONTEXT)
    assert ask(world, b"evil") == ("CHANGED", "altered", "opening-missing")


def test_verify_accepts_erased_parts_of_older_steps() -> None:
    """What was erased and logged as erased keeps the chain whole."""
    world = a_file()
    for part in Part:
        world.record(1, Operation.ERASED, argument=Erased(0, part))
        world.erase(world.histories[1], 0, part)
    world.publish()
    assert ask(world) == VERIFIED


def test_verify_refuses_erased_entry_for_another_part() -> None:
    """An `erased` that names one part does not excuse another one."""
    world = a_file()
    world.record(1, Operation.ERASED, argument=Erased(0, Part.PATH))
    world.publish()
    assert ask(world) == VERIFIED
    world.erase(world.histories[1], 0, Part.CONTENT)
    assert ask(world) == ("NOT PROVEN", "opening-missing")


@pytest.mark.parametrize("seq", [1, 2])
def test_verify_refuses_erased_current_content(seq: int) -> None:
    """[R] The current content can't be erased, neither where it was set nor where it was kept."""
    world = a_file()
    world.record(1, Operation.ERASED, argument=Erased(seq, Part.CONTENT), replay=False)
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")


def test_verify_refuses_reverted_to_expired_version() -> None:
    """Bytes that are gone can't come back."""
    for expire in (False, True):
        world = created(b"one", b"two")
        if expire:
            world.record(1, Operation.EXPIRED, argument=Expired(ExpiryReason.THINNED, (0,)))
        world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(0), replay=False)
        world.publish()
        assert ask(world, b"one") == (("CHANGED", "illegal") if expire else VERIFIED)


def test_verify_refuses_restored_whose_bytes_expired() -> None:
    """A deleted file whose bytes are gone can't come back either."""
    for expire in (False, True):
        world = created(b"one")
        world.record(1, Operation.DELETED)
        if expire:
            world.record(1, Operation.EXPIRED, argument=Expired(ExpiryReason.PURGED, (0,)))
        world.record(1, Operation.RESTORED, b"one", "a.txt", replay=False)
        world.publish()
        assert ask(world, b"one") == (("CHANGED", "illegal") if expire else VERIFIED)


def test_verify_refuses_illegal_step() -> None:
    """A history that hashes and is logged, and whose steps do not follow each other, is CHANGED."""
    world = created(b"one")
    world.record(1, Operation.MOVED, b"evil", "b.txt", replay=False)
    world.publish()
    report = world.verify(world.prove(1), b"evil", path="b.txt")
    assert said(report) == ("CHANGED", "illegal")
    assert report.findings[0].seq == 1


# -- step 11: what was seen of the chain ------------------------------------------------------------------------


def test_verify_refuses_history_that_differs_from_the_one_seen() -> None:
    """[R] Though log, witnesses and auditors all vouch for it: a step that differs from the one seen is CHANGED."""
    seen, other = created(b"one", b"two").prove(1), created(b"one", b"evil")
    report = other.verify(other.prove(1), b"evil", Memory(None, seen), path="a.txt")
    assert said(report) == ("CHANGED", "pinned")
    assert report.findings[0].seq == 1
    assert ask(other, b"evil", memory=Memory(None, other.prove(1))) == VERIFIED


def test_verify_refuses_history_shorter_than_the_one_seen() -> None:
    """[R] Truncation: a tree that is not older and holds fewer steps of the file than were seen."""
    seen, other = created(b"one", b"two").prove(1), created(b"one")
    assert ask(other, b"one", memory=Memory(None, seen)) == ("CHANGED", "pinned")


def test_verify_calls_an_older_honest_proof_stale_and_not_changed() -> None:
    """A proof from before the one that was seen lacks steps, and nothing in it is a lie."""
    world = created(b"one", b"two")
    old, memory = world.prove(1, size=min(world.notes)), Memory(world.notes[max(world.notes)], world.prove(1))
    assert ask(world, b"one", old, memory=memory) == ("NOT PROVEN", "stale")
    assert ask(world, b"one", old) == VERIFIED


def test_verify_refuses_generation_closed_before_what_was_seen() -> None:
    """[R] The pinned chain must have been closed after the last step seen, on top of it."""
    world = created(b"one", b"two")
    seen = world.prove(1)
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    assert ask(world, memory=Memory(None, seen)) == VERIFIED
    early = created(b"two")
    early.close(1)
    early.continue_(1, b"two", "a.txt")
    early.publish()
    assert ask(early, memory=Memory(None, seen)) == ("CHANGED", "pinned")
    other = created(b"one", b"evil")
    other.close(1)
    other.continue_(1, b"evil", "a.txt")
    other.publish()
    assert ask(other, b"evil", memory=Memory(None, seen)) == ("CHANGED", "pinned")


def test_verify_refuses_older_generation_than_the_one_seen() -> None:
    """The proof of a generation before the one seen is stale."""
    world = two_generations()
    old = created(b"one", b"two").prove(1)
    assert ask(world, proof=old, memory=Memory(None, world.prove(1))) == ("NOT PROVEN", "stale")


def test_verify_joins_a_short_proof_to_the_stored_one() -> None:
    """[R] A short proof is completed from the state alone, and a state that lacks the beginning is asked for it."""
    world = created(b"one", b"two")
    seen, size = world.prove(1), max(world.notes)
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish()
    short = world.prove(1, pinned=size, first_seq=2)
    assert len(short.entries) == 1
    report = world.verify(short, b"three", Memory(world.notes[size], seen), path="a.txt")
    assert said(report) == VERIFIED
    assert report.proof == world.prove(1, pinned=size)
    incomplete = ("NOT PROVEN", "incomplete")
    assert said(world.verify(short, b"three", Memory(world.notes[size]), path="a.txt")) == incomplete
    shorter = Memory(None, created(b"one").prove(1))
    assert said(world.verify(world.prove(1, first_seq=2), b"three", shorter, path="a.txt")) == incomplete


def test_verify_refuses_short_proof_that_does_not_fit_the_stored_one() -> None:
    """[R] Joined to what was really seen, a rewritten continuation does not reach the head."""
    seen, other = created(b"one", b"two").prove(1), created(b"one", b"evil", b"three")
    short = other.prove(1, first_seq=2)
    assert ask(other, b"three", short, memory=Memory(None, seen)) == ("CHANGED", "history")


# -- step 12: seals ---------------------------------------------------------------------------------------------


def sealed(world: World | None = None) -> World:
    """A world whose file 1 is sealed by its owner's device, and published since."""
    world = world or created(b"one", b"two")
    world.record_seal(1)
    world.publish()
    return world


def test_verify_refuses_unsealed_passing_as_sealed() -> None:
    """journald 1: what is not sealed, or was written after the seal, is not sealed when that is asked for."""
    world = created(b"one", b"two")
    assert ask(world) == VERIFIED
    assert ask(world, require_seal=True) == ("NOT PROVEN", "unsealed")
    sealed(world)
    assert ask(world, require_seal=True) == VERIFIED
    world.record(1, Operation.MOVED, b"two", "b.txt")
    world.publish()
    assert ask(world, require_seal=True) == VERIFIED
    world.record(1, Operation.WRITTEN, b"three", "b.txt")
    world.publish()
    assert ask(world, b"three") == VERIFIED
    assert ask(world, b"three", require_seal=True) == ("NOT PROVEN", "unsealed")


def test_verify_refuses_resealed_with_later_key() -> None:
    """journald 2: a seal made with any other key, now or later, is an illegal step."""
    world = created(b"one", b"two")
    server = SignerKey("owner", SIGNATURE, secret("server"))
    world.record(1, Operation.SEALED, argument=world.seal(1, signer=server), replay=False)
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")
    assert ask(sealed(), require_seal=True) == VERIFIED


def test_verify_refuses_altered_accepted_by_the_servers_seal() -> None:
    """Only the owner's signature accepts what stands against a history."""
    world = altered()
    server = SignerKey("owner", SIGNATURE, secret("server"))
    seal = world.seal(1, accepts=(key_of(world, 2),), signer=server)
    world.record(1, Operation.SEALED, argument=seal, replay=False)
    world.publish()
    assert ask(world, b"evil") == ("CHANGED", "illegal")


def test_verify_refuses_seal_that_accepts_another_step() -> None:
    """[R] A seal clears the steps that it lists, and lists only what stood against the history."""
    world = altered()
    world.record_seal(1)
    world.publish()
    assert ask(world, b"evil") == ("CHANGED", "altered")
    wrong = world.seal(1, accepts=(key_of(world, 1),))
    world.record(1, Operation.SEALED, argument=wrong, replay=False)
    world.publish()
    assert ask(world, b"evil") == ("CHANGED", "illegal")


def test_verify_refuses_seal_that_accepts_what_came_after_it() -> None:
    """[R] A seal over a step does not speak of a later one, even where the owner signed such words."""
    world = created(b"one", b"two")
    early = world.seal(1, accepts=(key_of(world, 2),))
    world.record(1, Operation.ALTERED, b"evil", "a.txt")
    world.record(1, Operation.SEALED, argument=early, replay=False)
    world.publish()
    assert ask(world, b"evil") == ("CHANGED", "illegal")


@pytest.mark.parametrize("field", ["head", "content", "checked_from", "seq", "tree_root", "tree_size", "signature"])
def test_verify_refuses_seal_with_a_changed_field(field: str) -> None:
    """Every field of a seal is signed or must be that of the chain."""
    world = created(b"one", b"two")
    seal = world.seal(1)
    other = {"checked_from": 0, "seq": 0, "tree_size": 1, "signature": bytes(64)}
    changed = seal._replace(**{field: other.get(field, bytes(32))})
    world.record(1, Operation.SEALED, argument=changed, replay=False)
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")


def test_verify_refuses_seal_recorded_again() -> None:
    """[R] An old seal in last place would make an older tree the pin; seals go forward, in step and in tree."""
    world = created(b"one", b"two")
    old = world.seal(1)
    world.record(1, Operation.SEALED, argument=old)
    world.publish()
    world.record_seal(1)
    world.publish()
    assert ask(world, require_seal=True) == VERIFIED
    world.record(1, Operation.SEALED, argument=old, replay=False)
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")


def test_verify_refuses_seal_of_a_smaller_tree_than_the_last_seal() -> None:
    """[R] A later step sealed in a smaller tree would weaken the pin as well."""
    world = sealed()
    seal = world.seal(1)._replace(tree_size=2, tree_root=reference.mth(world.leaves[:2]))
    seal = sign_seal(seal, world.histories[1].binding, world.owner_signer)
    world.record(1, Operation.SEALED, argument=seal, replay=False)
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")


def test_verify_refuses_seal_dropped() -> None:
    """Each seal names the one before, so none can be left out under a later one."""
    honest = sealed()
    honest.record(1, Operation.WRITTEN, b"three", "a.txt")
    honest.publish()
    first, last = honest.histories[1].records[2].line, honest.seal(1)
    honest.record(1, Operation.SEALED, argument=last)
    honest.publish()
    assert ask(honest, b"three", require_seal=True) == VERIFIED
    without = sealed()
    without.record(1, Operation.WRITTEN, b"three", "a.txt")
    without.publish()
    unnamed = without.seal(1)._replace(previous=bytes(32))
    unnamed = sign_seal(unnamed, without.histories[1].binding, without.owner_signer)
    without.record(1, Operation.SEALED, argument=unnamed, replay=False)
    without.publish()
    assert first == without.histories[1].records[2].line
    assert ask(without, b"three") == ("CHANGED", "illegal")


def test_verify_refuses_tree_that_forgot_the_sealed_one() -> None:
    """The newest seal's tree is a pin: a log that was forked below it can't show it."""
    world = created(b"one", b"two")
    fork = created(b"one", b"two")
    fork.record(2, Operation.CREATED, b"seen by the owner alone", "x")
    fork.publish()
    seal = fork.seal(1)
    world.record(1, Operation.SEALED, argument=seal)
    world.record(3, Operation.CREATED, b"x", "x")
    world.publish()
    assert ask(world) == ("NOT PROVEN", "broken-proof")
    assert ask(sealed()) == VERIFIED


def test_verify_refuses_sealed_tree_that_is_not_shown() -> None:
    """Without consistency from the sealed tree, or from another one, nothing is proven."""
    world = sealed()
    proof = world.prove(1)
    assert proof.sealed is not None
    assert ask(world, proof=proof._replace(sealed=None)) == ("NOT PROVEN", "seal-tree")
    small = min(world.notes)
    other = Since(small, reference.consistency(small, world.leaves))
    assert ask(world, proof=proof._replace(sealed=other)) == ("NOT PROVEN", "seal-tree")


def test_verify_refuses_seal_of_a_tree_bigger_than_the_one_shown() -> None:
    """A seal over a tree that this view does not reach shows nothing, whatever hashes come with it."""
    world = created(b"one", b"two")
    seal = sign_seal(world.seal(1)._replace(tree_size=99), world.histories[1].binding, world.owner_signer)
    world.record(1, Operation.SEALED, argument=seal)
    size = world.publish()
    world.histories[1].chain.seals.clear()
    proof = world.prove(1, size=size)._replace(sealed=Since(99, []))
    assert ask(world, proof=proof) == ("NOT PROVEN", "seal-tree")


def test_verify_asks_strangers_for_the_owners_seal() -> None:
    """[R] Without seed and reader key only a seal by the pinned owner's key says which file this chain is."""
    world = created(b"one", b"two")
    stranger = world.trust._replace(blinding=None)

    def asks(owner_key: bytes | None) -> tuple[str, ...]:
        trust = stranger._replace(owner_key=owner_key)
        return said(verify(world.prove(1), trust, Question(world.now, content_of(b"two"), "a.txt"), Memory()))

    assert asks(world.owner.public) == ("NOT PROVEN", "not-owner")
    sealed(world)
    assert asks(world.owner.public) == VERIFIED
    with pytest.raises(Usage, match="owner's key"):
        asks(None)
    assert asks(_other_key()) == ("CHANGED", "illegal")


def test_verify_refuses_stranger_a_sealed_chain_under_another_file_id() -> None:
    """The owner's seal binds file id and chain id: relabelled, it is somebody else's words."""
    world = sealed()
    trust = world.trust._replace(blinding=None)
    question = Question(world.now, content_of(b"two"), "a.txt")
    for change in ({"file_id": 7}, {"root": bytes(32)}):
        report = verify(world.prove(1)._replace(**change), trust, question, Memory())  # type: ignore[arg-type]
        assert report.verdict is Verdict.CHANGED
        assert report.findings[0].reason in ("illegal", "history")


def _other_key() -> bytes:
    return SignerKey("other", SIGNATURE, secret("other")).verifier_key.public_key


# -- step 13: which file ----------------------------------------------------------------------------------------


def test_verify_refuses_other_file_under_asked_path() -> None:
    """A copy served under the asked path: its proof names the path where it really is."""
    world = a_file()
    proof = world.prove(2)
    assert ask(world, b"other", proof, path="b.txt") == VERIFIED
    assert ask(world, b"other", proof, path="d.txt") == ("NOT PROVEN", "other-path")
    assert ask(world, b"two", path="a.txt") == ("NOT PROVEN", "other-path")


def taken_over(*leave: Operation) -> tuple[World, Memory]:
    """File 1 was at a.txt when the client looked; now file 2 is there, after file 1 did what `leave` says."""
    world = created(b"one")
    memory = Memory(world.notes[max(world.notes)], None, 1)
    for operation in leave:
        if operation is Operation.CLOSED:
            world.close(1, CloseReason.REUSED_ID)
        elif operation is Operation.DELETED:
            world.record(1, operation)
        else:
            world.record(1, operation, b"one", "elsewhere.txt" if operation is Operation.MOVED else "a.txt")
    world.record(2, Operation.CREATED, b"new", "a.txt")
    world.publish()
    return world, memory


@pytest.mark.parametrize("leave", [Operation.MOVED, Operation.DELETED])
def test_verify_accepts_path_that_the_old_file_left(leave: Operation) -> None:
    """[R] Another file id for a known path is right once the old file's leaving is in the same tree."""
    world, memory = taken_over(leave)
    proof = world.prove(2, pinned=2, replaces=(1,))
    assert said(world.verify(proof, b"new", memory, path="a.txt")) == VERIFIED


def test_verify_refuses_path_taken_over_without_replaced() -> None:
    """[R] Another file id for a known path, and nothing shows that the old one left."""
    world, memory = taken_over(Operation.MOVED)
    refused = ("NOT PROVEN", "other-file-id")
    assert said(world.verify(world.prove(2, pinned=2), b"new", memory, path="a.txt")) == refused
    other = world.prove(2, pinned=2, replaces=(1,))
    mislabelled = other._replace(replaced=[other.replaced[0]._replace(file_id=5)])
    assert said(world.verify(mislabelled, b"new", memory, path="a.txt")) == refused
    stranger = world.trust._replace(blinding=None)
    question = Question(world.now, content_of(b"new"), "a.txt")
    assert "other-file-id" in said(verify(other, stranger, question, memory))


@pytest.mark.parametrize("back", ["moved back", "restored", "continued", "continued and hidden"])
def test_verify_refuses_path_taken_over_while_the_old_file_is_there_again(back: str) -> None:
    """[R] That the old file once left the path shows nothing when it came back: the map says what its last step is."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    if back == "moved back":
        world.record(1, Operation.MOVED, b"one", "b.txt")
    elif back == "restored":
        world.record(1, Operation.DELETED)
    else:
        world.close(1)
    size = world.publish()
    replaced = world.prove(1, replaces=(1,)).replaced[0]
    if back == "moved back":
        world.record(1, Operation.MOVED, b"one", "a.txt")
    elif back == "restored":
        world.record(1, Operation.RESTORED, b"one", "a.txt")
    else:
        world.continue_(1, b"one", "a.txt")
    world.record(2, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    proof = world.prove(2, pinned=size, replaces=(1,))
    siblings = map_reference.prove(world.map, world.binding(1).chain_id)[1]
    if back != "continued":
        replaced = replaced._replace(siblings=siblings)
    if back == "continued":
        replaced = replaced._replace(siblings=siblings, next=None)
    memory = Memory(world.notes[size], None, 1)
    verdict = said(world.verify(proof._replace(replaced=[replaced]), b"evil", memory, path="a.txt"))
    assert verdict == ("NOT PROVEN", "other-file-id" if back == "continued" else "broken-proof")
    both = replaced._replace(steps=[*replaced.steps, world.histories[1].records[-1].line])
    verdict = said(world.verify(proof._replace(replaced=[both]), b"evil", memory, path="a.txt"))
    assert verdict == ("NOT PROVEN", "other-file-id")


def test_verify_accepts_path_of_a_file_whose_chain_ended() -> None:
    """[R] A `closed` frees the path once the map has no next generation."""
    world, memory = taken_over(Operation.CLOSED)
    proof = world.prove(2, pinned=2, replaces=(1,))
    assert said(world.verify(proof, b"new", memory, path="a.txt")) == VERIFIED
    no_next = proof._replace(replaced=[proof.replaced[0]._replace(next=None)])
    assert said(world.verify(no_next, b"new", memory, path="a.txt")) == ("NOT PROVEN", "other-file-id")


def test_verify_refuses_path_taken_over_with_steps_left_out() -> None:
    """[R] All steps since the path was free are shown, in a row, and they begin with one away from the path."""
    world, memory = taken_over(Operation.MOVED)
    for path in ("b.txt", "c.txt"):
        world.record(1, Operation.MOVED, b"one", path)
    world.publish()
    proof = world.prove(2, pinned=2, replaces=(1,))
    history, shown = world.histories[1], proof.replaced[0]

    def asks(before: int, *seqs: int) -> tuple[str, ...]:
        steps = [history.records[seq].line for seq in seqs]
        replaced = shown._replace(before=history.chain.heads[before], steps=steps)
        return said(world.verify(proof._replace(replaced=[replaced]), b"new", memory, path="a.txt"))

    assert asks(0, 1, 2, 3) == asks(1, 2, 3) == asks(2, 3) == VERIFIED
    assert asks(0, 1, 3) == asks(0) == ("NOT PROVEN", "other-file-id")
    assert asks(1, 3) == asks(0, 1, 2) == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_path_taken_over_by_a_step_that_leaves_nothing() -> None:
    """[R] The old file was touched, or moved to this very path: the path is not free."""
    world, memory = taken_over(Operation.TOUCHED)
    proof = world.prove(2, pinned=2, replaces=(1,))
    assert said(world.verify(proof, b"new", memory, path="a.txt")) == ("NOT PROVEN", "other-file-id")


def test_verify_refuses_path_taken_over_by_a_step_that_is_not_in_the_tree() -> None:
    """[R] A leaving that was never logged is no leaving, nor is one of another file."""
    world, memory = taken_over(Operation.MOVED)
    proof = world.prove(2, pinned=2, replaces=(1,))
    shown = proof.replaced[0]
    bare, _ = taken_over(Operation.TOUCHED)
    never = bare.prove(2, pinned=2)._replace(replaced=[shown])
    assert "VERIFIED" not in said(bare.verify(never, b"new", memory, path="a.txt"))
    assert "VERIFIED" not in said(
        world.verify(proof._replace(replaced=[shown._replace(generation=1)]), b"new", memory, path="a.txt")
    )


def test_verify_refuses_erased_path_by_path() -> None:
    """[R] Where the path is erased, only the file id can be asked for."""
    world = a_file()
    world.record(1, Operation.ERASED, argument=Erased(2, Part.PATH))
    world.publish()
    world.erase(world.histories[1], 2, Part.PATH)
    assert ask(world, path="d.txt") == ("NOT PROVEN", "path-erased")
    assert ask(world, path=None, file_id=1) == VERIFIED
    assert ask(world, path=None, file_id=2) == ("NOT PROVEN", "other-file")


def test_verify_refuses_deleted_and_closed_files_as_current() -> None:
    """A file that is gone, or a chain that ended, is never VERIFIED as current."""
    world = created(b"one", b"two")
    world.record(1, Operation.DELETED)
    world.publish()
    assert ask(world, path=None, file_id=1) == ("NOT PROVEN", "deleted")
    world = created(b"one", b"two")
    world.close(1)
    world.publish()
    assert ask(world, path="a.txt") == ("NOT PROVEN", "closed")


# -- step 14: the bytes -----------------------------------------------------------------------------------------


def test_verify_wants_to_know_which_file_is_meant() -> None:
    """[R] A proof never supplies the identity: neither path nor file id is a mistake of the caller."""
    world = a_file()
    with pytest.raises(Usage, match="which file is meant"):
        ask(world, path=None)
    assert ask(world, path=None, file_id=1) == ask(world, file_id=1) == VERIFIED


def test_verify_refuses_flipped_byte() -> None:
    """Bytes that no version ever had are CHANGED; the right ones again are VERIFIED."""
    world = a_file()
    report = world.verify(world.prove(1), b"twO", path="d.txt")
    assert (said(report), report.older_version) == (("CHANGED", "bytes"), None)
    assert ask(world, b"two") == VERIFIED


def test_verify_names_the_older_version_that_the_bytes_are() -> None:
    """An older version is CHANGED as well, and the report says which one it is."""
    world = a_file()
    report = world.verify(world.prove(1), b"one", path="d.txt")
    assert (said(report), report.older_version, report.findings[0].seq) == (("CHANGED", "bytes"), 0, 1)


def test_verify_compares_size_and_digest() -> None:
    """The same digest with another size is not the file."""
    world = a_file()
    for content in (content_of(b"two")._replace(size=4), content_of(b"two")._replace(sha3_256=bytes(32))):
        report = verify(world.prove(1), world.trust, Question(world.now, content, "d.txt"), Memory())
        assert said(report) == ("CHANGED", "bytes")


# -- step 15: times ---------------------------------------------------------------------------------------------


def at_times(*times: int) -> Report:
    """The report about a file whose newest tree was cosigned at these seconds after it was recorded, on one day."""
    world = created(b"one")
    size = max(world.notes)
    start = world.histories[1].chain.steps[0].entry.recorded
    note = noted(world, size, [start + time for time in times])
    world.now = start + 1_000
    proof = world.prove(1)._replace(checkpoint=note, first=None)
    return world.verify(proof, b"one", path="a.txt")


@pytest.mark.parametrize(
    ("times", "not_later", "newest"),
    [
        ((10, 20, 30, 40), 30, 20),
        ((40, 10, 30, 20), 30, 20),
        ((1, 20, 30, 40), 30, 20),  # one liar in the past
        ((10, 20, 30, 1_000), 30, 20),  # one liar in the future
        ((10, 20, 30), 30, 10),
        ((25, 25, 25, 25), 25, 25),
    ],
)
def test_verify_times_are_the_quorums_never_max_min_or_mean(
    times: tuple[int, ...], not_later: int, newest: int
) -> None:
    """Not later than: the third smallest of four; still the newest at: the third largest. One liar moves neither."""
    report = at_times(*times)
    start = 1_800_000_000
    assert report.times is not None
    assert (report.times.not_later_than - start, report.times.still_newest_at - start) == (not_later, newest)
    assert report.verdict is Verdict.VERIFIED


def test_verify_refuses_cosignature_from_future() -> None:
    """A cosignature ahead of the verifier's clock counts for nothing; up to the bound it counts."""
    assert said(at_times(10, 20, 1_031, 1_031)) == ("NOT PROVEN", "unwitnessed", "not-replayed")
    assert said(at_times(10, 20, 1_030, 1_031)) == VERIFIED


def test_verify_refuses_cosignature_without_a_time() -> None:
    """A time of 0 never counts: the line does not hold."""
    world = created(b"one")
    note = parse_note(world.notes[max(world.notes)])
    zero = note.signatures[1]._replace(blob=bytes(8) + note.signatures[1].blob[8:])
    forged = format_note(note._replace(signatures=(note.signatures[0], zero, *note.signatures[2:])))
    proof = world.prove(1)._replace(checkpoint=forged, first=None)
    assert ask(world, b"one", proof) == ("NOT PROVEN", "bad-signature")


def test_verify_refuses_stale_proof() -> None:
    """Freshness is the verifier's bound on "still the newest at", 7 days unless asked otherwise."""
    world = a_file()
    proof, signed = world.prove(1), world.now - 10
    world.now = signed + 7 * 24 * 3600
    assert ask(world, proof=proof) == VERIFIED
    world.tick(1)
    assert ask(world, proof=proof) == ("NOT PROVEN", "stale")
    assert ask(world, proof=proof, max_age_s=8 * 24 * 3600) == VERIFIED
    world.now = signed + 61
    assert ask(world, proof=proof, max_age_s=60) == ("NOT PROVEN", "stale")
    heartbeat = proof._replace(checkpoint=noted(world, max(world.notes), [world.now] * 4))
    assert ask(world, proof=heartbeat, max_age_s=60) == VERIFIED


def test_verify_refuses_wrong_clock() -> None:
    """An entry that claims to be recorded more than 5 minutes after witnesses saw it shows a wrong clock."""
    for ahead, verdict in ((300, VERIFIED), (301, ("NOT PROVEN", "clock"))):
        world = World()
        world.tick(ahead)
        world.record(1, Operation.CREATED, b"one", "a.txt")
        world.tick(-ahead)
        world.publish()
        assert ask(world, b"one") == verdict


def test_verify_takes_not_later_than_from_the_first_checkpoint_that_covers_the_entry() -> None:
    """A heartbeat today does not make an old entry new: `first` says when it was there already."""
    world = created(b"one")
    early = world.now - 10
    size = max(world.notes)
    world.tick(1_000)
    world.notes[size], first = noted(world, size, [world.now] * 4), world.notes[size]
    proof = world.prove(1)
    bracket = Bracket(first, [])
    report = world.verify(proof._replace(first=bracket), b"one", path="a.txt")
    assert report.times is not None
    assert (report.times.not_later_than, report.times.still_newest_at) == (early, world.now)
    report = world.verify(proof._replace(first=None), b"one", path="a.txt")
    assert report.times is not None
    assert report.times.not_later_than == world.now


def test_verify_ignores_brackets_that_do_not_bracket() -> None:
    """`first` must cover the last entry and `before` must not, else they say nothing about it."""
    world = created(b"one")
    world.tick(1_000)
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.publish()
    proof = world.prove(1)
    honest = world.verify(proof, b"two", path="a.txt").times
    assert proof.first is not None
    assert proof.before is not None
    assert honest is not None
    assert honest.not_before == honest.not_later_than - 1_010
    swapped = world.verify(proof._replace(first=proof.before, before=proof.first), b"two", path="a.txt").times
    assert swapped is not None
    assert (swapped.not_before, swapped.not_later_than) == (None, honest.still_newest_at)


@pytest.mark.parametrize("member", ["first", "before"])
def test_verify_refuses_bracket_that_is_not_of_this_log(member: str) -> None:
    """Each checkpoint of the proof is signed, witnessed, not empty, and an earlier state of the newest one."""
    world, other = a_file(), created(b"x")
    size = min(world.notes)
    hashes = reference.consistency(size, world.leaves)
    text = parse_note(world.notes[size]).text
    bad = {
        "unsigned": Bracket(format_note(Note(text, (cosign(text, world.witnesses[0], 1),))), hashes),
        "unwitnessed": Bracket(world.note(size, reference.mth(world.leaves[:size]), 2), hashes),
        "empty-tree": Bracket(world.note(0, reference.mth([])), []),
        "broken-proof": Bracket(other.notes[max(other.notes)], reference.consistency(max(other.notes), world.leaves)),
    }
    for reason, bracket in bad.items():
        assert ask(world, proof=world.prove(1)._replace(**{member: bracket})) == ("NOT PROVEN", reason)


# -- as of a time -----------------------------------------------------------------------------------------------


def test_verify_as_of_the_proofs_own_time() -> None:
    """A proof kept for years is VERIFIED as of its own time, and writes no state."""
    world = a_file()
    proof, signed = world.prove(1), world.now - 10
    world.tick(10 * 365 * 24 * 3600)
    assert ask(world, proof=proof) == ("NOT PROVEN", "stale")
    report = world.verify(proof, b"two", path="d.txt", as_of="proof")
    assert (said(report), report.as_of) == (VERIFIED, signed)
    assert (report.pins_checkpoint, report.pins_chain) == (False, False)


def test_verify_as_of_a_time_between_logged_and_still_newest() -> None:
    """As of T holds from the last entry's "not later than" to "still the newest at", both included."""
    world = a_file()
    size = max(world.notes)
    first, logged = world.notes[size], world.now - 10
    world.tick(1_000)
    proof = world.prove(1)._replace(checkpoint=noted(world, size, [world.now] * 4), first=Bracket(first, []))
    for time in (logged, logged + 500, world.now):
        assert ask(world, proof=proof, as_of=time) == VERIFIED
    for time in (logged - 1, world.now + 1):
        assert ask(world, proof=proof, as_of=time) == ("NOT PROVEN", "as-of")


def test_verify_as_of_wants_a_time() -> None:
    """What is neither a time nor `proof` is the caller's mistake."""
    with pytest.raises(Usage, match="as of"):
        ask(a_file(), as_of="yesterday")


def test_verify_as_of_an_older_tree_than_seen() -> None:
    """As of an earlier time a smaller tree is no rollback, as long as every step is the one seen later."""
    world = created(b"one")
    old = world.prove(1)
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    size = world.publish()
    memory = Memory(world.notes[size], world.prove(1))
    assert ask(world, b"one", old, memory=memory, as_of="proof") == VERIFIED


def test_verify_as_of_an_older_generation_than_seen() -> None:
    """As of an earlier time the generation of that time is the current one."""
    world = two_generations()
    old = world.prove(1, size=min(world.notes), history=world.histories[1].previous)
    memory = Memory(world.notes[max(world.notes)], world.prove(1))
    assert ask(world, proof=old, memory=memory) == ("NOT PROVEN", "stale", "stale")
    assert ask(world, proof=old, memory=memory, as_of="proof") == VERIFIED


def test_verify_as_of_an_older_tree_with_another_history_is_fork() -> None:
    """[R] A smaller tree whose steps differ from the stored proof's is a FORK, with both proofs as evidence."""
    world, other = created(b"one", b"two"), created(b"evil")
    memory, proof = Memory(world.notes[max(world.notes)], world.prove(1)), other.prove(1)
    report = other.verify(proof, b"evil", memory, path="a.txt", as_of="proof")
    assert "fork" in said(report)
    assert report.verdict is Verdict.FORK
    assert report.evidence is not None


# -- journald's other failures ----------------------------------------------------------------------------------


def test_verify_refuses_truncation() -> None:
    """journald 3: a log cut off after what was seen is stale, and FORK once a witness signs the stump anew."""
    world = a_file()
    small, size = sorted(world.notes)
    memory = Memory(world.notes[size])
    stump = world.prove(1, size=small)
    assert ask(world, b"one", stump, path="a.txt", memory=memory) == ("NOT PROVEN", "stale")
    world.tick(60)
    again = stump._replace(checkpoint=noted(world, small, [world.now] * 4), first=None)
    assert ask(world, b"one", again, path="a.txt", memory=memory) == ("FORK", "fork")


def test_verify_raises_no_false_alarm_on_a_live_log() -> None:
    """journald 4: a proof taken while the log grows stays VERIFIED, and so do all later ones, each pinned in turn."""
    world = created(b"one")
    memory, size = Memory(), 0
    for number in range(8):
        proof = world.prove(1, pinned=size)
        world.record(1, Operation.WRITTEN, b"version %d" % number, "a.txt")  # recorded, not yet published
        world.record(number + 2, Operation.CREATED, b"x", "x")
        data = b"version %d" % (number - 1) if number else b"one"
        report = world.verify(proof, data, memory, path="a.txt")
        assert said(report) == VERIFIED
        assert report.checkpoint is not None
        size = report.checkpoint.size
        memory = Memory(proof.checkpoint, report.proof, 1)
        assert said(world.verify(proof, data, memory, path="a.txt")) == VERIFIED  # the same proof again
        world.publish()


# -- keys in policies -------------------------------------------------------------------------------------------


def test_verify_refuses_evidence_free_fork() -> None:
    """A consistency proof that merely fails convinces nobody of a fork."""
    world, other = created(b"one"), created(b"evil", b"two")
    with pytest.raises(NotVerified):
        verify_consistency(
            *(2, reference.mth(world.leaves), 4, reference.mth(other.leaves)), reference.consistency(2, other.leaves)
        )
    report = other.verify(other.prove(1, pinned=2), b"two", Memory(world.notes[2]), path="a.txt")
    assert said(report) == ("NOT PROVEN", "broken-proof")
    assert report.evidence is None


def test_verify_policy_text_is_the_users() -> None:
    """A proof names no policy: with other nodes' keys the same note has no quorum."""
    world, strangers = a_file(), World()
    names = [f"n{i}.example" for i in range(4)]
    strangers.witnesses = [SignerKey(name, 4, secret("stranger " + name)) for name in names]
    other = world.trust._replace(witnesses=parse_policy(world.policy_file(strangers.witnesses, 3), WITNESSES))
    report = verify(world.prove(1), other, Question(world.now, content_of(b"two"), "d.txt"), Memory())
    assert said(report) == ("NOT PROVEN", "unwitnessed")
    assert format_vkey(world.log.verifier_key) in world.policy_text.decode()
    assert encode_leaf(MapLeaf(bytes(32)))[0] == 2
