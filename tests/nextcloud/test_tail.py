"""Following audit.log: every whole line once it is there, over rotations, restarts and half lines."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from audit.errors import TryLater
from audit.nextcloud import tail as tail_module
from audit.nextcloud.hints import Hint
from audit.nextcloud.tail import Tail
from tests.nextcloud.events import CloudTown
from verifier.errors import Malformed, Usage


class Taken:
    """What is on disk. `fails`: how many transactions to refuse."""

    def __init__(self) -> None:
        self.ids: list[int | None] = []
        self.fails = 0

    def add_now(self, hints: list[Hint]) -> None:
        if self.fails:
            self.fails -= 1
            raise TryLater("log.db: locked")
        self.ids += [hint.file_id for hint in hints]


def line(number: int) -> str:
    message = f'File with id "{number}" written to: "/alice/files/{number}.txt"'
    return json.dumps({"app": "admin_audit", "user": "alice", "message": message}) + "\n"


class Setup:
    def __init__(self, directory: Path) -> None:
        self.home, self.log, self.taken = directory / "log", directory / "audit.log", Taken()
        self.home.mkdir()
        self.log.write_text(line(1))
        self.open()

    def open(self) -> None:
        self.tail = Tail(str(self.home), str(self.log))

    def write(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(text)

    def read(self) -> list[int | None]:
        """What came by this."""
        before = len(self.taken.ids)
        self.tail.read_on(self.taken)
        return self.taken.ids[before:]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_tail_starts_at_the_end_and_reads_on(setup: Setup) -> None:
    """What was there before is the first scan's; afterwards each line comes once."""
    assert setup.read() == []
    setup.write(line(2) + line(3))
    assert setup.read() == [2, 3]
    assert setup.read() == []


def test_tail_waits_for_the_end_of_a_line(setup: Setup) -> None:
    """[R] Half a line is no line yet, also over a restart."""
    text = line(3)
    setup.write(line(2) + text[:40])
    assert setup.read() == [2]
    setup.open()
    assert setup.read() == []
    setup.write(text[40:])
    assert setup.read() == [3]


def test_tail_goes_on_after_a_restart(setup: Setup) -> None:
    """[R] Lines that were written while nobody followed are read."""
    setup.write(line(2))
    assert setup.read() == [2]
    setup.write(line(3))
    setup.open()
    assert setup.read() == [3]


@pytest.mark.parametrize("restarts", [False, True])
def test_tail_follows_a_rotation(setup: Setup, restarts: bool) -> None:
    """[R] The rest of the file that was moved away comes first, then the new one from its start."""
    setup.write(line(2))
    os.rename(setup.log, f"{setup.log}.1")
    assert setup.read() == []  # there is no new one yet
    setup.write(line(3) + line(4))
    if restarts:
        setup.open()
    assert setup.read() == [2, 3, 4]
    setup.write(line(5))
    assert setup.read() == [5]


def test_tail_takes_a_shorter_file_for_a_new_one(setup: Setup) -> None:
    """Copied and truncated: it is read from its start."""
    setup.write(line(2))
    setup.read()
    setup.log.write_text(line(7))
    assert setup.read() == [7]


def test_tail_keeps_its_place_until_hints_are_on_disk(setup: Setup) -> None:
    """[R] Where they could not be queued, the same lines are read again."""
    setup.write(line(2))
    setup.taken.fails = 1
    with pytest.raises(TryLater):
        setup.read()
    setup.open()
    assert setup.read() == [2]


def test_tail_passes_over_what_it_cannot_read(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of others, broken ones, and ones beyond every bound cost nothing but themselves."""
    monkeypatch.setattr(tail_module, "CHUNK", 1_000)
    setup.write('{"app":"core","message":"x"}\nnonsense\n' + "x" * 70_000 + "\n" + line(2) + "\n" + line(3))
    assert setup.read() == [2, 3]
    assert setup.tail.skipped >= 2


def test_tail_needs_its_file_and_its_place(setup: Setup, tmp_path: Path) -> None:
    """A missing file and a place that cannot be read are said at the start; another file begins at its end."""
    with pytest.raises(Usage, match="admin_audit"):
        Tail(str(tmp_path), str(tmp_path / "missing"))
    other = tmp_path / "other.log"
    other.write_text(line(8))
    tail = Tail(str(setup.home), str(other))
    tail.read_on(setup.taken)
    assert setup.taken.ids == []
    (setup.home / "audit-log.json").write_text('{"path":"x"}')
    with pytest.raises(Malformed, match="audit-log"):
        setup.open()


def test_tail_leads_to_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line in the log is a look without a scan; a queue that cannot be written is said, and the line comes again."""
    monkeypatch.setattr(tail_module, "EVERY_S", 0.005)
    town, path = CloudTown(tmp_path), tmp_path / "audit.log"
    path.write_text("")
    town.service._tail = Tail(str(tmp_path / "log"), str(path))
    add_now, fails = town.service.inbox.add_now, [TryLater("log.db: locked")]

    def fail_once(hints: list[Hint]) -> None:
        if hints and fails:
            raise fails.pop()
        add_now(hints)

    monkeypatch.setattr(town.service.inbox, "add_now", fail_once)

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans == 1)
            file = town.put("a.txt", b"one")
            path.write_text(line(file))
            await town.until(lambda: town.told(file) == ["created"])
            assert "audit log: log.db: locked" in town.said

    asyncio.run(story())
    assert town.fatal == []
    town.close()
