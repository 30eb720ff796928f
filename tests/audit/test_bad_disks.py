"""Disks that are full, read-only or damaged, and data that is not ours: a clear error, and never a wrong signature."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from audit.directory import locked
from audit.errors import Fatal, Refused, TryLater
from audit.fsck import Keys, check_log
from audit.schema import SCHEMA_VERSION
from audit.store import open_store
from tests.audit.log_setup import LogSetup
from verifier.checkpoint import open_checkpoint
from verifier.entry import Operation
from verifier.errors import Error

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogSetup]:
    setup = LogSetup(tmp_path / "log")
    setup.see(Operation.CREATED, 1, b"one", "a")
    setup.publish()
    yield setup
    setup.close()


def findings(log: LogSetup) -> list[str]:
    keys = Keys(log.signer.verifier_key, log.witness_policy, log.auditor_policy)
    return [str(finding) for finding in check_log(log.store, keys).findings]


def run(script: str, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A process of its own, under what `before` says."""
    command = [*before, sys.executable, "-c", script, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# -- a full disk ------------------------------------------------------------------------------------------------------

FILL = """
import os, subprocess, sys
from pathlib import Path
from audit.errors import Fatal, TryLater
from tests.audit.log_setup import LogSetup
from tests.audit.test_bad_disks import findings
from verifier.checkpoint import open_checkpoint
from verifier.entry import Operation

disk = Path(sys.argv[1])
mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], capture_output=True, text=True)
if mounted.returncode:
    print("no mount:", mounted.stderr.strip())
    sys.exit(77)
log = LogSetup(disk / "log")
ballast = disk / "ballast"
ballast.write_bytes(bytes(400_000))
done, notes, refused = [], [], 0
for i in range(1, 100_000):
    try:
        done.append(log.see(Operation.CREATED, i, b"x", f"f{i}" * 50))
        if i % 5 == 0:
            notes.append(log.publish())
    except (Fatal, TryLater) as error:
        assert "full" in str(error) or "no more writes" in str(error), error
        refused += 1
        if refused == 3:
            break
        log.reopen()  # still full
assert refused == 3 and len(done) > 20, (refused, len(done))
found = findings(log)  # needs no room
assert found == [], found
log.close()
ballast.unlink()
log.open()
log.see(Operation.CREATED, 100_001, b"x", "room again")
notes.append(log.publish())
while log.publisher.integrate_and_sign(log.clock.now):
    notes.append(log.publish())
conn = log.store.reader()
for recorded in done:
    assert conn.execute("SELECT count(*) FROM entries WHERE head = ?", (recorded.head,)).fetchone() == (1,)
for note in notes:
    checkpoint = open_checkpoint(note.note, log.signer.verifier_key)[1]
    assert checkpoint.root == log.tree.root(conn, checkpoint.size)
found = findings(log)
assert found == [], found
print("survived", len(done), len(notes))
"""


def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    """Recording and publishing stop with a clear error; with room again everything acknowledged is there."""
    if not IS_ROOT or not shutil.which("unshare"):
        pytest.skip("needs root and unshare: mounts a small tmpfs in a mount namespace of its own")
    ran = run(FILL, str(tmp_path), before=("unshare", "-m"))
    if ran.returncode == 77 or "unshare failed" in ran.stderr:
        pytest.skip(f"cannot mount a tmpfs here: {ran.stdout}{ran.stderr}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("survived")


# -- read-only --------------------------------------------------------------------------------------------------------

READ_ONLY = """
import sys
from audit.errors import AuditError
from audit.store import open_store

try:
    store = open_store(sys.argv[1])
    with store.transaction() as conn:
        conn.execute("INSERT INTO bundles VALUES (9, x'00')")
except AuditError as error:
    print(type(error).__name__, error)
    sys.exit(0)
sys.exit("it could write")
"""


@pytest.fixture(scope="module")
def ordinary_user() -> tuple[str, ...]:
    """What comes before a command so that modes count; root ignores them."""
    if not IS_ROOT:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv: root ignores the modes of files")
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    tried = run("import audit.store", before=user)
    if tried.returncode:
        pytest.skip(f"an ordinary user cannot run this interpreter or read this tree: {tried.stderr.splitlines()[-1:]}")
    return user


@pytest.mark.parametrize(("file_mode", "directory_mode"), [(0o444, 0o755), (0o444, 0o555), (0o000, 0o755)])
def test_read_only_log_is_refused(
    log: LogSetup, ordinary_user: tuple[str, ...], file_mode: int, directory_mode: int
) -> None:
    """Where the service may not write, it says so and changes nothing."""
    log.close()
    with TemporaryDirectory() as outside:  # where another user gets to
        os.chmod(outside, 0o755)
        directory = shutil.copytree(log.directory, os.path.join(outside, "log"))
        path = Path(directory, "log.db")
        before = path.read_bytes()
        path.chmod(file_mode)
        os.chmod(directory, directory_mode)
        ran = run(READ_ONLY, directory, before=ordinary_user)
        os.chmod(directory, 0o755)
        path.chmod(0o644)
        assert ran.returncode == 0, ran.stderr
        assert any(word in ran.stdout for word in ("readonly", "unable to open")), ran.stdout
        assert path.read_bytes() == before


# -- not ours, or of another time -------------------------------------------------------------------------------------


def test_newer_log_is_refused_and_left_alone(log: LogSetup) -> None:
    """A program that is too old does not touch what it does not understand."""
    log.close()
    conn = sqlite3.connect(f"{log.directory}/log.db", isolation_level=None)
    conn.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (b"%d" % (SCHEMA_VERSION + 1),))
    conn.close()
    before = Path(log.directory, "log.db").read_bytes()
    with pytest.raises(Refused, match="a newer program made it"):
        open_store(log.directory)
    assert Path(log.directory, "log.db").read_bytes() == before
    conn = sqlite3.connect(f"{log.directory}/log.db", isolation_level=None)
    conn.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (b"%d" % SCHEMA_VERSION,))
    conn.close()
    log.open()


