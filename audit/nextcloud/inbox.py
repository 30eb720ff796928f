"""Events on their way in: many requests, few transactions, and nothing is acknowledged before it is on disk.

    DIR/hook.secret (0600)     64 hex digits and a line feed; Nextcloud sends them as `Authorization: Bearer ...`

    inbox = Inbox(store, [source.row], clock, wake)
    await inbox.add(parse_webhook(body))         returns once the hints are in the queue, durably

Whoever comes while a transaction is being written waits for the next one, which is for all of them: ten thousand at
once are a few dozen commits. What waits is bounded; beyond that TryLater, and the next walk finds what was not said.
The queue itself is `audit.nextcloud.known`'s: the same file twice is one entry.

A hint names no Nextcloud, so every one that the log knows is looked at. There is one, or file ids that mean nothing in
the other.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import NamedTuple

from audit.errors import TryLater
from audit.nextcloud import known
from audit.nextcloud.client import AppAPI, Secret
from audit.nextcloud.hints import Hint
from audit.store import Store
from verifier.errors import Malformed, Usage
from verifier.files import read_secret, write_secret_new

HOOK_FILE = "hook.secret"
SECRET_SIZE = 32  # bytes
MAX_WAITING = 16_384  # hints that are not yet on disk


class EventKeys(NamedTuple):
    """Who may say that something happened: who has the hook's secret, and AppAPI on behalf of this app."""

    hook: Secret | None = None
    appapi: AppAPI | None = None


NO_KEYS = EventKeys()


class Inbox:
    """Adds hints to the queue of each of these sources. Used on one event loop; writes in a thread."""

    def __init__(
        self, store: Store, sources: Sequence[int], clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self.sources = tuple(sources)
        self.commits = 0
        self._store, self._clock, self._wake = store, clock, wake
        self._waiting: list[tuple[Sequence[Hint], Future[None]]] = []
        self._count = 0
        self._writer: asyncio.Task[None] | None = None

    async def add(self, hints: Sequence[Hint]) -> None:
        """Success means that they are in the queue, on disk."""
        if not hints:
            return
        if self._count + len(hints) > MAX_WAITING:
            raise TryLater(f"events: {MAX_WAITING} of them wait to be written")
        done: Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((hints, done))
        self._count += len(hints)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        await done

    def add_now(self, hints: Sequence[Hint]) -> None:
        """The same for whoever is in a thread and has many."""
        if hints:
            self._commit([hints])
            self._wake()

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                error: BaseException | None = None
                try:
                    await asyncio.to_thread(self._commit, [hints for hints, _ in batch])
                except Exception as caught:
                    error = caught
                for hints, done in batch:
                    self._count -= len(hints)
                    if done.done():  # who asked has gone away; the hints are there all the same
                        continue
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
                if error is None:
                    self._wake()
        finally:
            self._writer = None

    def _commit(self, batch: Sequence[Sequence[Hint]]) -> None:
        unique = dict.fromkeys(known.from_event(hint) for hints in batch for hint in hints)
        with self._store.transaction() as conn:
            self._add(conn, list(unique))
        self.commits += 1

    def _add(self, conn: sqlite3.Connection, hints: Sequence[known.Hint]) -> None:
        for source in self.sources:
            known.add(conn, source, hints, int(self._clock()), is_urgent=True)


# The secret


def read_hook_secret(directory: str) -> Secret:
    """The secret in DIR/hook.secret, a file that only its owner may read."""
    data, warnings = read_secret(os.path.join(directory, HOOK_FILE), HOOK_FILE, 2 * SECRET_SIZE + 1)
    if warnings:
        raise Usage("; ".join(warnings))
    text = data.decode("latin-1")
    digits = text.removesuffix("\n")
    if text != digits + "\n" or len(digits) != 2 * SECRET_SIZE or not set(digits) <= set("0123456789abcdef"):
        raise Malformed(f"want {2 * SECRET_SIZE} lower-case hex digits and a line feed", HOOK_FILE)
    return Secret(digits)


def make_hook_secret(directory: str) -> Secret:
    """The secret, made where there is none. A file that is not as it should be is not overwritten."""
    path = os.path.join(directory, HOOK_FILE)
    if not os.path.lexists(path):
        try:
            write_secret_new(path, os.urandom(SECRET_SIZE).hex().encode("ascii") + b"\n")
        except Usage:
            if not os.path.lexists(path):
                raise  # else the other process was first: `serve` and `hooks` may both be the first to need it
    return read_hook_secret(directory)
