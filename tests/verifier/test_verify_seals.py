"""Step 12 of SPEC 9: the owner's seals.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests import reference
from tests.builder import SIGNATURE, content_of, secret, sign_seal
from tests.verifier.worlds import VERIFIED, altered, ask, created, key_of, said, sealed
from verifier.entry import Operation
from verifier.note import SignerKey
from verifier.proof import Since
from verifier.verdict import Memory, Question, Verdict
from verifier.verify import verify

# -- step 12: seals ---------------------------------------------------------------------------------------------


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

    def asks(owner_key: bytes) -> tuple[str, ...]:
        trust = stranger._replace(owner_key=owner_key)
        return said(verify(world.prove(1), trust, Question(world.now, content_of(b"two"), "a.txt"), Memory()))

    assert asks(world.owner.public) == ("NOT PROVEN", "not-owner")
    sealed(world)
    assert asks(world.owner.public) == VERIFIED
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
