"""From a scan of a folder to the log: in which transactions what was seen is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit import scanning
from audit.chains import find_at_path
from audit.scanning import Job, add_folder
from tests.audit.log_setup import LogSetup


class Folder(LogSetup):
    """A folder with numbered files, scanned once; `written`: how many entries each transaction then had."""

    def __init__(self, directory: Path, count: int) -> None:
        super().__init__(directory / "log")
        self.root = directory / "files"
        (self.root / "a").mkdir(parents=True)
        for i in range(count):
            (self.root / "a" / f"{i:02}").write_text(f"{i}")
        self.folder = add_folder(self.store, f"folder:{self.root}")
        self.job = Job(self.store, self.recorder, self.clock)
        self.folder.scan(self.job)
        self.written: list[int] = []
        record = self.recorder.record

        def watch(*args: object) -> object:
            self.written.append(len(args[0]))  # type: ignore[arg-type]
            found = record(*args)  # type: ignore[arg-type]
            paths = self.store.reader().execute("SELECT path FROM folder_known").fetchall()
            assert len(set(paths)) == len(paths) == count
            return found

        self.recorder.record = watch  # type: ignore[assignment,method-assign]

    def holder(self, path: str) -> int:
        found = find_at_path(self.store.reader(), self.folder.row, path)
        assert found is not None
        return found.file_id


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.setattr(scanning, "BATCH", 4)
    made = Folder(tmp_path, 10)
    yield made
    made.close()


def test_renamed_folder_is_written_in_batches(folder: Folder) -> None:
    """Whoever else writes gets a turn in between, however many files are below it."""
    os.rename(folder.root / "a", folder.root / "b")
    assert folder.folder.scan(folder.job).counts["moved"] == 10
    assert folder.written == [4, 4, 2]


def test_names_that_move_up_follow_each_other(folder: Folder) -> None:
    """As logs are rotated: whoever leaves a path comes first, so it takes no one transaction."""
    ids = {i: folder.holder(f"a/{i:02}") for i in range(10)}
    for i in reversed(range(10)):
        os.rename(folder.root / "a" / f"{i:02}", folder.root / "a" / f"{i + 1:02}")
    assert folder.folder.scan(folder.job).counts["moved"] == 10
    assert folder.written == [4, 4, 2]
    assert all(folder.holder(f"a/{i + 1:02}") == ids[i] for i in range(10))


def test_names_that_move_in_a_circle_go_together(folder: Folder) -> None:
    """Six files of which each takes the next one's path are one transaction; a seventh that moved is not held up."""
    ids = {i: folder.holder(f"a/{i:02}") for i in range(10)}
    for i in range(6):
        os.rename(folder.root / "a" / f"{i:02}", folder.root / f"t{i}")
    for i in range(6):
        os.rename(folder.root / f"t{i}", folder.root / "a" / f"{(i + 1) % 6:02}")
    os.rename(folder.root / "a" / "09", folder.root / "a" / "99")
    assert folder.folder.scan(folder.job).counts["moved"] == 7
    assert folder.written == [6, 1]
    assert all(folder.holder(f"a/{(i + 1) % 6:02}") == ids[i] for i in range(6))
