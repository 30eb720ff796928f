"""What people and programs read about a verification."""

from __future__ import annotations

import json

import pytest

from tests.builder import World, content_of
from verifier.entry import ContextField, Operation
from verifier.outcome import format_json, worst
from verifier.report import NOT_SHOWN, WITHHELD, exit_code, format_report, report_data, standing
from verifier.verdict import Memory, Question, Report, Verdict
from verifier.verify import verify


def two_steps(path: str = "a.txt") -> World:
    world = World()
    world.record(7, Operation.CREATED, b"one", path=path)
    world.publish()
    world.record(7, Operation.WRITTEN, b"two", path=path)
    world.publish()
    return world


def sealed(world: World) -> World:
    world.record_seal(7)
    world.publish()
    return world


def words(world: World, report: Report, **how: bool) -> str:
    return format_report(report, world.trust, "local.txt", **how)


def test_report_of_a_verified_file_says_everything() -> None:
    """Verdict first; path and file id, version, counts, times with their words, names, and what is not shown."""
    world = two_steps()
    text = words(world, world.verify(world.prove(7), b"two", path="a.txt"))
    assert text.startswith("VERIFIED  local.txt\nThis is the current version")
    for part in (
        "a.txt (file 7 of folder:test)",
        "step 1, written, 3 bytes",
        "2 steps: 2 said by the server, 0 seen by the owner's device, 0 signed by it; the current one is not sealed",
        "not later than 2027-01-15 08:00:10 UTC",
        "not published before 2027-01-15 08:00:00 UTC",
        "still the newest at 2027-01-15 08:00:10 UTC",
        "w0, w1, w2, w3 (quorum g (3 of 4))",
        NOT_SHOWN,
    ):
        assert part in text
    assert "sha3-256" not in text


def test_report_names_no_path_that_is_withheld() -> None:
    """Where some path of the history is not shown, none is named, and it is said what the number does not tell."""
    world = sealed(two_steps())
    proof = world.prove(7)
    first, *others = proof.entries
    shown = world.trust._replace(blinding=None)
    for hidden in ([first._replace(path=None), *others], proof.entries):
        question = Question(world.now, content_of(b"two"), file_id=7)
        report = verify(proof._replace(entries=hidden), shown, question, Memory())
        text, data = words(world, report), report_data(report, world.trust, "local.txt")
        assert report.verdict is Verdict.VERIFIED
        is_whole = hidden is proof.entries
        assert ("a.txt" in text, WITHHELD in text) == (is_whole, not is_whole)
        assert data["path"] == ("a.txt" if is_whole else None)


def test_report_shows_hashes_on_request() -> None:
    """The digest is the one that other programs compute of the file."""
    world = two_steps()
    report = world.verify(world.prove(7), b"two", path="a.txt")
    assert content_of(b"two").sha3_256.hex() in words(world, report, hashes=True)


def test_report_names_the_older_version() -> None:
    """Bytes of an older version are CHANGED, and it is said which one they are and what replaced it."""
    world = two_steps()
    text = words(world, world.verify(world.prove(7), b"one", path="a.txt"))
    assert text.startswith("CHANGED")
    assert "these are the bytes of version 1 of 2 (step 0, created), replaced by step 1, recorded 2027-01-15 08" in text


def test_report_counts_versions_alone() -> None:
    """A move and a touch carry a content on and are no versions; the one that set it is named."""
    world = two_steps()
    world.record(7, Operation.MOVED, b"two", path="b.txt")
    world.record(7, Operation.WRITTEN, b"three", path="b.txt")
    world.publish()
    report = world.verify(world.prove(7), b"two", path="b.txt")
    assert report.older_version == 1
    assert "version 2 of 3 (step 1, written), replaced by step 3" in words(world, report)


def test_report_puts_the_worst_finding_first() -> None:
    """Whoever reads one line reads the one that decides."""
    world = two_steps()
    report = world.verify(world.prove(7), b"other", path="b.txt")
    assert report.findings[0].verdict is Verdict.NOT_PROVEN
    lines = words(world, report).splitlines()
    assert lines[0].startswith("CHANGED")
    assert "the bytes are not those" in lines[2]
    assert "want 'b.txt'" in lines[3]


def test_report_escapes_what_the_server_wrote() -> None:
    """A path can't repaint the terminal into a green verdict."""
    world = two_steps("a\x1b[2JVERIFIED\n\u202etxt")
    report = world.verify(world.prove(7), b"no", file_id=7)
    assert all(line.isprintable() for line in words(world, report).splitlines())
    assert format_json(report_data(report, world.trust, "x")).isprintable()


