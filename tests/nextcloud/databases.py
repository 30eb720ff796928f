"""Real database servers on a socket of their own in a temporary folder, and Nextcloud's tables in them.

Servers come from Debian's packages (`apt-get install postgresql mariadb-server`); a test that wants one is skipped, out
loud, where it is absent. Nothing listens on a network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text

# The columns of Nextcloud 32 that are read, and the keys that make look-ups quick.
SCHEMA = """
CREATE TABLE oc_storages (numeric_id BIGINT PRIMARY KEY, id VARCHAR(64) UNIQUE);
CREATE TABLE oc_mimetypes (id BIGINT PRIMARY KEY, mimetype VARCHAR(255));
CREATE TABLE oc_filecache (fileid BIGINT PRIMARY KEY, storage BIGINT, path VARCHAR(4000), path_hash VARCHAR(32),
  parent BIGINT, mimetype BIGINT, size BIGINT, mtime BIGINT, storage_mtime BIGINT, encrypted INTEGER, etag VARCHAR(40));
CREATE UNIQUE INDEX fs_storage_path_hash ON oc_filecache (storage, path_hash);
CREATE INDEX fs_parent ON oc_filecache (parent);
CREATE TABLE oc_filecache_extended (fileid BIGINT PRIMARY KEY, upload_time BIGINT);
CREATE TABLE oc_files_versions (id BIGINT PRIMARY KEY, file_id BIGINT, timestamp BIGINT, size BIGINT, metadata {json});
CREATE TABLE oc_files_trash (auto_id BIGINT PRIMARY KEY, id VARCHAR(250), {user} VARCHAR(64), timestamp VARCHAR(12),
  location VARCHAR(512))
"""
KINDS = ("sqlite", "postgresql", "mysql")
START_S = 30


@contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """An empty Nextcloud database: the address that an administrator configures, and one that may write."""
    if kind == "sqlite":
        path = folder / "owncloud.db"
        addresses = f"sqlite:{path}", f"sqlite:///{path}"
        _make_tables(addresses[1], kind)
        yield addresses
        return
    with (_postgresql if kind == "postgresql" else _mariadb)(folder) as addresses:
        _make_tables(addresses[1], kind)
        yield addresses


def _make_tables(address: str, kind: str) -> None:
    names = {"json": "JSON" if kind != "sqlite" else "CLOB", "user": '"user"' if kind != "mysql" else "`user`"}
    engine = create_engine(address)
    with engine.begin() as connection:
        for statement in SCHEMA.format(**names).split(";"):
            connection.execute(text(statement))
    engine.dispose()


@contextmanager
def _postgresql(_: Path) -> Iterator[tuple[str, str]]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    tools, data = found[-1].parent, Path(tempfile.mkdtemp(prefix="nextcloud-audit-pg-"))  # pytest's own is root's alone
    try:
        with _run_postgresql(tools, data) as addresses:
            yield addresses
    finally:
        shutil.rmtree(data)


@contextmanager
def _run_postgresql(tools: Path, data: Path) -> Iterator[tuple[str, str]]:
    run: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(data, "nobody")
        run = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    init = [
        *run,
        str(tools / "initdb"),
        "-D",
        str(data / "db"),
        "-U",
        "cloud",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    subprocess.run([*init, "--locale=C.UTF-8"], check=True, capture_output=True, cwd=data)
    options = ["-D", str(data / "db"), "-k", str(data), "-c", "listen_addresses=", "-c", "fsync=off"]
    with _server([*run, str(tools / "postgres"), *options], data, data / ".s.PGSQL.5432"):
        target = f"cloud@/postgres?host={quote(str(data))}"
        yield f"postgresql://{target}", _reachable(f"postgresql+psycopg://{target}")


@contextmanager
def _mariadb(folder: Path) -> Iterator[tuple[str, str]]:
    if shutil.which("mariadbd") is None:
        pytest.skip("MariaDB is not installed (Debian: apt-get install mariadb-server)")
    data, socket = folder / "my", folder / "my.sock"
    user = ["--user=root"] if os.geteuid() == 0 else []
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    for last in (False, True):  # its bootstrap fails now and then on a busy machine
        done = subprocess.run([*install, "--skip-test-db", *user], capture_output=True, text=True)
        if done.returncode == 0:
            break
        assert not last, done.stdout[-2_000:] + done.stderr[-2_000:]
        shutil.rmtree(data, ignore_errors=True)
    options = [f"--datadir={data}", f"--socket={socket}", "--skip-networking", f"--pid-file={folder / 'my.pid'}"]
    with _server(["mariadbd", "--no-defaults", *options, "--character-set-server=utf8mb4", *user], folder, socket):
        target = f"?unix_socket={quote(str(socket))}&charset=utf8mb4"
        engine = create_engine(_reachable(f"mysql+pymysql://root@localhost/mysql{target}"))
        with engine.begin() as connection:
            connection.execute(text("CREATE DATABASE cloud CHARACTER SET utf8mb4"))
        engine.dispose()
        yield f"mysql://root@localhost/cloud{target}", f"mysql+pymysql://root@localhost/cloud{target}"


@contextmanager
def _server(command: list[str], folder: Path, socket: Path) -> Iterator[None]:
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        ends = time.monotonic() + START_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > ends:
                raise AssertionError((folder / "server.log").read_text()[-2_000:])
            time.sleep(0.02)  # a server says in no other way that it is there
        yield
    finally:
        process.terminate()
        process.wait(START_S)


def _reachable(address: str) -> str:
    """The address, once the server answers: its socket is there a moment before it does."""
    ends = time.monotonic() + START_S
    engine = create_engine(address)
    try:
        while True:
            try:
                engine.connect().close()
                return address
            except Exception:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.02)
    finally:
        engine.dispose()
