"""The checks of the five hosts can fail: each one is shown what it is there for. No hosts, no processes."""

from __future__ import annotations

import copy
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit.directory import AUDITORS_FILE, POLICY_FILE
from audit.publisher import Target
from audit.witness_store import create_store
from tests.audit.log_setup import ORIGIN, LogSetup
from tests.hosts import world as hosts
from tests.hosts.checks import Seen
from tests.hosts.world import World
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.entry import Operation
from verifier.errors import BadSignature
from verifier.note import Note, SignerKey, cosign, format_note, format_vkey, parse_note, sign_note


class Case:
    """A log with three witnesses of which two are a quorum, two published trees, and what was seen of them."""

    def __init__(self, path: Path) -> None:
        self.path, self.log = path, LogSetup(path / "log")
        self.died: list[str] = []  # processes that ended by themselves
        for prefix, keys, file in (("w", self.log.witnesses, POLICY_FILE), ("a", self.log.auditors, AUDITORS_FILE)):
            (path / "log" / file).write_bytes(self.log._policy(prefix, keys, 2))
        (path / "node").mkdir()
        vkey = format_vkey(self.log.witnesses[0].verifier_key)
        create_store(path / "node" / "witness.db", {"witness": vkey})
        self.seen = Seen({ORIGIN: path / "log"}, [path / "node"])
        self.log.enrol()
        for file_id in (1, 2):
            self.log.see(Operation.CREATED, file_id, b"one", f"{file_id}.txt")
            self.target = self.log.publish()

    def check(self, honest: bool = True) -> None:
        self.seen.check({ORIGIN} if honest else set())

    def execute(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path / "log" / "log.db")) as conn:
            assert conn.execute(sql, values).rowcount == 1
            conn.commit()

    def note(self, size: int, root: bytes, signers: list[SignerKey], at: int | None = None) -> bytes:
        """Signed by the log and these cosigners, whatever it says."""
        text = format_checkpoint(Checkpoint(ORIGIN, size, root))
        lines = [cosign(text, signer, at or self.log.clock.now) for signer in signers]
        return format_note(Note(text, (sign_note(text, self.log.signer), *lines)))

    def twin(self) -> LogSetup:
        """A copy of the store, under the same key."""
        shutil.copytree(self.path / "log", self.path / "twin")
        twin = copy.copy(self.log)
        twin.directory = str(self.path / "twin")
        twin.open()
        self.seen.stores[ORIGIN].append(self.path / "twin")
        return twin


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    made.check()
    yield made
    made.log.close()


def test_checks_pass_what_is_well(case: Case) -> None:
    """Entries, leaves and pairs are really looked at, and more of the same history is fine."""
    assert case.seen.compared == 1
    assert case.seen.count() == (2, 2)
    case.log.see(Operation.WRITTEN, 1, b"two", "1.txt")
    case.log.publish()
    case.check()
    assert case.seen.compared == 3
    assert case.seen.count() == (3, 3)


@pytest.mark.parametrize("honest", [False, True])
def test_checks_see_a_fork_of_two_stores(case: Case, honest: bool) -> None:
    """Two copies of a store publish different trees, with a quorum each: of one size, or of two."""
    twin = case.twin()
    try:
        twin.see(Operation.WRITTEN, 1, b"another", "1.txt")
        twin.publish()
        case.log.see(Operation.WRITTEN, 1, b"two", "1.txt")
        for file_id in (3, 4)[: 1 + honest]:
            case.log.see(Operation.CREATED, file_id, b"one", f"{file_id}.txt")
        case.log.publish()
        case.seen.look(ORIGIN)
        with pytest.raises(AssertionError, match="a fork with two quorums" if not honest else "another root"):
            case.check(honest)
    finally:
        twin.close()


def test_checks_let_a_fork_without_a_quorum_be(case: Case) -> None:
    """A dishonest log may sign what it likes; only a quorum under it is a failure."""
    size = case.target.size
    case.seen.add_note(case.note(size, bytes(32), case.log.witnesses[:1]))
    case.check(honest=False)
    case.seen.add_note(case.note(size, bytes(32), case.log.witnesses[1:2]))
    with pytest.raises(AssertionError, match="no store has its leaves"):
        case.check(honest=False)


def test_checks_see_another_root_of_an_honest_log(case: Case) -> None:
    """A log that nobody made dishonest has signed a root that is not that of its leaves: no quorum is needed."""
    case.seen.add_note(case.note(case.target.size, bytes(32), []))
    with pytest.raises(AssertionError, match=f"another root of {case.target.size}"):
        case.check()


def test_checks_see_a_log_that_is_shorter_than_what_it_signed(case: Case) -> None:
    """As after a restore that went on signing."""
    case.seen.add_note(case.note(case.target.size + 1, bytes(32), []))
    with pytest.raises(AssertionError, match=f"signed size {case.target.size + 1}, has {case.target.size}"):
        case.check()


def test_checks_see_a_lost_entry(case: Case) -> None:
    """What was committed once is gone; another head for the same seq is a loss as well."""
    case.execute("UPDATE entries SET head = ? WHERE leaf_index = (SELECT max(leaf_index) FROM entries)", bytes(32))
    with pytest.raises(AssertionError, match="lost 1 acknowledged entries"):
        case.check()


def test_checks_see_an_entry_that_is_gone(case: Case) -> None:
    """Recorded, seen by a look, never published, and lost with the crash."""
    case.log.see(Operation.WRITTEN, 1, b"two", "1.txt")
    case.seen.look(ORIGIN)
    case.check()
    case.execute("DELETE FROM entries WHERE leaf_index IS NULL")
    with pytest.raises(AssertionError, match="lost 1 acknowledged entries"):
        case.check()


