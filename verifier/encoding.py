"""One spelling per value: decimals, base64, tagged hashes, and a reader for binary formats.

SPEC 1. Every number that travels as text is a decimal without sign or leading zero, at most 2^63-1.
Every byte string that travels as text is standard base64 with padding, whose unused bits are zero.
`decode_` functions parse, encode again and compare, so that two texts never mean the same value.

    tagged("link", a, b)   ==   SHA3-256("nextcloud-audit/1/link" || 00 || a || b)

A tag is ASCII and has no zero byte, so no tag is a prefix of another one. Fields of fixed size follow as
they are; a field of variable size goes in through `sized` (its length as u32, then its bytes).
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from hashlib import sha3_256

from verifier.errors import Malformed

HASH_SIZE = 32
MAX_U64 = 2**63 - 1  # SPEC 1.1: fits a signed 64-bit column everywhere
LABEL = b"nextcloud-audit/1/"
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def tag(name: str) -> bytes:
    """The domain prefix of a hash or signature: `nextcloud-audit/1/NAME` and a zero byte (SPEC 1.4)."""
    return LABEL + name.encode("ascii") + b"\0"


def tagged(name: str, *fields: bytes) -> bytes:
    """32-byte SHA3-256 over the tag and the fields (SPEC 1.4). Hot paths hold the tag as a constant."""
    return sha3_256(tag(name) + b"".join(fields)).digest()


def u8(value: int) -> bytes:
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """8 bytes, big endian. Values above 2^63-1 are a caller's mistake and raise Malformed."""
    if not 0 <= value <= MAX_U64:
        raise Malformed("number out of range", "u64", value)
    return value.to_bytes(8, "big")


def sized(data: bytes) -> bytes:
    """A field of variable size: its length as u32, then its bytes (SPEC 1.4)."""
    return u32(len(data)) + data


def text(value: str) -> bytes:
    """A text field of variable size, UTF-8 (SPEC 1.4)."""
    return sized(value.encode("utf-8"))


def encode_base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def decode_base64(value: object, where: str, size: int | None = None, limit: int | None = None) -> bytes:
    """Standard base64, padded, one spelling per value (RFC 4648 4 and 3.5). `size` demands a length in bytes."""
    if type(value) is not str:
        raise Malformed("want a base64 string", where, value)
    try:
        data = a2b_base64(value, strict_mode=True)
        canonical = b2a_base64(data, newline=False) == value.encode("ascii")
    except (Base64Error, ValueError):
        canonical = False
    if not canonical:
        raise Malformed("not canonical base64", where, value)
    if size is not None and len(data) != size:
        raise Malformed(f"want {size} bytes", where, len(data))
    if limit is not None and len(data) > limit:
        raise Malformed(f"want at most {limit} bytes", where, len(data))
    return data


def decode_hashes(value: object, where: str, limit: int) -> list[bytes]:
    """A list of 32-byte hashes that travels as one base64 string (SPEC 7.1), at most `limit` of them."""
    data = decode_base64(value, where, limit=limit * HASH_SIZE)
    if len(data) % HASH_SIZE:
        raise Malformed("want a multiple of 32 bytes", where, len(data))
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def encode_hashes(hashes: list[bytes] | tuple[bytes, ...]) -> str:
    return encode_base64(b"".join(hashes))


def decode_decimal(value: object, where: str, limit: int = MAX_U64) -> int:
    """A decimal as text: `0` or digits without a leading zero, at most `limit` (SPEC 1.1)."""
    if type(value) is not str or not 1 <= len(value) <= 19 or not (value.isascii() and value.isdigit()):
        raise Malformed("want a decimal number as text", where, value)
    number = int(value)
    if str(number) != value:
        raise Malformed("leading zero", where, value)
    if number > limit:
        raise Malformed(f"want at most {limit}", where, value)
    return number


def check_text(value: object, where: str, limit: int) -> str:
    """A non-empty text of at most `limit` bytes of UTF-8, no control characters (SPEC 1.2).

    Errors do not show it: passwords and tokens are texts as well.
    """
    if type(value) is not str or not value:
        raise Malformed("want a non-empty string", where)
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise Malformed("not UTF-8", where) from None
    if size > limit:
        raise Malformed(f"want at most {limit} bytes", where, size)
    if _CONTROL.search(value):
        raise Malformed("control character", where)
    return value


class Reader:
    """Takes fields off a binary value, in order, and refuses what is left over.

    >>> r = Reader(u64(7) + b"x", "example")
    >>> r.u64(), r.take(1)
    (7, b'x')
    >>> r.end()
    """

    __slots__ = ("data", "pos", "where")

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.pos, self.where = data, 0, where

    def take(self, size: int) -> bytes:
        end = self.pos + size
        if end > len(self.data):
            raise Malformed(f"truncated, want {end} bytes", self.where, len(self.data))
        taken = self.data[self.pos : end]
        self.pos = end
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u64(self) -> int:
        value = int.from_bytes(self.take(8), "big")
        if value > MAX_U64:
            raise Malformed("number above 2^63-1", self.where, value)
        return value

    def hash(self) -> bytes:
        return self.take(HASH_SIZE)

    def end(self) -> None:
        if self.pos != len(self.data):
            raise Malformed(f"{len(self.data) - self.pos} bytes too many", self.where)
