"""`python -m bench`: builds the data once, measures every row, prints the table, writes bench/results.json.

`--quick` takes smaller sets and fewer rounds, the same rows, and writes nothing. `--only WORD` keeps to the groups
whose name starts with it, and writes nothing. A group with a row that misses its goal and says no reason is measured
once more, since others use the machine too; that measurement counts, whatever it says. Exit 1 when such a row is left.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser
from typing import NamedTuple

from bench import catching_up, federating, hashing, nextcloud, proving, recording, serving, starting, verifying
from bench.dataset import Data, build
from bench.environment import Environment
from bench.measure import Row
from bench.progress import say
from bench.reasons import unexplained, with_reasons
from bench.table import format_table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(ROOT, "bench", "results.json")
GROUPS = (
    "proving",
    "verifying",
    "scaling",
    "serving",
    "starting",
    "hashing",
    "federating",
    "nextcloud",
    "samehost",
    "recording",
)


class Plan(NamedTuple):
    """How much of everything. Versions are ten in either case."""

    files: int
    per_tree: int
    rounds: int
    calls: int
    many: int
    processes: int
    served: int
    large: int
    large_rounds: int
    folder: int
    mixed: int
    tiny: int


FULL = Plan(100_000, 10_000, 31, 200, 1_000, 41, 20_000, 2**30, 7, 2_000, 1_000, 1_000_000)
QUICK = Plan(2_000, 1_000, 9, 100, 100, 11, 2_000, 2**27, 3, 400, 60, 0)
SMALL_FILES, SMALL_PER_TREE = 1_000, 1_000
FOLDER_FILE = 256 * 1024  # bytes


def measure(plan: Plan, groups: tuple[str, ...], temporary: str) -> list[Row]:
    """Every row of the groups; recording comes last, because it changes the log."""
    environment = Environment(ROOT, temporary)
    if {"proving", "starting"} & set(groups):
        environment.make()
    needs_log = set(groups) - {"hashing", "nextcloud", "samehost"}
    what = f"recording and publishing {plan.files * 10:,} entries"
    big = build(os.path.join(temporary, "big"), plan.files, 1_000, plan.per_tree, what) if needs_log else None
    found: list[Row] = []
    gc.collect()
    gc.freeze()
    for group in groups:
        say(f"{group}:")
        rows = _measure_group(group, plan, _subfolder(temporary, group), environment, big)
        if silent := unexplained(with_reasons(rows)):
            say(f"{group}, again, for {', '.join(row.name for row in silent)}:")
            rows = _measure_group(group, plan, _subfolder(temporary, f"{group}-again"), environment, big)
        found += rows
    if big is not None:
        big.close()
    return found


def _subfolder(temporary: str, name: str) -> str:
    path = os.path.join(temporary, name)
    os.mkdir(path)
    return path


def _measure_group(group: str, plan: Plan, temporary: str, environment: Environment, big: Data | None) -> list[Row]:
    if group == "hashing":
        return hashing.rows(temporary, plan.large_rounds, plan.large, plan.folder, FOLDER_FILE)
    if group == "nextcloud":
        return nextcloud.rows(temporary, plan.large_rounds, plan.folder // 10, plan.calls // 2)
    if group == "samehost":
        return catching_up.rows(temporary, plan.large_rounds, plan.mixed, plan.tiny)
    assert big is not None
    match group:
        case "proving":
            return proving.rows(big, environment, plan.rounds, plan.calls)
        case "verifying":
            return verifying.rows(big, plan.rounds, plan.calls // 4, plan.many)
        case "scaling":
            small = build(os.path.join(temporary, "small"), SMALL_FILES, 1_000, SMALL_PER_TREE, "recording a small log")
            try:
                found = proving.scaling_rows(big, small, plan.rounds, plan.calls)
                return found + verifying.scaling_rows(big, small, plan.rounds, plan.calls // 4)
            finally:
                small.close()
        case "serving":
            return serving.rows(big, temporary, plan.rounds, plan.calls, plan.served)
        case "federating":
            return federating.rows(big, os.path.join(temporary, "federating"), plan.rounds, plan.calls)
        case "starting":
            return starting.rows(big, environment, temporary, plan.processes)
        case _:
            return recording.rows(big, temporary, plan.rounds, plan.calls)


def main(argv: list[str]) -> int:
    parser = ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sets, less than two minutes; writes nothing")
    parser.add_argument("--only", metavar="WORD", default="", help=f"one of {', '.join(GROUPS)}; writes nothing")
    options = parser.parse_args(argv)
    groups = tuple(group for group in GROUPS if group.startswith(options.only))
    start = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary directory goes
    temporary = tempfile.mkdtemp(prefix="bench-")
    try:
        rows = with_reasons(measure(QUICK if options.quick else FULL, groups, temporary))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(format_table(rows))
    say(f"{time.monotonic() - start:.0f} s")
    if not options.quick and not options.only:
        with open(RESULTS, "w", encoding="utf-8") as file:
            json.dump([row._asdict() for row in rows], file, indent=1, ensure_ascii=False)
            file.write("\n")
    for row in (silent := unexplained(rows)):
        say(f"misses its goal, and says no reason (bench/reasons.py): {row.name}, {row.goal}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
