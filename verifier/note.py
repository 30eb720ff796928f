"""Signed notes, keys in text form, and timestamped cosignatures.

    If you think cryptography is the answer to your problem,
    then you don't know what your problem is.

    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=

verifies under the vkey PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW

    note      = text LF 1*line            text ends in LF; the note splits at its last empty line
    line      = U+2014 " " name " " base64(key id || blob) LF
    vkey      = name "+" hex(key id) "+" base64(type || public key)
    private   = "PRIVATE+KEY+" name "+" hex(key id) "+" base64(type || secret)
    key id    = SHA-256(name LF type || public key)[:4]
    name      = UTF-8 without Unicode spaces, plus signs or control characters; at most 255 bytes in a key of ours

    type 01, note signature: blob = signature (64) over the text
    type 04, cosignature:    blob = timestamp (u64) || signature (64) over "cosignature/v1" LF "time " decimal LF text

Specs: c2sp.org/signed-note@v1.0.0, c2sp.org/tlog-cosignature. Taken from them: the two Ed25519 types. The table below
is the one place where a type would be added; ML-DSA-44 (06) is recognised and refused, "not supported yet". The
private form is the one of Go's golang.org/x/mod/sumdb/note, with the type byte of the key it stands for.

Stricter than the specs: base64 and decimals have one spelling, so a note that parses is the one spelling of its text
and signatures; two lines of one known key are refused; any known key's line that does not hold refuses the note; a
cosignature's timestamp is 1 to 2^63-1, because a time of 0 says nothing about when. Limits: 128 KiB, 1,024 lines.

A line is *known* by name and key id together; lines of unknown keys are ignored, as the spec demands, so whoever
passes a note on may add and drop them. Not checked here: what the text says (`checkpoint`), or who suffices (`policy`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TypeVar

from verifier import ed25519
from verifier.encoding import MAX_U64, check_text, decode_base64, encode_base64, u64
from verifier.errors import BadSignature, Malformed, NotProven
from verifier.record import NamedTuple, make

MAX_NOTE_SIZE = 128 * 1024  # SPEC 1.5; signed-note asks for 16 signatures at least, of nearly 5 kB each at most
MAX_SIGNATURES = 1024
MAX_NAME_SIZE = 255  # tlog-cosignature: opaque cosigner_name<1..2^8-1>
MAX_VKEY_SIZE = 2048  # room for the 1752 characters of an ML-DSA-44 key, so that it is refused by name
KEY_ID_SIZE = 4
TIMESTAMP_SIZE = 8

SIGNATURE = 0x01
COSIGNATURE = 0x04
SUPPORTED = {SIGNATURE: "Ed25519", COSIGNATURE: "Ed25519 cosignature"}
NOT_SUPPORTED = {0x02: "ECDSA", 0x05: "RFC 6962 tree head", 0x06: "ML-DSA-44 cosignature"}

_DASH = "\u2014"
_PRIVATE = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+\x00-\x1f]+")  # signed-note: "non-empty, no Unicode spaces or plus"
_CONTROL = re.compile(r"[\x80-\x9f]")
_Name = TypeVar("_Name")
_NO_CONTROL = bytes([10, *range(0x20, 0x100)])  # signed-note: none "below U+0020 other than newline"


class VerifierKey(NamedTuple):
    """A public key under a name, for one signature type. Made by `make_key` or `parse_vkey`, which check it."""

    name: str
    key_id: bytes
    algorithm: int
    public_key: bytes


class Signature(NamedTuple):
    """One signature line, unverified: `blob` is what follows the key id."""

    name: str
    key_id: bytes
    blob: bytes


class Note(NamedTuple):
    """A parsed note, unverified. `text` includes its last newline, not the empty line after it."""

    text: bytes
    signatures: tuple[Signature, ...]


# Keys


def check_name(name: str, where: str) -> str:
    """A key name as signed-note allows it."""
    if not _NAME.fullmatch(name):
        raise Malformed("want a name without spaces and plus signs", where, name)
    return name


def make_key(name: str, algorithm: int, public_key: bytes, where: str = "vkey") -> VerifierKey:
    """A checked key with its id. Two names or types of one public key have different ids."""
    check_name(check_text(name, f"{where} name", MAX_NAME_SIZE), f"{where} name")
    if _CONTROL.search(name):
        raise Malformed("want a name without control characters", f"{where} name", name)
    octets = name.encode("utf-8")
    if algorithm not in SUPPORTED:
        known = f" ({NOT_SUPPORTED[algorithm]})" if algorithm in NOT_SUPPORTED else ""
        raise Malformed(f"signature type 0x{algorithm:02x}{known} is not supported yet", where)
    ed25519.check_public_key(public_key, where)
    key_id = sha256(octets + b"\n" + bytes([algorithm]) + public_key).digest()[:KEY_ID_SIZE]
    return VerifierKey(name, key_id, algorithm, public_key)


def parse_vkey(text: str, where: str = "vkey") -> VerifierKey:
    """A verifier key, once its id is that of its name, type and public key, and the public key is a sound one."""
    parts = text.split("+", 2) if len(text) <= MAX_VKEY_SIZE else []
    if len(parts) != 3:
        raise Malformed("want NAME+ID+KEY", where, text)
    typed_key = decode_base64(parts[2], f"{where} key")
    if not typed_key:
        raise Malformed("want a signature type and a public key", where, text)
    key = make_key(parts[0], typed_key[0], typed_key[1:], where)
    if key.key_id.hex() != parts[1]:
        raise Malformed(f"want key id {key.key_id.hex()}", where, parts[1])
    return key


def format_vkey(key: VerifierKey) -> str:
    return f"{key.name}+{key.key_id.hex()}+{encode_base64(bytes([key.algorithm]) + key.public_key)}"


class SignerKey:
    """A private key under a name, for one signature type. Shows nothing secret when printed."""

    __slots__ = ("_private", "verifier_key")

    def __init__(self, name: str, algorithm: int, secret: bytes) -> None:
        self._private = ed25519.load_private_key(secret)
        self.verifier_key = make_key(name, algorithm, self._private.public_key().public_bytes_raw(), "private key")

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def secret_bytes(self) -> bytes:
        return self._private.private_bytes_raw()

    def __repr__(self) -> str:
        return f"SignerKey({format_vkey(self.verifier_key)})"


def parse_private_key(text: str) -> SignerKey:
    """A signer's key from its text form. No error of this function shows the text, which is secret."""
    where = "private key"
    parts = text.removeprefix(_PRIVATE).split("+", 2)
    if not text.startswith(_PRIVATE) or len(text) > MAX_VKEY_SIZE or len(parts) != 3:
        raise Malformed("want PRIVATE+KEY+NAME+ID+KEY", where)
    try:
        typed_secret = decode_base64(parts[2], where, size=1 + ed25519.SECRET_SIZE)
    except Malformed:
        raise Malformed("want base64 of a signature type and 32 bytes", where) from None
    signer = SignerKey(parts[0], typed_secret[0], typed_secret[1:])
    if signer.verifier_key.key_id.hex() != parts[1]:
        raise Malformed(f"want key id {signer.verifier_key.key_id.hex()}", where)
    return signer


