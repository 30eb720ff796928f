"""Nobody has the leaves that a restored log lacks: it declares them lost, and everybody who saw them still says so."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from audit import rotation, succession
from audit.chains import find_at_path
from audit.cli import main
from audit.directory import DECLARED, create_log, open_log
from audit.errors import Fatal, PeerFailed, PeerLacks, Refused
from audit.fsck import Keys, check_log
from audit.losing import (
    BEFORE,
    BUILD,
    PART,
    Declaration,
    _write_policies,
    ask,
    declare,
    default_origin,
    find_lost,
    swap,
    take_what_is_left,
)
from audit.node import Node, open_node
from audit.node import create_app as create_node_app
from audit.peer_files import changing
from audit.peers import Description, Peer, is_generated
from audit.succession import BadSuccession
from audit.witness import Ended
from audit.witness_store import AUDITOR, WITNESS
from tests.audit.log_setup import outstanding, read_leaf
from tests.audit.test_peers import key, peers_of
from tests.audit.town import LOG_URL, NAMES, ORIGIN, Switch, Town
from tests.fakes import NOW
from tests.verifier.test_cli import run
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.commands.closing import sign_closed
from verifier.commands.seal import sign_seal
from verifier.conviction import verify_evidence
from verifier.encoding import encode_base64
from verifier.entry import Seen, encode_seal_body
from verifier.evidence import parse_evidence
from verifier.loss import format_loss, loss_message, parse_loss
from verifier.note import (
    SIGNATURE,
    Note,
    SignerKey,
    cosign,
    format_private_key,
    format_vkey,
    parse_private_key,
    parse_vkey,
    sign_note,
)
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.proof import Declared, Proof, parse_proof
from verifier.verdict import Memory, Question, Report, Trust, Verdict
from verifier.verify import verify

SECOND = f"{ORIGIN}/2"


class Ruin(Town):
    """Backed up with two files; a third version and a third file were published since, and nobody mirrors those."""

    def __init__(self, directory: Path, lose: bool = True) -> None:
        super().__init__(directory)
        self.write("a.txt", "one")
        self.write("calm.txt", "calm")
        self.run(enrol=True)
        self.seal("calm.txt")
        self.write("a.txt", "two and more")
        self.run()
        self.early = self.prove("a.txt")
        self.back_up()
        mirrors = {name: self.copies(name) for name in NAMES}
        self.write("a.txt", "three and more still")
        self.write("new.txt", "new")
        self.run()
        self.late = self.prove("a.txt")
        self.restore()
        if lose:
            for name, copies in mirrors.items():
                self.put_back(name, copies)

    def run(self, enrol: bool = False) -> None:
        """One scan, all of it published and replayed."""
        self.service._enrol_first = enrol
        before = self.size()

        def is_done() -> bool:
            return self.service.scans > enrol and self.all_published() and self.size() != before

        asyncio.run(self.run_until(is_done, enrol))

    def settle(self) -> None:
        """Runs until all that there is has both quorums."""

        async def story() -> None:
            async with self.service.running():
                await self.until(lambda: self.service.scans and self.all_published())

        asyncio.run(story())

    def prove(self, path: str) -> Proof:
        async def story() -> bytes:
            answer = await self.send("GET", f"/proof?path={path}", signer=self.signer())
            assert answer.status_code == 200, answer.text
            return answer.content

        return parse_proof(asyncio.run(story()))

    def seal(self, path: str) -> None:
        """The owner's device seals the newest step; it is logged with the next tree."""
        report = self.judge(self.prove(path), path=path)
        seal = sign_seal(report, (), self.signer())
        fields = {"source": self.source.source_id, "file": str(report.proof.file_id), "generation": "0"}
        body = json.dumps({**fields, "seal": encode_base64(encode_seal_body(seal) + seal.signature)}).encode()
        assert asyncio.run(self.send("POST", "/seals", body, self.signer())).status_code == 202

    def begin_again(self) -> None:
        """Everything as it was when this was made; log and nodes are opened anew."""
        shutil.rmtree(self.path)
        shutil.copytree(self.path.with_name("template"), self.path)
        self.nodes = [open_node(self.path / name, self._fetch) for name in NAMES]
        apps = [create_node_app(node, self.clock) for node in self.nodes]
        self.switches = {name: Switch(app) for name, app in zip(NAMES, apps, strict=True)}
        self.said.clear()
        self.fatal.clear()
        self.open()

    # Nodes whose disks went with the log's

    def copies(self, name: str) -> dict[str, bytes]:
        """The mirror as it is now, and what the auditor has signed, but not what the witness has."""
        node = self.nodes[NAMES.index(name)]
        node.auditor.close()
        return {str(path): path.read_bytes() for path in (self.path / name / "mirror").glob("*.db")}

    def put_back(self, name: str, copies: dict[str, bytes]) -> None:
        node = self.nodes[NAMES.index(name)]
        node.auditor.close()
        for file in (self.path / name / "mirror").glob("*"):
            file.unlink()
        for path, data in copies.items():
            Path(path).write_bytes(data)

    # The command

    async def fetch(self, url: str, limit: int) -> bytes:
        async with self._make_client() as client:
            try:
                got = await client.get(url)
            except httpx.HTTPError as error:
                raise PeerFailed(f"{url}: {error}") from None
        if got.status_code == 404:
            raise PeerLacks(f"{url}: 404")
        if got.status_code != 200:
            raise PeerFailed(f"{url}: {got.status_code}")
        assert len(got.content) <= limit
        return got.content

    def declare(self, origin: str | None = None, without: tuple[str, ...] = (), finish: bool = True) -> Declaration:
        """`recover --declare-loss` on the stopped log, which is open again afterwards."""
        log, now, say = self.service.directory, self.clock.now, self.said.append

        async def look() -> object:
            shown = await ask(log, [], without, self.fetch, say)
            lost = find_lost(log, shown)
            await take_what_is_left(log, shown, lost, self.fetch, now, say)
            return lost

        lost = asyncio.run(look())
        declared = parse_loss(log.store.loss) if log.store.loss else []
        name = origin or default_origin(log.store.origin, declared)
        done = declare(log, lost, name, now, lambda size: name.encode().ljust(size, b"\0")[:size], say)  # type: ignore[arg-type]
        log.store.close()
        if finish:
            swap(str(self.path / "log"))
            self.open()
        return done

    def allow(self, done: Declaration, *nodes: Node) -> None:
        for node in nodes or self.nodes:
            node.allow_log(format_vkey(done.key), LOG_URL)

    def judge(self, proof: Proof, memory: Memory | None = None, path: str = "a.txt") -> Report:
        log, keys = self.service.directory, self.keys()
        names = self.made.log_name, self.source.source_id
        trust = Trust(*names, log.witnesses, log.auditors, keys.public, keys.blinding)
        return verify(proof, trust, Question(self.clock.now, None, path, None), memory or Memory())

    def findings(self) -> list[str]:
        log = self.service.directory
        report = check_log(log.store, Keys(log.signer.verifier_key, log.witnesses, log.auditors))
        return [str(finding) for finding in report.findings]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Ruin:
    """Made once: its directory is copied back for each test."""
    path = tmp_path_factory.mktemp("ruin") / "town"
    path.mkdir()
    made = Ruin(path)
    made.close()
    shutil.copytree(path, path.with_name("template"))
    return made


