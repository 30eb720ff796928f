"""The main path as a whole: honest proofs, journald's failures, and whose policy counts.

The steps of SPEC 9 have files of their own, `test_verify_*.py` beside this one; each attack that a rule of the design
stops has a test named after it. A test builds the lie, asserts verdict and reason, and shows that without the lie the
same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests import reference
from tests.builder import World, content_of, secret
from tests.verifier.worlds import VERIFIED, a_file, ask, created, noted, said
from verifier.entry import Operation
from verifier.errors import NotVerified
from verifier.leaf import MapLeaf, encode_leaf
from verifier.merkle import verify_consistency
from verifier.note import SignerKey, format_vkey
from verifier.policy import WITNESSES, parse_policy
from verifier.proof import format_proof, parse_proof
from verifier.verdict import Memory, Question, Verdict
from verifier.verify import verify


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
    bare = other.prove(1, pinned=2)._replace(first=None, before=None)  # no second note that could show a fork
    report = other.verify(bare, b"two", Memory(world.notes[2]), path="a.txt")
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
