"""The running log: publishing, a quorum out of reach, restarts, and who a scan's history belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.errors import Fatal, Refused
from audit.federation import Unheard
from audit.health import Kept, keep, put_kept, read_kept
from audit.publisher import CLOCK_TOLERANCE_S, REFRESH_S, Signed
from audit.service import GRACE_S, degraded_since
from audit.witness_store import WITNESS
from tests.audit.town import Town
from tests.fakes import NOW
from verifier.note import format_vkey
from verifier.proof import parse_proof
from verifier.verdict import Memory, Question, Trust, Verdict
from verifier.verify import verify


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    yield made
    made.close()


def status(town: Town, name: str) -> object:
    return town.service.status()[name]


def count_lines(town: Town, name: str = "") -> int:
    """The signature lines of a name, or all, in the published checkpoint."""
    published = town.service.publisher.published()
    return published.newest_note.count(f"\n\u2014 {name}".encode()) if published else 0


def test_service_publishes_what_it_records(town: Town) -> None:
    """Files that are there are recorded, in a tree with both quorums, and a proof of one is VERIFIED."""

    async def story() -> bytes:
        town.service._enrol_first = True
        async with town.service.running():
            assert (await town.enrol()).status_code == 202
            await town.until(lambda: town.service.scans and status(town, "scans") != "1" and town.all_published())
            answer = await town.send("GET", "/proof?path=a.txt", signer=town.signer())
        assert answer.status_code == 200, answer.text
        return answer.content

    town.write("a.txt", "one")
    proof = parse_proof(asyncio.run(story()))
    log, keys = town.service.directory, town.keys()
    trust = Trust(town.made.log_name, town.source.source_id, log.witnesses, log.auditors, keys.public, keys.blinding)
    report = verify(proof, trust, Question(NOW, None, "a.txt", None), Memory())
    assert report.verdict is Verdict.VERIFIED, report.findings


def health(town: Town, name: str) -> dict[str, str | None]:
    """What the status says of a witness."""
    cosigners: Any = status(town, "cosigners")
    return next(one for one in cosigners if (one["role"], one["name"]) == ("witness", name))


def test_service_goes_on_without_a_quorum(town: Town) -> None:
    """Two of four witnesses down: recording goes on, the published tree stays, status says since when."""

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: count_lines(town) == 1 + 4 + 4)
            before = (await town.client.get("/checkpoint")).content
            for name in ("ada", "bea"):
                town.switches[name].is_up = False
            town.clock.now += 10
            town.write("a.txt", "one")
            town.service.scan_now()
            await town.until(lambda: any("ada" in line for line in town.said))
            assert status(town, "degraded_since") is None
            town.clock.now += GRACE_S + 1
            assert status(town, "degraded_since") == str(NOW + 10)
            assert health(town, "ada") == {
                "role": "witness",
                "name": "ada",
                "failures": health(town, "ada")["failures"],
                "last_success": str(NOW),
                "failing_since": str(NOW + 10),
                "last_error": "ada: ConnectError",
            }
            assert int(health(town, "ada")["failures"] or 0) > 0
            assert (await town.client.get("/checkpoint")).content == before
            town.write("b.txt", "two")
            town.service.scan_now()
            await town.until(lambda: status(town, "pending") == "1")
            town.switches["ada"].is_up = True
            await town.until(town.all_published)
            assert status(town, "degraded_since") is None
            assert "witness ada: cosigns again" in town.said
            assert (health(town, "ada")["failures"], health(town, "ada")["failing_since"]) == ("0", None)

    asyncio.run(story())


def test_restart_forgets_no_fault(town: Town) -> None:
    """Who answered when, who fails since when, and since when the quorum is out of reach: as before the restart."""

    async def before() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans and town.all_published())
            for name in ("ada", "bea"):
                town.switches[name].is_up = False
            town.clock.now += 10
            town.write("a.txt", "one")
            town.service.scan_now()
            await town.until(lambda: health(town, "ada")["failing_since"] and health(town, "bea")["failing_since"])
            await town.until(lambda: health(town, "cem")["last_success"] == str(NOW + 10))

    async def after() -> None:
        town.clock.now += GRACE_S + 1
        assert status(town, "degraded_since") == str(NOW + 10)
        async with town.service.running():
            assert status(town, "degraded_since") == str(NOW + 10)
            kept = {"last_success": str(NOW), "failing_since": str(NOW + 10)}
            assert health(town, "ada").items() >= kept.items()
            assert health(town, "cem").items() >= {"last_success": str(NOW + 10), "failing_since": None}.items()
            await town.until(lambda: health(town, "ada")["failures"] != "0")
            assert health(town, "ada").items() >= kept.items()
            town.switches["ada"].is_up = True
            await town.until(town.all_published)
            await town.until(lambda: "witness ada: cosigns again" in town.said)
            assert status(town, "degraded_since") is None
        town.reopen()
        async with town.service.running():
            assert health(town, "ada")["failing_since"] is None
            assert int(health(town, "ada")["last_success"] or 0) > NOW + 10
            assert health(town, "bea")["failing_since"] == str(NOW + 10)

    asyncio.run(before())
    town.reopen()
    asyncio.run(after())


def test_health_that_cannot_be_read_is_left_out(town: Town) -> None:
    """Damaged words about a cosigner stop nobody; the next ones replace them."""
    key = next(iter(town.service.directory.witnesses.witnesses.values())).key
    for value in (b"", b"1", b"1 2 3", b"+1 -", b"01 -", b"\xff -"):
        with town.service.store.transaction() as conn:
            put_kept(conn, key, Kept(5, 6))
            conn.execute("UPDATE meta SET value = ? WHERE key LIKE 'cosigner %'", (value,))
        assert read_kept(town.service.store.reader()) == {}
    keep(town.service.store, key, Kept(None, 6))
    assert read_kept(town.service.store.reader()) == {format_vkey(key): Kept(None, 6)}


def test_client_sees_that_the_quorum_is_out_of_reach(town: Town) -> None:
    """A proof made meanwhile carries the old time up to which its tree is the newest, and is stale in the end."""
    day = 86_400

    async def story() -> bytes:
        town.service._enrol_first = True
        async with town.service.running():
            assert (await town.enrol()).status_code == 202
            await town.until(lambda: town.service.scans and status(town, "scans") != "1" and town.all_published())
            for switch in town.switches.values():
                switch.is_up = False
            town.clock.now += 3 * day
            town.write("b.txt", "two")
            town.service.scan_now()
            await town.until(lambda: int(health(town, "ada")["failures"] or 0) > 0)
            answer = await town.send("GET", "/proof?path=a.txt", signer=town.signer())
        assert answer.status_code == 200, answer.text
        return answer.content

    town.write("a.txt", "one")
    proof = parse_proof(asyncio.run(story()))
    log, keys = town.service.directory, town.keys()
    trust = Trust(town.made.log_name, town.source.source_id, log.witnesses, log.auditors, keys.public, keys.blinding)
    soon, late = (verify(proof, trust, Question(NOW + days * day, None, "a.txt", None), Memory()) for days in (3, 8))
    assert soon.verdict is Verdict.VERIFIED, soon.findings
    assert soon.times is not None
    assert soon.times.still_newest_at == NOW
    assert [finding.reason for finding in late.findings] == ["stale"]


def test_service_adds_late_cosignatures(town: Town) -> None:
    """A witness that was down when a tree was published adds its line when it is back."""

    async def story() -> None:
        town.switches["dov"].is_up = False
        async with town.service.running():
            await town.until(town.all_published)
            assert count_lines(town, "dov.example ") == 0
            town.switches["dov"].is_up = True
            await town.until(lambda: count_lines(town, "dov.example ") == 1)

    asyncio.run(story())


def test_service_refreshes_the_newest_tree(town: Town) -> None:
    """With nothing new the same tree gets new times, REFRESH_S after the last ones."""

    async def story() -> None:
        async with town.service.running():
            await town.until(town.all_published)
            published = town.service.publisher.published()
            assert published is not None
            town.clock.now += REFRESH_S
            await town.until(lambda: town.service._still_newest(town.service.publisher.published()) == NOW + REFRESH_S)
            newer = town.service.publisher.published()
            assert newer is not None
            assert newer.size == published.size
            assert newer.first_note == published.first_note

    asyncio.run(story())


def test_service_submits_after_a_restart_what_it_had_signed(town: Town) -> None:
    """A tree that was signed when the process ended is published by the next one, before any other is signed."""
    target = town.service.publisher.integrate_and_sign(NOW)
    assert target is not None
    town.reopen()
    town.write("a.txt", "one")

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.all_published() and status(town, "size") != str(target.size))

    asyncio.run(story())
    with town.service.store.snapshot() as conn:
        assert [row[0] for row in conn.execute("SELECT size FROM trees WHERE first_note IS NOT NULL")][0] == target.size


def test_service_signs_nothing_after_a_restore(town: Town) -> None:
    """[R] A store older than what witnesses saw is not signed with; the last published state is still served."""

    async def run_until_published(more_than: str) -> None:
        async with town.service.running():
            await town.until(lambda: town.all_published() and status(town, "size") != more_than)

    asyncio.run(run_until_published("0"))
    town.back_up()
    town.write("a.txt", "one")
    asyncio.run(run_until_published(str(status(town, "size"))))
    newest = status(town, "size")
    town.restore()

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: status(town, "paused"))
            await town.until(lambda: town.service.scans)
            assert f"size {newest}" in str(status(town, "paused"))
            assert int(str(status(town, "size"))) < int(str(newest))
            assert int(str(status(town, "pending"))) > 0
            assert (await town.client.get("/checkpoint")).status_code == 200

    asyncio.run(story())


@pytest.mark.parametrize(("quorum", "nodes"), [(0, 0), (2, 4)])
def test_service_publishes_nothing_where_quorums_need_not_overlap(tmp_path: Path, quorum: int, nodes: int) -> None:
    """With ov = 0 it records, says why it publishes nothing, and signs nothing."""
    town = Town(tmp_path, quorum=quorum, nodes=nodes)
    town.write("a.txt", "one")

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans)
            assert status(town, "size") == "0"
            assert int(str(status(town, "pending"))) == 2  # the custodial root and the file
            assert "two histories" in str(status(town, "paused"))
            assert town.said == [status(town, "paused")]

    asyncio.run(story())
    town.close()


def test_service_scans_nothing_before_the_owner_enrolled(town: Town) -> None:
    """With enrol-first a file's history starts under its owner's root, at generation 0, with nothing before it."""
    town.write("a.txt", "one")
    town.service._enrol_first = True

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans)
            assert status(town, "pending") == "0"
            await town.enrol()
            await town.until(lambda: town.service.scans > 1)

    asyncio.run(story())
    with town.service.store.snapshot() as conn:
        assert conn.execute("SELECT kind FROM owners JOIN chains ON owner = owners.id").fetchall() == [("owner",)]


def test_service_carries_chains_over_to_a_new_owner(town: Town) -> None:
    """What was recorded under the custodial root goes on under the owner's root right after the enrolment."""
    town.write("a.txt", "one")

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans)
            await town.enrol()
            await town.until(lambda: town.service.scans > 1)

    asyncio.run(story())
    with town.service.store.snapshot() as conn:
        rows = conn.execute("SELECT kind, status FROM owners JOIN chains ON owner = owners.id ORDER BY chains.id")
        assert rows.fetchall() == [("custodial", "closed"), ("owner", "live")]


