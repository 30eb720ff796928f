"""Peers: whose nodes cosign our log, who operates them, and the two policies that follow. Pure; see `audit.peer_files`.

    DIR/peers.json, canonical JSON and a line feed, 0644:

    {"format":"nextcloud-audit/peers/1","url":"https://audit.example.org","quorum":null,"peers":[
     {"name":"ada.example","operator":"ada.example","url":"https://ada.example","witness":VKEY,"auditor":VKEY}, ...]}

    DIR/policy                                          what it declares, as clients read it
    # made by `nextcloud-audit peer`, fingerprint of the rest 3c…; remove this line to go on by hand
    log example.org/files+… https://audit.example.org
    witness ada.example ada.example+… https://ada.example
    group operators 3 ada.example bea.example cem.example dov.example
    quorum operators

A peer bears the name of its witness key. What counts in a quorum is an operator: one with several nodes is a group of
its own, since a person who lies does so with all of them. Of its witnesses more than half have to sign, else one honest
operator's nodes could cosign two histories without knowing of each other; of its auditors any one will do.
Peers without an operator are public witnesses. They are a group of their own, and needed beside ours: whoever has all
of us in his pocket has not got them.

Of n operators k are needed, the safest number that lets f of them be down and f of them lie, f = (n - 1) // 3:

    n   1  2  3  4  5  6  7  10          k = (n + f) // 2 + 1
    f   0  0  0  1  1  1  2   3
    k   1  2  2  3  4  4  5   7          an operator's `quorum` overrides it, for both policies

A policy file is replaced only if it is as `init` made it, or if its first line is ours and fits the rest.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from audit.errors import Refused
from verifier.canonical import format_object, members, parse_object
from verifier.encoding import check_text, decode_decimal, tagged, text
from verifier.errors import Malformed, Usage
from verifier.lint import best_threshold
from verifier.note import COSIGNATURE, VerifierKey, check_name, format_vkey, parse_vkey
from verifier.policy import (
    AUDITOR_SUFFIX,
    AUDITORS,
    NONE,
    WITNESSES,
    Group,
    Kind,
    Log,
    Policy,
    Witness,
    check_separate,
    fingerprint,
    format_policy,
    parse_policy,
)
from verifier.record import NamedTuple

FORMAT = "nextcloud-audit/peers/1"
MAX_PEERS_SIZE = 256 * 1024
MAX_DESCRIPTION_SIZE = 1024 * 1024  # a node that watches thousands of logs names them all
MAX_PEERS = 128  # so that groups and witnesses stay below what a policy may have
MAX_OPERATOR_SIZE = 64
MAX_URL_SIZE = 1024
FINGERPRINT_SIZE = 16  # bytes: what two people read to each other; to find other keys for it takes 2^128 attempts
OPERATORS, PUBLIC, QUORUM = "operators", "public", "quorum"
_MARK = "# made by `nextcloud-audit peer`, fingerprint of the rest {}; remove this line to go on by hand\n"
_MARKED = re.compile(_MARK.format("([0-9a-f]{64})").encode())


class Description(NamedTuple):
    """The keys that a node says are its own. `auditor` is None of a plain C2SP witness."""

    witness: VerifierKey
    auditor: VerifierKey | None

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return (self.witness,) if self.auditor is None else (self.witness, self.auditor)


class Peer(NamedTuple):
    """A node that we have pinned. Without an operator it is a public witness."""

    operator: str | None
    url: str
    keys: Description

    @property
    def name(self) -> str:
        return self.keys.witness.name


class Peers(NamedTuple):
    """All that is declared. `url`: where peers reach our log; `quorum`: how many operators, None for the best."""

    url: str | None
    quorum: int | None
    peers: tuple[Peer, ...]


NOBODY = Peers(None, None, ())


# What a node says of itself


def parse_description(data: bytes) -> Description:
    """The keys in a node's answer to `GET /`. What it says beside them is not pinned, and not read."""
    value = parse_object(data, "self-description")
    keys = []
    for role in ("witness", "auditor"):
        where = f"self-description {role}"
        name, vkey = members(value.get(role), where, "name", "vkey")
        key = parse_cosigner(vkey, where)
        if name != key.name:
            raise Malformed(f"want the name of its key, {key.name}", where, name)
        keys.append(key)
    return check_description(Description(*keys))


def parse_cosigner(vkey: object, where: str) -> VerifierKey:
    key = parse_vkey(check_text(vkey, where, MAX_PEERS_SIZE), where)
    if key.algorithm != COSIGNATURE:
        raise Malformed(f"want a cosigner's key (type 0x{COSIGNATURE:02x})", where, f"0x{key.algorithm:02x}")
    return key


