"""Signing, cosigning and publishing: what the log puts its name to, and when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.errors import Fatal, Refused
from audit.mapstore import MapProof, MapStore
from audit.prover import Prover
from audit.publisher import (
    AUDIT_TIMEOUT_S,
    CLOCK_TOLERANCE_S,
    MARK_PREFIX,
    REFRESH_S,
    AuditTarget,
    Publisher,
    Target,
    plan_audit,
    plan_refresh,
    read_newest_signed,
    read_proof_tree,
)
from audit.tree import tile_id
from tests.audit.log_setup import LogSetup, outstanding, read_leaf
from verifier.checkpoint import open_checkpoint
from verifier.entry import Operation
from verifier.leaf import EnrolmentLeaf, EntryLeaf, MapLeaf, decode_leaf
from verifier.map import map_value, verify_presence
from verifier.merkle import leaf_hash, verify_consistency, verify_inclusion
from verifier.note import SIGNATURE, SignerKey, cosign, format_signature_line, parse_note
from verifier.policy import AUDITORS, NONE, Log, Policy, verify_quorum
from verifier.proof import parse_proof

CREATED, WRITTEN = Operation.CREATED, Operation.WRITTEN


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogSetup]:
    setup = LogSetup(tmp_path)
    yield setup
    setup.close()


def test_integrate_and_sign_makes_a_tree_that_proves_every_entry(log: LogSetup) -> None:
    """Each recorded entry is included under the signed root, and the map names the last one of its chain."""
    log.see(CREATED, 1, b"one", "a")
    log.see(CREATED, 2, b"two", "b")
    last = log.see(WRITTEN, 1, b"more")
    target = log.publish()
    _, checkpoint = open_checkpoint(target.note, log.signer.verifier_key)
    assert (checkpoint.size, checkpoint.root) == (target.size, target.root)
    conn = log.store.reader()
    leaves = [read_leaf(conn, i) for i in range(target.size)]
    kinds = [type(decode_leaf(leaf)) for leaf in leaves]
    assert kinds == [EnrolmentLeaf, EntryLeaf, EntryLeaf, EntryLeaf, MapLeaf]
    for index, leaf in enumerate(leaves):
        verify_inclusion(index, target.size, leaf_hash(leaf), log.tree.inclusion(conn, index, target.size), target.root)
    proof = log.maps.prove(conn, last.chain_id, target.size)
    map_root = decode_leaf(leaves[-1])[0]
    assert proof.value_hash == map_value(1, last.head, 3)
    verify_presence(last.chain_id, proof.value_hash, proof.siblings, map_root)
    assert log.publisher.integrate_and_sign(log.clock.now) is None, "a leaf was logged twice"


def test_trees_grow_consistently(log: LogSetup) -> None:
    """Any two signed trees have a consistency proof."""
    targets = []
    for i in range(1, 5):
        for n in range(i * i):
            log.see(CREATED, 100 * i + n, b"x", f"{i}/{n}")
        targets.append(log.publish())
    for old in targets:
        for new in targets[targets.index(old) :]:
            proof = log.publisher.consistency(old.size, new.size)
            verify_consistency(old.size, old.root, new.size, new.root, proof)


def test_publisher_signs_nothing_when_nothing_is_new(log: LogSetup) -> None:
    """The first tree is signed even when it is empty but for the map commitment; then only new leaves count."""
    target = log.publish()
    assert target.size == 1
    assert log.publisher.integrate_and_sign(log.clock.now) is None


def test_publisher_signs_one_unpublished_tree_at_a_time(log: LogSetup) -> None:
    """Until the quorum holds, the same note goes out again, after a restart as well."""
    log.see(CREATED, 1, b"one", "a")
    first = log.publisher.integrate_and_sign(log.clock.now)
    log.see(CREATED, 2, b"two", "b")
    log.reopen()
    assert first is not None
    assert outstanding(log.store) == first
    assert log.publisher.integrate_and_sign(log.clock.now) == first
    accepted = log.publisher.accept_cosignatures(first.size, log.lines(first, log.witnesses[:2]), log.clock.now)
    assert accepted.published
    assert outstanding(log.store) is None
    second = log.publisher.integrate_and_sign(log.clock.now)
    assert second is not None
    assert second.size > first.size


def test_publisher_refuses_to_continue_a_tree_that_changed(log: LogSetup) -> None:
    """A tile that is no longer what was signed stops the log before it signs an inconsistent tree."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publish()
    log.see(CREATED, 2, b"two", "b")
    with log.store.transaction() as conn:
        data = bytearray(conn.execute("SELECT data FROM tiles WHERE id = ?", (tile_id(0, 0),)).fetchone()[0])
        data[0] ^= 1
        conn.execute("UPDATE tiles SET data = ?", (bytes(data),))
    with pytest.raises(Fatal, match=f"not the one that was signed at size {target.size}"):
        log.publisher.integrate_and_sign(log.clock.now)
    newest = read_newest_signed(log.store.reader())
    assert newest is not None
    assert newest.size == target.size


