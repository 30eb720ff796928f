"""After a restore from a backup: what is missing comes back from a mirror, and the log goes on without a fork."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from audit.chains import Current, find_at_path, find_current, load_chain
from audit.directory import open_log
from audit.errors import PeerFailed, Refused, TryLater
from audit.fsck import Keys, check_log
from audit.publisher import read_proof_tree
from audit.recovery import _MOVE, _OF_FILE, _TIP, _WITHDRAW_CHAIN, _WITHDRAW_ENTRIES, PART_FILE, Recovered, recover
from tests.audit.log_setup import plan_close
from tests.audit.town import Town
from verifier.chain import NO_SEAL, close_message, seal_message
from verifier.ed25519 import load_private_key
from verifier.entry import Closed, CloseReason, Seal, decode_entry, encode_entry
from verifier.proof import parse_proof
from verifier.verdict import Memory, Question, Trust, Verdict
from verifier.verify import verify


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Backed up with one file, written and added to since, then restored; after that another change was recorded."""
    made = Town(tmp_path)
    made.write("a.txt", "one")
    made.write("calm.txt", "calm")
    asyncio.run(enrol_and_publish(made))
    made.back_up()
    made.write("a.txt", "one and more")
    made.write("new.txt", "new")
    made.write("zone.txt", "gone before anybody looks again")
    asyncio.run(publish(made))
    (made.folder / "zone.txt").unlink()
    made.restore()
    made.write("a.txt", "one and more, and again")
    asyncio.run(scan_paused(made))
    yield made
    made.close()


async def enrol_and_publish(town: Town) -> None:
    town.service._enrol_first = True
    async with town.service.running():
        await town.until(lambda: town.service.scans)  # which finds no owner; the next one is the enrolment's
        assert (await town.enrol()).status_code == 202
        await town.until(lambda: town.service.scans > 1 and town.all_published())


async def publish(town: Town) -> None:
    before = town.size()
    await town.run_until(lambda: town.all_published() and town.size() != before)


async def scan_paused(town: Town) -> None:
    async with town.service.running():
        await town.until(lambda: town.service.paused and town.service.scans)


def run_recover(town: Town, spoil: bool = False, fail_after: int = 1_000_000, held: bytes = b"") -> Recovered:
    """`recover` on the stopped log; `spoil` changes a leaf on its way, and it breaks off after so many requests.

    `held` is the note up to which the node says that it has the leaves, where that is not all.
    """
    asked = 0

    async def story() -> Recovered:
        async with town._make_client() as client:

            async def fetch(url: str, limit: int) -> bytes:
                nonlocal asked
                asked += 1
                got = await client.get(url)
                if got.status_code != 200 or asked > fail_after:
                    raise PeerFailed(f"{url}: {got.status_code}")
                data = held if held and "/mirror/" in url and url.endswith("/checkpoint") else got.content
                return data[:-1] + bytes([data[-1] ^ 1]) if spoil and "/entries/" in url else data

            return await recover(town.service.directory, "http://ada.test/", fetch, town.clock.now, town.said.append)

    return asyncio.run(story())


def findings(town: Town) -> list[str]:
    log = town.service.directory
    report = check_log(town.service.store, Keys(log.signer.verifier_key, log.witnesses, log.auditors))
    return [str(finding) for finding in report.findings]


def ask(town: Town, path: str) -> tuple[Verdict, list[str]]:
    """What a new client is told about a file, now that the log runs again."""

    async def story() -> bytes:
        async with town.service.running():
            await town.until(lambda: town.service.scans and town.all_published())
            answer = await town.send("GET", f"/proof?path={path}", signer=town.signer())
            assert answer.status_code == 200, answer.text
            return answer.content

    proof = parse_proof(asyncio.run(story()))
    log, keys = town.service.directory, town.keys()
    trust = Trust(town.made.log_name, town.source.source_id, log.witnesses, log.auditors, keys.public, keys.blinding)
    report = verify(proof, trust, Question(town.clock.now, None, path, None), Memory())
    return report.verdict, [finding.reason for finding in report.findings]


