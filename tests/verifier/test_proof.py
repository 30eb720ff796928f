"""The proof file: round trips, and every strictness rule of SPEC 7. What proofs prove is in `test_verify*.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import proof as proof_format
from verifier.encoding import MAX_U64
from verifier.entry import MAX_ENTRIES, MAX_ENTRY, MAX_OPENING
from verifier.errors import Malformed
from verifier.merkle import MAX_PROOF_HASHES
from verifier.note import MAX_NOTE_SIZE
from verifier.proof import (
    FORMAT,
    MAX_EARLIER,
    MAX_PROOF_SIZE,
    MAX_REPLACED,
    MAX_REPLACED_STEPS,
    Absence,
    Bracket,
    Declared,
    Earlier,
    Included,
    InMap,
    Line,
    Loss,
    Proof,
    Replaced,
    Since,
    format_proof,
    parse_proof,
)

numbers = st.integers(0, MAX_U64)
hashes = st.binary(min_size=32, max_size=32)
few = st.lists(hashes, max_size=3)
shown = st.none() | st.binary(max_size=60)
lines = st.builds(Line, st.binary(max_size=150), shown, shown, shown)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
notes = texts.map(str.encode)
brackets = st.none() | st.builds(Bracket, notes, few)
declared = st.builds(Declared, notes, hashes, numbers, st.binary(min_size=64, max_size=64))
losses = st.none() | st.builds(Loss, st.lists(declared, min_size=1, max_size=2), few)
sinces = st.none() | st.builds(Since, numbers, few)
log_names = st.builds(
    lambda origin, key: f"{origin}+{key.hex()}",
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=40),
    hashes,
)
absences = st.none() | st.builds(Absence, st.none() | st.binary(min_size=64, max_size=64), few)
replaced = st.builds(Replaced, numbers, numbers, hashes, st.lists(lines, max_size=2), numbers, few, absences)
proofs = st.builds(
    Proof,
    log_names,
    st.text("abc019._:-", min_size=1, max_size=20),
    numbers,
    numbers,
    hashes,
    hashes,
    st.integers(0, MAX_ENTRIES - 1),
    st.lists(lines, max_size=3),
    st.builds(InMap, hashes, st.integers(0, MAX_ENTRIES - 1), hashes, numbers, few),
    notes,
    few,
    few,
    st.none() | st.builds(Included, numbers, few),
    brackets,
    brackets,
    sinces,
    sinces,
    st.lists(st.builds(Earlier, hashes, hashes, lines, numbers, few), max_size=2),
    st.lists(
        st.builds(Replaced, numbers, numbers, hashes, st.lists(lines, max_size=2), numbers, few, absences), max_size=2
    ),
    losses,
)

ONE = b"\1" * 32
LINE = Line(b"entry", b"content", None, b"context")
SAMPLE = Proof(
    *("log.example/files+" + "0" * 64, "folder:test", 17, 1, ONE, ONE, 0, [LINE, LINE]),
    InMap(ONE, 1, ONE, 3, [ONE, ONE]),
    b"note\n",
    *([ONE], [ONE], Included(2, [ONE]), Bracket(b"first\n", [ONE]), Bracket(b"before\n", []), Since(3, [ONE]), None),
    [Earlier(ONE, ONE, LINE, 1, [ONE])],
    [Replaced(3, 0, ONE, [LINE], 2, [ONE], Absence(ONE + ONE, [ONE]))],
    Loss([Declared(b"lost\n", ONE, 3, bytes(64))], [ONE]),
)
TEXT = format_proof(SAMPLE).decode()


def changed(*keys: str | int, to: Any) -> bytes:
    """The sample with another value at a place, in the canonical spelling."""
    value = inner = json.loads(TEXT)
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


@given(proofs)
def test_proof_round_trip(proof: Proof) -> None:
    """A proof's bytes parse to it, and it formats to them."""
    data = format_proof(proof)
    assert parse_proof(data) == proof
    assert format_proof(parse_proof(data)) == data


@given(proofs)
def test_proof_is_spelled_as_json_stringify_spells_it(proof: Proof) -> None:
    """One line, no spaces, nothing escaped that need not be: what any JSON library makes of the same value."""
    data = format_proof(proof)
    spelled = json.dumps(json.loads(data), ensure_ascii=False, separators=(",", ":")) + "\n"
    assert data.decode() == spelled


def test_sample_is_canonical() -> None:
    """What the tests below change is fine as it is, and `changed` alone changes nothing."""
    assert parse_proof(TEXT.encode()) == SAMPLE
    assert changed("file", to="17") == TEXT.encode()


