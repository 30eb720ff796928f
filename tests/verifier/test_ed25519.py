"""Which public keys are refused: by curve arithmetic of our own, and by the published edge cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from verifier.ed25519 import SMALL_ORDER_Y, P, check_public_key, load_private_key, verify
from verifier.errors import BadSignature, Malformed

D = -121665 * pow(121666, -1, P) % P
SECRET = bytes(range(32))
PUBLIC = load_private_key(SECRET).public_key().public_bytes_raw()

Point = tuple[int, int]


def encode(y: int, sign: int) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def points(y: int) -> list[Point]:
    """The points of the curve -x^2 + y^2 = 1 + d x^2 y^2 with this y."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    roots = {root * i % P for i in (1, pow(2, (P - 1) // 4, P), -1, -pow(2, (P - 1) // 4, P))}
    return [(x, y) for x in sorted(roots) if x * x % P == square]


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    cross = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + cross, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - cross, -1, P) % P,
    )


def times_eight(point: Point) -> Point:
    for _ in range(3):
        point = add(point, point)
    return point


def test_small_order_is_complete() -> None:
    """The refused y are exactly those of the eight points that eight times themselves make the neutral one."""
    small = [point for y in SMALL_ORDER_Y for point in points(y)]
    assert len(set(small)) == 8
    assert {times_eight(point) for point in small} == {(0, 1)}
    ordinary = points(int.from_bytes(PUBLIC, "little") % 2**255)
    assert len(ordinary) == 2
    assert (0, 1) not in {times_eight(point) for point in ordinary}


def test_small_order_keys_are_refused() -> None:
    """All small-order points, with either sign bit, x = 0 with the sign bit set among them."""
    for y in SMALL_ORDER_Y:
        for sign in (0, 1):
            with pytest.raises(Malformed, match="owner key: key is a point of small order"):
                check_public_key(encode(y, sign), "owner key")


def test_second_spellings_are_refused() -> None:
    """No y of p or above: all nineteen of them, with either sign bit."""
    for y in range(P, 2**255):
        for sign in (0, 1):
            with pytest.raises(Malformed, match="owner key: key is not canonically encoded"):
                check_public_key(encode(y, sign), "owner key")
    assert check_public_key(encode(P - 2, 0), "owner key")


@pytest.mark.parametrize("key", [b"", PUBLIC[:31], PUBLIC + b"\0"])
def test_other_lengths_are_refused(key: bytes) -> None:
    """A key has 32 bytes."""
    with pytest.raises(Malformed, match="owner key: want a key of 32 bytes"):
        check_public_key(key, "owner key")


def test_published_edge_cases(shared_dir: Path) -> None:
    """Of 914 cases (22 keys), all 526 with a small-order key, 226 of them not canonical, are refused; 388 pass."""
    cases = json.loads((shared_dir / "vectors" / "ed25519-edge-cases.json").read_text())
    refused, passed = [], []
    for case in cases:
        try:
            check_public_key(bytes.fromhex(case["key"]), "key")
            passed.append(case)
        except Malformed:
            refused.append(case)
    assert (len(refused), len(passed)) == (526, 388)
    assert (len({case["key"] for case in refused}), len({case["key"] for case in passed})) == (14, 8)
    assert all("low_order_A" in case["flags"] for case in refused)
    assert sum("non_canonical_A" in case["flags"] for case in refused) == 226
    assert not any({"low_order_A", "non_canonical_A"} & set(case["flags"] or ()) for case in passed)


def test_verify_returns_the_message_or_raises() -> None:
    """A signature holds for its message, key and bytes alone; the error names the signer."""
    signature = load_private_key(SECRET).sign(b"message")
    assert verify(PUBLIC, signature, b"message", "alice", b"\0\1\2\3") == b"message"
    for wrong in (signature[:-1], signature + b"\0", b"", bytes(64), bytes([signature[0] ^ 1]) + signature[1:]):
        with pytest.raises(BadSignature, match=r"signature of alice \(00010203\) does not hold"):
            verify(PUBLIC, wrong, b"message", "alice", b"\0\1\2\3")
    with pytest.raises(BadSignature):
        verify(PUBLIC, signature, b"massage", "alice", b"\0\1\2\3")


def test_scalar_has_one_spelling() -> None:
    """A signature whose S has the group order added to it is refused."""
    signature = load_private_key(SECRET).sign(b"message")
    order = 2**252 + 27742317777372353535851937790883648493
    second = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(BadSignature):
        verify(PUBLIC, signature[:32] + second, b"message", "alice", b"\0\1\2\3")


def test_verify_checks_the_key() -> None:
    """A signature that holds for everything under the neutral point is never reached."""
    anyones = encode(1, 0) + bytes(32)
    Ed25519PublicKey.from_public_bytes(encode(1, 0)).verify(anyones, b"whatever")  # what OpenSSL thinks of it
    with pytest.raises(Malformed, match="small order"):
        verify(encode(1, 0), anyones, b"whatever", "mallory", b"\0\1\2\3")


def test_private_key_error_hides_the_secret() -> None:
    """A secret of the wrong length is Malformed, and not shown."""
    with pytest.raises(Malformed, match="want a secret of 32 bytes, got 31") as caught:
        load_private_key(SECRET[:31])
    assert SECRET[:31].hex() not in str(caught.value)
    assert repr(SECRET[:31]) not in repr(caught.value)
