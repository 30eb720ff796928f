"""Rows as text."""

from __future__ import annotations

from bench.measure import Row

HEADER = ("name", "value", "unit", "against", "ratio", "goal", "met")


def format_table(rows: list[Row]) -> str:
    """Columns as wide as what is in them; a reason goes on a line of its own."""
    cells = [HEADER, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = [_line(row, widths) for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    for at, row in reversed(list(enumerate(rows, 2))):
        if row.why and row.why != "no goal":
            lines.insert(at + 1, f"    {row.why}")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    value = "" if row.value is None else f"{row.value:,g}" if row.value < 1e4 else f"{row.value:,.0f}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    met = {True: "yes", False: "NO", None: "-"}[row.met]
    return row.name, value, row.unit, row.against, ratio, row.goal, met


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
