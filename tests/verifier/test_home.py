"""The state directory on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import verifier.home as home_module
from tests.verifier.test_state import LOG, WORLD
from verifier.errors import Malformed, Usage
from verifier.home import Home
from verifier.state import FileState, LocalState, PathState


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path / "seed.state"))


def test_home_remembers_what_was_written(home: Home) -> None:
    """Logs, files, paths and local files come back; what was never written is None."""
    assert home.logs() == []
    assert home.read_log(LOG.log) is None
    home.write_log(LOG)
    home.write_file(LOG, FileState(LOG.source, 7, "a", b"{}\n"))
    home.write_path(LOG, PathState(LOG.source, "a", 7))
    home.write_local(LOG, LocalState("/x/a", LOG.source, "a"))
    assert home.logs() == [LOG]
    assert home.read_log(LOG.log) == LOG
    assert home.read_file(LOG, 7) == FileState(LOG.source, 7, "a", b"{}\n")
    assert home.read_file(LOG, 8) is None
    assert home.read_path(LOG, "a") == PathState(LOG.source, "a", 7)
    assert home.read_local(LOG, "/x/a") == LocalState("/x/a", LOG.source, "a")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_home_is_the_owners_alone(home: Home) -> None:
    """Directories 0700, files 0600, whatever the umask."""
    old = os.umask(0)
    try:
        home.write_file(LOG, FileState(LOG.source, 7, None, None))
    finally:
        os.umask(old)
    for directory, _, files in os.walk(home.directory):
        assert os.stat(directory).st_mode & 0o777 == 0o700
        assert all(os.stat(os.path.join(directory, name)).st_mode & 0o777 == 0o600 for name in files)


def only_file(home: Home) -> Path:
    return next(path for path in Path(home.directory).rglob("*.json"))


def test_home_refuses_a_damaged_file_and_keeps_it(home: Home) -> None:
    """[R] A damaged memory is an error with advice, never taken for no memory."""
    home.write_log(LOG)
    damaged = only_file(home)
    damaged.write_bytes(damaged.read_bytes()[:-2])
    for read in (home.logs, lambda: home.read_log(LOG.log)):
        with pytest.raises(Malformed, match="backup"):
            read()
    assert damaged.exists()


def test_home_refuses_a_file_under_another_name(home: Home) -> None:
    """[R] A file that was moved in the place of another one does not speak for it."""
    home.write_path(LOG, PathState(LOG.source, "a", 7))
    a = only_file(home)
    home.write_path(LOG, PathState(LOG.source, "b", 8))
    b = next(path for path in Path(home.directory).rglob("*.json") if path != a)
    b.write_bytes(a.read_bytes())
    with pytest.raises(Malformed, match="name"):
        home.read_path(LOG, "b")


def test_home_refuses_a_log_in_the_place_of_another(home: Home) -> None:
    """[R] The directory of one log does not answer for another log."""
    home.write_log(LOG)
    os.rename(only_file(home).parent, os.path.join(home.directory, "0" * 16))
    with pytest.raises(Malformed, match="name"):
        home.logs()


def test_home_refuses_a_synchronised_folder(tmp_path: Path) -> None:
    """[R] A state that an older copy may replace protects nobody."""
    (tmp_path / ".sync_0123.db").touch()
    with pytest.raises(Usage, match="synchronised"):
        Home(str(tmp_path / "sub" / "seed.state"))


def test_home_with_no_parent_directory_says_so(tmp_path: Path) -> None:
    """A place that cannot be made is an error that names it."""
    with pytest.raises(Usage, match="cannot create"):
        Home(str(tmp_path / "no" / "seed.state")).write_log(LOG)


def test_lock_keeps_another_process_out(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes do not read, verify and write at once, and the one that waits does not wait for ever."""
    program = (
        "import sys\nfrom verifier.home import Home\n"
        "with Home(sys.argv[1]).lock():\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, home.directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline().strip() == b"held"
        monkeypatch.setattr(home_module, "LOCK_WAIT_S", 0.1)
        with pytest.raises(Usage, match="another process"), home.lock():
            pass
        holder.stdin.close()
    with home.lock():
        pass


def test_evidence_overwrites_nothing(home: Home) -> None:
    """Two forks in one second leave two files."""
    first, second = home.write_evidence(b"1", 1_800_000_000), home.write_evidence(b"2", 1_800_000_000)
    assert (Path(first).read_bytes(), Path(second).read_bytes()) == (b"1", b"2")
    assert first.endswith(".fork-20270115T080000Z.json")


def test_home_of_this_world_has_a_sound_log() -> None:
    """The values that these tests write are what a log of the builder has."""
    assert LOG.log == WORLD.log_name
