"""Tiles: the log's hashes and entries as immutable files (c2sp.org/tlog-tiles).

    tile/0/x001/x234/067          256 leaf hashes, of entries 1234067 * 256 and on
    tile/1/000.p/17               the 17 hashes of full level-0 tiles that exist so far
    tile/entries/000.p/112        the first 112 entries, each as its length (u16) and its bytes

Hash i of tile n on level l is the root over the leaves (n * 256 + i) * 256^l up to (n * 256 + i + 1) * 256^l, so every
hash in a tile is that of a complete subtree and never changes. A partial tile, `.p/W`, has 1 to 255 hashes; a full
one has 256 and no suffix.

    path  = "tile/" level "/" index [".p/" width]        level = 0..63 or "entries"
    index = groups of three digits, all but the last one after an "x", no more groups than needed

Paths are relative to the log's prefix and have one spelling each: what is parsed is formatted again and compared.
Limits: entries have at most 65,535 bytes (their length is a u16); an index at most (2^63-1) / 256.

Not checked here: that hashes or entries lead to a signed root (`merkle`), or that a checkpoint calls for a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier.encoding import HASH_SIZE, MAX_U64, u16
from verifier.errors import Malformed
from verifier.record import NamedTuple

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT  # tlog-tiles: "exactly 256 hashes wide"
MAX_LEVEL = 63  # tlog-tiles: "between 0 and 63"
MAX_NUMBER = MAX_U64 // TILE_WIDTH
MAX_ENTRY_SIZE = 2**16 - 1  # tlog-tiles: "big-endian uint16 length-prefixed"
MAX_PATH_SIZE = 64  # the longest path, of MAX_NUMBER, has 41 characters
ENTRIES = -1  # the level of entry bundles, which lie below the leaf hashes


class Tile(NamedTuple):
    """A tile's coordinates: `level` 0..63 or ENTRIES, `number` (its index within the level), `width` 1..256."""

    level: int
    number: int
    width: int = TILE_WIDTH


def format_tile_path(tile: Tile) -> str:
    """The path under the log's prefix: `tile/0/x001/x234/067` or, of a partial tile, `tile/0/000.p/7`."""
    level, number, width = tile
    if not (level == ENTRIES or 0 <= level <= MAX_LEVEL):
        raise Malformed(f"want a level of at most {MAX_LEVEL}", "tile path", level)
    if not 0 <= number <= MAX_NUMBER:
        raise Malformed(f"want an index of at most {MAX_NUMBER}", "tile path", number)
    if not 1 <= width <= TILE_WIDTH:
        raise Malformed(f"want a width of 1 to {TILE_WIDTH}", "tile path", width)
    elements = f"{number % 1000:03}"
    while number >= 1000:
        number //= 1000
        elements = f"x{number % 1000:03}/{elements}"
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{'entries' if level == ENTRIES else level}/{elements}{suffix}"


def parse_tile_path(path: str) -> Tile:
    """The coordinates that `format_tile_path` gives this very path for; anything else is Malformed."""
    tile = _guess_tile(path) if len(path) <= MAX_PATH_SIZE else None
    if tile is None or format_tile_path(tile) != path:
        raise Malformed("want tile/LEVEL/INDEX with an optional .p/WIDTH", "tile path", path)
    return tile


def _guess_tile(path: str) -> Tile | None:
    """Reads the numbers laxly; the comparison in `parse_tile_path` is what makes it strict."""
    start, _, rest = path.removeprefix("tile/").partition("/")
    elements, partial, width = rest.partition(".p/")
    digits = [start.replace("entries", "0"), elements.replace("/", "").replace("x", ""), width or str(TILE_WIDTH)]
    if not all(text.isascii() and text.isdigit() for text in digits):
        return None
    level, number, wide = map(int, digits)
    if level > MAX_LEVEL or number > MAX_NUMBER or not 1 <= wide <= TILE_WIDTH:
        return None
    return Tile(ENTRIES if start == "entries" else level, number, wide)


def tile_width(level: int, number: int, size: int) -> int:
    """How many hashes (or entries) that tile has in a tree of this size; 0 where there is no such tile."""
    hashes = size >> (TILE_HEIGHT * max(level, 0))
    return max(0, min(TILE_WIDTH, hashes - number * TILE_WIDTH))


def plan_tiles(old_size: int, new_size: int) -> list[Tile]:
    """The tiles, entry bundles first, that a log of `new_size` has to publish and one of `old_size` had not."""
    tiles: list[Tile] = []
    level = ENTRIES
    while level <= MAX_LEVEL and new_size >> (TILE_HEIGHT * max(level, 0)):
        shift = TILE_HEIGHT * max(level, 0)
        old, new = old_size >> shift, new_size >> shift
        if new > old:
            numbers = range(old // TILE_WIDTH, (new - 1) // TILE_WIDTH + 1)
            tiles += [Tile(level, number, tile_width(level, number, new_size)) for number in numbers]
        level += 1
    return tiles


def encode_hash_tile(hashes: Sequence[bytes]) -> bytes:
    """The bytes of a tile: its hashes, one after the other."""
    if not 1 <= len(hashes) <= TILE_WIDTH or any(len(value) != HASH_SIZE for value in hashes):
        raise Malformed(f"want 1 to {TILE_WIDTH} hashes of {HASH_SIZE} bytes", "tile", len(hashes))
    return b"".join(hashes)


def decode_hash_tile(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile that has exactly `width` of them."""
    if len(data) != width * HASH_SIZE:
        raise Malformed(f"want {width * HASH_SIZE} bytes", "tile", len(data))
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def encode_entry_bundle(entries: Sequence[bytes]) -> bytes:
    """The bytes of an entry bundle: each entry after its length as u16."""
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise Malformed(f"want 1 to {TILE_WIDTH} entries", "entry bundle", len(entries))
    largest = max(map(len, entries))
    if largest > MAX_ENTRY_SIZE:
        raise Malformed(f"want entries of at most {MAX_ENTRY_SIZE} bytes", "entry bundle", largest)
    return b"".join([u16(len(entry)) + entry for entry in entries])


def cut_entry_bundle(data: bytes, width: int) -> bytes:
    """The first `width` entries of a bundle that may have more, as they are encoded; Malformed if it has fewer."""
    end = 0
    for _ in range(width):
        end += 2 + int.from_bytes(data[end : end + 2], "big")
    if end > len(data):
        raise Malformed(f"want {width} entries", "entry bundle", len(data))
    return data[:end]


def decode_entry_bundle(data: bytes, width: int) -> list[bytes]:
    """The entries of a bundle that holds exactly `width` of them, with nothing left over."""
    entries, end = [], 0
    for _ in range(width):  # a length that is cut off reads as a smaller one, and the end is too far all the same
        begin = end + 2
        end = begin + int.from_bytes(data[end:begin], "big")
        entries.append(data[begin:end])
    if end != len(data):
        raise Malformed(f"want {end} bytes for {width} entries", "entry bundle", len(data))
    return entries
