"""The edge to the file system: bounds, modes, what failures leave behind, and synchronised folders."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from verifier.errors import Malformed, Usage
from verifier.files import is_inside_synced_folder, read_bounded, read_secret, write_atomic, write_secret_new

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
posix_only = pytest.mark.skipif(os.name == "nt", reason="modes, pipes and ordinary users are POSIX")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an ordinary user owns and can reach (pytest's own are closed to others)."""
    path = Path(tempfile.mkdtemp(prefix="nextcloud-audit-test-"))
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    yield path
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)


def as_ordinary_user(code: str, *arguments: object) -> str:
    """What this code prints when an ordinary user runs it; root would walk through every mode."""
    command = [sys.executable, "-B", "-S", "-c"]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("needs setpriv to become an ordinary user")
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
        if subprocess.run([*command, "import verifier.files"], cwd=ROOT, capture_output=True).returncode:
            pytest.skip("an ordinary user cannot run this interpreter")
    program = (
        "import os, sys\nfrom verifier.files import *\nfrom verifier.errors import *\npath = sys.argv[1]\n"
        f"try:\n    {code}\nexcept Error as error:\n    print(type(error).__name__, error)\n"
    )
    run = subprocess.run([*command, program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def give(path: Path, data: bytes, mode: int) -> Path:
    """A file with these bytes and mode that belongs to the ordinary user."""
    path.write_bytes(data)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_read_bounded_takes_exactly_the_limit(tmp_path: Path) -> None:
    """A file of `limit` bytes is read whole; one byte more is malformed, and the message names file and limit."""
    path = tmp_path / "a.proof"
    path.write_bytes(b"x\r\n\x1a" * 4)
    assert read_bounded(str(path), 16, "proof") == b"x\r\n\x1a" * 4
    with pytest.raises(Malformed, match=r"^proof: .*a\.proof has more than 15 bytes$"):
        read_bounded(str(path), 15, "proof")


def test_read_bounded_does_not_read_on(tmp_path: Path) -> None:
    """A file far beyond the limit costs no more than one at the limit."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(Malformed, match="more than 100 bytes"):
        read_bounded(str(path), 100, "proof")


@posix_only
def test_read_bounded_takes_pipes_and_refuses_endless_ones() -> None:
    """A pipe is read like a file; a device that never ends is cut off at the limit."""
    reader, writer = os.pipe()
    os.write(writer, b"policy")
    os.close(writer)
    assert read_bounded(f"/dev/fd/{reader}", 100, "policy") == b"policy"
    os.close(reader)
    with pytest.raises(Malformed, match="more than 100 bytes"):
        read_bounded("/dev/zero", 100, "policy")


def test_read_bounded_names_what_is_wrong(tmp_path: Path) -> None:
    """Missing files, directories and impossible names are usage errors that say so."""
    with pytest.raises(Usage, match=r"^proof: cannot read .*none: no such file or directory$"):
        read_bounded(str(tmp_path / "none"), 9, "proof")
    with pytest.raises(Usage, match=r"^proof: cannot read 'a\\x00b': embedded null byte$"):
        read_bounded("a\0b", 9, "proof")
    with pytest.raises(Usage, match=r"^proof: cannot read '\\x1b\[2J': no such file"):
        read_bounded("\x1b[2J", 9, "proof")
    with pytest.raises(Usage, match=r"^proof: cannot read '\\ud800'"):
        read_bounded("\ud800", 9, "proof")


@posix_only
def test_read_refuses_directories(tmp_path: Path) -> None:
    """A directory is refused in plain words."""
    with pytest.raises(Usage, match="is a directory, want a file$"):
        read_bounded(str(tmp_path), 9, "proof")
    with pytest.raises(Usage, match="is not a regular file$"):
        read_secret(str(tmp_path))


@posix_only
def test_read_does_not_leak_descriptors(tmp_path: Path) -> None:
    """Refusals close what they opened."""
    (tmp_path / "big").write_bytes(b"x" * 5000)
    before = len(os.listdir("/dev/fd"))
    for path in (str(tmp_path), str(tmp_path / "big"), "/dev/null"):
        for _ in range(5):
            with pytest.raises((Usage, Malformed)):
                read_secret(path)
    for _ in range(5):
        with pytest.raises(Usage):
            read_bounded(str(tmp_path), 5, "proof")
    assert len(os.listdir("/dev/fd")) == before


@posix_only
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o610, 0o602, 0o644, 0o601])
def test_read_secret_warns_of_open_modes(tmp_path: Path, mode: int) -> None:
    """Any permission for group or others gives one warning with the mode, and none gives none."""
    path = tmp_path / "seed.txt"
    path.write_bytes(b"secret")
    path.chmod(mode)
    data, warnings = read_secret(str(path))
    assert data == b"secret"
    if mode & 0o077:
        assert len(warnings) == 1
        assert f"seed.txt is open to others on this machine, got mode 0{mode:o}, want 0600" in warnings[0]
    else:
        assert warnings == []


@posix_only
def test_read_secret_looks_at_the_file_behind_a_link(tmp_path: Path) -> None:
    """The mode that counts is that of the file which is read."""
    target = tmp_path / "seed.txt"
    target.write_bytes(b"x")
    target.chmod(0o644)
    (tmp_path / "link").symlink_to(target)
    assert len(read_secret(str(tmp_path / "link"))[1]) == 1


@posix_only
def test_read_secret_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    """A pipe or device is refused at once, even where opening it would wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    refused: list[str] = []

    def read() -> None:
        try:
            read_secret(str(tmp_path / "pipe"), "reader key")
        except Usage as error:
            refused.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert refused == [f"reader key: {tmp_path / 'pipe'} is not a regular file"]
    with pytest.raises(Usage, match="is not a regular file"):
        read_secret("/dev/null")


def test_read_secret_is_bounded(tmp_path: Path) -> None:
    """A secret file has at most 4 KiB unless asked otherwise."""
    path = tmp_path / "seed"
    path.write_bytes(b"x" * 4097)
    with pytest.raises(Malformed, match="^seed file: .* has more than 4096 bytes$"):
        read_secret(str(path))
    assert len(read_secret(str(path), limit=4097)[0]) == 4097


@posix_only
def test_read_unreadable_file_is_a_usage_error(folder: Path) -> None:
    """Missing permission is said in plain words."""
    path = give(folder / "seed", b"x", 0o000)
    expected = f"cannot read {path}: permission denied"
    assert as_ordinary_user("print(read_bounded(path, 9, 'proof'))", path) == f"Usage proof: {expected}"
    assert as_ordinary_user("print(read_secret(path))", path) == f"Usage seed file: {expected}"


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_write_secret_new_is_private_from_the_start(tmp_path: Path, umask: int) -> None:
    """The file is 0600 whatever the umask, and holds the very bytes."""
    path = tmp_path / "seed.txt"
    old = os.umask(umask)
    try:
        write_secret_new(str(path), b"a\nb\r\n")
    finally:
        os.umask(old)
    assert mode_of(path) == 0o600
    assert path.read_bytes() == b"a\nb\r\n"
    assert read_secret(str(path)) == (b"a\nb\r\n", [])


def test_write_secret_new_never_overwrites(tmp_path: Path) -> None:
    """What exists stays, be it a file, a directory or a link to nowhere."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "dir", "link"):
        with pytest.raises(Usage, match="exists and is not overwritten"):
            write_secret_new(str(tmp_path / name), b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "nowhere").exists()


def test_write_secret_new_needs_its_folder(tmp_path: Path) -> None:
    """Folders are not made on the way."""
    with pytest.raises(Usage, match="^cannot create .*: no such file or directory$"):
        write_secret_new(str(tmp_path / "none" / "seed"), b"x")


def test_write_atomic_replaces_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old bytes give way to new ones, shorter or longer, nothing else is left; a bare name works, too."""
    monkeypatch.chdir(tmp_path)
    for data in (b"first", b"", b"x" * 100_000, b"last"):
        write_atomic("state.json", data)
        assert (tmp_path / "state.json").read_bytes() == data
    assert os.listdir(tmp_path) == ["state.json"]


@posix_only
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_write_atomic_sets_the_mode(tmp_path: Path, mode: int) -> None:
    """The new file has the mode that was asked for, whatever umask and old file say."""
    path = tmp_path / "state"
    path.write_bytes(b"old")
    path.chmod(0o666)
    old = os.umask(0o077)
    try:
        write_atomic(str(path), b"new", mode)
    finally:
        os.umask(old)
    assert mode_of(path) == mode
    write_atomic(str(path), b"newer")
    assert mode_of(path) == 0o600


@posix_only
def test_write_atomic_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    """Writing does not follow a link."""
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomic(str(tmp_path / "link"), b"new")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "link").is_symlink()


def test_write_atomic_failure_leaves_no_trace(tmp_path: Path) -> None:
    """Where the name cannot be taken, the temporary file is gone again."""
    (tmp_path / "dir").mkdir()
    with pytest.raises(Usage, match="^cannot write .*dir"):
        write_atomic(str(tmp_path / "dir"), b"x")
    assert os.listdir(tmp_path) == ["dir"]
    with pytest.raises(Usage, match="^cannot write .*: no such file"):
        write_atomic(str(tmp_path / "none" / "state"), b"x")


@posix_only
def test_write_to_a_folder_without_permission(folder: Path) -> None:
    """A read-only folder gives a usage error, and the old state is untouched."""
    state = give(folder / "state", b"old", 0o600)
    folder.chmod(0o500)
    assert as_ordinary_user("write_atomic(path, b'new')", state) == f"Usage cannot write {state}: permission denied"
    new = folder / "seed"
    assert as_ordinary_user("write_secret_new(path, b'x')", new) == f"Usage cannot create {new}: permission denied"
    assert (state.read_bytes(), os.listdir(folder)) == (b"old", ["state"])


@posix_only
def test_write_to_a_folder_that_cannot_be_listed(folder: Path) -> None:
    """A folder in which one may write and not read cannot be synced, and still takes the file."""
    folder.chmod(0o300)
    assert as_ordinary_user("print(write_secret_new(path, b'x'))", folder / "seed") == "None"
    folder.chmod(0o700)
    assert (folder / "seed").read_bytes() == b"x"


@posix_only
def test_write_opens_private_and_widens_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while it is being written may others open the file."""
    modes = []
    widen = os.fchmod

    def watched(fd: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        widen(fd, mode)

    monkeypatch.setattr(os, "fchmod", watched)
    write_secret_new(str(tmp_path / "seed"), b"x")
    write_atomic(str(tmp_path / "policy"), b"x", 0o644)
    assert modes == [0o600, 0o600]


@posix_only
def test_write_syncs_bytes_before_the_name_and_the_name_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that survives a power cut: bytes on disk, then the name, then the directory on disk."""
    steps: list[object] = []
    sync, replace, link = os.fsync, os.replace, os.link

    def watched_sync(fd: int) -> None:
        info = os.fstat(fd)
        steps.append("directory" if stat.S_ISDIR(info.st_mode) else info.st_size)
        sync(fd)

    def watched_replace(old: str, new: str) -> None:
        steps.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", watched_sync)

    def watched_link(old: str, new: str) -> None:
        steps.append("link")
        link(old, new)

    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "link", watched_link)
    write_atomic(str(tmp_path / "state"), b"12345")
    write_secret_new(str(tmp_path / "seed"), b"123")
    assert steps == [5, "name", "directory", 3, "link", "directory"]


