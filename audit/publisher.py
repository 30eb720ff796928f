"""From pending leaves to a published tree: plan, integrate and sign in one transaction, then gather cosignatures.

    publisher = Publisher(store, maps, tree, signer, witnesses, auditors)
    signed = publisher.integrate_and_sign(now)          -> Target: the note that may now leave the process, or None
    accepted = publisher.accept_cosignatures(size, lines, now)
    publisher.published(), read_proof_tree(conn)        what clients are served

The tree of one signing is: what was signed before, the pending leaves in the order of their recording, and the map
commitment. Tiles, bundles, map pages, leaf indexes, the emptied queue and the signed note are one transaction, and
only after its COMMIT does the note leave. A crash before it leaves nothing; one after it leaves a signed tree without
its quorum, which is what the normal path submits next.

The log never signs a tree that is inconsistent with one it has signed. There is at most one signed tree that is not
published; no further one is signed before the witnesses' quorum holds for it, or `sign_unpublished` is asked for.
Before signing, the old root is computed again from the tiles and compared with the signed one, and the consistency
proof from the old tree to the new one is verified as a witness would.

Every cosignature line is verified before it is stored, so a forged or malformed one never spoils stored ones. Of one
cosigner the newest time is kept in `newest_note`; `first_note`, made when the witnesses' quorum first held, stays.

A cosigner's lines go forward in size and time, else they are not stored (SPEC 6.4). An honest one makes no others; of a
liar's, one that names an older tree as the newest at a later time would look to clients as if the log had gone back.

Of the map, the version of the tree that proofs speak of and every newer one are kept, older ones are pruned. A proof
reads in one snapshot, so it never misses a page that is pruned meanwhile.

Gathering is network and is done elsewhere (`audit.federation`), through `Cosigner` below.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import bindparam, delete, insert, select, update

from audit.errors import Fatal, Refused
from audit.health import put_success
from audit.mapstore import MapError, MapStore
from audit.schema import ONE, ZERO, EntryRow, Meta, Owner, Pending, TreeRow, sql, table
from audit.store import Store, put_meta
from audit.tree import Tree, append_leaves
from verifier.checkpoint import Checkpoint, format_checkpoint, open_checkpoint
from verifier.errors import Error
from verifier.leaf import EntryLeaf, MapLeaf, decode_leaf, encode_leaf
from verifier.map import map_value
from verifier.merkle import EMPTY_ROOT, verify_consistency
from verifier.note import (
    Note,
    Signature,
    SignerKey,
    VerifierKey,
    format_note,
    format_vkey,
    parse_note,
    parse_signature_lines,
    sign_note,
    verify_cosignature,
)
from verifier.policy import AUDITORS, NONE, WITNESSES, Policy, cosigned_times, quorum_met, still_newest_at
from verifier.verify import FUTURE_BOUND_S

MAX_LEAVES = 65_536  # of one tree: recording waits while it is made, about a second
CLOCK_TOLERANCE_S = 300  # a cosigner's clock may be five minutes ahead of ours
REFRESH_S = 600  # cosignatures get a new time this often though nothing happens
AUDIT_TIMEOUT_S = 900  # then auditors are asked for the newest tree instead

# -- plans: pure ------------------------------------------------------------------------------------------------------


class Waiting(NamedTuple):
    """A row of `pending`, with the chain head after its entry."""

    n: int
    leaf: bytes
    chain: int | None
    seq: int | None
    owner: int | None
    head: bytes | None


class Integration(NamedTuple):
    """What a set of pending leaves adds to a tree; the map commitment comes last and needs the map's new root."""

    leaves: list[bytes]
    entries: list[tuple[int, int, int]]  # leaf index, chain, seq
    owners: list[tuple[int, int]]  # leaf index, owner
    map: dict[bytes, bytes]  # chain id -> value hash
    last: int  # the last n of `pending`; 0 for none


def plan_integration(size: int, waiting: Sequence[Waiting]) -> Integration:
    """Where pending leaves go in a tree of `size`, and what the map says afterwards."""
    plan = Integration([], [], [], {}, waiting[-1].n if waiting else 0)
    for index, row in enumerate(waiting, size):
        plan.leaves.append(row.leaf)
        leaf = decode_leaf(row.leaf)
        if isinstance(leaf, EntryLeaf):
            if row.chain is None or row.seq != leaf.seq or row.head is None:
                raise Fatal(f"pending {row.n}: does not belong to an entry")
            plan.entries.append((index, row.chain, row.seq))
            plan.map[leaf.chain_id] = map_value(leaf.seq, row.head, index)
        elif row.owner is not None:
            plan.owners.append((index, row.owner))
    return plan


