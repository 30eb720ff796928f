"""The periodic audit against honest logs and every way of lying."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from audit import auditor, regions
from audit.commands import audit as command
from audit.directory import locked
from audit.errors import PeerFailed
from audit.mirror import Finding
from audit.monitor import LAG_S, Found, Monitor, Policies, Settings, exit_code, read_seen, seen_path
from audit.node import Node, create_node, open_node
from audit.witness import Inconsistent, format_request
from audit.witness_store import AUDITOR
from tests.audit.test_auditor import early_wrong_map, gap
from tests.fakes import NOW, FakeClock, FakeLog, digest
from verifier import replay
from verifier.conviction import verify_evidence
from verifier.errors import Error, Malformed, Usage
from verifier.evidence import parse_evidence
from verifier.leaf import Leaf
from verifier.note import COSIGNATURE, SignerKey, cosign, format_note, format_vkey, parse_note, parse_vkey
from verifier.policy import AUDITORS, WITNESSES, parse_policy

DAY_S = 86_400
NAMES = ("ada", "bea", "cem")


class Street:
    """A log, three witnesses and their auditors' keys, a node that audits; each shows what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.log = folder, FakeClock(), FakeLog().grow(20)
        self.witnesses = {n: SignerKey(f"{n}.example", COSIGNATURE, sha256(n.encode()).digest()) for n in NAMES}
        self.auditors = {
            n: SignerKey(f"{n}.example/auditor", COSIGNATURE, sha256(n.encode() * 2).digest()) for n in NAMES
        }
        self.shown: dict[str, bytes] = {}
        self.down: set[str] = set()
        self.errors: list[Error] = []
        create_node(folder, "eve.example")
        self.node: Node = open_node(folder, self.fetch)
        self.node.allow_log(self.log.vkey, self.log.url)
        self.publish()

    def policies(self, _: object = None) -> Policies:
        texts = []
        for signers in (self.witnesses, self.auditors):
            lines = [f"log {self.log.vkey}"]
            lines += [f"witness {n} {format_vkey(s.verifier_key)} https://{n}.test" for n, s in signers.items()]
            texts.append("\n".join([*lines, f"group g 2 {' '.join(signers)}", "quorum g", ""]).encode())
        return Policies(parse_policy(texts[0], WITNESSES), parse_policy(texts[1], AUDITORS))

    def cosigned(self, note: bytes, *names: str, time: int | None = None) -> bytes:
        """The note with the lines of these witnesses and of their auditors."""
        parsed, at = parse_note(note), self.clock.now if time is None else time
        lines = [cosign(parsed.text, signers[n], at) for n in names for signers in (self.witnesses, self.auditors)]
        return format_note(parsed._replace(signatures=(*parsed.signatures, *lines)))

    def publish(self) -> None:
        """Everybody shows the log's newest tree."""
        self.shown = {n: self.cosigned(self.log.checkpoint(), n) for n in NAMES}
        self.shown["log"] = self.cosigned(self.log.checkpoint(), *NAMES)

    async def fetch(self, url: str, limit: int) -> bytes:
        who = next((n for n in NAMES if url.startswith(f"https://{n}.test/")), "log")
        if who in self.down or url.startswith("https://log.example/zzz"):
            raise PeerFailed(f"{url}: ConnectError")
        if url.endswith("/checkpoint"):
            origin_hash = sha256(self.log.origin.encode()).hexdigest()
            assert url == (
                f"{self.log.url}/checkpoint" if who == "log" else f"https://{who}.test/{origin_hash}/checkpoint"
            )
            return self.shown[who]
        return await self.log.fetch(url, limit)

    def audit(self, **settings: object) -> list[Found]:
        given = Settings(policies=self.policies)._replace(**settings)  # type: ignore[arg-type]
        monitor = Monitor(self.node, self.folder, self.clock, given)
        found = asyncio.run(monitor.run(self.node.store.logs()))
        self.errors = monitor.errors
        return found

    def kinds(self, **settings: object) -> list[str]:
        return [found.kind for found in self.audit(**settings)]

    def convicts(self, found: Found) -> str:
        assert found.evidence is not None
        keys = [signer.verifier_key for signer in (*self.witnesses.values(), *self.auditors.values())]
        return verify_evidence(
            parse_evidence(Path(found.evidence).read_bytes()), [parse_vkey(self.log.vkey)], keys
        ).fault


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    street = Street(tmp_path / "node")
    yield street
    street.node.close()


