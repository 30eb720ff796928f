"""Policies: the file's rules one by one, and the quorum's arithmetic against brute force over all small policies."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations_with_replacement, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import lint
from verifier import policy as p
from verifier.errors import BadSignature, Error, Malformed, QuorumNotMet
from verifier.note import COSIGNATURE, SIGNATURE, Note, Signature, SignerKey, cosign, format_vkey, sign_note
from verifier.policy import AUDITORS, WITNESSES, Group, Kind, Policy, Witness, parse_policy

LOG = SignerKey("log.example/a", SIGNATURE, b"\xf0" * 32)
WITNESS = [SignerKey(f"w{i}.example/witness", COSIGNATURE, bytes([i]) * 32) for i in range(8)]
AUDITOR = [SignerKey(f"a{i}.example/auditor", COSIGNATURE, bytes([100 + i]) * 32) for i in range(8)]
V = {f"V{i}": format_vkey(signer.verifier_key) for i, signer in enumerate(WITNESS)}
V |= {f"A{i}": format_vkey(signer.verifier_key) for i, signer in enumerate(AUDITOR)}
V |= {"LOG": format_vkey(LOG.verifier_key)}
TEXT = b"log.example/a\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def policy_file(text: str) -> bytes:
    """A policy file in which LOG, V0, V1, ..., A0, ... stand for vkeys, and ";" for the end of a line."""
    lines = [" ".join([V.get(word, word) for word in line.split(" ")]) for line in text.split(";")]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def read(text: str, kind: Kind = WITNESSES) -> Policy:
    return parse_policy(policy_file(text), kind)


def k_of_n(k: int, n: int, kind: Kind = WITNESSES) -> Policy:
    letter = "V" if kind == WITNESSES else "A"
    witnesses = "".join([f"witness w{i} {letter}{i};" for i in range(n)])
    return read(f"log LOG;{witnesses}group g {k} {' '.join([f'w{i}' for i in range(n)])};quorum g", kind)


# The file


SPEC_EXAMPLE = (
    "log LOG;;witness X1 V1;witness X2 V2;witness X3 V3;group X-witnesses 2 X1 X2 X3;;"
    "witness Y1 V4;witness Y2 V5;witness Y3 V6;group Y-witnesses any Y1 Y2 Y3;;"
    "group X-and-Y all X-witnesses Y-witnesses;quorum X-and-Y"
)


def test_spec_example() -> None:
    """The example of tlog-policy parses into its tree, and means what the spec says that it means."""
    policy = read(SPEC_EXAMPLE)
    assert policy.log_keys == (LOG.verifier_key,)
    assert policy.groups == {
        "X-witnesses": Group(2, ("X1", "X2", "X3")),
        "Y-witnesses": Group(1, ("Y1", "Y2", "Y3")),
        "X-and-Y": Group(2, ("X-witnesses", "Y-witnesses")),
    }
    for names, met in (
        ("X1 X2 Y3", True),
        ("X1 X2 X3", False),
        ("X1 Y1 Y2 Y3", False),
        ("X1 X3 Y1", True),
        ("", False),
    ):
        assert p.quorum_met(policy, dict.fromkeys(names.split(), 1)) == met
    assert (policy.q, policy.ov, policy.stoppers) == (3, 1, 2)
    assert p.describe_quorum(policy) == "X-and-Y (2 of 2)"


def test_blanks_comments_and_urls() -> None:
    """Spaces and tabs separate, empty and comment lines are ignored, urls are kept; a log may follow the quorum."""
    policy = read(
        " \t ;# a comment \u00fc;  \t# another;\twitness  \tw\t V1 \t https://w.example/#x ;"
        "quorum w;log LOG https://l\u00f6g/ "
    )
    assert policy.witnesses == {"w": Witness(WITNESS[1].verifier_key, "https://w.example/#x")}
    assert [log.url for log in policy.logs] == ["https://l\u00f6g/"]
    assert read("quorum none") == Policy(WITNESSES, (), {}, {}, "none")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("log LOG;witness w V1", "policy: want a quorum line"),
        ("quorum none;quorum none", "line 2: want one quorum line"),
        ("witness w V1;quorum w;witness v V2;quorum v", "line 4: want one quorum line"),
        ("quorum w;witness w V1", "line 1: want a name that is defined above, got 'w'"),
        ("quorum", "line 1: want log, witness, group or quorum with its items"),
        ("quorum none none", "line 1: want log, witness, group or quorum"),
        ("Quorum none", "line 1: want log, witness, group or quorum"),
        ("policy none;quorum none", "line 1: want log, witness, group or quorum"),
        ("log;quorum none", "line 1: want log, witness, group or quorum"),
        ("witness w;quorum none", "line 1: want log, witness, group or quorum"),
        ("witness w V1;group g any;quorum g", "line 2: want log, witness, group or quorum"),
        ("log LOG url more;quorum none", "line 1: want at most a url here"),
        ("log LOG #comment;quorum none", "line 1: want at most a url here; comments have lines of their own"),
        ("witness w V1 # comment;quorum w", "line 1: want at most a url here; comments have lines of their own"),
        ("witness w V1;quorum w # comment", "line 2: want log, witness, group or quorum"),
        ("witness none V1;quorum none", "line 1: name is defined already, got 'none'"),
        ("witness w V1;witness w V2;quorum w", "line 2: name is defined already, got 'w'"),
        ("witness w V1;group w any w;quorum w", "line 2: name is defined already"),
        ("witness w V1;witness v V1;quorum w", "line 2: public key occurs twice"),
        ("witness w V1;group g any w w;quorum g", "line 2: want a name in one group at most, got 'w'"),
        ("witness w V1;group g any w;group h any w;quorum h", "line 3: want a name in one group at most, got 'w'"),
        ("witness w V1;group g any none w;quorum g", "line 2: want a name that is defined above, got 'none'"),
        ("witness w V1;group g any g;quorum g", "line 2: want a name that is defined above, got 'g'"),
        ("group g any w;witness w V1;quorum g", "line 1: want a name that is defined above, got 'w'"),
        ("witness w V1;group g 0 w;quorum g", "line 2: want a threshold of 1 to 1, got 0"),
        ("witness w V1;group g 2 w;quorum g", "line 2: want a threshold of 1 to 1, got 2"),
        *[
            (f"witness w V1;group g {k} w;quorum g", "line 2: (want a decimal|leading zero)")
            for k in ("01", "+1", "-1", "1.", "1_", "ALL", "\u0661")
        ],
        ("witness w LOG;quorum w", "line 1: want a key of type 0x04, got '0x01'"),
        ("log V1;quorum none", "line 1: want a key of type 0x01, got '0x04'"),
        ("log V1x;quorum none", "line 1: want NAME"),
        ("witness w A1;quorum w", "line 1: key name must not end in /auditor in a policy of witnesses"),
        ("witness \udcff V1;quorum \\xff", "line 2: cannot be told from other octets above"),
        ("witness w V1;quorum w\r", "policy: octet not allowed, got b'.r'"),
        ("\x00;quorum none", "policy: octet not allowed"),
        ("#\x7f;quorum none", "policy: octet not allowed"),
        ("\ufeffquorum none", "line 1: want log, witness, group or quorum"),
        ("\u00a0quorum none", "line 1: want log, witness, group or quorum"),
    ],
)
def test_parse_refuses_with_a_reason(text: str, why: str) -> None:
    """Every rule of the file is kept, and the error names the line."""
    with pytest.raises(Malformed, match=why):
        read(text)


def test_every_line_ends_in_a_newline() -> None:
    """A file that was cut off is refused."""
    data = policy_file(SPEC_EXAMPLE)
    with pytest.raises(Malformed, match="policy: want a newline at its end"):
        parse_policy(data[:-1], WITNESSES)
    with pytest.raises(Malformed, match="policy: want a quorum line"):
        parse_policy(b"", WITNESSES)


def test_only_the_listed_octets_are_allowed() -> None:
    """09, 0A, 20 to 7E and 80 to FF may be in a file, also in a comment; the others may not."""
    for octet in range(256):
        data = b"#" + bytes([octet]) + b"#\nquorum none\n"
        if octet in (9, 10) or 0x20 <= octet != 0x7F:
            assert parse_policy(data, WITNESSES)
        else:
            with pytest.raises(Malformed, match="policy: octet not allowed"):
                parse_policy(data, WITNESSES)


def test_names_are_octets() -> None:
    """Names that look alike are different, and octets that are no UTF-8 are a name like any other."""
    policy = read(
        "witness K V1;witness \u212a V2;witness \udcff\udcfe V3;group any all K \u212a \udcff\udcfe;quorum any"
    )
    assert list(policy.witnesses) == ["K", "\u212a", "\\xff\\xfe"]
    assert parse_policy(p.format_policy(policy), WITNESSES) == policy


def test_one_public_key_counts_once() -> None:
    """A key under a second name, with a second id, as log and witness, is the same key."""
    again = SignerKey("again.example", COSIGNATURE, bytes([1]) * 32)
    log = SignerKey("log.example", SIGNATURE, bytes([1]) * 32)
    other_log = SignerKey("b.example", SIGNATURE, b"\xf0" * 32)
    for text in (
        f"witness w V1;witness v {format_vkey(again.verifier_key)};quorum w",
        f"witness w V1;log {format_vkey(log.verifier_key)};quorum w",
        f"log {format_vkey(log.verifier_key)};witness w V1;quorum w",
        f"log LOG;log {format_vkey(other_log.verifier_key)};quorum none",
    ):
        with pytest.raises(Malformed, match=r"policy line [12]: (public key occurs twice)"):
            read(text)


def test_kinds_exclude_each_other() -> None:
    """Auditors' keys end in /auditor and witnesses' do not, so neither file can stand in for the other."""
    assert read("witness a A1;quorum a", AUDITORS).kind == AUDITORS
    with pytest.raises(Malformed, match="key name must end in /auditor in a policy of auditors"):
        read("witness w V1;quorum w", AUDITORS)


def test_bounds_are_at_least_those_of_the_spec() -> None:
    """256 logs, witnesses and nested groups, each; one more of any is refused."""
    signers = [SignerKey(f"w{i}", COSIGNATURE, i.to_bytes(32, "big")) for i in range(257)]
    logs = [SignerKey(f"l{i}", SIGNATURE, (1000 + i).to_bytes(32, "big")) for i in range(257)]
    lines = {
        "witnesses": [f"witness w{i} {format_vkey(s.verifier_key)}" for i, s in enumerate(signers)],
        "logs": [f"log {format_vkey(s.verifier_key)}" for s in logs],
        "groups": ["group g0 any w0"] + [f"group g{i} any g{i - 1}" for i in range(1, 257)],
    }
    policy = read(";".join([line for some in lines.values() for line in some[:256]]) + ";quorum g255")
    assert (len(policy.logs), len(policy.witnesses), len(policy.groups)) == (256, 256, 256)
    assert (policy.q, p.quorum_met(policy, {"w0": 1}), p.quorum_met(policy, {"w1": 1})) == (1, True, False)
    for name in lines:
        with pytest.raises(Malformed, match=f"want at most 256 {name}"):
            read(";".join([x for k, some in lines.items() for x in (some if k == name else some[:1])]) + ";quorum w0")
    with pytest.raises(Malformed, match="policy: want at most 262144 bytes, got 262145"):
        parse_policy(b"#" * (p.MAX_POLICY_SIZE - 13) + b"\nquorum none\n\n", WITNESSES)


def test_format_is_plain_and_leads_back() -> None:
    """The canonical form of the spec's example has no comments, and parses to the same policy."""
    policy = read("# hello;" + SPEC_EXAMPLE + ";witness z V7 https://z.example/")
    assert parse_policy(p.format_policy(policy), WITNESSES) == policy
    expected = [line for line in policy_file(SPEC_EXAMPLE).split(b"\n") if line.startswith(b"log")]
    assert p.format_policy(policy).split(b"\n")[:1] == expected
    assert p.format_policy(policy).endswith(b"group X-and-Y 2 X-witnesses Y-witnesses\nquorum X-and-Y\n")


