"""Events of a Nextcloud lead to looks: on disk before the 200, once each, and what is no event changes nothing."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from audit.errors import TryLater
from audit.nextcloud import inbox as inbox_module
from audit.nextcloud.client import Secret
from audit.nextcloud.hints import MAX_EVENT, Hint, parse_webhook
from audit.nextcloud.inbox import NO_KEYS, Inbox, make_hook_secret, read_hook_secret
from audit.nextcloud.known import count_dirty
from tests.audit.town import Town
from tests.nextcloud.events import APP, HOOK, NODE_EVENT, WEBHOOK, CloudTown, appapi, bearer, hooked
from verifier.errors import Malformed, Usage

BODY = json.dumps(WEBHOOK).encode()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[CloudTown]:
    made = CloudTown(tmp_path)
    yield made
    assert made.fatal == []
    made.close()


def event(file_id: int) -> bytes:
    node = {"id": file_id, "path": f"/alice/files/{file_id}.txt"}
    return json.dumps({"event": {**WEBHOOK["event"], "node": node}}).encode()  # type: ignore[dict-item]


def test_event_leads_to_a_look(town: CloudTown) -> None:
    """What an event is about is recorded without a scan, and ends in a tree with its quorum."""

    async def story() -> int:
        async with town.service.running():
            await town.until(lambda: town.service.scans == 1)
            file = town.put("a.txt", b"one")
            await town.deliver()
            await town.until(lambda: town.told(file) == ["created"] and town.all_published())
            town.put("a.txt", b"two")
            await town.deliver(times=2)
            await town.until(lambda: town.told(file) == ["created", "written"])
            await town.until(lambda: town.waiting() == 0)
            assert town.service.scans == 1
            return file

    assert town.told(asyncio.run(story())) == ["created", "written"]


def test_event_is_looked_at_while_a_scan_runs(town: CloudTown) -> None:
    """However long a scan takes, and however much it has queued, an event does not wait; and nothing is told twice."""
    for number in range(200):
        town.fake.cloud.put(town.alice, (f"{number}.txt",), b"old")
    slow = town.fake.cloud.put(town.alice, ("slow.txt",), b"slow").file_id
    release: list[Callable[[], None]] = []

    def hold(request: Request) -> Response | None:
        if request.method != "GET" or not request.url.path.endswith("slow.txt"):
            return None
        loop, go = asyncio.get_running_loop(), asyncio.Event()
        release.append(lambda: loop.call_soon_threadsafe(go.set))

        async def body() -> AsyncIterator[bytes]:
            await go.wait()
            yield b"slow"

        etag = {"OC-ETag": town.fake.cloud.get(town.alice, ("slow.txt",)).etag}
        return StreamingResponse(body(), headers=etag)

    async def story() -> int:
        town.fake.lie = hold
        async with town.service.running():
            await town.until(lambda: bool(release))
            file = town.put("ev.txt", b"one")
            town.put("0.txt", b"new")
            await town.deliver()
            try:
                await town.until(lambda: town.told(file) == ["created"])
                assert (town.service.scans, town.told(slow)) == (0, [])
            finally:
                town.fake.lie = lambda request: None
                for go in release:
                    go()
            await town.until(lambda: town.service.scans == 1 and town.waiting() == 0)
            assert town.cloud.line.opened == 1
            return file

    file = asyncio.run(story())
    assert (town.told(file), town.told(slow)) == (["created"], ["adopted"])
    first = town.fake.cloud.get(town.alice, ("0.txt",)).file_id
    assert town.told(first)[0] == "adopted"
    assert town.told(first)[1:] in (["written"], [])
    assert town.service.store.reader().execute("SELECT count(*) FROM chains").fetchone() == (202,)


def test_looks_share_their_sessions(town: CloudTown) -> None:
    """A service opens one set of sessions for its looks; each scan opens new ones, since accounts may have changed."""

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans == 1)
            for number in range(5):
                file = town.put(f"{number}.txt", b"one")
                await town.deliver()
                await town.until(lambda file=file: town.told(file) == ["created"])  # type: ignore[misc]
            assert (town.service.scans, town.cloud.line.opened) == (1, 1)
            town.service.scan_now()
            await town.until(lambda: town.service.scans == 2)
            assert town.cloud.line.opened == 2

    asyncio.run(story())


def test_event_that_is_lost_is_found_by_the_walk(town: CloudTown) -> None:
    """Delivery is one attempt: a lost event costs time, and nothing else."""

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans == 1)
            lost, seen = town.put("a.txt", b"one"), town.put("b.txt", b"two")
            await town.deliver(lose=lambda number: number == 0)
            await town.until(lambda: town.told(seen) == ["created"])
            assert town.told(lost) == []
            town.service.scan_now()
            await town.until(lambda: town.told(lost) == ["created"])

    asyncio.run(story())


def test_event_of_a_folder_leads_to_a_walk(town: CloudTown) -> None:
    """One event stands for all that is in a folder: a scan that nobody has to ask for."""

    async def story() -> None:
        cloud = town.fake.cloud
        cloud.make_folder(town.alice, ("d",))
        file = cloud.put(town.alice, ("d", "a.txt"), b"one").file_id
        async with town.service.running():
            await town.until(lambda: town.told(file) == ["adopted"] and town.service.scans == 1)
            await town.deliver()
            await town.until(lambda: town.service.scans > 1 and town.waiting() == 0)
            cloud.now += 1
            cloud.move(town.alice, ("d",), ("e",))
            await town.deliver()
            await town.until(lambda: town.told(file) == ["adopted", "moved"])

    asyncio.run(story())


def test_event_is_durable_before_it_is_acknowledged(town: CloudTown) -> None:
    """[R] The service ends after the 200 and before the look; the next start finds it, and looks without a scan."""

    async def told_while_down() -> int:
        file = town.put("a.txt", b"one")
        await town.deliver()
        return file

    file = asyncio.run(told_while_down())
    town.reopen()
    assert town.waiting() == 1

    async def later() -> None:
        async with town.service.running():
            await town.until(lambda: town.told(file) != [] and town.waiting() == 0)

    asyncio.run(later())
    assert town.told(file) in (["created"], ["adopted"])


def test_looks_that_fail_are_tried_again(town: CloudTown, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the Nextcloud is away the queue stays as it is, and is looked at when it is back."""
    monkeypatch.setattr("audit.service.LOOK_RETRY_S", 0.01)

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans == 1)
            file = town.put("a.txt", b"one")
            town.fake.lie = lambda request: Response(status_code=503)
            await town.deliver()
            await town.until(lambda: any(line.startswith("look at") for line in town.said))
            assert (town.told(file), town.waiting()) == ([], 1)
            town.fake.lie = lambda request: None
            await town.until(lambda: town.told(file) == ["created"] and town.waiting() == 0)

    asyncio.run(story())