@pytest.mark.parametrize("version", ["nextcloud-audit/proof/2", "", None, 1, "Nextcloud-audit/proof/1"])
def test_proof_refuses_unknown_version(version: object) -> None:
    """The first thing that is said of a proof from another time is that."""
    with pytest.raises(Malformed, match=f"^format: want {FORMAT}|not JSON"):
        parse_proof(changed("format", to=version))


@pytest.mark.parametrize(
    ("bend", "error"),
    [
        (lambda text: "", "not JSON in UTF-8"),
        (lambda text: text[:-2], "not JSON in UTF-8"),
        (lambda text: text + text, "not JSON in UTF-8"),
        (lambda text: "\ufeff" + text, "not JSON in UTF-8"),
        (lambda text: "[" * 100_000, "not JSON in UTF-8"),
        (lambda text: "[]\n", "proof: want a JSON object"),
        (lambda text: "null\n", "proof: want a JSON object"),
        (lambda text: '"x"\n', "proof: want a JSON object"),
        (lambda text: "{}\n", f"want {FORMAT}"),
        (lambda text: text[:-1], "not the canonical spelling"),
        (lambda text: text + "\n", "not the canonical spelling"),
        (lambda text: " " + text, "not the canonical spelling"),
        (lambda text: text.replace(",", ", ", 1), "not the canonical spelling"),
        (lambda text: json.dumps(json.loads(text), indent=1) + "\n", "not the canonical spelling"),
        (lambda text: text.replace("note\\n", "note\\u000a"), "not the canonical spelling"),
        (lambda text: text.replace("log.example/", "log.example\\/", 1), "not the canonical spelling"),
        (lambda text: text.replace("folder", "\\u0066older"), "not the canonical spelling"),
        (lambda text: text.replace('"file":"17"', '"file":17', 1), "a JSON number"),
        (lambda text: text.replace('"file":"17"', '"file":1.7e1', 1), "a JSON number"),
        (lambda text: text.replace('"sealed":null', '"sealed":NaN', 1), "sealed: want a JSON object"),
        (lambda text: text.replace('"file":"17"', '"file":"17","file":"17"', 1), "a member twice"),
        (lambda text: text.replace('"seq":"1"', '"seq":"1","seq":"1"', 1), "a member twice"),
        (lambda text: text.replace("note\\n", "\\ud800"), "checkpoint: not UTF-8"),
        (lambda text: text.replace("log.example", "\\udfff", 1), "log: not UTF-8"),
    ],
)
def test_proof_refuses_other_spellings(bend: Callable[[str], str], error: str) -> None:
    """SPEC 7.1: one spelling, and it is JSON.stringify's."""
    with pytest.raises(Malformed, match=error):
        parse_proof(bend(TEXT).encode("utf-8"))


def test_proof_refuses_other_encodings() -> None:
    """UTF-8 and nothing else."""
    for data in (TEXT.encode("utf-16"), TEXT.replace("folder", "\xff").encode("latin-1"), b"\xed\xa0\x80"):
        with pytest.raises(Malformed, match="not JSON in UTF-8"):
            parse_proof(data)


