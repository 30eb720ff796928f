"""The line to one Nextcloud: who is asked, through sessions that stay open while a service runs.

    line = Line(opener)
    line.run(work)                       one loop and new sessions for this call alone: `record`
    with line.kept():                    a thread with a loop of its own: `serve`
        line.run(scan); line.run(look)   from any threads, beside each other; `line.sessions` gives both the same ones
        line.stop()                      from any thread: both end now, with Stopped, whatever they are reading

A scan asks for new sessions, so that accounts and passwords are as they are configured now; it gets those that are open
where somebody uses them at that moment. The server's bound on requests at a time holds for all that share them.

`in_hand`: files that somebody looks at just now. `share`: that of the scan which runs; where a look wants what the scan
has in hand, it hurries it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from audit.nextcloud.share import Share
from audit.nextcloud.values import Session
from audit.scanning import Stopped

Opener = Callable[[], AbstractAsyncContextManager[Sequence[Session]]]
Check = Callable[[Sequence[Session]], Awaitable[None]]
_T = TypeVar("_T")


class Line:
    """One for each source. `opened` counts how often sessions were opened."""

    def __init__(self, opener: Opener) -> None:
        self.opener, self.opened = opener, 0
        self.in_hand: set[tuple[int, str]] = set()
        self.share: Share | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._works: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._stop: asyncio.Event | None = None
        self._gate: asyncio.Lock | None = None
        self._stack = AsyncExitStack()
        self._sessions: Sequence[Session] | None = None
        self._users = 0

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Does it, and waits for it."""
        if self._loop is None:
            return asyncio.run(work())
        return asyncio.run_coroutine_threadsafe(self._do(work), self._loop).result()

    async def _do(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """The work, until it is done or `stop` cuts it short."""
        task = asyncio.current_task()
        assert task is not None
        if self._stopping:
            raise Stopped
        self._works.add(task)
        try:
            return await work()
        except asyncio.CancelledError:
            if self._stopping:
                raise Stopped from None
            raise
        finally:
            self._works.discard(task)

    def stop(self) -> None:
        """Ends what is done in the block, now: a transaction is finished, all else the next look reads again."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cut_short)

    def _cut_short(self) -> None:
        self._stopping = True
        for task in self._works:
            task.cancel()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is done in the block shares a loop and sessions; all of it has to be done at its end."""
        ready: Future[asyncio.AbstractEventLoop] = Future()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="nextcloud", daemon=True)
        thread.start()
        self._loop, self._stopping = (loop := ready.result()), False
        try:
            yield
        finally:
            self._loop = None
            assert self._stop is not None
            loop.call_soon_threadsafe(self._stop.set)
            thread.join()

    async def _serve(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        self._stop, self._gate = asyncio.Event(), asyncio.Lock()
        ready.set_result(asyncio.get_running_loop())
        try:
            await self._stop.wait()
        finally:
            await self._close()

    @asynccontextmanager
    async def sessions(self, check: Check, renew: bool = False) -> AsyncIterator[Sequence[Session]]:
        """Those that are open, else new ones, once they passed the check: a server that is away fails it."""
        if self._loop is not asyncio.get_running_loop() or self._gate is None:
            async with self.opener() as sessions:
                self.opened += 1
                await check(sessions)
                yield sessions
            return
        async with self._gate:
            if self._sessions is None or renew and not self._users:
                await self._close()
                self._sessions = await self._stack.enter_async_context(self.opener())
                self.opened += 1
            self._users += 1
            sessions = self._sessions
        try:
            await check(sessions)
            yield sessions
        finally:
            self._users -= 1

    async def _close(self) -> None:
        self._sessions = None
        await self._stack.aclose()
