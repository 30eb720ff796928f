"""A log's leaves and the replay over them, in one SQLite file for each log: what an auditor holds.

    mirror = Mirror(path)
    mirror.append(leaves, target, signed, proof)       verified, replayed and kept, or nothing of it

`append` is one transaction, so a crash leaves the end of an earlier chunk. In its order:

    verify     the tree over all leaves held so far and these is the target's, or consistent with it
    replay     every leaf follows its chain, every map commitment is right (`audit.regions`), else a Finding
    keep       entry bundles, regions, the tree's right edge and the target that all of it was verified against

Lost, a mirror is fetched again; a damaged one is set aside (`.damaged`) for that. What was signed lies elsewhere
(`audit.witness_store`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from audit.errors import Fatal, PeerFailed, TryLater
from audit.regions import Regions
from audit.schema import create_tables
from audit.witness import CONSISTENCY, FINDING, Head, Inconsistent
from audit.witness_store import connect
from verifier.checkpoint import Checkpoint, parse_checkpoint_unverified
from verifier.encoding import HASH_SIZE
from verifier.errors import Malformed, NotVerified
from verifier.merkle import extend_peaks, fold_right, leaf_hash, verify_consistency
from verifier.note import parse_note
from verifier.replay import BrokenRule, Known, check_last
from verifier.tile import ENTRIES, TILE_WIDTH, cut_entry_bundle, decode_entry_bundle, encode_entry_bundle, tile_width

DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
PAGE_SIZE = 8192  # most regions fit into one page
HELD_BUNDLES = 64  # read at a time: 1.2 MiB


class Finding(Inconsistent):
    """Leaves under a signed root that break a rule: `index` is the first one, `fault` the kind of rule."""

    def __init__(self, broken: BrokenRule) -> None:
        super().__init__(FINDING, str(broken))
        self.index, self.fault = broken.index, broken.fault
        self.leaves: Sequence[bytes] = ()  # the chunk that was refused with it, if any


class Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of a mirror's tables."""


class StateRow(Table, table=True):
    __tablename__ = "state"
    id: int = Field(primary_key=True)
    size: int
    peaks: bytes
    note: bytes  # the log-signed target that everything here was verified against


class BundleRow(Table, table=True):
    __tablename__ = "bundles"
    n: int = Field(primary_key=True)
    data: bytes


class RegionRow(Table, table=True):
    """Chains and map, see `audit.region`. It keeps its rowid, as rows of some KiB would swell a tree of keys."""

    __tablename__ = "regions"
    prefix: bytes = Field(primary_key=True)
    data: bytes


class Target(NamedTuple):
    """What a mirror grows towards."""

    checkpoint: Checkpoint
    note: bytes