def test_ten_thousand_events_at_once(town: CloudTown) -> None:
    """[R] All are acknowledged, each is in the queue, in few transactions; the same file many times is one entry."""

    async def story() -> None:
        bodies = [event(number % 5_000 + 1) for number in range(10_000)]
        for answer in await asyncio.gather(*(town.hook(body) for body in bodies[:500])):
            assert (answer.status_code, answer.text) == (200, '{"hints":"1"}')
        await asyncio.gather(*(town.service.inbox.add(parse_webhook(body)) for body in bodies))

    asyncio.run(story())
    assert town.waiting() == 5_000
    assert town.service.inbox.commits < 500


def test_inbox_is_bounded(town: CloudTown, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than may wait is told to come later, and what waited is written."""
    monkeypatch.setattr(inbox_module, "MAX_WAITING", 2)

    box = town.service.inbox

    async def story() -> None:
        adding = (box.add([Hint(n + 1, "alice", "a")]) for n in range(5))
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 2 + [TryLater] * 3
        await box.add([Hint(9, "alice", "a")])

    asyncio.run(story())
    assert town.waiting() == 3


def test_inbox_gives_an_error_to_everybody_who_waits(town: CloudTown, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] What is not on disk is not acknowledged."""
    service = town.service

    def fail(*_: object, **more: object) -> None:
        raise TryLater("log.db: disk full")

    monkeypatch.setattr("audit.nextcloud.known.add", fail)

    async def story() -> set[int]:
        return {answer.status_code for answer in await asyncio.gather(*(town.hook(event(n + 1)) for n in range(20)))}

    assert asyncio.run(story()) == {503}
    monkeypatch.undo()
    assert town.waiting() == 0
    assert asyncio.run(town.hook(BODY)).status_code == 200
    assert service.inbox.commits == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        bearer(Secret("5a" * 31)),
        bearer(Secret("5b" * 32)),
        {"Authorization": HOOK.reveal()},
        {"Authorization": f"bearer {HOOK.reveal()}"},
        {"Authorization": f"Bearer {HOOK.reveal()} "},
        appapi(APP),
    ],
)
def test_hook_needs_the_secret(town: CloudTown, headers: dict[str, str]) -> None:
    """[R] Without it nothing is queued, and the answer tells nothing of what was sent or wanted."""
    headers = {**headers, "X": "1"}
    if headers.get("Authorization", "").endswith(" "):  # HTTP strips it on the wire; here it comes through
        headers["Authorization"] += "x"
    answer = asyncio.run(town.send("POST", "/hook", BODY, headers=headers))
    assert answer.status_code == 401
    assert HOOK.reveal() not in answer.text
    assert town.waiting() == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (appapi(APP), 200),
        (appapi(APP, "alice"), 200),
        (appapi(APP._replace(secret=Secret("other"))), 401),
        (appapi(APP._replace(app="other")), 401),
        (bearer(HOOK), 401),
        ({"EX-APP-ID": APP.app, "AUTHORIZATION-APP-API": "!"}, 401),
        ({}, 401),
    ],
)
def test_nodes_needs_the_apps_secret(town: CloudTown, headers: dict[str, str], status: int) -> None:
    """[R] AppAPI may come on nobody's behalf; anybody else is refused."""
    answer = asyncio.run(town.send("POST", "/nodes", json.dumps(NODE_EVENT).encode(), headers=headers))
    assert answer.status_code == status
    assert APP.secret.reveal() not in answer.text
    assert town.waiting() == (status == 200)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"event":{"class":"OCP\\\\Files\\\\Events\\\\Node\\\\NodeWrittenEvent","node":{"id":"1"}}}', 400),
        (b"x" * (MAX_EVENT + 1), 413),
        (b'{"event":{"class":"Other"}}', 200),
    ],
)
def test_hook_refuses_what_is_no_event(town: CloudTown, body: bytes, status: int) -> None:
    """It gets an error and loses nothing: what was queued stays, and the next event is taken."""
    assert asyncio.run(town.hook(event(7))).status_code == 200
    assert asyncio.run(town.hook(body)).status_code == status
    assert town.waiting() == 1
    assert asyncio.run(town.hook(event(8))).status_code == 200
    assert town.waiting() == 2


