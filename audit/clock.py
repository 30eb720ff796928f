"""What time it is, for whoever is not given a clock."""

from __future__ import annotations

import time


def system_clock() -> int:
    """POSIX seconds."""
    return int(time.time())
