"""A log gets a new key while it is recorded, cosigned, replayed and verified."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit import rotation
from audit.cli import main
from audit.directory import create_log, open_log
from audit.errors import Conflict, Refused
from audit.fsck import Keys, check_log
from audit.node import allow_log
from audit.peer_files import PEERS_FILE, changing, read_files
from audit.peers import Description, Peer
from audit.publisher import read_newest_signed
from audit.witness import Inconsistent, Untrusted, format_request, open_log_note
from audit.witness_store import WITNESS
from tests.audit.log_setup import read_leaf
from tests.audit.test_peers import key, peers_of
from tests.audit.town import LOG_URL, ORIGIN, Town
from tests.fakes import NOW, FakeLog
from verifier.client import Offer
from verifier.commands.enrol import check_offer
from verifier.errors import Usage
from verifier.keys import format_log_name
from verifier.leaf import LogKeyLeaf, encode_leaf
from verifier.note import (
    SIGNATURE,
    Note,
    SignerKey,
    find_signature,
    format_note,
    format_private_key,
    format_vkey,
    make_key,
    parse_note,
    parse_vkey,
    sign_note,
)
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.proof import Proof, parse_proof
from verifier.verdict import Memory, Question, Report, Trust, Verdict
from verifier.verify import verify


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path, nodes=3, quorum=2)
    yield made
    made.close()


def log_path(town: Town) -> str:
    return str(town.path / "log")


def rotate(town: Town, step: str) -> rotation.Rotation:
    """Runs a step while the log is stopped, and opens it again."""
    town.service.store.close()
    try:
        return rotation.start(log_path(town)) if step == "start" else rotation.finish(log_path(town))
    finally:
        town.open()


def allow_everywhere(town: Town, done: rotation.Rotation) -> None:
    for node in town.nodes:
        node.allow_log(format_vkey(done.new), LOG_URL, rotates=True)


def write_and_publish(town: Town, name: str, enrol: bool = False, ask: str | None = None) -> Proof:
    """Records a file in a tree with both quorums, and fetches its proof, or that of another one."""

    async def story() -> bytes:
        async with town.service.running():
            if enrol:
                assert (await town.enrol()).status_code == 202
            await town.until(
                lambda: town.service.scans > 0 and town.all_published()
            )  # a new key's leaf has its own tree
            town.write(name, name)
            before = town.service.status()["size"]
            town.service.scan_now()
            await town.until(lambda: town.service.status()["size"] != before and town.all_published())
            answer = await town.send("GET", f"/proof?path={ask or name}", signer=town.signer())
        assert answer.status_code == 200, answer.text
        return answer.content

    return parse_proof(asyncio.run(story()))


def policies(town: Town, *keep: str) -> tuple[str, str]:
    """The log's policies with the `log` lines of these keys alone."""
    made = []
    for name in ("policy", "auditors"):
        lines = (town.path / "log" / name).read_text().splitlines()
        made.append("".join(f"{x}\n" for x in lines if not x.startswith("log ") or x.split()[1] in keep))
    return made[0], made[1]


def judge(town: Town, proof: Proof, path: str, policy: tuple[str, str]) -> Report:
    keys = town.keys()
    witnesses, auditors = parse_policy(policy[0].encode(), WITNESSES), parse_policy(policy[1].encode(), AUDITORS)
    trust = Trust(town.made.log_name, town.source.source_id, witnesses, auditors, keys.public, keys.blinding)
    return verify(proof, trust, Question(NOW, None, path, None), Memory())


def reasons(report: Report) -> list[str]:
    return [finding.reason for finding in report.findings]


def findings(town: Town) -> list[str]:
    log = open_log(log_path(town))
    try:
        report = check_log(log.store, Keys(log.signer.verifier_key, log.witnesses, log.auditors))
    finally:
        log.store.close()
    return [str(finding) for finding in report.findings]


def signers_of(note: bytes, done: rotation.Rotation) -> list[bool]:
    return [find_signature(parse_note(note), key) is not None for key in (done.old, done.new)]


