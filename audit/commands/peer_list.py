"""`nextcloud-audit peer list`: who is pinned, and who answers."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TypeGuard

from audit.commands import common, peer_common
from audit.errors import PeerFailed
from audit.http import HttpFetch
from audit.peer_files import Files, read_files
from audit.peers import check_address
from verifier.canonical import parse_object
from verifier.errors import Malformed
from verifier.note import format_vkey
from verifier.record import NamedTuple
from verifier.words import count, escape, when

DESCRIPTION = "The pinned nodes, their operators and keys; and, where the log runs and can be reached, who answers it."
EXAMPLES = """examples:
  nextcloud-audit peer list --data /var/lib/nextcloud-audit
  nextcloud-audit peer list --data /var/lib/nextcloud-audit --status http://127.0.0.1:8460"""

MAX_STATUS_SIZE = 1024 * 1024
STATUS_TIMEOUT_S = 5
SHOWN = 200  # characters of what a cosigner did wrong

_FIELDS = ("role", "name", "failures", "last_success", "failing_since", "last_error")


class Said(NamedTuple):
    """What the running log says of one cosigner, in its words; `audit.federation.Health` has the meaning."""

    role: str
    name: str
    failures: str
    last_success: str | None
    failing_since: str | None
    last_error: str | None


Health = Sequence[Said]


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("--status", metavar="URL", help="where the log runs (default: the url that its peers know)")
    common.add_json(parser)


def run(args: Namespace) -> int:
    files = read_files(args.data)
    url = files.peers.url if args.status is None else check_address(args.status, "status")
    health = asyncio.run(fetch_health(url, files)) if url and files.peers.peers else None
    peers = files.peers.peers
    shown = [{**peer_common.data_of(peer), "health": health_data(health, peer.name)} for peer in peers]
    lines = [f"{peer_common.text_of(peer)}\n  {'health':<11}  {health_words(health, peer.name)}" for peer in peers]
    text = "\n\n".join(lines) or "no peers are pinned: `nextcloud-audit peer add` pins one"
    common.emit(args, {"peers": shown, "reachable": health is not None}, text)
    return 0


async def fetch_health(url: str, files: Files) -> Health | None:
    """How it goes, as the running log says; None where it does not answer, or another log does."""
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
    rows = [[one.get(field) for field in _FIELDS] for one in cosigners if type(one) is dict]
    return [Said(*row) for row in rows if _is_said(row)]


def _is_said(row: list[object]) -> TypeGuard[list[str]]:
    """Texts, and decimals where they are numbers; the last three may be missing."""
    if not all(type(value) is str for value in row[:3]) or not all(v is None or type(v) is str for v in row[3:]):
        return False
    numbers = [str(value) for value in row[2:5] if value is not None]
    return all(number.isascii() and number.isdigit() and len(number) < 16 for number in numbers)


def health_data(health: Health | None, name: str) -> list[dict[str, str | None]] | None:
    if health is None:
        return None
    return [{k: v for k, v in said._asdict().items() if k != "name"} for said in health if said.name == name]


def health_words(health: Health | None, name: str) -> str:
    if health is None:
        return "not known: the log does not answer"
    found = [said for said in health if said.name == name]
    return "; ".join(map(_words, found)) or "not asked: `serve` was started before this peer was added, restart it"


def _words(said: Said) -> str:
    role = escape(said.role)
    last = "" if said.last_success is None else f"answered {when(int(said.last_success))}"
    if said.failures == "0" and said.failing_since is None:
        return f"{role} {last or 'not asked yet'}"
    since = "" if said.failing_since is None else f" since {when(int(said.failing_since))}"
    times = "" if said.failures == "0" else f", {count(int(said.failures), 'time')} in this run"
    why = "" if said.last_error is None else f" ({escape(said.last_error[:SHOWN])})"
    return f"{role} fails{since}{times}{why}; {last or 'never answered'}"
