"""The line to a Nextcloud: sessions are shared while they are kept, renewed where nobody uses them, and closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from audit.errors import PeerFailed
from audit.nextcloud.line import Line
from audit.nextcloud.values import Session
from tests.audit.small_cloud import SmallCloud, SmallSession


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
