"""A Report in plain words, and the same as data.

    VERIFIED  minutes.txt
    This is the current version of the file; each step of its history is legitimate and logged.

      file         minutes.txt (file 17 of folder:5d0…)
      version      step 4, written, 1,234 bytes
      history      5 steps: 3 said by the server, 1 seen by the owner's device, 1 signed by it; the current one is not
                   sealed
      logged       not later than 2027-01-15 08:00:10 UTC; not published before 2027-01-15 07:59:50 UTC
      current      still the newest at 2027-01-15 08:00:10 UTC
      witnesses    w0, w1, w2 (quorum g (3 of 4))
      auditors     w0, w1, w2 (quorum g (3 of 4))
      not shown    that the server always gave this path this number; who wrote it; that it is true

The counts follow SPEC 9: from `checked_from` to `seq` of a valid seal a step is signed by the owner's device; any
other step at or below a sealed one was seen by it; the rest is what the server said.

As data (`--json`) the same stands in one JSON object. As in proofs, numbers that may take 64 bits are decimal strings.
Text that the server chose is escaped in words, and left to JSON's own escapes as data.
"""

from __future__ import annotations

from verifier.chain import MISSING, Chain, Missing
from verifier.encoding import encode_base64
from verifier.entry import Content, ContextField, Part
from verifier.outcome import EXIT
from verifier.policy import Cosigned, Policy, describe_quorum
from verifier.record import NamedTuple
from verifier.verdict import Finding, Report, Trust, Verdict
from verifier.words import count, escape, when

NOT_SHOWN = "that the server always gave this path this number; who wrote it; that it is true"
WITHHELD = "where its owner keeps it: whether this number is the file that you mean, only the owner can tell you; "

_MEANING = {
    Verdict.VERIFIED: "This is the current version of the file; each step of its history is legitimate and logged.",
    Verdict.CHANGED: "The bytes or the history differ from what was logged.",
    Verdict.NOT_PROVEN: "Nothing speaks against the file, but too little speaks for it.",
    Verdict.FORK: "Signed statements exclude each other. The evidence convicts whoever signed them.",
}


class Standing(NamedTuple):
    """Who stands behind the steps of a history (SPEC 5.1), and whether the current version is sealed."""

    steps: int
    server_said: int
    seen: int
    device_signed: int
    sealed_now: bool


def standing(chain: Chain) -> Standing:
    """Counts the steps by whose word they rest on (SPEC 5.1)."""
    signed: set[int] = set()
    for sealed in chain.seals:
        signed.add(sealed.position)
        signed.update(range(sealed.seal.checked_from, sealed.seal.seq + 1))
    top = max((sealed.seal.seq for sealed in chain.seals), default=-1)
    steps = chain.seq + 1
    seen = sum(seq not in signed for seq in range(top + 1))
    sealed_now = bool(chain.seals) and chain.seals[-1].seal.seq >= chain.version
    return Standing(steps, steps - seen - len(signed), seen, len(signed), sealed_now)


def exit_code(report: Report) -> int:
    return EXIT[report.verdict]


def worst_first(findings: list[Finding]) -> list[Finding]:
    """The findings, the ones that decide the verdict first; otherwise in the order of the steps."""
    return sorted(findings, key=lambda finding: -finding.verdict.rank)


def headline(report: Report) -> str:
    """The verdict in the words that users read."""
    if report.verdict is Verdict.VERIFIED and report.as_of is not None:
        return f"VERIFIED AS OF {when(report.as_of)}"
    return report.verdict.value


# -- words ----------------------------------------------------------------------------------------------------


def format_report(report: Report, trust: Trust, name: str, *, hashes: bool = False) -> str:
    """The report for people. `name` is the local file."""
    lines = [f"{headline(report)}  {escape(name)}", _meaning(report)]
    lines += [f"  - {escape(finding.message)}" for finding in worst_first(report.findings)]
    if report.older_version is not None:
        lines.append(f"  - {_older(report)}")
    rows = [("file", _file(report))]
    if report.chain is not None:
        rows += [("version", _version(report.chain)), ("history", _history(report.chain))]
        if remark := _remark(report.chain):
            rows.append(("remark", f"{escape(remark)} (the server's word)"))
    rows += _times(report)
    checked = report.checkpoint is not None
    rows += [("witnesses", _cosigners(report.witnesses, trust.witnesses, checked))]
    rows += [("auditors", _cosigners(report.auditors, trust.auditors, checked))]
    rows += [("not shown", _not_shown(report))]
    if hashes:
        rows += _hashes(report)
    return "\n".join([*lines, "", *[f"  {title:<12} {text}" for title, text in rows]]) + "\n"


def _meaning(report: Report) -> str:
    if report.verdict is not Verdict.VERIFIED:
        return _MEANING[report.verdict]
    if report.as_of is not None:
        return f"At {when(report.as_of)} this was the current version. Nothing is said about later changes."
    return _MEANING[Verdict.VERIFIED]


def _older(report: Report) -> str:
    """Which version these bytes are. History outlives them: expired versions count as well."""
    seq, chain = report.older_version, report.chain
    assert seq is not None
    assert chain is not None
    versions = sorted({version for version, _ in chain.carriers})
    place = versions.index(seq)
    after = chain.steps[versions[place + 1]].entry
    named = f"version {place + 1} of {len(versions)} (step {seq}, {chain.steps[seq].entry.operation.word})"
    return f"these are the bytes of {named}, replaced by step {after.seq}, recorded {when(after.recorded)}"


