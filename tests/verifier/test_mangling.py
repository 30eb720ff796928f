"""No mangled proof, policy, note or key ever verifies a different claim.

One rich and honest proof (a second generation, a seal, an erased part, a replaced path, checkpoints around the last
entry, cosigners whose times differ) is bent in every way that this file can think of. Each result is Malformed, or not
VERIFIED, or VERIFIED with the very same claim: file id, path, content, chain head, and times that are not better than
the honest ones. A server may leave cosigners out above the quorum, and a bracket; that can only weaken the times.
"""

from __future__ import annotations

import json
from binascii import a2b_base64
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from tests.builder import World
from tests.verifier.worlds import noted
from verifier.checkpoint import open_checkpoint
from verifier.encoding import encode_base64
from verifier.entry import CloseReason, Content, Erased, Operation, Part
from verifier.errors import Malformed, NotVerified
from verifier.note import format_vkey, parse_vkey
from verifier.policy import AUDITORS, WITNESSES, parse_policy, verify_quorum
from verifier.proof import Line, Proof, format_proof, parse_proof
from verifier.verdict import Memory, Question, Report, Times, Trust, Verdict
from verifier.verify import verify

VALUES = (0x01, 0x02, 0x10, 0x80)  # what a byte is changed by
HASH_LISTS = ("siblings", "hashes", "commitment", "last")


class Honest(NamedTuple):
    """The proof that is bent, and those who ask about it."""

    world: World
    trust: Trust
    proof: Proof
    memory: Memory

    @property
    def data(self) -> bytes:
        return format_proof(self.proof)


@cache
def honest() -> Honest:
    world = World(3, 2)
    world.record(1, Operation.CREATED, b"old", "a.txt")
    world.record(2, Operation.CREATED, b"one", "b.txt")
    pinned = world.publish()
    world.close(1, CloseReason.REUSED_ID)
    world.record(2, Operation.WRITTEN, b"two", "b.txt")
    world.publish()
    world.close(2)
    world.continue_(2, b"two", "b.txt")
    world.publish()
    world.record_seal(2)
    world.record(2, Operation.ERASED, argument=Erased(0, Part.CONTEXT))
    world.erase(world.histories[2], 0, Part.CONTEXT)
    world.publish()
    world.record(2, Operation.MOVED, b"two", "a.txt")
    covers = world.publish()
    world.record(3, Operation.CREATED, b"other", "c.txt")
    world.publish()
    for number, size in enumerate(sorted(world.notes)):
        start = world.now + 100 * number
        world.notes[size] = noted(world, size, [start, start + 10, start + 20])
    world.now += 1_000
    proof = world.prove(2, pinned=pinned, replaces=(1,))
    assert (proof.first is not None, proof.before is not None) == (True, True)
    assert proof.first is not None
    assert proof.first.checkpoint == world.notes[covers]
    return Honest(world, world.trust, proof, Memory(world.notes[pinned], None, 1))


def reports(data: bytes, trust: Trust | None = None) -> Iterator[Report]:
    """What two users hear: one who asks by file id and has no state, and one who asks by path and has some.

    Neither says which bytes are meant, so that a proof of other bytes would be believed.
    """
    world, trusted, _, memory = honest()
    trusted = trust or trusted
    yield verify(parse_proof(data), trusted, Question(world.now, None, None, 2), Memory())
    yield verify(parse_proof(data), trusted, Question(world.now, None, "a.txt"), memory)


def claim(report: Report) -> tuple[object, ...]:
    chain, proof = report.chain, report.proof
    assert chain is not None
    content = chain.content
    assert isinstance(content, Content)
    named = (proof.log, proof.source, proof.file_id, proof.generation, proof.root, proof.chain_id)
    return *named, chain.path, content, chain.version, chain.seq, chain.head, proof.map


@cache
def honest_report() -> Report:
    by_id, by_path = reports(honest().data)
    assert (by_id.findings, by_path.findings) == ([], [])
    assert (by_id.verdict, claim(by_id), by_id.times) == (by_path.verdict, claim(by_path), by_path.times)
    return by_id


