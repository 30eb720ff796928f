"""One line on stderr that says what is going on: rewritten on a terminal, a new line for each step elsewhere."""

from __future__ import annotations

import sys
import time

EVERY_S = 0.5
EVERY_S_IN_A_FILE = 15.0


class Progress:
    """A step of known length. `advance` may be called as often as one likes."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._start = self._said = time.monotonic()
        self._tty = sys.stderr.isatty()
        say(f"{what} ...")

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        last = self._done >= self._total
        if not last and now - self._said < (EVERY_S if self._tty else EVERY_S_IN_A_FILE):
            return
        self._said = now
        left = (now - self._start) / self._done * (self._total - self._done)
        text = f"{self._what}: {self._done:,} of {self._total:,}, {left:.0f} s left"
        end = "\n" if last or not self._tty else ""
        print(("\r\033[K" if self._tty else "") + text, end=end, file=sys.stderr, flush=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
