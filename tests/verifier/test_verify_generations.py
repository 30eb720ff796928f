"""Step 8 of SPEC 9: chains that were closed and continued.

A test builds the lie, asserts verdict and reason, and shows that without the lie the same question gets VERIFIED.
"""

from __future__ import annotations

import pytest

from tests.builder import SIGNATURE, History, World, content_of, secret
from tests.verifier.worlds import ALTERED, VERIFIED, ask, created, said, two_generations
from verifier.entry import Closed, CloseReason, ContextField, Operation, Part, Predecessor, Taint
from verifier.note import SignerKey
from verifier.verdict import Memory, Question
from verifier.verify import verify

# -- step 8: generations ----------------------------------------------------------------------------------------


def test_verify_honest_generations() -> None:
    """A chain that was closed by its owner and continued is VERIFIED, also after a third start."""
    world = two_generations()
    assert ask(world) == VERIFIED
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    proof = world.prove(1)
    assert [len(proof.earlier), proof.generation] == [2, 2]
    assert ask(world) == VERIFIED


def test_verify_refuses_generation_without_closed_predecessor() -> None:
    """The earlier chain's last entry must be `closed`, and be what the map says of it."""
    world = created(b"one", b"two")
    old = world.histories[1]
    ending = (old.binding.chain_id, old.chain.seq, old.chain.head)
    world.histories[1] = History(world.binding(1, 1), 1, None)
    world.histories[1].previous = old
    world.record(1, Operation.ADOPTED, b"evil", "a.txt", Predecessor(*ending), replay=False)
    world.publish()
    assert ask(world, b"evil", path="a.txt") == ("NOT PROVEN", "generations")


def test_verify_refuses_generations_left_out() -> None:
    """Every earlier generation is shown: none, or one too few, or one twice, is refused."""
    world = two_generations()
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    proof = world.prove(1)
    one, two = proof.earlier
    for earlier in ([], [one], [two], [one, one], [two, one]):
        assert ask(world, proof=proof._replace(earlier=earlier)) == ("NOT PROVEN", "generations")
    assert ask(world) == VERIFIED


@pytest.mark.parametrize("change", ["before", "leaf_index", "siblings"])
def test_verify_refuses_earlier_generation_that_is_not_in_the_map(change: str) -> None:
    """Head, last entry and leaf index of the earlier generation are those in the same map."""
    world = two_generations()
    proof = world.prove(1)
    other = {"before": bytes(32), "leaf_index": 0, "siblings": [bytes([1]) * 32]}
    lie = proof._replace(earlier=[proof.earlier[0]._replace(**{change: other[change]})])
    assert ask(world, proof=lie) == ("NOT PROVEN", "broken-proof")


@pytest.mark.parametrize(
    ("data", "path", "named"),
    [
        (b"evil", "a.txt", (None, None, None)),
        (b"two", "b.txt", (None, None, None)),
        (b"two", "a.txt", (bytes(32), None, None)),
        (b"two", "a.txt", (None, 1, None)),
        (b"two", "a.txt", (None, None, bytes(32))),
        (b"two", "a.txt", None),
    ],
    ids=["content", "path", "chain", "seq", "head", "nothing"],
)
def test_verify_refuses_adopted_that_does_not_continue_the_chain_before(
    data: bytes, path: str, named: tuple[bytes | int | None, ...] | None
) -> None:
    """`adopted` names exactly the end before, and keeps content and path."""
    world = created(b"one", b"two")
    world.close(1)
    end = world.histories[1].chain.ending()
    right = (end.chain_id, end.seq, end.head)
    history = History(world.binding(1, 1), 1, end)
    history.previous = world.histories[1]
    world.histories[1] = history
    argument = None
    if named is not None:
        argument = Predecessor(*(mine or his for mine, his in zip(named, right, strict=True)))  # type: ignore[arg-type]
    world.record(1, Operation.ADOPTED, data, path, argument, replay=False)
    world.publish()
    assert ask(world, data, path=path) == ("CHANGED", "illegal")
    assert ask(two_generations()) == VERIFIED


@pytest.mark.parametrize("first", [Operation.CREATED, Operation.COPIED])
def test_verify_refuses_generation_that_sheds_taints_by_starting_anew(first: Operation) -> None:
    """[R] Only `adopted` continues a chain: `created` or `copied` would leave behind what stood against it."""
    world = World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.record(1, Operation.ALTERED, b"two", "a.txt")
    world.publish()
    world.close(1)
    history = History(world.binding(1, 1), 1, None)
    history.previous, world.histories[1] = world.histories[1], history
    world.record(1, first, b"two", "a.txt", context={ContextField.COPIED_FROM: "z"})
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")
    assert ask(two_generations()) == VERIFIED


