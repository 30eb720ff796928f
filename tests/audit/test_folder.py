"""The folder source: each rule on a real directory, and random histories against a slow reference."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha3_256
from itertools import count
from pathlib import Path
from threading import Event
from time import clock_gettime_ns
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import hashing
from audit.folder import Change, Known, Problem, Progress, Seen, hash_file, needs_hash, plan_changes, scan, walk

NOBODY = 65534


class Recorder:
    """The least that a recorder does: gives file ids, keeps the rows, by path."""

    def __init__(self, root: Path) -> None:
        self.root, self.known, self.next_id = root, dict[str, Known](), 1

    def scan(self, **options: Any) -> list[Change | Problem]:
        """One scan, applied; gives what was said."""
        said = list(scan(str(self.root), self.known, **options))
        self.apply([item for item in said if isinstance(item, Change)])
        return said

    def changes(self, **options: Any) -> list[tuple[str, ...]]:
        """One scan without problems as readable lines: operation, old path if it has one, new path if it has one."""
        said = self.scan(**options)
        assert not [item for item in said if isinstance(item, Problem)]
        return [line(item) for item in said]

    def apply(self, changes: list[Change]) -> None:
        rows = {k.file_id: k for k in self.known.values()}
        for change in changes:
            if change.seen is None:
                assert change.known is not None
                del rows[change.known.file_id]
                continue
            if change.known is None:
                self.next_id += 1
            file_id = change.known.file_id if change.known else self.next_id
            assert change.digest is not None
            rows[file_id] = Known(file_id, *change.seen, change.digest)
        self.known = {k.path: k for k in rows.values()}
        assert len(self.known) == len(rows), "two live files at one path"


def line(item: Change | Problem) -> tuple[str, ...]:
    if isinstance(item, Problem):
        return (item.reason, item.path)
    return (item.operation, *dict.fromkeys(side.path for side in (item.known, item.seen) if side))


def read_disk(root: Path) -> dict[str, tuple[Any, ...]]:
    """What is there, slowly: path -> the fields of a row without its id."""
    rows = {}
    for place, _, names in os.walk(root):
        for name in names:
            full = os.path.join(place, name)
            s = os.lstat(full)
            if stat.S_ISREG(s.st_mode):
                path = os.path.relpath(full, root)
                digest = sha3_256(Path(full).read_bytes()).digest()
                rows[path] = (path, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, digest)
    return rows


def alter(path: Path, data: bytes) -> None:
    """Writes other bytes of the same size in place and puts the mtime back."""
    before = path.stat()
    assert before.st_size == len(data)
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def save_by_rename(path: Path, data: bytes) -> None:
    """As editors do: a new file beside it takes its name."""
    other = path.with_name(".new")
    other.write_bytes(data)
    other.replace(path)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Rights are looked at in here, also when the tests run as root (the change is for all threads)."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@contextmanager
def opened(root: Path) -> Iterator[int]:
    fd = hashing.open_root(str(root))
    try:
        yield fd
    finally:
        os.close(fd)


def look(root: int, path: str) -> Seen:
    seen = hashing.find_file(root, path)
    assert seen is not None
    return seen


@pytest.fixture
def tree() -> Iterator[Recorder]:
    """An empty folder that an ordinary user may enter, with its recorder."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        root = Path(name, "root")
        root.mkdir()
        yield Recorder(root)


@pytest.fixture
def ab(tree: Recorder) -> Recorder:
    """Files a and b of other bytes, recorded."""
    (tree.root / "a").write_bytes(b"first")
    (tree.root / "b").write_bytes(b"other")
    tree.scan(first=True)
    return tree


# The rules, one by one.


def test_scan_first_adopts_everything(tree: Recorder) -> None:
    """Every file of a first scan is adopted, with the digest of its bytes, sorted by whole paths."""
    (tree.root / "d").mkdir()
    for path in ("d/x", "d.txt", "a", "d-"):
        (tree.root / path).write_text(path)
    changes = [c for c in scan(str(tree.root), {}, first=True) if isinstance(c, Change)]
    assert [line(c) for c in changes] == [("adopted", p) for p in ("a", "d-", "d.txt", "d/x")]
    assert [c.digest for c in changes] == [sha3_256(p.encode()).digest() for p in ("a", "d-", "d.txt", "d/x")]


def test_scan_second_says_nothing(ab: Recorder) -> None:
    """What did not change is not said again, full or not."""
    assert ab.scan() == []
    assert ab.scan(full=True) == []


def test_scan_first_resumed_knows_no_moves(ab: Recorder) -> None:
    """In a first scan that goes on after an interruption every new path is adopted."""
    (ab.root / "a").rename(ab.root / "c")
    assert ab.changes(first=True) == [("adopted", "c"), ("deleted", "a")]