def test_report_says_what_the_server_remarked_on_this_version() -> None:
    """Such as that it is ciphertext: escaped, called the server's word, and of the current version alone."""
    world, remark = World(), {ContextField.REMARK: "ciphertext\u202e"}
    world.record(7, Operation.CREATED, b"one", path="a.txt", context=remark)
    world.publish()
    report = world.verify(world.prove(7), b"one", path="a.txt")
    assert "remark       ciphertext\\u202e (the server's word)" in words(world, report)
    history = report_data(report, world.trust, "local.txt")["history"]
    assert isinstance(history, dict)
    assert history["remark"] == "ciphertext\u202e"
    world.record(7, Operation.WRITTEN, b"two", path="a.txt")
    world.publish()
    assert "remark" not in words(world, world.verify(world.prove(7), b"two", path="a.txt"))


def test_standing_follows_the_seals() -> None:
    """From checked_from to the sealed seq: signed; other steps below: seen; the rest: the server's word."""
    world = two_steps()
    world.record_seal(7)
    world.record(7, Operation.TOUCHED, b"two", path="a.txt")
    world.publish()
    report = world.verify(world.prove(7), b"two", path="a.txt")
    assert report.chain is not None
    assert standing(report.chain) == (4, 1, 1, 2, True)


def test_standing_of_a_version_after_the_seal_is_unsealed() -> None:
    """A seal says nothing about what came after it."""
    world = two_steps()
    world.record_seal(7)
    world.record(7, Operation.WRITTEN, b"new", path="a.txt")
    world.publish()
    report = world.verify(world.prove(7), b"new", path="a.txt")
    assert report.chain is not None
    assert standing(report.chain).sealed_now is False


def test_report_as_of_says_what_it_leaves_out() -> None:
    """VERIFIED AS OF names the time and that later trees were not looked at."""
    world = two_steps()
    text = words(world, world.verify(world.prove(7), b"two", path="a.txt", as_of="proof"))
    assert text.startswith("VERIFIED AS OF 2027-01-15 08:00:10 UTC")
    assert "not compared with later trees" in text
    assert "what came after" in text


def test_report_that_ended_early_claims_nothing() -> None:
    """A proof of another log: no time, no cosigners, no history."""
    world = two_steps()
    proof = world.prove(7)._replace(log="log.example/other+" + "0" * 64)
    report = world.verify(proof, b"two", path="a.txt")
    text = words(world, report)
    assert text.startswith("NOT PROVEN")
    assert "no time is proven" in text
    assert text.count("not checked") == 2
    assert report_data(report, world.trust, "x")["history"] is None


@pytest.mark.parametrize("operation", [Operation.CREATED, Operation.RESTORED])
def test_report_of_an_illegal_step_can_be_written(operation: Operation) -> None:
    """A history that stops being legal halfway, even at its first step, still has a report."""
    for first in (False, True):
        world = World()
        if not first:
            world.record(7, Operation.CREATED, b"one", path="a.txt")
        world.record(7, operation, b"two", path=None if first else "a.txt", replay=False)
        world.publish()
        report = world.verify(world.prove(7), b"two", path="a.txt")
        assert report.verdict is Verdict.CHANGED
        assert words(world, report).startswith("CHANGED")
        assert report_data(report, world.trust, "x")["verdict"] == "CHANGED"


def test_report_data_has_no_number_that_json_could_round() -> None:
    """Numbers of 64 bits travel as text; the exit code is the only number."""
    world = two_steps()
    data = report_data(world.verify(world.prove(7), b"two", path="a.txt"), world.trust, "x")

    def numbers(value: object) -> list[object]:
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list):
            return [n for item in value for n in numbers(item)]
        return [value] if type(value) in (int, float) else []

    assert json.loads(format_json(data)) == data
    assert numbers(data) == [0]


@pytest.mark.parametrize(("verdict", "code"), [("VERIFIED", 0), ("CHANGED", 1), ("NOT PROVEN", 2), ("FORK", 3)])
def test_exit_codes_are_those_of_the_spec(verdict: str, code: int) -> None:
    """SPEC 9."""
    world = two_steps()
    report = world.verify(world.prove(7), b"two", path="a.txt")._replace(verdict=Verdict(verdict))
    assert exit_code(report) == code


@pytest.mark.parametrize(
    ("codes", "want"),
    [([], 0), ([0, 2], 2), ([2, 4], 4), ([4, 70], 70), ([70, 1], 1), ([1, 3, 0], 3)],
)
def test_worst_of_many_decides(codes: list[int], want: int) -> None:
    """FORK, CHANGED, 70, 4, NOT PROVEN, VERIFIED."""
    assert worst(codes) == want
    assert worst(codes[::-1]) == want
