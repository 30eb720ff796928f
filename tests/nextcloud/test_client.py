"""What the client makes of servers that are busy, broken, slow or lie, and what it never shows."""

from __future__ import annotations

import asyncio
import os
import ssl
import traceback
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha3_256
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.requests import Request
from starlette.responses import Response

from audit.errors import Busy, PeerFailed, TryLater
from audit.nextcloud import client
from audit.nextcloud.client import (
    Account,
    AppAPI,
    Config,
    DavSession,
    Secret,
    make_client,
    open_sessions,
    parse_config,
    read_config,
)
from audit.nextcloud.dav import NODE_PROPERTIES
from audit.nextcloud.values import Broken, Reading, Session
from tests.nextcloud.fake import APP, APP_SECRET, FakeNextcloud
from verifier.errors import Malformed, Usage

URL, PASSWORD = "https://cloud.example", "alice-app-password"
T0 = 1_700_000_000
ALICE = Config(URL, (Account("alice", Secret(PASSWORD)),), None)


@pytest.fixture
def fake() -> FakeNextcloud:
    """With alice, who has letters/a.txt in two versions."""
    fake = FakeNextcloud()
    alice = fake.cloud.add_user("alice", PASSWORD)
    fake.cloud.make_folder(alice, ("letters",))
    fake.cloud.put(alice, ("letters", "a.txt"), b"one", T0)
    fake.cloud.put(alice, ("letters", "a.txt"), b"two!", T0 + 100)
    return fake


def run(fake: FakeNextcloud, use: Callable[[DavSession], Awaitable[object]], config: Config = ALICE) -> object:
    async def in_session() -> object:
        async with open_sessions(config, httpx.ASGITransport(fake.app)) as sessions:
            return await use(sessions[0])

    return asyncio.run(in_session())


async def read_a(session: DavSession) -> object:
    node = await session.stat("letters/a.txt")
    assert node is not None
    return await session.read(node.path, node.etag)


def only(method: str, answer: Callable[[Request], Response]) -> Callable[[Request], Response | None]:
    return lambda request: answer(request) if request.method == method else None