def _file(report: Report) -> str:
    proof, path = report.proof, shown_path(report)
    number = f"file {proof.file_id} of {escape(proof.source)}"
    if proof.generation:
        number += f", generation {proof.generation}"
    if path is not None:
        return f"{escape(path)} ({number})"
    asked = report.question.path
    return f"{number}, path not known" if asked is None else f"asked for {escape(asked)}; the proof is for {number}"


def shown_path(report: Report) -> str | None:
    """The path that the replayed history ends with; none where some of its paths are withheld."""
    path = report.chain.path if report.chain is not None else None
    return None if path is MISSING or _hides_paths(report) else path


def _hides_paths(report: Report) -> bool:
    return report.chain is not None and any(part is Part.PATH for _, part in report.chain.withheld())


def _version(chain: Chain) -> str:
    if not 0 <= chain.version < len(chain.steps):  # the replay ended at an illegal step
        return "none"
    entry = chain.steps[chain.version].entry
    size = count(chain.content.size, "byte") if isinstance(chain.content, Content) else "size not shown"
    gone = "" if chain.status == "live" else f"; the file is {chain.status}"
    return f"step {chain.version}, {entry.operation.word}, {size}{gone}"


def _remark(chain: Chain) -> str | None:
    """What the server remarked on the current version, such as that it is ciphertext."""
    if not 0 <= chain.version < len(chain.steps):
        return None
    context = chain.steps[chain.version].context
    return None if isinstance(context, Missing) else context.get(ContextField.REMARK)


def _history(chain: Chain) -> str:
    s = standing(chain)
    whose = f"{s.server_said} said by the server, {s.seen} seen by the owner's device, {s.device_signed} signed by it"
    return f"{count(s.steps, 'step')}: {whose}; the current one is {'' if s.sealed_now else 'not '}sealed"


def _times(report: Report) -> list[tuple[str, str]]:
    times = report.times
    if times is None:
        return [("logged", "no time is proven")]
    before = "" if times.not_before is None else f"; not published before {when(times.not_before)}"
    late = "; not compared with later trees" if report.as_of is not None else ""
    return [
        ("logged", f"not later than {when(times.not_later_than)}{before}"),
        ("current", f"still the newest at {when(times.still_newest_at)}{late}"),
    ]


def _cosigners(cosigned: Cosigned | None, policy: Policy, checked: bool) -> str:
    quorum = f"quorum {escape(describe_quorum(policy))}"
    if cosigned is None:
        return f"{'not enough' if checked else 'not checked'} ({quorum})"
    if not cosigned.times:
        return f"none ({quorum})"
    return f"{', '.join(map(escape, cosigned.times))} ({quorum})"


def _not_shown(report: Report) -> str:
    after = "; what came after" if report.as_of is not None else ""
    return f"{WITHHELD if _hides_paths(report) else ''}{NOT_SHOWN}{after}"


def _hashes(report: Report) -> list[tuple[str, str]]:
    proof, chain = report.proof, report.chain
    rows = [("log", escape(proof.log)), ("chain", proof.chain_id.hex()), ("head", proof.map.head.hex())]
    if chain is not None and isinstance(chain.content, Content):
        rows.append(("sha3-256", chain.content.sha3_256.hex()))
    if report.checkpoint is not None:
        rows.append(("tree", f"size {report.checkpoint.size}, root {report.checkpoint.root.hex()}"))
    return rows


# -- data -----------------------------------------------------------------------------------------------------


def report_data(report: Report, trust: Trust, name: str) -> dict[str, object]:
    """The report as JSON data."""
    proof, times = report.proof, report.times
    return {
        "verdict": report.verdict.value,
        "exit": exit_code(report),
        "as_of": _number(report.as_of),
        "name": name,
        "findings": [_finding(finding) for finding in worst_first(report.findings)],
        "log": proof.log,
        "source": proof.source,
        "file": str(proof.file_id),
        "generation": str(proof.generation),
        "path": shown_path(report),
        "history": None if report.chain is None else _history_data(report.chain),
        "older_version": _number(report.older_version),
        "tree": None
        if report.checkpoint is None
        else {"size": str(report.checkpoint.size), "root": encode_base64(report.checkpoint.root)},
        "times": None
        if times is None
        else {
            "not_before": _number(times.not_before),
            "not_later_than": str(times.not_later_than),
            "still_newest_at": str(times.still_newest_at),
        },
        "witnesses": _cosigned_data(report.witnesses, trust.witnesses),
        "auditors": _cosigned_data(report.auditors, trust.auditors),
        "not_shown": _not_shown(report),
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "verdict": finding.verdict.value,
        "reason": finding.reason,
        "message": finding.message,
        "seq": _number(finding.seq),
    }


def _history_data(chain: Chain) -> dict[str, object]:
    s = standing(chain)
    content = chain.content if isinstance(chain.content, Content) else None
    return {
        "status": chain.status,
        "steps": str(s.steps),
        "server_said": str(s.server_said),
        "seen": str(s.seen),
        "device_signed": str(s.device_signed),
        "sealed": s.sealed_now,
        "version": str(chain.version),
        "remark": _remark(chain),
        "size": None if content is None else str(content.size),
        "sha3_256": None if content is None else encode_base64(content.sha3_256),
        "head": encode_base64(chain.head),
    }


def _cosigned_data(cosigned: Cosigned | None, policy: Policy) -> dict[str, object]:
    times = {} if cosigned is None else cosigned.times
    return {
        "quorum": describe_quorum(policy),
        "met": cosigned is not None,
        "times": {name: str(time) for name, time in times.items()},
    }


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)
