"""`nextcloud-audit peer add`: pin another node's keys, once a person has compared them."""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import ArgumentParser, Namespace

from audit.commands import common, peer_common
from audit.errors import PeerFailed, PeerUnreached, Refused
from audit.http import HttpFetch
from audit.peer_files import changing, read_files
from audit.peers import (
    MAX_DESCRIPTION_SIZE,
    Description,
    Peer,
    add_peer,
    check_address,
    check_description,
    check_fingerprint,
    check_operator,
    parse_cosigner,
    parse_description,
    peer_fingerprint,
    spaced,
)
from verifier.errors import Malformed, Usage
from verifier.policy import fingerprint
from verifier.words import escape

DESCRIPTION = "Fetch the keys of another node, compare their fingerprint out of band, and have it cosign this log."
EXAMPLES = """examples:
  nextcloud-audit peer add --data /var/lib/nextcloud-audit https://ada.example --url https://audit.example.org
  nextcloud-audit peer add --data ... https://ada.example --operator ada --fingerprint '3c1f 09ab ...'
  nextcloud-audit peer add --data ... https://witness.example --witness 'witness.example+1f...+BE...'   a public witness

The node's operator reads its fingerprint to you (there: `node show`), by telephone or on paper, never over the same
network. Nothing is pinned before it was compared. What is pinned is never replaced by other keys.
DIR/policy and DIR/auditors are made from what is pinned; `serve` reads them when it starts, so restart it. Clients pin
these two files: add your peers before anybody enrols, or give everybody the new files with their fingerprints."""

PATIENCE_S = 10  # for a node that is just starting
RETRY_S = 0.25


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("peer", metavar="URL", help="the node's address")
    parser.add_argument("--fingerprint", metavar="F", help="as its operator told you; else it is asked on a terminal")
    parser.add_argument("--operator", metavar="NAME", help="who runs it (default: the host name in its key)")
    parser.add_argument("--witness", metavar="VKEY", help="a C2SP witness that is no node: its key, as it publishes it")
    parser.add_argument("--url", metavar="URL", help="where nodes reach this log; remembered")
    peer_common.add_quorum(parser)
    common.add_json(parser)


def run(args: Namespace) -> int:
    address = check_address(args.peer, "peer url")
    own = None if args.url is None else check_address(args.url, "url")
    before = read_files(args.data)
    before.check_not_by_hand()
    if own is None and before.peers.url is None:
        raise Usage("url: want --url URL, where nodes reach this log, for the line that they have to run")
    keys = given_keys(args.witness) if args.witness else asyncio.run(fetch_description(address))
    peer = Peer(operator_for(args, keys), address, keys)
    add_peer(before.peers, peer, before.log_keys)  # what is refused is refused before anybody is asked
    if peer not in before.peers.peers and (args.fingerprint or not args.witness):
        confirm(keys, address, args.fingerprint)
    with changing(args.data) as files:
        peers = peer_common.with_quorum(files.peers, args.quorum)
        peers = add_peer(peers, peer, files.log_keys)._replace(url=own or files.peers.url)
        made = files.write(peers)
    allow = peer_common.allow_lines(peers, files)
    there = "\n  ".join(allow) if peer.keys.auditor else "(what makes it watch this log: its key is in DIR/policy)"
    text = f"""{escape(peer.name)} is pinned: {peer_common.role(peer)}, {peer_common.operator_words(peer)}.

{peer_common.policy_words(peers, made)}

There, its operator has to run
  {there}
Then restart `serve` here, and see `policy lint --data {args.data}`."""
    data = {
        **peer_common.data_of(peer),
        "allow": allow,
        "policy": fingerprint(made[0]),
        "auditors": fingerprint(made[1]),
    }
    common.emit(args, data, text)
    return 0


def given_keys(vkey: str) -> Description:
    return check_description(Description(parse_cosigner(vkey, "witness"), None))


def operator_for(args: Namespace, keys: Description) -> str | None:
    """As declared. A witness that came as a key is public, unless an operator is named."""
    if args.operator is not None:
        return check_operator(args.operator)
    return None if args.witness else check_operator(keys.witness.name.partition("/")[0])


async def fetch_description(address: str) -> Description:
    """What the node says of itself: one GET, no redirect, bounded. One that just starts is waited for."""
    fetch = HttpFetch()
    give_up = time.monotonic() + PATIENCE_S
    try:
        while True:
            try:
                return parse_description(await fetch(f"{address}/", MAX_DESCRIPTION_SIZE))
            except PeerUnreached:
                if time.monotonic() > give_up:
                    raise PeerFailed(
                        f"{address}: nobody answers there: is the node running, and its address right?"
                    ) from None
                await asyncio.sleep(RETRY_S)
    except Malformed as error:
        raise Refused(
            f"{address}: {error}. This is no node as nextcloud-audit knows it; the key of a C2SP witness is given with "
            "--witness VKEY"
        ) from None
    finally:
        await fetch.aclose()


def confirm(keys: Description, address: str, given: str | None) -> None:
    """Returns once the keys were compared with what their operator says."""
    if given is not None:
        check_fingerprint(keys, given)
        return
    shown = ["", *[f"  {line}" for line in peer_common.key_words(keys)]]
    for line in (f"{address} says it has these keys:", *shown, f"  fingerprint  {spaced(peer_fingerprint(keys))}", ""):
        common.say(line)
    if not sys.stdin.isatty():
        raise Refused(
            "fingerprint: nobody is here to compare it, so nothing was pinned: ask the node's operator for it, not "
            "over this network (there: `nextcloud-audit node show --data DIR`), and run this again with --fingerprint F"
        )
    print(
        "Does its operator, asked on another way, read the same to you? (yes/no) ", end="", file=sys.stderr, flush=True
    )
    if sys.stdin.readline().strip() != "yes":
        raise Refused("fingerprint: not confirmed, nothing was pinned")