def whole(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_session_is_one_of_ours(fake: FakeNextcloud) -> None:
    """The client gives what `values.Session` promises."""

    async def use(session: Session) -> tuple[str, str]:
        return session.user, await session.instance_id()

    assert run(fake, use) == ("alice", "ocfakeinst01")


@pytest.mark.parametrize("status", [423, 429, 502, 503, 504])
def test_busy_says_when_to_come_again(fake: FakeNextcloud, status: int) -> None:
    """Locked, overloaded and in maintenance are TryLater, with the wait that was asked for."""
    fake.lie = lambda request: Response(status_code=status, headers={"Retry-After": "17"})
    with pytest.raises(Busy, match=str(status)) as raised:
        run(fake, lambda session: session.stat("letters"))
    assert raised.value.retry_s == 17


@pytest.mark.parametrize(("status", "retry_s"), [(423, 0), (429, 5), (503, 5)])
def test_locked_file_says_nothing_of_the_server(fake: FakeNextcloud, status: int, retry_s: int) -> None:
    """Where no wait is named, a server that has no time gets some; a file that is locked is no reason for a pause."""
    fake.lie = lambda request: Response(status_code=status)
    with pytest.raises(Busy) as raised:
        run(fake, lambda session: session.stat("letters"))
    assert raised.value.retry_s == retry_s


@pytest.mark.parametrize("wait", ["soon", "-1", "99999999999999", "Sun, 22 Nov 2026 18:34:00 GMT"])
def test_a_wait_without_sense_is_bounded(fake: FakeNextcloud, wait: str) -> None:
    """No server makes us wait for ever."""
    fake.lie = lambda request: Response(status_code=503, headers={"Retry-After": wait})
    with pytest.raises(Busy) as raised:
        run(fake, lambda session: session.stat("letters"))
    assert 0 <= raised.value.retry_s <= 3600


@pytest.mark.parametrize(
    ("status", "said"), [(301, "redirects"), (302, "redirects"), (403, "403"), (500, "500"), (200, "want status 207")]
)
def test_other_answers_are_failures(fake: FakeNextcloud, status: int, said: str) -> None:
    """A login page, a redirect or an error is no listing."""
    fake.lie = lambda request: Response("<html/>", status, {"Location": "https://evil.example/"})
    with pytest.raises(PeerFailed, match=said):
        run(fake, lambda session: session.list_folder(""))
    assert fake.requests == 1


def test_a_good_login_refused_once_is_tried_again(fake: FakeNextcloud) -> None:
    """A burst of logins refuses good ones: the first 401 is not believed."""
    answers: Iterator[Response | None] = iter([Response(status_code=401), None])
    fake.lie = lambda request: next(answers)
    assert run(fake, lambda session: session.stat("letters")) is not None


def test_no_secret_is_ever_shown(fake: FakeNextcloud) -> None:
    """Neither an expired app password nor an app's secret stands in a message, a traceback or a repr."""
    fake.cloud.users["alice"].passwords.clear()
    with pytest.raises(PeerFailed, match="make a new app password") as raised:
        run(fake, lambda session: session.stat("letters"))
    assert PASSWORD not in whole(raised.value)
    app = Config(URL, (), AppAPI("other", "1.0.0", Secret(APP_SECRET)))
    shown = run(fake, lambda session: asyncio.sleep(0, repr(session)))
    assert PASSWORD not in repr(ALICE) + str(shown)
    assert APP_SECRET not in repr(app)


def test_appapi_acts_as_each_user(fake: FakeNextcloud) -> None:
    """The app's secret opens everybody's files, and each session sees its own user's."""
    bob = fake.cloud.add_user("bob", "bob-password")
    fake.cloud.put(bob, ("b.txt",), b"b", T0)
    config = Config(URL, (), AppAPI(APP, "1.0.0", Secret(APP_SECRET)))

    async def use() -> dict[str, list[str]]:
        async with open_sessions(config, httpx.ASGITransport(fake.app)) as sessions:
            return {s.user: [node.path for node in await s.list_folder("")] for s in sessions}

    assert asyncio.run(use()) == {"admin": [""], "alice": ["", "letters"], "bob": ["", "b.txt"]}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"ocs":{"data":{}}}', b'{"ocs":{"data":[1]}}', b'{"ocs":{"data":["a\\n"]}}']
)
def test_a_list_of_users_that_is_none(fake: FakeNextcloud, data: bytes) -> None:
    """A list of users that is not as OCS says gives no sessions."""
    fake.lie = lambda request: Response(data)
    with pytest.raises(PeerFailed, match="OCS"):
        run(fake, read_a, Config(URL, (), AppAPI(APP, "1.0.0", Secret(APP_SECRET))))


def test_no_cookie_goes_from_one_user_to_another(fake: FakeNextcloud) -> None:
    """Sessions share connections and nothing else."""
    seen: list[str | None] = []

    def note(request: Request) -> None:
        seen.append(request.headers.get("cookie"))

    fake.lie = note
    run(fake, read_a)
    run(fake, read_a)
    assert asyncio.run(twice(fake)) == 200
    assert set(seen) == {None}


def test_what_is_read_in_a_session_alone_is_read_in_the_users_own(fake: FakeNextcloud) -> None:
    """[R] A 500 begins a session, in which its user's reads go on; nobody else's do, nor anything but reads."""
    fake.cloud.add_user("bob", PASSWORD)
    fake.cloud.put(fake.cloud.users["bob"], ("b.txt",), b"bob's", T0)
    fake.wants_session = True
    seen: set[tuple[str, str | None]] = set()

    def note(request: Request) -> None:
        user = b64decode(request.headers["authorization"].split(" ")[1]).decode().split(":")[0]
        seen.add((f"{request.method} {user}", request.headers.get("cookie")))

    fake.lie = note
    both = ALICE._replace(accounts=(*ALICE.accounts, Account("bob", Secret(PASSWORD))))

    async def use() -> list[Reading]:
        found = []
        async with open_sessions(both, httpx.ASGITransport(fake.app)) as sessions:
            for session, path in zip(sessions, ("letters/a.txt", "b.txt"), strict=True):
                node = await session.stat(path)
                assert node is not None
                found += [await session.read(path, node.etag), await session.read(path, node.etag)]
        return found

    assert [reading.size for reading in asyncio.run(use())] == [4, 4, 5, 5]
    reads = {(f"GET {user}", cookie) for user in ("alice", "bob") for cookie in (None, f"session={user}")}
    assert seen == reads | {(f"PROPFIND {user}", None) for user in ("alice", "bob")}


