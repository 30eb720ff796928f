"""Observations become entries: one caller's batch, inside the writer's transaction.

    batch = Batch(store, roots, conn, now)
    batch.look_up(observations)                          optional: one statement instead of one for each
    recorded = [batch.observe(observation) for observation in observations]
    batch.flush()

An observation of None for a part that its operation keeps means "as it was". Which operation may follow which is
checked before it is written, by the row of the chain where that is enough (the table below is that of SPEC 4 as far as
a row can tell), else by a replay of the whole chain with `verifier.chain.Chain`, whose word is the verifier's.

Chains end and go on by themselves. A chain goes on as `adopted`, naming the end before it,

    at 16,384 entries                         closed (full), next generation
    when it has got another owner             closed (enrolment, new owner, lost seed), generation 0 of the new root
    when steps of it were lost                closed (loss), next generation (`audit.recovery`)
    when it was closed otherwise              next generation: at once if the file is there, else when it is seen again

Anything illegal raises Refused (or an error of `verifier`), and the caller rolls the transaction back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, null, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from audit.chains import (
    CLOSED,
    DELETED,
    HAS_LOST,
    LIVE,
    OWNER,
    Current,
    Roots,
    find_all_current,
    find_current,
    follow_lost,
    get_chain,
    get_owner,
    load_chain,
    read_ending,
)
from audit.errors import Refused
from audit.schema import ONE, ZERO, ChainRow, EntryRow, Pending, TreeRow, sql, table
from audit.store import Store
from verifier.chain import MISSING, Binding, Chain, Openings, genesis, link, open_step
from verifier.encoding import MAX_U64
from verifier.entry import (
    MAX_ENTRIES,
    MAX_LISTED,
    SALT_SIZE,
    SETS_CONTENT,
    Argument,
    Closed,
    CloseReason,
    Content,
    ContextField,
    Entry,
    Erased,
    Operation,
    Part,
    Predecessor,
    Reverted,
    Seal,
    Taint,
    commit,
    encode_content,
    encode_context,
    encode_entry,
    encode_path,
    entry_hash,
)
from verifier.keys import chain_id
from verifier.leaf import EntryLeaf, encode_leaf

LOSS_REMARK = "steps before this one were lost by the server; their leaves came back from a mirror"
MAX_SIGNING_S = 300  # as requests may be off (SPEC 11.1): an entry recorded longer before would look like a wrong clock


class Observation(NamedTuple):
    """What a source saw. `argument` as in the entry; for `closed` a CloseReason stands for an unsigned one.

    `user` counts where a chain may change hands; of those that name seqs of this very chain it is left as it was.
    """

    source: int
    file_id: int
    operation: Operation
    mtime: int
    content: Content | None = None
    path: str | None = None
    context: Mapping[ContextField, str] = {}
    argument: Argument | CloseReason | None = None
    user: str = ""  # of a Nextcloud, in whose storage the file is


class Recorded(NamedTuple):
    """The last entry that an observation led to."""

    chain_id: bytes
    seq: int
    head: bytes


# -- which operation may follow, as far as a row of `chains` can tell (SPEC 4.2) ------------------------------

ANY, SAME, OTHER, NONE = "any", "same", "another", "no"
_NEW = (None,)
_BEGINNINGS = {Operation.CREATED, Operation.ADOPTED, Operation.COPIED}
_STARTS = _BEGINNINGS | {Operation.RESTORED}  # after a chain that was closed
_RULES: dict[Operation, tuple[tuple[str | None, ...], str, str]] = {  # status before, content, path
    Operation.CREATED: (_NEW, ANY, ANY),
    Operation.ADOPTED: (_NEW, ANY, ANY),
    Operation.COPIED: (_NEW, ANY, ANY),
    Operation.WRITTEN: ((LIVE,), ANY, SAME),
    Operation.MOVED: ((LIVE,), SAME, OTHER),
    Operation.TOUCHED: ((LIVE,), SAME, SAME),
    Operation.RESTORED: ((DELETED,), SAME, ANY),
    Operation.REVERTED: ((LIVE,), ANY, SAME),
    Operation.ALTERED: ((LIVE,), OTHER, SAME),
    Operation.DELETED: ((LIVE,), NONE, NONE),
    Operation.GAP: ((LIVE,), NONE, NONE),
    Operation.EXPIRED: ((LIVE, DELETED), NONE, NONE),
    Operation.ERASED: ((LIVE, DELETED), NONE, NONE),
    Operation.SEALED: ((LIVE, DELETED), NONE, NONE),
    Operation.CLOSED: ((LIVE, DELETED), SAME, SAME),
}
_REPLAYED = {Operation.REVERTED, Operation.EXPIRED, Operation.ERASED, Operation.SEALED, Operation.CLOSED}
_COLUMN = {Part.CONTENT: "content", Part.PATH: "path", Part.CONTEXT: "context"}

# -- statements ------------------------------------------------------------------------------------------------

_CHAINS, _ENTRIES, _PENDING, _TREES = table(ChainRow), table(EntryRow), table(Pending), table(TreeRow)
_ENDS = ("last_seq", "head", "status", "version", "size", "digest", "path", "user")
_NEWEST_CHAIN = sql(select(_CHAINS.c.id).order_by(_CHAINS.c.id.desc()).limit(ONE).offset(ZERO))
_put_chain = upsert(_CHAINS)
_PUT_CHAIN = sql(
    _put_chain.on_conflict_do_update(index_elements=["id"], set_={name: _put_chain.excluded[name] for name in _ENDS})
)
_MOVE_END = sql(  # of most entries: no column that stands in an index, so no index is written
    update(_CHAINS)
    .values({name: bindparam(name) for name in ("last_seq", "head", "version", "size", "digest")})
    .where(_CHAINS.c.id == bindparam("chain"))
)
_INSERT_ENTRY = sql(insert(_ENTRIES))
_INSERT_PENDING = sql(insert(_PENDING))
_ERASE = {
    part: sql(
        update(_ENTRIES)
        .values({column: null()})
        .where(_ENTRIES.c.chain == bindparam("chain_"), _ENTRIES.c.seq == bindparam("seq_"))
    )
    for part, column in _COLUMN.items()
}
_HAS_ERASED = sql(
    select(_ENTRIES.c.seq)
    .where(_ENTRIES.c.chain == bindparam("chain"), _ENTRIES.c.content.is_(None) | _ENTRIES.c.path.is_(None))
    .limit(ONE)
    .offset(ZERO)
)
_SEALED_TREE = sql(select(_TREES.c.root).where(_TREES.c.size == bindparam("size"), _TREES.c.first_note.is_not(None)))
_LEAF_INDEX = sql(
    select(_ENTRIES.c.leaf_index).where(_ENTRIES.c.chain == bindparam("chain"), _ENTRIES.c.seq == bindparam("seq"))
)


class Batch:
    """The entries of one caller's batch, on their way to the tables.

    Rows are collected and written together. `_current` holds every chain that the batch touched, so that a later
    observation sees the earlier ones; whatever reads entries back flushes first.
    """

    def __init__(self, store: Store, roots: Roots, conn: sqlite3.Connection, now: int) -> None:
        self._store, self._roots, self._conn, self._now = store, roots, conn, now
        self._may_be_lost: bool | None = None
        self._next_row = 0  # of `chains`; looked up for the first new one
        self._current: dict[tuple[int, int], Current | None] = {}
        self._chains: dict[int, Current] = {}
        self._whole: set[int] = set()  # of _chains: new, or of another status or path
        self._entries: list[tuple[Any, ...]] = []
        self._leaves: list[tuple[Any, ...]] = []

    def look_up(self, observations: Sequence[Observation]) -> None:
        """Reads the chains of all these files in one go."""
        for source in {o.source for o in observations}:
            files = list({o.file_id for o in observations if o.source == source})
            found = find_all_current(self._conn, source, files)
            self._current.update(((source, file_id), found.get(file_id)) for file_id in files)

    def observe(self, o: Observation) -> Recorded:
        """Appends the observation's entry, and before it what has to be closed and adopted."""
        current = self._find(o.source, o.file_id)
        if current is not None:
            current = self._make_way(current, o)
        if current is None or current.status == CLOSED and o.operation in _STARTS:
            current = self._begin(o, current)
        elif o.operation is Operation.CLOSED:
            current = self._close_and_continue(current, o)
        else:
            current = self._continue(current, o)
        return Recorded(current.chain_id, current.last_seq, current.head)

    def get(self, row: int) -> Current:
        """A chain by its row."""
        return get_chain(self._conn, row)

    def carry_over(self, current: Current) -> None:
        """Ends a live chain of another root and starts its successor under the source's owner."""
        closed = self._close(current, self._why_closed(current, current.user))
        self._succeed(closed, current.content, current.path, current.user)

    def close_signed(self, source: int, file_id: int, data: bytes, openings: Openings) -> Recorded:
        """Takes a `closed` that was planned here and signed by the owner, as it is; a live file goes on at once."""
        current = self._find(source, file_id)
        step = open_step(data, openings)
        if current is None or not isinstance(step.entry.argument, Closed) or not step.entry.argument.signature:
            raise Refused(f"closed: want the owner's signature over the end of the chain of file {file_id}")
        if not 0 <= self._now - step.entry.recorded <= MAX_SIGNING_S:
            raise Refused(f"closed: got recorded {step.entry.recorded}, want at most {MAX_SIGNING_S} s before now")
        self._replay(current).append(step)
        closed = self._collect(current, step.entry.operation, data, openings, None, None)
        if current.status == LIVE:
            closed = self._succeed(closed, current.content, current.path, current.user)
        return Recorded(closed.chain_id, closed.last_seq, closed.head)

    def close_lost(self, current: Current, taints: tuple[Taint, ...]) -> None:
        """Ends a chain that has lost steps, with what the row knows of the file; a live file goes on at once."""
        live = current.status == LIVE
        content, path = (current.content, current.path) if live else (None, None)
        closed = self._end_lost(current, content, path, taints)
        if live:
            self._succeed(closed, content, path, current.user)

    def _end_lost(
        self, current: Current, content: Content | None, path: str | None, taints: tuple[Taint, ...]
    ) -> Current:
        """`closed` after a loss, which no replay can check."""
        argument, remark = Closed(CloseReason.LOSS, _listed(taints), b""), {ContextField.REMARK: LOSS_REMARK}
        entry = Entry(Operation.CLOSED, current.last_seq + 1, self._now, 0, b"", b"", b"", argument)
        data, openings = build_entry(entry, content, path, remark)
        return self._collect(current, Operation.CLOSED, data, openings, content, path)

    def flush(self) -> None:
        """Writes what was collected, in the order of the tables' keys; chains first, as entries refer to them."""
        chains, whole = sorted(self._chains.values()), self._whole
        self._entries.sort(key=_place)
        self._write(_PUT_CHAIN, [c for c in chains if c.id in whole])
        self._write(_MOVE_END, [(*c[6:8], *c[9:12], c.id) for c in chains if c.id not in whole])
        self._write(_INSERT_ENTRY, self._entries)
        self._write(_INSERT_PENDING, self._leaves)
        self._chains.clear()
        self._whole.clear()
        self._entries.clear()
        self._leaves.clear()

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._conn.executemany(statement, rows)

    # -- which chain --

    def _find(self, source: int, file_id: int) -> Current | None:
        try:
            return self._current[source, file_id]
        except KeyError:
            return find_current(self._conn, source, file_id)

    def _make_way(self, current: Current, o: Observation) -> Current:
        """Closes a chain that is full or of another root, if a successor can start right here.

        A file that another user of the same root has now goes on in its chain: the root is all that a chain belongs to.
        """
        if current.status == CLOSED:
            return current
        live = current.status == LIVE
        bound = o.operation in _REPLAYED  # these speak of seqs of this very chain
        starts = live or o.operation in _STARTS
        if current.last_seq == MAX_ENTRIES - 2:
            reason = CloseReason.FULL
        elif starts and not bound and self._roots.of(self._conn, o.source, o.user).id != current.owner:
            reason = self._why_closed(current, o.user)
        else:
            return self._hand_over(current, o.user) if starts and not bound else current
        if bound and o.operation is not Operation.CLOSED or not starts:
            raise Refused(f"chain of file {o.file_id}: it is full, and can only be closed")
        if o.operation is Operation.CLOSED:
            return current
        closed = self._close(current, reason)
        return self._succeed(closed, current.content, current.path, o.user) if live else closed

    def _hand_over(self, current: Current, user: str) -> Current:
        if current.user == user:
            return current
        current = current._replace(user=user)
        self._put(current, whole=True)
        return current

    def _why_closed(self, current: Current, user: str) -> CloseReason:
        if current.user != user:
            return CloseReason.NEW_OWNER
        before = get_owner(self._conn, current.owner)
        if before.kind != OWNER:
            return CloseReason.ENROLMENT
        now = self._roots.of(self._conn, current.source, user)
        return CloseReason.LOST_SEED if now.user == before.user else CloseReason.NEW_OWNER

    # -- closing and starting --

    def _close(self, current: Current, reason: CloseReason, mtime: int = 0) -> Current:
        taints = _listed(self._replay(current).taints.values())
        parts = (current.content, current.path) if current.status == LIVE else (None, None)
        return self._append(current, Operation.CLOSED, mtime, *parts, {}, Closed(reason, taints, b""))

    def _close_and_continue(self, current: Current, o: Observation) -> Current:
        """A close that an administrator asked for. A live file goes on at once."""
        if current.status == CLOSED or not isinstance(o.argument, CloseReason):
            raise Refused(f"closed: want an open chain and a reason (file {o.file_id})")
        closed = self._close(current, o.argument, o.mtime)
        live = current.status == LIVE
        return self._succeed(closed, current.content, current.path, current.user) if live else closed

    def _succeed(self, closed: Current, content: Content | None, path: str | None, user: str) -> Current:
        """Starts the chain after a closed one, whose file goes on as it was."""
        o = Observation(closed.source, closed.file_id, Operation.ADOPTED, 0, content, path, user=user)
        return self._begin(o, closed)

    def _begin(self, o: Observation, before: Current | None) -> Current:
        """The first entry of a new chain; after another chain it is always `adopted`, naming that one's end."""
        content, path = o.content, o.path
        if o.operation not in _STARTS or o.operation is Operation.RESTORED and not before:
            raise Refused(f"{o.operation.word}: file {o.file_id} has no chain yet")
        if before is not None and o.operation is Operation.RESTORED:
            content = _apply_rule(SAME, "content", o, content, before.content)
        if content is None or path is None:
            raise Refused(f"{o.operation.word}: want content and path")
        if o.argument is not None:
            raise Refused(f"{o.operation.word}: want no argument")
        if o.operation is Operation.COPIED and ContextField.COPIED_FROM not in o.context:
            raise Refused("copied: the context names no source")
        operation, argument = o.operation, None
        if before is not None:
            operation, argument = Operation.ADOPTED, Predecessor(before.chain_id, before.last_seq, before.head)
        new = self._new(o, before)
        if new.last_seq >= 0:  # it began before the loss: it ends here, and the next generation goes on
            taints = read_ending(self._conn, before).taints if before is not None and self._flushed() else ()
            return self._begin(o, self._end_lost(new, content, path, taints))
        return self._append(new, operation, o.mtime, content, path, o.context, argument)

    def _new(self, o: Observation, before: Current | None) -> Current:
        owner = self._roots.of(self._conn, o.source, o.user)
        generation = before.generation + 1 if before is not None and before.owner == owner.id else 0
        source_id = self._store.source_id(self._conn, o.source)
        name = chain_id(owner.blinding_key, source_id, o.file_id, generation)
        last_seq, lost = self._lost(name)
        head = lost or genesis(Binding(self._store.log_name, source_id, owner.root, o.file_id, name, owner.owner_key))
        row = self._next_row or self._first_row()
        self._next_row = row + 1
        named = before.id if before is not None else None
        before_all = last_seq, head, LIVE, -1, None, None, None
        return Current(row, o.source, o.file_id, generation, owner.id, name, *before_all, named, o.user)

    def _flushed(self) -> bool:
        """What was collected can be read back."""
        self.flush()
        return True

    def _lost(self, name: bytes) -> tuple[int, bytes]:
        """The last seq and head of a chain that began before a loss; -1 and nothing for all others."""
        if self._may_be_lost is None:
            self._may_be_lost = self._conn.execute(HAS_LOST).fetchone() is not None
        return follow_lost(self._conn, name, b"") if self._may_be_lost else (-1, b"")

    def _first_row(self) -> int:
        newest = self._conn.execute(_NEWEST_CHAIN).fetchone()
        return newest[0] + 1 if newest else 1

    # -- entries --

    def _continue(self, current: Current, o: Observation) -> Current:
        """The next entry of a chain that goes on."""
        allowed, content_rule, path_rule = _RULES[o.operation]
        if current.status not in allowed:
            raise Refused(f"{o.operation.word} cannot follow a chain that is {current.status} (file {o.file_id})")
        content = _apply_rule(content_rule, "content", o, o.content, current.content)
        path = _apply_rule(path_rule, "path", o, o.path, current.path)
        if isinstance(o.argument, CloseReason):
            raise Refused(f"{o.operation.word}: want no reason for closing")
        if o.operation is Operation.REVERTED and content is None:
            content = self._content_of(current, o.argument)
        if isinstance(o.argument, Seal):
            self._check_sealed_tree(current, o.argument)
        if content is None and content_rule != NONE or path is None and path_rule != NONE:
            raise Refused(f"{o.operation.word}: want content and path")
        after = self._append(current, o.operation, o.mtime, content, path, o.context, o.argument)
        if isinstance(o.argument, Erased):
            after = self._erase(after, o.argument)
        elif after.status == DELETED != current.status and self._conn.execute(_HAS_ERASED, (after.id,)).fetchone():
            after = self._forget(after)
        return after

    def _append(
        self,
        current: Current,
        operation: Operation,
        mtime: int,
        content: Content | None,
        path: str | None,
        context: Mapping[ContextField, str],
        argument: Argument | None,
    ) -> Current:
        """The next entry of a chain, checked by a replay where the row can't tell."""
        entry = Entry(operation, current.last_seq + 1, self._now, mtime, b"", b"", b"", argument)
        data, openings = build_entry(entry, content, path, context)
        if operation in _REPLAYED:
            self._replay(current).append(open_step(data, openings))
        return self._collect(current, operation, data, openings, content, path)

    def _collect(
        self,
        current: Current,
        operation: Operation,
        data: bytes,
        openings: Openings,
        content: Content | None,
        path: str | None,
    ) -> Current:
        """Links an entry to its chain and collects its rows."""
        seq, hashed = current.last_seq + 1, entry_hash(data)
        head = link(current.head, current.chain_id, seq, hashed)
        leaf = encode_leaf(EntryLeaf(current.chain_id, seq, hashed if seq else head))
        after = _after(current, operation, seq, head, content, path)
        self._entries.append((after.id, seq, data, *openings, head, None))
        self._leaves.append((None, leaf, after.id, seq, None))
        self._put(after, whole=seq == 0 or after.status != current.status or after.path != current.path)
        return after

    def _put(self, after: Current, whole: bool) -> None:
        self._chains[after.id] = self._current[after.source, after.file_id] = after
        if whole:
            self._whole.add(after.id)

    def _replay(self, current: Current) -> Chain:
        self.flush()
        return load_chain(self._conn, self._store, current)

    def _content_of(self, current: Current, argument: Argument | CloseReason | None) -> Content | None:
        """The content that a `reverted` without one means: that of the version it names."""
        if not isinstance(argument, Reverted):
            raise Refused("reverted: want the seq of a version")
        version = self._replay(current).versions.get(argument.target)
        return version.content if version is not None and isinstance(version.content, Content) else None

    def _check_sealed_tree(self, current: Current, seal: Seal) -> None:
        """A seal names a published tree of this log that holds the sealed entry; `Chain` checks the rest."""
        row = self._conn.execute(_SEALED_TREE, (seal.tree_size,)).fetchone()
        if row is None or row[0] != seal.tree_root:
            raise Refused(f"seal: no tree of size {seal.tree_size} with this root was published")
        index = self._conn.execute(_LEAF_INDEX, (current.id, seal.seq)).fetchone()
        if index is None or index[0] is None or index[0] >= seal.tree_size:
            raise Refused(f"seal: step {seal.seq} is not in the tree of size {seal.tree_size}")

    def _erase(self, after: Current, erased: Erased) -> Current:
        """Deletes an opening, so that its bytes are overwritten in the file, and what the row repeats of it."""
        self.flush()
        self._conn.execute(_ERASE[erased.part], (after.id, erased.seq))
        return self._forget(after) if after.status == DELETED else after

    def _forget(self, after: Current) -> Current:
        """A deleted file's row without what was erased. A live one's says no more than the source itself does."""
        chain = self._replay(after)
        if chain.path is MISSING:
            after = after._replace(path=None)
        if chain.content is MISSING:
            after = after._replace(size=None, digest=None)
        self._put(after, whole=True)
        self.flush()
        return after


