"""Rows of the federation: a quorum of five nodes, one witness under load, and an auditor's replay of a whole log.

Nodes are processes of their own on loopback, with their state on disk, as `node serve` runs them.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha3_256
from itertools import pairwise
from pathlib import Path
from statistics import median

from audit.directory import create_log, open_log
from audit.federation import Federation, make_client
from audit.mapstore import CREATE_MAP_PAGES, MapStore
from audit.node import allow_log, create_node
from audit.publisher import Accepted, Publisher
from audit.recorder import Recorder
from audit.tree import Tree, read_bundle
from audit.witness import format_request
from bench.dataset import SOURCE_ID, SOURCE_SPEC, Data, now, observe
from bench.environment import PEERS
from bench.measure import MS, PER_S, Round, Row, at_least, below, interleave, skipped
from bench.progress import say
from bench.serving import end, python_server
from tests.peers.install import HOME, why_absent
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.leaf import EntryLeaf, MapLeaf, encode_leaf
from verifier.map import map_value
from verifier.merkle import complete_subtrees, consistency_ranges, fold_right, leaf_hash, node_hash
from verifier.note import SIGNATURE, Note, SignerKey, format_note, format_vkey, sign_note
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.tile import ENTRIES, TILE_WIDTH, encode_entry_bundle, encode_hash_tile, format_tile_path, plan_tiles

NODES, QUORUM = 5, 4
MAX_ROUND_MS = 25
ORIGIN = "bench.example/log"
RATE = "witness, requests/s, durable"
REPLAY = "replay of a whole log, leaves/s"
REPLAYS = 3
MIN_REPLAY, MIN_RATE, MAX_MEMORY_MB = 0.4, 1.5, 400


def rows(data: Data, temporary: str, rounds: int, calls: int) -> list[Row]:
    """Quorum, one witness, replay."""
    found = [quorum_row(os.path.join(temporary, "quorum"), rounds * 10)]
    found.append(rate_row(os.path.join(temporary, "rate"), rounds, calls))
    return found + replay_rows(data, os.path.join(temporary, "replay"))


# A quorum


def quorum_row(directory: str, rounds: int) -> Row:
    """From a signed checkpoint in hand to its quorum on disk."""
    os.makedirs(directory)
    log = os.path.join(directory, "log")
    create_log(log, ORIGIN, now())
    with open(os.path.join(log, "policy")) as file:
        log_line = file.readline()
    with ExitStack() as stack:
        lines = [log_line]
        for number in range(NODES):
            home = Path(directory, f"node{number}")
            witness, _ = create_node(home, f"node{number}.example/w")
            allow_log(home, log_line.split()[1])
            _, port = stack.enter_context(python_server("node_server.py", str(home)))
            lines.append(f"witness n{number} {witness} http://127.0.0.1:{port}\n")
        lines.append(f"group all {QUORUM} {' '.join(f'n{i}' for i in range(NODES))}\nquorum all\n")
        taken = asyncio.run(quorum_rounds(log, "".join(lines).encode(), log_line.encode(), rounds))
    name = f"quorum of {QUORUM} of {NODES} nodes, signed checkpoint to quorum, p50"
    return below(name, median(taken) * 1e3, MS, MAX_ROUND_MS)


async def quorum_rounds(directory: str, policy: bytes, log_line: bytes, rounds: int) -> list[float]:
    """Seconds of each round; in each a file is recorded and a tree signed before the clock starts."""
    log = open_log(directory)
    source = log.store.add_source(SOURCE_SPEC, SOURCE_ID)
    witnesses, nobody = parse_policy(policy, WITNESSES), parse_policy(log_line + b"quorum none\n", AUDITORS)
    recorder = Recorder(log.store, time.time)
    publisher = Publisher(log.store, MapStore(), Tree(), log.signer, witnesses, None)
    published, taken = asyncio.Event(), []

    def hear(_: object, accepted: Accepted) -> None:
        if accepted.published:
            published.set()

    async with make_client() as client:
        federation = Federation(client, publisher, witnesses, nobody, now, hear)
        couriers = asyncio.create_task(federation.run())
        for number in range(1, rounds + 11):
            recorder.record([observe(source, number, 0, now())])
            target = publisher.integrate_and_sign(now())
            assert target is not None
            published.clear()
            start = time.perf_counter()
            federation.witness_desk.put(target)
            await published.wait()
            taken.append(time.perf_counter() - start)
        couriers.cancel()
        await asyncio.gather(couriers, return_exceptions=True)
    log.store.close()
    say(f"  quorum: {rounds} rounds")
    return taken[10:]


# One witness


class GrowingLog:
    """Signs its next tree, one leaf larger, with the proof from the last one: bodies for a witness, made beforehand."""

    def __init__(self) -> None:
        self.signer = SignerKey(ORIGIN, SIGNATURE, bytes(range(32)))
        self.levels: list[list[bytes]] = [[]]
        self.size = 0

    def grow(self) -> bytes:
        old, self.size = self.size, self.size + 1
        add_hash(self.levels, leaf_hash(b"leaf %d" % old))
        proof = tuple([self._range(*ends) for ends in consistency_ranges(old, self.size)]) if old else ()
        text = format_checkpoint(Checkpoint(ORIGIN, self.size, self._range(0, self.size)))
        return format_request(old, proof, format_note(Note(text, (sign_note(text, self.signer),))))

    def _range(self, begin: int, end: int) -> bytes:
        return fold_right([self.levels[level][index] for level, index in complete_subtrees(begin, end)])


def add_hash(levels: list[list[bytes]], value: bytes) -> None:
    """A leaf hash more; complete subtrees appear on the levels above."""
    for level in itertools.count():
        if level == len(levels):
            levels.append([])
        levels[level].append(value)
        if len(levels[level]) % 2:
            return
        value = node_hash(*levels[level][-2:])


def rate_row(directory: str, rounds: int, calls: int) -> Row:
    """Both grow the same log by one leaf with each request, over one connection that acknowledges at once."""
    if reason := why_absent():
        return skipped(RATE, f">= {MIN_RATE:g}x", reason)
    os.makedirs(directory)
    vkey = format_vkey(GrowingLog().signer.verifier_key)
    home = Path(directory, "node")
    create_node(home, "node.example/w")
    allow_log(home, vkey)
    with python_server("node_server.py", str(home)) as (_, ours), aics_witness(directory, vkey) as theirs:
        times = interleave(rounds, ours=requests(ours, calls), theirs=requests(theirs, calls))
    return at_least(RATE, times["ours"], times["theirs"], MIN_RATE, PER_S, "aics-witness 0.1.0, TCP_QUICKACK")


@contextmanager
def aics_witness(directory: str, vkey: str) -> Iterator[int]:
    """The port of an aics-witness that watches the log."""
    command, config = HOME / "bin" / "aics-witness", os.path.join(directory, "witness.json")
    words = ("init", "--name", "peer.example/w", "--listen", "127.0.0.1:0"), ("add-log", "--origin", ORIGIN)
    subprocess.run([command, *words[0], "--config", config], check=True, capture_output=True)
    subprocess.run([command, *words[1], "--vkey", vkey, "--config", config], check=True, capture_output=True)
    process = subprocess.Popen([command, "serve", "--config", config], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = next(filter(None, (re.search(r"listening on \S+:(\d+)", line) for line in process.stderr)))
        drain = threading.Thread(target=process.stderr.read)  # it says a line for each request, and must not wait
        drain.start()
        yield int(found[1])
    finally:
        end(process)
        drain.join()
        process.stderr.close()


def requests(port: int, calls: int) -> Round:
    """A round of so many requests, each waiting for its 200."""
    log = GrowingLog()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def one_round() -> float:
        bodies = [log.grow() for _ in range(calls)]
        head = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        start = time.perf_counter()
        for body in bodies:
            connection.sendall(head % len(body) + body)
            receive(connection)
        return (time.perf_counter() - start) / calls

    return one_round


def receive(connection: socket.socket) -> None:
    """A whole answer. QUICKACK holds for one acknowledgement only, so it is asked for each time."""
    data = b""
    while True:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        piece = connection.recv(65536)
        assert piece, "the witness closed the connection"
        data += piece
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            assert head.startswith(b"HTTP/1.1 200"), data
            assert length is not None
            if len(body) == int(length[1]):
                return


# Replay


def replay_rows(data: Data, directory: str) -> list[Row]:
    """An auditor that holds nothing yet, over the bench's own log; then over one in which each leaf is a new chain."""
    signed = data.publisher.published()
    assert signed is not None
    own = os.path.join(directory, "own")
    with data.store.snapshot() as conn:
        bundles = range((signed.size - 1) // TILE_WIDTH + 1)
        leaves = [leaf for n in bundles for leaf in read_bundle(conn, n, min(TILE_WIDTH, signed.size - n * TILE_WIDTH))]
    export(leaves, own)
    say("  replaying once to count the hashes ...")
    counted = replay(own, "count")
    say(f"  replaying {len(leaves):,} leaves, {REPLAYS} times ...")
    loops, taken = [bare(counted)], []
    for number in range(REPLAYS):
        taken.append(replay(own, "replay", number)["seconds"] / len(leaves))
        loops.append(bare(counted))
    around = [(before + after) / 2 / len(leaves) for before, after in pairwise(loops)]
    hashes = f"bare hashlib, {len(leaves):,} leaves, {sum(counted.values()) / len(leaves):.1f} hashes each"
    speed = at_least(REPLAY, taken, around, MIN_REPLAY, PER_S, hashes)
    many = os.path.join(directory, "many")
    export(leaves_of_new_chains(data.files * 10), many)
    say(f"  replaying {data.files * 10:,} chains ...")
    peak = replay(many, "replay")["peak"] / 1e6
    return [speed, below(f"auditor's memory, peak, {data.files * 10:,} chains", peak, "MB", MAX_MEMORY_MB)]


def replay(exported: str, what: str, number: int = 0) -> dict[str, float]:
    """One run in a process of its own, by a node that is new."""
    root = os.path.dirname(os.path.dirname(PEERS))
    command = [sys.executable, os.path.join(PEERS, "replay_log.py"), exported, f"{exported}-{what}-{number}", what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root})
    result: dict[str, float] = json.loads(done.stdout)
    return result