def test_scan_first_yields_before_the_walk_ends(tree: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted first scan leaves what it said: changes come while the walk is still running."""
    monkeypatch.setattr(hashing, "MAX_QUEUED", 1)
    for n in range(200):
        (tree.root / str(n)).touch()
    last: list[Progress] = []
    ticks = count()
    changes = scan(str(tree.root), {}, first=True, progress=last.append, clock=lambda: float(next(ticks)))
    assert isinstance(next(changes), Change)
    assert last[-1].files_total is None
    assert len(list(changes)) == 199


def test_scan_first_can_be_recorded_while_it_runs(tree: Recorder) -> None:
    """Rows that are stored during a first scan, in the very table it was given, do not confuse it."""
    for name in "abc":
        (tree.root / name).touch()
    table = dict[str, Known]()
    for n, item in enumerate(scan(str(tree.root), table, first=True)):
        assert isinstance(item, Change)
        assert item.seen is not None
        assert item.digest is not None
        table[item.seen.path] = Known(n, *item.seen, item.digest)
    assert list(scan(str(tree.root), table)) == []


def test_scan_created(ab: Recorder) -> None:
    """A new path with an inode of its own is created."""
    (ab.root / "c").write_bytes(b"first")
    assert ab.changes() == [("created", "c")]


def test_scan_written_in_place_and_by_rename(ab: Recorder) -> None:
    """Other bytes at the same path are written, whether the editor keeps the inode or not."""
    (ab.root / "a").write_bytes(b"second")
    save_by_rename(ab.root / "b", b"another")
    assert ab.changes() == [("written", "a"), ("written", "b")]


def test_scan_touched(ab: Recorder) -> None:
    """The same bytes with another mtime are touched, also in a file that was saved anew."""
    os.utime(ab.root / "a", ns=(1, 1))
    save_by_rename(ab.root / "b", b"other")
    assert ab.changes() == [("touched", "a"), ("touched", "b")]


def test_scan_seen_when_only_metadata_moved(ab: Recorder) -> None:
    """Another ctime or inode alone is no operation, and the row is brought up to date."""
    (ab.root / "a").chmod(0o600)
    mtime = (ab.root / "b").stat().st_mtime_ns
    (ab.root / "copy").write_bytes(b"other")
    os.utime(ab.root / "copy", ns=(mtime, mtime))
    (ab.root / "copy").replace(ab.root / "b")
    assert ab.changes() == [("seen", "a"), ("seen", "b")]
    assert ab.scan() == []


def test_scan_altered(ab: Recorder) -> None:
    """Other bytes under the same inode, size and mtime: no operation did that, and the ctime gives it away."""
    alter(ab.root / "a", b"FIRST")
    assert ab.changes() == [("altered", "a")]


def test_scan_full_finds_bytes_that_changed_under_the_same_stat(ab: Recorder) -> None:
    """When not even the ctime moved (a disk that rots), only a full scan reads, and says altered."""
    ab.known["a"] = ab.known["a"]._replace(digest=bytes(32))
    assert ab.changes() == []
    assert ab.changes(full=True) == [("altered", "a")]


def test_scan_deleted(ab: Recorder) -> None:
    """A path with nothing at it is deleted, also when its directory went with it."""
    (ab.root / "d").mkdir()
    (ab.root / "d/x").touch()
    ab.scan()
    (ab.root / "a").unlink()
    (ab.root / "d/x").unlink()
    (ab.root / "d").rmdir()
    assert ab.changes() == [("deleted", "a"), ("deleted", "d/x")]


def test_scan_moved(ab: Recorder) -> None:
    """A file that left its path and is found at another one, with its bytes, was moved."""
    (ab.root / "d").mkdir()
    (ab.root / "a").rename(ab.root / "d/z")
    assert ab.changes() == [("moved", "a", "d/z")]


def test_scan_moved_over_another(ab: Recorder) -> None:
    """mv b a: the file that was at a is deleted, b's is moved."""
    (ab.root / "b").rename(ab.root / "a")
    assert ab.changes() == [("deleted", "a"), ("moved", "b", "a")]


def test_scan_moved_away_and_replaced(ab: Recorder) -> None:
    """A new file at the path of one that was moved away is created."""
    (ab.root / "a").rename(ab.root / "c")
    (ab.root / "a").write_bytes(b"new")
    assert ab.changes() == [("moved", "a", "c"), ("created", "a")]


def test_scan_swap_and_rotation_are_moves(ab: Recorder) -> None:
    """Cycles of two and of three are moves and nothing else."""
    (ab.root / "a").rename(ab.root / "t")
    (ab.root / "b").rename(ab.root / "a")
    (ab.root / "t").rename(ab.root / "b")
    assert ab.changes() == [("moved", "b", "a"), ("moved", "a", "b")]
    (ab.root / "c").write_bytes(b"third")
    ab.scan()
    (ab.root / "c").rename(ab.root / "t")
    (ab.root / "b").rename(ab.root / "c")
    (ab.root / "a").rename(ab.root / "b")
    (ab.root / "t").rename(ab.root / "a")
    assert ab.changes() == [("moved", "c", "a"), ("moved", "a", "b"), ("moved", "b", "c")]


def test_scan_moved_directory(ab: Recorder) -> None:
    """Files in a renamed directory are moved one by one."""
    (ab.root / "d").mkdir()
    for name in "xy":
        (ab.root / "d" / name).write_text(name)
    ab.scan()
    (ab.root / "d").rename(ab.root / "e")
    assert ab.changes() == [("moved", "d/x", "e/x"), ("moved", "d/y", "e/y")]


def test_scan_moved_and_written_is_not_a_move(ab: Recorder) -> None:
    """The same inode with other bytes at another path says nothing: deleted and created."""
    (ab.root / "a").rename(ab.root / "c")
    (ab.root / "c").write_bytes(b"second")
    assert ab.changes() == [("deleted", "a"), ("created", "c")]


def test_scan_hard_link_is_created(ab: Recorder) -> None:
    """A second path of a file that still holds its first one is created."""
    (ab.root / "c").hardlink_to(ab.root / "a")
    assert ab.changes() == [("seen", "a"), ("created", "c")]


def test_scan_hard_links_never_move(ab: Recorder) -> None:
    """With two paths for one inode nobody can tell a move from a link: deleted and created claim less."""
    (ab.root / "c").hardlink_to(ab.root / "a")
    ab.scan()
    (ab.root / "c").rename(ab.root / "d")
    assert ab.changes() == [("deleted", "c"), ("seen", "a"), ("created", "d")]
    (ab.root / "b").rename(ab.root / "e")
    (ab.root / "f").hardlink_to(ab.root / "e")
    assert ab.changes() == [("deleted", "b"), ("created", "e"), ("created", "f")]


# Inode and device numbers that a test cannot make the kernel give: the pure plan.


def row(file_id: int, path: str, inode: int = 1, device: int = 1, mtime: int = 1, digest: bytes = b"x") -> Known:
    return Known(file_id, path, device, inode, 1, mtime, 1, digest)


def plan(known: list[Known], disk: list[Known], full: bool = False, **options: Any) -> list[tuple[str, ...]]:
    """The plan from one list of rows to another, whose ids are ignored."""
    seen = [Seen(*k[1:7]) for k in disk]
    table = {k.path: k for k in known}
    digests = {k.path: k.digest for k in disk if needs_hash(table.get(k.path), Seen(*k[1:7]), full)}
    return [line(change) for change in plan_changes(table, seen, digests, **options)]


def test_plan_reused_inode_is_not_a_move() -> None:
    """A freed inode that a new file got, with other bytes or by its mtime, is deleted and created."""
    gone_and_new = [("deleted", "a"), ("created", "b")]
    assert plan([row(1, "a")], [row(0, "b", digest=b"y")]) == gone_and_new
    assert plan([row(1, "a")], [row(0, "b", mtime=2)]) == gone_and_new
    assert plan([row(1, "a")], [row(0, "b")]) == [("moved", "a", "b")]


def test_plan_changed_device_is_only_seen() -> None:
    """Device numbers change when a machine starts: no byte is read again, and the row is brought up to date."""
    assert not needs_hash(row(1, "a"), Seen(*row(1, "a", device=2)[1:7]))
    assert plan([row(1, "a")], [row(0, "a", device=2)]) == [("seen", "a")]


def test_plan_move_needs_the_device() -> None:
    """The same inode number on another device is another file, also when it stands at a recorded path."""
    assert plan([row(1, "a")], [row(0, "b", device=2)]) == [("deleted", "a"), ("created", "b")]
    known = [row(1, "a", device=2), row(2, "b", device=1)]
    for full in (False, True):
        assert plan(known, [row(0, "b", device=2)], full) == [("deleted", "a"), ("seen", "b")]


def test_plan_of_two_links_that_left_is_no_move() -> None:
    """Where two recorded paths shared the inode, nobody knows which of them went to the new one."""
    said = plan([row(1, "a"), row(2, "b")], [row(0, "c")])
    assert said == [("deleted", "a"), ("deleted", "b"), ("created", "c")]


def test_plan_of_a_first_scan_has_no_moves() -> None:
    """What a first scan finds is asserted, never historic, also when it follows one that was interrupted."""
    assert plan([row(1, "a")], [row(0, "b")], first=True) == [("deleted", "a"), ("adopted", "b")]


def test_plan_concludes_nothing_about_unclear_places() -> None:
    """Records at and below an unclear path stay, and may still hold their inode."""
    known = [row(1, "d/x", 1), row(2, "d/e/y", 2), row(3, "dx", 3), row(4, "f", 4)]
    assert plan(known, [], unclear={"d", "f"}) == [("deleted", "dx")]
    assert plan(known, [], unclear={""}) == []
    assert plan([row(1, "d/x")], [row(0, "z")], unclear={"d"}) == [("created", "z")]


ROWS = st.builds(
    row,
    st.just(0),
    st.sampled_from("abcde"),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 2),
    st.sampled_from([b"x", b"y"]),
)
TABLES = st.lists(ROWS, max_size=5, unique_by=lambda k: k.path)


