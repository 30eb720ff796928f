"""The prover's proofs are what a verifier with the owner's keys accepts, for every shape of a history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.chains import find_at_path
from audit.errors import Refused, TryLater
from audit.prover import Prover
from tests.audit.log_setup import LogSetup, content_of
from verifier.entry import CloseReason, Operation, Part
from verifier.keys import OwnerKeys
from verifier.proof import Proof, parse_proof
from verifier.verdict import Memory, Question, Report, Trust, Verdict
from verifier.verify import verify


class Proving:
    """An enrolled log, its prover, and the owner's verifier."""

    def __init__(self, directory: Path) -> None:
        self.log = LogSetup(directory)
        self.owner: OwnerKeys = self.log.enrol()
        self.log.publish()
        self.prover = Prover(self.log.store, self.log.maps, self.log.tree)
        self.trust = Trust(
            self.log.log_name,
            "folder:f0",
            self.log.witness_policy,
            self.log.auditor_policy,
            self.owner.public,
            self.owner.blinding,
        )

    def prove(self, file_id: int, **how: object) -> Proof:
        return parse_proof(self.prover.prove(self.log.source, file_id, **how))  # type: ignore[arg-type]

    def verify(self, proof: Proof, data: bytes, path: str, memory: Memory | None = None) -> Report:
        question = Question(self.log.clock.now, content_of(data), path)
        return verify(proof, self.trust, question, memory or Memory())

    def check(self, file_id: int, data: bytes, path: str) -> Report:
        report = self.verify(self.prove(file_id), data, path)
        assert report.findings == []
        return report


@pytest.fixture
def proving(tmp_path: Path) -> Iterator[Proving]:
    made = Proving(tmp_path / "log")
    yield made
    made.log.close()


def test_prove_ten_versions(proving: Proving) -> None:
    """A file that was written in several trees is VERIFIED, with a bracket on both sides of its last step."""
    proving.log.see(Operation.CREATED, 1, b"0", "a.txt")
    for i in range(1, 10):
        proving.log.see(Operation.WRITTEN, 1, b"%d" % i)
        proving.log.see(Operation.CREATED, 100 + i, b"x", f"{i}.txt")
        proving.log.publish()
    proving.log.see(Operation.CREATED, 2, b"later", "b.txt")
    proving.log.publish()
    report = proving.check(1, b"9", "a.txt")
    assert report.proof.first is not None
    assert report.proof.before is not None
    assert report.times is not None
    assert report.times.not_before is not None


def test_prove_current_leaf_apart(proving: Proving) -> None:
    """When the last step did not set the content, the leaf that did is shown too."""
    proving.log.see(Operation.CREATED, 1, b"0", "a.txt")
    proving.log.see(Operation.MOVED, 1, None, "b.txt")
    proving.log.publish()
    assert proving.check(1, b"0", "b.txt").proof.current is not None


def test_prove_next_generation(proving: Proving) -> None:
    """A closed chain that goes on shows its earlier generation; without the owner's signature that is NOT PROVEN."""
    proving.log.see(Operation.CREATED, 1, b"0", "a.txt")
    proving.log.publish()
    proving.log.see(Operation.CLOSED, 1, argument=CloseReason.REUSED_ID)
    proving.log.see(Operation.WRITTEN, 1, b"0", "a.txt")
    proving.log.publish()
    report = proving.verify(proving.prove(1), b"0", "a.txt")
    assert len(report.proof.earlier) == 1
    assert [(f.verdict, f.reason) for f in report.findings] == [(Verdict.NOT_PROVEN, "unsigned-close")]


def test_prove_path_that_was_another_files(proving: Proving) -> None:
    """The old file's last steps show that the path was free, and a client that knew the old id accepts the new one."""
    proving.log.see(Operation.CREATED, 1, b"0", "a.txt")
    proving.log.publish()
    proving.log.see(Operation.DELETED, 1)
    proving.log.see(Operation.CREATED, 2, b"1", "a.txt")
    proving.log.publish()
    memory = Memory(path_file_id=1)
    assert proving.verify(proving.prove(2), b"1", "a.txt", memory).findings[0].reason == "other-file-id"
    assert proving.verify(proving.prove(2, replaces=(1,)), b"1", "a.txt", memory).findings == []
    at_path = find_at_path(proving.log.store.reader(), proving.log.source, "a.txt")
    assert at_path is not None
    assert at_path.file_id == 2


def test_prove_short(proving: Proving) -> None:
    """A short proof with the stored whole one is as good as a whole one, from the tree that was seen."""
    proving.log.see(Operation.CREATED, 1, b"0", "a.txt")
    size = proving.log.publish().size
    seen = proving.check(1, b"0", "a.txt").proof
    proving.log.see(Operation.WRITTEN, 1, b"1")
    proving.log.publish()
    short = proving.prove(1, size=size, from_seq=1)
    assert len(short.entries) == 1
    assert proving.verify(short, b"1", "a.txt", Memory(seen.checkpoint, seen, 1)).findings == []


def test_prove_erased_part(proving: Proving) -> None:
    """An erased opening is gone from the proof, and the chain still verifies."""
    proving.log.see(Operation.CREATED, 1, b"0", "a.txt")
    proving.log.see(Operation.WRITTEN, 1, b"1")
    proving.log.recorder.erase(proving.log.source, 1, 0, Part.CONTENT)
    proving.log.publish()
    assert proving.check(1, b"1", "a.txt").proof.entries[0].content is None


def test_prove_says_why_not(proving: Proving) -> None:
    """A file that does not exist is refused; one that is not published yet is for later."""
    with pytest.raises(Refused):
        proving.prove(9)
    proving.log.see(Operation.CREATED, 1, b"0", "a.txt")
    with pytest.raises(TryLater):
        proving.prove(1)
