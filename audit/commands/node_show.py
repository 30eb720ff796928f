"""`nextcloud-audit node show`: a node's own keys and fingerprint, to be read to those who run logs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.commands import common, peer_common
from audit.http import fetch_nothing
from audit.node import open_node
from audit.peers import parse_description, peer_fingerprint, spaced
from verifier.outcome import format_json
from verifier.words import escape

DESCRIPTION = "This node's keys, their fingerprint, and the logs that it watches. It may run meanwhile."
EXAMPLES = """examples:
  nextcloud-audit node show --data /var/lib/nextcloud-audit-node
  nextcloud-audit node show --data /var/lib/nextcloud-audit-node --fingerprint        that alone

Read the fingerprint to the operator of a log who adds this node (`peer add`), by telephone or on paper."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the node's directory")
    parser.add_argument("--fingerprint", action="store_true", help="print the fingerprint alone")
    common.add_json(parser)


def run(args: Namespace) -> int:
    node = open_node(Path(args.data), fetch=fetch_nothing)
    try:
        said = node.describe()
        watched = [(log.origin, log.url) for log in node.store.logs()]
    finally:
        node.close()
    keys = parse_description(format_json(said).encode())  # as a peer reads it
    digits = peer_fingerprint(keys)
    if args.fingerprint:
        common.emit(args, {"fingerprint": digits}, digits)
        return 0
    lines = [*peer_common.key_words(keys), f"{'fingerprint':<11}  {spaced(digits)}"]
    lines += [
        f"{'watches':<11}  {escape(origin)}{f' at {escape(url)}' if url else ', not replayed'}"
        for origin, url in watched
    ]
    data = {word: value for word, value in said.items() if word in ("witness", "auditor")}
    logs = [{"origin": origin, "url": url} for origin, url in watched]
    common.emit(args, {**data, "fingerprint": digits, "logs": logs}, "\n".join(lines))
    return 0
