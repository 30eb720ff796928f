"""Trust policies: which logs, which cosigners, and how many of them are enough (c2sp.org/tlog-policy).

    # two of ours, and one of the university's
    log example.com/log+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k https://example.com/log/

    witness a1 a.example/witness+...
    witness a2 a.example.org/witness+... https://a.example.org/
    witness u  u.example/witness+...
    group ours any a1 a2
    group both all ours u
    quorum both

    log <vkey> [<url>] | witness <name> <vkey> [<url>] | group <name> all|any|<k> <name>... | quorum <name>|none

Octets 09, 0A, 20-7E and 80-FF; items are separated by spaces and tabs; every line ends in a newline; a comment is a
line that starts with "#". Names are octets without meaning outside of the file; a name is defined once, before it is
used, and is a member of one group at most, so the quorum is a tree and no cosigner counts twice. One quorum line. Keys
of logs are of type 01, of witnesses 04, and no public key occurs twice, whatever its names. Stricter than the spec: a
key may not be log and witness at once; no url starts with "#", which is a comment in the wrong place.

Two kinds of policy have the same form. Witnesses say that the log only grew; auditors, that they replayed it. Both sign
the same bytes, so only the key tells which was said: auditors' vkey names end in "/auditor", and each kind refuses
the other's (SPEC 8). `check_separate` compares both files.

Every question about a quorum is one fold over the tree, in the order of the definitions, groups after their members:

    question                     a witness               a group of k of n
    is it met                    has a valid time        at least k members are
    not later than               its time, or never      the k-th smallest of its members
    still the newest at          its time, or never      the k-th largest
    q, the smallest quorum       1                       the sum of its k smallest members
    ov, the smallest overlap     1                       the sum of its 2k - n smallest members, 0 if 2k <= n
    the fewest that can stop it  1                       the sum of its n - k + 1 smallest members

All of them are exact, since members of different groups are different cosigners. (ov: two quorums choose k of n
members each and share 2k - n at least; they can share just the smallest ones, and overlap there as little as those
can.)

Not checked here: who operates a cosigner, and whether a policy is a good one (`verifier.lint`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from verifier.encoding import MAX_U64, decode_decimal, tagged
from verifier.errors import Malformed, QuorumNotMet
from verifier.note import COSIGNATURE, SIGNATURE, Note, VerifierKey, format_vkey, parse_vkey, verify_cosignatures
from verifier.record import NamedTuple

MAX_POLICY_SIZE = 256 * 1024
MAX_LOGS = 256  # tlog-policy: "at least up to 32 logs, 32 witnesses, and 32 groups"
MAX_WITNESSES = 256
MAX_GROUPS = 256

Kind = Literal["witnesses", "auditors"]
WITNESSES: Kind = "witnesses"
AUDITORS: Kind = "auditors"
AUDITOR_SUFFIX = "/auditor"  # SPEC 8.1: the last part of every auditor's key name, and of no witness's
NONE = "none"

_OCTETS = bytes([0x09, 0x0A, *range(0x20, 0x7F), *range(0x80, 0x100)])
_REASON = {WITNESSES: "unwitnessed", AUDITORS: "not-replayed"}
_NEVER = 2**63  # later than every timestamp


class Log(NamedTuple):
    """A log. `url` is empty where the file names none."""

    key: VerifierKey
    url: str


class Witness(NamedTuple):
    """A cosigner, be it witness or auditor. `url` is empty where the file names none."""

    key: VerifierKey
    url: str


class Group(NamedTuple):
    """Holds when `threshold` of its members do."""

    threshold: int
    members: tuple[str, ...]


class Policy(NamedTuple):
    """A parsed policy. Witnesses and groups by name, in the order of the file; `quorum` names one, or is "none"."""

    kind: Kind
    logs: tuple[Log, ...]
    witnesses: dict[str, Witness]
    groups: dict[str, Group]
    quorum: str

    @property
    def log_keys(self) -> tuple[VerifierKey, ...]:
        """What `open_checkpoint` wants: a key's name is the origin that it speaks for."""
        return tuple([log.key for log in self.logs])

    @property
    def q(self) -> int:
        """The size of the smallest quorum: so many cosigners have to lie before a false time or tree passes."""
        return fold_quorum(self, lambda _: 1, lambda k, sizes: sum(sizes[:k]))

    @property
    def ov(self) -> int:
        """The smallest overlap of two quorums: so many cosigners have to lie before two histories both pass."""
        return fold_quorum(self, lambda _: 1, lambda k, overlaps: sum(overlaps[: max(0, 2 * k - len(overlaps))]))

    @property
    def stoppers(self) -> int:
        """The fewest cosigners without whom no quorum is met (0 for `quorum none`, which nobody can stop)."""
        return fold_quorum(self, lambda _: 1, lambda k, sizes: sum(sizes[: len(sizes) - k + 1]))


