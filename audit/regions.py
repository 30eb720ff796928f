"""Replay on disk: the chains of a log and the map over them, in regions (`audit.region`), one row each.

    regions = Regions(conn)
    regions.replay(first, leaves)        in the caller's transaction; BrokenRule for the first leaf to break a rule
    regions.prove(chain_id)              its tip, and its place in the map

Leaves of a chunk go region by region, not one after the other: the row is read once, its chains take all their steps,
its top is noted for each map commitment of the chunk that it changes, the row is written once. Those tops are all that
the region above has to know. So a chunk reads and writes each region that it touches once, however many commitments
lie in it, and holds no more than one path of regions in memory.

    leaves         entry of a   entry of b   commitment 0   entry of a   commitment 1
    region 3f      a1 -> top at 0: T0                       a2 -> top at 1: T1
    region 3       T0 in slot f -> top at 0                 T1 in slot f -> top at 1
    root           top at 0 = what commitment 0 must say    top at 1 = what commitment 1 must say
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from audit.errors import Damaged, Fatal
from audit.map_page import digits_of
from audit.region import BELOW, SLOT0, TOP, Region, decode_region, encode_region
from verifier.leaf import ENTRY, ENTRY_SIZE, MapLeaf
from verifier.map import EMPTY, Place, map_value
from verifier.replay import BrokenRule, Known, Tip, check_form, check_map, next_tip

WRITE_BATCH = 200  # rows of some 4 KiB

_READ = "SELECT data FROM regions WHERE prefix = ?"
_WRITE = "INSERT INTO regions (prefix, data) VALUES (?, ?) ON CONFLICT (prefix) DO UPDATE SET data = excluded.data"

Entry = tuple[bytes, int, int, bytes]  # chain id, index, number of the commitment that covers it, leaf
Tops = list[tuple[int, bytes]]  # number of a commitment, the top of a region as of then


class RegionDamaged(Fatal):
    """A row is missing, or is not what was written."""


class Chunk(NamedTuple):
    """Leaves by what replay does with them."""

    entries: list[Entry]
    commitments: list[tuple[int, bytes]]  # index, root
    broken: BrokenRule | None  # the first leaf without a right form; those after it are left out


def sort_leaves(first: int, leaves: Sequence[bytes]) -> Chunk:
    """Leaves number `first` and on. Of those that are neither entries nor commitments the form is all that counts."""
    entries: list[Entry] = []
    commitments: list[tuple[int, bytes]] = []
    for index, data in enumerate(leaves, first):
        if len(data) == ENTRY_SIZE and data[0] == ENTRY:
            entries.append((data[1:33], index, len(commitments), data))
            continue
        try:
            leaf = check_form(index, data)
        except BrokenRule as broken:
            return Chunk(entries, commitments, broken)
        if type(leaf) is MapLeaf:
            commitments.append((index, leaf.root))
    return Chunk(entries, commitments, None)


class Regions:
    """The chains and the map of one mirror."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._rows: list[tuple[bytes, bytes]] = []
        self._broken: BrokenRule | None = None

    def replay(self, first: int, leaves: Sequence[bytes]) -> None:
        """Takes up leaves number `first` and on, or raises BrokenRule for the first one that breaks a rule.

        After that, what the transaction wrote is good for nothing but a rollback.
        """
        self._rows.clear()
        entries, commitments, self._broken = sort_leaves(first, leaves)
        top = self._read(b"", None)
        root, roots = top.top(), dict(self._follow(top, entries) if entries else [])
        self._flush()
        for number, (index, said) in enumerate(commitments):
            if self._broken is not None and self._broken.index < index:
                break
            root = check_map(index, said, roots.get(number, root))
        if self._broken is not None:
            raise self._broken

    def prove(self, key: bytes) -> Known:
        """The chain's tip, and the path to its place in the map."""
        region, place, held, siblings = self._read(b"", None), TOP, None, list[bytes]()
        while place in region.nodes and (held := region.held_at(place)) is None:
            if place in region.children:
                region, place = self._read(region.child_prefix(place), region.nodes[place]), TOP
            else:
                place = region.half(key, place)
                siblings.append(region.nodes.get(place ^ 1, EMPTY))
        siblings.reverse()
        if held is None:
            return Known(Place(key, None, None, siblings), None)
        value = map_value(*region.tips[held])
        if held != key:
            return Known(Place(key, None, (held, value), siblings), None)
        return Known(Place(key, value, None, siblings), region.tips[key])

    # Following

    def _follow(self, region: Region, entries: Sequence[Entry]) -> Tops:
        """Writes the region and those below it as these entries leave them; its tops on the way."""
        tops: dict[int, Tops] = defaultdict(list)
        if region.children:
            entries = self._follow_children(region, entries, tops)
        moved = self._take_steps(region.tips, entries)
        found = [(n, region.update(moved[n], tops[n])) for n in sorted(moved.keys() | tops.keys())]
        self._write(region)
        return found

    def _follow_children(self, region: Region, entries: Sequence[Entry], tops: dict[int, Tops]) -> list[Entry]:
        """Hands entries on to children, and adds what became of these by commitment; returns the other entries."""
        others: list[Entry] = []
        parts: list[list[Entry]] = [[] if slot in region.children else others for slot in range(SLOT0, BELOW)]
        byte, shift = len(region.prefix) >> 1, 0 if len(region.prefix) & 1 else 4
        for entry in entries:
            parts[entry[0][byte] >> shift & 15].append(entry)
        for slot, part in enumerate(parts, SLOT0):
            if part and part is not others:
                child = self._read(region.child_prefix(slot), region.nodes[slot])
                for number, top in self._follow(child, part):
                    tops[number].append((slot, top))
        return others

    def _take_steps(self, tips: dict[bytes, Tip], entries: Sequence[Entry]) -> dict[int, dict[bytes, Tip]]:
        """Moves the tips of chains; the last one of each by commitment. A leaf that does not follow is noted."""
        moved: dict[int, dict[bytes, Tip]] = defaultdict(dict)
        for chain_id, index, number, leaf in entries:
            try:
                tips[chain_id] = moved[number][chain_id] = next_tip(tips.get(chain_id), index, leaf)
            except BrokenRule as broken:
                if self._broken is None or index < self._broken.index:
                    self._broken = broken
        return moved

    # Rows

    def _read(self, prefix: bytes, top: bytes | None) -> Region:
        """A region whose top is what its parent says. The root has no parent, and may not be there yet."""
        row = self._conn.execute(_READ, (prefix,)).fetchone()
        if row is None and top is None:
            return Region(prefix)
        try:
            if row is None:
                raise Damaged("missing")
            region = decode_region(prefix, row[0])
            if top not in (None, region.top()):
                raise Damaged("not the one that its parent names")
        except Damaged as error:
            where = digits_of(prefix) or "root"
            raise RegionDamaged(f"mirror: region {where}: {error}; remove its file, and it is fetched again") from None
        return region

    def _write(self, region: Region) -> None:
        """The region, and the children that it gets where it has become crowded."""
        if region.is_crowded():
            for child in region.hand_down():
                self._write(child)
        self._rows.append((region.prefix, encode_region(region)))
        if len(self._rows) >= WRITE_BATCH:
            self._flush()

    def _flush(self) -> None:
        self._conn.executemany(_WRITE, self._rows)
        self._rows.clear()