def test_rotation_interrupts_nobody(town: Town) -> None:
    """Old key, both, new key: nodes cosign throughout, a policy verifies while a key of it signs, fsck agrees."""
    write_and_publish(town, "a.txt", enrol=True)
    done = rotate(town, "start")
    allow_everywhere(town, done)
    old, new = format_vkey(done.old), format_vkey(done.new)
    only_old, only_new, both = policies(town, old), policies(town, new), policies(town, old, new)

    during = write_and_publish(town, "b.txt")
    assert signers_of(during.checkpoint, done) == [True, True]
    for policy in (only_old, both, only_new):
        assert reasons(judge(town, during, "b.txt", policy)) == []
    assert findings(town) == []

    rotate(town, "finish")
    after = write_and_publish(town, "c.txt")
    assert signers_of(after.checkpoint, done) == [False, True]
    told = judge(town, after, "c.txt", only_old)
    assert reasons(told)[0] == "unsigned"
    assert "get the new policy by file from its operator" in told.findings[0].message
    for policy in (both, only_new):
        assert judge(town, after, "c.txt", policy).verdict is Verdict.VERIFIED
    earlier = write_and_publish(town, "d.txt", ask="a.txt")  # its `first` was signed by the old key alone
    assert judge(town, earlier, "a.txt", both).verdict is Verdict.VERIFIED
    assert signers_of(earlier.first.checkpoint, done) == [True, False] if earlier.first else False
    assert judge(town, earlier, "a.txt", only_new).verdict is Verdict.VERIFIED
    assert findings(town) == []
    assert town.service.store.log_name == format_log_name(done.old.name, done.old.public_key)
    for node in town.nodes:
        assert [log.keys for log in node.store.logs()] == [(done.old, done.new)]


def test_rotation_keeps_keys_secret_and_announces_the_new_one_once(town: Town) -> None:
    """Every key file is 0600; however often `start` runs, there is one key and one leaf 05."""
    write_and_publish(town, "a.txt", enrol=True)
    done = rotate(town, "start")
    assert rotate(town, "start") == done
    allow_everywhere(town, done)
    write_and_publish(town, "b.txt")
    rotate(town, "finish")
    for name in ("log.key", "log-old.key"):
        assert stat.S_IMODE(os.stat(town.path / "log" / name).st_mode) == 0o600
    assert not (town.path / "log" / "log-next.key").exists()
    conn = town.service.store.reader()
    signed = read_newest_signed(conn)
    assert signed is not None
    leaves = [read_leaf(conn, index) for index in range(signed.size)]
    assert leaves.count(encode_leaf(LogKeyLeaf(done.new.public_key))) == 1
    with pytest.raises(Refused, match="no key waits"):
        rotate(town, "finish")
    with pytest.raises(Refused, match="earlier rotation"):
        rotate(town, "start")


def test_rotation_may_be_followed_by_another(town: Town) -> None:
    """The second new key follows the first; the name stays that of the very first one."""
    write_and_publish(town, "a.txt", enrol=True)
    keys = [parse_vkey(town.made.vkey)]
    for name in ("b.txt", "c.txt"):
        done = rotate(town, "start")
        allow_everywhere(town, done)
        write_and_publish(town, name)
        rotate(town, "finish")
        (town.path / "log" / "log-old.key").rename(town.path / f"{name}.key")
        keys.append(done.new)
    assert town.service.directory.log_keys == tuple(keys)
    assert findings(town) == []


def test_finish_is_refused_before_the_new_key_is_published(town: Town) -> None:
    """While the nodes have not cosigned the tree with leaf 05, the old key goes on, and nothing is moved."""
    write_and_publish(town, "a.txt", enrol=True)
    with pytest.raises(Refused, match="no key waits"):
        rotate(town, "finish")
    rotate(town, "start")
    key = (town.path / "log" / "log.key").read_bytes()
    with pytest.raises(Refused, match="not published yet"):
        rotate(town, "finish")
    assert town.service.publisher.integrate_and_sign(NOW) is not None  # signed, and no node has seen it
    with pytest.raises(Refused, match="not published yet"):
        rotate(town, "finish")
    assert (town.path / "log" / "log.key").read_bytes() == key


