"""What a real Nextcloud throws away by itself or for good: history outlives it, and says what is gone and why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from audit.nextcloud.client import DavSession
from tests.nextcloud.clouds import Cloud, Hand, throw_away_user
from tests.nextcloud.life import START, Life, Occ

pytestmark = pytest.mark.e2e
EDITS = 12


def text_of(number: int) -> bytes:
    return b"draft %d" % number


async def write_drafts(hand: Hand, numbers: Sequence[int]) -> None:
    """A second apart and years ago: of such versions Nextcloud keeps one a week."""
    for number in numbers:
        await hand.save("draft.txt", text_of(number), START + number)


async def list_ids(session: DavSession, path: str) -> set[str]:
    node = await session.stat(path)
    assert node is not None
    return {version.version_id for version in await session.list_versions(node.file_id)}


def test_thinning_by_cron_is_expired(real: Cloud, life: Life, occ: Occ) -> None:
    """Versions that Nextcloud's own job thinned out are `expired`, thinned; old copies are still told apart."""

    async def story() -> None:
        async with throw_away_user(real) as (hand, session):
            life.record(real.url, [hand])
            await write_drafts(hand, range(EDITS))
            await life.settle()
            life.judge("draft.txt", text_of(EDITS - 1))
            before = await list_ids(session, "draft.txt")
            assert life.steps() == ["created"] + ["written"] * (EDITS - 1), life.shown()
            assert len(before) == EDITS
            occ.cron()
            gone = before - await list_ids(session, "draft.txt")
            assert gone
            await hand.save("draft.txt", b"final", START + 1_000_000)
            await life.settle()
            life.judge("draft.txt", b"final")
            (expired,) = [step for step in life.shown() if step["operation"] == "expired"]
            seqs = sorted(int(version_id) - START for version_id in gone)
            assert expired["argument"] == f"steps {', '.join(map(str, seqs))} (thinned)"
            for number in range(EDITS):  # known bytes that no server has any more, and which version they were
                told = life.judge("draft.txt", text_of(number), expect=1)
                assert told["older_version"] == str(number)
            assert life.judge("draft.txt", b"draft 99", expect=1)["older_version"] is None

    asyncio.run(story())


def test_purge_from_the_trash_is_expired(real: Cloud, life: Life) -> None:
    """Deleted, then thrown away for good: deleted and expired, purged; the history stays and proves nothing current."""

    async def story() -> None:
        async with throw_away_user(real) as (hand, session):
            life.record(real.url, [hand])
            await hand.save("letter.txt", b"one", START)
            await hand.save("letter.txt", b"two", START + 100)
            await hand.save("other.txt", b"other", START)
            await life.settle()
            await hand.delete("letter.txt")
            await life.settle()
            life.judge("letter.txt", b"two", expect=2)
            (item,) = await session.list_trash()
            assert await hand.purge(item.name) == 204
            await life.settle()
            gone = life.judge("letter.txt", b"two", expect=2)
            assert gone["findings"][0]["reason"] == "deleted"
            assert life.steps() == ["created", "written", "deleted", "expired"]
            assert life.shown()[-1]["argument"] == "steps 0, 1 (purged)"
            await hand.save("letter.txt", b"anew", START + 200)
            await life.settle()
            life.judge("letter.txt", b"anew")  # another file at that path, and the old one is shown to have left
            assert life.steps() == ["created"]
            life.judge("other.txt", b"other")

    asyncio.run(story())
