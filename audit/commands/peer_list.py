"""`nextcloud-audit peer list`: who is pinned, and who answers."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from audit.commands import common, peer_common
from audit.errors import PeerFailed
from audit.node import HttpFetch
from audit.peer_files import Files, read_files
from audit.peers import check_address
from verifier.errors import Malformed
from verifier.note import format_vkey
from verifier.proof import parse_object
from verifier.words import count, escape

DESCRIPTION = "The pinned nodes, their operators and keys; and, where the log runs and can be reached, who answers it."
EXAMPLES = """examples:
  nextcloud-audit peer list --data /var/lib/nextcloud-audit
  nextcloud-audit peer list --data /var/lib/nextcloud-audit --status http://127.0.0.1:8460"""

MAX_STATUS_SIZE = 1024 * 1024
STATUS_TIMEOUT_S = 5

Health = Mapping[tuple[str, str], int]  # (role, name) -> failures in a row


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("--status", metavar="URL", help="where the log runs (default: the url that its peers know)")
    common.add_json(parser)


def run(args: Namespace) -> int:
    files = read_files(args.data)
    url = files.peers.url if args.status is None else check_address(args.status, "status")
    health = asyncio.run(fetch_health(url, files)) if url and files.peers.peers else None
    peers = files.peers.peers
    shown = [{**peer_common.data_of(peer), "failures": _failures(health, peer.name)} for peer in peers]
    lines = [f"{peer_common.text_of(peer)}\n  {'health':<11}  {health_words(health, peer.name)}" for peer in peers]
    text = "\n\n".join(lines) or "no peers are pinned: `nextcloud-audit peer add` pins one"
    common.emit(args, {"peers": shown, "reachable": health is not None}, text)
    return 0


async def fetch_health(url: str, files: Files) -> Health | None:
    """Failures in a row, as the running log says; None where it does not answer, or another log does."""
    fetch = HttpFetch()
    try:
        async with asyncio.timeout(STATUS_TIMEOUT_S):
            return parse_health(await fetch(f"{url}/status", MAX_STATUS_SIZE), files)
    except (PeerFailed, TimeoutError):
        return None
    finally:
        await fetch.aclose()


def parse_health(data: bytes, files: Files) -> Health | None:
    """What a status says of cosigners. Only words to show: nothing is decided by them."""
    try:
        status = parse_object(data, "status")
    except Malformed:
        return None
    cosigners = status.get("cosigners")
    if status.get("vkey") not in [format_vkey(key) for key in files.log_keys] or type(cosigners) is not list:
        return None
    found = {}
    for one in cosigners:
        role, name, failures = [one.get(word) if type(one) is dict else None for word in ("role", "name", "failures")]
        if type(role) is str and type(name) is str and type(failures) is str and failures.isascii():
            found[role, name] = int(failures) if failures.isdigit() and len(failures) < 10 else 0
    return found


def _failures(health: Health | None, name: str) -> dict[str, str] | None:
    return None if health is None else {role: str(n) for (role, peer), n in health.items() if peer == name}


def health_words(health: Health | None, name: str) -> str:
    if health is None:
        return "not known: the log does not answer"
    found = [(role, number) for (role, peer), number in health.items() if peer == name]
    if not found:
        return "not asked: `serve` was started before this peer was added, restart it"
    said = [f"{escape(role)} {'answers' if n == 0 else 'failed ' + count(n, 'time')}" for role, n in found]
    return ", ".join(said)
