"""`nextcloud-audit inspect`: what is in a proof or an evidence file, in words. Never a verdict.

Nothing is verified here: no key, policy or state is looked at. What is shown is what the file says.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from verifier.canonical import parse_object
from verifier.chain import MISSING, Missing, Step, open_step
from verifier.checkpoint import parse_checkpoint_unverified
from verifier.commands import common
from verifier.entry import Closed, Content, ContextField, Erased, Expired, Reverted, Seal
from verifier.errors import Changed, Malformed
from verifier.evidence import EVIDENCE_FORMAT, MAX_HISTORIES_SIZE, Evidence, parse_evidence
from verifier.files import read_bounded
from verifier.note import Note, parse_note
from verifier.proof import Bracket, Line, Proof, parse_proof
from verifier.replay import Known
from verifier.words import count, escape, when

DESCRIPTION = "What is in a proof, or in the evidence of a fork. Nothing is verified."
EXAMPLES = """examples:
  nextcloud-audit inspect minutes.txt.proof
  nextcloud-audit inspect seed.txt.state.fork-20270115T080000Z.json"""
NO_VERDICT = "This is what the file says. Nothing of it was verified: only `verify` gives a verdict."
_KINDS = {
    "two-roots": "The log signed two different trees of the same size.",
    "other-prefix": "The log signed a tree that did not grow out of a smaller one that it signed.",
    "rolled-back": "A cosigner signed a smaller tree as the newest one, after a bigger one.",
    "two-histories": "Two signed histories of one file differ at a step that they share.",
    "two-successors": "The log declared a loss twice, and goes on under two origins after one.",
    "changed-leaf": "A leaf that the log said it has kept is another one under the origin after a declared loss.",
    "broken-replay": "Leaves of a signed tree break the rules: a chain that is not followed, or a wrong map.",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("proof", metavar="PROOF", help="a proof, or a file of evidence")
    common.add_json(parser)


def run(args: Namespace) -> int:
    data = read_bounded(args.proof, MAX_HISTORIES_SIZE, "proof")
    value = parse_object(data, "file")
    if value.get("format") == EVIDENCE_FORMAT:
        evidence = parse_evidence(data)
        shown, text = evidence_data(evidence), evidence_text(evidence)
    else:
        proof = parse_proof(data)
        shown, text = proof_data(proof), proof_text(proof)
    common.emit(args, shown, f"{text}\n\n{NO_VERDICT}")
    return 0


# -- proofs ---------------------------------------------------------------------------------------------------


def proof_text(proof: Proof) -> str:
    """A proof in words."""
    p = proof
    lines = [
        f"proof of file {p.file_id} of {escape(p.source)}, generation {p.generation}",
        f"log {escape(p.log)}",
        f"{count(len(p.entries), 'step')} from step {p.first_seq}; the map names step {p.map.seq} as the last one",
        "",
        *[f"  {step_text(seq, line)}" for seq, line in enumerate(p.entries, p.first_seq)],
        "",
        *_note_lines("checkpoint", p.checkpoint),
    ]
    for name, bracket in (("first", p.first), ("before", p.before)):
        lines += [f"{name}: none"] if bracket is None else _note_lines(name, bracket.checkpoint)
    for name, since in (("pinned", p.pinned), ("sealed", p.sealed)):
        lines.append(f"{name}: {'none' if since is None else f'continues a tree of size {since.size}'}")
    for one in [] if p.loss is None else p.loss.declared:
        lines += _note_lines("declared lost after", one.note)
    lines.append(f"earlier generations: {len(p.earlier)}; files that left this path: {len(p.replaced)}")
    return "\n".join(lines)


def step_text(seq: int, line: Line) -> str:
    """One step in words, or what is wrong with it."""
    try:
        step = open_step(line.entry, line[1:])
    except (Malformed, Changed) as error:
        return f"{seq:>5}  cannot be read: {escape(str(error))}"
    entry = step.entry
    claimed = f"recorded {when(entry.recorded)}" + (f", mtime {when(entry.mtime)}" if entry.mtime else "")
    words = [entry.operation.word, _path_word(step), _size_word(step), _argument_words(step), claimed, _remark(step)]
    return f"{entry.seq:>5}  {'; '.join(word for word in words if word)}"


def _path_word(step: Step) -> str:
    if step.path is MISSING:
        return "path not shown"
    return "" if step.path is None else escape(step.path)


def _size_word(step: Step) -> str:
    if step.content is MISSING:
        return "content not shown"
    return count(step.content.size, "byte") if isinstance(step.content, Content) else ""


def _remark(step: Step) -> str:
    remark = None if isinstance(step.context, Missing) else step.context.get(ContextField.REMARK)
    return f"remark: {escape(remark)}" if remark else ""


def _argument_words(step: Step) -> str:
    argument = step.entry.argument
    match argument:
        case Reverted(target):
            return f"to step {target}"
        case Expired(reason, seqs):
            return f"steps {', '.join(map(str, seqs))} ({reason.name.lower()})"
        case Erased(seq, part):
            return f"{part.word} of step {seq}"
        case Closed(reason, taints, signature, seen):
            given_up = "" if seen is None else f"gives up step {seen.seq} that was seen, "
            return (
                given_up
                + f"{reason.name.lower().replace('_', ' ')}, {'signed' if signature else 'not signed'}"
                + (f", {count(len(taints), 'taint')}" if taints else "")
            )
        case Seal():
            accepted = f", accepts {', '.join(str(seq) for _, seq in argument.accepts)}" if argument.accepts else ""
            return f"step {argument.seq}, checked from step {argument.checked_from}{accepted}"
    return ""


def _note_lines(name: str, data: bytes) -> list[str]:
    try:
        note = parse_note(data)
        tree = parse_checkpoint_unverified(note.text)
    except Malformed as error:
        return [f"{name}: cannot be read: {escape(str(error))}"]
    title = f"{name}: tree of size {tree.size} of {escape(tree.origin)}, signature lines"
    return [title, *[f"  {line}" for line in _signature_lines(note)]]


def _signature_lines(note: Note) -> list[str]:
    """Names and, for cosignatures (8 bytes of time before 64 of signature), the times that they state."""
    lines = []
    for name, _, blob in note.signatures:
        time = f", {when(int.from_bytes(blob[:8], 'big'))}" if len(blob) == 72 else ""
        lines.append(escape(name) + time)
    return lines


def proof_data(proof: Proof) -> dict[str, object]:
    """A proof as data: the steps opened, the rest counted. The proof itself is JSON already."""
    p = proof
    return {
        "verdict": None,
        "log": p.log,
        "source": p.source,
        "file": str(p.file_id),
        "generation": str(p.generation),
        "from": str(p.first_seq),
        "steps": [_step_data(line) for line in p.entries],
        "checkpoint": _note_data(p.checkpoint),
        "first": _bracket_data(p.first),
        "before": _bracket_data(p.before),
        "pinned": None if p.pinned is None else str(p.pinned.size),
        "sealed": None if p.sealed is None else str(p.sealed.size),
        "earlier": str(len(p.earlier)),
        "replaced": [str(replaced.file_id) for replaced in p.replaced],
    }


def _step_data(line: Line) -> dict[str, object]:
    try:
        step = open_step(line.entry, line[1:])
    except (Malformed, Changed) as error:
        return {"error": str(error)}
    entry, content = step.entry, step.content
    return {
        "seq": str(entry.seq),
        "operation": entry.operation.word,
        "recorded": str(entry.recorded),
        "mtime": str(entry.mtime),
        "path": None if step.path is MISSING else step.path,
        "size": str(content.size) if isinstance(content, Content) else None,
        "context": _context_data(step.context),
        "not_shown": [
            name
            for name, part in (("content", step.content), ("path", step.path), ("context", step.context))
            if part is MISSING
        ],
        "argument": _argument_words(step) or None,
    }


def _context_data(context: dict[ContextField, str] | Missing) -> dict[str, str] | None:
    return None if isinstance(context, Missing) else {field.name.lower(): value for field, value in context.items()}


def _bracket_data(bracket: Bracket | None) -> dict[str, object] | None:
    return None if bracket is None else _note_data(bracket.checkpoint)


def _note_data(data: bytes) -> dict[str, object]:
    try:
        note = parse_note(data)
        tree = parse_checkpoint_unverified(note.text)
    except Malformed as error:
        return {"error": str(error)}
    return {"origin": tree.origin, "size": str(tree.size), "signatures": _signature_lines(note)}


# -- evidence -------------------------------------------------------------------------------------------------


def evidence_data(evidence: Evidence) -> dict[str, object]:
    """Evidence as data: the notes and proofs opened, the rest counted."""
    return {
        "evidence": evidence.kind,
        "seen": str(evidence.seen),
        "notes": [note.decode("utf-8") for note in evidence.notes],
        "proofs": [proof_data(proof) for proof in evidence.proofs],
        "declared": [
            {"origin": origin, "key": one.key.hex(), "kept": str(one.kept)} for origin, one in evidence.declared
        ],
        "leaves": str(len(evidence.leaves)),
        "chains": [known.place.key.hex() for known in evidence.chains],
        "verdict": None,
    }


def evidence_text(evidence: Evidence) -> str:
    """Evidence in words, and what to do with it."""
    lines = [f"evidence against a log ({evidence.kind})", _KINDS[evidence.kind]]
    lines += [f"put together {when(evidence.seen)} by the writer's clock", ""]
    for number, note in enumerate(evidence.notes, 1):
        lines += _note_lines(f"note {number}", note)
    for number, proof in enumerate(evidence.proofs, 1):
        lines += [f"history {number}:", proof_text(proof), ""]
    for origin, one in evidence.declared:
        lines += [f"goes on as {escape(origin)}, key {one.key.hex()}, with the leaves below {one.kept}"]
        lines += _note_lines("from", one.note)
    if evidence.paths:
        lines += [f"leaf {evidence.leaf_index} before, and what stands in its place (leaf 0 tells where that is):"]
        lines += [f"  {leaf.hex()}" for leaf in evidence.leaves[1:]]
    elif evidence.leaves:
        last = evidence.size + len(evidence.leaves) - 1
        lines += [f"leaves {evidence.size} to {last}: the last one is accused"]
        lines += [f"  chain {known.place.key.hex()}: {_tip_text(known)}" for known in evidence.chains]
    lines += ["", "Whoever has the log's public key can check it: nextcloud-audit verify --evidence FILE --log VKEY"]
    return "\n".join(lines)


def _tip_text(known: Known) -> str:
    if known.tip is None:
        return "not in the map before"
    seq, _, index = known.tip
    return f"at step {seq}, leaf {index}"
