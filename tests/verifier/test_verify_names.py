"""Steps 1, 13 and 14 of SPEC 9: which log, which owner, which file, which bytes.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests import map_reference
from tests.builder import ORIGIN, SOURCE, History, World, content_of
from tests.verifier.worlds import VERIFIED, a_file, ask, created, said, taken_over
from verifier.entry import Erased, Gap, GapReason, Operation, Part
from verifier.errors import Usage
from verifier.verdict import Memory, Question
from verifier.verify import verify

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


# -- step 13: which file ----------------------------------------------------------------------------------------


def test_verify_refuses_other_file_under_asked_path() -> None:
    """A copy served under the asked path: its proof names the path where it really is."""
    world = a_file()
    proof = world.prove(2)
    assert ask(world, b"other", proof, path="b.txt") == VERIFIED
    assert ask(world, b"other", proof, path="d.txt") == ("NOT PROVEN", "other-path")
    assert ask(world, b"two", path="a.txt") == ("NOT PROVEN", "other-path")


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


def test_verify_refuses_path_freed_by_a_made_up_generation() -> None:
    """[R] The server knows the blinding key and can start any generation; only the one seen last frees a path."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.publish()
    world.histories[1] = History(world.binding(1, 5), 5, None)
    world.record(1, Operation.CREATED, b"one", "b.txt")
    world.record(2, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    proof = world.prove(2, replaces=(1,))
    report = world.verify(proof, b"evil", Memory(path_file_id=1), path="a.txt")
    assert said(report) == ("NOT PROVEN", "other-file-id")
    seen = world.prove(1)._replace(generation=5)
    assert said(world.verify(proof, b"evil", Memory(path_file_id=1, path_chain=seen), path="a.txt")) == VERIFIED


def test_verify_refuses_path_freed_with_a_gap_after_it() -> None:
    """[R] Where history is missing after the old file left, nothing shows that it has not come back."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.record(1, Operation.MOVED, b"one", "b.txt")
    world.record(1, Operation.GAP, argument=Gap(GapReason.UNKNOWN))
    world.record(2, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    proof = world.prove(2, replaces=(1,))
    history, last = world.histories[1], proof.replaced[0]
    steps = [record.line for record in history.records[1:]]
    shown = proof._replace(replaced=[last._replace(before=history.chain.heads[0], steps=steps)])
    report = world.verify(shown, b"evil", Memory(path_file_id=1), path="a.txt")
    assert said(report) == ("NOT PROVEN", "other-file-id")