def test_service_lists_what_a_scan_could_not_cover(town: Town) -> None:
    """A problem is said once, not at every scan, and counted in the status."""
    (town.folder / "link").symlink_to("a.txt")

    async def story() -> None:
        async with town.service.running():
            await town.until(lambda: town.service.scans)
            town.service.scan_now()
            await town.until(lambda: town.service.scans > 1)

    asyncio.run(story())
    assert status(town, "problems") == {town.source.source_id: "1"}
    assert [line for line in town.said if "symlink" in line] == [
        f"{town.source.source_id}: 'link': symlink (not followed)"
    ]


def test_service_ends_on_fatal(town: Town) -> None:
    """A state that is no longer known ends the process; nothing is retried."""

    async def story() -> None:
        async with town.service.running():
            await town.until(town.all_published)
            town.service.store._failed = "a commit that may have persisted or not"
            town.write("a.txt", "one")
            town.service.scan_now()
            await town.until(lambda: town.fatal)

    asyncio.run(story())
    assert isinstance(town.fatal[0], Fatal)


def signed(first_note: bytes | None, at: int) -> Signed:
    return Signed(1, b"", b"", at, b"", first_note, b"", 0, None)


def test_degraded_since_says_when_it_began() -> None:
    """Degraded is a tree that waits longer than usual, or times that are not renewed; it began then, not now."""
    late = NOW + GRACE_S + 1
    assert degraded_since(None, None, NOW) is None
    assert degraded_since(signed(None, NOW), None, NOW + GRACE_S) is None
    assert degraded_since(signed(None, NOW), NOW - REFRESH_S, late) == NOW
    for now in (NOW, late):  # times were not renewed for long when the tree was signed
        assert degraded_since(signed(None, NOW), NOW - 999, now) == NOW - 999
    assert degraded_since(signed(b"note", NOW), NOW, late) is None
    assert degraded_since(signed(b"note", NOW), NOW, late + REFRESH_S) == NOW


