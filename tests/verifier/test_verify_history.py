"""Steps 6, 7, 9 and 11 of SPEC 9: commitment, map, entries, and what was seen of them before.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests import reference
from tests.verifier.worlds import VERIFIED, a_file, ask, created, said, two_generations
from verifier.entry import Operation
from verifier.errors import Malformed
from verifier.map import map_value
from verifier.proof import Included
from verifier.verdict import Memory

# -- steps 6, 7 and 9: commitment, map, entries -----------------------------------------------------------------


def test_verify_refuses_tree_whose_last_leaf_is_no_map_commitment() -> None:
    """A tree that ends in an entry commits to no map, whoever signed it."""
    world = a_file()
    size = max(world.notes)
    proof = world.prove(1, size=size)
    world.record(4, Operation.CREATED, b"x", "x")
    leaves = world.leaves
    lie = proof._replace(
        checkpoint=world.note(size + 1, reference.mth(leaves)),
        commitment=reference.path(size - 1, leaves),
        last=reference.path(proof.map.leaf_index, leaves),
        first=None,
        before=None,
    )
    assert ask(world, proof=lie) == ("NOT PROVEN", "broken-proof")
    assert ask(world, proof=lie._replace(commitment=reference.path(size, leaves))) == ("NOT PROVEN", "broken-proof")
    assert ask(world, proof=proof) == VERIFIED


@pytest.mark.parametrize("change", ["root", "seq", "head", "leaf_index", "siblings"])
def test_verify_refuses_other_values_than_the_map_holds(change: str) -> None:
    """Root, last seq, head, leaf index and siblings hang together."""
    world = a_file()
    shown = world.prove(1).map
    other = {"root": bytes(32), "seq": 1, "head": bytes(32), "leaf_index": 0, "siblings": [bytes([1]) * 32]}
    proof = world.prove(1)._replace(map=shown._replace(**{change: other[change]}))
    assert ask(world, proof=proof) == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_absent_siblings_of_the_map() -> None:
    """A deepest sibling that is the empty constant would let one key stand at two depths."""
    world = a_file()
    shown = world.prove(1).map
    proof = world.prove(1)._replace(map=shown._replace(siblings=[bytes(32), *shown.siblings]))
    with pytest.raises(Malformed, match="deepest sibling is empty"):
        ask(world, proof=proof)


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_verify_refuses_dropped_entry(seq: int) -> None:
    """The last entry, the first, or one between: the log holds one more than the proof shows."""
    world = a_file()
    entries = list(world.prove(1).entries)
    del entries[seq]
    report = world.verify(world.prove(1)._replace(entries=entries), b"two", path="d.txt")
    assert said(report) == ("CHANGED", "history")
    assert report.findings[0].seq == seq


def test_verify_refuses_dropped_last_entry_under_its_own_map() -> None:
    """Without its last entry the history does not reach the head in the map, nor does a shorter seq."""
    world = a_file()
    proof = world.prove(1)
    short = proof._replace(entries=proof.entries[:-1], map=proof.map._replace(seq=1))
    assert ask(world, proof=short) == ("NOT PROVEN", "broken-proof")
    assert ask(world, proof=proof._replace(entries=[])) == ("CHANGED", "history")


def test_verify_refuses_rewritten_history() -> None:
    """An entry replaced by another one does not hash to the head that the log committed to."""
    world, other = created(b"one", b"two", b"three"), created(b"one", b"evil", b"three")
    honest, forged = world.prove(1), other.prove(1)
    lie = honest._replace(entries=[honest.entries[0], forged.entries[1], honest.entries[2]])
    report = world.verify(lie, b"three", Memory(None, honest), path="a.txt")
    assert said(report) == ("CHANGED", "history")
    assert report.findings[0].seq == 1
    assert ask(world, b"three", honest) == VERIFIED


def test_verify_refuses_rewritten_history_continued() -> None:
    """A rewritten past can't be continued: auditors recompute every head from the leaves, and get another map."""
    honest, world, other = (created(b"one", data) for data in (b"two", b"two", b"evil"))
    history, chain = world.histories[1], world.histories[1].chain
    history.records[1].line = other.histories[1].records[1].line
    chain.head = chain.heads[1] = other.histories[1].chain.head
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish(auditors=0)
    assert ask(world, b"three") == ("NOT PROVEN", "not-replayed")
    seen = Memory(honest.notes[4], honest.prove(1))
    assert ask(world, b"three", world.prove(1, pinned=4), memory=seen) == ("CHANGED", "not-replayed", "pinned")
    honest.record(1, Operation.WRITTEN, b"three", "a.txt")
    honest.publish()
    assert ask(honest, b"three", honest.prove(1, pinned=4), memory=seen) == VERIFIED


def test_verify_refuses_entry_that_is_in_the_map_and_not_in_the_log() -> None:
    """A chain tail must be proven into the tree, not only into a commitment of the server's."""
    world = created(b"one")
    history = world.histories[1]
    world.record(1, Operation.WRITTEN, b"evil", "a.txt", leaf=False)
    world.map[history.binding.chain_id] = map_value(1, history.chain.head, 0)
    history.records[1].index = 0
    world.publish()
    assert ask(world, b"evil") == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_leaf_that_set_the_content_outside_the_log() -> None:
    """The leaf that set the current content is in the tree; without it, or with another one, nothing is proven."""
    world = a_file()
    proof = world.prove(1)
    assert proof.current is not None
    assert ask(world, proof=proof) == VERIFIED
    assert ask(world, proof=proof._replace(current=None)) == ("NOT PROVEN", "broken-proof")
    written = created(b"one", b"two").prove(1)
    with pytest.raises(Malformed, match="want null"):  # where the last leaf set the content, it is shown once
        ask(world, proof=written._replace(current=proof.current), path="a.txt")
    other = Included(proof.current.leaf_index, reference.path(0, world.leaves))
    assert ask(world, proof=proof._replace(current=other)) == ("NOT PROVEN", "broken-proof")


