"""A public link of a Nextcloud: whoever has it may have the proofs of what it shows (SPEC 11.4).

    parse_link("https://cloud.example.org/s/Ld3Xq9TzPbAfKcM")       as people copy it, or the token alone
    Link("Ld3Xq9TzPbAfKcM", password="").authorization(...)          Authorization: NextcloudShare BASE64

    link   =  token  /  ("https://" / "http://") host *("/" name) "/s/" token      nothing behind it
    token  =  1 to 32 letters, digits and "-", as Nextcloud allows them

The address is not asked for anything: the log asks its own Nextcloud. A token opens what it shows, so no message
holds one.
"""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import urlsplit

from verifier.encoding import check_text
from verifier.errors import Usage
from verifier.record import NamedTuple

MAX_PASSWORD = 1_024  # bytes
SCHEME = "NextcloudShare"
_TOKEN = re.compile(r"[A-Za-z0-9-]{1,32}")
_PATH = re.compile(r"((?:/[^/]+)*)/s/([^/]+)")
_WANT = "want its token, or its whole address like https://cloud.example.org/s/TOKEN with nothing behind it"


class Link(NamedTuple):
    """Who asks: somebody with this link, and its password where it has one."""

    token: str
    password: str

    def __repr__(self) -> str:
        return "Link(…)"

    def authorization(self, method: str, target: str, now: int, body: bytes) -> str:
        """Token and password, as for RFC 7617 under a scheme of its own: TLS has to keep it."""
        return f"{SCHEME} " + b64encode(f"{self.token}:{self.password}".encode()).decode("ascii")


def parse_link(value: str, password: str = "") -> Link:
    """The link that somebody was given."""
    token = _token_of(value) if re.match(r"https?://", value) else value
    if not _TOKEN.fullmatch(token):
        raise Usage(f"link: {_WANT}")
    if password:
        check_text(password, "link password", MAX_PASSWORD)
    return Link(token, password)


def _token_of(address: str) -> str:
    try:
        parts = urlsplit(address)
        named = parts.hostname and parts.port != 0 and "@" not in parts.netloc and "?" not in address
    except ValueError:
        named = None
    found = _PATH.fullmatch(parts.path) if named and "#" not in address else None
    if found is None:
        raise Usage(f"link: {_WANT}")
    return found[2]
