"""Logging in to a Nextcloud, and asking for proofs as one of its users."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from verifier.cli import main
from verifier.client import Server
from verifier.errors import Malformed, Usage
from verifier.login import Login, format_login, parse_login, poll, start

LOGIN = Login("https://cloud.example.org", "alice", "s3cret word")


class Cloud(ThreadingHTTPServer):
    """Nextcloud's Login Flow v2 on this machine, honest until a test bends it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.named = self.url  # what it calls itself
        self.refusals = 1  # polls before the grant
        self.seen: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Cloud

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.seen.append(self.path)
        if self.path == "/index.php/login/v2":
            named = self.server.named
            flow = {
                "poll": {"token": "t" * 128, "endpoint": f"{named}/login/v2/poll"},
                "login": f"{named}/login/v2/flow/x",
            }
            self._answer(200, flow)
        elif parse_qs(body) != {"token": ["t" * 128]} or self.server.refusals:
            self.server.refusals -= 1
            self._answer(404, [])
        else:
            self._answer(200, {"server": "http://elsewhere", "loginName": "alice", "appPassword": "pass-word"})

    def _answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_login_waits_until_it_is_granted(cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page is shown, the password ends in a file of mode 0600 and nowhere else."""
    path = tmp_path / "login.json"
    assert main(["login", cloud.url, "-o", str(path)]) == 0
    said = capsys.readouterr()
    assert f"{cloud.url}/login/v2/flow/x" in said.err
    assert parse_login(path.read_bytes()) == Login(cloud.url, "alice", "pass-word")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert "pass-word" not in said.out + said.err
    assert cloud.seen == ["/index.php/login/v2", "/login/v2/poll", "/login/v2/poll"]


@pytest.mark.parametrize("named", ["http://127.0.0.1:1", "https://evil.example.org", "file:///etc"])
def test_login_refuses_a_page_that_is_elsewhere(cloud: Cloud, named: str) -> None:
    """[R] A password is granted to the server that was named, and polled for there, nowhere else."""
    cloud.named = named
    with pytest.raises(Usage, match="calls itself"):
        start(Server(cloud.url))


def test_login_says_that_it_is_no_nextcloud(cloud: Cloud) -> None:
    """An address that answers otherwise is a mistake of the user."""
    with pytest.raises(Usage, match="Nextcloud"):
        start(Server(f"{cloud.url}/sub"))


def test_login_is_none_until_granted(cloud: Cloud) -> None:
    """404 is the answer that means: not yet. The server's own word for its address is not taken."""
    server = Server(cloud.url)
    flow = start(server)
    assert poll(server, flow) is None
    assert poll(server, flow) == Login(cloud.url, "alice", "pass-word")


@pytest.mark.parametrize("password", ["s3cret\x00word", ["s3cret"], None, "s3cret" * 400])
def test_no_error_shows_a_password(password: object) -> None:
    """A login file whose password is none is refused, and the message could be pasted anywhere."""
    data = json.loads(format_login(LOGIN)) | {"password": password}
    with pytest.raises(Malformed, match="^login file: ") as caught:
        parse_login((json.dumps(data, separators=(",", ":")) + "\n").encode())
    assert "s3cret" not in str(caught.value)


def test_login_file_round_trips_and_hides_the_password() -> None:
    """One spelling; what is printed of a login has no password."""
    data = format_login(LOGIN)
    assert parse_login(data) == LOGIN
    assert LOGIN.password not in repr(LOGIN) + str(LOGIN)
    for bad in (
        data[:-1],
        data.replace(b",", b", ", 1),
        data.replace(b"/1", b"/2"),
        data.replace(b"alice", b"al:ce"),
        data.replace(b"alice", b""),
        data[:-2] + b',"more":"x"}\n',
        b"[]\n",
    ):
        with pytest.raises(Malformed):
            parse_login(bad)


def test_login_is_basic_authorization() -> None:
    """The header that Nextcloud takes (RFC 7617)."""
    assert LOGIN.authorization("GET", "/", 0, b"") == "Basic YWxpY2U6czNjcmV0IHdvcmQ="


def test_login_file_open_to_others_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A password that others can read is not used."""
    path = tmp_path / "login.json"
    path.write_bytes(format_login(LOGIN))
    path.chmod(0o644)
    arguments = ["prove", "a.txt", "--server", "http://127.0.0.1:1", "--login", str(path), "-o", str(tmp_path / "p")]
    assert main(arguments) == 4
    assert "0600" in capsys.readouterr().err