def test_fingerprint_is_of_the_bytes() -> None:
    """The fingerprint is a fixed hash, and a comment changes it."""
    assert p.fingerprint(b"quorum none\n") == "ffe9fe8772cbb484cb5fa475b657052c1754e4148100cb7df7fa967ec5ab05a6"
    assert p.fingerprint(b"#\nquorum none\n") != p.fingerprint(b"quorum none\n")


@given(
    st.lists(
        st.sampled_from([*V, "log", "witness", "group", "quorum", "none", "any", "all", "1", "w", ";", "#"]),
        max_size=25,
    )
)
def test_parse_raises_our_errors_only(words: list[str]) -> None:
    """Whatever words stand in a file, it parses and leads back to itself, or is Malformed."""
    try:
        policy = read(" ".join(words))
    except Error:
        return
    assert parse_policy(p.format_policy(policy), WITNESSES) == policy


# Cosigned notes


def cosigned(times: dict[int, int], *more: Signature, signers: list[SignerKey] = WITNESS) -> Note:
    return Note(TEXT, (sign_note(TEXT, LOG), *[cosign(TEXT, signers[i], time) for i, time in times.items()], *more))


def test_quorum_gives_times_by_name() -> None:
    """Who cosigned when, under the names of the policy, with the two times that follow."""
    verified = p.verify_quorum(k_of_n(3, 4), cosigned({0: 50, 3: 10, 1: 30, 7: 1}))
    assert verified == p.Cosigned({"w0": 50, "w3": 10, "w1": 30}, not_later_than=50, still_newest_at=10)
    assert p.verify_quorum(read("log LOG;quorum none"), cosigned({})) == p.Cosigned({}, None, None)


