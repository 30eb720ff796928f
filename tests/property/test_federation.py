"""The real log, witnesses and auditors in one process and in virtual time, an adversary, and two clients.

Four nodes, quorum 3: q = 3, ov = 2. The adversary has the log's key and one node's two keys, so f = 1 of each kind. It
copies its log and lets both copies go on (each copy is the honest code over a store of its own), serves an auditor the
leaves of another copy, signs ahead of the quorum, asks whom it likes in any order, and its node signs anything with any
time. The three honest nodes are `audit.node.Node` over stores on disk: they crash at any write, before it is done or
after, start again, and their clocks jump. The clients ask `verifier.verify` and keep its memory.

What must hold, in every schedule:

    two clients never hold VERIFIED for trees of which neither continues the other
    what an honest node has cosigned is one history, sizes and times never go back
    trees with a quorum of cosigners are one history
    what a log or a node has acknowledged is there after each crash
    a log calls nothing published or audited, and no client VERIFIES, what has not both quorums of distinct signers
    a client that has seen a tree never gets VERIFIED for an older one
    an auditor signs for no log with a broken chain or a wrong map, and for no leaves but those that it holds
    a node put back to an older store signs nothing

Random schedules seldom meet a given attack. `tests.property.test_federation_attacks` runs the same machine in a fixed
order, one attack after the other. `tests.property.test_adversary` lies in the bytes of stores and proofs, with modelled
nodes; here the bytes are honest, and the machinery is real. `make test` runs a few schedules, `make test-federation`
thousands: `tests.property.test_federation_long`.
"""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from audit.errors import AuditError, Conflict, Fatal, PeerFailed, Refused, TryLater
from audit.node import Node
from audit.prover import Prover
from audit.publisher import Target, read_newest_signed
from audit.tree import read_published_tile
from audit.witness import Head, Inconsistent, OutOfStep, Retired, format_request
from audit.witness_store import AUDITOR, WITNESS, create_store, open_store
from tests.audit.log_setup import ORIGIN, START, LogSetup, content_of, read_leaf
from tests.fakes import FakeClock, FakeLog, Faults, digest
from verifier import ed25519
from verifier.checkpoint import parse_checkpoint_unverified
from verifier.entry import Operation
from verifier.keys import OwnerKeys
from verifier.note import (
    Note,
    SignerKey,
    cosign,
    format_note,
    format_signature_line,
    format_vkey,
    parse_note,
    parse_signature_lines,
    verify_cosignature,
)
from verifier.proof import parse_proof
from verifier.tile import parse_tile_path
from verifier.verdict import Memory, Question, Trust, Verdict
from verifier.verify import verify

T = TypeVar("T")
SCHEDULES = 30
STEPS = 40
NODES, QUORUM = 4, 3
HONEST = (1, 2, 3)
FILES = (1, 2)
CONTENTS = (b"one", b"two", b"three")
WRITES = st.tuples(st.sampled_from(FILES), st.sampled_from(CONTENTS))
MAX_COPIES = 3
REMEMBERED = 10_000  # signatures that hold
MEMORY, ROOM = "/dev/shm", 2**30
PUBLISHED = "SELECT signed, audited FROM trees WHERE first_note IS NOT NULL"
MAX_AGE_S = 3_600
LOG_URL = "http://log.test"
COUNTS: Counter[str] = Counter()
LIES = {"skipped seq": 2, "seq again": 0, "wrong map": 1}  # by how much a log that lies in its leaves moves a seq


class Tree(NamedTuple):
    """Something that was signed by the log: what it says, and every leaf below it."""

    size: int
    root: bytes
    leaves: tuple[bytes, ...]

    def is_one_history_with(self, other: Tree) -> bool:
        short, long = sorted((self.leaves, other.leaves), key=len)
        return long[: len(short)] == short


def check_one_history(trees: Iterable[Tree], message: str) -> None:
    """All pairs: neighbours alone would let two branches of one trunk pass."""
    for one, two in combinations(dict.fromkeys(trees), 2):
        assert one.is_one_history_with(two), message