@posix_only
@pytest.mark.parametrize("has_links", [True, False])
def test_write_secret_new_never_shows_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    """Killed at any step before the name is there, it leaves no file of that name; with or without hard links."""
    path = tmp_path / "log.key"

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    def no_links(old: str, new: str) -> None:
        raise PermissionError(1, "operation not permitted")

    for step in ("fsync", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, kill)
            patch.setattr("verifier.files._discard", lambda path: None)  # whoever is killed tidies nothing up
            with pytest.raises(Killed):
                write_secret_new(str(path), b"whole")
        assert not path.exists()
    with monkeypatch.context() as patch:
        if not has_links:
            patch.setattr(os, "link", no_links)
        write_secret_new(str(path), b"whole")
        with pytest.raises(Usage, match="exists and is not overwritten"):
            write_secret_new(str(path), b"other")
    assert path.read_bytes() == b"whole"
    assert mode_of(path) == 0o600
    assert len(os.listdir(tmp_path)) == 3  # what the two that were killed left


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "


@posix_only
def test_write_that_stops_midway_leaves_the_old_state(folder: Path) -> None:
    """When the bytes run into a limit, as on a full disk, no partial and no temporary file stays."""
    state = give(folder / "state", b"old", 0o600)
    out = as_ordinary_user(FULL + "write_atomic(path, b'x' * 2000)", state)
    assert out == f"Usage cannot write {state}: file too large"
    out = as_ordinary_user(FULL + "write_secret_new(path, b'x' * 2000)", folder / "seed")
    assert out == f"Usage cannot create {folder / 'seed'}: file too large"
    assert (state.read_bytes(), os.listdir(folder)) == (b"old", ["state"])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        (".sync_0f3a9c.db", "Nextcloud or ownCloud"),
        ("._sync_0f3a9c.db", "Nextcloud or ownCloud"),
        (".owncloudsync.log", "Nextcloud or ownCloud"),
        (".nextcloudsync.log", "Nextcloud or ownCloud"),
        (".dropbox", "Dropbox"),
        (".stfolder", "Syncthing"),
    ],
)
def test_synced_folder_is_recognised_from_any_depth(tmp_path: Path, name: str, program: str) -> None:
    """Each synchroniser's trace is found from the folder, from below, and for what does not exist yet."""
    assert is_inside_synced_folder(str(tmp_path)) is None
    (tmp_path / name).write_bytes(b"")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "state.json").write_bytes(b"")
    for path in (tmp_path, below, below / "state.json", below / "new" / "state.json"):
        reason = is_inside_synced_folder(str(path))
        assert reason is not None
        assert program in reason
        assert name in reason
        assert str(tmp_path) in reason


