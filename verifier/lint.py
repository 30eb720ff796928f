"""Whether a policy is a good one: what is worth a thought before trusting it, with the better choice.

    ov = 1: a single lying witness lets two histories pass (to stand f liars takes 3f + 1); better: 3 of 4, ...

What a policy means is `verifier.policy`'s; nothing here changes a verdict. Policies do not say who operates a cosigner:
that comes from the caller, or is guessed from the host names in their keys. Verifying a file does not load this.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from verifier.errors import Malformed
from verifier.policy import (
    AUDITOR_SUFFIX,
    AUDITORS,
    NONE,
    WITNESSES,
    Policy,
    check_separate,
    fold_quorum,
    quorum_met,
)


def lint(policy: Policy, operators: Mapping[str, str] | None = None) -> list[str]:
    """What is worth a thought before trusting this policy, with the better choice; nothing if it is sound.

    `operators` says of cosigners, by name, who runs them. Of the others the host name in the key is taken for that.
    """
    one, many = ("auditor", "auditors") if policy.kind == AUDITORS else ("witness", "witnesses")
    warnings = []
    if not policy.logs:
        warnings.append("no log is named, so no checkpoint can be accepted")
    if policy.quorum == NONE:
        warnings.append(
            f"quorum none: nothing is asked of any {one}, so the log's word stands alone; {_better(policy)}"
        )
    elif policy.kind == AUDITORS:
        if policy.q == 1:
            warnings.append(f"q = 1: a single lying auditor makes a wrong state pass as current; {_better(policy)}")
    elif policy.ov == 0:
        warnings.append(
            "ov = 0: two quorums need not share a witness, so two histories can pass though nobody lies; "
            + _better(policy)
        )
    elif policy.ov == 1:
        warnings.append(
            "ov = 1: a single lying witness lets two histories pass (to stand f liars takes 3f + 1); " + _better(policy)
        )
    if policy.stoppers == 1:
        warnings.append(f"a single {one} that is down stops all proofs from getting newer; {_better(policy)}")
    by_operator = _lint_operators(policy, operators or {}, one)
    return warnings + list(by_operator.values()) + _lint_names(policy, {*(operators or {}), *by_operator}, one, many)


def lint_separate(witnesses: Policy, auditors: Policy) -> list[str]:
    """What is wrong between the two files; nothing if they belong together."""
    try:
        check_separate(witnesses, auditors)
    except Malformed as error:
        return [
            f"{error}: no client accepts these two together; a node has one key for each role, {AUDITOR_SUFFIX} last"
        ]
    witnessing = {witness.key.name for witness in witnesses.witnesses.values()}
    alone = [
        name for name, a in auditors.witnesses.items() if a.key.name.removesuffix(AUDITOR_SUFFIX) not in witnessing
    ]
    return [f"auditors whose node is no witness here, which is unusual: {', '.join(alone)}"] if alone else []


def operator_of(policy: Policy, name: str, operators: Mapping[str, str]) -> str:
    """Who runs this cosigner, as declared, or as the host name in its key suggests."""
    return operators.get(name) or _host(policy.witnesses[name].key.name)


def best_threshold(n: int) -> int:
    """How many of n make a quorum: the least that stands f = (n - 1) // 3 liars, which leaves f that may be down."""
    return (n + (n - 1) // 3) // 2 + 1


def _better(policy: Policy) -> str:
    """The least change that stands one liar, and one that is down."""
    n = _width(policy, policy.quorum) if policy.quorum != NONE else len(policy.witnesses)
    if n < 4:
        return "better: 3 of 4, under four operators"
    return f"better: {best_threshold(n)} of {n}"


def _width(policy: Policy, name: str) -> int:
    """How many members the widest group has that a quorum needs."""
    group = policy.groups.get(name)
    if group is None:
        return 1
    nested = [_width(policy, member) for member in group.members] if group.threshold == len(group.members) else []
    return max([len(group.members), *nested])


def _lint_operators(policy: Policy, operators: Mapping[str, str], one: str) -> dict[str, str]:
    """What an operator of several cosigners can do alone. Who runs one is covered by q, ov and stoppers."""
    run_by: dict[str, list[str]] = {}
    for name in policy.witnesses:
        if name in _used(policy):
            run_by.setdefault(operator_of(policy, name, operators), []).append(name)
    warnings = {}
    for operator, names in sorted(run_by.items()):
        if len(names) < 2:
            continue
        rest = dict.fromkeys([name for name in policy.witnesses if name not in names], 1)
        if quorum_met(policy, dict.fromkeys(names, 1)):
            why = f"fills a quorum alone ({', '.join(names)})"
        elif policy.kind == WITNESSES and policy.ov > 0 and _overlap_without(policy, names) == 0:
            why = f"can let two histories pass alone ({', '.join(names)})"
        elif not quorum_met(policy, rest):
            why = f"can stop all proofs from getting newer alone ({', '.join(names)})"
        else:
            continue
        warnings[operator] = f"operator {operator} {why}; better: its nodes in a group that counts as one {one}"
    return warnings


def _overlap_without(policy: Policy, liars: Sequence[str]) -> int:
    """The fewest cosigners that two quorums share, these not counted: 0 if they alone can let two histories pass."""
    return fold_quorum(policy, lambda name: int(name not in liars), lambda k, own: sum(own[: max(0, 2 * k - len(own))]))


def _lint_names(policy: Policy, judged: Container[str], one: str, many: str) -> list[str]:
    """Names that look like one operator and were not judged as such, and definitions that count for nothing."""
    warnings = []
    logs = {_host(log.key.name) for log in policy.logs}
    by_host: dict[str, list[str]] = {}
    for name in (used := _used(policy)) & policy.witnesses.keys():
        by_host.setdefault(_host(policy.witnesses[name].key.name), []).append(name)
    for host, names in sorted(by_host.items()):
        if host in logs:
            warnings.append(
                f"{one} {', '.join(sorted(names))} bears the log's own host name {host}: "
                "a log that vouches for itself adds nothing; better: leave it out"
            )
        elif host not in judged and len([name for name in names if name not in judged]) > 1:
            warnings.append(f"{many} {', '.join(sorted(names))} share the host name {host}: if one operator, count one")
    unused = [name for name in [*policy.witnesses, *policy.groups] if name not in used]
    if unused:
        warnings.append(f"defined, and no part of the quorum: {', '.join(unused)}")
    return warnings


def _used(policy: Policy) -> set[str]:
    """The names that the quorum is made of."""
    used = {policy.quorum}
    for name, group in reversed(policy.groups.items()):
        if name in used:
            used.update(group.members)
    return used


def _host(key_name: str) -> str:
    return key_name if key_name.startswith("oid/") else key_name.partition("/")[0]