class AuditTarget(NamedTuple):
    """The one tree that auditors are asked for, and since when."""

    size: int
    since: int


def plan_audit(target: AuditTarget | None, done: bool, newest: int, now: int) -> AuditTarget:
    """The tree to name to auditors: the same until its quorum or a timeout, then the newest one; sizes only grow.

    A target since a time in the future is from before our clock was set right; its time is over, too.
    """
    if target is None:
        return AuditTarget(newest, now)
    is_over = done or not 0 <= now - target.since < AUDIT_TIMEOUT_S
    return AuditTarget(newest, now) if is_over and newest > target.size else target


def plan_refresh(policy: Policy, times: Mapping[str, int], asked: int | None, now: int) -> bool:
    """Whether cosigners are asked for new times: SPEC 8.4's "still the newest at" is old, and they were not just asked.

    Times count as a verifier counts them. So neither the newest line of all decides, which one fast clock would keep
    new, nor a quorum that is only there once the future has come. A question from the future is as good as none.
    """
    newest_at = still_newest_at(policy, {name: time for name, time in times.items() if time <= now + FUTURE_BOUND_S})
    if newest_at is not None and now - newest_at < REFRESH_S:
        return False
    return asked is None or asked > now or now - asked >= REFRESH_S


def merge_cosignatures(note: Note, keys: Iterable[VerifierKey], lines: Iterable[Signature]) -> Note:
    """The note with these lines; of one key in `keys` the line with the newest time stays. All are verified."""
    by_id = {(key.name, key.key_id): key for key in keys}
    kept = {(line.name, line.key_id): line for line in note.signatures}
    for line in lines:
        name = line.name, line.key_id
        old = kept.get(name)
        if old is None or _time(note.text, by_id[name], line) > _time(note.text, by_id[name], old):
            kept[name] = line
    return Note(note.text, tuple(kept.values()))


def _time(text: bytes, key: VerifierKey, line: Signature) -> int:
    return verify_cosignature(Note(text, (line,)), key)


class Mark(NamedTuple):
    """The biggest tree that a cosigner signed for us, and its newest time."""

    size: int
    time: int

    def advance(self, size: int, time: int) -> Mark | None:
        """The mark after a line for this tree; None where the line goes back."""
        if size < self.size or size > self.size and time < self.time:
            return None
        return Mark(size, max(time, self.time))


# -- the interface to the network -------------------------------------------------------------------------------------


class Cosigner(Protocol):
    """A witness or an auditor, as `audit.federation` reaches it. Both raise PeerFailed or Conflict."""

    async def cosign(self, note: bytes, old_size: int, proof: list[bytes]) -> bytes:
        """A witness's signature lines for a signed checkpoint (tlog-witness add-checkpoint)."""

    async def audit(self, note: bytes) -> bytes:
        """An auditor's signature lines, once it has replayed that tree."""


class Target(NamedTuple):
    """A signed tree that is on its way out: what cosigners are sent."""

    size: int
    root: bytes
    note: bytes


class Accepted(NamedTuple):
    """What became of a cosigner's answer: by the policies' names, and what the tree is now."""

    valid: tuple[str, ...]
    refused: tuple[str, ...]
    published: bool
    audited: bool


class Signed(NamedTuple):
    """A row of `trees`, in the order of its columns."""

    size: int
    root: bytes
    map_root: bytes
    signed_at: int
    signed: bytes
    first_note: bytes | None
    newest_note: bytes
    audited: int
    published_at: int | None


MARK_PREFIX = "cosigned "  # of rows in meta: the cosigner's vkey follows; the value is its mark, "SIZE TIME"