def no_better(got: Times | None, than: Times | None) -> bool:
    assert got is not None
    assert than is not None
    after = got.not_before is None or (than.not_before is not None and got.not_before <= than.not_before)
    return after and got.not_later_than >= than.not_later_than and got.still_newest_at <= than.still_newest_at


def outcome(data: bytes, trust: Trust | None = None) -> list[str]:
    """The verdicts on mangled bytes, once none of them is VERIFIED for another claim."""
    verdicts = []
    try:
        for report in reports(data, trust):
            verdicts.append(report.verdict.value)
            if report.verdict is Verdict.VERIFIED:
                assert claim(report) == claim(honest_report())
                assert trust is not None or no_better(report.times, honest_report().times)
    except Malformed:
        verdicts.append("MALFORMED")
    return verdicts


def outcomes(mangled: Iterator[bytes]) -> Counter[str]:
    """How often each verdict fell; a test looks at it so that it can't pass by mangling nothing."""
    counted: Counter[str] = Counter()
    for data in mangled:
        if data != honest().data:
            counted.update(outcome(data))
    return counted


def flipped(data: bytes, positions: range) -> Iterator[bytes]:
    for position in positions:
        for value in VALUES:
            yield data[:position] + bytes([data[position] ^ value]) + data[position + 1 :]


def rearranged(items: list[Any]) -> Iterator[list[Any]]:
    """Each item dropped, doubled, and swapped with the next one."""
    for index in range(len(items)):
        yield items[:index] + items[index + 1 :]
        yield items[: index + 1] + items[index:]
        if index + 1 < len(items):
            yield [*items[:index], items[index + 1], items[index], *items[index + 2 :]]


def dumped(value: object) -> bytes:
    """The canonical spelling; a member whose name starts with `twice!` gets the name that follows."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    return text.replace('"twice!', '"').encode()


def nodes(value: Any, put: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within a JSON value, with a function that gives the whole with another one in its place."""
    yield value, put
    items = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    for key, inner in list(items):

        def put_inner(new: Any, key: Any = key) -> Any:
            copy = value.copy()
            copy[key] = new
            return put(copy)

        yield from nodes(inner, put_inner)


def proof_nodes() -> Iterator[tuple[Any, Any]]:
    return nodes(json.loads(honest().data), lambda value: value)


def test_honest_proof_is_verified() -> None:
    """What is bent below is VERIFIED as it is, and its times are three different ones."""
    report = honest_report()
    assert report.verdict is Verdict.VERIFIED
    assert report.times is not None
    assert report.times.not_before is not None
    assert report.times.not_before < report.times.not_later_than < report.times.still_newest_at
    assert len(honest().proof.earlier) == len(honest().proof.replaced) == 1
    assert honest().proof.sealed is not None


def test_changed_byte_verifies_no_other_claim() -> None:
    """One bit of one byte, all over the proof."""
    data = honest().data
    counted = outcomes(flipped(data, range(0, len(data), 29)))
    assert counted["MALFORMED"] > 200
    assert counted["NOT PROVEN"] > 100
    assert counted["CHANGED"] > 20


def test_changed_entry_or_opening_verifies_no_other_claim() -> None:
    """Below the base64: entries, and what openings say behind their salts, byte by byte."""
    proof = honest().proof

    def changed(line: Line) -> Iterator[Line]:
        for name, data in line._asdict().items():
            start, step = (0, 7) if name == "entry" else (31, 1)
            for at in range(start, len(data or b""), step):
                yield line._replace(**{name: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]})

    def mangled() -> Iterator[bytes]:
        for index, line in enumerate(proof.entries):
            for other in changed(line):
                yield format_proof(proof._replace(entries=[*proof.entries[:index], other, *proof.entries[index + 1 :]]))
        for other in changed(proof.earlier[0].step):
            yield format_proof(proof._replace(earlier=[proof.earlier[0]._replace(step=other)]))
        for other in changed(proof.replaced[0].steps[0]):
            yield format_proof(proof._replace(replaced=[proof.replaced[0]._replace(steps=[other])]))

    counted = outcomes(mangled())
    assert counted["CHANGED"] > 100


