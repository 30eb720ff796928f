"""Reading a Nextcloud's database and data directory, on each kind of database server that Nextcloud runs on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from audit import hashing
from audit.errors import PeerFailed, TryLater
from audit.nextcloud.catchup import Caught, read_homes
from audit.nextcloud.client import parse_config
from audit.nextcloud.samehost import Host, HostConfig, HostFirst, HostSession, open_host
from audit.nextcloud.values import Node, Reading, Trashed, Version
from tests.nextcloud.databases import KINDS
from tests.nextcloud.homes import ALICE, BOB, FOLDER, LONG, LONG_NAME, PLAIN, HomeCloud, home_cloud, opened, reading
from verifier.errors import Malformed, Usage


@pytest.fixture(params=KINDS)
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HomeCloud]:
    with home_cloud(request.param, tmp_path) as made:
        yield made


def caught(host: Host) -> list[Caught]:
    """What a catch-up of everybody's homes reads."""
    homes = host.homes(("alice", "bob", LONG_NAME))
    return [one for batch in read_homes(host, homes) for one in batch]


def test_samehost_says_what_webdav_says(cloud: HomeCloud) -> None:
    """A file by path, by id and in its folder; its versions with their bytes; the trash."""
    number = cloud.put("alice", ALICE, "Brief ä\n.txt", b"second", 1_700_000_100)
    cloud.insert("oc_filecache_extended", fileid=number, upload_time=1_700_000_101)
    cloud.write("alice", "files_versions/Brief ä\n.txt.v1700000000", b"first", 1_700_000_000)
    for key, (when, size, who) in enumerate(((1_700_000_000, 5, '{"author":"bob"}'), (1_700_000_100, 6, "{}"))):
        cloud.insert("oc_files_versions", id=key, file_id=number, timestamp=when, size=size, metadata=who)
    gone = cloud.row(ALICE, "files_trashbin/files/old.txt.d1700000200", 0, PLAIN, 3, 1_700_000_000)
    cloud.insert("oc_files_trash", auto_id=1, id="old.txt", user="alice", timestamp="1700000200", location=".")

    node = Node(
        number, "Brief ä\n.txt", False, f"e{number}", 1_700_000_100, 6, 1_700_000_101, "alice", "", "text/plain", False
    )

    async def look(session: HostSession) -> None:
        assert await session.instance_id() == "ocinstance"
        assert await session.stat(node.path) == await session.find(number) == node
        assert [found.path for found in await session.list_folder("")] == ["", node.path]
        assert await session.read(node.path, node.etag) == reading(b"second")
        newest = Version("1700000100", 1_700_000_100, 6, "")
        assert list(await session.list_versions(number)) == [Version("1700000000", 1_700_000_000, 5, "bob"), newest]
        assert await session.read_version(number, "1700000000") == reading(b"first")
        assert await session.read_version(number, "1600000000") is None
        trashed = Trashed(gone, "old.txt.d1700000200", "old.txt", 1_700_000_200, 3, 1_700_000_000)
        assert await session.list_trash() == [trashed]

    host = opened(cloud)
    asyncio.run(look(HostSession(host, "alice")))
    host.close()


def test_samehost_keeps_users_apart(cloud: HomeCloud) -> None:
    """Another user's file is not found by its id, nor in the trash, nor by a path that differs in case."""
    number = cloud.put("bob", BOB, "b.txt", b"b")
    cloud.put("alice", ALICE, "a.txt", b"a")

    async def look(session: HostSession) -> None:
        assert await session.find(number) is None
        assert await session.list_versions(number) == []
        assert await session.read_version(number, "1") is None
        assert await session.stat("A.txt") is None

    host = opened(cloud)
    asyncio.run(look(HostSession(host, "alice")))
    host.close()


def test_samehost_cannot_write(cloud: HomeCloud) -> None:
    """Whatever rights the account has, the connection refuses to change anything."""
    host = opened(cloud)
    with pytest.raises(SQLAlchemyError, match="(?i)read.?only"), host._engine.begin() as connection:
        connection.execute(text("DELETE FROM oc_storages"))
    assert host.homes(("alice", "bob")) == {ALICE: "alice", BOB: "bob"}
    host.close()


