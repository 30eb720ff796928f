"""From one schema version of log.db to the next: `nextcloud-audit upgrade --data DIR`.

    upgrade_store(directory)        [1, 2] where it was one version behind, [2] where there was nothing to do

A log is never upgraded on the way: opening an older one is refused, and says that this command is there. Everything
happens in one transaction, so that a crash leaves the old version or the new one. Entries, leaves and trees are never
touched: an upgrade changes what surrounds them.

    1 -> 2    chains have a user, owners say whose chains are theirs, tokens have a kind; what is in a Nextcloud is kept
"""

from __future__ import annotations

import os
import sqlite3

from audit.errors import Fatal, Refused
from audit.schema import SCHEMA_VERSION, LogTable, create_tables
from audit.store import FILE_NAME, read_version

_COLUMNS: dict[int, tuple[tuple[str, str], ...]] = {
    1: (
        ("chains", "user VARCHAR NOT NULL DEFAULT ''"),
        ("owners", "chains_of VARCHAR NOT NULL DEFAULT ''"),
        ("tokens", "kind VARCHAR NOT NULL DEFAULT 'owner'"),
    ),
    2: (),  # a new table
}


def upgrade_store(directory: str) -> list[int]:
    """Brings log.db to this program's version; returns the versions that it had. The caller holds the directory."""
    path = os.path.join(directory, FILE_NAME)
    if not os.path.exists(path):
        raise Refused(f"log.db: there is none in {directory}")
    conn = sqlite3.connect(path, isolation_level=None)
    try:
        conn.execute("PRAGMA synchronous=FULL")
        version = read_version(conn)
        if version > SCHEMA_VERSION:
            raise Refused(f"log.db: got schema version {version}, and this program knows {SCHEMA_VERSION} at most")
        if version == SCHEMA_VERSION:
            return [version]
        conn.execute("BEGIN EXCLUSIVE")
        for step in range(version, SCHEMA_VERSION):
            for name, column in _COLUMNS[step]:
                conn.execute(f"ALTER TABLE {name} ADD COLUMN {column}")
        _make_the_rest(conn)
        conn.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (b"%d" % SCHEMA_VERSION,))
        conn.execute("COMMIT")
        return [version, SCHEMA_VERSION]
    except sqlite3.Error as error:
        raise Fatal(f"log.db: the upgrade failed and was not made: {error}") from error
    finally:
        conn.close()  # what was not committed is gone


def _make_the_rest(conn: sqlite3.Connection) -> None:
    """Tables that are new, and all indexes as they are now."""
    known = {row[0] for row in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").fetchall():
        conn.execute(f'DROP INDEX "{name}"')
    create_tables(conn, LogTable.metadata, known)
