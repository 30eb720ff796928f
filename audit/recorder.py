"""The only writer of chains: group commit, enrolment, and what carries chains over to another root.

    recorder = Recorder(store, clock)                              one per process
    recorder.record([Observation(source, 17, Operation.WRITTEN, mtime, Content(...), "a/b.odt", {...})])

`record` returns once everything is durable, or raises and nothing of it was written. Callers on different threads
share a transaction: whoever gets the writer's lock first commits for all who wait (group commit), each behind a
savepoint of its own, so one refused batch does not harm another. How observations become entries: `audit.batch`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import bindparam, func, select, union_all, update

from audit.batch import Batch, Observation, Recorded
from audit.chains import (
    INSTANCE,
    LIVE,
    OWNER,
    Current,
    OwnerRow,
    Roots,
    add_owner,
    chains_of,
    find_enrolled,
    find_owner,
)
from audit.errors import AuditError, Refused
from audit.schema import ZERO, ChainRow, Owner, sql, table
from audit.store import Store
from verifier.chain import Openings
from verifier.ed25519 import check_public_key
from verifier.entry import Erased, Operation, Part, Seal
from verifier.errors import Error
from verifier.keys import owner_root

MIGRATE_BATCH = 256  # chains that one transaction carries over: other writers wait meanwhile

Also = Callable[[sqlite3.Connection], None]

_CHAINS, _OWNERS = table(ChainRow), table(Owner)
_RETIRE_OWNER = sql(update(_OWNERS).values(active=ZERO).where(_OWNERS.c.id == bindparam("owner")))


def _foreign(other: Any) -> Any:
    same = [_CHAINS.c[name] == bindparam(name) for name in ("source", "status", "user")]
    return select(_CHAINS.c.id).where(*same, other)


# Two ranges of the index (source, status, user, owner): "<>" would read every chain of the user each time.
_earlier, _later = _foreign(_CHAINS.c.owner < bindparam("owner")), _foreign(_CHAINS.c.owner > bindparam("owner"))
_FOREIGN_CHAINS = sql(union_all(_earlier, _later).limit(bindparam("limit")).offset(ZERO))
_NEXT_USER = sql(  # one step of that index for each user, however many chains they have
    select(func.min(_CHAINS.c.user)).where(
        _CHAINS.c.source == bindparam("source"),
        _CHAINS.c.status == bindparam("status"),
        _CHAINS.c.user > bindparam("user"),
    )
)


class _Job:
    """One caller's batch on its way through a group commit."""

    __slots__ = ("also", "done", "error", "observations", "recorded")

    def __init__(self, observations: Sequence[Observation], also: Also | None) -> None:
        self.observations, self.also = observations, also
        self.recorded: list[Recorded] = []
        self.error: BaseException | None = None
        self.done = False