def test_start_completes_what_a_crash_left(town: Town) -> None:
    """With the key written, and with one policy written too, the next `start` goes on with the same key."""
    town.service.store.close()
    new = rotation._next_key(log_path(town), os.urandom).verifier_key
    assert rotation._next_key(log_path(town), os.urandom).verifier_key == new
    files = read_files(log_path(town))
    (town.path / "log" / "policy").write_bytes(files.with_log(new)[0])
    assert rotation.start(log_path(town)).new == new
    town.open()
    assert town.service.directory.next_signer is not None
    assert town.service.directory.witnesses.log_keys == (parse_vkey(town.made.vkey), new)
    assert town.service.directory.auditors.log_keys == (parse_vkey(town.made.vkey), new)


def test_start_keeps_cosigners_whose_declaration_is_gone(tmp_path: Path) -> None:
    """[R] Without peers.json the policies are all that says who cosigns: they get a line, and are not made anew."""
    home = tmp_path / "log"
    create_log(str(home), ORIGIN, NOW)
    with changing(str(home)) as files:
        files.write(peers_of(Peer("w1", "https://w1.example", Description(key("w1", 1), None))))
    (home / PEERS_FILE).unlink()
    done = rotation.start(str(home))
    witnesses, _ = read_files(str(home)).parse()
    assert witnesses.log_keys == (done.old, done.new)
    assert list(witnesses.witnesses) == ["w1"]


def test_finish_completes_what_a_crash_left(town: Town) -> None:
    """With the old key linked aside and nothing moved, `finish` goes on; another file of that name is not touched."""
    write_and_publish(town, "a.txt", enrol=True)
    done = rotate(town, "start")
    allow_everywhere(town, done)
    write_and_publish(town, "b.txt")
    folder = town.path / "log"
    (folder / "log-old.key").write_text("another one")
    with pytest.raises(Refused, match="earlier rotation"):
        rotate(town, "finish")
    (folder / "log-old.key").unlink()
    os.link(folder / "log.key", folder / "log-old.key")
    rotate(town, "finish")
    assert town.service.directory.signer.verifier_key == done.new


def test_open_log_refuses_a_key_that_was_not_announced(town: Town) -> None:
    """A key that the store does not know never signs, nor does the old one once it has been replaced."""
    write_and_publish(town, "a.txt", enrol=True)
    done = rotate(town, "start")
    allow_everywhere(town, done)
    write_and_publish(town, "b.txt")
    folder = town.path / "log"
    following = (folder / "log-next.key").read_bytes()
    (folder / "log-next.key").write_bytes((folder / "log.key").read_bytes())
    with pytest.raises(Refused, match="not the next key"):
        open_log(log_path(town))
    (folder / "log-next.key").write_bytes(following)
    ours, foreign = (folder / "log.key").read_bytes(), SignerKey(done.old.name, SIGNATURE, bytes(range(32)))
    (folder / "log.key").write_text(format_private_key(foreign) + "\n")
    texts = {name: (folder / name).read_text() for name in ("policy", "auditors")}
    for name, text in texts.items():
        (folder / name).write_text(f"log {format_vkey(foreign.verifier_key)}\n{text}")
    with pytest.raises(Refused, match="is not the key of the log"):
        open_log(log_path(town))
    (folder / "log.key").write_bytes(ours)
    for name, text in texts.items():
        (folder / name).write_text(text)
    rotate(town, "finish")
    (folder / "log.key").write_bytes((folder / "log-old.key").read_bytes())
    with pytest.raises(Usage, match="log-next.key"):
        open_log(log_path(town))


