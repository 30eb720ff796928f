"""The server's command line: which command, its options, and what becomes of errors. No logic of its own.

    nextcloud-audit serve --data DIR --source folder:/srv/letters

    0 done   1 a check found something   4 malformed input, usage, or what can't be now   70 a fault of the program
    141 whoever read went away

Only the module of the command that was asked for is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from audit.errors import AuditError, Fatal
from verifier import outcome
from verifier.cli import PROGRAM, guarded, run_command
from verifier.errors import Error
from verifier.words import escape

# Words -> module: it has DESCRIPTION, EXAMPLES, add_arguments(parser) and run(args).
COMMANDS = {
    ("init",): "audit.commands.init",
    ("serve",): "audit.commands.serve",
    ("record",): "audit.commands.record",
    ("token",): "audit.commands.token",
    ("coverage",): "audit.commands.coverage",
    ("erase",): "audit.commands.erase",
    ("hooks",): "audit.commands.hooks",
    ("upgrade",): "audit.commands.upgrade",
    ("rotate-key",): "audit.commands.rotate_key",
    ("audit",): "audit.commands.audit",
    ("fsck",): "audit.commands.fsck",
    ("recover",): "audit.commands.recover",
    ("node", "init"): "audit.commands.node_init",
    ("node", "serve"): "audit.commands.node_serve",
    ("node", "allow"): "audit.commands.node_allow",
    ("node", "evidence"): "audit.commands.node_evidence",
    ("node", "halts"): "audit.commands.node_halts",
    ("node", "show"): "audit.commands.node_show",
    ("peer", "add"): "audit.commands.peer_add",
    ("peer", "list"): "audit.commands.peer_list",
    ("peer", "show"): "audit.commands.peer_show",
    ("peer", "remove"): "audit.commands.peer_remove",
    ("policy", "show"): "audit.commands.policy_show",
    ("policy", "lint"): "audit.commands.policy_lint",
    ("policy", "export"): "audit.commands.policy_export",
}
NODE = """usage: nextcloud-audit node COMMAND ...     (COMMAND --help says more)

  init      make the keys and the memory of a node that cosigns other people's logs
  serve     run it
  allow     watch a log from now on
  halts     for which logs the auditor stopped, and let it go on
  evidence  what it has kept against logs
  show      its keys and their fingerprint, and the logs that it watches"""
PEER = """usage: nextcloud-audit peer COMMAND ...     (COMMAND --help says more)

  add     pin another node's keys, once they were compared, and have it cosign this log
  list    who is pinned, and who answers
  show    one of them, and what its operator has to run
  remove  take one out of the policies"""
POLICY = """usage: nextcloud-audit policy COMMAND ...     (COMMAND --help says more)

  show    whom a policy believes, in words
  lint    what is weak in it, and the better choice
  export  both files for those who verify"""
GROUPS = {"node": NODE, "peer": PEER, "policy": POLICY}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one server command and returns its exit code. Nothing but SystemExit of --help leaves this function."""
    return guarded(_run, _failed, list(sys.argv[1:] if argv is None else argv))


def _run(words: list[str]) -> int:
    if words[:1] == ["demo"]:
        from audit.demo import main as demo

        return int(demo(words[1:]))
    group = GROUPS.get(words[0]) if words else None
    if group is not None and (not words[1:] or words[1] in ("--help", "-h")):
        print(group, file=sys.stdout if words[1:] else sys.stderr)
        return 0 if words[1:] else outcome.USAGE
    count = 1 if group is None else 2
    name = COMMANDS.get(tuple(words[:count]))
    if name is None:
        among = [command for command in (*COMMANDS, ("demo",)) if group is None or command[0] == words[0]]
        known = ", ".join(" ".join(command) for command in among)
        print(f"{PROGRAM}: there is no command {' '.join(words[:count])!a}, want one of {known}", file=sys.stderr)
        return outcome.USAGE
    command: Any = import_module(name)
    return run_command(command, " ".join((PROGRAM, *words[:count])), words[count:])


def _failed(error: Exception, as_data: bool) -> int:
    code, reason = _judge(error)
    message = str(error) if code == outcome.USAGE else f"{error!r}"
    if code == outcome.FAULT:
        import traceback

        traceback.print_exc()
    if as_data:
        print(outcome.format_json({"exit": code, "error": {"reason": reason, "message": message}}), flush=True)
    else:
        print(f"{PROGRAM}: {escape(message)}", file=sys.stderr)
    return code


def _judge(error: Exception) -> tuple[int, str]:
    """Exit code and stable word."""
    if isinstance(error, Error):
        return outcome.USAGE, outcome.error_reason(error)
    if isinstance(error, AuditError) and not isinstance(error, Fatal):
        return outcome.USAGE, "refused"
    return outcome.FAULT, "fault"
