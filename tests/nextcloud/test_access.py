"""Who gets a proof: what Nextcloud shows a user, and not a byte more."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from audit.enrolment import Unauthorised
from audit.errors import PeerFailed
from audit.nextcloud import access as access_module
from audit.nextcloud.access import (
    REFUSALS,
    REFUSED_S,
    SHARE,
    Access,
    Guessed,
    NotVisible,
    Seen,
    check_appapi,
    parse_credentials,
)
from audit.nextcloud.client import AppAPI, Config, Secret, make_client
from tests.audit.log_setup import Clock
from tests.audit.test_api import PATH, QUOTED, publish, see
from tests.audit.town import Town
from tests.nextcloud.fake import APP, APP_SECRET, FakeNextcloud, multistatus, node_properties
from verifier.proof import Proof, parse_proof

URL = "https://cloud.example"
APPAPI = AppAPI(APP, "1.0.0", Secret(APP_SECRET))


def basic(user: str, password: str, scheme: str = "Basic") -> dict[str, str]:
    return {"authorization": f"{scheme} {b64encode(f'{user}:{password}'.encode()).decode()}"}


def exapp(user: str, secret: str = APP_SECRET, app: str = APP) -> dict[str, str]:
    return {"authorization-app-api": b64encode(f"{user}:{secret}".encode()).decode(), "ex-app-id": app}


class Shared(FakeNextcloud):
    """alice has a.txt; bob has it as Shared/a.txt. Links: `tok` shows it, `dir` as in.txt, `drop` only takes in."""

    def __init__(self) -> None:
        super().__init__()
        self.alice, self.bob = self.cloud.add_user("alice", "alice-pw"), self.cloud.add_user("bob", "bob-pw")
        self.file = self.cloud.put(self.alice, ("a.txt",), b"one")
        self.lie = self._share

    def _share(self, request: Request) -> Response | None:
        path = request.url.path
        if path.startswith("/public.php/webdav"):
            return self._link(request, path)
        if path == "/remote.php/dav/files/bob/Shared/a.txt" and self._user(request).uid == "bob":
            return self._found(path, node_properties(self.file, self.bob))
        return None

    def _link(self, request: Request, path: str) -> Response:
        given = request.headers["authorization"]
        if given == basic("drop", "")["authorization"]:
            return Response(status_code=405)
        places = {
            basic("tok", "")["authorization"]: {"/public.php/webdav/": self.file},
            basic("dir", "pw")["authorization"]: {
                "/public.php/webdav/": self.alice.root,
                "/public.php/webdav/in.txt": self.file,
            },
        }
        node = places.get(given, {}).get(path if path.count("/") > 2 else "/public.php/webdav/")
        if given not in places or node is None:
            return Response(status_code=401 if given not in places else 404)
        return self._found(path, node_properties(node, self.alice))

    def _found(self, path: str, properties: dict[str, str]) -> Response:
        from audit.nextcloud import dav

        return multistatus(dav.NODE_PROPERTIES, [(path, properties)])


@pytest.fixture
def cloud() -> Shared:
    return Shared()


@asynccontextmanager
async def opened(cloud: FakeNextcloud, source: int = 1) -> AsyncIterator[Access]:
    async with make_client(httpx.ASGITransport(cloud.app)) as client:
        yield Access(source, "nextcloud:x", Config(URL, (), APPAPI), client)


def find(cloud: FakeNextcloud, headers: dict[str, str], path: str | None = None, file_id: int | None = None) -> Seen:
    async def run() -> Seen:
        async with opened(cloud) as access:
            assert access.is_for(headers)
            return await access.find(headers, path, file_id)

    return asyncio.run(run())


def test_access_of_the_owner_is_whole(cloud: Shared) -> None:
    """By path, by file id, with an app password or through AppAPI: it is their own file."""
    number = cloud.file.file_id
    for headers in (basic("alice", "alice-pw"), exapp("alice")):
        assert find(cloud, headers, "a.txt") == Seen(number, True)
        assert find(cloud, headers, file_id=number) == Seen(number, True)


def test_access_of_a_recipient_is_to_contents(cloud: Shared) -> None:
    """A share is found where the recipient has it, and is not theirs."""
    assert find(cloud, basic("bob", "bob-pw"), "Shared/a.txt") == Seen(cloud.file.file_id, False)


def test_access_of_a_link(cloud: Shared) -> None:
    """A link to a file is that file; in a link to a folder the path counts, and a password is passed on."""
    number = cloud.file.file_id
    assert find(cloud, basic("tok", "", SHARE), "whatever.txt") == Seen(number, False)
    assert find(cloud, basic("tok", "", SHARE), file_id=number) == Seen(number, False)
    assert find(cloud, basic("dir", "pw", SHARE), "in.txt") == Seen(number, False)


@pytest.mark.parametrize(
    ("who", "path", "number"),
    [
        (basic("bob", "bob-pw"), "a.txt", None),
        (basic("bob", "bob-pw"), None, 0),
        (basic("alice", "alice-pw"), "", None),
        (basic("alice", "alice-pw"), None, 999_999),
        (basic("tok", "", SHARE), None, 999_999),
        (basic("dir", "pw", SHARE), "other.txt", None),
        (basic("dir", "pw", SHARE), None, 0),
        (basic("drop", "", SHARE), "a.txt", None),
        (basic("drop", "", SHARE), None, 0),
    ],
)
def test_access_refuses_what_nextcloud_does_not_show(
    cloud: Shared, who: dict[str, str], path: str | None, number: int | None
) -> None:
    """[R] Another user's file by path or by number (0: its true one), a folder, what is not there: one refusal."""
    with pytest.raises(NotVisible, match="no such file"):
        find(cloud, who, path, cloud.file.file_id if number == 0 else number)


