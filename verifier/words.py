"""How values are put into words for people: times, sizes, names, and text that somebody else wrote.

escape("a\\x1b[2Jb")   ->  a\\x1b[2Jb         nothing that moves a cursor reaches the terminal
when(1800000000)       ->  2027-01-15 08:00:00 UTC
parse_duration("7d")   ->  604800
"""

from __future__ import annotations

import time

from verifier.entry import encode_path
from verifier.errors import Usage

MAX_TIME = 253_402_300_799  # the last second of the year 9999, beyond which strftime has no spelling
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def escape(text: str) -> str:
    """The text with everything unprintable, bidirectional marks included, shown as an escape."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text])


def when(seconds: int) -> str:
    """A time in UTC."""
    if seconds > MAX_TIME:
        return f"{seconds} s after 1970"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 step`, `2 steps`, `12,345 bytes`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def parse_duration(value: str) -> int:
    """Seconds of `90`, `90s`, `5m`, `2h` or `7d`."""
    digits, unit = (value[:-1], value[-1:]) if value[-1:] in _UNITS else (value, "s")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise Usage(f"duration: got {value!r}, want a number and s, m, h or d, like 7d")
    return int(digits) * _UNITS[unit]


def format_duration(seconds: int) -> str:
    """`45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`: as exact as anybody needs to know how long they wait."""
    minutes, hours = seconds // 60 % 60, seconds // 3600 % 24
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if seconds < 86400 else f"{seconds // 86400} d {hours} h"


def parse_when(value: str) -> int:
    """POSIX seconds of `1800000000`, `2027-01-15`, `2027-01-15T08:00:00Z`. Always UTC."""
    if value.isascii() and value.isdigit() and len(value) <= 12:
        return int(value)
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise Usage(f"time: got {value!r}, want 2027-01-15T08:00:00Z or POSIX seconds") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = int(moment.timestamp())
    if seconds < 0:
        raise Usage(f"time: got {value!r}, want one after 1970")
    return seconds


def parse_remote(value: str) -> tuple[str | None, int | None]:
    """(path, None) or (None, file id). Digits are a file id; a path of digits only is written ./17."""
    if value.isascii() and value.isdigit() and len(value) <= 18:
        if value != str(int(value)):
            raise Usage(f"file id: got {value}, want no leading zero (a path is written ./{value})")
        return None, int(value)
    path = value.removeprefix("./")
    encode_path(path)
    if not path:
        raise Usage("path: want a path below the source's root, or a file id")
    return path, None
