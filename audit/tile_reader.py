"""A log's tiles over the network (tlog-tiles): the leaves that an auditor lacks, and proofs out of hash tiles.

    tiles = TileReader(fetch, "https://log.example", size)
    await tiles.leaves(65_536, 131_072)        from up to MAX_FETCHES entry bundles at a time
    await tiles.consistency(65_536)            the proof from that size to `size`

Nothing that it returns is verified: whoever asks compares it with a root that the log signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from audit.errors import PeerFailed
from verifier.encoding import HASH_SIZE
from verifier.leaf import ENTRY_SIZE
from verifier.merkle import (
    Range,
    compact_range,
    complete_subtrees,
    consistency_ranges,
    extend_peaks,
    fold_right,
    inclusion_ranges,
)
from verifier.tile import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_entry_bundle,
    decode_hash_tile,
    format_tile_path,
    tile_width,
)

MAX_FETCHES = 8  # at a time, for each log
MAX_BUNDLE_ENTRY = 2 + ENTRY_SIZE  # the longest leaf, after its length (SPEC 6.1)

Fetch = Callable[[str, int], Awaitable[bytes]]  # (url, most bytes) -> body, or PeerFailed


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
        return await self._hashes(consistency_ranges(size, self._size))

    async def inclusion(self, index: int) -> list[bytes]:
        """The inclusion proof of the leaf at this index."""
        return await self._hashes(inclusion_ranges(index, self._size))

    async def _hashes(self, ranges: Sequence[Range]) -> list[bytes]:
        proof = []
        for begin, end in ranges:
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