def test_publisher_refuses_a_damaged_map(log: LogSetup) -> None:
    """A map page that is not what was written stops the log."""
    log.see(CREATED, 1, b"one", "a")
    log.publish()
    log.see(CREATED, 2, b"two", "b")
    with log.store.transaction() as conn:
        conn.execute("UPDATE map_pages SET data = substr(data, 1, 40)")
    log.reopen()
    with pytest.raises(Fatal, match="map page"):
        log.publisher.integrate_and_sign(log.clock.now)


def test_publisher_refuses_a_key_of_another_name(log: LogSetup) -> None:
    """A log key speaks for the origin that it is named after."""
    other = SignerKey("other.example", SIGNATURE, bytes(32))
    with pytest.raises(Refused, match="log key"):
        Publisher(log.store, log.maps, log.tree, other, log.witness_policy, None)


def test_cosignatures_publish_with_the_quorum(log: LogSetup) -> None:
    """One of three does not publish, two do; the note that was first published stays as it was."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publisher.integrate_and_sign(log.clock.now)
    assert target is not None
    one = log.publisher.accept_cosignatures(target.size, log.lines(target, log.witnesses[:1]), log.clock.now)
    assert (one.valid, one.published) == (("w0",), False)
    assert log.publisher.published() is None
    log.clock.now += 5
    two = log.publisher.accept_cosignatures(target.size, log.lines(target, log.witnesses[1:2]), log.clock.now)
    assert two.published
    assert not two.audited
    first = log.publisher.published()
    assert first is not None
    assert first.first_note is not None
    assert verify_quorum(log.witness_policy, parse_note(first.first_note)).not_later_than == log.clock.now
    log.clock.now += 5
    log.publisher.accept_cosignatures(target.size, log.lines(target, log.witnesses), log.clock.now)
    later = log.publisher.published()
    assert later is not None
    assert later.first_note == first.first_note
    assert verify_quorum(log.witness_policy, parse_note(later.newest_note)).still_newest_at == log.clock.now


def test_cosignature_that_does_not_hold_is_dropped_alone(log: LogSetup) -> None:
    """A forged line is named and not stored; the valid one beside it counts, unknown keys are ignored."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publisher.integrate_and_sign(log.clock.now)
    assert target is not None
    forged = cosign(b"another text\n", log.witnesses[0], log.clock.now)
    stranger = SignerKey("stranger.example", 4, bytes(range(32)))
    lines = format_signature_line(forged) + log.lines(target, [stranger, log.witnesses[1]])
    accepted = log.publisher.accept_cosignatures(target.size, lines, log.clock.now)
    assert (accepted.valid, accepted.refused, accepted.published) == (("w1",), ("w0",), False)
    newest = outstanding(log.store)
    assert newest is not None
    assert {line.name for line in parse_note(newest.note).signatures} == {"log.example/files", "w1.example/w"}


