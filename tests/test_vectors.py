"""The vectors in tests/vectors are what the generator makes, and the verifier agrees with every one of them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.make_vectors import FOLDER, vectors
from verifier.encoding import decode_base64, decode_decimal
from verifier.entry import Content
from verifier.errors import Malformed
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.proof import parse_proof
from verifier.verdict import Memory, Question, Trust
from verifier.verify import verify

FILES = sorted(FOLDER.glob("*.json"))
# Every reason of SPEC 9 and every verdict, so that a case that falls away is missed.
REASONS = set(
    """
    incomplete other-log other-source other-file not-owner other-chain unknown-log unsigned bad-signature empty-tree
    fork unwitnessed weak-policy not-replayed unconnected stale broken-proof generations opening-missing history
    illegal predecessor altered gap unsigned-close pinned seal-tree unsealed deleted closed path-erased other-path
    other-file-id bytes clock as-of loss-note loss-hides declared-loss
    """.split()
)


def said(case: dict[str, Any]) -> tuple[str, list[str]]:
    """Verdict and reasons of this verifier, from a file of the form in tests/vectors/README.md."""
    trust, question, memory = case["trust"], case["question"], case["memory"]
    try:
        report = verify(
            parse_proof(case["proof"].encode()),
            Trust(
                trust["log"],
                trust["source"],
                parse_policy(trust["policy"].encode(), WITNESSES),
                parse_policy(trust["auditors"].encode(), AUDITORS),
                decode_base64(trust["owner"], "owner"),
                _or_none(trust["blinding"], lambda text: decode_base64(text, "blinding")),
            ),
            Question(
                decode_decimal(question["now"], "now"),
                Content(decode_decimal(question["size"], "size"), decode_base64(question["sha3_256"], "sha3_256")),
                question["path"],
                _or_none(question["file"], _number),
                _number(question["max_age"]),
                question["as_of"] if question["as_of"] == "proof" else _or_none(question["as_of"], _number),
                question["require_seal"],
            ),
            Memory(
                _or_none(memory["checkpoint"], str.encode),
                _or_none(memory["chain"], lambda text: parse_proof(text.encode())),
                _or_none(memory["path_file"], _number),
                _or_none(memory["path_chain"], lambda text: parse_proof(text.encode())),
            ),
        )
    except Malformed:
        return "MALFORMED", []
    return report.verdict.value, [finding.reason for finding in report.findings]


def _number(text: str) -> int:
    return decode_decimal(text, "number")


def _or_none(value: Any, read: Any) -> Any:
    return None if value is None else read(value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vector_gets_its_verdict(path: Path) -> None:
    """The verifier says what the file expects: the verdict, and the reasons in the order of the steps."""
    case = json.loads(path.read_bytes())
    assert case["name"] == path.stem
    assert said(case) == (case["expect"], case["reasons"])


def test_vectors_are_what_the_generator_makes() -> None:
    """`python -m tests.make_vectors` would change no byte of the folder."""
    made = vectors()
    assert {path.name for path in FILES} == set(made)
    for path in FILES:
        assert path.read_bytes() == made[path.name], f"{path.name}: run python -m tests.make_vectors"


def test_vectors_hold_every_reason_and_verdict() -> None:
    """Each reason of SPEC 9 is that of some case, and the reasons are words of SPEC."""
    cases = [json.loads(path.read_bytes()) for path in FILES]
    assert {reason for case in cases for reason in case["reasons"]} == REASONS
    assert {case["expect"] for case in cases} == {"VERIFIED", "CHANGED", "NOT PROVEN", "FORK", "MALFORMED"}
    spec = (FOLDER.parents[1] / "SPEC.md").read_text(encoding="utf-8")
    assert [reason for reason in REASONS if f"`{reason}`" not in spec] == []


def test_worked_example_is_the_one_of_the_spec() -> None:
    """SPEC 13 gives the digest of the proof in worked-example.json."""
    proof = json.loads((FOLDER / "worked-example.json").read_bytes())["proof"].encode()
    spec = (FOLDER.parents[1] / "SPEC.md").read_text(encoding="utf-8")
    assert f"the proof file has {len(proof)} bytes, SHA-256 {sha256(proof).hexdigest()}\n" in spec