@given(TABLES, TABLES)
def test_plan_replayed_gives_the_disk(before: list[Known], after: list[Known]) -> None:
    """From any table to any disk: applied, the plan gives exactly the disk, and the next plan is empty."""
    table = {k.path: k._replace(file_id=n) for n, k in enumerate(before)}
    seen = [Seen(*k[1:7]) for k in after]
    bytes_of = {k.path: k.digest for k in after}
    hashed = {s.path: bytes_of[s.path] for s in seen if needs_hash(table.get(s.path), s)}
    recorder = Recorder(Path())
    recorder.known, recorder.next_id = table, len(table)
    recorder.apply(plan_changes(table, seen, hashed))
    unread = set(bytes_of) - set(hashed)
    assert {k[1:] for k in recorder.known.values()} == {
        (*s, table[s.path].digest if s.path in unread else bytes_of[s.path]) for s in seen
    }
    assert plan_changes(recorder.known, seen, {k.path: k.digest for k in recorder.known.values()}) == []


# What is not covered is said, and nothing is concluded from it.


def test_scan_never_follows_links(ab: Recorder) -> None:
    """Links to files, directories and nowhere are problems, and what is behind them is not read."""
    outside = ab.root.parent / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    for name, target in (("l1", "a"), ("l2", "../outside"), ("l3", "nowhere"), ("l4", ".")):
        (ab.root / name).symlink_to(target)
    assert [line(item) for item in ab.scan()] == [("symlink", f"l{n}") for n in (1, 2, 3, 4)]


