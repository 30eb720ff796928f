"""The bench fails where a row misses its goal in silence, and prints the reason where one is given."""

from __future__ import annotations

import pytest

import bench.__main__ as main
from bench.measure import PER_S, Row, at_least, explained
from bench.reasons import REASONS, unexplained, with_reasons
from bench.recording import ONE
from bench.table import format_table

SLOW, FAST = [1.0, 1.0, 1.0], [0.1, 0.1, 0.1]


def missed(name: str) -> Row:
    return at_least(name, SLOW, FAST, 0.45, PER_S, "a peer")


def run(monkeypatch: pytest.MonkeyPatch, rows: list[Row]) -> int:
    monkeypatch.setattr(main, "measure", lambda *_: rows)
    return main.main(["--quick"])


def test_bench_fails_on_a_row_that_misses_its_goal_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unmet row without a reason makes the bench exit 1 and is named."""
    assert run(monkeypatch, [missed("a row nobody explained")]) == 1
    assert "no reason (bench/reasons.py): a row nobody explained, >= 0.45x" in "".join(capsys.readouterr())


def test_bench_prints_the_reason_of_a_missed_goal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unmet row with a reason, of its group or of the list, is printed as unmet with it, and the bench exits 0."""
    rows = [explained(missed("explained by its group"), "measured in the same rounds"), missed(ONE)]
    assert run(monkeypatch, rows) == 0
    printed = capsys.readouterr().out
    assert printed.count(" NO\n") == 2
    assert "    measured in the same rounds\n" in printed
    assert f"    {REASONS[ONE, '>= 0.45x']}\n" in printed


def test_bench_gives_no_reason_to_a_goal_that_was_met() -> None:
    """A reason belongs to a missed goal alone: a met row stays without one."""
    met = at_least(ONE, FAST, SLOW, 0.45, PER_S, "a peer")
    assert with_reasons([met]) == [met]
    assert not met.why
    assert not unexplained([met])
    assert format_table([met]).count("\n") == 2
