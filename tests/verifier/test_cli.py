"""The commands that need no network: verify, inspect, seed; exit codes; what is remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import reference
from tests.builder import ORIGIN, SEED, World, secret
from verifier import keys
from verifier.cli import main
from verifier.commands import verify as verify_command
from verifier.entry import ContextField, Operation
from verifier.errors import Malformed
from verifier.home import Home
from verifier.note import COSIGNATURE, SIGNATURE, Signature, SignerKey, format_note, format_vkey, parse_note
from verifier.proof import format_proof
from verifier.seed import format_seed
from verifier.state import LocalState

ROOT = Path(__file__).parents[2]
FIRST = ["--policy", "policy", "--auditors", "auditors", "--source", "folder:test"]


class Desk:
    """A user's directory: seed, policies, files and their proofs."""

    def __init__(self) -> None:
        self.world = World()
        self.world.now = int(time.time()) - 1000
        self.world.record(7, Operation.CREATED, b"one", path="a.txt")
        self.world.publish()
        self.write(7, "a.txt", b"one")
        for name, data in (
            ("seed", format_seed(SEED)),
            ("policy", self.world.policy_text),
            ("auditors", self.world.auditors_text),
            ("reader", keys.format_reader(self.reader())),
        ):
            Path(name).write_bytes(data)
            os.chmod(name, 0o600)

    def reader(self) -> keys.ReaderKey:
        world = self.world
        return keys.ReaderKey(world.log_name, world.source, world.owner.public, world.owner.blinding)

    def write(self, file_id: int, name: str, data: bytes, **how: object) -> None:
        Path(name).write_bytes(data)
        Path(f"{name}.proof").write_bytes(format_proof(self.world.prove(file_id, **how)))  # type: ignore[arg-type]

    def verify(self, *words: str) -> int:
        return main(["verify", *words])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk()


def remembered(desk: Desk) -> Desk:
    assert desk.verify("a.txt", "--seed", "seed", "--as", "a.txt", *FIRST) == 0
    return desk


def state_bytes() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("seed.state").rglob("*.json")}