@pytest.mark.parametrize("path", ["../alice/a.txt", "d/../a.txt", "./a.txt", "d//a.txt", "/a.txt", "a.txt/", "\0"])
def test_access_asks_for_no_address_but_a_files(cloud: Shared, path: str) -> None:
    """[R] A path that climbs out of the user's folder, or that no file can have, is not sent to Nextcloud at all."""
    asked: list[str] = []

    def note(request: Request) -> Response | None:
        asked.append(request.url.path)
        return shared(request)

    shared, cloud.lie = cloud.lie, note
    for who in (basic("bob", "bob-pw"), basic("dir", "pw", SHARE), exapp("bob")):
        with pytest.raises(NotVisible, match="no such file"):
            find(cloud, who, path)
    assert set(asked) <= {"/ocs/v2.php/cloud/user"}


@pytest.mark.parametrize(
    "who",
    [
        basic("alice", "bob-pw"),
        basic("nobody", "x"),
        basic("none", "", SHARE),
        basic("dir", "", SHARE),
        exapp("alice", "wrong"),
        exapp("alice", app="other"),
        exapp(""),
        {"authorization-app-api": "!", "ex-app-id": APP},
        {"authorization": "Basic !"},
        {"authorization": "Basic " + b64encode(b"no-colon").decode()},
        {"authorization": "Basic " + "A" * 4_000},
    ],
)
def test_access_refuses_who_is_not_known(cloud: Shared, who: dict[str, str]) -> None:
    """[R] Wrong passwords, links and secrets; the message never says what was given."""
    with pytest.raises(Unauthorised) as caught:
        find(cloud, who, "a.txt")
    assert not any(secret in str(caught.value) for secret in ("bob-pw", "wrong", APP_SECRET))


def test_access_notices_a_revoked_password(cloud: Shared) -> None:
    """The uid is remembered, the permission is not: each request is Nextcloud's to allow."""

    async def run() -> None:
        async with opened(cloud) as access:
            who = basic("alice", "alice-pw")
            assert (await access.find(who, "a.txt", None)).owns
            cloud.alice.passwords.discard("alice-pw")
            with pytest.raises(Unauthorised):
                await access.find(who, "a.txt", None)

    asyncio.run(run())


def test_access_is_for_users_of_a_nextcloud_alone() -> None:
    """A request that an owner's key signed goes its own way; without AppAPI its headers mean nothing."""
    access = Access(1, "nextcloud:x", Config(URL, (), None), httpx.AsyncClient())
    assert not access.is_for({"authorization": "NextcloudAudit a 1 b"})
    assert not access.is_for(exapp("alice"))
    assert not access.is_for({})
    assert access.is_for(basic("a", "b"))


