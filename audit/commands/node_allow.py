"""`nextcloud-audit node allow`: watch a log from now on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.commands import common
from audit.node import allow_log

DESCRIPTION = "Watch a log; with its address, mirror and replay it too. A running node knows it at once."
EXAMPLES = """examples:
  nextcloud-audit node allow --data DIR audit.example.org/files+6f0c83d1+AZ… https://audit.example.org"""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the node's directory")
    parser.add_argument("vkey", metavar="VKEY", help="the log's key, as `init` printed it")
    parser.add_argument("url", metavar="URL", nargs="?", default="", help="where its tiles are, to replay it")
    common.add_json(parser)


def run(args: Namespace) -> int:
    allow_log(Path(args.data), args.vkey, args.url)
    origin = args.vkey.partition("+")[0]
    what = "watched and replayed" if args.url else "watched, and not replayed: no address was given"
    common.emit(args, {"origin": origin, "url": args.url}, f"{origin} is {what}")
    return 0