FOREIGN = {
    "no database": None,
    "no tables": [],
    "other tables": ["CREATE TABLE moz_places (id INTEGER PRIMARY KEY, url TEXT)"],
    "other meta": ["CREATE TABLE meta (key TEXT, value TEXT)", "INSERT INTO meta VALUES ('schema_version', '1')"],
    "wrong columns": ["CREATE TABLE meta (id INTEGER, version INTEGER)"],
    "numbers": ["CREATE TABLE meta (key, value)", "INSERT INTO meta VALUES (1, 2), (NULL, NULL)"],
    "no names": ["CREATE TABLE meta (key, value)", "INSERT INTO meta VALUES ('schema_version', x'31')"],
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
def test_foreign_file_is_refused_and_left_alone(tmp_path: Path, statements: list[str] | None) -> None:
    """A log.db of another application, or no database at all."""
    path = tmp_path / "log.db"
    if statements is None:
        path.write_bytes(b"this is a text, and has been one for a long time\n" * 100)
    else:
        conn = sqlite3.connect(path)
        with conn:
            for statement in statements:
                conn.execute(statement)
        conn.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match="not a log that was created completely"):
        open_store(str(tmp_path))
    assert path.read_bytes() == before


def test_second_process_is_refused(log: LogSetup) -> None:
    """One process for each data directory: the second one is told who holds it."""
    script = "import sys\nfrom audit.directory import locked\nwith locked(sys.argv[1]): print('in')"
    with locked(log.directory):
        ran = run(script, log.directory)
        assert ran.returncode == 1
        assert f"process {os.getpid()} works in it" in ran.stderr
    assert run(script, log.directory).stdout == "in\n"


# -- damage -----------------------------------------------------------------------------------------------------------