@pytest.fixture
def ruin(template: Ruin) -> Iterator[Ruin]:
    template.begin_again()
    yield template
    template.close()


def reasons(report: Report) -> list[str]:
    return [finding.reason for finding in report.findings]


# -- the whole way ------------------------------------------------------------------------------------------------


def test_log_that_declared_a_loss_goes_on(ruin: Ruin) -> None:
    """New origin, old name: nodes cosign and replay it from leaf 0, fsck finds nothing, every file is NOT PROVEN."""
    done = ruin.declare()
    assert (done.origin, ruin.service.store.origin, ruin.service.store.log_name) == (SECOND, SECOND, ruin.made.log_name)
    assert ruin.findings() == []
    ruin.allow(done)
    ruin.settle()
    assert ruin.service.paused is None
    assert ruin.findings() == []
    report = ruin.judge(ruin.prove("a.txt"))
    assert (report.verdict, reasons(report)) == (Verdict.NOT_PROVEN, ["declared-loss"])
    assert "was declared lost by the server" in report.findings[0].message
    calm = ruin.judge(ruin.prove("calm.txt"), path="calm.txt")
    assert (reasons(calm), calm.proof.sealed) == (["declared-loss"], None), "a seal over a tree of the old origin"
    new = find_at_path(ruin.service.store.reader(), ruin.source.row, "new.txt")
    assert new is not None
    assert new.file_id > 3, "the id that it had is not used again"
    assert [ruin.fatal, (ruin.path / "log" / "before-1" / "log.key").exists()] == [[], True]


def test_old_log_is_kept_beside(ruin: Ruin) -> None:
    """Nothing of the old log is deleted: its store opens, with its key and policies, as it was."""
    before = {name: (ruin.path / "log" / name).read_bytes() for name in ("log.key", "policy", "auditors")}
    done = ruin.declare()
    assert {name: (Path(done.before) / name).read_bytes() for name in before} == before
    log = open_log(done.before)
    assert (log.store.origin, log.store.loss) == (ORIGIN, None)
    log.store.close()


