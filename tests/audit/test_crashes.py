"""The crash table of recorder and publisher: each statement of a day in a log's life fails, or the process dies at it.

Whatever failed, not done or done and reported as failed, and wherever the process was killed: after a restart `fsck`
finds nothing, everything that was acknowledged is there, every note that ever left is of the one tree, and the log
goes on.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from audit.batch import Observation
from audit.errors import Fatal, TryLater
from audit.fsck import Keys, check_log
from audit.prover import Prover
from audit.publisher import Target
from audit.recorder import _Job
from tests.audit.log_setup import LogSetup, content_of, plan_close
from tests.audit.test_recorder import sealed
from verifier.chain import close_message
from verifier.checkpoint import open_checkpoint
from verifier.ed25519 import load_private_key
from verifier.entry import Closed, Operation, Part, decode_entry, encode_entry
from verifier.keys import OwnerKeys, derive_keys

Op = Operation
KILLED = 9
ENDS = ("COMMIT", "RELEASE", "ROLLBACK", "PRAGMA wal_checkpoint")  # what may have persisted when it fails
QUIET = ("SELECT", "PRAGMA synchronous", "PRAGMA foreign_keys")


class Faults:
    """Something happens at the n-th statement of a writer that is not a plain read, before it is done or after.

    After it is done only those count that end something: within a transaction both come to the same rollback.
    """

    def __init__(self, at: int, done: bool, happen: Callable[[], object]) -> None:
        self.at, self.done, self.happen = at, done, happen
        self.count, self.last = 0, ""
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql == "PRAGMA synchronous=FULL":
                    sql = "PRAGMA synchronous=OFF"  # processes die here, not machines
                return faults.run(sql, super().execute, *values)

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                return faults.run(sql, super().executemany, *values)

        self.factory: type[sqlite3.Connection] = Connection

    def run(self, sql: str, statement: Callable[..., sqlite3.Cursor], *values: Any) -> sqlite3.Cursor:
        if sql.startswith(QUIET) or self.done and not sql.startswith(ENDS):
            return statement(sql, *values)
        self.count += 1
        if self.count != self.at:
            return statement(sql, *values)
        self.last = sql
        cursor = statement(sql, *values) if self.done else None
        self.happen()
        assert cursor is not None
        return cursor


def fail() -> None:
    raise sqlite3.OperationalError("disk I/O error, made by the test")


def die() -> None:
    os._exit(KILLED)


# -- a day in a log's life --------------------------------------------------------------------------------------------


class Acknowledged(NamedTuple):
    """What the log has promised: entries, notes that left, sizes that were published or audited, what was erased."""

    entries: list[tuple[str, int, str]]  # chain id, seq, head
    notes: list[tuple[int, str]]
    published: list[int]
    audited: list[int]
    roots: list[str]
    erased: list[tuple[int, int]]


def live(log: LogSetup, keys: OwnerKeys, say: Callable[[str, Any], object]) -> None:
    """Records, enrols, seals, erases, closes, publishes; says each thing once it is acknowledged."""

    def entry(recorded: Any) -> None:
        say("entries", (recorded.chain_id.hex(), recorded.seq, recorded.head.hex()))

    def send(target: Target | None, *groups: list[Any]) -> None:
        assert target is not None
        say("notes", (target.size, target.note.hex()))
        for signers in groups:
            log.clock.now += 10
            accepted = log.publisher.accept_cosignatures(target.size, log.lines(target, signers), log.clock.now)
            if accepted.published:
                say("published", target.size)
            if accepted.audited:
                say("audited", target.size)

    def known(conn: sqlite3.Connection) -> None:
        digest = content_of(b"x").sha3_256
        conn.execute("INSERT OR REPLACE INTO folder_known VALUES (?,?,'known',1,1,1,0,0,?,1)", (log.source, 1, digest))

    ids = log.store.new_file_ids(log.source, 2)
    files = [Observation(log.source, i, Op.CREATED, 7, content_of(b"x"), "known" if i == 1 else f"n{i}") for i in ids]
    for recorded in log.recorder.record(files, known):
        entry(recorded)
    send(log.publisher.integrate_and_sign(log.clock.now), log.witnesses[:1], log.witnesses[1:], log.auditors)
    # Two callers share a commit, and one of them is refused.
    jobs = [_Job([Observation(log.source, 50, op, 7, content_of(b"y"), "y")], None) for op in (Op.CREATED, Op.CREATED)]
    log.recorder._waiting += jobs
    entry(log.see(Op.DELETED, 2))
    assert [job.error is None for job in jobs] == [True, False]
    entry(jobs[0].recorded[0])
    entry(log.recorder.erase(log.source, 2, 0, Part.PATH))
    say("erased", (2, 0))
    say("roots", log.recorder.enrol(log.source, "alice", keys.public, keys.blinding).hex())
    log.recorder.migrate(log.source, 10)
    send(log.publisher.integrate_and_sign(log.clock.now), log.auditors, log.witnesses)
    entry(log.recorder.record_seal(log.source, 1, sealed(log, keys.private)))
    planned = plan_close(log.store, log.source, 50, log.clock.now)
    step = decode_entry(planned.entry)
    assert isinstance(step.argument, Closed)
    signature = load_private_key(keys.private).sign(close_message(planned.binding, planned.head, step))
    signed = encode_entry(step._replace(argument=step.argument._replace(signature=signature)))
    entry(log.recorder.record_close(log.source, 50, signed, planned.openings))
    send(log.publisher.integrate_and_sign(log.clock.now), log.witnesses, log.auditors)


def check_afterwards(log: LogSetup, said: Acknowledged) -> None:
    """The log is opened anew, a day later: sound, complete, of one tree, and able to go on."""
    log.clock.now += 86_400
    assert_sound(log)
    conn = log.store.reader()
    for name, seq, head in said.entries:
        where = "chain = (SELECT id FROM chains WHERE chain_id = ?) AND seq = ?"
        assert conn.execute(f"SELECT head FROM entries WHERE {where}", (bytes.fromhex(name), seq)).fetchone() == (
            bytes.fromhex(head),
        )
    for file_id, seq in said.erased:
        where = "chain = (SELECT min(id) FROM chains WHERE file_id = ?) AND seq = ?"
        assert conn.execute(f"SELECT path FROM entries WHERE {where}", (file_id, seq)).fetchone() == (None,)
    for root in said.roots:
        assert conn.execute("SELECT 1 FROM owners WHERE root = ?", (bytes.fromhex(root),)).fetchone()
    for mark, sizes in (("first_note IS NOT NULL", said.published), ("audited", said.audited)):
        for size in sizes:
            assert conn.execute(f"SELECT 1 FROM trees WHERE {mark} AND size = ?", (size,)).fetchone()
    # It goes on: what was signed and not published goes out again, then everything that waits.
    notes = [(size, bytes.fromhex(note)) for size, note in said.notes]
    while (target := log.publisher.integrate_and_sign(log.clock.now)) is not None:
        notes.append((target.size, target.note))
        for signers in (log.witnesses, log.auditors):
            log.clock.now += 10
            log.publisher.accept_cosignatures(target.size, log.lines(target, signers), log.clock.now)
    log.see(Op.CREATED, 70, b"z", "z")
    target = log.publish()
    for size, note in [*notes, (target.size, target.note)]:
        _, checkpoint = open_checkpoint(note, log.signer.verifier_key)
        assert (checkpoint.size, checkpoint.root) == (size, log.tree.root(conn, size))
    assert Prover(log.store, log.maps, log.tree).prove(log.source, 70)
    assert_sound(log)


def assert_sound(log: LogSetup) -> None:
    keys = Keys(log.signer.verifier_key, log.witness_policy, log.auditor_policy)
    assert [str(finding) for finding in check_log(log.store, keys).findings] == []


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> LogSetup:
    """A log that was just made, closed."""
    log = LogSetup(tmp_path_factory.mktemp("crashes") / "log", nodes=2)
    log.close()
    return log


def owner_of(log: LogSetup) -> OwnerKeys:
    return derive_keys(bytes(32), log.log_name)


def copy_of(fresh: LogSetup, directory: Path, factory: type[sqlite3.Connection]) -> LogSetup:
    log = copy.copy(fresh)
    log.clock = copy.copy(fresh.clock)
    log.directory, log.factory = os.fspath(directory), factory  # type: ignore[misc]
    shutil.copytree(fresh.directory, log.directory)
    return log


def crash(fresh: LogSetup, directory: Path, faults: Faults) -> None:
    """A day with one failing statement, its end, and the day after."""
    log = copy_of(fresh, directory, faults.factory)
    said = Acknowledged([], [], [], [], [], [])
    try:
        log.open()
        live(log, owner_of(log), lambda what, value: getattr(said, what).append(value))
        assert faults.count < faults.at
    except (TryLater, Fatal):
        assert faults.last
    log.close()
    log.factory = Faults(0, False, fail).factory  # type: ignore[misc]
    log.open()
    check_afterwards(log, said)
    log.close()
    shutil.rmtree(directory)


def count_statements(fresh: LogSetup, directory: Path, done: bool = False) -> int:
    """About how many it is: pages of the map, whose keys are random, make it one more or less."""
    faults = Faults(10**6, done, fail)
    crash(fresh, directory, faults)
    return faults.count


@pytest.mark.parametrize("done", [False, True])
def test_log_survives_every_failing_statement(fresh: LogSetup, tmp_path: Path, done: bool) -> None:
    """Each statement and each COMMIT fails once, before it is done or after."""
    count = count_statements(fresh, tmp_path / "count", done)
    assert count > (20 if done else 120)
    for at in range(1, count + 1):
        crash(fresh, tmp_path / f"{at}", Faults(at, done, fail))


# The same in a process that dies. It forks for each case, which saves the imports.

SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.audit.log_setup import LogSetup
from tests.audit.test_crashes import KILLED, Faults, copy_of, die, live, owner_of

where = Path(sys.argv[1])
fresh = LogSetup(where / "fresh", nodes=2)
fresh.close()
for word in sys.argv[2:]:
    at, done = map(int, word.split("-"))
    child = os.fork()
    if child == 0:
        log = copy_of(fresh, where / word, Faults(at, bool(done), die).factory)
        with open(where / f"{word}.said", "w") as said:
            log.open()
            live(log, owner_of(log), lambda *what: print(json.dumps(what), file=said, flush=True))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), (word, code)
    print(code)
"""


def test_log_survives_being_killed(fresh: LogSetup, tmp_path: Path) -> None:
    """The process ends without a word, before each third statement and after each COMMIT."""
    before, after = [count_statements(fresh, tmp_path / f"count {done}", done) for done in (False, True)]
    cases = [f"{at}-0" for at in range(1, before, 3)] + [f"{at}-1" for at in range(1, after + 1)]
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), *cases]
    ran = subprocess.run(command, cwd=root, check=True, timeout=120, stdout=subprocess.PIPE, text=True)
    assert ran.stdout.split().count(str(KILLED)) >= len(cases) - 2
    promised = 0
    for case in cases:
        log = copy.copy(fresh)
        log.clock = copy.copy(fresh.clock)
        log.directory, log.factory = os.fspath(tmp_path / case), Faults(0, False, fail).factory  # type: ignore[misc]
        said = Acknowledged([], [], [], [], [], [])
        for line in (tmp_path / f"{case}.said").read_text().splitlines():
            what, value = json.loads(line)
            getattr(said, what).append(value)
            promised += 1
        log.open()
        check_afterwards(log, said)
        log.close()
    assert promised > 5 * len(cases)
