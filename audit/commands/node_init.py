"""`nextcloud-audit node init`: the keys and the memory of a witness and auditor."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.commands import common
from audit.node import create_node
from audit.peers import Description, peer_fingerprint, spaced
from verifier.note import parse_vkey

DESCRIPTION = "Make a node that cosigns other people's logs, as witness and as auditor. Refuses where one exists."
EXAMPLES = """examples:
  nextcloud-audit node init --data /var/lib/nextcloud-audit-node --name example.org/node

Read the fingerprint to those who run logs, who fetch the keys with `peer add`. DIR/witness.db is the memory of what
was signed: never restore it from a backup."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "where the node will live")
    parser.add_argument("--name", metavar="NAME", required=True, help="its name: a host name you own, and a path")
    common.add_json(parser)


def run(args: Namespace) -> int:
    witness, auditor = create_node(Path(args.data), args.name)
    digits = peer_fingerprint(Description(parse_vkey(witness), parse_vkey(auditor)))
    text = f"""A new node in {args.data}.

  witness      {witness}
  auditor      {auditor}
  fingerprint  {spaced(digits)}     for those who add it to a log (`peer add`)"""
    common.emit(args, {"witness": witness, "auditor": auditor, "fingerprint": digits, "data": args.data}, text)
    return 0
