"""What several commands do alike."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from verifier.outcome import format_json
from verifier.words import escape


def add_data(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("--data", metavar="DIR", required=True, help=what)


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of words")


def emit(args: Namespace, data: object, text: str) -> None:
    """The answer of a command, on standard output."""
    print(format_json(data) if args.json else text.removesuffix("\n"), flush=True)


def say(message: str) -> None:
    """Something on the way to the answer, on standard error. Everything unprintable is escaped."""
    print(escape(message), file=sys.stderr, flush=True)
