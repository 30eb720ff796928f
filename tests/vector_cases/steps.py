"""One step after another, which may follow it or may not: a case for each line of SPEC 4.2 to 4.4 and 5.1."""

from __future__ import annotations

from tests.builder import World, sign_seal
from tests.vector_cases import Ask, alone, case, small
from tests.verifier.worlds import altered, key_of
from verifier.entry import CloseReason, Erased, Expired, ExpiryReason, Gap, GapReason, Operation, Part, Reverted

NOT_PROVEN, CHANGED, VERIFIED = "NOT PROVEN", "CHANGED", "VERIFIED"
_THINNED = ExpiryReason.THINNED


def lying(
    operation: Operation,
    data: bytes | None = None,
    path: str | None = None,
    argument: object = None,
    *,
    world: World | None = None,
    now: bytes = b"two",
    at: str = "a.txt",
) -> Ask:
    """File 1 in two versions, or as `world` has it, and one more step, whatever the rules say of it."""
    world = world or small()
    world.record(1, operation, data, path, argument, replay=False)  # type: ignore[arg-type]
    world.publish()
    return Ask(world, world.prove(1), now, path=at)


@case(CHANGED, "illegal")
def moved_to_the_same_path() -> Ask:
    """`moved` goes to another path."""
    return lying(Operation.MOVED, b"two", "a.txt")


@case(CHANGED, "illegal")
def altered_to_the_same_bytes() -> Ask:
    """`altered` has another content than before."""
    return lying(Operation.ALTERED, b"two", "a.txt")


@case(CHANGED, "illegal")
def written_at_another_path() -> Ask:
    """`written` keeps the path."""
    return lying(Operation.WRITTEN, b"three", "b.txt", now=b"three", at="b.txt")


@case(CHANGED, "illegal")
def written_without_a_path() -> Ask:
    """A live file always has a path."""
    return lying(Operation.WRITTEN, b"three", now=b"three")


@case(CHANGED, "illegal")
def touched_with_other_bytes() -> Ask:
    """`touched` keeps the content."""
    return lying(Operation.TOUCHED, b"three", "a.txt", now=b"three")


@case(CHANGED, "illegal")
def touched_at_another_path() -> Ask:
    """`touched` keeps the path."""
    return lying(Operation.TOUCHED, b"two", "b.txt", at="b.txt")


@case(CHANGED, "illegal")
def gap_with_a_path() -> Ask:
    """`gap` carries nothing."""
    return lying(Operation.GAP, None, "a.txt", Gap(GapReason.UNKNOWN))


@case(CHANGED, "illegal")
def deleted_with_a_content() -> Ask:
    """`deleted` carries nothing."""
    return lying(Operation.DELETED, b"two")


@case(CHANGED, "illegal")
def expired_the_current_version() -> Ask:
    """The current version of a live file is there."""
    return lying(Operation.EXPIRED, argument=Expired(_THINNED, (1,)))


@case(CHANGED, "illegal")
def expired_twice() -> Ask:
    """A version expires once."""
    world = small()
    world.record(1, Operation.EXPIRED, argument=Expired(_THINNED, (0,)))
    return lying(Operation.EXPIRED, argument=Expired(_THINNED, (0,)), world=world)


@case(CHANGED, "illegal")
def restored_after_its_bytes_had_expired() -> Ask:
    """What was deleted and has expired does not come back."""
    world = small()
    world.record(1, Operation.DELETED)
    world.record(1, Operation.EXPIRED, argument=Expired(_THINNED, (1,)))
    return lying(Operation.RESTORED, b"two", "a.txt", world=world)


@case(CHANGED, "illegal")
def restored_with_other_bytes() -> Ask:
    """`restored` brings back what was deleted."""
    world = small()
    world.record(1, Operation.DELETED)
    return lying(Operation.RESTORED, b"one", "a.txt", world=world, now=b"one")


@case(CHANGED, "illegal")
def reverted_to_the_current_version() -> Ask:
    """`reverted` goes to an older version."""
    return lying(Operation.REVERTED, b"two", "a.txt", Reverted(1))


@case(CHANGED, "illegal")
def reverted_to_a_step_that_is_no_version() -> Ask:
    """`moved` carried a content on, and set none."""
    world = small()
    world.record(1, Operation.MOVED, b"two", "b.txt")
    world.record(1, Operation.WRITTEN, b"three", "b.txt")
    return lying(Operation.REVERTED, b"two", "b.txt", Reverted(2), world=world, at="b.txt")


