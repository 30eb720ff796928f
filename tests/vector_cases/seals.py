"""Step 12 of SPEC 9: what is not sealed, and seals that are not valid."""

from __future__ import annotations

from tests import reference
from tests.builder import SIGNATURE, SignerKey, secret, sign_seal
from tests.vector_cases import Ask, alone, case, small
from tests.verifier.worlds import altered, key_of, sealed
from verifier.entry import Operation, Seal
from verifier.proof import Since

NOT_PROVEN, CHANGED = "NOT PROVEN", "CHANGED"


@case(NOT_PROVEN, "unsealed")
def not_sealed() -> Ask:
    """The user demands a seal, and there is none."""
    world = small()
    return Ask(world, world.prove(1), require_seal=True)


@case(NOT_PROVEN, "unsealed")
def written_after_the_seal() -> Ask:
    """The user demands a seal, and the newest one is of an older version."""
    world = sealed(small())
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish()
    return Ask(world, world.prove(1), b"three", require_seal=True)


@case(NOT_PROVEN, "not-owner")
def stranger_without_a_seal() -> Ask:
    """[R] The user has no blinding key, and no seal says which file this chain is."""
    world = small()
    return Ask(world, world.prove(1), reader=False)


@case(CHANGED, "illegal")
def stranger_with_the_seal_of_another_file() -> Ask:
    """[R] A sealed chain under another file id: the seal binds the id."""
    world = sealed(small())
    return Ask(world, world.prove(1)._replace(file_id=7), reader=False)


@case(NOT_PROVEN, "seal-tree")
def sealed_tree_without_a_seal() -> Ask:
    """The proof says that it continues a sealed tree, and the chain has no seal."""
    world = small()
    hashes = reference.consistency(2, world.leaves)
    return Ask(world, world.prove(1)._replace(sealed=Since(2, hashes)))


@case(NOT_PROVEN, "seal-tree")
def sealed_tree_not_shown() -> Ask:
    """[R] The proof has no consistency from the tree that the seal names."""
    world = sealed(small())
    return Ask(world, world.prove(1)._replace(sealed=None))


@case(NOT_PROVEN, "seal-tree")
def another_tree_than_the_sealed_one() -> Ask:
    """The proof has consistency from a tree of another size."""
    world = sealed(small())
    size = min(world.notes)
    return Ask(world, world.prove(1)._replace(sealed=Since(size, reference.consistency(size, world.leaves))))


@case(NOT_PROVEN, "broken-proof")
def tree_that_forgot_the_sealed_one() -> Ask:
    """[R] The owner's device saw a tree that this one does not continue."""
    world, fork = small(), small()
    fork.record(2, Operation.CREATED, b"seen by the owner alone", "x")
    fork.publish()
    world.record(1, Operation.SEALED, argument=fork.seal(1))
    world.record(3, Operation.CREATED, b"x", "x")
    world.publish()
    return Ask(world, world.prove(1))


def with_seal(**change: object) -> Ask:
    """A seal with a changed field, which the owner's key signed nevertheless."""
    world = small()
    seal: Seal = world.seal(1)._replace(**change)  # type: ignore[arg-type]
    seal = sign_seal(seal, world.histories[1].binding, world.owner_signer)
    world.record(1, Operation.SEALED, argument=seal, replay=False)
    world.publish()
    return Ask(world, world.prove(1))


@case(CHANGED, "illegal")
def seal_of_another_head() -> Ask:
    """The seal names another head than the chain's own."""
    return with_seal(head=bytes(32))


@case(CHANGED, "illegal")
def seal_of_another_content() -> Ask:
    """The seal names another content commitment than the chain's own."""
    return with_seal(content=bytes(32))


@case(CHANGED, "illegal")
def seal_that_names_another_seal_before() -> Ask:
    """[R] The seal names a newest seal, and the chain has none: one was dropped."""
    return with_seal(previous=bytes([1]) * 32)


@case(CHANGED, "illegal")
def seal_that_accepts_what_was_never_there() -> Ask:
    """[R] The seal accepts a step that nothing stood against."""
    return with_seal(accepts=((key_of(small(), 1)),))


@case(CHANGED, "illegal")
def seal_signed_by_another_key() -> Ask:
    """A seal with the server's signature accepts an alteration."""
    world = altered(alone())
    server = SignerKey("owner", SIGNATURE, secret("server"))
    seal = world.seal(1, accepts=(key_of(world, 2),), signer=server)
    world.record(1, Operation.SEALED, argument=seal, replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(CHANGED, "illegal")
def seal_recorded_again() -> Ask:
    """[R] An old seal in the last place would make an older tree the pin."""
    world = small()
    old = world.seal(1)
    world.record(1, Operation.SEALED, argument=old)
    world.publish()
    world.record_seal(1)
    world.record(1, Operation.SEALED, argument=old, replay=False)
    world.publish()
    return Ask(world, world.prove(1))


@case(CHANGED, "illegal")
def seal_that_accepts_what_came_after_it() -> Ask:
    """[R] A seal over step 1 does not speak of step 2."""
    world = small()
    early = world.seal(1, accepts=(key_of(world, 2),))
    world.record(1, Operation.ALTERED, b"evil", "a.txt")
    world.record(1, Operation.SEALED, argument=early, replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(CHANGED, "altered")
def seal_that_does_not_accept_the_alteration() -> Ask:
    """[R] A seal clears the steps that it lists, and no others."""
    world = altered(alone())
    world.record_seal(1)
    world.publish()
    return Ask(world, world.prove(1), b"evil")