_PENDING, _ENTRIES, _OWNERS, _TREES = table(Pending), table(EntryRow), table(Owner), table(TreeRow)
_META = table(Meta)
_GET_MARK = sql(select(_META.c.value).where(_META.c.key == bindparam("key")))
_READ_PENDING = sql(
    select(_PENDING, _ENTRIES.c.head)
    .select_from(
        _PENDING.outerjoin(_ENTRIES, (_ENTRIES.c.chain == _PENDING.c.chain) & (_ENTRIES.c.seq == _PENDING.c.seq))
    )
    .order_by(_PENDING.c.n)
    .limit(bindparam("limit"))
    .offset(ZERO)
)
_DELETE_PENDING = sql(delete(_PENDING).where(_PENDING.c.n <= bindparam("last")))
_SET_INDEX = sql(
    update(_ENTRIES)
    .values(leaf_index=bindparam("index"))
    .where(_ENTRIES.c.chain == bindparam("chain_"), _ENTRIES.c.seq == bindparam("seq_"))
)
_SET_ENROLLED = sql(update(_OWNERS).values(enrolled_index=bindparam("index")).where(_OWNERS.c.id == bindparam("owner")))
_INSERT_TREE = sql(insert(_TREES))
_GET_TREE = sql(select(_TREES).where(_TREES.c.size == bindparam("size")))
_newest = select(_TREES).order_by(_TREES.c.size.desc()).limit(ONE).offset(ZERO)
_NEWEST_SIGNED = sql(_newest)
_NEWEST_PUBLISHED = sql(_newest.where(_TREES.c.first_note.is_not(None)))
_NEWEST_AUDITED = sql(_newest.where(_TREES.c.first_note.is_not(None), _TREES.c.audited == ONE))
_SET_NOTES = sql(
    update(_TREES)
    .values({name: bindparam(name) for name in ("first_note", "newest_note", "audited", "published_at")})
    .where(_TREES.c.size == bindparam("size_"))
)


