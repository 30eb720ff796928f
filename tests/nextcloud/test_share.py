"""A scan's share of a Nextcloud, by a clock of its own: how long the server is left alone, and who waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from audit.errors import Busy
from audit.folder import Progress
from audit.nextcloud import known as rows
from audit.nextcloud import looking, source, together
from audit.nextcloud.known import Hint
from audit.nextcloud.limits import Budget, Limits
from audit.nextcloud.share import LEAST_S, MAX_IDLE_S, NAP_S, PIECE_S, Gently, Rest, Share
from audit.nextcloud.source import NextcloudSource, add_nextcloud
from audit.nextcloud.values import Session
from audit.remaining import Remaining
from audit.scanning import Job, Stopped
from tests.audit.log_setup import LogSetup
from tests.audit.small_cloud import SmallCloud, SmallSession

TAKES_S = 2.0  # each request, by the clock of these tests
WORDS = ("instance_id", "list_folder", "stat", "find", "read", "list_versions", "read_version", "list_trash")


class Time:
    """A clock that moves where somebody sleeps, or a server works."""

    def __init__(self) -> None:
        self.now, self.busy, self.idle = 1_000.0, 0.0, 0.0
        self.goes_on: asyncio.Event | None = None  # where there is one, no sleep ends before it is set

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= NAP_S
        if self.goes_on is not None:
            await self.goes_on.wait()
        self.now += seconds
        self.idle += seconds
        await asyncio.sleep(0)

    async def work(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds
        self.busy += seconds

    def share(self, part: float, nap: Callable[[], None] = lambda: None) -> Share:
        return Share(part, nap, self, self.sleep)


async def ask(share: Share, time: Time, seconds: float = TAKES_S) -> None:
    async with share.turn():
        await time.work(seconds)


@pytest.mark.parametrize(("part", "idle"), [(0.25, 6.0), (0.5, 2.0), (0.01, 198.0)])
def test_server_is_left_alone_in_proportion(part: float, idle: float) -> None:
    """After a request of two seconds: so long that these two are our share of the time."""
    time = Time()

    async def story() -> None:
        share = time.share(part)
        for _ in range(4):
            await ask(share, time)

    asyncio.run(story())
    assert (time.busy, time.idle) == pytest.approx((8.0, 3 * idle))


def test_slow_server_is_asked_less() -> None:
    """In the same time a tenth of the requests, where each takes ten times as long; and nobody said a number."""

    def asked(takes_s: float) -> int:
        time = Time()

        async def story() -> int:
            share, count = time.share(0.25), 0
            while time.now < 1_200.0:
                await ask(share, time, takes_s)
                count += 1
            return count

        return asyncio.run(story())

    assert (asked(0.1), asked(1.0)) == (501, 51)


def test_turns_come_one_at_a_time_and_in_order() -> None:
    """However many wait, and however they end."""
    time, seen = Time(), list[str]()

    async def one(share: Share, number: int) -> None:
        async with share.turn():
            seen.append(f"{number} begins")
            await time.work(1)
            seen.append(f"{number} ends")
            if number == 1:
                raise ValueError

    async def story() -> None:
        share = time.share(0.5)
        await asyncio.gather(*(one(share, number) for number in range(3)), return_exceptions=True)

    asyncio.run(story())
    assert seen == [f"{number} {what}" for number in range(3) for what in ("begins", "ends")]
    assert time.idle == pytest.approx(2.0)


def test_whole_share_bounds_nothing() -> None:
    """100%: as many at once as there are, and no waiting."""
    time, most = Time(), [0, 0]

    async def one(share: Share) -> None:
        async with share.turn():
            most[0] += 1
            most[1] = max(most)
            await time.work(1)
            most[0] -= 1

    async def story() -> None:
        share = time.share(1.0)
        await asyncio.gather(*(one(share) for _ in range(5)))

    asyncio.run(story())
    assert (most, time.idle) == ([0, 5], 0.0)


def test_turn_within_a_turn_is_the_same() -> None:
    """What asks twice in its turn does not wait for itself."""
    time = Time()

    async def story() -> None:
        share = time.share(0.5)
        async with asyncio.timeout(5), share.turn():
            await ask(share, time, 1)
            await ask(share, time, 1)
        await ask(share, time, 1)

    asyncio.run(story())
    assert (time.busy, time.idle) == pytest.approx((3.0, 2.0))


@pytest.mark.parametrize(("asks_s", "idle"), [(17, 17.0), (0, 6.0)])
def test_overloaded_server_is_left_alone_as_long_as_it_asks(asks_s: float, idle: float) -> None:
    """At least: a short answer of a server that has no time is no invitation. A locked file asks for nothing."""
    time = Time()

    async def fail(share: Share) -> None:
        async with share.turn():
            await time.work(2)
            raise Busy("503", asks_s)

    async def story() -> None:
        share = time.share(0.25)
        with pytest.raises(Busy):
            await fail(share)
        await ask(share, time)

    asyncio.run(story())
    assert time.idle == pytest.approx(idle)


def test_answer_that_took_for_ever_is_not_waited_for_as_long_again() -> None:
    """A transfer of a day, or a server that was silent, makes no pause of days."""
    time = Time()

    async def story() -> None:
        share = time.share(0.25)
        await ask(share, time, 86_400)
        await ask(share, time)

    asyncio.run(story())
    assert time.idle == pytest.approx(MAX_IDLE_S)


def test_idling_ends_when_somebody_waits() -> None:
    """Within a nap; and it is as before once that is done."""
    time, naps = Time(), [0]

    def nap() -> None:
        naps[0] += 1
        if naps[0] == 3:
            share.hurry()

    share = time.share(0.25, nap)

    async def story() -> list[float]:
        seen = []
        for _ in range(3):
            await ask(share, time)
            seen.append(time.idle)
        share.calm()
        await ask(share, time)
        return [*seen, time.idle]

    assert asyncio.run(story()) == pytest.approx([0.0, 3 * NAP_S, 3 * NAP_S, 3 * NAP_S + 6.0])


def test_every_request_of_a_gentle_session_has_a_turn() -> None:
    """All that a Session can be asked, with the answer that it gives."""
    cloud, time = SmallCloud("alice"), Time()
    file = cloud.put("a", b"1", 100)
    cloud.put("a", b"2", 200)
    asked = {"list_folder": ("",), "stat": ("a",), "find": (file,), "read": ("a", cloud.files[file].etag)}
    asked |= {"list_versions": (file,), "read_version": (file, "100")}
    turns = list[str]()

    class Counting(Share):
        @asynccontextmanager
        async def turn(self) -> AsyncIterator[None]:
            turns.append("turn")
            yield

    plain: Session = SmallSession(cloud, "alice")
    gentle: Session = Gently(plain, Counting(0.5, clock=time))
    for word in WORDS:
        of_it: Any = [getattr(session, word) for session in (plain, gentle)]
        want, got = (asyncio.run(call(*asked.get(word, ()))) for call in of_it)
        assert got == want
    assert len(turns) == len(WORDS)
    assert {word for word in vars(Gently) if not word.startswith("_")} == set(WORDS)
    assert (gentle.user, time.idle) == ("alice", 0.0)


# -- scans ----------------------------------------------------------------------------------------------------------


class Slow(SmallSession):
    """Each request takes TAKES_S; `during` happens in it."""

    def __init__(self, cloud: SmallCloud, time: Time) -> None:
        super().__init__(cloud, "alice")
        self._time = time
        self.asked: list[str] = []
        for word in WORDS:
            setattr(self, word, partial(self._ask, word, getattr(super(), word)))

    async def _ask(self, word: str, call: Callable[..., Any], *given: object) -> object:
        await self._time.work(TAKES_S)
        self.asked.append(word)
        return await call(*given)


class Town:
    """A log, a cloud with files, a source that has a share of it."""

    def __init__(self, directory: Path, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time, self.cloud, self.log = Time(), SmallCloud("alice"), LogSetup(directory)
        self.session = Slow(self.cloud, self.time)
        self.log.enrol("alice")
        monkeypatch.setattr(source, "Share", partial(Share, clock=self.time, sleep=self.time.sleep))
        monkeypatch.setattr(looking, "BATCH", 8)
        monkeypatch.setattr(looking, "FEW", 5)
        monkeypatch.setattr(together, "WAIT_S", 0)
        added = add_nextcloud(self.log.store, "nextcloud:https://c.example", self.opened)
        self.source: NextcloudSource = added._replace(limits=Limits(budget=Budget(hours=0), share=part))
        self.time.busy = 0.0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Session]]:
        yield [self.session]

    def job(self, progress: Callable[[Progress], object] | None = None) -> Job:
        return Job(self.log.store, self.log.recorder, self.log.clock, progress)

    def entries(self) -> int:
        (count,) = self.log.store.reader().execute("SELECT count(*) FROM entries").fetchone()
        return int(count)


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    return Town(tmp_path / "log", 0.25, monkeypatch)


def test_scan_keeps_to_its_share(town: Town) -> None:
    """Walk, trash, looks and reading again: a quarter of the time, to the second."""
    for number in range(20):
        town.cloud.put(f"d/{number}", b"1", 100)
    assert town.source.scan(town.job()).counts == {"adopted": 20}
    first_check = TAKES_S  # the instance id, which everybody asks for
    assert town.time.idle == pytest.approx(3 * (town.time.busy - first_check) - 3 * TAKES_S)
    before = town.time.busy, town.time.idle
    town.log.clock.now += 10
    town.source.scan(town.job()._replace(full=True))
    busy, idle = town.time.busy - before[0], town.time.idle - before[1]
    assert busy > 40 * TAKES_S
    assert idle == pytest.approx(3 * (busy - first_check) - 3 * TAKES_S)


def test_whole_share_idles_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100% is what it says."""
    town = Town(tmp_path / "log", 1.0, monkeypatch)
    town.cloud.put("a", b"1", 100)
    assert town.source.scan(town.job()).counts == {"adopted": 1}
    assert town.time.idle == 0.0


