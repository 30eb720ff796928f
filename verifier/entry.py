"""One operation on one file: the entry, its three salted commitments, and what opens them.

SPEC 3. An entry is what a chain is made of. It names no file, person or content; those stand in three
*parts*, each committed with a fresh salt, so that a part can be erased later and the chain still holds:

    offset  size  field
         0     1  format, 01
         1     1  operation (table below)
         2     8  seq, u64, counts from 0 in each chain
        10     8  recorded: when the server says it wrote this, POSIX seconds
        18     8  mtime: what the source claims, POSIX seconds; 0 = unknown
        26    32  commitment to the content part
        58    32  commitment to the path part
        90    32  commitment to the context part
       122     -  argument, fixed by the operation; nothing may follow it

    commitment = SHA3-256("nextcloud-audit/1/" PART 00 || salt (32 bytes) || data)      PART: content, path, context
    opening    = salt || data

Content data: u64 size, u8 n, then n digests (u8 algorithm, u8 length, bytes), algorithms ascending; the
first is always 01, SHA3-256 of the plain bytes, and it alone is compared. Algorithms that this version does
not know are carried along. Path data: the UTF-8 path below the source's root. Context data: fields (u8 number,
u16 length, UTF-8), numbers ascending. A part that says nothing has empty data, and a salt all the same.

Not checked here: whether an operation may follow the one before it (`verifier.chain`).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha3_256
from struct import Struct
from typing import Any, TypeVar

from verifier.encoding import HASH_SIZE, MAX_U64, Reader, tag, u8, u16, u64
from verifier.errors import Malformed
from verifier.record import IntEnum, NamedTuple, make

FORMAT = 1
SALT_SIZE = 32
SIGNATURE_SIZE = 64
MAX_ENTRIES = 16_384  # SPEC 1.5: entries of one chain; the last one can only be `closed`
MAX_PATH = 4_096  # bytes; Nextcloud's own limit is 4,000
MAX_CONTEXT = 8_192  # bytes of the whole context part
MAX_DIGESTS = 8
MAX_LISTED = 1_024  # seqs or taints that one entry may list
MAX_ENTRY = 122 + 256 + MAX_LISTED * 41  # bytes; the longest argument is a `closed` with taints
MAX_OPENING = SALT_SIZE + MAX_CONTEXT
SHA3_256 = 1  # digest algorithm number

_E = TypeVar("_E", bound=IntEnum)
_T = TypeVar("_T", bound=Any)
_HEAD = Struct(">BBQQQ32s32s32s")
_PLAIN_CONTENT = Struct(">Q3s32s")  # the usual content: one digest
_PLAIN_FORM = bytes((1, SHA3_256, HASH_SIZE))
_ENTRY_TAG = tag("entry")
_NO_NAMES = frozenset(("", ".", ".."))


class Operation(IntEnum):
    """What happened. The numbers are the bytes of the format."""

    CREATED = 1
    WRITTEN = 2
    MOVED = 3
    TOUCHED = 4
    COPIED = 5
    DELETED = 6
    RESTORED = 7
    REVERTED = 8
    EXPIRED = 9
    ADOPTED = 10
    GAP = 11
    ALTERED = 12
    SEALED = 13
    ERASED = 14
    CLOSED = 15

    @property
    def word(self) -> str:
        return self.name.lower()


SETS_CONTENT = frozenset(  # which operations say what a file holds from then on (SPEC 4.2)
    (
        Operation.CREATED,
        Operation.WRITTEN,
        Operation.COPIED,
        Operation.RESTORED,
        Operation.REVERTED,
        Operation.ADOPTED,
        Operation.ALTERED,
    )
)


class Part(IntEnum):
    """The three erasable parts of an entry."""

    CONTENT = 1
    PATH = 2
    CONTEXT = 3

    @property
    def word(self) -> str:
        return self.name.lower()


ALL_PARTS = tuple(Part)
_PART_TAGS = (b"", *(tag(part.word) for part in ALL_PARTS))  # by number


class ExpiryReason(IntEnum):
    """Why the bytes of older versions are gone."""

    THINNED = 1
    PURGED = 2
    UNKNOWN = 3


class GapReason(IntEnum):
    """Why history is known to be missing."""

    COLLAPSED = 1
    UNOBSERVED = 2
    UNKNOWN = 3


class CloseReason(IntEnum):
    """Why a chain ends."""

    NEW_SEED = 1
    LOST_SEED = 2
    ENROLMENT = 3
    NEW_OWNER = 4
    REUSED_ID = 5
    FULL = 6
    LOSS = 7
    DECLARED = 8


class TaintKind(IntEnum):
    """What sticks to a chain until the owner's seal accepts it (SPEC 4.4)."""

    ALTERED = 1
    GAP = 2
    UNSIGNED_CLOSE = 3