def test_a_fault_that_stays_is_one(fake: FakeNextcloud) -> None:
    """A server that fails in a session too is asked three times at most, whatever cookies it sends."""
    asked = []

    def fail(request: Request) -> Response:
        asked.append(request.headers.get("cookie"))
        return Response("", 500, {"Set-Cookie": f"n{len(asked)}=v; path=/"})

    etag, fake.lie = fake_etag(fake), fail
    with pytest.raises(Broken, match="500"):
        run(fake, lambda session: session.read("letters/a.txt", etag))
    assert asked == [None, "n1=v", "n1=v; n2=v"]


async def twice(fake: FakeNextcloud) -> int:
    async with make_client(httpx.ASGITransport(fake.app)) as bare:
        auth = ("alice", PASSWORD)
        first = await bare.get(f"{URL}/remote.php/dav/files/alice/letters/a.txt", auth=auth)
        assert "set-cookie" in first.headers
        return (await bare.get(f"{URL}/remote.php/dav/files/alice/letters/a.txt", auth=auth)).status_code


@pytest.mark.parametrize("length", ["2", "3", "5", "4000000000", "-1", "4x"])
def test_a_lie_about_the_length_is_caught(fake: FakeNextcloud, length: str) -> None:
    """Bytes count only when as many came as the header said."""
    etag = fake_etag(fake)
    headers = {"Content-Length": length, "OC-ETag": etag}
    fake.lie = only("GET", lambda request: Response(b"two!", headers=headers))
    with pytest.raises(PeerFailed, match="bytes came|no number"):
        run(fake, read_a)


def fake_etag(fake: FakeNextcloud) -> str:
    return next(node.etag for _, node in fake.cloud.walk(fake.cloud.users["alice"]))


def test_a_read_under_another_etag_does_not_count(fake: FakeNextcloud) -> None:
    """A server that ignores If-Match is noticed by the etag it sends, quoted, weak or not."""
    for said in ('"other"', 'W/"other"', ""):
        fake.lie = only("GET", lambda request, said=said: Response(b"two!", headers={"ETag": said}))  # type: ignore[misc]
        with pytest.raises(TryLater, match="changed"):
            run(fake, read_a)
    fake.lie = only("GET", lambda request: Response(b"two!", headers={"ETag": f'W/"{fake_etag(fake)}"'}))
    assert run(fake, read_a) == (4, sha3_256(b"two!").digest())


def test_compressed_bytes_are_refused(fake: FakeNextcloud) -> None:
    """What is hashed are the file's own bytes: compression was not asked for, and is not undone."""
    headers = {"Content-Encoding": "gzip", "ETag": fake_etag(fake)}
    fake.lie = only("GET", lambda request: Response(b"two!", headers=headers))
    with pytest.raises(PeerFailed, match="compressed"):
        run(fake, read_a)


def test_writers_wait_only_while_a_read_lasts(fake: FakeNextcloud) -> None:
    """The current content is locked while it is transferred; an old version locks nothing."""
    alice = fake.cloud.users["alice"]

    async def use(session: DavSession) -> list[int]:
        auth = httpx.BasicAuth("alice", PASSWORD)
        fake.pause = asyncio.Event()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(fake.app), auth=auth, base_url=URL) as hand:
            at, found = "/remote.php/dav/files/alice/letters/a.txt", []
            file_id = fake.cloud.get(alice, ("letters", "a.txt")).file_id
            for reading in (read_a(session), session.read_version(file_id, str(T0))):
                fake.reading.clear()
                fake.pause.clear()
                task = asyncio.ensure_future(reading)
                await fake.reading.wait()
                found.append((await hand.put(at, content=b"while it was read")).status_code)
                fake.pause.set()
                assert await task is not None
            return [*found, (await hand.put(at, content=b"afterwards")).status_code]

    assert run(fake, use) == [423, 204, 204]


