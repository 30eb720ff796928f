"""Recording: durable, legal by the verifier's own rules, all of a batch or nothing."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import batch
from audit.batch import Observation
from audit.chains import Current, find_current, get_owner, load_chain, read_ending
from audit.errors import Fatal, Refused
from audit.store import PAGE_SIZE
from tests.audit.log_setup import LogSetup, content_of, plan_close
from verifier.chain import MISSING, NO_SEAL, Chain, close_message, seal_message
from verifier.ed25519 import load_private_key
from verifier.entry import (
    MAX_LISTED,
    Closed,
    CloseReason,
    ContextField,
    Erased,
    Expired,
    ExpiryReason,
    Gap,
    GapReason,
    Operation,
    Part,
    Reverted,
    Seal,
    TaintKind,
    decode_entry,
    encode_entry,
)
from verifier.keys import chain_id
from verifier.leaf import EnrolmentLeaf, EntryLeaf, decode_leaf

Op = Operation


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogSetup]:
    setup = LogSetup(tmp_path)
    yield setup
    setup.close()


def current_of(log: LogSetup, file_id: int) -> Current:
    current = find_current(log.store.reader(), log.source, file_id)
    assert current is not None
    return current


def replay(log: LogSetup, file_id: int) -> Chain:
    """The stored chain, replayed by the verifier; the row must say the same."""
    current = current_of(log, file_id)
    chain = load_chain(log.store.reader(), log.store, current)
    assert (chain.status, chain.seq, chain.head, chain.version) == (
        current.status,
        current.last_seq,
        current.head,
        current.version,
    )
    return chain


def count(log: LogSetup, name: str) -> int:
    return int(log.store.reader().execute(f"SELECT count(*) FROM {name}").fetchone()[0])


def test_record_makes_a_chain_that_replays(log: LogSetup) -> None:
    """A life from creation to restoring is a legitimate chain; parts that are kept need not be repeated."""
    log.see(Op.CREATED, 1, b"one", "a")
    log.see(Op.WRITTEN, 1, b"two")
    log.see(Op.TOUCHED, 1)
    log.see(Op.MOVED, 1, path="b/c")
    log.see(Op.REVERTED, 1, argument=Reverted(0))
    log.see(Op.EXPIRED, 1, argument=Expired(ExpiryReason.THINNED, (1,)))
    log.see(Op.GAP, 1, argument=Gap(GapReason.UNOBSERVED))
    log.see(Op.ALTERED, 1, b"rot")
    log.see(Op.DELETED, 1)
    log.see(Op.RESTORED, 1, path="b/c")
    log.see(Op.COPIED, 2, b"rot", "copy")
    chain = replay(log, 1)
    assert (chain.status, chain.path, chain.content) == ("live", "b/c", content_of(b"rot"))
    assert [step.entry.operation for step in chain.steps][-2:] == [Op.DELETED, Op.RESTORED]
    assert [taint.kind for taint in chain.taints.values()] == [TaintKind.GAP, TaintKind.ALTERED]
    assert replay(log, 2).steps[0].context == {ContextField.ACTOR: "alice", ContextField.COPIED_FROM: "elsewhere"}


def test_record_is_durable_when_it_returns(log: LogSetup) -> None:
    """A restart finds the entry, its openings and its pending leaf."""
    recorded = log.see(Op.CREATED, 1, b"one", "a")
    log.reopen()
    assert replay(log, 1).head == recorded.head
    leaves = [decode_leaf(row[0]) for row in log.store.reader().execute("SELECT leaf FROM pending ORDER BY n")]
    assert [type(leaf) for leaf in leaves] == [EnrolmentLeaf, EntryLeaf]
    assert leaves[1] == EntryLeaf(recorded.chain_id, 0, recorded.head)


def test_batch_is_recorded_as_if_one_by_one(log: LogSetup) -> None:
    """Within a batch a later observation sees the earlier ones, and a file's newest chain is the one that goes on."""
    log.see(Op.CREATED, 1, b"old", "1")
    log.see(Op.CLOSED, 1, argument=CloseReason.NEW_OWNER)
    steps = [(Op.WRITTEN, 1, None), (Op.CREATED, 2, "2"), (Op.MOVED, 1, "moved"), (Op.WRITTEN, 2, None)]
    steps += [(Op.TOUCHED, 1, None), (Op.DELETED, 2, None), (Op.RESTORED, 2, "back"), (Op.WRITTEN, 2, None)]
    has_content = {Op.CREATED, Op.WRITTEN}
    log.recorder.record(
        [
            Observation(
                log.source, file_id, operation, 7, content_of(b"new") if operation in has_content else None, path
            )
            for operation, file_id, path in steps
        ]
    )
    assert (current_of(log, 1).generation, current_of(log, 2).generation) == (1, 0)
    for file_id, path in ((1, "moved"), (2, "back")):
        recorded = [Op.ADOPTED] * (file_id == 1) + [operation for operation, of, _ in steps if of == file_id]
        assert [step.entry.operation for step in replay(log, file_id).steps] == recorded
        assert (current_of(log, file_id).path, current_of(log, file_id).content) == (path, content_of(b"new"))