class Cosigned(NamedTuple):
    """A quorum that was met: the valid times by the policy's names, and what follows from them.

    `not_later_than`: by then the quorum had seen this tree. `still_newest_at`: then the quorum had seen none newer.
    Both are None where the policy says `quorum none`: nobody stated a time.
    """

    times: dict[str, int]
    not_later_than: int | None
    still_newest_at: int | None


# The file


def parse_policy(data: bytes, kind: Kind) -> Policy:
    """The policy in a file of this kind. Every key in it is sound and occurs once."""
    if len(data) > MAX_POLICY_SIZE:
        raise Malformed(f"want at most {MAX_POLICY_SIZE} bytes", "policy", len(data))
    if others := data.translate(None, _OCTETS):
        raise Malformed("octet not allowed", "policy", others[:1])
    lines = data.split(b"\n")
    if lines.pop():
        raise Malformed("want a newline at its end", "policy")
    parser = _Parser(kind)
    for number, line in enumerate(lines, 1):
        words = [word for word in line.replace(b"\t", b" ").split(b" ") if word]
        if words and not words[0].startswith(b"#"):
            parser.add_line(f"policy line {number}", words)
    return parser.finish()


def format_policy(policy: Policy) -> bytes:
    """The same policy in its plainest form: logs, witnesses, groups, quorum; no comments, single spaces."""
    lines = [f"log {format_vkey(log.key)} {log.url}" for log in policy.logs]
    lines += [f"witness {name} {format_vkey(w.key)} {w.url}" for name, w in policy.witnesses.items()]
    lines += [f"group {name} {g.threshold} {' '.join(g.members)}" for name, g in policy.groups.items()]
    lines += [f"quorum {policy.quorum}"]
    return "".join([line.rstrip(" ") + "\n" for line in lines]).encode("utf-8")


def fingerprint(data: bytes) -> str:
    """What a user compares to know a policy file again: SHA3-256 over its bytes, comments and all."""
    return tagged("policy", data).hex()


