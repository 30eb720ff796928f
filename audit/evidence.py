"""Evidence files of a node: what it found against a log, for anybody to check (SPEC 9.1).

    DIR/evidence/20270115T080000Z-broken-replay-6f0c83d13b5e7a90.json

The name ends in the beginnings of two hashes, of the log's origin and of what is shown, so one fact has one file,
whenever it is found again. Nothing is overwritten. At most MAX_EVIDENCE files are kept for each log and kind; the
first ones stay, as in `audit.witness_store`. Only what `verify_evidence` accepts with the log's key is ever written.

Where it comes from:

    two notes of one size                     two-roots
    two notes, and the bigger tree's tiles    other-prefix: the log shows itself what the bigger tree grew out of
    two notes, and our mirror                 other-prefix, for a smaller tree that somebody else was shown
    a proof that a log gave a witness         other-prefix, if it leads to the new root and from another old one
    two notes with a witness's times          rolled-back
    a Finding of the auditor                  broken-replay: leaves from the map commitment before it
    two declared losses after one origin      two-successors
    our mirror of the origin before a loss    changed-leaf: the other leaf by the tiles of the new origin
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from audit.mirror import Finding, Mirror, Target
from audit.succession import BadSuccession
from audit.tile_reader import TileReader
from audit.witness import FORK, hash_origin, parse_request
from audit.witness_store import MAX_EVIDENCE, WITNESS, Store
from audit.witness_store import Evidence as Row
from verifier.checkpoint import Checkpoint, parse_checkpoint_unverified
from verifier.conviction import find_proven
from verifier.errors import Malformed
from verifier.evidence import (
    MAX_LEAVES,
    format_evidence,
    leaf_evidence,
    note_evidence,
    prefix_evidence,
    replay_evidence,
    successor_evidence,
)
from verifier.files import write_secret_new
from verifier.leaf import ENTRY, ENTRY_SIZE, HASH_LEAF_SIZE, MAP, MapLeaf, decode_leaf
from verifier.leaf import EntryLeaf as Entry
from verifier.loss import shift_after
from verifier.map import Place
from verifier.merkle import (
    consistency_ranges,
    extend_peaks,
    fold_right,
    inclusion_ranges,
    leaf_hash,
    roots_from_consistency,
)
from verifier.note import VerifierKey, format_note, parse_note
from verifier.replay import Known
from verifier.tile import TILE_WIDTH

FOLDER = "evidence"

Value = dict[str, object]


# Files


class Files:
    """The folder of a node's evidence files."""

    def __init__(self, node: Path) -> None:
        self._folder = node / FOLDER

    def keep(
        self, value: Value, keys: Sequence[VerifierKey], now: int, cosigners: Sequence[VerifierKey] = ()
    ) -> Path | None:
        """The file that holds this, written now or before; None if it proves nothing or there are too many."""
        if find_proven(value, keys, cosigners) is None:
            return None
        kind, log = value["kind"], hash_origin(keys[0].name)[:8]
        facts = format_evidence(value | {"seen": "0"})
        ending = f"-{kind}-{log}{sha256(facts).hexdigest()[:8]}.json"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        kept = sorted(self._folder.glob(f"*-{kind}-{log}*.json"))
        for path in kept:
            if path.name.endswith(ending):
                return path
        if len(kept) >= MAX_EVIDENCE:
            return None
        path = self._folder / (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)) + ending)
        write_secret_new(str(path), format_evidence(value))
        return path

    def keep_rows(self, store: Store, now: int) -> None:
        """Writes a file for every kept request that proves something by itself."""
        for row in store.each_evidence():
            value, log = of_row(row, now), store.log(row.origin)
            if value is not None and log is not None:
                self.keep(value, log.keys, row.time)

    def paths(self) -> list[Path]:
        """All files, oldest first."""
        return sorted(self._folder.glob("*.json"))


# Forks and rollbacks


