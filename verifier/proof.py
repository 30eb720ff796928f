"""The proof file: one JSON object that carries everything a verifier needs besides its own keys and policies.

SPEC 7. The bytes are canonical JSON (`verifier.canonical`): `format_proof(parse_proof(data)) == data`, so no two files
mean the same. 64-bit values are decimal strings, byte strings are base64, and a list of hashes is one base64 string.

    {"format":"nextcloud-audit/proof/1",
     "log":"example.org/files+6f0c…",            permanent name of the log
     "source":"folder:5d0…","file":"17","generation":"0","root":"…","chain":"…",
     "from":"0",                                 seq of the first entry shown; more than 0 in a short proof
     "entries":[["…","…","…","…"],…],            entry, then the openings of content, path, context; null = not shown
     "map":{"root":"…","seq":"4","head":"…","index":"31","siblings":"…"},
     "checkpoint":"example.org/files\\n40\\n…",     the signed note, verbatim
     "commitment":"…",                           inclusion of the map commitment, the last leaf of the tree
     "last":"…",                                 inclusion of the chain's last leaf, at map.index
     "current":{"index":"22","hashes":"…"},      inclusion of the leaf that set the current content; null = the last one
     "first":{"checkpoint":"…","hashes":"…"},    earliest checkpoint that covers the last leaf, and consistency
     "before":{"checkpoint":"…","hashes":"…"},   latest one that does not; both may be null
     "pinned":{"size":"12","hashes":"…"},        consistency from the tree that the client has seen; null = none asked
     "sealed":{"size":"24","hashes":"…"},        consistency from the newest seal's tree; null = no seal
     "earlier":[{"chain":"…","before":"…","step":[…],"index":"…","siblings":"…"},…],
     "replaced":[{"file":"3","generation":"0","before":"…","steps":[[…],…],"index":"…","siblings":"…","next":null},…],
     "loss":{"declared":[{"note":"…","key":"…","kept":"21","signature":"…"},…],"hashes":"…"}}    after a loss only

`earlier` shows the end of each generation before this one, the newest first: its chain id, the head before its
`closed`, that entry, and its place in the map. `replaced` shows, for a file id that the client knew under the same
path, all steps since that path was free, the head before them, their chain's place in the map, and after a `closed`
that the map has no next generation: {"other":"…","siblings":"…"}, the other leaf or null, and the siblings.

Not checked here: what any of it proves (`verifier.verify`).
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence

from verifier.canonical import encode_value, members, parse_object
from verifier.encoding import HASH_SIZE, decode_decimal
from verifier.entry import MAX_ENTRIES, MAX_ENTRY, MAX_OPENING, SIGNATURE_SIZE
from verifier.errors import Malformed
from verifier.keys import check_source_id, parse_log_name
from verifier.map import MAX_SIBLINGS
from verifier.merkle import MAX_PROOF_HASHES
from verifier.note import MAX_NOTE_SIZE
from verifier.record import NamedTuple, make

FORMAT = "nextcloud-audit/proof/1"
MAX_PROOF_SIZE = 16 * 1024 * 1024  # bytes; SPEC 1.5, like the next ones
MAX_EARLIER = 1_024  # generations
MAX_REPLACED = 64  # file ids that gave up one path
MAX_REPLACED_STEPS = 1_024  # since then
MAX_DECLARED = 16  # origins before this one


class Line(NamedTuple):
    """An entry's bytes and the openings of its content, path and context; None where one is not shown."""

    entry: bytes
    content: bytes | None
    path: bytes | None
    context: bytes | None


class InMap(NamedTuple):
    """What the map says of the chain: its last seq, head, and the index of its last leaf; siblings deepest first."""

    root: bytes
    seq: int
    head: bytes
    leaf_index: int
    siblings: list[bytes]


class Included(NamedTuple):
    """An inclusion proof for the leaf at `index`."""

    leaf_index: int
    hashes: list[bytes]


class Bracket(NamedTuple):
    """Another checkpoint of the same log, as signed, and its consistency with the newest one."""

    checkpoint: bytes
    hashes: list[bytes]


class Since(NamedTuple):
    """Consistency from a tree of `size`, whose root the verifier takes from elsewhere."""

    size: int
    hashes: list[bytes]


class Earlier(NamedTuple):
    """The end of an earlier generation: head before `closed`, that entry, index of its leaf, place in the map."""

    chain_id: bytes
    before: bytes
    step: Line
    leaf_index: int
    siblings: list[bytes]


class Absence(NamedTuple):
    """The map has no such key: another leaf (key || value hash) or nothing stands in its place."""

    other: bytes | None
    siblings: list[bytes]


