"""`nextcloud-audit coverage`: what of a Nextcloud has been recorded, and what has not been checked."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from functools import partial

from audit.commands import common
from audit.directory import open_log
from audit.nextcloud.client import read_limits
from audit.nextcloud.coverage import Coverage, measure
from audit.nextcloud.limits import Budget, format_rate
from audit.nextcloud.source import list_nextclouds, open_configured
from verifier.errors import Usage
from verifier.words import escape, when

NOT_WHOLE = 1
NESTED = ("unreadable", "budget", "today")
DESCRIPTION = "Say what of a Nextcloud is recorded, read again lately, waiting or unreadable. Works beside `serve`."
EXAMPLES = """examples:
  nextcloud-audit coverage --data /var/lib/nextcloud-audit
  nextcloud-audit coverage --data /var/lib/nextcloud-audit --days 7 --json

Re-reading goes by "limits" in DIR/nextcloud.json (see `record --help`); days are those unless --days says others.
Exit code 0 where everything that the accounts show is recorded and was read within these days, else 1. What is not
listed cannot be counted: what belongs to users without an account here is said by `record`."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("--days", metavar="N", type=int, help="read again within (default: again_days, 30)")
    common.add_json(parser)


def run(args: Namespace) -> int:
    if args.days is not None and args.days < 1:
        raise Usage(f"days: got {args.days}, want at least 1")
    log = open_log(args.data)
    try:
        with log.store.snapshot() as conn:
            sources = list_nextclouds(log.store, partial(open_configured, args.data))
            budget = read_limits(args.data).budget if sources else Budget()
            days = args.days or budget.days
            reports = [measure(conn, s.row, s.source_id, int(time.time()), days, budget) for s in sources]
    finally:
        log.store.close()
    if not reports:
        raise Usage("sources: this log has no Nextcloud")
    common.emit(args, [coverage_data(report) for report in reports], "\n".join(map(coverage_text, reports)))
    return 0 if all(report.is_whole for report in reports) else NOT_WHOLE


def coverage_data(report: Coverage) -> dict[str, object]:
    """Numbers as decimals in text, as everywhere."""
    data: dict[str, object] = {
        name: None if value is None else str(value) for name, value in report._asdict().items() if name not in NESTED
    }
    data["budget"] = {name: str(value) for name, value in report.budget._asdict().items()}
    data["today"] = {name: str(value) for name, value in report.today._asdict().items()}
    data["needs_days"] = None if report.needs_days is None else f"{report.needs_days:.1f}"
    failing = [{"why": item.why, "files": str(item.files), "example": item.example} for item in report.unreadable]
    return {**data, "unreadable": failing, "whole": report.is_whole}


def coverage_text(report: Coverage) -> str:
    scanned = "never" if report.scanned is None else when(report.scanned)
    oldest = "never" if report.oldest_read is None else when(report.oldest_read)
    at_least = "at least " if report.unseen_folders or not report.accounts_walked else ""
    lines = [
        f"{report.source_id}: {'covered' if report.is_whole else 'NOT WHOLLY COVERED'}",
        f"  files        {at_least}{report.files} known, {report.chained} chained, {report.in_trash} in the trash",
        f"  read again   {report.read_again} of {report.files} within {report.days} days; the longest ago: {oldest}",
        f"  budget       {budget_text(report)}",
        f"  today        {today_text(report)}",
        f"  waiting      {report.waiting}",
        f"  walks        {report.accounts_walked} accounts seen whole, {report.unseen_folders} folders not",
        f"  last scan    {scanned}",
    ]
    for item in report.unreadable:
        lines.append(f"  unreadable   {item.files}: {escape(item.why)} (one of them: {escape(item.example)})")
    return "\n".join(lines)


def budget_text(report: Coverage) -> str:
    """How stored bytes are read again, and whether that is enough."""
    budget = report.budget
    if not budget.hours:
        return "stored bytes are never read again (again_hours is 0)"
    text = f"everything within {budget.days} days, {budget.hours:g} h a day at most, {format_rate(budget.bytes_per_s)}"
    if report.needs_days is not None and report.needs_days > budget.days:
        what = f"{report.files:,} files with {report.bytes / 1e9:,.1f} GB"
        text += f": TOO LITTLE, {what} take {report.needs_days:,.0f} days so"
    return text


def today_text(report: Coverage) -> str:
    today = report.today
    hours = today.milliseconds / 3_600_000
    return f"{today.files} files with {today.bytes / 1e6:,.1f} MB read again in {hours:.2f} h"