def test_written_entry_changes_three_pages(log: LogSetup) -> None:
    """A version that keeps path and status costs a page of entries, of chains and of pending, and none of an index."""
    log.see(Op.CREATED, 1, b"one", "a")
    log.store.checkpoint_wal()
    log.see(Op.WRITTEN, 1, b"two")
    header, frame_header = 32, 24
    assert os.path.getsize(log.store.path + "-wal") == header + 3 * (frame_header + PAGE_SIZE)


def test_salts_are_fresh(log: LogSetup) -> None:
    """No two openings share a salt, not even those of equal parts."""
    for i in range(1, 5):
        log.see(Op.CREATED, i, b"same", f"{i}")
    rows = log.store.reader().execute("SELECT content, path, context FROM entries").fetchall()
    salts = [opening[:32] for row in rows for opening in row]
    assert len(set(salts)) == 12


REFUSED = [
    (Op.WRITTEN, None, "no chain yet", {"data": b"x"}),
    (Op.RESTORED, None, "no chain yet", {"data": b"x", "path": "a"}),
    (Op.CREATED, None, "want content and path", {"data": b"x"}),
    (Op.CREATED, None, "path", {"data": b"x", "path": "a/../b"}),
    (Op.CREATED, None, "path", {"data": b"x", "path": "a\udcff"}),
    (Op.CREATED, "live", "cannot follow", {"data": b"x", "path": "a"}),
    (Op.WRITTEN, "live", "same path", {"data": b"x", "path": "other"}),
    (Op.WRITTEN, "live", "want content", {}),
    (Op.MOVED, "live", "another path", {"path": "a"}),
    (Op.MOVED, "live", "same content", {"path": "b", "data": b"x"}),
    (Op.TOUCHED, "live", "same content", {"data": b"x"}),
    (Op.ALTERED, "live", "another content", {"data": b"one"}),
    (Op.DELETED, "live", "carries no content", {"data": b"one"}),
    (Op.GAP, "live", "carries no path", {"path": "a", "argument": Gap(GapReason.UNKNOWN)}),
    (Op.RESTORED, "live", "cannot follow", {"data": b"one", "path": "a"}),
    (Op.REVERTED, "live", "no older version", {"data": b"x", "argument": Reverted(0)}),
    (Op.EXPIRED, "live", "no older version", {"argument": Expired(ExpiryReason.PURGED, (0,))}),
    (Op.ERASED, "live", "current content", {"argument": Erased(0, Part.CONTENT)}),
    (Op.WRITTEN, "deleted", "cannot follow", {"data": b"x"}),
    (Op.RESTORED, "deleted", "same content", {"data": b"x", "path": "a"}),
    (Op.CREATED, "deleted", "cannot follow", {"data": b"x", "path": "a"}),
]


