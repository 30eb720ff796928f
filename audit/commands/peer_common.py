"""What the `peer` commands say alike."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser

from audit.peer_files import Files
from audit.peers import Description, Peer, Peers, peer_fingerprint, spaced
from verifier.encoding import decode_decimal
from verifier.errors import Usage
from verifier.note import format_vkey
from verifier.policy import AUDITORS, WITNESSES, describe_quorum, fingerprint, parse_policy
from verifier.words import escape


def add_quorum(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--quorum",
        metavar="K",
        help="how many operators are needed, remembered (default: auto, the best number: 3 of 4, 4 of 5, 5 of 7)",
    )


def with_quorum(peers: Peers, wanted: str | None) -> Peers:
    if wanted is None:
        return peers
    if wanted == "auto":
        return peers._replace(quorum=None)
    number = decode_decimal(wanted, "quorum")
    if number == 0:
        raise Usage("quorum: want 1 or more, or auto")
    return peers._replace(quorum=number)


def role(peer: Peer) -> str:
    return "witness and auditor" if peer.keys.auditor else "witness"


def operator_words(peer: Peer) -> str:
    return "public (no operator of ours)" if peer.operator is None else f"operator {escape(peer.operator)}"


def key_words(keys: Description) -> list[str]:
    return [
        f"{word:<11}  {escape(format_vkey(key))}" for word, key in zip(("witness", "auditor"), keys.keys, strict=False)
    ]


def allow_lines(peers: Peers, files: Files) -> list[str]:
    """What the operator of a node runs there, to have it watch our log."""
    url = peers.url or "URL"
    return [
        f"nextcloud-audit node allow {shlex.quote(format_vkey(key))} {shlex.quote(url)} --data DIR"
        for key in files.log_keys
    ]


def policy_words(peers: Peers, made: tuple[bytes, bytes]) -> str:
    """How the two policies stand now."""
    policies = parse_policy(made[0], WITNESSES), parse_policy(made[1], AUDITORS)
    lines = [
        f"{name:<9} quorum {escape(describe_quorum(policy))}, q = {policy.q}, ov = {policy.ov}, "
        f"fingerprint {fingerprint(data)}"
        for name, policy, data in zip(("policy", "auditors"), policies, made, strict=True)
    ]
    return "\n".join(lines)


def data_of(peer: Peer) -> dict[str, object]:
    return {
        "name": peer.name,
        "operator": peer.operator,
        "url": peer.url,
        "witness": format_vkey(peer.keys.witness),
        "auditor": format_vkey(peer.keys.auditor) if peer.keys.auditor else None,
        "fingerprint": peer_fingerprint(peer.keys),
    }


def text_of(peer: Peer) -> str:
    lines = [
        f"{escape(peer.name)}: {role(peer)}, {operator_words(peer)}",
        f"  {'address':<11}  {peer.url}",
        *[f"  {line}" for line in key_words(peer.keys)],
        f"  {'fingerprint':<11}  {spaced(peer_fingerprint(peer.keys))}",
    ]
    return "\n".join(lines)
