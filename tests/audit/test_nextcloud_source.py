"""A Nextcloud scanned: what is recorded is what happened, nothing is lost, and what was not checked is said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.chains import Current, find_current, load_chain
from audit.cli import main
from audit.commands.coverage import coverage_data, coverage_text
from audit.errors import Refused
from audit.fsck import Keys, check_log
from audit.nextcloud import known as rows
from audit.nextcloud.coverage import Coverage, Unreadable, measure
from audit.nextcloud.hints import Hint as EventHint
from audit.nextcloud.known import Hint, from_event
from audit.nextcloud.limits import Budget, Limits, Rate, Throttle
from audit.nextcloud.line import Line
from audit.nextcloud.looking import Looker
from audit.nextcloud.source import add_nextcloud, list_nextclouds
from audit.nextcloud.values import Node
from audit.scanning import Job, Stopped, Summary
from tests.audit.log_setup import LogSetup, content_of
from tests.audit.small_cloud import File, SmallCloud, SmallSession
from verifier.chain import Chain
from verifier.entry import Content, ContextField, Operation, TaintKind
from verifier.errors import Usage

SPEC = "nextcloud:https://cloud.example"


class Town:
    """A log beside a small cloud."""

    def __init__(self, directory: Path, *users: str) -> None:
        self.log, self.cloud = LogSetup(directory), SmallCloud(*users)
        self.source = add_nextcloud(self.log.store, SPEC, self.cloud.opener())  # type: ignore[arg-type]
        self.source = self.source._replace(limits=Limits(budget=Budget(hours=0), share=1))
        self.log.source = self.source.row

    def scan(self, **more: object) -> Summary:
        self.cloud.now += 10
        self.log.clock.now += 10
        return self.source.scan(self.job(**more))

    def job(self, **more: object) -> Job:
        return Job(self.log.store, self.log.recorder, self.log.clock, **more)  # type: ignore[arg-type]

    def look(self, *hints: Hint) -> Looker:
        """What a webhook leads to: these files are looked at, and no folder is walked."""
        self.log.clock.now += 1
        with self.log.store.transaction() as conn:
            rows.add(conn, self.source.row, hints, self.log.clock.now)
        sessions = [SmallSession(self.cloud, user) for user in self.cloud.users]
        looker = Looker(self.log.store, self.log.recorder, self.source.row, sessions, self.log.clock)
        asyncio.run(looker.drain())
        return looker

    def current(self, file_id: int) -> Current:
        found = find_current(self.log.store.reader(), self.source.row, file_id)
        assert found is not None
        return found

    def chain(self, file_id: int) -> Chain:
        return load_chain(self.log.store.reader(), self.log.store, self.current(file_id))

    def told(self, file_id: int) -> list[str]:
        return [step.entry.operation.word for step in self.chain(file_id).steps]

    def dirty(self) -> int:
        return rows.count_dirty(self.log.store.reader(), self.source.row)

    def check(self) -> None:
        keys = Keys(self.log.signer.verifier_key, self.log.witness_policy, self.log.auditor_policy)
        assert check_log(self.log.store, keys).findings == []


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path / "log")
    yield made
    made.check()
    made.log.close()


def test_first_walk_adopts_and_later_ones_create(town: Town) -> None:
    """What was there before us is adopted, its oldest version first; what comes later is created."""
    file = town.cloud.put("a/b.txt", b"one", 100)
    town.cloud.put("a/b.txt", b"two", 200)
    assert town.scan().counts == {"written": 1, "adopted": 1}
    new = town.cloud.put("a/c.txt", b"new")
    assert town.scan().counts == {"created": 1}
    assert (town.told(file), town.told(new)) == (["adopted", "written"], ["created"])
    context = town.chain(file).steps[0].context
    assert context == {ContextField.ACTOR: "alice", ContextField.VERSION: "100"}


def test_unchanged_subtrees_are_not_listed(town: Town) -> None:
    """A walk enters the folders whose etag moved, and no others; where nothing moved it lists the root alone."""
    for name in ("a/1", "b/1", "b/c/1"):
        town.cloud.put(name, b"x")
    town.scan()
    town.cloud.listed.clear()
    town.scan()
    assert town.cloud.listed == ["alice/"]
    town.cloud.listed.clear()
    town.cloud.put("b/c/2", b"y")
    town.scan()
    assert town.cloud.listed == ["alice/", "alice/b", "alice/b/c"]


def test_edits_between_two_looks_are_told_one_by_one(town: Town) -> None:
    """Versions that nobody saw come oldest first, each with its own mtime; the last is the current content."""
    file = town.cloud.put("a", b"0", 100)
    town.scan()
    for i in range(1, 5):
        town.cloud.put("a", b"%d" % i, 100 + i)
    town.scan()
    steps = town.chain(file).steps[1:]
    assert [(s.entry.operation.word, s.entry.mtime, s.content) for s in steps] == [
        ("written", 100 + i, content_of(b"%d" % i)) for i in range(1, 5)
    ]


def test_equal_metadata_with_other_bytes_is_altered_by_a_walk(town: Town) -> None:
    """[R] pay 100 / pay 999: only the folder's etag moved, so its files are read, and it never goes unnoticed."""
    file = town.cloud.put("a/order.txt", b"pay 100 to alice", 100)
    other = town.cloud.put("a/other.txt", b"x", 100)
    town.scan()
    town.cloud.bulk("a/order.txt", b"pay 999 to mario")
    town.scan()
    assert (town.told(file), town.told(other)) == (["adopted", "altered"], ["adopted"])
    assert [taint.kind for taint in town.chain(file).taints.values()] == [TaintKind.ALTERED]


