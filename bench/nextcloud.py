"""Reading a Nextcloud over WebDAV: AT_ONCE requests at a time against one, the same client, files and answers.

Of each file: where it is, its bytes, its versions and the bytes of those. The server is the one that NEXTCLOUD_URL
names (with NEXTCLOUD_ADMIN_USER and NEXTCLOUD_ADMIN_PASSWORD; a throw-away user is made on it), else the tests' fake
over loopback, which takes 20 ms for each request, as a real one does with an app password.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, ExitStack

from audit.nextcloud.client import AT_ONCE, DavSession, Server, make_client
from audit.nextcloud.values import Reading
from bench.measure import MS, Row, at_least, explained
from bench.progress import say
from bench.serving import python_server
from tests.nextcloud.clouds import Cloud, Hand, real_cloud, throw_away_user
from tests.nextcloud.fake import ADMIN, ADMIN_PASSWORD

NAME = f"a file with 3 versions over WebDAV, {AT_ONCE} requests at a time"
T0 = 1_700_000_000
VERSIONS = 3
GOAL = 2


def rows(temporary: str, rounds: int, files: int) -> list[Row]:
    """One row: how much faster, per file."""
    with ExitStack() as stack:
        cloud, what = real_cloud(), "one at a time, a real Nextcloud"
        is_fake = cloud is None
        if cloud is None:
            _, port = stack.enter_context(python_server("fake_nextcloud.py", temporary))
            cloud = Cloud(f"http://127.0.0.1:{port}", ADMIN, ADMIN_PASSWORD, None)
            what = "one at a time, the fake with 20 ms each"
        times = asyncio.run(measure(cloud, rounds, files))
    row = at_least(NAME, times["many"], times["one"], GOAL, MS, what)
    on_real = "a real one on this machine shares its processors with the client, and each request needs one"
    return [row if is_fake else explained(row, on_real)]


async def measure(cloud: Cloud, rounds: int, files: int) -> dict[str, list[float]]:
    """Seconds per file of each round, both ways in turn."""
    times: dict[str, list[float]] = {"one": [], "many": []}
    async with AsyncExitStack() as stack:
        hand, session = await stack.enter_async_context(throw_away_user(cloud))
        await fill(hand, files)
        ways = {}
        for name, at_once in (("one", 1), ("many", AT_ONCE)):
            client = await stack.enter_async_context(make_client(at_once=at_once))
            ways[name] = DavSession(Server(cloud.url, client, at_once), session.user, session._headers)
        answers = [await read_all(way) for way in ways.values()]
        assert answers[0] == answers[1]
        assert len(answers[0]) == files * VERSIONS
        for turn in range(rounds):
            for name in sorted(ways, reverse=turn % 2 == 0):
                start = time.perf_counter()
                await read_all(ways[name])
                times[name].append((time.perf_counter() - start) / files)
    say(f"  {files} files, {rounds} rounds")
    return times


async def fill(hand: Hand, files: int) -> None:
    for number in range(files):
        for version in range(VERSIONS):
            await hand.put(f"{number}.txt", b"x" * (1_000 + version), T0 + version)


async def read_all(session: DavSession) -> list[Reading | None]:
    """Every content of every file, as many at a time as the session's server lets through."""
    nodes = (await session.list_folder(""))[1:]
    found = await asyncio.gather(*(read_file(session, node.file_id, node.path) for node in nodes))
    return [reading for readings in found for reading in readings]


async def read_file(session: DavSession, file_id: int, path: str) -> list[Reading | None]:
    node = await session.stat(path)
    assert node is not None
    current = await session.read(path, node.etag)
    older = [version for version in await session.list_versions(file_id) if version.version_id != str(node.mtime)]
    return [*[await session.read_version(file_id, version.version_id) for version in older], current]