@pytest.mark.parametrize(("operation", "status", "why", "more"), REFUSED)
def test_record_refuses_an_illegal_step(
    log: LogSetup, operation: Operation, status: str | None, why: str, more: dict[str, object]
) -> None:
    """What the verifier would call illegal is never recorded, and the chain stays as it was."""
    if status:
        log.see(Op.CREATED, 1, b"one", "a")
    if status == "deleted":
        log.see(Op.DELETED, 1)
    before = count(log, "entries")
    with pytest.raises(Refused, match=why):
        log.see(operation, 1, **more)  # type: ignore[arg-type]
    assert count(log, "entries") == before
    if status:
        replay(log, 1)


def test_refused_observation_takes_its_batch_along(log: LogSetup) -> None:
    """Nothing of a batch is written if one of it is refused, and the error names its position."""
    good = Observation(log.source, 1, Op.CREATED, 5, content_of(b"x"), "a")
    bad = Observation(log.source, 2, Op.WRITTEN, 5, content_of(b"x"))
    with pytest.raises(Refused) as caught:
        log.recorder.record([good, bad, good])
    assert caught.value.position == 1
    assert (count(log, "entries"), count(log, "chains"), count(log, "owners"), count(log, "pending")) == (0, 0, 0, 0)
    log.recorder.record([good])
    replay(log, 1)


def test_also_is_part_of_the_transaction(log: LogSetup) -> None:
    """The caller's own rows are written with the entries, and fail with them."""
    o = Observation(log.source, 1, Op.CREATED, 5, content_of(b"x"), "a")

    def writes(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO bundles VALUES (1, x'00')")

    def fails(conn: sqlite3.Connection) -> None:
        writes(conn)
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        log.recorder.record([o], fails)
    assert (count(log, "entries"), count(log, "bundles")) == (0, 0)
    log.recorder.record([o], writes)
    assert (count(log, "entries"), count(log, "bundles")) == (1, 1)


def test_concurrent_callers_share_a_commit(log: LogSetup) -> None:
    """Callers that wait for the lock are committed together; one refused batch harms only its caller."""
    results: dict[int, object] = {}
    statements: list[str] = []

    def also(conn: sqlite3.Connection, file_id: int) -> None:
        if file_id % 4 == 0:
            raise Refused("after its entries were written")

    def run(file_id: int) -> None:
        o = Observation(log.source, file_id, Op.CREATED, 5, content_of(b"x"), f"{file_id}")
        try:
            results[file_id] = log.recorder.record([o], lambda conn: also(conn, file_id))
        except Refused as error:
            results[file_id] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(1, 17)]
    with log.store.lock:  # so that all of them have to wait
        for thread in threads:
            thread.start()
        while len(log.recorder._waiting) < len(threads):
            pass
        log.store._writer.set_trace_callback(statements.append)
    for thread in threads:
        thread.join()
    assert statements.count("COMMIT") == 1
    assert {i for i, result in results.items() if isinstance(result, Refused)} == {4, 8, 12, 16}
    assert count(log, "entries") == 12
    for file_id in (1, 2, 3, 5):
        replay(log, file_id)


def test_unknown_source_is_refused(log: LogSetup) -> None:
    """No chain hangs in the air."""
    with pytest.raises(Refused, match="there is no 99"):
        log.recorder.record([Observation(99, 1, Op.CREATED, 5, content_of(b"x"), "a")])


@pytest.mark.parametrize("mtime", [-1, 2**63])
def test_nonsense_mtime_counts_as_unknown(log: LogSetup, mtime: int) -> None:
    """A source's wild time never stops recording."""
    log.recorder.record([Observation(log.source, 1, Op.CREATED, mtime, content_of(b"x"), "a")])
    assert replay(log, 1).steps[0].entry.mtime == 0


def test_chain_id_is_the_one_the_owner_computes(log: LogSetup) -> None:
    """The blinding key alone decides which chain a file has."""
    keys = log.enrol()
    recorded = log.see(Op.CREATED, 9, b"x", "a")
    assert recorded.chain_id == chain_id(keys.blinding, "folder:f0", 9, 0)