def of_row(row: Row, now: int) -> Value | None:
    """What a refused request proves by itself. A broken replay cannot be told from it: that needs the leaves."""
    try:
        if row.signer != WITNESS:
            return of_same_size(row.known_note, row.request, now)
        request = parse_request(row.request)
        note = format_note(request.note)
        if row.kind == FORK or not row.known_note:
            return of_same_size(row.known_note, note, now)
        old, new = tree_of(row.known_note), request.checkpoint
        if request.old_size != old.size or not 0 < old.size < new.size:
            return None
        root, reached = roots_from_consistency(old.size, old.root, new.size, request.proof)
        if reached != new.root or root == old.root:
            return None
        return prefix_evidence(now, [row.known_note, note], root, list(request.proof))
    except Malformed:
        return None


def of_same_size(one: bytes, other: bytes, now: int) -> Value | None:
    """Two notes, if they state two trees of one size."""
    if not one:
        return None
    trees = tree_of(one), tree_of(other)
    same = trees[0].size == trees[1].size and trees[0].root != trees[1].root
    return note_evidence("two-roots", now, one, other) if same else None


async def of_notes(small: bytes, big: bytes, tiles: TileReader, now: int) -> Value | None:
    """Two notes, and what the log's own tiles say the bigger tree grew out of."""
    if not small:
        return None
    old, new = tree_of(small), tree_of(big)
    if not 0 < old.size < new.size:
        return of_same_size(small, big, now)
    root = await tiles.root(old.size)
    return None if root == old.root else prefix_evidence(now, [small, big], root, await tiles.consistency(old.size))


def of_mirror(small: bytes, mirror: Mirror, now: int) -> Value | None:
    """A note of a tree that is not the beginning of the one we hold; None if it is, or if no note covers ours."""
    old, target = tree_of(small), mirror.target()
    if target is None or target.size != mirror.size or not 0 < old.size <= mirror.size:
        return None
    if old.size == mirror.size:
        return of_same_size(small, mirror.note, now)
    root = range_hash(mirror, 0, old.size)
    if root == old.root:
        return None
    hashes = [range_hash(mirror, *span) for span in consistency_ranges(old.size, mirror.size)]
    return prefix_evidence(now, [small, mirror.note], root, hashes)


def tree_of(note: bytes) -> Checkpoint:
    """What a note states. Who signed it has been, or will be, verified."""
    return parse_checkpoint_unverified(parse_note(note).text, extensions=True)


def range_peaks(mirror: Mirror, begin: int, end: int) -> list[bytes]:
    """The complete subtrees of a range that starts on a multiple of its largest one."""
    peaks: list[bytes] = []
    size = 0
    for leaves in mirror.held(begin, end):
        peaks, size = extend_peaks(peaks, size, [leaf_hash(leaf) for leaf in leaves]), size + len(leaves)
    return peaks


def range_hash(mirror: Mirror, begin: int, end: int) -> bytes:
    return fold_right(range_peaks(mirror, begin, end))


# Broken replays


async def of_finding(
    finding: Finding, mirror: Mirror, target: Target, tiles: TileReader, folder: Path, now: int
) -> Value | None:
    """The leaves from the map commitment before it, and what that map held of their chains.

    None where it would exceed the bound of a file: then the row and the halt are all that is kept.
    """
    stretch = Stretch(mirror, finding.leaves, finding.index)
    end, size = finding.index + 1, target.checkpoint.size
    hashes = await tiles.consistency(end) if end < size else []
    try:
        start, leaves, chains = await asyncio.to_thread(stretch.collect, size, folder)
    except Finding as earlier:  # the last leaf was looked at first, and something before it is wrong as well
        earlier.leaves = finding.leaves
        return await of_finding(earlier, mirror, target, tiles, folder, now)
    if start is None:
        return None
    peaks = await asyncio.to_thread(stretch.peaks, start)
    return replay_evidence(now, target.note, start, peaks, leaves, hashes, chains)


# Declared losses


