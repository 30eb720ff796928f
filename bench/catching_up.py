"""Rows on the first catch-up with a Nextcloud on this machine: its speed, and the memory that a million files take.

Speed: rows of oc_filecache, files, versions looked for, hashing, a recorded chain for each, all of it durable; against
two openssl processes that read and hash the same bytes and do nothing else. Sizes are mixed.

Memory: a process of its own that catches up with ever so many tiny files and then walks their folders, against one with
a tenth of them; not in a quick run. What grows with the number of files is on disk.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from statistics import median

from audit.nextcloud.catchup import CatchUp
from audit.nextcloud.samehost import HostConfig, open_host
from audit.recorder import Recorder
from audit.scanning import Job
from bench.environment import PEERS
from bench.hashing import run_openssl, timed
from bench.homes import INSTANCE, USER, make_homes, new_log, source_of
from bench.measure import Row, S, at_least, explained, interleave, skipped
from bench.progress import say

SIZES = (4_096, 65_536, 262_144, 1 << 20, 4 << 20)  # by turns: 1.07 MiB in the mean
TINY = 24
FILLED = 50_000  # files that fill every cache and queue there is: from there on memory has to be flat
SPEED_GOAL, MEMORY_GOAL = 0.8, 1.25
AGAINST = "two openssl processes, the same bytes"


def rows(temporary: str, rounds: int, files: int, many: int) -> list[Row]:
    """`files` of mixed sizes; `many` tiny ones."""
    return [*speed_rows(temporary, rounds, files), memory_row(temporary, many)]


def speed_rows(temporary: str, rounds: int, files: int) -> list[Row]:
    sizes = [SIZES[i % len(SIZES)] for i in range(files)]
    name = f"same-host catch-up, {files:,} files with {sum(sizes) >> 20:,} MiB"
    openssl = shutil.which("openssl")
    if openssl is None:
        return [skipped(name, f">= {SPEED_GOAL}x", "openssl is not installed")]
    homes = os.path.join(temporary, "mixed")
    os.makedirs(homes)
    make_homes(homes, sizes)
    folder = os.path.join(homes, "data", USER, "files")
    paths = [os.path.join(at, one) for at, _, found in os.walk(folder) for one in found]
    paths.sort(key=os.path.getsize)
    ours, ours_cpu = with_cpu(catch_up(homes, os.path.join(temporary, "logs"), files), resource.RUSAGE_SELF)
    theirs, theirs_cpu = with_cpu(
        lambda: timed(lambda: run_openssl(openssl, paths[::2], paths[1::2])), resource.RUSAGE_CHILDREN
    )
    try:
        times = interleave(rounds, ours=ours, openssl=theirs)
    finally:
        shutil.rmtree(homes)
    row = at_least(name, times["ours"], times["openssl"], SPEED_GOAL, S, AGAINST)
    took = f"it takes {median(ours_cpu) / median(theirs_cpu):.2f}x their processor time, in the same rounds"
    return [explained(row, f"{took}; others want the {os.cpu_count()} processors too: load {os.getloadavg()[0]:.1f}")]


def with_cpu(run: Callable[[], float], who: int) -> tuple[Callable[[], float], list[float]]:
    """The same round, and a list that gets the seconds of processor time that it took."""
    taken: list[float] = []

    def one_round() -> float:
        before = resource.getrusage(who)
        seconds = run()
        after = resource.getrusage(who)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return seconds

    return one_round, taken


def catch_up(homes: str, logs: str, files: int) -> Callable[[], float]:
    """A round: one catch-up into a new log."""
    number = count()

    def one_round() -> float:
        log = new_log(os.path.join(logs, str(next(number))))
        source = source_of(log, homes)
        config = HostConfig(os.path.join(homes, "data"), f"sqlite:{homes}/owncloud.db", "oc_", INSTANCE)
        host, counts = open_host(config), dict[str, int]()
        job = Job(log.store, Recorder(log.store, time.time))
        taken = timed(CatchUp(job, source.row, host, [USER], source.limits, counts).run)
        assert counts == {"adopted": files}
        host.close()
        log.store.close()
        shutil.rmtree(log.path)
        return taken

    return one_round


def memory_row(temporary: str, many: int) -> Row:
    name, few = f"catch-up and walk of {many:,} files: peak memory", max(many // 10, FILLED)
    if many <= few:
        return skipped("catch-up and walk: peak memory", f"<= {MEMORY_GOAL:g}x", "takes minutes, see `make bench`")
    small, large = (in_a_process(temporary, files) for files in (few, many))
    ratio, value = large["kib"] / small["kib"], large["kib"] * 1024 / 1e6
    say(f"  {many:,} files in {large['seconds']:.0f} s")
    against = f"of {few:,} files ({small['kib'] * 1024 / 1e6:.4g} MB)"
    goal = f"<= {MEMORY_GOAL:g}x"
    return Row(name, float(f"{value:.4g}"), "MB", against, round(ratio, 3), goal, ratio <= MEMORY_GOAL, "")


def in_a_process(temporary: str, files: int) -> dict[str, float]:
    homes = os.path.join(temporary, f"tiny-{files}")
    os.makedirs(homes)
    say(f"  making {files:,} files ...")
    make_homes(homes, [TINY] * files)
    command = [sys.executable, os.path.join(PEERS, "catch_up.py"), homes, os.path.join(homes, "log")]
    root = os.path.dirname(os.path.dirname(PEERS))
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root})
    shutil.rmtree(homes)
    found: dict[str, float] = json.loads(done.stdout)
    return found
