"""The running log: scans, signs, has it cosigned, and knows how it stands. Read this first.

    service = Service(open_log("DIR"), sources, ...)
    async with service.running(): ...            until then nothing moves; afterwards nothing is half done

    scanning     every source, one after the other, every `scan_every_s`                    in a thread
    publishing   what was signed before and waits for its quorum, first of all;             signing in a thread,
                 then, `publish_after_s` after a change, the next tree;                     couriers on the loop
                 every REFRESH_S new times for the newest tree                              (`audit.federation`)
    auditors     one target at a time, the next one on quorum or timeout

Start and recovery are this same path: nothing is done at start that is not done later on.

Where the witnesses' quorum is out of reach, recording goes on, the last published tree keeps being served, and
`status` says since when. Nothing is signed at all where the policy promises nothing (ov = 0), or where a witness shows
a tree that we signed and no longer have; `status` says so in `paused`.

Loops talk by events. A Fatal in any of them ends the service, and the process with it: the next start reads what is
on disk.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from sqlalchemy import func, select

from audit.directory import Directory
from audit.enrolment import Enrolments
from audit.errors import AuditError, Fatal
from audit.federation import Federation, Regression, make_client
from audit.folder import Problem, Progress
from audit.mapstore import MapStore
from audit.prover import Prover
from audit.publisher import REFRESH_S, Accepted, Publisher, Signed, Target, read_newest_signed, read_proof_tree
from audit.recorder import Recorder
from audit.scanning import FolderSource, Stopped, Summary, scan_folder
from audit.schema import Pending, sql, table
from audit.tree import Tree
from verifier.errors import Error
from verifier.note import parse_note, verify_cosignatures
from verifier.policy import Policy, describe_quorum, still_newest_at

PUBLISH_AFTER_S = 5.0  # a change is in a tree about this long after it was recorded
SCAN_EVERY_S = 60.0
TICK_S = 30.0  # how often timers are looked at: refresh, the auditors' timeout, what failed
GRACE_S = 60  # a quorum takes its time; only what takes longer is called degraded

_COUNT_PENDING = sql(select(func.count()).select_from(table(Pending)))

T = TypeVar("T")


class Pace(NamedTuple):
    """How fast things go. Tests go faster."""

    publish_after_s: float = PUBLISH_AFTER_S
    scan_every_s: float = SCAN_EVERY_S
    tick_s: float = TICK_S


def system_clock() -> int:
    return int(time.time())


def say_nothing(_: str) -> None:
    pass


def why_paused(witnesses: Policy) -> str | None:
    """Why nothing can be published under this policy; None where it promises something."""
    if witnesses.ov > 0:
        return None
    quorum = describe_quorum(witnesses)
    return f"nothing is published: the policy's quorum ({quorum}) lets two histories pass, so its word is worth nothing"


def degraded_since(newest: Signed | None, still_newest: int | None, now: int) -> int | None:
    """Since when the witnesses' quorum has been out of reach; None while all is well.

    `still_newest` is the time up to which the quorum has said that the newest tree is the newest one.
    """
    if newest is None:
        return None
    if newest.first_note is None:
        return newest.signed_at if now - newest.signed_at > GRACE_S else None
    if still_newest is None or now - still_newest <= REFRESH_S + GRACE_S:
        return None
    return still_newest


class Service:
    """A log that runs. Its parts are attributes, for `audit.api` and for tests."""

    def __init__(
        self,
        directory: Directory,
        sources: Iterable[FolderSource],
        *,
        clock: Callable[[], int] = system_clock,
        pace: Pace = Pace(),
        say: Callable[[str], None] = say_nothing,
        on_fatal: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.directory, self.store, self.clock, self.pace = directory, directory.store, clock, pace
        self.sources = list(sources)
        self.maps, self.tree = MapStore(), Tree()
        self.recorder = Recorder(self.store, clock)
        self.publisher = Publisher(
            self.store, self.maps, self.tree, directory.signer, directory.witnesses, directory.auditors
        )
        self.prover = Prover(self.store, self.maps, self.tree)
        self.enrolments = Enrolments(self.store, self.recorder)
        self.paused = why_paused(directory.witnesses)
        self.problems: dict[str, list[Problem]] = {}
        self.scans = 0
        self.federation: Federation | None = None
        self._say, self._on_fatal = say, on_fatal
        self._stop_scan = threading.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """Everything moves while the block runs."""
        self._loop = asyncio.get_running_loop()
        self._changed, self._accepted, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._stop_scan.clear()
        async with make_client() as client:
            policies = self.directory.witnesses, self.directory.auditors
            self.federation = Federation(client, self.publisher, *policies, self.clock, self._hear)
            loops = [self._scan_loop(), self._publish_loop(self.federation), self.federation.run()]
            tasks = [asyncio.create_task(self._guard(loop)) for loop in loops]
            try:
                yield self
            finally:
                self._stopping.set()
                self._stop_scan.set()
                scanning, *others = tasks
                await scanning  # records what it has at hand, and looks at the event between two files
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)

    async def _guard(self, loop: Awaitable[None]) -> None:
        """A loop's end by an error is the end of the service."""
        try:
            await loop
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            cause = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            self._say(f"stopping: {cause!r}")
            self._on_fatal(cause)

    def changed(self) -> None:
        """Something was recorded: a tree is due. May be called from any thread."""
        if hasattr(self, "_loop") and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    # -- scanning -----------------------------------------------------------------------------------------------

    async def _scan_loop(self) -> None:
        while not self._stopping.is_set():
            for source in self.sources:
                try:
                    self._heard(await asyncio.to_thread(self._scan, source))
                except Stopped:
                    return
                except Fatal:
                    raise
                except (AuditError, Error) as error:
                    self._say(f"scan of {source.path}: {error}")
            self.scans += 1
            await _wait(self._stopping, self.pace.scan_every_s)

    def _scan(self, source: FolderSource) -> Summary:
        exclude = [self.directory.path]
        return scan_folder(
            self.store, self.recorder, source, exclude=exclude, progress=self._check_stop, clock=self.clock
        )

    def _check_stop(self, _: Progress) -> None:
        if self._stop_scan.is_set():
            raise Stopped

    def _heard(self, summary: Summary) -> None:
        before = set(self.problems.get(summary.source_id, ()))
        for problem in summary.problems:
            if problem not in before:  # a link that is there for years is said once
                self._say(f"{summary.source_id}: {problem.path or '.'!a}: {problem.reason} ({problem.detail})")
        self.problems[summary.source_id] = summary.problems
        if summary.recorded:
            self.changed()

    # -- publishing ---------------------------------------------------------------------------------------------

    async def _publish_loop(self, federation: Federation) -> None:
        if self.paused:
            self._say(self.paused)
            return
        try:
            await federation.check_regression(self.directory.signer.verifier_key, self._root_at)
        except Regression as error:
            self.paused = str(error)
            self._say(self.paused)
            return
        while True:
            try:
                await self._publish(federation)
            except Fatal:
                raise
            except (AuditError, Error) as error:
                self._say(f"publishing: {error}")
            if await _wait(self._changed, self.pace.tick_s):
                await asyncio.sleep(self.pace.publish_after_s)

    async def _publish(self, federation: Federation) -> None:
        """One round: everything that is pending gets into a tree, and that tree gets its quorum."""
        while True:
            self._changed.clear()
            now = self.clock()
            target = await asyncio.to_thread(self.publisher.integrate_and_sign, now)
            if target is None:
                break
            federation.witness_desk.put(target)
            await self._name_audit_target(federation)
            await self._until_published(federation, target)
        stale = await asyncio.to_thread(self.publisher.refresh_target, now)
        if stale is not None:
            federation.witness_desk.put(stale)
        await self._name_audit_target(federation)

    async def _until_published(self, federation: Federation, target: Target) -> None:
        while True:
            self._accepted.clear()
            newest = read_newest_signed(self.store.reader())
            if newest is None or newest.size != target.size or newest.first_note is not None:
                return
            await _wait(self._accepted, self.pace.tick_s)
            await self._name_audit_target(federation)

    async def _name_audit_target(self, federation: Federation) -> None:
        """Puts the one audit target on the auditors' desk, if it is another one than before."""
        target = await asyncio.to_thread(self.publisher.audit_target, self.clock())
        on_desk = federation.audit_desk.target
        if target is not None and (on_desk is None or on_desk.size != target.size):
            federation.audit_desk.put(target)

    def _hear(self, target: Target, accepted: Accepted) -> None:
        """A cosigner's line was stored. Called on the event loop."""
        self._accepted.set()
        if accepted.audited and self.federation is not None:
            # The next target follows at once; the loop's own look at it comes with the next tick at the latest.
            self._background(self._name_audit_target(self.federation))

    def _background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _root_at(self, size: int) -> bytes | None:
        """The root that our signed tree has at a size."""
        with self.store.snapshot() as conn:
            newest = read_newest_signed(conn)
            if size > (newest.size if newest else 0):
                return None
            return self.tree.root(conn, size)

    # -- how it stands ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """For people and monitoring; sizes and times as decimals in text, as everywhere (SPEC 11.3)."""
        now = self.clock()
        with self.store.snapshot() as conn:
            newest = read_newest_signed(conn)
            tree = read_proof_tree(conn)
            (pending,) = conn.execute(_COUNT_PENDING).fetchone()
        published = self.publisher.published()
        since = degraded_since(newest, self._still_newest(published), now)
        key = self.directory.signer.verifier_key
        return {
            "log": self.store.log_name,
            "vkey": format_vkey(key),
            "origin": self.store.origin,
            "size": str(newest.size if newest else 0),
            "pending": str(pending),
            "published": None if published is None else {"size": str(published.size), "at": str(published.published_at)},
            "audited": {"size": str(tree.size)} if tree is not None and tree.audited else None,
            "degraded_since": None if since is None else str(since),
            "paused": self.paused,
            "scans": str(self.scans),
            "problems": {source: str(len(problems)) for source, problems in self.problems.items()},
            "cosigners": self._cosigners(),
        }
