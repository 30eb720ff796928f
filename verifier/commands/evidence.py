"""`nextcloud-audit verify --evidence`: what a file proves, and against whom, for those who have public keys alone.

    nextcloud-audit verify --evidence fork.json --log VKEY                     exit 3: it convicts this log
    nextcloud-audit verify --evidence back.json --log VKEY --witness VKEY      a rollback: it convicts this cosigner

Keys come from the user alone: by hand, from policy files, or from a state; never from the evidence.
"""

from __future__ import annotations

from argparse import Namespace

from verifier import outcome
from verifier.commands import common
from verifier.conviction import Proven, verify_evidence
from verifier.errors import NotProven, Usage
from verifier.evidence import MAX_HISTORIES_SIZE, parse_evidence
from verifier.files import read_bounded
from verifier.home import Home
from verifier.note import COSIGNATURE, SIGNATURE, VerifierKey, parse_vkey
from verifier.policy import AUDITORS, MAX_POLICY_SIZE, WITNESSES, Kind, Policy, parse_policy
from verifier.words import escape, when

_FAULTS = {
    "fork": "The log has shown two histories.",
    "rollback": "A cosigner signed an older tree of the log as the newest one, after a later one.",
    "chain-broken": "The log holds a leaf that is not the one which has to stand there.",
    "map-wrong": "The log has committed to a map that its own leaves do not give.",
}


def run(args: Namespace) -> int:
    """Exit 3 where it convicts somebody, 2 where it proves nothing, 4 where it is malformed."""
    if args.files or args.proof or args.remote:
        raise Usage("evidence: --evidence FILE stands for itself, without another FILE, --proof or --as")
    log_keys, cosigners = _keys(args)
    evidence = parse_evidence(read_bounded(args.evidence, MAX_HISTORIES_SIZE, "evidence"))
    try:
        proven = verify_evidence(evidence, log_keys, cosigners)
    except NotProven as error:
        why = {"reason": error.reason, "message": str(error), "exit": outcome.NOT_PROVEN}
        data = {"evidence": evidence.kind, "proves": None, **why}
        common.emit(args, data, f"PROVES NOTHING  {escape(args.evidence)}\n{escape(str(error))}")
        return outcome.NOT_PROVEN
    common.emit(args, _data(evidence.kind, evidence.seen, proven), _text(args.evidence, evidence.seen, proven))
    return outcome.FORK


def _data(kind: str, seen: int, proven: Proven) -> dict[str, object]:
    shown = {"statement": proven.statement, "seen": str(seen), "exit": outcome.FORK}
    return {"evidence": kind, "proves": proven.fault, "origin": proven.origin, "convicts": proven.accused, **shown}


def _text(path: str, seen: int, proven: Proven) -> str:
    lines = [f"PROVEN  {escape(path)}", _FAULTS[proven.fault], ""]
    lines += [f"  log          {escape(proven.origin)}", f"  proven       {escape(proven.statement)}"]
    lines += [
        f"  convicts     {'the log' if proven.cosigner is None else f'{escape(proven.cosigner)}, and not the log'}"
    ]
    lines += [f"  put together {when(seen)} (the writer's word)"]
    lines += ["  not shown    who did it, or why; and of two histories, which one is true"]
    return "\n".join(lines)


def _keys(args: Namespace) -> tuple[list[VerifierKey], list[VerifierKey]]:
    """The log's keys and the cosigners', all that the user names."""
    policies = [_policy(args.policy, WITNESSES), _policy(args.auditors, AUDITORS)]
    logs = [_vkey(args.log, SIGNATURE, "log")] if args.log else []
    cosigners = [_vkey(text, COSIGNATURE, "witness") for text in args.witness or []]
    if args.state and not logs and policies == [None, None]:
        for log in Home(args.state).logs():
            policies += common.parse_policies(log.policy, log.auditors)
    for policy in policies:
        if policy is not None:
            logs += [] if args.log else policy.log_keys
            cosigners += [witness.key for witness in policy.witnesses.values()]
    if not logs:
        raise Usage("evidence: want the log's key: --log VKEY, --policy FILE or --state DIR")
    return list(dict.fromkeys(logs)), list(dict.fromkeys(cosigners))


def _policy(path: str | None, kind: Kind) -> Policy | None:
    return None if path is None else parse_policy(read_bounded(path, MAX_POLICY_SIZE, "policy"), kind)


def _vkey(text: str, algorithm: int, where: str) -> VerifierKey:
    key = parse_vkey(text, f"{where} key")
    if key.algorithm != algorithm:
        raise Usage(f"{where} key: got one of type 0x{key.algorithm:02x}, want 0x{algorithm:02x}")
    return key