def test_recovered_log_goes_on(town: Town) -> None:
    """All nodes cosign and replay again, fsck finds nothing; files that lost steps are NOT PROVEN, others VERIFIED."""
    assert town.service.paused
    done = run_recover(town)
    assert (done.chains, done.withdrawn, done.unknown, done.published) == (
        3,
        2,
        0,
        True,
    )
    assert findings(town) == []
    town.reopen()
    verdict, reasons = ask(town, "a.txt")
    assert town.service.paused is None
    assert (verdict, reasons) == (Verdict.NOT_PROVEN, ["unsigned-close"])
    assert ask(town, "calm.txt") == (Verdict.VERIFIED, [])
    assert ask(town, "new.txt") == (Verdict.NOT_PROVEN, ["unsigned-close"])
    town.write("later.txt", "later")
    town.reopen()
    assert ask(town, "later.txt") == (Verdict.VERIFIED, [])
    later = find_at_path(town.service.store.reader(), town.source.row, "later.txt")
    assert later is not None
    assert later.file_id == 5  # zone.txt had 4
    assert findings(town) == []
    assert town.fatal == []


def test_node_that_lacks_leaves_is_named_before_any_is_fetched(town: Town) -> None:
    """A node that has not caught up is refused with what to do, and nothing is changed; another time it works."""
    published = town.service.publisher.published()
    assert published is not None
    with pytest.raises(Refused, match=r"holds \d+ of its leaves: ask another one"):
        run_recover(town, held=published.newest_note)
    assert not (town.path / "log" / PART_FILE).exists()
    assert run_recover(town).published


def test_wrong_leaves_change_nothing(town: Town) -> None:
    """[R] Leaves that do not have the signed root are refused, the store stays as it was, and another try works."""
    with pytest.raises(Refused, match="do not have the root|form|tag"):
        run_recover(town, spoil=True)
    assert not (town.path / "log" / PART_FILE).exists()
    assert findings(town) == []
    assert run_recover(town).published


def test_recovery_is_resumed(town: Town) -> None:
    """What broke off goes on with the leaves that had come; run to the end, there is nothing more to do."""
    with pytest.raises(PeerFailed):
        run_recover(town, fail_after=5)
    assert run_recover(town).published
    with pytest.raises(Refused, match="nothing is missing"):
        run_recover(town)


def test_leaves_of_another_node_are_not_gone_on_with(town: Town) -> None:
    """[R] What one node gave before it broke off may be wrong: the next one is asked for everything."""
    with pytest.raises(PeerFailed):
        run_recover(town, fail_after=5)
    part = town.path / "log" / PART_FILE
    header = part.read_bytes().partition(b"\n")[0].replace(b"http://ada", b"http://bea")
    part.write_bytes(header + b"\n" + b"\0\4junk")
    assert run_recover(town).published


@pytest.mark.parametrize("statement", [_OF_FILE, _TIP, _WITHDRAW_ENTRIES, _WITHDRAW_CHAIN, _MOVE])
def test_what_is_asked_for_each_chain_looks_at_no_other(town: Town, statement: str) -> None:
    """A log of a million files comes back in time that follows what it lost."""
    plan = town.service.store.reader().execute(f"EXPLAIN QUERY PLAN {statement}", (0,) * statement.count("?"))
    assert [row[3] for row in plan if row[3].startswith("SCAN")] == []


