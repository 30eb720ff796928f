"""Signed requests and enrolments: what is signed, and what does not pass for it."""

from __future__ import annotations

from hashlib import sha3_256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import ed25519
from verifier.encoding import tag, text, u64
from verifier.errors import BadSignature, Malformed, NotProven
from verifier.request import (
    MAX_SKEW_S,
    Authorization,
    Enrolment,
    enrolment_message,
    format_authorization,
    parse_authorization,
    request_message,
    verify_enrolment,
    verify_request,
)

SECRET = bytes(range(32))
PRIVATE = ed25519.load_private_key(SECRET)
PUBLIC = PRIVATE.public_key().public_bytes_raw()
NOW = 1_800_000_000
REQUEST = ("log.example+00", "GET", "/proof?path=a%20b", NOW, b"body")


def signed(*request: object) -> Authorization:
    return Authorization(PUBLIC, NOW, PRIVATE.sign(request_message(*(request or REQUEST))))  # type: ignore[arg-type]


def test_request_message_is_the_one_of_the_spec() -> None:
    """The signed bytes are tag, log name, method, target, time and the body's hash."""
    named = text("log.example+00") + text("GET") + text("/proof?path=a%20b")
    assert request_message(*REQUEST) == tag("request") + named + u64(NOW) + sha3_256(b"body").digest()


def test_request_that_the_owner_signed_is_accepted() -> None:
    """A header that was formatted parses to the same, and gives the owner's key."""
    header = format_authorization(signed())
    assert verify_request(parse_authorization(header), *REQUEST[:3], b"body", NOW + MAX_SKEW_S) == PUBLIC


@pytest.mark.parametrize("changed", range(4))
def test_request_that_differs_in_one_field_is_refused(changed: int) -> None:
    """A signature holds for one log, method, target and body alone."""
    fields = ["log.example+00", "GET", "/proof?path=a%20b", b"body"]
    fields[changed] = b"other" if changed == 3 else "other"
    with pytest.raises(BadSignature):
        verify_request(signed(), *fields, NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("now", [NOW - MAX_SKEW_S - 1, NOW + MAX_SKEW_S + 1])
def test_request_of_another_time_is_refused(now: int) -> None:
    """A request can't be kept and sent later, or be signed for the future."""
    with pytest.raises(NotProven, match="request signed at"):
        verify_request(signed(), *REQUEST[:3], b"body", now)


@given(st.integers(0, 400), st.characters(codec="ascii"))
def test_authorization_has_one_spelling(at: int, other: str) -> None:
    """A header with one character changed means something else or is refused."""
    header = format_authorization(signed())
    mangled = header[: at % len(header)] + other + header[at % len(header) + 1 :]
    try:
        parsed = parse_authorization(mangled)
    except Malformed:
        return
    assert format_authorization(parsed) == mangled


def enrolment(**changes: object) -> Enrolment:
    fields = Enrolment("log.example+00", "nc-1", "ada", "token", bytes(32), PUBLIC, bytes(range(32, 64)))
    return fields._replace(**changes)


def test_enrolment_is_signed_by_the_key_that_it_enrols() -> None:
    """Proof of possession: the enrolled key itself signs."""
    signature = PRIVATE.sign(enrolment_message(enrolment()))
    assert verify_enrolment(enrolment(), signature) == enrolment()


@pytest.mark.parametrize(
    "change",
    [
        {"log": "x"},
        {"source": "nc-2"},
        {"user": "eve"},
        {"token": "other"},
        {"nonce": bytes(31) + b"\1"},
        {"blinding": bytes(32)},
    ],
)
def test_enrolment_that_differs_in_one_field_is_refused(change: dict[str, object]) -> None:
    """A signature can't be used for another log, source, user, token, nonce or blinding key."""
    signature = PRIVATE.sign(enrolment_message(enrolment()))
    with pytest.raises(BadSignature):
        verify_enrolment(enrolment(**change), signature)


def test_enrolment_of_a_small_order_key_is_refused() -> None:
    """A key for which anybody can make signatures is no owner's."""
    with pytest.raises(Malformed, match="small order"):
        verify_enrolment(enrolment(owner=b"\1" + bytes(31)), bytes(64))


def test_enrolment_shows_no_secret() -> None:
    """Neither token nor blinding key is in what is printed."""
    assert "token'" not in repr(enrolment())
    assert "blinding" not in repr(enrolment())
