"""Looking at files of a Nextcloud, and recording what was concluded: several at a time, one transaction for them.

    looker = Looker(store, recorder, source, sessions, clock)
    await looker.drain()                         until nothing in the queue is due
    await looker.look_at_all([dirty, ...])       these, queued or not

A look: where the file is now (by its path, else by its id, else in the trash, else in another user's storage); its
metadata, its bytes, its version list, its metadata again. Both times the same and no hint meanwhile: accepted. Else
again, MAX_READS times, else later. Then the old versions that are needed, and `look.conclude`. Entries, what the next
look compares with, and the end of the entry in the queue are one transaction.

What events told of comes first, and at once: of a scan's looks they alone have no turns (`share`).

Several lookers may work on one source beside each other, on one loop. What one has in hand the others leave alone; what
was concluded from a chain or a last look that is another one by now is not recorded, and looked at again later.

Whose file it is decides which chain it has (`whose`): the storage owner's, seen through the owner's own account. What
is shared with an account and whose owner has none here is not recorded. Group folders and external storages belong to
nobody with a uid ("/group", "/external"), and so to the instance root, unless a root is enrolled under that very name.
Of external storages no versions are told: each user has others.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from audit.batch import Observation
from audit.chains import CLOSED, CUSTODIAL, LIVE, Current, find_all_current, find_current, find_enrolled, find_owner
from audit.errors import AuditError, Fatal, PeerFailed, Refused, TryLater
from audit.nextcloud import known as rows
from audit.nextcloud.history import read_history
from audit.nextcloud.known import Dirty, Hint
from audit.nextcloud.look import (
    NEW,
    Conclusion,
    History,
    Known,
    Look,
    conclude,
    identity_of,
    known_of,
    nameless,
    versions_to_read,
)
from audit.nextcloud.share import FREELY, Share
from audit.nextcloud.together import Together
from audit.nextcloud.values import Broken, Node, Reading, Session, Version
from audit.recorder import Recorder
from audit.store import Store
from verifier.entry import MAX_ENTRIES, Expired, Operation, Reverted
from verifier.errors import Error

AT_ONCE = 24  # looks at a time; the requests that they make are bounded by the server's client
BATCH = 64  # looks in one transaction
FEW = 16  # looks that are due and not urgent, between scans: for users they are as good as nothing
MAX_READS = 3  # of one file that changes while it is read
FAULTS = 3  # looks that fail for a version which the server cannot give
GROUP, EXTERNAL = "group", "external"
WENT_ON = "went on elsewhere while the file was looked at"


End = tuple[int, int] | None  # chain and last seq


class Found(NamedTuple):
    """What one look came to."""

    dirty: Dirty
    file_id: int
    observations: Sequence[Observation] = ()
    keep: Known | None = None
    drop: bool = False
    end: End = None  # where the chain was when this was concluded
    also: Sequence[Hint] = ()


def whose(node: Node, viewer: str) -> str | None:
    """In whose storage a node is, as the chains are named; None where another user's account has to look."""
    if node.mount == "":
        return viewer if node.owner in ("", viewer) else None
    return None if node.mount == "shared" else f"/{node.mount}"


