"""What must hold after every fault, from everything that was ever seen.

    seen = Seen({origin: DIR/log}, [DIR/node, ...])
    seen.add_note(note)         a checkpoint off the wire
    seen.look(origin)           entries and notes in the log's store
    seen.check(honest)          raises where two quorums contradict each other, or something acknowledged is gone

Roots are computed again from the leaves, with the slow append of one leaf at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import combinations
from pathlib import Path

from audit.directory import AUDITORS_FILE, POLICY_FILE
from verifier.checkpoint import parse_checkpoint_unverified
from verifier.merkle import append_leaf, fold_right, leaf_hash
from verifier.note import Note, Signature, parse_note, verify_signature
from verifier.policy import AUDITORS, WITNESSES, cosigned_times, parse_policy, quorum_met
from verifier.tile import TILE_WIDTH, decode_entry_bundle

Entry = tuple[bytes, int, bytes]  # chain id, seq, head: what was acknowledged once it is committed

_ENTRIES = "SELECT c.chain_id, e.seq, e.head FROM entries e JOIN chains c ON c.id = e.chain"
_LEAF = (
    "SELECT e.leaf_index FROM entries e JOIN chains c ON c.id = e.chain WHERE c.path = ? AND e.leaf_index IS NOT NULL"
)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A store that another process writes."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as conn:
        yield conn


def read_leaves(store: Path) -> list[bytes]:
    """Every leaf of a log, off its disk."""
    with reading(store) as conn:
        conn.execute("BEGIN")
        (size,) = conn.execute("SELECT coalesce(max(size), 0) FROM trees").fetchone()
        bundles = conn.execute("SELECT data FROM bundles ORDER BY n").fetchall()
    leaves: list[bytes] = []
    for (data,) in bundles:
        leaves += decode_entry_bundle(data, min(TILE_WIDTH, size - len(leaves)))
    return leaves


def roots_of(leaves: Iterable[bytes]) -> list[bytes]:
    """The root at every size from 1 on."""
    peaks: list[bytes] = []
    roots = []
    for size, leaf in enumerate(leaves):
        peaks = append_leaf(peaks, size, leaf_hash(leaf))
        roots.append(fold_right(peaks))
    return roots


class Seen:
    """All signature lines by the text that they are under, and all entries that were committed."""

    def __init__(self, logs: dict[str, Path], nodes: list[Path]) -> None:
        self.logs, self.nodes = logs, nodes
        self.stores = {origin: [log] for origin, log in logs.items()}  # a forked log has several
        self.policies = {
            origin: (
                parse_policy((log / POLICY_FILE).read_bytes(), WITNESSES),
                parse_policy((log / AUDITORS_FILE).read_bytes(), AUDITORS),
            )
            for origin, log in logs.items()
        }
        self._lines: dict[bytes, set[Signature]] = {}
        self._entries: dict[str, set[Entry]] = {origin: set() for origin in logs}
        self._leaves: dict[str, list[bytes]] = {origin: [] for origin in logs}
        self._lock = threading.Lock()
        self.compared = 0

    def add_note(self, data: bytes) -> None:
        note = parse_note(data)
        with self._lock:
            self._lines.setdefault(note.text, set()).update(note.signatures)

    def look(self, origin: str) -> None:
        """What is committed now was acknowledged, and has to be there from now on."""
        for store in self.stores[origin]:
            with reading(store / "log.db") as conn:
                entries = set(conn.execute(_ENTRIES))
                notes = conn.execute("SELECT signed, newest_note FROM trees").fetchall()
            for pair in notes:
                for note in pair:
                    self.add_note(note)
            if store == self.logs[origin]:
                with self._lock:
                    self._entries[origin] |= entries

    def look_at_nodes(self) -> None:
        for node in self.nodes:
            with reading(node / "witness.db") as conn:
                notes = conn.execute("SELECT note FROM heads").fetchall()
            for (note,) in notes:
                self.add_note(note)

    def leaf_index(self, origin: str, path: str) -> int | None:
        with reading(self.logs[origin] / "log.db") as conn:
            row = conn.execute(_LEAF, (path,)).fetchone()
        return None if row is None else int(row[0])

    def is_audited(self, origin: str, path: str) -> bool:
        """Whether an audited tree covers the file."""
        index = self.leaf_index(origin, path)
        with reading(self.logs[origin] / "log.db") as conn:
            (size,) = conn.execute("SELECT coalesce(max(size), 0) FROM trees WHERE audited").fetchone()
        return index is not None and int(size) > index

    def count(self) -> tuple[int, int]:
        """Entries that were acknowledged, checkpoints that were seen."""
        with self._lock:
            return sum(map(len, self._entries.values())), len(self._lines)

    # -- quorums --

    def has_quorum(self, text: bytes) -> bool:
        """Whether all lines that were ever seen under this text make the witnesses' quorum."""
        with self._lock:
            lines = tuple(self._lines.get(text, ()))
        policy = self.policies[parse_checkpoint_unverified(text).origin][0]
        times: dict[str, int] = {}
        for line in lines:
            for name, time in cosigned_times(policy, Note(text, (line,))).items():
                times[name] = max(time, times.get(name, 0))
        return quorum_met(policy, times)

    def quorum_size(self, data: bytes) -> int:
        """The size of a served checkpoint that has its quorum in its own lines; 0 without."""
        note = parse_note(data)
        checkpoint = parse_checkpoint_unverified(note.text)
        policy = self.policies[checkpoint.origin][0]
        verify_signature(note, policy.logs[0].key)
        return checkpoint.size if quorum_met(policy, cosigned_times(policy, note)) else 0

    def published(self, origin: str) -> list[tuple[int, bytes]]:
        """Size and root of every checkpoint of the log that ever had its quorum."""
        with self._lock:
            texts = list(self._lines)
        found = []
        for text in texts:
            checkpoint = parse_checkpoint_unverified(text)
            if checkpoint.origin == origin and self.has_quorum(text):
                found.append((checkpoint.size, checkpoint.root))
        return sorted(found)

    def published_size(self, origin: str) -> int:
        return max((size for size, _ in self.published(origin)), default=0)

    # -- the invariants --

    def check(self, honest: set[str]) -> None:
        self.compared = 0
        self.look_at_nodes()
        for origin in self.logs:
            if origin in honest:
                self.look(origin)
                self._check_honest(origin)
            self._check_quorums(origin)

    def _check_honest(self, origin: str) -> None:
        """Leaves only grew, entries are all there, and every root that the log ever signed is that of its leaves."""
        store = self.logs[origin] / "log.db"
        leaves, before = read_leaves(store), self._leaves[origin]
        assert leaves[: len(before)] == before, f"{origin}: its leaves are others than before"
        self._leaves[origin] = leaves
        with reading(store) as conn:
            entries = set(conn.execute(_ENTRIES))
        lost = self._entries[origin] - entries
        assert not lost, f"{origin}: lost {len(lost)} acknowledged entries: {sorted(lost)[:3]}"
        roots = roots_of(leaves)
        with self._lock:
            texts = list(self._lines)
        for text in texts:
            checkpoint = parse_checkpoint_unverified(text)
            if checkpoint.origin == origin:
                assert 0 < checkpoint.size <= len(roots), f"{origin}: signed size {checkpoint.size}, has {len(roots)}"
                assert checkpoint.root == roots[checkpoint.size - 1], f"{origin}: another root of {checkpoint.size}"

    def _check_quorums(self, origin: str) -> None:
        """No two checkpoints with a quorum contradict each other: some store has both roots."""
        published = self.published(origin)
        histories = [roots_of(read_leaves(store / "log.db")) for store in self.stores[origin]]
        holds = [
            {i for i, roots in enumerate(histories) if size <= len(roots) and roots[size - 1] == root}
            for size, root in published
        ]
        for one, held in zip(published, holds, strict=True):
            assert held, f"{origin}: {one} has its quorum, and no store has its leaves"
        for (one, in_one), (two, in_two) in combinations(zip(published, holds, strict=True), 2):
            assert in_one & in_two, f"{origin}: a fork with two quorums: {one} and {two}"
            self.compared += 1

    def evidence(self, origin: str) -> dict[str, int]:
        """How often nodes kept what speaks against a log, by kind."""
        found: dict[str, int] = {}
        for node in self.nodes:
            with reading(node / "witness.db") as conn:
                rows = conn.execute("SELECT kind, count(*) FROM evidence WHERE origin = ? GROUP BY kind", (origin,))
                for kind, count in rows:
                    found[kind] = found.get(kind, 0) + count
        return found