def test_scan_link_in_place_of_a_file(ab: Recorder) -> None:
    """A file that a link to its new place replaced was moved; one behind a link is gone from its path."""
    (ab.root / "a").rename(ab.root / "c")
    (ab.root / "a").symlink_to("c")
    (ab.root / "b").rename(ab.root.parent / "b")
    (ab.root / "b").symlink_to("../b")
    said = [line(item) for item in ab.scan()]
    assert said == [("symlink", "a"), ("symlink", "b"), ("deleted", "b"), ("moved", "a", "c")]


def test_scan_special_files_are_problems(tree: Recorder) -> None:
    """Pipes and sockets are never opened."""
    os.mkfifo(tree.root / "pipe")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tree.root / "socket"))
        assert [line(item) for item in tree.scan()] == [("special", "pipe"), ("special", "socket")]


def test_scan_unreadable_keeps_the_records(tree: Recorder) -> None:
    """A directory or file that may not be read is a problem; nothing below it is called deleted or changed."""
    for path in ("d/x", "e/y", "f"):
        (tree.root / path).parent.mkdir(exist_ok=True)
        (tree.root / path).write_text(path)
    tree.scan(first=True)
    before = dict(tree.known)
    for path, mode in (("d", 0), ("e", 0o444), ("f", 0)):  # 0444: names can be listed and nothing more
        (tree.root / path).chmod(mode)
    with ordinary_user():
        assert [line(item) for item in tree.scan()] == [("unreadable", p) for p in ("d", "e/y", "f")]
    assert tree.known == before
    for path, mode in (("d", 0o755), ("e", 0o755), ("f", 0o644)):
        (tree.root / path).chmod(mode)
    assert tree.changes() == [("seen", "f")]


def test_scan_file_moved_out_of_an_unreadable_directory(tree: Recorder) -> None:
    """The old path may still hold the file, so the new one is created; the old one is deleted once that is seen."""
    (tree.root / "d").mkdir()
    (tree.root / "d/x").write_bytes(b"x")
    tree.scan(first=True)
    (tree.root / "d/x").rename(tree.root / "y")
    (tree.root / "y").chmod(0o644)
    (tree.root / "d").chmod(0)
    with ordinary_user():
        assert [line(item) for item in tree.scan()] == [("unreadable", "d"), ("created", "y")]
    (tree.root / "d").chmod(0o755)
    assert tree.changes() == [("deleted", "d/x")]


