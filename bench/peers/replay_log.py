"""Run by this environment's Python: replay_log.py EXPORT NODE count|replay. An auditor's replay of an exported log.

    count     how often it computes which hash, one JSON object {"sha256 65": times}; by algorithm and length
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

import verifier.chain as chain
import verifier.map as maps
import verifier.merkle as merkle
from audit.auditor import Auditor
from audit.errors import TryLater
from audit.node import allow_log, create_node, open_node

URL = "http://log.example"


def main(export: str, folder: str, what: str) -> None:
    async def fetch(url: str, limit: int) -> bytes:
        with open(os.path.join(export, url.removeprefix(URL + "/").replace("/", "-")), "rb") as file:
            return file.read(limit)

    counted: Counter[str] = Counter()
    if what == "count":
        count_hashes(counted)
    create_node(Path(folder), "node.example/w")
    allow_log(Path(folder), Path(export, "vkey").read_text(), URL)
    node = open_node(Path(folder), fetch)
    note = Path(export, "checkpoint").read_bytes()
    start = time.perf_counter()
    asyncio.run(until_signed(node.auditor, note))
    seconds = time.perf_counter() - start
    node.close()
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024
    print(json.dumps(counted if what == "count" else {"seconds": seconds, "peak": peak}), flush=True)


async def until_signed(asked: Auditor, note: bytes) -> None:
    """As a log asks: again, while the auditor says that it is not there yet."""
    while True:
        try:
            await asked.audit(note, lambda: int(time.time()))
            return
        except TryLater:
            pass


def count_hashes(counted: Counter[str]) -> None:
    """The formats' hash functions count their calls: by algorithm and length of what is hashed."""

    def counting(function: Callable[[bytes], object]) -> Callable[[bytes], object]:
        name = function.__name__.removeprefix("openssl_")

        def call(data: bytes) -> object:
            counted[f"{name} {len(data)}"] += 1
            return function(data)

        return call

    for module in (merkle, chain, maps):
        for name in ("sha256", "sha3_256"):
            if hasattr(module, name):
                setattr(module, name, counting(getattr(module, name)))


if __name__ == "__main__":
    main(*sys.argv[1:])