def test_changed_digit_verifies_no_other_claim() -> None:
    """Every digit of every number of the proof, one up and one down."""

    def mangled() -> Iterator[bytes]:
        for value, put in proof_nodes():
            if type(value) is str and value.isdigit():
                yield from (dumped(put(str(int(value) + step))) for step in (-1, 1, 10) if int(value) + step >= 0)

    counted = outcomes(mangled())
    assert counted["NOT PROVEN"] + counted["MALFORMED"] > 20


def test_dropped_or_doubled_bytes_verify_no_other_claim() -> None:
    """A byte that is missing or there twice, all over; a proof that is cut off is malformed."""
    data = honest().data
    positions = range(0, len(data), 17)
    counted = outcomes(data[:at] + data[at + 1 :] for at in positions)
    counted += outcomes(data[: at + 1] + data[at:] for at in positions)
    assert counted["MALFORMED"] > 500
    for end in range(0, len(data), 101):
        assert outcome(data[:end]) == ["MALFORMED"]


def test_members_dropped_doubled_or_swapped_are_malformed() -> None:
    """No object of the proof has another set or order of members."""
    tried = 0
    for value, put in proof_nodes():
        if type(value) is not dict:
            continue
        for items in rearranged(list(value.items())):
            twice = [
                (f"twice!{key}" if (key, inner) in items[:i] else key, inner) for i, (key, inner) in enumerate(items)
            ]
            assert outcome(dumped(put(dict(twice)))) == ["MALFORMED"]
            tried += 1
    assert tried > 100


def test_values_of_neighbours_swapped_verify_no_other_claim() -> None:
    """Two members of one object exchange their values."""

    def mangled() -> Iterator[bytes]:
        for value, put in proof_nodes():
            if type(value) is dict:
                for one, two in combinations(value, 2):
                    yield dumped(put({**value, one: value[two], two: value[one]}))

    counted = outcomes(mangled())
    assert counted["MALFORMED"] > 100
    assert counted["NOT PROVEN"] > 5


def test_nulls_verify_no_other_claim() -> None:
    """Whatever can be absent is absent; a bracket may be left out, which leaves the times no better."""
    counted = outcomes(dumped(put(None)) for value, put in proof_nodes() if value is not None)
    assert counted["VERIFIED"] > 0  # `first`, `before`, and what the first user's question does not need
    assert counted["NOT PROVEN"] > 10


def test_lists_rearranged_verify_no_other_claim() -> None:
    """Entries, openings, generations, replaced files and their steps: dropped, doubled, swapped."""
    mangled = (dumped(put(items)) for value, put in proof_nodes() if type(value) is list for items in rearranged(value))
    counted = outcomes(mangled)
    assert counted["CHANGED"] > 5
    assert counted["MALFORMED"] > 50


def test_hash_lists_cut_extended_or_reversed_verify_no_other_claim() -> None:
    """Every list of hashes of the proof."""

    def mangled() -> Iterator[bytes]:
        for value, put in proof_nodes():
            for name in HASH_LISTS:
                if type(value) is dict and type(value.get(name)) is str:
                    data = a2b_base64(value[name])
                    hashes = [data[i : i + 32] for i in range(0, len(data), 32)]
                    others = [*rearranged(hashes), hashes[::-1], [*hashes, bytes(32)], [bytes(32), *hashes], []]
                    yield from (dumped(put({**value, name: encode_base64(b"".join(other))})) for other in others)

    counted = outcomes(mangled())
    assert counted["MALFORMED"] + counted["NOT PROVEN"] > 50


