"""How fast a Nextcloud is read: its users' share, bounds on new and changed files, a budget for reading bytes again.

    DIR/nextcloud.json: "limits":{"share":"25%","files":"50","rate":"10MB",
                                  "again_days":"30","again_hours":"5","again_rate":"20MB"}

    share                     the part of the time in which a scan may keep the server busy (`share`); 100%: no bound
    files, rate               looks at new and changed files: so many, and so many bytes, a second; without: no bound
    again_days                everything is read again within so many days, an equal share each day
    again_hours, again_rate   for at most so many hours a day, at so many bytes a second

All are optional; the numbers of the budget above are what holds without. Rates have B, kB, MB or GB, by the second.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from verifier.errors import Malformed, Usage

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,3})?")
DAY_HOURS, MAX_DAYS = 24, 3_650
DEFAULT_SHARE = 0.25  # bench, group nextcloud: what an upload suffers beside it


class Rate(NamedTuple):
    """A bound on looks at new and changed files; 0 is none."""

    files_per_s: float = 0.0
    bytes_per_s: float = 0.0


class Budget(NamedTuple):
    """Everything is read again within `days`, in at most `hours` a day, at `bytes_per_s` (0: as fast as it goes)."""

    days: int = 30
    hours: float = 5.0
    bytes_per_s: float = 20e6


class Limits(NamedTuple):
    """All of it, as it is configured."""

    rate: Rate = Rate()
    budget: Budget = Budget()
    share: float = DEFAULT_SHARE


NO_LIMITS = Limits()


class Throttle:
    """Says how long to wait so that on average no more than the rate goes through. A large file makes the next wait."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock, self._free = rate, clock, 0.0

    def delay(self, files: int, size: int) -> float:
        """Seconds until these may begin; 0 where there is no bound. They count as let through."""
        now = self._clock()
        start = max(now, self._free)
        per_file = files / self.rate.files_per_s if self.rate.files_per_s else 0.0
        per_byte = size / self.rate.bytes_per_s if self.rate.bytes_per_s else 0.0
        self._free = start + max(per_file, per_byte)
        return start - now

    async def wait(self, files: int, size: int) -> None:
        if delay := self.delay(files, size):
            await asyncio.sleep(delay)


def parse_limits(members: Mapping[str, str], before: Limits = NO_LIMITS) -> Limits:
    """The limits in a configuration, given as its strings; what is not there is as before."""
    if unknown := members.keys() - _READERS.keys():
        raise Malformed(f"want {', '.join(_READERS)}, not {', '.join(sorted(unknown))}", "limits")
    found = {name: _READERS[name](value, f"limits {name}") for name, value in members.items()}
    rate, budget, share = before
    return Limits(
        Rate(found.get("files", rate.files_per_s), found.get("rate", rate.bytes_per_s)),
        Budget(
            int(found.get("again_days", budget.days)),
            found.get("again_hours", budget.hours),
            found.get("again_rate", budget.bytes_per_s),
        ),
        found.get("share", share),
    )


def parse_rate(value: str, where: str = "rate") -> float:
    """Bytes a second of `500kB`, `10MB`, `1.5GB`; a `/s` at its end may stand there."""
    found = re.fullmatch(rf"(?P<number>{_NUMBER.pattern})(?P<unit>{'|'.join(_UNITS)})(/s)?", value)
    if found is None or not (rate := float(found["number"]) * _UNITS[found["unit"]]):
        raise Usage(f"{where}: got {value!r}, want a number above 0 and B, kB, MB or GB, like 10MB")
    return rate


def format_rate(bytes_per_s: float) -> str:
    """`10 MB/s`; 0 is no bound."""
    if not bytes_per_s:
        return "as fast as it goes"
    unit = next(unit for unit in reversed(_UNITS) if bytes_per_s >= _UNITS[unit] or unit == "B")
    return f"{bytes_per_s / _UNITS[unit]:g} {unit}/s"


def parse_files(value: str, where: str = "files") -> float:
    """Files a second."""
    if not _NUMBER.fullmatch(value) or not float(value):
        raise Usage(f"{where}: got {value!r}, want a number above 0")
    return float(value)


def parse_share(value: str, where: str = "share") -> float:
    """0.25 of `25%`; 1 to 100."""
    if not (found := re.fullmatch(r"(100|[1-9][0-9]?)%", value)):
        raise Usage(f"{where}: got {value!r}, want 1% to 100%, like 25%")
    return int(found[1]) / 100


def format_share(share: float) -> str:
    """`25%`."""
    return f"{round(share * 100)}%"


def _days(value: str, where: str) -> float:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_DAYS):
        raise Usage(f"{where}: got {value!r}, want 1 to {MAX_DAYS}")
    return float(value)


def _hours(value: str, where: str) -> float:
    if not _NUMBER.fullmatch(value) or float(value) > DAY_HOURS:
        raise Usage(f"{where}: got {value!r}, want 0 (never) to {DAY_HOURS}")
    return float(value)


_READERS: dict[str, Callable[[str, str], float]] = {
    "share": parse_share,
    "files": parse_files,
    "rate": parse_rate,
    "again_days": _days,
    "again_hours": _hours,
    "again_rate": parse_rate,
}
LIMIT_NAMES = tuple(_READERS)