# All is well


def test_monitor_finds_nothing_about_an_honest_log(street: Street) -> None:
    """A log that grows is followed without a word, and nothing is signed."""
    for entries in (0, 5, 300):
        street.log.grow(entries)
        street.publish()
        street.clock.now += 60
        assert street.audit() == []
        assert street.node.auditor.mirror(street.log.origin).size == len(street.log.leaves)
    assert street.node.store.head(AUDITOR, street.log.origin) is None
    assert street.node.store.evidence() == []


def other_log(street: Street) -> FakeLog:
    """Another log that the same node audits."""
    other, fetch = FakeLog("other.example/files").grow(10), street.fetch

    async def both(url: str, limit: int) -> bytes:
        if not url.startswith(other.url):
            return await fetch(url, limit)
        return other.checkpoint() if url.endswith("/checkpoint") else await other.fetch(url, limit)

    street.node.fetch = street.node.auditor._fetch = both
    street.node.allow_log(other.vkey, other.url)
    return other


def test_monitor_audits_the_others_where_a_mirror_is_damaged(street: Street) -> None:
    """The damaged one is named and set aside, and the next audit fetches it again."""
    other = other_log(street)
    assert street.audit(policies=lambda log: Policies()) == []
    street.node.auditor.close()
    path = street.folder / "mirror" / f"{sha256(street.log.origin.encode()).hexdigest()}.db"
    damaged = b"x" * 64 + path.read_bytes()[64:]
    path.write_bytes(damaged)
    other.grow(5)
    assert street.audit(policies=lambda log: Policies()) == []
    (error,) = street.errors
    assert str(error).startswith(f"{street.log.origin}: mirror: {path.name} is damaged")
    assert street.node.auditor.mirror(other.origin).size == len(other.leaves)
    assert path.with_name(f"{path.name}.damaged").read_bytes() == damaged
    assert street.audit(policies=lambda log: Policies()) == []
    assert street.errors == []
    assert street.node.auditor.mirror(street.log.origin).size == len(street.log.leaves)