@pytest.mark.parametrize(("kind", "reason"), [(WITNESSES, "unwitnessed"), (AUDITORS, "not-replayed")])
def test_too_few_cosigners_are_named(kind: Kind, reason: str) -> None:
    """The error says what was asked, who is there, and who is missing, and which of the two claims fails."""
    signers = WITNESS if kind == WITNESSES else AUDITOR
    with pytest.raises(QuorumNotMet, match=r"quorum g \(3 of 4\) not met: valid w1, w2, missing w0, w3") as caught:
        p.verify_quorum(k_of_n(3, 4, kind), cosigned({2: 5, 1: 5}, signers=signers))
    assert caught.value.reason == reason
    other = AUDITOR if kind == WITNESSES else WITNESS
    with pytest.raises(QuorumNotMet, match="valid none"):
        p.verify_quorum(k_of_n(1, 4, kind), cosigned({0: 5, 1: 5, 2: 5, 3: 5}, signers=other))


def test_one_bad_line_refuses_a_met_quorum() -> None:
    """A known key's line that does not hold, has a time of 0, or stands twice refuses the note; unknown ones do not."""
    policy = k_of_n(2, 4)
    good = cosign(TEXT, WITNESS[3], 5)
    unknown = cosign(b"other\n", WITNESS[6], 5)
    assert p.verify_quorum(policy, cosigned({0: 1, 1: 2}, unknown, unknown)).times == {"w0": 1, "w1": 2}
    zero = good._replace(blob=bytes(8) + WITNESS[3].sign(b"cosignature/v1\ntime 0\n" + TEXT))
    for bad in (cosign(b"other\n", WITNESS[3], 5), good._replace(blob=good.blob[:-1]), zero):
        with pytest.raises(BadSignature, match="w3.example/witness"):
            p.verify_quorum(policy, cosigned({0: 1, 1: 2}, bad))
    with pytest.raises(Malformed, match="want one signature line of w3.example/witness"):
        p.verify_quorum(policy, cosigned({0: 1, 1: 2}, good, good))