def test_waiting_for_a_turn_makes_listings_larger(town: Town) -> None:
    """Whoever asks about a folder before the listing has its turn is answered by it: two for a batch."""
    for number in range(8):
        town.cloud.put(str(number), b"1", 100)
    town.source.scan(town.job())
    assert [town.session.asked.count(word) for word in ("read", "list_versions", "stat")] == [8, 8, together.FEW]
    assert town.session.asked.count("list_folder") == 1 + 2


def test_remaining_time_knows_the_share(town: Town) -> None:
    """Half way through a backfill, what is said to be left is what it then takes; and why it is so slow is said."""
    for number in range(64):
        town.cloud.put(f"d/{number}", b"1", 100)
    said = list[tuple[float, str, int]]()
    remaining = Remaining(town.time)

    def progress(how_far: Progress) -> None:
        line, left = remaining.line(how_far), remaining.left(how_far)
        if left is not None and how_far.files_seen == 32:
            said.append((town.time.now, line, left))

    town.source.scan(town.job(progress))
    at, line, left = said[0]
    assert left == pytest.approx(town.time.now - at, rel=0.2)
    assert line.endswith(" left at a share of 25%")


def test_scan_that_has_to_end_idles_no_more(town: Town) -> None:
    """[R] Whoever stops the service waits for no pause of ours; what is in hand is recorded."""
    for number in range(16):
        town.cloud.put(f"d/{number}", b"1", 100)
    stopped = list[float]()

    def progress(how_far: Progress) -> None:
        if town.session.asked.count("read") >= 3:
            stopped.append(town.time.idle)
            raise Stopped

    with pytest.raises(Stopped):
        town.source.scan(town.job(progress))
    assert stopped
    assert town.time.idle == stopped[0]
    assert town.entries() == 8


