"""After a restore from a backup: the leaves that are missing come back from a node that mirrors this log.

    nextcloud-audit recover --data DIR --from URL

    newest      of all witnesses' checkpoints with our own signature, the biggest: nothing smaller may ever be signed
    leaves      URL/mirror/ORIGINHASH/tile/entries/..., kept in DIR/recover.part as they come: run again, it goes on
    checks      our leaves and these have the root that we signed; the last one's map root is that of a replay
    one COMMIT  leaves, tiles, map, the tree's row with the cosignatures, and what follows for chains:

A leaf gives (chain id, seq, x): heads can be rebuilt, entries and openings can't. So a chain that lost steps ends
with `closed` (loss), which no owner signed, and its file goes on as the next generation (SPEC 4.6): NOT PROVEN
(`unsigned-close`) until the owner's seal accepts that. Steps that were recorded after the restore and wait for a tree
are withdrawn where their chain lost steps, as their seqs are taken; what they said last of the file goes into
`closed` and `adopted`. A chain of which the store knows nothing is ended when its file is seen (`audit.batch`), and
for a folder, whose file ids only count up, right here.

Nothing is decided about trees that nobody shows: with every witness gone, there is nothing to compare with.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select, update

from audit.auditor import CHUNK_LEAVES
from audit.batch import Batch
from audit.chains import CLOSED, IS_FOLDER, LIVE, Current, Roots, find_current, load_chain, read_ending
from audit.directory import Directory
from audit.errors import Fatal, PeerFailed, Refused
from audit.mapstore import MapStore
from audit.publisher import Publisher, read_newest_signed
from audit.schema import ChainRow, EntryRow, LostLeaf, Owner, Pending, Source, sql, table
from audit.tile_reader import Fetch, TileReader
from audit.tree import Tree, append_leaves
from audit.witness import hash_origin
from verifier.checkpoint import Checkpoint, open_checkpoint
from verifier.entry import Taint
from verifier.errors import Error, Malformed
from verifier.keys import chain_id
from verifier.leaf import ENTRY_SIZE, EnrolmentLeaf, EntryLeaf, LogKeyLeaf, MapLeaf, decode_leaf
from verifier.map import map_value
from verifier.merkle import EMPTY_ROOT
from verifier.note import MAX_NOTE_SIZE
from verifier.replay import BrokenRule, next_tip

PART_FILE = "recover.part"
PROBED = 1_024  # file ids beyond the known ones that are tried for a folder, and one more for each unknown chain

Say = Callable[[str], None]

_CHAINS, _ENTRIES, _OWNERS, _SOURCES = table(ChainRow), table(EntryRow), table(Owner), table(Source)
_PENDING, _LOST = table(Pending), table(LostLeaf)
_ALL_CHAINS = sql(select(_CHAINS).order_by(_CHAINS.c.id))
_OF_FILE = sql(
    select(_CHAINS)
    .where(_CHAINS.c.source == bindparam("source"), _CHAINS.c.file_id == bindparam("file_id"))
    .order_by(_CHAINS.c.id)
)
_TIP = sql(
    select(_ENTRIES.c.seq, _ENTRIES.c.head)
    .where(_ENTRIES.c.chain == bindparam("chain"), _ENTRIES.c.leaf_index.is_not(None))
    .order_by(_ENTRIES.c.seq.desc())
)
_WITHDRAW_ENTRIES = sql(delete(_ENTRIES).where(_ENTRIES.c.chain == bindparam("chain"), _ENTRIES.c.leaf_index.is_(None)))
_chains_of_it = func.json_each(bindparam("chains")).table_valued("value")
_WITHDRAW_LEAVES = sql(delete(_PENDING).where(_PENDING.c.chain.in_(select(_chains_of_it.c.value))))
_WITHDRAW_LEAF = sql(delete(_PENDING).where(_PENDING.c.leaf == bindparam("leaf")))
_WITHDRAW_CHAIN = sql(delete(_CHAINS).where(_CHAINS.c.id == bindparam("chain")))
_MOVE = sql(
    update(_CHAINS)
    .values(last_seq=bindparam("seq"), head=bindparam("head_"), status=bindparam("status_"))
    .where(_CHAINS.c.id == bindparam("chain"))
)
_INSERT_LOST = sql(insert(_LOST))
_INSERT_CHAIN = sql(insert(_CHAINS))
_OWNERS_KEYS = sql(select(_OWNERS.c.id, _OWNERS.c.blinding_key))
_FOLDERS = sql(
    select(_SOURCES.c.id, _SOURCES.c.source_id, _SOURCES.c.next_file_id).where(_SOURCES.c.spec.like(IS_FOLDER))
)
_SET_NEXT = sql(update(_SOURCES).values(next_file_id=bindparam("next")).where(_SOURCES.c.id == bindparam("source")))
_WAITING_OWNER = sql(
    select(_OWNERS.c.id).where(_OWNERS.c.root == bindparam("root"), _OWNERS.c.enrolled_index.is_(None))
)
_SET_ENROLLED = sql(update(_OWNERS).values(enrolled_index=bindparam("index")).where(_OWNERS.c.id == bindparam("owner")))
_WITHDRAW_OWNER = sql(delete(_PENDING).where(_PENDING.c.owner == bindparam("owner")))


class Newest(NamedTuple):
    """The biggest tree that we signed and anybody shows, with every note that was shown of it.

    `mirrored`: the size up to which the node that is asked for leaves has them.
    """

    checkpoint: Checkpoint
    notes: list[bytes]
    mirrored: int


class Recovered(NamedTuple):
    """What came back. `unknown`: chains that no file of this store belongs to, as yet."""

    size: int
    leaves: int
    steps: int
    chains: int
    withdrawn: int
    unknown: int
    published: bool


class Tip(NamedTuple):
    """Where a chain with lost steps stands."""

    seq: int
    head: bytes
    leaf: int


# -- from the network -----------------------------------------------------------------------------------------------


async def find_newest(log: Directory, mirror_url: str, fetch: Fetch, say: Say) -> Newest:
    """What the witnesses and the mirror show of this log. A witness that does not answer is named and passed over."""
    name = hash_origin(log.store.origin)
    urls = [f"{w.url.rstrip('/')}/{name}/checkpoint" for w in log.witnesses.witnesses.values() if w.url]
    found: list[tuple[Checkpoint, bytes]] = []
    mirrored = 0
    for url in [*urls, f"{mirror_url}/checkpoint"]:
        try:
            note = await fetch(url, MAX_NOTE_SIZE)
            checkpoint = open_checkpoint(note, *log.log_keys)[1]
        except (PeerFailed, Error) as error:
            say(naming(url, error))
            continue
        found.append((checkpoint, note))
        mirrored = checkpoint.size if url.startswith(mirror_url) else mirrored
    if not found:
        raise Refused("recover: nobody shows a tree of this log; name its witnesses in the policy, or another node")
    newest = max([checkpoint for checkpoint, _ in found], key=lambda checkpoint: checkpoint.size)
    if any(c.size == newest.size and c.root != newest.root for c, _ in found):
        raise Refused(f"recover: two trees of size {newest.size} were signed with this log's key: that is a fork")
    return Newest(newest, [note for checkpoint, note in found if checkpoint == newest], mirrored)


def naming(url: str, error: Exception) -> str:
    """What failed, with the address once."""
    return str(error) if url in str(error) else f"{url}: {error}"


async def fetch_leaves(path: str, url: str, fetch: Fetch, start: int, newest: Checkpoint, say: Say) -> list[bytes]:
    """Leaves from `start` on. What has come is kept in a file, unverified like the rest, and is not asked for again.

    Of one node alone: another one's might be wrong.
    """
    header = f"{start} {newest.size} {newest.root.hex()} {url}\n".encode()
    leaves = _read_part(path, header)
    tiles = TileReader(fetch, url, newest.size)
    if leaves:
        say(f"leaves: going on after {start + len(leaves)} of {newest.size}")
    with open(path, "r+b" if leaves else "wb") as file:
        os.chmod(path, 0o600)
        if not leaves:
            file.write(header)
        file.seek(len(header) + sum([2 + len(leaf) for leaf in leaves]))
        file.truncate()
        while start + len(leaves) < newest.size:
            begin = start + len(leaves)
            try:
                more = await tiles.leaves(begin, min(begin + CHUNK_LEAVES, newest.size))
            except Malformed as error:
                raise PeerFailed(f"{url}: {error}") from None
            file.write(b"".join([len(leaf).to_bytes(2, "big") + leaf for leaf in more]))
            file.flush()
            leaves += more
            say(f"leaves: {start + len(leaves)} of {newest.size}")
    return leaves


def _read_part(path: str, header: bytes) -> list[bytes]:
    """The whole leaves of a file that an earlier run for the same tree left."""
    try:
        with open(path, "rb") as file:
            if file.readline(len(header)) != header:
                return []
            data = file.read()
    except FileNotFoundError:
        return []
    leaves, at = [], 0
    while at + 2 <= len(data) and at + 2 + (size := int.from_bytes(data[at : at + 2], "big")) <= len(data):
        leaves.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return leaves


# -- into the store -------------------------------------------------------------------------------------------------


async def recover(log: Directory, url: str, fetch: Fetch, now: int, say: Say) -> Recovered:
    """All of it. The caller holds the directory's lock."""
    url = f"{url.rstrip('/')}/mirror/{hash_origin(log.store.origin)}"
    newest = await find_newest(log, url, fetch, say)
    with log.store.snapshot() as conn:
        ours = read_newest_signed(conn)
    size = ours.size if ours else 0
    if newest.checkpoint.size <= size:
        raise Refused(f"recover: nothing is missing: this store has size {size}, and nobody shows a bigger tree")
    if newest.mirrored < newest.checkpoint.size:
        raise Refused(
            f"recover: tree {newest.checkpoint.size} was signed, and this node holds {newest.mirrored} of its leaves: "
            "ask another one (--from), or this one later; if nobody has them, see --declare-loss"
        )
    part = os.path.join(log.path, PART_FILE)
    leaves = await fetch_leaves(part, url, fetch, size, newest.checkpoint, say)
    try:
        done = await asyncio.to_thread(rebuild, log, newest, leaves, now)
    except Refused:
        os.unlink(part)  # these leaves were not the right ones
        raise
    os.unlink(part)
    return done


