"""The auditor against honest logs, lying logs and failing disks."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audit import auditor
from audit.auditor import plan_chunk
from audit.errors import Conflict, Fatal, PeerFailed, TryLater
from audit.mirror import Finding, Mirror, Target
from audit.node import Node, create_node, open_node
from audit.witness import CONSISTENCY, FORK, Inconsistent, UnknownLog, Untrusted
from audit.witness_store import AUDITOR
from tests.fakes import NOW, FakeClock, FakeLog, Faults, digest
from tests.reference import mth
from verifier.chain import link
from verifier.checkpoint import parse_checkpoint_unverified
from verifier.entry import MAX_ENTRIES
from verifier.errors import Malformed
from verifier.leaf import EntryLeaf, decode_leaf
from verifier.loss import format_loss, loss_leaf
from verifier.map import verify_place
from verifier.merkle import append_leaf, extend_peaks, fold_right, leaf_hash
from verifier.note import parse_note, parse_vkey, verify_cosignature
from verifier.proof import Declared
from verifier.replay import BrokenRule, next_tip


@pytest.fixture
def log() -> FakeLog:
    return FakeLog().grow(20)


@pytest.fixture
def node(tmp_path: Path, log: FakeLog):
    node = new_node(tmp_path / "n", log)
    yield node
    node.close()


def new_node(folder: Path, log: FakeLog) -> Node:
    create_node(folder, "node.example/w")
    node = open_node(folder, log.fetch)
    node.allow_log(log.vkey, log.url)
    return node


def audit(node: Node, note: bytes, now: int = NOW) -> bytes:
    return asyncio.run(node.auditor.audit(note, FakeClock(now)))


def signed_size(node: Node, log: FakeLog) -> int:
    head = node.store.head(AUDITOR, log.origin)
    return head.size if head else 0


def kinds(node: Node) -> list[str]:
    return [evidence.kind for evidence in node.store.evidence()]


# Honest logs


@pytest.mark.parametrize("grow", [[0, 0, 1, 3, 250, 5, 600, 1], [2000, 10]])
def test_auditor_signs_what_it_replayed(node: Node, log: FakeLog, grow: list[int], monkeypatch) -> None:
    """However a log grows, each target gets the auditor's cosignature, and every leaf below it is held."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 512)
    auditor_key = parse_vkey(node.describe()["auditor"]["vkey"])  # type: ignore[index]
    assert auditor_key.name == "node.example/w/auditor"
    for entries in grow:
        note = log.grow(entries, chains=37).checkpoint()
        line = audit(node, note)
        assert verify_cosignature(parse_note(note + line), auditor_key) == NOW
        assert signed_size(node, log) == len(log.leaves)
    mirror = node.auditor.mirror(log.origin)
    held = [leaf for number in range(-(-mirror.size // 256)) for leaf in mirror.leaves(number)]
    assert held == log.leaves


def test_auditor_signs_the_same_tree_again(node: Node, log: FakeLog) -> None:
    """The same target gets a fresh time, without a fetch; an older time is refused."""
    audit(node, log.checkpoint())
    log.fetched.clear()
    audit(node, log.checkpoint(), NOW + 60)
    assert log.fetched == []
    with pytest.raises(TryLater, match="clock"):
        audit(node, log.checkpoint(), NOW + 59)


def test_auditor_checks_the_last_leaf_of_a_tree_that_it_held_before(node: Node, log: FakeLog, monkeypatch) -> None:
    """A target that ends where a chunk of a larger one ended must end in a map commitment like any other."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    monkeypatch.setattr(auditor, "MAX_LEAVES_PER_REQUEST", 256)
    log.grow(600)
    asked = log.checkpoint()
    with pytest.raises(TryLater):
        audit(node, asked)
    node.auditor.mirror(log.origin).note = b""  # as if the larger target had never been named
    with pytest.raises(Inconsistent, match="not that of the leaves held"):
        audit(node, log.checkpoint(256, digest(b"fork", 0)))
    with pytest.raises(Finding, match="leaf 255: the last leaf is no map commitment"):
        audit(node, log.checkpoint(256))


def test_auditor_knows_every_kind_of_leaf(tmp_path: Path) -> None:
    """A declared loss at index 0 and enrolments anywhere are fine; so is a map that is still empty."""
    log, old = FakeLog(), FakeLog("log.example/old").grow(3)
    note = old.checkpoint()
    declared = [Declared(note, digest(b"key", 0), 4, bytes(64))]
    log.loss = format_loss(declared)
    log.leaves.append(loss_leaf(declared))
    log.add_map()
    log.leaves.append(b"\x03" + digest(b"owner", 0))
    log.grow(3)
    node = new_node(tmp_path / "n", log)
    assert audit(node, log.checkpoint())
    node.close()


def test_auditor_takes_the_full_tile_for_a_dropped_partial_one(node: Node, log: FakeLog) -> None:
    """Between signing and auditing a log may have grown, and have full tiles only."""
    note = log.checkpoint()
    log.grow(600)

    async def full_only(url: str, limit: int) -> bytes:
        if ".p/" in url:
            raise PeerFailed("gone")
        return await log.fetch(url, limit)

    node.auditor._fetch = full_only
    assert audit(node, note)


def test_auditor_goes_on_where_it_stopped(node: Node, log: FakeLog, monkeypatch) -> None:
    """A request that would take too long keeps what it has and says so; repeating it ends in a signature."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    monkeypatch.setattr(auditor, "MAX_LEAVES_PER_REQUEST", 512)
    note = log.grow(2000).checkpoint()
    for _ in range(3):
        with pytest.raises(TryLater, match="of 2022 leaves"):
            audit(node, note)
        assert signed_size(node, log) == 0
    audit(node, note)
    bundles = [path for path in log.fetched if path.startswith("tile/entries")]
    assert len(bundles) == len(set(bundles)) == 8
    assert signed_size(node, log) == 2022


def test_auditor_replays_one_target_at_a_time(node: Node, log: FakeLog) -> None:
    """A second request for the same log is told to wait while the first is at work."""
    note = log.checkpoint()

    async def both() -> list[bytes | BaseException]:
        work = [node.auditor.audit(note, FakeClock()) for _ in range(2)]
        return await asyncio.gather(*work, return_exceptions=True)

    first, second = asyncio.run(both())
    assert isinstance(first, bytes)
    assert isinstance(second, TryLater)


def test_auditor_waits_for_a_log_that_does_not_answer(node: Node, log: FakeLog) -> None:
    """Missing, oversized and garbled tiles are the network's fault: nothing is kept, and later it works."""
    note = log.checkpoint()
    for lie in (lambda _p, data: data[:-1], lambda _p, data: data + b"x", lambda _p, data: data * 300):
        log.lie = lie
        with pytest.raises(PeerFailed):
            audit(node, note)
    log.lie = lambda _path, data: data
    assert kinds(node) == []
    assert audit(node, note)


def test_auditor_refuses_strangers(node: Node, log: FakeLog, tmp_path: Path) -> None:
    """Unknown logs, logs without a url, and signatures that are missing or do not hold."""
    other = FakeLog("log.example/two").grow(1)
    with pytest.raises(UnknownLog):
        audit(node, other.checkpoint())
    node.allow_log(other.vkey)
    with pytest.raises(UnknownLog, match="not mirrored"):
        audit(node, other.checkpoint())
    with pytest.raises(Untrusted):
        audit(node, FakeLog(log.origin, b"\x08" * 32).grow(1).checkpoint())


# Lying logs: each lie is signed by the log, so only the check in question stands against it


def gap(log: FakeLog) -> None:
    log.add_entry(digest(b"chain", 0), digest(b"x", 1), seq=5)
    log.add_map()


def repeated(log: FakeLog) -> None:
    log.add_entry(digest(b"chain", 0), digest(b"x", 1), seq=1)
    log.add_map()


def huge(log: FakeLog) -> None:
    log.add_entry(digest(b"chain", 0), digest(b"x", 1), seq=2**64 - 1)
    log.leaves.append(b"\x02" + digest(b"map", 0))


def headless(log: FakeLog) -> None:
    log.add_entry(digest(b"chain", 99), digest(b"x", 1), seq=1)
    log.add_map()


def wrong_map(log: FakeLog) -> None:
    log.add_map(digest(b"map", 0))


def stale_map(log: FakeLog) -> None:
    root = log.map_root()
    log.add_entry(digest(b"chain", 0), digest(b"x", 1))
    log.add_map(root)


def early_wrong_map(log: FakeLog) -> None:
    wrong_map(log)
    log.grow(3)


def no_map_at_the_end(log: FakeLog) -> None:
    log.add_entry(digest(b"chain", 0), digest(b"x", 1))


def late_loss(log: FakeLog) -> None:
    log.leaves.append(b"\x04" + digest(b"loss", 0))
    log.add_map()


def unknown_leaf(log: FakeLog) -> None:
    log.leaves.append(b"\x09" + digest(b"?", 0))
    log.add_map()


def empty_leaf(log: FakeLog) -> None:
    log.leaves.append(b"")
    log.add_map()


def long_leaf(log: FakeLog) -> None:
    log.leaves.append(b"\x03" + digest(b"owner", 0) + b"\x00")
    log.add_map()


FINDINGS = [
    (gap, "seq of chain .* got 5, want 2"),
    (repeated, "seq of chain .* got 1, want 2"),
    (huge, "seq of chain .* got 18446744073709551615, want 2"),
    (headless, "seq of chain .* got 1, want 0"),
    (wrong_map, "map root"),
    (stale_map, "map root"),
    (early_wrong_map, "map root"),
    (no_map_at_the_end, "no map commitment"),
    (late_loss, "declared loss: want index 0"),
    (unknown_leaf, "unknown kind"),
    (empty_leaf, "truncated"),
    (long_leaf, "bytes too many"),
]


@pytest.mark.parametrize(("lie", "message"), FINDINGS, ids=[lie.__name__ for lie, _ in FINDINGS])
def test_auditor_stops_at_a_finding(
    node: Node, log: FakeLog, lie: Callable[[FakeLog], None], message: str, tmp_path: Path
) -> None:
    """A broken rule under a signed root is kept, ends signing for that log over restarts, until an operator decides."""
    audit(node, log.checkpoint())
    honest = log.copy().grow(1)
    size = len(log.leaves)
    lie(log)
    note = log.checkpoint()
    with pytest.raises(Finding, match=message):
        audit(node, note)
    node.close()
    node = open_node(tmp_path / "n", log.fetch)
    assert kinds(node) == ["finding"]
    assert note in node.store.evidence()[0].request
    for target in (note, honest.checkpoint(), log.checkpoint(size)):
        with pytest.raises(Inconsistent, match="halted until an operator decides"):
            audit(node, target)
    assert signed_size(node, log) == size
    node.store.resume(log.origin)
    assert audit(node, log.checkpoint(size))
    node.close()


def test_auditor_stops_at_an_empty_first_leaf(tmp_path: Path) -> None:
    """A leaf of no bytes is a finding like any other, also where a declared loss would stand."""
    log = FakeLog()
    log.leaves.append(b"")
    log.grow(3)
    node = new_node(tmp_path / "n", log)
    with pytest.raises(Finding, match="leaf 0: leaf: truncated"):
        audit(node, log.checkpoint())
    node.close()


def test_auditor_finds_a_gap_over_a_chunk_border(tmp_path: Path, monkeypatch) -> None:
    """Chain tips live on from chunk to chunk: what was right in the first is needed in the last."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    log = FakeLog().grow(700, chains=3)
    log.add_entry(digest(b"chain", 1), digest(b"x", 1), seq=9)
    log.add_map()
    node = new_node(tmp_path / "n", log)
    with pytest.raises(Finding, match="leaf 701: seq of chain .* got 9, want 233"):
        audit(node, log.checkpoint())
    node.close()


def test_auditor_keeps_the_map_over_a_chunk_border(tmp_path: Path, monkeypatch) -> None:
    """Chains that move in a chunk without a map commitment are in the map that the last chunk commits to."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    log = FakeLog().grow(700, chains=700)
    node = new_node(tmp_path / "n", log)
    assert audit(node, log.checkpoint())
    node.close()


def test_auditor_refuses_a_rewritten_leaf(node: Node, log: FakeLog) -> None:
    """A log that signs a tree in which an old leaf differs is refused, and both notes are kept."""
    audit(node, log.checkpoint())
    held = log.checkpoint()
    rewritten = FakeLog().grow(20, chains=11).grow(5)
    log.leaves = rewritten.leaves
    with pytest.raises(Inconsistent):
        audit(node, log.checkpoint())
    evidence = node.store.evidence()[0]
    assert (evidence.kind, evidence.request) == (CONSISTENCY, log.checkpoint())
    assert evidence.known_note.startswith(held)


def test_auditor_refuses_leaves_that_are_not_under_the_root(tmp_path: Path, monkeypatch) -> None:
    """Leaves that the log serves and did not sign are not stored, in the last chunk nor in an earlier one."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    log = FakeLog().grow(700, chains=3)
    for number in (0, 2):
        node = new_node(tmp_path / str(number), log)
        log.lie = lambda path, data, n=number: data[:-5] + b"\x00" * 5 if f"entries/00{n}" in path else data
        with pytest.raises(Inconsistent, match="path leads to root"):
            audit(node, log.checkpoint())
        assert node.auditor.mirror(log.origin).size == number * 256
        log.lie = lambda _path, data: data
        assert audit(node, log.checkpoint())
        node.close()


def test_auditor_keeps_a_fork(node: Node, log: FakeLog) -> None:
    """Another root for the size signed last is evidence that convinces anybody."""
    audit(node, log.checkpoint())
    fork = log.checkpoint(root=digest(b"fork", 0))
    with pytest.raises(Inconsistent):
        audit(node, fork)
    evidence = node.store.evidence()[0]
    assert (evidence.kind, evidence.request) == (FORK, fork)
    theirs = parse_checkpoint_unverified(parse_note(evidence.request).text)
    ours = parse_checkpoint_unverified(parse_note(evidence.known_note).text)
    assert (theirs.origin, theirs.size) == (ours.origin, ours.size)
    assert theirs.root != ours.root


def test_auditor_never_signs_a_smaller_tree(node: Node, log: FakeLog) -> None:
    """A rollback is answered with the size that is known."""
    small = log.checkpoint()
    audit(node, log.grow(3).checkpoint())
    with pytest.raises(Conflict) as conflict:
        audit(node, small)
    assert conflict.value.known_size == len(log.leaves)
    with pytest.raises(Inconsistent):
        audit(
            node, log.checkpoint(0, bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))
        )


def test_auditor_keeps_a_fork_of_a_target_it_never_signed(node: Node, log: FakeLog, monkeypatch) -> None:
    """What a mirror was verified against counts as seen, before anything was signed."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    monkeypatch.setattr(auditor, "MAX_LEAVES_PER_REQUEST", 256)
    log.grow(400)
    with pytest.raises(TryLater):
        audit(node, log.checkpoint())
    with pytest.raises(Inconsistent):
        audit(node, log.checkpoint(root=digest(b"fork", 0)))
    assert kinds(node) == [FORK]


def test_auditor_without_its_mirror_still_knows_what_it_signed(tmp_path: Path, log: FakeLog) -> None:
    """A lost mirror is fetched again; a log with another history up to the signed size is refused all the same."""
    node = new_node(tmp_path / "n", log)
    audit(node, log.checkpoint())
    node.close()
    (mirror,) = (tmp_path / "n" / "mirror").glob("*.db")
    for file in (tmp_path / "n" / "mirror").iterdir():
        file.unlink()
    honest, log.leaves = log.copy().grow(9), FakeLog().grow(20, chains=11).grow(9).leaves
    node = open_node(tmp_path / "n", log.fetch)
    for _ in range(2):
        with pytest.raises(Inconsistent, match="do not have the root that was cosigned"):
            audit(node, log.checkpoint())
    assert mirror.exists()
    log.leaves = honest.leaves
    assert audit(node, log.checkpoint())
    node.close()


# Crashes


def test_auditor_crashes_leave_nothing_inconsistent(tmp_path: Path, monkeypatch) -> None:
    """The table of every write of an audit in two chunks, not done or done and reported as failed.

    No answer, then a restart: what was signed is below what is held, and the same target is signed in the end.
    """
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    log = FakeLog().grow(20, chains=3)
    first = log.checkpoint()
    target = log.grow(300, chains=3).checkpoint()
    counted = Faults()
    writes = crash(tmp_path / "count", log, first, target, counted)
    assert writes == 10  # two chunks of regions, bundles, state and commit; then head and commit
    for at in range(1, writes + 1):
        for done in (False, True):
            crash(tmp_path / f"{at}-{done}", log, first, target, Faults(at, done))


def crash(folder: Path, log: FakeLog, first: bytes, target: bytes, faults: Faults) -> int:
    node = new_node(folder, log)
    audit(node, first)
    size = signed_size(node, log)
    node.close()
    node = open_node(folder, log.fetch, faults.factory)
    if faults.fail_at:
        with pytest.raises(Fatal):
            audit(node, target)
    else:
        audit(node, target)
    writes = faults.writes
    node.close()
    node = open_node(folder, log.fetch)
    mirror = node.auditor.mirror(log.origin)
    assert size <= signed_size(node, log) <= mirror.size
    assert mirror.root == mth(log.leaves[: mirror.size])
    with pytest.raises((Conflict, Inconsistent)):
        audit(node, log.checkpoint(signed_size(node, log), digest(b"fork", 0)))
    assert audit(node, target)
    node.close()
    return writes


def test_auditor_opens_a_failed_mirror_anew(tmp_path: Path, log: FakeLog) -> None:
    """A mirror can always be read again, so its failure needs no restart: the next request finds what is committed."""
    new_node(tmp_path / "n", log).close()
    node = open_node(tmp_path / "n", log.fetch, Faults(3).factory)
    with pytest.raises(Fatal, match="mirror: disk I/O error"):
        audit(node, log.checkpoint())
    assert audit(node, log.checkpoint())
    node.close()


EARLIER_LAYOUT = """
    DROP TABLE regions;
    CREATE TABLE chains (chain_id BLOB NOT NULL PRIMARY KEY, seq INTEGER, head BLOB, leaf_index INTEGER) WITHOUT ROWID;
    CREATE TABLE map_pages (prefix BLOB NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL);
"""


def test_mirror_of_an_earlier_layout_is_replayed_from_its_own_leaves(tmp_path: Path, log: FakeLog) -> None:
    """Chains and map are made anew without a fetch, and the next audit builds on them; then the old tables are gone."""
    node = new_node(tmp_path / "n", log)
    audit(node, log.grow(700, chains=300).checkpoint())
    node.close()
    (path,) = (tmp_path / "n" / "mirror").glob("*.db")
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(EARLIER_LAYOUT)
    log.fetched.clear()
    for _ in range(2):
        mirror = Mirror(path)
        (known,) = mirror.known_after([], {digest(b"chain", 0)})
        assert verify_place(known.place, log.map_root()) == known.place
        assert known.tip is not None
        mirror.close()
    assert log.fetched == []
    node = open_node(tmp_path / "n", log.fetch)
    assert audit(node, log.grow(50).checkpoint())
    node.close()
    with closing(sqlite3.connect(path)) as conn:
        assert {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} == {
            "state",
            "bundles",
            "regions",
        }


def test_mirror_of_an_earlier_layout_whose_leaves_are_damaged_is_no_finding(tmp_path: Path, log: FakeLog) -> None:
    """Leaves that the disk garbled are not replayed into a mirror, and are not held against the log."""
    node = new_node(tmp_path / "n", log)
    audit(node, log.checkpoint())
    node.close()
    (path,) = (tmp_path / "n" / "mirror").glob("*.db")
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(EARLIER_LAYOUT)
        (bundle,) = conn.execute("SELECT data FROM bundles").fetchone()
        for bad, why in ((bundle[:60] + b"\xff" + bundle[61:], "leaves changed"), (bundle[:-1], "entry bundle")):
            conn.execute("UPDATE bundles SET data = ?", (bad,))
            conn.commit()
            for _ in range(2):
                with pytest.raises(Fatal, match=f"mirror: .*{why}.*remove its file"):
                    Mirror(path)


def test_damaged_mirror_is_no_finding(tmp_path: Path, log: FakeLog) -> None:
    """A row that the disk garbled stops the audit; nothing is held against the log, and nothing is signed."""
    node = new_node(tmp_path / "n", log)
    audit(node, log.checkpoint())
    size = signed_size(node, log)
    (path,) = (tmp_path / "n" / "mirror").glob("*.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("UPDATE regions SET data = CAST(substr(data, 1, 100) || x'00' AS BLOB)")
    with pytest.raises(Fatal, match="region root: not what was written"):
        audit(node, log.grow(3).checkpoint())
    assert (kinds(node), node.store.halt(log.origin), signed_size(node, log)) == ([], None, size)
    node.close()


# The pure parts


@given(st.integers(0, 600), st.integers(0, 600))
def test_extend_peaks_is_append_leaf_many_times(size: int, more: int) -> None:
    """The fast right edge is the plain one."""
    hashes = [leaf_hash(bytes([i & 255])) for i in range(size + more)]
    peaks: list[bytes] = []
    for i in range(size):
        peaks = append_leaf(peaks, i, hashes[i])
    whole = extend_peaks(peaks, size, hashes[size:])
    assert whole == extend_peaks([], 0, hashes)
    for i in range(size, size + more):
        peaks = append_leaf(peaks, i, hashes[i])
    assert whole == peaks


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
@example(bytes(32), MAX_ENTRIES - 1, bytes(32))
@example(bytes(32), MAX_ENTRIES, bytes(32))
def test_next_tip_reads_a_leaf_as_decode_leaf_does(chain_id: bytes, seq: int, x: bytes) -> None:
    """The hand-cut fields are those of the format, and what the format refuses is a finding."""
    data = b"\x01" + chain_id + seq.to_bytes(8, "big") + x
    tip = (seq - 1, digest(b"head", 0), 0) if seq else None
    try:
        leaf = decode_leaf(data)
    except Malformed:
        with pytest.raises(BrokenRule):
            next_tip(tip, 7, data)
        return
    assert isinstance(leaf, EntryLeaf)
    want = link(tip[1], leaf.chain_id, leaf.seq, leaf.x) if tip else leaf.x
    assert next_tip(tip, 7, data) == (leaf.seq, want, 7)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**6))
def test_plan_chunk_goes_forward_and_meets_the_signed_size(size: int, more: int, signed: int) -> None:
    """Every chunk makes progress, stays within its bound and the target, and never jumps over the signed size."""
    end = plan_chunk(size, size + more, signed)
    assert size < end <= min(size + more, size + auditor.CHUNK_LEAVES)
    assert not size < signed < end


def test_plan_chunk_grows_with_what_is_held() -> None:
    """No region takes all chains of a large first chunk: a new mirror has some thousand leaves first, then as many."""
    sizes = [0]
    while sizes[-1] < 10**6:
        sizes.append(plan_chunk(sizes[-1], 10**6, 0))
    steps = [end - begin for begin, end in pairwise(sizes)]
    assert steps[0] == auditor.FIRST_LEAVES
    assert all(step <= max(size, auditor.FIRST_LEAVES) for size, step in zip(sizes, steps, strict=False))
    assert max(steps) == auditor.CHUNK_LEAVES
    assert len(steps) == 10


def test_mirror_is_atomic(tmp_path: Path) -> None:
    """A chunk with a finding leaves no trace of itself."""
    log = FakeLog().grow(20)
    mirror = Mirror(tmp_path / "m.db")
    gap(log)
    note = log.checkpoint()
    target = Target(parse_checkpoint_unverified(parse_note(note).text), note)
    with pytest.raises(Finding):
        mirror.append(log.leaves, target, None, [])
    assert mirror.size == 0
    assert mirror.root == fold_right([])
    mirror.close()
    mirror = Mirror(tmp_path / "m.db")
    assert (mirror.size, mirror.leaves(0)) == (0, [])
    mirror.close()
