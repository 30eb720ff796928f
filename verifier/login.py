"""Nextcloud's Login Flow v2: an app password for this device, which the user grants in a browser.

    flow = start(server)                  POST /index.php/login/v2
    print(flow.login)                     the user opens it, logs in and grants access
    login = poll(server, flow)            POST endpoint, token=...     None until it is granted

The login file has mode 0600 and holds one line of canonical JSON (SPEC 7.1):

    {"format":"nextcloud-audit/login/1","server":"https://cloud.example.org","user":"alice","password":"..."}

What the server answers is checked: the page and the poll address have to be on the very server that was named, or the
password that is granted there would be somebody else's to take.
"""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.parse import urlencode, urlsplit

from verifier.canonical import format_object, members, parse_object
from verifier.client import Server
from verifier.encoding import check_text
from verifier.errors import Malformed, Usage
from verifier.files import read_secret
from verifier.record import NamedTuple

FORMAT = "nextcloud-audit/login/1"
START = "/index.php/login/v2"
MAX_FIELD = 1_024  # bytes: of addresses, names, passwords and tokens
FORM = "application/x-www-form-urlencoded"


class Login(NamedTuple):
    """Who asks, at which Nextcloud."""

    server: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login(server={self.server!r}, user={self.user!r})"

    def authorization(self, method: str, target: str, now: int, body: bytes) -> str:
        """Basic, as Nextcloud takes it: the request itself is not signed, and TLS has to keep it (RFC 7617)."""
        return "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


class Flow(NamedTuple):
    """A login that was begun: where the user grants it, and how one hears of that."""

    login: str
    target: str
    token: str


def start(server: Server) -> Flow:
    """Begins a login at a Nextcloud."""
    status, body = server.post(START, b"", FORM)
    if status != 200:
        raise Usage(f"server: got status {status} for {START}: is it the address of a Nextcloud?")
    fields = parse_foreign(body)
    poll = fields.get("poll")
    if type(poll) is not dict:
        raise Malformed("want an object", "login poll")
    login, endpoint = _text(fields, "login"), _text(poll, "endpoint")
    for address in (login, endpoint):
        if not server.is_at(address):
            raise Usage(
                f"server: it calls itself {urlsplit(address).netloc!a}: log in at that address, if it is the one"
            )
    return Flow(login, urlsplit(endpoint).path.removeprefix(server.base), _text(poll, "token"))


def poll(server: Server, flow: Flow) -> Login | None:
    """The login, once the user has granted it; None until then."""
    status, body = server.post(flow.target, urlencode({"token": flow.token}).encode("ascii"), FORM)
    if status == 404:
        return None
    if status != 200:
        raise Usage(f"server: got status {status} while waiting for the login: begin again")
    fields = parse_foreign(body)
    return Login(server.url, _text(fields, "loginName"), _text(fields, "appPassword"))


def format_login(login: Login) -> bytes:
    """The login file."""
    fields = {"format": FORMAT, "server": login.server, "user": login.user, "password": login.password}
    return format_object(fields, "login file")


def parse_login(data: bytes) -> Login:
    """A login file, which has one spelling."""
    named, *values = members(parse_object(data, "login file"), "login file", "format", "server", "user", "password")
    if named != FORMAT:
        raise Malformed(f"want {FORMAT}", "login file format", named)
    server, user, password = [check_text(value, "login file", MAX_FIELD) for value in values]
    if ":" in user:
        raise Malformed("want no colon", "login file user", user)
    login = Login(server, user, password)
    if format_login(login) != data:
        raise Malformed("not canonical: make it anew with `nextcloud-audit login`", "login file")
    return login


def read_login(path: str) -> Login:
    """The login in a file that nobody else may read."""
    data, warnings = read_secret(path, "login file")
    if warnings:
        raise Usage(warnings[0])
    return parse_login(data)


def parse_foreign(body: bytes) -> dict[str, object]:
    """An object of somebody else's JSON: whatever else is in it is not ours."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("not JSON", "answer of the server") from None
    if type(value) is not dict:
        raise Malformed("want an object", "answer of the server")
    return value


def _text(fields: dict[str, object], name: str) -> str:
    return check_text(fields.get(name), f"login {name}", MAX_FIELD)