class Replaced(NamedTuple):
    """Another file that gave up a path: its last steps, the head before them, its place in the map."""

    file_id: int
    generation: int
    before: bytes
    steps: list[Line]
    leaf_index: int
    siblings: list[bytes]
    next: Absence | None


class Declared(NamedTuple):
    """A declared loss (`verifier.loss`): the old origin's last note, the new one's first key, the old one's word.

    `kept`: the old leaves below this number were not lost.
    """

    note: bytes
    key: bytes
    kept: int
    signature: bytes


class Loss(NamedTuple):
    """All declared losses of the log, the newest first, and the inclusion of leaf 0."""

    declared: list[Declared]
    hashes: list[bytes]


class Proof(NamedTuple):
    """A parsed proof: well formed, and nothing more."""

    log: str
    source: str
    file_id: int
    generation: int
    root: bytes
    chain_id: bytes
    first_seq: int
    entries: list[Line]
    map: InMap
    checkpoint: bytes
    commitment: list[bytes]
    last: list[bytes]
    current: Included | None
    first: Bracket | None
    before: Bracket | None
    pinned: Since | None
    sealed: Since | None
    earlier: list[Earlier]
    replaced: list[Replaced]
    loss: Loss | None = None


_FORMAT = FORMAT.encode("ascii")
_NULL = b"null"
_MEMBERS = ("format", "log", "source", "file", "generation", "root", "chain", "from", *Proof._fields[7:-1])


# -- writing ------------------------------------------------------------------------------------------------


def format_proof(proof: Proof) -> bytes:
    """The one spelling of a proof."""
    p = proof
    return b"".join(
        (
            b'{"format":"%b","log":%b,"source":%b,' % (_FORMAT, _text(p.log), _text(p.source)),
            b'"file":"%d","generation":"%d","root":%b,' % (p.file_id, p.generation, _b64(p.root)),
            b'"chain":%b,"from":"%d","entries":[%b],'
            % (_b64(p.chain_id), p.first_seq, b",".join(map(_line, p.entries))),
            b'"map":{"root":%b,"seq":"%d","head":%b,' % (_b64(p.map.root), p.map.seq, _b64(p.map.head)),
            b'"index":"%d","siblings":%b},' % (p.map.leaf_index, _hashes(p.map.siblings)),
            b'"checkpoint":%b,"commitment":%b,' % (_note(p.checkpoint), _hashes(p.commitment)),
            b'"last":%b,"current":%b,' % (_hashes(p.last), _included(p.current)),
            b'"first":%b,"before":%b,' % (_bracket(p.first), _bracket(p.before)),
            b'"pinned":%b,"sealed":%b,' % (_since(p.pinned), _since(p.sealed)),
            b'"earlier":[%b],' % b",".join(map(_earlier, p.earlier)),
            b'"replaced":[%b]%b}\n' % (b",".join(map(_replaced, p.replaced)), _loss(p.loss)),
        )
    )


def _text(value: str) -> bytes:
    return encode_value(value).encode("utf-8")


def _note(note: bytes) -> bytes:
    return _text(note.decode("utf-8"))


def _b64(data: bytes) -> bytes:
    return b'"%b"' % b2a_base64(data, newline=False)


def _hashes(hashes: list[bytes]) -> bytes:
    return _b64(b"".join(hashes))


def _line(line: Line) -> bytes:
    entry, content, path, context = line
    if content is None or path is None or context is None:
        return b"[%b]" % b",".join([_NULL if part is None else _b64(part) for part in line])
    encoded = b2a_base64(entry, newline=False), b2a_base64(content, newline=False)
    return b'["%b","%b","%b","%b"]' % (*encoded, b2a_base64(path, newline=False), b2a_base64(context, newline=False))


def _included(value: Included | None) -> bytes:
    return _NULL if value is None else b'{"index":"%d","hashes":%b}' % (value.leaf_index, _hashes(value.hashes))


def _bracket(value: Bracket | None) -> bytes:
    if value is None:
        return _NULL
    return b'{"checkpoint":%b,"hashes":%b}' % (_note(value.checkpoint), _hashes(value.hashes))


def _since(value: Since | None) -> bytes:
    return _NULL if value is None else b'{"size":"%d","hashes":%b}' % (value.size, _hashes(value.hashes))


def _earlier(value: Earlier) -> bytes:
    named = _b64(value.chain_id), _b64(value.before), _line(value.step)
    in_map = value.leaf_index, _hashes(value.siblings)
    return b'{"chain":%b,"before":%b,"step":%b,"index":"%d","siblings":%b}' % (*named, *in_map)


