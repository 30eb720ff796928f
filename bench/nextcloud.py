"""Rows on a Nextcloud over WebDAV: the backfill, what an upload suffers by it, and events.

    NEXTCLOUD_URL=https://cloud.example.org NEXTCLOUD_ADMIN_USER=admin NEXTCLOUD_ADMIN_PASSWORD=... \
      python -m bench --only nextcloud

The server is the one that NEXTCLOUD_URL names (with NEXTCLOUD_ADMIN_USER and NEXTCLOUD_ADMIN_PASSWORD; a throw-away
user is made on it, and one who uploads), else the tests' fake over loopback, a process of its own that takes 20 ms for
each request, as a real one does with an app password, four at a time.

Backfill: one scan into a new log, at a share of 100%, against the same client that makes one request at a time for each
file: its metadata, its bytes, its version list, its versions. Uploads: another process and another user, alone, beside
a backfill with the default share, and beside one with all of it. Events: a `serve` that is told of each upload as
webhook_listeners would do it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from glob import glob
from itertools import count
from statistics import median
from typing import NamedTuple

from audit.folder import Progress
from audit.nextcloud.client import AT_ONCE, Account, Config, DavSession, Secret, Server, make_client, open_sessions
from audit.nextcloud.inbox import read_hook_secret
from audit.nextcloud.limits import DEFAULT_SHARE, Budget, Limits, format_share
from audit.nextcloud.source import add_nextcloud
from audit.nextcloud.values import Reading
from audit.recorder import Recorder
from audit.scanning import Job, Stopped
from bench.environment import PEERS
from bench.homes import new_log
from bench.measure import MS, Row, at_least, at_most, below, explained, shown
from bench.progress import say
from bench.serving import Connection, python_server, server
from tests.nextcloud.clouds import Cloud, Hand, real_cloud, throw_away_user
from tests.nextcloud.fake import ADMIN, ADMIN_PASSWORD

T0 = 1_700_000_000
VERSIONS = 3
BACKFILL = f"WebDAV backfill, a file with {VERSIONS} versions"
UPLOAD = f"upload by a user while a backfill has the default share, {format_share(DEFAULT_SHARE)}, p50"
UPLOAD_WHOLE = "upload by a user while a backfill has a share of 100%, p50"
WHOLE = 1.0
EVENT, ACKNOWLEDGED = "event delivered until its entry is pending, p50", "webhook acknowledged, p50"
ON_REAL = "a real one on this machine shares its processors with the client, and each request needs one"


class User(NamedTuple):
    """A throw-away user, and a source that is their account."""

    cloud: Cloud
    hand: Hand
    session: DavSession

    @property
    def config(self) -> Config:
        account = Account(self.session.user, Secret(self.hand.password))
        return Config(self.cloud.url, (account,), None)


def rows(temporary: str, rounds: int, files: int, uploads: int) -> list[Row]:
    """All of them, on the real one or on the fake."""
    return asyncio.run(measure(temporary, rounds, files, uploads))


async def measure(temporary: str, rounds: int, files: int, uploads: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        cloud, what = real_cloud(), "a real Nextcloud"
        is_fake = cloud is None
        if cloud is None:
            _, port = stack.enter_context(python_server("fake_nextcloud.py", temporary))
            cloud, what = Cloud(f"http://127.0.0.1:{port}", ADMIN, ADMIN_PASSWORD, None), "the fake with 20 ms each"
        hand, session = await stack.enter_async_context(throw_away_user(cloud))
        user = User(cloud, hand, session)
        for number in range(files):
            for version in range(VERSIONS):
                await hand.put(f"{number}.txt", b"x" * (1_000 + version), T0 + version)
        times = await backfill(user, temporary, rounds, files)
        found = [at_least(BACKFILL, times["ours"], times["one"], 2, MS, f"one request at a time, {what}")]
        other, _ = await stack.enter_async_context(throw_away_user(cloud))
        suffered = await upload(user, other, temporary, rounds, files, uploads)
        found.append(at_most(UPLOAD, suffered["beside"], suffered["alone"], 1.15, MS, f"without, {what}"))
        found.append(shown(UPLOAD_WHOLE, suffered["whole"], suffered["alone"], MS, f"without, {what}"))
        with serving_log(user, os.path.join(temporary, "events")) as (process, port, directory):
            latency, acknowledged, ran, waited = await events(user, process, port, directory, uploads)
        found.append(below(EVENT, latency * 1e3, MS, 1_000))
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
        why = f"meanwhile its threads ran for {ran:.2f} ms and waited {waited:.2f} ms for a processor (p50), at {load}"
        found.append(explained(below(ACKNOWLEDGED, acknowledged * 1e3, MS, 3), why))
    return found if is_fake else [explained(row, ON_REAL) for row in found]


# -- backfill -------------------------------------------------------------------------------------------------------


async def backfill(user: User, temporary: str, rounds: int, files: int) -> dict[str, list[float]]:
    """Seconds per file of each round, both ways in turn."""
    times: dict[str, list[float]] = {"one": [], "ours": []}
    async with make_client(at_once=1) as client:
        one = DavSession(Server(user.cloud.url, client, 1), user.session.user, user.session._headers)
        scan = scanning(user, os.path.join(temporary, "backfill"), files, WHOLE)
        for turn in range(rounds):
            for name in sorted(times, reverse=turn % 2 == 0):
                start = time.perf_counter()
                if name == "one":
                    assert len(await read_all(one)) == files * VERSIONS
                    taken = time.perf_counter() - start
                else:
                    taken = await asyncio.to_thread(scan, lambda _: None)
                times[name].append(taken / files)
    say(f"  backfill: {files} files, {rounds} rounds, {AT_ONCE} requests at a time")
    return times


def scanning(user: User, directory: str, files: int, share: float) -> Callable[[Callable[[Progress], object]], float]:
    """One scan into a new log, unless it is stopped: listed, read, concluded, recorded."""
    number = count()

    def scan(progress: Callable[[Progress], object]) -> float:
        log = new_log(os.path.join(directory, str(next(number))))

        @asynccontextmanager
        async def opened() -> AsyncIterator[object]:
            async with open_sessions(user.config) as sessions:
                yield sessions

        source = add_nextcloud(log.store, f"nextcloud:{user.cloud.url}", opened)  # type: ignore[arg-type]
        source = source._replace(limits=Limits(budget=Budget(hours=0), share=share))
        start = time.perf_counter()
        with suppress(Stopped):
            summary = source.scan(Job(log.store, Recorder(log.store, time.time), progress=progress))
            assert summary.counts["adopted"] >= files, summary
        taken = time.perf_counter() - start
        log.store.close()
        shutil.rmtree(log.path)
        return taken

    return scan


async def read_all(session: DavSession) -> list[Reading | None]:
    """Every content of every file, one after another."""
    nodes = (await session.list_folder(""))[1:]
    return [reading for node in nodes for reading in await read_file(session, node.file_id, node.path)]


async def read_file(session: DavSession, file_id: int, path: str) -> list[Reading | None]:
    node = await session.stat(path)
    assert node is not None
    current = await session.read(path, node.etag)
    older = [version for version in await session.list_versions(file_id) if version.version_id != str(node.mtime)]
    return [*[await session.read_version(file_id, version.version_id) for version in older], current]


# -- uploads --------------------------------------------------------------------------------------------------------


async def upload(
    user: User, other: Hand, temporary: str, rounds: int, files: int, uploads: int
) -> dict[str, list[float]]:
    """The median upload of each round, of a process of its own; beside it one scan after another, or none."""
    times: dict[str, list[float]] = {"alone": [], "beside": [], "whole": []}
    scans = {
        name: scanning(user, os.path.join(temporary, name), files, share)
        for name, share in (("beside", DEFAULT_SHARE), ("whole", WHOLE))
    }
    names = list(times)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            ends = asyncio.create_task(uploading(user.cloud.url, other, uploads))
            while name in scans and not ends.done():
                await asyncio.to_thread(scans[name], partial(stop_after, ends))
            times[name].append(await ends)
    say(f"  uploads: {uploads} in each of {rounds} rounds")
    return times


def stop_after(ends: asyncio.Task[float], _: Progress) -> None:
    if ends.done():
        raise Stopped


async def uploading(url: str, hand: Hand, uploads: int) -> float:
    arguments = url, hand.uid, hand.password, str(uploads)
    command = sys.executable, os.path.join(PEERS, "upload.py"), *arguments
    root = os.path.dirname(os.path.dirname(PEERS))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    out, _ = await process.communicate()
    return float(out)


# -- events ---------------------------------------------------------------------------------------------------------


@contextmanager
def serving_log(user: User, directory: str) -> Iterator[tuple[int, int, str]]:
    """Process, port and directory of a `serve` with this user's account, once its first scan has ended."""
    log = new_log(directory)
    log.store.close()
    account = {"user": user.session.user, "password": user.hand.password}
    config = {"url": user.cloud.url, "accounts": [account], "limits": {"again_hours": "0"}}
    with open(os.open(os.path.join(directory, "nextcloud.json"), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump(config, file)
    options = ["--listen", "127.0.0.1:0", "--scan-every", "1h", "--source", f"nextcloud:{user.cloud.url}"]
    options += ["--share", "100%"]  # for the first scan, which has to be over; events never wait for a share
    with ExitStack() as stack:
        command = [sys.executable, "-m", "audit", "serve", "--data", directory, *options]
        process, port = stack.enter_context(server(command))
        conn = sqlite3.connect(f"file:{directory}/log.db?mode=ro", uri=True)
        wait_until(lambda: conn.execute("SELECT min(scanned) FROM sources").fetchone()[0] is not None)
        conn.close()
        yield process, port, directory


async def events(
    user: User, process: int, port: int, directory: str, uploads: int
) -> tuple[float, float, float, float]:
    """Seconds from the request to the entry, and to the answer; milliseconds that `serve` ran, and waited: medians."""
    conn = sqlite3.connect(f"file:{directory}/log.db?mode=ro", uri=True)
    secret, connection = read_hook_secret(directory).reveal(), Connection(port, sleeps=True)
    latency, acknowledged, ran, waited = [], [], [], []
    for number in range(uploads):
        await user.hand.put(f"event-{number}.txt", b"x" * 1_000)
        node = await user.session.stat(f"event-{number}.txt")
        assert node is not None
        before = count_entries(conn)
        request = hook(user.session.user, node.file_id, node.path, secret)
        before_ms, start = scheduled(process), time.perf_counter()
        connection.get(request)
        acknowledged.append(time.perf_counter() - start)
        after_ms = scheduled(process)
        ran.append(after_ms[0] - before_ms[0])
        waited.append(after_ms[1] - before_ms[1])
        wait_until(partial(has_grown, conn, before))
        latency.append(time.perf_counter() - start)
    connection.close()
    conn.close()
    say(f"  events: {uploads}")
    return median(latency), median(acknowledged), median(ran), median(waited)


def scheduled(process: int) -> tuple[float, float]:
    """Milliseconds that all threads of a process have run, and have waited for a processor (Linux tells both)."""
    ran = waited = 0
    for place in glob(f"/proc/{process}/task/*/schedstat"):
        with suppress(OSError), open(place, encoding="ascii") as file:
            times = file.read().split()
            ran, waited = ran + int(times[0]), waited + int(times[1])
    return ran / 1e6, waited / 1e6


def hook(user: str, file_id: int, path: str, secret: str) -> bytes:
    node = {"id": file_id, "path": f"/{user}/files/{path}"}
    event = {"node": node, "class": "OCP\\Files\\Events\\Node\\NodeCreatedEvent"}
    body = json.dumps({"event": event, "user": {"uid": user, "displayName": user}, "time": int(time.time())}).encode()
    head = f"POST /hook HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {secret}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def count_entries(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT count(*) FROM entries").fetchone()[0])


def has_grown(conn: sqlite3.Connection, before: int) -> bool:
    return count_entries(conn) > before


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "nothing came of it"
        time.sleep(0.001)