class Recorder:
    """Turns observations into durable entries. `clock` gives POSIX seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[_Job] = []
        self._roots = Roots()

    def record(self, observations: Sequence[Observation], also: Also | None = None) -> list[Recorded]:
        """Records all of them, in order, and what `also` writes, in one transaction; durable when it returns."""
        job = _Job(observations, also)
        self._waiting.append(job)
        with self._store.lock:
            if not job.done:
                self._commit_waiting()
        if job.error is not None:
            raise job.error
        return job.recorded

    def erase(self, source: int, file_id: int, seq: int, part: Part) -> Recorded:
        """Logs `erased` and deletes the opening; returns once no copy of it is left in the files of the store."""
        erased = Observation(source, file_id, Operation.ERASED, 0, argument=Erased(seq, part))
        recorded = self.record([erased])[0]
        self._store.checkpoint_wal()
        return recorded

    def record_seal(self, source: int, file_id: int, seal: Seal) -> Recorded:
        """Logs the owner's seal, once its signature and everything that it says of this log and chain hold."""
        return self.record([Observation(source, file_id, Operation.SEALED, 0, argument=seal)])[0]

    def record_close(self, source: int, file_id: int, entry: bytes, openings: Openings) -> Recorded:
        """Logs a `closed` that the owner planned and signed, and starts the chain that goes on from there."""
        try:
            with self._writing() as batch:
                recorded = batch.close_signed(source, file_id, entry, openings)
        except Error as error:
            raise Refused(str(error)) from error
        return recorded

    def enrol(
        self,
        source: int | None,
        user: str,
        owner_key: bytes,
        blinding_key: bytes,
        replace: bool = False,
        also: Also | None = None,
    ) -> bytes:
        """Makes this the root of a user's files, or of the instance where source is None; its leaf is pending.

        What `also` writes is in the same transaction.

        A folder has one owner, a Nextcloud one for each user. The caller has verified the proof of possession. Chains
        under another root move over at the next touch (`migrate`). Another owner of the same files is refused unless
        `replace` says that it is meant.
        """
        try:
            root = owner_root(check_public_key(owner_key, "owner key"), blinding_key)
        except Error as error:
            raise Refused(str(error)) from None
        kind = INSTANCE if source is None else OWNER
        with self._store.transaction() as conn:
            self._roots.clear()
            whose = chains_of(conn, source, user)
            before = find_owner(conn, kind, source, whose)
            if before is not None:
                if not replace:
                    raise Refused(f"owner: {before.user} is enrolled here already")
                conn.execute(_RETIRE_OWNER, (before.id,))
            try:
                add_owner(conn, OwnerRow(0, kind, user, owner_key, blinding_key, root), source, None, whose)
            except sqlite3.IntegrityError:
                raise Refused("owner: this root was enrolled before") from None
            if also is not None:
                also(conn)
        return root

    def migrate(self, source: int, limit: int) -> int:
        """Carries at most `limit` live chains of other roots over to their owners; returns how many it was."""
        moved = 0
        for user in self._users(source):
            moved += self._migrate_user(source, user, limit - moved)
        return moved

    def _migrate_user(self, source: int, user: str, limit: int) -> int:
        moved = 0
        owner = find_enrolled(self._store.reader(), source, user)
        while owner is not None and moved < limit:
            rows = self._foreign_chains(source, user, owner, min(limit - moved, MIGRATE_BATCH))
            if not rows:
                break
            with self._writing() as batch:
                for chain in rows:
                    _carry_over(batch, batch.get(chain))
            moved += len(rows)
            owner = find_enrolled(self._store.reader(), source, user)
        return moved

    def _users(self, source: int) -> Iterator[str]:
        """Whose live chains there are in a source; of a folder nobody's, which is spelled as empty."""
        user: str | None = ""
        while user is not None:
            yield user
            (user,) = self._store.reader().execute(_NEXT_USER, (source, LIVE, user)).fetchone()

    def _foreign_chains(self, source: int, user: str, owner: OwnerRow, limit: int) -> list[int]:
        values = (source, LIVE, user, owner.id, source, LIVE, user, owner.id, limit)
        return [row[0] for row in self._store.reader().execute(_FOREIGN_CHAINS, values)]

    def _commit_waiting(self) -> None:
        """Commits for everyone who waits; called with the writer's lock held."""
        jobs, self._waiting = self._waiting, []
        try:
            with self._store.transaction() as conn:
                for job in jobs:
                    self._run(conn, job, alone=len(jobs) == 1)
        except BaseException as error:
            # A lone job that was refused ended the transaction with its own error. Any other error is everyone's.
            self._roots.clear()
            for job in jobs:
                job.error = job.error or error
        finally:
            for job in jobs:
                job.done = True

    def _run(self, conn: sqlite3.Connection, job: _Job, alone: bool) -> None:
        if alone:
            self._apply(conn, job)
            return
        conn.execute("SAVEPOINT job")
        try:
            self._apply(conn, job)
        except (AuditError, Error) as error:
            conn.execute("ROLLBACK TO job")
            self._roots.clear()
            job.error = error
        conn.execute("RELEASE job")

    def _apply(self, conn: sqlite3.Connection, job: _Job) -> None:
        batch = self._batch(conn)
        if len(job.observations) > 1:
            batch.look_up(job.observations)
        for position, observation in enumerate(job.observations):
            try:
                job.recorded.append(batch.observe(observation))
            except (Refused, Error) as error:
                raise Refused(str(error), position) from error
        batch.flush()
        if job.also is not None:
            job.also(conn)

    @contextmanager
    def _writing(self) -> Iterator[Batch]:
        """A batch in a transaction of its own."""
        try:
            with self._store.transaction() as conn:
                batch = self._batch(conn)
                yield batch
                batch.flush()
        except BaseException:
            self._roots.clear()
            raise

    def _batch(self, conn: sqlite3.Connection) -> Batch:
        return Batch(self._store, self._roots, conn, self._now())

    def _now(self) -> int:
        return max(0, int(self._clock()))


def _carry_over(batch: Batch, current: Current) -> None:
    try:
        batch.carry_over(current)
    except Error as error:
        raise Refused(f"chain of file {current.file_id}: {error}") from error
