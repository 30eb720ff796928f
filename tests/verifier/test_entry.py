"""Entries and their parts: round trips, and every strictness rule of SPEC 3."""

from __future__ import annotations

from hashlib import sha3_256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.encoding import MAX_U64, tagged, u8, u16, u64
from verifier.entry import (
    MAX_CONTEXT,
    MAX_ENTRIES,
    MAX_ENTRY,
    MAX_LISTED,
    MAX_PATH,
    Closed,
    CloseReason,
    Content,
    ContextField,
    Entry,
    Erased,
    Expired,
    ExpiryReason,
    Gap,
    GapReason,
    Operation,
    Part,
    Predecessor,
    Reverted,
    Seal,
    Seen,
    Taint,
    TaintKind,
    commit,
    decode_content,
    decode_context,
    decode_entry,
    decode_path,
    encode_argument,
    encode_content,
    encode_context,
    encode_entry,
    encode_path,
    entry_hash,
)
from verifier.errors import Malformed

SIZE = 122  # bytes of an entry without argument

numbers = st.integers(0, MAX_U64)
hashes = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)


def ascending(items: st.SearchStrategy, least: int = 0) -> st.SearchStrategy:
    return st.lists(items, min_size=least, max_size=5, unique=True).map(lambda values: tuple(sorted(values)))


taints = st.builds(Taint, hashes, numbers, st.sampled_from(list(TaintKind)))
ARGUMENTS: dict[Operation, st.SearchStrategy] = {
    Operation.REVERTED: st.builds(Reverted, numbers),
    Operation.EXPIRED: st.builds(Expired, st.sampled_from(list(ExpiryReason)), ascending(numbers, 1)),
    Operation.ADOPTED: st.none() | st.builds(Predecessor, hashes, numbers, hashes),
    Operation.GAP: st.builds(Gap, st.sampled_from(list(GapReason))),
    Operation.SEALED: st.builds(
        Seal,
        *(numbers, hashes, hashes, numbers, numbers, hashes, hashes, ascending(st.tuples(hashes, numbers)), signatures),
    ),
    Operation.ERASED: st.builds(Erased, numbers, st.sampled_from(list(Part))),
    Operation.CLOSED: st.builds(
        *(Closed, st.sampled_from([r for r in CloseReason if r is not CloseReason.DECLARED])),
        *(ascending(taints), st.just(b"") | signatures, st.none()),
    )
    | st.builds(
        *(Closed, st.just(CloseReason.DECLARED), ascending(taints), signatures),
        st.builds(Seen, hashes, numbers, hashes),
    ),
}


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    operation = draw(st.sampled_from(list(Operation)))
    seq = draw(st.integers(0, MAX_ENTRIES - 1))
    commitments = [draw(hashes) for _ in Part]
    argument = draw(ARGUMENTS.get(operation, st.none()))
    return Entry(operation, seq, draw(numbers), draw(numbers), *commitments, argument)


def head(
    operation: int = Operation.WRITTEN, version: int = 1, seq: int = 4, recorded: int = 5, mtime: int = 6
) -> bytes:
    times = b"".join(number.to_bytes(8, "big") for number in (seq, recorded, mtime))
    return bytes([version, operation]) + times + b"c" * 32 + b"p" * 32 + b"x" * 32


# -- entries ----------------------------------------------------------------------------------------------------


@given(entries())
def test_entry_round_trip(entry: Entry) -> None:
    """An entry's bytes decode to it, and to nothing else."""
    data = encode_entry(entry)
    assert decode_entry(data) == entry
    assert len(data) <= MAX_ENTRY
    assert entry_hash(data) == tagged("entry", data)


@given(entries(), st.data())
def test_entry_has_one_spelling(entry: Entry, data: st.DataObject) -> None:
    """Whatever changed bytes decode at all encode to the same bytes again: no two spellings of one entry."""
    good = encode_entry(entry)
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    for mangled in (changed, good + b"\0", good[:-1], good[:at] + good[at + 1 :]):
        try:
            assert encode_entry(decode_entry(mangled)) == mangled
        except Malformed:
            continue