def test_credentials_round_trip() -> None:
    """A password may hold colons and any letters."""
    assert parse_credentials(basic("alice", "pä:ss").get("authorization", "").partition(" ")[2]) == ("alice", "pä:ss")
    assert check_appapi(exapp("zoë"), APPAPI) == "zoë"


# -- over the log's own interface -----------------------------------------------------------------------------


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path, quorum=2, nodes=3)
    assert asyncio.run(made.enrol()).status_code == 202
    yield made
    made.close()


def ask(town: Town, cloud: Shared, target: str, headers: dict[str, str]) -> httpx.Response:
    async def run() -> httpx.Response:
        async with opened(cloud, town.source.row) as access:
            town.service.access = access
            return await town.send("GET", target, headers=headers)

    return asyncio.run(run())


def proof_of(answer: httpx.Response) -> Proof:
    assert answer.status_code == 200, answer.text
    return parse_proof(answer.content)


def test_proof_shows_a_recipient_contents_alone(town: Town, cloud: Shared) -> None:
    """[R] The owner's paths and actors stay theirs; the owner, asking in the same way, gets all of it."""
    see(town, cloud.file.file_id, b"one", PATH)
    publish(town)
    whole = proof_of(ask(town, cloud, "/proof?path=a.txt", basic("alice", "alice-pw")))
    assert all(line.content and line.path and line.context for line in whole.entries)
    shared = proof_of(ask(town, cloud, "/proof?path=Shared%2Fa.txt", basic("bob", "bob-pw")))
    assert all(line.content and line.path is None and line.context is None for line in shared.entries)
    assert [line.entry for line in shared.entries] == [line.entry for line in whole.entries]
    assert PATH.encode() not in ask(town, cloud, "/proof?path=x", basic("tok", "", SHARE)).content


def test_proof_refusals_are_the_same_bytes(town: Town, cloud: Shared) -> None:
    """[R] Not allowed, not existing, and existing in Nextcloud but never recorded: nobody can tell them apart."""
    see(town, 4_711, b"x", "x")
    publish(town)
    bob, alice = basic("bob", "bob-pw"), basic("alice", "alice-pw")
    answers = [
        ask(town, cloud, f"/proof/{cloud.file.file_id}", bob),
        ask(town, cloud, "/proof/999999", bob),
        ask(town, cloud, "/proof/4711", bob),
        ask(town, cloud, "/proof?path=a.txt", alice),
        ask(town, cloud, "/proof?path=a.txt&source=nextcloud:y", alice),
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}


