"""What the lying server of the demo does to its own data: code that no honest deployment runs.

Everything here works on a stopped copy of a log's directory, or edits a proof that somebody already has.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Sequence
from hashlib import sha3_256
from pathlib import Path

from audit import publisher as publishing
from audit.batch import Observation
from audit.chains import Current, find_at_path
from audit.directory import open_log
from audit.mapstore import MapStore
from audit.prover import Head, Prover, Row
from audit.publisher import Integration, Publisher, Waiting
from audit.recorder import Recorder
from audit.store import Store, open_store
from audit.tree import Tree
from verifier.entry import (
    SALT_SIZE,
    Content,
    Operation,
    Part,
    commit,
    decode_entry,
    encode_content,
    encode_entry,
)
from verifier.map import map_value
from verifier.note import format_note, parse_note
from verifier.proof import Proof

SOURCE = 1  # the demo has one


def rewrite_entry(directory: Path, path: str, seq: int, data: bytes) -> None:
    """Puts other content into an old entry, with a commitment that fits it."""
    with sqlite3.connect(directory / "log.db") as conn:
        chain = conn.execute("SELECT id FROM chains WHERE path = ?", (path,)).fetchone()[0]
        old = conn.execute("SELECT entry FROM entries WHERE chain = ? AND seq = ?", (chain, seq)).fetchone()[0]
        opening = os.urandom(SALT_SIZE) + encode_content(Content(len(data), sha3_256(data).digest()))
        entry = encode_entry(decode_entry(old)._replace(content=commit(Part.CONTENT, opening)))
        values = (entry, opening, chain, seq)
        conn.execute("UPDATE entries SET entry = ?, content = ? WHERE chain = ? AND seq = ?", values)
    conn.close()


def find_file(store: Store, path: str) -> int:
    current = find_at_path(store.reader(), SOURCE, path)
    assert current is not None
    return current.file_id


def record(directory: Path, path: str, operation: Operation) -> None:
    """Appends an honest-looking entry to the chain of the file at a path."""
    store = open_store(os.fspath(directory))
    try:
        file_id = find_file(store, path)
        Recorder(store, time.time).record([Observation(SOURCE, file_id, operation, int(time.time()))])
    finally:
        store.close()


def record_new(directory: Path, path: str, content: Content) -> None:
    """Starts a second chain at a path that has one."""
    store = open_store(os.fspath(directory))
    try:
        file_id = store.new_file_ids(SOURCE, 1)[0]
        now = int(time.time())
        observation = Observation(SOURCE, file_id, Operation.CREATED, now, content, path)
        Recorder(store, time.time).record([observation])
    finally:
        store.close()


def sign_older_map(directory: Path, path: str) -> None:
    """Signs a tree whose map names the head that a file had after its first step."""
    honest = publishing.plan_integration
    log = open_log(os.fspath(directory))
    prover = LyingProver(log.store, MapStore(), Tree())
    file_id = find_file(log.store, path)
    with log.store.snapshot() as conn:
        proof = prover.build(conn, SOURCE, file_id)

    def plan(size: int, waiting: Sequence[Waiting]) -> Integration:
        integration = honest(size, waiting)
        integration.map[proof.chain_id] = map_value(proof.map.seq, proof.map.head, proof.map.leaf_index)
        return integration

    try:
        publishing.plan_integration = plan
        Recorder(log.store, time.time).record([Observation(SOURCE, file_id, Operation.TOUCHED, int(time.time()))])
        maps, tree = MapStore(), Tree()
        Publisher(log.store, maps, tree, log.signer, log.witnesses, log.auditors).integrate_and_sign(int(time.time()))
    finally:
        publishing.plan_integration = honest
        log.store.close()


class LyingProver(Prover):
    """Proves in the newest tree that witnesses cosigned, replayed or not, and only the first step of the file."""

    def _current_head(self, conn: sqlite3.Connection) -> Head:
        row = publishing.read_newest_signed(conn)
        assert row is not None
        return self.head_of(conn, row, {})

    def _chain_in(
        self,
        conn: sqlite3.Connection,
        head: Head,
        current: Current | None,
        owners: Collection[int] | None,
        ended: bool = False,
    ) -> tuple[Current, list[Row]]:
        chain, rows = super()._chain_in(conn, head, current, owners, ended)
        return chain, rows[:1]


def prove_older(directory: Path, path: str, target: Path) -> None:
    """A proof that a file is still as it was after its first step."""
    store = open_store(os.fspath(directory))
    try:
        prover = LyingProver(store, MapStore(), Tree())
        file_id = find_file(store, path)
        target.write_bytes(prover.prove(SOURCE, file_id))
    finally:
        store.close()


def keep_cosigners(note: bytes, count: int) -> bytes:
    """The note with the log's line, the auditors', and only so many of the witnesses'."""
    parsed = parse_note(note)
    log, *others = parsed.signatures
    auditors = [line for line in others if line.name.endswith("/auditor")]
    witnesses = [line for line in others if not line.name.endswith("/auditor")]
    return format_note(parsed._replace(signatures=(log, *witnesses[:count], *auditors)))


def altered_seq(proof: Proof) -> int:
    """The step of a proof that says `altered`."""
    entries = [decode_entry(line.entry) for line in proof.entries]
    return next(entry.seq for entry in entries if entry.operation is Operation.ALTERED)
