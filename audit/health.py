"""How it goes with each cosigner, kept in the log's store so that a restart does not forget it.

    meta  "cosigner VKEY"  ->  "1800000000 -"              it answered last then
                               "1800000000 1800000600"     and has failed since then
                               "- 1800000600"              it never answered

The time of a success is written where its lines are stored, in that transaction; else a row is written when a cosigner
begins to fail, and when it is back. Only words to show: nothing is decided by them, so what cannot be read is left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import literal_column, select

from audit.schema import Meta, sql, table
from audit.store import Store, put_meta
from verifier.encoding import decode_decimal
from verifier.errors import Malformed
from verifier.note import VerifierKey, format_vkey

PREFIX = "cosigner "

_META = table(Meta)
_KEPT = sql(select(_META.c.key, _META.c.value).where(_META.c.key.like(literal_column(f"'{PREFIX}%'"))))


class Kept(NamedTuple):
    """POSIX seconds; None for never, and for a cosigner that does not fail."""

    last_success: int | None = None
    failing_since: int | None = None


def read_kept(conn: sqlite3.Connection) -> dict[str, Kept]:
    """What is kept, by the cosigners' vkeys."""
    found: dict[str, Kept] = {}
    for key, value in conn.execute(_KEPT):
        try:
            success, failing = map(_parse, value.decode("ascii").split(" "))
        except (Malformed, ValueError):
            continue
        found[key.removeprefix(PREFIX)] = Kept(success, failing)
    return found


def put_kept(conn: sqlite3.Connection, key: VerifierKey, kept: Kept) -> None:
    put_meta(conn, PREFIX + format_vkey(key), " ".join(map(_format, kept)).encode("ascii"))


def put_success(conn: sqlite3.Connection, keys: Iterable[VerifierKey], now: int) -> None:
    for key in keys:
        put_kept(conn, key, Kept(now))


def keep(store: Store, key: VerifierKey, kept: Kept) -> None:
    """A transaction of its own, for what changes without a cosignature."""
    with store.transaction() as conn:
        put_kept(conn, key, kept)


def _parse(word: str) -> int | None:
    return None if word == "-" else decode_decimal(word, "cosigner's time")


def _format(time: int | None) -> str:
    return "-" if time is None else str(time)
