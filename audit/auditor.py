"""What an auditor does: hold every leaf of a log, replay it, and say so with a cosignature (SPEC 6 and 8).

    POST /audit          a checkpoint that the log signed: "please audit this target"
    GET URL/tile/...     the leaves that are new, in chunks of up to 65,536

Each chunk is verified before it is stored: the tree over all leaves held so far plus the chunk must be the target's,
or, where more chunks follow, must be consistent with it. The consistency proof is put together from the log's own
hash tiles, which thus need no trust. So whatever is stored lies under a root that the log signed. Then the chunk is
replayed:

    entry leaf       seq is that of its chain + 1, or 0 for a new chain
                     head_0 = x    head_n = link(head_{n-1}, chain id, n, x)
    map commitment   the root, over all leaves below, of chain id -> map_value(last seq, head, index of that leaf)
    declared loss    at index 0 only
    enrolment        anywhere
    the last leaf    of every target is a map commitment

Leaves, chain tips, map pages, and the tree's right edge are committed together, so a crash leaves an earlier chunk's
end. The cosignature follows the witness's rules: never a smaller size, never another root, persisted before it
is sent. A mirror can be lost and is fetched again; what was signed lies in `audit.witness_store`, and a mirror that
grows past the size signed last must have the root signed then.

A leaf or map that breaks a rule is a Finding. It is kept, and nothing is signed for that log until an operator
decides. Leaves that do not lead to the signed root are refused and kept, and do not stop anything: whoever cannot show
what it signed is never signed for, and a broken cache mends itself.

Not checked here: what entries mean (operations, seals, erasures are behind hashes), and whether the target was ever
published.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from audit.errors import AuditError, Fatal, PeerFailed, TryLater
from audit.mapstore import CREATE_MAP_PAGES, MapError, MapStore
from audit.witness import (
    CONFLICT,
    CONSISTENCY,
    FINDING,
    FORK,
    Decision,
    Head,
    Inconsistent,
    OutOfStep,
    UnknownLog,
    advance,
    is_fork,
    open_log_note,
)
from audit.witness_store import AUDITOR, Offence, Store, connect, create_tables
from verifier import replay as replay_rules
from verifier.chain import link
from verifier.checkpoint import Checkpoint, parse_checkpoint_unverified
from verifier.encoding import HASH_SIZE
from verifier.entry import MAX_ENTRIES
from verifier.errors import Error, Malformed, NotVerified
from verifier.leaf import ENTRY, ENTRY_SIZE, MAP, LossLeaf, MapLeaf, decode_leaf
from verifier.map import Place, map_value
from verifier.merkle import (
    compact_range,
    complete_subtrees,
    consistency_ranges,
    fold_right,
    leaf_hash,
    node_hash,
    verify_consistency,
)
from verifier.note import Note, SignerKey, format_note, parse_note
from verifier.replay import Known
from verifier.tile import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_entry_bundle,
    decode_hash_tile,
    encode_entry_bundle,
    format_tile_path,
    tile_width,
)

MAP_ROOT = "map root"  # how a finding about a map begins
CHUNK_LEAVES = 256 * TILE_WIDTH  # about 5 MiB of leaves, replayed in a few seconds; each end writes the map once more
MAX_LEAVES_PER_REQUEST = 4 * CHUNK_LEAVES  # then the log is asked to come again
MAX_FETCHES = 8  # at a time, for each log
SELECT_BATCH = 500  # chains for each look-up
MAX_BUNDLE_ENTRY = 2 + ENTRY_SIZE  # the longest leaf, after its length (SPEC 6.1)

Fetch = Callable[[str, int], Awaitable[bytes]]  # (url, most bytes) -> body, or PeerFailed


class Finding(Inconsistent):
    """Leaves under a signed root that break a rule: `index` is the first one."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(FINDING, f"leaf {index}: {message}")
        self.index = index
        self.leaves: Sequence[bytes] = ()  # the chunk that was refused with it, if any


Tip = tuple[int, bytes, int]  # the newest entry of a chain: its seq, the head after it, the index of its leaf


# Replay: pure


