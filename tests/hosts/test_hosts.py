"""Five real hosts: processes die, networks split, clocks are wrong, disks are put back, a log lies. Then it heals.

After each fault: no two checkpoints with a quorum contradict each other, nothing that was acknowledged is gone, fsck
finds nothing, and every honest log publishes again within 30 s. The chance that is used is seeded and printed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.witness import format_request
from tests import reference
from tests.hosts import network, relay
from tests.hosts.checks import read_leaves, reading
from tests.hosts.conftest import COUNTS, ROWS, SEEDS, Row
from tests.hosts.world import LOG, NODE, NODE_PORT, PROGRAM, RECOVER_S, RELAY_PORT, Host, World, copy_directory
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.note import (
    Note,
    format_note,
    parse_note,
    parse_private_key,
    parse_signature_lines,
    sign_note,
    verify_cosignature,
)
from verifier.policy import cosigned_times, quorum_met

SEED = int(os.environ.get("HOSTS_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
KILLS = 24
SPLIT_S = 40  # long enough that retries have reached their longest pause
DELAY_S = 1.0
HOUR_S = 3600


@pytest.fixture(scope="module")
def chance() -> random.Random:
    SEEDS.append(SEED)
    print(f"\nseed {SEED}")
    return random.Random(SEED)


def running(directory: Path, chance: random.Random) -> Iterator[World]:
    world = None
    try:
        world = World(directory, chance)
        world.start()
        yield world
        entries, checkpoints = world.seen.count()
        COUNTS.append(f"{entries} entries, {checkpoints} checkpoints, {world.seen.compared} pairs compared at the end")
    finally:
        if world is not None:
            world.close()
        network.remove()


@pytest.fixture(scope="class")
def world(tmp_path_factory: pytest.TempPathFactory, chance: random.Random) -> Iterator[World]:
    """One federation for all faults that leave no trace."""
    yield from running(tmp_path_factory.mktemp("hosts"), chance)


@pytest.fixture
def fresh(tmp_path: Path, chance: random.Random) -> Iterator[World]:
    """A federation for a fault after which a host is never again what it was."""
    yield from running(tmp_path, chance)


def report(fault: str, what_happened: str, took: tuple[float, float]) -> None:
    ROWS.append(Row(fault, what_happened, *took))
    print(f"{fault}: {what_happened}; published again after {took[0]:.1f} s, replayed after {took[1]:.1f} s")


class TestPassing:
    """Faults that pass, all on one federation."""

    def test_hosts_that_are_well(self, world: World) -> None:
        """Without a fault, every log publishes what is new."""
        report("none", "five logs, five nodes", world.recover())

    def test_hosts_survive_kills(self, world: World, chance: random.Random) -> None:
        """kill -9 of any process at any moment, while files change."""
        killed = {LOG: 0, NODE: 0}
        for _ in range(KILLS):
            world.hold(chance.uniform(0, 0.8))
            host, what = world.hosts[chance.randint(1, 5)], chance.choice([LOG, NODE])
            host.stop(what)
            killed[what] += 1
            world.hold(chance.uniform(0, 0.3))
            host.start(what)
        report("kill -9", f"{killed[LOG]} logs and {killed[NODE]} nodes, one after the other", world.recover())

    def test_hosts_survive_all_killed_at_once(self, world: World) -> None:
        """All ten processes die at the same time, as when the power fails."""
        for what in (LOG, NODE):
            for host in world.hosts.values():
                host.stop(what)
        for host in world.hosts.values():
            for what in (LOG, NODE):
                host.start(what)
        report("power cut", "all ten processes at once", world.recover())

    def test_hosts_keep_what_record_said(self, world: World, chance: random.Random) -> None:
        """What `record --json` has counted is in the log, though the log is killed while it publishes that."""
        host = world.hosts[chance.randint(1, 5)]
        host.stop(LOG)
        world.mark([host])
        words = ["record", "--data", str(host.home / LOG), "--source", f"folder:{host.files}", "--json"]
        done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=True)
        said = json.loads(done.stdout)
        counted = sum(int(said[word]) for word in ("created", "written", "moved", "touched", "altered", "deleted"))
        assert counted > 0
        with reading(host.home / LOG / "log.db") as conn:
            assert conn.execute("SELECT count(*) FROM pending").fetchone()[0] >= counted
        world.seen.look(host.origin)
        host.start(LOG)
        world.wait_for("log", lambda: host.answers(LOG), RECOVER_S)
        world.hold(chance.uniform(0, 1))
        host.stop(LOG)
        host.start(LOG)
        report("record", f"{counted} entries said by record --json, then kill -9 of the log", world.recover())

    def test_hosts_survive_a_split_in_two(self, world: World) -> None:
        """2|3: no side has a quorum, so nothing is published, and recording goes on."""
        network.cut([1, 2], [3, 4, 5])
        world.hold(5)  # what was on its way may still arrive
        before, recorded = world.sizes(world.honest), world.seen.count()[0]
        world.hold(SPLIT_S - 5)
        assert world.sizes(world.honest) == before
        assert world.seen.count()[0] > recorded
        network.heal()
        report("partition 2|3", f"nobody published for {SPLIT_S - 5} s, all recorded", world.recover())

    def test_hosts_survive_one_cut_off(self, world: World, chance: random.Random) -> None:
        """1|4: the four publish on, the one does not."""
        alone = chance.randint(1, 5)
        others = [host for host in world.honest if host.number != alone]
        network.cut([alone], [host.number for host in others])
        world.hold(3)
        before = world.seen.published_size(world.hosts[alone].origin)
        during = world.all_publish(others)
        world.hold(SPLIT_S / 2)
        assert world.seen.published_size(world.hosts[alone].origin) == before
        network.heal()
        report("partition 1|4", f"host {alone} alone; the four published after {during[0]:.1f} s", world.recover())

    def test_hosts_survive_a_deaf_one(self, world: World, chance: random.Random) -> None:
        """One way only: what a host says arrives, and no answer comes back."""
        deaf = chance.randint(1, 5)
        network.deafen(deaf)
        during = world.all_publish([host for host in world.honest if host.number != deaf])
        world.hold(SPLIT_S / 2)
        network.heal()
        report("one way", f"host {deaf} hears nothing; the four published after {during[0]:.1f} s", world.recover())

    def test_hosts_survive_loss(self, world: World) -> None:
        """Every fifth frame is lost."""
        network.lose(20)
        before = world.sizes(world.honest)
        world.hold(SPLIT_S / 2)
        after = world.sizes(world.honest)
        network.heal()
        grew = sum(after[number] > before[number] for number in before)
        report("loss 20%", f"{grew} of 5 published in {SPLIT_S // 2} s of it", world.recover())

    def test_hosts_survive_delay(self, world: World) -> None:
        """Everything said to two nodes is a second late, and so are their answers; publishing goes on."""
        relays = []
        for number in (1, 2):
            command = ["ip", "netns", "exec", network.namespace(number), sys.executable, relay.__file__]
            command += [str(RELAY_PORT), str(NODE_PORT), str(DELAY_S)]
            relays.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert relays[-1].stdout is not None
            assert relays[-1].stdout.readline() == "relaying\n"
            network.redirect(number, NODE_PORT, RELAY_PORT)
            world.hosts[number].stop(NODE)  # connections that stand would go round the relay
            world.hosts[number].start(NODE)
        during = world.all_publish(within_s=60)
        for number, process in zip((1, 2), relays, strict=True):
            network.redirect_no_more(number)
            process.kill()
            process.communicate()
        what = f"two nodes {DELAY_S} s away each way; all published after {during[0]:.1f} s"
        report("delay", what, world.recover())

    def test_hosts_survive_a_clock_behind(self, world: World, chance: random.Random) -> None:
        """An hour behind: that node cosigns nothing, the other four go on; set right, it takes part again."""
        host = world.hosts[chance.randint(1, 5)]
        host.halt()
        times = heads(world, host.number)
        host.run("-1h")
        world.wait_for("node", lambda: host.answers(NODE) and host.answers(LOG), RECOVER_S)
        during = world.all_publish([other for other in world.honest if other is not host])
        assert heads(world, host.number) == times
        host.halt()
        host.run()
        report("clock -1 h", f"host {host.number}; the four published after {during[0]:.1f} s", world.recover())

    def test_hosts_survive_a_clock_ahead(self, world: World, chance: random.Random) -> None:
        """An hour ahead: nobody counts its cosignatures, and nothing that it signs ahead of time is forgotten."""
        host = world.hosts[chance.randint(1, 5)]
        host.halt()
        host.run("+1h")
        world.wait_for("node", lambda: host.answers(NODE) and host.answers(LOG), RECOVER_S)
        others = [other for other in world.honest if other is not host]
        during = world.all_publish(others)
        for other in others:
            limit = time.time() + HOUR_S / 2
            with reading(other.home / LOG / "log.db") as conn:
                (note,) = conn.execute("SELECT newest_note FROM trees ORDER BY size DESC LIMIT 1").fetchone()
            assert all(t < limit for t in cosigned_at(world, other.origin, note).values())
        host.halt()
        host.run()
        took = world.recover()
        report("clock +1 h", f"host {host.number}; the four published after {during[0]:.1f} s", took)


def heads(world: World, number: int) -> list[tuple[str, int]]:
    """What a node has cosigned last, and when."""
    with reading(world.hosts[number].home / NODE / "witness.db") as conn:
        return conn.execute("SELECT signer || origin, time FROM heads ORDER BY 1").fetchall()


def cosigned_at(world: World, origin: str, data: bytes) -> dict[str, int]:
    return cosigned_times(world.policies[origin][0], parse_note(data))


def test_hosts_let_no_fork_pass(fresh: World) -> None:
    """A log with one key and two stores, and its own two-faced node, shows each side of a split another history."""
    world, eve = fresh, fresh.hosts[5]
    world.dishonest.add(5)
    eve.halt()
    twin = world.directory / "twin"
    copy_directory(eve.home, twin)
    world.seen.stores[eve.origin].append(twin / LOG)
    world.seen.nodes.append(twin / NODE)
    (eve.files / "contract").write_text("one thing")
    (twin / "files" / "contract").write_text("another")
    # Hosts 2, 3 and 4 find the twin, on host 4, at eve's address.
    network.cut([1, 5], [2, 3, 4])
    network.ip("-n", network.namespace(4), "address", "add", f"{network.address(5)}/32", "dev", "lo")
    for number in (2, 3):
        way = (f"{network.address(5)}/32", "via", network.address(4))
        network.ip("-n", network.namespace(number), "route", "add", *way)
    for what in (NODE, LOG):
        eve.start(what)
        eve.start(what, home=twin, at=4)
    before = world.seen.published_size(eve.origin)

    def twin_is_published() -> bool:
        world.seen.look(eve.origin)
        return world.seen.published_size(eve.origin) > before

    world.wait_for("the twin has its quorum", twin_is_published, RECOVER_S)
    # Both go on and ask everybody.
    network.heal()
    for number in (2, 3):
        network.ip("-n", network.namespace(number), "route", "del", f"{network.address(5)}/32")
    network.ip("-n", network.namespace(4), "address", "del", f"{network.address(5)}/32", "dev", "lo")
    (eve.files / "contract").write_text("one thing more")
    world.wait_for("evidence", lambda: bool(world.seen.evidence(eve.origin)), RECOVER_S)
    took = world.all_publish()
    world.hold(10)
    eve.stop(LOG, home=twin)
    eve.stop(NODE, home=twin)
    world.check()
    world.seen.look(eve.origin)
    stores = [read_leaves(home / LOG / "log.db") for home in (eve.home, twin)]
    assert stores[0] != stores[1][: len(stores[0])]
    evidence = world.seen.evidence(eve.origin)
    assert set(evidence) & {"fork", "consistency", "conflict"}
    report("fork", f"one side had a quorum, the other never; evidence: {evidence}", took)


def test_hosts_survive_yesterday_s_disk(fresh: World, chance: random.Random) -> None:
    """A host is put back to yesterday's copy: its log signs no second history, its witness makes none possible."""
    world = fresh
    host, victim = world.hosts[2], world.hosts[1]
    yesterday, today = world.directory / "yesterday", world.directory / "today"
    host.halt()
    copy_directory(host.home, yesterday)
    host.run()
    world.all_publish()
    world.all_publish()
    # It is put back.
    world.paused.add(host.number)
    host.halt()
    signed = world.seen.published_size(host.origin)
    host.home.rename(today)
    yesterday.rename(host.home)
    # Whoever has the victim's key reaches the forgetful witness before the victim does.
    network.cut([host.number], [other.number for other in world.honest if other is not host])
    host.start(NODE)
    world.wait_for("node", lambda: host.answers(NODE), RECOVER_S)
    signers = offer_fork(world, victim)
    network.heal()
    host.start(LOG)
    world.wait_for("log", lambda: host.answers(LOG), RECOVER_S)
    world.wait_for("the log stops signing", lambda: host.status()["paused"] is not None, RECOVER_S)
    # The victim's log learns from that witness that its key has signed what it does not know, and rightly stops.
    others = [other for other in world.honest if other not in (host, victim)]
    during = world.all_publish(others)
    assert len(signers) <= 1, signers
    assert not quorum_met(world.policies[victim.origin][0], dict.fromkeys(signers, int(time.time())))
    with reading(host.home / LOG / "log.db") as conn:
        newest = conn.execute("SELECT max(size) FROM trees").fetchone()[0]
    assert newest < signed
    # What was there before is put back.
    host.halt()
    shutil.rmtree(host.home)
    today.rename(host.home)
    host.run()
    victim.halt()  # only a start asks the witnesses anew
    victim.run()
    world.paused.clear()
    took = world.recover()
    fork = f"{len(signers)} of 5 cosigned a fork from there"
    report("yesterday's disk", f"its log paused, the three published after {during[0]:.1f} s, {fork}", took)