def harm(data: bytes, how: random.Random, tile: int) -> bytes:
    """A file that was cut short, or of which a page or a few bits are not what they were, as in the tile at `tile`."""
    harmed = bytearray(data)
    page = how.randrange(len(data) // 8192) * 8192
    match how.choice(["cut", "page", "zeros", "bits", "tile", "swap"]):
        case "cut":
            del harmed[how.randrange(1, len(data)) :]
        case "page":
            harmed[page : page + 8192] = how.randbytes(8192)
        case "zeros":
            harmed[page : page + 8192] = bytes(8192)
        case "bits":
            for _ in range(20):
                harmed[how.randrange(len(data))] ^= 1 << how.randrange(8)
        case "tile":
            harmed[tile + how.randrange(50 * 32)] ^= 1 << how.randrange(8)
        case "swap":
            other = how.randrange(len(data) // 8192) * 8192
            harmed[page : page + 8192], harmed[other : other + 8192] = (
                data[other : other + 8192],
                data[page : page + 8192],
            )
    return bytes(harmed)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> LogSetup:
    """A closed log of three trees, with something pending."""
    log = LogSetup(tmp_path_factory.mktemp("damage") / "log")
    for i in range(1, 60):
        log.see(Operation.CREATED, i, b"x" * i, f"f{i}")
        if i % 25 == 0:
            log.publish()
    log.close()
    return log


def test_damaged_file_never_gets_a_wrong_signature(pristine: LogSetup, tmp_path: Path) -> None:
    """Whatever the damage: errors of our own, or a finding, or nothing that matters; what is signed fits what was."""
    path = Path(pristine.directory, "log.db")
    sound = path.read_bytes()
    pristine.open()
    before = [row[0] for row in pristine.store.reader().execute("SELECT signed FROM trees")]
    tile = sound.index(pristine.store.reader().execute("SELECT substr(data, 1, 32) FROM tiles").fetchone()[0])
    roots = dict(pristine.store.reader().execute("SELECT size, root FROM trees").fetchall())
    pristine.close()
    outcomes = {"refused": 0, "found": 0, "unharmed": 0}
    for seed in range(60):
        for name in os.listdir(pristine.directory):
            os.unlink(os.path.join(pristine.directory, name))
        path.write_bytes(harm(sound, random.Random(seed), tile))
        try:
            pristine.open()
        except (Refused, Fatal):
            outcomes["refused"] += 1
            continue
        try:
            found = findings(pristine)
        except (Fatal, TryLater, Refused) as error:
            found = [str(error)]
        outcomes["found" if found else "unharmed"] += 1
        try:
            pristine.see(Operation.WRITTEN, 7, b"more")
            pristine.clock.now += 60
            target = pristine.publisher.integrate_and_sign(pristine.clock.now)
        except (Fatal, TryLater, Refused, Error):
            target = None
        if target is not None and target.note not in before:
            checkpoint = open_checkpoint(target.note, pristine.signer.verifier_key)[1]
            assert checkpoint.size > max(roots), "signed anew what was signed before"
            conn = pristine.store.reader()
            assert {size: pristine.tree.root(conn, size) for size in roots} == roots, seed
            if not found:
                assert findings(pristine) == []
        pristine.close()
    assert outcomes["refused"] > 3
    assert outcomes["found"] > 20, outcomes


@pytest.mark.parametrize(
    ("said", "ours"), [(sqlite3.DatabaseError("malformed"), Fatal), (sqlite3.OperationalError("locked"), TryLater)]
)
def test_errors_of_the_database_become_ours(log: LogSetup, said: sqlite3.Error, ours: type[Exception]) -> None:
    """Whoever reads or writes hears the words of the service; the connection can be used again."""
    for opened in (log.store.snapshot, log.store.transaction):
        with pytest.raises(ours, match=str(said)), opened():
            raise said
    assert findings(log) == []


def test_log_that_was_cut_short_is_an_earlier_one(log: LogSetup, tmp_path: Path) -> None:
    """Where a machine died and its disk lost the end of what it had promised, an earlier sound state is there."""
    for i in range(2, 20):
        log.see(Operation.CREATED, i, b"x", f"f{i}")
        if i % 6 == 0:
            log.publish()
    main, wal = (Path(log.directory, name).read_bytes() for name in ("log.db", "log.db-wal"))
    sizes = []
    for at in range(0, 13):
        copy = tmp_path / f"cut {at}"
        copy.mkdir()
        (copy / "log.db").write_bytes(main)
        (copy / "log.db-wal").write_bytes(wal[: len(wal) * at // 12])
        log.close()
        log.directory = str(copy)
        log.open()
        assert findings(log) == []
        sizes.append(log.store.reader().execute("SELECT count(*) FROM entries").fetchone()[0])
    assert sizes == sorted(sizes)
    assert sizes[-1] == 19
    assert len(set(sizes)) > 5