def test_entry_of_known_bytes() -> None:
    """The offsets of SPEC 3.1, byte by byte."""
    data = bytes.fromhex("0102" + "0000000000000004" + "0000000000000005" + "0000000000000006")
    entry = decode_entry(data + b"c" * 32 + b"p" * 32 + b"x" * 32)
    assert entry == Entry(Operation.WRITTEN, 4, 5, 6, b"c" * 32, b"p" * 32, b"x" * 32)
    assert len(encode_entry(entry)) == SIZE


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "truncated, want at least 122 bytes, got 0"),
        (head()[:-1], "truncated, want at least 122 bytes, got 121"),
        (head(version=0), "unknown format, want 1, got 0"),
        (head(version=2), "unknown format, want 1, got 2"),
        (head(0), "unknown operation, got 0"),
        (head(16), "unknown operation, got 16"),
        (head(seq=MAX_ENTRIES), "seq must be below 16384, got 16384"),
        (head(seq=2**64 - 1), "seq must be below 16384"),
        (head(recorded=2**63), "time above 2^63-1, got 9223372036854775808"),
        (head(mtime=2**63), "time above 2^63-1, got 9223372036854775808"),
        (head() + b"\0", r"entry 4 \(written\): 1 bytes too many"),
        (head(Operation.CREATED) + bytes(8), r"entry 4 \(created\): 8 bytes too many"),
    ],
)
def test_entry_refuses(data: bytes, error: str) -> None:
    """What is shorter, longer, or of another kind than SPEC 3.1 says."""
    with pytest.raises(Malformed, match=error.replace("^", r"\^")):
        decode_entry(data)


@pytest.mark.parametrize("operation", [operation for operation in Operation if operation not in ARGUMENTS])
def test_entry_without_argument_has_none(operation: Operation) -> None:
    """Operations that have no argument refuse one."""
    assert decode_entry(head(operation)).argument is None
    with pytest.raises(Malformed, match="1 bytes too many"):
        decode_entry(head(operation) + b"\0")


@pytest.mark.parametrize("operation", [o for o in ARGUMENTS if o is not Operation.ADOPTED])
def test_entry_with_argument_needs_it(operation: Operation) -> None:
    """Operations that have one can't do without."""
    with pytest.raises(Malformed, match=f"{operation.word}.*: truncated"):
        decode_entry(head(operation))


ONE, TWO = b"\1" * 32, b"\7" * 32
SEAL = encode_argument(Seal(1, ONE, ONE, 1, 2, ONE, ONE, ((ONE, 1), (ONE, 2)), b"s" * 64))
TAINTED = encode_argument(Closed(CloseReason.FULL, (Taint(ONE, 1, TaintKind.GAP), Taint(TWO, 1, TaintKind.GAP)), b""))


def listed(count: int) -> bytes:
    return b"\1" + u16(count) + b"".join(u64(number) for number in range(count))


