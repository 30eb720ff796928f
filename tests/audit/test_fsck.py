"""fsck: silent on a sound log, and each thing that it checks, damaged on purpose, is found where it is."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit import fsck
from audit.batch import Observation, build_entry
from audit.directory import create_log
from audit.fsck import Keys, Report, check_log
from tests.audit.log_setup import LogSetup, content_of
from tests.audit.test_recorder import sealed
from verifier.chain import Binding, genesis, link
from verifier.entry import CloseReason, Operation, Part, decode_entry, entry_hash
from verifier.note import Note, format_note, parse_note

Op = Operation
Damage = str | Callable[[sqlite3.Connection], object]


def check(log: LogSetup) -> Report:
    return check_log(log.store, Keys(log.signer.verifier_key, log.witness_policy, log.auditor_policy))


def remember(log: LogSetup, source: int, *files: int) -> Callable[[sqlite3.Connection], object]:
    """What a scan writes beside its entries."""
    rows = [(source, i, f"k{i}", 1, i, 1, 0, 0, content_of(b"k").sha3_256, 1) for i in files]
    return lambda conn: conn.executemany(f"INSERT INTO folder_known VALUES ({','.join('?' * 10)})", rows)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> LogSetup:
    """A closed log with everything in it: five trees, 300 chains, every kind of row, entries and owners waiting."""
    log = LogSetup(tmp_path_factory.mktemp("fsck") / "log")
    files = [Observation(log.source, i, Op.CREATED, 7, content_of(b"x"), f"f{i}") for i in range(1, 290)]
    log.recorder.record(files)
    log.publish()
    log.see(Op.WRITTEN, 1, b"y")
    log.see(Op.DELETED, 3)
    log.recorder.erase(log.source, 3, 0, Part.PATH)
    log.publish()
    keys = log.enrol()
    log.publish()
    log.see(Op.WRITTEN, 1, b"z")
    log.publish()
    log.recorder.record_seal(log.source, 1, sealed(log, keys.private))
    other = log.store.add_source("folder:/srv/known", "folder:f1")
    ids = list(log.store.new_file_ids(other, 3))
    known = [Observation(other, i, Op.ADOPTED, 7, content_of(b"k"), f"k{i}") for i in ids]
    log.recorder.record(known, remember(log, other, *ids))
    with log.store.transaction() as conn:
        conn.execute("UPDATE sources SET scanned = 1 WHERE id = ?", (other,))
    log.publisher.integrate_and_sign(log.clock.now)
    log.see(Op.CLOSED, 1, argument=CloseReason.NEW_OWNER)
    log.see(Op.TOUCHED, 1)
    log.see(Op.WRITTEN, 2, b"2")
    log.enrol("bob", replace=True)
    assert log.store.reader().execute("SELECT count(*) FROM pending").fetchone()[0] == 7
    log.close()
    return log


@pytest.fixture
def log(sound: LogSetup, tmp_path: Path) -> Iterator[LogSetup]:
    """A copy of it, not open yet."""
    mine = copy.copy(sound)
    mine.directory = str(tmp_path / "log")
    shutil.copytree(sound.directory, mine.directory)
    yield mine
    mine.close()


def damage(log: LogSetup, *damages: Damage) -> None:
    conn = sqlite3.connect(f"{log.directory}/log.db", isolation_level=None)
    conn.execute("PRAGMA synchronous=OFF")
    for one in damages:
        if callable(one):
            one(conn)
        else:
            conn.execute(one)
    conn.close()


def test_sound_log_has_no_findings(log: LogSetup) -> None:
    """Nothing is said about a log that holds, and everything in it was looked at."""
    log.open()
    report = check(log)
    assert report.findings == []
    counts = dict(log.store.reader().execute("SELECT 'chains', count(*) FROM chains").fetchall())
    assert report.counts["chains"] == counts["chains"] > 288
    assert report.counts["leaves"] == log.store.reader().execute("SELECT max(size) FROM trees").fetchone()[0]
    assert report.counts["map versions"] == 2


def test_empty_log_has_no_findings(tmp_path: Path) -> None:
    """A log that was just made is sound."""
    log = LogSetup(tmp_path)
    assert check(log).findings == []
    log.close()


def test_log_is_checked_while_it_runs(log: LogSetup) -> None:
    """A check sees one committed state, whatever is recorded and published meanwhile."""
    log.open()
    done = []

    def go_on(what: str, _done: int, _total: int) -> None:
        if what in ("chains", "bundles") and what not in done:
            done.append(what)
            log.see(Op.CREATED, 9000 + len(done), b"x", f"new {len(done)}")
            log.publisher.integrate_and_sign(log.clock.now, sign_unpublished=True)

    keys = Keys(log.signer.verifier_key, log.witness_policy, log.auditor_policy)
    assert check_log(log.store, keys, go_on).findings == []
    assert done == ["chains", "bundles"]
    assert check(log).findings == []


def flip(table: str, column: str, where: str, at: int = -1) -> Callable[[sqlite3.Connection], object]:
    """Changes one bit of a value."""

    def run(conn: sqlite3.Connection) -> None:
        (old,) = conn.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
        new = bytearray(old)
        new[at] ^= 1
        assert conn.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (bytes(new),)).rowcount >= 1

    return run


def renote(column: str, change: Callable[[Note], Note]) -> Callable[[sqlite3.Connection], object]:
    """Changes a note of the first tree."""

    def run(conn: sqlite3.Connection) -> None:
        size, note = conn.execute(f"SELECT size, {column} FROM trees ORDER BY size").fetchone()
        conn.execute(f"UPDATE trees SET {column} = ? WHERE size = ?", (format_note(change(parse_note(note))), size))

    return run


def resigned(note: Note) -> Note:
    """The last line, of a cosigner, with the signature of another text."""
    *lines, last = note.signatures
    return Note(note.text, (*lines, last._replace(blob=last.blob[:8] + bytes(64))))


NEWEST = "(SELECT max(size) FROM trees)"
FIRST_TREE = "size = (SELECT min(size) FROM trees)"
LAST_TREE = "size = (SELECT max(size) FROM trees)"
NEWEST_1 = "(SELECT max(id) FROM chains WHERE source = 1 AND file_id = 1)"
STEP = "chain = 5 AND seq = 0"

DAMAGES: list[tuple[str, Damage, str]] = [
    # the file
    ("wrong type", f"UPDATE entries SET entry = 'text' WHERE {STEP}", r"file: entries\.entry: holds text"),
    ("null", "UPDATE owners SET active = 1.5", r"file: owners\.active: holds real"),
    ("no source", "DELETE FROM sources WHERE id = 2", r"file: chains: row \d+ refers to what is not in sources"),
    ("no owner", "DELETE FROM owners WHERE kind = 'custodial'", "chain: chain 1 .*owner 1: missing"),
    # owners and chains
    ("root", flip("owners", "root", "id = 1"), "owner: owner 1: root is not"),
    ("owner key", flip("owners", "owner_key", "id = 1"), "owner: owner 1: root is not"),
    ("blinding key", flip("owners", "blinding_key", "id = 1"), "chain: chain 1 .*: chain id is not"),
    ("file id", "UPDATE chains SET file_id = 777 WHERE id = 1", "chain: chain 1 .*: chain id is not"),
    ("generation", "UPDATE chains SET generation = 4 WHERE id = 5", "chain: chain 5 .*: generation: got 4, want 0"),
    (
        "second chain",
        f"UPDATE chains SET predecessor = NULL WHERE id = {NEWEST_1}",
        r"chain: chain \d+: predecessor: got None, w",
    ),
    ("entry", flip("entries", "entry", STEP), r"chain: chain 5 \(file 5\): step 0: the context shown is not"),
    ("entry time", flip("entries", "entry", STEP, 17), r"chain: chain 5 \(file 5\) step 0: stored seq or head"),
    ("opening", flip("entries", "content", STEP), "chain: chain 5 .*: step 0: the content shown is not"),
    ("salt", flip("entries", "path", STEP, 0), "chain: chain 5 .*: step 0: the path shown is not"),
    ("lost opening", f"UPDATE entries SET context = NULL WHERE {STEP}", "chain: chain 5 .*no entry says that it was"),
    ("head", flip("entries", "head", STEP), "chain: chain 5 .* step 0: stored seq or head is not"),
    ("lost entry", f"DELETE FROM entries WHERE {STEP}", "row: chain 5 .*: has no entries"),
    ("lost last entry", "DELETE FROM entries WHERE chain = 2 AND seq = 1", "row: chain 2 .*: last_seq: got 1, want 0"),
    ("lost first entry", "DELETE FROM entries WHERE chain = 3 AND seq = 0", "chain: chain 3 .*: step 1 is not legit"),
    ("lost end", "DELETE FROM entries WHERE chain = 1", r"chain: chain \d+ .*which it continues"),
    ("renumbered", "UPDATE entries SET seq = 7 WHERE chain = 2 AND seq = 1", "chain: chain 2 .* step 7: stored seq"),
    (
        "index order",
        "UPDATE entries SET leaf_index = 0 WHERE chain = 3 AND seq = 1",
        "chain: chain 3 .*leaf index 0 af",
    ),
    (
        "seal",
        "UPDATE trees SET first_note = NULL, published_at = NULL",
        r"chain: chain \d+ .* step 2: seals a tree that",
    ),
    (
        "predecessor",
        f"UPDATE chains SET predecessor = 2 WHERE id = {NEWEST_1}",
        r"chain: chain \d+: predecessor: got 2, w",
    ),
    # rows
    ("row head", flip("chains", "head", "id = 5"), "row: chain 5 .*: head: got"),
    (
        "row status",
        "UPDATE chains SET status = 'deleted' WHERE id = 5",
        "row: chain 5 .*: status: got deleted, want live",
    ),
    ("row version", "UPDATE chains SET version = 1 WHERE id = 2", "row: chain 2 .*: version: got 1, want 0"),
    ("row seq", "UPDATE chains SET last_seq = 0 WHERE id = 2", "row: chain 2 .*: last_seq: got 0, want 1"),
    ("row size", "UPDATE chains SET size = 0 WHERE id = 5", "row: chain 5 .*: size: got 0, want 1"),
    ("row digest", flip("chains", "digest", "id = 5"), "row: chain 5 .*: digest"),
    ("row path", "UPDATE chains SET path = 'else' WHERE id = 5", "row: chain 5 .*: path: got else, want f5"),
    ("erased path", "UPDATE chains SET path = 'f3' WHERE id = 3", "row: chain 3 .*: path: got f3, want None"),
    # folders
    ("known path", "UPDATE folder_known SET path = 'else' WHERE file_id = 2", "folder: source 2 file 2: path, size"),
    ("known digest", flip("folder_known", "digest", "file_id = 2"), "folder: source 2 file 2: path, size or digest"),
    (
        "known size",
        "UPDATE folder_known SET size = 9 WHERE file_id = 2",
        "folder: source 2 file 2: path, size or digest",
    ),
    (
        "known file",
        "UPDATE folder_known SET file_id = 77 WHERE file_id = 2",
        "folder: source 2 file 77: .*no live chain",
    ),
    (
        "unknown file",
        "DELETE FROM folder_known WHERE file_id = 2",
        r"folder: chain \d+ \(file 2\): is live, and no scan",
    ),
    ("next id", "UPDATE sources SET next_file_id = 3 WHERE id = 2", "folder: source 2 file 3: file id was never given"),
    # pending
    ("lost leaf", "DELETE FROM pending WHERE chain = 2", "pending: chain 2 step 1: is neither in the tree nor pending"),
    ("lost owner", "DELETE FROM pending WHERE owner IS NOT NULL", r"pending: owner \d+: is neither in the tree nor"),
    (
        "twice",
        "INSERT INTO pending SELECT 99, leaf, chain, seq, owner FROM pending WHERE chain = 2",
        "pending: pending 99: step 1",
    ),
    (
        "owner twice",
        "INSERT INTO pending SELECT 99, leaf, NULL, NULL, owner FROM pending WHERE owner",
        "pending: pending 99: is no",
    ),
    ("leaf", flip("pending", "leaf", "chain = 2"), r"pending: pending \d+: is not the leaf of step 1 of chain 2"),
    (
        "no leaf of ours",
        "INSERT INTO pending VALUES (99, x'02', NULL, NULL, NULL)",
        "pending: pending 99: is not the enr",
    ),
    ("again", "UPDATE entries SET leaf_index = NULL WHERE chain = 9", "pending: chain 9 step 0: is neither"),
    ("order", "UPDATE pending SET n = -n WHERE chain IS NOT NULL", r"pending: pending -\d+: step 1 .*out of order"),
    # leaves and tiles
    ("bundle", flip("bundles", "data", "n = 0"), "leaf: leaf 255: is not the leaf of the entry"),
    (
        "bundle size",
        "UPDATE bundles SET data = CAST(data || x'00' AS BLOB) WHERE n = 0",
        "leaf: bundle 0: .*nothing behind it",
    ),
    ("lost bundle", "DELETE FROM bundles WHERE n = 0", "leaf: bundle 1: want bundle 0 here"),
    ("bundle too many", "INSERT INTO bundles VALUES (2, x'0000')", "leaf: bundle 2: "),
    ("index", "UPDATE entries SET leaf_index = 250 WHERE chain = 5", "leaf: leaf 5: is not the leaf of the entry"),
    ("same index", "UPDATE entries SET leaf_index = 250 WHERE chain = 5", "leaf: leaf 250: step 0 says that it stands"),
    (
        "owner index",
        "UPDATE owners SET enrolled_index = 3 WHERE id = 1",
        "leaf: leaf 0: enrols a root that no owner has",
    ),
    ("owner there", "UPDATE owners SET enrolled_index = 3 WHERE id = 1", "leaf: leaf 3: owner [0-9a-f]{64} says"),
    ("tile", flip("tiles", "data", "id = 0", 0), "tile: tile 0/0: "),
    ("inner node", flip("tiles", "data", "id = 0", 256 * 32), "tile: tile 0/0: "),
    ("upper tile", flip("tiles", "data", "id >= 1 << 56"), "tile: tile 1/0: "),
    ("tile width", "UPDATE tiles SET width = 255 WHERE id = 0", "tile: tile 0/0: "),
    ("lost tile", "DELETE FROM tiles WHERE id = 1", "tile: tile 0/1: is missing"),
    ("tile too many", "INSERT INTO tiles VALUES (2, 1, x'00')", "tile: tiles: got 4 rows, want 3"),
    # trees and notes
    ("tree root", flip("trees", "root", LAST_TREE), r"tree: tree \d+: root is not that of its leaves"),
    ("map root", flip("trees", "map_root", LAST_TREE), r"tree: tree \d+: the stored map root is not"),
    ("committed map", flip("bundles", "data", "n = 1"), r"tree: tree \d+: the committed map root is not"),
    ("lost tree", f"DELETE FROM trees WHERE {FIRST_TREE}", r"leaf: leaf \d+: want a map commitment"),
    ("tree size", f"UPDATE trees SET size = 7 WHERE {FIRST_TREE}", "leaf: leaf 6: want a map commitment"),
    ("tree too many", f"UPDATE trees SET size = 9999 WHERE {LAST_TREE}", "leaf: bundle 1: "),
    ("signed", flip("trees", "signed", FIRST_TREE, -10), r"note: tree \d+: "),
    (
        "other text",
        f"UPDATE trees SET newest_note = (SELECT signed FROM trees WHERE {LAST_TREE})",
        r"note: tree \d+: st",
    ),
    ("cosignature", renote("newest_note", resigned), r"note: tree \d+: signature of w2"),
    ("first cosignature", renote("first_note", resigned), r"note: tree \d+: signature of w"),
    ("time", f"UPDATE trees SET published_at = NULL WHERE {FIRST_TREE}", r"note: tree \d+: has a first note or a time"),
    ("audited", f"UPDATE trees SET newest_note = first_note WHERE {FIRST_TREE}", r"note: tree \d+: is marked as audit"),
    # the map
    ("map page", flip("map_pages", "data", "prefix = x'00'"), r"map: map \d+: map page 0 .*"),
    ("lost map page", "DELETE FROM map_pages WHERE prefix = x'00'", r"map: map \d+: map page 0 .*missing"),
    (
        "map version",
        f"UPDATE trees SET map_root = zeroblob(32) WHERE {LAST_TREE}",
        r"map: map \d+: root is not that of",
    ),
    (
        "lost map",
        f"DELETE FROM map_pages WHERE prefix = x'' AND version = {NEWEST}",
        r"map: map \d+: is not there, and pr",
    ),
]


@pytest.mark.parametrize(("harm", "finding"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_damage_is_found_where_it_is(log: LogSetup, harm: Damage, finding: str) -> None:
    """One thing is not as it was: the check that is there for it says so."""
    damage(log, harm)
    log.open()
    found = [str(one) for one in check(log).findings]
    assert [line for line in found if re.match(finding, line)], "\n".join(found) or "nothing was found"


def test_history_rewritten_throughout_is_found_in_the_tree(log: LogSetup) -> None:
    """Entry, openings, head and row made anew, all consistent: the leaf that was logged is another one."""

    def rewrite(conn: sqlite3.Connection) -> None:
        (old,) = conn.execute("SELECT entry FROM entries WHERE chain = 5").fetchone()
        name, root = conn.execute(
            "SELECT chain_id, root FROM chains c JOIN owners o ON o.id = owner WHERE c.id = 5"
        ).fetchone()
        data, openings = build_entry(decode_entry(old), content_of(b"forged"), "f5", {})
        binding = Binding(log.log_name, "folder:f0", root, 5, name, None)
        head = link(genesis(binding), name, 0, entry_hash(data))
        columns = "entry = ?, content = ?, path = ?, context = ?, head = ?"
        conn.execute(f"UPDATE entries SET {columns} WHERE chain = 5", (data, *openings, head))
        conn.execute(
            "UPDATE chains SET head = ?, size = 6, digest = ? WHERE id = 5", (head, content_of(b"forged").sha3_256)
        )

    damage(log, rewrite)
    log.open()
    found = [str(finding) for finding in check(log).findings]
    assert found[0] == "leaf: leaf 5: is not the leaf of the entry that belongs there"


def test_findings_are_bounded(log: LogSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is wrong everywhere is said to be so in a report of bounded size."""
    monkeypatch.setattr(fsck.findings, "MAX_FINDINGS", 7)
    damage(log, "UPDATE chains SET status = 'deleted'")
    log.open()
    report = check(log)
    assert len(report.findings) == 7
    assert report.total > 280


