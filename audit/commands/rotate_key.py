"""`nextcloud-audit rotate-key`: the log gets a new key, and keeps its name, its nodes and its readers."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.commands import common
from audit.directory import locked
from audit.peer_files import read_files
from audit.rotation import Rotation, finish, start
from verifier.note import format_vkey

DESCRIPTION = "Give the log a new key: both sign for a while, then the new one alone. Stop `serve` for either step."
EXAMPLES = """examples:
  nextcloud-audit rotate-key --data /var/lib/nextcloud-audit start
  nextcloud-audit rotate-key --data /var/lib/nextcloud-audit finish

After `start`: back up log.db and the keys, start `serve`, have every node's operator run the line that is printed, and
give everybody who verifies the new policies by file (`policy export`). They name both keys, which is right for whoever
enrols, and as long as the old key is believed. `finish` is refused until the new key is published in the log; do
it when everybody has the new policies. Who has not gets NOT PROVEN (unsigned) from then on, never anything wrong."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("step", metavar="start|finish", choices=("start", "finish"), help="one, and then the other")
    common.add_json(parser)


def run(args: Namespace) -> int:
    with locked(args.data):
        rotation = start(args.data) if args.step == "start" else finish(args.data)
    vkeys = {"old": format_vkey(rotation.old), "new": format_vkey(rotation.new)}
    url = read_files(args.data).peers.url
    text = _started(rotation, url) if args.step == "start" else _finished(rotation, url)
    common.emit(args, {"step": args.step, **vkeys}, text)
    return 0


def _line(rotation: Rotation, url: str | None, option: str) -> str:
    """What a node's operator runs; without an address a node keeps the one that it has."""
    return " ".join(
        ["nextcloud-audit node allow --data DIR", format_vkey(rotation.new), *([url] if url else []), option]
    )


def _started(rotation: Rotation, url: str | None) -> str:
    return f"""Two keys sign from the next start of `serve` on.

  old  {format_vkey(rotation.old)}
  new  {format_vkey(rotation.new)}

Each node's operator runs:
  {_line(rotation, url, "--rotates")}"""


def _finished(rotation: Rotation, url: str | None) -> str:
    return f"""The new key signs alone from the next start of `serve` on.

  key  {format_vkey(rotation.new)}

Once a tree of it is published, each node's operator runs:
  {_line(rotation, url, "--only")}

The old one is in log-old.key: keep it off this machine, or destroy it. It must never sign again."""