def test_scan_root_that_cannot_be_opened_concludes_nothing(ab: Recorder) -> None:
    """A missing root, a file, and a loop of links are one problem each."""
    (ab.root.parent / "loop").symlink_to("loop")
    (ab.root.parent / "file").touch()
    for name in ("missing", "loop", "file"):
        assert [line(item) for item in scan(str(ab.root.parent / name), ab.known)] == [("root", "")]


def test_scan_root_that_cannot_be_listed_concludes_nothing(ab: Recorder) -> None:
    """The root itself is no exception to what is unreadable."""
    ab.root.chmod(0o311)
    with ordinary_user():
        said = [line(item) for item in ab.scan()]
    ab.root.chmod(0o755)
    assert said == [("root", "")]


def test_scan_empty_root_on_another_device_concludes_nothing(ab: Recorder) -> None:
    """An empty mount point is not a folder whose files were all deleted; an emptied folder is."""
    known = {k.path: k._replace(device=k.device + 1) for k in ab.known.values()}
    (ab.root / "a").unlink()
    (ab.root / "b").unlink()
    assert [line(item) for item in scan(str(ab.root), known)] == [("root", "")]
    assert ab.changes() == [("deleted", "a"), ("deleted", "b")]


def test_scan_link_to_the_root_is_followed(ab: Recorder) -> None:
    """Only what is below the root is the users'; the way to it is the administrator's."""
    (ab.root.parent / "link").symlink_to("root")
    assert list(scan(str(ab.root.parent / "link"), ab.known)) == []


def test_scan_other_file_system_is_not_entered(tree: Recorder) -> None:
    """A mount below the root is a problem, and records below it stay."""
    (tree.root / "m").mkdir()
    (tree.root / "m/x").touch()
    tree.scan(first=True)
    script = (
        "import sys\n"
        "from audit.folder import *\n"
        f"known = {{'m/x': {tuple(tree.known['m/x'])!r}}}\n"
        "known = {path: Known(*row) for path, row in known.items()}\n"
        "print([(i.reason, i.path) for i in scan(sys.argv[1], known)])\n"
    )
    mount = 'mount -t tmpfs none "$1/m" || exit 77; shift; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", str(tree.root), sys.executable, "-c", script, str(tree.root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("needs the right to mount")
    assert done.stdout == "[('other-filesystem', 'm')]\n", done.stderr


def test_scan_excluded_paths_are_skipped_silently(ab: Recorder) -> None:
    """Nothing is said about excluded paths, nor concluded about records there; paths are whole names."""
    for path in ("data/log", "data2"):
        (ab.root / path).parent.mkdir(exist_ok=True)
        (ab.root / path).touch()
    exclude = [str(ab.root / "data"), str(ab.root / "b"), "/nowhere", str(ab.root.parent / "beside")]
    assert ab.changes(exclude=exclude) == [("created", "data2")]
    (ab.root / "b").unlink()
    assert ab.changes(exclude=exclude) == []


def test_scan_root_inside_an_excluded_path_is_refused(ab: Recorder) -> None:
    """A source that lies in the service's own directory concludes nothing, in particular not that all is gone."""
    assert [line(item) for item in ab.scan(exclude=[str(ab.root.parent)])] == [("root", "")]


# Names.


def test_scan_names_are_kept_exactly(tree: Recorder) -> None:
    """Newlines, spaces, both spellings of é, bidirectional marks and emoji are names like any other."""
    names = ["new\nline", " ", "\u00e9", "e\u0301", "\u202egnp.exe", "\U0001f512", "-rf", "\\xff", "\x01", "…" * 85]
    for name in names:
        (tree.root / name).write_text(name)
    assert tree.changes(first=True) == [("adopted", name) for name in sorted(names)]
    assert tree.known.keys() == read_disk(tree.root).keys()


def test_scan_names_that_are_not_utf8_are_problems(tree: Recorder) -> None:
    """A name without a text form is shown with escapes, never as a path; a directory of that name is not entered."""
    (tree.root / "©").mkdir()
    os.mkdir(os.fsencode(tree.root) + b"/\xe9")
    for name in (b"\xe9/x", b"bad\xff", "©/".encode() + b"\xa9", b"\xed\xa0\x80"):
        Path(os.fsdecode(os.fsencode(tree.root) + b"/" + name)).touch()
    said = [line(item) for item in tree.scan()]
    assert said == [("name", p) for p in (r"\xe9", r"\xed\xa0\x80", r"bad\xff", r"©/\xa9")]


