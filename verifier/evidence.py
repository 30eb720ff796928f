"""Evidence against a log: signed statements that cannot all be true, in one file that a third person can check.

SPEC 9.1. Whoever has the log's public key, and for a rollback the cosigner's, needs nothing else:

    {"format":"nextcloud-audit/evidence/1-draft","kind":"two-roots","seen":"1800000000","notes":["…","…"]}

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

An honest log can never be convicted: all that is compared is under its own signature, or that of a key which it has
handed on to, or leads there by hashes. Not checked here: whose key this is, and which of two forked histories is the
true one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from verifier.chain import Binding, genesis, link
from verifier.checkpoint import MAX_ORIGIN_SIZE, Checkpoint, open_checkpoint, parse_checkpoint_unverified
from verifier.encoding import (
    HASH_SIZE,
    check_text,
    decode_base64,
    decode_decimal,
    decode_hashes,
    encode_base64,
    encode_hashes,
)
from verifier.entry import MAX_ENTRIES, SIGNATURE_SIZE, entry_hash
from verifier.errors import Malformed, NotProven, RootMismatch
from verifier.leaf import ENTRY, ENTRY_SIZE, MAP, MapLeaf, encode_leaf
from verifier.map import EMPTY, MAX_SIBLINGS, Place, map_value, verify_place, verify_presence
from verifier.merkle import MAX_PROOF_HASHES, append_leaf, fold_right, leaf_hash, verify_consistency, verify_inclusion
from verifier.note import MAX_NOTE_SIZE, SIGNATURE, Note, VerifierKey, make_key, parse_note, verify_cosignatures
from verifier.proof import MAX_PROOF_SIZE, Declared, Proof, format_proof, members, parse_object, parse_proof
from verifier.record import NamedTuple
from verifier.replay import CHAIN_BROKEN, Known, Tip, find_broken

EVIDENCE_FORMAT = "nextcloud-audit/evidence/1-draft"
MAX_EVIDENCE_SIZE = 16 * 1024 * 1024
MAX_HISTORIES_SIZE = 5 * MAX_PROOF_SIZE  # two-histories: two whole proofs, escaped once more
MAX_LEAVES = 262_144  # of a broken replay; 16 MiB hold fewer
MAX_LEAF_SIZE = 65_535  # tlog-tiles: what an entry bundle can hold

TWO_ROOTS = "two-roots"
OTHER_PREFIX = "other-prefix"
ROLLED_BACK = "rolled-back"
TWO_HISTORIES = "two-histories"
TWO_SUCCESSORS = "two-successors"
CHANGED_LEAF = "changed-leaf"
BROKEN_REPLAY = "broken-replay"
FORK, ROLLBACK = "fork", "rollback"  # what a proof convicts of, besides `replay.CHAIN_BROKEN` and `MAP_WRONG`

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
_CHANGED = 3  # what a changed-leaf shows: leaf 0 of the old origin, its leaf in question, and what stands in its place
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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


class Proven(NamedTuple):
    """What an evidence file shows: of which log, what it convicts of, and how, in a sentence."""

    origin: str
    fault: str
    statement: str


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
    data = (_encode(value) + "\n").encode("utf-8")
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


# -- judging --------------------------------------------------------------------------------------------------


def verify_evidence(
    evidence: Evidence, log_keys: Sequence[VerifierKey], cosigners: Sequence[VerifierKey] = ()
) -> Proven:
    """What the evidence proves; NotProven where all that it shows can be true at once (`no-contradiction`)."""
    if evidence.kind == TWO_ROOTS:
        return _two_roots(evidence, log_keys)
    if evidence.kind == OTHER_PREFIX:
        return _other_prefix(evidence, log_keys)
    if evidence.kind == ROLLED_BACK:
        return _rolled_back(evidence, log_keys, cosigners)
    if evidence.kind == TWO_HISTORIES:
        return _two_histories(evidence, log_keys)
    if evidence.kind == TWO_SUCCESSORS:
        return _two_successors(evidence, log_keys)
    if evidence.kind == CHANGED_LEAF:
        return _changed_leaf(evidence, log_keys)
    return _broken_replay(evidence, log_keys)


def nothing_proven(message: str) -> NotProven:
    return NotProven("no-contradiction", message)


def _open_two(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> list[tuple[Note, Checkpoint]]:
    """Both notes, the smaller tree first. Foreign logs may have extension lines."""
    opened = [open_checkpoint(note, *log_keys, extensions=True) for note in evidence.notes]
    if opened[0][1].origin != opened[1][1].origin:
        raise nothing_proven("the notes are of two logs")
    return sorted(opened, key=lambda pair: pair[1].size)


def _two_roots(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    (_, one), (_, other) = _open_two(evidence, log_keys)
    if one.size != other.size:
        raise nothing_proven(f"the trees have sizes {one.size} and {other.size}: one may continue the other")
    if one.root == other.root:
        raise nothing_proven("both notes state the same tree")
    return Proven(one.origin, FORK, f"the log signed two different trees of size {one.size}")


def _other_prefix(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    (_, small), (_, big) = _open_two(evidence, log_keys)
    if not 0 < small.size < big.size:
        raise nothing_proven(f"want two sizes, got {small.size} and {big.size}")
    if evidence.root == small.root:
        raise nothing_proven(f"the tree of size {big.size} grew out of the signed one of size {small.size}")
    verify_consistency(small.size, evidence.root, big.size, big.root, evidence.hashes)
    message = f"the log signed a tree of size {big.size} whose first {small.size} leaves are not those that it signed"
    return Proven(small.origin, FORK, message)


def _rolled_back(evidence: Evidence, log_keys: Sequence[VerifierKey], cosigners: Sequence[VerifierKey]) -> Proven:
    (small_note, small), (big_note, big) = _open_two(evidence, log_keys)
    if small.size == big.size:
        raise nothing_proven("both trees have the same size")
    known = {key: key for key in cosigners}
    later, earlier = (verify_cosignatures(note, known) for note in (small_note, big_note))
    both = [key for key in later if key in earlier]
    if not both:
        raise NotProven("unwitnessed", "no cosigner whose key is given has signed both trees")
    for key in both:
        if later[key] > earlier[key]:
            message = f"{key.name} signed size {small.size} as the newest tree after it had signed size {big.size}"
            return Proven(small.origin, ROLLBACK, message)
    raise nothing_proven("whoever signed both trees signed the smaller one first, or at the same time")


def _two_histories(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    one, other = evidence.proofs
    if (one.log, one.chain_id) != (other.log, other.chain_id):
        raise nothing_proven("the proofs are of two chains")
    origins = {open_checkpoint(proof.checkpoint, *log_keys)[1].origin for proof in (one, other)}
    if len(origins) != 1:  # [R] after a declared loss a chain may go on otherwise (SPEC 6.5), and that is said
        raise nothing_proven("the proofs are of two origins")
    heads = [_proven_heads(proof, log_keys) for proof in (one, other)]
    for seq, (left, right) in enumerate(zip(*heads, strict=False)):
        if left != right:
            return Proven(origins.pop(), FORK, f"two signed histories of one chain differ at step {seq}")
    raise nothing_proven("both histories agree in every step that they share")


def _two_successors(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    from verifier.loss import open_declared

    (one, first), (other, second) = evidence.declared
    trees = [open_declared(declared, origin, log_keys)[1] for origin, declared in evidence.declared]
    if trees[0].origin != trees[1].origin:
        raise nothing_proven("the notes are of two logs")
    if (one, first.key) == (other, second.key):
        raise nothing_proven("both declare the same origin with the same key")
    return Proven(trees[0].origin, FORK, f"the log said that it goes on as {one!r}, and as {other!r} with another key")


def _changed_leaf(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    """[R] A leaf at or above `kept` may have been lost; below it, only a map commitment may be another one."""
    from verifier.loss import open_declared, shift_after

    ((origin, declared),) = evidence.declared
    _, lost = open_declared(declared, origin, log_keys)
    _, old = open_checkpoint(evidence.notes[0], *log_keys, extensions=True)
    try:
        new_key = make_key(origin, SIGNATURE, declared.key, "declared.key")
    except Malformed as error:
        raise NotProven("loss-note", str(error)) from None
    _, new = open_checkpoint(evidence.notes[1], new_key, extensions=True)
    if old.origin != lost.origin:
        raise nothing_proven("the notes are of two logs")
    index, (first, was, now) = evidence.leaf_index, evidence.leaves
    place = index + shift_after(first)
    shown = ((0, old, first), (index, old, was), (place, new, now))
    for (number, tree, leaf), path in zip(shown, evidence.paths, strict=True):
        verify_inclusion(number, tree.size, leaf_hash(leaf), path, tree.root)
    if place == 0 or index >= declared.kept:
        raise nothing_proven(f"leaf {index} is none of those that the log said it has kept")
    if was == now or was[:1] == now[:1] == bytes([MAP]):
        raise nothing_proven(f"leaf {place} of {origin!r} is the one that has to stand there")
    why = f"the log said that {origin!r} has its first {declared.kept} leaves; leaf {index} is another one there"
    return Proven(old.origin, CHAIN_BROKEN, why)


def _proven_heads(proof: Proof, log_keys: Sequence[VerifierKey]) -> list[bytes]:
    """The chain's head after each entry, once the last one is what the signed tree commits to."""
    _, tree = open_checkpoint(proof.checkpoint, *log_keys)
    if tree.size == 0 or proof.first_seq or len(proof.entries) != proof.map.seq + 1:
        raise NotProven("incomplete", "want whole proofs of a tree that is not empty")
    commitment = leaf_hash(encode_leaf(MapLeaf(proof.map.root)))
    verify_inclusion(tree.size - 1, tree.size, commitment, proof.commitment, tree.root)
    value = map_value(proof.map.seq, proof.map.head, proof.map.leaf_index)
    verify_presence(proof.chain_id, value, proof.map.siblings, proof.map.root)
    heads, head = [], genesis(Binding(proof.log, proof.source, proof.root, proof.file_id, proof.chain_id, None))
    for seq, line in enumerate(proof.entries):
        head = link(head, proof.chain_id, seq, entry_hash(line.entry))
        heads.append(head)
    if head != proof.map.head:
        raise RootMismatch("entries", proof.map.head, head)
    return heads