def test_service_signs_nothing_while_its_clock_is_wrong(town: Town) -> None:
    """Beyond the tolerance from the witnesses' median it records, says why it does not sign, and goes on once set."""

    async def story() -> None:
        for name in ("ada", "bea", "cem"):
            town.switches[name].date = NOW + CLOCK_TOLERANCE_S + 60
        async with town.service.running():
            await town.until(lambda: status(town, "clock"))
            assert "behind that of the witnesses" in str(status(town, "clock"))
            assert (status(town, "size"), status(town, "paused")) == ("0", None)
            await town.until(lambda: town.service.scans)
            assert int(str(status(town, "pending"))) > 0
            assert sum("behind" in line for line in town.said) == 1
            town.clock.now += CLOCK_TOLERANCE_S
            await town.until(town.all_published)
            await town.until(lambda: status(town, "clock") is None)

    town.write("a.txt", "one")
    asyncio.run(story())


@pytest.mark.parametrize("slept_s", [3600, 0])
def test_service_asks_again_what_time_it_is(town: Town, slept_s: int) -> None:
    """After a pause of the machine, or one wrong Date, the next answers count; nobody has to start it again."""
    town.write("a.txt", "one")
    for switch in town.switches.values():
        switch.date = NOW if slept_s else NOW + 3600

    async def story() -> None:
        async with town.service.running():
            if slept_s:
                await town.until(town.all_published)
                size = status(town, "size")
            else:
                await town.until(lambda: status(town, "clock"))
                size = "0"
            town.clock.now += slept_s
            for switch in town.switches.values():
                switch.date = town.clock.now
            town.write("b.txt", "two")
            town.service.scan_now()
            await town.until(lambda: town.all_published() and status(town, "size") != size)
            assert status(town, "clock") is None

    asyncio.run(story())


