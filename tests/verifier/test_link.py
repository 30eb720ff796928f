"""Public links of a Nextcloud: one token in every spelling that people copy, and nothing that is not one."""

from __future__ import annotations

from argparse import ArgumentParser
from base64 import b64decode
from pathlib import Path

import pytest

from verifier.client import Unauthorised
from verifier.commands import prove
from verifier.errors import Malformed, Usage
from verifier.link import MAX_PASSWORD, parse_link

TOKEN = "Ld3Xq9TzPbAfKcM"


@pytest.mark.parametrize(
    "value",
    [
        TOKEN,
        f"https://cloud.example.org/s/{TOKEN}",
        f"https://cloud.example.org:8443/nextcloud/index.php/s/{TOKEN}",
        f"http://127.0.0.1:8032/s/{TOKEN}",
    ],
)
def test_link_is_its_token(value: str) -> None:
    """However it was handed over; it goes out with its password, under its own scheme (SPEC 11.4)."""
    for password in ("", "pass:word"):
        kind, _, sent = parse_link(value, password).authorization("GET", "/proof", 0, b"").partition(" ")
        assert (kind, b64decode(sent).decode()) == ("NextcloudShare", f"{TOKEN}:{password}")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a b",
        "a:b",
        "a/b",
        "ä",
        "a\n",
        "a" * 33,
        f"https://cloud.example.org/s/{TOKEN}/",
        f"https://cloud.example.org/s/{TOKEN}/download",
        f"https://cloud.example.org/s/{TOKEN}?dir=/",
        f"https://cloud.example.org/s/{TOKEN}?",
        f"https://cloud.example.org/s/{TOKEN}#top",
        f"https://cloud.example.org/s/{TOKEN}%20",
        f"https://cloud.example.org/f/{TOKEN}",
        f"https://cloud.example.org//s/{TOKEN}",
        f"https://user@cloud.example.org/s/{TOKEN}",
        f"https://cloud.example.org:port/s/{TOKEN}",
        f"https:///s/{TOKEN}",
        f"https://[/s/{TOKEN}",
        f"ftp://cloud.example.org/s/{TOKEN}",
        f"cloud.example.org/s/{TOKEN}",
    ],
)
def test_what_is_no_link_is_refused(value: str) -> None:
    """With what is wanted, and without what was given: half of it may be a token."""
    with pytest.raises(Usage, match="want its token") as raised:
        parse_link(value)
    assert TOKEN not in str(raised.value)


def test_link_shows_nobody_its_secrets() -> None:
    """Not in a traceback either."""
    link = parse_link(TOKEN, "secret")
    assert TOKEN not in repr(link)
    assert "secret" not in repr(link)


@pytest.mark.parametrize("password", ["a\x00", "a\x1f", "a" * (MAX_PASSWORD + 1)])
def test_password_that_nothing_takes_is_refused(password: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(Malformed, match="link password") as caught:
        parse_link(TOKEN, password)
    assert repr(password)[1:-1] not in str(caught.value)


class Refusing:
    """A log whose Nextcloud does not accept the link."""

    def __init__(self, url: str) -> None:
        pass

    def proof(self, *_: object, **__: object) -> bytes:
        raise Unauthorised("server: it refuses: Authorization: Nextcloud does not accept it (status 401)")

    def degraded_since(self) -> None:
        return None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--link", TOKEN, "--seed", "s"], "want one of --seed, --login and --link"),
        (["--link", TOKEN, "--login", "l"], "want one of --seed, --login and --link"),
        (["--link-password-file", "p"], "want --link too"),
        (["--link", TOKEN], "has a password, which --link-password-file says"),
        ([], "want --seed FILE, --login FILE or --link LINK"),
    ],
)
def test_prove_says_what_is_wrong_with_a_link(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what to do; nothing is written."""
    monkeypatch.setattr(prove, "Server", Refusing)
    parser = ArgumentParser()
    prove.add_arguments(parser)
    words = ["a.txt", "--server", "https://log.example", "-o", str(tmp_path / "proof"), *given]
    with pytest.raises(Usage, match=said):
        prove.run(parser.parse_args(words))
    assert not list(tmp_path.iterdir())