@pytest.mark.parametrize(
    ("operation", "argument", "error"),
    [
        (Operation.REVERTED, bytes(7), "truncated"),
        (Operation.REVERTED, bytes(9), "1 bytes too many"),
        (Operation.REVERTED, b"\x80" + bytes(7), "number above 2"),
        (Operation.EXPIRED, b"\0" + u16(1) + u64(1), "unknown ExpiryReason, got 0"),
        (Operation.EXPIRED, b"\4" + u16(1) + u64(1), "unknown ExpiryReason, got 4"),
        (Operation.EXPIRED, b"\1" + u16(0), "no seq listed"),
        (Operation.EXPIRED, b"\1" + u16(2) + u64(1), "truncated"),
        (Operation.EXPIRED, b"\1" + u16(1) + u64(1) + u64(2), "8 bytes too many"),
        (Operation.EXPIRED, b"\1" + u16(2) + u64(2) + u64(1), "list not strictly ascending"),
        (Operation.EXPIRED, b"\1" + u16(2) + u64(2) + u64(2), "list not strictly ascending"),
        (Operation.EXPIRED, listed(MAX_LISTED + 1), "want at most 1024 listed, got 1025"),
        (Operation.ADOPTED, ONE + u64(1) + ONE[:-1], "truncated"),
        (Operation.ADOPTED, ONE + u64(1) + ONE + b"\0", "1 bytes too many"),
        (Operation.GAP, b"\0", "unknown GapReason, got 0"),
        (Operation.GAP, b"\4", "unknown GapReason, got 4"),
        (Operation.GAP, b"\1\1", "1 bytes too many"),
        (Operation.SEALED, SEAL[:-1], "truncated"),
        (Operation.SEALED, SEAL + b"\0", "1 bytes too many"),
        (Operation.SEALED, SEAL.replace(u64(2) + b"s", u64(1) + b"s"), "list not strictly ascending"),
        (Operation.SEALED, SEAL.replace(u64(2) + b"s", u64(0) + b"s"), "list not strictly ascending"),
        (Operation.SEALED, b"\x80" + SEAL[1:], "number above 2"),
        (Operation.ERASED, u64(1) + b"\0", "unknown Part, got 0"),
        (Operation.ERASED, u64(1) + b"\4", "unknown Part, got 4"),
        (Operation.ERASED, u64(1) + b"\1\0", "1 bytes too many"),
        (Operation.CLOSED, b"\0" + u16(0), "unknown CloseReason, got 0"),
        (Operation.CLOSED, b"\x09" + u16(0), "unknown CloseReason, got 9"),
        (Operation.CLOSED, b"\x08" + u16(0) + u64(1) + ONE, "truncated"),
        (Operation.CLOSED, b"\x07" + u16(0) + u64(1) + ONE + bytes(64), "40 bytes too many"),
        (Operation.CLOSED, b"\1" + u16(0) + bytes(63), "truncated"),
        (Operation.CLOSED, b"\1" + u16(0) + bytes(65), "1 bytes too many"),
        (Operation.CLOSED, TAINTED.replace(TWO, ONE), "list not strictly ascending"),
        (Operation.CLOSED, TAINTED.replace(TWO, bytes(32)), "list not strictly ascending"),
        (Operation.CLOSED, TAINTED[:-1] + b"\0", "unknown TaintKind, got 0"),
        (Operation.CLOSED, TAINTED[:-1] + b"\4", "unknown TaintKind, got 4"),
        (Operation.CLOSED, b"\1" + u16(MAX_LISTED + 1), "want at most 1024 listed, got 1025"),
    ],
)
def test_argument_refuses(operation: Operation, argument: bytes, error: str) -> None:
    """Each argument has one form (SPEC 3.2): nothing unknown, too long, too short, or out of order."""
    with pytest.raises(Malformed, match=rf"^entry 4 \({operation.word}\): {error}"):
        decode_entry(head(operation) + argument)


def test_argument_takes_the_longest_list() -> None:
    """1,024 items are not too many, in the longest entry that there can be."""
    assert decode_entry(head(Operation.EXPIRED) + listed(MAX_LISTED)).argument == Expired(
        ExpiryReason.THINNED, tuple(range(MAX_LISTED))
    )
    taints = tuple(Taint(ONE, seq, TaintKind.GAP) for seq in range(MAX_LISTED))
    data = head(Operation.CLOSED) + encode_argument(Closed(CloseReason.LOSS, taints, bytes(64)))
    assert len(data) <= MAX_ENTRY
    assert decode_entry(data).argument == Closed(CloseReason.LOSS, taints, bytes(64))


# -- parts ------------------------------------------------------------------------------------------------------

contents = st.builds(
    Content,
    numbers,
    hashes,
    st.dictionaries(st.integers(2, 255), st.binary(max_size=64), max_size=7).map(lambda d: tuple(sorted(d.items()))),
)
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map("/".join)
contexts = st.dictionaries(
    st.sampled_from(list(ContextField)), st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
)


@given(st.none() | contents)
def test_content_round_trip(content: Content | None) -> None:
    """Size, digest, and further digests unread."""
    assert decode_content(encode_content(content)) == content


@given(st.none() | paths)
def test_path_round_trip(path: str | None) -> None:
    """Any path below the root, control characters and all."""
    assert decode_path(encode_path(path)) == path


@given(contexts)
def test_context_round_trip(fields: dict[ContextField, str]) -> None:
    """Any fields, empty ones too."""
    assert decode_context(encode_context(fields)) == fields


@given(st.binary(max_size=80))
def test_parts_have_one_spelling(data: bytes) -> None:
    """Bytes that decode encode to themselves again."""
    for decode, encode in (
        (decode_content, encode_content),
        (decode_path, encode_path),
        (decode_context, encode_context),
    ):
        try:
            value = decode(data)
        except Malformed:
            continue
        assert encode(value) == data  # type: ignore[operator]


def test_commitment_binds_part_and_opening() -> None:
    """SHA3-256 over the part's tag and the opening: what opens one part opens no other (SPEC 3.3)."""
    opening = bytes(32) + b"data"
    assert commit(Part.PATH, opening) == sha3_256(b"nextcloud-audit/1/path\0" + opening).digest()
    assert len({commit(part, opening) for part in Part}) == 3


