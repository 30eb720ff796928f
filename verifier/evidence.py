"""Evidence against a log: signed statements that cannot all be true, in one file that a third person can check.

SPEC 9.1. Whoever has the log's public key, and for a rollback the cosigner's, needs nothing else:

    {"format":"nextcloud-audit/evidence/1","kind":"two-roots","seen":"1800000000","notes":["…","…"]}

    kind            members after `seen`              what is shown
    two-roots       notes                             the log signed one size with two roots
    other-prefix    notes, root, hashes               the bigger tree grew out of another one than the smaller
    rolled-back     notes                             one cosigner signed the smaller tree at the later time
    two-histories   proofs                            two whole proofs of one chain that differ at a step they share
    two-successors  declared                          the log declared a loss twice, for two origins (SPEC 6.5)
    changed-leaf    declared, notes, index,           a leaf that a declared loss is said to have left is another one
                    leaves, paths                     under the new origin: both with their inclusion
    broken-replay   note, size, peaks, leaves,        leaves under a signed root break a rule of SPEC 6: the first
                    hashes, chains                    `size` leaves as subtrees, then leaf by leaf (`verifier.replay`)

`seen` is when the writer's clock says it was put together; it proves nothing. The bytes are canonical JSON (SPEC 7.1).
What a file proves is `verifier.conviction`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from verifier.canonical import format_object, members, parse_object
from verifier.checkpoint import MAX_ORIGIN_SIZE, parse_checkpoint_unverified
from verifier.encoding import (
    HASH_SIZE,
    check_text,
    decode_base64,
    decode_decimal,
    decode_hashes,
    encode_base64,
    encode_hashes,
)
from verifier.entry import MAX_ENTRIES, SIGNATURE_SIZE
from verifier.errors import Malformed
from verifier.map import EMPTY, MAX_SIBLINGS, Place, map_value
from verifier.merkle import MAX_PROOF_HASHES
from verifier.note import MAX_NOTE_SIZE, parse_note
from verifier.proof import MAX_PROOF_SIZE, Declared, Proof, format_proof, parse_proof
from verifier.record import NamedTuple
from verifier.replay import Known, Tip

EVIDENCE_FORMAT = "nextcloud-audit/evidence/1"
MAX_EVIDENCE_SIZE = 16 * 1024 * 1024
MAX_HISTORIES_SIZE = 5 * MAX_PROOF_SIZE  # two-histories: two whole proofs, escaped once more
MAX_LEAVES = 262_144  # of a broken replay
MAX_LEAF_SIZE = 65_535  # tlog-tiles: what an entry bundle can hold

TWO_ROOTS = "two-roots"
OTHER_PREFIX = "other-prefix"
ROLLED_BACK = "rolled-back"
TWO_HISTORIES = "two-histories"
TWO_SUCCESSORS = "two-successors"
CHANGED_LEAF = "changed-leaf"
BROKEN_REPLAY = "broken-replay"

_MEMBERS = {
    TWO_ROOTS: ("notes",),
    OTHER_PREFIX: ("notes", "root", "hashes"),
    ROLLED_BACK: ("notes",),
    TWO_HISTORIES: ("proofs",),
    TWO_SUCCESSORS: ("declared",),
    CHANGED_LEAF: ("declared", "notes", "index", "leaves", "paths"),
    BROKEN_REPLAY: ("note", "size", "peaks", "leaves", "hashes", "chains"),
}
_DECLARED = {TWO_SUCCESSORS: 2, CHANGED_LEAF: 1}
# Two histories and nothing else, without reading them: a big file of anything else would cost its size many times over.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_HISTORIES = re.compile(
    rb'\{"format":"%b","kind":"%b","seen":"\d{1,19}","proofs":\[%b,%b\]\}\n'
    % (re.escape(EVIDENCE_FORMAT.encode()), TWO_HISTORIES.encode(), _STRING, _STRING),
    re.DOTALL,
)
_CHANGED = 3  # what a changed-leaf shows: leaf 0 of the old origin, its leaf in question, and what stands in its place


class Evidence(NamedTuple):
    """A parsed evidence file: well formed, and nothing more. What its kind has no member for is empty."""

    kind: str
    seen: int
    notes: tuple[bytes, ...]
    proofs: tuple[Proof, ...]
    root: bytes
    hashes: list[bytes]
    size: int
    peaks: list[bytes]
    leaves: list[bytes]
    chains: list[Known]
    declared: list[tuple[str, Declared]]
    leaf_index: int
    paths: list[list[bytes]]


# -- writing --------------------------------------------------------------------------------------------------


def note_evidence(kind: str, seen: int, *notes: bytes) -> dict[str, object]:
    """Evidence made of signed notes, verbatim."""
    return _evidence(kind, seen, notes=[note.decode("utf-8") for note in notes])


def history_evidence(seen: int, *proofs: Proof) -> dict[str, object]:
    """Evidence made of whole proofs."""
    return _evidence(TWO_HISTORIES, seen, proofs=[format_proof(proof).decode("utf-8") for proof in proofs])


def successor_evidence(seen: int, *declared: tuple[str, Declared]) -> dict[str, object]:
    """Evidence made of two declarations, each with the new origin that it names."""
    return _evidence(TWO_SUCCESSORS, seen, declared=[_declared_data(*one) for one in declared])


def leaf_evidence(
    seen: int,
    declared: tuple[str, Declared],
    notes: Sequence[bytes],
    index: int,
    leaves: Sequence[bytes],
    paths: Sequence[Sequence[bytes]],
) -> dict[str, object]:
    """Leaf 0 of the old origin, its leaf `index`, and what stands in that one's place: `leaves`, each with its path."""
    return _evidence(
        CHANGED_LEAF,
        seen,
        declared=[_declared_data(*declared)],
        notes=[note.decode("utf-8") for note in notes],
        index=str(index),
        leaves=[encode_base64(leaf) for leaf in leaves],
        paths=[encode_hashes(list(path)) for path in paths],
    )


