"""Owners, and every chain: replayed from its entries and openings, compared with the row that says where it stands."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, func, select

from audit.chains import LIVE, OWNER, Current, chains_of, get_chain, get_owner, make_binding, read_ending
from audit.errors import AuditError, Fatal
from audit.fsck.findings import Check, shown
from audit.schema import ChainRow, EntryRow, LostLeaf, Owner, TreeRow, sql, table
from verifier.chain import MISSING, Chain, link, open_step
from verifier.entry import Content, entry_hash
from verifier.errors import Error
from verifier.keys import chain_id, owner_root

_CHAINS, _ENTRIES, _LOST, _OWNERS, _TREES = (
    table(ChainRow),
    table(EntryRow),
    table(LostLeaf),
    table(Owner),
    table(TreeRow),
)

_ALL_OWNERS = sql(select(_OWNERS.c.id, _OWNERS.c.owner_key, _OWNERS.c.blinding_key, _OWNERS.c.root))
_ALL_CHAINS = sql(select(_CHAINS).order_by(_CHAINS.c.id))
_STEPS = sql(
    select(*[_ENTRIES.c[name] for name in ("seq", "entry", "content", "path", "context", "head", "leaf_index")])
    .where(_ENTRIES.c.chain == bindparam("chain"))
    .order_by(_ENTRIES.c.seq)
)
_HAS_STEP = sql(
    select(_ENTRIES.c.seq).where(_ENTRIES.c.chain == bindparam("chain"), _ENTRIES.c.seq == bindparam("seq"))
)
_before = func.lag(_CHAINS.c.id).over(partition_by=[_CHAINS.c.source, _CHAINS.c.file_id], order_by=_CHAINS.c.id)
_ordered = select(_CHAINS.c.id, _CHAINS.c.predecessor, _before.label("before")).subquery()
_WRONG_PREDECESSORS = sql(select(_ordered).where(_ordered.c.predecessor.is_distinct_from(_ordered.c.before)))
_LOST_STEPS = sql(select(_LOST.c.seq, _LOST.c.x).where(_LOST.c.name == bindparam("name")))
_SIGNED_ROOT = sql(select(_TREES.c.root).where(_TREES.c.size == bindparam("size"), _TREES.c.first_note.is_not(None)))


def check_owners(check: Check) -> None:
    """Roots are those of their keys."""
    for owner, key, blinding, root in check.counted("owners", _ALL_OWNERS, "owners"):
        try:
            if owner_root(key, blinding) != root:
                check.find("owner", f"owner {owner}", "root is not that of its keys")
        except Error as error:
            check.find("owner", f"owner {owner}", str(error))


def check_chains(check: Check) -> None:
    """Every chain follows the verifier's rules, and ends where its row says."""
    check.counts["entries"] = 0
    for row in check.counted("chains", _ALL_CHAINS, "chains"):
        current = Current._make(row)
        place = f"chain {current.id} (file {current.file_id})"
        try:
            if not _check_lost(check, current, place):
                _check_row(check, current, _replay(check, current, place), place)
        except (AuditError, Error) as error:
            check.find("chain", place, str(error))
    for chain, got, want in check.conn.execute(_WRONG_PREDECESSORS):
        check.find("chain", f"chain {chain}", f"predecessor: got {got}, want {want}")


def _replay(check: Check, current: Current, place: str) -> Chain:
    binding = make_binding(check.conn, check.store, current)
    blinding = get_owner(check.conn, current.owner).blinding_key
    name = chain_id(blinding, binding.source_id, current.file_id, current.generation)
    if current.chain_id != name:
        check.find("chain", place, "chain id is not that of its file, owner and generation")
    chain = Chain(binding, _read_ending(check, current, place))
    last = -1
    for seq, data, content, path, context, head, index in check.conn.execute(_STEPS, (current.id,)):
        step = open_step(data, (content, path, context))
        chain.append(step)
        if (seq, head) != (chain.seq, chain.head):
            check.find("chain", f"{place} step {seq}", "stored seq or head is not what its entries lead to")
        if index is not None and (last is None or index <= last):
            check.find("chain", f"{place} step {seq}", f"leaf index {index} after {last}")
        last = index
    check.counts["entries"] += len(chain.steps)
    chain.check_openings()
    for seq, part in sorted(chain.erased):
        if chain.steps[seq][1 + part] is not MISSING:
            check.find("chain", f"{place} step {seq}", f"the {part.word} was erased, and is still there")
    for sealed in chain.seals:
        row = check.conn.execute(_SIGNED_ROOT, (sealed.seal.tree_size,)).fetchone()
        if row != (sealed.seal.tree_root,) and chain.steps[sealed.position].entry.recorded > check.declared:
            check.find("chain", f"{place} step {sealed.position}", "seals a tree that was not published")
    return chain


def _check_lost(check: Check, current: Current, place: str) -> bool:
    """Of a chain that lost steps only the heads can be followed, from leaves and from what entries are left."""
    lost: dict[int, bytes] = dict(check.conn.execute(_LOST_STEPS, (current.chain_id,)).fetchall())
    if not lost:
        return False
    rows = {row[0]: row for row in check.conn.execute(_STEPS, (current.id,))}
    head = b""
    for seq in range(current.last_seq + 1):
        row = rows.get(seq)
        if (row is None) == (seq not in lost):
            check.find("chain", f"{place} step {seq}", "is neither there nor known as lost, or both")
            return True
        x = lost[seq] if row is None else row[5] if seq == 0 else entry_hash(row[1])
        head = x if seq == 0 else link(head, current.chain_id, seq, x)
        if row is not None and row[5] != head:
            check.find("chain", f"{place} step {seq}", "stored seq or head is not what its entries lead to")
    if head != current.head or len(rows) + len(lost) != current.last_seq + 1:
        check.find("row", place, "head or last seq are not those of its leaves and entries")
    check.counts["entries"] += len(rows)
    return True


def _read_ending(check: Check, current: Current, place: str) -> Any:
    """The end of the chain before, and that this one follows it as generations do."""
    before = None if current.predecessor is None else get_chain(check.conn, current.predecessor)
    same = before is not None and before.owner == current.owner
    generation = before.generation + 1 if before is not None and same else 0
    if current.generation != generation:
        check.find("chain", place, f"generation: got {current.generation}, want {generation}")
    if before is None:
        return None
    if check.conn.execute(_HAS_STEP, (before.id, before.last_seq)).fetchone() is None:
        raise Fatal(f"chain {before.id}, which it continues, has lost its end")
    return read_ending(check.conn, before)


def _check_row(check: Check, current: Current, chain: Chain, place: str) -> None:
    if not chain.steps:
        check.find("row", place, "has no entries")
        return
    content = chain.steps[chain.version].content
    size, digest = content[:2] if isinstance(content, Content) else (None, None)
    path = next((step.path for step in reversed(chain.steps) if step.path is not None), None)
    if path is MISSING:  # a live file's row keeps what the source says all the time
        path = current.path if chain.status == LIVE else None
    owner = get_owner(check.conn, current.owner)
    if owner.kind == OWNER and chains_of(check.conn, current.source, owner.user) != current.user:
        check.find("row", place, f"user: got {current.user!r}, and its owner is {owner.user!r}")
    want = chain.seq, chain.head, chain.status, chain.version, size, digest, path
    for name, got, wanted in zip(Current._fields[6:13], current[6:13], want, strict=True):
        if got != wanted:
            check.find("row", place, f"{name}: got {shown(got)}, want {shown(wanted)}")
