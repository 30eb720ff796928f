"""The table that the run ends with, and the skip where there can be no hosts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hosts import network


class Row(NamedTuple):
    """A fault and its end. Seconds from its end until every honest log published, and was replayed, again."""

    fault: str
    what_happened: str
    published_s: float
    audited_s: float


ROWS: list[Row] = []
SEEDS: list[int] = []
COUNTS: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here, reason = Path(__file__).parent, network.why_not()
    for item in items:
        if here in item.path.parents and item.path.name != "test_checks.py":  # which needs no hosts
            item.add_marker(pytest.mark.hosts)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    terminalreporter.section("five hosts: fault, what happened, seconds to recover")
    width = max(len(row.fault) for row in ROWS)
    terminalreporter.line(f"{'fault':{width}}  published  replayed  what happened")
    for row in ROWS:
        terminalreporter.line(
            f"{row.fault:{width}}  {row.published_s:7.1f} s {row.audited_s:7.1f} s  {row.what_happened}"
        )
    for line in [f"seed {seed}: HOSTS_SEED={seed} make test-hosts" for seed in SEEDS] + COUNTS:
        terminalreporter.line(line)
