"""Owners per user of a Nextcloud: roots, migration, change of hands, and who may have which proof."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.api import NotFound, _own_chain
from audit.batch import Observation
from audit.chains import Current, find_at_path, find_current, get_owner, load_chain
from audit.directory import add_token
from audit.enrolment import AlreadyEnrolled, Enrolments, Own, find_own
from audit.errors import Refused, TryLater
from audit.fsck import Keys, check_log
from audit.prover import Prover
from tests.audit.log_setup import LogSetup, content_of, secret
from tests.audit.town import enrolment_body
from verifier.ed25519 import load_private_key
from verifier.entry import Closed, CloseReason, Operation
from verifier.errors import Malformed
from verifier.keys import OwnerKeys, derive_keys
from verifier.request import Enrolment, enrolment_message

Op = Operation


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogSetup]:
    """A log of one Nextcloud."""
    setup = LogSetup(tmp_path / "log")
    setup.source = setup.store.add_source("nextcloud:https://cloud.example", "nextcloud:oc1")
    yield setup
    report = check_log(setup.store, Keys(setup.signer.verifier_key, setup.witness_policy, setup.auditor_policy))
    assert report.findings == []
    setup.close()


def see(
    log: LogSetup, op: Operation, file_id: int, user: str, data: bytes | None = None, path: str | None = None
) -> None:
    content = None if data is None else content_of(data)
    log.recorder.record([Observation(log.source, file_id, op, 7, content, path, user=user)])


def current(log: LogSetup, file_id: int) -> Current:
    found = find_current(log.store.reader(), log.source, file_id)
    assert found is not None
    return found


def owner_of(log: LogSetup, file_id: int) -> tuple[str, str]:
    return get_owner(log.store.reader(), current(log, file_id).owner)[1:3]


def test_roots_are_per_user(log: LogSetup) -> None:
    """A chain gets its user's root, else the instance's, else a custodial one; another user's root is never taken."""
    see(log, Op.CREATED, 1, "alice", b"x", "a")
    log.enrol("bob")
    see(log, Op.CREATED, 2, "alice", b"x", "b")
    see(log, Op.CREATED, 3, "bob", b"x", "a")
    log.enrol("office", whole_instance=True)
    see(log, Op.CREATED, 4, "carol", b"x", "a")
    assert [owner_of(log, i) for i in (1, 2, 3, 4)] == [
        ("custodial", ""),
        ("custodial", ""),
        ("owner", "bob"),
        ("instance", "office"),
    ]


def test_two_users_enrol_and_a_second_root_of_one_is_refused(log: LogSetup) -> None:
    """Each user of a Nextcloud has one root; nobody takes the place of another one."""
    log.enrol("alice")
    log.enrol("bob")
    keys = derive_keys(secret("other seed"), log.log_name)
    with pytest.raises(Refused, match="alice is enrolled"):
        log.recorder.enrol(log.source, "alice", keys.public, keys.blinding)


def test_migration_moves_the_users_chains_alone(log: LogSetup) -> None:
    """After an enrolment nobody else's chain is closed; after that of the instance, those of who has no root."""
    for file_id, user in ((1, "alice"), (2, "bob"), (3, "carol")):
        see(log, Op.CREATED, file_id, user, b"x", "a")
    log.enrol("bob")
    assert log.recorder.migrate(log.source, 100) == 1
    assert [owner_of(log, i)[0] for i in (1, 2, 3)] == ["custodial", "owner", "custodial"]
    log.enrol("office", whole_instance=True)
    assert [log.recorder.migrate(log.source, 1), log.recorder.migrate(log.source, 9)] == [1, 1]
    assert [owner_of(log, i)[0] for i in (1, 2, 3)] == ["instance", "owner", "instance"]
    assert [current(log, i).user for i in (1, 2, 3)] == ["alice", "bob", "carol"]


def test_transfer_of_ownership_closes_the_chain(log: LogSetup) -> None:
    """SPEC 4.5: closed for a new owner, then generation 0 under the new root, as it was, and the move after it."""
    log.enrol("alice")
    log.enrol("bob")
    see(log, Op.CREATED, 1, "alice", b"x", "a")
    before = current(log, 1)
    see(log, Op.MOVED, 1, "bob", None, "from alice/a")
    after = current(log, 1)
    assert (after.user, after.generation, after.path, owner_of(log, 1)) == ("bob", 0, "from alice/a", ("owner", "bob"))
    chain = load_chain(log.store.reader(), log.store, after)
    assert [(step.entry.operation, step.path) for step in chain.steps] == [
        (Op.ADOPTED, "a"),
        (Op.MOVED, "from alice/a"),
    ]
    old = load_chain(log.store.reader(), log.store, before._replace(head=chain.predecessor.head))  # type: ignore[union-attr]
    closed = old.steps[-1].entry.argument
    assert isinstance(closed, Closed)
    assert closed.reason is CloseReason.NEW_OWNER