def offer_fork(world: World, victim: Host) -> list[str]:
    """With a stolen log key: another tree after the one that yesterday's witness knows. Who cosigns it?"""
    with reading(world.hosts[2].home / NODE / "witness.db") as conn:
        where = "signer = 'witness' AND origin = ?"
        (size,) = conn.execute(f"SELECT size FROM heads WHERE {where}", (victim.origin,)).fetchone()
    honest = read_leaves(victim.home / LOG / "log.db")
    leaves = [*honest[:size], b"\x02" + bytes(32)]
    key = parse_private_key((victim.home / LOG / "log.key").read_text().removesuffix("\n"))
    text = format_checkpoint(Checkpoint(victim.origin, size + 1, reference.mth(leaves)))
    note = format_note(Note(text, (sign_note(text, key),)))
    body = format_request(size, tuple(reference.consistency(size, leaves)), note)
    policy, signers = world.policies[victim.origin][0], []
    for host in world.hosts.values():
        try:
            lines = parse_signature_lines(host.ask(NODE, "/add-checkpoint", body))
        except urllib.error.HTTPError as refused:
            refused.close()
            continue
        assert verify_cosignature(Note(text, lines), policy.witnesses[f"h{host.number}"].key)
        signers.append(f"h{host.number}")
    return signers