def test_same_bytes_by_the_other_key_do_not_count() -> None:
    """Auditors of the same nodes never make a witness quorum, nor the other way round."""
    note = Note(TEXT, tuple([cosign(TEXT, signer, 9) for signer in [*WITNESS[:3], *AUDITOR[:2]]]))
    assert len(p.verify_quorum(k_of_n(3, 4), note).times) == 3
    assert len(p.verify_quorum(k_of_n(2, 4, AUDITORS), note).times) == 2
    with pytest.raises(QuorumNotMet):
        p.verify_quorum(k_of_n(3, 4, AUDITORS), note)


# Brute force: a policy is a tree, a set of cosigners satisfies it or not.


Shape = tuple[int, tuple["Shape", ...]] | None  # threshold and members, or a witness


@cache
def shapes(leaves: int) -> list[Shape]:
    """All trees with so many witnesses, members in any one order, groups of two or more."""
    if leaves == 1:
        return [None]
    found: list[Shape] = []
    for sizes in partitions(leaves, leaves - 1):
        counts = [(size, sizes.count(size)) for size in dict.fromkeys(sizes)]
        choices = [list(combinations_with_replacement(shapes(size), count)) for size, count in counts]
        for choice in product(*choices):
            members = tuple([member for part in choice for member in part])
            found += [(k, members) for k in range(1, len(members) + 1)]
    return found