def check_description(keys: Description) -> Description:
    """Witness and auditor of one node are two keys, and their names tell which is which."""
    witness, auditor = keys
    if witness.name.endswith(AUDITOR_SUFFIX):
        raise Malformed(f"name must not end in {AUDITOR_SUFFIX}, which is for auditors", "witness key", witness.name)
    if auditor is not None:
        if auditor.name != witness.name + AUDITOR_SUFFIX:
            raise Malformed(f"want the name {witness.name}{AUDITOR_SUFFIX}", "auditor key", auditor.name)
        if auditor.public_key == witness.public_key:
            raise Malformed("is the witness's key as well: want two keys", "auditor key", auditor.name)
    return keys


def peer_fingerprint(keys: Description) -> str:
    """32 hexadecimal digits for both keys and their names, to be compared out of band (SPEC 8.5)."""
    return tagged("peer", *[text(format_vkey(key)) for key in keys.keys])[:FINGERPRINT_SIZE].hex()


def spaced(digits: str) -> str:
    """In fours, to be read aloud."""
    return " ".join([digits[i : i + 4] for i in range(0, len(digits), 4)])


def check_fingerprint(keys: Description, given: str) -> None:
    """What was given out of band is the fingerprint of these keys, whole; spaces and capitals do not matter."""
    want = peer_fingerprint(keys)
    digits = given.replace(" ", "").lower()
    if not re.fullmatch("[0-9a-f]{32}", digits):
        raise Usage(f"fingerprint: got {given!r}, want 32 hexadecimal digits, as `node show` prints them there")
    if digits != want:
        raise Refused(
            f"fingerprint: the keys have {spaced(want)}, you were told {spaced(digits)}: nothing was pinned. "
            "Somebody else answers at this address, or the node has new keys: ask its operator"
        )


def check_address(url: str, where: str) -> str:
    """A prefix that paths are put after, in one spelling: no slash at its end, and nothing a policy can't hold."""
    check_text(url, where, MAX_URL_SIZE)
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:
        good = False
    if not good or not url.isascii() or re.search(r"[\s?#\\]", url):
        raise Usage(f"{where}: got {url!r}, want http(s)://HOST[:PORT][/PATH]")
    return url.rstrip("/")


# Changing what is declared; each returns a new value


def add_peer(peers: Peers, new: Peer, logs: tuple[VerifierKey, ...]) -> Peers:
    """The peers and one more. A name, an address or a public key that is pinned already stays as it is."""
    for log in logs:
        if any(key.public_key == log.public_key or key.name == log.name for key in new.keys.keys):
            raise Refused(f"{new.name}: has the key or the name of the log {log.name} itself: nothing was pinned")
    for old in peers.peers:
        if old == new:
            return peers
        _check_other(old, new)
    if len(peers.peers) == MAX_PEERS:
        raise Refused(f"peers: want at most {MAX_PEERS}")
    return peers._replace(peers=(*peers.peers, new))


def _check_other(old: Peer, new: Peer) -> None:
    remove = f"If that is meant, `peer remove {old.name}` comes first"
    if old.keys == new.keys:
        raise Refused(
            f"{old.name}: is pinned already, at {old.url}, operator {old.operator or 'none (public)'}. {remove}"
        )
    if old.name == new.name:
        raise Refused(f"{old.name}: is pinned with other keys ({spaced(peer_fingerprint(old.keys))}). {remove}")
    if old.url == new.url:
        raise Refused(f"{new.url}: is pinned as {old.name}, with other keys. {remove}")
    for key in new.keys.keys:
        if key.public_key in [known.public_key for known in old.keys.keys]:
            raise Refused(f"{key.name}: has a public key of {old.name}: one key counts once, whatever its names")


def find_peer(peers: Peers, name: str) -> Peer:
    """By name or address."""
    for peer in peers.peers:
        if name == peer.name or name.rstrip("/") == peer.url:
            return peer
    known = ", ".join([peer.name for peer in peers.peers]) or "none"
    raise Usage(f"peer: there is no {name!r}, pinned are: {known}")


def remove_peer(peers: Peers, peer: Peer) -> Peers:
    return peers._replace(peers=tuple([other for other in peers.peers if other != peer]))


# The declaration's file


def format_peers(peers: Peers) -> bytes:
    listed = [
        {
            "name": peer.name,
            "operator": peer.operator,
            "url": peer.url,
            "witness": format_vkey(peer.keys.witness),
            "auditor": None if peer.keys.auditor is None else format_vkey(peer.keys.auditor),
        }
        for peer in peers.peers
    ]
    quorum = None if peers.quorum is None else str(peers.quorum)
    fields = {"format": FORMAT, "url": peers.url, "quorum": quorum, "peers": listed}
    return format_object(fields, "peers")


