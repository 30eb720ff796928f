"""What every test shares: the Hypothesis profile and the way to the shared folder."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Timing is left out of the verdict, since machines are shared. In CI the same examples every time: a red run means
# that the code changed. At a desk new ones, so that bugs are still found.
settings.register_profile(
    "desk", max_examples=50, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the repository (vectors, recordings). Skips, with the reason, where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the shared folder beside the repository, and there is no {folder}")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What happened in the schedules of `tests.property.test_federation`, summed over its tests and processes."""
    counts: Counter[str] = Counter()
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, value in getattr(report, "user_properties", []):
            if name == "federation":
                counts.update(value)
    if counts:
        terminalreporter.write_line("federation: " + ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts)))