def test_hook_of_a_log_without_a_nextcloud_does_not_exist(tmp_path: Path) -> None:
    """A log of folders has no such routes, whatever it is sent."""
    town = Town(tmp_path, quorum=2, nodes=3)
    for path in ("/hook", "/nodes"):
        headers = bearer(HOOK) if path == "/hook" else appapi(APP)
        assert asyncio.run(town.send("POST", path, BODY, headers=headers)).status_code == 404
    hooked(town)
    assert asyncio.run(town.send("POST", "/hook", BODY, headers=bearer(HOOK))).status_code == 200
    town.service.event_keys = NO_KEYS
    assert asyncio.run(town.send("POST", "/hook", BODY, headers=bearer(HOOK))).status_code == 404
    town.close()


def test_inbox_of_a_thread(town: CloudTown) -> None:
    """Whoever has many hints at hand adds them in one transaction."""
    box = Inbox(town.service.store, [town.cloud.row], town.clock, lambda: None)
    box.add_now([Hint(5, "alice", "a"), Hint(5, "alice", "a"), Hint(None, "alice", "b")])
    box.add_now([])
    assert count_dirty(town.service.store.reader(), town.cloud.row) == 2
    assert box.commits == 1


def test_hook_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """A random secret that only its owner may read; never made anew, never taken from a file open to others."""
    made = make_hook_secret(str(tmp_path))
    assert stat.S_IMODE((tmp_path / "hook.secret").stat().st_mode) == 0o600
    assert make_hook_secret(str(tmp_path)).reveal() == made.reveal() == read_hook_secret(str(tmp_path)).reveal()
    assert len(made.reveal()) == 64
    (tmp_path / "hook.secret").chmod(0o644)
    with pytest.raises(Usage, match="0600"):
        make_hook_secret(str(tmp_path))
    (tmp_path / "hook.secret").chmod(0o600)
    (tmp_path / "hook.secret").write_text(made.reveal())
    with pytest.raises(Malformed, match="line feed"):
        read_hook_secret(str(tmp_path))