def partitions(total: int, largest: int) -> Iterator[list[int]]:
    if total == 0:
        yield []
    for first in range(min(total, largest), 0, -1):
        for rest in partitions(total - first, first):
            yield [first, *rest]


def as_policy(shape: Shape) -> Policy:
    """The shape as a policy; its witnesses are w0, w1, ... from left to right."""
    witnesses: dict[str, Witness] = {}
    groups: dict[str, Group] = {}

    def define(part: Shape) -> str:
        if part is None:
            name = f"w{len(witnesses)}"
            witnesses[name] = Witness(WITNESS[len(witnesses)].verifier_key, "")
        else:
            members = tuple([define(member) for member in part[1]])
            name = f"g{len(groups)}"
            groups[name] = Group(part[0], members)
        return name

    quorum = define(shape)
    return Policy(WITNESSES, (), witnesses, groups, quorum)


def is_satisfied(policy: Policy, name: str, who: frozenset[str]) -> bool:
    """The definition, top down: a witness that is there, or a group of which k members hold."""
    if name in policy.witnesses:
        return name in who
    group = policy.groups[name]
    return sum([is_satisfied(policy, member, who) for member in group.members]) >= group.threshold


def subsets(policy: Policy) -> list[frozenset[str]]:
    names = list(policy.witnesses)
    return [frozenset([n for i, n in enumerate(names) if bits >> i & 1]) for bits in range(1 << len(names))]


@pytest.mark.parametrize("leaves", [1, 2, 3, 4, 5, 6])
def test_all_small_policies_equal_brute_force(leaves: int) -> None:
    """Met or not, q, ov, stoppers and both times are what trying every set of cosigners gives, for every policy."""
    random = Random(leaves)
    for shape in shapes(leaves):
        policy = as_policy(shape)
        everyone = frozenset(policy.witnesses)
        quorums = []
        for who in subsets(policy):
            met = is_satisfied(policy, policy.quorum, who)
            assert p.quorum_met(policy, dict.fromkeys(who, 1)) == met
            quorums += [who] if met else []
        smallest = [one for one in quorums if not any(other < one for other in quorums)]
        assert policy.q == min(map(len, quorums))
        assert policy.ov == min([len(one & other) for one in smallest for other in smallest])
        assert policy.stoppers == min([len(gone) for gone in subsets(policy) if everyone - gone not in quorums])
        times = {name: random.randint(1, 9) for name in policy.witnesses if random.random() < 0.8}
        early = [t for t in range(10) if frozenset([n for n in times if times[n] <= t]) in quorums]
        late = [t for t in range(10) if frozenset([n for n in times if times[n] >= t]) in quorums]
        assert p.not_later_than(policy, times) == (min(early) if early else None)
        assert p.still_newest_at(policy, times) == (max(late) if late else None)


def test_overlap_holds_for_all_quorums_not_only_smallest() -> None:
    """The overlap over all pairs of satisfying sets, not just minimal ones, is ov too."""
    for leaves in range(1, 5):
        for shape in shapes(leaves):
            policy = as_policy(shape)
            quorums = [who for who in subsets(policy) if is_satisfied(policy, policy.quorum, who)]
            assert policy.ov == min([len(one & other) for one in quorums for other in quorums])