def parse_peers(data: bytes) -> Peers:
    """The declaration in its one spelling, no name, address or key twice."""
    fields = members(parse_object(data, "peers.json"), "peers.json", "format", "url", "quorum", "peers")
    declared, url, quorum, listed = fields
    if declared != FORMAT or type(listed) is not list:
        raise Malformed(f"want format {FORMAT} and a list of peers", "peers.json", declared)
    peers = Peers(
        None if url is None else check_address(str(url), "peers.json url"),
        None if quorum is None else decode_decimal(quorum, "peers.json quorum", MAX_PEERS),
        (),
    )
    for item in listed:
        peers = add_peer(peers, _parse_peer(item), ())
    if format_peers(peers) != data:
        raise Malformed("not in its one spelling, or a peer twice: was it edited?", "peers.json")
    return peers


def _parse_peer(item: object) -> Peer:
    name, operator, url, witness, auditor = members(item, "peers.json", "name", "operator", "url", "witness", "auditor")
    auditor_key = None if auditor is None else parse_cosigner(auditor, "peers.json auditor")
    keys = check_description(Description(parse_cosigner(witness, "peers.json witness"), auditor_key))
    if name != keys.witness.name:
        raise Malformed(f"want the name of its key, {keys.witness.name}", "peers.json", name)
    if operator is not None:
        operator = check_operator(str(operator))
    return Peer(operator, check_address(str(url), "peers.json url"), keys)


def check_operator(name: str) -> str:
    return check_name(check_text(name, "operator", MAX_OPERATOR_SIZE), "operator")


# The policies


def make_policy(peers: Peers, kind: Kind, logs: tuple[Log, ...]) -> Policy:
    """The policy that these peers make up. Operators are told apart, public witnesses are needed beside them."""
    witnesses: dict[str, Witness] = {}
    operators: dict[str | None, list[str]] = {}
    for peer in peers.peers:
        key = peer.keys.witness if kind == WITNESSES else peer.keys.auditor
        if key is not None:
            witnesses[peer.name] = Witness(key, peer.url)
            operators.setdefault(peer.operator, []).append(peer.name)
    public = tuple(operators.pop(None, ()))
    groups = {
        f"operator:{name}": Group(len(nodes) // 2 + 1 if kind == WITNESSES else 1, tuple(nodes))
        for name, nodes in operators.items()
        if len(nodes) > 1
    }
    units = tuple([f"operator:{name}" if len(nodes) > 1 else nodes[0] for name, nodes in operators.items()])
    if units:
        groups[OPERATORS] = Group(_threshold(peers.quorum, len(units), kind), units)
    if public:
        groups[PUBLIC] = Group(best_threshold(len(public)), public)
    if units and public:
        groups[QUORUM] = Group(2, (OPERATORS, PUBLIC))
    quorum = QUORUM if units and public else OPERATORS if units else PUBLIC if public else NONE
    return Policy(kind, logs, witnesses, groups, quorum)


def _threshold(wanted: int | None, n: int, kind: Kind) -> int:
    if wanted is None:
        return best_threshold(n)
    if kind == WITNESSES and not n < 2 * wanted <= 2 * n:
        raise Refused(
            f"quorum: got {wanted} of {n} operators, want {n // 2 + 1} to {n}: with half or less, two histories pass "
            f"(--quorum auto takes {best_threshold(n)})"
        )
    return min(wanted, n)


def render(peers: Peers, logs: tuple[Log, ...]) -> tuple[bytes, bytes]:
    """Both policy files. They were read back, so what is wrong with them is found before anything is written."""
    if peers.url is not None:
        logs = tuple([log._replace(url=peers.url) for log in logs])
    made = make_policy(peers, WITNESSES, logs), make_policy(peers, AUDITORS, logs)
    bodies = [format_policy(policy) for policy in made]
    check_separate(parse_policy(bodies[0], WITNESSES), parse_policy(bodies[1], AUDITORS))
    files = [_MARK.format(fingerprint(body)).encode() + body for body in bodies]
    return files[0], files[1]


def is_generated(data: bytes) -> bool:
    """Whether nobody has touched this policy file since it was made here, or by `init`."""
    first, newline, rest = data.partition(b"\n")
    marked = _MARKED.fullmatch(first + newline)
    if marked:
        return marked[1].decode() == fingerprint(rest)
    return first.startswith(b"log ") and rest == b"quorum none\n"
