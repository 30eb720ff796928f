"""Traps of a Nextcloud that have no other place: what is never asked, what comes in any order, what is switched off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from audit.nextcloud.coverage import measure
from audit.nextcloud.dav import NODE_PROPERTIES, TRASH_PROPERTIES, VERSION_PROPERTIES
from audit.scanning import Job
from tests.nextcloud.events import CloudTown
from tests.nextcloud.fake import webhook_bodies

START = 1_700_000_000


@pytest.fixture
def town(tmp_path: Path) -> Iterator[CloudTown]:
    made = CloudTown(tmp_path)
    yield made
    assert made.fatal == []
    made.close()


def scan(town: CloudTown, full: bool = False) -> None:
    town.cloud.scan(Job(town.service.store, town.service.recorder, full=full, clock=town.clock))


def test_trap_nothing_is_written_and_no_hash_is_taken_over(town: CloudTown) -> None:
    """[R] All that is ever sent reads; the server's checksums, which an uploader makes up, are not even asked for."""
    methods: set[str] = set()

    def note(request: Request) -> Response | None:
        methods.add(request.method)
        return None

    town.fake.lie = note
    cloud, alice = town.fake.cloud, town.alice
    for number in range(3):
        cloud.put(alice, ("a.txt",), b"x" * number, START + number)
    gone = cloud.put(alice, ("gone.txt",), b"gone", START).file_id
    cloud.delete(alice, ("gone.txt",))
    scan(town, full=True)
    kept = town.put("a.txt", b"later")
    scan(town, full=True)
    assert town.told(kept)[-1] == "written"
    assert town.told(gone) == []
    assert methods <= {"GET", "PROPFIND", "SEARCH"}
    for asked in (NODE_PROPERTIES, VERSION_PROPERTIES, TRASH_PROPERTIES):
        assert b"checksum" not in asked
        assert b"hash" not in asked.lower()


@pytest.mark.parametrize("seed", range(3))
def test_trap_events_come_in_any_order(tmp_path: Path, seed: int) -> None:
    """Shuffled, and some of them twice, the events of a life end in the history that the files themselves tell."""
    town = CloudTown(tmp_path)

    async def story() -> dict[str, int]:
        cloud, alice = town.fake.cloud, town.alice
        async with town.service.running():
            await town.until(lambda: town.service.scans == 1)
            files = {name: town.put(name, b"one") for name in ("moved.txt", "gone.txt", "edited.txt")}
            town.put("edited.txt", b"two")
            cloud.move(alice, ("moved.txt",), ("new.txt",))
            cloud.delete(alice, ("gone.txt",))
            files["again"] = town.put("gone.txt", b"another")
            bodies = webhook_bodies(town.fake) * 2
            random.Random(seed).shuffle(bodies)
            for body in bodies[: len(bodies) * 3 // 4]:
                assert (await town.hook(body)).status_code == 200
            for body in webhook_bodies(town.fake):
                assert (await town.hook(body)).status_code == 200
            await town.until(lambda: town.waiting() == 0 and all(town.told(files[n]) for n in ("again", "edited.txt")))
            return files

    files = asyncio.run(story())
    assert town.told(files["edited.txt"]) == ["created", "written"]
    assert town.told(files["moved.txt"]) == ["created"]  # first seen where it is: what was before, nobody has seen
    assert town.told(files["gone.txt"]) == []
    assert town.told(files["again"]) == ["created"]
    assert town.fatal == []
    town.close()


def covered(town: CloudTown) -> bool:
    return measure(town.service.store.reader(), town.cloud.row, town.cloud.source_id, int(town.clock()), 30).is_whole


def test_trap_encrypted_folders_are_shown_to_known_clients_alone(town: CloudTown) -> None:
    """[R] A folder that end_to_end_encryption shows us not is a finding that says what to do, and never covered."""
    cloud, fake = town.fake.cloud, town.fake
    cloud.make_folder(town.alice, ("Secret",))
    cloud.get(town.alice, ("Secret",)).is_encrypted = True
    secret = cloud.put(town.alice, ("Secret", "4f2a"), b"ciphertext", START).file_id
    fake.encryption = "1.13.2"
    file = town.put("a.txt", b"one")
    job = Job(town.service.store, town.service.recorder, clock=town.clock)
    (problem,) = town.cloud.scan(job).problems
    assert "supported-user-agents" in problem.detail
    assert (town.told(file), town.told(secret)) == (["adopted"], [])
    assert not covered(town)
    fake.encryption_agents = {"nextcloud-audit"}
    assert town.cloud.scan(job).problems == []
    assert town.told(secret) == ["adopted"]
    assert covered(town)


def test_trap_versions_app_is_switched_off(town: CloudTown) -> None:
    """The version list answers 404: what is seen is told, what was overwritten unseen is not made up."""

    def off(request: Request) -> Response | None:
        return Response(status_code=404) if "/dav/versions/" in request.url.path else None

    file = town.put("a.txt", b"one")
    scan(town)
    town.put("a.txt", b"two")
    scan(town)
    town.fake.lie = off
    for data in (b"three", b"four"):
        town.put("a.txt", data)
    scan(town)
    assert town.told(file) == ["adopted", "written", "written"]
    town.fake.lie = lambda request: None
    scan(town)
    town.put("a.txt", b"five")
    scan(town)
    assert "expired" not in town.told(file)
