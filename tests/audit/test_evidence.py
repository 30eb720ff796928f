"""What a node keeps against a log convinces a third person who has the log's key and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit import auditor
from audit import evidence as made
from audit.evidence import Files, of_mirror, of_row
from audit.mirror import Finding
from audit.node import Node, create_node, open_node
from audit.succession import BadSuccession
from audit.witness import Inconsistent, format_request
from tests.audit.test_auditor import FINDINGS, early_wrong_map, gap
from tests.fakes import NOW, FakeClock, FakeLog, digest
from tests.vector_cases.evidence import begin
from verifier.conviction import find_proven, verify_evidence
from verifier.evidence import note_evidence, parse_evidence
from verifier.loss import format_loss, loss_leaf, loss_message
from verifier.note import parse_vkey
from verifier.proof import Declared


@pytest.fixture
def log() -> FakeLog:
    return FakeLog().grow(20)


@pytest.fixture
def node(tmp_path: Path, log: FakeLog) -> Iterator[Node]:
    create_node(tmp_path / "n", "node.example/w")
    node = open_node(tmp_path / "n", log.fetch)
    node.allow_log(log.vkey, log.url)
    yield node
    node.close()


def audit(node: Node, note: bytes) -> bytes:
    return asyncio.run(node.auditor.audit(note, FakeClock()))


def files(tmp_path: Path) -> list[Path]:
    return Files(tmp_path / "n").paths()


def convicts(path: Path, log: FakeLog) -> str:
    return verify_evidence(parse_evidence(path.read_bytes()), [parse_vkey(log.vkey)]).fault


@pytest.mark.parametrize("replayed", [True, False], ids=["after an audit", "at the first audit"])
@pytest.mark.parametrize("lie", [lie for lie, _ in FINDINGS], ids=[lie.__name__ for lie, _ in FINDINGS])
def test_finding_becomes_a_file(
    node: Node, log: FakeLog, lie: Callable[[FakeLog], None], replayed: bool, tmp_path: Path
) -> None:
    """Each broken rule is written so that it can be proven, and of the right kind."""
    if replayed:
        audit(node, log.checkpoint())
    lie(log)
    with pytest.raises(Finding):
        audit(node, log.checkpoint())
    (path,) = files(tmp_path)
    assert convicts(path, log) == (
        "map-wrong" if "map" in lie.__name__ and "no_map" not in lie.__name__ else "chain-broken"
    )
    assert path.name.startswith("20270115T080000Z-broken-replay-")


@pytest.mark.parametrize("lie", [gap, early_wrong_map])
@pytest.mark.parametrize("entries", [235, 600])
def test_finding_over_a_chunk_border_becomes_a_file(
    node: Node, log: FakeLog, lie: Callable[[FakeLog], None], entries: int, tmp_path: Path, monkeypatch
) -> None:
    """The map before the accused leaf may lie in an earlier chunk: then the leaves are replayed once more."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    for number in range(entries):
        log.add_entry(digest(b"chain", number % 70), digest(b"x", len(log.leaves)))
    lie(log)
    with pytest.raises(Finding):
        audit(node, log.checkpoint())
    assert len(files(tmp_path)) == 1
    assert convicts(files(tmp_path)[0], log) in ("chain-broken", "map-wrong")


def test_finding_beyond_the_bound_keeps_row_and_halt(node: Node, log: FakeLog, tmp_path: Path, monkeypatch) -> None:
    """Where a file would be too large there is none, and the log is halted all the same."""
    monkeypatch.setattr(made, "MAX_LEAVES", 1)
    gap(log)
    with pytest.raises(Finding):
        audit(node, log.checkpoint())
    assert files(tmp_path) == []
    assert node.store.halt(log.origin)
    assert len(node.store.evidence()) == 1


def test_finding_whose_tiles_are_withheld_is_written_by_the_next_replay(
    node: Node, log: FakeLog, tmp_path: Path
) -> None:
    """A log that stops answering loses no row and no halt; once it answers, the file is there, and only once."""
    gap(log)
    log.grow(600)
    log.lie = lambda path, data: data[:-1] if path.startswith("tile/0") else data
    note = log.checkpoint()
    with pytest.raises(Finding):
        audit(node, note)
    assert node.store.halt(log.origin)
    assert files(tmp_path) == []
    log.lie = lambda _path, data: data
    for _ in range(2):
        with pytest.raises(Finding):
            asyncio.run(node.auditor.replay(note, FakeClock()))
        assert len(files(tmp_path)) == 1
    assert convicts(files(tmp_path)[0], log) == "chain-broken"


@pytest.mark.parametrize("size", [21, 32])
def test_other_prefix_is_shown_by_the_logs_own_tiles(node: Node, tmp_path: Path, size: int, log: FakeLog) -> None:
    """A tree that did not grow out of the one that was replayed is proven by the tiles that the log serves for it."""
    log.grow(size - 22) if size > 21 else None
    audit(node, log.checkpoint())
    log.leaves = FakeLog().grow(20, chains=11).grow(40).leaves
    with pytest.raises(Inconsistent):
        audit(node, log.checkpoint())
    assert [convicts(path, log) for path in files(tmp_path)] == ["fork"]


