"""Where files lie and whose they are, on a real Nextcloud: another owner, another disk, ciphertext on the disk."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_main_path import run
from tests.nextcloud.clouds import Cloud, Hand, throw_away_user
from tests.nextcloud.life import START, Life, Occ

pytestmark = pytest.mark.e2e


def test_transfer_of_ownership_goes_on_under_the_new_owner(real: Cloud, life: Life, occ: Occ) -> None:
    """The old chain is closed, the new owner's names its end, and is NOT PROVEN until the new owner accepts that."""

    async def story() -> None:
        async with throw_away_user(real) as (ada, _), throw_away_user(real) as (bea, session):
            await ada.make_folder("Board")
            await ada.save("Board/minutes.txt", b"one", START)
            life.record(real.url, [ada, bea])
            await life.settle()
            await ada.save("Board/minutes.txt", b"two", START + 100)
            await life.settle()
            life.judge("Board/minutes.txt", b"two")
            await asyncio.to_thread(occ, "files:transfer-ownership", "--path=Board", ada.uid, bea.uid)
            await life.settle()
            folder = next(node.path for node in await session.list_folder("") if node.path and node.is_folder)
            path = f"{folder}/Board/minutes.txt"
            told = life.judge(path, b"two", expect=2, hand=bea)
            assert {finding["reason"] for finding in told["findings"]} == {"unsigned-close"}
            assert life.steps() == ["adopted", "moved"]
            accept(life, bea, path, b"two")
            await life.settle()
            life.judge(path, b"two", hand=bea)
            await bea.save(path, b"three", START + 200)
            await life.settle()
            life.judge(path, b"three", hand=bea)

    asyncio.run(story())


def accept(life: Life, hand: Hand, path: str, data: bytes) -> None:
    """The new owner looks at the file, and takes its end under the old one as it is."""
    life.copy.write_bytes(data)
    words = ("--server", life.server.url, "--seed", life.seed_of(hand), "--as", path)
    assert run("seal", life.copy, *words, expect=2)["findings"][0]["reason"] == "unsigned-close"
    told = run("seal", life.copy, *words, "--accept", "0", expect=4)["error"]["message"]
    named = re.search(r"--accept ([0-9a-f]+:[0-9]+)", told)
    assert named is not None
    run("seal", life.copy, *words, "--accept", named[1])


@contextmanager
def encrypted(occ: Occ) -> Iterator[None]:
    """Server-side encryption for what is written in the block. What others wrote before stays readable after it."""
    occ("app:enable", "encryption")
    occ("encryption:enable")
    try:
        yield
    finally:
        occ("encryption:disable")
        occ("app:disable", "encryption")


def test_encryption_at_rest_changes_no_history(real: Cloud, life: Life, occ: Occ) -> None:
    """Users see plain bytes, and so do we; what lies on the disk is another thing, and is never taken for content."""

    async def story() -> None:
        async with throw_away_user(real) as (hand, session):
            await hand.save("before.txt", b"plain", START)
            life.patience_s = 240  # every request opens the user's keys first: a second and more each
            with encrypted(occ):
                life.record(real.url, [hand])
                await hand.save("secret.txt", b"one", START)
                await life.settle()
                await hand.save("secret.txt", b"two", START + 100)
                await hand.save("before.txt", b"encrypted from here on", START + 100)
                await life.settle()
                on_disk = json.loads(occ("config:list", "system", "--private"))["system"]["datadirectory"]
                file = Path(on_disk, hand.uid, "files", "secret.txt")
                assert file.read_bytes().startswith(b"HBEGIN")
                life.judge("secret.txt", b"two")
                assert life.steps() == ["created", "written"]
                life.judge("before.txt", b"encrypted from here on")
                assert life.steps() == ["adopted", "written"]
                node = await session.stat("secret.txt")
                assert node is not None
                assert await hand.restore_version(node.file_id, str(START)) in (201, 204)
                await life.settle()
                life.judge("secret.txt", b"one")
                assert life.steps() == ["created", "written", "reverted"]
                life.judge("secret.txt", file.read_bytes(), expect=1)
                await hand.delete("secret.txt")
                await hand.delete("before.txt")
                await life.settle()

    asyncio.run(story())


