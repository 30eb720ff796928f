"""A bounded dictionary of bytes that never change, shared by threads."""

from __future__ import annotations

from threading import Lock

ENTRY_OVERHEAD = 170  # two bytes objects and a dictionary slot in CPython


class Cache:
    """A bounded dictionary in two generations: when the young one is full, the old one goes.

    A hit in the young generation is one dictionary look-up without a lock; a hit in the old one moves up. An
    entry is immutable and right for ever, so a race costs a miss at worst.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._lock = limit // 2, 0, Lock()
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        cost = len(key) + len(value) + ENTRY_OVERHEAD
        with self._lock:
            if key in self._young or cost > self._limit:
                return
            if self._used + cost > self._limit:
                self._old, self._young, self._used = self._young, {}, 0
            self._young[key] = value
            self._used += cost