def test_equal_metadata_with_other_bytes_is_altered_by_a_hint(town: Town) -> None:
    """A hint always leads to reading the bytes, whatever the metadata says."""
    file = town.cloud.put("a/order.txt", b"pay 100 to alice", 100)
    town.scan()
    town.cloud.bulk("a/order.txt", b"pay 999 to mario")
    town.look(Hint(file, "alice", "a/order.txt"))
    assert town.told(file) == ["adopted", "altered"]


def test_equal_metadata_under_another_change_is_found_in_a_small_folder(town: Town) -> None:
    """[R] Where something else explains the folder's etag, its files are read all the same while they are few."""
    file = town.cloud.put("a/order.txt", b"pay 100 to alice", 100)
    town.scan()
    town.cloud.bulk("a/order.txt", b"pay 999 to mario")
    town.cloud.put("a/other", b"x")
    town.scan()
    assert town.told(file) == ["adopted", "altered"]


def test_equal_metadata_under_another_change_is_found_by_a_full_scan(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large folder reading again is what finds it."""
    monkeypatch.setattr("audit.nextcloud.source.SMALL_FOLDER", (1, 1 << 20))
    file = town.cloud.put("a/order.txt", b"pay 100 to alice", 100)
    town.scan()
    town.cloud.bulk("a/order.txt", b"pay 999 to mario")
    town.cloud.put("a/other", b"x")
    town.scan()
    assert town.told(file) == ["adopted"]
    town.scan(full=True)
    assert town.told(file) == ["adopted", "altered"]


def test_altered_bytes_that_became_a_version_are_told(town: Town) -> None:
    """Bulk bytes that were overwritten before we looked stand under the mtime that we know: they are read and told."""
    file = town.cloud.put("a", b"pay 100", 100)
    town.scan()
    town.cloud.bulk("a", b"pay 999")
    town.cloud.put("a", b"later", 200)
    town.scan()
    assert [s.content for s in town.chain(file).steps] == [content_of(d) for d in (b"pay 100", b"pay 999", b"later")]


def test_version_restore_is_reverted(town: Town) -> None:
    """The old mtime comes back with its bytes: reverted; the same bytes under a new mtime are written."""
    file = town.cloud.put("a", b"one", 100)
    town.cloud.put("a", b"two", 200)
    town.scan()
    town.cloud.revert(file, 100)
    town.scan()
    town.cloud.put("a", b"two", 300)
    town.scan()
    assert town.told(file) == ["adopted", "written", "reverted", "written"]


def test_moves_touches_and_both(town: Town) -> None:
    """A rename, a new mtime, a moved folder; a move with an edit tells both."""
    file = town.cloud.put("a/x", b"1", 100)
    town.scan()
    town.cloud.move("a", "b")
    town.scan()
    town.cloud.touch("b/x", 150)
    town.scan()
    town.cloud.move("b/x", "y")
    town.cloud.put("y", b"2", 200)
    town.scan()
    assert town.told(file) == ["adopted", "moved", "touched", "moved", "written"]
    assert town.current(file).path == "y"


def test_touched_content_that_becomes_a_version_is_known(town: Town) -> None:
    """After a touch the old content is listed under the newer mtime: that is no unseen version."""
    file = town.cloud.put("a", b"one", 100)
    town.scan()
    town.cloud.touch("a", 150)
    town.scan()
    town.cloud.put("a", b"two", 200)
    town.scan()
    assert town.told(file) == ["adopted", "touched", "written"]


def test_copy_names_its_source_where_it_is_proven(town: Town) -> None:
    """A new id with the very metadata and bytes of one other file is its copy; bytes alone are not enough."""
    file = town.cloud.put("a", b"one", 100)
    town.scan()
    copy = town.cloud.copy("a", "b")
    town.cloud.files[copy].__class__ = Copied  # the etag is the source's, as Nextcloud 32 does it
    same = town.cloud.put("c", b"one", 100)
    town.scan()
    assert (town.told(copy), town.told(same)) == (["copied"], ["created"])
    context = town.chain(copy).steps[0].context
    assert isinstance(context, dict)
    assert context[ContextField.COPIED_FROM] == f"file {file}"


class Copied(File):
    @property
    def etag(self) -> str:
        return f"{self.mtime}-11-{len(self.data)}"


def test_trash_restore_and_purge(town: Town) -> None:
    """Deleted while it is in the trash; restored with what it was; purged where it left the trash and did not come."""
    one, two, gone = (town.cloud.put(name, name.encode(), 100) for name in ("1", "2", "3"))
    town.scan()
    town.cloud.delete("1")
    town.cloud.delete("2")
    town.cloud.purge(gone)
    town.scan()
    town.cloud.restore(one, "back/1")
    town.cloud.purge(two)
    town.scan()
    assert town.told(one) == ["adopted", "deleted", "restored"]
    assert town.told(two) == ["adopted", "deleted", "expired"]
    assert town.told(gone) == ["adopted", "deleted", "expired"]
    assert town.current(one).path == "back/1"


def test_id_that_comes_back_after_a_purge_is_another_generation(town: Town) -> None:
    """Nobody can restore what was purged: the chain ends (reused id), and what is there now continues it openly."""
    file = town.cloud.put("1", b"one", 100)
    town.scan()
    lost = town.cloud.files[file]
    town.cloud.purge(file)
    town.scan()
    town.cloud.files[file] = lost
    town.cloud.moved("alice", "1")
    town.scan()
    assert (town.told(file), town.current(file).generation) == (["adopted"], 1)


def test_thinned_versions_expire(town: Town) -> None:
    """A version that the list has lost is expired, once; with an empty list nothing is said."""
    file = town.cloud.put("a", b"1", 100)
    for i in (2, 3):
        town.cloud.put("a", b"%d" % i, i * 100)
    town.scan()
    del town.cloud.files[file].versions[100]
    town.cloud.moved("alice", "a")
    town.scan()
    town.scan()
    assert town.told(file) == ["adopted", "written", "written", "expired"]


def test_empty_content_is_no_expired_version(town: Town) -> None:
    """Nextcloud keeps no empty versions: their absence from the list says nothing."""
    file = town.cloud.put("a", b"", 100)
    town.scan()
    town.cloud.put("a", b"1", 200)
    town.scan()
    assert town.told(file) == ["adopted", "written"]


def test_listed_version_without_bytes_is_a_gap(town: Town) -> None:
    """History that is known to be missing is said to be missing, and taints the chain."""
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    town.cloud.put("a", b"2", 200)
    town.cloud.put("a", b"3", 300)
    town.cloud.broken.add("v200")
    town.scan()
    assert town.told(file) == ["adopted", "gap", "written"]


def test_version_of_another_size_than_listed_is_a_collapse(town: Town) -> None:
    """A list that says another size than its bytes have: two contents had one id, and one of them is lost."""
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    town.cloud.put("a", b"22", 200)
    town.cloud.put("a", b"3", 300)
    town.cloud.files[file].sizes[200] = 7
    town.scan()
    assert town.told(file) == ["adopted", "written", "gap", "written"]


def test_same_second_writes_end_as_versions(town: Town) -> None:
    """A write within the second of the one that we saw has the same mtime: another etag or size, and it is written."""
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    town.cloud.put("a", b"22", 100)
    town.scan()
    assert town.told(file) == ["adopted", "written"]


def test_file_that_changes_while_it_is_read_is_read_again(town: Town) -> None:
    """Metadata before and after have to agree; what never holds still stays queued with its reason."""
    file = town.cloud.put("a", b"1", 100)

    def once(_: File) -> None:
        town.cloud.on_read = lambda file: None
        town.cloud.put("a", b"22", 200)

    town.cloud.on_read = once
    town.scan()
    assert town.current(file).content == content_of(b"22")
    town.cloud.on_read = lambda file: town.cloud.put("a", file.data + b"x", file.mtime + 1) and None  # type: ignore[func-returns-value]
    town.cloud.put("a", b"3", 300)
    summary = town.scan()
    assert [(p.path, p.detail) for p in summary.problems] == [("alice/a", "changed while it was read")]
    assert town.dirty() == 1
    town.cloud.on_read = lambda file: None
    town.log.clock.now += 60
    town.scan()
    assert town.dirty() == 0


def test_hint_while_reading_makes_the_look_start_again(town: Town) -> None:
    """[R] Equal metadata prove nothing: a hint that comes while the bytes are read discards them."""
    file = town.cloud.put("a", b"pay 100", 100)

    def meanwhile(_: File) -> None:
        town.cloud.on_read = lambda file: None
        town.cloud.bulk("a", b"pay 999")
        with town.log.store.transaction() as conn:
            rows.add(conn, town.source.row, [Hint(file, "alice", "a")], town.log.clock.now)

    town.cloud.on_read = meanwhile
    town.cloud.reads.clear()
    town.scan()
    assert (town.cloud.reads, town.told(file)) == (["a", "a"], ["adopted"])
    assert town.current(file).content == content_of(b"pay 999")


def test_two_lookers_beside_each_other_tell_nothing_twice(town: Town) -> None:
    """[R] What was concluded from a chain that went on meanwhile is not recorded: the file is looked at again later."""
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    town.cloud.put("a", b"2", 200)

    def look_between(_: File) -> None:
        town.cloud.on_read = lambda _: None
        thread = threading.Thread(target=lambda: town.look(Hint(0, "alice", "a")))
        thread.start()
        thread.join()

    town.cloud.on_read = look_between
    town.look(Hint(file, "alice", "a"))
    assert (town.told(file), town.dirty()) == (["adopted", "written"], 1)
    town.log.clock.now += 100
    town.look()
    assert (town.told(file), town.dirty()) == (["adopted", "written"], 0)


def test_chain_that_goes_on_before_a_look_is_recorded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] Between the conclusion and its transaction another look may come: the second is not recorded on top of it."""
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    town.cloud.put("a", b"2", 200)
    record = Looker._record

    def look_first(looker: Looker, batch: object) -> None:
        monkeypatch.setattr(Looker, "_record", record)
        town.look(Hint(0, "alice", "a"))
        record(looker, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Looker, "_record", look_first)
    town.look(Hint(file, "alice", "a"))
    assert town.told(file) == ["adopted", "written"]
    town.log.clock.now += 100
    town.look()
    assert (town.told(file), town.dirty()) == (["adopted", "written"], 0)


def test_file_that_one_looker_has_in_hand_is_left_alone_by_others(town: Town) -> None:
    """It is read once; and what only events told of is all that a look beside a scan takes."""
    file, other = town.cloud.put("a", b"1", 100), town.cloud.put("b", b"1", 100)
    with town.log.store.transaction() as conn:
        rows.add(conn, town.source.row, [Hint(file, "alice", "a")], 1, is_urgent=True)
        rows.add(conn, town.source.row, [Hint(other, "alice", "b")], 1)
    in_hand = {(file, "")}
    sessions = [SmallSession(town.cloud, "alice")]
    looker = Looker(town.log.store, town.log.recorder, town.source.row, sessions, town.log.clock, in_hand=in_hand)
    asyncio.run(looker.drain_urgent())
    assert town.cloud.reads == []
    asyncio.run(looker.drain())
    assert town.cloud.reads == ["b"]
    in_hand.clear()
    asyncio.run(looker.drain_urgent())
    assert (town.cloud.reads, town.dirty(), in_hand) == (["b", "a"], 0, set())


def test_queue_is_durable_and_each_file_stands_in_it_once(town: Town) -> None:
    """Many hints for one file are one look; they survive a restart; a hint for an unknown path is looked up."""
    file = town.cloud.put("a", b"1", 100)
    with town.log.store.transaction() as conn:
        for _ in range(1_000):
            rows.add(conn, town.source.row, [Hint(file, "alice", "a"), Hint(0, "alice", "a")], 1)
    town.log.reopen()
    assert town.dirty() == 2
    town.look()
    assert (town.dirty(), town.told(file)) == (0, ["adopted"])  # no walk has ended: who knows since when it is there


def test_hints_without_a_name_or_a_file_come_to_nothing_bad(town: Town) -> None:
    """An id alone is looked for in every account; a path alone, in nobody's; a folder is left to the next walk."""
    file = town.cloud.put("d/a", b"1", 100)
    events = [EventHint(None, "", "d/a"), EventHint(None, "nobody", "d/a"), EventHint(None, "alice", "d")]
    town.look(*map(from_event, events), Hint(99, "alice", "gone"))
    assert (town.dirty(), find_current(town.log.store.reader(), town.source.row, file)) == (0, None)
    town.look(from_event(EventHint(file, "", None)))
    assert (town.dirty(), town.told(file)) == (0, ["adopted"])  # no walk has ended: who knows since when it is there


def test_deletion_hinted_by_path_alone(town: Town) -> None:
    """NodeDeleted has no id: the path leads to the file that was recorded there."""
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    town.cloud.delete("a")
    town.look(Hint(0, "alice", "a"))
    assert town.told(file) == ["adopted", "deleted"]


def test_walk_goes_on_where_it_was(town: Town) -> None:
    """A folder that could not be listed is a problem, and the next walk comes back to it alone."""
    first = town.cloud.put("a/1", b"1", 100)
    town.cloud.put("b/1", b"1", 100)
    town.cloud.broken = {"b"}
    summary = town.scan()
    assert ([p.path for p in summary.problems], town.told(first)) == (["alice/b"], ["adopted"])
    town.cloud.broken = set()
    town.cloud.listed.clear()
    assert town.scan().counts == {"adopted": 1}
    assert town.cloud.listed == ["alice/", "alice/b"]


def test_file_that_cannot_be_read_does_not_stop_the_others(town: Town) -> None:
    """It stays queued with its reason, and is put off longer each time."""
    town.cloud.put("bad", b"1", 100)
    good = town.cloud.put("good", b"1", 100)
    town.cloud.broken = {"bad"}
    assert [(p.path, p.detail) for p in town.scan().problems] == [("alice/bad", "answered 403")]
    assert town.told(good) == ["adopted"]
    row = town.log.store.reader().execute("SELECT tries, due_at - last_at FROM nextcloud_dirty").fetchone()
    assert row == (1, 5)


def test_event_during_a_look_that_fails_is_not_put_off(town: Town) -> None:
    """A file that was tried often waits for hours; what an event tells of it meanwhile is looked at at once."""
    number = town.cloud.put("a", b"one")
    town.scan()
    town.cloud.put("a", b"two")
    town.cloud.broken.add("a")
    conn, row = town.log.store.reader(), town.source.row
    for _ in range(14):
        town.log.clock.now += 6 * 3600
        town.look(Hint(number, "alice", "a"))

    def event(path: str) -> None:
        town.cloud.on_broken = lambda path: None
        with town.log.store.transaction() as writer:
            rows.add(writer, row, [Hint(number, "alice", "a")], town.log.clock.now, is_urgent=True)
        town.cloud.broken.discard("a")

    town.cloud.on_broken = event
    town.look(Hint(number, "alice", "a"))
    assert town.told(number) == ["adopted", "written"]
    assert rows.next_due(conn, row) is None


def test_file_that_fails_while_it_is_read_again_is_put_off(town: Town) -> None:
    """Nobody hinted at it: it is queued, later each time, like any other."""
    number = town.cloud.put("a", b"one")
    town.scan()
    town.cloud.broken.add("a")
    town.scan(full=True)
    (dirty,) = rows.take(town.log.store.reader(), town.source.row, 9, 2**60)
    assert (dirty.file_id, dirty.tries) == (number, 1)
    assert rows.next_due(town.log.store.reader(), town.source.row) == town.log.clock.now + rows.RETRY_FIRST_S


def test_folder_that_goes_before_it_was_seen_whole_is_missed(town: Town) -> None:
    """Files of a folder that was cut off in the first walk are looked for once the folder is gone."""
    file = town.cloud.put("a/1", b"1", 100)
    town.cloud.put("a/b/2", b"1", 100)
    town.cloud.broken = {"a/b"}
    town.scan()
    town.cloud.broken = set()
    for path in ("a/1", "a/b/2"):
        town.cloud.delete(path)
    town.scan()
    assert town.told(file) == ["adopted", "deleted"]


def test_external_storage_tells_no_versions(town: Town) -> None:
    """Each user has another version list there, so none is told, and none expires."""
    file = town.cloud.put("ext/a", b"1", 100)
    town.cloud.files[file].mount = "external"
    town.cloud.put("ext/a", b"2", 200)
    town.scan()
    town.cloud.put("ext/a", b"3", 300)
    town.scan()
    assert (town.told(file), town.current(file).user) == (["adopted", "written"], "/external")


@pytest.mark.parametrize("mount", ["group", "external"])
def test_change_in_a_mount_that_moves_no_etag_is_found_within_the_hour(town: Town, mount: str) -> None:
    """A version restore in a group folder, a write beside Nextcloud: all folders there are entered once an hour."""
    file = town.cloud.put("team/d/a", b"1", 100)
    town.cloud.files[file].mount = mount
    town.log.clock.now -= town.log.clock.now % 3_600
    town.scan()
    changed = town.cloud.files[file]
    changed.data, changed.mtime, changed.versions[100] = b"2", 200, b"1"
    for later, steps in ((1_000, ["adopted"]), (2_500, ["adopted"]), (100, ["adopted", "written"])):
        town.log.clock.now += later
        town.scan()
        assert town.told(file) == steps


def test_file_given_to_another_user(tmp_path: Path) -> None:
    """A transfer of ownership: one chain ends as the old owner's, the new one's goes on from it; nothing is deleted."""
    town = Town(tmp_path / "log", "alice", "bob")
    town.log.enrol("alice")
    town.log.enrol("bob")
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    town.cloud.give(file, "bob", "from alice/a")
    town.look(Hint(file, "alice", "a"))  # her account does not see it any more: everybody is asked
    town.scan()
    assert (town.told(file), town.current(file).user) == (["adopted", "moved"], "bob")
    before = town.current(file).predecessor
    assert before is not None
    town.check()
    town.log.close()


def test_file_given_to_another_user_without_its_versions(tmp_path: Path) -> None:
    """[R] What left the list with the transfer is not named in a chain where it never was, and the file goes on."""
    town = Town(tmp_path / "log", "alice", "bob")
    town.log.enrol("alice")
    town.log.enrol("bob")
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    for mtime in (200, 300):
        town.cloud.put("a", b"%d" % mtime, mtime)
    town.scan()
    assert town.told(file) == ["adopted", "written", "written"]
    town.cloud.give(file, "bob", "from alice/a")
    del town.cloud.files[file].versions[100]
    town.scan()
    assert (town.told(file), town.current(file).user) == (["adopted", "moved"], "bob")
    town.check()
    town.log.close()


def test_version_that_the_server_cannot_give_holds_up_nothing(town: Town) -> None:
    """One whose bytes were logged is passed over at once; an unseen one is a gap, after a few looks that failed."""
    file = town.cloud.put("a", b"one", 100)
    town.scan()
    town.cloud.faulty |= {100, 200}
    town.cloud.put("a", b"two", 150)
    town.scan()
    assert town.told(file) == ["adopted", "written"]
    town.cloud.put("a", b"three", 200)
    town.cloud.put("a", b"four", 300)
    for number in range(4):
        town.log.clock.now += 86_400
        town.scan()
        assert (town.told(file) == ["adopted", "written"]) == (number < 3)
    assert town.told(file) == ["adopted", "written", "gap", "written"]
    town.check()


def test_another_server_at_the_same_address_is_refused(town: Town) -> None:
    """An instance id that changes is another Nextcloud, whose file ids mean other files."""
    town.scan()
    town.cloud.instance = "oc2"
    with pytest.raises(Refused, match="is nextcloud:oc2 by now"):
        town.scan()
    with pytest.raises(Refused, match="want nextcloud:oc1"):
        add_nextcloud(town.log.store, SPEC, town.cloud.opener())  # type: ignore[arg-type]
    with pytest.raises(Usage):
        add_nextcloud(town.log.store, SPEC + "/", town.cloud.opener())  # type: ignore[arg-type]
    assert [s.source_id for s in list_nextclouds(town.log.store, town.cloud.opener())] == ["nextcloud:oc1"]  # type: ignore[arg-type]


def test_rereading_goes_over_everything_in_its_days(town: Town) -> None:
    """An equal share each day, the longest unread first; within a day no more than that, also over several scans."""
    for i in range(10):
        town.cloud.put(f"{i}", b"x", 100)
    town.scan()
    town.source = town.source._replace(limits=Limits(budget=Budget(days=5, hours=1, bytes_per_s=0), share=1))
    seen: list[str] = []
    for _ in range(5):
        town.log.clock.now += 86_400
        town.cloud.reads.clear()
        town.scan()
        town.scan()
        assert len(town.cloud.reads) == 2
        seen += town.cloud.reads
    assert sorted(seen) == [f"{i}" for i in range(10)]


def test_files_that_cannot_be_read_keep_none_from_being_read_again(tmp_path: Path) -> None:
    """An account that is gone: the others' files have their turn all the same, each day, and only they count."""
    town = Town(tmp_path / "log", "alice", "bob")
    for i in range(10):
        town.cloud.put(f"b{i}", b"bob", user="bob")
        town.cloud.put(f"a{i}", b"alice")
    town.scan()
    town.cloud.users.remove("bob")
    with town.log.store.transaction() as conn:  # bob's are the oldest
        conn.execute("UPDATE nextcloud_known SET checked = checked + 1 WHERE user = 'alice'")
    town.source = town.source._replace(limits=Limits(budget=Budget(days=5, hours=5, bytes_per_s=0), share=1))
    seen: list[str] = []
    for _ in range(3):
        town.log.clock.now += 86_400
        town.cloud.reads.clear()
        town.scan()
        used = rows.get_reads(town.log.store.reader(), town.source.row, town.log.clock.now // 86_400)
        assert used.files == len(town.cloud.reads) == 4
        seen += town.cloud.reads
    assert set(seen) == {f"a{i}" for i in range(10)}
    town.log.close()


def test_throttle_spreads_what_it_lets_through() -> None:
    """On average no more than the rate: after a big file the next one waits."""
    now = [0.0]
    waits: list[float] = []

    async def run() -> None:
        throttle = Throttle(Rate(10, 100), lambda: now[0])
        for size in (0, 500, 0):
            await throttle.wait(1, size)
            waits.append(throttle._free)

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.nextcloud.limits.asyncio.sleep", sleep)
        asyncio.run(run())
    assert waits == pytest.approx([0.1, 5.1, 5.2])
    assert now[0] == pytest.approx(5.1)


# -- random lives -------------------------------------------------------------------------------------------------

DATA = st.sampled_from([b"", b"a", b"b", b"cc", b"dd"])
STEP = st.one_of(
    st.tuples(st.just("put"), DATA, st.sampled_from([0, 0, 1, 5, -3])),
    st.tuples(st.just("bulk"), st.sampled_from([b"a", b"b", b"cc", b"dd"])),
    st.tuples(st.just("touch"), st.sampled_from([1, 7, -4])),
    st.tuples(st.just("move"), st.sampled_from(["x", "y", "d/z"])),
    st.tuples(st.just("delete")),
    st.tuples(st.just("restore"), st.sampled_from(["x", "d/z"])),
    st.tuples(st.just("revert"), st.integers(0, 3)),
    st.tuples(st.just("thin"), st.integers(0, 3)),
    st.tuples(st.just("scan")),
    st.tuples(st.just("look")),
)


def live(town: Town, file: File, step: tuple[object, ...], real: set[Content]) -> None:
    """One thing that happens to the file, where it can happen."""
    cloud, name, versions = town.cloud, step[0], sorted(file.versions)
    cloud.now += 1
    if name == "restore" and file.deleted_at:
        cloud.restore(file.file_id, str(step[1]))
    elif name == "scan":
        town.scan()
    elif name == "look":
        town.look(Hint(file.file_id, "alice", file.path))
    elif not file.deleted_at:
        if name == "put":
            cloud.put(file.path, step[1], max(1, file.mtime + step[2]))  # type: ignore[arg-type, operator]
        elif name == "bulk" and len(file.data) == len(step[1]):  # type: ignore[arg-type]
            cloud.bulk(file.path, step[1])  # type: ignore[arg-type]
        elif name == "touch":
            cloud.touch(file.path, max(1, file.mtime + step[1]))  # type: ignore[operator]
        elif name == "move":
            cloud.move(file.path, str(step[1]))
        elif name == "delete":
            cloud.delete(file.path)
        elif name == "revert" and versions:
            cloud.revert(file.file_id, versions[step[1] % len(versions)])  # type: ignore[operator]
        elif name == "thin" and versions:
            del file.versions[versions[step[1] % len(versions)]]  # type: ignore[operator]
    real.add(content_of(file.data))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=14))
