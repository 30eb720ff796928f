"""The data that everything is measured on: a real log, recorded through Recorder and published through Publisher.

    data = build(directory, files=100_000, batch=1_000, per_tree=10_000)
    data.prover.prove(data.source, 17)

Every file is created and then written nine times. Each version of all files is recorded in an order of its own, as
real changes do not come sorted, so the ten entries of a file stand in ten different trees. Witnesses and auditors
sign in this process; each tree is cosigned by three of each, whose quorum is two of three, as soon as it is signed.

The bytes are functions of the numbers: the same run gives the same entries, but for salts and keys.
"""

from __future__ import annotations

import os
import random
import time
from hashlib import sha3_256
from typing import NamedTuple

from audit.batch import Observation
from audit.directory import AUDITORS_FILE, POLICY_FILE, create_log, open_log
from audit.mapstore import MapStore
from audit.prover import Prover
from audit.publisher import Publisher, Target
from audit.recorder import Recorder
from audit.store import Store
from audit.tree import Tree
from bench.progress import Progress
from verifier.entry import Content, ContextField, Operation
from verifier.keys import OwnerKeys, ReaderKey, derive_keys, format_reader
from verifier.note import COSIGNATURE, SignerKey, cosign, format_signature_line, format_vkey, parse_note
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.verdict import Question, Trust

VERSIONS = 10
COSIGNERS = 3
THRESHOLD = 2
ORIGIN = "log.example/files"
SOURCE_ID = "folder:bench"
SOURCE_SPEC = "folder:/srv/files"
USER = "alice"
SEED = bytes(range(32))


class Data(NamedTuple):
    """A published log and what its parts are made of. `directory` is a data directory that `serve` takes."""

    directory: str
    files: int
    store: Store
    recorder: Recorder
    publisher: Publisher
    prover: Prover
    tree: Tree
    source: int
    owner: OwnerKeys
    trust: Trust
    policies: tuple[bytes, bytes]

    @property
    def reader_key(self) -> bytes:
        """The reader key file of the owner."""
        return format_reader(ReaderKey(self.trust.log_name, SOURCE_ID, self.owner.public, self.owner.blinding))

    def close(self) -> None:
        self.store.close()


def now() -> int:
    return int(time.time())


def path_of(file_id: int) -> str:
    return f"Documents/project {file_id % 97}/report {file_id}.odt"


def bytes_of(file_id: int, version: int) -> bytes:
    """What is in the file at that version."""
    return b"file %d, version %d\n" % (file_id, version)


def content_of(file_id: int, version: int) -> Content:
    data = bytes_of(file_id, version)
    return Content(len(data), sha3_256(data).digest())


def question_for(file_id: int) -> Question:
    """Is this file, under its path, still what its last version says?"""
    return Question(now(), content_of(file_id, VERSIONS - 1), path_of(file_id))


def observe(source: int, file_id: int, version: int, at: int) -> Observation:
    """One version of one file: the first one creates it."""
    operation = Operation.WRITTEN if version else Operation.CREATED
    path = None if version else path_of(file_id)
    return Observation(source, file_id, operation, at, content_of(file_id, version), path, {ContextField.ACTOR: USER})


def build(directory: str, files: int, batch: int, per_tree: int, what: str) -> Data:
    """Records `files` times VERSIONS entries in batches, and publishes a tree whenever `per_tree` wait."""
    data = _create(directory, files)
    data.recorder.enrol(data.source, USER, data.owner.public, data.owner.blinding)
    cosigners = _cosigners(WITNESSES), _cosigners(AUDITORS)
    publish(data, cosigners)
    progress = Progress(what, files * VERSIONS)
    waiting = 0
    for version in range(VERSIONS):
        order = list(range(1, files + 1))
        random.Random(version).shuffle(order)
        for start in range(0, files, batch):
            observations = [observe(data.source, file_id, version, now()) for file_id in order[start : start + batch]]
            data.recorder.record(observations)
            waiting += len(observations)
            if waiting >= per_tree:
                publish(data, cosigners)
                waiting = 0
            progress.advance(len(observations))
    publish(data, cosigners)
    return data


def publish(data: Data, cosigners: tuple[list[SignerKey], list[SignerKey]]) -> Target | None:
    """Signs what is pending and lets everyone cosign it."""
    target = data.publisher.integrate_and_sign(now())
    if target is not None:
        text = parse_note(target.note).text
        for signers in cosigners:
            lines = b"".join(format_signature_line(cosign(text, signer, now())) for signer in signers)
            data.publisher.accept_cosignatures(target.size, lines, now())
    return target


def _create(directory: str, files: int) -> Data:
    os.makedirs(directory)
    create_log(directory, ORIGIN, now(), USER)
    log_line = open(os.path.join(directory, POLICY_FILE), "rb").read().split(b"\n")[0] + b"\n"
    policies = log_line + _cosigner_lines(WITNESSES), log_line + _cosigner_lines(AUDITORS)
    for name, policy in zip((POLICY_FILE, AUDITORS_FILE), policies, strict=True):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(policy)
    return reopen(directory, files, policies)


def reopen(directory: str, files: int, policies: tuple[bytes, bytes]) -> Data:
    """The log in a directory that `build` has filled (or is about to fill)."""
    opened = open_log(directory)
    store, maps, tree = opened.store, MapStore(), Tree()
    witnesses, auditors = parse_policy(policies[0], WITNESSES), parse_policy(policies[1], AUDITORS)
    owner = derive_keys(SEED, store.log_name)
    return Data(
        directory,
        files,
        store,
        Recorder(store, time.time),
        Publisher(store, maps, tree, opened.signer, witnesses, auditors),
        Prover(store, maps, tree),
        tree,
        store.add_source(SOURCE_SPEC, SOURCE_ID),
        owner,
        Trust(store.log_name, SOURCE_ID, witnesses, auditors, owner.public, owner.blinding),
        policies,
    )


def _cosigners(kind: str) -> list[SignerKey]:
    """Keys of nodes that exist in this bench alone."""
    suffix = "/auditor" if kind == AUDITORS else ""
    names = [f"node{i}.example/w{suffix}" for i in range(COSIGNERS)]
    return [SignerKey(name, COSIGNATURE, sha3_256(name.encode()).digest()) for name in names]


def _cosigner_lines(kind: str) -> bytes:
    keys = _cosigners(kind)
    lines = [f"witness n{i} {format_vkey(key.verifier_key)}" for i, key in enumerate(keys)]
    lines += [f"group all {THRESHOLD} {' '.join(f'n{i}' for i in range(COSIGNERS))}", "quorum all"]
    return "".join(f"{line}\n" for line in lines).encode()