def test_monitor_audits_the_others_whatever_one_log_sets_off(
    street: Street, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """[R] Even a fault of our own over one log's bytes is that log's error alone, and never passes for an audit."""
    other, check_form = other_log(street), replay.check_form

    def faulty(index: int, data: bytes) -> Leaf:
        if data == street.log.leaves[-1]:
            raise IndexError("index out of range")
        return check_form(index, data)

    monkeypatch.setattr(regions, "check_form", faulty)
    assert street.audit(policies=lambda log: Policies()) == []
    (error,) = street.errors
    assert str(error) == f"{street.log.origin}: could not be audited, IndexError: index out of range"
    assert "Traceback" in capsys.readouterr().err
    assert street.node.auditor.mirror(other.origin).size == len(other.leaves)


def test_monitor_audits_the_others_where_a_policy_is_bad(street: Street) -> None:
    """A policy file that can't be parsed is that log's error alone."""
    other = other_log(street)
    folder = street.folder / command.POLICY_FOLDER
    folder.mkdir(exist_ok=True)
    (folder / f"{sha256(street.log.origin.encode()).hexdigest()}.policy").write_text("quorum what\n")
    assert street.audit(policies=lambda log: command.policies_of(street.folder, log, Policies())) == []
    assert len(street.errors) == 1
    assert street.node.auditor.mirror(other.origin).size == len(other.leaves)


def test_monitor_knows_that_views_differ_in_time(street: Street) -> None:
    """Witnesses that are behind, or ahead of what is published, are no finding; nor are auditors that are at it."""
    assert street.audit() == []
    behind = street.shown["ada"]
    street.log.grow(5)
    street.publish()
    published = street.shown["log"]
    street.log.grow(5)
    street.publish()
    street.shown |= {"ada": behind, "log": published}
    assert street.audit() == []
    street.shown["log"] = format_note(
        parse_note(street.shown["log"])._replace(
            signatures=tuple(s for s in parse_note(street.shown["log"]).signatures if "auditor" not in s.name)
        )
    )
    assert street.audit() == []
    street.clock.now += LAG_S + 1
    assert street.kinds() == ["quorum-lost"]


def test_monitor_without_a_policy_asks_the_log_alone(street: Street) -> None:
    """No quorum is known, so none is missed."""
    street.shown = {"log": street.log.checkpoint()}
    assert street.audit(policies=lambda _: Policies()) == []


# Lies


def test_monitor_finds_a_fork_that_a_witness_was_shown(street: Street) -> None:
    """Another tree of another size, smaller than ours: two notes and our mirror prove it."""
    street.log.grow(20)
    street.publish()
    other = FakeLog().grow(19, chains=3).grow(4)
    street.shown["cem"] = street.cosigned(other.checkpoint(), "cem")
    (found,) = street.audit()
    assert (found.kind, street.convicts(found)) == ("fork", "fork")
    assert "cem.example" in found.message
    assert len(list((street.folder / "evidence").iterdir())) == 1


def test_monitor_finds_a_fork_of_the_same_size(street: Street) -> None:
    """Two roots of one size."""
    street.shown["ada"] = street.cosigned(street.log.checkpoint(21, digest(b"fork", 0)), "ada")
    (found,) = street.audit()
    assert (found.kind, street.convicts(found)) == ("fork", "fork")


def test_monitor_finds_a_log_that_rewrote_itself(street: Street) -> None:
    """The log goes on with another past: its own tiles prove it."""
    assert street.audit() == []
    street.log.leaves = FakeLog().grow(20, chains=11).grow(30).leaves
    street.publish()
    found = street.audit()
    assert {(one.kind, street.convicts(one)) for one in found} == {("fork", "fork")}


def test_monitor_proves_a_bigger_fork_once_it_can(street: Street) -> None:
    """A bigger tree that the log does not show is reported as that; when ours is bigger, it is proven."""
    other = FakeLog().grow(19, chains=3).grow(10)
    street.shown["cem"] = street.cosigned(other.checkpoint(), "cem")
    street.log.grow(5)
    street.publish()
    street.shown["cem"] = street.cosigned(other.checkpoint(), "cem", time=NOW - LAG_S - 1)
    assert street.kinds() == ["stale"]
    shown = street.shown["cem"]
    street.log.grow(50)
    street.publish()
    street.shown["cem"] = shown
    (found,) = street.audit()
    assert (found.kind, street.convicts(found)) == ("fork", "fork")


def test_monitor_finds_a_rollback(street: Street) -> None:
    """The log shows a smaller tree than before, and its witnesses signed that later: proven."""
    street.log.grow(5)
    street.publish()
    assert street.audit() == []
    street.clock.now += 60
    street.shown["log"] = street.cosigned(street.log.checkpoint(21), *NAMES)
    (found,) = street.audit()
    assert (found.kind, street.convicts(found)) == ("rollback", "rollback")
    (again,) = street.audit()
    assert again.evidence == found.evidence


def test_monitor_blames_a_witness_that_went_back_for_it_alone(street: Street) -> None:
    """[R] One witness signs an older tree as the newest: evidence against that witness, and no alarm about the log."""
    street.log.grow(5)
    street.publish()
    assert street.audit() == []
    street.clock.now += 60
    street.shown["ada"] = street.cosigned(street.log.checkpoint(21), "ada")
    (found,) = street.audit()
    assert (found.kind, exit_code([found]), street.convicts(found)) == ("stale", 2, "rollback")
    proven = verify_evidence(
        parse_evidence(Path(str(found.evidence)).read_bytes()),
        [parse_vkey(street.log.vkey)],
        [street.witnesses["ada"].verifier_key],
    )
    assert proven.accused == "ada.example"


def test_monitor_calls_an_old_copy_a_rollback_without_evidence(street: Street) -> None:
    """A smaller tree with its old times proves nothing, and is said all the same."""
    old = street.shown["log"]
    street.log.grow(5)
    street.clock.now += 60
    street.publish()
    assert street.audit() == []
    street.shown["log"] = old
    (found,) = street.audit()
    assert (found.kind, found.evidence) == ("rollback", None)


@pytest.mark.parametrize(("lie", "kind"), [(gap, "chain-broken"), (early_wrong_map, "map-wrong")])
def test_monitor_finds_what_the_replay_finds(street: Street, lie: Callable[[FakeLog], None], kind: str) -> None:
    """A broken chain and a wrong map are proven, and said again by each audit until an operator decides."""
    assert street.audit() == []
    lie(street.log)
    street.publish()
    files = set()
    for _ in range(2):
        found = street.audit()
        assert {(one.kind, street.convicts(one)) for one in found} == {(kind, kind)}
        files |= {one.evidence for one in found}
    assert len(files) == 1
    assert street.node.store.halt(street.log.origin)
    street.down = {"log", *NAMES}
    assert set(street.kinds()) == {kind, "unreachable"}


def test_monitor_reports_what_the_node_refused_since(street: Street) -> None:
    """A fork that only this node's witness was offered is a finding once."""
    assert street.audit() == []
    street.node.add_checkpoint(format_request(0, (), street.log.checkpoint()), street.clock.now)
    street.clock.now += 1
    forked = street.log.checkpoint(21, digest(b"fork", 0))
    with pytest.raises(Inconsistent):
        street.node.add_checkpoint(format_request(21, (), forked), street.clock.now)
    street.clock.now += 1
    (found,) = street.audit()
    assert (found.kind, street.convicts(found)) == ("fork", "fork")
    street.clock.now += 1
    assert street.audit() == []


# Less than well


def test_monitor_says_what_does_not_answer(street: Street) -> None:
    """A witness that is down, one that signs nothing of ours, and the log itself: a line each."""
    street.down.add("ada")
    street.shown["bea"] = street.shown["cem"]
    found = street.audit()
    assert [one.kind for one in found] == ["unreachable", "unreachable"]
    assert exit_code(found) == 1
    street.publish()
    street.down = {"log"}
    found = street.audit()
    assert [(one.kind, "log.example" in one.message) for one in found] == [("unreachable", True)]
    street.down = set()
    street.shown["log"] = FakeLog(secret=b"\x08" * 32).grow(20).checkpoint()
    assert street.kinds() == ["unreachable"]


def test_monitor_says_that_the_quorum_is_lost(street: Street) -> None:
    """Fewer witnesses than the policy asks, and a line that does not hold."""
    street.shown["log"] = street.cosigned(street.log.checkpoint(), "ada")
    found = street.audit()
    assert ([one.kind for one in found], exit_code(found)) == (["quorum-lost"], 2)
    one, other = parse_note(street.shown["ada"]), parse_note(street.log.checkpoint(10))
    street.shown["log"] = format_note(other._replace(signatures=(*other.signatures, *one.signatures[1:])))
    assert "quorum-lost" in street.kinds()


def test_monitor_says_that_a_log_is_stale(street: Street) -> None:
    """The bound on the age of the newest tree is inclusive."""
    street.clock.now += 7 * DAY_S
    assert street.audit() == []
    street.clock.now += 1
    assert street.kinds() == ["stale"]
    assert street.kinds(max_age_s=8 * DAY_S) == []


def test_monitor_stops_at_its_budget_and_goes_on(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is out of time says where it is, forgets nothing, and a later one ends it: no leaf comes twice."""
    monkeypatch.setattr(auditor, "CHUNK_LEAVES", 256)
    monkeypatch.setattr(auditor, "MAX_LEAVES_PER_REQUEST", 256)
    street.log.grow(1000)
    street.publish()
    for size in (256, 512):
        answers = iter([False, False, True])
        found = street.audit(deadline=lambda answers=answers: next(answers))
        assert [one.kind for one in found] == ["slow"]
        assert f"at {size} of 1022 leaves" in found[0].message
        assert read_seen(street.folder, street.node.store.logs()[0]).notes == {}
    assert street.audit() == []
    bundles = [path for path in street.log.fetched if path.startswith("tile/entries")]
    assert len(bundles) == len(set(bundles))


def test_monitor_goes_to_the_least_recently_audited_log_first(street: Street) -> None:
    """What a budget did not reach comes first the next time."""
    assert street.audit() == []
    street.node.allow_log(FakeLog("log.example/zzz", b"\x09" * 32).vkey, "https://log.example/zzz")
    answers = iter([False] + [True] * 9)
    known = lambda log: street.policies() if log.origin == street.log.origin else Policies()  # noqa: E731
    found = street.audit(deadline=lambda: next(answers), policies=known)
    assert [(one.kind, one.origin) for one in found][-1] == ("slow", street.log.origin)


def test_monitor_refuses_a_damaged_memory(street: Street) -> None:
    """Taken for nothing, it would hide a rollback."""
    assert street.audit() == []
    path = seen_path(street.folder, street.node.store.logs()[0])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Malformed, match="seen"):
        read_seen(street.folder, street.node.store.logs()[0])
    assert street.audit() == []
    assert ["seen: " in str(error) for error in street.errors] == [True]


def test_monitor_says_a_fork_though_there_is_no_room_for_its_evidence(street: Street) -> None:
    """A disk that takes no file silences nothing, neither here nor in the auditor."""
    (street.folder / "evidence").write_text("in the way")
    street.shown["ada"] = street.cosigned(street.log.checkpoint(21, digest(b"fork", 0)), "ada")
    (found,) = street.audit()
    assert (found.kind, found.evidence) == ("fork", None)
    assert "could not be written" in found.message
    gap(street.log)
    with pytest.raises(Finding):
        asyncio.run(street.node.auditor.replay(street.log.checkpoint(), street.clock))
    assert street.node.store.halt(street.log.origin)


def test_monitor_and_the_serving_node_share_a_mirror(street: Street) -> None:
    """What one process has mirrored the other takes up, whichever was first."""
    other = open_node(street.folder, street.fetch)
    for turn in range(4):
        street.log.grow(300)
        street.publish()
        street.clock.now += 60
        if turn % 2:
            assert asyncio.run(other.auditor.audit(street.log.checkpoint(), street.clock))
        assert street.audit() == []
    bundles = [path for path in street.log.fetched if path.startswith("tile/entries") and ".p/" not in path]
    assert len(bundles) == len(set(bundles))
    other.close()


# The command


def test_audit_command_is_alone_and_quiet(street: Street, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run prints nothing and exits with a code of its own; options that make no sense are refused."""
    from audit.cli import main

    with locked(str(street.folder), command.LOCK_FILE):
        assert main(["audit", "--data", str(street.folder), "--json"]) == command.BUSY
    assert capsys.readouterr().out == ""
    assert main(["audit", "nobody.example", "--data", str(street.folder)]) == 4
    assert main(["audit", "--data", str(street.folder / "none")]) == 4


def test_audit_command_takes_policies_from_options_and_from_the_node(street: Street) -> None:
    """The options where they name the log, else its own files; a file for another key is refused."""
    log = street.node.store.logs()[0]
    given = street.policies()
    assert command.policies_of(street.folder, log, given) == given
    assert command.policies_of(street.folder, log, Policies()) == Policies()
    own = street.folder / command.POLICY_FOLDER / f"{sha256(log.origin.encode()).hexdigest()}.policy"
    own.parent.mkdir()
    own.write_text(f"log {street.log.vkey}\nquorum none\n")
    found = command.policies_of(street.folder, log, Policies())
    assert found.witnesses is not None
    assert found.auditors is None
    own.write_text(f"log {FakeLog(secret=b'8' * 32).vkey}\nquorum none\n")
    with pytest.raises(Usage, match="another key"):
        command.policies_of(street.folder, log, Policies())


def test_audit_report_has_every_finding(street: Street) -> None:
    """The report is data, and one line says the same for people; nothing in it steers a terminal."""
    found = [Found("fork", "log.example/one", "a\x1bb", "/evidence.json")]
    data = json.loads(json.dumps(command.report_data(found, ["seen"], {"log.example/one": 5}, exit_code(found))))
    assert (data["exit"], data["findings"][0]["evidence"]) == (3, "/evidence.json")
    assert command.line_of(found[0]) == "fork log.example/one: a\\x1bb (evidence: /evidence.json)"