def _replaced(value: Replaced) -> bytes:
    named = value.file_id, value.generation, _b64(value.before), b",".join(map(_line, value.steps))
    in_map = value.leaf_index, _hashes(value.siblings), _absence(value.next)
    return b'{"file":"%d","generation":"%d","before":%b,"steps":[%b],"index":"%d","siblings":%b,"next":%b}' % (
        *named,
        *in_map,
    )


def _loss(value: Loss | None) -> bytes:
    """The last member, which only proofs of a log with a declared loss have."""
    if value is None:
        return b""
    return b',"loss":{"declared":%b,"hashes":%b}' % (format_declared(value.declared), _hashes(value.hashes))


def format_declared(declared: Sequence[Declared]) -> bytes:
    """Declarations as a JSON list."""
    listed = [
        b'{"note":%b,"key":%b,"kept":"%d","signature":%b}'
        % (_note(one.note), _b64(one.key), one.kept, _b64(one.signature))
        for one in declared
    ]
    return b"[%b]" % b",".join(listed)


def _absence(value: Absence | None) -> bytes:
    if value is None:
        return _NULL
    other = _NULL if value.other is None else _b64(value.other)
    return b'{"other":%b,"siblings":%b}' % (other, _hashes(value.siblings))


# -- reading ------------------------------------------------------------------------------------------------


def parse_proof(data: bytes) -> Proof:
    """A proof file to its value. Refuses everything that `format_proof` would not write (SPEC 7.1)."""
    if len(data) > MAX_PROOF_SIZE:
        raise Malformed(f"want at most {MAX_PROOF_SIZE} bytes", "proof", len(data))
    proof = _proof(parse_object(data, "proof"))
    if format_proof(proof) != data:
        raise Malformed("not the canonical spelling (SPEC 7.1): was the file edited or re-formatted?", "proof")
    return proof


def _proof(value: object) -> Proof:
    if type(value) is dict and value.get("format") != FORMAT:
        raise Malformed(f"want {FORMAT}", "format", value.get("format"))
    loss = type(value) is dict and "loss" in value
    fields = members(value, "proof", *_MEMBERS, *(("loss",) if loss else ()))
    _, log, source, file_id, generation, root, chain, first_seq, entries, in_map, checkpoint = fields[:11]
    commitment, last, current, first, before, pinned, sealed, earlier, replaced = fields[11:20]
    return Proof(
        _log_name(log),
        check_source_id(source, "source"),
        decode_decimal(file_id, "file"),
        decode_decimal(generation, "generation"),
        _bytes(root, "root", HASH_SIZE, HASH_SIZE),
        _bytes(chain, "chain", HASH_SIZE, HASH_SIZE),
        decode_decimal(first_seq, "from", MAX_ENTRIES - 1),
        [_parse_line(line, "entries") for line in _list(entries, "entries", MAX_ENTRIES)],
        _parse_in_map(in_map),
        _parse_note(checkpoint, "checkpoint"),
        _path(commitment, "commitment"),
        _path(last, "last"),
        _parse_included(current),
        _parse_bracket(first, "first"),
        _parse_bracket(before, "before"),
        _parse_since(pinned, "pinned"),
        _parse_since(sealed, "sealed"),
        [_parse_earlier(item) for item in _list(earlier, "earlier", MAX_EARLIER)],
        [_parse_replaced(item) for item in _list(replaced, "replaced", MAX_REPLACED)],
        _parse_loss(fields[20]) if loss else None,
    )


def _log_name(value: object) -> str:
    parse_log_name(value, "log")
    return str(value)


def _parse_line(value: object, where: str) -> Line:
    if type(value) is not list or len(value) != 4:
        raise Malformed("want [entry, content, path, context]", where, value)
    entry, content, path, context = value
    parts = (
        _bytes(entry, where, 0, MAX_ENTRY),
        None if content is None else _bytes(content, where, 0, MAX_OPENING),
        None if path is None else _bytes(path, where, 0, MAX_OPENING),
        None if context is None else _bytes(context, where, 0, MAX_OPENING),
    )
    return make(Line, parts)


def _parse_in_map(value: object) -> InMap:
    root, seq, head, index, siblings = members(value, "map", "root", "seq", "head", "index", "siblings")
    return InMap(
        _bytes(root, "map.root", HASH_SIZE, HASH_SIZE),
        decode_decimal(seq, "map.seq", MAX_ENTRIES - 1),
        _bytes(head, "map.head", HASH_SIZE, HASH_SIZE),
        decode_decimal(index, "map.index"),
        _path(siblings, "map.siblings", MAX_SIBLINGS),
    )