def test_one_liar_moves_neither_time_beyond_an_honest_one() -> None:
    """In a 3-of-4 a single liar cannot make a tree look older or fresher than some honest cosigner says."""
    policy = k_of_n(3, 4)
    for lie in (1, 10**12):
        times = {"w0": 100, "w1": 110, "w2": 120, "w3": lie}
        assert p.not_later_than(policy, times) in (110, 120)
        assert p.still_newest_at(policy, times) in (100, 110)
    assert p.not_later_than(policy, {"w0": 100, "w1": 110}) is None
    assert p.still_newest_at(policy, {"w0": 100, "w1": 110}) is None


@pytest.mark.parametrize(
    ("k", "n", "q", "ov"),
    [(1, 1, 1, 1), (2, 3, 2, 1), (3, 4, 3, 2), (4, 5, 4, 3), (3, 5, 3, 1), (5, 7, 5, 3), (2, 4, 2, 0)],
)
def test_flat_policies_have_the_known_numbers(k: int, n: int, q: int, ov: int) -> None:
    """q = k and ov = 2k - n."""
    policy = k_of_n(k, n)
    assert (policy.q, policy.ov, policy.stoppers) == (q, ov, n - k + 1)
    none = read("log LOG;witness w V1;quorum none")
    assert (none.q, none.ov, none.stoppers) == (0, 0, 0)
    assert p.quorum_met(none, {})
    assert p.not_later_than(none, {"w": 5}) is None
    assert p.still_newest_at(none, {"w": 5}) is None


# Judging


def test_separate_policies_share_the_log_alone() -> None:
    """Both files name the same log, and no node's key is in both, whatever its name."""
    witnesses, auditors = k_of_n(3, 4), k_of_n(2, 3, AUDITORS)
    p.check_separate(witnesses, auditors)
    twice = SignerKey("w0.example/auditor", COSIGNATURE, bytes([0]) * 32)
    other = SignerKey("log.example/a", SIGNATURE, b"\xf1" * 32)
    for wrong, why in (
        (
            read(f"log LOG;witness a {format_vkey(twice.verifier_key)};quorum a", AUDITORS),
            "public key is a witness's as well",
        ),
        (read(f"log {format_vkey(other.verifier_key)};witness a A0;quorum a", AUDITORS), "want the same log in both"),
        (read("witness a A0;quorum a", AUDITORS), "want the same log in both"),
        (witnesses, "want one of witnesses and one of auditors"),
    ):
        with pytest.raises(Malformed, match=why):
            p.check_separate(witnesses, wrong)
    with pytest.raises(Malformed, match="want the same log in both"):
        p.check_separate(read("quorum none"), read("quorum none", AUDITORS))


@pytest.mark.parametrize(
    ("policy", "warnings"),
    [
        (k_of_n(3, 4), []),
        (k_of_n(2, 4, AUDITORS), []),
        (k_of_n(2, 4), ["ov = 0"]),
        (k_of_n(3, 5), ["ov = 1: a single lying witness"]),
        (k_of_n(4, 4), ["a single witness that is down"]),
        (k_of_n(1, 3, AUDITORS), ["q = 1: a single lying auditor"]),
        (read("log LOG;quorum none"), ["quorum none: nothing is asked of any witness"]),
        (read("quorum none", AUDITORS), ["no log is named", "quorum none: nothing is asked of any auditor"]),
        (
            read("log LOG;witness a V1;witness b V2;group g any b;quorum a"),
            ["ov = 1", "a single witness that is down", "defined, and no part of the quorum: b, g"],
        ),
    ],
)
def test_lint_says_what_is_weak(policy: Policy, warnings: list[str]) -> None:
    """Each weakness gives one line, a sound policy none."""
    found = lint.lint(policy)
    assert len(found) == len(warnings), found
    assert all(line.startswith(start) for line, start in zip(found, warnings, strict=True))


