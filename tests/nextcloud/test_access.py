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

from audit.api import STRANGERS_AT_ONCE
from audit.enrolment import Unauthorised
from audit.errors import PeerFailed
from audit.nextcloud.access import SHARE, Access, NotVisible, Seen, check_appapi, parse_credentials
from audit.nextcloud.client import AppAPI, Config, Secret, make_client
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


def test_wrong_passwords_are_bounded(town: Town, cloud: Shared) -> None:
    """Nextcloud counts them against this server's address: after a burst nobody is asked any more."""
    target = f"/proof?path={QUOTED}"
    statuses = [ask(town, cloud, target, basic("alice", str(i))).status_code for i in range(STRANGERS_AT_ONCE)]
    assert set(statuses) == {401}
    asked = cloud.requests
    assert ask(town, cloud, "/proof?path=a.txt", basic("alice", "alice-pw")).status_code == 429
    assert cloud.requests == asked


def test_access_of_a_nextcloud_that_is_down(cloud: Shared) -> None:
    """No answer is no permission."""
    cloud.lie = lambda request: Response(status_code=500)
    with pytest.raises(PeerFailed, match="500"):
        find(cloud, basic("alice", "alice-pw"), "a.txt")
