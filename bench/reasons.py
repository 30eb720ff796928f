"""Why a row misses its goal, where that is known and does not depend on the run: by name and goal.

Reasons that do depend on it (what a part took alone, what this machine reached in the same rounds) are written by the
group that measures. An unmet row without either makes the bench exit 1.
"""

from __future__ import annotations

REASONS: dict[tuple[str, str], str] = {}