def test_random_lives_end_as_legitimate_chains(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    """Whatever happens to a file and whenever we look: every step is legal, each content told of was real, each one
    that is still listed is told of, and path, content and status are those of the file."""
    town = Town(tmp_path_factory.mktemp("life") / "log")
    file_id = town.cloud.put("x", b"a", 100)
    file = town.cloud.files[file_id]
    real = {content_of(b"a")}
    for step in (*steps, ("scan",), ("look",)):
        live(town, file, step, real)
    assert town.log.store.reader().execute("SELECT why FROM nextcloud_dirty").fetchall() == []
    if find_current(town.log.store.reader(), town.source.row, file_id) is None:
        assert file.deleted_at  # before anybody looked
        town.log.close()
        return
    chain = town.chain(file_id)
    told = {step.content for step in chain.steps if isinstance(step.content, Content)}
    assert told <= real
    assert chain.status == ("deleted" if file.deleted_at else "live")
    if not file.deleted_at:
        assert (chain.content, chain.path) == (content_of(file.data), file.path)
        listed = {mtime: data for mtime, data in file.versions.items() if mtime != file.mtime}  # that id means the file
        assert {content_of(data) for data in listed.values()} <= told
    town.check()
    town.log.close()


def test_operations_are_counted_by_their_words(town: Town) -> None:
    """The summary counts entries by operation."""
    town.cloud.put("a", b"1", 100)
    assert town.scan().counts == {Operation.ADOPTED.word: 1}


def test_bytes_that_came_back_after_a_bulk_upload_leave_no_hole(town: Town) -> None:
    """[R] pay 100, in bulk pay 999, then pay 100 again: what stood there in between is a version, and is told."""
    file = town.cloud.put("a", b"pay 100", 100)
    town.scan()
    town.cloud.bulk("a", b"pay 999")
    town.cloud.put("a", b"pay 100", 200)
    town.scan()
    assert [s.content for s in town.chain(file).steps] == [content_of(d) for d in (b"pay 100", b"pay 999", b"pay 100")]


def test_shared_file_is_its_owners(tmp_path: Path) -> None:
    """What is shared with an account is seen by the owner's; an owner without one is named as not covered."""
    town = Town(tmp_path / "log", "alice")
    shared = town.cloud.put("from bob.txt", b"1", 100)

    class Shared(File):
        @property
        def etag(self) -> str:
            return "e"

    town.cloud.files[shared].__class__ = Shared

    class BobsSession(SmallSession):
        def _node(self, f: File) -> Node:
            return super()._node(f)._replace(owner="bob", mount=mounts[0])

    @asynccontextmanager
    async def opened() -> AsyncIterator[list[SmallSession]]:
        yield [BobsSession(town.cloud, "alice")]

    town.source = town.source._replace(line=Line(opened))
    mounts = ["shared", ""]
    while mounts:  # whichever way it is told
        summary = town.scan()
        del mounts[0]
        assert (summary.counts, [(p.path, p.reason) for p in summary.problems]) == ({}, [("bob", "no-account")])
    town.log.close()


def test_only_who_enrolled_is_read_where_that_is_asked(tmp_path: Path) -> None:
    """With enrolled_only the other accounts are not even listed."""
    town = Town(tmp_path / "log", "alice", "bob")
    town.log.enrol("bob")
    town.cloud.put("a", b"1", 100)
    town.cloud.put("b", b"1", 100, user="bob")
    assert town.scan(enrolled_only=True).counts == {"adopted": 1}
    assert town.cloud.listed == ["bob/"]
    town.log.close()


def test_restart_in_the_middle_loses_and_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that dies after any commit goes on in the next: each file has one chain of one entry, none is missing."""
    town = Town(tmp_path / "log")
    monkeypatch.setattr("audit.nextcloud.looking.BATCH", 2)
    for i in range(9):
        town.cloud.put(f"d{i % 3}/{i}", b"x", 100)
    for dies_after in range(1, 40):
        left = [dies_after]

        def die(_: object, left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                raise Stopped

        try:
            town.scan(progress=die)
            break
        except Stopped:
            town.log.reopen()
    rows_of = town.log.store.reader().execute("SELECT count(*), max(last_seq), min(last_seq) FROM chains").fetchone()
    assert rows_of == (9, 0, 0)
    assert dies_after > 3
    assert town.dirty() == 0
    town.check()
    town.log.close()


def test_coverage_says_what_was_not_checked(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole only where every file is chained, was read lately, and nothing waits or failed."""
    town.cloud.put("a/good", b"1", 100)
    town.cloud.put("a/bad", b"1", 100)

    def cover(days: int = 30) -> Coverage:
        with town.log.store.snapshot() as conn:
            return measure(conn, town.source.row, "nextcloud:oc1", town.log.clock.now, days)

    assert not cover().is_whole  # nobody ever looked
    town.cloud.broken = {"a/bad"}
    town.scan()
    assert (cover().is_whole, cover().files, cover().waiting) == (False, 1, 1)
    assert cover().unreadable == (Unreadable("answered 403", 1, "alice/a/bad"),)
    town.cloud.broken = {"a"}
    town.cloud.put("a/more", b"1", 100)
    town.scan()
    assert "NOT WHOLLY COVERED" in coverage_text(cover())
    town.cloud.broken = {""}
    town.scan()
    assert (cover().accounts_walked, cover().is_whole) == (0, False)
    town.cloud.broken = set()
    town.log.clock.now += 3600
    town.scan()
    assert (cover().is_whole, cover().files, cover().chained, cover().read_again) == (True, 3, 3, 3)
    created = "SELECT count(*) FROM entries WHERE substr(entry, 2, 1) = x'01'"
    assert town.log.store.reader().execute(created).fetchone() == (1,)  # "more" came after the first walk
    assert coverage_text(cover()).startswith("nextcloud:oc1: covered")
    town.log.clock.now += 86_400 * 2
    assert (cover(1).is_whole, cover(1).read_again, cover(3).is_whole) == (False, 0, True)
    assert coverage_data(cover(1))["whole"] is False


def test_fsck_compares_what_was_seen_with_the_chains(town: Town) -> None:
    """Rows of the last look that say otherwise than the chains are findings."""
    file = town.cloud.put("a", b"1", 100)
    town.scan()
    keys = Keys(town.log.signer.verifier_key, town.log.witness_policy, town.log.auditor_policy)
    for change, back in (
        ("path = 'b'", "path = 'a'"),
        ("in_trash = 1", "in_trash = 0"),
        ("user = 'x'", "user = 'alice'"),
    ):
        with town.log.store.transaction() as conn:
            conn.execute(f"UPDATE nextcloud_known SET {change}")
        assert [finding.kind for finding in check_log(town.log.store, keys).findings] == ["nextcloud"]
        with town.log.store.transaction() as conn:
            conn.execute(f"UPDATE nextcloud_known SET {back}")
    assert town.told(file) == ["adopted"]


def test_commands_record_and_cover_a_nextcloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """init, token, record, record again, coverage: as an operator types them."""
    cloud, data = SmallCloud("alice"), str(tmp_path / "data")
    cloud.put("a.txt", b"1", 100)
    asked: list[str] = []

    def opened(directory: str) -> object:
        asked.append(directory)
        return cloud.opener()()

    monkeypatch.setattr("audit.sources.open_configured", opened)
    assert main(["init", "--data", data, "--origin", "log.example/files"]) == 0
    assert main(["record", "--data", data, "--source", SPEC]) == 0
    assert "nextcloud:oc1: 1 adopted" in capsys.readouterr().out
    assert main(["token", "--data", data, "--user", "alice", "--source", "nextcloud:oc1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "owner"
    assert main(["token", "--data", data, "--user", "office", "--instance"]) == 0
    assert "the instance's root" in capsys.readouterr().out
    assert main(["token", "--data", data, "--user", "x", "--source", "nextcloud:other"]) == 4
    capsys.readouterr()
    assert main(["coverage", "--data", data]) == 0
    assert "covered" in capsys.readouterr().out
    cloud.broken = {""}
    assert main(["record", "--data", data, "--source", SPEC, "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [problem["detail"] for problem in out["problems"]] == ["answered 500"]
    assert set(asked) == {data}
    assert main(["fsck", "--data", data]) == 0
    assert main(["coverage", "--data", data, "--days", "0"]) == 4
