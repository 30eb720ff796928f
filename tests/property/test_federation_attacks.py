"""The machine of `test_federation` in a fixed order: each attack once, so that each check has a test that needs it.

A schedule at random meets a given attack now and then. These meet theirs every time, and after every step all that
must hold is looked at, over all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from audit.errors import Conflict
from audit.publisher import Target
from audit.witness import CONSISTENCY, FINDING, FORK
from audit.witness_store import AUDITOR, WITNESS
from tests.audit.log_setup import ORIGIN
from tests.property import test_federation as federation
from tests.property.test_federation import COUNTS, FILES, HONEST, LIES, Copy, Federation, HonestNode, folder
from verifier.note import parse_note
from verifier.verdict import Verdict

__all__ = ["folder"]  # a fixture
ALL, NOBODY = 7, 0
VERIFIED = Verdict.VERIFIED.value


@pytest.fixture
def world() -> Iterator[Federation]:
    """One published and audited tree, two files, everybody well."""
    made = Federation()
    made.start()
    try:
        yield made
        check(made)
    finally:
        made.teardown()


def check(world: Federation) -> None:
    """Every invariant of the machine."""
    world.clients_hold_one_history()
    world.quorums_hold_one_history()
    world.logs_publish_with_quorums()
    world.nodes_hold_one_history()


def publish(world: Federation, each: Copy, reach: int = ALL, replay: int = ALL) -> Target:
    """One more entry, signed though an earlier tree may wait, and offered to those nodes."""
    world.wait(1)
    world.write(each, FILES[0], b"two")
    target = world.publish_at(each, each, True, reach, 0, replay)
    assert target is not None
    check(world)
    return target


def kinds(node: HonestNode, signer: str) -> set[str]:
    """What this node's signer has kept against the log."""
    return {evidence.kind for evidence in node.node.store.evidence(ORIGIN) if evidence.signer == signer}


def verdicts(world: Federation, each: Copy) -> int:
    """How many VERIFIED a client gets for one question."""
    before = COUNTS[VERIFIED]
    world.ask_at(each, world.clients[0], FILES[0], None)
    return COUNTS[VERIFIED] - before


def test_honest_log_is_verified(world: Federation) -> None:
    """With nothing wrong all is signed, published, audited and VERIFIED: what is refused below is refused for cause."""
    target = publish(world, world.copies[0])
    text = parse_note(target.note).text
    assert all(world.signers[role][text] == {0, *HONEST} for role in (WITNESS, AUDITOR))
    assert verdicts(world, world.copies[0]) == 1
    assert not any(kinds(node, role) for node in world.nodes.values() for role in (WITNESS, AUDITOR))


def test_bigger_fork_with_any_proof_is_refused(world: Federation) -> None:
    """Each witness gets another, bigger tree with the old size that it knows, and three proofs of it."""
    one = world.copies[0]
    two = world.copy_of(one)
    publish(world, one)
    target = world.fork_at(two)
    assert target is not None
    check(world)
    assert world.signers[WITNESS].get(parse_note(target.note).text, set()) == set()
    for node in world.nodes.values():
        assert kinds(node, WITNESS) == {CONSISTENCY}
    assert world.publish_at(two, two, True) is not None  # and with everything that a log does by itself
    check(world)
    world.ask_at(two, world.clients[1], FILES[0], None)


def test_fork_of_the_same_size_is_refused(world: Federation) -> None:
    """Two trees of one size: each witness keeps the second note as a fork, whose notes alone convince anybody."""
    one = world.copies[0]
    two = world.copy_of(one)
    first, second = publish(world, one), publish(world, two, replay=NOBODY)
    assert first.size == second.size
    assert first.root != second.root
    assert world.signers[WITNESS][parse_note(second.note).text] == {0}
    for node in world.nodes.values():
        assert kinds(node, WITNESS) == {FORK}


def test_fork_is_refused_by_auditors_that_were_not_asked_as_witnesses(world: Federation) -> None:
    """An auditor holds the leaves of one copy: the other's, of the same size or a bigger one, are not signed."""
    one = world.copies[0]
    two = world.copy_of(one)
    publish(world, one)
    for _ in range(2):
        target = publish(world, two, reach=NOBODY)
        for number in HONEST:
            world.ask_auditor(two, target, number)
        check(world)
        assert world.signers[AUDITOR][parse_note(target.note).text] == {0}
    for node in world.nodes.values():
        assert FORK in kinds(node, AUDITOR)
        assert CONSISTENCY in kinds(node, AUDITOR)


