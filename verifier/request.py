"""What a client signs when it asks the log for something: requests and enrolment (SPEC 11).

    Authorization: NextcloudAudit <owner public key> <time> <signature>

    signature = Ed25519(owner key, tag("request") || text(log name) || text(METHOD) || text(target)
                                   || u64(time) || SHA3-256(body))

Key and signature are canonical base64, the time is POSIX seconds as a decimal, single spaces between them. `target`
is what stands on the request line, byte for byte: the raw path, and `?` with the raw query where there is one. The
log's name in it keeps a signature from being used at another log, the body's hash from being used for another body.

An enrolment is signed by the key that is being enrolled (proof of possession), over a nonce that the server gave:

    signature = Ed25519(owner key, tag("enrol") || text(log name) || text(source id) || text(user) || text(token)
                                   || nonce (32) || owner public key (32) || blinding key (32))

The server accepts a request within MAX_SKEW_S of its own clock. Within that time it may be sent again by whoever saw
it, which is why only requests that may be repeated are signed this way: proofs change nothing, and the same seal twice
is recorded once.

Not checked here: who is enrolled, and which nonces and tokens are still open (the log does).
"""

from __future__ import annotations

from hashlib import sha3_256

from verifier import ed25519
from verifier.encoding import HASH_SIZE, check_text, decode_base64, decode_decimal, encode_base64, tag, text, u64
from verifier.errors import Malformed, NotProven
from verifier.keys import MAX_USER as MAX_USER
from verifier.record import NamedTuple

SCHEME = "NextcloudAudit"
MAX_SKEW_S = 300  # SPEC 11.1: how far the clocks of client and log may be apart
MAX_HEADER = 256  # characters; the longest legal value has 168
MAX_TARGET = 32_768  # bytes; a path of 4,096 bytes takes 12,288 when every one of them is percent-encoded
MAX_TOKEN = 256  # bytes
NONCE_SIZE = 32


class Authorization(NamedTuple):
    """A parsed header, unverified."""

    owner: bytes
    time: int
    signature: bytes


class Enrolment(NamedTuple):
    """What an enrolment says, and so what is signed."""

    log: str
    source: str
    user: str
    token: str
    nonce: bytes
    owner: bytes
    blinding: bytes

    def __repr__(self) -> str:
        return f"Enrolment(log={self.log!r}, source={self.source!r}, user={self.user!r}, owner={self.owner.hex()})"


def request_message(log_name: str, method: str, target: str, time: int, body: bytes) -> bytes:
    """The bytes that are signed for a request (SPEC 11.1)."""
    named = text(log_name) + text(method) + text(check_text(target, "request target", MAX_TARGET))
    return tag("request") + named + u64(time) + sha3_256(body).digest()


def enrolment_message(enrolment: Enrolment) -> bytes:
    """The bytes that are signed for an enrolment (SPEC 11.2)."""
    e = enrolment
    named = text(e.log) + text(e.source) + text(check_text(e.user, "user", MAX_USER))
    sizes = (len(e.nonce), len(e.owner), len(e.blinding))
    if sizes != (NONCE_SIZE, ed25519.KEY_SIZE, HASH_SIZE):
        raise Malformed("want 32 bytes each for nonce, owner key and blinding key", "enrolment", sizes)
    token = text(check_text(e.token, "token", MAX_TOKEN))
    return tag("enrol") + named + token + e.nonce + e.owner + e.blinding


def format_authorization(authorization: Authorization) -> str:
    """The header's value."""
    owner, time, signature = authorization
    return f"{SCHEME} {encode_base64(owner)} {time} {encode_base64(signature)}"


def parse_authorization(value: str) -> Authorization:
    """The header's value to its fields: well formed, and nothing more."""
    where = "Authorization"
    parts = value.split(" ") if len(value) <= MAX_HEADER else []
    if len(parts) != 4 or parts[0] != SCHEME:
        raise Malformed(f"want {SCHEME} KEY TIME SIGNATURE", where)
    owner = decode_base64(parts[1], f"{where} key", size=ed25519.KEY_SIZE)
    signature = decode_base64(parts[3], f"{where} signature", size=ed25519.SIGNATURE_SIZE)
    return Authorization(owner, decode_decimal(parts[2], f"{where} time"), signature)


def verify_request(
    authorization: Authorization, log_name: str, method: str, target: str, body: bytes, now: int
) -> bytes:
    """The owner's public key, once its holder has signed this very request not long ago. Who that is, see the log."""
    owner, time, signature = authorization
    if abs(now - time) > MAX_SKEW_S:
        raise NotProven("request-time", f"request signed at {time}, want within {MAX_SKEW_S} s of {now}")
    ed25519.verify(owner, signature, request_message(log_name, method, target, time, body), "request", b"")
    return owner


def verify_enrolment(enrolment: Enrolment, signature: bytes) -> Enrolment:
    """The enrolment, once the holder of its owner key, a sound one, has signed it."""
    ed25519.check_public_key(enrolment.owner, "owner key")
    ed25519.verify(enrolment.owner, signature, enrolment_message(enrolment), "enrolment", b"")
    return enrolment