class Publisher:
    """The one that signs. `clock_check(now)` may raise TryLater when our clock and the cosigners' disagree."""

    def __init__(
        self,
        store: Store,
        maps: MapStore,
        tree: Tree,
        signer: SignerKey,
        witnesses: Policy,
        auditors: Policy | None,
        clock_check: Callable[[int], None] = lambda now: None,
        next_signer: SignerKey | None = None,
    ) -> None:
        self._signers = (signer,) if next_signer is None else (signer, next_signer)
        for one in self._signers:
            if one.verifier_key.name != store.origin:
                raise Refused(f"log key: got name {one.verifier_key.name}, want {store.origin}")
        self._log_keys = store.log_keys or (signer.verifier_key,)  # of trees that were signed before, too
        if witnesses.kind != WITNESSES or auditors is not None and auditors.kind != AUDITORS:
            raise Refused("policies: want one of witnesses and one of auditors")
        self._store, self._maps, self._tree = store, maps, tree
        self._witnesses, self._auditors, self._clock_check = witnesses, auditors, clock_check
        self._audit_target: AuditTarget | None = None
        self._refresh_asked: int | None = None

    # -- signing --

    def integrate_and_sign(self, now: int, sign_unpublished: bool = False) -> Target | None:
        """Makes and signs the next tree; None where nothing is new. The note is durable before it is returned."""
        self._clock_check(now)
        with self._store.transaction() as conn:
            before = read_newest_signed(conn)
            if before is not None and before.first_note is None and not sign_unpublished:
                return Target(before.size, before.root, before.newest_note)
            rows = conn.execute(_READ_PENDING, (MAX_LEAVES,))
            waiting = [Waiting._make(row) for row in rows]
            if before is not None and not waiting:
                return None
            old_size, old_root = (before.size, before.root) if before else (0, EMPTY_ROOT)
            size, map_root = self._integrate(conn, old_size, waiting)
            root = self._checked_root(conn, old_size, old_root, size)
            note = self._sign(Checkpoint(self._store.origin, size, root))
            signed = Signed(size, root, map_root, now, note, None, note, 0, None)
            conn.execute(_INSERT_TREE, self._judge(signed, now))
        return Target(size, root, note)

    def adopt_tree(
        self, conn: sqlite3.Connection, checkpoint: Checkpoint, map_root: bytes, notes: Sequence[bytes], now: int
    ) -> bool:
        """The row of a tree that we signed and lost, with the lines that hold in these notes of it; is it published?"""
        parsed = [open_checkpoint(note, *self._log_keys)[0] for note in notes]
        keys = {(key.name, key.key_id) for key in self._log_keys}
        own = [line for line in parsed[0].signatures if (line.name, line.key_id) in keys]
        note = Note(format_checkpoint(checkpoint), tuple(own))
        signed = format_note(note)
        for other in parsed:
            valid, _ = self._take(conn, checkpoint.size, note.text, other.signatures, now)
            note = merge_cosignatures(note, self._names(), valid.values())
        row = Signed(checkpoint.size, checkpoint.root, map_root, now, signed, None, format_note(note), 0, None)
        row = self._judge(row, now)
        conn.execute(_INSERT_TREE, row)
        return row.first_note is not None

    def _integrate(self, conn: sqlite3.Connection, old_size: int, waiting: list[Waiting]) -> tuple[int, bytes]:
        """Writes map pages, tiles, bundles and indexes; returns the new size and the map's root."""
        plan = plan_integration(old_size, waiting)
        size = old_size + len(plan.leaves) + 1
        try:
            map_root = self._maps.update(conn, size, plan.map)
        except MapError as error:
            raise Fatal(str(error)) from error
        append_leaves(conn, old_size, [*plan.leaves, encode_leaf(MapLeaf(map_root))])
        conn.executemany(_SET_INDEX, plan.entries)
        conn.executemany(_SET_ENROLLED, plan.owners)
        conn.execute(_DELETE_PENDING, (plan.last,))
        return size, map_root

    def _checked_root(self, conn: sqlite3.Connection, old_size: int, old_root: bytes, size: int) -> bytes:
        """The new root, once the tree on disk is shown to continue the signed one. Reads past the shared cache."""
        tree = Tree()  # of its own: what this transaction wrote may yet be rolled back
        root = tree.root(conn, size)
        try:
            verify_consistency(old_size, old_root, size, root, tree.consistency(conn, old_size, size))
        except Error as error:
            raise Fatal(f"tree on disk is not the one that was signed at size {old_size}: {error}") from error
        return root

    def _sign(self, checkpoint: Checkpoint) -> bytes:
        text = format_checkpoint(checkpoint)
        return format_note(Note(text, tuple([sign_note(text, signer) for signer in self._signers])))

    # -- what goes out --

    def refresh_target(self, now: int) -> Target | None:
        """The newest tree once more, if its quorum's word is old: witnesses sign the same size with a new time.

        Those who fail are asked until they answer (`audit.federation`), so this asks everybody once in REFRESH_S.
        """
        newest = read_newest_signed(self._store.reader())
        if newest is None:
            return None
        times = cosigned_times(self._witnesses, parse_note(newest.newest_note))
        if not plan_refresh(self._witnesses, times, self._refresh_asked, now):
            return None
        self._refresh_asked = now
        return Target(newest.size, newest.root, newest.newest_note)

    def audit_target(self, now: int) -> Target | None:
        """The one tree that auditors are asked for now; its tiles are served though it may not be published yet."""
        if not self._asks_auditors:
            return None
        conn = self._store.reader()
        newest = read_newest_signed(conn)
        if newest is None or newest.audited:
            return None
        target = self._audit_target
        done = target is not None and bool(_require_tree(conn, target.size).audited)
        self._audit_target = plan_audit(target, done, newest.size, now)
        row = _require_tree(conn, self._audit_target.size)
        return Target(row.size, row.root, row.newest_note)

    def consistency(self, old_size: int, size: int) -> list[bytes]:
        """The proof that goes to a witness whose newest tree has `old_size` leaves."""
        with self._store.snapshot() as conn:
            return self._tree.consistency(conn, old_size, size)

    # -- what comes back --

    def accept_cosignatures(self, size: int, lines: bytes, now: int) -> Accepted:
        """Verifies a cosigner's lines and stores the valid ones; a tree with its quorum is published from then on.

        Lines of unknown keys are ignored; one that does not hold, is from the future or goes back is named and dropped.
        """
        parsed = parse_signature_lines(lines)
        with self._store.transaction() as conn:
            row = _require_tree(conn, size)
            before = row.published_at, row.audited
            note = parse_note(row.newest_note)
            valid, refused = self._take(conn, size, note.text, parsed, now)
            if valid:
                merged = merge_cosignatures(note, self._names(), valid.values())
                row = self._judge(row._replace(newest_note=format_note(merged)), now)
                notes = row.first_note, row.newest_note, row.audited, row.published_at
                conn.execute(_SET_NOTES, (*notes, size))
                put_success(conn, valid, now)
        if (row.published_at, row.audited) != before:
            self._prune_map()
        names = self._names()
        known = tuple([names[key] for key in valid])
        return Accepted(known, refused, row.first_note is not None, bool(row.audited))

    def _prune_map(self) -> None:
        """Drops the versions of the map that nobody asks for any more: below the tree that proofs speak of.

        Where auditors are asked and none has answered yet, everything is kept, since their first quorum may be for a
        tree that is older than the newest published one. A crash before this leaves it to the next tree.
        """
        with self._store.transaction() as conn:
            shown = read_proof_tree(conn)
            if shown is not None and (shown.audited or not self._asks_auditors):
                self._maps.prune(conn, shown.size)

    @property
    def _asks_auditors(self) -> bool:
        """Whether auditors are asked at all."""
        return self._auditors is not None and self._auditors.quorum != NONE

    def _judge(self, row: Signed, now: int) -> Signed:
        """The row with what its newest note has reached by now: published, audited."""
        note = parse_note(row.newest_note)
        open_checkpoint(row.newest_note, *self._log_keys)  # our own signature is still there, and holds
        if row.first_note is None and quorum_met(self._witnesses, cosigned_times(self._witnesses, note)):
            row = row._replace(first_note=row.newest_note, published_at=now)
        if self._auditors is not None and quorum_met(self._auditors, cosigned_times(self._auditors, note)):
            row = row._replace(audited=int(self._auditors.quorum != NONE))
        return row

    def _take(
        self, conn: sqlite3.Connection, size: int, text: bytes, lines: Iterable[Signature], now: int
    ) -> tuple[dict[VerifierKey, Signature], tuple[str, ...]]:
        """The lines that may be stored, one for each known key, and the names of those whose line may not."""
        names = self._names()
        keys = {(key.name, key.key_id): key for key in names}
        valid: dict[VerifierKey, Signature] = {}
        refused: list[str] = []
        for line in lines:
            key = keys.get((line.name, line.key_id))
            if key is None:
                continue
            try:
                time = _time(text, key, line)
            except Error:
                time = 0
            if time == 0 or time > now + CLOCK_TOLERANCE_S or key in valid or not _advance_mark(conn, key, size, time):
                refused.append(names[key])
            else:
                valid[key] = line
        return valid, tuple(refused)

    def _names(self) -> dict[VerifierKey, str]:
        """Every cosigner's key and its name in the policies."""
        policies = [self._witnesses] if self._auditors is None else [self._witnesses, self._auditors]
        return {witness.key: name for policy in policies for name, witness in policy.witnesses.items()}

    # -- what is served --

    def published(self) -> Signed | None:
        """The newest tree with the witnesses' quorum."""
        return read_tree(self._store.reader(), _NEWEST_PUBLISHED)