def test_synced_folder_is_recognised_through_links_and_relative_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link into a synchronised folder, and a name relative to one, are in it."""
    (tmp_path / "cloud" / "below").mkdir(parents=True)
    (tmp_path / "cloud" / ".stfolder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "cloud" / "below", target_is_directory=True)
    assert "Syncthing" in (is_inside_synced_folder(str(tmp_path / "link" / "state.json")) or "")
    monkeypatch.chdir(tmp_path / "cloud")
    assert "Syncthing" in (is_inside_synced_folder("state.json") or "")
    assert is_inside_synced_folder(str(tmp_path / "other")) is None


@pytest.mark.parametrize("name", ["sync_1.db", ".sync_1.db-wal", ".sync_1.txt", ".sync.db", "x.stfolder", "dropbox"])
def test_synced_folder_ignores_similar_names(tmp_path: Path, name: str) -> None:
    """Names that only resemble a trace are none."""
    (tmp_path / name).write_bytes(b"")
    assert is_inside_synced_folder(str(tmp_path)) is None


def test_synced_folder_ignores_the_settings_of_dropbox(tmp_path: Path) -> None:
    """A directory `.dropbox`, which every home with that program has, does not mark the whole home."""
    (tmp_path / ".dropbox").mkdir()
    assert is_inside_synced_folder(str(tmp_path)) is None


@posix_only
def test_synced_folder_is_recognised_above_a_closed_one(folder: Path) -> None:
    """A parent that may be crossed and not listed still shows the fixed names, and none stops the search."""
    (folder / "cloud" / "state").mkdir(parents=True)
    (folder / "cloud" / ".stfolder").mkdir()
    (folder / "cloud").chmod(0o711)
    assert "Syncthing" in as_ordinary_user("print(is_inside_synced_folder(path))", folder / "cloud" / "state")
    (folder / "cloud").chmod(0o700)
    (folder / ".nextcloudsync.log").write_bytes(b"")
    assert "Nextcloud" in as_ordinary_user("print(is_inside_synced_folder(path))", folder / "cloud" / "state")
