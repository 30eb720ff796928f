"""The commands that ask a log: enrol, prove, seal; against a log on this machine that may lie, stall or refuse."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import verifier.client as client_module
from tests import reference
from tests.builder import ORIGIN, SEED, World, secret
from tests.vector_cases import small
from tests.vector_cases.loss import written
from tests.verifier.loopback import TOKEN, Log, Served
from tests.verifier.worlds import two_logs
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.cli import main
from verifier.client import Inclusion, Server, Signer
from verifier.commands import seal as seal_command
from verifier.commands.enrol import verify_enrolled
from verifier.commands.seal import give_up, has_lost_what_was_seen
from verifier.entry import Closed, Erased, Operation, Part, Seen, decode_entry
from verifier.errors import IllegalStep, Malformed, NotProven, Usage
from verifier.keys import format_log_name
from verifier.leaf import EnrolmentLeaf, encode_leaf
from verifier.note import SIGNATURE, Note, SignerKey, cosign, format_note, format_vkey, sign_note
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.proof import Line, Proof, parse_proof
from verifier.seed import format_seed
from verifier.verdict import Memory, Report


class Desk:
    """A user's directory, and a log that answers at `url`."""

    def __init__(self, log: Log, url: str) -> None:
        self.log, self.world, self.url = log, log.world, url
        Path("seed").write_bytes(format_seed(SEED))
        os.chmod("seed", 0o600)
        Path("policy").write_bytes(self.world.policy_text)
        Path("auditors").write_bytes(self.world.auditors_text)

    def enrol(self, *words: str, token: str = TOKEN) -> int:
        policies = ["--policy", "policy", "--auditors", "auditors"]
        return main(["enrol", "--server", self.url, "--seed", "seed", "--token", token, *policies, *words])

    def prove(self, remote: str, output: str, *words: str) -> int:
        self.log.asked.clear()
        return main(["prove", remote, "--server", self.url, "--seed", "seed", "-o", output, *words])

    def seal(self, *words: str) -> int:
        return main(["seal", "a.txt", "--server", self.url, "--seed", "seed", *words])

    def verify(self, name: str, *words: str) -> int:
        return main(["verify", name, "--seed", "seed", *words])

    def write(self, operation: Operation, data: bytes, path: str = "a.txt", file_id: int = 7) -> None:
        """An operation on the server, published, and the same bytes on this device."""
        self.world.record(file_id, operation, data, path=path)
        self.world.publish()
        Path(path).write_bytes(data)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    world = World()
    world.now = int(time.time()) - 1000
    world.record(7, Operation.CREATED, b"one", path="a.txt")
    world.publish()
    Path("a.txt").write_bytes(b"one")
    log = Log(world)
    with Served(log) as url:
        yield Desk(log, url)


@pytest.fixture
def enrolled(desk: Desk) -> Desk:
    assert desk.enrol() == 0
    return desk


def has_state() -> bool:
    return bool(list(Path().glob("seed.state/*/log.json")))


# -- enrol ----------------------------------------------------------------------------------------------------


