"""Registering with webhook_listeners: made once, mended in place, other people's left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from audit.cli import main
from audit.commands import hooks as command
from audit.errors import PeerFailed
from audit.nextcloud.client import Secret, make_client
from audit.nextcloud.hints import NODE_EVENTS
from audit.nextcloud.hooks import parse_registered, registration
from tests.nextcloud.fake import ADMIN, ADMIN_PASSWORD, FakeNextcloud
from verifier.login import Login, format_login

URL = "https://audit.example/hook"
SERVER = "https://cloud.example"
Accounts = list[dict[str, str]]


class Setup:
    """A log's directory, and the command run against the fake."""

    def __init__(self, directory: Path, fake: FakeNextcloud) -> None:
        self.directory, self.fake = directory, fake
        self.configure([{"user": "alice", "password": "pw"}, {"user": ADMIN, "password": ADMIN_PASSWORD}])

    def configure(self, accounts: Accounts) -> None:
        self.write("nextcloud.json", json.dumps({"url": SERVER, "accounts": accounts}).encode())

    def write(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.write_bytes(data)
        os.chmod(path, 0o600)
        return str(path)

    def run(self, *words: str, url: str = URL, expect: int = 0) -> None:
        assert main(["hooks", "--data", str(self.directory), "--url", url, "--json", *words]) == expect


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    fake = FakeNextcloud()
    fake.cloud.add_user("alice", "pw")
    monkeypatch.setattr(command, "make_client", lambda: make_client(httpx.ASGITransport(fake.app)))
    return Setup(tmp_path, fake)


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def whats(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [one["what"] for one in answer(capsys)]


def test_hooks_are_registered_once(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    """Each event has one registration with the log's secret; a second run changes nothing at all."""
    setup.run()
    assert whats(capsys) == ["created"] * len(NODE_EVENTS)
    webhooks = setup.fake.webhooks
    assert webhooks is not None
    assert {str(row["event"]) for row in webhooks.values()} == set(NODE_EVENTS)
    secret = (setup.directory / "hook.secret").read_text().strip()
    assert setup.fake.sent_auth == [{"Authorization": f"Bearer {secret}"}] * len(NODE_EVENTS)
    before = json.dumps(webhooks)
    setup.run()
    assert whats(capsys) == ["unchanged"] * len(NODE_EVENTS)
    assert json.dumps(webhooks) == before
    assert len(setup.fake.sent_auth) == len(NODE_EVENTS)


def test_hooks_are_mended_in_place(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] What differs, or has another secret, keeps its number: the events that wait for it are not lost."""
    setup.run()
    webhooks = setup.fake.webhooks
    assert webhooks is not None
    webhooks[1]["eventFilter"] = {"user.uid": "alice"}
    webhooks[2]["httpMethod"] = "GET"
    del webhooks[3]
    capsys.readouterr()
    setup.run()
    assert whats(capsys) == ["updated", "updated", "created", *["unchanged"] * (len(NODE_EVENTS) - 3)]
    assert not webhooks[1]["eventFilter"]
    (setup.directory / "hook.secret").unlink()
    setup.run()
    assert whats(capsys) == ["updated"] * len(NODE_EVENTS)


def test_hooks_of_others_are_left_alone(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is registered for our very address is ours, also when it is taken away."""
    webhooks = setup.fake.webhooks
    assert webhooks is not None
    webhooks[7] = {"id": 7, "uri": URL + "s", "event": NODE_EVENTS[0]}
    setup.run()
    capsys.readouterr()
    setup.run("--remove")
    assert whats(capsys) == ["removed"] * len(NODE_EVENTS)
    assert list(webhooks) == [7]
    setup.run("--remove")
    assert answer(capsys) == []


def test_hooks_need_an_admin(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no account is one, the message names the option; the login of an admin for this Nextcloud does it."""
    setup.configure([{"user": "alice", "password": "pw"}])
    setup.run(expect=4)
    assert "--admin-login" in capsys.readouterr().out
    login = setup.write("admin.json", format_login(Login(SERVER, ADMIN, ADMIN_PASSWORD)))
    setup.run("--admin-login", login)
    assert whats(capsys) == ["created"] * len(NODE_EVENTS)
    other = setup.write("other.json", format_login(Login("https://other.example", ADMIN, ADMIN_PASSWORD)))
    setup.run("--admin-login", other, expect=4)
    assert ADMIN_PASSWORD not in capsys.readouterr().out


def test_hooks_without_the_app_say_what_to_do(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    """An older Nextcloud, or a disabled app: the way that works there is named."""
    setup.fake.webhooks = None
    setup.run(expect=4)
    shown = capsys.readouterr().out
    assert "app:enable webhook_listeners" in shown
    assert "events_listener" in shown


@pytest.mark.parametrize(
    "url", ["http://audit.example/hook", "https://audit.example/", "https://audit.example/hook?x=1", "x", URL + "/"]
)
def test_hooks_refuse_other_addresses(setup: Setup, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] The secret goes nowhere in the clear, and only to a hook."""
    setup.run(url=url, expect=4)
    assert setup.fake.webhooks == {}
    assert not (setup.directory / "hook.secret").exists()


def test_registered_is_parsed_strictly() -> None:
    """An answer in another form is the server's fault, whatever it is."""
    secret = Secret("ab")
    row = {**registration(URL, NODE_EVENTS[0], secret), "id": 1}
    good = json.dumps({"ocs": {"data": [row, {"uri": URL + "s"}]}}).encode()
    assert [one.is_right for one in parse_registered(good, URL, secret)] == [True]
    assert [one.is_right for one in parse_registered(good, URL, Secret("cd"))] == [False]
    for bad in (b"", b"[]", b'{"ocs":{}}', b'{"ocs":{"data":[{}]}}', good.replace(b'"id": 1', b'"id": "1"')):
        with pytest.raises(PeerFailed, match="OCS"):
            parse_registered(bad, URL, secret)
