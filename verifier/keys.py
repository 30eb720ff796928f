"""From a seed to the keys of one log, and from those to the root and the chain ids (SPEC 2).

    log name      ORIGIN "+" hex(tagged("log-key", first public key))     permanent, survives a new key
    owner key     Ed25519 from KMAC256(seed, log name, 32, "nextcloud-audit/1/owner-key")
    blinding key               KMAC256(seed, log name, 32, "nextcloud-audit/1/blinding-key")
    root          tagged("root", owner public key, blinding key)
    chain id      HMAC-SHA3-256(blinding key, tag("chain-id") || text(source id) || u64(file id) || u64(generation))

KMAC256 is that of NIST SP 800-185 section 4: key = seed, data = log name in UTF-8, 256 bits out, the label as
customization. It derives these two keys and nothing else, so that the seed itself never meets a server.

The origin is a C2SP key name (c2sp.org/signed-note@v1.0.0): not empty, at most 255 bytes of UTF-8
(c2sp.org/tlog-cosignature@v1.0.0), no Unicode space, no `+`, no control character. A log name has one spelling.

A **reader key** shows which chain is which file, and cannot seal. It travels as one line of JSON, at most 4 KiB,
fields in this order, no space between them, `\\n` at the end, nothing escaped that need not be:

    {"format":"nextcloud-audit/reader/1","log":"example.org/log+3f…","source":"nc-1","owner":"…","blinding":"…"}

Not checked here: whether an owner's public key is a sound curve point (who pins it checks it), and whether a
log name belongs to the log that shows it (enrolment and the proof do).
"""

from __future__ import annotations

import hmac

from verifier.canonical import format_object, members, parse_object
from verifier.ed25519 import check_public_key
from verifier.encoding import HASH_SIZE, check_text, decode_base64, encode_base64, tag, tagged, text, u64
from verifier.errors import Malformed
from verifier.record import NamedTuple

SEED_SIZE = 32  # SPEC 2.1
KEY_SIZE = 32  # Ed25519 keys (RFC 8032 5.1.5) and the blinding key
MAX_ORIGIN = 255  # bytes: u8 length in c2sp.org/tlog-cosignature@v1.0.0
MAX_LOG_NAME = MAX_ORIGIN + 1 + 2 * HASH_SIZE
MAX_SOURCE_ID = 128  # SPEC 2.4
MAX_USER = 256  # bytes; who is enrolled, as the source names them (SPEC 1.5)
MAX_READER_SIZE = 4096  # SPEC 1.5: above the longest legal file, below anything that costs

OWNER_LABEL = b"nextcloud-audit/1/owner-key"
BLINDING_LABEL = b"nextcloud-audit/1/blinding-key"
READER_FORMAT = "nextcloud-audit/reader/1"

_SOURCE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._:-")
_READER_FIELDS = ["format", "log", "source", "owner", "blinding"]
_CHAIN_ID = tag("chain-id")


class LogName(NamedTuple):
    """The permanent name of a log: its first origin and the hash of its first public key."""

    origin: str
    key_hash: bytes


class OwnerKeys(NamedTuple):
    """What a seed gives for one log. `private` is the Ed25519 seed, `public` its key; repr shows neither secret."""

    private: bytes
    public: bytes
    blinding: bytes

    def __repr__(self) -> str:
        return f"OwnerKeys(public={self.public.hex()})"


class ReaderKey(NamedTuple):
    """What lets others verify as the owner does, for one log and source. repr does not show the blinding key."""

    log: str
    source: str
    owner: bytes
    blinding: bytes

    def __repr__(self) -> str:
        return f"ReaderKey(log={self.log!r}, source={self.source!r}, owner={self.owner.hex()})"


def check_origin(value: object, where: str = "origin") -> str:
    """Return the origin if it is a key name that C2SP allows, of at most 255 bytes."""
    origin = check_text(value, where, MAX_ORIGIN)
    odd = not origin.isascii() and any("\x80" <= c <= "\x9f" for c in origin)
    if odd or "+" in origin or origin.split() != [origin]:
        raise Malformed("want no space, '+' or control character", where, origin)
    return origin


def check_source_id(value: object, where: str = "source id") -> str:
    """Return the source id if it is 1 to 128 characters of `a-z 0-9 . _ : -`."""
    if type(value) is not str or not 1 <= len(value) <= MAX_SOURCE_ID or not _SOURCE_LETTERS.issuperset(value):
        raise Malformed(f"want 1 to {MAX_SOURCE_ID} characters of a-z 0-9 . _ : -", where, value)
    return value


