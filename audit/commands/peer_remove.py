"""`nextcloud-audit peer remove`: a node out of our policies. What it has signed it remembers."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.commands import common, peer_common
from audit.peer_files import changing
from audit.peers import find_peer, remove_peer
from verifier.policy import fingerprint
from verifier.words import escape

DESCRIPTION = "Take a node out of this log's policies. Its own memory of this log stays where it is."
EXAMPLES = """examples:
  nextcloud-audit peer remove --data /var/lib/nextcloud-audit ada.example
  nextcloud-audit peer remove --data /var/lib/nextcloud-audit ada.example --quorum auto"""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("name", metavar="NAME", help="its name, or its address")
    peer_common.add_quorum(parser)
    common.add_json(parser)


def run(args: Namespace) -> int:
    with changing(args.data) as files:
        peer = find_peer(files.peers, args.name)
        peers = remove_peer(peer_common.with_quorum(files.peers, args.quorum), peer)
        made = files.write(peers)
    text = f"""{escape(peer.name)} is no longer asked, and its lines count for nothing in these policies.

{peer_common.policy_words(peers, made)}

The node keeps what it has signed for this log, and no command removes that: a witness that forgets and is added again
would sign a second history. Restart `serve`, and give clients the new policies: they have pinned the old ones."""
    data = {**peer_common.data_of(peer), "policy": fingerprint(made[0]), "auditors": fingerprint(made[1])}
    common.emit(args, data, text)
    return 0
