"""A whole log on disk for tests: store, recorder, publisher, and the keys of a few cosigners."""

from __future__ import annotations

import os
import sqlite3
from hashlib import sha3_256, sha256
from pathlib import Path
from typing import NamedTuple

from audit.batch import Observation, Recorded, build_entry
from audit.chains import LIVE, find_current, load_chain, make_binding
from audit.mapstore import MapStore
from audit.publisher import Publisher, Target, read_newest_signed
from audit.recorder import Recorder
from audit.store import Store, create_store, open_store
from audit.tree import Tree, read_bundle
from verifier.chain import Binding, Openings
from verifier.entry import Closed, CloseReason, Content, ContextField, Entry, Operation
from verifier.keys import OwnerKeys, derive_keys, format_log_name
from verifier.note import COSIGNATURE, SIGNATURE, SignerKey, cosign, format_signature_line, format_vkey, parse_note
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.tile import TILE_WIDTH

ORIGIN = "log.example/files"
START = 1_800_000_000


def secret(name: str) -> bytes:
    return sha256(name.encode()).digest()


def content_of(data: bytes) -> Content:
    return Content(len(data), sha3_256(data).digest())


def read_leaf(conn: sqlite3.Connection, index: int) -> bytes:
    """The leaf at an index below the signed size."""
    return read_bundle(conn, index // TILE_WIDTH, index % TILE_WIDTH + 1)[-1]


def outstanding(store: Store) -> Target | None:
    """The signed tree that waits for its quorum; None when all is published."""
    newest = read_newest_signed(store.reader())
    if newest is None or newest.first_note is not None:
        return None
    return Target(newest.size, newest.root, newest.newest_note)


class PlannedClose(NamedTuple):
    """An unsigned `closed`: what its owner has to see in order to sign it, and to hand back."""

    binding: Binding
    head: bytes
    entry: bytes
    openings: Openings


def plan_close(store: Store, source: int, file_id: int, now: int) -> PlannedClose:
    """The end of a chain as the owner's client plans it, because of a new seed."""
    with store.snapshot() as conn:
        current = find_current(conn, source, file_id)
        assert current is not None
        chain = load_chain(conn, store, current)
        binding = make_binding(conn, store, current)
    argument = Closed(CloseReason.NEW_SEED, tuple(sorted(chain.taints.values())), b"")
    parts = (current.content, current.path) if current.status == LIVE else (None, None)
    entry = Entry(Operation.CLOSED, current.last_seq + 1, now, 0, b"", b"", b"", argument)
    data, openings = build_entry(entry, *parts, {})
    return PlannedClose(binding, current.head, data, openings)


class Clock:
    """POSIX seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class LogSetup:
    """An open log with one folder source; `reopen` is a restart of the process. `factory` makes the writer."""

    factory: type[sqlite3.Connection] = sqlite3.Connection

    def __init__(self, directory: Path, nodes: int = 3, threshold: int = 2) -> None:
        self.directory = os.fspath(directory)
        self.clock = Clock()
        self.signer = SignerKey(ORIGIN, SIGNATURE, secret("log"))
        self.log_name = format_log_name(ORIGIN, self.signer.verifier_key.public_key)
        self.witnesses = [SignerKey(f"w{i}.example/w", COSIGNATURE, secret(f"w{i}")) for i in range(nodes)]
        self.auditors = [SignerKey(f"w{i}.example/w/auditor", COSIGNATURE, secret(f"a{i}")) for i in range(nodes)]
        self.witness_policy = parse_policy(self._policy("w", self.witnesses, threshold), WITNESSES)
        self.auditor_policy = parse_policy(self._policy("a", self.auditors, threshold), AUDITORS)
        create_store(self.directory, ORIGIN, self.log_name, START)
        self.open()
        self.source = self.store.add_source("folder:/srv/files", "folder:f0")

    def _policy(self, prefix: str, keys: list[SignerKey], threshold: int) -> bytes:
        lines = [f"log {format_vkey(self.signer.verifier_key)}"]
        lines += [f"witness {prefix}{i} {format_vkey(key.verifier_key)}" for i, key in enumerate(keys)]
        lines += [f"group all {threshold} {' '.join(f'{prefix}{i}' for i in range(len(keys)))}", "quorum all"]
        return "".join(line + "\n" for line in lines).encode()

    def open(self) -> None:
        self.store = open_store(self.directory, self.factory)
        self.maps, self.tree = MapStore(), Tree()
        self.recorder = Recorder(self.store, self.clock)
        self.publisher = Publisher(
            self.store, self.maps, self.tree, self.signer, self.witness_policy, self.auditor_policy
        )

    def reopen(self) -> None:
        self.store.close()
        self.open()

    def close(self) -> None:
        self.store.close()

    def see(
        self, operation: Operation, file_id: int, data: bytes | None = None, path: str | None = None, **more: object
    ) -> Recorded:
        """Records one observation."""
        content = None if data is None else content_of(data)
        context = {ContextField.ACTOR: "alice"}
        if operation is Operation.COPIED:
            context[ContextField.COPIED_FROM] = "elsewhere"
        o = Observation(self.source, file_id, operation, self.clock.now, content, path, context, **more)  # type: ignore[arg-type]
        return self.recorder.record([o])[0]

    def lines(self, target: Target, signers: list[SignerKey], time: int | None = None) -> bytes:
        """What these cosigners answer."""
        text = parse_note(target.note).text
        return b"".join(format_signature_line(cosign(text, s, time or self.clock.now)) for s in signers)

    def publish(self) -> Target:
        """Signs what is pending and lets everyone cosign it."""
        target = self.publisher.integrate_and_sign(self.clock.now)
        assert target is not None
        self.clock.now += 10
        for signers in (self.witnesses, self.auditors):
            self.publisher.accept_cosignatures(target.size, self.lines(target, signers), self.clock.now)
        return target

    def enrol(self, user: str = "alice", whole_instance: bool = False, replace: bool = False) -> OwnerKeys:
        """Enrols the owner whose seed is named after the user."""
        keys = derive_keys(secret(f"seed of {user}"), self.log_name)
        source = None if whole_instance else self.source
        self.recorder.enrol(source, user, keys.public, keys.blinding, replace)
        return keys
