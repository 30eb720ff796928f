"""What a Session says of a life, the same of the fake and of a real Nextcloud (where NEXTCLOUD_URL names one)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha3_256
from os import environ

import pytest

from audit.errors import PeerFailed, TryLater
from audit.nextcloud.client import AppAPI, Config, DavSession, Secret, open_sessions
from audit.nextcloud.values import Node, Reading
from tests.nextcloud.clouds import Cloud, Hand, fake_cloud, real_cloud, throw_away_user
from tests.nextcloud.fake import APP, APP_SECRET

Life = Callable[[Hand, DavSession], Awaitable[None]]
T0 = 1_700_000_000
ODD_NAMES = [
    "a b",
    "ümläut",
    "e\u0301",
    "日本",
    "🙂",
    "100%25",
    "a+b&c=d",
    "#1",
    "q?",
    "semi;colon",
    "'quote'",
    "{[x]}",
    "~",
]


@pytest.fixture(params=["fake", "real"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """The fake, and a real one where there is one."""
    cloud = fake_cloud() if request.param == "fake" else real_cloud()
    if cloud is None:
        pytest.skip("NEXTCLOUD_URL is not set: no real Nextcloud was asked")
    return cloud


@pytest.fixture
def live(cloud: Cloud) -> Callable[[Life], None]:
    """Runs a life as a throw-away user."""

    async def run(cloud: Cloud, life: Life) -> None:
        async with throw_away_user(cloud) as (hand, session):
            await life(hand, session)

    return lambda life: asyncio.run(run(cloud, life))


def reading_of(data: bytes) -> Reading:
    return Reading(len(data), sha3_256(data).digest())


async def look(session: DavSession, path: str) -> Node:
    node = await session.stat(path)
    assert node is not None
    return node


async def versions(session: DavSession, file_id: int) -> list[tuple[str, int]]:
    return [(version.version_id, version.size) for version in await session.list_versions(file_id)]


async def old(session: DavSession, file_id: int, version_id: str) -> Reading | None:
    return await session.read_version(file_id, version_id)


async def is_kept_back(session: DavSession, file_id: int, version_id: str) -> bool:
    """Whether no bytes come: 500 where the server still has the version in its cache, else 404."""
    try:
        return await session.read_version(file_id, version_id) is None
    except PeerFailed:
        return True


def test_a_file_is_said_as_it_was_written(live: Callable[[Life], None]) -> None:
    """Id, size, time, owner and bytes of a new file, at its path, in its folder and by its id."""

    async def life(hand: Hand, session: DavSession) -> None:
        assert await hand.put("a.txt", b"one", T0) == 201
        node = await look(session, "a.txt")
        assert (node.path, node.is_folder, node.size, node.mtime) == ("a.txt", False, 3, T0)
        assert (node.owner, node.mount, node.is_encrypted) == (hand.uid, "", False)
        assert node.upload_time > T0
        assert await session.read("a.txt", node.etag) == reading_of(b"one")
        root, *inside = await session.list_folder("")
        assert (root.path, root.is_folder, inside) == ("", True, [node])
        assert await session.find(node.file_id) == node
        assert (await session.instance_id()).startswith("oc")

    live(life)


def test_what_is_not_there_is_none(live: Callable[[Life], None]) -> None:
    """Absent files, folders, ids and versions are None or empty, and no error."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.put("a.txt", b"one", T0)
        node = await look(session, "a.txt")
        assert await session.stat("b.txt") is None
        assert await session.list_folder("no/such") == []
        assert await session.find(2_000_000_000) is None
        assert await session.list_versions(2_000_000_000) == []
        assert await session.list_trash() == []
        assert await old(session, node.file_id, "1600000000") is None
        with pytest.raises(TryLater, match="changed or gone"):
            await session.read("b.txt", node.etag)

    live(life)