def bare(counted: dict[str, float]) -> float:
    """Seconds for as many hashes by the same functions, over bytes of the same lengths."""
    seconds = 0.0
    for kind, times in counted.items():
        name, length = kind.split()
        function, data = getattr(hashlib, name), bytes(int(length))
        start = time.perf_counter()
        for _ in range(int(times)):
            function(data).digest()
        seconds += time.perf_counter() - start
    return seconds


def leaves_of_new_chains(count: int) -> list[bytes]:
    """So many chains of one entry each, and the map over them."""
    ids = [sha3_256(b"chain %d" % number).digest() for number in range(count)]
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.execute(CREATE_MAP_PAGES)
    values = {chain_id: map_value(0, chain_id, index) for index, chain_id in enumerate(ids)}
    root = MapStore().update(conn, 1, values)
    conn.close()
    return [*[encode_leaf(EntryLeaf(chain_id, 0, chain_id)) for chain_id in ids], encode_leaf(MapLeaf(root))]


def export(leaves: Sequence[bytes], directory: str) -> None:
    """The log's tiles as files, a checkpoint over them, and the key that signed it."""
    os.makedirs(directory)
    signer = SignerKey(ORIGIN, SIGNATURE, bytes(range(32)))
    levels: list[list[bytes]] = [[]]
    for leaf in leaves:
        add_hash(levels, leaf_hash(leaf))
    for tile in plan_tiles(0, len(leaves)):
        begin = tile.number * TILE_WIDTH
        if tile.level == ENTRIES:
            content = encode_entry_bundle(leaves[begin : begin + tile.width])
        else:
            content = encode_hash_tile(levels[tile.level * 8][begin : begin + tile.width])
        write(directory, format_tile_path(tile).replace("/", "-"), content)
    root = fold_right([levels[level][index] for level, index in complete_subtrees(0, len(leaves))])
    text = format_checkpoint(Checkpoint(ORIGIN, len(leaves), root))
    write(directory, "checkpoint", format_note(Note(text, (sign_note(text, signer),))))
    write(directory, "vkey", format_vkey(signer.verifier_key).encode())


def write(directory: str, name: str, content: bytes) -> None:
    with open(os.path.join(directory, name), "wb") as file:
        file.write(content)