def test_scan_names_do_not_depend_on_the_locale(tree: Recorder) -> None:
    """Under a locale without UTF-8 the same bytes give the same paths."""
    (tree.root / "é").touch()
    script = "import sys; from audit.folder import *; print(ascii([c.seen.path for c in scan(sys.argv[1], {})]))"
    command = [sys.executable, "-c", script, str(tree.root)]
    env = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=env, check=True)
    assert done.stdout == "['\\xe9']\n"


def test_scan_long_and_deep_paths(tree: Recorder) -> None:
    """Paths up to 4,096 bytes work, beyond the kernel's own limit and Python's recursion; longer ones are said."""
    with opened(tree.root) as root:
        make_deep(root, ["n" * 255] * 15 + ["n" * 254], [b"x", b"yy"])  # 4,096 and 4,097 bytes
        make_deep(root, ["a"] * 1010, [b"x"])
        operations = [(line(item)[0], len(line(item)[1])) for item in tree.scan()]
        assert operations == [("too-long", 4097), ("created", 2021), ("created", 4096)]
        subprocess.run(["rm", "-rf", "--", str(tree.root)], check=True)  # shutil recurses


def make_deep(root: int, names: list[str], files: list[bytes]) -> None:
    here = os.dup(root)
    for name in names:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    for file in files:
        os.close(os.open(file, os.O_CREAT, dir_fd=here))
    os.close(here)


# A tree that changes while it is scanned.


def test_hash_file_takes_the_newer_stat(ab: Recorder) -> None:
    """A file that changed once while it was read is read again; digest and Seen are those of the second reading."""
    appends = [b"!"]

    def append(_: int) -> None:
        if appends:
            with (ab.root / "a").open("ab") as file:
                file.write(appends.pop())

    with opened(ab.root) as root:
        result = hash_file(root, look(root, "a"), append)
        assert result == (look(root, "a"), sha3_256(b"first!").digest())


def test_hash_file_that_never_holds_still_is_a_problem(ab: Recorder) -> None:
    """Also a change that keeps size and mtime spoils a reading; the third time the file is left as recorded."""
    bodies = iter([b"FIRST", b"first"] * 9)
    with opened(ab.root) as root:
        result = hash_file(root, look(root, "a"), lambda _: alter(ab.root / "a", next(bodies)))
    assert isinstance(result, Problem)
    assert line(result) == ("changing", "a")


def test_hash_file_that_grows_without_end_is_bounded(tree: Recorder) -> None:
    """Each reading ends one byte after the size it began with, however fast the writer is."""
    path = tree.root / "log"
    path.write_bytes(bytes(hashing.CHUNK))
    counts: list[int] = []

    def grow(size: int) -> None:
        assert len(counts) < 100
        counts.append(size)
        os.truncate(path, path.stat().st_size + hashing.CHUNK)

    with opened(tree.root) as root:
        result = hash_file(root, look(root, "log"), grow)
    assert isinstance(result, Problem)
    assert result.reason == "changing"
    assert counts[:2] == [hashing.CHUNK, 1]


def test_hash_file_reads_after_the_tick_of_the_last_change(tree: Recorder) -> None:
    """The kernel's clock has moved on when reading starts, so no later write can leave the ctime that was noted."""
    path = tree.root / "a"
    starts: list[int] = []
    with opened(tree.root) as root:
        for _ in range(20):
            path.write_bytes(b"before")
            starts.clear()
            hashed = hash_file(root, look(root, "a"), lambda _: starts.append(clock_gettime_ns(5)))
            alter(path, b"AFTER.")
            assert isinstance(hashed, hashing.Hashed)
            assert hashed.seen.ctime_ns < starts[0]
            assert hashed.seen.ctime_ns < look(root, "a").ctime_ns


def test_hash_file_does_not_follow_or_wait(ab: Recorder) -> None:
    """A link, a link on the way, a pipe or a directory in the file's place is never read: it vanished."""
    (ab.root / "d").mkdir()
    (ab.root / "d/x").touch()
    (ab.root / "link").symlink_to("a")
    (ab.root / "way").symlink_to("d")
    os.mkfifo(ab.root / "pipe")
    with opened(ab.root) as root:
        for path in ("link", "way/x", "pipe", "d", "missing"):
            result = hash_file(root, look(root, "a")._replace(path=path))
            assert isinstance(result, Problem)
            assert line(result) == ("vanished", path)


def scan_while(tree: Recorder, act: Callable[[Progress], None], **options: Any) -> list[tuple[str, ...]]:
    """A scan that calls `act` at each file that the walk sees, and once after the hashing."""
    ticks = count()
    return [line(item) for item in tree.scan(progress=act, clock=lambda: float(next(ticks)), **options)]