def _advance_mark(conn: sqlite3.Connection, key: VerifierKey, size: int, time: int) -> bool:
    """Whether the cosigner goes on to this tree at this time; then that is kept."""
    name = MARK_PREFIX + format_vkey(key)
    row = conn.execute(_GET_MARK, (name,)).fetchone()
    try:
        mark = Mark(0, 0) if row is None else Mark(*map(int, row[0].split(b" ")))
    except (TypeError, ValueError):
        raise Fatal(f"meta: {name!r} has {row[0]!r}, want a size and a time: the store is damaged") from None
    after = mark.advance(size, time)
    if after is not None:
        put_meta(conn, name, b"%d %d" % after)
    return after is not None


def read_newest_signed(conn: sqlite3.Connection) -> Signed | None:
    """The newest tree that was signed, whether or not it was published."""
    return read_tree(conn, _NEWEST_SIGNED)


def read_proof_tree(conn: sqlite3.Connection) -> Signed | None:
    """The newest audited and published tree, or the newest published one where none was audited."""
    return read_tree(conn, _NEWEST_AUDITED) or read_tree(conn, _NEWEST_PUBLISHED)


def read_tree(conn: sqlite3.Connection, statement: str, *values: int) -> Signed | None:
    row = conn.execute(statement, values).fetchone()
    if row is None:
        return None
    tree = Signed._make(row)
    if not tree.signed or not tree.newest_note:
        raise Fatal(f"tree {tree.size}: a row without its note: the store is damaged")
    return tree


def _require_tree(conn: sqlite3.Connection, size: int) -> Signed:
    row = read_tree(conn, _GET_TREE, size)
    if row is None:
        raise Refused(f"tree: none of size {size} was signed")
    return row