def test_checks_see_other_leaves(case: Case) -> None:
    """A leaf below what was there before is another one."""
    other = "CASE substr(data, -1) WHEN x'00' THEN x'01' ELSE x'00' END"
    case.execute(f"UPDATE bundles SET data = CAST(substr(data, 1, length(data) - 1) || {other} AS BLOB)")
    with pytest.raises(AssertionError, match="its leaves are others than before"):
        case.check()


def test_checks_see_what_nodes_hold(case: Case) -> None:
    """A note that only a witness has, of a root that the log does not have."""
    note = case.note(case.target.size, bytes(32), case.log.witnesses[:1])
    with closing(sqlite3.connect(case.path / "node" / "witness.db")) as conn:
        values = ("witness", ORIGIN, case.target.size, bytes(32), case.log.clock.now, note)
        conn.execute("INSERT INTO heads (signer, origin, size, root, time, note) VALUES (?, ?, ?, ?, ?, ?)", values)
        conn.commit()
    with pytest.raises(AssertionError, match="another root"):
        case.check()


def test_quorum_counts_distinct_witnesses(case: Case) -> None:
    """One witness at two times, an auditor, and a stranger are no quorum; lines of two notes of one text are."""
    one, two = case.log.witnesses[:2]
    size, now = case.target.size + 1, case.log.clock.now
    for at in (now, now + 1):
        case.seen.add_note(case.note(size, bytes(32), [one, case.log.auditors[1]], at))
    text = parse_note(case.note(size, bytes(32), [])).text
    assert not case.seen.has_quorum(text)
    assert case.seen.published_size(ORIGIN) == case.target.size
    case.seen.add_note(case.note(size, bytes(32), [two]))
    assert case.seen.has_quorum(text)
    assert case.seen.published_size(ORIGIN) == size


def test_served_checkpoint_needs_its_quorum_in_its_own_lines(case: Case) -> None:
    """Without it nothing counts as published, and without the log's signature it is no checkpoint."""
    both, root = case.log.witnesses[:2], case.target.root
    assert case.seen.quorum_size(case.note(5, root, both)) == 5
    assert case.seen.quorum_size(case.note(5, root, both[:1])) == 0
    note = parse_note(case.note(5, root, both))
    forged = note.signatures[0]._replace(blob=parse_note(case.note(6, root, [])).signatures[0].blob)
    with pytest.raises(BadSignature):
        case.seen.quorum_size(format_note(Note(note.text, (forged, *note.signatures[1:]))))


class Still(World):
    """One host whose processes are played by a store: it serves its newest note, and starts nothing."""

    def __init__(self, case: Case) -> None:
        class Host:
            number, origin, files = 1, ORIGIN, case.path

            def ask(self, what: str, path: str) -> bytes:
                row = case.log.store.reader().execute("SELECT newest_note FROM trees ORDER BY size DESC").fetchone()
                return bytes(row[0])

            def died(self) -> list[str]:
                return case.died

        self.seen, self.errors, self._marks, self.dishonest = case.seen, [], 0, set()
        self.hosts: dict[int, Any] = {1: Host()}

    def describe(self) -> str:
        return "as it was made"


def test_a_publish_that_is_missing_is_a_failure(case: Case) -> None:
    """Signed is not published, published is not replayed: each one is waited for, and no longer than it may take."""
    world = Still(case)
    case.log.see(Operation.CREATED, 3, b"mark-1", "mark-1")
    with pytest.raises(AssertionError, match="published: not after"):
        world.all_publish(within_s=0)
    target = case.log.publisher.integrate_and_sign(case.log.clock.now)
    assert target is not None
    world._marks = 0
    with pytest.raises(AssertionError, match="published: not after"):
        world.all_publish(within_s=0)
    assert not world.is_published(world.hosts[1], "mark-1")
    accept(case, target, case.log.witnesses[:2])
    assert world.is_published(world.hosts[1], "mark-1")
    assert not case.seen.is_audited(ORIGIN, "mark-1")
    accept(case, target, case.log.auditors[:2])
    assert case.seen.is_audited(ORIGIN, "mark-1")
    world._marks = 0
    world.all_publish(within_s=0)


def test_a_replay_that_is_missing_is_a_failure(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with the witnesses' quorum that no auditor answered for."""
    monkeypatch.setattr(hosts, "AUDITED_S", 0)
    case.log.see(Operation.CREATED, 3, b"mark-1", "mark-1")
    target = case.log.publisher.integrate_and_sign(case.log.clock.now)
    assert target is not None
    accept(case, target, case.log.witnesses[:2])
    with pytest.raises(AssertionError, match="replayed: not after"):
        Still(case).all_publish(within_s=0)


def accept(case: Case, target: Target, signers: list[SignerKey]) -> None:
    case.log.publisher.accept_cosignatures(target.size, case.log.lines(target, signers), case.log.clock.now)


def test_what_the_watchers_met_and_who_died_is_a_failure(case: Case) -> None:
    """An error in a thread, or a process that ended by itself, fails the next check."""
    world = Still(case)
    world.errors.append(ValueError("in a thread"))
    with pytest.raises(AssertionError, match="in a thread"):
        world.check()
    world.errors.clear()
    case.died.append("node")
    with pytest.raises(AssertionError, match="ended by itself"):
        world.check()
