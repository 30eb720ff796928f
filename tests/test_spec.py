"""SPEC.md and the code speak of the same thing: what is cited exists, and the versions agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import verifier
from tests.example import example
from verifier import encoding, evidence, keys, proof

ROOT = Path(__file__).resolve().parents[1]
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
CODE = sorted(path for folder in ("verifier", "audit", "tests") for path in (ROOT / folder).rglob("*.py"))
SECTIONS = set(re.findall(r"^## (\d+)\.", SPEC, re.M)) | set(re.findall(r"^\*\*(\d+\.\d+)", SPEC, re.M))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_cited_sections_exist(path: Path) -> None:
    """Every section of SPEC that a file cites is one, and nothing is cited that is not in this repository."""
    text = path.read_text(encoding="utf-8")
    cited = set(re.findall(r"SPEC (\d+(?:\.\d+)?)", text))
    assert cited - SECTIONS == set()
    assert not re.search(r"design \d", text)


def test_version_stands_at_the_top() -> None:
    """The version in the code is the one that SPEC bears."""
    assert f"version {verifier.SPEC_VERSION}\n" in SPEC.splitlines(keepends=True)[0] + "\n"


def test_every_tag_is_listed() -> None:
    """A domain tag that the code uses is one of those that SPEC 1.4 lists, so none serves two things."""
    listed = set(re.search(r"The tags in use: `([^`]*)`", SPEC, re.S).group(1).split())  # type: ignore[union-attr]
    used = set()
    for path in CODE:
        if path.parts[-2] != "tests" and "tests" not in path.relative_to(ROOT).parts:
            used |= set(re.findall(r"\b(?:tag|tagged)\(\s*\"([a-z-]+)\"", path.read_text(encoding="utf-8")))
    assert {name for name in used if not name.startswith("state-")} - listed == set()
    assert used & listed, "the search found nothing, so it tests nothing"


@pytest.mark.parametrize("text", [proof.FORMAT, keys.READER_FORMAT, evidence.EVIDENCE_FORMAT, encoding.LABEL.decode()])
def test_formats_are_named(text: str) -> None:
    """Each format's name stands in SPEC as it stands in the code."""
    assert text in SPEC


def test_worked_example_is_what_the_code_computes() -> None:
    """Every byte of SPEC 13 comes out of the formats again, to the verdict."""
    assert f"```\n{example()}```\n" in SPEC