def format_log_name(origin: str, public_key: bytes) -> str:
    """The permanent name of the log that starts with this origin and public key (SPEC 2.2)."""
    key = _check_size(public_key, KEY_SIZE, "log public key")
    return f"{check_origin(origin)}+{tagged('log-key', key).hex()}"


def parse_log_name(value: object, where: str = "log name") -> LogName:
    """Split a log name. Success means that the text is its only spelling, not that such a log exists."""
    name = check_text(value, where, MAX_LOG_NAME)
    origin, _, digits = name.rpartition("+")
    check_origin(origin, where)
    try:
        key_hash = bytes.fromhex(digits)
    except ValueError:
        key_hash = b""
    if len(key_hash) != HASH_SIZE or key_hash.hex() != digits:
        raise Malformed(f"want '+' and {2 * HASH_SIZE} lower-case hex digits at the end", where, name)
    return LogName(origin, key_hash)


def derive_keys(seed: bytes, log_name: str) -> OwnerKeys:
    """The owner key and the blinding key that this seed has for this log (SPEC 2.3)."""
    from Crypto.Hash import KMAC256
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _check_size(seed, SEED_SIZE, "seed")
    parse_log_name(log_name)
    data = log_name.encode("utf-8")

    def derive(label: bytes) -> bytes:
        return KMAC256.new(key=seed, data=data, mac_len=KEY_SIZE, custom=label).digest()

    private = derive(OWNER_LABEL)
    public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return OwnerKeys(private, public, derive(BLINDING_LABEL))


def owner_root(owner: bytes, blinding: bytes) -> bytes:
    """The root that an enrolment commits to: it binds the owner's public key and the blinding key (SPEC 2.3)."""
    _check_size(owner, KEY_SIZE, "owner public key")
    _check_size(blinding, KEY_SIZE, "blinding key")
    return tagged("root", owner, blinding)


def chain_id(blinding: bytes, source_id: str, file_id: int, generation: int) -> bytes:
    """The one chain id of this file and generation; without the blinding key nobody can tell which file it is."""
    _check_size(blinding, KEY_SIZE, "blinding key")
    fields = text(check_source_id(source_id)) + u64(file_id) + u64(generation)
    return hmac.digest(blinding, _CHAIN_ID + fields, "sha3_256")


def format_reader(key: ReaderKey) -> bytes:
    """The reader key as its file, in the one spelling that `parse_reader` takes."""
    parse_log_name(key.log, "reader key log")
    check_source_id(key.source, "reader key source")
    _check_size(key.owner, KEY_SIZE, "reader key owner")
    _check_size(key.blinding, KEY_SIZE, "reader key blinding")
    values = [READER_FORMAT, key.log, key.source, encode_base64(key.owner), encode_base64(key.blinding)]
    return format_object(dict(zip(_READER_FIELDS, values, strict=True)), "reader key")


def parse_reader(data: bytes) -> ReaderKey:
    """Read a reader key file. Success means one spelling and sound fields, not that anybody enrolled this key."""
    if len(data) > MAX_READER_SIZE:
        raise Malformed(f"want at most {MAX_READER_SIZE} bytes", "reader key", len(data))
    named, log, source, owner, blinding = members(parse_object(data, "reader key"), "reader key", *_READER_FIELDS)
    if named != READER_FORMAT:
        raise Malformed(f"want {READER_FORMAT!r}", "reader key format", named)
    parse_log_name(log, "reader key log")
    key = ReaderKey(
        log=str(log),
        source=check_source_id(source, "reader key source"),
        owner=check_public_key(decode_base64(owner, "reader key owner", size=KEY_SIZE), "reader key owner"),
        blinding=decode_secret(blinding, "reader key blinding", KEY_SIZE),
    )
    if format_reader(key) != data:
        raise Malformed("not in canonical form", "reader key")
    return key


def decode_secret(value: object, where: str, size: int) -> bytes:
    """Strict base64 of `size` bytes, like `decode_base64`, whose error never holds the value."""
    try:
        return decode_base64(value, where, size=size)
    except Malformed as error:
        what = error.what
    # Raised out here, so that not even the exception's context carries the secret.
    raise Malformed(what, where)


def _check_size(value: bytes, size: int, where: str) -> bytes:
    if len(value) != size:
        raise Malformed(f"want {size} bytes", where, len(value))
    return value