def replay(
    first: int, leaves: Sequence[bytes], tips: dict[bytes, Tip], commit: Callable[[int, dict[bytes, bytes]], bytes]
) -> set[bytes]:
    """Follows leaves number `first` and on, moving `tips`; returns the chains that moved, once every rule held.

    `commit(size, values)` puts map values under the version `size` and returns the map's root.
    """
    moved: set[bytes] = set()
    fresh: set[bytes] = set()  # moved since the last commitment
    for index, data in enumerate(leaves, first):
        if len(data) == ENTRY_SIZE and data[0] == ENTRY:
            chain_id = data[1:33]
            tips[chain_id] = next_tip(tips.get(chain_id), data, index)
            fresh.add(chain_id)
            continue
        try:
            leaf = decode_leaf(data)
        except Malformed as error:
            raise Finding(index, str(error)) from None
        if type(leaf) is MapLeaf:
            root = commit(index + 1, {chain_id: map_value(*tips[chain_id]) for chain_id in fresh})
            if root != leaf.root:
                raise Finding(index, f"{MAP_ROOT}: got {leaf.root.hex()}, want {root.hex()}")
            moved |= fresh
            fresh.clear()
        elif type(leaf) is LossLeaf and index != 0:
            raise Finding(index, "declared loss: want index 0")
    if fresh:
        commit(first + len(leaves), {chain_id: map_value(*tips[chain_id]) for chain_id in fresh})
    return moved | fresh


def next_tip(tip: Tip | None, data: bytes, index: int) -> Tip:
    """The chain's tip after this entry leaf, which has to be the next one of its chain.

    Nearly all leaves come through here, so the fields are cut out by hand; `decode_leaf` says the same, and a test
    holds both together.
    """
    seq, x = int.from_bytes(data[33:41], "big"), data[41:]
    want = 0 if tip is None else tip[0] + 1
    if seq != want or seq >= MAX_ENTRIES:
        raise Finding(index, f"seq of chain {data[1:33].hex()}: got {seq}, want {want}, below {MAX_ENTRIES}")
    return seq, x if tip is None else link(tip[1], data[1:33], seq, x), index


def extend_peaks(peaks: Sequence[bytes], size: int, hashes: Sequence[bytes]) -> list[bytes]:
    """The hashes of `compact_range` after more leaves, level by level: one pass instead of one call for each leaf."""
    old, new, nodes = list(peaks), [], list(hashes)
    while nodes:
        if size & 1:
            nodes.insert(0, old.pop())
        if len(nodes) & 1:
            new.append(nodes.pop())
        nodes = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
        size >>= 1
    return [*old, *reversed(new)]