def test_mirror_serves_what_its_auditor_signed(town: Town) -> None:
    """Bundles below the signed size, for logs that are mirrored; all else is 404 or malformed."""

    async def get(path: str) -> int:
        async with town._make_client() as client:
            got: httpx.Response = await client.get(f"http://ada.test/mirror/{path}")
            return got.status_code

    from hashlib import sha256

    name = sha256(town.made.log_name.partition("+")[0].encode()).hexdigest()
    assert asyncio.run(get(f"{name}/checkpoint")) == 200
    assert asyncio.run(get(f"{name}/tile/entries/000.p/1")) == 200
    assert asyncio.run(get(f"{name}/tile/entries/000.p/255")) == 404
    assert asyncio.run(get(f"{name}/tile/0/000.p/1")) == 404
    assert asyncio.run(get(f"{name}/tile/entries/0")) == 400
    assert asyncio.run(get(f"{'0' * 64}/checkpoint")) == 404
    assert asyncio.run(get(f"{'0' * 64}/tile/entries/000.p/1")) == 404
    assert open_log(str(town.path / "log")).store.log_name == town.made.log_name


@pytest.mark.parametrize(
    ("harm", "finding"),
    [
        ("UPDATE lost_leaves SET x = zeroblob(32) WHERE seq = 1", "is not the one that came back from a mirror"),
        ("DELETE FROM lost_leaves WHERE seq = 1", "is not legitimate: got seq 2, want 1"),
        ("UPDATE lost_leaves SET leaf_index = 999 WHERE seq = 1", "says that it stands there, and it does not"),
    ],
)
def test_fsck_finds_damage_to_what_came_back(town: Town, harm: str, finding: str) -> None:
    """What is known of a lost step is its leaf: changed, gone or misplaced it is found."""
    run_recover(town)
    with town.service.store.transaction() as conn:
        assert conn.execute(harm).rowcount == 1
    assert any(finding in line for line in findings(town)), findings(town)


def test_recover_over_several_lost_trees(tmp_path: Path) -> None:
    """Of trees that were signed in between only the commitment is left, and it is what a replay gives."""
    town = Town(tmp_path)
    town.write("a.txt", "one")
    asyncio.run(enrol_and_publish(town))
    town.back_up()
    for text in ("two", "three", "four"):
        town.write("a.txt", text)
        asyncio.run(publish(town))
    town.restore()
    run_recover(town)
    assert findings(town) == []
    first = "leaf_index = (SELECT min(leaf_index) FROM lost_leaves)"
    with town.service.store.transaction() as conn:
        conn.execute(f"UPDATE lost_leaves SET x = zeroblob(32) WHERE {first}")
        rows = {f"tree {size}:" for (size,) in conn.execute("SELECT size FROM trees")}
    wrong = [line for line in findings(town) if "committed map root" in line]
    assert any(not any(row in line for row in rows) for line in wrong), wrong  # in between, where there is no row
    town.close()


def test_owner_who_was_lost_enrols_again(tmp_path: Path) -> None:
    """Owner and chains came after the backup: once enrolled again, each chain ends as lost when its file moves over."""
    town = Town(tmp_path)
    town.write("a.txt", "one")
    asyncio.run(publish(town))
    town.back_up()

    async def enrol() -> None:
        async with town.service.running():
            before = town.service.scans
            await town.until(lambda: town.service.scans > before)
            assert (await town.enrol()).status_code == 202
            await town.until(lambda: town.service.scans > before + 1 and town.all_published())

    asyncio.run(enrol())
    town.restore()
    done = run_recover(town)
    assert (done.chains, done.unknown) == (1, 1)
    town.reopen()
    asyncio.run(enrol())
    assert findings(town) == []
    assert ask(town, "a.txt")[1] == ["unsigned-close"]
    assert findings(town) == []
    town.close()


def test_tree_that_came_back_shows_no_file_that_lost_steps(town: Town) -> None:
    """[R] Where proofs speak of that very tree, such a file has none: the server waits for the next generation."""
    run_recover(town)
    with town.service.store.transaction() as conn:
        conn.execute("UPDATE trees SET audited = 1")
    with pytest.raises(TryLater, match="lost steps"):
        town.service.prover.prove(town.source.row, 1)
    assert town.service.prover.prove(town.source.row, 2)


