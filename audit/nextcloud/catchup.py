"""The first catch-up on a Nextcloud's own machine: every file with all its versions, from disk and database.

    CatchUp(job, source, host, ["alice"], limits, counts).run()    blocks; everything is durable when it returns
    for batch in read_homes(host, {3: "alice"}): ...                [Caught("alice", node, look), ...] by rising file id

Files are adopted as WebDAV's first walk would adopt them: the oldest version first, then the current content. What the
disk cannot tell (being written, changed behind Nextcloud's back, encrypted, a version that went) is queued, and WebDAV
tells. The walk that follows lists the folders and finds what is not known yet, or another by now.

It goes on where it was: what is in `nextcloud_known` is passed over, in the order of file ids, and a batch is recorded
after BATCH files or COMMIT_S seconds. Pages of rows, hashing in threads and recording overlap; what waits is bounded,
so memory is flat. Each of these threads rests after its work, as the share says (`share.Rest`). Old versions are
listed on disk after the row of their file was read, and the row is compared again after all bytes were: a file that was
written meanwhile is queued.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from audit import hashing
from audit.batch import Observation
from audit.chains import find_all_current
from audit.errors import PeerFailed, Refused, TryLater
from audit.folder import Progress
from audit.hashing import Hashed, Problem, Seen
from audit.nextcloud import known as rows
from audit.nextcloud.known import Hint
from audit.nextcloud.limits import Limits, Throttle
from audit.nextcloud.look import NOTHING, Look, conclude, known_of
from audit.nextcloud.samehost import FILES, VERSIONS, Host, HostFirst, Row, is_file, to_node
from audit.nextcloud.share import Rest, held_by
from audit.nextcloud.values import Node, Reading, Session, Version
from audit.scanning import Job, Stopped
from verifier.errors import Error

WORKERS = 2  # threads that hash; one, where the machine is shared
BATCH = 100  # files in one transaction: the next ones are hashed meanwhile
COMMIT_S = 2.0  # a batch waits no longer, however large its files are
NAP_S = 0.2  # so long a throttled wait does not hear that it has to stop
_OLD = re.compile(r"(.+)\.v([0-9]{1,18})", re.DOTALL)


class Caught(NamedTuple):
    """A file with what was read of it; `look` is None where the disk could not tell."""

    user: str
    node: Node
    look: Look | None


class _Plan(NamedTuple):
    """A file that is to be read: its current content first, then one for each old version."""

    user: str
    row: Row
    versions: tuple[Version, ...]
    parts: tuple[Seen | Problem, ...]


def host_of(sessions: Sequence[Session]) -> Host | None:
    """The machine that these sessions read on, where it is this one."""
    return next((session.host for session in sessions if isinstance(session, HostFirst)), None)


def read_homes(
    host: Host,
    homes: Mapping[int, str],
    skip: Callable[[int, int, Sequence[Row]], Collection[int]] = lambda first, last, files: (),
    before: Callable[[int], object] = lambda size: None,
    advance: Callable[[int], object] = lambda count: None,
    idle: Callable[[], object] = lambda: None,
    workers: int = WORKERS,
) -> Iterator[list[Caught]]:
    """Every file of these homes by rising file id, in batches.

    `skip` says which of a page's files to pass over, `before` is told the bytes of a file that is next to be read, and
    may wait; `advance` and `idle` are those of `hashing.hash_files`.
    """
    waiting: deque[_Plan] = deque()

    def parts() -> Iterator[Seen | Problem]:
        for plan in _plan_all(host, homes, skip):
            before(sum(part.size for part in plan.parts if isinstance(part, Seen)))
            waiting.append(plan)
            yield from plan.parts

    done: list[tuple[_Plan, list[Hashed | Problem]]] = []
    got: list[Hashed | Problem] = []
    since = time.monotonic()
    with closing(hashing.hash_files(host.root, parts(), workers, advance, idle)) as results:
        for result in results:
            got.append(result)
            if len(got) < len(waiting[0].parts):
                continue
            done.append((waiting.popleft(), got))
            got = []
            if len(done) == BATCH or time.monotonic() - since >= COMMIT_S:
                yield _settle(host, done)
                done, since = [], time.monotonic()
    if done:
        yield _settle(host, done)


# -- what to read ---------------------------------------------------------------------------------------------------


def _plan_all(
    host: Host, homes: Mapping[int, str], skip: Callable[[int, int, Sequence[Row]], Collection[int]]
) -> Iterator[_Plan]:
    after = 0
    while page := host.page(after):
        first, after = page[0].file_id, page[-1].file_id
        files = [row for row in page if row.storage in homes and is_file(row)]
        passed = skip(first, after, files)
        wanted = [row for row in files if row.file_id not in passed]
        said = host.versions_of([row.file_id for row in wanted]) if wanted else {}
        folders = _OldVersions(host)  # for this page alone: what is listed has to be younger than the rows
        for row in wanted:
            yield _plan(host, homes[row.storage], row, said.get(row.file_id, []), folders)


def _plan(host: Host, user: str, row: Row, said: Sequence[Version], folders: _OldVersions) -> _Plan:
    try:
        current = host.seen(user, row)
        versions, parts = _versions(host, user, row, said, folders)
    except (TryLater, PeerFailed, OSError) as error:
        return _Plan(user, row, (), (Problem(row.path, "changing", str(error)),))
    return _Plan(user, row, versions, (current, *parts))


def _versions(
    host: Host, user: str, row: Row, said: Sequence[Version], folders: _OldVersions
) -> tuple[tuple[Version, ...], list[Seen | Problem]]:
    """The list as WebDAV would give it, without the current content; and where the bytes are."""
    rows_of = {version.mtime: version for version in said}
    versions: list[Version] = []
    parts: list[Seen | Problem] = []
    for mtime in folders.of(user, row.path):
        if mtime == row.mtime:
            continue
        seen = hashing.find_file(host.root, f"{user}/{VERSIONS}/{row.path.removeprefix(FILES + '/')}.v{mtime}")
        if seen is None:
            raise TryLater(f"{row.path}: version {mtime} went while it was looked for")
        versions.append(rows_of.get(mtime) or Version(str(mtime), mtime, seen.size, ""))
        parts.append(seen)
    if (current := rows_of.get(row.mtime)) is not None:  # has the author; its bytes are the file's
        versions.append(current)
    return tuple(versions), parts


class _OldVersions:
    """Which old versions of files there are: each folder of files_versions is listed once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._found: dict[str, dict[str, list[int]]] = {}

    def of(self, user: str, path: str) -> list[int]:
        """The mtimes of a file's old versions, rising."""
        folder, _, name = path.rpartition("/")
        place = f"{user}/{VERSIONS}{folder.removeprefix(FILES)}"
        if place not in self._found:
            self._found[place] = self._list(place)
        return sorted(self._found[place].get(name, ()))

    def _list(self, place: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        try:
            fd = hashing.open_directory(self._host.root, place)
        except OSError as error:
            if hashing.is_gone(error):
                return found
            raise
        try:
            names = [os.fsencode(name).decode("utf-8", "surrogateescape") for name in os.listdir(fd)]
        finally:
            os.close(fd)
        for name in names:
            if (old := _OLD.fullmatch(name)) and str(int(old[2])) == old[2]:
                found.setdefault(old[1], []).append(int(old[2]))
        return found


# -- what was read --------------------------------------------------------------------------------------------------


def _settle(host: Host, done: Sequence[tuple[_Plan, list[Hashed | Problem]]]) -> list[Caught]:
    """Only what the database describes as before counts."""
    now = host.rows_of([plan.row.file_id for plan, _ in done])
    settled = []
    for plan, results in done:
        node, row = to_node(plan.row, plan.user), plan.row
        try:
            if now.get(row.file_id) != row:
                raise TryLater(f"{row.path}: changed while it was read")
            look = _look(host, plan, node, results)
        except (TryLater, PeerFailed):
            look = None
        settled.append(Caught(plan.user, node, look))
    return settled


def _look(host: Host, plan: _Plan, node: Node, results: Sequence[Hashed | Problem]) -> Look:
    reading = host.judge(plan.user, plan.row, results[0])
    readings: dict[str, Reading | None] = {}
    for version, result in zip(plan.versions, results[1:], strict=False):  # the current one has no bytes of its own
        if isinstance(result, Problem):
            raise TryLater(f"{result.path}: {result.detail}")
        host.refuse_ciphertext(result.seen.path)
        readings[version.version_id] = Reading(result.seen.size, result.digest)
    return Look(node, reading, plan.versions, readings, predates=True)


# -- recording ------------------------------------------------------------------------------------------------------


class CatchUp:
    """One catch-up of some users' homes, in the caller's thread. `stop` may be called from any other."""

    def __init__(
        self,
        job: Job,
        source: int,
        host: Host,
        users: Collection[str],
        limits: Limits,
        counts: dict[str, int],
        monotonic: Callable[[], float] = time.monotonic,
        nap: Callable[[float], object] = time.sleep,
    ) -> None:
        self._job, self._source, self._host, self._counts = job, source, host, counts
        self._homes = host.homes(users)
        self._monotonic, self._nap = monotonic, nap
        self._throttle, self._stop = Throttle(limits.rate, monotonic), threading.Event()
        self._rest = Rest(limits.share, monotonic, nap, self._stop.is_set)
        self._files = self._bytes = 0
        self._total = (0, 0)
        self._lock = threading.Lock()

    def run(self) -> None:
        """Everything of these homes is recorded or queued when it returns."""
        self._total = self._host.measure(list(self._homes)) if self._homes else (0, 0)
        self._report()
        workers = WORKERS if self._rest.part >= 1 else 1
        hooks = self._skip, self._wait, self._read, self._report
        for batch in read_homes(self._host, self._homes, *hooks, workers):
            self._files += len(batch)
            self._record(batch)
            self._report()
        self._report()

    def stop(self) -> None:
        """Ends it soon, with Stopped."""
        self._stop.set()

    def _skip(self, first: int, last: int, files: Sequence[Row]) -> Collection[int]:
        """What is known already, from before a crash or by an event."""
        known = rows.list_ids(self._job.store.reader(), self._source, first, last)
        passed = [row for row in files if row.file_id in known]
        self._files += len(passed)
        self._advance(sum(row.size for row in passed))
        return known

    def _wait(self, size: int) -> None:
        self._rest()
        until = self._monotonic() + self._throttle.delay(1, size)
        while (left := until - self._monotonic()) > 0:
            self._nap(min(left, NAP_S))
            self._report()

    def _read(self, count: int) -> None:
        self._advance(count)
        self._rest()

    def _advance(self, count: int) -> None:
        with self._lock:  # called from the workers
            self._bytes += count

    def _report(self) -> None:
        if self._stop.is_set():
            raise Stopped
        if self._job.progress is not None:
            files, size = self._total
            held = held_by(self._rest.part)
            self._job.progress(
                Progress(self._files, max(files, self._files), self._bytes, max(size, self._bytes), held)
            )

    def _record(self, batch: Sequence[Caught]) -> None:
        """In one transaction; where one is refused, each in its own, and a look has to tell why."""
        store, now = self._job.store, int(self._job.clock())
        with store.lock:  # else an event's look could begin a chain in between
            with store.snapshot() as conn:
                told = find_all_current(conn, self._source, [caught.node.file_id for caught in batch])
            looks = [(c.user, c.look) for c in batch if c.look is not None and c.node.file_id not in told]
            hints = [
                Hint(c.node.file_id, c.user, c.node.path, True)
                for c in batch
                if c.look is None or c.node.file_id in told
            ]
            observations = [step for user, look in looks for step in self._observe(user, look)]

            def remember(conn: sqlite3.Connection) -> None:
                rows.put_known(conn, self._source, [known_of(look, user, user, now) for user, look in looks])
                rows.add(conn, self._source, hints, now)

            try:
                self._job.recorder.record(observations, remember)
            except (Refused, Error):
                if not looks:
                    raise
                for caught in batch:
                    self._record([caught if len(batch) > 1 else caught._replace(look=None)])
                return
        for observation in observations:
            word = observation.operation.word
            self._counts[word] = self._counts.get(word, 0) + 1

    def _observe(self, user: str, look: Look) -> list[Observation]:
        assert look.node is not None
        steps = conclude(None, NOTHING, look)
        return [Observation(self._source, look.node.file_id, *step, user=user) for step in steps]