def test_samehost_reads_nothing_that_disk_and_database_tell_apart(cloud: HomeCloud) -> None:
    """Being written, or changed behind Nextcloud's back: no digest counts, whichever of size and time differs."""
    cloud.put("alice", ALICE, "size.txt", b"one")
    cloud.put("alice", ALICE, "time.txt", b"one")
    cloud.put("alice", ALICE, "gone.txt", b"one")
    cloud.write("alice", "files/size.txt", b"longer")
    cloud.write("alice", "files/time.txt", b"two", 1_700_000_001)
    (cloud.data / "alice/files/gone.txt").unlink()
    host = opened(cloud)
    session = HostSession(host, "alice")
    for name in ("size.txt", "time.txt", "gone.txt"):
        node = asyncio.run(session.stat(name))
        assert node is not None
        with pytest.raises(TryLater, match="disagree"):
            asyncio.run(session.read(name, node.etag))
    assert [one.look for one in caught(host)] == [None] * 3
    host.close()


def test_samehost_reads_nothing_that_changes_meanwhile(cloud: HomeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is another one after the reading than before it: no digest counts, in a session and in a catch-up."""
    number = cloud.put("alice", ALICE, "a.txt", b"one")
    host = opened(cloud)
    hash_file = hashing.hash_file

    def hash_and_rewrite(*arguments: Any) -> Any:
        found = hash_file(*arguments)
        cloud.run("UPDATE oc_filecache SET etag = :etag WHERE fileid = :id", etag=f"e{time.monotonic_ns()}", id=number)
        return found

    monkeypatch.setattr(hashing, "hash_file", hash_and_rewrite)
    node = asyncio.run(HostSession(host, "alice").stat("a.txt"))
    assert node is not None
    with pytest.raises(TryLater, match="while it was read"):
        asyncio.run(HostSession(host, "alice").read("a.txt", node.etag))
    assert [one.look for one in caught(host)] == [None]
    host.close()


def test_samehost_shows_bytes_that_changed_under_the_same_metadata(cloud: HomeCloud) -> None:
    """Equal size and time hide nothing: the digest is of the bytes that are there."""
    number = cloud.put("alice", ALICE, "pay.txt", b"pay 100 to alice")
    cloud.write("alice", "files/pay.txt", b"pay 999 to mario")
    host = opened(cloud)
    assert [(one.node.file_id, one.look and one.look.reading) for one in caught(host)] == [
        (number, reading(b"pay 999 to mario"))
    ]
    host.close()


def test_samehost_refuses_another_etag(cloud: HomeCloud) -> None:
    """What was looked at before is not what is read now."""
    cloud.put("alice", ALICE, "a.txt", b"a")
    host = opened(cloud)
    with pytest.raises(TryLater, match="another file"):
        asyncio.run(HostSession(host, "alice").read("a.txt", "older"))
    host.close()


def test_samehost_never_takes_ciphertext_for_content(cloud: HomeCloud) -> None:
    """Server-side encryption is seen in the row, and where that lies, in the bytes."""
    cloud.put("alice", ALICE, "row.txt", b"x", encrypted=1)
    cloud.put("alice", ALICE, "bytes.txt", b"HBEGIN:oc_encryption_module:OC_DEFAULT_MODULE:HEND")
    host = opened(cloud)
    assert [one.look for one in caught(host)] == [None, None]
    session = HostSession(host, "alice")
    node = asyncio.run(session.stat("bytes.txt"))
    assert node is not None
    with pytest.raises(PeerFailed, match="encrypted"):
        asyncio.run(session.read("bytes.txt", node.etag))
    host.close()


def test_samehost_says_what_is_end_to_end_encrypted(cloud: HomeCloud) -> None:
    """What lies in a marked folder is ciphertext on the disk as over WebDAV: it is read, and said to be ciphertext."""
    folder = cloud.row(ALICE, "files/Secret", cloud.folders[ALICE, "files"], FOLDER, 6, 1_700_000_000, encrypted=1)
    cloud.write("alice", "files/Secret/4f2a", b"cipher")
    inside = cloud.row(ALICE, "files/Secret/4f2a", folder, PLAIN, 6, 1_700_000_000)
    beside = cloud.put("alice", ALICE, "a.txt", b"a")
    host = opened(cloud)
    found = {one.node.file_id: (one.node.is_encrypted, one.look and one.look.reading) for one in caught(host)}
    assert found == {inside: (True, reading(b"cipher")), beside: (False, reading(b"a"))}
    listed = asyncio.run(HostSession(host, "alice").list_folder(""))
    assert {node.path: node.is_encrypted for node in listed} == {"": False, "Secret": True, "a.txt": False}
    host.close()


def test_samehost_follows_no_link_out_of_a_home(cloud: HomeCloud) -> None:
    """A user who can plant a link reads nothing of anybody else's."""
    secret = cloud.data / "secret"
    secret.write_bytes(b"secret")
    cloud.put("alice", ALICE, "link.txt", b"secret")
    target = cloud.data / "alice/files/link.txt"
    target.unlink()
    target.symlink_to(secret)
    host = opened(cloud)
    assert [one.look for one in caught(host)] == [None]
    host.close()


def test_samehost_knows_users_with_long_names(cloud: HomeCloud) -> None:
    """Nextcloud stores the md5 of a long storage id; such a user is found by name."""
    cloud.put(LONG_NAME, LONG, "a.txt", b"a")
    host = opened(cloud)
    session = HostSession(host, LONG_NAME)
    node = asyncio.run(session.stat("a.txt"))
    assert node is not None
    assert asyncio.run(session.read("a.txt", node.etag)) == reading(b"a")
    assert [(one.user, one.node) for one in caught(host)] == [(LONG_NAME, node)]
    with pytest.raises(PeerFailed, match="no home storage"):
        asyncio.run(HostSession(host, "eve").stat("a.txt"))
    host.close()


@pytest.mark.parametrize("database", ["", "oracle://x", "sqlite:/nowhere/at/all.db", "mysql://"])
def test_samehost_says_what_is_wrong_with_the_configuration(tmp_path: Path, database: str) -> None:
    """A database that is none, or not Nextcloud's, is a mistake of the configuration; no secret is in the words."""
    with pytest.raises(Usage, match="database"):
        open_host(HostConfig(str(tmp_path), database, "oc_", "oc1"))


class Dav(HostSession):
    """Stands for WebDAV: it knows what the disk does not, and counts how often it has to read."""

    def __init__(self, host: Host, user: str, instance: str = "ocinstance") -> None:
        super().__init__(host, user)
        self.reads, self.instance = 0, instance

    async def instance_id(self) -> str:
        return self.instance

    async def read(self, path: str, etag: str) -> Reading:
        self.reads += 1
        return reading(b"over WebDAV")

    async def read_version(self, file_id: int, version_id: str) -> Reading | None:
        self.reads += 1
        return reading(b"an old one") if version_id == "5" else None


def test_samehost_reads_the_disk_first(cloud: HomeCloud) -> None:
    """Bytes come from the disk; where it can't tell, WebDAV is asked, and only then."""
    cloud.put("alice", ALICE, "a.txt", b"a")
    number = cloud.put("alice", ALICE, "secret.txt", b"x", encrypted=1)

    async def look(dav: Dav) -> None:
        first = HostFirst(dav, host)
        node, hidden = await first.stat("a.txt"), await first.find(number)
        assert node is not None
        assert hidden is not None
        assert (await first.read("a.txt", node.etag), dav.reads) == (reading(b"a"), 0)
        assert (await first.read("secret.txt", hidden.etag), dav.reads) == (reading(b"over WebDAV"), 1)
        assert await first.read_version(number, "5") == reading(b"an old one")
        assert await first.read_version(number, "6") is None
        with pytest.raises(Usage, match="not the one at the url"):
            await HostFirst(Dav(host, "alice", "ocother"), host).instance_id()

    host = opened(cloud)
    asyncio.run(look(Dav(host, "alice")))
    host.close()


def test_samehost_configuration_hides_the_password() -> None:
    """Neither its own text nor that of the whole configuration shows the database's address."""
    host = b'"host":{"data":"/srv","database":"mysql://u:pass-word@h/n","prefix":"oc_","instance":"oc1"}'
    start = b'{"url":"https://c.example","accounts":[{"user":"a","password":"b"}]'
    config = parse_config(start + b"," + host + b"}")
    assert config.host == HostConfig("/srv", "mysql://u:pass-word@h/n", "oc_", "oc1")
    assert "pass-word" not in repr(config)
    assert parse_config(start + b"}").host is None
    with pytest.raises(Malformed):
        parse_config(start + b',"host":{"data":"/srv"}}')
