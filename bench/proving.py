"""Rows on making proofs, in this process: whole proofs, inclusion alone, and how both grow."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable

from audit.publisher import read_proof_tree
from bench.dataset import Data
from bench.environment import Environment, Failed
from bench.measure import US, Round, Row, at_most, below, interleave, middle, over, skipped
from verifier.merkle import verify_inclusion

LOOK_UP = "SELECT entry, content, path, context, head, leaf_index FROM entries WHERE chain = ? ORDER BY seq"
READ_TILE = "SELECT data FROM tiles WHERE id = ?"


def rows(data: Data, environment: Environment, rounds: int, calls: int) -> list[Row]:
    """Whole proofs against a bare look-up of the same ten rows, and inclusion against one bare tile read."""
    files = some_files(data, 4096)
    conn = bare_connection(data)
    times = interleave(
        rounds,
        proof=over(files, lambda file: data.prover.prove(data.source, file), calls),
        look_up=over(chains_of(conn, files), lambda chain: conn.execute(LOOK_UP, (chain,)).fetchall(), calls),
    )
    made = times["proof"]
    found = [
        below("proof of 10 versions, in process", middle(made, US), US, 250),
        at_most(
            *("proof of 10 versions, in process", made, times["look_up"], 15, US),
            "bare sqlite3, the same 10 rows, clustered",
        ),
    ]
    found += inclusion_rows(data, conn, environment, rounds, calls)
    conn.close()
    return found


def inclusion_rows(
    data: Data, conn: sqlite3.Connection, environment: Environment, rounds: int, calls: int
) -> list[Row]:
    """Inclusion from disk against one tile read, and against pymerkle's SQLite tree of the same leaves."""
    head = read_proof_tree(data.store.reader())
    assert head is not None
    size = head.size
    indexes = [random.randrange(size) for _ in range(4096)]
    reader = data.store.reader()

    def include(index: int) -> list[bytes]:
        return data.tree.inclusion(reader, index, size)

    def read_tile(index: int) -> bytes:
        tile: bytes = conn.execute(READ_TILE, (index >> 8,)).fetchone()[0]
        return tile

    check_inclusion(conn, size, head.root, include)
    contenders: dict[str, Round] = {"inclusion": over(indexes, include, calls), "tile": over(indexes, read_tile, calls)}
    times = interleave(rounds, **contenders)
    name = "inclusion proof from disk"
    found = [at_most(name, times["inclusion"], times["tile"], 4, US, "one bare tile read")]
    try:
        with environment.pymerkle(size) as peer:
            times = interleave(min(rounds, 5), inclusion=contenders["inclusion"], pymerkle=peer)
        found.append(at_most(name, times["inclusion"], times["pymerkle"], 1, US, f"pymerkle SqliteTree of {size:,}"))
    except Failed as error:
        found.append(skipped(f"{name}, against pymerkle", "<= 1x", str(error)))
    return found


def check_inclusion(conn: sqlite3.Connection, size: int, root: bytes, include: Callable[[int], list[bytes]]) -> None:
    """What is timed is right: a path of it verifies."""
    index = size // 3
    leaf = conn.execute(READ_TILE, (index >> 8,)).fetchone()[0][(index & 255) * 32 :][:32]
    verify_inclusion(index, size, leaf, include(index), root)


def scaling_rows(big: Data, small: Data, rounds: int, calls: int) -> list[Row]:
    """The same work at the full size and at a hundredth of it."""
    sets = {"big": some_files(big, 4096), "small": some_files(small, 4096)}
    logs = {"big": big, "small": small}
    what = f"{small.files * 10:,} entries"

    def prove(log: Data) -> Callable[[int], bytes]:
        return lambda file: log.prover.prove(log.source, file)

    times = interleave(rounds, **{name: over(sets[name], prove(logs[name]), calls) for name in sets})
    return [at_most(f"prove at {big.files * 10:,} entries", times["big"], times["small"], 1.5, US, f"at {what}")]


def some_files(data: Data, count: int) -> list[int]:
    """File ids from all over the log."""
    chosen = random.Random(0)
    return [chosen.randint(1, data.files) for _ in range(count)]


def bare_connection(data: Data) -> sqlite3.Connection:
    path = os.path.join(data.directory, "log.db")
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)


def chains_of(conn: sqlite3.Connection, files: list[int]) -> list[int]:
    known = dict(conn.execute("SELECT file_id, id FROM chains"))
    return [known[file] for file in files]