async def publish_more(town: Town) -> None:
    """Runs until there is another published tree."""
    before = status(town, "size")
    async with town.service.running():
        await town.until(lambda: town.all_published() and status(town, "size") != before)


def test_restored_log_signs_nothing_while_its_witnesses_are_silent(town: Town) -> None:
    """[R] Out of reach at the start, they may have seen what is lost: no tree is signed, and no log convicted."""
    asyncio.run(publish_more(town))
    town.back_up()
    town.write("a.txt", "one")
    asyncio.run(publish_more(town))
    town.restore()
    town.write("a.txt", "two")
    size = status(town, "size")

    async def story() -> None:
        for name in ("ada", "bea", "cem"):
            town.switches[name].is_up = False
        town.switches["dov"].forget = True  # it answers that it knows nothing
        async with town.service.running():
            await town.until(lambda: status(town, "waiting") and town.service.scans)
            assert "no answer from ada, bea, cem, and they are enough" in str(status(town, "waiting"))
            assert (status(town, "size"), status(town, "paused")) == (size, None)
            assert int(str(status(town, "pending"))) > 0
            with pytest.raises(Unheard):
                town.service.publisher.integrate_and_sign(town.clock.now, sign_unpublished=True)
            assert sum("no answer from" in line for line in town.said) == 1
            town.switches["cem"].is_up = True
            await town.until(lambda: status(town, "paused"))
            assert status(town, "size") == size

    asyncio.run(story())
    assert [row for node in town.nodes for row in node.store.evidence()] == []


def test_service_signs_once_the_silent_could_not_publish_alone(town: Town) -> None:
    """Recording goes on in a partition; two of four that answer are enough to sign, and three to publish."""
    town.write("a.txt", "one")

    async def story() -> None:
        for switch in town.switches.values():
            switch.is_up = False
        async with town.service.running():
            await town.until(lambda: status(town, "waiting") and status(town, "pending") == "2")
            assert status(town, "size") == "0"
            town.switches["ada"].is_up = town.switches["bea"].is_up = True
            await town.until(lambda: status(town, "size") != "0")
            assert status(town, "waiting") is None
            assert status(town, "published") is None
            town.switches["cem"].is_up = True
            await town.until(town.all_published)

    asyncio.run(story())


def test_service_stops_signing_for_good_when_a_witness_shows_more_later(town: Town) -> None:
    """[R] A signed tree that one silent witness alone has seen: once it answers, nothing is signed any more."""
    asyncio.run(publish_more(town))
    town.back_up()
    town.write("a.txt", "one")
    origin, before = town.service.store.origin, status(town, "size")

    async def only_dov() -> None:
        async with town.service.running():
            await town.until(lambda: status(town, "waiting") is None and town.service.scans)
            await town.until(lambda: str(town.nodes[3].store.head(WITNESS, origin).size) != before)  # type: ignore[union-attr]

    for name in ("ada", "bea", "cem"):
        town.switches[name].only_reads = True
    asyncio.run(only_dov())
    town.restore()
    town.write("b.txt", "two")

    async def story() -> None:
        for switch in town.switches.values():
            switch.only_reads = False
        town.switches["dov"].is_up = False
        async with town.service.running():
            await town.until(lambda: town.all_published() and status(town, "size") != before)
            assert status(town, "paused") is None
            town.switches["dov"].is_up = True
            await town.until(lambda: status(town, "paused"))
            size = status(town, "size")
            with pytest.raises(Refused):
                town.service.publisher.integrate_and_sign(town.clock.now, sign_unpublished=True)
            assert status(town, "size") == size

    asyncio.run(story())
