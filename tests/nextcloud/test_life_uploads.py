"""Each way into a real Nextcloud ends as the same history: by parts, by a stranger, by a client."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import httpx
import pytest

from tests.nextcloud.clouds import DROP, READ, Cloud, Hand, drop, throw_away_user
from tests.nextcloud.life import START, Life
from verifier.proof import format_proof, parse_proof

pytestmark = pytest.mark.e2e
PART = 5 << 20  # the smallest that Nextcloud takes, but for the last one
SYNC_TIMEOUT_S = 120


def test_upload_in_chunks_is_one_version(real: Cloud, life: Life) -> None:
    """A file that came in parts is recorded whole: one step for the first upload, one for the next, of other bytes."""

    async def story() -> None:
        async with throw_away_user(real) as (hand, _):
            life.record(real.url, [hand])
            parts = [bytes([number]) * PART for number in range(2)] + [b"end"]
            assert await hand.put_chunks("film.bin", parts, START) == 201
            await life.settle()
            life.judge("film.bin", b"".join(parts))
            assert life.steps() == ["created"]
            parts[1] = b"\xff" * PART
            assert await hand.put_chunks("film.bin", parts, START + 60) == 204
            await life.settle()
            life.judge("film.bin", b"".join(parts))
            assert life.steps() == ["created", "written"]

    asyncio.run(story())


def test_upload_by_a_public_link_is_the_owners_file(real: Cloud, life: Life) -> None:
    """What a stranger drops is in its owner's history at once; the link's token gives proofs of what it shows."""

    async def story() -> None:
        async with throw_away_user(real) as (hand, session):
            await hand.make_folder("Inbox")
            await hand.make_folder("Out")
            await hand.save("Out/offer.txt", b"offer", START)
            await hand.save("private.txt", b"private", START)
            life.record(real.url, [hand])
            assert await drop(real, await hand.link("Inbox", DROP), "bid.txt", b"a bid") in (201, 204)
            await life.settle()
            life.judge("Inbox/bid.txt", b"a bid")
            assert life.steps() == ["created"]
            node = await session.stat("Out/offer.txt")
            private = await session.stat("private.txt")
            assert node is not None
            assert private is not None
            await by_link(life, hand, node.file_id, private.file_id)

    asyncio.run(story())


async def by_link(life: Life, hand: Hand, offered: int, private: int) -> None:
    """By path and by number; of nothing else, with no other token, and not with one that only takes in."""
    token, blind = await hand.link("Out", READ), await hand.link("Inbox", DROP)
    asked = {
        (token, "?path=offer.txt"): 200,
        (token, "?path=private.txt"): 404,
        (token, "?path=..%2Fprivate.txt"): 404,
        (token, f"/{private}"): 404,
        (token, f"/{offered + 1_000_000}"): 404,
        (blind, "?path=bid.txt"): 404,
        ("no-such-token", "?path=offer.txt"): 401,
    }
    async with httpx.AsyncClient(base_url=life.server.url, trust_env=False, timeout=60) as client:
        for (name, target), status in asked.items():
            words = b64encode(f"{name}:".encode()).decode("ascii")
            answer = await client.get(f"/proof{target}", headers={"Authorization": f"NextcloudShare {words}"})
            assert answer.status_code == status, (target, answer.text)
            if status == 200:
                proof = parse_proof(answer.content)
                assert (proof.file_id, format_proof(proof)) == (offered, answer.content)
                assert {line[2:] for line in proof.entries} == {(None, None)}  # no path, no actor


def test_nextcloudcmd_is_a_client_like_others(real: Cloud, life: Life, tmp_path: Path) -> None:
    """What the desktop client uploads, changes, renames and deletes is followed, and what it downloads is VERIFIED.

    No empty file: its version 3.7 breaks off a bulk upload that holds one.
    """
    if shutil.which("nextcloudcmd") is None:
        pytest.skip("nextcloudcmd is not installed: the desktop client was not tried (Debian: nextcloud-desktop-cmd)")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()

    async def story() -> None:
        async with throw_away_user(real) as (hand, _):
            life.record(real.url, [hand])
            (here / "Briefe").mkdir()
            (here / "Briefe" / "über uns.txt").write_bytes(b"first")
            (here / "gone.txt").write_bytes(b"gone")
            sync(real, hand, here, tmp_path)
            await life.settle()
            life.judge("Briefe/über uns.txt", b"first")
            assert life.steps() == ["created"]
            (here / "Briefe" / "über uns.txt").write_bytes(b"second one")
            sync(real, hand, here, tmp_path)
            await life.settle()
            (here / "Briefe" / "über uns.txt").rename(here / "about us.txt")
            (here / "gone.txt").unlink()
            sync(real, hand, here, tmp_path)
            await life.settle()
            sync(real, hand, there, tmp_path)
            life.judge("about us.txt", (there / "about us.txt").read_bytes())
            assert life.steps() == ["created", "written", "moved"]
            assert not (there / "gone.txt").exists()
            life.judge("gone.txt", b"gone", expect=2)

    asyncio.run(story())


def sync(cloud: Cloud, hand: Hand, folder: Path, home: Path) -> None:
    """One run of Nextcloud's own client over a folder."""
    words = ["--non-interactive", "--silent", "--trust", "-u", hand.uid, "-p", hand.password, str(folder), cloud.url]
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen", "LANG": "C.UTF-8"}
    done = subprocess.run(["nextcloudcmd", *words], capture_output=True, env=environment, timeout=SYNC_TIMEOUT_S)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