def test_declaring_is_resumed(ruin: Ruin) -> None:
    """A run that is cut short before the end changed nothing, one after it is completed by the next."""
    home = ruin.path / "log"
    (home / BUILD).mkdir()
    (home / BUILD / "log.db").write_bytes(b"half of it")
    done = ruin.declare(finish=False)
    (home / "log.db").rename(home / "gone")  # the first rename of a swap, and then the power cut
    Path(done.before).mkdir()
    (home / "gone").rename(Path(done.before) / "log.db")
    assert swap(str(home)) == done.before
    ruin.open()
    assert ruin.service.store.origin == SECOND
    assert ruin.findings() == []
    assert not (home / BUILD).exists()


def test_log_with_a_declaration_does_not_open(ruin: Ruin) -> None:
    """[R] Between declaring and swapping nothing is recorded in the old log: the new one would not have it."""
    ruin.declare(finish=False)
    with pytest.raises(Refused, match="run `recover --declare-loss` again"):
        open_log(str(ruin.path / "log"))


def test_declaration_names_the_key_of_the_new_origin(ruin: Ruin) -> None:
    """[R] Another key of the same name, also in both policies, is not the one that the old origin handed on to."""
    done = ruin.declare()
    ruin.service.store.close()
    home, other = ruin.path / "log", SignerKey(SECOND, SIGNATURE, b"another key".ljust(32))
    for name in ("policy", "auditors"):
        text = (home / name).read_text()
        (home / name).write_text(text.replace(format_vkey(done.key), format_vkey(other.verifier_key)))
    (home / "log.key").write_text(format_private_key(other) + "\n")
    with pytest.raises(Refused, match=r"log\.key: is not the key of the log"):
        open_log(str(home))


def ruin_again(ruin: Ruin) -> None:
    """A loss was declared, everybody went on, and then the disk failed once more."""
    ruin.allow(ruin.declare())
    ruin.settle()
    ruin.back_up()
    mirrors = {name: ruin.copies(name) for name in NAMES}
    ruin.write("later.txt", "later")
    ruin.run()
    ruin.restore()
    for name, copies in mirrors.items():
        ruin.put_back(name, copies)


def test_earlier_loss_is_not_told_otherwise_at_a_later_one(ruin: Ruin) -> None:
    """[R] What was kept the first time stands in leaf 0 of the origin that began then, which auditors hold."""
    ruin_again(ruin)
    old = parse_private_key((ruin.path / "log" / "before-1" / "log.key").read_text().strip())
    one = parse_loss(ruin.service.store.loss or b"")[0]
    more = one.kept + 50
    lie = one._replace(kept=more, signature=old.sign(loss_message(SECOND, one.key, more, one.note)))
    ruin.service.store.loss = format_loss([lie])
    ruin.declare()
    assert "declares other losses before" in refusals(ruin, ruin.nodes[0])


def test_copy_from_before_a_declared_loss_declares_none(ruin: Ruin) -> None:
    """[R] An honest operator who puts back too old a copy does not sign what would convict the log."""
    ruin.service.store.close()
    shutil.copytree(ruin.path / "log", ruin.path / "aside")
    ruin.open()
    ruin.allow(ruin.declare())
    ruin.settle()
    ruin.service.store.close()
    shutil.rmtree(ruin.path / "log")
    shutil.move(ruin.path / "aside", ruin.path / "log")
    ruin.open()
    with pytest.raises(Refused, match=f"knows {SECOND} already"):
        ruin.declare()
    assert not (ruin.path / "log" / DECLARED).exists()


def test_loss_is_declared_twice(ruin: Ruin) -> None:
    """The second declaration follows the first one: the proof shows both, and leaf 0 names both."""
    ruin_again(ruin)
    done = ruin.declare()
    assert done.origin == f"{ORIGIN}/3"
    assert ruin.findings() == []
    ruin.allow(done)
    ruin.settle()
    proof = ruin.prove("a.txt")
    assert proof.loss is not None
    assert len(proof.loss.declared) == 2
    assert reasons(ruin.judge(proof, Memory(ruin.early.checkpoint))) == ["declared-loss"]
    assert ruin.findings() == []


def test_log_gets_a_new_key_after_a_loss(ruin: Ruin) -> None:
    """A rotation works as before: the log is named for its first origin, and opens with the new one's keys."""
    ruin.declare()
    ruin.service.store.close()
    rotation.start(str(ruin.path / "log"))
    ruin.open()
    assert ruin.service.store.log_name == ruin.made.log_name
    assert ruin.findings() == []


