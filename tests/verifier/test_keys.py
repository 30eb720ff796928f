"""Keys of one log: known answers against a slow KMAC256, one spelling per name and reader key, no secret in errors."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha3_256, shake_256
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verifier.ed25519 import load_private_key
from verifier.encoding import encode_base64, tag
from verifier.errors import Error, Malformed
from verifier.keys import (
    BLINDING_LABEL,
    MAX_ORIGIN,
    MAX_READER_SIZE,
    OWNER_LABEL,
    LogName,
    ReaderKey,
    chain_id,
    check_source_id,
    decode_secret,
    derive_keys,
    format_log_name,
    format_reader,
    owner_root,
    parse_log_name,
    parse_reader,
)

ROOT = Path(__file__).resolve().parents[2]
SEED = bytes(range(32))
LOG = "example.org/log+6f8192bb63e7f3bc36780c4de2d871cbef13caeb352347c666c9a3b65880b421"
PRIVATE = "961b395a11d3515b6fd8ea72468b5818f306a41c355a4ba911a14284d9ac8a42"
PUBLIC = "da643116b3bcf647993b26a3663012c8b0d60b233dd9f2b3a0103bb1928b113e"
BLINDING = "c69c9ea6514a3469a3315470a1585c3fa9f97eef50e1907d29f8b4a6a261339a"
READER = ReaderKey(LOG, "nc-1", bytes.fromhex(PUBLIC), bytes.fromhex(BLINDING))

# The reference: Keccak (FIPS 202) and KMAC256 (SP 800-185), slow and obvious.


def rotate(lane: int, by: int) -> int:
    return ((lane << by % 64) | (lane >> (64 - by % 64))) & (2**64 - 1)


def keccak_f(a: list[list[int]]) -> list[list[int]]:
    """Keccak-f[1600] on lanes a[x][y] (FIPS 202 3.2, 3.3)."""
    register = 1
    for _ in range(24):
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[(x - 1) % 5] ^ rotate(c[(x + 1) % 5], 1) for x in range(5)]
        a = [[a[x][y] ^ d[x] for y in range(5)] for x in range(5)]  # theta
        x, y, moving = 1, 0, a[1][0]
        for t in range(24):  # rho and pi
            x, y = y, (2 * x + 3 * y) % 5
            moving, a[x][y] = a[x][y], rotate(moving, (t + 1) * (t + 2) // 2)
        a = [[a[x][y] ^ (~a[(x + 1) % 5][y] & a[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]  # chi
        for j in range(7):  # iota
            if register & 1:
                a[0][0] ^= 1 << (2**j - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
    return a


def sponge(rate: int, data: bytes, suffix: int, size: int) -> bytes:
    """KECCAK[8 * (200 - rate)] with the domain bits `suffix` in front of pad10*1 (FIPS 202 4, 5.1), size <= rate."""
    padded = bytearray(data) + bytes([suffix]) + bytes(-(len(data) + 1) % rate)
    padded[-1] |= 0x80
    a = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), rate):
        for i in range(rate // 8):
            lane = padded[start + 8 * i : start + 8 * i + 8]
            a[i % 5][i // 5] ^= int.from_bytes(lane, "little")
        a = keccak_f(a)
    out = b"".join(a[i % 5][i // 5].to_bytes(8, "little") for i in range(rate // 8))
    return out[:size]


def encoded(number: int) -> tuple[bytes, bytes]:
    """(number in the fewest bytes, the count of those bytes): both halves of left_encode and right_encode."""
    digits = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
    return digits, bytes([len(digits)])


def left_encode(number: int) -> bytes:
    digits, count = encoded(number)
    return count + digits


def right_encode(number: int) -> bytes:
    digits, count = encoded(number)
    return digits + count


def encode_string(data: bytes) -> bytes:
    return left_encode(8 * len(data)) + data


def bytepad(data: bytes, width: int) -> bytes:
    padded = left_encode(width) + data
    return padded + bytes(-len(padded) % width)


def kmac256(key: bytes, data: bytes, size: int, label: bytes) -> bytes:
    """SP 800-185 4.3 over cSHAKE256 (3.3), size in bytes."""
    prefix = bytepad(encode_string(b"KMAC") + encode_string(label), 136)
    new = bytepad(encode_string(key), 136) + data + right_encode(8 * size)
    return sponge(136, prefix + new, 0x04, size)


def hmac_sha3(key: bytes, data: bytes) -> bytes:
    """HMAC (RFC 2104) with SHA3-256, whose block has 136 bytes."""
    block = key + bytes(136 - len(key))
    inner = sha3_256(bytes(b ^ 0x36 for b in block) + data).digest()
    return sha3_256(bytes(b ^ 0x5C for b in block) + inner).digest()


@pytest.mark.parametrize("size", [0, 1, 135, 136, 137, 300])
def test_reference_sponge_agrees_with_the_standard_library(size: int) -> None:
    """The slow Keccak is Keccak: SHA3-256 and SHAKE256 come out right around the block size."""
    data = bytes(i % 251 for i in range(size))
    assert sponge(136, data, 0x06, 32) == sha3_256(data).digest()
    assert sponge(136, data, 0x1F, 64) == shake_256(data).digest(64)


def test_reference_kmac_gives_the_published_samples() -> None:
    """Samples 4 and 6 that NIST published for KMAC256."""
    key, label = bytes(range(0x40, 0x60)), b"My Tagged Application"
    assert kmac256(key, bytes(range(4)), 64, label).hex() == (
        "20c570c31346f703c9ac36c61c03cb64c3970d0cfc787e9b79599d273a68d2f7"
        "f69d4cc3de9d104a351689f27cf6f5951f0103f33f4f24871024d9c27773a8dd"
    )
    assert kmac256(key, bytes(range(200)), 64, label).hex() == (
        "b58618f71f92e1d56c1b8c55ddd7cd188b97b4ca4d99831eb2699a837da2e4d9"
        "70fbacfde50033aea585f1a2708510c32d07880801bd182898fe476876fc8965"
    )


def test_keys_known_answer() -> None:
    """One seed and log give exactly these keys, root and chain id, today and in every other implementation."""
    assert format_log_name("example.org/log", b"\1" * 32) == LOG
    keys = derive_keys(SEED, LOG)
    assert (keys.private.hex(), keys.public.hex(), keys.blinding.hex()) == (PRIVATE, PUBLIC, BLINDING)
    assert owner_root(keys.public, keys.blinding).hex() == (
        "9381f4b53a6ea86e12ded85936c7219bcbc455171d6f302fba990f2c90c61f73"
    )
    assert chain_id(keys.blinding, "nc-1", 12345, 0).hex() == (
        "c5f35e635cb5daa04e273f61e743f08b526e870166dcaebca02daf2dce1fa288"
    )


def test_keys_known_answer_comes_out_of_the_definitions() -> None:
    """The frozen values are those of SPEC 2, written out byte by byte."""
    assert kmac256(SEED, LOG.encode(), 32, b"nextcloud-audit/1/owner-key").hex() == PRIVATE
    assert kmac256(SEED, LOG.encode(), 32, b"nextcloud-audit/1/blinding-key").hex() == BLINDING
    name = b"nextcloud-audit/1/log-key\0" + b"\1" * 32
    assert LOG == "example.org/log+" + sha3_256(name).hexdigest()
    root = b"nextcloud-audit/1/root\0" + bytes.fromhex(PUBLIC + BLINDING)
    assert owner_root(bytes.fromhex(PUBLIC), bytes.fromhex(BLINDING)) == sha3_256(root).digest()
    fields = b"nextcloud-audit/1/chain-id\0" + b"\0\0\0\4nc-1" + (12345).to_bytes(8, "big") + bytes(8)
    blinding = bytes.fromhex(BLINDING)
    assert chain_id(blinding, "nc-1", 12345, 0) == hmac_sha3(blinding, fields)


ORIGINS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="+"), min_size=1, max_size=60
)
KEYS = st.binary(min_size=32, max_size=32)
SOURCES = st.text("abcxyz0189._:-", min_size=1, max_size=128)


@settings(max_examples=15)
@given(KEYS, ORIGINS, KEYS)
def test_keys_agree_with_the_slow_reference(seed: bytes, origin: str, public_key: bytes) -> None:
    """For any seed and log, both derived secrets are those of the slow KMAC256."""
    name = format_log_name(origin, public_key)
    keys = derive_keys(seed, name)
    assert keys.private == kmac256(seed, name.encode(), 32, OWNER_LABEL)
    assert keys.blinding == kmac256(seed, name.encode(), 32, BLINDING_LABEL)


def test_keys_differ_between_logs_and_labels() -> None:
    """No secret serves twice: another log or label gives another one."""
    other = derive_keys(SEED, format_log_name("example.org/log", b"\2" * 32))
    keys = derive_keys(SEED, LOG)
    assert len({keys.private, keys.blinding, other.private, other.blinding}) == 4


@given(ORIGINS, KEYS)
def test_log_name_round_trip(origin: str, public_key: bytes) -> None:
    """What format_log_name writes, parse_log_name reads."""
    name = format_log_name(origin, public_key)
    assert parse_log_name(name) == LogName(origin, sha3_256(tag("log-key") + public_key).digest())


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "a b",
        "a+b",
        "a\tb",
        "a\x00",
        "a\x7f",
        "a\x85b",
        "a\x9bb",
        "a\u00a0b",
        "a\u2028b",
        "a\u3000",
        "\ud800",
        "é" * 128,
    ]
    + [chr(c) for c in (0x1680, 0x2000, 0x200A, 0x2029, 0x202F, 0x205F)],
)
def test_origin_refuses_what_is_no_key_name(origin: str) -> None:
    """Spaces of any script, plus signs, control characters, bad UTF-8 and more than 255 bytes are no origin."""
    with pytest.raises(Malformed):
        format_log_name(origin, b"\1" * 32)
    with pytest.raises(Malformed):
        parse_log_name(f"{origin}+{'0' * 64}")


def test_origin_takes_255_bytes() -> None:
    """The bound counts bytes of UTF-8, and the longest origin is still an origin."""
    longest = "é" * 127 + "x"
    assert len(longest.encode()) == MAX_ORIGIN
    assert parse_log_name(format_log_name(longest, b"\1" * 32)).origin == longest


@pytest.mark.parametrize(
    "name",
    [LOG[:-1], LOG + "0", LOG.upper(), LOG[:-2] + " 1", LOG.replace("+", ""), "+" + "0" * 64, "a+" + "A0" * 32]
    + ["a+" + "0 " * 32, "a++" + "0" * 64, "a+b+" + "0" * 64, "", None, 5, LOG.encode()],
)
def test_log_name_refuses_other_spellings(name: object) -> None:
    """A log name has one spelling: 64 lower-case digits behind the only plus sign."""
    with pytest.raises(Malformed, match="^log name"):
        parse_log_name(name)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_sizes_are_checked(size: int) -> None:
    """A key or seed of another size is refused everywhere, never padded or cut."""
    wrong, key = bytes(size), bytes(32)
    calls = [
        lambda: format_log_name("a", wrong),
        lambda: derive_keys(wrong, LOG),
        lambda: owner_root(wrong, key),
        lambda: owner_root(key, wrong),
        lambda: chain_id(wrong, "nc", 1, 0),
        lambda: format_reader(READER._replace(owner=wrong)),
        lambda: format_reader(READER._replace(blinding=wrong)),
    ]
    for call in calls:
        with pytest.raises(Malformed, match=rf"want 32 bytes, got {size}$"):
            call()


def test_derive_keys_refuses_what_is_no_log_name() -> None:
    """No key is ever derived under a name that has a second spelling."""
    with pytest.raises(Malformed, match="^log name"):
        derive_keys(SEED, LOG.upper())


@given(
    st.tuples(SOURCES, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
    st.tuples(SOURCES, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
)
@example(("a", 1, 0), ("a", 0, 1))
@example(("a", 0, 0), ("aa", 0, 0))
def test_chain_id_is_injective(one: tuple[str, int, int], two: tuple[str, int, int]) -> None:
    """Two files never share a chain id, and it is the HMAC of its definition."""
    blinding = bytes.fromhex(BLINDING)
    assert (chain_id(blinding, *one) == chain_id(blinding, *two)) == (one == two)
    source, number, generation = one
    fields = (
        len(source).to_bytes(4, "big") + source.encode() + number.to_bytes(8, "big") + generation.to_bytes(8, "big")
    )
    assert chain_id(blinding, *one) == hmac_sha3(blinding, tag("chain-id") + fields)


@pytest.mark.parametrize("source", ["", "A", "a b", "a/b", "é", "a\n", "x" * 129, None, 7, b"a", ["a"]])
def test_source_id_refuses_other_characters(source: object) -> None:
    """A source id has 1 to 128 characters of its small alphabet."""
    with pytest.raises(Malformed, match="^source id: want 1 to 128 characters"):
        check_source_id(source)
    assert check_source_id("x" * 128) == "x" * 128


@pytest.mark.parametrize(("number", "generation"), [(-1, 0), (0, -1), (2**63, 0), (0, 2**63)])
def test_chain_id_refuses_numbers_out_of_range(number: int, generation: int) -> None:
    """File ids and generations are 0 to 2^63-1."""
    with pytest.raises(Malformed, match="out of range"):
        chain_id(bytes(32), "nc", number, generation)


def test_reader_known_answer() -> None:
    """The reader key file has exactly these bytes."""
    assert format_reader(READER) == (
        b'{"format":"nextcloud-audit/reader/1",'
        b'"log":"example.org/log+6f8192bb63e7f3bc36780c4de2d871cbef13caeb352347c666c9a3b65880b421","source":"nc-1",'
        b'"owner":"2mQxFrO89keZOyajZjASyLDWCyM92fKzoBA7sZKLET4=",'
        b'"blinding":"xpyeplFKNGmjMVRwoVhcP6n5fu9Q4ZB9Kfi0pqJhM5o="}\n'
    )


OWNERS = KEYS.map(lambda private: load_private_key(private).public_key().public_bytes_raw())


@pytest.mark.parametrize("y", [1, 0, 2**255 - 19])
def test_reader_with_a_weak_owner_key_is_refused(y: int) -> None:
    """[R] A point of small order, or an encoding that is not canonical: anybody's signature would be the owner's."""
    data = format_reader(READER._replace(owner=y.to_bytes(32, "little")))
    with pytest.raises(Malformed, match="small order|canonical"):
        parse_reader(data)


@given(ORIGINS, KEYS, SOURCES, OWNERS, KEYS)
@example('\\"' * 127, bytes(32), "x" * 128, READER.owner, bytes(32))
def test_reader_round_trip(origin: str, log_key: bytes, source: str, owner: bytes, blinding: bytes) -> None:
    """Any reader key survives its file, which is always within the bound."""
    key = ReaderKey(format_log_name(origin, log_key), source, owner, blinding)
    data = format_reader(key)
    assert parse_reader(data) == key
    assert len(data) <= MAX_READER_SIZE


def compact(fields: dict[str, object]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def mangled_readers() -> list[bytes]:
    good = format_reader(READER)
    fields = json.loads(good)
    return [
        b"",
        good[:-1],
        good + b"\n",
        b" " + good,
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        b"\xff" + good,
        good.replace(b":", b": ", 1),
        good.replace(b"nc-1", b"\\u006ec-1"),
        good.replace(b'"source"', b'"source":"nc-2","source"'),
        good.replace(b"reader/1", b"reader/2"),
        good.replace(b"ET4=", b"ET5="),
        good.replace(b"M5o=", b"M5p="),
        good.replace(b"M5o=", b""),
        compact(dict(reversed(fields.items()))),
        compact({**fields, "more": 1}),
        *[compact({**fields, name: wrong}) for name in fields for wrong in (1, None, "", [])],
        *[compact({k: v for k, v in fields.items() if k != name}) for name in fields],
        b"[" * MAX_READER_SIZE,
        b"1" * MAX_READER_SIZE,
        b"[]\n",
        b"null\n",
        b'"x"\n',
        good + b" " * MAX_READER_SIZE,
        good.replace(b"example", b"\\ud800"),
    ]


@pytest.mark.parametrize("data", mangled_readers(), ids=range(len(mangled_readers())))
def test_reader_refuses_other_spellings(data: bytes) -> None:
    """Whatever is not the one spelling of a reader key is malformed, and the error does not show the blinding key."""
    with pytest.raises(Malformed, match="^reader key") as caught:
        parse_reader(data)
    assert encode_base64(READER.blinding)[:8] not in str(caught.value)


def test_reader_is_bounded_before_it_is_parsed() -> None:
    """A file beyond 4 KiB is refused for its size, whatever is in it."""
    with pytest.raises(Malformed, match="^reader key: want at most 4096 bytes, got 4097$"):
        parse_reader(b"[" * (MAX_READER_SIZE + 1))


def test_reader_changed_byte_never_reads_as_the_same_key() -> None:
    """Each changed byte of the file is refused or gives a different key: nothing in it is ignored."""
    good = format_reader(READER)
    for at in range(len(good)):
        for bit in (1, 2, 4, 32, 128):
            data = bytearray(good)
            data[at] ^= bit
            try:
                key = parse_reader(bytes(data))
            except Error:
                continue
            assert key != READER
            assert format_reader(key) == data


def test_secrets_stay_out_of_errors_and_repr() -> None:
    """Neither a message, nor an exception's context, nor repr holds a secret."""
    secret = encode_base64(SEED)
    for wrong in (secret[:-1], secret + "x", encode_base64(SEED + b"x")):
        with pytest.raises(Malformed) as caught:
            decode_secret(wrong, "seed", 32)
        assert secret[:8] not in str(caught.value)
        assert caught.value.got is None
        assert caught.value.__context__ is None
    keys = derive_keys(SEED, LOG)
    for shown in (repr(keys), str(keys), f"{READER}"):
        assert PRIVATE[:8] not in shown
        assert BLINDING[:8] not in shown
        assert repr(keys.blinding)[2:10] not in shown


def test_import_loads_no_key_derivation() -> None:
    """Verifying with kept keys loads neither the KMAC library nor the word list."""
    code = "import sys, verifier.keys, verifier.seed; print({'Crypto', 'mnemonic', 'difflib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout == "set()\n"