def _parse_note(value: object, where: str) -> bytes:
    if type(value) is not str:
        raise Malformed("want a signed note", where, value)
    try:
        note = value.encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("not UTF-8", where) from None
    if len(note) > MAX_NOTE_SIZE:
        raise Malformed(f"want at most {MAX_NOTE_SIZE} bytes", where, len(note))
    return note


def _parse_included(value: object) -> Included | None:
    if value is None:
        return None
    index, hashes = members(value, "current", "index", "hashes")
    return Included(decode_decimal(index, "current.index"), _path(hashes, "current.hashes"))


def _parse_bracket(value: object, where: str) -> Bracket | None:
    if value is None:
        return None
    checkpoint, hashes = members(value, where, "checkpoint", "hashes")
    return Bracket(_parse_note(checkpoint, where), _path(hashes, f"{where}.hashes"))


def _parse_since(value: object, where: str) -> Since | None:
    if value is None:
        return None
    size, hashes = members(value, where, "size", "hashes")
    return Since(decode_decimal(size, f"{where}.size"), _path(hashes, f"{where}.hashes"))


def _parse_earlier(value: object) -> Earlier:
    chain, before, step, index, siblings = members(value, "earlier", "chain", "before", "step", "index", "siblings")
    return Earlier(
        _bytes(chain, "earlier.chain", HASH_SIZE, HASH_SIZE),
        _bytes(before, "earlier.before", HASH_SIZE, HASH_SIZE),
        _parse_line(step, "earlier.step"),
        decode_decimal(index, "earlier.index"),
        _path(siblings, "earlier.siblings", MAX_SIBLINGS),
    )


def _parse_replaced(value: object) -> Replaced:
    names = ("file", "generation", "before", "steps", "index", "siblings", "next")
    file_id, generation, before, steps, index, siblings, absence = members(value, "replaced", *names)
    return Replaced(
        decode_decimal(file_id, "replaced.file"),
        decode_decimal(generation, "replaced.generation"),
        _bytes(before, "replaced.before", HASH_SIZE, HASH_SIZE),
        [_parse_line(step, "replaced.steps") for step in _list(steps, "replaced.steps", MAX_REPLACED_STEPS)],
        decode_decimal(index, "replaced.index"),
        _path(siblings, "replaced.siblings", MAX_SIBLINGS),
        _parse_absence(absence),
    )


def _parse_absence(value: object) -> Absence | None:
    if value is None:
        return None
    other, siblings = members(value, "replaced.next", "other", "siblings")
    leaf = None if other is None else _bytes(other, "replaced.next.other", 2 * HASH_SIZE, 2 * HASH_SIZE)
    return Absence(leaf, _path(siblings, "replaced.next.siblings", MAX_SIBLINGS))


def _parse_loss(value: object) -> Loss:
    declared, hashes = members(value, "loss", "declared", "hashes")
    return Loss(parse_declared(declared), _path(hashes, "loss.hashes"))


def parse_declared(value: object) -> list[Declared]:
    """A JSON list to declarations; at least one."""
    found = []
    for item in _list(value, "loss.declared", MAX_DECLARED):
        note, key, kept, signature = members(item, "loss.declared", "note", "key", "kept", "signature")
        found.append(
            Declared(
                _parse_note(note, "loss.note"),
                _bytes(key, "loss.key", HASH_SIZE, HASH_SIZE),
                decode_decimal(kept, "loss.kept"),
                _bytes(signature, "loss.signature", SIGNATURE_SIZE, SIGNATURE_SIZE),
            )
        )
    if not found:
        raise Malformed("want at least one", "loss.declared")
    return found


def _list(value: object, where: str, limit: int) -> list[object]:
    if type(value) is not list or len(value) > limit:
        raise Malformed(f"want a list of at most {limit}", where)
    return value


def _path(value: object, where: str, limit: int = MAX_PROOF_HASHES) -> list[bytes]:
    data = _bytes(value, where, 0, limit * HASH_SIZE)
    if len(data) % HASH_SIZE:
        raise Malformed("want a multiple of 32 bytes", where, len(data))
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def _bytes(value: object, where: str, least: int, most: int) -> bytes:
    """Base64 to bytes. That it is the canonical spelling shows when the whole proof is formatted again."""
    if type(value) is not str:
        raise Malformed("want a base64 string", where, value)
    try:
        data = a2b_base64(value, strict_mode=True)
    except (Base64Error, ValueError):
        raise Malformed("not base64", where, value) from None
    if not least <= len(data) <= most:
        raise Malformed(f"want {least} to {most} bytes", where, len(data))
    return data