def test_roots_follow_enrolment(log: LogSetup) -> None:
    """Custodial while nobody has enrolled, then the instance's root, then the source's own owner."""
    log.see(Op.CREATED, 1, b"x", "1")
    log.enrol("organisation", whole_instance=True)
    log.see(Op.CREATED, 2, b"x", "2")
    log.enrol("alice")
    log.see(Op.CREATED, 3, b"x", "3")
    kinds = [get_owner(log.store.reader(), current_of(log, i).owner).kind for i in (1, 2, 3)]
    assert kinds == ["custodial", "instance", "owner"]


def test_second_owner_is_refused_unless_meant(log: LogSetup) -> None:
    """A folder belongs to its one enrolled owner."""
    log.enrol("alice")
    with pytest.raises(Refused, match="alice is enrolled"):
        log.enrol("bob")
    log.enrol("bob", replace=True)
    with pytest.raises(Refused, match="enrolled before"):
        log.enrol("alice", replace=True)
    log.see(Op.CREATED, 1, b"x", "1")
    assert get_owner(log.store.reader(), current_of(log, 1).owner).user == "bob"


def test_enrolment_carries_chains_over(log: LogSetup) -> None:
    """The next touch closes the custodial chain and adopts the file, as it was, under the owner's root."""
    log.see(Op.CREATED, 1, b"one", "a")
    log.see(Op.GAP, 1, argument=Gap(GapReason.UNKNOWN))
    old = current_of(log, 1)
    log.enrol()
    log.see(Op.WRITTEN, 1, b"two")
    chain = replay(log, 1)
    assert [step.entry.operation for step in chain.steps] == [Op.ADOPTED, Op.WRITTEN]
    assert (current_of(log, 1).predecessor, current_of(log, 1).generation) == (old.id, 0)
    assert {taint.kind for taint in chain.taints.values()} == {TaintKind.GAP, TaintKind.UNSIGNED_CLOSE}
    assert chain.predecessor is not None
    assert chain.predecessor[:2] == (old.chain_id, old.last_seq + 1)


def test_chain_with_more_taints_than_an_entry_lists_is_carried_over(log: LogSetup) -> None:
    """A busy file that was never sealed does not keep its owner from enrolling; all of it is the unsigned close's."""
    log.see(Op.CREATED, 1, b"one", "a")
    gap = Observation(log.source, 1, Op.GAP, 0, argument=Gap(GapReason.UNKNOWN))
    log.recorder.record([gap] * (MAX_LISTED + 1))
    for _ in range(2):  # 1,024 and the unsigned close stand in the second generation: it can end as well
        log.recorder.record([Observation(log.source, 1, Op.CLOSED, 0, argument=CloseReason.NEW_SEED)])
    log.enrol()
    log.see(Op.WRITTEN, 1, b"two")
    chain = replay(log, 1)
    assert [step.entry.operation for step in chain.steps] == [Op.ADOPTED, Op.WRITTEN]
    assert len(chain.taints) == MAX_LISTED + 1


def test_migrate_carries_over_what_is_live(log: LogSetup) -> None:
    """Every live chain of another root moves; deleted ones stay, and continue when they are restored."""
    for i in range(1, 8):
        log.see(Op.CREATED, i, b"x", f"{i}")
    log.see(Op.DELETED, 7)
    assert log.recorder.migrate(log.source, 100) == 0
    log.enrol()
    assert [log.recorder.migrate(log.source, 4), log.recorder.migrate(log.source, 4)] == [4, 2]
    assert log.recorder.migrate(log.source, 4) == 0
    for i in range(1, 7):
        assert get_owner(log.store.reader(), current_of(log, i).owner).kind == "owner"
        replay(log, i)
    assert get_owner(log.store.reader(), current_of(log, 7).owner).kind == "custodial"
    with pytest.raises(Refused, match="same content"):
        log.see(Op.RESTORED, 7, b"y", "7")
    log.see(Op.RESTORED, 7, path="7")
    assert [step.entry.operation for step in replay(log, 7).steps] == [Op.ADOPTED]