def test_old_bytes_are_versions(live: Callable[[Life], None]) -> None:
    """Each overwritten content stays under its time; the current one is listed, and has no bytes there."""

    async def life(hand: Hand, session: DavSession) -> None:
        for number in range(4):
            await hand.put("a.txt", b"x" * (number + 1), T0 + 100 * number)
        node = await look(session, "a.txt")
        assert await versions(session, node.file_id) == [(str(T0 + 100 * n), n + 1) for n in range(4)]
        for number in range(3):
            expected = reading_of(b"x" * (number + 1))
            assert await old(session, node.file_id, str(T0 + 100 * number)) == expected
        assert await old(session, node.file_id, str(node.mtime)) is None

    live(life)


def test_writes_with_one_time_collapse(live: Callable[[Life], None]) -> None:
    """Of three contents with one mtime two are left, and the current version's id brings older bytes, or fewer."""

    async def life(hand: Hand, session: DavSession) -> None:
        for data in (b"111", b"222", b"333"):
            await hand.put("a.txt", data, T0)
        node = await look(session, "a.txt")
        assert [version_id for version_id, _ in await versions(session, node.file_id)] == [str(T0)]
        assert await old(session, node.file_id, str(T0)) == reading_of(b"222")
        assert await session.read("a.txt", node.etag) == reading_of(b"333")
        await hand.put("a.txt", b"4444", T0)
        assert await is_kept_back(session, node.file_id, str(T0))

    live(life)


def test_empty_content_is_no_version(live: Callable[[Life], None]) -> None:
    """An empty content leaves nothing behind."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.put("a.txt", b"", T0)
        node = await look(session, "a.txt")
        assert await session.read("a.txt", node.etag) == reading_of(b"")
        await hand.put("a.txt", b"x", T0 + 100)
        assert await old(session, node.file_id, str(T0)) is None
        assert await versions(session, node.file_id) == [(str(T0 + 100), 1)]

    live(life)


def test_an_id_outlives_moves(live: Callable[[Life], None]) -> None:
    """Renaming, moving, and moving the folder keep the id and the versions; a copy has an id of its own."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.put("a.txt", b"one", T0)
        await hand.put("a.txt", b"two!", T0 + 100)
        node = await look(session, "a.txt")
        await hand.make_folder("d")
        assert await hand.move("a.txt", "d/b.txt") == 201
        assert await hand.move("d", "e") == 201
        moved = await look(session, "e/b.txt")
        assert moved._replace(path="a.txt", mime=node.mime) == node
        assert await session.find(node.file_id) == moved
        assert await session.stat("a.txt") is None
        assert await old(session, node.file_id, str(T0)) == reading_of(b"one")
        assert await hand.copy("e/b.txt", "c.txt") == 201
        copied = await look(session, "c.txt")
        assert copied.file_id != node.file_id
        assert await session.read("c.txt", copied.etag) == reading_of(b"two!")

    live(life)


