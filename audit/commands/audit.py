"""`nextcloud-audit audit`: the periodic audit of the logs that a node watches, for cron and systemd timers."""

from __future__ import annotations

import asyncio
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.clock import system_clock
from audit.commands import common
from audit.directory import Occupied, locked, read_policy
from audit.monitor import Found, Monitor, Policies, Settings, exit_code
from audit.node import open_node
from audit.witness import hash_origin
from audit.witness_store import Log, Store
from verifier.errors import Usage
from verifier.files import write_atomic
from verifier.outcome import FORK, USAGE, format_json
from verifier.policy import AUDITORS, WITNESSES, check_separate
from verifier.verdict import DEFAULT_MAX_AGE_S
from verifier.words import escape, parse_duration

LOCK_FILE = "audit.lock"
POLICY_FOLDER = "policies"
BUSY = 75  # EX_TEMPFAIL: another run is at it
DESCRIPTION = """Fetch, compare, mirror and replay every log that this node watches. Silent when all is well.

exit codes: 0 all is well
            1 something did not answer, or not in time (unreachable, slow)
            2 less is proven than asked (stale, quorum-lost)
            3 a log has contradicted itself (fork, rollback, chain-broken, map-wrong)
            4 malformed input or usage, 70 a fault of the program, 75 another run is at it (nothing is printed)"""
EXAMPLES = """examples:
  nextcloud-audit audit --data DIR                             every log of the node
  nextcloud-audit audit audit.example.org/files --data DIR     one of them
  nextcloud-audit audit --data DIR --budget 10m --report /var/lib/audit.json --last-success /var/lib/audit.ok

A log's policy is --policy and --auditors where they name it, else DIR/policies/ORIGINHASH.policy and .auditors, if
there (hex SHA-256 of the origin). Without one no quorum is checked and no witness asked. deploy/ has a timer and a cron
line."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("logs", metavar="LOG", nargs="*", help="the origin or the address of a log (default: all)")
    common.add_data(parser, "the node's directory")
    parser.add_argument("--policy", metavar="FILE", help="the logs and their witnesses")
    parser.add_argument("--auditors", metavar="FILE", help="the logs and their auditors")
    parser.add_argument("--max-age", metavar="7d", help="how long ago a tree may have been the newest (7d)")
    parser.add_argument("--budget", metavar="10m", help="stop after this, and go on the next time (default: no end)")
    parser.add_argument("--report", metavar="FILE", help="write what --json prints there, as a whole or not at all")
    parser.add_argument("--last-success", metavar="FILE", help="renewed when all is well and at no other time")
    common.add_json(parser)


def run(args: Namespace) -> int:
    folder = Path(args.data)
    max_age_s = parse_duration(args.max_age) if args.max_age else DEFAULT_MAX_AGE_S
    ends = time.monotonic() + parse_duration(args.budget) if args.budget else None
    given = read_policies(args.policy, args.auditors)
    settings = Settings(
        lambda log: policies_of(folder, log, given),
        max_age_s,
        lambda: ends is not None and time.monotonic() >= ends,
    )
    try:
        with locked(args.data, LOCK_FILE):
            return _run(args, folder, settings)
    except Occupied:
        return BUSY


def _run(args: Namespace, folder: Path, settings: Settings) -> int:
    found, errors, sizes = asyncio.run(audit(folder, args.logs, settings))
    code = max(exit_code(found), USAGE if errors and exit_code(found) < FORK else 0)
    report = format_json(report_data(found, errors, sizes, code))
    if args.report:
        write_atomic(args.report, f"{report}\n".encode("ascii"), 0o644)
    if args.json:
        print(report, flush=True)
    else:
        for one in found:
            print(line_of(one), flush=True)
    for error in errors:
        common.say(f"nextcloud-audit: {error}")
    if args.last_success and code == 0:
        write_atomic(args.last_success, b"%d\n" % system_clock(), 0o644)
    return code


async def audit(folder: Path, names: list[str], settings: Settings) -> tuple[list[Found], list[str], dict[str, int]]:
    node = open_node(folder)
    try:
        monitor = Monitor(node, folder, system_clock, settings)
        found = await monitor.run(choose_logs(node.store, names))
        return found, [str(error) for error in monitor.errors], monitor.sizes
    finally:
        await node.aclose()


def choose_logs(store: Store, names: list[str]) -> list[Log]:
    """The logs that are meant. One without an address is watched by the witness alone, and cannot be audited."""
    logs = [log for log in store.logs() if log.url]
    if not names:
        return logs
    chosen = []
    for name in names:
        found = [log for log in logs if name in (log.origin, log.url, log.url.rstrip("/"))]
        if not found:
            known = ", ".join(log.origin for log in logs) or "none"
            raise Usage(f"log: got {name!r}, want a log that this node watches and has an address of: {known}")
        chosen += [log for log in found if log not in chosen]
    return chosen


def line_of(found: Found) -> str:
    kept = "" if found.evidence is None else f" (evidence: {found.evidence})"
    return escape(f"{found.kind} {found.origin}: {found.message}{kept}")


def report_data(found: list[Found], errors: list[str], sizes: dict[str, int], code: int) -> dict[str, object]:
    findings = [{"kind": f.kind, "log": f.origin, "message": f.message, "evidence": f.evidence} for f in found]
    logs = [{"log": origin, "replayed": str(size)} for origin, size in sizes.items()]
    return {"exit": code, "time": str(system_clock()), "findings": findings, "errors": errors, "logs": logs}


def read_policies(policy: str | None, auditors: str | None) -> Policies:
    """The policy files of these names, as far as they are given."""
    policies = Policies(
        None if policy is None else read_policy(policy, WITNESSES),
        None if auditors is None else read_policy(auditors, AUDITORS),
    )
    if policies.witnesses is not None and policies.auditors is not None:
        check_separate(policies.witnesses, policies.auditors)
    return policies


def policies_of(folder: Path, log: Log, given: Policies) -> Policies:
    """What is known of a log: from the options where they name its key, else from the node's own directory."""
    ours = [policy if policy is not None and {*log.keys} & {*policy.log_keys} else None for policy in given]
    if any(ours):
        return Policies(*ours)
    name = hash_origin(log.origin)
    paths = [folder / POLICY_FOLDER / f"{name}.{kind}" for kind in ("policy", "auditors")]
    own = read_policies(*[str(path) if path.exists() else None for path in paths])
    for policy in own:
        if policy is not None and not {*log.keys} & {*policy.log_keys}:
            raise Usage(f"policy: the one in {folder / POLICY_FOLDER} for {log.origin} names another key")
    return own
