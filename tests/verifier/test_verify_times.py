"""Step 15 of SPEC 9: times are the quorum's, and a question may be as of one.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests import reference
from tests.builder import World
from tests.verifier.worlds import VERIFIED, a_file, ask, created, noted, said, two_generations
from verifier.entry import Operation
from verifier.errors import Usage
from verifier.note import Note, cosignature_message, format_note, parse_note
from verifier.proof import Bracket
from verifier.verdict import Memory, Report, Verdict

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
    signed = world.witnesses[0].sign(cosignature_message(note.text, 0))
    zero = note.signatures[1]._replace(blob=bytes(8) + signed)
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
    """Each checkpoint of the proof is of this log, witnessed, not empty, and an earlier state of the newest one."""
    world, other = a_file(), created(b"x")
    size = min(world.notes)
    hashes = reference.consistency(size, world.leaves)
    text = parse_note(world.notes[size]).text
    bad = {
        "bad-signature": Bracket(format_note(Note(text, (parse_note(world.note(0, bytes(32), 0)).signatures))), hashes),
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