def test_transfer_under_one_root_goes_on_in_one_chain(log: LogSetup) -> None:
    """Under the instance root a file that another user gets keeps its chain; the row says whose it is now."""
    log.enrol("office", whole_instance=True)
    see(log, Op.CREATED, 1, "alice", b"x", "a")
    see(log, Op.MOVED, 1, "bob", None, "b")
    assert (current(log, 1).user, current(log, 1).last_seq) == ("bob", 1)


def test_keys_open_what_is_under_their_own_root(log: LogSetup) -> None:
    """[R] A user's key has no proof of another's file, by id or by path, nor of what the instance root holds."""
    keys = {name: log.enrol(name) for name in ("alice", "bob")} | {"office": log.enrol("office", whole_instance=True)}
    for file_id, user in ((1, "alice"), (2, "bob"), (3, "carol"), (4, "dave")):
        see(log, Op.CREATED, file_id, user, b"x", "same.txt")
    log.publish()
    prover = Prover(log.store, log.maps, log.tree)
    conn = log.store.reader()
    for name, theirs in (("alice", {1}), ("bob", {2}), ("office", {3, 4})):
        (own,) = find_own(conn, keys[name].public, "nextcloud:oc1")
        assert {i for i in range(1, 5) if own.has(current(log, i).owner)} == theirs
        assert own.owners is not None
        for file_id in set(range(1, 6)) - theirs:  # one that is another's is as one that is not there
            with pytest.raises(NotFound):
                _own_chain(conn, own, file_id)
        for file_id in range(1, 5):
            if file_id in theirs:
                prover.build_for(conn, current(log, file_id), owners=own.owners)
                continue
            with pytest.raises(Refused, match="no such file"):
                prover.build_for(conn, current(log, file_id), owners=own.owners)
            with pytest.raises(Refused, match="no such file"):
                prover.build_for(conn, current(log, min(theirs)), replaces=(file_id,), owners=own.owners)
        if len(theirs) == 1:
            at_path = find_at_path(conn, log.source, "same.txt", own.owners)
            assert at_path is not None
            assert at_path.file_id in theirs
        else:
            with pytest.raises(Malformed, match="several users"):
                find_at_path(conn, log.source, "same.txt", own.owners)
        assert find_at_path(conn, log.source, "none.txt", own.owners) is None


def test_new_owner_does_not_get_the_old_ones_history(log: LogSetup) -> None:
    """[R] Until the new chain is published there is nothing to show; the chain under the old root is not it."""
    log.enrol("alice")
    bob = log.enrol("bob")
    see(log, Op.CREATED, 1, "alice", b"secret", "a")
    log.publish()
    see(log, Op.MOVED, 1, "bob", None, "b")
    (own,) = find_own(log.store.reader(), bob.public)
    prover = Prover(log.store, log.maps, log.tree)
    with pytest.raises(TryLater):
        prover.build_for(log.store.reader(), current(log, 1), owners=own.owners)
    log.publish()
    proof = prover.build_for(log.store.reader(), current(log, 1), owners=own.owners)
    assert len(proof.earlier) == 1  # its end alone


def test_instance_root_by_a_token_of_its_kind(log: LogSetup) -> None:
    """A token of kind `instance` enrols the organisation's root, once; a user's token never does."""
    with log.store.transaction() as conn:
        for token, user, kind in (("t1", "office", "instance"), ("t2", "office", "instance"), ("t3", "alice", "owner")):
            add_token(conn, token, user, None, kind)
    enrolments = Enrolments(log.store, log.recorder)
    office, alice = (derive_keys(secret(name), log.log_name) for name in ("office", "alice"))
    enrolments.enrol(body(log, enrolments, "office", "t1", office), log.clock.now)
    with pytest.raises(AlreadyEnrolled):
        enrolments.enrol(body(log, enrolments, "office", "t2", alice), log.clock.now)
    enrolments.enrol(body(log, enrolments, "alice", "t3", alice), log.clock.now)
    see(log, Op.CREATED, 1, "carol", b"x", "a")
    see(log, Op.CREATED, 2, "alice", b"x", "a")
    assert [owner_of(log, i) for i in (1, 2)] == [("instance", "office"), ("owner", "alice")]
    folder = find_own(log.store.reader(), office.public, "folder:f0")
    assert folder == [Own(1, None)]  # a folder without an owner is the instance's as well


def body(log: LogSetup, enrolments: Enrolments, user: str, token: str, keys: OwnerKeys) -> bytes:
    nonce = enrolments.nonces.issue(log.clock.now)
    e = Enrolment(log.log_name, "nextcloud:oc1", user, token, nonce, keys.public, keys.blinding)
    return enrolment_body(e, load_private_key(keys.private).sign(enrolment_message(e)))


def test_fsck_finds_a_chain_in_the_wrong_hands(log: LogSetup) -> None:
    """A row that says another user than its owner is a finding."""
    log.enrol("alice")
    see(log, Op.CREATED, 1, "alice", b"x", "a")
    keys = Keys(log.signer.verifier_key, log.witness_policy, log.auditor_policy)
    with log.store.transaction() as conn:
        conn.execute("UPDATE chains SET user = 'bob'")
    assert [finding.kind for finding in check_log(log.store, keys).findings] == ["row"]
    with log.store.transaction() as conn:
        conn.execute("UPDATE chains SET user = 'alice'")