@contextmanager
def mounted(occ: Occ, hand: Hand, folder: Path) -> Iterator[None]:
    """A folder of this machine as the user's external storage `Disk`."""
    was_enabled = "files_external" in json.loads(occ("app:list", "--output=json"))["enabled"]
    occ("app:enable", "files_external")
    made = occ("files_external:create", "Disk", "local", "null::null", "-c", f"datadir={folder}")
    number = re.findall(r"[0-9]+", made)[-1]
    try:
        occ("files_external:applicable", number, f"--add-user={hand.uid}")
        yield
    finally:
        occ("files_external:delete", "--yes", number)
        if not was_enabled:
            occ("app:disable", "files_external")


def test_external_storage_is_the_instances(real: Cloud, life: Life, occ: Occ, tmp_path: Path) -> None:
    """What lies elsewhere belongs to the organisation's root; changes by others are found, and no versions are told."""
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o777)
    disk.chmod(0o777)

    async def story() -> None:
        async with throw_away_user(real) as (hand, _):
            (disk / "there.txt").write_bytes(b"there")
            with mounted(occ, hand, disk):
                life.record(real.url, [hand], instance=True)
                seed = life.instance
                await hand.save("mine.txt", b"mine", START)
                await hand.save("Disk/put.txt", b"one", START)
                await life.settle()
                life.judge("mine.txt", b"mine")
                for path, data in (("Disk/there.txt", b"there"), ("Disk/put.txt", b"one")):
                    life.judge(path, data, seed=seed)
                await hand.save("Disk/put.txt", b"two", START + 100)
                await life.settle()
                life.judge("Disk/put.txt", b"two", seed=seed)
                assert life.steps()[-1] == "written"
                (disk / "there.txt").write_bytes(b"changed behind Nextcloud's back")
                await asyncio.to_thread(occ, "files:scan", hand.uid)
                await life.settle()
                life.judge("Disk/there.txt", b"changed behind Nextcloud's back", seed=seed)

    asyncio.run(story())


@contextmanager
def team_folder(occ: Occ, *hands: Hand) -> Iterator[str]:
    """A folder of a group of these users, gone afterwards. The app is not part of every Nextcloud."""
    if "groupfolders" not in json.loads(occ("app:list", "--output=json"))["enabled"]:
        pytest.skip("this Nextcloud has no groupfolders: no group folder was tried")
    group = f"audit-test-{hands[0].uid[-6:]}"
    occ("group:add", group)
    number = occ("groupfolders:create", group).strip()
    try:
        occ("groupfolders:group", number, group, "read", "write", "share", "delete")
        for hand in hands:
            occ("group:adduser", group, hand.uid)
        yield group
    finally:
        occ("groupfolders:delete", "--force", number)
        occ("group:delete", group)


def test_group_folder_is_the_instances(real: Cloud, life: Life, occ: Occ) -> None:
    """A file of a group is one file, whoever of them writes: one chain, under the organisation's root, versions too."""

    async def story() -> None:
        async with throw_away_user(real) as (ada, session), throw_away_user(real) as (bea, _):
            with team_folder(occ, ada, bea) as folder:
                life.record(real.url, [ada, bea], instance=True)
                path = f"{folder}/plan.txt"
                await ada.save(path, b"one", START)
                await life.settle()
                life.judge(path, b"one", seed=life.instance)
                await bea.save(path, b"two", START + 100)
                await bea.save(path, b"three", START + 200)
                await life.settle()
                life.judge(path, b"three", seed=life.instance)
                assert life.steps() == ["created", "written", "written"]
                node = await session.stat(path)
                assert node is not None
                assert await ada.restore_version(node.file_id, str(START + 100)) in (201, 204)
                await ada.save(f"{folder}/other.txt", b"", START)  # a restore there moves no folder's etag
                await life.settle()
                life.judge(path, b"two", seed=life.instance)
                assert life.steps() == ["created", "written", "written", "reverted"]
                await bea.move(path, f"{folder}/moved.txt")
                await life.settle()
                life.judge(f"{folder}/moved.txt", b"two", seed=life.instance)
                await ada.delete(f"{folder}/moved.txt")
                await life.settle()
                gone = life.judge(f"{folder}/moved.txt", b"two", expect=2, seed=life.instance)
                assert gone["findings"][0]["reason"] == "deleted"

    asyncio.run(story())