def format_private_key(signer: SignerKey) -> str:
    key = signer.verifier_key
    return f"{_PRIVATE}{key.name}+{key.key_id.hex()}+{encode_base64(bytes([key.algorithm]) + signer.secret_bytes())}"


# Notes


def parse_note(data: bytes) -> Note:
    """Text and signature lines, nothing verified yet. `format_note` gives the same bytes again."""
    if len(data) > MAX_NOTE_SIZE:
        raise Malformed(f"want at most {MAX_NOTE_SIZE} bytes", "note", len(data))
    end = data.rfind(b"\n\n") + 1
    if end == 0:
        raise Malformed("want an empty line between text and signatures", "note")
    return Note(check_note_text(data[:end]), parse_signature_lines(data[end + 1 :]))


def format_note(note: Note) -> bytes:
    return check_note_text(note.text) + b"\n" + b"".join(map(format_signature_line, note.signatures))


def check_note_text(text: bytes) -> bytes:
    """A text that may be signed: UTF-8, no control characters, ends in a newline."""
    if not text.endswith(b"\n"):
        raise Malformed("want a newline at its end", "note text")
    if text.translate(None, _NO_CONTROL):
        raise Malformed("control character", "note text")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8", "note text") from None
    return text


def parse_signature_lines(data: bytes) -> tuple[Signature, ...]:
    """One or more signature lines, as at a note's end and in a witness's answer, nothing verified yet."""
    where = "signature line"
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8", where) from None
    if lines.pop() or not lines:
        raise Malformed("want lines that end in a newline", where)
    if len(lines) > MAX_SIGNATURES:
        raise Malformed(f"want at most {MAX_SIGNATURES} signature lines", "note", len(lines))
    return tuple([_parse_signature_line(line, where) for line in lines])