def test_policies_that_were_made_from_peers_are_made_anew(tmp_path: Path) -> None:
    """Both name both origins, and go on as what `peer add` has made."""
    home, build = tmp_path / "log", tmp_path / "build"
    create_log(str(home), ORIGIN, NOW)
    build.mkdir()
    with changing(str(home)) as files:
        files.write(
            peers_of(*[Peer(f"w{n}", f"https://w{n}.example", Description(key(f"w{n}", n), None)) for n in (1, 2)])
        )
    new = SignerKey(SECOND, SIGNATURE, bytes(range(32))).verifier_key
    log = open_log(str(home))
    _write_policies(log, str(build), new)
    for name, kind in (("policy", WITNESSES), ("auditors", AUDITORS)):
        data = (build / name).read_bytes()
        assert is_generated(data)
        assert parse_policy(data, kind).log_keys == (log.signer.verifier_key, new)
    log.store.close()


def test_owner_gives_up_what_was_seen(ruin: Ruin) -> None:
    """A chain ends by its owner's signature over both heads; nobody else's ends it, and the next generation begins."""
    ruin.allow(ruin.declare())
    ruin.settle()
    report = ruin.judge(ruin.prove("a.txt"))
    assert report.chain is not None
    seen = Seen(ruin.late.chain_id, ruin.late.map.seq, ruin.late.map.head)

    def post(signed_by: str, generation: str = "0") -> int:
        assert report.chain is not None
        line = sign_closed(report.chain, seen, ruin.signer(signed_by), ruin.clock.now)
        parts = {name: encode_base64(part or b"") for name, part in zip(line._fields, line, strict=True)}
        fields = {"source": ruin.source.source_id, "file": str(report.proof.file_id), "generation": generation, **parts}

        async def story() -> int:
            body = json.dumps(fields).encode()
            return (await ruin.send("POST", "/closings", body, ruin.signer())).status_code

        return asyncio.run(story())

    assert [post("eve"), post("owner", "1"), post("owner"), post("owner")] == [422, 422, 202, 422]
    ruin.settle()
    proof = ruin.prove("a.txt")
    assert proof.generation == 1
    assert reasons(ruin.judge(proof, Memory(ruin.late.checkpoint, ruin.late))) == ["declared-loss"]
    other = ruin.late._replace(map=ruin.late.map._replace(head=bytes(32)))
    assert reasons(ruin.judge(proof, Memory(ruin.late.checkpoint, other))) == ["declared-loss", "pinned"]
    assert ruin.findings() == []


# -- what the command refuses ---------------------------------------------------------------------------------------


def test_nothing_is_declared_while_a_mirror_has_the_leaves(tmp_path: Path) -> None:
    """[R] The command asks first, and names the node that has all of them."""
    ruin = Ruin(tmp_path, lose=False)
    with pytest.raises(Refused, match=r"http://ada.test has every leaf; run `recover --from http://ada.test`"):
        ruin.declare()
    assert not (tmp_path / "log" / BUILD).exists()
    ruin.close()


def test_nothing_is_declared_while_a_node_is_silent(ruin: Ruin) -> None:
    """[R] A node that does not answer may have everything: only the operator passes it over, by its address."""
    ruin.switches["bea"].is_up = False
    with pytest.raises(Refused, match="http://bea.test did not answer"):
        ruin.declare()
    with pytest.raises(Refused, match="no node of this log"):
        ruin.declare(without=("http://eve.test",))
    assert ruin.declare(without=("http://bea.test/",)).origin == SECOND


def test_nothing_is_declared_where_nothing_is_lost(tmp_path: Path) -> None:
    """A log that has all that anybody has seen has lost nothing."""
    town = Ruin(tmp_path, lose=False)
    asyncio.run(recover_all(town))
    with pytest.raises(Refused, match="nothing is lost: this store has size"):
        town.declare()
    town.close()


async def recover_all(town: Ruin) -> None:
    from audit.recovery import recover

    await recover(town.service.directory, "http://ada.test", town.fetch, town.clock.now, town.said.append)


def mirrored_in_part(directory: Path) -> tuple[Ruin, int]:
    """A log put back to its copy; every mirror has more leaves than that, this many, and none has all."""
    ruin = Ruin(directory, lose=False)
    part = {name: ruin.copies(name) for name in NAMES}
    head = ruin.nodes[0].store.head(AUDITOR, ORIGIN)
    assert head is not None
    asyncio.run(recover_all(ruin))
    ruin.write("a.txt", "four and more, never to be seen again")
    ruin.run()
    ruin.restore()
    for name, copies in part.items():
        ruin.put_back(name, copies)
    return ruin, head.size