def _broken_replay(evidence: Evidence, log_keys: Sequence[VerifierKey]) -> Proven:
    _, tree = open_checkpoint(evidence.notes[0], *log_keys)
    peaks, end = evidence.peaks, evidence.size + len(evidence.leaves)
    if not evidence.size < end <= tree.size:
        raise Malformed(f"want one or more, within the signed size {tree.size}", "leaves", len(evidence.leaves))
    for number, leaf in enumerate(evidence.leaves, evidence.size):
        peaks = append_leaf(peaks, number, leaf_hash(leaf))
    verify_consistency(end, fold_right(peaks), tree.size, tree.root, evidence.hashes)
    _check_places(evidence)
    broken = find_broken(evidence.size, evidence.leaves, tree.size, evidence.chains)
    if broken is None:
        raise nothing_proven("every leaf that is shown follows its chain, and every map that can be judged is right")
    if broken.index != end - 1:
        raise Malformed(f"want leaf {broken.index} as the last one, it breaks a rule already", "leaves", end - 1)
    return Proven(tree.origin, broken.fault, f"leaf {broken.index} under a signed root: {broken.why}")


def _check_places(evidence: Evidence) -> None:
    """One commitment to start from, one at the end at most; each chain in between, at its place in that map."""
    first, *later = evidence.leaves
    if any(leaf[:1] == b"\x02" for leaf in later[:-1]):
        raise Malformed("want no map commitment but the first leaf and the last one", "leaves")
    touched = {leaf[1 : 1 + HASH_SIZE] for leaf in evidence.leaves if len(leaf) == ENTRY_SIZE and leaf[0] == ENTRY}
    if any(known.place.key not in touched for known in evidence.chains):
        raise Malformed("want no chain but those of the leaves", "chains")
    if evidence.size == 0:
        root = bytes(HASH_SIZE)
    elif len(first) == 1 + HASH_SIZE and first[:1] == b"\x02":
        root = first[1:]
    elif evidence.chains:
        raise Malformed("want no chains where the first leaf commits to no map", "chains")
    else:
        return
    for known in evidence.chains:
        verify_place(known.place, root)
