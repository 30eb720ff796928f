"""Enrolment decided: nonces, tokens, proof of possession; and signed requests."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from audit.chains import OwnerRow, find_enrolled
from audit.enrolment import (
    NONCE_TTL_S,
    AlreadyEnrolled,
    EnrolmentRefused,
    Nonces,
    Own,
    Standing,
    TokenRow,
    Unauthorised,
    authorise,
    decide_enrolment,
    find_own,
    parse_enrolment,
)
from tests.audit.log_setup import LogSetup
from tests.audit.town import enrolment_body
from tests.fakes import NOW
from verifier.client import Signer
from verifier.ed25519 import load_private_key
from verifier.entry import Operation
from verifier.errors import Malformed
from verifier.keys import derive_keys, format_log_name
from verifier.request import MAX_SKEW_S, Enrolment, enrolment_message

LOG = format_log_name("log.example/files", b"\1" * 32)
KEYS = derive_keys(b"\2" * 32, LOG)
PLAIN = Enrolment(LOG, "folder:f0", "alice", "t" * 32, b"\3" * 32, KEYS.public, KEYS.blinding)
OPEN = Standing(LOG, 7, TokenRow("alice", None, 0), None)
OWNER = OwnerRow(1, "owner", "bob", b"", b"", b"")
THE_SAME = OwnerRow(1, "owner", "alice", KEYS.public, KEYS.blinding, b"")
REPLACING = TokenRow("alice", None, 0, "owner/replace")


def signature(enrolment: Enrolment) -> bytes:
    return load_private_key(KEYS.private).sign(enrolment_message(enrolment))


def numbered() -> Nonces:
    numbers = count()
    return Nonces(lambda size: next(numbers).to_bytes(size, "big"), limit=3)


def test_nonce_works_once() -> None:
    """A nonce that was given out is taken once; one that was not, never."""
    nonces = numbered()
    nonce = nonces.issue(NOW)
    nonces.take(nonce, NOW)
    for unknown in (nonce, b"\xff" * 32):
        with pytest.raises(EnrolmentRefused, match="nonce: unknown, used or too old"):
            nonces.take(unknown, NOW)


def test_nonce_ends() -> None:
    """A nonce is good for its time and no longer."""
    nonces = numbered()
    early, late = nonces.issue(NOW), nonces.issue(NOW)
    nonces.take(early, NOW + NONCE_TTL_S - 1)
    with pytest.raises(EnrolmentRefused):
        nonces.take(late, NOW + NONCE_TTL_S)


def test_nonces_are_bounded() -> None:
    """Beyond the limit the oldest one goes, so that asking for many costs no memory."""
    nonces = numbered()
    first, *others = [nonces.issue(NOW) for _ in range(4)]
    with pytest.raises(EnrolmentRefused):
        nonces.take(first, NOW)
    for nonce in others:
        nonces.take(nonce, NOW)


def test_enrolment_with_everything_in_order_is_decided() -> None:
    """Log, key, token and source in order: the decision names the source."""
    assert decide_enrolment(PLAIN, signature(PLAIN), OPEN) == 7
    assert decide_enrolment(PLAIN, signature(PLAIN), OPEN._replace(token=TokenRow("alice", 7, 0))) == 7
    assert decide_enrolment(PLAIN, signature(PLAIN), OPEN._replace(token=TokenRow("alice", 7, 0, "instance"))) is None


@pytest.mark.parametrize(
    ("standing", "error", "message"),
    [
        (OPEN._replace(log_name="other"), EnrolmentRefused, "log: got"),
        (OPEN._replace(token=None), EnrolmentRefused, "no open token"),
        (OPEN._replace(token=TokenRow("alice", None, NOW)), EnrolmentRefused, "no open token"),
        (OPEN._replace(token=TokenRow("bob", None, 0)), EnrolmentRefused, "no open token"),
        (OPEN._replace(token=TokenRow("alice", 8, 0)), EnrolmentRefused, "no open token"),
        (OPEN._replace(source=None), EnrolmentRefused, "source: there is no"),
        (OPEN._replace(owner=OWNER), AlreadyEnrolled, "has an enrolled owner"),
        (OPEN._replace(token=REPLACING, owner=THE_SAME), AlreadyEnrolled, "has an enrolled owner"),
    ],
)
def test_enrolment_is_refused_by_what_the_store_says(standing: Standing, error: type[Exception], message: str) -> None:
    """Each thing that the store says against an enrolment refuses it."""
    with pytest.raises(error, match=message):
        decide_enrolment(PLAIN, signature(PLAIN), standing)


def test_enrolment_in_place_of_another() -> None:
    """A token that replaces enrols where somebody is enrolled: another seed of theirs, or another owner."""
    for kind, source in (("owner/replace", 7), ("instance/replace", None)):
        standing = OPEN._replace(token=TokenRow("alice", None, 0, kind), owner=OWNER)
        assert decide_enrolment(PLAIN, signature(PLAIN), standing) == source


@pytest.mark.parametrize("name", ["source", "user", "token", "nonce", "owner", "blinding"])
def test_enrolment_signature_covers_every_field(name: str) -> None:
    """[R] Proof of possession: a signature made for other values of any field does not hold."""
    other: dict[str, Any] = {"source": "folder:f1", "user": "bob", "token": "x"}
    value = other.get(name) or derive_keys(b"\4" * 32, LOG).public
    changed = PLAIN._replace(**{name: value})
    standing = OPEN._replace(token=TokenRow(changed.user, None, 0))
    with pytest.raises(EnrolmentRefused, match="enrolment"):
        decide_enrolment(changed, signature(PLAIN), standing)


def test_enrolment_of_a_weak_key_is_refused() -> None:
    """[R] A small-order owner key, under which anybody can sign, is no key."""
    weak = PLAIN._replace(owner=b"\1" + bytes(31))
    with pytest.raises(Malformed, match="owner key"):
        decide_enrolment(weak, bytes(64), OPEN)


def test_enrolment_is_parsed_strictly() -> None:
    """What the client sends is read back; other members, orders, types and sizes are Malformed."""
    body = enrolment_body(PLAIN, signature(PLAIN))
    assert parse_enrolment(body) == (PLAIN, signature(PLAIN))
    for old, new in (
        (b'"log"', b'"gol"'),
        (b'"token":"', b'"more":"","token":"'),
        (b'"user":"alice"', b'"user":null'),
        (b'"user":"alice"', b'"user":"\\ud800"'),
        (b'"user":"alice"', b'"user":"alice","user":"bob"'),
        (b'"source":"folder:f0"', b'"source":"Folder"'),
        (b'"nonce":"', b'"nonce":"AAAA'),
    ):
        assert old in body
        with pytest.raises(Malformed):
            parse_enrolment(body.replace(old, new))


def test_request_is_authorised_for_what_was_signed_alone() -> None:
    """Log, method, target, body and time are all covered; nothing else passes with the same header."""
    header = Signer(LOG, KEYS.public, KEYS.private).authorization("GET", "/proof/1", NOW, b"")
    assert authorise(header, LOG, "GET", "/proof/1", b"", NOW + MAX_SKEW_S) == KEYS.public
    for changed in (
        (None, LOG, "GET", "/proof/1", b"", NOW),
        ("Basic abc", LOG, "GET", "/proof/1", b"", NOW),
        (header + " ", LOG, "GET", "/proof/1", b"", NOW),
        (header, format_log_name("log.example/files", b"\2" * 32), "GET", "/proof/1", b"", NOW),
        (header, LOG, "POST", "/proof/1", b"", NOW),
        (header, LOG, "GET", "/proof/2", b"", NOW),
        (header, LOG, "GET", "/proof/1", b"x", NOW),
        (header, LOG, "GET", "/proof/1", b"", NOW + MAX_SKEW_S + 1),
        (header, LOG, "GET", "/proof/1", b"", NOW - MAX_SKEW_S - 1),
    ):
        with pytest.raises(Unauthorised):
            authorise(*changed)


def test_own_sources_are_those_whose_enrolled_owner_has_the_key(tmp_path: Path) -> None:
    """The key that `find_enrolled` names opens a source: its owner's, else the instance's, never a custodial one."""
    log = LogSetup(tmp_path / "log")
    try:
        named = {"folder:f0": log.source}
        named |= {f"folder:f{i}": log.store.add_source(f"folder:/{i}", f"folder:f{i}") for i in (1, 2)}
        log.see(Operation.CREATED, 1, b"0", "a.txt")  # makes the custodial owner
        keys = [derive_keys(bytes([i]) * 32, log.log_name) for i in range(4)]
        custodial = log.store.reader().execute("SELECT owner_key FROM owners WHERE kind = 'custodial'").fetchone()[0]
        tried = [custodial, *(key.public for key in keys)]
        check_own(log, named, tried)
        for source, key, replace in ((1, 0, False), (None, 1, False), (2, 2, False), (1, 2, True), (None, 0, True)):
            blinding = bytes([source or 0]) * 32  # one key under several roots
            log.recorder.enrol(source, "alice", keys[key].public, blinding, replace)
            check_own(log, named, tried)
    finally:
        log.close()


def check_own(log: LogSetup, named: dict[str, int], keys: list[bytes]) -> None:
    conn = log.store.reader()
    owners = {row: find_enrolled(conn, row) for row in named.values()}
    for key in keys:
        own = [row for row, owner in owners.items() if owner is not None and owner.owner_key == key]
        assert find_own(conn, key) == [Own(row, None) for row in own]
        for source_id, row in named.items():
            assert find_own(conn, key, source_id) == ([Own(row, None)] if row in own else [])
    assert find_own(conn, keys[-1], "folder:f9") == []