def _parse_signature_line(line: str, where: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH:
        raise Malformed("want an em dash, a name and a signature", where, line)
    data = decode_base64(parts[2], where)
    if len(data) <= KEY_ID_SIZE:
        raise Malformed("want a key id and a signature", where, line)
    return make(Signature, (check_name(parts[1], where), data[:KEY_ID_SIZE], data[KEY_ID_SIZE:]))


def format_signature_line(signature: Signature) -> bytes:
    """The line with its newline."""
    name, key_id, blob = signature
    return f"{_DASH} {name} {encode_base64(key_id + blob)}\n".encode()


# Verifying


def find_signature(note: Note, key: VerifierKey) -> bytes | None:
    """The blob of the key's line, unverified; None where it has none. A second line of one key refuses the note."""
    name, key_id = key.name, key.key_id
    blobs = [blob for at, line_id, blob in note.signatures if line_id == key_id and at == name]
    if len(blobs) > 1:
        raise Malformed(f"want one signature line of {key.name} ({key.key_id.hex()})", "note", len(blobs))
    return blobs[0] if blobs else None


def verify_signature(note: Note, key: VerifierKey) -> bytes:
    """The text, once the key's holder has signed it with a plain note signature (type 01)."""
    blob = _blob(note, key, SIGNATURE)
    return ed25519.verify(key.public_key, blob, note.text, key.name, key.key_id)


def verify_cosignature(note: Note, key: VerifierKey) -> int:
    """The timestamp, once the cosigner has stated that at that time this was the newest tree it had seen (type 04)."""
    return _verify_timestamped(note, key, _blob(note, key, COSIGNATURE))


def verify_cosignatures(note: Note, keys: Mapping[_Name, VerifierKey]) -> dict[_Name, int]:
    """The timestamps of those named keys that have a line. One line that does not hold refuses them all."""
    found = [(name, key, find_signature(note, key)) for name, key in keys.items()]
    return {name: _verify_timestamped(note, key, blob) for name, key, blob in found if blob is not None}


def keep_valid(note: Note, keys: Iterable[VerifierKey]) -> Note:
    """The note with the lines of these keys that hold, one of each, and no others."""
    by_id = {(key.name, key.key_id): key for key in keys}
    kept: dict[tuple[str, bytes], Signature] = {}
    for line in note.signatures:
        name = line.name, line.key_id
        key, alone = by_id.get(name), Note(note.text, (line,))
        if key is None:
            continue
        try:
            verify_cosignature(alone, key) if key.algorithm == COSIGNATURE else verify_signature(alone, key)
        except BadSignature:
            continue
        kept[name] = line
    return Note(note.text, tuple(kept.values()))


def _verify_timestamped(note: Note, key: VerifierKey, blob: bytes) -> int:
    _check_algorithm(key, COSIGNATURE)
    timestamp, signature = int.from_bytes(blob[:TIMESTAMP_SIZE], "big"), blob[TIMESTAMP_SIZE:]
    if not 1 <= timestamp <= MAX_U64:
        raise BadSignature(key.name, key.key_id, f"has time {timestamp}, want 1 to {MAX_U64}")
    ed25519.verify(key.public_key, signature, cosignature_message(note.text, timestamp), key.name, key.key_id)
    return timestamp


def _blob(note: Note, key: VerifierKey, algorithm: int) -> bytes:
    _check_algorithm(key, algorithm)
    blob = find_signature(note, key)
    if blob is None:
        raise NotProven("unsigned", f"no signature of {key.name} ({key.key_id.hex()})")
    return blob


def _check_algorithm(key: VerifierKey, algorithm: int) -> None:
    if key.algorithm != algorithm:
        raise Malformed(f"want a key of type 0x{algorithm:02x}", f"key {key.name}", f"0x{key.algorithm:02x}")


# Signing


def cosignature_message(text: bytes, timestamp: int) -> bytes:
    """What a cosigner signs (tlog-cosignature, "Ed25519 signed message"): the whole text, extension lines included."""
    return b"cosignature/v1\ntime %d\n" % timestamp + text


def sign_note(text: bytes, signer: SignerKey) -> Signature:
    """The signer's line for a text, by a key of type 01."""
    key = _signing_key(signer, SIGNATURE)
    return Signature(key.name, key.key_id, signer.sign(check_note_text(text)))


def cosign(text: bytes, signer: SignerKey, timestamp: int) -> Signature:
    """The cosigner's line for a checkpoint's text at a time, by a key of type 04. What it states: see above."""
    key = _signing_key(signer, COSIGNATURE)
    if not 1 <= timestamp <= MAX_U64:
        raise Malformed(f"want 1 to {MAX_U64}", "cosignature time", timestamp)
    signature = signer.sign(cosignature_message(check_note_text(text), timestamp))
    return Signature(key.name, key.key_id, u64(timestamp) + signature)


def _signing_key(signer: SignerKey, algorithm: int) -> VerifierKey:
    key = signer.verifier_key
    if key.algorithm != algorithm:
        raise Malformed(f"want a key of type 0x{algorithm:02x}", f"key {key.name}", f"0x{key.algorithm:02x}")
    return key