async def of_succession(
    refusal: BadSuccession, old: Mirror, target: Target, tiles: TileReader, now: int
) -> Value | None:
    """Two declarations; or one, and a leaf that was changed, as it stands in each of two trees.

    None where the log has signed nothing against itself, or no note covers just what our mirror of the old one holds.
    """
    if refusal.changed is None:
        return successor_evidence(now, *refusal.declared) if refusal.declared else None
    known, (index, leaf) = old.target(), refusal.changed
    if known is None or known.size != old.size:
        return None
    ((first,),) = old.held(0, 1)
    ((was,),) = old.held(index, index + 1)
    paths = [await asyncio.to_thread(range_inclusion, old, number) for number in (0, index)]
    paths.append(await tiles.inclusion(index + shift_after(first)))
    notes = [known.note, target.note]
    return leaf_evidence(now, refusal.declared[0], notes, index, [first, was, leaf], paths)


def range_inclusion(mirror: Mirror, index: int) -> list[bytes]:
    """The inclusion proof of a leaf in the tree over all that is held."""
    return [range_hash(mirror, *span) for span in inclusion_ranges(index, mirror.size)]


class Stretch:
    """The leaves up to an accused one: those that a mirror holds, then the refused chunk."""

    def __init__(self, mirror: Mirror, chunk: Sequence[bytes], index: int) -> None:
        self._mirror, self._chunk, self._index = mirror, chunk, index

    def collect(self, size: int, folder: Path) -> tuple[int | None, list[bytes], list[Known]]:
        """Where to start, the leaves from there to the accused one, and what is known of their chains."""
        accused = self._leaves(self._index, self._index + 1)[0]
        chain = self._accused_chain(accused, size)
        if chain is None:
            return self._index, [accused], []
        commitment = self._commitment_before()
        start = 0 if commitment is None else commitment
        if self._index - start >= MAX_LEAVES:
            return None, [], []
        leaves = self._leaves(start, self._index + 1)
        entries = {leaf[1:33] for leaf in leaves if len(leaf) == ENTRY_SIZE and leaf[0] == ENTRY}
        chains = entries if chain == b"" else {chain}
        if commitment is None:
            return 0, leaves, [Known(Place(chain_id, None, None, []), None) for chain_id in chains]
        return start, leaves, self._known(commitment + 1, chains, folder)

    def peaks(self, size: int) -> list[bytes]:
        """The right edge of the tree of this size."""
        if size >= self._mirror.size:
            return self._mirror.peaks_after(self._chunk[: size - self._mirror.size])
        return range_peaks(self._mirror, 0, size)

    def _accused_chain(self, data: bytes, size: int) -> bytes | None:
        """The chain that the accused leaf does not follow; b"" for a map; None if its form or place is wrong."""
        try:
            leaf = decode_leaf(data)
        except Malformed:
            return None
        if isinstance(leaf, MapLeaf):
            return b""
        return leaf.chain_id if isinstance(leaf, Entry) and self._index != size - 1 else None

    def _commitment_before(self) -> int | None:
        begin = self._index
        while begin > 0:
            end, begin = begin, max(0, begin - TILE_WIDTH)
            for index, leaf in zip(range(end - 1, begin - 1, -1), reversed(self._leaves(begin, end)), strict=True):
                if len(leaf) == HASH_LEAF_SIZE and leaf[0] == MAP:
                    return index
            if self._index - begin > MAX_LEAVES:
                break
        return None

    def _leaves(self, begin: int, end: int) -> list[bytes]:
        size = self._mirror.size
        leaves = [leaf for part in self._mirror.held(begin, min(end, size)) for leaf in part]
        return [*leaves, *self._chunk[max(0, begin - size) : max(0, end - size)]]

    def _known(self, size: int, chains: set[bytes], folder: Path) -> list[Known]:
        """What the map over the first leaves held of these chains; past that, by a second replay."""
        if size >= self._mirror.size:
            return self._mirror.known_after(self._chunk[: size - self._mirror.size], chains)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            copy = Mirror(Path(place) / "replay.db")
            try:
                for leaves in self._mirror.held(0, size):
                    copy.replay_held(leaves)
                return copy.known_after([], chains)
            finally:
                copy.close()
