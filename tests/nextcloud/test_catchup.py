"""The first catch-up from disk and database: as WebDAV would tell it, resumable; what is unclear is queued."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from audit import hashing
from audit.chains import find_current, load_chain
from audit.errors import PeerFailed
from audit.folder import Progress
from audit.fsck import Keys, check_log
from audit.nextcloud import catchup, known, samehost
from audit.nextcloud.catchup import CatchUp, read_homes
from audit.nextcloud.known import Hint, count_dirty
from audit.nextcloud.limits import Budget, Limits, Rate
from audit.nextcloud.samehost import HostConfig, HostFirst, HostSession, open_host
from audit.nextcloud.source import add_nextcloud
from audit.nextcloud.values import Reading, Session, Version
from audit.remaining import Remaining
from audit.scanning import Job, Stopped, Summary
from tests.audit.log_setup import LogSetup
from tests.nextcloud.databases import KINDS
from tests.nextcloud.homes import ALICE, BOB, PLAIN, HomeCloud, home_cloud, opened, reading

T = 1_700_000_000


class Dav(HostSession):
    """Stands for WebDAV: the same rows, and every request for bytes is written down."""

    asked: list[str]

    async def read(self, path: str, etag: str) -> Reading:
        self.asked.append(path)
        return await super().read(path, etag)

    async def list_versions(self, file_id: int) -> list[Version]:
        return list(await super().list_versions(file_id))


class Town:
    """A log on the machine of a Nextcloud."""

    def __init__(self, cloud: HomeCloud, directory: Path, *users: str) -> None:
        self.cloud, self.log, self.users = cloud, LogSetup(directory), users or ("alice", "bob")
        self.asked: list[str] = []
        self.source = add_nextcloud(self.log.store, "nextcloud:https://cloud.example", self.opened)
        self.source = self.source._replace(limits=Limits(budget=Budget(hours=0), share=1))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[list[Session]]:
        host = open_host(HostConfig(str(self.cloud.data), self.cloud.address, "oc_", "ocinstance"))
        sessions = [Dav(host, user) for user in self.users]
        for session in sessions:
            session.asked = self.asked
        try:
            yield [HostFirst(session, host) for session in sessions]
        finally:
            host.close()

    def scan(self, **more: object) -> Summary:
        self.log.clock.now += 10
        job = Job(self.log.store, self.log.recorder, self.log.clock, **more)  # type: ignore[arg-type]
        return self.source.scan(job)

    def told(self, file_id: int) -> list[str]:
        conn = self.log.store.reader()
        current = find_current(conn, self.source.row, file_id)
        if current is None:
            return []
        return [step.entry.operation.word for step in load_chain(conn, self.log.store, current).steps]

    def close(self) -> None:
        keys = Keys(self.log.signer.verifier_key, self.log.witness_policy, self.log.auditor_policy)
        assert check_log(self.log.store, keys).findings == []
        self.log.close()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[HomeCloud]:
    with home_cloud("sqlite", tmp_path) as made:
        yield made


@pytest.fixture
def town(cloud: HomeCloud, tmp_path: Path) -> Iterator[Town]:
    made = Town(cloud, tmp_path / "log")
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_comes_once_by_rising_id(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On each database: page by page, with what is to be passed over left out, and folders and other storages too."""
    monkeypatch.setattr(samehost, "PAGE", 7)
    with home_cloud(kind, tmp_path) as cloud:
        names = [f"f{i:02}.txt" for i in range(20)]
        homes = {ALICE: "alice", BOB: "bob"}
        numbers = [
            cloud.put(homes[place], place, name, name.encode())
            for name, place in zip(names, (ALICE, BOB) * 10, strict=True)
        ]
        cloud.row(13, "files/not a home.txt", 0, PLAIN, 1, T)
        cloud.row(ALICE, "files_trashbin/files/x.d1", 0, PLAIN, 1, T)
        host = opened(cloud)
        found = [one for batch in read_homes(host, homes) for one in batch]
        assert [(one.node.file_id, one.look and one.look.reading) for one in found] == [
            (number, reading(name.encode())) for number, name in zip(numbers, names, strict=True)
        ]
        left = [one for batch in read_homes(host, homes, lambda *_: set(numbers[:12])) for one in batch]
        assert [one.node.file_id for one in left] == numbers[12:]
        assert host.measure(list(homes)) == (20, sum(map(len, names)))
        host.close()


