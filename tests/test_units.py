"""The systemd units: nothing in them is misspelled, and they give away little."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
EXPOSURE = "12"  # tenths; measured: 1.1 each with systemd 252

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def test_there_are_units() -> None:
    """None is left out by a pattern that fits nothing."""
    assert len(UNITS) == 3


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_is_understood(unit: Path, tmp_path: Path) -> None:
    """systemd has nothing to say, once the program is one that is there."""
    program = "/opt/nextcloud-audit/bin/nextcloud-audit"
    text = unit.read_text()
    assert program in text
    copy = tmp_path / unit.name
    copy.write_text(text.replace(program, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_is_hardened(unit: Path) -> None:
    """Its exposure stays where it was measured."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-400:]