def test_what_a_mirror_has_in_part_is_taken_first(tmp_path: Path) -> None:
    """[R] Leaves that anybody holds survive: the mirror that has most of the rest gives it before the declaration."""
    ruin, held = mirrored_in_part(tmp_path)
    done = ruin.declare()
    assert done.kept == held
    assert ruin.findings() == []
    ruin.allow(done)
    ruin.settle()
    ruin.close()


def test_node_that_lies_about_its_mirror_is_passed_over(ruin: Ruin, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] It shows the newest tree and has no leaf of it: the operator leaves it out, and nothing of it counts."""
    honest, name = ruin.fetch, sha256(ORIGIN.encode()).hexdigest()
    newest = asyncio.run(honest(f"http://ada.test/{name}/checkpoint", 1 << 20))

    async def fetch(url: str, limit: int) -> bytes:
        if not url.startswith("http://dov.test/mirror/"):
            return await honest(url, limit)
        if url.endswith("/checkpoint"):
            return newest
        raise PeerLacks(f"{url}: 404")

    monkeypatch.setattr(ruin, "fetch", fetch)
    with pytest.raises(Refused, match="http://dov.test has every leaf.*--without http://dov.test"):
        ruin.declare()
    assert ruin.declare(without=("http://dov.test",)).origin == SECOND


def test_mirrors_are_tried_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] One that gives wrong leaves, or none, is followed by the next; where none gives them, nothing is declared."""
    ruin, held = mirrored_in_part(tmp_path)
    honest, liars = ruin.fetch, set(NAMES)

    async def fetch(url: str, limit: int) -> bytes:
        data, name = await honest(url, limit), url[7:10]
        if "/mirror/" not in url or "/tile/" not in url or name not in liars:
            return data
        if name == "ada":
            raise PeerFailed(f"{url}: 500")
        return data[:-1] + bytes([data[-1] ^ 1])

    monkeypatch.setattr(ruin, "fetch", fetch)
    with pytest.raises(Refused, match="ada.test, http://bea.test, .*did not give the leaves that it shows"):
        ruin.declare()
    liars.discard("dov")
    done = ruin.declare()
    assert done.kept == held
    assert not (tmp_path / "log" / PART).exists()
    assert ruin.findings() == []
    ruin.close()


def test_note_is_the_newest_one_with_the_quorum(ruin: Ruin) -> None:
    """[R] What one witness alone has cosigned is not the last cosigned note; all lines of that one are in the note."""
    log = ruin.service.directory
    shown = asyncio.run(ask(log, [], [], ruin.fetch, ruin.said.append))
    tree = Checkpoint(ORIGIN, 99, bytes(32))
    text = format_checkpoint(tree)
    lines = sign_note(text, log.signer), cosign(text, ruin.nodes[0].witness, ruin.clock.now)
    shown.trees.append((tree, Note(text, lines)))
    lost = find_lost(log, shown)
    assert (lost.tree.size, lost.seen) == (parse_proof_size(ruin.late), 99)
    assert sum(f"{name}.example ".encode() in lost.note for name in NAMES) == len(NAMES)


def test_fsck_compares_leaf_0_with_the_declaration(ruin: Ruin) -> None:
    """A store whose declaration is not the one in its tree is found."""
    ruin.declare()
    with ruin.service.store.transaction() as conn:
        one = parse_loss(ruin.service.store.loss or b"")[0]._replace(note=ruin.early.checkpoint)
        conn.execute("UPDATE meta SET value = ? WHERE key = 'loss'", (format_loss([one]),))
    ruin.reopen()
    assert any("declares another loss" in line for line in ruin.findings())


def parse_proof_size(proof: Proof) -> int:
    from verifier.commands.verify import tree_of

    return tree_of(proof.checkpoint).size


# -- attacks ----------------------------------------------------------------------------------------------------------


def test_loss_that_hides_what_a_client_has_seen(ruin: Ruin) -> None:
    """[R] Who saw the lost step is told that it is gone; who saw less goes on."""
    ruin.allow(ruin.declare())
    ruin.settle()
    proof = ruin.prove("a.txt")
    seen = ruin.judge(proof, Memory(ruin.late.checkpoint, ruin.late))
    assert (seen.verdict, reasons(seen)[-1]) == (Verdict.CHANGED, "pinned")
    early = ruin.judge(proof, Memory(ruin.early.checkpoint, ruin.early))
    assert reasons(early) == ["declared-loss"]
    assert early.pins_checkpoint