def test_what_an_event_tells_of_is_not_delayed_by_a_scan(town: Town) -> None:
    """[R] Beside a scan that idles, a changed file is looked at without a turn; one that the scan has in hand, soon.

    What else is queued is left to the scan.
    """
    files = [town.cloud.put(f"d/{number}", b"1", 100) for number in range(12)]

    def hint(file: int, path: str) -> None:
        with town.log.store.transaction() as conn:
            rows.add(conn, town.source.row, [Hint(file, "alice", path)], 1, is_urgent=True)

    async def look() -> int:
        return (await source._Scan(town.source, town.job()).look()).recorded

    async def story() -> None:
        scan = asyncio.create_task(source._Scan(town.source, town.job()).run())
        while "read" not in town.session.asked:
            await asyncio.sleep(0)
        town.time.goes_on = asyncio.Event()  # the scan idles, and does nothing else
        share = town.source.line.share
        assert share is not None
        hint(town.cloud.put("new", b"1", 200), "new")
        assert (await look(), share.is_hurried) == (1, False)
        hint(files[7], "d/7")
        assert (await look(), share.is_hurried) == (0, True)
        idle = town.time.idle
        town.time.goes_on.set()
        while share.is_hurried:
            await asyncio.sleep(0)
        assert town.entries() == 9
        assert town.time.idle - idle == pytest.approx(NAP_S)
        await scan

    asyncio.run(story())


