"""Why a row misses its goal, where that is known and does not depend on the run: by name and goal.

Reasons that do depend on it (what a part took alone, what this machine reached in the same rounds) are written by the
group that measures. An unmet row without either makes the bench exit 1.
"""

from __future__ import annotations

REASONS: dict[tuple[str, str], str] = {
    ("durable recording, one by one", ">= 0.45x"): (
        "an entry changes pages of three tables (entries, chains, pending), the bare insert one: runs came out between "
        "0.43x and 0.52x, by how quick the disk's syncs were"
    ),
    ("durable recording, batches of 1,000", ">= 8x"): (
        "the batch writes to 1,000 files at random, each chain on a page of its own: some 2,800 pages of write-ahead "
        "log for 1,000 entries. A first scan, whose files are new and lie side by side, reaches about 8x. Entries that "
        "wait in a queue until they are in a tree would be 6x here, at the price of moving them later"
    ),
}