def test_parts_of_other_proofs_verify_no_other_claim() -> None:
    """One or two members come from another honest proof: an older one, of another file, of the generation before."""
    world, _, proof, _ = honest()
    donors = [
        world.prove(2, size=sorted(world.notes)[-2], pinned=min(world.notes), replaces=(1,)),
        world.prove(2, size=sorted(world.notes)[2], pinned=min(world.notes), replaces=(1,)),
        world.prove(2, size=sorted(world.notes)[1], history=world.histories[2].previous),
        world.prove(3),
    ]

    def mangled() -> Iterator[bytes]:
        for donor in donors:
            for names in [*((name,) for name in Proof._fields), *combinations(Proof._fields, 2)]:
                yield format_proof(proof._replace(**{name: getattr(donor, name) for name in names}))

    counted = outcomes(mangled())
    assert counted["NOT PROVEN"] > 300


@pytest.mark.parametrize("member", ["checkpoint", "first", "before"])
def test_signature_lines_rearranged_verify_no_other_claim(member: str) -> None:
    """Lines of a note dropped, doubled and reordered: their order says nothing, and fewer are never better."""
    proof = honest().proof
    old = proof.checkpoint if member == "checkpoint" else getattr(proof, member).checkpoint
    text, lines = old.decode().split("\n\n")
    counted: Counter[str] = Counter()
    arrangements = [*rearranged(lines.splitlines()), lines.splitlines()[::-1]]
    arrangements += [[a for a in lines.splitlines() if a not in pair] for pair in combinations(lines.splitlines(), 2)]
    for arranged in arrangements:
        note = f"{text}\n\n{''.join(line + chr(10) for line in arranged)}".encode()
        value = note if member == "checkpoint" else getattr(proof, member)._replace(checkpoint=note)
        counted.update(outcome(format_proof(proof._replace(**{member: value}))))
    assert counted["VERIFIED"] > 5
    assert counted["MALFORMED"] > 3
    assert counted["NOT PROVEN"] > 0


def test_changed_note_verifies_no_other_checkpoint() -> None:
    """Any byte of a signed note, under the keys of the policy: refused, or the same checkpoint with times no better."""
    world, trust, _, _ = honest()
    note = world.notes[max(world.notes)]

    def opened(data: bytes) -> tuple[object, int, int]:
        parsed, checkpoint = open_checkpoint(data, *trust.witnesses.log_keys)
        cosigned = verify_quorum(trust.witnesses, parsed)
        assert cosigned.not_later_than is not None
        assert cosigned.still_newest_at is not None
        return checkpoint, cosigned.not_later_than, -cosigned.still_newest_at

    right, refused = opened(note), 0
    for data in flipped(note, range(len(note))):
        try:
            checkpoint, *times = opened(data)
        except (Malformed, NotVerified):
            refused += 1
            continue
        assert checkpoint == right[0]
        assert times >= list(right[1:])
    assert refused > 1_000


@pytest.mark.parametrize("role", ["policy_text", "auditors_text"])
def test_changed_policy_verifies_no_other_claim(role: str) -> None:
    """A policy with a changed byte or other lines: malformed, refused, or the same claim."""
    world, trust, proof, _ = honest()
    text: bytes = getattr(world, role)
    lines = text.splitlines(keepends=True)
    mangled = [*flipped(text, range(0, len(text), 5)), *(b"".join(items) for items in rearranged(lines))]
    counted: Counter[str] = Counter()
    for data in mangled:
        try:
            if role == "policy_text":
                other = trust._replace(witnesses=parse_policy(data, WITNESSES))
            else:
                other = trust._replace(auditors=parse_policy(data, AUDITORS))
        except Malformed:
            counted["REFUSED"] += 1
            continue
        counted.update(outcome(format_proof(proof), other))
    assert counted["REFUSED"] > 100


def test_changed_vkey_is_refused() -> None:
    """Name, id, type and key hang together: every changed byte and every shorter piece of a vkey is refused."""
    for key in (honest().world.log.verifier_key, honest().world.auditors[0].verifier_key):
        text = format_vkey(key)
        assert parse_vkey(text) == key
        pieces = {text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)} - {text}
        changed = {text[:i] + chr(ord(text[i]) ^ value) + text[i + 1 :] for i in range(len(text)) for value in VALUES}
        for mangled in pieces | changed:
            with pytest.raises(Malformed):
                parse_vkey(mangled)
