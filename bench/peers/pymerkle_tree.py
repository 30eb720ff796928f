"""Run by the clean environment's Python: pymerkle_tree.py DATABASE SIZE.

Says "ready" once the tree stands. Each line on stdin is a round; the answer is the seconds that one proof took.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

PROOFS = 5  # of one round: one takes a tenth of a second and more
CHUNK = 100_000


def main(database: str, size: int) -> None:
    from pymerkle import SqliteTree  # type: ignore[import-not-found]

    tree: Any = SqliteTree(database, algorithm="sha256")
    for start in range(0, size, CHUNK):
        tree.append_entries([b"leaf %d" % i for i in range(start, min(start + CHUNK, size))])
    print("ready", flush=True)
    for _ in sys.stdin:
        indexes = [random.randint(1, size) for _ in range(PROOFS)]
        start_s = time.perf_counter()
        for index in indexes:
            tree.prove_inclusion(index, size)
        print((time.perf_counter() - start_s) / PROOFS, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
