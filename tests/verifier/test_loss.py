"""A declared loss as a client meets it by its commands: told, asked by name, and never moved or green by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builder import World
from tests.verifier.loopback import Log, Served
from tests.verifier.test_client import Desk
from verifier.entry import Operation
from verifier.errors import Malformed
from verifier.loss import MAX_LOSS_SIZE, format_loss, parse_loss
from verifier.note import format_vkey
from verifier.proof import MAX_DECLARED, Declared
from verifier.state import log_directory

POLICIES = ("--policy", "policy", "--auditors", "auditors")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Enrolled; file 7 was created, written, and VERIFIED as it stands after `seen` steps, here two."""
    monkeypatch.chdir(tmp_path)
    world = World()
    world.now = int(time.time()) - 1000
    with Served(Log(world)) as url:
        made = Desk(Log(world), url)
    log = made.log
    with Served(log) as url:
        made.url = url
        world.record(7, Operation.CREATED, b"one", path="a.txt")
        world.publish()
        assert made.enrol() == 0
        made.write(Operation.WRITTEN, b"two")
        assert made.prove("a.txt", "a.txt.proof") == 0
        assert made.verify("a.txt", "--as", "a.txt") == 0
        yield made


def lose(desk: Desk, gone: int = 0) -> None:
    """One more step is published, and lost again; so many that were seen go with it."""
    world = desk.world
    world.record(7, Operation.WRITTEN, b"unseen", path="a.txt")
    world.publish()
    world.declare_loss(sorted(world.notes)[-2 - gone])
    desk.log.vkey = format_vkey(world.log.verifier_key)
    desk.log.kept = b"one" if gone else b"two"
    Path("a.txt").write_bytes(desk.log.kept)
    assert desk.prove("a.txt", "a.txt.proof") == 0


def take_policies(desk: Desk) -> None:
    Path("policy").write_bytes(desk.world.policy_text)
    Path("auditors").write_bytes(desk.world.auditors_text)


def found(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [finding["reason"] for finding in json.loads(capsys.readouterr().out)["findings"]]


def pinned(desk: Desk) -> str:
    state = Path("seed.state") / log_directory(desk.world.log_name) / "log.json"
    checkpoint = json.loads(state.read_text())["checkpoint"]
    assert isinstance(checkpoint, str)
    return checkpoint.partition("\n")[0]


def test_client_is_told_what_to_do_about_a_new_origin(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] With the old policies nothing is taken over, and the answer says how the new ones are."""
    lose(desk)
    capsys.readouterr()
    assert desk.verify("a.txt") == 2
    said = capsys.readouterr().out
    assert "verify --replace-policy" in said
    assert pinned(desk) == "log.example/files"


def test_client_takes_the_new_policies_by_word_alone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Other policies are refused unless the user says so; then the new origin is pinned, and NOT PROVEN."""
    lose(desk)
    take_policies(desk)
    assert desk.verify("a.txt", *POLICIES) == 4
    capsys.readouterr()
    assert desk.verify("a.txt", *POLICIES, "--replace-policy", "--json") == 2
    assert found(capsys) == ["declared-loss"]
    assert pinned(desk) == "log.example/files/2"


def test_client_takes_no_policies_of_the_new_origin_alone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Policies without the old origin know nothing of what was seen (SPEC 10.4)."""
    lose(desk)
    desk.world.old_logs.clear()
    for name, cosigners in (("policy", desk.world.witnesses), ("auditors", desk.world.auditors)):
        Path(name).write_bytes(desk.world.policy_file(cosigners, 3))
    assert desk.verify("a.txt", *POLICIES, "--replace-policy") == 4
    assert "the old one and the new one" in capsys.readouterr().err


def test_seal_accepts_a_loss_by_name_alone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Nothing is sealed while the loss is not named; then the file is VERIFIED, and stays so."""
    lose(desk)
    take_policies(desk)
    assert desk.verify("a.txt", *POLICIES, "--replace-policy") == 2
    assert desk.seal() == 2
    assert "--accept loss" in capsys.readouterr().err
    assert not [asked for asked in desk.log.asked if "seals" in asked]
    assert desk.seal("--accept", "loss", "-o", "a.txt.proof") == 0
    assert desk.verify("a.txt", "--require-seal") == 0
    desk.write(Operation.WRITTEN, b"four")
    assert desk.prove("a.txt", "a.txt.proof") == 0
    assert desk.verify("a.txt") == 0


def test_seal_gives_up_what_was_seen_by_name_alone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] A step that was seen is gone: CHANGED, until the owner ends the chain over both heads and seals the next."""
    lose(desk, gone=1)
    take_policies(desk)
    capsys.readouterr()
    assert desk.verify("a.txt", *POLICIES, "--replace-policy", "--json") == 1
    assert found(capsys) == ["pinned", "declared-loss"]
    assert pinned(desk) == "log.example/files/2", "a smaller tree than was seen, of the origin that follows"
    assert desk.seal() == 1
    assert "gives up the steps that were seen before" in capsys.readouterr().err
    assert not [asked for asked in desk.log.asked if "POST" in asked]
    assert desk.seal("--accept", "loss", "-o", "a.txt.proof") == 0
    assert [asked for asked in desk.log.asked if "POST" in asked] == ["POST /closings", "POST /seals"]
    assert desk.verify("a.txt") == 0


def test_steps_after_a_loss_are_no_steps_that_were_seen(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] The chain has grown past what was seen: the other steps under those numbers are fetched, and told apart."""
    desk.write(Operation.WRITTEN, b"three")
    assert desk.prove("a.txt", "a.txt.proof") == 0
    assert desk.verify("a.txt") == 0
    lose(desk, gone=2)
    take_policies(desk)
    for data in (b"four", b"five", b"six"):
        desk.write(Operation.WRITTEN, data)
    desk.log.kept = b"six"
    assert desk.prove("a.txt", "a.txt.proof") == 0
    capsys.readouterr()
    assert desk.verify("a.txt", *POLICIES, "--replace-policy", "--json") == 1
    assert found(capsys) == ["pinned", "declared-loss"]
    assert desk.seal("--accept", "loss", "-o", "a.txt.proof") == 0
    assert desk.verify("a.txt") == 0


