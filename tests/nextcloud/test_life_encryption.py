"""Encryption on a real Nextcloud: end to end, where ciphertext is all there is; at rest, where only the disk has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from audit.nextcloud.catchup import read_homes
from audit.nextcloud.client import NotAllowed
from audit.nextcloud.samehost import HostConfig, open_host
from tests.e2e.test_main_path import run
from tests.nextcloud.ciphertext import EncryptedFolder, open_encrypted
from tests.nextcloud.clouds import Cloud, Hand, throw_away_user
from tests.nextcloud.life import START, Life, Occ

pytestmark = pytest.mark.e2e

AGENTS = "end_to_end_encryption.supported-user-agents"
REMARK = "end-to-end encrypted: the bytes are ciphertext"


@contextmanager
def shown_to_us(occ: Occ, folder: EncryptedFolder) -> Iterator[None]:
    """Before Nextcloud 31 the app shows encrypted folders to clients in its list alone."""
    if folder.api > 1:
        yield
        return
    occ("config:system:set", AGENTS, "/mirall|^nextcloud-audit$/", "--value=")
    try:
        yield
    finally:
        occ("config:system:delete", AGENTS)


def test_end_to_end_encrypted_files_are_chained_as_ciphertext(real: Cloud, life: Life, occ: Occ) -> None:
    """Ciphertext is proven, and every version says that it is; locks, metadata and half-done uploads are no steps."""

    async def story() -> None:
        async with throw_away_user(real) as (hand, session):
            folder = await open_encrypted(hand, "Secret")
            if folder is None:
                pytest.skip("this Nextcloud has no end_to_end_encryption: no ciphertext of a client was chained")
            async with folder.locked():
                assert await folder.put("old", b"ciphertext before us", START) == 201
            if folder.api == 1:
                with pytest.raises(NotAllowed, match="403"):
                    await session.list_folder("Secret")
            with shown_to_us(occ, folder):
                life.record(real.url, [hand])
                await life.settle()
                check(life, "Secret/old", b"ciphertext before us", ["adopted"])
                await uploads(life, folder)
                await deletion(life, folder)
                server_word(life)

    asyncio.run(story())


async def uploads(life: Life, folder: EncryptedFolder) -> None:
    """What is uploaded shows at the unlock. A new upload of a file is another file in its place."""
    async with folder.locked():
        assert await folder.put("new", b"ciphertext one", START) == 201
        assert await folder.put("new", b"stolen", START, token="wrong") in (403, 423)
        assert await folder.hand.put("Secret/new", b"plain") == 403
        assert await folder.lock() in (403, 423)
        await life.settle()
        run("prove", "Secret/new", "--server", life.server.url, "--seed", life.seed_of(folder.hand), expect=4)
    await life.settle()
    first = check(life, "Secret/new", b"ciphertext one", ["created"])
    async with folder.locked():  # the keys change, the file does not
        pass
    await life.settle()
    check(life, "Secret/new", b"ciphertext one", ["created"])
    async with folder.locked():
        assert await folder.put("new", b"ciphertext two, longer", START + 100) == 201
        await life.settle()
        check(life, "Secret/new", b"ciphertext one", ["created"])
    await life.settle()
    assert check(life, "Secret/new", b"ciphertext two, longer", ["created"]) != first
    life.judge("Secret/new", b"what its reader sees", expect=1)


async def deletion(life: Life, folder: EncryptedFolder) -> None:
    """There is no trash for such files: what is deleted is gone with its bytes, at the unlock."""
    async with folder.locked():
        assert await folder.delete("old") == 204
        await life.settle()
    await life.settle()
    gone = life.judge("Secret/old", b"ciphertext before us", expect=2)
    assert gone["findings"][0]["reason"] == "deleted"
    assert life.steps() == ["adopted", "deleted", "expired"]


def check(life: Life, path: str, data: bytes, steps: list[str]) -> str:
    """The file id. These bytes are VERIFIED after these steps, and the verdict says that they are ciphertext."""
    told = life.judge(path, data)
    assert told["history"]["remark"] == REMARK
    assert life.steps() == steps
    assert {step["context"].get("remark") for step in life.shown()} == {REMARK}
    return str(told["file"])


def server_word(life: Life) -> None:
    """The whole log derives again, and nothing is left uncovered."""
    assert life.server.stop() == 0
    run("fsck", "--data", life.log)
    report = run("coverage", "--data", life.log, expect=None)
    assert report["exit"] == 0, report


def test_encrypting_all_that_is_there_changes_no_content(real: Cloud, life: Life, disposable: Occ) -> None:
    """[R] What users see stays what was logged; the disk's ciphertext is never taken for it, by a catch-up neither.

    `encrypt-all` puts an encrypted copy in the place of each file: another file id with the same bytes and metadata.
    With the keys of users in place of the master key (`occ encryption:disable-master-key` on a fresh server) as well.
    """
    occ = disposable

    async def story() -> None:
        async with throw_away_user(real) as (hand, session):
            occ("encryption:disable")  # it may have been here before
            await hand.save("a.txt", b"one", START)
            await hand.save("a.txt", b"two", START + 100)
            life.patience_s = 600  # every request opens the user's keys first, and no scan ends while all is encrypted
            life.record(real.url, [hand], host=occ.host())
            await life.settle()
            first = life.judge("a.txt", b"two")["file"]
            assert life.steps() == ["adopted", "written"]
            await asyncio.to_thread(encrypt_all, occ)
            hand.client.cookies.clear()  # a session from before has no key of the user's
            await life.settle()
            assert life.judge("a.txt", b"two")["file"] != first
            assert life.steps() == [(start := life.steps()[0]), "written"]
            assert start in ("copied", "created")  # 27 gives the copy a time of its own
            life.judge("a.txt", read_ciphertext(occ, hand, "a.txt"), expect=1)
            await hand.save("a.txt", b"six", START + 200)
            await life.settle()
            life.judge("a.txt", b"six")
            assert life.steps() == [start, "written", "written"]
            node = await session.stat("a.txt")
            assert node is not None
            (second,) = [v for v in await session.list_versions(node.file_id) if v.mtime not in (START, node.mtime)]
            assert await hand.restore_version(node.file_id, second.version_id) in (201, 204)
            await life.settle()
            if (await hand.client.get(hand.at("a.txt"))).content == b"two":
                life.judge("a.txt", b"two")
                assert life.steps() == [start, "written", "written", "reverted"]
                server_word(life)
            else:  # 32 with users' keys: what was restored can be decrypted by nobody, its user neither
                life.judge("a.txt", b"six")
                assert life.steps() == [start, "written", "written"]
                run("coverage", "--data", life.log, expect=1)

    asyncio.run(story())


def encrypt_all(occ: Occ) -> None:
    occ("app:enable", "encryption")
    occ("encryption:enable")
    occ("encryption:encrypt-all", answer="y\nn\n")  # all of it; and send nobody a password


def read_ciphertext(occ: Occ, hand: Hand, path: str) -> bytes:
    """What lies on the disk; a catch-up from there leaves every file to WebDAV."""
    where = occ.host()
    with closing(open_host(HostConfig(**where))) as host:
        homes = host.homes([hand.uid])
        assert homes
        assert {one.look for batch in read_homes(host, homes) for one in batch} == {None}
    data = Path(where["data"], hand.uid, "files", path).read_bytes()
    assert data.startswith(b"HBEGIN")
    return data