def test_scan_file_that_vanishes_before_it_is_hashed(ab: Recorder) -> None:
    """A recorded file is deleted then, a new one was never there."""
    (ab.root / "c").touch()

    def remove(now: Progress) -> None:
        if now.files_total is None and now.files_seen == 3:
            (ab.root / "a").unlink(missing_ok=True)
            (ab.root / "c").unlink(missing_ok=True)

    assert scan_while(ab, remove, full=True) == [("deleted", "a")]


def test_scan_file_that_comes_back_is_not_deleted(ab: Recorder) -> None:
    """Missing in the walk and there afterwards (saved by rename just then): nothing is concluded yet."""
    (ab.root / "a").rename(ab.root.parent / "a")

    def put_back(now: Progress) -> None:
        if now.files_total is not None and not (ab.root / "a").exists():
            (ab.root.parent / "a").rename(ab.root / "a")

    before = dict(ab.known)
    assert scan_while(ab, put_back) == [("vanished", "a")]
    assert ab.known == before


def test_scan_file_that_will_not_hold_still_keeps_its_record() -> None:
    """Nothing is concluded about a file whose bytes never fit its stat; here the kernel's, with more bytes than 0."""
    root = Path("/proc/sys/kernel/random")
    if not (root / "uuid").is_file():
        pytest.skip("needs /proc")
    known = {"uuid": row(1, "uuid"), "nothing": row(2, "nothing", 2)}
    last: list[Progress] = []
    said = [line(item) for item in scan(str(root), known, progress=last.append)]
    assert ("changing", "uuid") in said
    assert last[-1].bytes_hashed <= last[-1].bytes_total
    assert [words for words in said if words[0] != "changing"] == [("deleted", "nothing")]


def test_walk_directory_swapped_for_a_link_is_not_entered(tree: Recorder) -> None:
    """A directory that becomes a link before it is listed shows nothing of what is behind the link."""
    (tree.root / "a").touch()
    (tree.root / "d").mkdir()
    outside = tree.root.parent / "outside"
    outside.mkdir()
    (outside / "x").touch()
    with opened(tree.root) as root:
        items = walk(root)
        assert next(items).path == "a"
        (tree.root / "d").rmdir()
        (tree.root / "d").symlink_to(outside)
        assert list(items) == []


def test_scan_directory_swapped_for_a_link_is_not_read(tree: Recorder) -> None:
    """Who swaps a directory for a link between walk and reading gets no digest of what is behind it."""
    outside = tree.root.parent / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    (tree.root / "d").mkdir()
    (tree.root / "d/x").write_bytes(b"mine")

    def swap(_: Progress) -> None:
        if not (tree.root / "d").is_symlink():
            (tree.root / "d/x").unlink()
            (tree.root / "d").rmdir()
            (tree.root / "d").symlink_to(outside)

    assert scan_while(tree, swap) == []
    assert scan_while(tree, swap) == [("symlink", "d")]