@pytest.mark.parametrize("part", list(Part))
def test_verify_refuses_withheld_opening_of_an_earlier_close(part: Part) -> None:
    """[R] What `adopted` must keep is shown: nothing can erase parts of a chain's last entry."""
    world = two_generations()
    proof = world.prove(1)
    end = proof.earlier[0]
    hidden = end._replace(step=end.step._replace(**{part.word: None}))
    assert ask(world, proof=proof._replace(earlier=[hidden])) == ("NOT PROVEN", "opening-missing")


def test_verify_refuses_strangers_a_generation_without_predecessor() -> None:
    """[R] Whoever can't compute chain ids still wants to see as many ends as there were generations."""
    world = created(b"one", b"two")
    world.record_seal(1)
    size = world.publish()
    seen = world.prove(1)
    world.histories[1] = History(world.binding(1, 1), 1, None)
    world.record(1, Operation.ADOPTED, b"two", "a.txt")
    world.publish()
    world.record_seal(1)
    world.publish()
    trust, question = world.trust._replace(blinding=None), Question(world.now, content_of(b"two"), "a.txt")
    for memory in (Memory(), Memory(world.notes[size], seen)):
        report = verify(world.prove(1, pinned=size), trust, question, memory)
        assert said(report) == ("NOT PROVEN", "generations")


def test_verify_refuses_predecessor_that_is_not_shown() -> None:
    """A first generation that continues another chain shows that chain's end."""
    world = World()
    world.record(1, Operation.ADOPTED, b"one", "a.txt", Predecessor(bytes(32), 3, bytes(32)), replay=False)
    world.publish()
    assert ask(world, b"one", path="a.txt") == ("NOT PROVEN", "predecessor")


def test_verify_refuses_unsigned_close_until_sealed() -> None:
    """After a close that the owner did not sign, only the owner's seal that names it brings VERIFIED."""
    world = two_generations(signed=False)
    assert ask(world) == ("NOT PROVEN", "unsigned-close")
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record_seal(1)
    world.publish()
    assert ask(world) == ("NOT PROVEN", "unsigned-close")
    end = world.prove(1).earlier[0]
    world.record_seal(1, accepts=((end.chain_id, 2),))
    world.publish()
    assert ask(world) == VERIFIED


def test_verify_refuses_close_signed_by_another_key() -> None:
    """A signature under `closed` that is not the owner's is an illegal step, not an unsigned close."""
    world = created(b"one", b"two")
    owner, world.owner_signer = world.owner_signer, SignerKey("owner", SIGNATURE, secret("server"))
    history = world.histories[1]
    history.chain.binding = history.chain.binding._replace(owner_key=world.owner_signer.verifier_key.public_key)
    history.binding = history.chain.binding
    world.close(1)
    world.owner_signer = owner
    world.continue_(1, b"two", "a.txt")
    world.publish()
    assert ask(world) == ("CHANGED", "illegal")


def test_verify_refuses_taint_dropped_at_close() -> None:
    """A taint lives on in the next generation; a `closed` that does not list it is illegal."""
    assert ask(two_generations(tainted=True)) == ("CHANGED", "altered")
    world = two_generations(tainted=True)
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.record(1, Operation.MOVED, b"three", "b.txt")
    world.publish()
    assert ask(world, b"three") == ("CHANGED", "altered")
    chain_id = world.prove(1).earlier[0].chain_id
    world.record_seal(1, accepts=((chain_id, 1),))
    world.publish()
    assert ask(world, b"three") == VERIFIED


def test_verify_refuses_close_that_does_not_list_every_taint() -> None:
    """The chain itself shows that its `closed` hides a taint, or names one that nobody knows."""
    for taints in ((), (Taint(bytes(32), 1, ALTERED),)):
        world = World()
        world.record(1, Operation.CREATED, b"one", "a.txt")
        world.record(1, Operation.ALTERED, b"two", "a.txt")
        world.publish()
        closed = Closed(CloseReason.FULL, taints, b"")
        world.record(1, Operation.CLOSED, b"two", "a.txt", closed, replay=False)
        world.publish()
        assert ask(world, path="a.txt") == ("CHANGED", "illegal")