DIGEST = b"\x01\x20" + bytes(32)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (u64(1), "content: truncated, want 9 bytes, got 8"),
        (u64(1) + u8(0), "want SHA3-256 as the first digest"),
        (u64(1) + u8(1) + b"\x02\x20" + bytes(32), "want SHA3-256 as the first digest"),
        (u64(1) + u8(1) + b"\x01\x1f" + bytes(31), "want SHA3-256 as the first digest"),
        (u64(1) + u8(1) + DIGEST + b"\0", "1 bytes too many"),
        (u64(1) + u8(1) + DIGEST[:-1], "truncated"),
        (u64(1) + u8(2) + DIGEST, "truncated"),
        (u64(1) + u8(2) + DIGEST + DIGEST, "list not strictly ascending"),
        (u64(1) + u8(3) + DIGEST + b"\x03\x00" + b"\x02\x00", "list not strictly ascending"),
        (u64(1) + u8(9) + DIGEST + b"".join(bytes([n, 0]) for n in range(2, 10)), "want SHA3-256"),
        ((2**63).to_bytes(8, "big") + u8(1) + DIGEST, "number above 2"),
    ],
)
def test_content_refuses(data: bytes, error: str) -> None:
    """SPEC 3.4: SHA3-256 first, one to eight digests, ascending, and nothing behind them."""
    with pytest.raises(Malformed, match=error):
        decode_content(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"/a", "want a relative path"),
        (b"a/", "want a relative path"),
        (b"a//b", "want a relative path"),
        (b".", "want a relative path"),
        (b"a/./b", "want a relative path"),
        (b"..", "want a relative path"),
        (b"a/../b", "want a relative path"),
        (b"a\0b", "want a relative path"),
        (b"\xff", "path: not UTF-8"),
        (b"\xed\xa0\x80", "path: not UTF-8"),
        (b"\xc0\xae\xc0\xae", "path: not UTF-8"),
        (b"a" * (MAX_PATH + 1), "want at most 4096 bytes, got 4097"),
    ],
)
def test_path_refuses(data: bytes, error: str) -> None:
    """SPEC 3.5: below the root, and no name that leads elsewhere."""
    with pytest.raises(Malformed, match=error):
        decode_path(data)


def test_path_takes_what_only_looks_odd() -> None:
    """Names of three dots, with line feeds, and of the full length are names."""
    for path in ("...", "a\n\x1b[2J", "..a", "a" * MAX_PATH):
        assert decode_path(path.encode()) == path


def test_path_that_is_not_utf8_is_not_written() -> None:
    """A lone surrogate (how Python reads other bytes in a name) and a path that could not be read again."""
    with pytest.raises(Malformed, match="path: not UTF-8"):
        encode_path("\udcff")
    with pytest.raises(Malformed, match="want a relative path"):
        encode_path("a/../b")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x00\x00\x00", "unknown ContextField, got 0"),
        (b"\x06\x00\x00", "unknown ContextField, got 6"),
        (b"\x01\x00\x00\x01\x00\x00", "fields twice or out of order"),
        (b"\x02\x00\x00\x01\x00\x00", "fields twice or out of order"),
        (b"\x01\x00\x02a", "context: truncated"),
        (b"\x01\x00", "context: truncated"),
        (b"\x01\x00\x01\xff", "context: not UTF-8"),
        (b"\x05" + u16(MAX_CONTEXT - 2) + b"a" * (MAX_CONTEXT - 2), "want at most 8192 bytes, got 8193"),
    ],
)
def test_context_refuses(data: bytes, error: str) -> None:
    """SPEC 3.6: known fields, ascending, in UTF-8."""
    with pytest.raises(Malformed, match=error):
        decode_context(data)


def test_context_takes_the_longest() -> None:
    """8,192 bytes are not too many to read, and one more is not written."""
    data = b"\x05" + u16(MAX_CONTEXT - 3) + b"a" * (MAX_CONTEXT - 3)
    assert encode_context(decode_context(data)) == data
    with pytest.raises(Malformed, match="context: want at most 8192 bytes, got 8193"):
        encode_context({ContextField.REMARK: "a" * (MAX_CONTEXT - 2)})


def test_same_bytes_reads_size_and_sha3_256_alone() -> None:
    """Other digests are carried along unread (SPEC 3.4)."""
    one = Content(3, ONE)
    assert one.same_bytes(Content(3, ONE, ((2, b"x"),)))
    assert not one.same_bytes(Content(4, ONE))
    assert not one.same_bytes(Content(3, TWO))
