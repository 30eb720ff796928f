"""Steps 13 and 14 of SPEC 9: the file that was asked for, and its bytes."""

from __future__ import annotations

from collections.abc import Callable

from tests import map_reference
from tests.builder import History, World
from tests.vector_cases import Ask, alone, case, small, withhold
from tests.verifier.worlds import a_file, sealed, taken_over
from verifier.entry import Argument, Erased, Expired, ExpiryReason, Gap, GapReason, Operation, Part
from verifier.proof import Absence, Line, Replaced
from verifier.verdict import Memory

NOT_PROVEN, CHANGED = "NOT PROVEN", "CHANGED"


@case(NOT_PROVEN, "deleted")
def deleted() -> Ask:
    """A deleted file is never VERIFIED as current, and neither path nor bytes are asked for."""
    world = small()
    world.record(1, Operation.DELETED)
    world.publish()
    return Ask(world, world.prove(1), b"evil", path="b.txt")


@case(NOT_PROVEN, "closed")
def closed() -> Ask:
    """Nor is a chain that ended."""
    world = small()
    world.close(1)
    world.publish()
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "path-erased")
def path_erased() -> Ask:
    """[R] Where the current path is erased, it can't be asked for."""
    world = small()
    world.record(1, Operation.ERASED, argument=Erased(1, Part.PATH))
    world.erase(world.histories[1], 1, Part.PATH)
    world.publish()
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "other-path")
def other_path() -> Ask:
    """[R] A copy that lies elsewhere, served under the path that was asked for."""
    world = a_file(alone())
    return Ask(world, world.prove(2), b"other", path="d.txt")


@case(NOT_PROVEN, "other-path")
def path_of_another_case() -> Ask:
    """Paths are compared byte by byte."""
    world = small()
    return Ask(world, world.prove(1), path="A.txt")


@case(NOT_PROVEN, "other-file-id")
def path_taken_over() -> Ask:
    """[R] Another file id for a known path, and nothing shows that the old file left."""
    world, memory = taken_over(Operation.MOVED, world=alone())
    return Ask(world, world.prove(2, pinned=2), b"new", memory=memory)


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_from_a_file_that_was_touched() -> Ask:
    """[R] The last step of the old file does not free the path."""
    world, memory = taken_over(Operation.TOUCHED, world=alone())
    return Ask(world, world.prove(2, pinned=2, replaces=(1,)), b"new", memory=memory)