def test_seal_gives_nothing_up_for_other_bytes(desk: Desk) -> None:
    """[R] Where something else stands against the file, no end of its chain is signed."""
    lose(desk, gone=1)
    take_policies(desk)
    assert desk.verify("a.txt", *POLICIES, "--replace-policy") == 1
    Path("a.txt").write_bytes(b"other")
    assert desk.seal("--accept", "loss") == 1
    assert not [asked for asked in desk.log.asked if "POST" in asked]


def test_seal_knows_no_loss_where_none_was_declared(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The word has a meaning only where something was declared lost."""
    assert desk.seal("--accept", "loss") == 4
    assert "declared no loss" in capsys.readouterr().err


def test_enrolment_after_a_declared_loss(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes later enrols with policies that name the first key and the one that signs now."""
    lose(desk)
    monkeypatch.chdir(tmp_path_of(tmp_path))
    desk.log.enrolments.clear()  # it is somebody else, as far as the log knows
    later = Desk(desk.log, desk.url)
    assert later.enrol() == 0
    later.world.old_logs.clear()
    for name, cosigners in (("policy", later.world.witnesses), ("auditors", later.world.auditors)):
        Path(name).write_bytes(later.world.policy_file(cosigners, 3))
    assert later.enrol("--state", "other") == 4


def tmp_path_of(tmp_path: Path) -> Path:
    """A directory of somebody else."""
    (tmp_path / "later").mkdir()
    return tmp_path / "later"


# -- the file -------------------------------------------------------------------------------------------------------


def test_loss_file_has_one_spelling() -> None:
    """What is written is read back; other spellings, other formats and too much are refused."""
    one = Declared(b"note\n", bytes(32), 3, bytes(64))
    data = format_loss([one, one])
    assert parse_loss(data) == [one, one]
    for bad, why in (
        (data[:-1], "not the canonical spelling"),
        (data.replace(b"loss/1", b"loss/2"), "want nextcloud-audit/loss/1"),
        (format_loss([]), "want at least one"),
        (format_loss([one] * (MAX_DECLARED + 1)), f"want a list of at most {MAX_DECLARED}"),
        (data.replace(b'"declared"', b'"more":null,"declared"'), "unknown or missing member"),
        (bytes(MAX_LOSS_SIZE + 1), f"want at most {MAX_LOSS_SIZE}"),
    ):
        with pytest.raises(Malformed, match=why):
            parse_loss(bad)