def _listed(taints: Iterable[Taint]) -> tuple[Taint, ...]:
    """What an unsigned `closed` says of the taints that stand (SPEC 4.5)."""
    return tuple(sorted(taints)[:MAX_LISTED])


def _place(row: tuple[Any, ...]) -> tuple[int, int]:
    """Where the row of an entry stands: chain and seq."""
    return row[0], row[1]


def build_entry(
    entry: Entry, content: Content | None, path: str | None, context: Mapping[ContextField, str]
) -> tuple[bytes, Openings]:
    """The entry's bytes with commitments to these parts, each under a fresh salt, and what opens them."""
    salts = os.urandom(3 * SALT_SIZE)
    opened = salts[:32] + encode_content(content)
    opened_path = salts[32:64] + encode_path(path)
    opened_context = salts[64:] + encode_context(dict(context))
    commitments = commit(Part.CONTENT, opened), commit(Part.PATH, opened_path), commit(Part.CONTEXT, opened_context)
    mtime = entry.mtime if 0 <= entry.mtime <= MAX_U64 else 0  # a source may claim nonsense: then it is unknown
    data = encode_entry(Entry(entry.operation, entry.seq, entry.recorded, mtime, *commitments, entry.argument))
    return data, (opened, opened_path, opened_context)


def _after(
    before: Current, operation: Operation, seq: int, head: bytes, content: Content | None, path: str | None
) -> Current:
    """The row after an entry; a deleted or closed chain keeps what it had."""
    status, version, size, digest = before.status, before.version, before.size, before.digest
    if operation in SETS_CONTENT and content is not None:
        status, version, size, digest = LIVE, seq, content.size, content.sha3_256
    elif operation is Operation.DELETED:
        status = DELETED
    elif operation is Operation.CLOSED:
        status = CLOSED
    path = before.path if path is None else path
    return Current(*before[:6], seq, head, status, version, size, digest, path, *before[13:])


def _apply_rule(rule: str, what: str, o: Observation, got: Any, before: Any) -> Any:
    """The part that goes into the entry: what was observed, or what the operation keeps where that is None."""
    if rule == NONE:
        if got is not None:
            raise Refused(f"{o.operation.word} carries no {what} (file {o.file_id})")
        return None
    if rule == ANY or before is None:
        return got
    if got is None and rule == SAME:
        return before
    same = got.same_bytes(before) if isinstance(got, Content) else got == before
    if same != (rule == SAME):
        raise Refused(f"{o.operation.word}: want {rule} {what} (file {o.file_id})")
    return got