@pytest.mark.parametrize("at_once", [1, 4])
def test_requests_at_once_are_bounded(fake: FakeNextcloud, at_once: int) -> None:
    """However much is asked for, only so many requests run."""

    async def use() -> None:
        async with open_sessions(ALICE, httpx.ASGITransport(fake.app), at_once) as (session,):
            await asyncio.gather(*(session.stat("letters") for _ in range(20)))

    asyncio.run(use())
    assert (fake.most_running, fake.requests) == (at_once, 20)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"alice/letters/", b"alice/other/", "asked for"),
        (b"letters/a.txt", b"a.txt", "not directly in it"),
        (b"letters/a.txt", b"letters/b/a.txt", "not directly in it"),
        (b"alice/letters/a.txt", b"bob/letters/a.txt", "want it below"),
    ],
)
def test_a_listing_of_another_folder_is_refused(fake: FakeNextcloud, old: bytes, new: bytes, said: str) -> None:
    """An answer about other paths, other people's, or what lies deeper, is none."""

    async def use(session: DavSession) -> None:
        async with make_client(httpx.ASGITransport(fake.app)) as bare:
            at, headers = f"{URL}/remote.php/dav/files/alice/letters", {**session._headers, "Depth": "1"}
            good = (await bare.request("PROPFIND", at, headers=headers, content=NODE_PROPERTIES)).content
        fake.lie = lambda request: Response(good, 207)
        assert len(await session.list_folder("letters")) == 2
        assert old in good
        fake.lie = lambda request: Response(good.replace(old, new), 207)
        with pytest.raises(PeerFailed, match=said):
            await session.list_folder("letters")

    run(fake, use)


@pytest.mark.parametrize("version", ["1.13.2", "1.18.4"])
def test_files_of_an_encrypted_folder_are_ciphertext(fake: FakeNextcloud, version: str) -> None:
    """End-to-end encryption marks the folder; what lies in it is said to be encrypted too, and nothing else is."""
    cloud, alice = fake.cloud, fake.cloud.users["alice"]
    cloud.get(alice, ("letters",)).is_encrypted = True
    cloud.put(alice, ("top.txt",), b"top", T0)
    cloud.make_folder(alice, ("plain",))
    cloud.put(alice, ("plain", "b.txt"), b"b", T0)
    fake.encryption, fake.encryption_agents = version, {"nextcloud-audit"} if version < "1.17" else set()

    async def use(session: DavSession) -> list[bool | None]:
        assert [node.is_encrypted for node in await session.list_folder("letters")] == [True, True]
        places = ("letters/a.txt", "top.txt", "plain/b.txt", "plain", "letters")
        return [node and node.is_encrypted for node in [await session.stat(path) for path in places]]

    assert run(fake, use) == [True, False, False, False, True]


def test_without_that_app_one_question_is_all_it_costs(fake: FakeNextcloud) -> None:
    """A Nextcloud without end-to-end encryption is asked once whether it has it."""
    asked: list[str] = []

    def note(request: Request) -> Response | None:
        asked.append(request.url.path)
        return None

    fake.lie = note

    async def use(session: DavSession) -> None:
        for _ in range(3):
            await session.stat("letters/a.txt")

    run(fake, use)
    assert len([path for path in asked if path.endswith("/capabilities")]) == 1
    assert len(asked) == 4


def test_a_name_that_xml_cannot_hold_hides_no_trash(fake: FakeNextcloud) -> None:
    """One such name makes the listing unreadable: it is asked for again without the paths, which are then unknown."""
    alice = fake.cloud.users["alice"]
    fake.cloud.put(alice, ("x\x01.txt",), b"odd", T0)
    fake.cloud.delete(alice, ("x\x01.txt",))
    fake.cloud.delete(alice, ("letters", "a.txt"))
    found = run(fake, lambda session: session.list_trash())
    assert isinstance(found, list)
    deleted = fake.cloud.now
    assert [(item.name, item.path) for item in found] == [(f"x\x01.txt.d{deleted}", ""), (f"a.txt.d{deleted}", "")]