def test_proof_refuses_more_than_16_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is looked at before anything is parsed."""
    assert MAX_PROOF_SIZE == 16 * 1024 * 1024
    monkeypatch.setattr(proof_format, "MAX_PROOF_SIZE", len(TEXT) - 1)
    with pytest.raises(Malformed, match=f"proof: want at most {len(TEXT) - 1} bytes, got {len(TEXT)}"):
        parse_proof(TEXT.encode())


OBJECTS = [(), ("map",), ("current",), ("first",), ("before",), ("pinned",), ("earlier", 0), ("replaced", 0)]
OBJECTS += [("replaced", 0, "next"), ("loss",), ("loss", "declared", 0)]


@pytest.mark.parametrize("keys", OBJECTS, ids=str)
def test_proof_refuses_other_members(keys: tuple[str | int, ...]) -> None:
    """Every object has its members and no others, in their order."""
    for bend, error in (
        (lambda members: {**members, "more": None}, "unknown or missing member 'more'"),
        (lambda members: {**members, "m" * 5_000: None}, f": unknown or missing member '{'m' * 40}'$"),
        (lambda members: dict(list(members.items())[:-1]), "unknown or missing member"),
        (lambda members: dict(list(members.items())[:-2] + list(members.items())[:-3:-1]), "members out of order"),
    ):
        value = inner = json.loads(TEXT)
        for key in keys:
            inner = inner[key]
        bent = bend(inner if keys else {name: inner[name] for name in inner if name != "loss"})  # which may be absent
        data = changed(*keys, to=bent) if keys else json.dumps(bent, separators=(",", ":")).encode() + b"\n"
        with pytest.raises(Malformed, match=error):
            parse_proof(data)
        assert value == json.loads(TEXT)


@pytest.mark.parametrize("keys", [keys for keys in OBJECTS if keys], ids=str)
def test_proof_refuses_other_values_for_objects(keys: tuple[str | int, ...]) -> None:
    """A list, a text or a truth value is no object."""
    for value in ([], "x", True):
        with pytest.raises(Malformed, match="want a JSON object"):
            parse_proof(changed(*keys, to=value))


def test_proof_may_lack_what_may_be_absent() -> None:
    """`null` stands for an absent value, where SPEC 7.2 allows that, and nowhere else."""
    for keys in (("current",), ("first",), ("before",), ("pinned",), ("sealed",), ("replaced", 0, "next")):
        parse_proof(changed(*keys, to=None))
    parse_proof(changed("replaced", 0, "next", "other", to=None))
    for name in (
        "log",
        "source",
        "file",
        "root",
        "from",
        "entries",
        "map",
        "checkpoint",
        "last",
        "earlier",
        "replaced",
    ):
        with pytest.raises(Malformed, match=f"^{name}: want"):
            parse_proof(changed(name, to=None))


NUMBERS = [("file",), ("generation",), ("from",), ("map", "seq"), ("map", "index"), ("current", "index")]
NUMBERS += [("pinned", "size"), ("earlier", 0, "index"), ("replaced", 0, "file"), ("replaced", 0, "generation")]
NUMBERS += [("replaced", 0, "index")]


@pytest.mark.parametrize("keys", NUMBERS, ids=str)
def test_proof_refuses_other_numbers(keys: tuple[str | int, ...]) -> None:
    """Every number is a decimal text with one spelling, within its bound."""
    where = ".".join(key for key in keys if type(key) is str)
    for text in ("", "-1", "+1", " 1", "1_0", "0x1", "1.0", "١", True, ["1"]):
        with pytest.raises(Malformed, match=f"^{where}: want a decimal number as text"):
            parse_proof(changed(*keys, to=text))
    with pytest.raises(Malformed, match=f"^{where}: leading zero"):
        parse_proof(changed(*keys, to="01"))
    with pytest.raises(Malformed, match=f"^{where}: want at most"):
        parse_proof(changed(*keys, to=str(MAX_U64 + 1)))


@pytest.mark.parametrize("keys", [("from",), ("map", "seq")], ids=str)
def test_proof_refuses_seqs_that_no_chain_has(keys: tuple[str | int, ...]) -> None:
    """A chain has at most 16,384 entries."""
    parse_proof(changed(*keys, to=str(MAX_ENTRIES - 1)))
    with pytest.raises(Malformed, match="want at most 16383, got '16384'"):
        parse_proof(changed(*keys, to=str(MAX_ENTRIES)))


HASHES = [("root",), ("chain",), ("map", "root"), ("map", "head"), ("earlier", 0, "chain"), ("earlier", 0, "before")]
HASHES += [("replaced", 0, "before"), ("loss", "declared", 0, "key")]


@pytest.mark.parametrize("keys", HASHES, ids=str)
def test_proof_refuses_other_hashes(keys: tuple[str | int, ...]) -> None:
    """32 bytes in base64, in its one spelling."""
    good = json.loads(changed("root", to=""))["chain"]
    for text, error in (
        (good[:-1], "not base64"),
        (good + "=", "not base64"),
        (" " + good, "not base64"),
        ("-" + good[1:], "not base64"),
        (good[:-2] + "F=", "not the canonical spelling"),  # unused bits
        ("AAAA", "want 32 to 32 bytes, got 3"),
        ("", "want 32 to 32 bytes, got 0"),
        (True, "want a base64 string"),
        ("é", "not base64"),
    ):
        with pytest.raises(Malformed, match=error):
            parse_proof(changed(*keys, to=text))


LISTS = [("commitment",), ("last",), ("map", "siblings"), ("current", "hashes"), ("first", "hashes")]
LISTS += [("before", "hashes"), ("pinned", "hashes"), ("earlier", 0, "siblings"), ("replaced", 0, "siblings")]
LISTS += [("replaced", 0, "next", "siblings"), ("loss", "hashes")]


@pytest.mark.parametrize("keys", LISTS, ids=str)
def test_proof_refuses_other_hash_lists(keys: tuple[str | int, ...]) -> None:
    """Whole hashes, and no more of them than a tree or a map can ask for."""
    limit = 256 if keys[-1] == "siblings" else MAX_PROOF_HASHES
    base64 = ["A" * 43 + "=", "AAAA", "A" * (4 * (32 * (limit + 1) // 3)) + "AAAA"]
    with pytest.raises(Malformed, match="want a multiple of 32 bytes, got 3"):
        parse_proof(changed(*keys, to=base64[1]))
    with pytest.raises(Malformed, match=f"want 0 to {32 * limit} bytes"):
        parse_proof(changed(*keys, to=base64[2]))
    parse_proof(changed(*keys, to=base64[0]))
    parse_proof(changed(*keys, to=""))


@pytest.mark.parametrize(
    ("keys", "value", "error"),
    [
        (("log",), "", "log: want a non-empty string"),
        (("log",), "a\x7f", "log: control character"),
        (("log",), "a" * 10_000, "log: want at most"),
        (("log",), "log.example/files", "log: "),
        (("log",), "log.example/files+" + "0" * 65, "log: want '\\+' and 64"),
        (("source",), "", "source: want"),
        (("source",), "A", "source: want"),
        (("source",), "a" * 129, "source: want"),
        (("entries",), {}, "entries: want a list of at most 16384"),
        (("entries", 0), ["", "", ""], r"entries: want \[entry, content, path, context\]"),
        (("entries", 0), ["", "", "", "", ""], r"entries: want \[entry, content, path, context\]"),
        (("entries", 0), "x", r"entries: want \[entry, content, path, context\]"),
        (("entries", 0, 0), None, "entries: want a base64 string"),
        (("entries", 0, 1), "A", "entries: not base64"),
        (("earlier",), None, "earlier: want a list of at most 1024"),
        (("earlier", 0, "step"), None, r"earlier.step: want \[entry"),
        (("replaced",), "", "replaced: want a list of at most 64"),
        (("replaced", 0, "steps"), None, "replaced.steps: want a list of at most 1024"),
        (("replaced", 0, "next", "other"), "AAAA", "replaced.next.other: want 64 to 64 bytes, got 3"),
        (("checkpoint",), None, "checkpoint: want a signed note"),
        (("checkpoint",), "a" * (MAX_NOTE_SIZE + 1), "checkpoint: want at most 131072 bytes, got 131073"),
        (("first", "checkpoint"), [], "first: want a signed note"),
        (("loss",), None, "loss: want a JSON object"),
        (("loss", "declared"), None, "loss.declared: want a list of at most 16"),
        (("loss", "declared"), [], "loss.declared: want at least one"),
        (("loss", "declared", 0, "note"), None, "loss.note: want a signed note"),
        (("loss", "declared", 0, "signature"), "AAAA", "loss.signature: want 64 to 64 bytes"),
    ],
)
def test_proof_refuses_other_values(keys: tuple[str | int, ...], value: object, error: str) -> None:
    """Each member has its kind and its bound (SPEC 7.2); the error names it."""
    with pytest.raises(Malformed, match=f"^{error}"):
        parse_proof(changed(*keys, to=value))


@pytest.mark.parametrize(
    ("name", "limit"), [("entries", MAX_ENTRIES), ("earlier", MAX_EARLIER), ("replaced", MAX_REPLACED)]
)
def test_proof_refuses_lists_that_are_too_long(name: str, limit: int) -> None:
    """As many as the bound says, and not one more."""
    item = json.loads(TEXT)[name][0]
    parse_proof(changed(name, to=[item] * limit))
    with pytest.raises(Malformed, match=f"{name}: want a list of at most {limit}"):
        parse_proof(changed(name, to=[item] * (limit + 1)))


def test_proof_refuses_too_many_steps_and_bytes() -> None:
    """Steps of a replaced file, an entry, and an opening have bounds of their own."""
    step = json.loads(TEXT)["entries"][0]
    with pytest.raises(Malformed, match=f"replaced.steps: want a list of at most {MAX_REPLACED_STEPS}"):
        parse_proof(changed("replaced", 0, "steps", to=[step] * (MAX_REPLACED_STEPS + 1)))
    for place, limit in ((0, MAX_ENTRY), (1, MAX_OPENING), (3, MAX_OPENING)):
        long = "AAAA" * (limit // 3 + 1)
        with pytest.raises(Malformed, match=f"entries: want 0 to {limit} bytes"):
            parse_proof(changed("entries", 0, place, to=long))