class Taint(NamedTuple):
    """A defect of history: where (chain id, seq) and of which kind."""

    chain_id: bytes
    seq: int
    kind: TaintKind


class Reverted(NamedTuple):
    """Argument of `reverted`: the seq whose content came back."""

    target: int


class Expired(NamedTuple):
    """Argument of `expired`: the seqs whose bytes are gone, ascending."""

    reason: ExpiryReason
    seqs: tuple[int, ...]


class Predecessor(NamedTuple):
    """Argument of `adopted` in a chain that continues another one: the other chain's end."""

    chain_id: bytes
    seq: int
    head: bytes


class Gap(NamedTuple):
    """Argument of `gap`."""

    reason: GapReason


class Seal(NamedTuple):
    """Argument of `sealed`: what the owner's device signed (SPEC 5). `previous`: entry hash of the seal before."""

    seq: int
    head: bytes
    content: bytes
    checked_from: int
    tree_size: int
    tree_root: bytes
    previous: bytes
    accepts: tuple[tuple[bytes, int], ...]
    signature: bytes


class Erased(NamedTuple):
    """Argument of `erased`: which part of which entry has no opening any more."""

    seq: int
    part: Part


class Seen(NamedTuple):
    """The last step of a chain that its owner had seen, before the log declared it lost."""

    chain_id: bytes
    seq: int
    head: bytes


class Closed(NamedTuple):
    """Argument of `closed`: why, which taints live on, and the owner's signature or b"" where there is none.

    `seen` with DECLARED alone, which is always signed: the head that the owner gives up for the one that was left.
    """

    reason: CloseReason
    taints: tuple[Taint, ...]
    signature: bytes
    seen: Seen | None = None


Argument = Reverted | Expired | Predecessor | Gap | Seal | Erased | Closed


class Entry(NamedTuple):
    """A decoded entry. `content`, `path` and `context` are the commitments, 32 bytes each."""

    operation: Operation
    seq: int
    recorded: int
    mtime: int
    content: bytes
    path: bytes
    context: bytes
    argument: Argument | None = None


class Content(NamedTuple):
    """Opened content: size in bytes, SHA3-256 of the plain bytes, further digests as (algorithm, bytes)."""

    size: int
    sha3_256: bytes
    others: tuple[tuple[int, bytes], ...] = ()

    def same_bytes(self, other: Content) -> bool:
        return self.size == other.size and self.sha3_256 == other.sha3_256


class ContextField(IntEnum):
    """What the context part may say."""

    ACTOR = 1
    COPIED_FROM = 2
    VERSION = 3
    MIME = 4
    REMARK = 5


# -- entry bytes --------------------------------------------------------------------------------------------


def encode_entry(entry: Entry) -> bytes:
    """Entry to bytes (SPEC 3.1)."""
    head = _HEAD.pack(FORMAT, *entry[:7])
    return head if entry.argument is None else head + encode_argument(entry.argument)


def decode_entry(data: bytes) -> Entry:
    """Bytes to entry; every byte string that this accepts is exactly what `encode_entry` gives back."""
    if len(data) < _HEAD.size:
        raise Malformed(f"truncated, want at least {_HEAD.size} bytes", "entry", len(data))
    version, code, seq, recorded, mtime, content, path, context = _HEAD.unpack_from(data)
    if version != FORMAT:
        raise Malformed(f"unknown format, want {FORMAT}", "entry", version)
    operation = _OPERATIONS.get(code)
    if operation is None:
        raise Malformed("unknown operation", "entry", code)
    if seq >= MAX_ENTRIES:
        raise Malformed(f"seq must be below {MAX_ENTRIES}", "entry", seq)
    if (recorded | mtime) >> 63:
        raise Malformed("time above 2^63-1", "entry", max(recorded, mtime))
    argument: Argument | None = None
    decode = _ARGUMENTS.get(code)
    if decode is not None:
        reader = Reader(data, f"entry {seq} ({operation.word})")
        reader.pos = _HEAD.size
        argument = decode(reader)
        reader.end()
    elif len(data) != _HEAD.size:
        raise Malformed(f"{len(data) - _HEAD.size} bytes too many", f"entry {seq} ({operation.word})")
    return make(Entry, (operation, seq, recorded, mtime, content, path, context, argument))


