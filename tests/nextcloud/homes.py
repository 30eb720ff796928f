"""A Nextcloud on this machine, as much of it as is read: rows in a database, files in a folder.

with home_cloud("sqlite", tmp_path) as cloud:
    number = cloud.put("alice", ALICE, "a.txt", b"one")
    host = opened(cloud)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5, sha3_256
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from audit.nextcloud.samehost import Host, HostConfig, open_host
from audit.nextcloud.values import Reading
from tests.nextcloud.databases import database

FOLDER, PLAIN = 1, 2
ALICE, BOB, LONG = 10, 11, 12
LONG_NAME = "x" * 80


class HomeCloud:
    """What is put is on disk and in the database."""

    def __init__(self, data: Path, address: str, writing: str) -> None:
        self.data, self.address, self.engine = data, address, create_engine(writing)
        self.next_id = 100
        self.insert("oc_mimetypes", id=FOLDER, mimetype="httpd/unix-directory")
        self.insert("oc_mimetypes", id=PLAIN, mimetype="text/plain")
        hashed = md5(f"home::{LONG_NAME}".encode()).hexdigest()
        for number, name in ((ALICE, "home::alice"), (BOB, "home::bob"), (LONG, hashed), (13, "object::user:eve")):
            self.insert("oc_storages", numeric_id=number, id=name)
        self.folders = {(storage, "files"): self.folder(storage, "files", -1) for storage in (ALICE, BOB, LONG)}

    def insert(self, table: str, **values: Any) -> None:
        names = ", ".join('"user"' if n == "user" and self.engine.name != "mysql" else n for n in values)
        marks = ", ".join(f":{name}" for name in values)
        with self.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)

    def run(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def row(self, storage: int, path: str, parent: int, mime: int, size: int, mtime: int, **other: Any) -> int:
        self.next_id += 1
        values = {"encrypted": 0, "etag": f"e{self.next_id}", **other}
        key = {"fileid": self.next_id, "storage": storage, "path": path, "path_hash": md5(path.encode()).hexdigest()}
        self.insert(
            "oc_filecache", **key, parent=parent, mimetype=mime, size=size, mtime=mtime, storage_mtime=mtime, **values
        )
        return self.next_id

    def folder(self, storage: int, path: str, parent: int) -> int:
        return self.row(storage, path, parent, FOLDER, 0, 1_700_000_000)

    def write(self, user: str, path: str, data: bytes, mtime: int = 1_700_000_000) -> Path:
        target = self.data / user / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        os.utime(target, (mtime, mtime))
        return target

    def put(self, user: str, storage: int, path: str, data: bytes, mtime: int = 1_700_000_000, **other: Any) -> int:
        """A file below the user's root, which Nextcloud knows."""
        self.write(user, f"files/{path}", data, mtime)
        return self.row(storage, f"files/{path}", self.folders[storage, "files"], PLAIN, len(data), mtime, **other)

    def old_version(self, user: str, path: str, mtime: int, data: bytes) -> None:
        self.write(user, f"files_versions/{path}.v{mtime}", data, mtime)

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def home_cloud(kind: str, folder: Path) -> Iterator[HomeCloud]:
    with database(kind, folder) as (address, writing):
        data = folder / "data"
        data.mkdir()
        made = HomeCloud(data, address, writing)
        yield made
        made.close()


def opened(cloud: HomeCloud) -> Host:
    return open_host(HostConfig(str(cloud.data), cloud.address, "oc_", "ocinstance"))


def reading(data: bytes) -> Reading:
    return Reading(len(data), sha3_256(data).digest())