def test_files_are_adopted_with_their_versions_and_the_walk_finds_nothing_new(town: Town) -> None:
    """The oldest version first, also where the database has no row of it; then a walk, which reads no byte again."""
    file = town.cloud.put("alice", ALICE, "d.txt", b"third", T + 200)
    town.cloud.old_version("alice", "d.txt", T, b"first")
    town.cloud.old_version("alice", "d.txt", T + 100, b"second")
    town.cloud.insert("oc_files_versions", id=1, file_id=file, timestamp=T + 100, size=6, metadata='{"author":"bob"}')
    town.cloud.insert("oc_files_versions", id=2, file_id=file, timestamp=T + 50, size=6, metadata="{}")  # no bytes left
    other = town.cloud.put("bob", BOB, "b.txt", b"b")
    assert town.scan().counts == {"adopted": 2, "written": 2}
    assert (town.told(file), town.told(other)) == (["adopted", "written", "written"], ["adopted"])
    assert town.asked == []
    assert town.scan().counts == {}
    conn = town.log.store.reader()
    current = find_current(conn, town.source.row, file)
    assert current is not None
    steps = load_chain(conn, town.log.store, current).steps
    assert [step.entry.mtime for step in steps] == [T, T + 100, T + 200]


def test_version_of_another_size_than_its_row_is_a_gap(town: Town) -> None:
    """Two writes within a second: the row is one's, the bytes are the other's."""
    file = town.cloud.put("alice", ALICE, "a.txt", b"now", T + 200)
    town.cloud.old_version("alice", "a.txt", T, b"bytes")
    town.cloud.insert("oc_files_versions", id=1, file_id=file, timestamp=T, size=9, metadata="{}")
    town.scan()
    assert town.told(file) == ["adopted", "gap", "written"]


