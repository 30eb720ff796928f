"""How far a scan is, in words, and what is left of it once that can be told.

remaining = Remaining(time.monotonic)
remaining.line(progress)        "12,345 of 100,000 files, 310 of 2,400 MiB read, 1 h 5 min left"
remaining.due(progress, 60.0)   the same, once a minute; else None

What holds a scan back on purpose is said behind it: "1 h 5 min left at a share of 25%".
"""

from __future__ import annotations

from collections.abc import Callable

from audit.folder import Progress
from verifier.words import format_duration


class Remaining:
    """One for a scan: the pace is that since its first report."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._first = clock, 0.0
        self._said = clock()
        self._begun: Progress | None = None

    def due(self, progress: Progress, every_s: float) -> str | None:
        """The line, if the last one was so long ago."""
        line = self.line(progress)
        if self._clock() - self._said < every_s:
            return None
        self._said = self._clock()
        return line

    def line(self, progress: Progress) -> str:
        total = "?" if progress.files_total is None else f"{progress.files_total:,}"
        done, size = progress.bytes_hashed >> 20, progress.bytes_total >> 20
        left = self.left(progress)
        held = f" {progress.held}" if progress.held else ""
        end = "" if left is None else f", {format_duration(left)} left{held}"
        return f"{progress.files_seen:,} of {total} files, {done:,} of {size:,} MiB read{end}"

    def left(self, progress: Progress) -> int | None:
        """Seconds, at the pace since the first report; bytes or files, whichever take longer."""
        begun = self._begun
        if (
            begun is None or progress.files_total is None or progress.files_seen < begun.files_seen
        ):  # another part of it
            self._begun, self._first = progress, self._clock()
            return None
        elapsed, longest = self._clock() - self._first, 0.0
        for now, then, end in (
            (progress.files_seen, begun.files_seen, progress.files_total),
            (progress.bytes_hashed, begun.bytes_hashed, progress.bytes_total),
        ):
            if now < end:
                if now == then:
                    return None
                longest = max(longest, elapsed * (end - now) / (now - then))
        return int(longest)
