"""A scan's share of a Nextcloud: after each request the server is left alone, in proportion to how long it took.

    share = Share(0.25)
    gentle = Gently(session, share)         a Session; each of its requests has a turn
    await gentle.read(path, etag)           took 40 ms: nothing more is asked for 120 ms

Turns come one at a time, in the order in which they were asked for. So the server is busy with us for a quarter of the
time, whatever it is capable of: one that gets slow, since its users work, is asked less often, and no rate has to be
found for it. Where it says that it is overloaded (429, 502, 503, 504), it is left alone for as long as it asks. A
share of 1 bounds nothing.

Only scans have turns. What an event tells of is looked at through sessions without them, at once.

    rest = Rest(0.25)
    rest()                                  after each piece of work: the thread that did it sleeps in proportion

`Rest` is the same for threads that read from this machine's disk.

`hurry`: no more idling for now. Somebody waits for what is in hand: a user who changed one of these very files, or
whoever wants the process to end. `calm` is said when that is done.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from audit.errors import Busy
from audit.nextcloud.limits import format_share
from audit.nextcloud.values import Node, Reading, Session, Trashed, Version

MAX_IDLE_S = 300.0  # an answer that took hours, or never came, is no reason to be idle for hours
NAP_S = 0.2  # so long an idle scan does not hear that it has to hurry
LEAST_S, PIECE_S = 0.01, 0.1  # what a thread works before it rests; more than this it did not work, but wait

_HAS_TURN: ContextVar[bool] = ContextVar("has_turn", default=False)


class Share:
    """One for a scan. `nap` is called while it idles, and may hurry it."""

    def __init__(
        self,
        part: float,
        nap: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.part, self.is_hurried = part, False
        self._nap, self._clock, self._sleep = nap, clock, sleep
        self._free = clock()  # when the server may be asked again
        self._gate = asyncio.Lock()

    def hurry(self) -> None:
        self.is_hurried = True

    def calm(self) -> None:
        self.is_hurried = False

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """No idling in this block."""
        self.hurry()
        try:
            yield
        finally:
            self.calm()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The server is ours in this block. A block within it has the same turn."""
        if self.part >= 1 or _HAS_TURN.get():
            yield
            return
        async with self._gate:
            await self._idle()
            start, asks_s, mark = self._clock(), 0.0, _HAS_TURN.set(True)
            try:
                yield
            except Busy as error:
                asks_s = error.retry_s
                raise
            finally:
                _HAS_TURN.reset(mark)
                end = self._clock()
                self._free = end + max(asks_s, min(MAX_IDLE_S, idle_s(end - start, self.part)))

    async def _idle(self) -> None:
        while (left := self._free - self._clock()) > 0 and not self.is_hurried:
            await self._sleep(min(left, NAP_S))
            self._nap()


FREELY = Share(1.0)


class Rest:
    """The share of each thread that works here. `nap` sleeps; `is_over`: nobody wants what is read any more."""

    def __init__(
        self,
        part: float,
        clock: Callable[[], float] = time.monotonic,
        nap: Callable[[float], object] = time.sleep,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.part, self._clock, self._nap, self._is_over = part, clock, nap, is_over
        self._since = threading.local()

    def __call__(self) -> None:
        """Sleeps for what this thread has worked since it slept last; from its first call on."""
        if self.part >= 1:
            return
        begun, now = getattr(self._since, "at", None), self._clock()
        if begun is not None and now - begun < LEAST_S:
            return
        until = now + (0.0 if begun is None else idle_s(min(now - begun, PIECE_S), self.part))
        while (left := until - self._clock()) > 0 and not self._is_over():
            self._nap(min(left, NAP_S))
        self._since.at = self._clock()


def idle_s(busy_s: float, part: float) -> float:
    """So long the server is left alone after it was busy for us."""
    return busy_s * (1 - part) / part


def held_by(part: float) -> str:
    """In words, behind the time that is left."""
    return "" if part >= 1 else f"at a share of {format_share(part)}"


class Gently:
    """A session whose requests have turns."""

    def __init__(self, session: Session, share: Share) -> None:
        self.user, self._session, self._share = session.user, session, share

    async def instance_id(self) -> str:
        async with self._share.turn():
            return await self._session.instance_id()

    async def list_folder(self, path: str) -> list[Node]:
        async with self._share.turn():
            return await self._session.list_folder(path)

    async def stat(self, path: str) -> Node | None:
        async with self._share.turn():
            return await self._session.stat(path)

    async def find(self, file_id: int) -> Node | None:
        async with self._share.turn():
            return await self._session.find(file_id)

    async def read(self, path: str, etag: str) -> Reading:
        async with self._share.turn():
            return await self._session.read(path, etag)

    async def list_versions(self, file_id: int) -> Sequence[Version]:
        async with self._share.turn():
            return await self._session.list_versions(file_id)

    async def read_version(self, file_id: int, version_id: str) -> Reading | None:
        async with self._share.turn():
            return await self._session.read_version(file_id, version_id)

    async def list_trash(self) -> list[Trashed]:
        async with self._share.turn():
            return await self._session.list_trash()