def test_client_with_the_old_policy_is_told_what_to_do(ruin: Ruin) -> None:
    """[R] Nobody is moved silently: the old policy knows no such origin, and the finding says what to do."""
    policies = [(ruin.path / "log" / name).read_bytes() for name in ("policy", "auditors")]
    ruin.allow(ruin.declare())
    ruin.settle()
    keys = ruin.keys()
    old = parse_policy(policies[0], WITNESSES), parse_policy(policies[1], AUDITORS)
    trust = Trust(ruin.made.log_name, ruin.source.source_id, *old, keys.public, keys.blinding)
    memory = Memory(ruin.early.checkpoint, ruin.early)
    report = verify(ruin.prove("a.txt"), trust, Question(ruin.clock.now, None, "a.txt", None), memory)
    assert reasons(report) == ["unknown-log"]
    assert "verify --replace-policy" in report.findings[0].message
    assert not report.pins_checkpoint


def relogged(ruin: Ruin, harm: str) -> Declaration:
    """Declares with a lie in the copy: leaves are kept back or swapped before they are logged again."""
    import audit.losing as losing

    honest = losing._leaves_of

    def lying(log: object, size: int, start: int = 0) -> Iterator[bytes]:
        leaves = list(honest(log, size, start))  # type: ignore[arg-type]
        entries = [i for i, leaf in enumerate(leaves) if leaf[0] == 1]
        if harm == "dropped":
            last = [i for i, leaf in enumerate(leaves) if leaf[0] == 2][0]
            return iter(leaves[: last + 1])
        if harm == "changed":
            leaves[entries[-1]] = leaves[entries[-1]][:-1] + bytes([leaves[entries[-1]][-1] ^ 1])
            return iter(leaves)
        chain = leaves[entries[0]][1:33]
        one, other = entries[0], next(i for i in entries if leaves[i][1:33] != chain and leaves[i][40] == 0)
        leaves[one], leaves[other] = leaves[other], leaves[one]
        return iter(leaves)

    losing._leaves_of = lying  # type: ignore[assignment]
    try:
        return ruin.declare()
    finally:
        losing._leaves_of = honest


def refusals(ruin: Ruin, node: Node) -> str:
    """Why this node's auditor does not sign for the new origin."""
    ruin.allow(Declaration("", "", ruin.service.directory.signer.verifier_key, None, 0, 0, ""), node)  # type: ignore[arg-type]

    async def story() -> str:
        target = outstanding(ruin.service.store)
        assert target is not None
        with pytest.raises(BadSuccession) as caught:
            await node.auditor.audit(target.note, ruin.clock)
        return str(caught.value)

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("reordered", "is another one under"),
        ("changed", "is another one under"),
        ("dropped", "drops leaves that were not lost"),
    ],
)
def test_surviving_leaves_reordered_changed_or_dropped(ruin: Ruin, harm: str, why: str) -> None:
    """[R] An auditor that holds leaves of the old origin wants every one of them, in its order."""
    relogged(ruin, harm)
    node = ruin.nodes[0]
    assert why in refusals(ruin, node)
    assert node.store.head(AUDITOR, SECOND) is None
    assert any("declared loss" in row.detail for row in node.store.evidence(SECOND))


@pytest.mark.parametrize("harm", ["changed", "reordered"])
def test_changed_leaf_convinces_a_third_person(ruin: Ruin, harm: str) -> None:
    """[R] Whoever has the file and the old log's key proves in a process of its own that a kept leaf was changed."""
    relogged(ruin, harm)
    node = ruin.nodes[0]
    refusals(ruin, node)
    (path,) = (ruin.path / NAMES[0] / "evidence").glob("*-changed-leaf-*.json")
    assert node.auditor.evidence[SECOND] == path, "the periodic audit names it"

    proven = run("verify", "--evidence", str(path), "--log", ruin.made.vkey)
    assert proven.returncode == 3, proven.stdout + proven.stderr
    assert f"log          {ORIGIN}\n" in proven.stdout
    assert "is another one there" in proven.stdout
    data = json.loads(run("verify", "--evidence", str(path), "--log", ruin.made.vkey, "--json").stdout)
    assert (data["evidence"], data["proves"], data["exit"]) == ("changed-leaf", "chain-broken", 3)
    new_key = format_vkey(ruin.service.directory.signer.verifier_key)
    assert run("verify", "--evidence", str(path), "--log", new_key).returncode == 2, "the new key convicts nobody"
    assert "what stands in its place" in run("inspect", str(path)).stdout


