"""`nextcloud-audit node allow`: watch a log from now on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.commands import common
from audit.node import allow_log
from verifier.errors import Usage

DESCRIPTION = "Watch a log; with its address, mirror and replay it too. A running node knows it at once."
EXAMPLES = """examples:
  nextcloud-audit node allow --data DIR audit.example.org/files+6f0c83d1+AZ… https://audit.example.org
  nextcloud-audit node allow --data DIR audit.example.org/files+41b07aa2+AR… https://audit.example.org --rotates
  nextcloud-audit node allow --data DIR audit.example.org/files+41b07aa2+AR… https://audit.example.org --only

`--rotates` accepts one more key of a log that is watched already, which its operator has told you of. What was cosigned
for this log stays remembered, whichever key signs: it cannot show a second history. `--only` ends the other keys, for
good, once the log has published with this one: who steals an old key then gets nothing cosigned with it."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the node's directory")
    parser.add_argument("vkey", metavar="VKEY", help="the log's key, as `init` printed it")
    parser.add_argument(
        "url", metavar="URL", nargs="?", default="", help="where its tiles are, to replay it (default: as it is)"
    )
    parser.add_argument("--rotates", action="store_true", help="one more key of a log that is watched already")
    parser.add_argument(
        "--only", action="store_true", help="from now on this key alone signs; the log has dropped others"
    )
    common.add_json(parser)


def run(args: Namespace) -> int:
    if args.rotates and args.only:
        raise Usage("--only: comes later than --rotates, once the log has published with the new key")
    url = allow_log(Path(args.data), args.vkey, args.url, args.rotates, args.only)
    origin = args.vkey.partition("+")[0]
    what = f"watched, and replayed from {url}" if url else "watched, and not replayed: no address was given"
    common.emit(args, {"origin": origin, "url": url}, f"{origin} is {what}")
    return 0
