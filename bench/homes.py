"""A Nextcloud's database and data directory, made up: as many rows of oc_filecache as are wanted, each with its file.

make_homes(directory, [4096] * 1000)      DIRECTORY/data, DIRECTORY/owncloud.db: one user, FOLDER files in a folder
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import asynccontextmanager
from hashlib import md5
from typing import Any

from audit.directory import Directory, create_log, open_log
from audit.nextcloud.limits import Budget, Limits
from audit.nextcloud.line import Line
from audit.nextcloud.samehost import HostConfig, HostFirst, HostSession, open_host
from audit.nextcloud.source import NextcloudSource
from tests.nextcloud.databases import SCHEMA

USER, INSTANCE, ORIGIN = "alice", "ocbench00001", "log.example/files"
FOLDER = 1_000
STORAGE, DIRECTORY_TYPE, FILE_TYPE = 1, 1, 2
ROWS = "INSERT INTO oc_filecache VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
BLOCK = os.urandom(1 << 20)


def make_homes(directory: str, sizes: Iterable[int]) -> None:
    """A file for each size. No two have the same bytes."""
    conn = sqlite3.connect(os.path.join(directory, "owncloud.db"), isolation_level=None)
    for statement in SCHEMA.format(json="CLOB", user='"user"').split(";"):
        conn.execute(statement)
    conn.execute("PRAGMA synchronous=OFF")
    conn.execute("BEGIN")
    conn.execute("INSERT INTO oc_storages VALUES (?, ?)", (STORAGE, f"home::{USER}"))
    conn.execute("INSERT INTO oc_mimetypes VALUES (?, 'httpd/unix-directory'), (?, 'text/plain')", (1, 2))
    conn.executemany(ROWS, _rows(os.path.join(directory, "data", USER), sizes))
    conn.execute("COMMIT")
    conn.close()


def _rows(home: str, sizes: Iterable[int]) -> Iterator[tuple[object, ...]]:
    os.makedirs(os.path.join(home, "files"))
    yield _row(1, "files", -1, DIRECTORY_TYPE, 0, 1_700_000_000)
    number = parent = 1
    for count, size in enumerate(sizes):
        if count % FOLDER == 0:
            parent = number = number + 1
            folder = f"files/{count // FOLDER:05}"
            os.mkdir(os.path.join(home, folder))
            yield _row(number, folder, 1, DIRECTORY_TYPE, 0, 1_700_000_000)
        number += 1
        path = f"{folder}/{number:08}.txt"
        yield _row(number, path, parent, FILE_TYPE, size, _write(os.path.join(home, path), number, size))


def _row(number: int, path: str, parent: int, mime: int, size: int, mtime: int) -> tuple[object, ...]:
    name = md5(path.encode(), usedforsecurity=False).hexdigest()
    return number, STORAGE, path, name, parent, mime, size, mtime, mtime, f"{number:032x}"


def _write(path: str, number: int, size: int) -> int:
    """The file, and the whole second of its modification time."""
    with open(path, "wb", buffering=0) as file:
        data = (b"%020d" % number)[:size]
        file.write(data)
        for start in range(len(data), size, len(BLOCK)):
            file.write(BLOCK[: size - start])
        return os.fstat(file.fileno()).st_mtime_ns // 1_000_000_000


def new_log(directory: str) -> Directory:
    """An empty log."""
    create_log(directory, ORIGIN, int(time.time()))
    return open_log(directory)


def source_of(log: Directory, homes: str) -> NextcloudSource:
    """The source whose one account is read from there, its listings too."""
    config = HostConfig(os.path.join(homes, "data"), f"sqlite:{os.path.join(homes, 'owncloud.db')}", "oc_", INSTANCE)

    @asynccontextmanager
    async def opened() -> Any:
        host = open_host(config)
        try:
            yield [HostFirst(HostSession(host, USER), host)]
        finally:
            host.close()

    spec = "nextcloud:https://cloud.example"
    row = log.store.add_source(spec, f"nextcloud:{INSTANCE}")
    limits = Limits(budget=Budget(hours=0), share=1)
    return NextcloudSource(row, f"nextcloud:{INSTANCE}", "https://cloud.example", Line(opened), limits)
