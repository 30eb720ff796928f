"""Run by this environment's Python: replay_log.py EXPORT NODE count|replay. An auditor's replay of an exported log.

    count     how often it computes which hash, one JSON object {"kind": times}; nothing is computed twice, since the
              map's cache has no bound
    replay    {"seconds": ..., "peak": bytes, "held": how many leaves}, through `Auditor.audit`, fetching from files

The peak is this process's whole resident memory, libraries included.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import audit.auditor as auditor
import audit.mapstore as mapstore
import verifier.merkle as merkle
from audit.errors import TryLater
from audit.node import allow_log, create_node, open_node

URL = "http://log.example"
NO_BOUND = 2**40


def main(export: str, folder: str, what: str) -> None:
    async def fetch(url: str, limit: int) -> bytes:
        with open(os.path.join(export, url.removeprefix(URL + "/").replace("/", "-")), "rb") as file:
            return file.read(limit)

    counted: Counter[str] = Counter()
    if what == "count":
        count_hashes(counted)
    create_node(Path(folder), "node.example/w")
    with open(os.path.join(export, "vkey")) as file:
        allow_log(Path(folder), file.read(), URL)
    node = open_node(Path(folder), fetch)
    with open(os.path.join(export, "checkpoint"), "rb") as file:
        note = file.read()
    start = time.perf_counter()
    asyncio.run(until_signed(node.auditor, note))
    seconds = time.perf_counter() - start
    node.close()
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024
    print(json.dumps(counted if what == "count" else {"seconds": seconds, "peak": peak}), flush=True)


async def until_signed(asked: auditor.Auditor, note: bytes) -> None:
    """As a log asks: again, while the auditor says that it is not there yet."""
    while True:
        try:
            await asked.audit(note, lambda: int(time.time()))
            return
        except TryLater:
            pass


def count_hashes(counted: Counter[str]) -> None:
    """Every hash function that a replay calls counts its calls."""

    def counting(kind: str, function: Callable[..., bytes]) -> Callable[..., bytes]:
        def call(*args: object) -> bytes:
            counted[kind] += 1
            return function(*args)

        return call

    auditor.leaf_hash = counting("leaf", auditor.leaf_hash)
    merkle.node_hash = auditor.node_hash = counting("node", auditor.node_hash)
    auditor.link = counting("link", auditor.link)
    auditor.map_value = counting("map value", auditor.map_value)
    mapstore.leaf_hash = counting("map leaf", mapstore.leaf_hash)
    mapstore.node_hash = counting("map node", mapstore.node_hash)
    auditor.MapStore = lambda: mapstore.MapStore(NO_BOUND)  # type: ignore[misc, assignment]


if __name__ == "__main__":
    main(*sys.argv[1:])
