"""A user's files in a Nextcloud, from the first upload to `verify`, with real processes: one log, four nodes.

Against the tests' own Nextcloud, served on loopback; and against a real one where NEXTCLOUD_URL,
NEXTCLOUD_ADMIN_USER and NEXTCLOUD_ADMIN_PASSWORD name it, with a throw-away user.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.e2e.test_main_path import run
from tests.nextcloud.clouds import READ, Cloud, Hand, throw_away_user
from tests.nextcloud.life import START, Life, on_loopback
from verifier.proof import Proof, parse_proof

pytestmark = pytest.mark.e2e


def test_life_of_files_ends_in_verify(cloud: Cloud, life: Life) -> None:
    """Each thing that users do is in the history as what it was, and the current bytes are VERIFIED, no others."""

    async def run_life() -> None:
        async with on_loopback(cloud) as reached, throw_away_user(reached) as (hand, session):
            await hand.save("old.txt", b"before us", START)
            life.record(reached.url, [hand])
            await life.settle()
            life.judge("old.txt", b"before us")
            assert life.steps() == ["adopted"]
            await edits(life, hand)
            await moves(life, hand)
            await versions(life, hand, session)
            await trash(life, hand, session)
            await equal_metadata(life, hand)
            await as_user(life, hand)
            await by_link(life, hand)
            server_word(life)

    asyncio.run(run_life())


async def edits(life: Life, hand: Hand) -> None:
    """Twenty edits, some within one look; the last one stands, every one that was seen is a version."""
    for number in range(20):
        await hand.save("notes.txt", b"edit %d" % number, START + 10 * number)
        if number in (0, 9):
            await life.settle()
    await life.settle()
    life.judge("notes.txt", b"edit 19")
    assert life.steps()[0] == "created"
    assert set(life.steps()[1:]) <= {"written", "gap"}
    older = life.judge("notes.txt", b"edit 9", expect=1)
    assert older["findings"][0]["reason"] == "bytes"
    assert older["older_version"] is not None


async def moves(life: Life, hand: Hand) -> None:
    """A rename and a move of the folder keep the history; a copy starts one of its own."""
    assert await hand.make_folder("Büro") == 201
    assert await hand.move("notes.txt", "Büro/notes 2.txt") == 201
    await life.settle()
    assert await hand.move("Büro", "Office") == 201
    await life.settle()
    life.judge("Office/notes 2.txt", b"edit 19")
    assert life.steps()[-2:] == ["moved", "moved"]
    assert await hand.copy("Office/notes 2.txt", "copy.txt") == 201
    await life.settle()
    life.judge("copy.txt", b"edit 19")
    assert life.steps()[0] in ("copied", "created")


async def versions(life: Life, hand: Hand, session: Any) -> None:
    """A version that is brought back is a revert to what was logged."""
    await hand.save("contract.txt", b"one", START)
    await life.settle()
    await hand.save("contract.txt", b"two", START + 100)
    await life.settle()
    node = await session.stat("contract.txt")
    assert await hand.restore_version(node.file_id, str(START)) in (201, 204)
    await life.settle()
    life.judge("contract.txt", b"one")
    assert life.steps() == ["created", "written", "reverted"]


async def trash(life: Life, hand: Hand, session: Any) -> None:
    """Deleted is NOT PROVEN as current; restored, the same history goes on."""
    assert await hand.delete("contract.txt") == 204
    await life.settle()
    gone = life.judge("contract.txt", b"one", expect=2)
    assert gone["findings"][0]["reason"] == "deleted"
    (item,) = await session.list_trash()
    assert await hand.restore_from_trash(item.name) == 201
    await life.settle()
    life.judge("contract.txt", b"one")
    assert life.steps()[-2:] == ["deleted", "restored"]


async def equal_metadata(life: Life, hand: Hand) -> None:
    """Other bytes under the same size, time and etag end as a new version or as altered, never unnoticed."""
    await hand.bulk("pay.txt", b"pay 100 to alice", START)
    await life.settle()
    life.judge("pay.txt", b"pay 100 to alice")
    await hand.bulk("pay.txt", b"pay 999 to mario", START)
    await life.settle()
    life.judge("pay.txt", b"pay 100 to alice", expect=1)
    assert life.steps()[-1] in ("written", "altered")


async def as_user(life: Life, hand: Hand) -> None:
    """With an app password alone the user gets the same proof; a wrong one gets none."""
    words = ("prove", "old.txt", "--server", life.server.url, "-o", life.directory / "user.proof", "--login")
    asked = await asyncio.to_thread(run, *words, life.login(hand.uid, hand.password))
    assert asked["steps"] == "1"
    await asyncio.to_thread(run, *words, life.login(hand.uid, "wrong"), expect=4)


async def by_link(life: Life, hand: Hand) -> None:
    """Whoever has a public link gets the proofs of what it shows, contents alone; with a password, who has that too."""
    secret = life.directory / "password"
    secret.touch(mode=0o600)
    secret.write_text("Kx9-unguessable-7Qz\n")
    folder = await hand.link("Office", READ)
    locked = await hand.link("old.txt", READ, "Kx9-unguessable-7Qz")
    ask = partial(asyncio.to_thread, run, "prove", "--server", life.server.url, "-o", life.directory / "link.proof")
    assert (await ask("notes 2.txt", "--link", folder))["steps"] == str(len(life.shown(life.directory / "link.proof")))
    assert {line[2:] for line in read_proof(life).entries} == {(None, None)}
    await ask(
        "Office/notes 2.txt", "--link", f"{hand.url('/s/')}{folder}", expect=2
    )  # another's path is not the link's
    await ask("old.txt", "--link", f"{hand.url('/s/')}{locked}", "--link-password-file", secret)
    for wrong in (locked, "no-such-link"):
        refused = await ask("old.txt", "--link", wrong, expect=4)
        assert "which --link-password-file says" in refused["error"]["message"]


def read_proof(life: Life) -> Proof:
    return parse_proof((life.directory / "link.proof").read_bytes())


def server_word(life: Life) -> None:
    """The whole log derives again, and nothing that Nextcloud shows is uncovered."""
    assert life.server.stop() == 0
    run("fsck", "--data", life.log)
    report = run("coverage", "--data", life.log, expect=None)
    assert report["exit"] == 0, report
