"""What an auditor does: hold every leaf of a log, replay it, and say so with a cosignature (SPEC 6 and 8).

    POST /audit          a checkpoint that the log signed: "please audit this target"

    open       the log's signature, and no smaller tree or other root than before    _open, check_target
    fetch      the leaves that are new, in chunks of up to 262,144                   audit.tile_reader
    verify     each chunk lies under a root that the log signed                      audit.mirror: append
    store      leaves, chains, map and the tree's right edge, in one transaction     audit.mirror: append
    replay     every leaf follows its chain (rules: verifier.replay)                 audit.regions: replay
    follow     a log that declared a loss has what is held of its old origin         audit.succession
    compare    every map commitment is the map over all leaves below it              audit.regions: replay
    cosign     by the witness's rules, persisted before it is sent                   audit.witness, audit.witness_store

The consistency proof of a chunk is put together from the log's own hash tiles, which thus need no trust. A mirror can
be lost and is fetched again; what was signed lies in `audit.witness_store`, and a mirror that grows past the size
signed last must have the root signed then.

A leaf or map that breaks a rule is a Finding. It is kept, and nothing is signed for that log until an operator
decides. Leaves that do not lead to the signed root are refused and kept, and do not stop anything: whoever cannot show
what it signed is never signed for, and a broken cache mends itself.

Not checked here: what entries mean (operations, seals, erasures are behind hashes), and whether the target was ever
published.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

from audit.errors import AuditError, Fatal, PeerFailed, TryLater
from audit.evidence import Files, of_finding, of_notes, of_succession
from audit.mirror import Finding, Mirror, Target
from audit.succession import BadSuccession, Succession
from audit.tile_reader import Fetch, TileReader
from audit.witness import (
    CONFLICT,
    CONSISTENCY,
    FINDING,
    FORK,
    Decision,
    Head,
    Inconsistent,
    OutOfStep,
    UnknownLog,
    advance,
    hash_origin,
    is_fork,
    open_log_note,
)
from audit.witness_store import AUDITOR, Log, Offence, Store
from verifier.checkpoint import Checkpoint, parse_checkpoint_unverified
from verifier.errors import Error, Malformed
from verifier.note import Note, SignerKey, VerifierKey, format_note, parse_note
from verifier.tile import TILE_WIDTH

CHUNK_LEAVES = 1024 * TILE_WIDTH  # about 20 MiB of leaves, replayed in a few seconds; each end writes the map once more
FIRST_LEAVES = 16 * TILE_WIDTH  # a new mirror doubles: one region would have to take all chains of a large first chunk
MAX_LEAVES_PER_REQUEST = CHUNK_LEAVES  # then the log is asked to come again


def plan_chunk(size: int, target_size: int, signed_size: int) -> int:
    """Where the next chunk ends: it stops at the size signed last, whose root has to be met."""
    begin = size // TILE_WIDTH * TILE_WIDTH
    end = min(begin + min(max(begin, FIRST_LEAVES), CHUNK_LEAVES), target_size)
    return signed_size if size < signed_size < end else end


def check_target(checkpoint: Checkpoint, earlier: Head | None, held: int) -> Checkpoint:
    """The checkpoint, if an auditor that signed or began `earlier` and holds `held` leaves may go on to it."""
    if checkpoint.size == 0:
        raise Inconsistent(CONSISTENCY, "checkpoint size: got 0, want a last leaf with a map commitment")
    if is_fork(checkpoint, earlier):
        raise Inconsistent(FORK, f"checkpoint root of size {checkpoint.size}: got another one than before")
    known_size = max(held, earlier.size if earlier else 0)
    if checkpoint.size < known_size:
        raise OutOfStep(known_size, CONFLICT)
    return checkpoint


class Auditor:
    """Answers audit requests, one replay at a time for each log."""

    def __init__(
        self,
        store: Store,
        signer: SignerKey,
        names: tuple[str, ...],
        folder: Path,
        fetch: Fetch,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self._store, self._signer, self._names, self._fetch = store, signer, names, fetch
        self._folder, self._factory = folder, factory
        self._locks: dict[str, asyncio.Lock] = {}
        self._mirrors: dict[str, Mirror] = {}
        self._succession = Succession(store, self.mirror, fetch)
        self.evidence: dict[str, Path | None] = {}  # origin -> the file about what was refused last

    def close(self) -> None:
        for mirror in self._mirrors.values():
            mirror.close()
        self._mirrors.clear()

    async def audit(self, body: bytes, clock: Callable[[], int]) -> bytes:
        """The auditor's signature line for a target, once every leaf below it is held and follows the rules."""
        note, target, url = self._open(body, lambda log: log.signers)
        origin = target.checkpoint.origin
        if reason := self._store.halt(origin):
            raise Inconsistent(FINDING, f"halted until an operator decides: {reason}")
        self._store.check_goes_on(origin)
        lock = self._locks.setdefault(origin, asyncio.Lock())
        if lock.locked():
            raise TryLater("audit: another target of this log is being replayed")
        async with lock:
            mirror = await self._hold(note, target, url, clock)
            return self._cosign(note, target, mirror, clock())

    async def replay(self, body: bytes, clock: Callable[[], int]) -> Mirror:
        """Holds and replays every leaf below a target, as `audit` does, halted or not; signs nothing."""
        note, target, url = self._open(body, lambda log: log.keys)
        async with self._locks.setdefault(target.checkpoint.origin, asyncio.Lock()):
            return await self._hold(note, target, url, clock)

    def _open(self, body: bytes, keys: Callable[[Log], tuple[VerifierKey, ...]]) -> tuple[Note, Target, str]:
        """The note, its checkpoint, and where the log is, once one of these keys of the log is shown to have signed."""
        note = parse_note(body)
        checkpoint = parse_checkpoint_unverified(note.text)
        log = self._store.log(checkpoint.origin)
        note = open_log_note(note, keys(log) if log else (), checkpoint.origin, self._names)
        if log is None or not log.url:
            raise UnknownLog(f"checkpoint origin: {checkpoint.origin!r} is not mirrored here")
        return note, Target(checkpoint, format_note(note)), log.url

    def _cosign(self, note: Note, target: Target, mirror: Mirror, now: int) -> bytes:
        """The signature line for what the mirror holds, durable before it is returned."""

        def decide(head: Head | None, latest: int) -> Decision:
            check_target(target.checkpoint, head, mirror.size)
            return advance(note, target.checkpoint, latest, now, self._signer)

        return self._store.advance(AUDITOR, target.checkpoint.origin, Offence(target.note, note.text), now, decide)

    async def _hold(self, note: Note, target: Target, url: str, clock: Callable[[], int]) -> Mirror:
        """The mirror, once it is the target's tree. What is found against the log is kept: row, halt, then a file."""
        origin = target.checkpoint.origin
        mirror = self.mirror(origin)
        signed = self._store.head(AUDITOR, origin)
        known_note = signed.note if signed else b""
        try:
            mirror.refresh()
            check_target(target.checkpoint, signed, mirror.size)
            known_note = mirror.note or known_note
            check_target(target.checkpoint, mirror.target() if mirror.size else None, mirror.size)
            await self._catch_up(mirror, target, signed, url)
            mirror.check_end(target.checkpoint)
            self._succession.check_whole(origin, mirror.size)
        except (OutOfStep, Inconsistent) as refusal:
            offence = Offence(target.note, note.text)
            self._store.report(origin, offence, known_note, refusal, clock(), halt=isinstance(refusal, Finding))
            await self._keep_evidence(refusal, mirror, target, known_note, url, clock())
            raise
        except Fatal:
            self._mirrors.pop(origin).close()
            raise
        return mirror

    async def _keep_evidence(
        self, refusal: OutOfStep | Inconsistent, mirror: Mirror, target: Target, known_note: bytes, url: str, now: int
    ) -> None:
        """Writes what convinces a third person, where there is such a thing. The refusal stands in any case."""
        origin = target.checkpoint.origin
        tiles, log = TileReader(self._fetch, url, target.checkpoint.size), self._store.log(origin)
        try:
            if isinstance(refusal, Finding):
                value = await of_finding(refusal, mirror, target, tiles, self._folder, now)
            elif isinstance(refusal, BadSuccession):
                held, log = self.mirror(refusal.old or origin), self._store.log(refusal.old)
                value = await of_succession(refusal, held, target, tiles, now)
            else:
                value = await of_notes(known_note, target.note, tiles, now)
            if value is not None and log is not None:
                self.evidence[origin] = Files(self._folder.parent).keep(value, log.keys, now)
        except (AuditError, Error, sqlite3.Error, OSError):
            return  # not shown by the log, or no room to write: row and halt are there, and the next audit tries again

    async def _catch_up(self, mirror: Mirror, target: Target, signed: Head | None, url: str) -> None:
        """Grows the mirror to the target, or as far as one request may; what it has by then it keeps."""
        size, stop = target.checkpoint.size, mirror.size + MAX_LEAVES_PER_REQUEST
        tiles = TileReader(self._fetch, url, size)
        while mirror.size < size:
            if mirror.size >= stop:
                raise TryLater(f"mirror: at {mirror.size} of {size} leaves")
            end = plan_chunk(mirror.size, size, signed.size if signed else 0)
            try:
                leaves, proof = await tiles.leaves(mirror.size, end), await tiles.consistency(end)
            except Malformed as error:
                raise PeerFailed(f"{url}: {error}") from None
            await self._succession.check(target.checkpoint.origin, mirror.size, leaves, url)
            try:
                await asyncio.to_thread(mirror.append, leaves, target, signed, proof)
            except Finding as finding:
                finding.leaves = leaves
                raise

    def mirror(self, origin: str) -> Mirror:
        if origin not in self._mirrors:
            self._mirrors[origin] = Mirror(self._folder / f"{hash_origin(origin)}.db", self._factory)
        return self._mirrors[origin]