class Mirror:
    """One log's leaves and the replay over them, in one SQLite file. Lost, it is fetched again."""

    def __init__(self, path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self._path = path
        try:
            path.touch(mode=0o600)
            self._conn = connect(path, factory, PAGE_SIZE)
        except sqlite3.Error as error:
            raise _failed(path, error) from error
        try:
            self._open()
        except sqlite3.Error as error:
            self.close()
            raise _failed(path, error) from error

    def _open(self) -> None:
        self._regions = Regions(self._conn)
        tables = {row[0] for row in self._conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "state" not in tables:
            with self._transaction():
                create_tables(self._conn, Table.metadata)
                self._conn.execute("INSERT INTO state (id, size, peaks, note) VALUES (1, 0, x'', x'')")
        self.size, self._peaks, self.note = self._load_state()
        if tables and "regions" not in tables:
            self._change_layout(tables)

    def close(self) -> None:
        self._conn.close()

    @property
    def root(self) -> bytes:
        """The tree's root over every leaf held."""
        return fold_right(self._peaks)

    def target(self) -> Head | None:
        """The target that these leaves were verified against."""
        if not self.note:
            return None
        checkpoint = parse_checkpoint_unverified(parse_note(self.note).text)
        return Head(checkpoint.size, checkpoint.root, 0, self.note)

    def leaves(self, number: int) -> list[bytes]:
        """The leaves of one bundle, as far as they are held."""
        width = tile_width(ENTRIES, number, self.size)
        row = self._conn.execute("SELECT data FROM bundles WHERE n = ?", (number,)).fetchone()
        return decode_entry_bundle(row[0], width) if row else []

    def held(self, begin: int, end: int) -> Iterator[list[bytes]]:
        """The leaves begin..end-1, some thousand at a time."""
        while begin < end:
            first = begin // TILE_WIDTH
            stop = min((first + HELD_BUNDLES) * TILE_WIDTH, end)
            leaves = [leaf for number in range(first, -(-stop // TILE_WIDTH)) for leaf in self.leaves(number)]
            yield leaves[begin - first * TILE_WIDTH : stop - first * TILE_WIDTH]
            begin = stop

    def refresh(self) -> None:
        """Takes up what another process of this node has added meanwhile."""
        try:
            state = self._load_state()
        except sqlite3.Error as error:
            self.close()
            raise _failed(self._path, error) from error
        if state[0] != self.size:
            self.size, self._peaks, self.note = state

    def peaks_after(self, leaves: Sequence[bytes]) -> list[bytes]:
        """The right edge of the tree with these leaves added."""
        return extend_peaks(self._peaks, self.size, [leaf_hash(leaf) for leaf in leaves])

    def known_after(self, leaves: Sequence[bytes], chain_ids: set[bytes]) -> list[Known]:
        """What the map held of these chains after these leaves, which follow every rule. Nothing is kept of them."""
        self._conn.execute("BEGIN IMMEDIATE")
        try:
            self._replay(self.size, leaves)
            return [self._regions.prove(chain_id) for chain_id in sorted(chain_ids)]
        finally:
            self._conn.execute("ROLLBACK")

    def replay_held(self, leaves: Sequence[bytes]) -> None:
        """Replays leaves that another mirror holds, for a copy that knows chains and map as of an earlier size."""
        with self._transaction():
            self._replay(self.size, leaves)
        self.size += len(leaves)

    def append(self, leaves: Sequence[bytes], target: Target, signed: Head | None, proof: Sequence[bytes]) -> None:
        """Holds these leaves as well: they are the next ones under the target's root, and every rule holds."""
        peaks, end = self._verify(leaves, target.checkpoint, signed, proof), self.size + len(leaves)
        with self._transaction():
            if self._load_state()[0] != self.size:
                raise Fatal("mirror: another process writes to it")
            self._replay(self.size, leaves)
            self._write_bundles(leaves)
            self._conn.execute(
                "UPDATE state SET size = ?, peaks = ?, note = ? WHERE id = 1", (end, b"".join(peaks), target.note)
            )
        self.size, self._peaks, self.note = end, peaks, target.note

    def _verify(
        self, leaves: Sequence[bytes], tree: Checkpoint, signed: Head | None, proof: Sequence[bytes]
    ) -> list[bytes]:
        """The right edge with these leaves, once they are under the tree's root and under what was cosigned."""
        peaks, end = self.peaks_after(leaves), self.size + len(leaves)
        root = fold_right(peaks)
        try:
            verify_consistency(end, root, tree.size, tree.root, proof)
        except (Malformed, NotVerified) as error:
            raise Inconsistent(CONSISTENCY, f"leaves {self.size} to {end}: {error}") from None
        if signed and end == signed.size and root != signed.root:
            raise Inconsistent(CONSISTENCY, f"leaves up to {end}: do not have the root that was cosigned")
        if end == tree.size:
            _check_last(end - 1, leaves[-1])
        return peaks

    def check_end(self, checkpoint: Checkpoint) -> None:
        """The leaves held are the checkpoint's tree, and the last one commits to the map."""
        if self.root != checkpoint.root:
            raise Inconsistent(CONSISTENCY, f"checkpoint root of size {self.size}: not that of the leaves held")
        number, place = divmod(self.size - 1, TILE_WIDTH)
        _check_last(self.size - 1, self.leaves(number)[place])

    def _replay(self, first: int, leaves: Sequence[bytes]) -> None:
        """Every leaf follows its chain, and every map commitment is right; the first one that is not is a Finding."""
        try:
            self._regions.replay(first, leaves)
        except BrokenRule as broken:
            raise Finding(broken) from None

    def _change_layout(self, tables: set[str]) -> None:
        """Earlier mirrors had chains and map in tables of their own. All of it follows from the leaves."""
        with self._transaction():
            create_tables(self._conn, Table.metadata, tables)
            for name in ("chains", "map_pages"):
                self._conn.execute(f"DROP TABLE {name}")
            first = 0
            try:
                for leaves in self.held(0, self.size):
                    self._regions.replay(first, leaves)
                    first += len(leaves)
            except (Malformed, BrokenRule) as error:
                raise Fatal(
                    f"mirror: leaves changed on disk ({error}); remove its file, and it is fetched again"
                ) from None

    def _write_bundles(self, leaves: Sequence[bytes]) -> None:
        number, begin = divmod(self.size, TILE_WIDTH)
        whole = [*(self.leaves(number) if begin else []), *leaves]
        self._conn.executemany(
            "INSERT OR REPLACE INTO bundles (n, data) VALUES (?, ?)",
            [
                (number + i // TILE_WIDTH, encode_entry_bundle(whole[i : i + TILE_WIDTH]))
                for i in range(0, len(whole), TILE_WIDTH)
            ],
        )

    def _load_state(self) -> tuple[int, list[bytes], bytes]:
        row = self._conn.execute("SELECT size, peaks, note FROM state WHERE id = 1").fetchone()
        if row is None:
            raise Fatal("mirror: its only row is gone; remove its file, and it is fetched again")
        size, peaks, note = row
        return size, [peaks[i : i + HASH_SIZE] for i in range(0, len(peaks), HASH_SIZE)], note

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction. After an error of the disk the mirror is opened anew, from what is committed."""
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._conn.execute("ROLLBACK")
                raise
            self._conn.execute("COMMIT")
        except sqlite3.Error as error:
            self.close()
            raise _failed(self._path, error) from error


def _failed(path: Path, error: sqlite3.Error) -> Fatal:
    """What an error of SQLite means. A damaged file is set aside, so that the next audit makes another one."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DAMAGE:
        return Fatal(f"mirror: {error}")
    aside = path.with_name(f"{path.name}.damaged")
    for end in ("-wal", "-shm", ""):
        one = path.with_name(path.name + end)
        if one.exists():
            os.replace(one, aside.with_name(aside.name + end))
    return Fatal(
        f"mirror: {path.name} is damaged ({error}) and was set aside as {aside.name}; the next audit fetches it again"
    )


def _check_last(index: int, data: bytes) -> None:
    """The last leaf of a target commits to the map."""
    try:
        check_last(index, data)
    except BrokenRule as broken:
        raise Finding(broken) from None


def read_held(path: Path) -> tuple[int, bytes]:
    """How many leaves a mirror holds, and the note that it verified them against; 0 of a lost one. It may grow."""
    if not path.is_file():
        return 0, b""
    conn = sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)
    try:
        row = conn.execute("SELECT size, note FROM state WHERE id = 1").fetchone()
    except sqlite3.Error:
        return 0, b""  # damaged, or being made: nothing to be had from it now
    finally:
        conn.close()
    return (row[0], bytes(row[1])) if row else (0, b"")


def read_mirrored(path: Path, number: int, width: int) -> bytes:
    """The first `width` leaves of a mirror's bundle, while the mirror may grow."""
    if not path.is_file():
        raise PeerFailed("mirror: its file is lost; it is fetched again at the next audit")
    conn = sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)
    try:
        row = conn.execute("SELECT data FROM bundles WHERE n = ?", (number,)).fetchone()
    except sqlite3.Error as error:
        raise TryLater(f"mirror: {error}") from None
    finally:
        conn.close()
    try:
        return cut_entry_bundle(bytes(row[0]) if row else b"", width)
    except Malformed:
        raise PeerFailed("mirror: has lost this bundle; it is fetched again at the next audit") from None
