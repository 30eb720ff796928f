"""`nextcloud-audit policy show`: whom a policy believes, in words."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.commands import common, policy_common
from audit.commands.policy_common import Read
from verifier.lint import operator_of
from verifier.note import format_vkey
from verifier.policy import WITNESSES, describe_quorum, fingerprint
from verifier.words import count, escape

DESCRIPTION = "Whom a policy believes: log, cosigners, groups, quorum, and what has to happen before it is deceived."
EXAMPLES = """examples:
  nextcloud-audit policy show --data /var/lib/nextcloud-audit
  nextcloud-audit policy show policy auditors"""


def add_arguments(parser: ArgumentParser) -> None:
    policy_common.add_arguments(parser)


def run(args: Namespace) -> int:
    read, operators, _ = policy_common.read_all(args)
    common.emit(
        args,
        {"policies": [data_of(one, operators) for one in read]},
        "\n\n".join([text_of(one, operators) for one in read]),
    )
    return 0


def data_of(read: Read, operators: dict[str, str]) -> dict[str, object]:
    policy = read.policy
    return {
        "file": read.path,
        "kind": policy.kind,
        "fingerprint": fingerprint(read.data),
        "logs": [{"vkey": format_vkey(log.key), "url": log.url} for log in policy.logs],
        "cosigners": [
            {"name": name, "operator": operator_of(policy, name, operators), "vkey": format_vkey(w.key), "url": w.url}
            for name, w in policy.witnesses.items()
        ],
        "groups": [
            {"name": name, "threshold": str(group.threshold), "members": list(group.members)}
            for name, group in policy.groups.items()
        ],
        "quorum": policy.quorum,
        "q": str(policy.q),
        "ov": str(policy.ov),
        "stoppers": str(policy.stoppers),
    }


def text_of(read: Read, operators: dict[str, str]) -> str:
    policy = read.policy
    one = "witness" if policy.kind == WITNESSES else "auditor"
    lines = [f"{escape(read.path)}: {policy.kind}", f"  fingerprint  {fingerprint(read.data)}"]
    lines += [f"  log          {escape(format_vkey(log.key))} {escape(log.url)}".rstrip() for log in policy.logs]
    for name, witness in policy.witnesses.items():
        who = escape(operator_of(policy, name, operators))
        lines.append(f"  {one:<11}  {escape(name)}, run by {who}: {escape(format_vkey(witness.key))}")
    for name, group in policy.groups.items():
        wanted = f"{group.threshold} of {len(group.members)}"
        lines.append(f"  group        {escape(name)}: {wanted} ({escape(', '.join(group.members))})")
    lines.append(f"  quorum       {escape(describe_quorum(policy))}")
    lines.append(f"  q = {policy.q}        so many have to lie before a false tree or time passes")
    if policy.kind == WITNESSES:
        lines.append(f"  ov = {policy.ov}       so many have to lie before two histories both pass")
    lines.append(f"  {count(policy.stoppers, one, policy.kind)} down: no proof gets newer")
    return "\n".join(lines)