def test_fsck_command_says_what_and_exits_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and a line of what was checked, or 1 and the findings, as text or as data."""
    create_log(str(tmp_path), "log.example", 7)
    assert fsck.main(str(tmp_path)) == 0
    assert "no findings (0 owners" in capsys.readouterr().out
    conn = sqlite3.connect(tmp_path / "log.db")
    with conn:
        conn.execute("INSERT INTO pending VALUES (1, x'02', NULL, NULL, NULL)")
    conn.close()
    assert fsck.main(str(tmp_path)) == 1
    assert capsys.readouterr().out.startswith("pending: pending 1: is not the enrolment")
    assert fsck.main(str(tmp_path), as_json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["total"], said["findings"][0]["place"]) == ("1", "pending 1")


def test_row_forgets_what_was_erased_before_the_deletion(tmp_path: Path) -> None:
    """A live file's row keeps its path though the opening is erased; once it is deleted, the row has none either."""
    log = LogSetup(tmp_path)
    log.see(Op.CREATED, 1, b"one", "a")
    log.recorder.erase(log.source, 1, 0, Part.PATH)
    assert check(log).findings == []
    log.see(Op.DELETED, 1)
    assert log.store.reader().execute("SELECT path FROM chains").fetchone() == (None,)
    assert check(log).findings == []
    log.close()