def test_cosignature_from_the_future_is_dropped(log: LogSetup) -> None:
    """A time far ahead would stay the newest for ever, so it is refused; five minutes are tolerated."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publisher.integrate_and_sign(log.clock.now)
    assert target is not None
    limit = log.clock.now + CLOCK_TOLERANCE_S
    late = log.lines(target, log.witnesses[:1], limit + 1)
    assert log.publisher.accept_cosignatures(target.size, late, log.clock.now).refused == ("w0",)
    good = log.lines(target, log.witnesses[:1], limit)
    assert log.publisher.accept_cosignatures(target.size, good, log.clock.now).valid == ("w0",)


def test_cosignature_keeps_the_newest_time(log: LogSetup) -> None:
    """An older line of the same cosigner, as from a slow answer, does not replace a newer one."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publish()
    before = log.publisher.published()
    log.publisher.accept_cosignatures(target.size, log.lines(target, log.witnesses, log.clock.now - 5), log.clock.now)
    assert log.publisher.published() == before


@pytest.mark.parametrize("role", ["witnesses", "auditors"])
def test_cosigner_that_goes_back_is_not_believed(log: LogSetup, role: str) -> None:
    """[R] An honest log never serves two notes that look as if it had gone back, whatever one cosigner signs."""
    log.see(CREATED, 1, b"one", "a")
    first = log.publish()
    liar, honest = getattr(log, role)[:1], log.clock.now
    ahead = log.lines(first, liar, honest + 290)
    assert log.publisher.accept_cosignatures(first.size, ahead, honest).valid
    log.see(CREATED, 2, b"two", "b")
    second = log.publisher.integrate_and_sign(honest + 10)
    assert second is not None
    log.reopen()
    for now, valid in ((honest + 10, False), (honest + 289, False), (honest + 290, True)):
        accepted = log.publisher.accept_cosignatures(second.size, log.lines(second, liar, now), now)
        assert bool(accepted.valid) is valid
        assert bool(accepted.refused) is not valid
    late = log.lines(first, liar, honest + 300)
    assert log.publisher.accept_cosignatures(first.size, late, honest + 300).refused, "the first tree is not the newest"
    others = log.lines(second, getattr(log, role)[1:], honest + 10)
    assert log.publisher.accept_cosignatures(second.size, others, honest + 10).valid


def test_damaged_mark_of_a_cosigner_stops_the_log(log: LogSetup) -> None:
    """What a cosigner signed last is not guessed."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publish()
    with log.store.transaction() as conn:
        conn.execute("UPDATE meta SET value = ? WHERE key LIKE ?", (b"1 x", f"{MARK_PREFIX}%"))
    with pytest.raises(Fatal, match="want a size and a time"):
        log.publisher.accept_cosignatures(target.size, log.lines(target, log.witnesses), log.clock.now)


def test_proof_tree_is_the_newest_audited_one(log: LogSetup) -> None:
    """A newer tree that nobody replayed is published, and proofs keep to the audited one."""
    log.see(CREATED, 1, b"one", "a")
    audited = log.publish()
    log.see(CREATED, 2, b"two", "b")
    newer = log.publisher.integrate_and_sign(log.clock.now)
    assert newer is not None
    log.publisher.accept_cosignatures(newer.size, log.lines(newer, log.witnesses), log.clock.now)
    published, shown = log.publisher.published(), read_proof_tree(log.store.reader())
    assert published is not None
    assert shown is not None
    assert (published.size, shown.size) == (newer.size, audited.size)
    assert log.publisher.accept_cosignatures(newer.size, log.lines(newer, log.auditors[:2]), log.clock.now).audited
    shown = read_proof_tree(log.store.reader())
    assert shown is not None
    assert shown.size == newer.size


def test_audit_target_stays_until_quorum_or_timeout(log: LogSetup) -> None:
    """Auditors are asked for one tree at a time; the next follows on quorum or timeout, and is never smaller."""
    log.see(CREATED, 1, b"one", "a")
    first = log.publisher.integrate_and_sign(log.clock.now)
    assert first is not None
    assert log.publisher.audit_target(log.clock.now) == first
    log.publisher.accept_cosignatures(first.size, log.lines(first, log.witnesses), log.clock.now)
    log.see(CREATED, 2, b"two", "b")
    second = log.publisher.integrate_and_sign(log.clock.now)
    assert second is not None
    target = log.publisher.audit_target(log.clock.now + 1)
    assert target is not None
    assert target.size == first.size
    log.publisher.accept_cosignatures(first.size, log.lines(first, log.auditors), log.clock.now)
    assert log.publisher.audit_target(log.clock.now + 2) == second
    log.publisher.accept_cosignatures(second.size, log.lines(second, log.auditors), log.clock.now)
    assert log.publisher.audit_target(log.clock.now + 3) is None


@pytest.mark.parametrize(
    ("done", "newest", "waited", "want"),
    [
        (False, 9, 0, 5),
        (False, 9, AUDIT_TIMEOUT_S, 9),
        (True, 9, 0, 9),
        (False, 5, AUDIT_TIMEOUT_S, 5),
        (False, 9, -1, 9),
    ],
)
def test_plan_audit_moves_on(done: bool, newest: int, waited: int, want: int) -> None:
    """Quorum, timeout or a clock that was set back, and a newer tree, move the target; nothing else does."""
    assert plan_audit(AuditTarget(5, 100), done, newest, 100 + waited).size == want


def test_refresh_is_due_after_ten_minutes(log: LogSetup) -> None:
    """The same size is sent out again when its quorum's word is ten minutes old, and once in ten minutes."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publish()
    assert log.publisher.refresh_target(log.clock.now + REFRESH_S - 1) is None
    due = log.publisher.refresh_target(log.clock.now + REFRESH_S)
    assert due is not None
    assert due.size == target.size
    assert log.publisher.refresh_target(log.clock.now + 2 * REFRESH_S - 1) is None
    assert log.publisher.refresh_target(log.clock.now + 2 * REFRESH_S) is not None


