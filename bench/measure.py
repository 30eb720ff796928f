"""Contenders, interleaved round by round, and the rows that come of it.

    times = interleave(21, ours=loop(prove, 200), peer=loop(look_up, 200))      seconds per call, one for each round
    row = at_most("proof, ten versions", times["ours"], times["peer"], 15, US, "sqlite3 look-up of ten rows")

A machine that others use as well makes every absolute time a matter of luck. So all contenders of a row run one after
the other in every round, the order turns from round to round, and a ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple, TypeVar

from bench.progress import say

Round = Callable[[], float]  # one round of a contender: seconds for each call in it
_T = TypeVar("_T")

US, MS, S = "us", "ms", "s"
PER_S = "1/s"
_SCALE = {US: 1e6, MS: 1e3, S: 1.0}


class Row(NamedTuple):
    """A line of the table. `met` is None where nothing was measured, or where there is no goal; `why` then says so."""

    name: str
    value: float | None
    unit: str
    against: str
    ratio: float | None
    goal: str
    met: bool | None
    why: str


def loop(call: Callable[[], object], count: int) -> Round:
    """A round of so many calls."""

    def run() -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count

    return run


def over(values: list[_T], call: Callable[[_T], object], count: int) -> Round:
    """A round of so many calls, each with the next value; every round goes on where the last one stopped."""
    position = 0

    def run() -> float:
        nonlocal position
        picked = [values[(position + i) % len(values)] for i in range(count)]
        position += count
        start = time.perf_counter()
        for value in picked:
            call(value)
        return (time.perf_counter() - start) / count

    return run


def interleave(rounds: int, **contenders: Round) -> dict[str, list[float]]:
    """Runs every contender once in every round, and before that twice to warm up."""
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in contenders.values():
        run()
        run()
    gc.collect()
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            times[name].append(contenders[name]())
    say(f"  {', '.join(names)}: {rounds} rounds")
    return times


def ratios(one: list[float], other: list[float]) -> Iterator[float]:
    return (a / b for a, b in zip(one, other, strict=True))


def ratio_of(one: list[float], other: list[float]) -> float:
    """The median of the rounds' ratios."""
    return median(ratios(one, other))


def at_most(name: str, ours: list[float], theirs: list[float], goal: float, unit: str, against: str) -> Row:
    """We take at most `goal` times as long as they."""
    ratio = ratio_of(ours, theirs)
    value, peer = _shown(ours, unit), _shown(theirs, unit)
    return Row(name, value, unit, f"{against} ({peer:g} {unit})", round(ratio, 3), f"<= {goal:g}x", ratio <= goal, "")


def at_least(name: str, ours: list[float], theirs: list[float], goal: float, unit: str, against: str) -> Row:
    """We are at least `goal` times as fast as they."""
    ratio = ratio_of(theirs, ours)
    value, peer = _shown(ours, unit), _shown(theirs, unit)
    return Row(name, value, unit, f"{against} ({peer:g} {unit})", round(ratio, 3), f">= {goal:g}x", ratio >= goal, "")


def below(name: str, value: float, unit: str, goal: float) -> Row:
    """A value that has to stay at or below a number."""
    return Row(name, _digits(value), unit, "", None, f"<= {goal:g} {unit}", value <= goal, "")


def shown(name: str, ours: list[float], theirs: list[float], unit: str, against: str) -> Row:
    """A comparison without a goal."""
    value, peer = _shown(ours, unit), _shown(theirs, unit)
    return Row(name, value, unit, f"{against} ({peer:g} {unit})", round(ratio_of(ours, theirs), 3), "", None, "no goal")


def explained(row: Row, why: str) -> Row:
    """The row; with this reason where it misses its goal."""
    return row if row.met else row._replace(why=why)


def skipped(name: str, goal: str, why: str) -> Row:
    """A row that could not be measured, and why."""
    return Row(name, None, "", "", None, goal, None, f"skipped: {why}")


def middle(times: list[float], unit: str) -> float:
    """The median, in a unit of time or as a rate."""
    return 1 / median(times) if unit == PER_S else median(times) * _SCALE[unit]


def _shown(times: list[float], unit: str) -> float:
    return _digits(middle(times, unit))


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
