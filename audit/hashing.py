"""Reading files below a root, without following a link, and hashing them while they may change.

    root = open_root("/srv/letters")
    match hash_file(root, seen):
        case Hashed(seen, digest): ...      # digest is SHA3-256 of the file that has exactly this stat
        case Problem(path, reason, _): ...  # nothing is known about the bytes, and why

A digest counts only when the stat before and after the reading is the same in inode, size, mtime and
ctime; a file that moves on under each of MAX_READ_TRIES readings is left for the next scan. Two writes within
one tick of the kernel's clock can leave the same ctime, so a file that was changed in the running tick is read
one tick later: whatever is written after the reading has a later ctime, and the next scan looks again.

Paths are text, relative to the root, with `/` between names; every name on the way is opened on its own
with O_NOFOLLOW, so that nobody who may write in the folder can lead the reading out of it, and so that paths
beyond the kernel's PATH_MAX work. Everything is opened for reading only, and access times are left alone where
the kernel permits. Names are UTF-8 whatever the locale says.

Not seen here: writes through a mapping that the kernel has not stamped yet, and file systems whose clock is
coarser than a tick or is another machine's. A full scan reads every byte again and finds both.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from errno import ELOOP, ENOENT, ENOTDIR
from hashlib import sha3_256
from stat import S_ISREG
from threading import Event
from typing import NamedTuple

MAX_READ_TRIES = 3
CHUNK = 1 << 20  # bytes per read; larger ones measure the same
BATCH_FILES = 64  # files per task, so that small files do not pay for the queue one by one
BATCH_BYTES = 8 << 20  # a task takes no further file beyond this
MAX_QUEUED = 256  # tasks started and not yet taken: about 16,000 small results wait behind one huge file
WAIT_S = 0.2  # how long a wait for a task may keep `idle` from being called

CLOCK_REALTIME_COARSE = 5  # linux/time.h: the clock that stamps files; the time module has no name for it
TICK_NS = 10_000_000  # the longest tick of Linux, HZ = 100
TICK_WAITS = 20  # naps of 1 ms: two of the longest ticks, then the file is read all the same

_GONE = (ENOENT, ENOTDIR, ELOOP)  # ELOOP and ENOTDIR: a link or a file now stands where a directory was
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW  # a directory to pass through: needs no right to list it
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NONBLOCK: a pipe that took the file's place must not hold us
_LIST = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY


class Seen(NamedTuple):
    """A regular file as `lstat` shows it."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Problem(NamedTuple):
    """Something that is not covered. `reason` is a stable word, `detail` is for people; the root's path is empty."""

    path: str
    reason: str
    detail: str


class Hashed(NamedTuple):
    """The digest of a file's bytes, and the stat that held before and after they were read."""

    seen: Seen
    digest: bytes


class _Stopped(Exception):
    """Leaves a reading that nobody waits for any more."""


def _ignore(_: int = 0) -> None:
    pass


