"""Steps 2 to 5 of SPEC 9: the checkpoint, who cosigned it, and the tree that was seen before.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests import map_reference, reference
from tests.builder import ORIGIN, SIGNATURE, World, content_of, secret
from tests.verifier.worlds import VERIFIED, a_file, ask, created, noted, said, two_logs
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.entry import Operation
from verifier.errors import Malformed
from verifier.map import map_value
from verifier.note import Note, SignerKey, format_note, parse_note, sign_note
from verifier.policy import AUDITORS, WITNESSES, check_separate, parse_policy
from verifier.proof import Bracket, Since
from verifier.verdict import Memory, Question
from verifier.verify import verify

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
    assert ask(one, memory=Memory(note)) == ("NOT PROVEN", "unconnected")


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