def entry_hash(data: bytes) -> bytes:
    """d_i: the hash of an entry's bytes (SPEC 3.1)."""
    return sha3_256(_ENTRY_TAG + data).digest()


def encode_argument(argument: Argument) -> bytes:
    """The bytes after the fixed part of an entry (SPEC 3.2)."""
    match argument:
        case Reverted(target):
            return u64(target)
        case Expired(reason, seqs):
            return u8(reason) + u16(len(seqs)) + b"".join(map(u64, seqs))
        case Predecessor(chain_id, seq, head):
            return chain_id + u64(seq) + head
        case Gap(reason):
            return u8(reason)
        case Seal():
            return encode_seal_body(argument) + argument.signature
        case Erased(seq, part):
            return u64(seq) + u8(part)
        case Closed(reason, taints, signature, seen):
            listed = b"".join(taint.chain_id + u64(taint.seq) + u8(taint.kind) for taint in taints)
            named = seen.chain_id + u64(seen.seq) + seen.head if seen else b""
            return u8(reason) + u16(len(taints)) + listed + named + signature


def encode_seal_body(seal: Seal) -> bytes:
    """A seal without its signature: the part that travels and is signed (SPEC 5.1)."""
    return b"".join(
        (
            u64(seal.seq),
            seal.head,
            seal.content,
            u64(seal.checked_from),
            u64(seal.tree_size),
            seal.tree_root,
            seal.previous,
            u16(len(seal.accepts)),
            *(chain_id + u64(seq) for chain_id, seq in seal.accepts),
        )
    )


def _decode_reverted(r: Reader) -> Reverted:
    return Reverted(r.u64())


def _decode_expired(r: Reader) -> Expired:
    reason = _member(ExpiryReason, r.u8(), r.where)
    seqs = tuple(r.u64() for _ in range(_listed(r)))
    if not seqs:
        raise Malformed("no seq listed", r.where)
    return Expired(reason, _ascending(seqs, r.where))


def _decode_predecessor(r: Reader) -> Predecessor | None:
    if r.pos == len(r.data):
        return None
    return Predecessor(r.hash(), r.u64(), r.hash())


def _decode_gap(r: Reader) -> Gap:
    return Gap(_member(GapReason, r.u8(), r.where))


def decode_seal(data: bytes) -> Seal:
    """A seal with its signature, as it stands in an entry (SPEC 5.1)."""
    reader = Reader(data, "seal")
    seal = _decode_seal(reader)
    reader.end()
    return seal


def _decode_seal(r: Reader) -> Seal:
    seq, head, content, checked_from = r.u64(), r.hash(), r.hash(), r.u64()
    tree_size, tree_root, previous = r.u64(), r.hash(), r.hash()
    accepts = tuple((r.hash(), r.u64()) for _ in range(_listed(r)))
    _ascending(accepts, r.where)
    return Seal(seq, head, content, checked_from, tree_size, tree_root, previous, accepts, r.take(SIGNATURE_SIZE))


def _decode_erased(r: Reader) -> Erased:
    return Erased(r.u64(), _member(Part, r.u8(), r.where))


def _decode_closed(r: Reader) -> Closed:
    reason = _member(CloseReason, r.u8(), r.where)
    taints = tuple(Taint(r.hash(), r.u64(), _member(TaintKind, r.u8(), r.where)) for _ in range(_listed(r)))
    _ascending(taints, r.where)
    if reason is CloseReason.DECLARED:  # the owner's word alone, so it is always signed
        seen = Seen(r.hash(), r.u64(), r.hash())
        return Closed(reason, taints, r.take(SIGNATURE_SIZE), seen)
    signature = b"" if r.pos == len(r.data) else r.take(SIGNATURE_SIZE)
    return Closed(reason, taints, signature)


_OPERATIONS = {int(operation): operation for operation in Operation}
_CONTEXT_FIELDS = {int(field): field for field in ContextField}
_ARGUMENTS: dict[int, Callable[[Reader], Argument | None]] = {
    Operation.REVERTED: _decode_reverted,
    Operation.EXPIRED: _decode_expired,
    Operation.ADOPTED: _decode_predecessor,
    Operation.GAP: _decode_gap,
    Operation.SEALED: _decode_seal,
    Operation.ERASED: _decode_erased,
    Operation.CLOSED: _decode_closed,
}