class Looker:
    """Looks, for one source, through the accounts that there are. `counts`: entries by operation."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        source: int,
        sessions: Sequence[Session],
        clock: Callable[[], float],
        *,
        pause: Callable[[int, int], Awaitable[None]] | None = None,
        report: Callable[[], None] = lambda: None,
        in_hand: set[tuple[int, str]] | None = None,
        share: Share = FREELY,
    ) -> None:
        self.store, self.recorder, self.source, self.clock = store, recorder, source, clock
        self.sessions = {session.user: session for session in sessions}
        self.counts: dict[str, int] = {}
        self.files = self.bytes = 0
        self.settled = 0  # of these files, those that are in the queue no more
        self.has_folders = False  # whether a hint was about a folder: only a walk tells what changed in it
        self.pause, self._report = pause, report
        self._in_hand = set() if in_hand is None else in_hand
        self._trash: dict[str, Mapping[int, object]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.together, self._share = Together(share), share

    async def drain(self) -> None:
        """Looks at what is queued and due: what is urgent, and then the oldest first."""
        while True:
            await self.drain_urgent()
            if not (batch := self._take(int(self.clock()))):
                return
            await self.look_at_all(batch)

    async def drain_urgent(self, busy: Share = FREELY) -> None:
        """Looks at what events told of. Where `busy`, the share of a scan, has some of it in hand, it is hurried."""
        while True:
            urgent = rows.take(self.store.reader(), self.source, BATCH + len(self._in_hand), rows.URGENT)
            if any(_key(dirty) in self._in_hand for dirty in urgent):
                busy.hurry()
            if not (batch := self._free(urgent)):
                return
            with self._share.hurried():
                await self.look_at_all(batch)

    async def look_at_few(self) -> None:
        """Looks at a little of what else is due."""
        if batch := self._take(int(self.clock()))[:FEW]:
            await self.look_at_all(batch)

    def _take(self, due: int) -> list[Dirty]:
        return self._free(rows.take(self.store.reader(), self.source, BATCH + len(self._in_hand), due))

    def _free(self, taken: Sequence[Dirty]) -> list[Dirty]:
        return [dirty for dirty in taken if _key(dirty) not in self._in_hand][:BATCH]

    async def look_at_all(self, batch: Sequence[Dirty]) -> None:
        """Looks, and records what each came to; what failed is put off with its reason."""
        batch = [dirty for dirty in batch if _key(dirty) not in self._in_hand]
        keys = {_key(dirty) for dirty in batch}
        self._in_hand |= keys
        try:
            await self._look_at_all(batch)
        finally:
            self._in_hand -= keys
            self._share.calm()
        self.settled = self.files
        self._report()

    async def _look_at_all(self, batch: Sequence[Dirty]) -> None:
        self._trash.clear()
        results = await asyncio.gather(*(self._try(dirty) for dirty in batch))
        found: dict[int, Found] = {}
        for dirty, result in zip(batch, results, strict=True):
            if isinstance(result, str):
                self._put_off(dirty, result)
            elif result.file_id not in found:  # else the same file by another way: it stays queued until after this one
                found[result.file_id or -len(found) - 1] = result
        await asyncio.to_thread(self._record, list(found.values()))

    async def _try(self, dirty: Dirty) -> Found | str:
        """The result, or why there is none."""
        async with self._gate:
            self.together.at_work += 1
            try:
                found = await self._look(dirty)
            except Fatal:
                raise
            except (AuditError, Error) as error:
                return str(error) or type(error).__name__
            finally:
                self.together.at_work -= 1
            self.files += 1
            return found

    # -- one look -----------------------------------------------------------------------------------------------

    async def _look(self, dirty: Dirty) -> Found:
        conn = self.store.reader()
        dirty, also = self._identify(conn, dirty)
        known = rows.get_known(conn, self.source, dirty.file_id) if dirty.file_id else None
        session, node = await self._locate(dirty, known)
        file_id = dirty.file_id or (node.file_id if node else 0)
        if (
            node is not None
            and node.is_folder
            or dirty.path
            and rows.has_folder(conn, self.source, dirty.user, dirty.path)
        ):
            self.has_folders = True
        if not file_id or node is not None and node.is_folder:
            return Found(dirty, 0, also=also)  # a folder that changed is the next walk's affair
        if node is None:
            return self._conclude(
                dirty, file_id, known, Look(None, is_in_trash=await self._in_trash(file_id, known)), ""
            )
        user = whose(node, session.user)
        if user is None:
            return Found(dirty, 0, also=also)
        known = known or rows.get_known(conn, self.source, file_id)
        dirty, look = await self._read(session, node, dirty)
        history = self._history(file_id)
        predates = bool(dirty.predates) or not rows.has_folder(conn, self.source, session.user, "")
        if history.status == NEW and not predates:
            look = look._replace(copied_from=rows.find_twin(conn, self.source, self._known(look, user, session.user)))
        readings: dict[str, Reading | None] = {}
        for version in versions_to_read(known, history, look):
            tries = FAULTS if history.knows(version) else dirty.tries
            readings[version.version_id] = await _read_version(session, file_id, version, tries)
        look = look._replace(readings=readings, predates=predates)
        return self._conclude(dirty, file_id, known, look, user, session.user)._replace(also=also)

    def _identify(self, conn: sqlite3.Connection, dirty: Dirty) -> tuple[Dirty, list[Hint]]:
        """A hint by path is about the file that was there too: it has to be looked at by its id."""
        if dirty.file_id:
            return dirty, []
        folder = dirty.path.rpartition("/")[0]
        there = rows.list_known(conn, self.source, dirty.user, folder).values()
        return dirty, [Hint(known.file_id, known.viewer, known.path) for known in there if known.path == dirty.path]

    async def _locate(self, dirty: Dirty, known: Known | None) -> tuple[Session, Node | None]:
        """The file, through its owner's account where there is one."""
        if known is not None and known.viewer not in self.sessions:
            raise PeerFailed(f"account: there is none for {known.viewer}")
        viewers = dict.fromkeys([known.viewer, dirty.user] if known else [dirty.user])
        here = [self.sessions[viewer] for viewer in viewers if viewer in self.sessions]
        path = known.path if known else dirty.path
        if not here:  # nobody's name was told, or one without an account: a path means nothing then
            here, path = list(self.sessions.values()), ""
        for session in here:
            node = await self.together.stat(session, path) if path else None
            if dirty.file_id and (node is None or node.file_id != dirty.file_id):
                node = await session.find(dirty.file_id)
            if node is not None:
                return await self._as_owner(session, node)
        if known is not None and dirty.file_id not in await self._list_trash(here[0]):
            for session in self.sessions.values():  # somebody else's now? Rare: everybody is asked
                if session not in here and (node := await session.find(dirty.file_id)) is not None:
                    return await self._as_owner(session, node)
        return (here or list(self.sessions.values()))[0], None

    async def _as_owner(self, session: Session, node: Node) -> tuple[Session, Node]:
        owner = self.sessions.get(node.owner)
        if whose(node, session.user) is None and owner is not None and owner is not session:
            found = await owner.find(node.file_id)
            if found is not None:
                return owner, found
        return session, node

    async def _in_trash(self, file_id: int, known: Known | None) -> bool:
        session = self.sessions.get(known.viewer) if known else None
        return session is not None and file_id in await self._list_trash(session)

    async def _list_trash(self, session: Session) -> Mapping[int, object]:
        """A user's trash, listed once for each batch."""
        if session.user not in self._trash:
            self._trash[session.user] = {trashed.file_id: trashed for trashed in await session.list_trash()}
        return self._trash[session.user]

    async def _read(self, session: Session, node: Node, dirty: Dirty) -> tuple[Dirty, Look]:
        """Bytes and versions that belong to the same metadata."""
        why = "changed while it was read"
        for _ in range(MAX_READS):
            if self.pause is not None:
                await self.pause(1, node.size)
            versions: Sequence[Version] = ()
            try:
                reading = await session.read(node.path, node.etag)
                self.bytes += reading.size
                if node.mount != EXTERNAL:
                    versions = await session.list_versions(node.file_id)
            except PeerFailed:
                raise
            except TryLater as error:
                reading, why = None, str(error)
            after = await self.together.stat(session, node.path)
            hits = rows.count_hits(self.store.reader(), dirty)
            is_quiet = hits in (None, dirty.hits)
            if reading is not None and after is not None and is_quiet and _same(node, after):
                return dirty, Look(after, reading, versions)
            dirty = dirty if hits is None else dirty._replace(hits=hits)
            found = after if after is not None and after.file_id == node.file_id else await session.find(node.file_id)
            if found is None or found.is_folder:
                break
            node = found
        raise TryLater(why)

    def _history(self, file_id: int) -> History:
        with self.store.snapshot() as conn:
            return read_history(conn, find_current(conn, self.source, file_id))

    def _conclude(
        self, dirty: Dirty, file_id: int, known: Known | None, look: Look, user: str, viewer: str = ""
    ) -> Found:
        with self.store.snapshot() as conn:
            current = find_current(conn, self.source, file_id)
            history = read_history(conn, current)
            if rows.get_known(conn, self.source, file_id) != known:
                raise TryLater(WENT_ON)
            user = user or (current.user if current else "")
            steps = conclude(known, history, look)
            if current is not None and history.status == LIVE and self._goes_on_elsewhere(conn, current, user, steps):
                steps = conclude(known, nameless(history), look)
        observations = [Observation(self.source, file_id, *step, user=user) for step in steps]
        end = None if current is None else (current.id, current.last_seq)
        if look.node is not None:
            return Found(dirty, file_id, observations, self._known(look, user, viewer), False, end)
        if known is None:  # never seen, and gone: nothing is known that could be said of it
            return Found(dirty, file_id, end=end)
        if history.status in (NEW, CLOSED) or not look.is_in_trash:
            return Found(dirty, file_id, observations, None, True, end)
        return Found(dirty, file_id, observations, known._replace(in_trash=1), False, end)

    def _goes_on_elsewhere(
        self, conn: sqlite3.Connection, current: Current, user: str, steps: Sequence[Conclusion]
    ) -> bool:
        """Whether one of these steps ends the chain and starts another: under another root, or since it is full."""
        owner = find_enrolled(conn, self.source, user) or find_owner(conn, CUSTODIAL, None)
        is_full = current.last_seq + len(steps) > MAX_ENTRIES - 2
        ends = is_full or owner is None or owner.id != current.owner
        return ends and any(not isinstance(step.argument, Reverted | Expired) for step in steps)

    def _known(self, look: Look, user: str, viewer: str) -> Known:
        return known_of(look, user, viewer, int(self.clock()))

    # -- recording ----------------------------------------------------------------------------------------------

    def _record(self, batch: Sequence[Found]) -> None:
        """All in one transaction; where one is refused, each in its own, and that one is put off."""
        observations = [observation for found in batch for observation in found.observations]
        try:
            with self.store.lock:  # what `_check` saw still holds when it is written
                self._check(batch)
                self.recorder.record(observations, lambda conn: self._remember(conn, batch))
        except (Refused, Error) as error:
            if len(batch) > 1:
                for found in batch:
                    self._record([found])
                return
            self._put_off(batch[0].dirty, str(error))
            return
        for observation in observations:
            word = observation.operation.word
            self.counts[word] = self.counts.get(word, 0) + 1

    def _check(self, batch: Sequence[Found]) -> None:
        """Each chain is where it was when its look was concluded: another look, or a seal, may have come between."""
        with self.store.snapshot() as conn:
            now = find_all_current(conn, self.source, [found.file_id for found in batch if found.file_id])
        for found in batch:
            current = now.get(found.file_id)
            if found.file_id and found.end != (None if current is None else (current.id, current.last_seq)):
                raise Refused(f"chain of file {found.file_id}: {WENT_ON}")

    def _remember(self, conn: sqlite3.Connection, batch: Sequence[Found]) -> None:
        now = int(self.clock())
        for found in batch:
            if found.keep is not None:
                rows.put_known(conn, self.source, [found.keep])
            elif found.drop:
                rows.drop_known(conn, self.source, found.file_id)
            rows.add(conn, self.source, found.also, now, is_urgent=True)  # only events tell of paths
            rows.finish(conn, found.dirty)

    def _put_off(self, dirty: Dirty, why: str) -> None:
        with self.store.transaction() as conn:
            if rows.count_hits(conn, dirty) is None:  # read again though nobody had asked: now it is queued
                rows.add(conn, self.source, [Hint(dirty.file_id, dirty.user, dirty.path)], int(self.clock()))
                dirty = dirty._replace(hits=rows.count_hits(conn, dirty) or 0)
            rows.retry(conn, dirty, int(self.clock()), why)


async def _read_version(session: Session, file_id: int, version: Version, tries: int) -> Reading | None:
    """An old version. One that a server which else answers cannot give holds up nothing: in the end it is not there.

    Seen: with server-side encryption, versions from before it was switched on. One whose bytes were logged when they
    were current is not waited for.
    """
    try:
        return await session.read_version(file_id, version.version_id)
    except Broken:
        if tries < FAULTS:
            raise
        return None


def count_entries(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts in the order of the operations' codes."""
    return {operation.word: counts[operation.word] for operation in Operation if operation.word in counts}


def _key(dirty: Dirty) -> tuple[int, str]:
    return dirty.file_id, dirty.place


def _same(before: Node, after: Node) -> bool:
    return (before.file_id, *identity_of(before)) == (after.file_id, *identity_of(after))
