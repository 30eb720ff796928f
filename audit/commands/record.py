"""`nextcloud-audit record`: one scan of a source, with progress, then exit."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TextIO

from audit.commands import common
from audit.directory import locked, open_log
from audit.folder import Progress
from audit.recorder import Recorder
from audit.remaining import Remaining
from audit.scanning import Job, Summary
from audit.sources import SPECS, open_source, with_limits
from verifier.words import escape

DESCRIPTION = "Scan a source once and record what changed. Publishing is `serve`'s work."
EXAMPLES = """examples:
  nextcloud-audit record --data /var/lib/nextcloud-audit --source folder:/srv/letters
  nextcloud-audit record --data ... --source folder:/srv/letters --full      read every byte again
  nextcloud-audit record --data ... --source nextcloud:https://cloud.example.org
  nextcloud-audit record --data ... --source nextcloud:https://cloud.example.org --share 100%      while nobody works

A Nextcloud is read by the accounts in DIR/nextcloud.json, mode 0600, each with an app password (in Nextcloud: settings,
security, "Create new app password"):
  {"url":"https://cloud.example.org","accounts":[{"user":"alice","password":"..."},{"user":"bob","password":"..."}]}
or, as an external app that reads as any user:
  {"url":"https://cloud.example.org","appapi":{"id":"...","version":"...","secret":"..."}}
What is shared with these accounts and whose owner has none here is not recorded, and the answer says so. On its own
machine add "host" (deploy/README.md): the first catch-up then reads disk and database. How fast, and how often stored
bytes are read again, say the options, or for good "limits" in the same file (all of it is optional):
  "limits":{"share":"25%","files":"50","rate":"10MB","again_days":"30","again_hours":"5","again_rate":"20MB"}"""

SHOWN_PROBLEMS = 20


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("--source", metavar=SPECS, required=True, help="what to scan")
    parser.add_argument("--full", action="store_true", help="read every file again, changed or not")
    common.add_limits(parser)
    common.add_json(parser)


def run(args: Namespace) -> int:
    with locked(args.data):
        log = open_log(args.data)
        try:
            source = with_limits(open_source(log.store, args.data, args.source), common.limits_of(args))
            show = show_on(sys.stderr) if sys.stderr.isatty() else None
            recorder = Recorder(log.store, time.time)
            summary = source.scan(Job(log.store, recorder, time.time, show, [args.data], full=args.full))
            if show:
                print(file=sys.stderr)
        finally:
            log.store.close()
    common.emit(args, summary_data(summary), summary_text(summary))
    return 0


def show_on(stream: TextIO) -> Callable[[Progress], None]:
    """One line that is written over and over."""
    remaining = Remaining(time.monotonic)

    def show(progress: Progress) -> None:
        print(f"\r{remaining.line(progress)}\x1b[K", end="", file=stream, flush=True)

    return show


def summary_data(summary: Summary) -> dict[str, object]:
    problems = [{"path": p.path, "reason": p.reason, "detail": p.detail} for p in summary.problems]
    counts = {word: str(count) for word, count in {**summary.counts, "migrated": summary.migrated}.items()}
    return {"source": summary.source_id, **counts, "problems": problems}


def summary_text(summary: Summary) -> str:
    counted = ", ".join(f"{count} {word}" for word, count in summary.counts.items() if count) or "nothing new"
    lines = [f"{summary.source_id}: {counted}"]
    if summary.migrated:
        lines.append(f"{summary.migrated} chains carried over to the enrolled owner")
    for problem in summary.problems[:SHOWN_PROBLEMS]:
        lines.append(f"  not covered: {escape(problem.path) or '.'}: {problem.reason} ({escape(problem.detail)})")
    if len(summary.problems) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(summary.problems) - SHOWN_PROBLEMS} more (--json lists all)")
    return "\n".join(lines)
