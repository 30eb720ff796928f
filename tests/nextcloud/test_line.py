"""The line to a Nextcloud: sessions are shared while they are kept, renewed where nobody uses them, and closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest

from audit import service
from audit.directory import create_log, open_log
from audit.errors import PeerFailed
from audit.nextcloud import known
from audit.nextcloud.line import Line
from audit.nextcloud.source import add_nextcloud
from audit.nextcloud.values import Reading, Session
from audit.scanning import Stopped
from tests.audit.small_cloud import SmallCloud, SmallSession
from tests.fakes import NOW


class Opener:
    """Says what is open."""

    def __init__(self) -> None:
        self.open: list[list[Session]] = []
        self.is_away = False

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Sequence[Session]]:
        if self.is_away:
            raise PeerFailed("no connection")
        sessions: list[Session] = [SmallSession(SmallCloud(), "alice")]
        self.open.append(sessions)
        try:
            yield sessions
        finally:
            self.open.remove(sessions)


async def good(sessions: Sequence[Session]) -> None:
    pass


async def bad(sessions: Sequence[Session]) -> None:
    raise PeerFailed("another server")


def test_sessions_are_not_closed_under_somebody() -> None:
    """[R] Who wants new ones gets those that are in use; once nobody uses them, there are new ones."""
    opener = Opener()
    line = Line(opener)

    async def story() -> None:
        async with line.sessions(good) as first, line.sessions(good, renew=True) as second:
            assert first is second
            assert opener.open == [first]
        async with line.sessions(good) as third:
            assert third is first
        async with line.sessions(good, renew=True) as fourth:
            assert fourth is not first
            assert opener.open == [fourth]

    with line.kept():
        line.run(story)
        assert line.opened == 2
    assert opener.open == []


def test_sessions_that_fail_the_check_are_not_used() -> None:
    """Each time: the server may be away, or another one by now."""
    opener = Opener()
    line = Line(opener)

    async def use() -> str:
        async with line.sessions(bad):
            return "used"

    with pytest.raises(PeerFailed, match="another"):
        line.run(use)
    with line.kept():
        for _ in range(2):
            with pytest.raises(PeerFailed, match="another"):
                line.run(use)
        assert line.opened == 2  # once by itself, once kept
    assert opener.open == []


def test_line_that_cannot_open_tries_again() -> None:
    """An opening that fails leaves nothing behind."""
    opener = Opener()
    line = Line(opener)

    async def use() -> str:
        async with line.sessions(good, renew=True):
            return "used"

    with line.kept():
        opener.is_away = True
        with pytest.raises(PeerFailed, match="no connection"):
            line.run(use)
        opener.is_away = False
        assert line.run(use) == "used"
        opener.is_away = True
        with pytest.raises(PeerFailed, match="no connection"):
            line.run(use)
    assert opener.open == []
    assert line.opened == 1


def test_each_run_by_itself_opens_and_closes() -> None:
    """Where nothing is kept: one loop, new sessions, and they are closed before it returns."""
    opener = Opener()
    line = Line(opener)

    async def use() -> int:
        async with line.sessions(good):
            await asyncio.sleep(0)
            return len(opener.open)

    assert (line.run(use), line.run(use), opener.open, line.opened) == (1, 1, [], 2)


def test_stop_cuts_short_whatever_is_read() -> None:
    """A server that takes its time holds up no shutdown: what runs ends, what comes later does not begin."""
    opener, begun = Opener(), threading.Event()
    line = Line(opener)

    async def read() -> None:
        async with line.sessions(good):
            begun.set()
            await asyncio.wait_for(asyncio.Event().wait(), 20)

    with line.kept(), ThreadPoolExecutor(1) as pool:
        running = pool.submit(line.run, read)
        assert begun.wait(20)
        line.stop()
        with pytest.raises(Stopped):
            running.result()
        with pytest.raises(Stopped):
            line.run(read)
    assert opener.open == []
    with line.kept():
        line.run(lambda: _use(line))


async def _use(line: Line) -> None:
    async with line.sessions(good):
        pass


def test_service_ends_while_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM waits for no slow server; the next start reads the file, which is still queued."""
    monkeypatch.setattr(service, "open_access", lambda *_: nullcontext())
    create_log(str(tmp_path / "log"), "log.example/files", NOW)
    log, cloud = open_log(str(tmp_path / "log")), SmallCloud("alice")
    cloud.put("big.bin", b"x")
    source = add_nextcloud(log.store, "nextcloud:https://cloud.example", cloud.opener())  # type: ignore[arg-type]
    is_slow, begun, cut_short = True, asyncio.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    read = SmallSession.read

    async def slow(self: SmallSession, path: str, etag: str) -> Reading:
        loops[-1].call_soon_threadsafe(begun.set)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 20 if is_slow else 0)
        except TimeoutError:
            return await read(self, path, etag)
        except asyncio.CancelledError:
            cut_short.set()
            raise
        raise AssertionError

    monkeypatch.setattr(SmallSession, "read", slow)

    async def story() -> None:
        loops.append(asyncio.get_running_loop())
        running = service.Service(log, [source], pace=service.Pace(0, 60, 1), say=lambda _: None)
        async with running.running():
            await asyncio.wait_for(begun.wait(), 20)
            while not is_slow and not running.scans:
                await asyncio.sleep(0.01)

    asyncio.run(story())
    assert cut_short.is_set()
    assert known.count_dirty(log.store.reader(), source.row) == 1
    is_slow, begun = False, asyncio.Event()
    asyncio.run(story())
    assert known.count_dirty(log.store.reader(), source.row) == 0
    log.store.close()