class Signed(NamedTuple):
    """A cosignature of an honest node."""

    size: int
    root: bytes
    time: int


class Folder:
    """A log and three nodes that were just made, once; each schedule gets a copy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = LogSetup(path / "log", NODES, QUORUM)
        self.owner: OwnerKeys = self.log.enrol()
        self.other = FakeLog("other.example/log").grow(2, 1)
        names = [f"liar{number}.example/log" for number in range(len(LIES))]
        self.liars = {lie: FakeLog(name).grow(2, 1) for lie, name in zip(LIES, names, strict=True)}
        for number in HONEST:
            keys = self.keys(number)
            (path / f"n{number}" / "mirror").mkdir(parents=True)
            create_store(path / f"n{number}" / "witness.db", vkeys(keys))
            node = self.open_node(path, number, sqlite_of(Faults()), no_fetch)
            node.allow_log(format_vkey(self.log.signer.verifier_key), LOG_URL)
            node.allow_log(self.other.vkey)
            for liar in self.liars.values():
                node.allow_log(liar.vkey, liar.url)
            node.close()
        self.log.close()

    def keys(self, number: int) -> tuple[SignerKey, SignerKey]:
        return self.log.witnesses[number], self.log.auditors[number]

    def open_node(self, path: Path, number: int, factory: Any, fetch: Any) -> Node:
        home, keys = path / f"n{number}", self.keys(number)
        return Node(home, open_store(home / "witness.db", vkeys(keys), factory), *keys, fetch, factory)


def vkeys(keys: tuple[SignerKey, SignerKey]) -> dict[str, str]:
    return {role: format_vkey(key.verifier_key) for role, key in zip((WITNESS, AUDITOR), keys, strict=True)}


def sqlite_of(faults: Faults) -> Any:
    """Connections that fail as told. Processes die here and machines do not, so nothing is synced."""

    class Connection(faults.factory):  # type: ignore[misc, name-defined]
        def execute(self, sql: str, *values: Any) -> Any:
            return super().execute(sql.replace("synchronous=FULL", "synchronous=OFF"), *values)

    return Connection


async def no_fetch(url: str, limit: int) -> bytes:
    raise PeerFailed(url)


class HonestNode:
    """A node, its clock, and what it has said."""

    def __init__(self, folder: Folder, path: Path, number: int, fetch: Any) -> None:
        self._folder, self._path, self.number, self._fetch = folder, path, number, fetch
        self.faults = Faults()
        self.clock = FakeClock(START)
        self.said: dict[str, list[Signed]] = {WITNESS: [], AUDITOR: []}
        self.times: dict[str, list[int]] = {WITNESS: [], AUDITOR: []}  # over all logs
        self.newest: dict[tuple[str, str], bytes] = {}  # by role and origin: the note with its own line
        self.retired = False
        self.kept: dict[tuple[str, str], bytes] = {}  # `newest` when its directory was copied
        self.open()

    def open(self) -> None:
        self.node = self._folder.open_node(self._path, self.number, sqlite_of(self.faults), self._fetch)

    def restart(self) -> None:
        self.node.close()
        self.open()

    @property
    def home(self) -> Path:
        return self._path / f"n{self.number}"

    def keep(self) -> None:
        """Copies its directory, as a backup does."""
        self.node.close()
        shutil.rmtree(self.home.with_suffix(".old"), ignore_errors=True)
        shutil.copytree(self.home, self.home.with_suffix(".old"))
        self.kept = dict(self.newest)
        self.open()

    def put_back(self) -> None:
        """Goes back to that copy, and is shown what it signed last for each log."""
        self.node.close()
        shutil.rmtree(self.home)
        shutil.copytree(self.home.with_suffix(".old"), self.home)
        self.faults.fail_at = 0
        self.open()
        self.retired = self.newest != self.kept
        for note in self.newest.values():
            try:
                self.node.add_checkpoint(format_request(0, (), note), self.clock.now)
            except (Retired, Conflict):
                continue
            raise AssertionError("signed again from the start")

    def check_memory(self) -> None:
        """Its store knows whatever it has said."""
        for (role, origin), data in self.newest.items():
            said = parse_checkpoint_unverified(parse_note(data).text)
            head = self.node.store.head(role, origin)
            assert head is not None, f"{role}: forgot {origin}"
            assert head.size >= said.size, f"{role}: forgot size {said.size} of {origin}"
            assert head.size > said.size or head.root == said.root, f"{role}: holds another tree of {origin}"

    def heard(self, role: str, note: bytes, answer: bytes, tree: Target | None) -> None:
        """Keeps what it said, once the line is shown to be its own."""
        assert not self.retired, f"{role}: signs after it was put back to an older store"
        key = self._folder.keys(self.number)[role == AUDITOR].verifier_key
        text, lines = parse_note(note).text, parse_signature_lines(answer)
        time = verify_cosignature(Note(text, lines), key)
        own = [line for line in parse_note(note).signatures if line.name == parse_checkpoint_unverified(text).origin]
        self.newest[role, own[0].name] = format_note(Note(text, (*own, *lines)))
        self.times[role].append(time)
        if tree is not None:
            self.said[role].append(Signed(tree.size, tree.root, time))


class Copy:
    """One of the stores that the log's key signs for."""

    def __init__(self, log: LogSetup) -> None:
        self.log = log
        self.faults = Faults()
        self.acknowledged: list[tuple[bytes, int, bytes]] = []
        self.known = dict.fromkeys((*HONEST, 0), 0)  # sizes that the nodes said they know
        self.claims = False  # its rows say "audited" of what nobody replayed

    def open(self) -> None:
        self.log.factory = sqlite_of(self.faults)  # type: ignore[misc]
        self.log.open()
        self.prover = Prover(self.log.store, self.log.maps, self.log.tree)
        for chain_id, seq, head in self.acknowledged:
            where = "JOIN chains c ON c.id = e.chain WHERE c.chain_id = ? AND e.seq = ?"
            found = self.log.store.reader().execute(f"SELECT e.head FROM entries e {where}", (chain_id, seq)).fetchone()
            assert found == (head,), "an acknowledged entry is gone"

    def restart(self) -> None:
        self.log.close()
        self.open()

    def leaves(self, size: int) -> tuple[bytes, ...]:
        with self.log.store.snapshot() as conn:
            return tuple([read_leaf(conn, index) for index in range(size)])