def test_verify_refuses_index_malleability() -> None:
    """A leaf and its path fit one index of the signed size alone: at every other one the proof is refused."""
    world = a_file()
    proof = world.prove(1)
    assert proof.current is not None
    for index in range(len(world.leaves) + 2):
        current = proof._replace(current=proof.current._replace(leaf_index=index))
        last = proof._replace(map=proof.map._replace(leaf_index=index))
        for lie, right in ((current, proof.current.leaf_index), (last, proof.map.leaf_index)):
            try:
                verdict = ask(world, proof=lie)
            except Malformed:
                assert index != right
                continue
            assert verdict == (VERIFIED if index == right else ("NOT PROVEN", "broken-proof"))


def test_verify_refuses_wrong_opening() -> None:
    """An opening that does not open the logged commitment is a changed history."""
    world = a_file()
    proof = world.prove(1)
    for name in ("content", "path", "context"):
        line = proof.entries[1]._replace(**{name: getattr(proof.entries[0], name)})
        lie = proof._replace(entries=[proof.entries[0], line, proof.entries[2]])
        assert ask(world, proof=lie) == ("CHANGED", "history")


# -- step 11: what was seen of the chain ------------------------------------------------------------------------


def test_verify_refuses_history_that_differs_from_the_one_seen() -> None:
    """[R] Though log, witnesses and auditors all vouch for it: a step that differs from the one seen is CHANGED."""
    seen, other = created(b"one", b"two").prove(1), created(b"one", b"evil")
    report = other.verify(other.prove(1), b"evil", Memory(None, seen), path="a.txt")
    assert said(report) == ("CHANGED", "pinned")
    assert report.findings[0].seq == 1
    assert ask(other, b"evil", memory=Memory(None, other.prove(1))) == VERIFIED


def test_verify_refuses_history_shorter_than_the_one_seen() -> None:
    """[R] Truncation: a tree that is not older and holds fewer steps of the file than were seen."""
    seen, other = created(b"one", b"two").prove(1), created(b"one")
    assert ask(other, b"one", memory=Memory(None, seen)) == ("CHANGED", "pinned")


def test_verify_calls_an_older_honest_proof_stale_and_not_changed() -> None:
    """A proof from before the one that was seen lacks steps, and nothing in it is a lie."""
    world = created(b"one", b"two")
    old, memory = world.prove(1, size=min(world.notes)), Memory(world.notes[max(world.notes)], world.prove(1))
    assert ask(world, b"one", old, memory=memory) == ("NOT PROVEN", "stale")
    assert ask(world, b"one", old) == VERIFIED


def test_verify_refuses_generation_closed_before_what_was_seen() -> None:
    """[R] The pinned chain must have been closed after the last step seen, on top of it."""
    world = created(b"one", b"two")
    seen = world.prove(1)
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    assert ask(world, memory=Memory(None, seen)) == VERIFIED
    early = created(b"two")
    early.close(1)
    early.continue_(1, b"two", "a.txt")
    early.publish()
    assert ask(early, memory=Memory(None, seen)) == ("CHANGED", "pinned")
    other = created(b"one", b"evil")
    other.close(1)
    other.continue_(1, b"evil", "a.txt")
    other.publish()
    assert ask(other, b"evil", memory=Memory(None, seen)) == ("CHANGED", "pinned")


def test_verify_refuses_older_generation_than_the_one_seen() -> None:
    """The proof of a generation before the one seen is stale."""
    world = two_generations()
    old = created(b"one", b"two").prove(1)
    assert ask(world, proof=old, memory=Memory(None, world.prove(1))) == ("NOT PROVEN", "stale")


def test_verify_joins_a_short_proof_to_the_stored_one() -> None:
    """[R] A short proof is completed from the state alone, and a state that lacks the beginning is asked for it."""
    world = created(b"one", b"two")
    seen, size = world.prove(1), max(world.notes)
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish()
    short = world.prove(1, pinned=size, first_seq=2)
    assert len(short.entries) == 1
    report = world.verify(short, b"three", Memory(world.notes[size], seen), path="a.txt")
    assert said(report) == VERIFIED
    assert report.proof == world.prove(1, pinned=size)
    incomplete = ("NOT PROVEN", "incomplete")
    assert said(world.verify(short, b"three", Memory(world.notes[size]), path="a.txt")) == incomplete
    shorter = Memory(None, created(b"one").prove(1))
    assert said(world.verify(world.prove(1, first_seq=2), b"three", shorter, path="a.txt")) == incomplete


def test_verify_refuses_short_proof_that_does_not_fit_the_stored_one() -> None:
    """[R] Joined to what was really seen, a rewritten continuation does not reach the head."""
    seen, other = created(b"one", b"two").prove(1), created(b"one", b"evil", b"three")
    short = other.prove(1, first_seq=2)
    assert ask(other, b"three", short, memory=Memory(None, seen)) == ("CHANGED", "history")


def test_verify_as_of_a_tree_that_is_not_smaller_is_changed_not_fork() -> None:
    """As of a time, heads that differ are a FORK with a smaller tree alone; else the history was changed."""
    seen, other = created(b"one", b"two").prove(1), created(b"one", b"evil")
    report = other.verify(other.prove(1), b"evil", Memory(None, seen, 1), path="a.txt", as_of="proof")
    assert said(report) == ("CHANGED", "pinned")
