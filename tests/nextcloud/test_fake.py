"""Where the fake must be like the real one beyond what a Session shows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.nextcloud.clouds import Cloud, Hand, as_client, fake_cloud, throw_away_user
from tests.nextcloud.fake import FakeNextcloud, webhook_bodies

T0 = 1_700_000_000


def shape(value: object) -> object:
    """A JSON value with its leaves named by their types."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return type(value).__name__


async def life(hand: Hand) -> None:
    await hand.put("a.txt", b"one", T0)
    await hand.put("a.txt", b"two!", T0 + 1)
    await hand.touch("a.txt", T0 + 2)
    await hand.copy("a.txt", "b.txt")
    await hand.move("a.txt", "c.txt")
    await hand.delete("c.txt")
    await hand.restore_from_trash(f"c.txt.d{1_800_000_000}")


def test_events_have_the_recorded_form(shared_dir: Path) -> None:
    """Of each kind of event the fake's body has the members and types of a real delivery's."""
    cloud = fake_cloud()

    async def run(cloud: Cloud) -> None:
        async with throw_away_user(cloud) as (hand, _):
            await life(hand)

    asyncio.run(run(cloud))
    assert cloud.fake is not None
    ours = {event["event"]["class"]: shape(event) for event in map(json.loads, webhook_bodies(cloud.fake))}
    assert len(ours) == 8
    theirs: dict[str, list[object]] = {}
    for line in (shared_dir / "recordings" / "webhook-deliveries-nc32.jsonl").read_text().splitlines():
        event = find_event(json.loads(line))
        if event is not None:
            theirs.setdefault(event["event"]["class"], []).append(shape(event))
    for kind, form in ours.items():
        assert form in theirs[kind], kind


def find_event(value: object) -> dict[str, dict[str, str]] | None:
    """The delivered body in a line of the recording, wherever it is in it."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if isinstance(value, dict):
        if {"event", "user", "time"} <= set(value) and isinstance(value["event"], dict):
            return {name: value[name] for name in ("event", "user", "time")}
        return next((found for inner in value.values() if (found := find_event(inner))), None)
    return None


def test_a_login_is_granted_in_the_browser() -> None:
    """Login Flow v2: polling gives 404 until the user agrees, then an app password once."""
    fake = FakeNextcloud()
    fake.cloud.add_user("alice", "password")
    cloud = Cloud("https://cloud.example", "admin", "admin-password", fake)

    async def run() -> None:
        async with httpx.AsyncClient(transport=cloud.transport, base_url=cloud.url) as client:
            poll = (await client.post("/index.php/login/v2")).json()["poll"]
            at, form = urlsplit(poll["endpoint"]).path, {"token": poll["token"]}
            assert (await client.post(at, data=form)).status_code == 404
            fake.grant(poll["token"], "alice", "app-password")
            granted = (await client.post(at, data=form)).json()
            assert (granted["loginName"], granted["appPassword"]) == ("alice", "app-password")
            assert (await client.post(at, data=form)).status_code == 404
        async with as_client(cloud, "alice", "app-password") as alice:
            assert (await alice.request("PROPFIND", "/remote.php/dav/files/alice", content=PROPFIND)).status_code == 207

    asyncio.run(run())


PROPFIND = b'<d:propfind xmlns:d="DAV:"><d:prop><d:getetag/></d:prop></d:propfind>'