class Client:
    """Remembers what it has seen, as a state file does."""

    def __init__(self) -> None:
        self.checkpoint: bytes | None = None
        self.chains: dict[int, Memory] = {}
        self.held: list[Tree] = []

    def memory(self, file_id: int) -> Memory:
        return Memory(self.checkpoint, self.chains.get(file_id, Memory()).chain)


FOLDER: Folder


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    """Where all schedules of a module begin. Processes die here and machines do not: memory will do for a disk."""
    global FOLDER
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    with TemporaryDirectory(dir=MEMORY if roomy else None) as path, pytest.MonkeyPatch.context() as patch:
        FOLDER = Folder(Path(path))
        # One note is shown to many in this one process. What fails is not remembered, and is verified each time.
        patch.setattr(ed25519, "verify", lru_cache(REMEMBERED)(ed25519.verify))
        yield


class Federation(RuleBasedStateMachine):
    """Copies of a log, three honest nodes and a lying one, two clients, and one clock."""

    @initialize()
    def start(self) -> None:
        COUNTS["schedules"] += 1
        self.loop = asyncio.new_event_loop()
        self.path = Path(mkdtemp(dir=FOLDER.path))
        for name in ("log", *(f"n{number}" for number in HONEST)):
            shutil.copytree(FOLDER.path / name, self.path / name)
        self.now = START
        self.trees: dict[bytes, Tree] = {}  # by checkpoint text
        self.signers: dict[str, dict[bytes, set[int]]] = {WITNESS: {}, AUDITOR: {}}  # text -> the nodes that cosigned
        self.copies = [Copy(self.setup(self.path / "log"))]
        self.copies[0].open()
        self.serving: Copy = self.copies[0]
        self.nodes = {number: HonestNode(FOLDER, self.path, number, self.fetch) for number in HONEST}
        self.clients = [Client(), Client()]
        self.other = copy.copy(FOLDER.other)
        self.other.leaves, self.other.tips = list(self.other.leaves), dict(self.other.tips)
        self.liars = {liar.url: liar for liar in FOLDER.liars.values()}  # what each one serves now
        for file_id in FILES:
            self.write(self.serving, file_id, b"one")
        self.publish_at(self.serving, self.serving)

    def setup(self, path: Path) -> LogSetup:
        log = copy.copy(FOLDER.log)
        log.directory, log.clock = os.fspath(path), copy.copy(FOLDER.log.clock)
        return log

    def teardown(self) -> None:
        if not hasattr(self, "path"):
            return
        for node in self.nodes.values():
            node.node.close()
        for each in self.copies:
            each.log.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.path)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def fetch(self, url: str, limit: int) -> bytes:
        """The tiles of whichever copy the adversary serves from, or of a log that lies in its leaves."""
        for base, liar in self.liars.items():
            if url.startswith(base + "/"):
                return await liar.fetch(url, limit)
        tile = parse_tile_path(url.removeprefix(LOG_URL + "/"))
        with self.serving.log.store.snapshot() as conn:
            newest = read_newest_signed(conn)
            try:
                return read_published_tile(conn, tile, newest.size if newest else 0)
            except Refused as error:
                raise PeerFailed(str(error)) from None

    # -- the log --

    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """A file is written, in one copy."""
        self.write(self.pick(data), *data.draw(WRITES))

    def write(self, each: Copy, file_id: int, content: bytes) -> None:
        where = "SELECT 1 FROM chains WHERE file_id = ?"

        def write() -> None:
            known = each.log.store.reader().execute(where, (file_id,)).fetchone()
            operation = Operation.WRITTEN if known else Operation.CREATED
            recorded = each.log.see(operation, file_id, content, f"{file_id}.txt")
            each.acknowledged.append((recorded.chain_id, recorded.seq, recorded.head))

        self.at_log(each, write)

    @precondition(lambda self: len(self.copies) < MAX_COPIES)
    @rule(data=st.data(), then=st.sampled_from(["", "same size", "other leaves", "bigger", "bigger"]))
    def copy_log(self, data: st.DataObject, then: str) -> None:
        """The adversary copies a store; from here on the key signs for both. Mostly it forks the log at once."""
        one = self.pick(data)
        two = self.copy_of(one)
        if then:
            crossed = then == "other leaves"  # no auditor is asked for the one, and for the other with the one's leaves
            for each in (one,) if then == "bigger" else (one, two):
                self.write(each, FILES[0], b"two")
                self.publish_at(each, one if crossed else each, True, replay=0 if crossed and each is one else 7)
        if then == "bigger":
            self.fork_at(two)

    def copy_of(self, each: Copy) -> Copy:
        each.log.close()
        made = Copy(self.setup(self.path / f"log{len(self.copies)}"))
        shutil.copytree(each.log.directory, made.log.directory)
        made.log.clock.now = self.now
        made.acknowledged, made.known, made.claims = list(each.acknowledged), dict(each.known), each.claims
        each.open()
        made.open()
        self.copies.append(made)
        COUNTS["copies"] += 1
        return made

    @rule(
        data=st.data(),
        eager=st.sampled_from([False, False, False, True]),
        reach=st.sampled_from([7, 7, 7, 1, 2, 5, 0]),
        replay=st.sampled_from([7, 7, 7, 1, 0]),
        lie=st.sampled_from([0, 0, -500, 25, 10_000]),
        write=st.booleans(),
    )
    def publish(self, data: st.DataObject, eager: bool, reach: int, replay: int, lie: int, write: bool) -> None:
        """A copy signs its next tree, or the one that waits, and asks those that it reaches; a client looks at it."""
        each = self.pick(data)
        if write:
            self.write(each, *data.draw(WRITES))
        self.publish_at(each, data.draw(st.sampled_from([each, each, each, *self.copies])), eager, reach, lie, replay)
        self.ask_at(each, self.clients[data.draw(st.integers(0, 1))], FILES[0], None)

    def publish_at(
        self, each: Copy, serving: Copy, eager: bool = False, reach: int = 7, lie: int = 0, replay: int = 7
    ) -> Target | None:
        target = self.at_log(each, lambda: each.log.publisher.integrate_and_sign(self.now, eager))
        if target is None:
            newest = read_newest_signed(each.log.store.reader())
            if newest is None:
                return None
            target = Target(newest.size, newest.root, newest.newest_note)
        self.learn(each, target)
        self.lie(each, target, self.now + lie)
        reached = [number for number in HONEST if reach >> (number - 1) & 1]
        for number in reached:
            self.ask_witness(each, target, number)
        self.serving = serving
        for number in reached:
            if replay >> (number - 1) & 1:
                self.ask_auditor(each, target, number)
        return target

    def learn(self, each: Copy, target: Target) -> None:
        text = parse_note(target.note).text
        if text not in self.trees:
            self.trees[text] = Tree(target.size, target.root, each.leaves(target.size))

    def lie(self, each: Copy, target: Target, at: int) -> None:
        """The adversary's node signs anything, as both, with any time."""
        text = parse_note(target.note).text
        for role in (WITNESS, AUDITOR):
            self.signers[role].setdefault(text, set()).add(0)
        lines = b"".join(format_signature_line(cosign(text, key, at)) for key in FOLDER.keys(0))
        self.accept(each, target, lines)

    def ask_witness(self, each: Copy, target: Target, number: int) -> None:
        node = self.nodes[number]
        for _ in range(2):
            old_size = min(each.known[number], target.size)
            proof = tuple(each.log.publisher.consistency(old_size, target.size))
            body = format_request(old_size, proof, target.note)
            try:
                answer = self.at_node(node, WITNESS, lambda body=body: node.node.add_checkpoint(body, node.clock.now))  # type: ignore[misc]
            except OutOfStep as conflict:
                each.known[number] = conflict.known_size
                continue
            if answer is not None:
                each.known[number] = target.size
                self.cosigned(each, target, node, WITNESS, answer)
            return

    def ask_auditor(self, each: Copy, target: Target, number: int) -> None:
        node = self.nodes[number]
        try:
            answer = self.at_node(node, AUDITOR, lambda: self.run(node.node.auditor.audit(target.note, node.clock)))
        except Conflict:
            COUNTS["auditor ahead"] += 1
            return
        if answer is not None:
            held = node.node.auditor.mirror(ORIGIN)
            assert (held.size, held.root) == (target.size, target.root), "an auditor signed for leaves it does not hold"
            self.cosigned(each, target, node, AUDITOR, answer)

    def cosigned(self, each: Copy, target: Target, node: HonestNode, role: str, answer: bytes) -> None:
        text = parse_note(target.note).text
        node.heard(role, target.note, answer, target)
        self.signers[role].setdefault(text, set()).add(node.number)
        COUNTS[role] += 1
        self.accept(each, target, answer)

    def accept(self, each: Copy, target: Target, lines: bytes) -> None:
        self.at_log(each, lambda: each.log.publisher.accept_cosignatures(target.size, lines, self.now))

    # -- what goes wrong --

    @rule(number=st.sampled_from(HONEST), after=st.integers(1, 6), done=st.booleans())
    def break_node(self, number: int, after: int, done: bool) -> None:
        """One of a node's next writes fails, before it is done or after."""
        faults = self.nodes[number].faults
        faults.fail_at, faults.done = faults.writes + after, done

    @rule(data=st.data(), after=st.integers(1, 20), done=st.booleans())
    def break_log(self, data: st.DataObject, after: int, done: bool) -> None:
        """One of a store's next writes fails."""
        faults = self.pick(data).faults
        faults.fail_at, faults.done = faults.writes + after, done

    @rule(number=st.sampled_from(HONEST))
    def restart_node(self, number: int) -> None:
        """A node ends and starts; what it signed it still knows."""
        self.nodes[number].restart()

    @rule(number=st.sampled_from(HONEST), jump=st.sampled_from([-100_000, -60, -1, 0, 0, 20, 200, 5_000]))
    def set_clock(self, number: int, jump: int) -> None:
        """A node's clock is so far from the true time from now on."""
        self.nodes[number].clock.now = self.now + jump

    @rule(seconds=st.sampled_from([1, 30, 600, MAX_AGE_S + 1]))
    def wait(self, seconds: int) -> None:
        """Time goes by on every clock."""
        self.now += seconds
        for node in self.nodes.values():
            node.clock.now += seconds
        for each in self.copies:
            each.log.clock.now = self.now

    @rule(number=st.sampled_from(HONEST), grow=st.booleans())
    def other_log(self, number: int, grow: bool) -> None:
        """A node cosigns for somebody else too, with the same clock and memory."""
        if grow:
            self.other.grow(1, 1)
        node = self.nodes[number]
        head = node.node.store.head(WITNESS, self.other.origin)
        old_size = head.size if head else 0
        note = self.other.checkpoint()
        body = format_request(old_size, self.other.proof(old_size), note)
        answer = self.at_node(node, WITNESS, lambda: node.node.add_checkpoint(body, node.clock.now))
        if answer is not None:
            node.heard(WITNESS, note, answer, None)

    @precondition(lambda self: len(self.copies) > 1)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """A copy signs a bigger tree than anybody knows, and offers it with the old size that each witness knows."""
        self.fork_at(self.pick(data))

    def fork_at(self, each: Copy) -> Target | None:
        heads = {number: self.nodes[number].node.store.head(WITNESS, ORIGIN) for number in HONEST}
        newest = read_newest_signed(each.log.store.reader())
        longest = max((head.size for head in heads.values() if head), default=0)
        for _ in range(max(1, longest - (newest.size if newest else 0))):
            self.write(each, FILES[0], b"one")
        target = self.at_log(each, lambda: each.log.publisher.integrate_and_sign(self.now, True))
        if target is None:
            return None
        self.learn(each, target)
        for number, head in heads.items():
            for proof in self.made_up(each, head, target):
                self.offer(each, target, number, head.size if head else 0, proof)
        return target

    def made_up(self, each: Copy, head: Head | None, target: Target) -> Iterable[tuple[bytes, ...]]:
        """Its own copy's proof, none at all, and hashes of its choice."""
        if head and head.size <= target.size:
            yield tuple(each.log.publisher.consistency(head.size, target.size))
        yield ()
        yield (head.root if head else target.root, target.root)

    def offer(self, each: Copy, target: Target, number: int, old_size: int, proof: tuple[bytes, ...]) -> None:
        node, body = self.nodes[number], format_request(old_size, proof, target.note)
        try:
            answer = self.at_node(node, WITNESS, lambda: node.node.add_checkpoint(body, node.clock.now))
        except OutOfStep:
            return
        if answer is not None:
            self.cosigned(each, target, node, WITNESS, answer)

    @rule(number=st.sampled_from(HONEST), lie=st.sampled_from(sorted(LIES)))
    def lying_log(self, number: int, lie: str) -> None:
        """A log without a fork, whose leaves or map are false: no auditor signs that."""
        assert self.ask_about_lie(number, lie) is None, f"an auditor signed: {lie}"

    def ask_about_lie(self, number: int, lie: str) -> bytes | None:
        liar = FOLDER.liars[lie].copy()
        chain_id = digest(b"chain", 0)
        liar.add_entry(chain_id, digest(b"lie", 0), liar.tips[chain_id][0] + LIES[lie])
        liar.add_map(bytes(32) if lie == "wrong map" else None)
        return self.ask_about(number, liar)

    def ask_about(self, number: int, liar: FakeLog) -> bytes | None:
        node, note = self.nodes[number], liar.checkpoint()
        self.liars[liar.url] = liar
        answer = self.at_node(node, AUDITOR, lambda: self.run(node.node.auditor.audit(note, node.clock)))
        if answer is not None:
            node.heard(AUDITOR, note, answer, None)
        return answer

    @rule(number=st.sampled_from(HONEST))
    def keep_node(self, number: int) -> None:
        """A backup of a node, which there should not be."""
        self.nodes[number].keep()

    @precondition(lambda self: any(node.kept for node in self.nodes.values()))
    @precondition(lambda self: not any(node.retired for node in self.nodes.values()))
    @rule(data=st.data())
    def put_node_back(self, data: st.DataObject) -> None:
        """That backup is restored."""
        node = data.draw(st.sampled_from([node for node in self.nodes.values() if node.kept]))
        node.put_back()
        COUNTS["put back"] += node.retired

    @rule(data=st.data())
    def claim_audited(self, data: st.DataObject) -> None:
        """A log says of all that it has published that it was replayed, and makes proofs of that."""
        each = self.pick(data)
        self.write(each, FILES[0], b"two")
        self.publish_at(each, each, True, replay=0)
        self.claim_at(each)
        self.ask_at(each, self.clients[0], FILES[0], None)

    def claim_at(self, each: Copy) -> None:
        def write() -> None:
            with each.log.store.transaction() as conn:
                conn.execute("UPDATE trees SET audited = 1 WHERE first_note IS NOT NULL")

        each.claims = True
        self.at_log(each, write)

    def at_node(self, node: HonestNode, role: str, work: Callable[[], T]) -> T | None:
        """What an honest node answers; None for a refusal or a crash, after which it starts again."""
        try:
            return work()
        except Fatal:
            COUNTS["node crashes"] += 1
            node.restart()
        except Conflict:
            raise
        except Inconsistent as error:
            COUNTS[f"{role} refused: {error.kind}"] += 1
        except Retired:
            assert node.retired, "retired with its memory in place"
        except (TryLater, PeerFailed) as error:
            COUNTS[f"node: {type(error).__name__}"] += 1
        return None

    def at_log(self, each: Copy, work: Callable[[], T]) -> T | None:
        """What a store's writer returns; None after a crash and a restart."""
        try:
            return work()
        except (Fatal, TryLater):
            COUNTS["log crashes"] += 1
            each.restart()
        return None

    def pick(self, data: st.DataObject) -> Copy:
        return data.draw(st.sampled_from(self.copies))

    # -- clients --

    @rule(data=st.data(), who=st.integers(0, 1), file_id=st.sampled_from(FILES))
    def ask(self, data: st.DataObject, who: int, file_id: int) -> None:
        """A client asks, and gets its answer from whichever copy the adversary likes."""
        content = data.draw(st.sampled_from([None, None, *CONTENTS]))
        self.ask_at(self.pick(data), self.clients[who], file_id, content)

    def ask_at(self, each: Copy, client: Client, file_id: int, content: bytes | None) -> None:
        try:
            proof = parse_proof(each.prover.prove(each.log.source, file_id))
        except AuditError:
            COUNTS["no proof yet"] += 1
            return
        question = Question(
            self.now, None if content is None else content_of(content), f"{file_id}.txt", file_id, MAX_AGE_S
        )
        report = verify(proof, self.trust(), question, client.memory(file_id))
        COUNTS[report.verdict.value] += 1
        text = parse_note(proof.checkpoint).text
        if report.verdict is Verdict.VERIFIED:
            for role, signers in self.signers.items():
                assert len(signers.get(text, ())) >= QUORUM, f"VERIFIED with {signers.get(text)} of the {role}s"
        tree = self.trees[text]
        if report.verdict is Verdict.VERIFIED:
            assert all(tree.size >= held.size for held in client.held), "VERIFIED by an older tree than was seen before"
        if report.pins_checkpoint:
            client.checkpoint = report.proof.checkpoint
            client.held.append(tree)
        if report.pins_chain:
            client.chains[file_id] = Memory(None, report.proof)
        if report.verdict is Verdict.VERIFIED and len(self.copies) > 1:
            COUNTS["VERIFIED beside a fork"] += 1

    def trust(self) -> Trust:
        log = FOLDER.log
        keys = FOLDER.owner.public, FOLDER.owner.blinding
        return Trust(log.log_name, "folder:f0", log.witness_policy, log.auditor_policy, *keys)

    # -- what must hold --

    @invariant()
    def clients_hold_one_history(self) -> None:
        """Whatever clients with the same policy hold was one history, between them and over time."""
        if not hasattr(self, "clients"):
            return
        check_one_history([tree for client in self.clients for tree in client.held], "two histories were VERIFIED")

    @invariant()
    def quorums_hold_one_history(self) -> None:
        """Trees with a quorum of witnesses exclude each other never."""
        if not hasattr(self, "signers"):
            return
        for role, signed in self.signers.items():
            met = [self.trees[text] for text, numbers in signed.items() if len(numbers) >= QUORUM]
            check_one_history(met, f"a fork with two quorums of {role}s")

    @invariant()
    def logs_publish_with_quorums(self) -> None:
        """What a log calls published or audited was cosigned by so many distinct nodes."""
        for each in getattr(self, "copies", []):
            for data, audited in each.log.store.reader().execute(PUBLISHED).fetchall():
                text = parse_note(data).text
                assert len(self.signers[WITNESS].get(text, ())) >= QUORUM, "published without its quorum"
                if audited and not each.claims:
                    assert len(self.signers[AUDITOR].get(text, ())) >= QUORUM, "audited without its quorum"

    @invariant()
    def nodes_hold_one_history(self) -> None:
        """What one honest node cosigned only grew, and its times never went back."""
        for node in getattr(self, "nodes", {}).values():
            for role, said in node.said.items():
                assert [signed.size for signed in said] == sorted([signed.size for signed in said]), f"{role}: smaller"
                check_one_history([self.tree_of(signed) for signed in said], f"{role}: two histories")
                assert node.times[role] == sorted(node.times[role]), f"{role}: time went back"
            if not node.retired:
                node.check_memory()

    def tree_of(self, signed: Signed) -> Tree:
        return next(tree for tree in self.trees.values() if (tree.size, tree.root) == (signed.size, signed.root))


TestFederation = Federation.TestCase
TestFederation.settings = settings(
    max_examples=SCHEDULES,
    stateful_step_count=STEPS,
    phases=[phase for phase in Phase if phase is not Phase.shrink],  # to make a failing schedule short takes minutes
)


def test_federation_was_not_idle(record_property: Callable[[str, object], None]) -> None:
    """The schedules above forked, crashed, were refused and VERIFIED; how often is printed."""
    record_property("federation", dict(COUNTS))
    check_not_idle(SCHEDULES)


def check_not_idle(schedules: int) -> None:
    assert COUNTS["schedules"] >= schedules
    # Few schedules may miss one kind by chance: each attack has its own test in `test_federation_attacks`.
    crashes, refusals = (sum(n for word, n in COUNTS.items() if part in word) for part in ("crashes", "refused"))
    assert crashes > 0
    assert refusals > 0
    for word in ("copies", WITNESS, AUDITOR, "VERIFIED"):
        assert COUNTS[word] > 0, word