def sign_close(town: Town, file_id: int) -> None:
    """The owner ends the chain; a live file goes on in the next generation."""
    recorder = town.service.recorder
    planned = plan_close(town.service.store, town.source.row, file_id, town.clock.now)
    entry = decode_entry(planned.entry)
    signature = load_private_key(town.keys().private).sign(close_message(planned.binding, planned.head, entry))
    signed = encode_entry(entry._replace(argument=Closed(CloseReason.NEW_SEED, (), signature)))
    recorder.record_close(town.source.row, file_id, signed, planned.openings)


def seal(town: Town, current: Current) -> None:
    """The owner accepts all that stands against the file."""
    with town.service.store.snapshot() as conn:
        chain, tree = load_chain(conn, town.service.store, current), read_proof_tree(conn)
    assert tree is not None
    accepts = tuple(sorted(chain.taints))
    place = chain.seq, chain.head, chain.carriers[-1][1], chain.version, tree.size, tree.root, NO_SEAL, accepts
    plain = Seal(*place, b"")
    signature = load_private_key(town.keys().private).sign(seal_message(chain.binding, plain))
    town.service.recorder.record_seal(town.source.row, 1, plain._replace(signature=signature))


def restored_after(tmp_path: Path, *steps: Callable[[Town], None]) -> Town:
    """A log of one file, put back to the backup that was made before these steps; each was published."""
    town = Town(tmp_path)
    town.write("a.txt", "one")
    asyncio.run(enrol_and_publish(town))
    town.back_up()
    for step in steps:
        step(town)
        asyncio.run(publish(town))
    town.restore()
    return town


def write(text: str) -> Callable[[Town], None]:
    return lambda town: town.write("a.txt", text)


def close(town: Town) -> None:
    sign_close(town, 1)


def remove(town: Town) -> None:
    (town.folder / "a.txt").unlink()


@pytest.mark.parametrize(
    ("steps", "generation"),
    [
        ((close,), 2),  # the close and the successor's first step
        ((close, write("two"), write("three")), 2),
        ((write("two"), close, write("three")), 2),
        ((write("two"), close, write("three"), close, write("four")), 3),  # two generations whole
        ((write("two"), close, remove), 2),  # lost as deleted, and seen again as it was
    ],
)
def test_chain_whose_close_was_lost_goes_on(
    tmp_path: Path, steps: tuple[Callable[[Town], None], ...], generation: int
) -> None:
    """Close and successors are lost: each of them ends as lost, the next generation goes on, and a seal mends it."""
    town = restored_after(tmp_path, *steps)
    done = run_recover(town)
    assert findings(town) == []
    assert done.published
    town.write("a.txt", "last")
    town.reopen()
    assert ask(town, "a.txt") == (Verdict.NOT_PROVEN, ["unsigned-close"])
    with town.service.store.snapshot() as conn:
        current = find_current(conn, town.source.row, 1)
    assert current is not None
    assert current.generation == generation
    assert findings(town) == []
    assert town.fatal == []
    seal(town, current)
    town.write("a.txt", "and more")
    town.reopen()
    assert ask(town, "a.txt") == (Verdict.VERIFIED, [])
    assert findings(town) == []
    town.close()


@pytest.mark.parametrize("steps", [(close,), (write("two"), close, write("three"))])
def test_chain_whose_close_was_lost_stays_deleted(tmp_path: Path, steps: tuple[Callable[[Town], None], ...]) -> None:
    """The file is gone when the log looks again: it ends as deleted, and another file may take its path."""
    town = restored_after(tmp_path, *steps)
    run_recover(town)
    remove(town)
    town.write("b.txt", "another")
    town.reopen()
    assert ask(town, "b.txt") == (Verdict.VERIFIED, [])
    write("back")(town)
    town.reopen()
    assert ask(town, "a.txt")[0] is Verdict.VERIFIED
    assert findings(town) == []
    assert town.fatal == []
    town.close()