def _declared_data(origin: str, one: Declared) -> dict[str, object]:
    return {
        "origin": origin,
        "note": one.note.decode("utf-8"),
        "key": encode_base64(one.key),
        "kept": str(one.kept),
        "signature": encode_base64(one.signature),
    }


def prefix_evidence(seen: int, notes: Sequence[bytes], root: bytes, hashes: list[bytes]) -> dict[str, object]:
    """The bigger of two signed trees grew out of `root`, which is not the smaller one."""
    texts = [note.decode("utf-8") for note in notes]
    return _evidence(OTHER_PREFIX, seen, notes=texts, root=encode_base64(root), hashes=encode_hashes(hashes))


def replay_evidence(
    seen: int,
    note: bytes,
    size: int,
    peaks: Sequence[bytes],
    leaves: Sequence[bytes],
    hashes: Sequence[bytes],
    chains: Sequence[Known],
) -> dict[str, object]:
    """Leaves number `size` and on, of which the last one breaks a rule."""
    return _evidence(
        BROKEN_REPLAY,
        seen,
        note=note.decode("utf-8"),
        size=str(size),
        peaks=encode_hashes(list(peaks)),
        leaves=[encode_base64(leaf) for leaf in leaves],
        hashes=encode_hashes(list(hashes)),
        chains=[_chain_data(known) for known in sorted(chains, key=lambda known: known.place.key)],
    )


def _evidence(kind: str, seen: int, **rest: object) -> dict[str, object]:
    return {"format": EVIDENCE_FORMAT, "kind": kind, "seen": str(seen), **rest}


def _chain_data(known: Known) -> dict[str, object]:
    place, tip = known
    return {
        "chain": encode_base64(place.key),
        "held": None if tip is None else {"seq": str(tip[0]), "head": encode_base64(tip[1]), "index": str(tip[2])},
        "other": None if place.terminal is None else encode_base64(b"".join(place.terminal)),
        "siblings": encode_hashes(list(place.siblings)),
    }


def format_evidence(value: dict[str, object]) -> bytes:
    """The one spelling of an evidence file, which is within its bound."""
    data = format_object(value, "evidence")
    if len(data) > _limit(value):
        raise Malformed(f"want at most {_limit(value)} bytes", "evidence", len(data))
    return data


def _limit(value: dict[str, object]) -> int:
    return MAX_HISTORIES_SIZE if value.get("kind") == TWO_HISTORIES else MAX_EVIDENCE_SIZE


# -- reading --------------------------------------------------------------------------------------------------


