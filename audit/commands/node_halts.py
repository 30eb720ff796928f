"""`nextcloud-audit node halts`: for which logs the auditor stopped, and an operator's word that it may go on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import closing
from pathlib import Path

from audit.commands import common
from audit.http import fetch_nothing
from audit.node import open_node
from verifier.words import escape, when

DESCRIPTION = (
    "List the logs for which replaying their leaves found a broken rule. Nothing is signed as auditor for such a log "
    "until you say so. What was found is kept as evidence, also afterwards; if it is still there, the next audit "
    "finds it again."
)
EXAMPLES = """examples:
  nextcloud-audit node halts --data DIR
  nextcloud-audit node halts --data DIR --resume audit.example.org/files"""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the node's directory")
    parser.add_argument("--resume", metavar="ORIGIN", help="sign for this log again")
    common.add_json(parser)


def run(args: Namespace) -> int:
    with closing(open_node(Path(args.data), fetch=fetch_nothing)) as node:
        if args.resume is not None:
            node.store.resume(args.resume)
            common.emit(args, {"resumed": args.resume}, f"{escape(args.resume)} is audited again; the evidence is kept")
            return 0
        halts = node.store.halts()
    data = [{"origin": halt.origin, "reason": halt.reason, "time": str(halt.time)} for halt in halts]
    lines = [f"{escape(halt.origin)}: {escape(halt.reason)} (since {when(halt.time)})" for halt in halts]
    common.emit(args, {"halts": data}, "\n".join(lines) or "no log is halted")
    return 0
