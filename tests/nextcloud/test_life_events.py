"""What a real Nextcloud tells of changes, and what it loses: hints come while we run, walks find the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.test_main_path import run
from tests.nextcloud.clouds import Cloud, Hand, throw_away_user
from tests.nextcloud.life import NEVER, START, Life, Occ

pytestmark = pytest.mark.e2e
WEEKS = 30 * 86_400  # so far apart no version is thinned out by the cron that delivers events


@contextmanager
def hooked(cloud: Cloud, life: Life) -> Iterator[bool]:
    """Nextcloud's webhooks for this log, taken away afterwards. False where this Nextcloud has none (before 30)."""
    login = life.login(cloud.admin, cloud.password)
    words = ("hooks", "--data", life.log, "--url", f"http://127.0.0.1:{life.port}/hook", "--admin-login", login)
    is_there = run(*words, expect=None)["exit"] == 0
    try:
        yield is_there
    finally:
        if is_there:
            run(*words, "--remove")


def told(life: Life, path: str) -> list[str]:
    """The operations in the proof of a path now; none where there is no proof yet."""
    words = ("prove", path, "--server", life.server.url, "--seed", life.seed_of(life.hands[0]), "-o", life.proof)
    return life.steps() if run(*words, expect=None)["exit"] == 0 else []


def pump(occ: Occ) -> bool:
    """One run of cron, which may stop before jobs of this very second: the next one has them."""
    occ.cron()
    return True


def test_events_come_while_we_run(real: Cloud, life: Life, occ: Occ) -> None:
    """With no scan after the first, each change is recorded from a webhook alone."""

    async def until(path: str, *steps: str) -> None:
        await asyncio.to_thread(life.wait_for, lambda: pump(occ) and told(life, path) == list(steps))

    async def story() -> None:
        async with throw_away_user(real) as (hand, _):
            await hand.save("first.txt", b"first", START)
            life.record(real.url, [hand], scan_every=NEVER)
            await until("first.txt", "adopted")
            with hooked(real, life) as is_there:
                if not is_there:
                    pytest.skip("this Nextcloud has no webhook_listeners: no event was delivered")
                scans = life.status()["scans"]
                await hand.save("new.txt", b"one", START)
                await until("new.txt", "created")
                await hand.save("new.txt", b"two", START + WEEKS)
                await until("new.txt", "created", "written")
                await hand.move("new.txt", "renamed.txt")
                await hand.delete("first.txt")
                await until("renamed.txt", "created", "written", "moved")
                await until("first.txt", "adopted", "deleted")
                life.judge("renamed.txt", b"two")
                assert life.status()["scans"] == scans

    asyncio.run(story())


def test_events_that_are_lost_are_found(real: Cloud, life: Life, occ: Occ) -> None:
    """What happens while the log is down, and whose webhooks are lost, is all in the history after the next walk."""

    async def story() -> None:
        async with throw_away_user(real) as (hand, session):
            for name in ("edited", "moved", "gone", "back", "pay"):
                await hand.save(f"{name}.txt", b"pay 100 to alice", START)
            await hand.save("back.txt", b"newer", START + WEEKS)
            life.record(real.url, [hand])
            await life.settle()
            back = await session.stat("back.txt")
            assert back is not None
            with hooked(real, life) as is_there:
                port = life.port
                assert life.server.stop() == 0
                await meanwhile(hand, back.file_id)
                if is_there:  # Nextcloud tries each once, at an address where nobody listens
                    await asyncio.to_thread(occ.cron)
                life.start(port=port)
                await life.settle()
            life.judge("edited.txt", b"third")
            assert life.steps() == ["adopted", "written", "written"]
            life.judge("folder/moved.txt", b"pay 100 to alice")
            assert life.steps() == ["adopted", "moved"]
            assert life.judge("gone.txt", b"pay 100 to alice", expect=2)["findings"][0]["reason"] == "deleted"
            life.judge("back.txt", b"pay 100 to alice")
            assert life.steps() == ["adopted", "written", "reverted"]
            life.judge("pay.txt", b"pay 100 to alice", expect=1)
            assert life.steps()[-1] in ("written", "altered")
            life.judge("folder/new.txt", b"new")

    asyncio.run(story())


async def meanwhile(hand: Hand, back: int) -> None:
    """Every kind of change."""
    await hand.save("edited.txt", b"second", START + WEEKS)
    await hand.save("edited.txt", b"third", START + 2 * WEEKS)
    await hand.make_folder("folder")
    await hand.move("moved.txt", "folder/moved.txt")
    await hand.delete("gone.txt")
    await hand.restore_version(back, str(START))
    await hand.bulk("pay.txt", b"pay 999 to mario", START)
    await hand.save("folder/new.txt", b"new", START)