def rebuild(log: Directory, newest: Newest, leaves: list[bytes], now: int) -> Recovered:
    """The missing leaves, once they lead to the signed root, and all that follows from them, in one transaction."""
    maps = MapStore()
    publisher = Publisher(log.store, maps, Tree(), log.signer, log.witnesses, log.auditors, next_signer=log.next_signer)
    checkpoint = newest.checkpoint
    with log.store.transaction() as conn:
        before = read_newest_signed(conn)
        size, root = (before.size, before.root) if before else (0, EMPTY_ROOT)
        if Tree().root(conn, size) != root:
            raise Fatal(f"tree on disk is not the one that was signed at size {size}: run `fsck`")
        append_leaves(conn, size, leaves)
        if Tree().root(conn, checkpoint.size) != checkpoint.root:
            raise Refused(
                f"recover: our {size} leaves and the {len(leaves)} of the mirror do not have the root that was signed "
                f"at size {checkpoint.size}: the mirror is wrong (try another node), or this store has signed a fork"
            )
        store = _Rebuild(log, conn, now)
        tips = store.take(size, leaves)
        values = {name: map_value(tip.seq, tip.head, tip.leaf) for name, tip in tips.items()}
        last = decode_leaf(leaves[-1])
        if not isinstance(last, MapLeaf) or maps.update(conn, checkpoint.size, values) != last.root:
            raise Refused("recover: the last leaf's map root is not that of a replay of these leaves")
        published = publisher.adopt_tree(conn, checkpoint, last.root, newest.notes, now)
        chains, unknown = store.close_chains(tips)
    return Recovered(checkpoint.size, len(leaves), store.steps, chains, store.withdrawn, unknown, published)