class Counted(Shared):
    """Counts its refusals, as Nextcloud's brute-force protection does."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            self.refused += message.get("status") == 401
            await send(message)

        await self.app(scope, receive, count)


@asynccontextmanager
async def counted(cloud: Counted, clock: Clock) -> AsyncIterator[Access]:
    async with make_client(httpx.ASGITransport(cloud)) as client:
        yield Access(1, "nextcloud:x", Config(URL, (), APPAPI), client, lambda: float(clock.now))


async def try_all(access: Access, who: list[dict[str, str]]) -> list[type[object]]:
    found = await asyncio.gather(*(access.find(one, "a.txt", None) for one in who), return_exceptions=True)
    return [type(one) for one in found]


STRANGERS = [basic("alice", f"guess-{i}") for i in range(20)]
NO_LINKS = [basic(f"none{i}", "", SHARE) for i in range(20)]


@pytest.mark.parametrize("strangers", [STRANGERS, NO_LINKS, [STRANGERS[0]] * 20], ids=["users", "links", "one"])
@pytest.mark.parametrize("at_once", [1, 20])
def test_wrong_passwords_do_not_lock_the_log_out(strangers: list[dict[str, str]], at_once: int) -> None:
    """[R] Fewer than four reach Nextcloud in half an hour, one after the other or all at once, none of them twice."""

    async def run() -> None:
        cloud, clock = Counted(), Clock()
        async with counted(cloud, clock) as access:
            for start in range(0, 20, at_once):
                assert set(await try_all(access, strangers[start : start + at_once])) <= {Unauthorised, Guessed}
            assert 1 <= cloud.refused <= REFUSALS - 1
            clock.now += int(REFUSED_S)
            assert set(await try_all(access, strangers[:1])) == {Unauthorised}
            assert cloud.refused <= REFUSALS

    asyncio.run(run())


def test_a_wrong_password_is_asked_about_once() -> None:
    """The same one again is refused without a question, and stays refused while others are no longer looked at."""

    async def run() -> None:
        cloud, clock = Counted(), Clock()
        async with counted(cloud, clock) as access:
            assert await try_all(access, STRANGERS[:1]) == await try_all(access, STRANGERS[:1]) == [Unauthorised]
            assert cloud.refused == 1
            await try_all(access, STRANGERS)
            assert await try_all(access, [STRANGERS[0], STRANGERS[9]]) == [Unauthorised, Guessed]

    asyncio.run(run())


def test_strangers_lock_nobody_out_whom_nextcloud_knows() -> None:
    """Who got a proof before gets the next one; a password that is revoked meanwhile is the last that goes out."""

    async def run() -> None:
        cloud, clock = Counted(), Clock()
        alice, link = basic("alice", "alice-pw"), basic("tok", "", SHARE)
        async with counted(cloud, clock) as access:
            assert await try_all(access, [alice, link]) == [Seen, Seen]
            await try_all(access, STRANGERS)
            clock.now += 600
            assert await try_all(access, [alice, link, *[alice] * 20]) == [Seen] * 22
            assert await try_all(access, [basic("bob", "bob-pw")]) == [Guessed]
            cloud.alice.passwords.discard("alice-pw")
            assert await try_all(access, [alice] * 20 + [link]) == [Unauthorised] * 20 + [Guessed]
            assert cloud.refused == REFUSALS

    asyncio.run(run())


def test_a_link_that_takes_any_password_puts_no_user_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] Nextcloud takes any password for a link without one; as many of them as are remembered push no user out."""
    monkeypatch.setattr(access_module, "UIDS", 8)

    class Open(Counted):
        def _link(self, request: Request, path: str) -> Response:
            return self._found(path, node_properties(self.file, self.alice))

    async def run() -> None:
        cloud, clock = Open(), Clock()
        alice = basic("alice", "alice-pw")
        async with counted(cloud, clock) as access:
            assert await try_all(access, [alice]) == [Seen]
            for number in range(20):
                assert await try_all(access, [basic("tok", f"any-{number}", SHARE)]) == [Seen]
            await try_all(access, STRANGERS)
            assert await try_all(access, [alice, basic("bob", "bob-pw")]) == [Seen, Guessed]

    asyncio.run(run())


def test_one_user_or_link_is_remembered_a_few_times() -> None:
    """[R] However often a name is spelt anew, or a link comes with another password, the others stay known."""
    accepted = access_module._Accepted()
    accepted.add(b"alice", "alice", 0.0, "alice")
    for number in range(access_module.UIDS + 1):
        accepted.add(b"bob %d" % number, "bob", 0.0, "bob")
    assert b"alice" in accepted
    assert len(accepted) == 1 + access_module.SPELLINGS


def test_proof_says_when_to_come_again(town: Town, cloud: Shared) -> None:
    """429 while nobody new is looked at, with the time that is left; and what Nextcloud asks for is passed on."""

    async def run() -> None:
        async with opened(cloud, town.source.row) as access:
            town.service.access = access
            answers = [await town.send("GET", f"/proof?path={QUOTED}", headers=one) for one in STRANGERS]
            assert [answer.status_code for answer in answers] == [401] * (REFUSALS - 1) + [429] * (21 - REFUSALS)
            assert 1_700 < int(answers[-1].headers["retry-after"]) <= REFUSED_S
            cloud.lie = lambda request: Response(status_code=429, headers={"retry-after": "77"})
            answer = await town.send("GET", f"/proof?path={QUOTED}", headers=exapp("alice"))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "77")

    asyncio.run(run())


def test_access_of_a_nextcloud_that_is_down(cloud: Shared) -> None:
    """No answer is no permission."""
    cloud.lie = lambda request: Response(status_code=500)
    with pytest.raises(PeerFailed, match="500"):
        find(cloud, basic("alice", "alice-pw"), "a.txt")
