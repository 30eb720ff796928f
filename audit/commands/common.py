"""What several commands do alike."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from audit.nextcloud.limits import DEFAULT_SHARE, LIMIT_NAMES, format_share
from verifier.outcome import format_json
from verifier.words import escape


def add_data(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("--data", metavar="DIR", required=True, help=what)


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of words")


def add_limits(parser: ArgumentParser) -> None:
    """How fast a Nextcloud is read. They hold for this run, over what DIR/nextcloud.json says."""
    group = parser.add_argument_group("a Nextcloud is read")
    group.add_argument(
        "--share",
        metavar="25%",
        help="a scan keeps the server busy for this part of the time and leaves it alone for the rest, so a slow "
        f"server is asked less; 100%%: as fast as it goes (default: {format_share(DEFAULT_SHARE)}%)",
    )
    group.add_argument(
        "--files-per-second", metavar="N", dest="files", help="new and changed files (default: no bound)"
    )
    group.add_argument("--rate", metavar="10MB", help="their bytes, by the second (default: no bound)")
    group.add_argument("--again-days", metavar="N", help="everything is read again within N days (default: 30)")
    group.add_argument("--again-hours", metavar="H", help="for at most H hours a day; 0: never (default: 5)")
    group.add_argument("--again-rate", metavar="20MB", help="at most so fast (default: 20MB)")


def limits_of(args: Namespace) -> dict[str, str]:
    """What of that was given."""
    given = {name: getattr(args, name) for name in LIMIT_NAMES}
    return {name: value for name, value in given.items() if value is not None}


def emit(args: Namespace, data: object, text: str) -> None:
    """The answer of a command, on standard output."""
    print(format_json(data) if args.json else text.removesuffix("\n"), flush=True)


def say(message: str) -> None:
    """Something on the way to the answer, on standard error. Everything unprintable is escaped."""
    print(escape(message), file=sys.stderr, flush=True)
