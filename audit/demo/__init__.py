"""`nextcloud-audit demo`: the whole promise on one machine, then every attack that it is meant to withstand."""

from __future__ import annotations

from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """Runs the demo with the words after `demo`."""
    from audit.demo.story import main as run

    return run(words)