def test_two_forks_that_share_a_trunk_are_told_apart(world: Federation) -> None:
    """The comparison itself: branches that both continue one trunk are a fork, in whatever order they come."""
    one = world.copies[0]
    two = world.copy_of(one)
    trees = [world.trees[parse_note(publish(world, each, NOBODY).note).text] for each in (one, two)]
    trunk = min(world.trees.values(), key=lambda tree: tree.size)
    for order in ([trees[0], trunk, trees[1]], [trunk, *trees], [*trees, trunk]):
        with pytest.raises(AssertionError, match="told apart"):
            federation.check_one_history(order, "told apart")
    federation.check_one_history([trees[0], trunk, trees[0]], "one history")


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("after", range(1, 4))
def test_witness_that_crashes_has_not_forgotten_what_it_said(world: Federation, after: int, done: bool) -> None:
    """A write fails before or after it is done; then both sides of a fork ask again, and one history stays."""
    one = world.copies[0]
    two = world.copy_of(one)
    for number in HONEST:
        faults = world.nodes[number].faults
        faults.fail_at, faults.done = faults.writes + after, done
    publish(world, one)
    for node in world.nodes.values():
        node.restart()
    check(world)
    publish(world, one)
    world.fork_at(two)
    check(world)


def test_witness_that_starts_again_has_not_forgotten_what_it_said(world: Federation) -> None:
    """After a restart both of its keys know every tree that they signed, and the fork is still refused."""
    one = world.copies[0]
    two = world.copy_of(one)
    publish(world, one)
    for node in world.nodes.values():
        node.restart()
    check(world)
    target = world.fork_at(two)
    assert target is not None
    assert parse_note(target.note).text not in world.signers[WITNESS]


def test_witness_whose_clock_went_back_signs_nothing(world: Federation) -> None:
    """A minute before its last cosignature: neither as witness nor as auditor, until its clock is right again."""
    publish(world, world.copies[0])
    world.set_clock(1, -60)
    target = publish(world, world.copies[0])
    text = parse_note(target.note).text
    assert all(1 not in world.signers[role][text] for role in (WITNESS, AUDITOR))
    world.set_clock(1, 0)
    world.ask_witness(world.copies[0], target, 1)
    assert 1 in world.signers[WITNESS][text]


@pytest.mark.parametrize("lie", sorted(LIES))
def test_auditor_refuses_what_the_leaves_do_not_say(world: Federation, lie: str) -> None:
    """A seq that is not the next one, or another map: not signed, and halted until an operator decides."""
    for number in HONEST:
        honest = federation.FOLDER.liars[lie]
        assert world.ask_about(number, honest) is not None
        assert world.ask_about_lie(number, lie) is None
        assert world.nodes[number].node.store.halt(honest.origin) is not None
        assert {found.kind for found in world.nodes[number].node.store.evidence(honest.origin)} == {FINDING}
        assert world.ask_about(number, honest) is None, "signed while halted"


def test_log_publishes_with_distinct_cosigners_only(world: Federation) -> None:
    """Two nodes with both of their keys, and the liar's line again with other times, are two: nothing is published."""
    each = world.copies[0]
    before = each.log.publisher.published()
    target = publish(world, each, reach=1)
    for seconds in (1, 2, 3):
        world.lie(each, target, world.now + seconds)
        check(world)
    assert each.log.publisher.published() == before
    world.ask_witness(each, target, 2)
    published = each.log.publisher.published()
    assert published is not None
    assert published.size == target.size, "and with the third it is"
    assert not published.audited


def test_client_wants_the_auditors_quorum(world: Federation) -> None:
    """A log claims that a tree was replayed, which its own auditor alone signed: NOT PROVEN, until a quorum did."""
    each = world.copies[0]
    target = publish(world, each, replay=NOBODY)
    world.claim_at(each)
    assert each.prover.prove(each.log.source, FILES[0])
    assert verdicts(world, each) == 0
    for number in HONEST[:2]:
        assert verdicts(world, each) == 0
        world.ask_auditor(each, target, number)
    assert verdicts(world, each) == 1


@pytest.mark.parametrize("role", [WITNESS, AUDITOR])
def test_node_put_back_to_an_older_store_signs_nothing(world: Federation, role: str) -> None:
    """It is shown what it signed since, as witness or as auditor: neither fork nor trunk gets a line of it again."""
    one = world.copies[0]
    two = world.copy_of(one)
    node = world.nodes[1]
    node.keep()
    if role == WITNESS:
        publish(world, one, replay=NOBODY)
    else:
        publish(world, one, reach=6)
        newest = one.log.publisher.published()
        assert newest is not None
        world.ask_auditor(one, Target(newest.size, newest.root, newest.newest_note), 1)
    node.put_back()
    assert node.retired
    assert node.node.store.retired() is not None
    for each in (two, one):
        target = publish(world, each)
        assert 1 not in world.signers[WITNESS].get(parse_note(target.note).text, set())
        try:
            world.ask_auditor(each, target, 1)
        except Conflict:
            pass
        assert 1 not in world.signers[AUDITOR].get(parse_note(target.note).text, set())


def test_node_put_back_to_what_it_knows_signs_on(world: Federation) -> None:
    """A copy that is as new as what it said is no older store, and nobody is retired for nothing."""
    node = world.nodes[1]
    node.keep()
    node.put_back()
    assert not node.retired
    target = publish(world, world.copies[0])
    assert 1 in world.signers[WITNESS][parse_note(target.note).text]
