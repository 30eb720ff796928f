"""Step 10 of SPEC 9: what stands against a history, and what is not shown of it.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests.builder import World
from tests.verifier.worlds import VERIFIED, a_file, altered, ask, created, key_of, said, two_generations
from verifier.entry import Erased, Expired, ExpiryReason, Gap, GapReason, Operation, Part, Reverted

# -- step 10: what stands against the history -------------------------------------------------------------------


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


def test_verify_refuses_alteration_laundered_by_two_reverts() -> None:
    """[R] Reverted before the alteration and then to what was written over it: the alteration stands again."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.record(1, Operation.ALTERED, b"evil", "a.txt")
    world.record(1, Operation.WRITTEN, b"evil, and more", "a.txt")
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(0))
    world.publish()
    assert ask(world, b"one") == VERIFIED
    world.record(1, Operation.REVERTED, b"evil, and more", "a.txt", Reverted(2))
    world.publish()
    assert ask(world, b"evil, and more") == ("CHANGED", "altered")
