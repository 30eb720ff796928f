"""`nextcloud-audit policy lint`: what is weak in a policy, and the better choice."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.commands import common, policy_common
from verifier.errors import Usage
from verifier.lint import lint, lint_separate
from verifier.policy import AUDITORS, WITNESSES, describe_quorum
from verifier.words import escape

DESCRIPTION = "What is weak in a policy: exit code 1 if anything is, with the better choice. Nothing is changed."
EXAMPLES = """examples:
  nextcloud-audit policy lint --data /var/lib/nextcloud-audit
  nextcloud-audit policy lint policy auditors        any C2SP tlog-policy, yours or one that you were given

Exit code 0: nothing to say. 1: a line for each weakness. 4: a file is no policy at all."""

WARNED = 1


def add_arguments(parser: ArgumentParser) -> None:
    policy_common.add_arguments(parser)


def run(args: Namespace) -> int:
    read, operators, in_step = policy_common.read_all(args)
    found = [(one.path, line) for one in read for line in lint(one.policy, operators)]
    if len(read) > 1:
        by_kind = {one.policy.kind: one.policy for one in read}
        if len(read) > 2 or set(by_kind) != {WITNESSES, AUDITORS}:
            raise Usage("policy: want two files of two kinds: one of witnesses, and one of auditors (…/auditor keys)")
        found += [("both", line) for line in lint_separate(by_kind[WITNESSES], by_kind[AUDITORS])]
    if not in_step:
        found.append(("peers.json", "the policies are not those that the declared peers make: `peer add` one again"))
    lines = [f"{escape(path)}: {escape(line)}" for path, line in found]
    good = [
        f"{escape(one.path)}: nothing to say: quorum {escape(describe_quorum(one.policy))}, "
        f"q = {one.policy.q}, ov = {one.policy.ov}"
        for one in read
    ]
    numbers = [{"file": o.path, "kind": o.policy.kind, "q": str(o.policy.q), "ov": str(o.policy.ov)} for o in read]
    warnings = [{"file": path, "warning": line} for path, line in found]
    common.emit(args, {"policies": numbers, "warnings": warnings}, "\n".join(lines or good))
    return WARNED if found else 0