def test_leaf_that_was_lost_convicts_nobody(ruin: Ruin) -> None:
    """[R] An honest log whose note covers what it has lost: auditors sign, and no file can be made of what is gone."""
    held = ruin.nodes[0].auditor.mirror(ORIGIN).size
    done = ruin.declare()
    assert held <= done.kept < done.note.size
    assert parse_loss(ruin.service.store.loss or b"")[0].kept == done.kept
    ruin.allow(done)
    ruin.settle()
    assert list(ruin.path.glob("*/evidence/*")) == []


def test_declaration_that_gives_up_what_a_node_holds(ruin: Ruin, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] Who says that a held leaf was lost could put another one in its place: no auditor signs for that."""
    done = ruin.declare()
    old = parse_private_key((ruin.path / "log" / "before-1" / "log.key").read_text().strip())
    one = parse_loss(ruin.service.store.loss or b"")[0]
    held = ruin.nodes[0].auditor.mirror(ORIGIN).size
    with_loss(ruin, monkeypatch, kept=held - 1, signature=old.sign(loss_message(SECOND, one.key, held - 1, one.note)))
    assert f"the declaration, which keeps {held - 1}, drops leaves that were not lost" in refusals(ruin, ruin.nodes[0])
    with_loss(ruin, monkeypatch, kept=done.kept + 1)
    assert "hands on" in refusals(ruin, ruin.nodes[0]), "what is kept is signed, too"


def test_leaf_that_changed_on_disk_is_not_logged_again(ruin: Ruin) -> None:
    """[R] An honest log with a damaged disk does not sign what would convict it: nothing is declared."""
    with ruin.service.store.transaction() as conn:
        (data,) = conn.execute("SELECT data FROM bundles WHERE n = 0").fetchone()
        conn.execute("UPDATE bundles SET data = ? WHERE n = 0", (data[:10] + bytes([data[10] ^ 1]) + data[11:],))
    with pytest.raises(Fatal, match="not those that were signed"):
        ruin.declare()
    assert not (ruin.path / "log" / DECLARED).exists()


def test_two_declarations_of_one_note(ruin: Ruin) -> None:
    """[R] A node replays one successor of an origin; another one is refused, and so is the old origin itself."""
    old = ruin.service.directory
    first = ruin.declare(finish=False)
    shutil.copytree(ruin.path / "log", ruin.path / "aside")
    shutil.rmtree(ruin.path / "log" / BUILD)
    ruin.open()
    note = ruin.late.checkpoint
    ruin.declare(f"{ORIGIN}/other")
    ruin.allow(ruin_declaration(ruin))
    ruin.settle()
    node = ruin.nodes[0]
    assert node.store.successor(ORIGIN) == f"{ORIGIN}/other"
    ruin.service.store.close()
    shutil.rmtree(ruin.path / "log")
    shutil.move(ruin.path / "aside", ruin.path / "log")
    swap(str(ruin.path / "log"))
    ruin.open()
    assert ruin.service.store.origin == first.origin
    assert "goes on as log.example/files/other already" in refusals(ruin, node)
    (path,) = (ruin.path / NAMES[0] / "evidence").glob("*-two-successors-*.json")
    proven = verify_evidence(parse_evidence(path.read_bytes()), [parse_vkey(ruin.made.vkey)])
    assert (proven.origin, proven.fault) == (ORIGIN, "fork"), "a third person with the old key alone is convinced"
    assert old.store.origin == ORIGIN
    with pytest.raises(Ended, match="goes on as"):
        node.store.advance(WITNESS, ORIGIN, None, ruin.clock.now, None)  # type: ignore[arg-type]
    with pytest.raises(Ended):
        asyncio.run(node.auditor.audit(note, ruin.clock))


def ruin_declaration(ruin: Ruin) -> Declaration:
    """What `declare` gave for the log as it is open now."""
    return Declaration("", "", ruin.service.directory.signer.verifier_key, None, 0, 0, "")  # type: ignore[arg-type]


def with_loss(ruin: Ruin, monkeypatch: pytest.MonkeyPatch | None = None, **change: object) -> None:
    """The log serves, and its store has, another declaration; with `monkeypatch` leaf 0 names it, as nodes see it."""
    one = parse_loss(ruin.service.store.loss or b"")[0]._replace(**change)  # type: ignore[arg-type]
    ruin.service.store.loss = format_loss([one])
    if monkeypatch is not None:
        first = read_leaf(ruin.service.store.reader(), 0)
        monkeypatch.setattr(succession, "loss_leaf", lambda declared: first)


def test_note_of_another_log(ruin: Ruin) -> None:
    """[R] Auditors want the very declarations that leaf 0 names: nobody is told of another note, or of other leaves."""
    done = ruin.declare()
    node = ruin.nodes[0]
    honest = ruin.service.store.loss
    for change in ({"note": ruin.early.checkpoint}, {"kept": done.kept + 1}, {"signature": bytes(64)}):
        with_loss(ruin, **change)
        assert "names other declarations" in refusals(ruin, node)
        ruin.service.store.loss = honest


def test_note_that_the_old_key_did_not_hand_on(ruin: Ruin, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] The old origin's key has to say under which origin and key the log goes on."""
    ruin.declare()
    one: Declared = parse_loss(ruin.service.store.loss or b"")[0]
    eve = SignerKey(SECOND, SIGNATURE, bytes(range(32)))
    with_loss(ruin, monkeypatch, signature=eve.sign(loss_message(SECOND, one.key, one.kept, one.note)))
    assert "hands on" in refusals(ruin, ruin.nodes[0])
    key = eve.verifier_key.public_key
    with_loss(ruin, monkeypatch, key=key, signature=eve.sign(loss_message(SECOND, key, one.kept, one.note)))
    assert "was not told of" in refusals(ruin, ruin.nodes[0])


