"""Step 15 of SPEC 9: clocks, ages, the checkpoints around the last entry, and questions as of a time."""

from __future__ import annotations

from tests import reference
from tests.builder import ORIGIN, START, World
from tests.vector_cases import MALFORMED, Ask, alone, case, small
from tests.verifier.worlds import a_file, noted, two_logs
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.entry import Operation
from verifier.note import Note, cosign, format_note, parse_note, sign_note
from verifier.proof import Bracket, Proof
from verifier.verdict import DEFAULT_MAX_AGE_S, Memory

NOT_PROVEN = "NOT PROVEN"


def recorded_ahead(seconds: int) -> Ask:
    """An entry that claims to be recorded so long after witnesses saw it."""
    world = alone()
    world.tick(seconds)
    world.record(1, Operation.CREATED, b"two", "a.txt")
    world.tick(-seconds)
    world.publish()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def clock_ahead_within_the_bound() -> Ask:
    """An entry recorded 300 seconds after witnesses saw it."""
    return recorded_ahead(300)


@case(NOT_PROVEN, "clock")
def clock_ahead() -> Ask:
    """An entry recorded 301 seconds after witnesses saw it."""
    return recorded_ahead(301)


def aged(seconds: int) -> Ask:
    world = small()
    world.now += seconds - 10
    return Ask(world, world.prove(1))


@case("VERIFIED")
def seven_days_old() -> Ask:
    """The bound of freshness is inclusive."""
    return aged(DEFAULT_MAX_AGE_S)


@case(NOT_PROVEN, "stale")
def older_than_seven_days() -> Ask:
    """One second more than seven days."""
    return aged(DEFAULT_MAX_AGE_S + 1)


@case(NOT_PROVEN, "stale")
def times_of_cosigners_differ_and_are_too_old() -> Ask:
    """With times of 10, 20, 30 and 1000 s and three of four, the tree was still the newest at 20: 1980 s ago."""
    world = a_file()
    size = max(world.notes)
    note = noted(world, size, [START + seconds for seconds in (10, 20, 30, 1_000)])
    world.now = START + 2_000
    return Ask(world, world.prove(1)._replace(checkpoint=note, first=None), path="d.txt", max_age_s=1_979)


# -- as of a time -----------------------------------------------------------------------------------------------


def differing(as_of: int | str) -> Ask:
    """Cosigners signed 20, 30, 40 and 50 s after START: not later than 40, still the newest at 30. Years later."""
    world = a_file()
    note = noted(world, max(world.notes), [START + seconds for seconds in (20, 30, 40, 50)])
    world.tick(10 * 365 * 24 * 3600)
    return Ask(world, world.prove(1)._replace(checkpoint=note, first=None), path="d.txt", as_of=as_of)


@case("VERIFIED")
def as_of_the_proof_with_differing_times() -> Ask:
    """As of the proof's own time, which is before "not later than": the lower bound is not asked."""
    return differing("proof")


@case(NOT_PROVEN, "as-of")
def as_of_a_time_with_differing_times() -> Ask:
    """The same time given by the user is before "not later than"."""
    return differing(START + 30)


def heartbeat(as_of: int) -> Ask:
    """A tree that was cosigned when it was made, and again 1000 s later."""
    world = small()
    size = max(world.notes)
    first = world.notes[size]
    world.tick(1_000)
    proof = world.prove(1)._replace(checkpoint=noted(world, size, [world.now]), first=Bracket(first, []))
    return Ask(world, proof, as_of=as_of)


@case("VERIFIED")
def as_of_not_later_than() -> Ask:
    """As of the very second in which the entry was seen first."""
    return heartbeat(START + 10)


@case("VERIFIED")
def as_of_still_the_newest() -> Ask:
    """As of the very second in which the tree was seen last."""
    return heartbeat(START + 1_020)


@case(NOT_PROVEN, "as-of")
def as_of_a_time_before() -> Ask:
    """One second before the entry was seen first."""
    return heartbeat(START + 9)


@case(NOT_PROVEN, "as-of")
def as_of_a_time_after() -> Ask:
    """One second after the tree was seen last."""
    return heartbeat(START + 1_021)


# -- the checkpoints around the last entry ----------------------------------------------------------------------


@case("VERIFIED")
def brackets_that_bracket_nothing() -> Ask:
    """`first` does not cover the last leaf and `before` does: both are true, and say nothing about it."""
    world = small()
    proof = world.prove(1)
    return Ask(world, proof._replace(first=proof.before, before=proof.first))


@case(NOT_PROVEN, "as-of")
def first_that_does_not_cover_the_entry() -> Ask:
    """`first` is of a tree without the entry, so its earlier time is not the entry's."""
    world = small()
    proof = world.prove(1)
    return Ask(world, proof._replace(first=proof.before), as_of=START)


