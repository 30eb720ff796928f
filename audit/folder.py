"""Any directory tree as a source: what is on disk, against what was recorded last, gives the operations.

    for item in scan("/srv/letters", known, full=False, first=False):
        Change("moved", known=Known(7, "draft.odt", ...), seen=Seen("final.odt", ...), digest=...)
        Problem("link", "symlink", "not followed")

The source keeps no state and writes nothing. `known` holds what the recorder stored last, by path; a Change
carries what it needs for the entry and for the row that takes the old one's place. The rules, in this order:

    same path, inode      same size and mtime, other bytes       altered (no operation did that)
    same path             other bytes                            written (editors save by rename)
                          same bytes, other mtime                touched
                          same bytes, only ctime/inode/device    seen (new row, no entry)
    a recorded file that left its path, and exactly one other path has its device and inode,
                          with the same bytes and mtime          moved
    new path              in the first scan                      adopted
                          else                                   created
    nothing at the path                                          deleted

A move says more than `deleted` and `created` do, so it has to be the only explanation: where several paths
shared or share the inode (hard links), or where the mtime differs (a freed inode was given to a new file), it is not
said. A file that another one was moved over is deleted. A first scan, also one that is resumed, knows no moves. The
device counts for moves only, because its number can change when the machine starts.

Nothing is concluded about what could not be looked at: below an unreadable directory, on another file system
(never entered), under an excluded path, or in a file that would not hold still, the records stay as they are, and a
Problem says so (an excluded path is skipped silently). Links and special files were looked at: what was recorded
at such a path is gone. A path counts as deleted only if `lstat`, after the walk, finds no file there; a file
that is moved while the walk runs can be missed at both its paths, and reads deleted, then created.

Reasons: root, unreadable, symlink, special, name (not UTF-8; shown with escapes), too-long, other-filesystem,
changing, vanished. A move cycle (a <-> b) has no order in which paths stay unique: store by file id, all moves of
a scan in one transaction.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import closing
from stat import S_ISDIR, S_ISLNK, S_ISREG
from threading import Lock
from typing import NamedTuple

from audit import hashing
from audit.hashing import Problem, Seen, describe, hash_file
from verifier.entry import MAX_PATH

__all__ = ["Change", "Known", "Problem", "Progress", "Seen", "hash_file", "needs_hash", "plan_changes", "scan", "walk"]

PROGRESS_S = 0.2  # at most one report in this time
_UNCLEAR = frozenset(("unreadable", "other-filesystem", "changing"))  # reasons: not looked at, nothing concluded


class Known(NamedTuple):
    """What was recorded last about a live file; between file id and digest, the fields of Seen."""

    file_id: int
    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes


class Change(NamedTuple):
    """One operation; `seen` and `digest` are None when deleted, `known` when created or adopted."""

    operation: str
    known: Known | None
    seen: Seen | None
    digest: bytes | None


class Progress(NamedTuple):
    """How far a scan is. `files_total` is None while the walk runs; `bytes_total` is what it found to hash so far."""

    files_seen: int
    files_total: int | None
    bytes_hashed: int
    bytes_total: int
    held: str = ""  # what holds it back on purpose, in words


def walk(root: int, exclude: Container[str] = ()) -> Iterator[Seen | Problem]:
    """Every file below the open directory `root` (`hashing.open_root`), sorted by path; `exclude` is relative."""
    device = os.fstat(root).st_dev
    levels = [iter(_list_directory(root, "", device, exclude))]
    while levels:
        item = next(levels[-1], None)
        if item is None:
            levels.pop()
        elif isinstance(item, str):
            levels.append(iter(_list_directory(root, item, device, exclude)))
        else:
            yield item


def needs_hash(known: Known | None, seen: Seen, full: bool = False) -> bool:
    """Whether the bytes must be read: always in a full scan, else where path, inode, size, mtime or ctime is new."""
    return full or known is None or known[3:7] != seen[2:]  # all but the device


def plan_changes(
    known: Mapping[str, Known],
    seen: Iterable[Seen],
    digests: Mapping[str, bytes],
    *,
    first: bool = False,
    unclear: Collection[str] = (),
) -> list[Change]:
    """The operations that lead from `known` to `seen`: deleted, then moved, then the others, each sorted by path.

    `digests` has the digest of each seen path for which `needs_hash` holds. Nothing is concluded about the
    paths in `unclear` and what is below them; none of them is in `seen`.
    """
    found = {s.path: s for s in seen}
    left = [k for k in known.values() if not _stays(k, found.get(k.path)) and not _is_below(k.path, unclear)]
    moves = {} if first else _match_moves(known, left, found, digests)
    moved = {k.path for k in moves.values()}

    deleted = [k for k in left if k.path not in moved and (k.path in moves or k.path not in found)]
    changes = [Change("deleted", k, None, None) for k in sorted(deleted, key=lambda k: k.path)]
    changes += [Change("moved", moves[path], found[path], digests[path]) for path in sorted(moves)]
    for path in sorted(found.keys() - moves.keys()):
        if path in moved or path not in known:
            changes.append(Change("adopted" if first else "created", None, found[path], digests[path]))
        elif change := _compare(known[path], found[path], digests.get(path)):
            changes.append(change)
    return changes


def scan(
    root: str,
    known: Mapping[str, Known],
    *,
    full: bool = False,
    first: bool = False,
    exclude: Iterable[str] = (),
    progress: Callable[[Progress], object] | None = None,
    workers: int = 2,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Change | Problem]:
    """Walks and hashes; yields the problems sorted by path, then the plan (see `plan_changes`).

    In a first scan each adopted file comes before those, as soon as it is hashed and still sorted by path, so that
    it can be recorded at once and an interrupted scan goes on where it was. A root that cannot be opened, or that
    is empty on another device than recorded (not mounted), is the one Problem and nothing is concluded.
    """
    try:
        directory = hashing.open_root(root)
    except OSError as error:
        yield Problem("", "root", describe(error))
        return
    try:
        skipped = frozenset(_relative_paths(root, exclude))
        if "" in skipped:
            yield Problem("", "root", "is excluded")
        else:
            known = dict(known) if first else known  # the caller may store what was adopted while this runs
            yield from _scan(directory, known, full, first, skipped, _Meter(progress, clock), workers)
    finally:
        os.close(directory)


def _scan(
    root: int, known: Mapping[str, Known], full: bool, first: bool, skipped: frozenset[str], meter: _Meter, workers: int
) -> Iterator[Change | Problem]:
    found: list[Seen] = []
    digests: dict[str, bytes] = {}
    problems: list[Problem] = []

    def files_to_hash() -> Iterator[Seen]:
        for item in walk(root, skipped):
            if isinstance(item, Problem):
                problems.append(item)
                continue
            row = known.get(item.path)
            wanted = needs_hash(row, item, full)
            meter.saw(item.size if wanted else 0)
            if wanted:
                yield item
            else:  # the row's own strings and numbers, so that an unchanged file costs one tuple
                found.append(Seen(*row[1:7]) if row and row.device == item.device else item)
        meter.walked()

    with closing(hashing.hash_files(root, files_to_hash(), workers, meter.advance, meter.report)) as results:
        for result in results:
            if isinstance(result, Problem):
                problems.append(result)
            elif first and result.seen.path not in known:
                yield Change("adopted", None, *result)
            else:
                found.append(result.seen)
                digests[result.seen.path] = result.digest
    meter.report(last=True)

    problems, unclear = _settle(root, known, {s.path for s in found}, problems, skipped)
    if known and not meter.files_seen and os.fstat(root).st_dev not in {k.device for k in known.values()}:
        yield Problem("", "root", "empty, and on another device than what was recorded: is it mounted?")
        return
    yield from sorted(problems)
    yield from plan_changes(known, found, digests, first=first, unclear=unclear)


def _list_directory(root: int, path: str, device: int, exclude: Container[str]) -> list[Seen | Problem | str]:
    """What is in one directory, sorted so that a walk is sorted by whole paths; a str is a directory to enter."""
    try:
        directory = hashing.open_directory(root, path)
        try:
            with os.scandir(directory) as entries:
                items = [_look_at(entry, path, device, exclude) for entry in entries]
        finally:
            os.close(directory)
    except OSError as error:  # a listing that breaks off counts as none at all
        gone = path and hashing.is_gone(error)
        return [] if gone else [Problem(path, "unreadable", describe(error))]
    return sorted(filter(None, items), key=lambda item: item + "/" if isinstance(item, str) else item.path)


def _look_at(entry: os.DirEntry[str], parent: str, device: int, exclude: Container[str]) -> Seen | Problem | str | None:
    name = os.fsencode(entry.name)
    above = parent + "/" if parent else ""
    try:
        path = above + name.decode("utf-8")
    except UnicodeDecodeError:
        return Problem(above + name.decode("utf-8", "backslashreplace"), "name", "not UTF-8")
    if len(path.encode("utf-8")) > MAX_PATH:
        return Problem(path, "too-long", f"path of more than {MAX_PATH} bytes")
    if path in exclude:
        return None
    try:
        stat = entry.stat(follow_symlinks=False)
    except OSError as error:
        return None if hashing.is_gone(error) else Problem(path, "unreadable", describe(error))
    if S_ISREG(stat.st_mode):
        return hashing.seen_from_stat(path, stat)
    if S_ISDIR(stat.st_mode):
        return path if stat.st_dev == device else Problem(path, "other-filesystem", "a mount point, not entered")
    if S_ISLNK(stat.st_mode):
        return Problem(path, "symlink", "not followed")
    return Problem(path, "special", "neither a file nor a directory")


def _settle(
    root: int, known: Mapping[str, Known], here: Collection[str], problems: list[Problem], skipped: frozenset[str]
) -> tuple[list[Problem], set[str]]:
    """Looks once more at each path that nothing was found at; gives the problems that stay, and the unclear paths."""
    unclear = {*skipped, *(p.path for p in problems if p.reason in _UNCLEAR)}
    missing = {path for path in known if path not in here and not _is_below(path, unclear)}
    missing |= {p.path for p in problems if p.reason == "vanished"}
    settled = [p for p in problems if p.reason != "vanished"]
    for path in missing:
        try:
            if hashing.find_file(root, path) is None:
                continue
            problem = Problem(path, "vanished", "came or went while the scan ran")
        except OSError as error:
            problem = Problem(path, "unreadable", describe(error))
        settled.append(problem)
        unclear.add(path)
    return settled, unclear


def _match_moves(
    known: Mapping[str, Known], left: list[Known], found: Mapping[str, Seen], digests: Mapping[str, bytes]
) -> dict[str, Known]:
    """New path -> the file that was moved there: one holder of the inode before, one now, nothing else fits."""
    before: dict[tuple[int, ...], list[Known]] = {k[2:4]: [] for k in left}
    after: dict[tuple[int, ...], list[Seen]] = {key: [] for key in before}
    for k in known.values():
        if k[2:4] in before:
            before[k[2:4]].append(k)
    for s in found.values():
        if s[1:3] in after:
            after[s[1:3]].append(s)
    moves = {}
    for key, olds in before.items():
        if len(olds) == len(after[key]) == 1:
            old, new = olds[0], after[key][0]
            is_same = old.mtime_ns == new.mtime_ns and old.digest == digests.get(new.path)
            occupant = known.get(new.path)
            if is_same and not (occupant and _stays(occupant, new)):
                moves[new.path] = old
    return moves


def _compare(known: Known, seen: Seen, digest: bytes | None) -> Change | None:
    """What happened to the file at its own path; no digest means that nothing asked for one."""
    if digest is None or digest == known.digest:
        if known[1:7] == seen:
            return None
        return Change("seen" if known.mtime_ns == seen.mtime_ns else "touched", known, seen, known.digest)
    is_silent = (known.inode, known.size, known.mtime_ns) == (seen.inode, seen.size, seen.mtime_ns)
    return Change("altered" if is_silent else "written", known, seen, digest)


def _stays(known: Known, seen: Seen | None) -> bool:
    return seen is not None and known.path == seen.path and known.inode == seen.inode


def _is_below(path: str, places: Collection[str]) -> bool:
    """Whether `path` or a directory above it is among `places`; the root's own path is empty."""
    while places and path not in places:
        if not path:
            return False
        path = path.rpartition("/")[0]
    return bool(places)