class _Parser:
    """Takes the lines of a policy file, one by one, and knows what was defined above."""

    __slots__ = ("groups", "keys", "kind", "logs", "members", "octets", "quorum", "where", "witnesses")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.logs: list[Log] = []
        self.witnesses: dict[str, Witness] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self.keys: set[bytes] = set()
        self.members: set[str] = set()
        self.octets: dict[str, bytes] = {}
        self.where = ""

    def add_line(self, where: str, words: list[bytes]) -> None:
        self.where = where
        keyword, *items = [self._text(word) for word in words]
        match keyword, items:
            case "log", [vkey, *url]:
                self._add_log(vkey, self._url(url))
            case "witness", [name, vkey, *url]:
                self._add_witness(name, vkey, self._url(url))
            case "group", [name, threshold, *members] if members:
                self._add_group(name, threshold, members)
            case "quorum", [name]:
                self._set_quorum(name)
            case _:
                raise Malformed("want log, witness, group or quorum with its items", where, " ".join([keyword, *items]))

    def finish(self) -> Policy:
        if self.quorum is None:
            raise Malformed("want a quorum line", "policy")
        return Policy(self.kind, tuple(self.logs), self.witnesses, self.groups, self.quorum)

    def _text(self, word: bytes) -> str:
        """Octets as text that can be shown. Two words that differ in octets alone and look the same are refused."""
        text = word.decode("utf-8", "backslashreplace")
        if self.octets.setdefault(text, word) != word:
            raise Malformed("cannot be told from other octets above", self.where, text)
        return text

    def _url(self, items: list[str]) -> str:
        if len(items) > 1 or items and items[0].startswith("#"):
            raise Malformed("want at most a url here; comments have lines of their own", self.where, " ".join(items))
        return items[0] if items else ""

    def _key(self, vkey: str, algorithm: int) -> VerifierKey:
        key = parse_vkey(vkey, self.where)
        if key.algorithm != algorithm:
            raise Malformed(f"want a key of type 0x{algorithm:02x}", self.where, f"0x{key.algorithm:02x}")
        if key.public_key in self.keys:
            raise Malformed("public key occurs twice", self.where, vkey)
        self.keys.add(key.public_key)
        return key

    def _add_log(self, vkey: str, url: str) -> None:
        self.logs.append(Log(self._key(vkey, SIGNATURE), url))
        if len(self.logs) > MAX_LOGS:
            raise Malformed(f"want at most {MAX_LOGS} logs", self.where)

    def _add_witness(self, name: str, vkey: str, url: str) -> None:
        self._check_new(name)
        key = self._key(vkey, COSIGNATURE)
        if key.name.endswith(AUDITOR_SUFFIX) != (self.kind == AUDITORS):
            verb = "must" if self.kind == AUDITORS else "must not"
            raise Malformed(f"key name {verb} end in {AUDITOR_SUFFIX} in a policy of {self.kind}", self.where, key.name)
        self.witnesses[name] = Witness(key, url)
        if len(self.witnesses) > MAX_WITNESSES:
            raise Malformed(f"want at most {MAX_WITNESSES} witnesses", self.where)

    def _add_group(self, name: str, threshold: str, members: list[str]) -> None:
        self._check_new(name)
        for member in members:
            self._check_defined(member)
            if member in self.members:
                raise Malformed("want a name in one group at most", self.where, member)
            self.members.add(member)
        words = {"any": 1, "all": len(members)}
        k = words[threshold] if threshold in words else decode_decimal(threshold, self.where)
        if not 1 <= k <= len(members):
            raise Malformed(f"want a threshold of 1 to {len(members)}", self.where, k)
        self.groups[name] = Group(k, tuple(members))
        if len(self.groups) > MAX_GROUPS:
            raise Malformed(f"want at most {MAX_GROUPS} groups", self.where)

    def _set_quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise Malformed("want one quorum line", self.where, name)
        if name != NONE:
            self._check_defined(name)
        self.quorum = name

    def _check_new(self, name: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise Malformed("name is defined already", self.where, name)

    def _check_defined(self, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            raise Malformed("want a name that is defined above", self.where, name)


# The quorum


def verify_quorum(policy: Policy, note: Note, not_after: int = MAX_U64) -> Cosigned:
    """Who cosigned and when, once they are enough. The log's own signature is `open_checkpoint`'s business.

    Every line of a key in this policy has to hold, else BadSignature: a note with a forged line is no note. A
    cosignature later than `not_after` (the caller's clock and its bound) counts for nothing.
    """
    times = {name: time for name, time in cosigned_times(policy, note).items() if time <= not_after}
    by = not_later_than(policy, times)
    if by is None and policy.quorum != NONE:
        missing = tuple([name for name in policy.witnesses if name not in times])
        raise QuorumNotMet(_REASON[policy.kind], describe_quorum(policy), tuple(times), missing)
    return Cosigned(times, by, still_newest_at(policy, times))


def cosigned_times(policy: Policy, note: Note) -> dict[str, int]:
    """When each cosigner of this policy signed, of those that have a line; BadSignature where one does not hold."""
    return verify_cosignatures(note, {name: witness.key for name, witness in policy.witnesses.items()})


def quorum_met(policy: Policy, times: Mapping[str, int]) -> bool:
    """Whether these cosigners satisfy the quorum."""
    if policy.quorum == NONE:
        return True
    return bool(fold_quorum(policy, lambda name: int(name in times), lambda k, met: int(sum(met) >= k)))


def not_later_than(policy: Policy, times: Mapping[str, int]) -> int | None:
    """The smallest T such that the cosigners with a time of at most T satisfy the quorum; None if there is none."""
    time = fold_quorum(policy, lambda name: times.get(name, _NEVER), lambda k, ts: ts[k - 1])
    return time if 0 < time < _NEVER else None


def still_newest_at(policy: Policy, times: Mapping[str, int]) -> int | None:
    """The largest T such that the cosigners with a time of at least T satisfy the quorum; None if there is none."""
    return fold_quorum(policy, lambda name: times.get(name, 0), lambda k, ts: ts[-k]) or None


def describe_quorum(policy: Policy) -> str:
    """The quorum in a few words: `both (2 of 2)`."""
    group = policy.groups.get(policy.quorum)
    return f"{policy.quorum} ({group.threshold} of {len(group.members)})" if group else policy.quorum


def fold_quorum(policy: Policy, of_witness: Callable[[str], int], of_group: Callable[[int, list[int]], int]) -> int:
    """The quorum's value: a group's is made of its threshold and the sorted values of its members. 0 for `none`."""
    values = {name: of_witness(name) for name in policy.witnesses}
    for name, group in policy.groups.items():
        values[name] = of_group(group.threshold, sorted([values[member] for member in group.members]))
    return values.get(policy.quorum, 0)


# Two policies


def check_separate(witnesses: Policy, auditors: Policy) -> None:
    """Both files are about the same logs, and no key in one of them cosigns or logs in the other."""
    if (witnesses.kind, auditors.kind) != (WITNESSES, AUDITORS):
        raise Malformed("want one of witnesses and one of auditors", "policies", f"{witnesses.kind}, {auditors.kind}")
    if set(witnesses.log_keys) != set(auditors.log_keys) or not witnesses.logs:
        raise Malformed("want the same log in both", "policies", f"{_origins(witnesses)} and {_origins(auditors)}")
    public_keys = {witness.key.public_key for witness in witnesses.witnesses.values()}
    for name, auditor in auditors.witnesses.items():
        if auditor.key.public_key in public_keys:
            raise Malformed("auditor's public key is a witness's as well", "policies", name)


def _origins(policy: Policy) -> str:
    return ", ".join([log.key.name for log in policy.logs]) or "no log"