def _listed(r: Reader) -> int:
    count = r.u16()
    if count > MAX_LISTED:
        raise Malformed(f"want at most {MAX_LISTED} listed", r.where, count)
    return count


def _member(kind: type[_E], code: int, where: str) -> _E:
    try:
        return kind(code)
    except ValueError:
        raise Malformed(f"unknown {kind.__name__}", where, code) from None


def _ascending(values: tuple[_T, ...], where: str) -> tuple[_T, ...]:
    if any(not a < b for a, b in zip(values, values[1:], strict=False)):
        raise Malformed("list not strictly ascending", where)
    return values


# -- parts ----------------------------------------------------------------------------------------------------


def commit(part: Part, opening: bytes) -> bytes:
    """The commitment that this opening (salt || data) opens (SPEC 3.3)."""
    return sha3_256(_PART_TAGS[part] + opening).digest()


def encode_content(content: Content | None) -> bytes:
    """Content data; None, for an operation that carries no content, is the empty string."""
    if content is None:
        return b""
    if not content.others and len(content.sha3_256) == HASH_SIZE and 0 <= content.size <= MAX_U64:
        return _PLAIN_CONTENT.pack(content.size, _PLAIN_FORM, content.sha3_256)
    digests = ((SHA3_256, content.sha3_256), *content.others)
    return u64(content.size) + u8(len(digests)) + b"".join(u8(a) + u8(len(d)) + d for a, d in digests)


def decode_content(data: bytes) -> Content | None:
    """Content data to value; the first digest is always SHA3-256, unknown algorithms are carried (SPEC 3.4)."""
    if not data:
        return None
    if len(data) == _PLAIN_CONTENT.size:
        size, form, digest = _PLAIN_CONTENT.unpack(data)
        if form == _PLAIN_FORM and size <= MAX_U64:
            return make(Content, (size, digest, ()))
    r = Reader(data, "content")
    size, count = r.u64(), r.u8()
    digests = [(r.u8(), r.take(r.u8())) for _ in range(count)]
    r.end()
    if not 1 <= count <= MAX_DIGESTS or digests[0][0] != SHA3_256 or len(digests[0][1]) != HASH_SIZE:
        raise Malformed("want SHA3-256 as the first digest", "content")
    _ascending(tuple(algorithm for algorithm, _ in digests), "content")
    return Content(size, digests[0][1], tuple(digests[1:]))


def encode_path(path: str | None) -> bytes:
    """Path data; None, for an operation that carries no path, is the empty string."""
    if path is None:
        return b""
    try:
        data = path.encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("not UTF-8", "path") from None
    decode_path(data)
    return data


def decode_path(data: bytes) -> str | None:
    """Path data to text: relative, `/` between names, no empty, `.` or `..` name, no zero byte (SPEC 3.5)."""
    if not data:
        return None
    if len(data) > MAX_PATH:
        raise Malformed(f"want at most {MAX_PATH} bytes", "path", len(data))
    try:
        path = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8", "path") from None
    if "\0" in path or not _NO_NAMES.isdisjoint(path.split("/")):
        raise Malformed("want a relative path without empty, . or .. names", "path", path)
    return path


def encode_context(fields: dict[ContextField, str]) -> bytes:
    """Context data (SPEC 3.6)."""
    data = b""
    for field in sorted(fields):
        value = fields[field].encode("utf-8")
        data += u8(field) + u16(len(value)) + value
    if len(data) > MAX_CONTEXT:
        raise Malformed(f"want at most {MAX_CONTEXT} bytes", "context", len(data))
    return data


def decode_context(data: bytes) -> dict[ContextField, str]:
    """Context data to fields; unknown numbers are refused."""
    if not data:
        return {}
    if len(data) > MAX_CONTEXT:
        raise Malformed(f"want at most {MAX_CONTEXT} bytes", "context", len(data))
    fields: dict[ContextField, str] = {}
    last = end = 0
    while end < len(data):
        number, start = data[end], end + 3
        field = _CONTEXT_FIELDS.get(number)
        if field is None:
            raise Malformed("unknown ContextField", "context", number)
        if number <= last:  # all that encoding again could find: sizes and strict UTF-8 have one spelling each
            raise Malformed("fields twice or out of order", "context")
        last, end = number, start + int.from_bytes(data[start - 2 : start], "big")
        if end > len(data):
            raise Malformed(f"truncated, want {end} bytes", "context", len(data))
        try:
            fields[field] = data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("not UTF-8", "context") from None
    return fields
