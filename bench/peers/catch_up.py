"""Run as catch_up.py HOMES LOG: one scan with its first catch-up into a new log; prints what it took as JSON."""

from __future__ import annotations

import json
import sys
import time

from audit.recorder import Recorder
from audit.scanning import Job
from bench.homes import new_log, source_of


def peak_kib() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


if __name__ == "__main__":
    homes, directory = sys.argv[1:]
    log = new_log(directory)
    before, start = peak_kib(), time.perf_counter()
    summary = source_of(log, homes).scan(Job(log.store, Recorder(log.store, time.time)))
    taken = time.perf_counter() - start
    print(json.dumps({"counts": summary.counts, "seconds": taken, "kib": peak_kib(), "before": before}))
    log.store.close()
