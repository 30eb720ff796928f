"""Evidence against a log: the vectors, every mangling, and honest logs that nobody can convict."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import NOW, FakeLog, digest
from tests.make_vectors import FOLDER, evidence_vectors
from tests.vector_cases.evidence import (
    CASES,
    SECOND,
    THIRD,
    WITNESS,
    begin,
    changed,
    cosigned,
    replay,
    skipping,
    spell,
    two,
)
from tests.vector_cases.loss import written
from verifier.commands.inspect import evidence_text
from verifier.conviction import verify_evidence
from verifier.entry import Operation
from verifier.errors import BadSignature, Malformed, NotProven
from verifier.evidence import EVIDENCE_FORMAT, MAX_EVIDENCE_SIZE, format_evidence, history_evidence, parse_evidence
from verifier.note import COSIGNATURE, SignerKey, cosign, format_note, parse_note, parse_vkey

FILES = sorted((FOLDER / "evidence").glob("*.json"))


def said(case: dict[str, object]) -> str:
    """What this verifier says of an evidence file, in the words of tests/vectors/README.md."""
    keys = [parse_vkey(str(case["log"]))], [parse_vkey(vkey) for vkey in case["cosigners"]]  # type: ignore[attr-defined]
    try:
        return verify_evidence(parse_evidence(str(case["evidence"]).encode()), *keys).fault
    except Malformed:
        return "MALFORMED"
    except NotProven:
        return "NOTHING"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_evidence_vector_gets_its_verdict(path: Path) -> None:
    """What convicts a log convicts it of just that, and what only looks so proves nothing."""
    case = json.loads(path.read_bytes())
    assert (case["name"], said(case)) == (path.stem, case["expect"])


def test_evidence_vectors_are_what_the_generator_makes() -> None:
    """`python -m tests.make_vectors` would change no byte, and every fault has a case."""
    made = evidence_vectors()
    assert {path.name: path.read_bytes() for path in FILES} == made
    expected = {expect for _, expect, _ in CASES.values()}
    assert expected == {"fork", "rollback", "chain-broken", "map-wrong", "NOTHING", "MALFORMED"}


@pytest.mark.parametrize("name", ["two-roots", "other-prefix", "changed-leaf", "seq-skipped", "wrong-map-committed"])
def test_evidence_with_any_byte_changed_convicts_of_nothing_else(name: str) -> None:
    """A changed byte proves nothing, or what was proven before: no forger gets a new claim out of a file."""
    case = json.loads((FOLDER / "evidence" / f"{name}.json").read_bytes())
    text = case["evidence"]
    for at in range(0, len(text), 5):
        mangled = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert said(case | {"evidence": mangled}) in ("MALFORMED", "NOTHING", case["expect"])
        assert said(case | {"evidence": text[:at]}) == "MALFORMED"


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=4), st.data())
def test_evidence_never_convicts_an_honest_log(rounds: list[list[int]], data: st.DataObject) -> None:
    """Whatever stretch of whatever honest log is shown, with whichever of its chains, it proves nothing."""
    log = FakeLog()
    for chains in rounds:
        for number in chains:
            log.add_entry(digest(b"chain", number), digest(b"x", len(log.leaves)))
        log.add_map()
    commitments = [index for index, leaf in enumerate(log.leaves) if len(leaf) == 33]
    start = data.draw(st.sampled_from([-1, *commitments[:-1]]))
    end = next(index for index in commitments if index > start)
    touched = sorted({leaf[1:33] for leaf in log.leaves[max(start, 0) : end] if len(leaf) == 73})
    shown = data.draw(st.lists(st.sampled_from(touched), unique=True)) if touched else []
    value = replay(log, max(start, 0), data.draw(st.integers(max(start, 0) + 1, end + 1)), None)
    kept = {chain["chain"] for chain in replay(log, max(start, 0), end + 1, sorted(shown))["chains"]}
    value["chains"] = [chain for chain in value["chains"] if chain["chain"] in kept]
    with pytest.raises(NotProven, match="every leaf"):
        verify_evidence(parse_evidence(spell(value).encode()), [parse_vkey(log.vkey)])


@given(st.integers(1, 12), st.integers(0, 5), st.integers(0, 2), st.data())
def test_changed_leaf_never_convicts_an_honest_log(entries: int, more: int, losses: int, data: st.DataObject) -> None:
    """Whatever an honest log has kept and lost, none of its leaves beside any of those after it proves anything."""
    log = FakeLog().grow(entries).grow(more)
    for origin in (SECOND, THIRD)[:losses]:
        log = begin(log, origin, data.draw(st.integers(1, len(log.leaves))))
    kept = data.draw(st.integers(0, len(log.leaves)))
    new = begin(log, "log.example/one/4", kept)
    index = data.draw(st.integers(0, len(log.leaves) - 1))
    shift = data.draw(st.integers(-index, len(new.leaves) - 1 - index))
    value = changed(log, new, index, shift, kept=kept)
    with pytest.raises((NotProven, Malformed)):
        verify_evidence(parse_evidence(spell(value).encode()), [parse_vkey(log.vkey)])


def test_changed_leaf_of_two_honest_logs() -> None:
    """[R] A reader may know several logs: the leaf of one beside what another one has kept proves nothing."""
    log, other = FakeLog().grow(20).grow(4), FakeLog("log.example/other", b"\x08" * 32).grow(20, chains=7).grow(4)
    value = changed(log, begin(log), 6)
    shown = changed(other, begin(log), 6)
    value |= {name: shown[name] for name in ("notes", "leaves", "paths")}
    keys = [parse_vkey(log.vkey), parse_vkey(other.vkey)]
    with pytest.raises(NotProven, match="of two logs"):
        verify_evidence(parse_evidence(spell(value).encode()), keys)


def test_bad_line_of_one_cosigner_does_not_hide_another() -> None:
    """[R] Each cosigner is judged by its own lines: one that spoils a note hides neither itself nor others."""
    log = FakeLog().grow(9).grow(4)
    other = SignerKey("witness.example/other", COSIGNATURE, bytes(range(32)))
    small, big = (parse_note(cosigned(log.checkpoint(size), time)) for size, time in ((10, NOW + 1), (14, NOW)))
    keys, log_keys = [WITNESS.verifier_key, other.verifier_key], [parse_vkey(log.vkey)]
    forged, honest = cosign(big.text, other, NOW), cosign(small.text, other, NOW)
    for lines in ((honest,), (forged,), (honest, forged)):
        notes = [format_note(big), format_note(small._replace(signatures=(*small.signatures, *lines)))]
        shown = parse_evidence(spell(two("rolled-back", *notes)).encode())
        for cosigners in (keys, keys[::-1]):
            proven = verify_evidence(shown, log_keys, cosigners)
            assert (proven.fault, proven.accused) == ("rollback", WITNESS.verifier_key.name)
    notes = [format_note(big), format_note(small._replace(signatures=(*small.signatures, forged)))]
    shown = parse_evidence(spell(two("rolled-back", *notes)).encode())
    with pytest.raises(BadSignature, match="other"):
        verify_evidence(shown, log_keys, [other.verifier_key])


def test_evidence_is_bounded() -> None:
    """A file beyond 16 MiB is neither written nor read."""
    log = skipping()
    value = replay(log, 20, 24)
    value["leaves"] = ["A" * 1024] * (MAX_EVIDENCE_SIZE // 1024)
    with pytest.raises(Malformed, match="at most"):
        format_evidence(value)
    with pytest.raises(Malformed, match="at most"):
        parse_evidence(spell(value).encode())


@pytest.mark.parametrize("body", [b'"{",' + b"[]," * 2**23 + b'"}"', b'"{}","{}"],"more":[""' + b',""' * 2**23])
def test_big_file_that_is_not_two_histories_is_refused_unread(body: bytes) -> None:
    """[R] Small values in a big file would take a hundred times their bytes, before any bound on them was looked at."""
    data = b'{"format":"%b","kind":"two-histories","seen":"1","proofs":[%b]}\n' % (EVIDENCE_FORMAT.encode(), body)
    assert MAX_EVIDENCE_SIZE < len(data)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="where it is not two-histories"):
            parse_evidence(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_big_two_histories_are_read() -> None:
    """The bound on all else does not meet the one kind that may be bigger."""
    text = "\\" * (MAX_EVIDENCE_SIZE // 2)
    value = {"format": EVIDENCE_FORMAT, "kind": "two-histories", "seen": "1", "proofs": [text, text]}
    with pytest.raises(Malformed, match="^proof: not JSON"):
        parse_evidence(format_evidence(value))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_inspect_explains_whatever_can_be_parsed(path: Path) -> None:
    """Every well-formed file is put into words, whether it proves anything or not."""
    try:
        evidence = parse_evidence(json.loads(path.read_bytes())["evidence"].encode())
    except Malformed:
        return
    assert evidence.kind in evidence_text(evidence)


def test_declared_loss_is_no_contradiction() -> None:
    """[R] A chain that goes on otherwise under the origin after a declared loss convicts nobody of two histories."""
    world = written()
    seen = world.prove(1)
    world.declare_loss(4)
    world.record(1, Operation.WRITTEN, b"other", "a.txt")
    world.publish()
    data = format_evidence(history_evidence(world.now, seen, world.prove(1)))
    keys = [signer.verifier_key for signer in (*world.old_logs, world.log)]
    with pytest.raises(NotProven, match="of two origins"):
        verify_evidence(parse_evidence(data), keys)