def test_verify_knows_the_file_after_the_first_time(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Policies, source and path are said once; from then on the state has them."""
    remembered(desk)
    capsys.readouterr()
    assert desk.verify("a.txt", "--seed", "seed", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "VERIFIED"


def test_verify_with_a_reader_key(desk: Desk) -> None:
    """A reader verifies as the owner does, with a state of its own."""
    assert desk.verify("a.txt", "--reader", "reader", "--as", "a.txt", *FIRST) == 0
    assert desk.verify("a.txt", "--reader", "reader") == 0
    assert not Path("seed.state").exists()


def test_verify_takes_another_policy_on_the_users_word(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Said once, new policies of the same log are pinned, and the old ones no more; what was seen stays seen."""
    remembered(desk)
    before = Path("policy").read_bytes()
    Path("policy").write_bytes(b"# renewed\n" + before)
    words = ["a.txt", "--seed", "seed", "--policy", "policy", "--auditors", "auditors"]
    assert desk.verify(*words) == 4
    assert "--replace-policy" in capsys.readouterr().err
    assert desk.verify(*words, "--replace-policy", "--as-of", "proof") == 4  # as of a time nothing is remembered
    assert desk.verify(*words, "--replace-policy") == 0
    assert desk.verify("a.txt", "--seed", "seed") == 0
    Path("policy").write_bytes(before)
    assert desk.verify(*words) == 4
    desk.write(7, "a.txt", b"one")
    assert desk.verify("a.txt", "--seed", "seed") == 0


def test_verify_takes_no_policy_of_another_log(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] A policy whose key has not signed what was seen last is refused, and nothing is changed."""
    remembered(desk)
    other = World(seed=bytes(31) + b"\1")
    other.log = SignerKey(other.log.verifier_key.name, SIGNATURE, bytes(31) + b"\2")
    for name, cosigners in (("policy", other.witnesses), ("auditors", other.auditors)):
        Path(name).write_bytes(other.policy_file(cosigners, 3))
    kept = state_bytes()
    words = ["a.txt", "--seed", "seed", "--policy", "policy", "--auditors", "auditors", "--replace-policy"]
    assert desk.verify(*words) == 4
    assert "names both" in capsys.readouterr().err
    assert state_bytes() == kept


def test_verify_of_changed_bytes_is_changed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, and 0 again with the edit undone."""
    remembered(desk)
    Path("a.txt").write_bytes(b"onE")
    assert desk.verify("a.txt", "--seed", "seed") == 1
    assert "CHANGED  a.txt" in capsys.readouterr().out
    Path("a.txt").write_bytes(b"one")
    assert desk.verify("a.txt", "--seed", "seed") == 0


def test_verify_never_takes_the_path_from_the_proof(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Without --as and without memory the question is incomplete, whatever the proof offers."""
    assert desk.verify("a.txt", "--seed", "seed", *FIRST) == 4
    assert "--as" in capsys.readouterr().err
    assert desk.verify("a.txt", "--seed", "seed", "--as", "b.txt", *FIRST) == 2
    assert desk.verify("a.txt", "--seed", "seed") == 4


def test_verify_never_takes_policies_from_anywhere_else(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Without policy files there is nothing to begin with, and pinned ones are not replaced in passing."""
    assert desk.verify("a.txt", "--seed", "seed", "--as", "a.txt") == 4
    remembered(desk)
    Path("policy").write_bytes(desk.world.policy_file(desk.world.witnesses, 4))
    assert desk.verify("a.txt", "--seed", "seed", *FIRST) == 4
    assert "pinned" in capsys.readouterr().err


def test_another_file_at_a_known_path_on_the_users_word(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Where nothing shows that the old file left, only the user's word goes on with the new one; said once."""
    remembered(desk)
    world = desk.world
    world.record(8, Operation.CREATED, b"new", path="a.txt")
    world.publish()
    desk.write(8, "a.txt", b"new", pinned=min(world.notes))
    assert desk.verify("a.txt", "--seed", "seed") == 2
    assert "say --other-file once" in capsys.readouterr().out
    world.record(9, Operation.CREATED, b"x", path="x")
    world.publish()
    desk.write(8, "a.txt", b"new", pinned=sorted(world.notes)[-2])
    assert desk.verify("a.txt", "--seed", "seed") == 2
    assert desk.verify("a.txt", "--seed", "seed", "--other-file") == 0
    assert desk.verify("a.txt", "--seed", "seed") == 0


def test_verify_by_file_id_learns_no_path(desk: Desk) -> None:
    """[R] Asked by number, the path in the proof is the server's word and is not remembered as the user's."""
    assert desk.verify("a.txt", "--seed", "seed", "--as", "7", *FIRST) == 0
    assert not list(Path("seed.state").rglob("paths/*"))
    assert desk.verify("a.txt", "--seed", "seed") == 4


def test_verify_refuses_an_older_tree_than_the_state_has_seen(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] An old proof, replayed after a newer one was seen, is stale."""
    remembered(desk)
    old = Path("a.txt.proof").read_bytes()
    size = max(desk.world.notes)
    desk.world.record(7, Operation.WRITTEN, b"two", path="a.txt")
    desk.world.publish()
    desk.write(7, "a.txt", b"two", pinned=size)
    assert desk.verify("a.txt", "--seed", "seed") == 0
    Path("a.txt").write_bytes(b"one")
    Path("a.txt.proof").write_bytes(old)
    assert desk.verify("a.txt", "--seed", "seed") == 2
    assert "seen before" in capsys.readouterr().out


def test_verify_pins_the_checkpoint_whatever_the_files_verdict(desk: Desk) -> None:
    """SPEC 10.2: the tree was seen, even though the file is not the one that was asked for."""
    assert desk.verify("a.txt", "--seed", "seed", "--as", "b.txt", *FIRST) == 2
    (log,) = Path("seed.state").rglob("log.json")
    assert json.loads(log.read_bytes())["checkpoint"] == desk.world.notes[max(desk.world.notes)].decode()


def test_verify_that_does_not_verify_remembers_nothing_else(desk: Desk) -> None:
    """SPEC 10.2: proofs, paths and local files are remembered on VERIFIED alone."""
    Path("a.txt").write_bytes(b"other")
    assert desk.verify("a.txt", "--seed", "seed", "--as", "a.txt", *FIRST) == 1
    assert [path.name for path in state_bytes()] == ["log.json"]


def test_verify_without_a_quorum_starts_no_state(desk: Desk) -> None:
    """A checkpoint that too few have cosigned is not pinned, so the policies are not either."""
    size = max(desk.world.notes)
    root = desk.world.notes[size].decode().split("\n")[2]
    desk.world.notes[size] = desk.world.note(size, verify_command.decode_base64(root, "root"), 2, 4)
    desk.write(7, "a.txt", b"one")
    assert desk.verify("a.txt", "--seed", "seed", "--as", "a.txt", *FIRST) == 2
    assert not state_bytes()


def test_verify_as_of_writes_nothing(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A question about then changes no memory, not even of the checkpoint."""
    assert desk.verify("a.txt", "--seed", "seed", "--as", "a.txt", "--as-of", "proof", *FIRST) == 0
    assert "VERIFIED AS OF" in capsys.readouterr().out
    assert not Path("seed.state").exists()
    remembered(desk)
    before = state_bytes()
    desk.world.publish()
    desk.write(7, "a.txt", b"one", pinned=2)
    assert desk.verify("a.txt", "--seed", "seed", "--as-of", "proof") == 0
    assert state_bytes() == before


def test_verify_of_a_fork_writes_evidence(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3, an evidence file that `inspect` explains, and the pinned checkpoint stays."""
    remembered(desk)
    before = state_bytes()
    desk.world.leaves.clear()
    desk.world.map.clear()
    desk.world.histories.clear()
    desk.world.record(7, Operation.CREATED, b"lie", path="a.txt")
    assert desk.world.publish() == 2
    desk.write(7, "a.txt", b"lie")
    capsys.readouterr()
    assert desk.verify("a.txt", "--seed", "seed", "--json") == 3
    evidence = json.loads(capsys.readouterr().out)["evidence"]
    assert state_bytes() == before
    assert main(["inspect", evidence]) == 0
    assert "two different trees" in capsys.readouterr().out
    assert desk.verify("a.txt", "--seed", "seed") == 3
    assert len(list(Path().glob("seed.state.fork-*"))) == 2


def test_verify_of_several_files_answers_each(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has its line, proofs of different times go together, and the worst decides."""
    remembered(desk)
    desk.world.record(8, Operation.CREATED, b"b", path="b.txt")
    desk.world.publish()
    desk.write(8, "b.txt", b"b", pinned=2)
    assert desk.verify("b.txt", "--seed", "seed", "--as", "b.txt") == 0
    base = max(desk.world.notes)
    desk.world.publish()
    desk.write(7, "a.txt", b"one", pinned=base)
    desk.world.publish()
    desk.write(8, "b.txt", b"b", pinned=base)
    capsys.readouterr()
    assert desk.verify("b.txt", "a.txt", "missing.txt", "--seed", "seed", "--json") == 4
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["verdict"] for answer in answers] == ["VERIFIED", "VERIFIED", None]
    log = json.loads(next(Path("seed.state").rglob("log.json")).read_bytes())
    assert f"\n{max(desk.world.notes)}\n" in log["checkpoint"]


def test_verify_without_a_proof_is_not_proven(desk: Desk) -> None:
    """No proof: exit 2. A file that is not there: exit 4."""
    remembered(desk)
    os.remove("a.txt.proof")
    assert desk.verify("a.txt", "--seed", "seed") == 2
    os.remove("a.txt")
    assert desk.verify("a.txt", "--seed", "seed") == 4


@pytest.mark.parametrize(
    "words",
    [
        ["a.txt"],
        ["a.txt", "--seed", "nowhere"],
        ["a.txt", "--seed", "seed", "--reader", "reader"],
        ["a.txt", "b.txt", "--seed", "seed", "--proof", "x"],
        ["a.txt", "--seed", "seed", "--max-age", "long"],
        ["a.txt", "--seed", "seed", "--as-of", "soon"],
        ["a.txt", "--seed", "seed", "--log", "nonsense"],
        ["a.txt", "--see", "seed"],
        ["--seed", "seed"],
        [],
    ],
)
def test_verify_with_a_wrong_command_line_is_usage(desk: Desk, words: list[str]) -> None:
    """Every mistake in the command exits 4, argparse's own included; options are never guessed from a beginning."""
    assert desk.verify(*words) == 4


def test_verify_of_a_malformed_proof_is_malformed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 4 with what is wrong, as words and as data."""
    remembered(desk)
    Path("a.txt.proof").write_bytes(b"{}\n")
    capsys.readouterr()
    assert desk.verify("a.txt", "--seed", "seed", "--json") == 4
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "malformed"


def test_verify_with_a_damaged_state_verifies_nothing(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] A damaged memory is not silently begun anew."""
    remembered(desk)
    (log,) = Path("seed.state").rglob("log.json")
    log.write_bytes(log.read_bytes()[:-5])
    assert desk.verify("a.txt", "--seed", "seed", *FIRST) == 4
    assert "backup" in capsys.readouterr().err


def test_fault_of_the_program_says_nothing_about_the_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 70, and so said."""

    def broken(name: str) -> object:
        raise KeyError(name)

    monkeypatch.setattr(verify_command, "hash_file", broken)
    assert desk.verify("a.txt", "--seed", "seed", "--as", "a.txt") == 70
    assert "says nothing about the file" in capsys.readouterr().err


def fetched_together(desk: Desk) -> None:
    """b.txt was remembered as well, then two more trees were published: of the smaller one b.txt has its proof."""
    world = desk.world
    world.record(8, Operation.CREATED, b"bbb", path="b.txt")
    world.publish()
    for file_id, name, data in (7, "a.txt", b"one"), (8, "b.txt", b"bbb"):
        desk.write(file_id, name, data)
        assert desk.verify(name, "--seed", "seed", "--as", name, *FIRST) == 0
    seen = max(world.notes)
    world.record(9, Operation.CREATED, b"x", path="x")
    size = world.publish()
    desk.write(8, "b.txt", b"bbb", pinned=seen, size=size)
    world.record(7, Operation.WRITTEN, b"two", path="a.txt")
    world.publish()
    desk.write(7, "a.txt", b"two", pinned=seen)


def test_proofs_of_growing_trees_are_verified_together_in_any_order(desk: Desk) -> None:
    """The older tree goes first, whatever the order of the names."""
    fetched_together(desk)
    assert desk.verify("a.txt", "b.txt", "--seed", "seed") == 0
    assert desk.verify("b.txt", "--seed", "seed") == 2  # alone, afterwards, it is stale


def test_older_copy_beside_a_newer_one_of_the_same_file(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Two local copies of one remote file with proofs of their own: the older was right when its proof was made."""
    fetched_together(desk)
    world, seen = desk.world, sorted(desk.world.notes)
    desk.write(7, "copy.txt", b"one", pinned=seen[1], size=seen[2])
    assert desk.verify("copy.txt", "--seed", "seed", "--as", "a.txt") == 0
    desk.write(7, "a.txt", b"two", pinned=seen[2])
    world.record(9, Operation.TOUCHED, b"x", path="x")
    world.publish()
    desk.write(7, "copy.txt", b"one", pinned=seen[2], size=seen[2])
    assert desk.verify("a.txt", "copy.txt", "--seed", "seed") == 0
    assert "CHANGED" not in capsys.readouterr().out


def test_notes_of_one_tree_may_differ_in_one_run(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A fourth cosigner's line, or a refresh, came between two proofs of one tree; a third proof is of the next one."""
    fetched_together(desk)
    world, (_, seen, size, newest) = desk.world, sorted(desk.world.notes)
    desk.write(7, "a.txt", b"one", pinned=seen, size=size)
    world.now += 5
    world.notes[size] = world.note(size, reference.mth(world.leaves[:size]))
    desk.write(8, "b.txt", b"bbb", pinned=seen, size=size)
    desk.write(7, "c.txt", b"two", pinned=seen, size=newest)
    assert desk.verify("c.txt", "--as-of", "proof", "--seed", "seed", "--as", "a.txt") == 0
    home, log = Home("seed.state"), Home("seed.state").logs()[0]
    home.write_local(log, LocalState(str(Path("c.txt").resolve()), log.source, "a.txt"))
    assert desk.verify("a.txt", "b.txt", "c.txt", "--seed", "seed") == 0, capsys.readouterr().out


def test_rollback_between_two_files_of_one_run_is_a_fork(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Witnesses signed the smaller tree after the bigger one: FORK with evidence, though each file alone passes."""
    fetched_together(desk)
    world, size = desk.world, sorted(desk.world.notes)[2]
    world.now += 100
    world.notes[size] = world.note(size, reference.mth(world.leaves[:size]))
    proof = world.prove(8, size=size, pinned=sorted(world.notes)[1])._replace(first=None, before=None)
    Path("b.txt.proof").write_bytes(format_proof(proof))
    assert desk.verify("a.txt", "b.txt", "--seed", "seed") == 3
    out = capsys.readouterr().out
    (path,) = Path().glob("seed.state.fork-*.json")
    assert str(path) in out
    key = format_vkey(world.log.verifier_key)
    witness = format_vkey(world.witnesses[0].verifier_key)
    assert main(["verify", "--evidence", str(path), "--log", key, "--witness", witness]) == 3


def two_origins_of_one_size(desk: Desk, late: bool = False) -> None:
    """The proofs of a.txt and c.txt are of the old origin, that of b.txt of a tree as big of the new one, then d.txt.

    `late`: witnesses signed the tree of b.txt after that of d.txt.
    """
    fetched_together(desk)
    world, sizes = desk.world, sorted(desk.world.notes)
    old, size = format_proof(world.prove(7, pinned=sizes[1])), sizes[3]
    world.declare_loss(sizes[1])
    for number in range(size - len(world.leaves) - 1):
        world.record(20 + number, Operation.CREATED, b"x", path=f"x{number}")
    assert world.publish() == size
    desk.write(8, "b.txt", b"bbb", size=size)
    world.record(40, Operation.CREATED, b"x", path="y")
    world.publish()
    desk.write(8, "d.txt", b"bbb")
    if late:
        world.now += 100
        world.notes[size] = world.note(size, reference.mth(world.leaves[:size]))
        for name, how in (("b.txt", {"size": size}), ("d.txt", {})):
            proof = world.prove(8, **how)._replace(first=None, before=None)  # type: ignore[arg-type]
            Path(f"{name}.proof").write_bytes(format_proof(proof))
    for name in ("a.txt", "c.txt"):
        Path(name).write_bytes(b"two")
        Path(f"{name}.proof").write_bytes(old)
    for name, data in ("policy", world.policy_text), ("auditors", world.auditors_text):
        Path(name).write_bytes(data)
    home = Home("seed.state")
    for name, path in (("c.txt", "a.txt"), ("d.txt", "b.txt")):
        home.write_local(home.logs()[0], LocalState(str(Path(name).resolve()), home.logs()[0].source, path))


RENEWED = ["--seed", "seed", "--policy", "policy", "--auditors", "auditors", "--replace-policy", "--json"]


def test_old_origin_is_not_verified_beside_a_new_one_of_the_same_size(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """[R] The run has pinned the loss: a proof of the old origin is no longer current, whatever its size."""
    two_origins_of_one_size(desk)
    capsys.readouterr()
    assert desk.verify("a.txt", "b.txt", "c.txt", *RENEWED) == 2
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["name"], one["findings"][0]["reason"] if one["findings"] else "") for one in said] == [
        ("a.txt", ""),
        ("b.txt", "declared-loss"),
        ("c.txt", "unconnected"),
    ]


def test_rollback_under_a_new_origin_is_found_in_one_run(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Trees of one run are compared within their origin."""
    two_origins_of_one_size(desk, late=True)
    assert desk.verify("b.txt", "d.txt", *RENEWED) == 3


def test_other_file_is_said_of_one_file(desk: Desk) -> None:
    """[R] The word that another file is at a path is not said of all files of a run."""
    fetched_together(desk)
    assert desk.verify("a.txt", "b.txt", "--seed", "seed", "--other-file") == 4
    assert desk.verify("a.txt", "b.txt", "--seed", "seed") == 0


def test_state_that_others_may_write_is_warned_of(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes it can make its owner forget what was seen."""
    remembered(desk)
    assert "others on this machine" not in capsys.readouterr().err
    os.chmod("seed.state", 0o777)
    assert desk.verify("a.txt", "--seed", "seed") == 0
    assert "may write to seed.state, got mode 0777, want 0700" in capsys.readouterr().err


def test_proof_too_large_to_be_remembered_is_said(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short proof may be within the bound, and with what it continues beyond it."""
    monkeypatch.setattr(verify_command, "MAX_PROOF_SIZE", 100)
    monkeypatch.setattr(verify_command, "read_bounded", lambda path, limit, where: Path(path).read_bytes())
    remembered(desk)
    assert "too many to be remembered" in capsys.readouterr().err
    assert not list(Path("seed.state").rglob("files/*"))


def broken(key: SignerKey, note: bytes) -> Signature:
    """A line of this key that does not hold."""
    name, key_id = key.verifier_key.name, key.verifier_key.key_id
    size = 72 if key.verifier_key.algorithm == COSIGNATURE else 64
    return Signature(name, key_id, bytes([1] * size))


def with_line(note: bytes, line: Signature) -> bytes:
    """The note with this line in place of that key's own, or beside all others."""
    parsed = parse_note(note)
    kept = [one for one in parsed.signatures if one[:2] != line[:2]]
    return format_note(parsed._replace(signatures=(*kept, line)))


def test_note_with_a_bad_auditors_line_is_not_pinned(desk: Desk) -> None:
    """[R] A line that does not hold makes the note worthless: it stays out of the state."""
    remembered(desk)
    world = desk.world
    world.record(9, Operation.CREATED, b"x", path="x")
    size, kept = world.publish(), state_bytes()
    world.notes[size] = with_line(world.notes[size], broken(world.auditors[3], b""))
    desk.write(7, "a.txt", b"one", pinned=min(world.notes))
    assert desk.verify("a.txt", "--seed", "seed") == 2
    assert state_bytes() == kept


def test_bad_line_of_one_cosigner_does_not_hide_what_another_signed(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """[R] The older proof of a run has a spoiled auditor's line, and witnesses that signed it after the newer one."""
    fetched_together(desk)
    world, size = desk.world, sorted(desk.world.notes)[2]
    world.now += 100
    note = world.note(size, reference.mth(world.leaves[:size]))
    assert desk.verify("a.txt", "--seed", "seed") == 0
    world.notes[size] = with_line(note, broken(world.auditors[0], note))
    proof = world.prove(8, size=size, pinned=sorted(world.notes)[1])._replace(first=None, before=None)
    Path("b.txt.proof").write_bytes(format_proof(proof))
    assert desk.verify("b.txt", "--seed", "seed", "--json") == 3
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    key, witness, spoiled = (
        format_vkey(one.verifier_key) for one in (world.log, world.witnesses[0], world.auditors[0])
    )
    words = ["verify", "--evidence", said["evidence"], "--log", key, "--witness"]
    assert main([*words, witness]) == 3
    out = capsys.readouterr().out
    assert f"convicts     {world.witnesses[0].verifier_key.name}, and not the log" in out
    assert main([*words, spoiled]) == 2
    assert main(["verify", "--evidence", said["evidence"], "--state", "seed.state"]) == 3, "with all keys as well"


@pytest.mark.parametrize("twice", [False, True])
def test_lines_of_unknown_keys_do_not_keep_a_new_policy_out(desk: Desk, twice: bool) -> None:
    """[R] A server that knows the log's next key can put anything under its name into the note that is pinned."""
    world, new = desk.world, SignerKey(ORIGIN, SIGNATURE, secret("next key"))
    size = max(world.notes)
    note = world.notes[size]
    for _ in range(2 if twice else 1):
        parsed = parse_note(note)
        note = format_note(parsed._replace(signatures=(*parsed.signatures, broken(new, note))))
    world.notes[size] = note
    desk.write(7, "a.txt", b"one")
    remembered(desk)
    line = f"log {format_vkey(new.verifier_key)}\n".encode()
    for name, data in ("policy", world.policy_text), ("auditors", world.auditors_text):
        Path(name).write_bytes(line + data)
    words = ["--seed", "seed", "--policy", "policy", "--auditors", "auditors", "--replace-policy"]
    world.record(9, Operation.CREATED, b"x", path="x")
    world.signers = [world.log, new]
    world.publish()
    Path("a.txt.proof").write_bytes(format_proof(world.prove(7, pinned=size)._replace(first=None, before=None)))
    assert desk.verify("a.txt", *words) == 0
    assert desk.verify("a.txt", "--seed", "seed") == 0


def test_loss_that_hides_what_the_same_run_has_seen(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] A declared loss is judged by the newest tree that was seen, in one run as in two."""
    fetched_together(desk)
    world, sizes = desk.world, sorted(desk.world.notes)
    newest = format_proof(world.prove(7, pinned=sizes[1]))
    del world.notes[sizes[3]]
    world.declare_loss(sizes[2])
    world.record_seal(8)
    for number in range(6):
        world.record(20 + number, Operation.CREATED, b"x", path=f"x{number}")
    world.publish()
    desk.write(8, "b.txt", b"bbb")
    Path("a.txt.proof").write_bytes(newest)
    for name, data in ("policy", world.policy_text), ("auditors", world.auditors_text):
        Path(name).write_bytes(data)
    words = ["--seed", "seed", "--policy", "policy", "--auditors", "auditors", "--replace-policy", "--json"]
    assert max(world.notes) > sizes[3], "the new origin's tree comes second"
    capsys.readouterr()
    assert desk.verify("a.txt", "b.txt", *words) == 2
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["name"], first["verdict"]) == ("a.txt", "VERIFIED")
    assert [finding["reason"] for finding in second["findings"]] == ["loss-hides"]


def test_state_does_not_go_back_to_an_origin_that_was_left(desk: Desk) -> None:
    """[R] One run pins the new origin after a declared loss, and then meets a bigger tree of the old one."""
    fetched_together(desk)
    world, sizes = desk.world, sorted(desk.world.notes)
    world.declare_loss(sizes[1])
    desk.write(7, "a.txt", b"one")
    for name, data in ("policy", world.policy_text), ("auditors", world.auditors_text):
        Path(name).write_bytes(data)
    assert max(world.notes) < sizes[2], "the old tree comes second"
    words = ["--seed", "seed", "--policy", "policy", "--auditors", "auditors", "--replace-policy"]
    assert desk.verify("b.txt", "a.txt", *words) == 2
    (log,) = Path("seed.state").rglob("log.json")
    assert json.loads(log.read_bytes())["checkpoint"].startswith(world.log.verifier_key.name + "\n")


@pytest.mark.parametrize("depth", [900, 985, 991, 5000, 100_000])
@pytest.mark.parametrize("word", ["verify", "inspect"])
def test_depth_of_a_proof_is_no_fault_of_the_program(desk: Desk, word: str, depth: int) -> None:
    """[R] Lists in lists, as many as somebody likes, are malformed."""
    remembered(desk)
    Path("a.txt.proof").write_bytes(b"[" * depth + b"]" * depth)
    words = ["verify", "a.txt", "--seed", "seed"] if word == "verify" else ["inspect", "a.txt.proof"]
    assert main(words) == 4


def test_depth_of_a_value_is_not_followed_to_show_it() -> None:
    """What was got is shown in a few characters, however deep it is."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert str(Malformed("want text", "proof", deep)) == "proof: want text, got a list"


def test_first_use_wants_the_key_in_the_logs_name(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] A policy of the same origin under another key is no policy of the log that is named."""
    other = keys.format_log_name(ORIGIN, SignerKey(ORIGIN, SIGNATURE, secret("another")).verifier_key.public_key)
    Path("reader").write_bytes(keys.format_reader(desk.reader()._replace(log=other)))
    for words in ["--reader", "reader"], ["--seed", "seed", "--log", other]:
        assert desk.verify("a.txt", "--as", "a.txt", *words, *FIRST) == 4
        assert "does not name the first key" in capsys.readouterr().err


@pytest.mark.parametrize("fork", [False, True])
def test_verdict_is_printed_though_nothing_can_be_written(
    desk: Desk, fork: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """[R] On a full disk CHANGED and FORK are said, and are the exit code; what could not be kept is said as well."""
    remembered(desk)
    if fork:
        other = World()
        other.now = desk.world.now
        other.record(7, Operation.CREATED, b"evil", path="a.txt")
        other.publish()
        Path("a.txt.proof").write_bytes(format_proof(other.prove(7)))
    else:
        seen = max(desk.world.notes)
        desk.world.record(9, Operation.CREATED, b"x", path="x")
        desk.world.publish()
        desk.write(7, "a.txt", b"evil", pinned=seen)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("verifier.files.os.write", full)
    assert desk.verify("a.txt", "--seed", "seed") == (3 if fork else 1)
    shown = capsys.readouterr()
    assert ("FORK  a.txt" if fork else "CHANGED  a.txt") in shown.out
    assert "o space left on device" in shown.err


def test_interrupted_run_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C exits 130, which is no verdict."""

    def interrupt(name: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_command, "hash_file", interrupt)
    assert desk.verify("a.txt", "--seed", "seed", "--as", "a.txt") == 130


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_verify_warns_of_an_open_seed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A seed that others may read is said, and the verdict stands."""
    remembered(desk)
    os.chmod("seed", 0o644)
    assert desk.verify("a.txt", "--seed", "seed") == 0
    assert "0644" in capsys.readouterr().err


def test_verify_of_other_peoples_files_needs_a_seal(desk: Desk) -> None:
    """[R] With the owner's public key alone, only a seal says which file a chain is."""
    key = verify_command.common.derive_keys(SEED, desk.world.log_name).public
    words = ["--owner-key", _b64(key), "--state", "others", "--as", "a.txt", *FIRST]
    assert desk.verify("a.txt", *words) == 2
    desk.world.record_seal(7)
    desk.world.publish()
    desk.write(7, "a.txt", b"one", pinned=2)
    assert desk.verify("a.txt", *words) == 0


def _b64(data: bytes) -> str:
    from verifier.encoding import encode_base64

    return encode_base64(data)


def run(*words: str, cwd: str | Path | None = None, **how: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "audit", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, **how)  # type: ignore[call-overload,no-any-return]


def test_process_exits_with_the_verdict(desk: Desk) -> None:
    """The whole program, as a user runs it: verdict on standard output, its exit code, everything flushed."""
    first = run("verify", "a.txt", "--seed", "seed", "--as", "a.txt", *FIRST)
    assert (first.returncode, first.stdout[:8]) == (0, "VERIFIED")
    Path("a.txt").write_bytes(b"x")
    assert run("verify", "a.txt", "--seed", "seed").returncode == 1
    assert run("verify").returncode == 4
    assert run("nonsense").returncode == 4
    assert run().returncode == 4
    assert run("--help").returncode == 0


def test_process_whose_reader_goes_away_ends_quietly(desk: Desk) -> None:
    """A closed pipe is neither a verdict nor a trace."""
    remembered(desk)
    reading, writing = os.pipe()
    os.close(reading)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "audit", "verify", "a.txt", "--seed", "seed"]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, env=env, stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 141
    assert done.stderr == b""


def test_verify_path_loads_little(desk: Desk) -> None:
    """Verifying opens no socket and derives no key: the modules for that are not even loaded."""
    remembered(desk)
    program = (
        "import sys\nfrom audit.__main__ import main\ncode = main(['verify', 'a.txt', '--seed', 'seed'])\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), sep=',', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    code, *loaded = done.stderr.strip().split(",")
    heavy = {"socket", "_socket", "ssl", "http", "urllib", "getpass", "Crypto", "mnemonic", "dataclasses", "pathlib"}
    assert code == "0"
    assert not set(loaded) & (heavy | {"asyncio", "datetime", "traceback"})


@pytest.mark.parametrize("word", ["verify", "prove", "seal", "inspect", "enrol", "seed"])
def test_help_has_examples(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself, with something to copy."""
    with pytest.raises(SystemExit) as left:
        main([word, "--help"])
    assert left.value.code == 0
    assert f"nextcloud-audit {word} " in capsys.readouterr().out.split("examples:")[1]


def test_inspect_describes_and_gives_no_verdict(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """What the file says, step by step, and that nothing of it was verified."""
    assert main(["inspect", "a.txt.proof"]) == 0
    out = capsys.readouterr().out
    assert "0  created; a.txt; 3 bytes" in out
    assert "n0.example/auditor, " in out
    assert "Nothing of it was verified" in out
    assert "VERIFIED" not in out
    assert main(["inspect", "a.txt.proof", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] is None
    assert main(["inspect", "a.txt"]) == 4


def test_inspect_shows_what_the_server_remarked(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as that a step's bytes are ciphertext; what cannot be printed is escaped."""
    desk.world.record(9, Operation.CREATED, b"x", path="b", context={ContextField.REMARK: "ciphertext\u202e"})
    desk.world.publish()
    desk.write(9, "b", b"x")
    assert main(["inspect", "b.proof"]) == 0
    assert "; remark: ciphertext\\u202e\n" in capsys.readouterr().out


# -- seed -----------------------------------------------------------------------------------------------------


def test_seed_goes_to_paper_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed, its phrase, and the seed restored from that are the same; nothing is overwritten."""
    import io

    monkeypatch.chdir(tmp_path)
    assert main(["seed", "new", "one"]) == 0
    capsys.readouterr()
    assert main(["seed", "phrase", "one", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.StringIO(shown["phrase"] + "\n"))
    assert main(["seed", "restore", "two", "--fingerprint", shown["fingerprint"]]) == 0
    assert Path("one").read_bytes() == Path("two").read_bytes()
    assert main(["seed", "new", "one"]) == 4
    assert Path("one").read_bytes() == Path("two").read_bytes()


def test_seed_restored_from_a_mistyped_word_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The word is named, and no file is made."""
    import io

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("abandom " * 24 + "\n"))
    assert main(["seed", "restore", "two"]) == 4
    assert "abandom" in capsys.readouterr().err
    assert not Path("two").exists()


def test_seed_under_a_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The right passphrase opens it, another one does not; the secret is never printed."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("right", "correct horse\n"), ("wrong", "battery\n")):
        Path(name).write_text(text)
        os.chmod(name, 0o600)
    assert main(["seed", "new", "one", "--passphrase-file", "right"]) == 0
    assert Path("one").read_bytes().startswith(b"nextcloud-audit seed v1 scrypt\n")
    assert main(["seed", "show", "one", "--passphrase-file", "right"]) == 0
    assert main(["seed", "show", "one", "--passphrase-file", "wrong"]) == 4


def test_seed_show_is_not_the_secret(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A fingerprint may be shown to anybody."""
    assert main(["seed", "show", "seed"]) == 0
    out = capsys.readouterr().out
    assert "fingerprint" in out
    assert _b64(SEED) not in out


def test_seed_check_compares_with_the_state(desk: Desk) -> None:
    """The state of another seed is found out."""
    remembered(desk)
    assert main(["seed", "check", "seed"]) == 0
    Path("seed").write_bytes(format_seed(bytes(32)))
    assert main(["seed", "check", "seed"]) == 4


def test_seed_reader_exports_what_a_reader_needs(desk: Desk) -> None:
    """The exported file is the reader key, and verifies."""
    remembered(desk)
    assert main(["seed", "reader", "seed", "-o", "out.json"]) == 0
    assert keys.parse_reader(Path("out.json").read_bytes()) == desk.reader()
    assert main(["seed", "reader", "seed", "-o", "out.json"]) == 4