def accept_as_of(log: LogSetup, target: Target, signers: list[SignerKey], time: int) -> None:
    """Lines that were stored while the log's own clock was at that time as well."""
    accepted = log.publisher.accept_cosignatures(target.size, log.lines(target, signers, time), time)
    assert len(accepted.valid) == len(signers)


def test_refresh_is_due_though_one_line_is_from_the_future(log: LogSetup) -> None:
    """After a clock fault one line is an hour ahead: the others get new times in ten minutes, not in an hour."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publish()
    now = log.clock.now
    accept_as_of(log, target, log.witnesses[:1], now + 3600)
    assert log.publisher.refresh_target(now + REFRESH_S - 1) is None
    assert log.publisher.refresh_target(now + REFRESH_S) is not None


def test_refresh_is_due_where_the_quorum_is_from_the_future(log: LogSetup) -> None:
    """A verifier counts no line of an hour ahead: with two of three such lines new ones are asked for at once."""
    log.see(CREATED, 1, b"one", "a")
    target = log.publish()
    now = log.clock.now
    accept_as_of(log, target, log.witnesses[:2], now + 3600)
    assert log.publisher.refresh_target(now) is not None
    accept_as_of(log, target, log.witnesses[2:], now + 1)
    assert log.publisher.refresh_target(now + 1) is None, "they were just asked"


@pytest.mark.parametrize(
    ("times", "asked", "want"),
    [
        ((400, 400, 400), None, True),
        ((401, 401, 0), None, False),  # the third never came
        ((401, 400, 0), None, True),  # the quorum's word, not the newest line
        ((9999, 9999, 401), None, True),
        ((1031, 1000, 0), None, True),  # 31 s ahead: no verifier counts it
        ((1030, 1000, 0), None, False),
        ((400, 400, 400), 401, False),
        ((400, 400, 400), 400, True),
        ((400, 400, 400), 1001, True),  # asked when the clock was ahead
        ((0, 0, 0), None, True),
    ],
)
def test_plan_refresh_goes_by_the_quorum(
    log: LogSetup, times: tuple[int, int, int], asked: int | None, want: bool
) -> None:
    """Two of three: the second newest time that counts, and when they were last asked, decide at 1000."""
    held = {f"w{number}": time for number, time in enumerate(times) if time}
    assert plan_refresh(log.witness_policy, held, asked, 1000) is want


def test_accept_cosignatures_refuses_a_size_that_was_not_signed(log: LogSetup) -> None:
    """Lines for a tree that we never signed are nobody's."""
    target = log.publish()
    with pytest.raises(Refused, match="none of size 7"):
        log.publisher.accept_cosignatures(7, log.lines(target, log.witnesses), log.clock.now)


def publisher_with(log: LogSetup, auditors: Policy | None) -> Publisher:
    return Publisher(log.store, log.maps, log.tree, log.signer, log.witness_policy, auditors)