def test_note_older_than_what_a_node_cosigned(ruin: Ruin) -> None:
    """[R] A declaration over an older note is none for a node that has cosigned a newer tree."""
    import audit.losing as losing

    honest = losing.find_lost
    size = parse_proof_size(ruin.early)

    def lying(log: object, shown: object) -> losing.Lost:
        lost = honest(log, shown)  # type: ignore[arg-type]
        tree = lost.tree._replace(size=size)
        return lost._replace(note=ruin.early.checkpoint, tree=tree)

    globals()["find_lost"] = lying
    try:
        ruin.declare()
    finally:
        globals()["find_lost"] = honest
    assert "was cosigned here" in refusals(ruin, ruin.nodes[0])


def test_before_directory_is_never_overwritten(ruin: Ruin) -> None:
    """What stands where the old log is to be kept stops the command before anything is done."""
    (ruin.path / "log" / f"{BEFORE}1").mkdir()
    with pytest.raises(Refused, match="is in the way"):
        ruin.declare()
    with pytest.raises(Refused, match="one that this log has had"):
        ruin.declare(ORIGIN)


# -- the command --------------------------------------------------------------------------------------------------


class LocalFetch:
    """Stands for HttpFetch: asks the nodes of the town."""

    def __init__(self, ruin: Ruin) -> None:
        self._ruin = ruin

    async def __call__(self, url: str, limit: int) -> bytes:
        return await self._ruin.fetch(url, limit)

    async def aclose(self) -> None:
        pass


def command(ruin: Ruin, monkeypatch: pytest.MonkeyPatch, *words: str, typed: str | None = None) -> int:
    """`nextcloud-audit recover` on the stopped log, with somebody at the keyboard or nobody."""

    def answer() -> str:
        if typed is None:
            raise EOFError
        return typed

    monkeypatch.setattr("audit.commands.recover.HttpFetch", lambda: LocalFetch(ruin))
    monkeypatch.setattr("builtins.input", answer)
    ruin.service.store.close()
    try:
        return main(["recover", "--data", str(ruin.path / "log"), *words])
    finally:
        ruin.open()


def test_loss_is_declared_by_the_typed_origin_alone(
    ruin: Ruin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it means is said first; a yes is the new origin, typed, or --yes in a script; else nothing has happened."""
    assert command(ruin, monkeypatch, "--declare-loss") == 4
    assert command(ruin, monkeypatch, "--declare-loss", typed="yes") == 4
    said = capsys.readouterr().err
    assert "never signs again" in said
    assert "not confirmed" in said
    assert (ruin.service.store.origin, (ruin.path / "log" / BUILD).exists()) == (ORIGIN, False)
    assert command(ruin, monkeypatch, "--declare-loss", "--origin", "new.example/log", typed="new.example/log") == 0
    assert f"node allow --data DIR {format_vkey(ruin.service.directory.signer.verifier_key)}" in capsys.readouterr().out
    assert ruin.service.store.origin == "new.example/log"


@pytest.mark.parametrize("words", [(), ("--yes",), ("--origin", "x"), ("--without", "http://a"), ("--from", "ftp://a")])
def test_recover_wants_one_way_out(words: tuple[str, ...]) -> None:
    """`--from` or `--declare-loss`, and what belongs to the one is refused with the other."""
    assert main(["recover", "--data", "nowhere", *words]) == 4