def test_hash_files_takes_no_more_than_it_can_queue(ab: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is finished the walk waits, so that memory stays flat however large the tree is."""
    monkeypatch.setattr(hashing, "MAX_QUEUED", 2)
    taken: list[Seen] = []
    taken_when_waiting: list[int] = []
    go_on = Event()

    def idle() -> None:
        taken_when_waiting.append(len(taken))
        go_on.set()

    with opened(ab.root) as root:
        file = look(root, "a")
        files = (taken.append(file) or file for _ in range(1000))  # type: ignore[func-returns-value]
        results = list(hashing.hash_files(root, files, 2, lambda _: go_on.wait(10), idle))
    assert taken_when_waiting[0] == 3 * hashing.BATCH_FILES
    assert len(results) == 1000


def test_hash_files_stopped_early_stops_reading(ab: Recorder) -> None:
    """Whoever interrupts a scan does not wait for the end of the huge file that is being read."""
    os.truncate(ab.root / "b", 1 << 31)  # a hole: seconds, if it were read to its end
    reading = Event()
    counts: list[int] = []

    def advance(size: int) -> None:
        counts.append(size)
        reading.set()

    def idle() -> None:
        assert reading.wait(10)
        raise KeyboardInterrupt

    with opened(ab.root) as root, pytest.raises(KeyboardInterrupt):
        list(hashing.hash_files(root, [look(root, "b")], 2, advance, idle))
    assert sum(counts) < 1 << 31


def test_scan_modifies_nothing(ab: Recorder) -> None:
    """Neither bytes nor any time of files and directories move, not even the access times, for the owner."""
    (ab.root / "d").mkdir()
    places = [ab.root, *ab.root.iterdir()]
    for place in places:
        os.utime(place, ns=(1, 1))
    before = [(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for s in map(os.stat, places)]
    list(scan(str(ab.root), ab.known, full=True))
    assert [(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for s in map(os.stat, places)] == before


def test_scan_reports_progress_at_its_pace(ab: Recorder) -> None:
    """At most one report in 0.2 s of the clock that was passed in, and a last one with all totals."""
    now = [0.0]
    reports: list[tuple[float, Progress]] = []

    def clock() -> float:
        now[0] += 0.03
        return now[0]

    for n in range(200):
        (ab.root / str(n)).write_bytes(b"12345")
    ab.scan(full=True, progress=lambda p: reports.append((now[0], p)), clock=clock)
    times = [time for time, _ in reports[:-1]]
    assert len(times) > 3
    assert all(b - a >= 0.2 for a, b in zip(times, times[1:], strict=False))
    assert reports[0][1].files_total is None
    assert reports[-1][1] == Progress(202, 202, 1010, 1010)


# Random histories.

PATHS = st.sampled_from(["a", "b", "d/a", "d/b", "e/a", "é\n"])
BYTES = st.sampled_from([b"", b"x", b"y", b"zz", b"yy"])
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, BYTES),
    st.tuples(st.just("replace"), PATHS, BYTES),
    st.tuples(st.just("alter"), PATHS),
    st.tuples(st.sampled_from(["touch", "chmod", "remove", "symlink"]), PATHS),
    st.tuples(st.sampled_from(["move", "swap", "link", "copy"]), PATHS, PATHS),
    st.just(("swap-directories",)),
    st.tuples(st.just("scan"), st.booleans()),
)


def do(root: Path, spare: Path, step: tuple[Any, ...]) -> None:
    """One real file operation; one that makes no sense here does nothing."""
    action, *rest = step
    paths = [root / item for item in rest if isinstance(item, str)]
    try:
        match action:
            case "write":
                paths[0].write_bytes(rest[1])
            case "replace":
                spare.write_bytes(rest[1])
                spare.replace(paths[0])
            case "alter":
                alter(paths[0], bytes(byte ^ 1 for byte in paths[0].read_bytes()))
            case "touch":
                os.utime(paths[0])
            case "chmod":
                paths[0].chmod(paths[0].stat().st_mode ^ 0o100)
            case "remove":
                paths[0].unlink()
            case "symlink":
                paths[0].unlink()
                paths[0].symlink_to("a")
            case "move":
                paths[0].rename(paths[1])
            case "swap":
                paths[0].rename(spare)
                paths[1].rename(paths[0])
                spare.rename(paths[1])
            case "link":
                paths[1].hardlink_to(paths[0])
            case "copy":
                paths[1].write_bytes(paths[0].read_bytes())
            case "swap-directories":
                (root / "d").rename(spare)
                (root / "e").rename(root / "d")
                spare.rename(root / "e")
    except OSError:
        spare.unlink(missing_ok=True)


def check_step(before: dict[str, Known], after: dict[str, tuple[Any, ...]], changes: list[Change]) -> None:
    """Each operation keeps and changes what its name says, against path -> digest before and after."""
    for change in changes:
        old, new, digest = change.known, change.seen, change.digest
        assert old is None or before[old.path] == old
        assert new is None or after[new.path] == (*new, digest)
        match change.operation:
            case "created":
                assert old is None
            case "deleted":
                assert old is not None
                assert new is None
                assert old.path not in after or after[old.path][2] != old.inode
            case "moved":
                assert old is not None
                assert new is not None
                assert old.path != new.path
                assert old.digest == digest
                assert sum(r[2] == old.inode for r in after.values()) == 1
            case "written" | "altered" | "touched" | "seen":
                assert old is not None
                assert new is not None
                assert old.path == new.path
                assert (old.digest != digest) is (change.operation in ("written", "altered"))
                assert (old.mtime_ns != new.mtime_ns) is (change.operation == "touched") or old.digest != digest
            case _:
                raise AssertionError(change)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=25))
def test_scan_of_any_history_gives_the_disk(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is done to a tree and whenever it is scanned: the records become the disk, once, by true operations."""
    with tempfile.TemporaryDirectory() as name:
        tree = Recorder(Path(name, "root"))
        for place in ("root", "root/d", "root/e"):
            Path(name, place).mkdir()
        for step in [*steps, ("scan", False)]:
            if step[0] != "scan":
                do(tree.root, Path(name, "spare"), step)
                continue
            before, after = tree.known, read_disk(tree.root)
            changes = [item for item in tree.scan(full=step[1]) if isinstance(item, Change)]
            assert {k.path: k[1:] for k in tree.known.values()} == after
            check_step(before, after, changes)
            assert not [item for item in tree.scan() if isinstance(item, Change)]