def test_lint_names_what_looks_like_one_operator() -> None:
    """Cosigners that share a host name, with each other or with the log, are pointed out."""
    own = SignerKey("log.example/witness", COSIGNATURE, b"\xe0" * 32)
    twins = [SignerKey(f"t.example/{i}", COSIGNATURE, bytes([0xE1 + i]) * 32) for i in range(2)]
    keys = [format_vkey(signer.verifier_key) for signer in (own, *twins)]
    policy = read(
        f"log LOG;witness o {keys[0]};witness t {keys[1]};witness u {keys[2]};witness v V1;group g 3 o t u v;quorum g"
    )
    assert lint.lint(policy) == [
        "operator t.example can let two histories pass alone (t, u); "
        "better: its nodes in a group that counts as one witness",
        "witness o bears the log's own host name log.example: a log that vouches for itself adds nothing; "
        "better: leave it out",
    ]
    apart = {"t": "the university", "u": "the library"}
    assert len(lint.lint(policy, apart)) == 1, "who was declared is not guessed about"


@pytest.mark.parametrize(
    ("k", "kind", "run_by_x", "does"),
    [
        (3, WITNESSES, 3, "fills a quorum alone (w0, w1, w2)"),
        (3, WITNESSES, 2, "can let two histories pass alone (w0, w1)"),
        (3, AUDITORS, 2, "can stop all proofs from getting newer alone (w0, w1)"),
        (2, AUDITORS, 2, "fills a quorum alone (w0, w1)"),
        (3, WITNESSES, 1, None),
    ],
)
def test_lint_says_what_one_operator_can_do_alone(k: int, kind: Kind, run_by_x: int, does: str | None) -> None:
    """Whoever runs several nodes can lie with all of them, whatever their names."""
    found = lint.lint(k_of_n(k, 4, kind), {f"w{i}": "x" for i in range(run_by_x)})
    assert [line for line in found if line.startswith("operator x ")] == (
        []
        if does is None
        else [f"operator x {does}; better: its nodes in a group that counts as one {found_one(kind)}"]
    )


def found_one(kind: Kind) -> str:
    return "auditor" if kind == AUDITORS else "witness"


@pytest.mark.parametrize("leaves", [2, 3, 4, 5])
def test_operators_equal_brute_force(leaves: int) -> None:
    """What two witnesses of one operator can do alone is what trying every two quorums says, for every policy."""
    for shape in shapes(leaves):
        policy = as_policy(shape)
        names = frozenset(["w0", "w1"])
        quorums = [who for who in subsets(policy) if is_satisfied(policy, policy.quorum, who)]
        forks = policy.ov > 0 and any(one & other <= names for one in quorums for other in quorums)
        stops = frozenset(policy.witnesses) - names not in quorums
        lines = [line for line in lint.lint(policy, dict.fromkeys(names, "x")) if line.startswith("operator x ")]
        assert bool(lines) == (names in quorums or forks or stops), policy
        if lines and names not in quorums:
            assert ("two histories" in lines[0]) == forks


def test_lint_names_the_better_choice() -> None:
    """A weak number comes with one that stands a liar."""
    assert "; better: 4 of 5" in lint.lint(k_of_n(3, 5))[0]
    assert "; better: 3 of 4" in lint.lint(k_of_n(4, 4))[0]
    assert "; better: 3 of 4, under four operators" in lint.lint(k_of_n(2, 3))[0]
    assert [lint.best_threshold(n) for n in (1, 2, 3, 4, 5, 7, 10)] == [1, 2, 2, 3, 4, 5, 7]
    for n in range(4, 8):
        assert lint.lint(k_of_n(lint.best_threshold(n), n)) == []


def test_lint_separate_names_a_key_in_two_roles() -> None:
    """One key in both files, and an auditor that comes from nowhere, are said."""
    twice = SignerKey("w0.example/witness/auditor", COSIGNATURE, bytes([0]) * 32)
    auditors = read(f"log LOG;witness a {format_vkey(twice.verifier_key)};quorum a", AUDITORS)
    assert "auditor's public key is a witness's as well" in lint.lint_separate(k_of_n(3, 4), auditors)[0]
    assert "no witness here" in lint.lint_separate(k_of_n(3, 4), k_of_n(3, 4, AUDITORS))[0]
    own = SignerKey("w0.example/witness/auditor", COSIGNATURE, b"\xaa" * 32)
    auditors = read(f"log LOG;witness a {format_vkey(own.verifier_key)};quorum a", AUDITORS)
    assert lint.lint_separate(k_of_n(3, 4), auditors) == []
