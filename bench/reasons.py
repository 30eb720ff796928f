"""Why a row misses its goal, where that is known and does not depend on the run: by name and goal.

Reasons that do depend on it (what a part took alone, what this machine reached in the same rounds) are written by the
group that measures. An unmet row without either makes the bench exit 1, and says which row it is.
"""

from __future__ import annotations

from bench.measure import Row
from bench.recording import FIRST, KNOWN, ONE

_BATCH = (
    "one by one, an entry waits for a sync of the disk; in a batch a thousand share one, and what is left is work for "
    "each entry: where a sync takes less than some eight times that work, no batch can be eight times as fast."
)
REASONS: dict[tuple[str, str], str] = {
    (ONE, ">= 0.45x"): (
        "an entry changes pages of three tables (entries, chains, pending) and now and then splits one, some 4 pages "
        "of write-ahead log for each commit, the bare insert one: the quicker the disk syncs, the more the rest counts"
    ),
    (FIRST, ">= 8x"): f"{_BATCH} A new file's row goes into three indexes as well",
    (KNOWN, ">= 8x"): (
        f"{_BATCH} And each of these files has pages of its own: nearly 3 pages of write-ahead log for each entry, "
        "which is as many as it takes alone. Entries that wait in one queue until they are in a tree would be quicker "
        "here, at the price of moving them later"
    ),
    ("inclusion proof from disk", "<= 4x"): (
        "on a small log, as in bench-quick, a bare read finds its few tiles in the cache and takes less than half of "
        "what it takes at a million leaves; the hashes of a path take as long as ever, and weigh more against it"
    ),
    ("replay of a whole log, leaves/s", ">= 0.4x"): (
        "two fifths of it are these hashes. Another third goes into finding and keeping what they take: in Python a "
        "step of a chain, or a place of the map whose halves are looked up and whose hash is stored, costs about as "
        "much as the hash itself. The rest: regions of chains and map, read and written once for each chunk, a "
        "tenth; leaves out of bundles and back, and the tree's own edge, a tenth; SQLite's commits"
    ),
}


def with_reasons(rows: list[Row]) -> list[Row]:
    """Unmet rows with what is known about them."""
    return [
        row._replace(why=row.why or REASONS.get((row.name, row.goal), "")) if row.met is False else row for row in rows
    ]


def unexplained(rows: list[Row]) -> list[Row]:
    """The rows that miss their goal and say no reason."""
    return [row for row in rows if row.met is False and not row.why]