def test_auditors_without_a_quorum_audit_nothing(log: LogSetup) -> None:
    """`quorum none` is met by nobody's word: no tree is called audited by it, and no auditor is asked."""
    asked_none = Policy(AUDITORS, (Log(log.signer.verifier_key, ""),), {}, {}, NONE)
    log.publisher = publisher_with(log, asked_none)
    log.see(CREATED, 1, b"one", "a")
    target = log.publisher.integrate_and_sign(log.clock.now)
    assert target is not None
    assert log.publisher.audit_target(log.clock.now) is None
    accepted = log.publisher.accept_cosignatures(target.size, log.lines(target, log.witnesses), log.clock.now)
    assert (accepted.published, accepted.audited) == (True, False)


def retained(log: LogSetup) -> list[int]:
    return log.maps.versions(log.store.reader())


def test_publisher_keeps_the_map_of_the_audited_tree_and_of_newer_ones(log: LogSetup) -> None:
    """A map that a proof may ask for stays; older ones go once an audited tree takes their place."""
    log.see(CREATED, 1, b"one", "a")
    first = log.publisher.integrate_and_sign(log.clock.now)
    assert first is not None
    log.publisher.accept_cosignatures(first.size, log.lines(first, log.witnesses), log.clock.now)
    log.see(CREATED, 2, b"two", "b")
    second = log.publisher.integrate_and_sign(log.clock.now)
    assert second is not None
    log.publisher.accept_cosignatures(second.size, log.lines(second, log.witnesses), log.clock.now)
    assert retained(log) == [first.size, second.size], "the first audit may be of either tree"
    log.publisher.accept_cosignatures(first.size, log.lines(first, log.auditors), log.clock.now)
    assert retained(log) == [first.size, second.size]
    log.publisher.accept_cosignatures(second.size, log.lines(second, log.auditors), log.clock.now)
    assert retained(log) == [second.size]
    rows = log.store.reader().execute("SELECT count(*) FROM map_pages").fetchone()[0]
    for i in range(5):
        log.see(WRITTEN, 1, b"%d" % i)
        log.publish()
    assert log.store.reader().execute("SELECT count(*) FROM map_pages").fetchone()[0] == rows


def test_publisher_without_auditors_keeps_the_map_of_the_newest_published_tree(log: LogSetup) -> None:
    """Where nobody audits, proofs speak of the newest published tree, and no older map is kept."""
    log.publisher = publisher_with(log, None)
    log.see(CREATED, 1, b"one", "a")
    log.publish()
    log.see(CREATED, 2, b"two", "b")
    target = log.publisher.integrate_and_sign(log.clock.now)
    assert target is not None
    assert len(retained(log)) == 2, "it is not published yet"
    log.publisher.accept_cosignatures(target.size, log.lines(target, log.witnesses), log.clock.now)
    assert retained(log) == [target.size]


def test_proof_is_not_disturbed_by_a_map_that_is_pruned_meanwhile(log: LogSetup) -> None:
    """The map is pruned between a proof's choice of a tree and its look at the map; it still has its pages."""

    class SlowMaps(MapStore):
        """Reads nothing before the log has gone on."""

        def prove(self, conn: sqlite3.Connection, key: bytes, version: int) -> MapProof:
            for i in range(3):
                log.see(WRITTEN, 1, b"%d" % i)
                log.see(CREATED, 1000 + len(retained_then), b"x", f"new {len(retained_then)}")
                log.publish()
                retained_then.append(version in log.maps.versions(writer))
            return super().prove(conn, key, version)

    retained_then: list[bool] = []
    writer = sqlite3.connect(log.store.path)
    for i in range(1, 40):
        log.see(CREATED, i, b"one", f"{i}")
    log.publish()
    proof = parse_proof(Prover(log.store, SlowMaps(cache_bytes=0), log.tree).prove(log.source, 1))
    writer.close()
    assert retained_then == [False] * 3, "nothing was pruned"
    value = map_value(proof.map.seq, proof.map.head, proof.map.leaf_index)
    verify_presence(proof.chain_id, value, proof.map.siblings, proof.map.root)