def seen_from_stat(path: str, stat: os.stat_result) -> Seen:
    return Seen(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def is_gone(error: OSError) -> bool:
    """Says that nothing can be at this path, as opposed to: it could not be looked at."""
    return error.errno in _GONE


def open_root(root: str) -> int:
    """Opens the source's own directory; links on the way to it are the administrator's and are followed."""
    return _open(os.fsencode(root), os.O_RDONLY | os.O_DIRECTORY, None)


def open_directory(root: int, path: str) -> int:
    """Opens a directory below the root for listing; an empty path is the root itself."""
    with _Way(root, path or ".") as (parent, name):
        return _open(name, _LIST, parent)


def open_file(root: int, path: str) -> int:
    """Opens a file below the root for reading, through no link."""
    with _Way(root, path) as (parent, name):
        return _open(name, _FILE, parent)


def find_file(root: int, path: str) -> Seen | None:
    """What is at `path` now, or None when no regular file is; raises OSError when that can't be told."""
    try:
        with _Way(root, path) as (parent, name):
            stat = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if is_gone(error):
            return None
        raise
    return seen_from_stat(path, stat) if S_ISREG(stat.st_mode) else None


def hash_file(root: int, seen: Seen, advance: Callable[[int], object] = _ignore) -> Hashed | Problem:
    """Reads and hashes the file; the Seen that comes back is newer where the file was changed since.

    Success means: the bytes hashed are the bytes that a file with exactly this stat had. `advance` is told
    the number of bytes after each read, and may raise to stop.
    """
    path = seen.path
    try:
        for _ in range(MAX_READ_TRIES):
            hashed = _read_once(root, path, advance)
            if hashed is not None:
                return hashed
    except OSError as error:
        return Problem(path, "vanished" if is_gone(error) else "unreadable", describe(error))
    return Problem(path, "changing", f"changed during each of {MAX_READ_TRIES} readings")


def hash_files(
    root: int,
    files: Iterable[Seen | Problem],
    workers: int = 2,
    advance: Callable[[int], object] = _ignore,
    idle: Callable[[], object] = _ignore,
) -> Generator[Hashed | Problem, None, None]:
    """Hashes in `workers` threads, results in the order of `files`, which is taken only as far as needed.

    What is a problem already keeps its place.
    hashlib and read release the interpreter's lock. `advance` is called from the workers, `idle` from the
    caller's thread while it waits. Closing the generator ends the workers within one chunk.
    """
    stop = Event()

    def advance_or_stop(count: int) -> None:
        if stop.is_set():
            raise _Stopped
        advance(count)

    def run(batch: list[Seen | Problem]) -> list[Hashed | Problem]:
        return [seen if isinstance(seen, Problem) else hash_file(root, seen, advance_or_stop) for seen in batch]

    queue: deque[Future[list[Hashed | Problem]]] = deque()
    with ThreadPoolExecutor(workers, "hash") as pool:
        try:
            for batch in _batches(files):
                queue.append(pool.submit(run, batch))
                while queue and (len(queue) > MAX_QUEUED or queue[0].done()):
                    yield from _wait(queue.popleft(), idle)
            while queue:
                yield from _wait(queue.popleft(), idle)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def describe(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


class _Way:
    """Opens each directory on the way to a path; gives (directory, last name) and closes it afterwards."""

    __slots__ = ("fd", "path", "root")

    def __init__(self, root: int, path: str) -> None:
        self.root, self.path, self.fd = root, path, root

    def __enter__(self) -> tuple[int, bytes]:
        *way, name = self.path.encode("utf-8").split(b"/")
        try:
            for step in way:
                below = os.open(step, _WAY, dir_fd=self.fd)
                self.__exit__()
                self.fd = below
        except OSError:
            self.__exit__()
            raise
        return self.fd, name

    def __exit__(self, *_: object) -> None:
        if self.fd != self.root:
            os.close(self.fd)
            self.fd = self.root


def _open(name: bytes, flags: int, parent: int | None) -> int:
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=parent)
    except PermissionError:  # O_NOATIME is for the owner and root
        return os.open(name, flags, dir_fd=parent)


def _read_once(root: int, path: str, advance: Callable[[int], object]) -> Hashed | None:
    """One reading, or None when the file was not the same before and after it."""
    fd = open_file(root, path)
    try:
        stat = os.fstat(fd)
        if not S_ISREG(stat.st_mode):
            raise FileNotFoundError(ENOENT, "no longer a regular file")
        before = seen_from_stat(path, stat)
        _let_tick_pass(before.ctime_ns)
        digest = _digest(fd, before.size, advance)
        after = seen_from_stat(path, os.fstat(fd))
    finally:
        os.close(fd)
    return Hashed(before, digest) if digest is not None and after == before else None


def _let_tick_pass(ctime_ns: int) -> None:
    """Returns once a write would get a later ctime than this one (a stamp of the far future is not waited for)."""
    for _ in range(TICK_WAITS):
        if not 0 <= ctime_ns - time.clock_gettime_ns(CLOCK_REALTIME_COARSE) < TICK_NS:
            return
        time.sleep(0.001)


def _digest(fd: int, size: int, advance: Callable[[int], object]) -> bytes | None:
    """SHA3-256 if there are exactly `size` bytes, else None. Reads at most one more: a growing file has an end."""
    state = sha3_256()
    left = size + 1
    while left and (chunk := os.read(fd, min(left, CHUNK))):
        state.update(chunk)
        left -= len(chunk)
        advance(len(chunk))
    return state.digest() if left == 1 else None


def _batches(files: Iterable[Seen | Problem]) -> Iterator[list[Seen | Problem]]:
    batch: list[Seen | Problem] = []
    size = 0
    for seen in files:
        batch.append(seen)
        size += 0 if isinstance(seen, Problem) else seen.size
        if len(batch) == BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _wait(task: Future[list[Hashed | Problem]], idle: Callable[[], object]) -> list[Hashed | Problem]:
    while True:
        idle()
        try:
            return task.result(WAIT_S)
        except TimeoutError:
            if task.done():  # the task's own TimeoutError, not the end of our wait
                raise
