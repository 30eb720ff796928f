"""The edge to the state directory: what `verifier.state` describes, read and written on disk, under a lock.

    home = Home("seed.txt.state")
    with home.lock():                          # read, verify, write: one process at a time
        log = home.read_log(name)              # None: there is none; a damaged one raises, and is never replaced
        home.write_log(log._replace(checkpoint=note))

Only a file that does not exist counts as "nothing remembered". One that cannot be read, or is not what its name says,
is an error with advice: treated as absent, it would let a server show an older past to whoever can damage a file.

Every file is replaced as a whole (`files.write_atomic`), so a crash leaves the old memory or the new one. The lock is
the system's lock on the file `lock` and goes with the process that holds it; nothing has to be cleaned up.

A state refuses to live in a folder that another program synchronises: an older copy of it, brought back from another
machine, would forget what was seen.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from verifier import state
from verifier.errors import Malformed, Usage
from verifier.files import is_inside_synced_folder, read_bounded, write_atomic, write_secret_new
from verifier.state import FileState, LocalState, LogState, PathState

SUFFIX = ".state"  # the state (SPEC 10) of SEEDFILE is SEEDFILE.state
LOCK_WAIT_S = 30.0
LOCK_STEP_S = 0.05
MAX_LOGS = 1_024  # that one state may know
DIRECTORY_MODE = 0o700

_T = TypeVar("_T")


class Home:
    """A state directory. Making one touches nothing; writing to it creates it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        synced = is_inside_synced_folder(directory)
        if synced:
            raise Usage(f"state: {synced}; an older copy would forget what was seen: choose another place with --state")

    def lock(self) -> Lock:
        self._make(self.directory)
        return Lock(os.path.join(self.directory, "lock"))

    # -- reading ------------------------------------------------------------------------------------------------

    def logs(self) -> list[LogState]:
        """Every log that this state knows, by name."""
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Usage(f"state: cannot read {self.directory!r}: {error.strerror}") from None
        known = [name for name in names if len(name) == state.LOG_DIGITS and set(name) <= set("0123456789abcdef")]
        found = [self._read(state.MAX_LOG_STATE, state.parse_log, name, "log.json") for name in known[:MAX_LOGS]]
        logs = [
            self._same(log, state.log_directory(log.log) == name)
            for log, name in zip(found, known, strict=False)
            if log
        ]
        return sorted(logs, key=lambda log: log.log)

    def read_log(self, log_name: str) -> LogState | None:
        log = self._read(state.MAX_LOG_STATE, state.parse_log, state.log_directory(log_name), "log.json")
        return log and self._same(log, log.log == log_name)

    def read_file(self, log: LogState, file_id: int) -> FileState | None:
        name = state.file_name(log.source, file_id)
        found = self._read(state.MAX_FILE_STATE, state.parse_file, state.log_directory(log.log), "files", name)
        return found and self._same(found, (found.source, found.file_id) == (log.source, file_id))

    def read_path(self, log: LogState, path: str) -> PathState | None:
        name = state.path_name(log.source, path)
        found = self._read(state.MAX_NAME_STATE, state.parse_path, state.log_directory(log.log), "paths", name)
        return found and self._same(found, (found.source, found.path) == (log.source, path))

    def read_local(self, log: LogState, local: str) -> LocalState | None:
        name = state.local_name(local)
        found = self._read(state.MAX_NAME_STATE, state.parse_local, state.log_directory(log.log), "local", name)
        return found and self._same(found, found.local == local)

    def _read(self, limit: int, parse: Callable[[bytes], _T], *names: str) -> _T | None:
        path = os.path.join(self.directory, *names)
        try:
            os.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Usage(f"state: cannot read {path!r}: {error.strerror}") from None
        try:
            return parse(read_bounded(path, limit, "state"))
        except Malformed as error:
            raise Malformed(f"{error.what}; {_advice(path)}", error.where) from None

    def _same(self, value: _T, same: bool) -> _T:
        if not same:
            raise Malformed(f"a file is not the one that its name says; {_advice(self.directory)}", "state")
        return value

    # -- writing ------------------------------------------------------------------------------------------------

    def write_log(self, log: LogState) -> None:
        self._write(state.format_log(log), state.log_directory(log.log), "log.json")

    def write_file(self, log: LogState, file: FileState) -> None:
        name = state.file_name(file.source, file.file_id)
        self._write(state.format_file(file), state.log_directory(log.log), "files", name)

    def write_path(self, log: LogState, path: PathState) -> None:
        name = state.path_name(path.source, path.path)
        self._write(state.format_path(path), state.log_directory(log.log), "paths", name)

    def write_local(self, log: LogState, local: LocalState) -> None:
        self._write(state.format_local(local), state.log_directory(log.log), "local", state.local_name(local.local))

    def write_evidence(self, data: bytes, now: int) -> str:
        """A new file beside the state, never over another one. Returns its path."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        self._make(self.directory)
        for n in range(100):
            path = f"{self.directory}.fork-{stamp}{f'-{n}' if n else ''}.json"
            if not os.path.lexists(path):
                write_secret_new(path, data)
                return path
        raise Usage(f"evidence: 100 files named {self.directory}.fork-{stamp}-….json exist")

    def _write(self, data: bytes, *names: str) -> None:
        directory = self.directory
        self._make(directory)
        for name in names[:-1]:
            directory = os.path.join(directory, name)
            self._make(directory)
        path = os.path.join(directory, names[-1])
        if not _holds(path, data):  # nothing new is the rule, and making it durable costs more than verifying
            write_atomic(path, data)

    def _make(self, directory: str) -> None:
        try:
            os.mkdir(directory, DIRECTORY_MODE)
        except FileExistsError:
            pass
        except OSError as error:
            raise Usage(f"state: cannot create {directory!r}: {error.strerror}") from None


class Lock:
    """The system's exclusive lock on a file, waited for at most LOCK_WAIT_S."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1

    def __enter__(self) -> None:
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Usage(f"state: cannot lock {self.path!r}: {error.strerror}") from None
        give_up = time.monotonic() + LOCK_WAIT_S
        while not _try_lock(self.fd):
            if time.monotonic() > give_up:
                self.__exit__()
                raise Usage(f"state: another process has held {self.path!r} for {LOCK_WAIT_S:.0f} s")
            time.sleep(LOCK_STEP_S)

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)  # gives the lock back


def default_directory(beside: str) -> str:
    """Where the state of a seed or reader key file lives when nothing else is said."""
    return beside + SUFFIX


def _holds(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(data) + 1) == data
    except OSError:
        return False


def _try_lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            os.lockf(fd, os.F_TLOCK, 0)
    except OSError:
        return False
    return True


def _advice(path: str) -> str:
    return f"{path!r} is damaged or was edited: bring it back from a backup, or move it away and verify anew"