@case(CHANGED, "illegal")
def erased_twice() -> Ask:
    """A part is erased once."""
    world = small()
    world.record(1, Operation.ERASED, argument=Erased(0, Part.CONTENT))
    return lying(Operation.ERASED, argument=Erased(0, Part.CONTENT), world=world)


@case(CHANGED, "illegal")
def erased_what_is_not_there_yet() -> Ask:
    """`erased` names an earlier entry."""
    return lying(Operation.ERASED, argument=Erased(2, Part.CONTEXT))


@case(NOT_PROVEN, "deleted")
def current_content_erased_of_a_deleted_file() -> Ask:
    """Once a file is deleted, the digest of its last version may go as well."""
    world = small()
    world.record(1, Operation.DELETED)
    world.record(1, Operation.ERASED, argument=Erased(1, Part.CONTENT))
    world.publish()
    world.erase(world.histories[1], 1, Part.CONTENT)
    return Ask(world, world.prove(1))


def accepted_and_mended() -> World:
    """An alteration, the bytes from before it, and a seal that accepts the alteration all the same."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.publish()
    world.record_seal(1, accepts=(key_of(world, 2),))
    return world


@case(VERIFIED)
def what_mended_an_alteration_erased_after_a_seal() -> Ask:
    """Once a seal has accepted the alteration, nothing rests on the two versions any more."""
    world = accepted_and_mended()
    world.record(1, Operation.WRITTEN, b"new", "a.txt")
    for seq in (1, 3):
        world.record(1, Operation.ERASED, argument=Erased(seq, Part.CONTENT))
    world.publish()
    for seq in (1, 3):
        world.erase(world.histories[1], seq, Part.CONTENT)
    return Ask(world, world.prove(1), b"new")


@case(VERIFIED)
def reverted_to_altered_bytes_that_a_seal_accepted() -> Ask:
    """An alteration that the owner has accepted never stands again."""
    world = accepted_and_mended()
    world.record(1, Operation.REVERTED, b"evil", "a.txt", Reverted(2))
    world.publish()
    return Ask(world, world.prove(1), b"evil")


def checked_from(seq: int) -> Ask:
    """A seal over step 2, a `moved` after version 1, that says since when the device has checked."""
    world = small()
    world.record(1, Operation.MOVED, b"two", "b.txt")
    world.publish()
    seal = world.seal(1)._replace(checked_from=seq)
    seal = sign_seal(seal, world.histories[1].binding, world.owner_signer)
    world.record(1, Operation.SEALED, argument=seal, replay=False)
    world.publish()
    return Ask(world, world.prove(1), path="b.txt")


@case(CHANGED, "illegal")
def seal_checked_from_an_older_version() -> Ask:
    """Nobody has checked the bytes of version 1 before there were any."""
    return checked_from(0)


@case(CHANGED, "illegal")
def seal_checked_from_a_later_step() -> Ask:
    """What is checked begins at or before what is sealed."""
    return checked_from(3)


@case(VERIFIED)
def seal_checked_from_the_step_itself() -> Ask:
    """A device may have checked at the last step alone."""
    return checked_from(2)


@case(CHANGED, "illegal")
def seal_of_a_deleted_file() -> Ask:
    """[R] No seal speaks of a file that is not there."""
    world = small()
    before = world.seal(1)
    world.record(1, Operation.DELETED)
    chain = world.histories[1].chain
    seal = before._replace(seq=2, head=chain.head, checked_from=2)
    seal = sign_seal(seal, world.histories[1].binding, world.owner_signer)
    return lying(Operation.SEALED, argument=seal, world=world)


@case(VERIFIED)
def second_seal_over_the_same_tree() -> Ask:
    """Two seals may name one tree, as long as the second one names a later step."""
    world = small()
    size = max(world.notes)
    world.record_seal(1)
    seal = world.seal(1)
    assert seal.tree_size == size
    world.record(1, Operation.SEALED, argument=seal)
    world.publish()
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "gap", "closed")
def closed_and_unsigned() -> Ask:
    """An honest `closed` lists what stands; its chain is no current one."""
    world = small()
    world.record(1, Operation.GAP, argument=Gap(GapReason.UNKNOWN))
    world.close(1, CloseReason.FULL, signed=False)
    world.publish()
    return Ask(world, world.prove(1))