def before(note: bytes, world: World) -> Ask:
    """Another note in place of `before`, with the hashes of the honest one."""
    proof = world.prove(1)
    assert proof.before is not None
    return Ask(world, proof._replace(before=proof.before._replace(checkpoint=note)))


@case("VERIFIED")
def before_not_signed() -> Ask:
    """The log's line under `before` is not there: its signature of the newest tree covers the earlier one."""
    world = small()
    text = parse_note(world.notes[2]).text
    return before(format_note(Note(text, (cosign(text, world.witnesses[0], START),))), world)


@case(NOT_PROVEN, "bad-signature")
def before_with_a_forged_signature() -> Ask:
    """The log's line in `before` does not hold."""
    world = small()
    note = parse_note(world.notes[2])
    forged = note.signatures[0]._replace(blob=bytes(64))
    return before(format_note(note._replace(signatures=(forged, *note.signatures[1:]))), world)


@case(NOT_PROVEN, "unwitnessed")
def before_not_witnessed() -> Ask:
    """No witness cosigned `before`."""
    world = small()
    return before(world.note(2, reference.mth(world.leaves[:2]), 0), world)


@case(NOT_PROVEN, "empty-tree")
def before_of_an_empty_tree() -> Ask:
    """`before` is of a tree of size 0."""
    world = small()
    return before(world.note(0, reference.mth([])), world)


@case(NOT_PROVEN, "broken-proof")
def before_of_another_tree() -> Ask:
    """`before` is signed and cosigned, and the newest tree does not continue it."""
    world, other = small(), small(b"evil")
    return before(other.notes[2], world)


@case(NOT_PROVEN, "unknown-log")
def first_of_another_log() -> Ask:
    """[R] `first` is of another log of the same policy; trees of one size of two logs are no fork."""
    one, two, _ = two_logs(1, 1)
    note = two.notes[max(two.notes)]
    return Ask(one, one.prove(1)._replace(first=Bracket(note, [])), path="d.txt")


@case("FORK", "fork")
def first_of_the_same_size() -> Ask:
    """The log signed another tree of the size of the newest one, and shows both in one proof."""
    world, other = small(), small(b"one", b"evil")
    return Ask(world, world.prove(1)._replace(first=Bracket(other.notes[4], [])))


@case("FORK", "broken-proof", "fork")
def before_of_the_size_seen_with_another_root() -> Ask:
    """The state holds another tree of the size of `before`: both are signed, so it is a fork."""
    mine, other = small(b"one"), small(b"evil", b"two")
    return Ask(other, other.prove(1, pinned=2), memory=Memory(mine.notes[2]))


@case(MALFORMED)
def first_with_an_extension_line() -> Ask:
    """`first` is a checkpoint with a fourth line."""
    world = small()
    text = format_checkpoint(Checkpoint(ORIGIN, 4, reference.mth(world.leaves))) + b"more\n"
    note = format_note(Note(text, (sign_note(text, world.log), cosign(text, world.witnesses[0], START))))
    return Ask(world, world.prove(1)._replace(first=Bracket(note, [])))


def fork_in_before() -> Ask:
    """`before` is of another tree than the one of its size that the client has seen, and the log signed both."""
    mine, other = alone(), alone()
    for world, data in (mine, b"one"), (other, b"evil"):
        world.record(1, Operation.CREATED, data, "a.txt")
        world.publish()
        world.record(2, Operation.CREATED, b"x", "b.txt")
        world.publish()
    mine.record(1, Operation.WRITTEN, b"two", "a.txt")
    mine.publish()
    mine.record(3, Operation.CREATED, b"x", "c.txt")
    mine.publish()
    proof = mine.prove(1, pinned=4)
    assert proof.before is not None
    before = proof.before._replace(checkpoint=other.notes[4])
    return Ask(mine, proof._replace(before=before), memory=Memory(mine.notes[4]))


@case("FORK", "fork")
def fork_in_before_behind_a_first_that_does_not_hold() -> Ask:
    """[R] A fork is looked for first: what is wrong with `first` does not hide the other tree that `before` shows."""
    ask = fork_in_before()
    assert isinstance(ask.proof, Proof)
    assert ask.proof.first is not None
    first = ask.proof.first._replace(hashes=[bytes(32)] * len(ask.proof.first.hashes))
    return ask._replace(proof=ask.proof._replace(first=first))


@case("FORK", "fork")
def fork_in_before_behind_a_first_of_an_empty_tree() -> Ask:
    """[R] Nor does a `first` that is refused before any hash is looked at."""
    ask = fork_in_before()
    assert isinstance(ask.proof, Proof)
    first = Bracket(ask.world.note(0, reference.mth([])), [])
    return ask._replace(proof=ask.proof._replace(first=first))