def test_fsck_misses_the_leaf_of_a_key(town: Town) -> None:
    """A key that signs and is announced nowhere is a finding; so is a leaf that announces a foreign one."""
    rotate(town, "start")
    assert findings(town) == []
    with town.service.store.transaction() as conn:
        conn.execute("UPDATE pending SET leaf = ?", (encode_leaf(LogKeyLeaf(bytes(32))),))
    found = findings(town)
    assert len(found) == 2
    assert "announces a key that this log has not got" in found[0]
    assert "no leaf says" in found[1]


def test_rotated_log_cannot_fork(town: Town) -> None:
    """[R] A node has one memory for an origin: the new key cannot sign a second history where the old one ended."""
    old = FakeLog("log.example/fork").grow(9)
    new = FakeLog(old.origin, b"\x09" * 32)
    new.leaves = list(old.leaves)
    node = town.nodes[0]
    node.allow_log(old.vkey)
    node.add_checkpoint(format_request(0, (), old.checkpoint()), NOW)
    node.allow_log(new.vkey, rotates=True)
    other = FakeLog(old.origin, b"\x09" * 32).grow(20, chains=3)
    for body in (
        format_request(0, (), other.checkpoint()),
        format_request(10, (), other.checkpoint(10)),
        format_request(10, other.proof(10, 21), other.checkpoint(21)),
    ):
        with pytest.raises((Conflict, Inconsistent)):
            node.add_checkpoint(body, NOW)
    assert len(node.store.evidence(old.origin)) == 3
    new.grow(5)
    node.add_checkpoint(format_request(10, new.proof(10, len(new.leaves)), new.checkpoint()), NOW)
    head = node.store.head(WITNESS, old.origin)
    assert head is not None
    assert head.size == len(new.leaves)


def test_node_refuses_a_note_of_which_one_line_is_forged() -> None:
    """[R] The old key's line holds, that of the accepted new key does not: nothing is passed on."""
    old, new = FakeLog().grow(9), FakeLog(secret=b"\x09" * 32)
    new.leaves = list(old.leaves)
    keys = [parse_vkey(log.vkey) for log in (old, new)]
    notes = [parse_note(log.checkpoint()) for log in (old, new)]
    both = Note(notes[0].text, notes[0].signatures + notes[1].signatures)
    assert open_log_note(both, keys, old.origin, ()) == both
    assert open_log_note(both, keys[:1], old.origin, ()) == notes[0]
    forged = notes[1].signatures[0]._replace(blob=bytes(64))
    with pytest.raises(Untrusted):
        open_log_note(both._replace(signatures=(notes[0].signatures[0], forged)), keys, old.origin, ())
    with pytest.raises(Untrusted, match="no signature"):
        open_log_note(notes[1], keys[:1], old.origin, ())


def test_node_takes_another_key_by_an_explicit_word_alone(town: Town) -> None:
    """A second key needs `--rotates`, which makes no log known that was not; saying either again changes nothing."""
    done = rotate(town, "start")
    vkey, home = format_vkey(done.new), town.path / "ada"
    with pytest.raises(Usage, match="--rotates"):
        allow_log(home, vkey, LOG_URL)
    stranger = format_vkey(make_key("other.example", SIGNATURE, done.new.public_key))
    with pytest.raises(Usage, match="not watched here"):
        allow_log(home, stranger, LOG_URL, rotates=True)
    args = ["node", "allow", "--data", str(home), vkey, LOG_URL]
    assert main([*args, "--rotates"]) == 0
    assert main(args) == 0
    assert [log.keys for log in town.nodes[0].store.logs()] == [(done.old, done.new)]