def parse_evidence(data: bytes) -> Evidence:
    """An evidence file to its value. Refuses every spelling but that of `format_evidence`."""
    if len(data) > MAX_HISTORIES_SIZE:
        raise Malformed(f"want at most {MAX_HISTORIES_SIZE} bytes", "evidence", len(data))
    if len(data) > MAX_EVIDENCE_SIZE and _HISTORIES.fullmatch(data) is None:
        raise Malformed(
            f"want at most {MAX_EVIDENCE_SIZE} bytes where it is not {TWO_HISTORIES}", "evidence", len(data)
        )
    value = parse_object(data, "evidence")
    if value.get("format") != EVIDENCE_FORMAT:
        raise Malformed(f"want {EVIDENCE_FORMAT}", "evidence format", value.get("format"))
    kind = value.get("kind")
    if type(kind) is not str or kind not in _MEMBERS:
        raise Malformed(f"want one of {', '.join(_MEMBERS)}", "evidence kind", kind)
    _, _, seen, *_ = members(value, "evidence", "format", "kind", "seen", *_MEMBERS[kind])
    try:
        canonical = format_evidence(value) == data
    except UnicodeEncodeError:
        raise Malformed("lone surrogate", "evidence") from None
    if not canonical:
        raise Malformed("not the canonical spelling (SPEC 7.1): was the file edited or re-formatted?", "evidence")
    get = value.get
    notes = [get("note")] if kind == BROKEN_REPLAY else _texts(get("notes"), "notes") if "notes" in value else []
    texts = _texts(get("proofs"), "proofs") if "proofs" in value else []
    return Evidence(
        kind,
        decode_decimal(seen, "seen"),
        tuple([_note(note, extensions=kind != BROKEN_REPLAY) for note in notes]),
        tuple([_proof(text) for text in texts]),
        decode_base64(get("root"), "root", HASH_SIZE) if "root" in value else b"",
        decode_hashes(get("hashes", ""), "hashes", MAX_PROOF_HASHES),
        decode_decimal(get("size", "0"), "size"),
        decode_hashes(get("peaks", ""), "peaks", MAX_PROOF_HASHES),
        [decode_base64(leaf, "leaves", limit=MAX_LEAF_SIZE) for leaf in _leaves(value)],
        _chains(_list(get("chains", []), "chains")),
        _declared(get("declared"), _DECLARED[kind]) if "declared" in value else [],
        decode_decimal(get("index", "0"), "index"),
        [decode_hashes(path, "paths", MAX_PROOF_HASHES) for path in _exactly(get("paths"), _CHANGED, "paths")]
        if "paths" in value
        else [],
    )


def _leaves(value: dict[str, object]) -> list[object]:
    leaves = value.get("leaves", [])
    return _exactly(leaves, _CHANGED, "leaves") if value["kind"] == CHANGED_LEAF else _list(leaves, "leaves")


def _exactly(value: object, number: int, where: str) -> list[object]:
    if type(value) is not list or len(value) != number:
        raise Malformed(f"want a list of {number}", where)
    return value


def _declared(value: object, number: int) -> list[tuple[str, Declared]]:
    found = []
    for item in _exactly(value, number, "declared"):
        origin, note, key, kept, signature = members(item, "declared", "origin", "note", "key", "kept", "signature")
        one = Declared(
            _note(note, extensions=False),
            decode_base64(key, "declared.key", HASH_SIZE),
            decode_decimal(kept, "declared.kept"),
            decode_base64(signature, "declared.signature", SIGNATURE_SIZE),
        )
        found.append((check_text(origin, "declared.origin", MAX_ORIGIN_SIZE), one))
    return found


def _texts(value: object, where: str) -> list[str]:
    if type(value) is not list or len(value) != 2 or not all(type(text) is str for text in value):
        raise Malformed("want two texts", where)
    return value


def _note(value: object, extensions: bool) -> bytes:
    if type(value) is not str or len(note := value.encode("utf-8")) > MAX_NOTE_SIZE:
        raise Malformed(f"want a signed note of at most {MAX_NOTE_SIZE} bytes", "note")
    parse_checkpoint_unverified(parse_note(note).text, extensions)
    return note


def _proof(text: str) -> Proof:
    proof = parse_proof(text.encode("utf-8"))
    _note(proof.checkpoint.decode("utf-8"), extensions=False)
    return proof


def _list(value: object, where: str) -> list[object]:
    if type(value) is not list or len(value) > MAX_LEAVES:
        raise Malformed(f"want a list of at most {MAX_LEAVES}", where)
    return value


def _chains(values: list[object]) -> list[Known]:
    chains = [_chain(value) for value in values]
    keys = [known.place.key for known in chains]
    if any(one >= other for one, other in zip(keys, keys[1:], strict=False)):
        raise Malformed("want chain ids in ascending order, each once", "chains")
    return chains


def _chain(value: object) -> Known:
    chain_id, held, other, siblings = members(value, "chains", "chain", "held", "other", "siblings")
    if held is not None and other is not None:
        raise Malformed("want held or other, not both", "chains")
    tip = None if held is None else _tip(held)
    leaf = None if other is None else decode_base64(other, "chains.other", 2 * HASH_SIZE)
    hashes = decode_hashes(siblings, "chains.siblings", MAX_SIBLINGS)
    if hashes and hashes[0] == EMPTY:
        raise Malformed("want no empty deepest sibling", "chains.siblings")
    place = Place(
        decode_base64(chain_id, "chains.chain", HASH_SIZE),
        None if tip is None else map_value(*tip),
        None if leaf is None else (leaf[:HASH_SIZE], leaf[HASH_SIZE:]),
        hashes,
    )
    return Known(place, tip)


def _tip(value: object) -> Tip:
    seq, head, index = members(value, "chains.held", "seq", "head", "index")
    return (
        decode_decimal(seq, "chains.held.seq", MAX_ENTRIES - 1),
        decode_base64(head, "chains.held.head", HASH_SIZE),
        decode_decimal(index, "chains.held.index"),
    )