def test_a_transfer_that_stalls_is_given_up(fake: FakeNextcloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read holds a lock, so it ends even where the server never does; afterwards writers get through."""
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.1)

    async def use(session: DavSession) -> None:
        fake.pause = asyncio.Event()
        with pytest.raises(PeerFailed, match="no whole answer in time"):
            await read_a(session)

    run(fake, use)
    alice = fake.cloud.users["alice"]
    assert fake.cloud.put(alice, ("letters", "a.txt"), b"again").readers == 0


def failing(error: Exception) -> httpx.MockTransport:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    return httpx.MockTransport(fail)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("refused"), "no connection"),
        (httpx.ReadTimeout("slow"), "ReadTimeout"),
        (httpx.RemoteProtocolError("peer closed"), "cut short"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "TLS failed"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "certificate is not accepted"),
    ],
)
def test_a_connection_that_fails_says_how(error: Exception, said: str) -> None:
    """TLS, network and timing failures are PeerFailed, told apart, and hold no request."""
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    if isinstance(error, ssl.SSLError):
        wrapped = httpx.ConnectError("tls")
        wrapped.__cause__ = error
        error = wrapped

    async def use() -> None:
        async with open_sessions(ALICE, failing(error)) as (session,):
            await session.stat("a.txt")

    with pytest.raises(PeerFailed, match=said) as raised:
        asyncio.run(use())
    assert PASSWORD not in whole(raised.value)


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    """A real handshake on loopback: the words say that it is the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_certificate(tmp_path))

    async def use() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with server, open_sessions(ALICE._replace(url=f"https://127.0.0.1:{port}")) as (session,):
            await session.stat("a.txt")

    with pytest.raises(PeerFailed, match="certificate is not accepted"):
        asyncio.run(use())


def write_certificate(directory: Path) -> str:
    """A key and a certificate that it signed itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    certificate = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    path = directory / "certificate.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate)
    return str(path)


# The configuration

GOOD = b'{"url":"https://cloud.example/nc/index.php/","accounts":[{"user":"alice","password":"hunter2"}]}'


def test_a_configuration_is_read(tmp_path: Path) -> None:
    """Both forms; the file must be closed to others."""
    (tmp_path / "nextcloud.json").write_bytes(GOOD)
    os.chmod(tmp_path / "nextcloud.json", 0o600)
    config = read_config(str(tmp_path))
    assert (config.url, config.accounts[0].user) == ("https://cloud.example/nc", "alice")
    assert config.accounts[0].password.reveal() == "hunter2"
    app = parse_config(b'{"url":"http://127.0.0.1:8032","appapi":{"id":"a","version":"1.0.0","secret":"s"}}').appapi
    assert app is not None
    assert (app.app, app.secret.reveal()) == ("a", "s")
    os.chmod(tmp_path / "nextcloud.json", 0o640)
    with pytest.raises(Usage, match="0600"):
        read_config(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"url"', b'"uri"'),
        (b"https://cloud.example/nc/index.php/", b"http://cloud.example"),
        (b"https://cloud.example/nc/index.php/", b"https://a:hunter2@cloud.example"),
        (b"https://cloud.example/nc/index.php/", b"https://cloud.example/?a=hunter2"),
        (b"https://cloud.example/nc/index.php/", b"https://cloud.example:99999/"),
        (b"https://cloud.example/nc/index.php/", b"ftp://cloud.example/"),
        (b'"alice"', b'"alice:x"'),
        (b'"alice"', b'""'),
        (b'"hunter2"', b'"hunter2\\n"'),
        (b'"hunter2"', b"7"),
        (b'"hunter2"}', b'"hunter2"},{"user":"alice","password":"hunter2"}'),
        (b'"user":"alice"', b'"user":"alice","user":"bob"'),
        (b'"user":"alice"', b'"user":"alice","more":"1"'),
        (b'{"user":"alice","password":"hunter2"}', b""),
        (b"}]}", b"}]"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused(old: bytes, new: bytes) -> None:
    """One spelling, https outside loopback, and no secret in the message."""
    assert old in GOOD
    with pytest.raises(Malformed) as raised:
        parse_config(GOOD.replace(old, new))
    assert "hunter2" not in str(raised.value)
