"""Following admin_audit's audit.log on the same host: its lines become hints, each read at least once.

    DIR/audit-log.json     {"path":"/srv/nextcloud/data/audit.log","inode":"131","offset":"4711"}

    tail = Tail(directory, "/srv/nextcloud/data/audit.log")
    await tail.follow(inbox)                     looks for new lines EVERY_S, until it is cancelled

A place is kept once the hints of all lines before it are in the queue, durably: a crash between the two reads a few
lines again, which does no harm. A last line without a line feed waits for its end. Where the file was moved away, the
rest of it is read as PATH.1 if it is there (Nextcloud and logrotate both call it so), then the new one from its start;
a file that became shorter is a new one. The first time, it begins at the end: the first scan sees all there is.

By default Nextcloud logs warnings alone, and the file stays empty: `log.condition` has to name admin_audit.

Lines that are no events, or none that can be read, are passed over: the scans find what they may have said.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from audit.errors import AuditError, Fatal
from audit.nextcloud.hints import MAX_EVENT, Hint, parse_audit_line
from verifier.canonical import members, parse_object
from verifier.encoding import check_text, decode_decimal
from verifier.errors import Error, Malformed, Usage
from verifier.files import read_bounded, write_atomic

STATE = "audit-log.json"
MAX_STATE = 16 * 1024
MAX_PATH = 4_096
EVERY_S = 0.5
CHUNK = 1 << 20  # bytes that are read, and whose hints are queued, at once
ROTATED = ".1"


class Taker(Protocol):
    """Whoever puts hints on disk before it returns: `inbox.Inbox`."""

    def add_now(self, hints: list[Hint]) -> None: ...


class Place(NamedTuple):
    """Up to where a file was read."""

    inode: int
    offset: int


class Tail:
    """One audit.log, followed. `skipped`: lines that could not be read."""

    def __init__(self, directory: str, path: str) -> None:
        self.path = os.path.abspath(path)
        self.skipped = 0
        self._state = os.path.join(directory, STATE)
        self._place = self._read_state()
        if self._place is None:
            status = _stat(self.path)
            if status is None:
                raise Usage(f"audit log: {self.path} cannot be read: is admin_audit enabled, and this the right user?")
            self._keep(Place(status.st_ino, status.st_size))

    async def follow(self, taker: Taker, say: Callable[[str], object]) -> None:
        """Until it is cancelled. What fails is said, and tried again from the same place."""
        said = ""
        while True:
            try:
                await asyncio.to_thread(self.read_on, taker)
                said = ""
            except Fatal:
                raise
            except (AuditError, Error, OSError) as error:
                if said != (said := str(error)):
                    say(f"audit log: {said}")
            await asyncio.sleep(EVERY_S)

    def read_on(self, taker: Taker) -> None:
        """Reads what is there by now, to its end."""
        assert self._place is not None
        status = _stat(self.path)
        if status is None:
            return  # between two files
        if status.st_ino != self._place.inode:
            rotated = _stat(self.path + ROTATED)
            if rotated is not None and rotated.st_ino == self._place.inode:
                self._read_file(self.path + ROTATED, taker)
            self._keep(Place(status.st_ino, 0))
        elif status.st_size < self._place.offset:
            self._keep(Place(status.st_ino, 0))
        self._read_file(self.path, taker)

    def _read_file(self, path: str, taker: Taker) -> None:
        """Whole lines, as many as there are."""
        assert self._place is not None
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_ino != self._place.inode:
                return  # moved away just now: the next round
            file.seek(self._place.offset)
            while chunk := file.read(CHUNK):
                end = chunk.rfind(b"\n") + 1
                if not end and len(chunk) < CHUNK:
                    return
                if not end:  # a line of this length is no event: it is passed over, piece by piece
                    end = len(chunk)
                taker.add_now(self._hints(chunk[:end]))
                self._keep(Place(self._place.inode, self._place.offset + end))
                file.seek(self._place.offset)

    def _hints(self, data: bytes) -> list[Hint]:
        found: list[Hint] = []
        for line in data.removesuffix(b"\n").split(b"\n"):
            try:
                found += parse_audit_line(line) if len(line) <= MAX_EVENT else []
            except Malformed:
                self.skipped += 1
        return found

    # -- what is remembered --

    def _read_state(self) -> Place | None:
        if not os.path.lexists(self._state):
            return None
        value = parse_object(read_bounded(self._state, MAX_STATE, STATE), STATE)
        path, inode, offset = members(value, STATE, "path", "inode", "offset")
        if check_text(path, STATE, MAX_PATH) != self.path:
            return None  # another file from now on
        return Place(decode_decimal(inode, "inode"), decode_decimal(offset, "offset"))

    def _keep(self, place: Place) -> None:
        state = {"path": self.path, "inode": str(place.inode), "offset": str(place.offset)}
        write_atomic(self._state, json.dumps(state, ensure_ascii=False).encode("utf-8"))
        self._place = place


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
