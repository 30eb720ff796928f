"""The running log: scans, signs, has it cosigned, and knows how it stands. Read this first.

    service = Service(open_log("DIR"), sources, ...)
    async with service.running(): ...            until then nothing moves; afterwards nothing is half done

    scanning     every source, one after the other, every `scan_every_s`                    in a thread
    looking      what a Nextcloud's events hinted at, at once, also while it is scanned;    in a thread
                 what failed, when due
    publishing   what was signed before and waits for its quorum, first of all;             signing in a thread,
                 then, `publish_after_s` after a change, the next tree;                     couriers on the loop
                 every REFRESH_S new times for the newest tree                              (`audit.federation`)
    auditors     one target at a time, the next one on quorum or timeout

Start and recovery are this same path: nothing is done at start that is not done later on.

Where the witnesses' quorum is out of reach, recording goes on, the last published tree keeps being served, and
`status` says since when. Nothing is signed at all where the policy promises nothing (ov = 0), or from the moment on in
which a witness shows a tree that we signed and no longer have; `status` says so in `paused`, and only a new start asks
again. After a start nothing is signed before enough witnesses have said what they saw (`waiting` in `status`): a store
that was restored while they are out of reach must not sign a second history. While our clock is not that of the
witnesses, nothing is signed either (`clock` in `status`).

Loops talk by events. A Fatal in any of them ends the service, and the process with it: the next start reads what is
on disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

import httpx
from sqlalchemy import func, select

from audit.clock import system_clock
from audit.directory import Directory
from audit.enrolment import Enrolments
from audit.errors import AuditError, Fatal, Refused
from audit.federation import Clocks, Federation, Regression, Unheard, WrongClock, make_client
from audit.folder import Problem, Progress
from audit.health import keep, read_kept
from audit.mapstore import MapStore
from audit.nextcloud.access import Access
from audit.nextcloud.inbox import NO_KEYS, EventKeys, Inbox
from audit.nextcloud.source import Looked
from audit.nextcloud.tail import Tail
from audit.prover import Prover
from audit.publisher import REFRESH_S, Accepted, Publisher, Signed, Target, read_newest_signed, read_proof_tree
from audit.recorder import Recorder
from audit.remaining import Remaining
from audit.scanning import Job, Stopped, Summary
from audit.schema import ONE, ZERO, Pending, sql, table
from audit.sources import HintedSource, ScanSource, open_access
from audit.tree import Tree
from verifier.errors import Error
from verifier.note import format_vkey, parse_note
from verifier.policy import Policy, cosigned_times, describe_quorum, still_newest_at

PUBLISH_AFTER_S = 5.0  # a change is in a tree about this long after it was recorded
SCAN_EVERY_S = 60.0
TICK_S = 30.0  # how often timers are looked at: refresh, the auditors' timeout, what failed
ASK_AGAIN_S = 2.0  # after too few witnesses said what they saw
LOOK_RETRY_S = 5.0  # after looks that failed as a whole: the Nextcloud is away
SAY_EVERY_S = 60.0  # how far a long scan is
GRACE_S = 60  # a quorum takes its time; only what takes longer is called degraded

_HAS_PENDING = sql(select(table(Pending).c.n).limit(ONE).offset(ZERO))
_COUNT_PENDING = sql(select(func.count()).select_from(table(Pending)))


class Pace(NamedTuple):
    """How fast things go. Tests go faster."""

    publish_after_s: float = PUBLISH_AFTER_S
    scan_every_s: float = SCAN_EVERY_S
    tick_s: float = TICK_S


DEFAULT_PACE = Pace()


def say_nothing(_: str) -> None:
    pass


def why_paused(witnesses: Policy) -> str | None:
    """Why nothing can be published under this policy; None where it promises something."""
    if witnesses.ov > 0:
        return None
    quorum = describe_quorum(witnesses)
    why = f"nothing is published: the policy's quorum ({quorum}) lets two histories pass, so its word is worth nothing"
    return f"{why}; `peer add` pins nodes that cosign"


def degraded_since(newest: Signed | None, still_newest: int | None, now: int) -> int | None:
    """Since when the witnesses' quorum has been out of reach; None while all is well. The store alone says so.

    `still_newest` is the time up to which the quorum has said that the newest tree is the newest one.
    """
    if newest is None:
        return None
    waits = newest.first_note is None
    seen_at = newest.signed_at if waits else now
    if still_newest is not None and seen_at - still_newest > REFRESH_S + GRACE_S:
        return still_newest  # a tree that was signed meanwhile does not make it a new fault
    return newest.signed_at if waits and now - newest.signed_at > GRACE_S else None


class Service:
    """A log that runs. Its parts are attributes, for `audit.api` and for tests."""

    def __init__(
        self,
        directory: Directory,
        sources: Iterable[ScanSource],
        *,
        clock: Callable[[], int] = system_clock,
        pace: Pace = DEFAULT_PACE,
        enrol_first: bool = False,
        say: Callable[[str], None] = say_nothing,
        on_fatal: Callable[[BaseException], None] = lambda error: None,
        make_client: Callable[[], httpx.AsyncClient] = make_client,
        event_keys: EventKeys = NO_KEYS,
        tail: Tail | None = None,
    ) -> None:
        self.directory, self.store, self.clock, self.pace = directory, directory.store, clock, pace
        self.sources, self._enrol_first = list(sources), enrol_first
        self.maps, self.tree = MapStore(), Tree()
        self.recorder = Recorder(self.store, clock)
        self.clocks = Clocks()
        self.publisher = Publisher(
            self.store,
            self.maps,
            self.tree,
            directory.signer,
            directory.witnesses,
            directory.auditors,
            self._check_may_sign,
            directory.next_signer,
        )
        self.prover = Prover(self.store, self.maps, self.tree)
        self.enrolments = Enrolments(self.store, self.recorder)
        self.paused = why_paused(directory.witnesses)
        self.clock_wrong: str | None = None
        self.waiting: str | None = None
        self.problems: dict[str, list[Problem]] = {}
        self.scans = 0
        self.federation: Federation | None = None
        self.access: Access | None = None
        self.event_keys, self._tail = event_keys, tail
        self._hinted_sources = [source for source in self.sources if isinstance(source, HintedSource)]
        self.inbox = Inbox(self.store, [source.row for source in self._hinted_sources], clock, self.hinted)
        self._say, self._on_fatal, self._make_client = say, on_fatal, make_client
        self._stop_scan = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._make_events()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """Everything moves while the block runs."""
        self._make_events()
        self._loop = asyncio.get_running_loop()
        self._stop_scan.clear()
        opened = open_access(self.sources, self.directory.path)
        async with self._make_client() as client, opened as self.access, self._kept():
            federation = Federation(
                client,
                self.publisher,
                self.directory.witnesses,
                self.directory.auditors,
                self.clock,
                self._hear,
                say=self._say,
                regressed=self._pause,
                clocks=self.clocks,
                kept=read_kept(self.store.reader()),
                keep=partial(keep, self.store),
            )
            self.federation, self.waiting = federation, None
            loops = [self._publish_loop(federation), self._audit_loop(federation), federation.run()]
            if self._tail is not None:
                loops.append(self._tail.follow(self.inbox, self._say))
            working = (self._scan_loop(), self._look_loop())
            tasks = [asyncio.create_task(self._guard(loop)) for loop in (*working, *loops)]
            try:
                yield self
            finally:
                self._loop = None
                self._stopping.set()
                self._scan_due.set()
                self._hinted.set()
                self._stop_scan.set()
                for source in self._hinted_sources:
                    source.stop()
                scanning, looking, *others = tasks
                await asyncio.gather(
                    scanning, looking
                )  # records what it has at hand, and looks at the event between two files
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)

    @asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """What sources keep open while they are scanned and looked at again and again."""
        with ExitStack() as stack:
            for source in self._hinted_sources:
                stack.enter_context(source.kept())
            yield

    def _make_events(self) -> None:
        """An event belongs to the loop that it was first waited for in."""
        self._changed, self._accepted, self._audit_due = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._scan_due, self._stopping, self._hinted = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def _guard(self, loop: Awaitable[None]) -> None:
        """A loop's end by an error is the end of the service."""
        try:
            await loop
        except Exception as error:
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            self._say(f"stopping: {cause!r}")
            self._on_fatal(cause)

    def changed(self) -> None:
        """Something was recorded: a tree is due. May be called from any thread; while nothing runs, nothing happens."""
        self._call(self._changed)

    def scan_now(self) -> None:
        """The next scan does not wait for its time. From any thread."""
        self._call(self._scan_due)

    def hinted(self) -> None:
        """Something waits in the queue of files to look at. From any thread."""
        self._call(self._hinted)

    def enrolled(self) -> None:
        """Somebody enrolled: the leaf is due in a tree, and chains move over to the new root after a scan."""
        self.changed()
        self.scan_now()

    def _call(self, event: asyncio.Event) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(event.set)

    # -- scanning -----------------------------------------------------------------------------------------------

    async def _scan_loop(self) -> None:
        while not self._stopping.is_set():
            self._scan_due.clear()
            for source in self.sources:
                try:
                    self._heard(await asyncio.to_thread(source.scan, self._scan_job(source.name)))
                except Stopped:
                    return
                except Fatal:
                    raise
                except (AuditError, Error) as error:
                    self._say(f"scan of {source.name}: {error}")
            self.scans += 1
            if not self._stopping.is_set():
                await _wait(self._scan_due, self.pace.scan_every_s)

    def _job(self) -> Job:
        return Job(
            self.store,
            self.recorder,
            self.clock,
            self._check_stop,
            [self.directory.path],
            enrolled_only=self._enrol_first,
        )

    def _scan_job(self, name: str) -> Job:
        """A scan that takes long says now and then how far it is."""
        remaining = Remaining(self.clock)

        def progress(how_far: Progress) -> None:
            self._check_stop(how_far)
            if line := remaining.due(how_far, SAY_EVERY_S):
                self._say(f"scan of {name}: {line}")

        return self._job()._replace(progress=progress)

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

    # -- looking at what was hinted at --------------------------------------------------------------------------

    async def _look_loop(self) -> None:
        """Right after an event, and whenever something that failed is due again."""
        said = ""
        while not self._stopping.is_set() and self._hinted_sources:
            self._hinted.clear()
            is_well = True
            for source in self._hinted_sources:
                try:
                    self._has_looked(await asyncio.to_thread(self._look, source))
                except Stopped:
                    return
                except Fatal:
                    raise
                except (AuditError, Error) as error:  # the queue is as it was
                    if said != (said := f"look at {source.name}: {error}"):
                        self._say(said)
                    is_well = False
            if is_well:
                said = ""
            else:
                await _wait(self._stopping, LOOK_RETRY_S)
            if is_well and not self._stopping.is_set():
                await _wait(self._hinted, self._until_due())

    def _look(self, source: HintedSource) -> Looked:
        if self._stop_scan.is_set():
            raise Stopped
        return source.look(self._job())

    def _has_looked(self, looked: Looked) -> None:
        if looked.recorded:
            self.changed()
        if looked.has_folders:
            self.scan_now()

    def _until_due(self) -> float:
        """At least a while: what is due and cannot be looked at yet is no reason to hurry."""
        due = [at for source in self._hinted_sources if (at := source.next_due(self.store)) is not None]
        return (
            min(self.pace.scan_every_s, max(LOOK_RETRY_S, min(due) - self.clock())) if due else self.pace.scan_every_s
        )

    # -- publishing ---------------------------------------------------------------------------------------------

    async def _publish_loop(self, federation: Federation) -> None:
        if self.paused is not None:
            self._say(self.paused)
        while self.paused is None:
            try:
                await self._check_heard(federation)
                await self._publish(federation)
                self.clock_wrong = None
            except Fatal:
                raise
            except Regression as error:
                self._pause(error)
            except Unheard as error:
                if self.waiting is None:
                    self._say(f"publishing: {error}")
                self.waiting = str(error)
            except WrongClock as error:
                if self.clock_wrong is None:
                    self._say(f"publishing: {error}")
                self.clock_wrong = str(error)
            except (AuditError, Error) as error:
                self._say(f"publishing: {error}")
            if self.waiting is not None:
                await asyncio.sleep(min(ASK_AGAIN_S, self.pace.tick_s))
            elif await _wait(self._changed, self.pace.tick_s):
                await asyncio.sleep(self.pace.publish_after_s)

    async def _check_heard(self, federation: Federation) -> None:
        """Asks the witnesses what they saw, until enough have answered."""
        try:
            federation.check_heard()
        except Unheard:
            await federation.check_regression(self.directory.log_keys, self._root_at)
            federation.check_heard()
        self.waiting = None

    def _pause(self, error: Regression) -> None:
        """No more signing by this process."""
        if self.paused is None:
            self.paused = str(error)
            self._say(self.paused)
        self._accepted.set()

    def _check_may_sign(self, now: int) -> None:
        """The publisher's last look before it signs."""
        if self.paused is not None:
            raise Refused(self.paused)
        if self.federation is not None:
            self.federation.check_heard()
        self.clocks.check(now)

    async def _publish(self, federation: Federation) -> None:
        """One round: the tree that waits for its quorum, or what is pending, or nothing new and new times."""
        self._changed.clear()
        now = self.clock()
        target = await self._sign(federation, now)
        if target is not None:
            federation.witness_desk.put(target)
            self._audit_due.set()
            await self._until_published(target)
            if self.store.reader().execute(_HAS_PENDING).fetchone():
                self._changed.set()
        elif stale := await asyncio.to_thread(self.publisher.refresh_target, now):
            federation.witness_desk.put(stale)

    async def _sign(self, federation: Federation, now: int) -> Target | None:
        """The next tree. Where our clock seems wrong, witnesses are asked anew before that is believed."""
        try:
            return await asyncio.to_thread(self.publisher.integrate_and_sign, now)
        except WrongClock:
            await federation.ask_time(self.directory.log_keys)
            return await asyncio.to_thread(self.publisher.integrate_and_sign, now)

    async def _until_published(self, target: Target) -> None:
        """Couriers ask until they have an answer, so this waits as long as it takes."""
        while not self.paused:
            self._accepted.clear()
            newest = read_newest_signed(self.store.reader())
            if newest is None or newest.size != target.size or newest.first_note is not None:
                return
            await self._accepted.wait()

    async def _audit_loop(self, federation: Federation) -> None:
        """Keeps the one audit target on the auditors' desk: another one after its quorum, or after a timeout."""
        while True:
            self._audit_due.clear()
            target = await asyncio.to_thread(self.publisher.audit_target, self.clock())
            on_desk = federation.audit_desk.target
            if target is not None and (on_desk is None or on_desk.size != target.size):
                federation.audit_desk.put(target)
            await _wait(self._audit_due, self.pace.tick_s)

    def _hear(self, _: Target, accepted: Accepted) -> None:
        """A cosigner's lines were stored."""
        self._accepted.set()
        if accepted.audited:
            self._audit_due.set()

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
            "published": None
            if published is None
            else {"size": str(published.size), "at": str(published.published_at)},
            "audited": {"size": str(tree.size)} if tree is not None and tree.audited else None,
            "degraded_since": None if since is None else str(since),
            "paused": self.paused,
            "waiting": self.waiting,
            "clock": self.clock_wrong,
            "scans": str(self.scans),
            "problems": {source: str(len(problems)) for source, problems in self.problems.items()},
            "cosigners": self._cosigners(),
        }

    def _still_newest(self, published: Signed | None) -> int | None:
        """Up to when the witnesses' quorum said that the published tree is the newest one."""
        if published is None:
            return None
        policy = self.directory.witnesses
        return still_newest_at(policy, cosigned_times(policy, parse_note(published.newest_note)))

    def _cosigners(self) -> list[dict[str, str | None]]:
        """Who answers, and since when not. An error names the cosigner and what it did, and no address."""
        if self.federation is None:
            return []
        couriers = [*self.federation.witnesses, *self.federation.auditors]
        return [
            {field: value if value is None else str(value) for field, value in courier.health._asdict().items()}
            for courier in couriers
        ]


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event came within the time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