def test_the_trash_gives_back(live: Callable[[Life], None]) -> None:
    """A deleted file is in the trash with its id and path, has no versions meanwhile, and gets both back."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.make_folder("d")
        await hand.put("d/a.txt", b"one", T0)
        await hand.put("d/a.txt", b"two!", T0 + 100)
        node = await look(session, "d/a.txt")
        assert await hand.delete("d/a.txt") == 204
        (trashed,) = await session.list_trash()
        assert (trashed.file_id, trashed.path, trashed.size) == (node.file_id, "d/a.txt", 4)
        assert trashed.name == f"a.txt.d{trashed.deleted_at}"
        assert await session.list_versions(node.file_id) == []
        assert await session.find(node.file_id) is None
        assert await hand.restore_from_trash(trashed.name) == 201
        again = await look(session, "d/a.txt")
        assert (again.file_id, again.mtime, again.size) == (node.file_id, node.mtime, node.size)
        assert await versions(session, node.file_id) == [(str(T0), 3), (str(T0 + 100), 4)]
        assert await session.list_trash() == []

    live(life)


def test_a_restored_version_brings_its_time_back(live: Callable[[Life], None]) -> None:
    """The ids stay, bytes and mtime come back, the upload time does not move; the current one is not the last."""

    async def life(hand: Hand, session: DavSession) -> None:
        for number in range(3):
            await hand.put("a.txt", b"x" * (number + 1), T0 + 100 * number)
        node = await look(session, "a.txt")
        before = await versions(session, node.file_id)
        assert await hand.restore_version(node.file_id, str(T0)) == 201
        back = await look(session, "a.txt")
        assert (back.mtime, back.size, back.upload_time) == (T0, 1, node.upload_time)
        assert await session.read("a.txt", back.etag) == reading_of(b"x")
        assert await versions(session, node.file_id) == before
        assert await is_kept_back(session, node.file_id, str(T0))
        assert await old(session, node.file_id, str(T0 + 200)) == reading_of(b"xxx")

    live(life)


def test_bytes_change_under_equal_metadata(live: Callable[[Life], None]) -> None:
    """With bulk upload etag, time, size and versions stay while the bytes change; the folder's etag moves."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.make_folder("d")
        assert await hand.bulk("d/pay.txt", b"pay 100 to alice", T0) == 200
        root, node = await look(session, ""), await look(session, "d/pay.txt")
        folder, history = await look(session, "d"), await versions(session, node.file_id)
        assert node.upload_time == 0
        assert await hand.bulk("d/pay.txt", b"pay 999 to mario", T0) == 200
        assert await look(session, "d/pay.txt") == node
        assert await versions(session, node.file_id) == history
        assert await session.read("d/pay.txt", node.etag) == reading_of(b"pay 999 to mario")
        assert (await look(session, "d")).etag != folder.etag
        assert (await look(session, "")).etag != root.etag

    live(life)


def test_a_read_wants_the_etag_that_was_listed(live: Callable[[Life], None]) -> None:
    """A file that was overwritten since it was listed is not read under its old etag."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.put("a.txt", b"one", T0)
        node = await look(session, "a.txt")
        await hand.put("a.txt", b"other", T0 + 100)
        with pytest.raises(TryLater, match="changed"):
            await session.read("a.txt", node.etag)

    live(life)


def test_odd_names_are_said_exactly(live: Callable[[Life], None]) -> None:
    """Names with any letters and signs come back as they were given, in listings, reads, the trash."""

    async def life(hand: Hand, session: DavSession) -> None:
        made = []
        for name in ODD_NAMES:
            if await hand.put(name, name.encode(), T0) == 201:
                made.append(name)
        nodes = {node.path: node for node in (await session.list_folder(""))[1:]}
        assert len(made) == len(nodes) >= 10
        for path, node in nodes.items():
            assert await session.read(path, node.etag) is not None
            assert await session.find(node.file_id) == node
        for path in nodes:
            assert await hand.delete(path) == 204
        assert {item.path for item in await session.list_trash()} == set(nodes)

    live(life)


def test_a_time_far_ahead_is_read(live: Callable[[Life], None]) -> None:
    """A user can date a file into the year 2300, and the folder is still read."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.put("a.txt", b"far", 10_413_792_000)
        (_, node) = await session.list_folder("")
        assert node.mtime == 10_413_792_000

    live(life)