def came_back() -> tuple[World, Replaced, Memory]:
    """File 1 moved away from a.txt and back again; the first move is shown, in the newest map."""
    world = small(b"one")
    memory = Memory(world.notes[2], None, 1)
    world.record(1, Operation.MOVED, b"one", "b.txt")
    world.publish()
    left = world.prove(1, replaces=(1,)).replaced[0]
    world.record(1, Operation.MOVED, b"one", "a.txt")
    world.record(2, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    siblings = map_reference.prove(world.map, world.binding(1).chain_id)[1]
    return world, left._replace(siblings=siblings), memory


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_after_a_gap() -> Ask:
    """[R] Steps of the old file are known to be missing: it may have come back."""
    world, memory = taken_over(Operation.MOVED, world=alone())
    world.record(1, Operation.GAP, argument=Gap(GapReason.UNKNOWN))
    world.publish()
    return Ask(world, world.prove(2, pinned=2, replaces=(1,)), b"new", memory=memory)


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_from_another_generation_than_was_seen() -> Ask:
    """[R] Generation 1 was seen at the path; shown is the end of generation 0."""
    world = small(b"one")
    world.close(1)
    ended = world.prove(1, size=world.publish(), replaces=(1,)).replaced[0]
    world.continue_(1, b"one", "a.txt")
    world.publish()
    memory = Memory(world.notes[max(world.notes)], None, 1, world.prove(1))
    world.record(2, Operation.CREATED, b"new", "a.txt")
    size = world.publish()
    siblings = map_reference.prove(world.maps[size], world.binding(1).chain_id)[1]
    seen = max(number for number in world.notes if number < size)
    return Ask(
        world, world.prove(2, pinned=seen)._replace(replaced=[ended._replace(siblings=siblings)]), b"new", memory=memory
    )


@case(NOT_PROVEN, "broken-proof")
def path_taken_over_while_the_old_file_is_back() -> Ask:
    """[R] The move away is shown, and is not the last step of the old file in the map."""
    world, left, memory = came_back()
    return Ask(world, world.prove(2, pinned=2)._replace(replaced=[left]), b"evil", memory=memory)


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_with_the_way_back_shown() -> Ask:
    """[R] All steps are shown, and the last one brings the old file back to the path."""
    world, left, memory = came_back()
    newest = world.histories[1].records[-1]
    both = left._replace(steps=[*left.steps, newest.line], leaf_index=newest.index)
    return Ask(world, world.prove(2, pinned=2)._replace(replaced=[both]), b"evil", memory=memory)


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_with_a_way_back_that_names_no_path() -> Ask:
    """[R] The old file was deleted, and restored without a word on where."""
    world = small(b"one")
    memory = Memory(world.notes[2], None, 1)
    world.record(1, Operation.DELETED)
    world.publish()
    left = world.prove(1, replaces=(1,)).replaced[0]
    world.record(1, Operation.RESTORED, b"one", None, replay=False)
    world.record(2, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    siblings = map_reference.prove(world.map, world.binding(1).chain_id)[1]
    index = world.histories[1].records[-1].index
    both = left._replace(steps=[*left.steps, world.histories[1].records[-1].line], leaf_index=index, siblings=siblings)
    return Ask(world, world.prove(2, pinned=2)._replace(replaced=[both]), b"evil", memory=memory)


def continued() -> tuple[World, Replaced, Memory]:
    """File 1 was closed and continued at a.txt; its `closed` is shown, in the newest map."""
    world = small(b"one")
    memory = Memory(world.notes[2], None, 1)
    world.close(1)
    size = world.publish()
    end = world.prove(1, size=size, replaces=(1,)).replaced[0]
    world.continue_(1, b"one", "a.txt")
    world.record(2, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    siblings = map_reference.prove(world.map, world.binding(1).chain_id)[1]
    return world, end._replace(siblings=siblings), memory


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_from_a_chain_that_may_go_on() -> Ask:
    """[R] After `closed`, nothing shows that there is no next generation."""
    world, end, memory = continued()
    return Ask(world, world.prove(2, pinned=2)._replace(replaced=[end._replace(next=None)]), b"evil", memory=memory)


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_with_a_step_after_closed() -> Ask:
    """[R] A `deleted` after `closed`, which no chain may have, does not stand for the end of the next generation."""
    world, end, memory = continued()
    ended = world.histories[1].previous
    assert ended is not None
    line = lying_step(world, ended, Operation.DELETED)
    world.publish()
    siblings = map_reference.prove(world.map, world.binding(1).chain_id)[1]
    steps, index = [*end.steps, line], ended.records[-1].index
    shown = end._replace(steps=steps, leaf_index=index, siblings=siblings, next=None)
    return Ask(world, world.prove(2, pinned=2)._replace(replaced=[shown]), b"evil", memory=memory)


@case(NOT_PROVEN, "other-file-id")
def path_taken_over_with_a_path_that_is_no_steps_business() -> Ask:
    """[R] An `expired` that says another path is no word on where the file is."""
    world = small(b"one", b"two")
    memory = Memory(world.notes[max(world.notes)], None, 1)
    line = lying_step(world, world.histories[1], Operation.EXPIRED, "b.txt", Expired(ExpiryReason.THINNED, (0,)))
    world.record(2, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    shown = world.prove(1, replaces=(1,)).replaced[0]
    assert shown.steps == [line]
    return Ask(world, world.prove(2, pinned=4)._replace(replaced=[shown]), b"evil", memory=memory)


def lying_step(
    world: World, history: History, operation: Operation, path: str | None = None, argument: Argument | None = None
) -> Line:
    """A step at the end of this chain, whatever the rules say."""
    newest, world.histories[1] = world.histories[1], history
    line = world.record(1, operation, None, path, argument, replay=False)
    world.histories[1] = newest
    return line


@case(NOT_PROVEN, "broken-proof")
def path_taken_over_from_a_chain_that_went_on() -> Ask:
    """[R] The next generation is said to be absent, and the map holds it."""
    world, end, memory = continued()
    siblings = map_reference.prove(world.map, world.binding(1, 1).chain_id)[1]
    end = end._replace(next=Absence(None, siblings))
    return Ask(world, world.prove(2, pinned=2)._replace(replaced=[end]), b"evil", memory=memory)


@case(NOT_PROVEN, "broken-proof")
def path_taken_over_with_the_next_generation_in_its_own_way() -> Ask:
    """[R] That the next generation is absent is shown by that chain itself."""
    return in_the_way(lambda chain: chain)


@case(NOT_PROVEN, "broken-proof")
def path_taken_over_with_a_leaf_from_elsewhere_in_the_way() -> Ask:
    """[R] The leaf that is said to be in the way has another path."""
    return in_the_way(lambda chain: bytes([chain[0] ^ 0x80]) + chain[1:])


def in_the_way(other: Callable[[bytes], bytes]) -> Ask:
    world, end, memory = continued()
    chain = world.binding(1, 1).chain_id
    siblings = map_reference.prove(world.map, chain)[1]
    end = end._replace(next=Absence(other(chain) + bytes(32), siblings))
    return Ask(world, world.prove(2, pinned=2)._replace(replaced=[end]), b"evil", memory=memory)


@case(CHANGED, "bytes")
def flipped_byte() -> Ask:
    """The bytes are those of no version."""
    world = small()
    return Ask(world, world.prove(1), b"twO")


@case(CHANGED, "bytes")
def older_version() -> Ask:
    """The bytes are those of an older version."""
    world = small()
    return Ask(world, world.prove(1), b"one")


def withheld() -> Ask:
    """A moved and sealed file, of which the log shows contents alone."""
    world = small()
    world.record(1, Operation.MOVED, b"two", "b.txt")
    world.publish()
    sealed(world)
    return Ask(world, withhold(world.prove(1)), path=None, file_id=1, reader=False)


@case(CHANGED, "bytes")
def stranger_who_is_shown_contents_alone_with_other_bytes() -> Ask:
    """[R] Hidden paths make no wrong bytes right."""
    return withheld()._replace(data=b"twO")


@case(NOT_PROVEN, "opening-missing", "path-erased")
def stranger_who_is_shown_contents_alone_asks_for_a_path() -> Ask:
    """[R] A path that is not shown is not proven, whoever asks for it."""
    return withheld()._replace(path="b.txt")


@case(NOT_PROVEN, "opening-missing")
def owner_who_is_shown_contents_alone() -> Ask:
    """[R] Who holds the blinding key is shown all of it, also where the file id was asked for."""
    return withheld()._replace(reader=True)


@case(NOT_PROVEN, "not-owner")
def stranger_who_is_shown_contents_alone_without_a_seal() -> Ask:
    """[R] Without the owner's seal nothing says whose file this is, nor which."""
    world = small()
    return Ask(world, withhold(world.prove(1)), path=None, file_id=1, reader=False)


@case(NOT_PROVEN, "other-file")
def stranger_who_is_shown_another_file() -> Ask:
    """[R] The owner sealed this one too, and it is not the number that was asked for."""
    return withheld()._replace(file_id=2)


@case(NOT_PROVEN, "opening-missing")
def stranger_from_whom_a_content_is_withheld() -> Ask:
    """[R] Contents are what a stranger judges: each of them is shown."""
    ask = withheld()
    first, *others = ask.proof.entries
    return ask._replace(proof=ask.proof._replace(entries=[first._replace(content=None), *others]))


@case(CHANGED, "illegal")
def stranger_who_is_shown_a_move_with_other_bytes() -> Ask:
    """[R] A move keeps the content, wherever it went."""
    world = sealed(small())
    world.record(1, Operation.MOVED, b"evil", "b.txt", replay=False)
    world.publish()
    return Ask(world, withhold(world.prove(1)), b"evil", path=None, file_id=1, reader=False)


@case(CHANGED, "altered")
def stranger_who_is_shown_an_alteration() -> Ask:
    """[R] A taint stands without any path."""
    world = sealed(small())
    world.record(1, Operation.ALTERED, b"evil", "a.txt")
    world.publish()
    return Ask(world, withhold(world.prove(1)), b"evil", path=None, file_id=1, reader=False)
