"""Looks that ask about files of one folder share a listing; what it says is never older than the question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from audit.errors import PeerFailed
from audit.nextcloud import together as module
from audit.nextcloud.together import FEW, LARGE, Together
from audit.nextcloud.values import Node
from tests.audit.small_cloud import SmallCloud, SmallSession


class Session(SmallSession):
    """Counts what is asked one by one; `then` happens after a listing was made and before it arrives."""

    def __init__(self, cloud: SmallCloud) -> None:
        super().__init__(cloud, "alice")
        self.stats: list[str] = []
        self.then = asyncio.Event()
        self.then.set()

    async def stat(self, path: str) -> Node | None:
        self.stats.append(path)
        return await super().stat(path)

    async def list_folder(self, path: str) -> list[Node]:
        listed = await super().list_folder(path)
        await self.then.wait()
        return listed


@pytest.fixture
def cloud() -> SmallCloud:
    made = SmallCloud("alice")
    for number in range(10):
        made.put(f"d/{number}", b"1", 100)
    return made


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0)


@contextmanager
def at_work(together: Together, looks: int) -> Iterator[None]:
    together.at_work += looks
    yield
    together.at_work -= looks


def ask_all(cloud: SmallCloud, together: Together, session: Session, looks: int = 10) -> list[Node | None]:
    async def ask() -> list[Node | None]:
        with at_work(together, looks):
            return await asyncio.gather(*(together.stat(session, f"d/{number}") for number in range(10)))

    return asyncio.run(ask())


def test_many_questions_are_one_listing(cloud: SmallCloud) -> None:
    """Each gets what `stat` would have said; what is not there is None."""
    session = Session(cloud)
    cloud.delete("d/3")
    found = ask_all(cloud, Together(), session)
    assert [node.path if node else None for node in found] == [f"d/{n}" if n != 3 else None for n in range(10)]
    assert (cloud.listed, session.stats) == (["alice/d"], [])


def test_few_looks_wait_for_nobody(cloud: SmallCloud) -> None:
    """An event's look asks at once, and by itself."""
    session = Session(cloud)
    ask_all(cloud, Together(), session, FEW)
    assert (cloud.listed, len(session.stats)) == ([], 10)


def test_question_after_the_listing_began_waits_for_the_next(cloud: SmallCloud) -> None:
    """[R] Metadata after the reading has to be from after the reading: an answer under way is not for who comes now."""
    session, together = Session(cloud), Together()

    async def story() -> tuple[Node | None, Node | None]:
        with at_work(together, 10):
            session.then.clear()
            first = [asyncio.create_task(together.stat(session, f"d/{number}")) for number in range(5)]
            while not cloud.listed:
                await asyncio.sleep(0)
            cloud.put("d/0", b"22", 200)
            second = [asyncio.create_task(together.stat(session, f"d/{number}")) for number in range(5)]
            await asyncio.sleep(0)
            session.then.set()
            return (await asyncio.gather(*first))[0], (await asyncio.gather(*second))[0]

    before, after = asyncio.run(story())
    assert before is not None
    assert after is not None
    assert (before.size, after.size, cloud.listed) == (1, 2, ["alice/d", "alice/d"])


def test_listing_that_fails_hides_nothing(cloud: SmallCloud) -> None:
    """One entry that cannot be read makes the listing fail; the others are asked about one by one."""
    session = Session(cloud)
    cloud.broken = {"d"}
    found = ask_all(cloud, Together(), session)
    assert all(found)
    assert len(session.stats) == 10


def test_error_of_one_is_nobody_elses(cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked gets their own error; and a fault that nobody thought of reaches all instead of leaving them."""
    session, together = Session(cloud), Together()
    cloud.broken = {"d"}
    stat = session.stat

    async def fail(path: str) -> Node | None:
        if path == "d/3":
            raise PeerFailed("answered 500")
        return await stat(path)

    monkeypatch.setattr(session, "stat", fail)

    async def story() -> list[Node | None | BaseException]:
        with at_work(together, 10):
            asked = [together.stat(session, f"d/{number}") for number in range(10)]
            return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(story())
    assert [type(one) for one in found] == [PeerFailed if number == 3 else Node for number in range(10)]

    async def break_down(path: str) -> list[Node]:
        raise ZeroDivisionError

    monkeypatch.setattr(session, "list_folder", break_down)
    assert [type(one) for one in asyncio.run(story())] == [ZeroDivisionError] * 10


def test_large_folder_is_not_listed_for_a_few(cloud: SmallCloud) -> None:
    """Where the folder has very many entries, a few questions are cheaper."""
    session, together = Session(cloud), Together()
    together.saw("alice", "d", LARGE)
    ask_all(cloud, together, session)
    assert (cloud.listed, len(session.stats)) == ([], 10)
    together.saw("alice", "d", 10)
    ask_all(cloud, together, session)
    assert (cloud.listed, len(session.stats)) == (["alice/d"], 10)