def test_a_folder_touched_back_moves_only_times(live: Callable[[Life], None]) -> None:
    """A touch changes the time and the etag, and no byte."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.put("a.txt", b"one", T0)
        node = await look(session, "a.txt")
        assert await hand.touch("a.txt", T0 - 100) == 207
        touched = await look(session, "a.txt")
        assert (touched.file_id, touched.mtime, touched.size) == (node.file_id, T0 - 100, 3)
        assert await session.read("a.txt", touched.etag) == reading_of(b"one")
        assert await versions(session, node.file_id) == [(str(T0 - 100), 3)]

    live(life)


def test_a_name_that_xml_cannot_hold(live: Callable[[Life], None]) -> None:
    """Such a name hides neither its folder nor the trash."""

    async def life(hand: Hand, session: DavSession) -> None:
        await hand.put("a.txt", b"one", T0)
        if await hand.put("x\ufffe.txt", b"odd", T0) != 201:
            return
        assert {node.path for node in await session.list_folder("")} == {"", "a.txt", "x\ufffe.txt"}
        await hand.delete("a.txt")
        await hand.delete("x\ufffe.txt")
        assert {item.path for item in await session.list_trash()} <= {"a.txt", "x\ufffe.txt", ""}
        assert len(await session.list_trash()) == 2

    live(life)


def test_a_wrong_password_is_said(live: Callable[[Life], None]) -> None:
    """A password that is not accepted says so, and does not show itself."""

    async def life(hand: Hand, session: DavSession) -> None:
        session._headers = {"Authorization": "Basic YWxpY2U6aHVudGVyMg=="}
        with pytest.raises(PeerFailed, match="make a new app password") as raised:
            await session.stat("a.txt")
        assert "hunter2" not in str(raised.value)
        assert "YWxpY2U6" not in str(raised.value)

    live(life)


def test_a_share_is_the_owners_file(cloud: Cloud) -> None:
    """A recipient sees the same id, bytes and versions, marked as shared; a write by either moves both roots' etags."""

    async def life() -> None:
        async with throw_away_user(cloud) as (ada, of_ada), throw_away_user(cloud) as (bea, of_bea):
            await ada.make_folder("d")
            await ada.put("d/s.txt", b"one", T0)
            await ada.put("d/s.txt", b"two!", T0 + 100)
            node = await look(of_ada, "d/s.txt")
            assert await ada.share("d", bea.uid) == 200
            assert await look(of_bea, "d/s.txt") == node._replace(mount="shared")
            assert await of_bea.find(node.file_id) == node._replace(mount="shared")
            assert [one.mount for one in await of_bea.list_folder("")] == ["", "shared"]
            assert await versions(of_bea, node.file_id) == await versions(of_ada, node.file_id)
            assert await old(of_bea, node.file_id, str(T0)) == reading_of(b"one")
            before = [(await look(session, "")).etag for session in (of_ada, of_bea)]
            await bea.put("d/s.txt", b"three", T0 + 200)
            after = [(await look(session, "")).etag for session in (of_ada, of_bea)]
            assert before[0] != after[0]
            assert before[1] != after[1]
            await bea.delete("d/s.txt")
            (hers,), (copy,) = await of_ada.list_trash(), await of_bea.list_trash()
            assert (hers.file_id, hers.path) == (node.file_id, "d/s.txt")
            assert (copy.file_id != node.file_id, copy.path) == (True, "d/s.txt")

    asyncio.run(life())


def test_an_app_sees_what_the_user_sees(cloud: Cloud) -> None:
    """Through AppAPI a user's listings, bytes and versions are the same (NEXTCLOUD_APP, NEXTCLOUD_APP_SECRET)."""
    names = (APP, APP_SECRET) if cloud.fake else (environ.get("NEXTCLOUD_APP"), environ.get("NEXTCLOUD_APP_SECRET"))
    if not all(names):
        pytest.skip("NEXTCLOUD_APP is not set: AppAPI was not asked")
    config = Config(cloud.url, (), AppAPI(str(names[0]), "1.0.0", Secret(str(names[1]))))

    async def life() -> None:
        async with throw_away_user(cloud) as (hand, session), open_sessions(config, cloud.transport) as sessions:
            (as_app,) = [one for one in sessions if one.user == hand.uid]
            await hand.put("a.txt", b"one", T0)
            await hand.put("a.txt", b"two!", T0 + 100)
            node = await look(session, "a.txt")
            assert await as_app.list_folder("") == await session.list_folder("")
            assert await as_app.read("a.txt", node.etag) == reading_of(b"two!")
            assert await as_app.list_versions(node.file_id) == await session.list_versions(node.file_id)
            assert await as_app.read_version(node.file_id, str(T0)) == reading_of(b"one")

    asyncio.run(life())