def test_what_the_disk_cannot_tell_is_looked_at(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another size on disk, and a row that changes while a batch is read: queued, and WebDAV tells."""
    torn = town.cloud.put("alice", ALICE, "torn.txt", b"one")
    town.cloud.write("alice", "files/torn.txt", b"longer")
    busy = town.cloud.put("alice", ALICE, "busy.txt", b"one")
    town.cloud.put("alice", ALICE, "calm.txt", b"one")
    settle = catchup._settle

    def change_and_settle(*arguments: object) -> object:
        town.cloud.run("UPDATE oc_filecache SET etag = 'other' WHERE fileid = :id", id=busy)
        return settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(catchup, "_settle", change_and_settle)
    summary = town.scan()
    assert summary.counts == {"adopted": 2}
    assert [(problem.path, problem.reason) for problem in summary.problems] == [("alice/torn.txt", "unreadable")]
    assert (town.told(busy), town.told(torn), set(town.asked)) == (["adopted"], [], {"torn.txt"})


def test_version_that_comes_while_the_page_is_read_is_not_missed(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] The folder of old versions is listed after the rows: what is overwritten later has another row by then."""
    monkeypatch.setattr(samehost, "PAGE", 1)
    town.cloud.put("alice", ALICE, "a.txt", b"a")
    late = town.cloud.put("alice", ALICE, "b.txt", b"old")
    versions, overwritten = catchup._versions, []

    def overwrite_after(*arguments: object) -> object:
        found = versions(*arguments)  # type: ignore[arg-type]
        if not overwritten:
            overwritten.append(True)
            town.cloud.old_version("alice", "b.txt", T, b"old")
            town.cloud.write("alice", "files/b.txt", b"new!", T + 9)
            change = "UPDATE oc_filecache SET size = 4, mtime = :t, storage_mtime = :t, etag = 'n' WHERE fileid = :id"
            town.cloud.run(change, t=T + 9, id=late)
        return found

    monkeypatch.setattr(catchup, "_versions", overwrite_after)
    town.scan()
    assert town.told(late) == ["adopted", "written"]


def test_old_version_in_ciphertext_is_left_to_webdav(town: Town) -> None:
    """[R] Bytes that a version has on disk alone, encrypted, are never taken for its content: the file is queued."""
    plain = town.cloud.put("alice", ALICE, "d.txt", b"second", T + 100)
    town.cloud.old_version("alice", "d.txt", T, b"HBEGIN:oc_encryption_module:OC_DEFAULT_MODULE:HEND")
    host = opened(town.cloud)
    found = [(one.node.file_id, one.look) for batch in read_homes(host, {ALICE: "alice"}) for one in batch]
    host.close()
    assert found == [(plain, None)]


def test_catch_up_goes_on_where_it_was(cloud: HomeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catch-up that dies after any commit goes on in the next: each file is recorded once, none is missing."""
    monkeypatch.setattr(catchup, "BATCH", 3)
    monkeypatch.setattr(samehost, "PAGE", 5)
    for i in range(17):
        cloud.put("alice", ALICE, f"{i}", b"x" * i)
    town, seen = Town(cloud, tmp_path / "log"), set[int]()
    for dies_after in range(2, 40):
        left = [dies_after]

        def die(progress: Progress, left: list[int] = left) -> None:
            seen.add(progress.files_seen)
            assert progress.files_seen <= progress.files_total == 17  # type: ignore[operator]
            left[0] -= 1
            if not left[0]:
                raise Stopped

        try:
            town.scan(progress=die)
            break
        except Stopped:
            town.log.reopen()
    assert town.log.store.reader().execute("SELECT count(*), max(last_seq) FROM chains").fetchone() == (17, 0)
    assert dies_after > 3
    assert {3, 6, 9, 17} <= seen
    assert (count_dirty(town.log.store.reader(), town.source.row), town.asked) == (0, [])
    town.close()


def test_catch_up_is_the_first_thing_alone(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a walk has begun, the walks do it; an account that comes later is caught up with when it comes."""
    done: list[list[str]] = []
    run = catchup.CatchUp.run

    def write_down(self: catchup.CatchUp) -> None:
        done.append(sorted(self._homes.values()))
        run(self)

    monkeypatch.setattr(catchup.CatchUp, "run", write_down)
    town.users = ("alice",)
    town.cloud.put("alice", ALICE, "a.txt", b"a")
    town.cloud.put("bob", BOB, "b.txt", b"b")
    town.scan()
    town.users = ("alice", "bob")
    town.cloud.put("alice", ALICE, "new.txt", b"a")
    town.scan()
    town.scan()
    assert done == [["alice"], ["bob"]]


def test_event_meanwhile_is_not_told_twice(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] A file whose chain an event's look began meanwhile is left to a look: it is not adopted a second time."""
    file = town.cloud.put("alice", ALICE, "a.txt", b"a")
    settle = catchup._settle

    def look_and_settle(*arguments: object) -> object:
        with town.log.store.transaction() as conn:
            known.add(conn, town.source.row, [Hint(file, "alice", "a.txt")], town.log.clock.now, is_urgent=True)
        town.source.look(Job(town.log.store, town.log.recorder, town.log.clock))
        return settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(catchup, "_settle", look_and_settle)
    with town.source.kept():
        town.scan()
    assert town.told(file) == ["adopted"]
    assert count_dirty(town.log.store.reader(), town.source.row) == 0


def test_catch_up_that_cannot_read_leaves_it_to_the_walk(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that fails in the middle is a problem that is said, and the walk reads what is missing."""
    file = town.cloud.put("alice", ALICE, "a.txt", b"a")

    def fail(*_: object) -> None:
        raise PeerFailed("database: OperationalError")

    monkeypatch.setattr(samehost.Host, "page", fail)
    summary = town.scan()
    assert [(p.reason, p.detail) for p in summary.problems] == [("catch-up", "database: OperationalError")]
    assert town.told(file) == ["adopted"]


def test_path_that_no_entry_can_hold_is_put_off_alone(town: Town) -> None:
    """One file that cannot be recorded does not keep the others of its batch from it."""
    good = town.cloud.put("alice", ALICE, "a.txt", b"a")
    bad = town.cloud.row(ALICE, "files/./b.txt", town.cloud.folders[ALICE, "files"], PLAIN, 1, T)
    town.cloud.write("alice", "files/b.txt", b"b")
    summary = town.scan()
    assert (town.told(good), town.told(bad)) == (["adopted"], [])
    assert [problem.reason for problem in summary.problems] == ["unreadable"]


def test_progress_says_how_long_it_takes() -> None:
    """By files or bytes, whichever take longer, at the pace since the first report; nothing before that can be told."""
    now = [100.0]
    shown = Remaining(lambda: now[0])
    assert shown.line(Progress(50, 1_000, 0, 2 << 20)) == "50 of 1,000 files, 0 of 2 MiB read"
    now[0] += 10
    assert shown.line(Progress(50, 1_000, 0, 2 << 20)).endswith("read")
    assert shown.line(Progress(60, 1_000, 1 << 20, 2 << 20)).endswith("1 of 2 MiB read, 15 min left")
    assert shown.line(Progress(990, 1_000, 1 << 20, 101 << 20)).endswith(", 16 min left")
    assert shown.line(Progress(1_000, 1_000, 2 << 20, 2 << 20)).endswith(", 0 s left")
    assert shown.line(Progress(1_000, None, 0, 0)).startswith("1,000 of ? files")
    assert shown.due(Progress(5, 10, 0, 0), 11.0) is None
    now[0] += 1
    assert shown.due(Progress(5, 10, 0, 0), 11.0) == "5 of 10 files, 0 of 0 MiB read"
    assert shown.due(Progress(5, 10, 0, 0), 11.0) is None


def test_throttle_holds_for_the_catch_up(town: Town) -> None:
    """On average no more than the rate, and a wait hears soon that it has to stop."""
    for i in range(5):
        town.cloud.put("alice", ALICE, f"{i}", b"x" * 100)
    host, waited, limits = opened(town.cloud), list[float](), Limits(Rate(bytes_per_s=50.0), share=1)
    job = Job(town.log.store, town.log.recorder, town.log.clock)
    begun = CatchUp(job, town.source.row, host, ["alice"], limits, {}, lambda: sum(waited), waited.append)
    begun.run()
    assert sum(waited) == pytest.approx(8.0)  # nothing waits for the last file's time
    assert max(waited) <= catchup.NAP_S
    begun.stop()
    with pytest.raises(Stopped):
        begun.run()
    host.close()


def test_catch_up_keeps_to_its_share(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 100% one thread hashes, and it rests as the one does that records; progress says so."""
    town.cloud.put("alice", ALICE, "a", b"x" * (3 << 20))

    workers = list[int]()
    hash_files = hashing.hash_files

    def hashed(*given: Any) -> Any:
        workers.append(given[2])
        return hash_files(*given)

    monkeypatch.setattr(hashing, "hash_files", hashed)

    def run(share: float) -> tuple[set[str], set[str]]:
        """Which threads slept, and what the progress said."""
        ticks, rested, held = count(), set[str](), set[str]()

        def nap(_: float) -> None:
            rested.add(threading.current_thread().name)

        job = Job(town.log.store, town.log.recorder, town.log.clock, lambda progress: held.add(progress.held))
        host, limits = opened(town.cloud), Limits(share=share)
        CatchUp(job, town.source.row, host, ["alice"], limits, {}, lambda: next(ticks) / 50, nap).run()
        host.close()
        with town.log.store.transaction() as conn:
            conn.execute("DELETE FROM nextcloud_known")
        return rested, held

    assert run(1.0) == (set(), {""})
    assert run(0.25) == ({"hash_0"}, {"at a share of 25%"})
    assert workers == [2, 1]