def test_node_ends_a_key_that_was_replaced(town: Town) -> None:
    """[R] After `--only` a stolen old key gets nothing cosigned, by witness or auditor, and never comes back."""
    write_and_publish(town, "a.txt", enrol=True)
    old_signer = town.service.directory.signer
    done = rotate(town, "start")
    allow_everywhere(town, done)
    node, old, new = town.nodes[0], format_vkey(done.old), format_vkey(done.new)
    with pytest.raises(Usage, match="has no signature of this key yet"):
        node.store.trust_only(done.new)
    write_and_publish(town, "b.txt")
    rotate(town, "finish")
    write_and_publish(town, "c.txt")
    args = ["node", "allow", "--data", str(town.path / "ada"), new, LOG_URL]
    assert main([*args, "--only", "--rotates"]) == 4
    assert main([*args, "--only"]) == 0
    assert main([*args, "--only"]) == 0

    log = node.store.log(done.old.name)
    head = node.store.head(WITNESS, done.old.name)
    assert log is not None
    assert head is not None
    assert (log.keys, log.signers) == ((done.old, done.new), (done.new,))
    text = parse_note(head.note).text
    stolen = format_note(Note(text, (sign_note(text, old_signer),)))  # the very next request would be an extension
    with pytest.raises(Untrusted):
        node.add_checkpoint(format_request(head.size, (), stolen), NOW)
    with pytest.raises(Untrusted):
        asyncio.run(node.auditor.audit(stolen, lambda: NOW))
    assert town.nodes[1].add_checkpoint(format_request(head.size, (), stolen), NOW)  # one that was not told
    for word in ([], ["--rotates"], ["--only"]):
        assert main(["node", "allow", "--data", str(town.path / "ada"), old, LOG_URL, *word]) == 4
    write_and_publish(town, "d.txt")
    newest = node.store.head(WITNESS, done.old.name)
    assert newest is not None
    assert newest.size > head.size


@pytest.mark.parametrize("url", ["https://log.example", None])
def test_command_prints_what_nodes_have_to_run(town: Town, url: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """`rotate-key start` shows both keys and the line for a node, ready to run; `finish` says what it waits for."""
    town.service.store.close()
    if url is not None:
        description = f'{{"format":"nextcloud-audit/peers/1","url":"{url}","quorum":null,"peers":[]}}\n'
        (town.path / "log" / PEERS_FILE).write_text(description)
    assert main(["rotate-key", "--data", log_path(town), "start"]) == 0
    new = format_vkey(open_log(log_path(town)).log_keys[1])
    said = capsys.readouterr().out
    (line,) = [line.split() for line in said.splitlines() if "node allow" in line]
    assert line == ["nextcloud-audit", *"node allow --data DIR".split(), new, *([url] if url else []), "--rotates"]
    line[4] = str(town.path / "ada")
    assert main(line[1:]) == 0
    assert [log.url for log in town.nodes[0].store.logs()] == [url or LOG_URL]
    assert main(["rotate-key", "--data", log_path(town), "finish"]) == 4
    assert "not published yet" in capsys.readouterr().err
    town.open()


def test_enrolment_wants_a_policy_that_names_the_first_key() -> None:
    """The log is named by its first key and signs with its newest: a policy has both, or enrolment is refused."""
    first, now = (FakeLog(secret=bytes([n]) * 32) for n in (7, 9))
    name = format_log_name(first.origin, first.signer.verifier_key.public_key)
    offer = Offer(name, now.vkey, ("folder:f0",), bytes(32))
    both, alone = (
        parse_policy("".join([f"log {log.vkey}\n" for log in logs]).encode() + b"quorum none\n", WITNESSES)
        for logs in ((first, now), (now,))
    )
    assert check_offer(offer, both) == now.signer.verifier_key
    with pytest.raises(Usage, match="no log of the policy"):
        check_offer(offer, alone)
    renamed = offer._replace(log=format_log_name(now.origin, now.signer.verifier_key.public_key))
    with pytest.raises(Usage, match="first log line names"):
        check_offer(renamed, both)
    assert check_offer(renamed, both, renamed.log) == now.signer.verifier_key, "the user says so"
    with pytest.raises(Usage, match="first log line names"):
        check_offer(offer, both, renamed.log)
    stranger = FakeLog(secret=b"\x0a" * 32)
    with pytest.raises(Usage, match="no log of the policy"):
        check_offer(offer._replace(vkey=stranger.vkey), both)