def test_same_size_with_another_root_becomes_a_file(node: Node, log: FakeLog, tmp_path: Path) -> None:
    """Two roots of one size need no tiles."""
    audit(node, log.checkpoint())
    with pytest.raises(Inconsistent):
        audit(node, log.checkpoint(21, digest(b"fork", 0)))
    assert [convicts(path, log) for path in files(tmp_path)] == ["fork"]


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("index", [0, 5, 255, 256, 599])
def test_changed_leaf_becomes_a_file(tmp_path: Path, index: int, emptied: bool) -> None:
    """After a declared loss the other leaf is proven with our mirror and the new origin's own tiles, wherever it is."""
    old = FakeLog().grow(600)
    new = begin(old, kept=601)
    new.leaves[index + 1] = b"" if emptied else new.leaves[index + 1][:-1] + b"?"
    key, note = new.signer.verifier_key.public_key, old.checkpoint()
    declared = [Declared(note, key, 601, old.signer.sign(loss_message(new.origin, key, 601, note)))]
    new.loss, new.leaves[0] = format_loss(declared), loss_leaf(declared)

    async def fetch(url: str, limit: int) -> bytes:
        return await (new if url.startswith(f"{new.url}/") else old).fetch(url, limit)

    create_node(tmp_path / "n", "node.example/w")
    node = open_node(tmp_path / "n", fetch)
    for log in (old, new):
        node.allow_log(log.vkey, log.url)
    audit(node, note)
    for _ in range(2):
        with pytest.raises(BadSuccession, match=f"leaf {index} of {old.origin}"):
            audit(node, new.checkpoint())
        assert [convicts(path, old) for path in files(tmp_path)] == ["chain-broken"]
    node.close()


def test_note_of_a_fork_is_told_from_the_mirror(node: Node, log: FakeLog) -> None:
    """A smaller tree that somebody else was shown is compared with the leaves that we hold; an honest one is fine."""
    log.grow(17)
    audit(node, log.checkpoint())
    mirror = node.auditor.mirror(log.origin)
    key = parse_vkey(log.vkey)
    for size in (1, 21, 32, 38):
        assert of_mirror(log.checkpoint(size), mirror, NOW) is None
    for size in (1, 21, 32, 39):
        forked = of_mirror(log.checkpoint(size, digest(b"fork", 0)), mirror, NOW)
        assert forked is not None
        assert find_proven(forked, [key]) is not None


def test_rows_of_a_witness_become_files(node: Node, log: FakeLog, tmp_path: Path) -> None:
    """A refused fork, and a proof from another old tree, are proven from the row alone; a mere failure is not."""
    node.add_checkpoint(format_request(0, (), log.checkpoint()), NOW)
    forked = log.checkpoint(21, digest(b"fork", 0))
    other = FakeLog().grow(20, chains=11).grow(40)
    garbled = FakeLog().grow(20).grow(50)
    proofs = [(forked, ()), (other.checkpoint(), other.proof(21)), (garbled.checkpoint(), garbled.proof(20, 30))]
    for note, proof in proofs:
        with pytest.raises(Inconsistent):
            node.add_checkpoint(format_request(21, proof, note), NOW)
    rows = [of_row(row, NOW) for row in node.store.evidence()]
    assert [row and row["kind"] for row in rows] == ["two-roots", "other-prefix", None]
    for _ in range(2):
        Files(tmp_path / "n").keep_rows(node.store, NOW)
        assert sorted(convicts(path, log) for path in files(tmp_path)) == ["fork", "fork"]


def test_files_are_bounded_and_never_overwritten(tmp_path: Path, log: FakeLog, monkeypatch) -> None:
    """The first files stay as they are; beyond the bound nothing is written; what proves nothing never is."""
    monkeypatch.setattr(made, "MAX_EVIDENCE", 2)
    kept, key = Files(tmp_path / "n"), parse_vkey(log.vkey)
    (tmp_path / "n").mkdir()
    notes = [log.checkpoint(21, digest(b"fork", n)) for n in range(4)]
    paths = [
        kept.keep(note_evidence("two-roots", NOW + n, log.checkpoint(), note), [key], NOW + n)
        for n, note in enumerate(notes)
    ]
    assert [path is None for path in paths] == [False, False, True, True]
    before = [path.read_bytes() for path in kept.paths()]
    again = kept.keep(note_evidence("two-roots", NOW + 9, log.checkpoint(), notes[0]), [key], NOW + 9)
    assert again == paths[0]
    assert kept.keep(note_evidence("two-roots", NOW, notes[0], notes[0]), [key], NOW) is None
    assert [path.read_bytes() for path in kept.paths()] == before