def plan_chunk(size: int, target_size: int, signed_size: int) -> int:
    """Where the next chunk ends: it stops at the size signed last, whose root has to be met."""
    end = min((size // TILE_WIDTH) * TILE_WIDTH + CHUNK_LEAVES, target_size)
    return signed_size if size < signed_size < end else end


def check_target(checkpoint: Checkpoint, earlier: Head | None, held: int) -> Checkpoint:
    """The checkpoint, if an auditor that signed or began `earlier` and holds `held` leaves may go on to it."""
    if checkpoint.size == 0:
        raise Inconsistent(CONSISTENCY, "checkpoint size: got 0, want a last leaf with a map commitment")
    if is_fork(checkpoint, earlier):
        raise Inconsistent(FORK, f"checkpoint root of size {checkpoint.size}: got another one than before")
    known_size = max(held, earlier.size if earlier else 0)
    if checkpoint.size < known_size:
        raise OutOfStep(known_size, CONFLICT)
    return checkpoint


# The mirror


class Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of a mirror's tables. `map_pages` comes from the map store."""


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


class ChainRow(Table, table=True):
    __tablename__ = "chains"
    __table_args__ = {"sqlite_with_rowid": False}
    chain_id: bytes = Field(primary_key=True)
    seq: int
    head: bytes
    leaf_index: int


class Target(NamedTuple):
    """What a mirror grows towards."""

    checkpoint: Checkpoint
    note: bytes


class Mirror:
    """One log's leaves and the replay over them, in one SQLite file. Lost, it is fetched again."""

    def __init__(self, path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        path.touch(mode=0o600)
        self._conn = connect(path, factory)
        self._map = MapStore()
        if not self._conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone():
            with self._transaction():
                create_tables(self._conn, Table.metadata)
                self._conn.execute(CREATE_MAP_PAGES)
                self._conn.execute("INSERT INTO state (id, size, peaks, note) VALUES (1, 0, x'', x'')")
        self.size, self._peaks, self.note = self._load_state()

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

    def refresh(self) -> None:
        """Takes up what another process of this node has added meanwhile."""
        try:
            state = self._load_state()
        except sqlite3.Error as error:
            raise Fatal(f"mirror: {error}") from error
        if state[0] != self.size:
            self.size, self._peaks, self.note = state

    def peaks_after(self, leaves: Sequence[bytes]) -> list[bytes]:
        """The right edge of the tree with these leaves added."""
        return extend_peaks(self._peaks, self.size, [leaf_hash(leaf) for leaf in leaves])

    def known_after(self, leaves: Sequence[bytes], chain_ids: set[bytes]) -> list[Known]:
        """What the map held of these chains after these leaves, which follow every rule. Nothing is kept of them."""
        self._conn.execute("BEGIN IMMEDIATE")
        try:
            self._replay(leaves)
            tips, known = self._load_tips(chain_ids), []
            for chain_id in sorted(chain_ids):
                shown = self._map.prove(self._conn, chain_id, self.size + len(leaves))
                place = Place(chain_id, shown.value_hash, shown.terminal, shown.siblings)
                known.append(Known(place, replay_rules.Tip(*tips[chain_id]) if chain_id in tips else None))
            return known
        finally:
            self._conn.execute("ROLLBACK")

    def replay_held(self, leaves: Sequence[bytes]) -> None:
        """Replays leaves that another mirror holds, for a copy that knows chains and map as of an earlier size."""
        with self._transaction():
            self._replay(leaves)
        self.size += len(leaves)

    def append(self, leaves: Sequence[bytes], target: Target, signed: Head | None, proof: Sequence[bytes]) -> None:
        """Holds these leaves as well: they are the next ones under the target's root, and every rule holds."""
        end = self.size + len(leaves)
        peaks = extend_peaks(self._peaks, self.size, [leaf_hash(leaf) for leaf in leaves])
        root = fold_right(peaks)
        try:
            verify_consistency(end, root, target.checkpoint.size, target.checkpoint.root, proof)
        except (Malformed, NotVerified) as error:
            raise Inconsistent(CONSISTENCY, f"leaves {self.size} to {end}: {error}") from None
        if signed and end == signed.size and root != signed.root:
            raise Inconsistent(CONSISTENCY, f"leaves up to {end}: do not have the root that was cosigned")
        if end == target.checkpoint.size:
            check_last(end - 1, leaves[-1])
        with self._transaction():
            if self._load_state()[0] != self.size:
                raise Fatal("mirror: another process writes to it")
            self._replay(leaves)
            self._write_bundles(leaves)
            self._conn.execute(
                "UPDATE state SET size = ?, peaks = ?, note = ? WHERE id = 1", (end, b"".join(peaks), target.note)
            )
        self.size, self._peaks, self.note = end, peaks, target.note

    def _replay(self, leaves: Sequence[bytes]) -> None:
        tips = self._load_tips({leaf[1 : 1 + HASH_SIZE] for leaf in leaves if len(leaf) == ENTRY_SIZE})
        moved = replay(self.size, leaves, tips, lambda size, values: self._map.update(self._conn, size, values))
        self._conn.executemany(
            "INSERT OR REPLACE INTO chains (chain_id, seq, head, leaf_index) VALUES (?, ?, ?, ?)",
            [(chain_id, *tips[chain_id]) for chain_id in sorted(moved)],
        )
        self._map.prune(self._conn, self.size + len(leaves))

    def _load_tips(self, chain_ids: set[bytes]) -> dict[bytes, Tip]:
        tips: dict[bytes, Tip] = {}
        ids = sorted(chain_ids)
        for start in range(0, len(ids), SELECT_BATCH):
            batch = ids[start : start + SELECT_BATCH]
            marks = ",".join("?" * len(batch))
            sql = f"SELECT chain_id, seq, head, leaf_index FROM chains WHERE chain_id IN ({marks})"  # noqa: S608
            for chain_id, seq, head, index in self._conn.execute(sql, batch):
                tips[chain_id] = (seq, head, index)
        return tips

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
        size, peaks, note = self._conn.execute("SELECT size, peaks, note FROM state WHERE id = 1").fetchone()
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
        except (sqlite3.Error, MapError) as error:
            self.close()
            raise Fatal(f"mirror: {error}") from error


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
    end, data = 0, bytes(row[0]) if row else b""
    for _ in range(width):
        end += 2 + int.from_bytes(data[end : end + 2], "big")
    if end > len(data):
        raise PeerFailed("mirror: has lost this bundle; it is fetched again at the next audit")
    return data[:end]


# Fetching


class TileReader:
    """A log's tiles over the network. Nothing that it returns is verified."""

    def __init__(self, fetch: Fetch, url: str, size: int) -> None:
        self._fetch, self._url, self._size = fetch, url.rstrip("/"), size
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        self._tiles: dict[Tile, list[bytes]] = {}

    async def leaves(self, begin: int, end: int) -> list[bytes]:
        """Leaves begin..end-1."""
        first = begin // TILE_WIDTH
        numbers = range(first, (end - 1) // TILE_WIDTH + 1)
        bundles = await asyncio.gather(*[self._bundle(number) for number in numbers])
        return [leaf for bundle in bundles for leaf in bundle][begin - first * TILE_WIDTH : end - first * TILE_WIDTH]

    async def root(self, size: int) -> bytes:
        """The root over the first leaves."""
        return fold_right([await self._node(level, index) for level, index in compact_range(size)])

    async def consistency(self, size: int) -> list[bytes]:
        """The consistency proof from a smaller size to the tree's."""
        proof = []
        for begin, end in consistency_ranges(size, self._size):
            nodes = [await self._node(level, index) for level, index in complete_subtrees(begin, end)]
            proof.append(fold_right(nodes))
        return proof

    async def _node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree, from the 1 to 128 hashes of a tile that lie below it."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        number, begin = divmod(index << height, TILE_WIDTH)
        tile = Tile(tile_level, number, tile_width(tile_level, number, self._size))
        if tile not in self._tiles:
            self._tiles[tile] = await self._read(tile, HASH_SIZE, decode_hash_tile)
        return fold_right(extend_peaks([], 0, self._tiles[tile][begin : begin + (1 << height)]))

    async def _bundle(self, number: int) -> list[bytes]:
        tile = Tile(ENTRIES, number, tile_width(ENTRIES, number, self._size))
        async with self._slots:
            return await self._read(tile, MAX_BUNDLE_ENTRY, decode_entry_bundle)

    async def _read(self, tile: Tile, item_size: int, decode: Callable[[bytes, int], list[bytes]]) -> list[bytes]:
        """A tile's items. A log may drop a partial tile once the full one is there (tlog-tiles): then that is asked."""
        full = tile._replace(width=TILE_WIDTH)
        try:
            return decode(await self._fetch(self._path(tile), tile.width * item_size), tile.width)
        except PeerFailed:
            if tile == full:
                raise
        return decode(await self._fetch(self._path(full), TILE_WIDTH * item_size), TILE_WIDTH)[: tile.width]

    def _path(self, tile: Tile) -> str:
        return f"{self._url}/{format_tile_path(tile)}"


# The service


class Auditor:
    """Answers audit requests, one replay at a time for each log."""

    def __init__(
        self,
        store: Store,
        signer: SignerKey,
        names: tuple[str, ...],
        folder: Path,
        fetch: Fetch,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self._store, self._signer, self._names, self._fetch = store, signer, names, fetch
        self._folder, self._factory = folder, factory
        self._locks: dict[str, asyncio.Lock] = {}
        self._mirrors: dict[str, Mirror] = {}
        self.evidence: dict[str, Path | None] = {}  # origin -> the file about what was refused last

    def close(self) -> None:
        for mirror in self._mirrors.values():
            mirror.close()
        self._mirrors.clear()

    async def audit(self, body: bytes, clock: Callable[[], int]) -> bytes:
        """The auditor's signature line for a target, once every leaf below it is held and follows the rules."""
        note = parse_note(body)
        checkpoint = parse_checkpoint_unverified(note.text)
        log = self._store.log(checkpoint.origin)
        note = open_log_note(note, log.signers if log else (), checkpoint.origin, self._names)
        if log is None or not log.url:
            raise UnknownLog(f"checkpoint origin: {checkpoint.origin!r} is not mirrored here")
        if reason := self._store.halt(checkpoint.origin):
            raise Inconsistent(FINDING, f"halted until an operator decides: {reason}")
        lock = self._locks.setdefault(checkpoint.origin, asyncio.Lock())
        if lock.locked():
            raise TryLater("audit: another target of this log is being replayed")
        async with lock:
            return await self._audit(note, Target(checkpoint, format_note(note)), log.url, clock)

    async def replay(self, body: bytes, clock: Callable[[], int]) -> Mirror:
        """Holds and replays every leaf below a target, as `audit` does, halted or not; signs nothing."""
        note = parse_note(body)
        checkpoint = parse_checkpoint_unverified(note.text)
        log = self._store.log(checkpoint.origin)
        note = open_log_note(note, log.keys if log else (), checkpoint.origin, self._names)
        if log is None or not log.url:
            raise UnknownLog(f"checkpoint origin: {checkpoint.origin!r} is not mirrored here")
        async with self._locks.setdefault(checkpoint.origin, asyncio.Lock()):
            target = Target(checkpoint, format_note(note))
            return await self._grow(target, Offence(target.note, note.text), log.url, clock)

    async def _audit(self, note: Note, target: Target, url: str, clock: Callable[[], int]) -> bytes:
        origin, offence = target.checkpoint.origin, Offence(target.note, note.text)
        mirror = await self._grow(target, offence, url, clock)

        def decide(head: Head | None, latest: int) -> Decision:
            check_target(target.checkpoint, head, mirror.size)
            return advance(note, target.checkpoint, latest, now, self._signer)

        now = clock()
        return self._store.advance(AUDITOR, origin, offence, now, decide)

    async def _grow(self, target: Target, offence: Offence, url: str, clock: Callable[[], int]) -> Mirror:
        """The mirror, once it is the target's tree. What is found against the log is kept: row, halt, then a file."""
        origin = target.checkpoint.origin
        mirror = self.mirror(origin)
        signed = self._store.head(AUDITOR, origin)
        known_note = signed.note if signed else b""
        try:
            mirror.refresh()
            check_target(target.checkpoint, signed, mirror.size)
            known_note = mirror.note or known_note
            check_target(target.checkpoint, mirror.target() if mirror.size else None, mirror.size)
            await self._catch_up(mirror, target, signed, url)
            check_end(mirror, target.checkpoint)
        except (OutOfStep, Inconsistent) as refusal:
            self._store.report(origin, offence, known_note, refusal, clock(), halt=isinstance(refusal, Finding))
            await self._keep_evidence(refusal, mirror, target, known_note, url, clock())
            raise
        except Fatal:
            self._mirrors.pop(origin).close()
            raise
        return mirror

    async def _keep_evidence(
        self, refusal: OutOfStep | Inconsistent, mirror: Mirror, target: Target, known_note: bytes, url: str, now: int
    ) -> None:
        """Writes what convinces a third person, where there is such a thing. The refusal stands in any case."""
        from audit.evidence import Files, of_finding, of_notes

        origin = target.checkpoint.origin
        tiles, log = TileReader(self._fetch, url, target.checkpoint.size), self._store.log(origin)
        try:
            if isinstance(refusal, Finding):
                value = await of_finding(refusal, mirror, target, tiles, self._folder, now)
            else:
                value = await of_notes(known_note, target.note, tiles, now)
            if value is not None and log is not None:
                self.evidence[origin] = Files(self._folder.parent).keep(value, log.keys, now)
        except (AuditError, Error, sqlite3.Error, OSError):
            return  # not shown by the log, or no room to write: row and halt are there, and the next audit tries again

    async def _catch_up(self, mirror: Mirror, target: Target, signed: Head | None, url: str) -> None:
        """Grows the mirror to the target, or as far as one request may; what it has by then it keeps."""
        size, stop = target.checkpoint.size, mirror.size + MAX_LEAVES_PER_REQUEST
        tiles = TileReader(self._fetch, url, size)
        while mirror.size < size:
            if mirror.size >= stop:
                raise TryLater(f"mirror: at {mirror.size} of {size} leaves")
            end = plan_chunk(mirror.size, size, signed.size if signed else 0)
            try:
                leaves, proof = await tiles.leaves(mirror.size, end), await tiles.consistency(end)
            except Malformed as error:
                raise PeerFailed(f"{url}: {error}") from None
            try:
                await asyncio.to_thread(mirror.append, leaves, target, signed, proof)
            except Finding as finding:
                finding.leaves = leaves
                raise

    def mirror(self, origin: str) -> Mirror:
        if origin not in self._mirrors:
            name = sha256(origin.encode("utf-8")).hexdigest() + ".db"
            self._mirrors[origin] = Mirror(self._folder / name, self._factory)
        return self._mirrors[origin]


def check_end(mirror: Mirror, checkpoint: Checkpoint) -> bytes:
    """The root, once the mirror is the checkpoint's tree and its last leaf commits to the map."""
    if mirror.root != checkpoint.root:
        raise Inconsistent(CONSISTENCY, f"checkpoint root of size {mirror.size}: not that of the leaves held")
    number, place = divmod(mirror.size - 1, TILE_WIDTH)
    check_last(mirror.size - 1, mirror.leaves(number)[place])
    return checkpoint.root


def check_last(index: int, data: bytes) -> bytes:
    """The last leaf of a target, which commits to the map."""
    if data[:1] != bytes([MAP]):
        raise Finding(index, "the last leaf is no map commitment")
    return data
