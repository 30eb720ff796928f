"""`nextcloud-audit peer show`: one pinned node."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.commands import common, peer_common
from audit.peer_files import read_files
from audit.peers import find_peer

DESCRIPTION = "One pinned node: its keys, its fingerprint, and the line that its operator runs."
EXAMPLES = """examples:
  nextcloud-audit peer show --data /var/lib/nextcloud-audit ada.example"""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("name", metavar="NAME", help="its name, or its address")
    common.add_json(parser)


def run(args: Namespace) -> int:
    files = read_files(args.data)
    peer = find_peer(files.peers, args.name)
    allow = peer_common.allow_lines(files.peers, files)
    lines = "\n  ".join(allow)
    common.emit(
        args, {**peer_common.data_of(peer), "allow": allow}, f"{peer_common.text_of(peer)}\n\nthere:\n  {lines}"
    )
    return 0