def test_full_chain_goes_on(log: LogSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain with no room for more than its end is closed and continued by the next generation."""
    monkeypatch.setattr(batch, "MAX_ENTRIES", 5)
    for i in range(12):
        log.see(Op.WRITTEN if i else Op.CREATED, 1, b"%d" % i, "a")
    rows = log.store.reader().execute("SELECT generation, last_seq, status FROM chains ORDER BY id").fetchall()
    assert rows == [(0, 4, "closed"), (1, 4, "closed"), (2, 4, "closed"), (3, 2, "live")]
    assert replay(log, 1).content == content_of(b"11")
    ending = read_ending(
        log.store.reader(),
        Current._make(log.store.reader().execute("SELECT * FROM chains WHERE generation = 0").fetchone()),
    )
    assert ending.content == content_of(b"3")


def test_closed_file_goes_on_as_adopted(log: LogSetup) -> None:
    """After an administrator's close a live file continues at once, and a deleted one when its id is reused."""
    log.see(Op.CREATED, 1, b"one", "a")
    log.see(Op.CLOSED, 1, argument=CloseReason.NEW_OWNER)
    assert [step.entry.operation for step in replay(log, 1).steps] == [Op.ADOPTED]
    log.see(Op.DELETED, 1)
    log.see(Op.CLOSED, 1, argument=CloseReason.REUSED_ID)
    with pytest.raises(Refused, match="cannot follow"):
        log.see(Op.WRITTEN, 1, b"x")
    log.see(Op.CREATED, 1, b"other", "b")
    assert current_of(log, 1).generation == 2
    assert replay(log, 1).content == content_of(b"other")


def test_owner_signs_a_close(log: LogSetup) -> None:
    """A planned close that the owner signed is logged as it is, and leaves no taint; any other one is refused."""
    keys = log.enrol()
    log.see(Op.CREATED, 1, b"one", "a")
    planned = plan_close(log.store, log.source, 1, log.clock.now)
    entry = decode_entry(planned.entry)
    signature = load_private_key(keys.private).sign(close_message(planned.binding, planned.head, entry))
    for wrong in (b"", bytes(64)):
        bad = encode_entry(entry._replace(argument=Closed(CloseReason.NEW_SEED, (), wrong)))
        with pytest.raises(Refused, match="owner's"):
            log.recorder.record_close(log.source, 1, bad, planned.openings)
    signed = encode_entry(entry._replace(argument=Closed(CloseReason.NEW_SEED, (), signature)))
    log.clock.now += 301
    with pytest.raises(Refused, match="recorded"):
        log.recorder.record_close(log.source, 1, signed, planned.openings)
    log.clock.now -= 300
    log.recorder.record_close(log.source, 1, signed, planned.openings)
    chain = replay(log, 1)
    assert (current_of(log, 1).generation, chain.taints, chain.path) == (1, {}, "a")


PIECES = [f"secret-{i:03}" for i in range(40)]
SECRET = "/".join(PIECES)  # long, so that no part of it goes by chance


def check_gone(log: LogSetup) -> None:
    """No file of the store holds a piece of the secret path."""
    for file in Path(log.directory).iterdir():
        assert [piece for piece in PIECES if piece.encode() in file.read_bytes()] == [], file


def test_erase_removes_every_copy_of_an_opening(log: LogSetup) -> None:
    """The opening is gone from database and write-ahead log, the chain replays, and the erasure is logged."""
    log.see(Op.CREATED, 1, b"one", SECRET)
    log.see(Op.MOVED, 1, path="b")
    log.see(Op.DELETED, 1)
    log.recorder.erase(log.source, 1, 0, Part.PATH)
    chain = replay(log, 1)
    assert chain.steps[0].path is MISSING
    assert chain.erased == {(0, Part.PATH)}
    chain.check_openings()
    check_gone(log)
    with pytest.raises(Refused, match="no path of step 0"):
        log.recorder.erase(log.source, 1, 0, Part.PATH)


def test_erase_clears_what_the_row_repeats(log: LogSetup) -> None:
    """A deleted file's last path and digest leave the row of its chain as well."""
    log.see(Op.CREATED, 1, b"one", SECRET)
    log.see(Op.DELETED, 1)
    log.recorder.erase(log.source, 1, 0, Part.PATH)
    log.recorder.erase(log.source, 1, 0, Part.CONTENT)
    current = current_of(log, 1)
    assert (current.path, current.content) == (None, None)
    check_gone(log)


def sealed(log: LogSetup, private: bytes, **changed: object) -> Seal:
    """The owner's seal over the head of file 1."""
    current, tree = current_of(log, 1), log.publisher.published()
    assert tree is not None
    chain = replay(log, 1)
    seal = Seal(
        current.last_seq, current.head, chain.carriers[-1][1], current.version, tree.size, tree.root, NO_SEAL, (), b""
    )._replace(**changed)  # type: ignore[arg-type]
    return seal._replace(signature=load_private_key(private).sign(seal_message(chain.binding, seal)))


def test_seal_is_recorded_when_all_of_it_holds(log: LogSetup) -> None:
    """The owner's signature, head and published tree are checked before a seal is logged."""
    keys = log.enrol()
    log.see(Op.CREATED, 1, b"one", "a")
    log.publish()
    for why, changed in (("head|not the one", {"head": bytes(32)}), ("no tree", {"tree_root": bytes(32)})):
        with pytest.raises(Refused, match=why):
            log.recorder.record_seal(log.source, 1, sealed(log, keys.private, **changed))
    with pytest.raises(Refused, match="not the owner's"):
        log.recorder.record_seal(log.source, 1, sealed(log, bytes(32)))
    log.recorder.record_seal(log.source, 1, sealed(log, keys.private))
    assert len(replay(log, 1).seals) == 1


def test_seal_of_an_entry_that_is_not_published_is_refused(log: LogSetup) -> None:
    """A seal speaks of a published head, so the entry has to lie in the tree that it names."""
    keys = log.enrol()
    log.see(Op.CREATED, 1, b"one", "a")
    log.publish()
    log.see(Op.WRITTEN, 1, b"two")
    with pytest.raises(Refused, match="step 1 is not in the tree"):
        log.recorder.record_seal(log.source, 1, sealed(log, keys.private))


def test_damaged_chain_is_not_continued_by_a_replay(log: LogSetup) -> None:
    """Entries that no longer lead to the stored head stop what would build on them."""
    log.see(Op.CREATED, 1, b"one", "a")
    log.see(Op.WRITTEN, 1, b"two")
    with log.store.transaction() as conn:
        conn.execute("UPDATE chains SET head = zeroblob(32)")
    with pytest.raises(Fatal, match="another head"):
        log.see(Op.REVERTED, 1, argument=Reverted(0))


STEP = st.tuples(
    st.sampled_from([o for o in Operation if o is not Op.SEALED]),
    st.sampled_from([None, b"1", b"2", b"3"]),
    st.sampled_from([None, "a", "b"]),
    st.integers(0, 5),
)


@settings(max_examples=25)
@given(st.lists(STEP, max_size=25), st.integers(0, 25))
def test_recorder_and_verifier_agree(steps: list[tuple[Operation, bytes | None, str | None, int]], when: int) -> None:
    """Whatever is asked for, what the recorder accepts is a chain that the verifier replays, across enrolments too."""
    with TemporaryDirectory() as directory:
        log = LogSetup(Path(directory))
        log.see(Op.CREATED, 1, b"1", "a")
        for number, (operation, data, path, seq) in enumerate(steps):
            if number == when:
                log.enrol()
            argument = {
                Op.REVERTED: Reverted(seq),
                Op.EXPIRED: Expired(ExpiryReason.UNKNOWN, (seq,)),
                Op.GAP: Gap(GapReason.UNKNOWN),
                Op.ERASED: Erased(seq, Part(seq % 3 + 1)),
                Op.CLOSED: CloseReason.NEW_OWNER,
            }.get(operation)
            try:
                log.see(operation, 1, data, path, argument=argument)
            except Refused:
                pass
        for row in log.store.reader().execute("SELECT * FROM chains").fetchall():
            current = Current._make(row)
            chain = load_chain(log.store.reader(), log.store, current)
            chain.check_openings()
            assert (chain.status, chain.seq, chain.version) == (current.status, current.last_seq, current.version)
            if current.status == "live" and chain.content is not MISSING:
                assert chain.content == current.content
        log.close()