class _Rebuild:
    """What the leaves mean for chains and owners."""

    def __init__(self, log: Directory, conn: sqlite3.Connection, now: int) -> None:
        self._store, self._conn = log.store, conn
        self._batch = Batch(log.store, Roots(), conn, now)
        self.steps = self.withdrawn = 0

    def take(self, size: int, leaves: list[bytes]) -> dict[bytes, Tip]:
        """Remembers the lost leaves; returns where each chain in them stands now."""
        names = {leaf[1:33] for leaf in leaves if len(leaf) == ENTRY_SIZE}
        rows = map(Current._make, self._conn.execute(_ALL_CHAINS))
        self._rows = {row.chain_id: row for row in rows if row.chain_id in names}
        tips: dict[bytes, Tip] = {}
        lost: list[tuple[int, bytes, int | None, bytes | None]] = []
        for index, data in enumerate(leaves, size):
            leaf = decode_leaf(data)
            if isinstance(leaf, EntryLeaf):
                tip = tips.get(leaf.chain_id) or self._tip(leaf.chain_id)
                tips[leaf.chain_id] = self._follow(tip, index, data)
                lost.append((index, leaf.chain_id, leaf.seq, leaf.x))
            elif isinstance(leaf, EnrolmentLeaf) and not self._enrol(leaf.root, index):
                lost.append((index, leaf.root, None, None))
            elif isinstance(leaf, LogKeyLeaf):
                self._conn.execute(_WITHDRAW_LEAF, (data,))
                lost.append((index, leaf.public_key, None, None))
        self._conn.executemany(_INSERT_LOST, lost)
        self.steps = sum([seq is not None for _, _, seq, _ in lost])
        return tips

    def _tip(self, name: bytes) -> Tip | None:
        """Where the chain stood in the tree that this store knows."""
        row = self._rows.get(name)
        found = None if row is None else self._conn.execute(_TIP, (row.id,)).fetchone()
        return None if found is None else Tip(found[0], found[1], 0)

    @staticmethod
    def _follow(tip: Tip | None, index: int, data: bytes) -> Tip:
        try:
            return Tip(*next_tip(tip, index, data))
        except BrokenRule as broken:
            raise Refused(f"recover: {broken}") from None

    def _enrol(self, root: bytes, index: int) -> bool:
        """Whether an owner who enrolled once more waits for this very leaf."""
        row = self._conn.execute(_WAITING_OWNER, (root,)).fetchone()
        if row is not None:
            self._conn.execute(_SET_ENROLLED, (index, row[0]))
            self._conn.execute(_WITHDRAW_OWNER, (row[0],))
        return row is not None

    # -- chains --

    def close_chains(self, tips: dict[bytes, Tip]) -> tuple[int, int]:
        """Ends every chain with lost steps, as far as its file is known; returns how many, and the unknown ones."""
        files: dict[tuple[int, int], list[Current]] = {}
        for row in sorted(self._rows.values()):
            files.setdefault((row.source, row.file_id), []).append(row)
        taken = [[row for row in self._all_of(rows[0]) if row.id >= rows[0].id] for rows in files.values()]
        self._conn.execute(_WITHDRAW_LEAVES, (json.dumps([row.id for rows in taken for row in rows]),))
        for rows, withdrawn in zip(files.values(), taken, strict=True):
            self._end_file(rows, withdrawn, tips)
        unknown = set(tips) - set(self._rows)
        found = self._find_folder_files(unknown, tips)
        self._batch.flush()
        return len(files) + found, len(unknown) - found

    def _end_file(self, rows: list[Current], withdrawn: list[Current], tips: dict[bytes, Tip]) -> None:
        """Ends the newest of a file's chains that lost steps, with what was known last of the file.

        `withdrawn`: those whose seqs or generations are taken; none of their leaves waits for a tree any more.
        """
        newest = find_current(self._conn, rows[0].source, rows[0].file_id)
        assert newest is not None
        taints = self._taints(newest)
        for row in withdrawn:
            self._withdraw(row, kept=row.chain_id in tips)
        for row in rows:
            tip = tips[row.chain_id]
            status = newest.status if row is rows[-1] else CLOSED
            self._conn.execute(_MOVE, (tip.seq, tip.head, status, row.id))
        last, tip = rows[-1], tips[rows[-1].chain_id]
        moved = last._replace(last_seq=tip.seq, head=tip.head, status=newest.status)
        self._batch.close_lost(moved._replace(size=newest.size, digest=newest.digest, path=newest.path), taints)

    def _taints(self, newest: Current) -> tuple[Taint, ...]:
        if newest.status == CLOSED:
            return read_ending(self._conn, newest).taints
        return tuple(sorted(load_chain(self._conn, self._store, newest).taints.values()))

    def _all_of(self, row: Current) -> Iterable[Current]:
        return map(Current._make, self._conn.execute(_OF_FILE, (row.source, row.file_id)).fetchall())

    def _withdraw(self, row: Current, kept: bool) -> None:
        """Takes back what waits for a tree under seqs or generations that are taken."""
        self.withdrawn += self._conn.execute(_WITHDRAW_ENTRIES, (row.id,)).rowcount
        if not kept and self._conn.execute(_TIP, (row.id,)).fetchone() is None:
            self._conn.execute(_WITHDRAW_CHAIN, (row.id,))

    def _find_folder_files(self, unknown: set[bytes], tips: dict[bytes, Tip]) -> int:
        """Files of folders that came and were lost: their ids are not given out again, and their chains end."""
        found = 0
        owners = self._conn.execute(_OWNERS_KEYS).fetchall()
        for source, source_id, first in self._conn.execute(_FOLDERS).fetchall():
            highest = first - 1
            for file_id in range(first, first + len(unknown) + PROBED if unknown else first):
                for owner, blinding in owners:
                    name = chain_id(blinding, source_id, file_id, 0)
                    if name in unknown:
                        highest, found = file_id, found + 1
                        tip = tips[name]
                        self._batch.flush()
                        values = (
                            source,
                            file_id,
                            0,
                            owner,
                            name,
                            tip.seq,
                            tip.head,
                            LIVE,
                            -1,
                            None,
                            None,
                            None,
                            None,
                            "",
                        )
                        row = self._conn.execute(_INSERT_CHAIN, (None, *values)).lastrowid or 0
                        self._batch.close_lost(Current(row, *values)._replace(status="deleted"), ())
                        self._batch.flush()
            self._conn.execute(_SET_NEXT, (highest + 1, source))
        return found