def test_scan_takes_no_turns_for_what_events_told_of(town: Town) -> None:
    """What is urgent at its start comes first, and at once: `record` has nobody else to look at it."""
    for number in range(4):
        file = town.cloud.put(f"d/{number}", b"1", 100)
        with town.log.store.transaction() as conn:
            rows.add(conn, town.source.row, [Hint(file, "alice", f"d/{number}")], 1, is_urgent=True)
    scan = source._Scan(town.source, town.job())
    share = town.time.share(0.25)
    gentle = [Gently(town.session, share)]
    asyncio.run(scan._looker(gentle, share).drain())
    assert (town.entries(), town.time.idle) == (4, 0.0)
    assert not share.is_hurried


def test_file_that_an_event_names_by_path_alone_is_looked_at_beside_a_scan(town: Town) -> None:
    """The one that was there too: that it is gone does not wait for the scan either."""
    town.cloud.put("a", b"1", 100)
    town.source.scan(town.job())
    town.cloud.delete("a")
    with town.log.store.transaction() as conn:
        rows.add(conn, town.source.row, [Hint(0, "alice", "a")], 1, is_urgent=True)
    town.source.line.share = town.time.share(0.25)
    assert asyncio.run(source._Scan(town.source, town.job()).look()).recorded == 1
    assert town.entries() == 2


def test_between_scans_a_little_of_what_is_due_is_looked_at(town: Town) -> None:
    """A backlog is the scan's, which has turns; a look takes FEW of it, and all that is urgent."""
    with town.log.store.transaction() as conn:
        for number in range(20):
            file = town.cloud.put(f"d/{number}", b"1", 100)
            rows.add(conn, town.source.row, [Hint(file, "alice", f"d/{number}")], 1, is_urgent=number < 3)
    looking_at = source._Scan(town.source, town.job())
    looked = asyncio.run(looking_at.look())
    assert looked.recorded == 3 + looking.FEW


# -- reading from the disk of the same machine ------------------------------------------------------------------------


def test_thread_rests_in_proportion_to_its_work() -> None:
    """Not for every bit of it; what lasted long was a wait, for another thread, and is not rested for."""
    now, naps = [0.0], list[float]()

    def nap(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    rest = Rest(0.25, lambda: now[0], nap)
    for works_s in (0.0, LEAST_S / 2, LEAST_S / 2, 0.05, 60.0):
        now[0] += works_s
        rest()
    assert naps == pytest.approx([3 * LEAST_S, 0.15, NAP_S, 3 * PIECE_S - NAP_S])
    rest = Rest(0.25, lambda: now[0], nap, lambda: True)
    rest()
    now[0] += 1.0
    rest()
    assert len(naps) == 4
    assert Rest(1.0, lambda: pytest.fail("looked at the clock"))() is None


def test_threads_rest_each_for_their_own_work() -> None:
    """One that begins has nothing to rest for."""
    now, naps = [0.0], list[float]()
    rest = Rest(0.25, lambda: now[0], naps.append, lambda: bool(naps))
    rest()
    now[0] += 0.05
    other = Thread(target=rest)
    other.start()
    other.join()
    assert naps == []
    rest()
    assert naps == pytest.approx([0.15])
