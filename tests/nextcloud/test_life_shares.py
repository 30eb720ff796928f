"""What those can verify with whom a file is shared; and files that one of them has locked against the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.test_main_path import run
from tests.nextcloud.clouds import Cloud, Hand, throw_away_user
from tests.nextcloud.life import START, Life
from verifier.proof import parse_proof

pytestmark = pytest.mark.e2e


class Recipient:
    """Somebody with an app password, both policies and the owner's public key, and no key of their own."""

    def __init__(self, life: Life, hand: Hand) -> None:
        self.life, self.hand = life, hand
        self.folder = life.directory / hand.uid
        self.folder.mkdir()
        self.proof = self.folder / "proof"
        self.owner = run("seed", "owner", life.seed_of(life.hands[0]))

    def prove(self, path: str, expect: int = 0) -> dict[str, Any]:
        login = self.life.login(self.hand.uid, self.hand.password)
        words = ("--server", self.life.server.url, "--login", login, "-o", self.proof)
        return run("prove", path, *words, expect=expect)

    def judge(self, data: bytes, as_: str, expect: int = 0) -> dict[str, Any]:
        """A first look each time: with a state of its own."""
        copy = self.folder / "copy"
        copy.write_bytes(data)
        policies = ("--policy", self.life.log / "policy", "--auditors", self.life.log / "auditors")
        keys = ("--owner-key", self.owner["owner"], "--source", self.owner["source"], "--log", self.owner["log"])
        state = ("--state", self.folder / f"state-{len(list(self.folder.iterdir()))}")
        return run("verify", copy, "--proof", self.proof, "--as", as_, *keys, *policies, *state, expect=expect)


def reasons(told: dict[str, Any]) -> set[str]:
    return {finding["reason"] for finding in told["findings"]}


def test_share_is_verified_by_its_recipients(real: Cloud, life: Life) -> None:
    """By number, once the owner has sealed it; never by path, no other bytes, nothing of what they are not shown."""

    async def story() -> None:
        users = throw_away_user(real), throw_away_user(real), throw_away_user(real)
        async with users[0] as (ada, _), users[1] as (bea, _), users[2] as (cem, _):
            await ada.make_folder("Plans")
            await ada.save("Plans/plan.txt", b"one", START)
            await ada.save("Plans/draft.txt", b"draft", START)
            life.record(real.url, [ada])
            await life.settle()
            seal(life, "Plans/plan.txt", b"one")
            await life.settle()
            assert await ada.share("Plans", bea.uid) == 200
            recipient, third = Recipient(life, bea), Recipient(life, cem)
            sealed_alone(recipient)
            third.prove("Plans/plan.txt", expect=2)
            await bea.save("Plans/plan.txt", b"two", START + 100)
            assert await bea.share("Plans/plan.txt", cem.uid) == 200
            await life.settle()
            for one, path in ((recipient, "Plans/plan.txt"), (third, "plan.txt")):
                number = one.prove(path)["file"]
                assert one.judge(b"two", number)["verdict"] == "VERIFIED"
                assert one.judge(b"one", number, expect=1)["older_version"] == "0"
            life.judge("Plans/plan.txt", b"two")
            assert life.steps() == ["adopted", "sealed", "written"]
            await ada.move("Plans/plan.txt", "mine.txt")
            await life.settle()
            recipient.prove("Plans/plan.txt", expect=2)
            recipient.prove(number, expect=2)

    asyncio.run(story())


def seal(life: Life, path: str, data: bytes) -> None:
    """The owner's device compares the bytes and signs."""
    life.copy.write_bytes(data)
    words = ("--server", life.server.url, "--seed", life.seed_of(life.hands[0]), "--as", path)
    run("seal", life.copy, *words)


def sealed_alone(recipient: Recipient) -> None:
    number = recipient.prove("Plans/plan.txt")["file"]
    told = recipient.judge(b"one", number)
    assert (told["verdict"], told["path"]) == ("VERIFIED", None)
    assert told["not_shown"].startswith("where its owner keeps it")
    assert {line[2:] for line in parse_proof(recipient.proof.read_bytes()).entries} == {(None, None)}
    assert reasons(recipient.judge(b"oNe", number, expect=1)) == {"bytes"}
    assert reasons(recipient.judge(b"one", "Plans/plan.txt", expect=2)) == {"opening-missing", "path-erased"}
    other = recipient.prove("Plans/draft.txt")["file"]
    assert reasons(recipient.judge(b"draft", other, expect=2)) == {"not-owner"}
    assert reasons(recipient.judge(b"draft", number, expect=2)) == {"other-file"}


USERS, APPS = 0, 1  # kinds of locks
LOCK = b'<?xml version="1.0"?><d:propfind xmlns:d="DAV:"><d:prop><n:lock xmlns:n="http://nextcloud.org/ns"/></d:prop></d:propfind>'


async def is_locked(hand: Hand, path: str) -> bool:
    answer = await hand.client.request("PROPFIND", hand.at(path), content=LOCK, headers={"Depth": "0"})
    return ">1</" in answer.text


def test_locked_files_are_read_and_stay_locked(real: Cloud, life: Life) -> None:
    """A lock keeps writers out, and not us; we leave it as it is, and to take it or give it back is no step."""

    async def story() -> None:
        async with throw_away_user(real) as (ada, _), throw_away_user(real) as (bea, _):
            await ada.make_folder("Plans")
            await ada.save(path := "Plans/plan.txt", b"one", START)
            assert await ada.share("Plans", bea.uid) == 200
            await ada.lock(path, USERS)
            if not await is_locked(ada, path):
                pytest.skip("this Nextcloud has no files_lock: no locked file was read")
            life.record(real.url, [ada])
            await looked_at(life, ada, path, b"one", ["adopted"])
            assert await bea.put(path, b"not now") == 423
            assert await ada.put(path, b"two", START + 100) == 204
            await looked_at(life, ada, path, b"two", ["adopted", "written"])
            assert await ada.unlock(path, USERS) == 200
            assert await ada.lock(path, APPS) == 200
            assert {await hand.put(path, b"not now") for hand in (ada, bea)} == {423}
            await looked_at(life, ada, path, b"two", ["adopted", "written"])
            assert await ada.unlock(path, APPS) == 200
            await bea.save(path, b"three", START + 200)
            await life.settle()
            life.judge(path, b"three")
            assert life.steps() == ["adopted", "written", "written"]

    asyncio.run(story())


async def looked_at(life: Life, hand: Hand, path: str, data: bytes, steps: list[str]) -> None:
    """Found, read and proven while it is locked; the lock is what it was."""
    await life.settle()
    life.judge(path, data)
    assert life.steps() == steps
    assert await is_locked(hand, path)
