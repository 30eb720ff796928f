"""Ed25519 (RFC 8032), with keys that are checked before they are used.

    key = check_public_key(data, "owner key")       once, when a key is configured, enrolled or parsed
    verify(key, signature, message, name, key_id)   raises BadSignature, or returns the message

Why keys are checked. OpenSSL, and so the `cryptography` library, takes any 32 bytes for a public key. For the points
of small order (1, 2, 4, 8) signatures exist that hold for *every* message, or for one in eight, made by nobody:
whoever configures such a key trusts everyone. An encoding that is not canonical (y of at least p = 2^255 - 19, or
x = 0 with the sign bit set) is a second spelling of a key, so that one key may count twice, and libraries disagree on
what to do with it. RFC 8032 5.1.3 asks to refuse the second kind; the first kind is left to the user: us.

Small order shows in y alone: the eight points have y in {1, -1, 0, Y8, -Y8}, where Y8 is the y of a point of order 8.

Signatures are verified by OpenSSL: without cofactor, S below the group order.

Not checked: that the bytes lie on the curve (if not, no signature ever holds), and that the point has no
small-order part besides its large one (only its owner can make such a key, and a signature that libraries disagree on).
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from verifier.errors import BadSignature, Malformed

KEY_SIZE = 32  # RFC 8032 5.1.5
SECRET_SIZE = 32
SIGNATURE_SIZE = 64
CACHED_KEYS = 1024

P = 2**255 - 19
Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER_Y = frozenset({0, 1, P - 1, Y8, P - Y8})
_Y_MASK = 2**255 - 1


def check_public_key(key: bytes, where: str) -> bytes:
    """The key itself, once it is a canonical encoding of a point that is not of small order."""
    if len(key) != KEY_SIZE:
        raise Malformed(f"want a key of {KEY_SIZE} bytes", where, len(key))
    y = int.from_bytes(key, "little") & _Y_MASK
    if y >= P:
        raise Malformed("key is not canonically encoded", where, key.hex())
    if y in SMALL_ORDER_Y:  # holds x = 0 (y = 1 or -1) too, with either sign bit
        raise Malformed("key is a point of small order", where, key.hex())
    return key


@lru_cache(maxsize=CACHED_KEYS)
def load_public_key(key: bytes) -> Ed25519PublicKey:
    """The library's object for a key, checked once."""
    return Ed25519PublicKey.from_public_bytes(check_public_key(key, "public key"))


def load_private_key(secret: bytes) -> Ed25519PrivateKey:
    """The library's object for a 32-byte secret. No error of this function shows the secret."""
    if len(secret) != SECRET_SIZE:
        raise Malformed(f"want a secret of {SECRET_SIZE} bytes", "private key", len(secret))
    return Ed25519PrivateKey.from_private_bytes(secret)


def verify(public_key: bytes, signature: bytes, message: bytes, name: str, key_id: bytes) -> bytes:
    """The message, once the holder of the key has signed it. `name` and `key_id` are for the error alone."""
    try:
        load_public_key(public_key).verify(signature, message)
    except InvalidSignature:
        raise BadSignature(name, key_id) from None
    return message
