"""A second verifier, in another language and from SPEC.md alone, comes to the same verdicts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
LEAST_NODE = 20


def test_second_verifier_agrees_on_every_vector() -> None:
    """Verdict and reasons of all vectors are the same in JavaScript, and so is what evidence proves."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the second verifier did not run")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < LEAST_NODE:
        pytest.skip(f"node is {version.strip()}, want {LEAST_NODE} or newer: the second verifier did not run")
    command = [node, str(TESTS / "javascript" / "run.mjs"), str(TESTS / "vectors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [len(list((TESTS / "vectors").glob(names))) for names in ("*.json", "evidence/*.json")]
    assert done.stdout == "vectors: {} agree, 0 differ\nevidence: {} agree, 0 differ\n".format(*counts)
