"""Tile paths and bundles against the spec's examples, and everything that is nearly one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import tile
from verifier.errors import Error, Malformed
from verifier.tile import ENTRIES, Tile, format_tile_path, parse_tile_path, plan_tiles, tile_width

PATHS = {
    "tile/0/000": Tile(0, 0),
    "tile/0/x001/x234/067": Tile(0, 1234067),
    "tile/0/999": Tile(0, 999),
    "tile/0/x001/000": Tile(0, 1000),
    "tile/0/x001/000.p/7": Tile(0, 1000, 7),
    "tile/63/000.p/255": Tile(63, 0, 255),
    "tile/entries/x123/456": Tile(ENTRIES, 123456),
    "tile/entries/000.p/1": Tile(ENTRIES, 0, 1),
}

tiles = st.builds(Tile, st.integers(-1, tile.MAX_LEVEL), st.integers(0, tile.MAX_NUMBER), st.integers(1, 256))


@pytest.mark.parametrize("path", PATHS)
def test_path_examples(path: str) -> None:
    """The forms of tlog-tiles, both ways."""
    assert parse_tile_path(path) == PATHS[path]
    assert format_tile_path(PATHS[path]) == path


@given(tiles)
def test_path_round_trip(coordinates: Tile) -> None:
    """Every tile has a path within the limit, and the path leads back to it."""
    path = format_tile_path(coordinates)
    assert len(path) <= tile.MAX_PATH_SIZE
    assert parse_tile_path(path) == coordinates


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "/",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "0/000",
            "/tile/0/000",
            "tile/0/000/",
            "tile//000",
            "tile/tile/0/000",
        ),
        *(
            "tile/00/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/+1/000",
            "tile/x/000",
            "tile/entries0/000",
            "tile/0entries/000",
        ),
        *(
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000/000",
            "tile/0/x01/000",
            "tile/0/001/000",
            "tile/0/x001/x000",
            "tile/0/x001000",
        ),
        *(
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/07",
            "tile/0/000.p/1.p/1",
        ),
        *(
            "tile/0/00\u0660",
            "tile/\u0661/000",
            "tile/0/000 ",
            " tile/0/000",
            "tile/0/000\n",
            "tile/0/../0/000",
            "tile/0/000?a",
        ),
        "tile/0/" + "x999/" * 8 + "999",
        "tile/0/" + "x000/" * 2000 + "001",
    ],
)
def test_path_other_spellings_are_refused(path: str) -> None:
    """A tile has one path: no other digits, slashes, zeros, levels or widths."""
    with pytest.raises(Malformed, match="tile path"):
        parse_tile_path(path)


@given(st.text(alphabet="0123456789xp./tilenrs", max_size=40))
def test_path_parses_to_itself_or_not_at_all(text: str) -> None:
    """Whatever is accepted is formatted back to the same text; whatever is refused raises nothing but our errors."""
    for path in (text, "tile/" + text, "tile/0/" + text):
        try:
            assert format_tile_path(parse_tile_path(path)) == path
        except Error:
            pass


def test_tiles_of_the_spec_example() -> None:
    """A tree of 70,000 leaves has the tiles that tlog-tiles counts, one of 256 as well."""
    planned = plan_tiles(0, 70_000)
    assert [t for t in planned if t.width < 256] == [
        Tile(-1, 273, 112),
        Tile(0, 273, 112),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert len(planned) == 274 + 274 + 2 + 1
    assert plan_tiles(0, 256) == [Tile(-1, 0), Tile(0, 0), Tile(1, 0, 1)]
    assert plan_tiles(256, 256) == []


@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_growth_plans_what_changed(old: int, more: int) -> None:
    """Planned tiles are those whose width differs between the two sizes, each with its new width."""
    new = old + more
    planned = plan_tiles(old, new)
    assert len(set(planned)) == len(planned)
    whole = {(t.level, t.number): t.width for t in plan_tiles(0, new)}
    before = {(t.level, t.number): t.width for t in plan_tiles(0, old)}
    assert {t[:2]: t.width for t in planned} == {key: w for key, w in whole.items() if before.get(key) != w}
    assert all(tile_width(level, number, new) == width for (level, number), width in whole.items())
    assert tile_width(0, new // 256 + 1, new) == 0


def test_entry_bundle_round_trip_and_bounds() -> None:
    """Entries travel with their lengths; a bundle is full at 256, an entry at 65,535 bytes."""
    entries = [b"", b"x", b"y" * 65_535]
    data = tile.encode_entry_bundle(entries)
    assert data[:5] == b"\x00\x00\x00\x01x"
    assert tile.decode_entry_bundle(data, 3) == entries
    for width in (0, 2, 4):
        with pytest.raises(Malformed, match="entry bundle"):
            tile.decode_entry_bundle(data, width)
    with pytest.raises(Malformed, match="entry bundle"):
        tile.decode_entry_bundle(data[:-1], 3)
    for wrong in ([], [b""] * 257, [b"z" * 65_536]):
        with pytest.raises(Malformed, match="entry bundle"):
            tile.encode_entry_bundle(wrong)


def test_bundle_is_cut_to_the_entries_asked_for() -> None:
    """A bundle that grew holds the smaller one; one with fewer entries than are asked for is no such bundle."""
    entries = [b"", b"x", b"y" * 300]
    data = tile.encode_entry_bundle(entries)
    for width in range(1, 4):
        assert tile.cut_entry_bundle(data, width) == tile.encode_entry_bundle(entries[:width])
    for short, width in ((data, 4), (data[:-1], 3), (b"", 1), (b"\x00", 1)):
        with pytest.raises(Malformed, match="entry bundle"):
            tile.cut_entry_bundle(short, width)


def test_hash_tile_has_exact_length() -> None:
    """A tile is its hashes, exactly as many as its width says."""
    hashes = [bytes([i]) * 32 for i in range(3)]
    data = tile.encode_hash_tile(hashes)
    assert tile.decode_hash_tile(data, 3) == hashes
    for width in (2, 4):
        with pytest.raises(Malformed, match="tile: want"):
            tile.decode_hash_tile(data, width)
    for wrong in ([], [b"\0" * 31], [b"\0" * 32] * 257):
        with pytest.raises(Malformed, match="tile: want"):
            tile.encode_hash_tile(wrong)


@pytest.mark.parametrize(
    "wrong", [Tile(-2, 0), Tile(64, 0), Tile(0, -1), Tile(0, tile.MAX_NUMBER + 1), Tile(0, 0, 0), Tile(0, 0, 257)]
)
def test_format_refuses_impossible_tiles(wrong: Tile) -> None:
    """No path for a tile that cannot be."""
    with pytest.raises(Malformed, match="tile path"):
        format_tile_path(wrong)