def test_enrol_waits_until_the_enrolment_is_published(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Posting is not being enrolled; the state is written once the inclusion has been verified."""
    desk.log.pending = 2
    assert desk.enrol("--json") == 0
    assert json.loads(capsys.readouterr().out)["log"] == desk.world.log_name
    assert has_state()


def test_enrol_that_is_never_published_writes_no_state(desk: Desk) -> None:
    """The server's word alone enrols nobody, and the same command may be run again without a new token."""
    desk.log.pending = 1000
    assert desk.enrol("--wait", "0s") == 2
    assert not has_state()
    desk.log.pending = 0
    assert desk.enrol(token="used up by now") == 0


def test_enrol_wants_a_quorum_over_its_leaf(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] A checkpoint that two of four auditors signed proves no enrolment."""
    publish = desk.world.publish
    monkeypatch.setattr(desk.world, "publish", lambda: publish(auditors=2))
    assert desk.enrol("--wait", "0s") == 2
    assert not has_state()


def test_enrol_verifies_the_inclusion(desk: Desk) -> None:
    """[R] A leaf with another root, at the place where the server says it is, does not pass."""
    enrolled = desk.log._enrolled
    desk.log._enrolled = lambda root: _index(enrolled(root))  # type: ignore[method-assign]
    assert desk.enrol("--wait", "0s") == 2
    assert not has_state()


def _index(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str], bytes]:
    status, headers, body = answer
    fields = json.loads(body)
    if status == 200:
        fields["index"] = "0"
    return status, headers, json.dumps(fields).encode()


def test_enrol_refuses_a_log_that_is_not_the_policys(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] The key comes from the policy; a server with another key or name gets no blinding key."""
    desk.log.vkey = World().policy_file([], 0).decode().split()[1].replace("log.example", "other.example")
    assert desk.enrol() == 4
    assert "no log of the policy" in capsys.readouterr().err
    assert not [asked for asked in desk.log.asked if asked.startswith("POST")]


def test_enrol_refuses_the_key_of_another_log_in_the_policy(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Two logs that one policy names are two logs: the one has no name with the other's key."""
    other = format_vkey(SignerKey("other.example/files", SIGNATURE, secret("other log")).verifier_key)
    for name in ("policy", "auditors"):
        first, rest = Path(name).read_bytes().split(b"\n", 1)
        Path(name).write_bytes(b"%b\nlog %b\n%b" % (first, other.encode(), rest))
    desk.log.vkey = other
    assert desk.enrol() == 4
    assert "no declared loss" in capsys.readouterr().err
    assert not [asked for asked in desk.log.asked if asked.startswith("POST")]


def test_enrol_after_a_declared_loss(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The log has its first name and another origin, to which the old key's word leads; without that it is refused."""
    desk.world.declare_loss(max(desk.world.notes))
    desk.log.vkey = format_vkey(desk.world.log.verifier_key)
    Path("policy").write_bytes(desk.world.policy_text)
    Path("auditors").write_bytes(desk.world.auditors_text)
    declared, desk.world.declared = desk.world.declared, []
    assert desk.enrol() == 4
    assert "no declared loss" in capsys.readouterr().err
    desk.world.declared = declared
    assert desk.enrol() == 0


def test_enrol_refuses_what_another_logs_loss_leads_to(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] A declared loss is one log's: it leads no other log of the policy there."""
    desk.world.declare_loss(max(desk.world.notes))
    other = SignerKey("other.example/files", SIGNATURE, secret("other log")).verifier_key
    for name, text in ("policy", desk.world.policy_text), ("auditors", desk.world.auditors_text):
        Path(name).write_bytes(f"log {format_vkey(other)}\n".encode() + text)
    desk.log.vkey = format_vkey(desk.world.log.verifier_key)
    desk.log.name = format_log_name(other.name, other.public_key)
    assert desk.enrol() == 4
    assert "no declared loss" in capsys.readouterr().err
    assert not [asked for asked in desk.log.asked if asked.startswith("POST")]


def test_enrolment_in_the_tree_of_another_log_is_none() -> None:
    """[R] The leaf has to be in a tree of the log that was enrolled with, not of another one in the policy."""
    one, two, other = two_logs()
    policies = parse_policy(one.policy_text, WITNESSES), parse_policy(one.auditors_text, AUDITORS)
    leaves = [encode_leaf(EnrolmentLeaf(one.root)), *two.leaves]
    text = format_checkpoint(Checkpoint("other.example/files", len(leaves), reference.mth(leaves)))
    lines = [sign_note(text, other), *[cosign(text, signer, two.now) for signer in two.witnesses + two.auditors]]
    shown = Inclusion(one.root, 0, format_note(Note(text, tuple(lines))), reference.path(0, leaves))
    assert verify_enrolled(shown, policies, two.now, "other.example/files") == shown.checkpoint
    with pytest.raises(NotProven, match="origin|log"):
        verify_enrolled(shown, policies, two.now, ORIGIN)


def test_enrol_refuses_policies_with_another_fingerprint(desk: Desk) -> None:
    """What the user was told counts, for both files or for none."""
    from verifier.policy import fingerprint

    told = [fingerprint(desk.world.policy_text), fingerprint(desk.world.auditors_text)]
    assert desk.enrol("--trust-fingerprint", "0" * 64) == 4
    assert desk.enrol("--trust-fingerprint", told[0]) == 4
    assert desk.enrol("--trust-fingerprint", told[0], "--trust-fingerprint", told[1]) == 0


def test_enrol_twice_is_refused(enrolled: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A state that is enrolled stays as it is."""
    before = next(Path().glob("seed.state/*/log.json")).read_bytes()
    assert enrolled.enrol() == 4
    assert "already" in capsys.readouterr().err
    assert next(Path().glob("seed.state/*/log.json")).read_bytes() == before


def test_enrol_refuses_a_known_origin_under_another_key(enrolled: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] A log that comes back with another first key is another log: nothing is signed for it."""
    world = enrolled.world
    world.log = SignerKey("log.example/files", SIGNATURE, bytes(range(1, 33)))
    world.log_name = format_log_name("log.example/files", world.log.verifier_key.public_key)
    enrolled.log.name, enrolled.log.vkey = world.log_name, format_vkey(world.log.verifier_key)
    Path("policy").write_bytes(world.policy_file(world.witnesses, 3))
    Path("auditors").write_bytes(world.policy_file(world.auditors, 3))
    assert enrolled.enrol() == 4
    assert "impostor" in capsys.readouterr().err


def test_enrol_with_a_wrong_token_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The server's reason is shown."""
    assert desk.enrol(token="wrong") == 4
    assert "this token is not open" in capsys.readouterr().err


# -- prove ----------------------------------------------------------------------------------------------------


def test_prove_and_verify(enrolled: Desk) -> None:
    """The whole way, and again after a change: then only what is new is asked for, and a whole proof is written."""
    assert enrolled.prove("a.txt", "a.txt.proof") == 0
    assert enrolled.verify("a.txt", "--as", "a.txt") == 0
    enrolled.write(Operation.WRITTEN, b"two")
    assert enrolled.prove("a.txt", "a.txt.proof") == 0
    assert enrolled.log.asked == ["GET /proof?path=a.txt&source=folder%3Atest&size=4"]
    proof = parse_proof(Path("a.txt.proof").read_bytes())
    assert (proof.first_seq, len(proof.entries)) == (0, 2)
    assert enrolled.verify("a.txt") == 0
    enrolled.write(Operation.WRITTEN, b"three")
    assert enrolled.prove("a.txt", "a.txt.proof") == 0
    assert enrolled.log.asked[0].endswith("size=6&from=1")
    assert enrolled.verify("a.txt") == 0
    assert enrolled.prove("a.txt", "full.proof", "--full") == 0
    assert "from=" not in enrolled.log.asked[0]
    assert parse_proof(Path("full.proof").read_bytes()).entries == parse_proof(Path("a.txt.proof").read_bytes()).entries


def test_prove_of_a_path_that_another_file_has_now(enrolled: Desk) -> None:
    """[R] A new file id under a known path: the proof is asked to show that the old file has left."""
    assert enrolled.prove("a.txt", "a.txt.proof") == 0
    assert enrolled.verify("a.txt", "--as", "a.txt") == 0
    enrolled.world.record(7, Operation.DELETED)
    enrolled.write(Operation.CREATED, b"new", file_id=9)
    assert enrolled.prove("a.txt", "a.txt.proof") == 0
    assert enrolled.log.asked[-1].endswith("&replaces=7")
    assert enrolled.verify("a.txt") == 0


def test_prove_by_file_id_and_with_an_odd_path(enrolled: Desk) -> None:
    """Digits ask by id; every byte of a path that could mean something in a URL is encoded."""
    assert enrolled.prove("7", "a.txt.proof") == 0
    assert enrolled.log.asked[0].startswith("GET /proof/7?source=")
    enrolled.write(Operation.CREATED, b"x", path="ä &+#?%.txt", file_id=8)
    assert enrolled.prove("ä &+#?%.txt", "x.proof") == 0
    assert enrolled.verify("ä &+#?%.txt", "--proof", "x.proof", "--as", "ä &+#?%.txt") == 0


def test_prove_of_what_is_not_there_is_not_proven(enrolled: Desk) -> None:
    """No proof is NOT PROVEN, and no file is left."""
    assert enrolled.prove("nothing.txt", "x.proof") == 2
    assert not Path("x.proof").exists()


def test_prove_with_a_reader_key_explains_itself(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader can't sign a request."""
    assert main(["prove", "a.txt", "--server", desk.url, "--reader", "reader", "-o", "x.proof"]) == 4
    assert "signed by the owner" in capsys.readouterr().err


def test_prove_with_another_seed_is_refused(enrolled: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed must be the one of this state; nothing is sent."""
    Path("seed").write_bytes(format_seed(bytes(32)))
    assert enrolled.prove("a.txt", "x.proof") == 4
    assert "another seed" in capsys.readouterr().err
    assert not enrolled.log.asked


# -- seal -----------------------------------------------------------------------------------------------------


def test_prove_says_that_the_log_is_degraded(enrolled: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """With the proof, on standard error and as data, since when; also where there is no proof yet."""
    words = "a.txt", "a.txt.proof"
    assert enrolled.prove(*words) == 0
    assert capsys.readouterr().err == ""
    enrolled.log.degraded_since = "1800000000"
    assert enrolled.prove(*words, "--json") == 0
    said = capsys.readouterr()
    assert "warning: the log says that its cosigners' quorum is out of reach since 2027-01-15 08:00:00 UTC" in said.err
    assert json.loads(said.out)["degraded_since"] == "1800000000"
    assert enrolled.prove("new.txt", "new.txt.proof") == 2
    assert "out of reach since 2027-01-15 08:00:00 UTC" in capsys.readouterr().err
    for odd in ("soon", "-1", 7, [], "\x1b[0m"):
        enrolled.log.degraded_since = odd
        assert enrolled.prove(*words, "--json") == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert json.loads(said.out)["degraded_since"] is None


def test_seal_is_waited_for_and_verified(enrolled: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A seal counts once a proof shows it; then --require-seal passes."""
    assert enrolled.seal("--as", "a.txt", "-o", "a.txt.proof", "--json") == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["sealed_at"], answer["history"]["sealed"]) == ("1", True)
    assert enrolled.verify("a.txt", "--require-seal") == 0


def test_seal_of_other_bytes_is_refused(enrolled: Desk) -> None:
    """[R] Nothing is signed for bytes that this device does not have."""
    Path("a.txt").write_bytes(b"other")
    assert enrolled.seal("--as", "a.txt") == 1
    assert not [asked for asked in enrolled.log.asked if "seals" in asked]


def test_seal_mends_only_what_the_user_names(enrolled: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """[R] Each tainted step is accepted by its number, none by default."""
    enrolled.write(Operation.ALTERED, b"two")
    enrolled.write(Operation.ALTERED, b"three")
    assert enrolled.seal("--as", "a.txt") == 1
    assert "--accept 1" in capsys.readouterr().err
    assert enrolled.seal("--as", "a.txt", "--accept", "1") == 1
    assert enrolled.seal("--as", "a.txt", "--accept", "1", "--accept", "0") == 4
    assert not [asked for asked in enrolled.log.asked if "seals" in asked]
    assert enrolled.seal("--as", "a.txt", "--accept", "1", "--accept", "2", "-o", "a.txt.proof") == 0
    assert enrolled.verify("a.txt") == 0


def test_more_is_accepted_than_one_seal_lists(enrolled: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several seals follow each other, as many as it takes; each one accepts what has room in an entry."""
    monkeypatch.setattr(seal_command, "MAX_LISTED", 2)
    for data in (b"evil", b"eviler", b"evilest", b"evil", b"one"):
        enrolled.write(Operation.ALTERED, data)
    assert enrolled.seal("--as", "a.txt", *[word for seq in range(1, 6) for word in ("--accept", str(seq))]) == 0
    (chain,) = [history.chain for history in enrolled.world.histories.values() if history.chain.seals]
    assert [len(sealed.seal.accepts) for sealed in chain.seals] == [2, 2, 1]
    assert not chain.taints


def test_seal_that_is_not_published_is_said(enrolled: Desk) -> None:
    """The server's 202 is not a seal."""
    enrolled.log.publish_seals = False
    assert enrolled.seal("--as", "a.txt", "--wait", "0s") == 2


# -- the edge -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://example.org", "ftp://127.0.0.1", "127.0.0.1:8460", "https://", "http://u@127.0.0.1", "http://127.0.0.1:x"],
)
def test_server_address_is_https_or_this_machine(url: str) -> None:
    """Plain http never leaves this machine."""
    with pytest.raises(Usage):
        Server(url)


def test_server_that_is_not_there_is_unreachable() -> None:
    """Nothing listens: NOT PROVEN, with the reason."""
    with pytest.raises(NotProven, match="does not answer"):
        Server("http://127.0.0.1:1").offer()


def test_redirect_is_not_followed(desk: Desk) -> None:
    """Where a server points to is not where the user pointed."""
    desk.log.answer = (302, {"Location": f"{desk.url}/other"}, b"")
    with pytest.raises(Usage, match="redirects"):
        Server(desk.url).offer()
    assert desk.log.asked == ["GET /enrolment"]


def test_answer_without_end_is_cut_off(desk: Desk) -> None:
    """An answer above its bound is malformed, not memory."""
    desk.log.answer = (200, {}, b" " * (client_module.MAX_ANSWER + 1))
    with pytest.raises(Malformed, match="at most"):
        Server(desk.url).offer()


def test_answer_that_was_cut_is_no_answer(desk: Desk) -> None:
    """Less than was announced is a broken connection."""
    desk.log.answer = (200, {"Content-Length": "10"}, b"{}")
    with pytest.raises(NotProven, match="cut short|incomplete|does not answer"):
        Server(desk.url).offer()


@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 50, b"HTTP/1.1 100 Continue\r\n\r\n" * 50])
def test_headers_without_end_are_cut_off(drip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a piece of its headers now and then does not hold the client: the time is for all of it."""
    monkeypatch.setattr(client_module, "TOTAL_S", 0.2)
    done, ended = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                for number in range(len(drip)):
                    if done.wait(0.05):
                        return
                    with suppress(OSError):
                        connection.sendall(drip[number : number + 1])
                ended.set()

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(NotProven, match="no whole answer"):
            Server(f"http://127.0.0.1:{listening.getsockname()[1]}").offer()
        assert not ended.is_set()
        done.set()
        server.join()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"log":1}', b"\xff", b'{"error":{"message":5}}'])
def test_answer_that_is_nonsense_is_malformed(desk: Desk, body: bytes) -> None:
    """Whatever arrives, only our own errors leave."""
    desk.log.answer = (200, {}, body)
    with pytest.raises(Malformed):
        Server(desk.url).offer()
    desk.log.answer = (500, {}, body)
    with pytest.raises(Usage, match="status 500"):
        Server(desk.url).offer()


def test_what_a_server_says_cannot_steer_the_terminal(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is shown escaped and cut."""
    words = "\x1b[2J" + "x" * 5000
    desk.log.answer = (403, {}, json.dumps({"error": {"reason": "no", "message": words}}).encode())
    assert desk.enrol() == 4
    err = capsys.readouterr().err
    assert all(line.isprintable() for line in err.splitlines())
    assert len(err) < 2000


class Giving:
    """What `seal --accept loss` has of a run: the state, and a log that takes what it is handed."""

    def __init__(self, world: World, stored: Proof, path: str | None, data: bytes = b"more") -> None:
        self.data = data
        self.world, self.path, self.memory, self.sent = world, path, Memory(None, stored), list[Line]()
        self.signer = Signer(world.log_name, world.owner.public, world.owner.private)

    def stored(self, file_id: int) -> Proof | None:
        return self.memory.chain

    @property
    def server(self) -> Giving:
        return self

    def close(self, signer: Signer, source: str, file_id: int, generation: int, line: Line) -> int:
        assert (file_id, generation) == (1, self.world.histories[1].generation)
        self.sent.append(line)
        return 1

    def look(self) -> Report:
        self.world.append(self.world.histories[1], self.sent[0])
        self.world.continue_(1, self.data, "a.txt")
        self.world.publish()
        return self.judge()

    def judge(self) -> Report:
        asked = {"path": self.path} if self.path else {"file_id": 1}
        return self.world.verify(self.world.prove(1), self.data, self.memory, **asked)  # type: ignore[arg-type]


def lost_and_regrown() -> tuple[World, Proof]:
    """Steps that were seen were declared lost, and others took their place."""
    world = written()
    stored = world.prove(1)
    world.declare_loss(4)
    for data in (b"other", b"two", b"more"):
        world.record(1, Operation.WRITTEN, data, "a.txt")
    world.publish()
    return world, stored


def reasons(report: Report) -> set[str]:
    return {finding.reason for finding in report.findings}


def test_steps_are_given_up_though_their_chain_has_ended() -> None:
    """The server ended the chain whose steps were lost: the owner's close of the next one names what was seen."""
    world, stored = lost_and_regrown()
    world.close(1, signed=False)
    world.continue_(1, b"more", "a.txt")
    world.publish()
    giving = Giving(world, stored, "a.txt")
    report = giving.judge()
    assert reasons(report) == {"pinned", "declared-loss", "unsigned-close"}
    after = give_up(giving, report, 60)  # type: ignore[arg-type]
    closed = decode_entry(giving.sent[0].entry).argument
    assert isinstance(closed, Closed)
    assert closed.seen == Seen(stored.chain_id, stored.map.seq, stored.map.head)
    assert reasons(after) == {"declared-loss", "unsigned-close"}


def test_generation_that_is_gone_is_given_up() -> None:
    """All that was seen is of a generation that was lost: the owner ends what is left, and names it."""
    world = small(b"one")
    size = max(world.notes)
    world.close(1)
    world.continue_(1, b"one", "a.txt")
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.publish()
    stored, left = world.prove(1), world.histories[1].previous
    assert left is not None
    world.histories[1] = left
    world.declare_loss(size)
    giving = Giving(world, stored, "a.txt", b"one")
    report = giving.judge()
    assert reasons(report) == {"stale", "declared-loss"}
    assert has_lost_what_was_seen(giving, report)  # type: ignore[arg-type]
    assert reasons(give_up(giving, report, 60)) == {"declared-loss"}  # type: ignore[arg-type]


def test_steps_are_given_up_though_the_path_is_erased() -> None:
    """The owner says where the file is; without that nothing is signed and handed in that the chain would not take."""
    world, stored = lost_and_regrown()
    last = world.histories[1].chain.seq
    for seq in range(last + 1):
        world.record(1, Operation.ERASED, argument=Erased(seq, Part.PATH))
        world.erase(world.histories[1], seq, Part.PATH)
    world.publish()
    lost = Giving(world, stored, None)
    with pytest.raises(IllegalStep, match="carries no path"):
        give_up(lost, lost.judge(), 60)  # type: ignore[arg-type]
    assert not lost.sent
    giving, report = Giving(world, stored, "a.txt"), lost.judge()
    assert "pinned" in reasons(report)
    assert "pinned" not in reasons(give_up(giving, report, 60))  # type: ignore[arg-type]