def _relative_paths(root: str, exclude: Iterable[str]) -> Iterator[str]:
    """The excluded paths that are below the root, relative to it; empty for the root and what is above it."""
    top = os.path.realpath(root)
    for path in map(os.path.realpath, exclude):
        if os.path.commonpath((top, path)) == path:
            yield ""
        elif os.path.commonpath((top, path)) == top:
            yield os.fsencode(os.path.relpath(path, top)).decode("utf-8", "backslashreplace")


class _Meter:
    """Counts, and reports in the caller's thread."""

    def __init__(self, progress: Callable[[Progress], object] | None, clock: Callable[[], float]) -> None:
        self.progress, self.clock, self.due = progress, clock, clock() + PROGRESS_S
        self.files_seen = self.bytes_hashed = self.bytes_total = 0
        self.files_total: int | None = None
        self.lock = Lock()

    def saw(self, size: int) -> None:
        self.files_seen += 1
        self.bytes_total += size
        self.report()

    def walked(self) -> None:
        self.files_total = self.files_seen

    def advance(self, count: int) -> None:
        with self.lock:  # called from the workers
            self.bytes_hashed += count

    def report(self, last: bool = False) -> None:
        if self.progress and (last or self.clock() >= self.due):
            self.due = self.clock() + PROGRESS_S
            hashed = min(self.bytes_hashed, self.bytes_total)  # a second reading counts twice
            self.progress(Progress(self.files_seen, self.files_total, hashed, self.bytes_total))
