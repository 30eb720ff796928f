"""A Nextcloud as a source: walks by folder etags, looks at what changed, reads again what nobody has read for long.

    source = add_nextcloud(store, "nextcloud:https://cloud.example.org", opener)
    summary = source.scan(Job(store, recorder))

A scan is the first catch-up, where the Nextcloud is on this machine (`catchup`); for each account: walk, trash, drain
the queue; then a share of the re-reading. A walk lists a folder, queues
what is new, changed or gone there, and enters the folders whose etag is not the one that it knows. The etag of a folder
is stored once everything below it is queued, so a walk that is cut short goes on where it was, and what is queued is
durable. Where a folder's etag moved and nothing in it did, all its files are read: an upload with equal metadata moves
nothing else. Where something else did, it may hide behind that: small folders are read all the same, of large ones a
hint or the re-reading has to tell. The queue is drained whenever it is long, so memory and disk stay flat however many
files there are. What events tell of is looked at meanwhile, by `look`.

In group folders a version restore moves no folder's etag, and of an external storage Nextcloud hears only when a folder
is listed: once an hour a walk enters all of their folders, changed or not.

Re-reading goes over everything within `days`, an equal share each day, the longest unread first, for at most `hours` a
day at `bytes_per_s`; what it has used of that outlives a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from importlib import import_module
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select

from audit.chains import find_enrolled
from audit.errors import AuditError, Fatal, Refused
from audit.folder import Problem, Progress
from audit.nextcloud import known as rows
from audit.nextcloud.catchup import CatchUp, host_of
from audit.nextcloud.known import Dirty, Hint
from audit.nextcloud.limits import NO_LIMITS, Limits, Rate, Throttle
from audit.nextcloud.line import Line, Opener
from audit.nextcloud.look import identity_of
from audit.nextcloud.looking import BATCH, EXTERNAL, GROUP, Looker, count_entries, whose
from audit.nextcloud.share import FREELY, Gently, Share, held_by
from audit.nextcloud.values import Node, Session
from audit.scanning import MIGRATE_LIMIT, Job, Stopped, Summary
from audit.schema import NextcloudDirty, sql, table
from audit.store import Store
from verifier.errors import Error, Usage

SCHEME = "nextcloud"
MAX_QUEUE = 10_000  # a walk pauses above it, and what is queued is looked at first
MAX_PROBLEMS = 1_000
SMALL_FOLDER = 64, 8 << 20  # files and bytes that are read again whenever the folder's etag moved
TRASH_PAGE = 1_000
DAY_S = 86_400
ASK_FOR_CIPHERTEXT = (
    "; it is end-to-end encrypted, and that app shows such folders to clients that it knows alone: before Nextcloud 31 "
    "add /^nextcloud-audit$/ to end_to_end_encryption.supported-user-agents"
)
MOUNTS = (GROUP, EXTERNAL)  # whose folders' etags tell less than those of a user's own storage
MOUNTS_EVERY_S = 3_600

_DIRTY = table(NextcloudDirty)
_FAILING = sql(
    select(_DIRTY.c.user, _DIRTY.c.path, _DIRTY.c.why)
    .where(_DIRTY.c.source == bindparam("source"), _DIRTY.c.tries > bindparam("none"))
    .limit(bindparam("limit"))
    .offset(bindparam("start"))
)


def open_configured(directory: str) -> AbstractAsyncContextManager[Sequence[Session]]:
    """The sessions of DIR/nextcloud.json."""
    try:
        client: Any = import_module("audit.nextcloud.client")
    except ImportError as error:
        raise Usage(f"nextcloud: this installation cannot talk to one ({error.name} is missing)") from None
    opened: AbstractAsyncContextManager[Sequence[Session]] = client.open_sessions(client.read_config(directory))
    return opened


class Looked(NamedTuple):
    """What the looks at hinted files came to. `has_folders`: some hints were about folders, so a walk is due."""

    recorded: int
    has_folders: bool


class NextcloudSource(NamedTuple):
    """A Nextcloud that the log knows."""

    row: int
    source_id: str
    url: str
    line: Line
    limits: Limits = NO_LIMITS

    @property
    def name(self) -> str:
        return self.url

    def scan(self, job: Job) -> Summary:
        """One scan, recorded: everything in the summary is durable when this returns."""
        return self.line.run(_Scan(self, job).run)

    def look(self, job: Job) -> Looked:
        """Looks at what in the queue is due, and walks nowhere; while a scan runs, at what is urgent alone."""
        if rows.next_due(job.store.reader(), self.row) is None:
            return Looked(0, False)
        return self.line.run(_Scan(self, job).look)

    def kept(self) -> AbstractContextManager[None]:
        """Scans and looks in the block may run beside each other, and share their sessions."""
        return self.line.kept()

    def stop(self) -> None:
        """Ends scans and looks in the block at once, with Stopped; what is queued is durable."""
        self.line.stop()

    def next_due(self, store: Store) -> int | None:
        """When the first of the queue is due; None where it is empty."""
        return rows.next_due(store.reader(), self.row)


def add_nextcloud(store: Store, spec: str, opener: Opener, limits: Limits = NO_LIMITS) -> NextcloudSource:
    """The Nextcloud as a source of this log, known or new: it is asked for its instance id."""
    url = spec.removeprefix(f"{SCHEME}:")
    if not url or url == spec or url.endswith("/"):
        raise Usage(f"source: got {spec!r}, want nextcloud:URL without a slash at its end")
    source_id = f"{SCHEME}:{asyncio.run(_ask_instance(opener))}"
    return NextcloudSource(store.add_source(spec, source_id), source_id, url, Line(opener), limits)


def list_nextclouds(store: Store, opener: Opener, limits: Limits = NO_LIMITS) -> list[NextcloudSource]:
    """Every Nextcloud that the log knows."""
    return [NextcloudSource(*known, Line(opener), limits) for known in store.list_sources(SCHEME)]


async def _ask_instance(opener: Opener) -> str:
    async with opener() as sessions:
        if not sessions:
            raise Usage("nextcloud: there is no account to ask with")
        return await sessions[0].instance_id()


def _is_small(files: Sequence[Node]) -> bool:
    return len(files) <= SMALL_FOLDER[0] and sum(node.size for node in files) <= SMALL_FOLDER[1]


class _Folder(NamedTuple):
    """A folder on the way: what it was listed with, and which folders in it are still to be entered."""

    node: Node
    left: list[Node]
    failed: list[bool]  # whether something below could not be listed: then its etag is not stored


class _Scan:
    def __init__(self, source: NextcloudSource, job: Job) -> None:
        self.source, self.job = source, job
        self.store, self.recorder, self.clock = job.store, job.recorder, job.clock
        self.problems: list[Problem] = []
        self._scanning: Looker | None = None
        self._others: dict[str, int] = {}  # owners without an account here -> files and folders of theirs
        scanned = self.store.scanned(source.row)
        self.enters_mounts = scanned is None or int(self.clock()) // MOUNTS_EVERY_S != scanned // MOUNTS_EVERY_S

    async def run(self) -> Summary:
        share = self.source.line.share = Share(self.source.limits.share, self._nap)
        try:
            async with self._open(renew=True) as opened:
                sessions = [Gently(session, share) for session in opened]
                self._scanning = looker = self._looker(sessions, share)
                await self.catch_up(looker, opened)
                for session in sessions:
                    await self._one_account(looker, session)
                await looker.drain()
                if self.job.full:
                    await self.reread(looker, int(self.clock()))
                else:
                    await self.reread_share(looker)
        finally:
            self.source.line.share = None
        self.store.set_scanned(self.source.row, int(self.clock()))
        migrated = await asyncio.to_thread(self.recorder.migrate, self.source.row, MIGRATE_LIMIT)
        return Summary(self.source.source_id, count_entries(looker.counts), self._all_problems(), migrated)

    async def look(self) -> Looked:
        async with self._open() as sessions:
            looker, share = self._looker(sessions), self.source.line.share
            if sessions:  # else nobody has enrolled yet, and the hints wait
                await looker.drain_urgent(share or FREELY)
                if share is None:
                    await looker.look_at_few()
        return Looked(sum(looker.counts.values()), looker.has_folders)

    def _looker(self, sessions: Sequence[Session], share: Share = FREELY) -> Looker:
        looker = Looker(
            self.store,
            self.recorder,
            self.source.row,
            sessions,
            self.clock,
            pause=Throttle(self.source.limits.rate).wait,
            report=lambda: self._report(looker),
            in_hand=self.source.line.in_hand,
            share=share,
        )
        return looker

    @asynccontextmanager
    async def _open(self, renew: bool = False) -> AsyncIterator[list[Session]]:
        """The sessions of this very Nextcloud, of those users that are to be recorded."""
        async with self.source.line.sessions(self._check_instance, renew) as sessions:
            conn = self.store.reader()
            yield [
                session
                for session in sessions
                if not self.job.enrolled_only or find_enrolled(conn, self.source.row, session.user) is not None
            ]

    async def _check_instance(self, sessions: Sequence[Session]) -> None:
        for session in sessions[:1]:
            name = f"{SCHEME}:{await session.instance_id()}"
            if name != self.source.source_id:
                raise Refused(f"source: {self.source.url} is {name} by now, want {self.source.source_id}")

    async def catch_up(self, looker: Looker, sessions: Sequence[Session]) -> None:
        """Where the data directory is on this machine: what no walk has come past yet is read from there first."""
        conn, row = self.store.reader(), self.source.row
        users = [session.user for session in sessions if not rows.is_begun(conn, row, session.user)]
        host = host_of(sessions)
        if host is None or not users:
            return
        try:
            begun = await asyncio.to_thread(CatchUp, self.job, row, host, users, self.source.limits, looker.counts)
            try:
                await asyncio.to_thread(begun.run)
            except asyncio.CancelledError:
                begun.stop()
                raise
        except Fatal:
            raise
        except (AuditError, Error) as error:  # the walk reads all the same, over WebDAV
            self.problems.append(Problem("", "catch-up", str(error)))

    async def _one_account(self, looker: Looker, session: Session) -> None:
        """A server or an account that does not answer is a problem; the others go on."""
        try:
            await self.walk(looker, session)
            await self.look_into_trash(session)
        except Fatal:
            raise
        except (AuditError, Error) as error:
            self.problems.append(Problem(f"{session.user}/", "unreadable", str(error)))
            if rows.has_folder(self.store.reader(), self.source.row, session.user, ""):
                self._not_seen(session.user, "")

    # -- walking ------------------------------------------------------------------------------------------------

    async def walk(self, looker: Looker, session: Session) -> None:
        """Queues what changed in a user's files since the last walk."""
        row, viewer = self.source.row, session.user
        is_first = not rows.has_folder(self.store.reader(), row, viewer, "")
        root = await self._enter(looker, session, "", is_first)
        stack = [] if root is None else [root]
        while stack:
            folder = stack[-1]
            if not folder.left:
                stack.pop()
                if not folder.failed:
                    with self.store.transaction() as conn:
                        rows.put_folder(conn, row, viewer, folder.node.path, folder.node.etag)
                elif stack:
                    stack[-1].failed.append(True)
                continue
            child = folder.left.pop()
            if rows.get_folder(self.store.reader(), row, viewer, child.path) == child.etag and not (
                self.enters_mounts and child.mount in MOUNTS
            ):
                continue
            try:
                entered = await self._enter(looker, session, child.path, is_first)
            except Fatal:
                raise
            except (AuditError, Error) as error:
                why = f"{error}{ASK_FOR_CIPHERTEXT if child.is_encrypted else ''}"
                self.problems.append(Problem(f"{viewer}/{child.path}", "unreadable", why))
                self._not_seen(viewer, child.path)
                folder.failed.append(True)
                continue
            if entered is not None:  # else it went away, and the folder above has another etag by now
                stack.append(entered)
            if rows.count_dirty(self.store.reader(), row) > MAX_QUEUE:
                await looker.drain()
            self._report(looker)

    async def _enter(self, looker: Looker, session: Session, path: str, is_first: bool) -> _Folder | None:
        """Lists a folder and queues what is new, changed or gone in it."""
        listed = await session.list_folder(path)
        if not listed:
            return None
        looker.together.saw(session.user, path, len(listed))
        folder, *nodes = listed
        own = [node for node in nodes if self._is_ours(node, session)]
        row, viewer, conn = self.source.row, session.user, self.store.reader()
        known = rows.list_known(conn, row, viewer, path)
        before = rows.list_subfolders(conn, row, viewer, path)
        files = [node for node in own if not node.is_folder]
        folders = [node for node in own if node.is_folder]
        hints = [
            Hint(node.file_id, viewer, node.path, is_first)
            for node in files
            if (row_of := known.get(node.file_id)) is None
            or (row_of.path, row_of.identity, row_of.user) != (node.path, identity_of(node), whose(node, viewer))
        ]
        here = {node.file_id for node in files}
        hints += [Hint(file_id, viewer, left.path) for file_id, left in known.items() if file_id not in here]
        gone = before.keys() - {node.path for node in folders}
        is_explained = hints or gone or any(before.get(node.path) != node.etag for node in folders)
        seen = rows.get_folder(conn, row, viewer, path)
        if seen is not None and seen != folder.etag and (not is_explained or _is_small(files)):
            hints += [Hint(node.file_id, viewer, node.path) for node in files]
        with self.store.transaction() as writer:
            now = int(self.clock())
            rows.add(writer, row, hints, now)
            if path and seen is None:  # so that it is missed, should it go before it was ever seen whole
                rows.put_folder(writer, row, viewer, path, "")
            for left_path in gone:
                rows.add(writer, row, list(rows.list_below(writer, row, viewer, left_path)), now)
                rows.drop_below(writer, row, viewer, left_path)
        return _Folder(folder, folders, [])

    def _is_ours(self, node: Node, session: Session) -> bool:
        if whose(node, session.user) is not None:
            return True
        if node.owner not in self._others:
            self._others[node.owner] = 0
        self._others[node.owner] += 1
        return False

    def _not_seen(self, viewer: str, path: str) -> None:
        """What stands below a folder is not known by now, whatever was seen there once: coverage has to say so."""
        with self.store.transaction() as conn:
            rows.put_folder(conn, self.source.row, viewer, path, "")

    async def look_into_trash(self, session: Session) -> None:
        """Queues files that were in the trash and are there no more: restored, or purged, of which no event tells."""
        trashed = {item.file_id for item in await session.list_trash()}
        after = -1
        while page := rows.list_in_trash(self.store.reader(), self.source.row, session.user, after, TRASH_PAGE):
            after = page[-1].file_id
            left = [Hint(known.file_id, known.viewer, known.path) for known in page if known.file_id not in trashed]
            with self.store.transaction() as conn:
                rows.add(conn, self.source.row, left, int(self.clock()))

    # -- reading again ------------------------------------------------------------------------------------------

    async def reread(self, looker: Looker, before: int, limit: int | None = None, until: float | None = None) -> int:
        """Reads files again whose bytes were read last before a time, the longest ago first; returns how many.

        Those that cannot be read do not count: others take their place.
        """
        after, begun = (-1, -1), looker.files
        while limit is None or looker.files - begun < limit:
            size = BATCH if limit is None else min(BATCH, limit - (looker.files - begun))
            page = rows.list_oldest(self.store.reader(), self.source.row, after, before, size)
            if not page or until is not None and time.monotonic() >= until:
                break
            after = page[-1].checked, page[-1].file_id
            await looker.look_at_all(
                [Dirty(self.source.row, known.file_id, "", known.viewer, known.path, 0, 0, 0) for known in page]
            )
        return looker.files - begun

    async def reread_share(self, looker: Looker) -> None:
        """Today's share of all files, as far as today's hours go."""
        row, budget, now = self.source.row, self.source.limits.budget, int(self.clock())
        used = rows.get_reads(self.store.reader(), row, now // DAY_S)
        share = -(-rows.count_known(self.store.reader(), row) // budget.days) - used.files
        left_s = budget.hours * 3600 - used.milliseconds / 1000
        if share <= 0 or left_s <= 0:
            return
        start, read = time.monotonic(), looker.bytes
        looker.pause = Throttle(Rate(0.0, budget.bytes_per_s)).wait
        done = await self.reread(looker, now - DAY_S, share, start + left_s)
        spent = int((time.monotonic() - start) * 1000)
        total = rows.Reads(used.files + done, used.bytes + looker.bytes - read, used.milliseconds + spent)
        with self.store.transaction() as conn:
            rows.put_reads(conn, row, now // DAY_S, total)

    # -- how it goes --------------------------------------------------------------------------------------------

    def _nap(self) -> None:
        """While the server is left alone: says how far it is. Whoever wants an end waits for no more idling."""
        try:
            if self._scanning is not None:
                self._report(self._scanning)
        except Stopped:
            assert self.source.line.share is not None
            self.source.line.share.hurry()

    def _report(self, looker: Looker) -> None:
        if self.job.progress is not None:
            waiting = rows.count_dirty(self.store.reader(), self.source.row)
            held = held_by(self.source.limits.share)
            self.job.progress(Progress(looker.files, looker.settled + waiting, looker.bytes, looker.bytes, held))

    def _all_problems(self) -> list[Problem]:
        """What could not be listed, read, or is nobody's here."""
        found = list(self.problems)
        for user, path, why in self.store.reader().execute(_FAILING, (self.source.row, 0, MAX_PROBLEMS, 0)):
            found.append(Problem(f"{user}/{path}", "unreadable", why))
        for owner, count in sorted(self._others.items()):
            found.append(Problem(owner, "no-account", f"{count} shared items are {owner}'s, who has no account here"))
        return found
