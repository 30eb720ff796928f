"""Verifies a whole log again, from what is stored: `nextcloud-audit fsck --data DIR`. Tests use the same code.

    report = check_log(store, keys, progress)
    report.findings        [Finding("tile", "tile 0/3", "not what its leaves lead to"), ...]; nothing where all is well

Nothing is taken on trust that can be computed:

    file        SQLite's own check of its pages, types of all values, references between rows
    owner       roots against their keys
    chain       every chain replayed from its entries and openings by the verifier's own rules; stored heads; the row
                that repeats where the chain stands; chain id, generation, predecessor; seals against the signed trees;
                what an `erased` entry names is gone, and nothing else is
    folder      what the next scan compares with, against the chains, in both directions; of a Nextcloud alike
    pending     each entry and owner that is not in the tree waits exactly once, in the order of its chain
    log         each leaf against its entry or owner, tiles with their inner nodes, roots and map commitments of every
                signed tree, the map replayed from the leaves, the log's signature and the cosignatures in every note
    map         every retained version read from disk, page by page, against the root that was signed

Signed trees are all compared with the same leaves, so they are consistent with each other. All reads see one
committed state, so a log may be checked while it runs. Memory stays flat: rows come in the order in which they are
needed, sorted by SQLite on disk; one chain, one bundle and the replayed map's cache are all that is held.

Not checked: whether a quorum was met in the past, since policies change; files on disk (a scan does that); and whether
the log was rolled back as a whole, which only its witnesses know.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, LargeBinary, bindparam, func, literal_column, select

from audit.chains import (
    DELETED,
    LIVE,
    OWNER,
    Current,
    chains_of,
    find_current,
    get_chain,
    get_owner,
    make_binding,
    read_ending,
)
from audit.directory import open_log
from audit.errors import AuditError, Fatal
from audit.mapstore import CREATE_MAP_PAGES, MapError, MapStore
from audit.publisher import Signed, read_proof_tree
from audit.schema import (
    ONE,
    ZERO,
    BundleRow,
    ChainRow,
    EntryRow,
    FolderKnown,
    LogTable,
    LostLeaf,
    MapPage,
    NextcloudKnown,
    Owner,
    Pending,
    Source,
    TileRow,
    TreeRow,
    sql,
    table,
)
from audit.store import Store
from audit.tree import build_tile, read_tile
from verifier.chain import MISSING, Chain, link, open_step
from verifier.checkpoint import open_checkpoint
from verifier.entry import Content, entry_hash
from verifier.errors import Error
from verifier.keys import chain_id, owner_root
from verifier.leaf import LOG_KEY, EnrolmentLeaf, EntryLeaf, LogKeyLeaf, LossLeaf, MapLeaf, decode_leaf, encode_leaf
from verifier.loss import loss_leaf, parse_loss
from verifier.map import map_value
from verifier.merkle import append_leaf, fold_right, leaf_hash
from verifier.note import VerifierKey, verify_cosignatures
from verifier.policy import AUDITOR_SUFFIX, Policy
from verifier.tile import TILE_WIDTH, decode_entry_bundle

MAX_FINDINGS = 1_000  # kept; the rest is counted
PROGRESS_EVERY = 1_000  # rows
_LOG_KEY = bytes([LOG_KEY])

_CHAINS, _ENTRIES, _KNOWN, _OWNERS = table(ChainRow), table(EntryRow), table(FolderKnown), table(Owner)
_PAGES, _PENDING, _SOURCES, _TREES = table(MapPage), table(Pending), table(Source), table(TreeRow)
_TILES, _BUNDLES, _IN_NEXTCLOUD = table(TileRow), table(BundleRow), table(NextcloudKnown)

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
_LOST = table(LostLeaf)
_LOST_STEPS = sql(select(_LOST.c.seq, _LOST.c.x).where(_LOST.c.name == bindparam("name")))
_LOST_RANGE = sql(select(func.min(_LOST.c.leaf_index), func.max(_LOST.c.leaf_index)))
_LOST_LEAVES = sql(select(_LOST).order_by(_LOST.c.leaf_index))
_WRONG_PREDECESSORS = sql(select(_ordered).where(_ordered.c.predecessor.is_distinct_from(_ordered.c.before)))
_SIGNED_ROOT = sql(select(_TREES.c.root).where(_TREES.c.size == bindparam("size"), _TREES.c.first_note.is_not(None)))
_joined = _ENTRIES.join(_CHAINS, _CHAINS.c.id == _ENTRIES.c.chain)
_leaf = (_CHAINS.c.chain_id, _ENTRIES.c.seq, _ENTRIES.c.head, _ENTRIES.c.entry)
_LOGGED = sql(
    select(_ENTRIES.c.leaf_index, *_leaf)
    .select_from(_joined)
    .where(_ENTRIES.c.leaf_index.is_not(None))
    .order_by(_ENTRIES.c.leaf_index)
)
_WAITING = sql(
    select(_ENTRIES.c.chain, _ENTRIES.c.seq, *_leaf)
    .select_from(_joined)
    .where(_ENTRIES.c.leaf_index.is_(None))
    .order_by(_ENTRIES.c.chain, _ENTRIES.c.seq)
)
_ENROLLED = sql(
    select(_OWNERS.c.enrolled_index, _OWNERS.c.root)
    .where(_OWNERS.c.enrolled_index.is_not(None))
    .order_by(_OWNERS.c.enrolled_index)
)
_UNENROLLED = sql(select(_OWNERS.c.id, _OWNERS.c.root).where(_OWNERS.c.enrolled_index.is_(None)).order_by(_OWNERS.c.id))
_PENDING_ENTRIES = sql(select(_PENDING).where(_PENDING.c.chain.is_not(None)).order_by(_PENDING.c.chain, _PENDING.c.seq))
_PENDING_OTHERS = sql(select(_PENDING).where(_PENDING.c.chain.is_(None)).order_by(_PENDING.c.owner))
_ALL_OWNERS = sql(select(_OWNERS.c.id, _OWNERS.c.owner_key, _OWNERS.c.blinding_key, _OWNERS.c.root))
_ALL_TREES = sql(select(_TREES).order_by(_TREES.c.size))
_ALL_BUNDLES = sql(select(_BUNDLES).order_by(_BUNDLES.c.n))
_NEWEST_SIZE = sql(select(func.coalesce(func.max(_TREES.c.size), ZERO)))
_FIRST_SIZE = sql(select(func.min(_TREES.c.size)))
_TREE_AT = sql(select(_TREES.c.map_root).where(_TREES.c.size == bindparam("size")))
_roots = select(_PAGES.c.version).where(_PAGES.c.prefix == literal_column("x''"))
_NOT_RETAINED = sql(select(_TREES.c.size).where(_TREES.c.size >= bindparam("size"), _TREES.c.size.not_in(_roots)))
_ALL_KNOWN = sql(
    select(*[_KNOWN.c[name] for name in ("source", "file_id", "path", "size", "digest")], _SOURCES.c.next_file_id)
    .select_from(_KNOWN.join(_SOURCES, _SOURCES.c.id == _KNOWN.c.source))
    .order_by(_KNOWN.c.source, _KNOWN.c.file_id)
)
_ALL_IN_NEXTCLOUD = sql(
    select(*[_IN_NEXTCLOUD.c[name] for name in ("source", "file_id", "user", "path", "digest", "in_trash")]).order_by(
        _IN_NEXTCLOUD.c.source, _IN_NEXTCLOUD.c.file_id
    )
)
_UNKNOWN = sql(
    select(_CHAINS.c.id, _CHAINS.c.file_id)
    .select_from(
        _CHAINS.join(_SOURCES, _SOURCES.c.id == _CHAINS.c.source).outerjoin(
            _KNOWN, (_KNOWN.c.source == _CHAINS.c.source) & (_KNOWN.c.file_id == _CHAINS.c.file_id)
        )
    )
    .where(
        _CHAINS.c.status == literal_column("'live'"),
        _SOURCES.c.spec.like(literal_column("'folder:%'")),
        _SOURCES.c.scanned.is_not(None),
        _KNOWN.c.file_id.is_(None),
    )
)


def _wrong_types(column: Any) -> str:
    """The statement that finds what SQLite lets a column hold against its type."""
    kind: Any = literal_column(f"typeof({column.name})")
    is_number, is_blob = isinstance(column.type, BigInteger), isinstance(column.type, LargeBinary)
    wanted = ["integer" if is_number else "blob" if is_blob else "text", *(["null"] if column.nullable else [])]
    wrong = kind.not_in([literal_column(f"'{name}'") for name in wanted])
    return sql(select(kind).select_from(column.table).where(wrong).limit(ONE).offset(ZERO))


_WRONG_TYPES = [
    (f"{made.name}.{column.name}", _wrong_types(column))
    for made in LogTable.metadata.sorted_tables
    for column in made.columns
]


class Finding(NamedTuple):
    """Something that is not as it has to be: which check found it, where, and what it is."""

    kind: str
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}: {self.what}"


class Report(NamedTuple):
    """What was found; `total` counts all findings, of which the first MAX_FINDINGS are listed."""

    findings: list[Finding]
    total: int
    counts: dict[str, int]


class Keys(NamedTuple):
    """Whose signatures the notes have to bear."""

    log: VerifierKey
    witnesses: Policy
    auditors: Policy | None


Progress = Callable[[str, int, int], object]  # what is being checked, how many of them are done, how many there are


def check_log(store: Store, keys: Keys, progress: Progress = lambda what, done, total: None) -> Report:
    """Everything that does not hold in this log."""
    with store.snapshot() as conn:
        return _Check(store, keys, progress, conn).run()


class _Unreadable(Exception):
    """What comes next can't be checked; the finding is made already."""


class _Check:
    def __init__(self, store: Store, keys: Keys, progress: Progress, conn: sqlite3.Connection) -> None:
        self._store, self._keys, self._progress, self._conn = store, keys, progress, conn
        self._findings: list[Finding] = []
        self._total = 0
        self._counts: dict[str, int] = {}
        policies = [keys.witnesses] if keys.auditors is None else [keys.witnesses, keys.auditors]
        self._log_keys = store.log_keys or (keys.log,)
        self.announced: set[bytes] = set()  # keys after the first one, by their leaves
        cosigners = [witness.key for policy in policies for witness in policy.witnesses.values()]
        self._cosigners = dict(enumerate(cosigners))

    def run(self) -> Report:
        stages = self._check_file, self._check_owners, self._check_chains, self._check_folders, self._check_pending
        try:
            for stage in (*stages, self._check_log, self._check_maps):
                stage()
        except _Unreadable:
            pass
        except sqlite3.DatabaseError as error:
            self._find("file", "log.db", f"cannot be read any further: {error}")
        return Report(self._findings, self._total, self._counts)

    def _find(self, kind: str, place: str, what: str) -> None:
        self._total += 1
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Finding(kind, place, what))

    def _counted(self, what: str, statement: str, of: str) -> Iterator[Any]:
        """The rows of a statement, with progress; `of` is the table they come from, one row each."""
        (total,) = self._conn.execute(f"SELECT count(*) FROM {of}").fetchone()  # noqa: S608  # a constant
        done = 0
        for done, row in enumerate(self._conn.execute(statement), 1):
            yield row
            if done % PROGRESS_EVERY == 0:
                self._progress(what, done, total)
        self._progress(what, done, total)
        self._counts[what] = done

    # -- the file -----------------------------------------------------------------------------------------------

    def _check_file(self) -> None:
        """Pages, types, references. What has a wrong type could not even be compared: then this is all."""
        self._progress("pages", 0, 1)
        for (what,) in self._conn.execute("PRAGMA integrity_check(100)"):
            if what != "ok":
                self._find("file", "log.db", str(what))
        for place, statement in _WRONG_TYPES:
            for (kind,) in self._conn.execute(statement):
                self._find("file", place, f"holds {kind}")
        if self._findings:
            raise _Unreadable
        for child, rowid, parent, _ in self._conn.execute("PRAGMA foreign_key_check"):
            self._find("file", child, f"row {rowid} refers to what is not in {parent}")

    def _check_owners(self) -> None:
        for owner, key, blinding, root in self._counted("owners", _ALL_OWNERS, "owners"):
            try:
                if owner_root(key, blinding) != root:
                    self._find("owner", f"owner {owner}", "root is not that of its keys")
            except Error as error:
                self._find("owner", f"owner {owner}", str(error))

    # -- chains -------------------------------------------------------------------------------------------------

    def _check_chains(self) -> None:
        self._counts["entries"] = 0
        for row in self._counted("chains", _ALL_CHAINS, "chains"):
            current = Current._make(row)
            place = f"chain {current.id} (file {current.file_id})"
            try:
                if not self._check_lost(current, place):
                    self._check_row(current, self._replay(current, place), place)
            except (AuditError, Error) as error:
                self._find("chain", place, str(error))
        for chain, got, want in self._conn.execute(_WRONG_PREDECESSORS):
            self._find("chain", f"chain {chain}", f"predecessor: got {got}, want {want}")

    def _replay(self, current: Current, place: str) -> Chain:
        binding = make_binding(self._conn, self._store, current)
        blinding = get_owner(self._conn, current.owner).blinding_key
        name = chain_id(blinding, binding.source_id, current.file_id, current.generation)
        if current.chain_id != name:
            self._find("chain", place, "chain id is not that of its file, owner and generation")
        chain = Chain(binding, self._read_ending(current, place))
        last = -1
        for seq, data, content, path, context, head, index in self._conn.execute(_STEPS, (current.id,)):
            step = open_step(data, (content, path, context))
            chain.append(step)
            if (seq, head) != (chain.seq, chain.head):
                self._find("chain", f"{place} step {seq}", "stored seq or head is not what its entries lead to")
            if index is not None and (last is None or index <= last) or index is None and seq == -1:
                self._find("chain", f"{place} step {seq}", f"leaf index {index} after {last}")
            last = index
        self._counts["entries"] += len(chain.steps)
        chain.check_openings()
        for seq, part in sorted(chain.erased):
            if chain.steps[seq][1 + part] is not MISSING:
                self._find("chain", f"{place} step {seq}", f"the {part.word} was erased, and is still there")
        for sealed in chain.seals:
            row = self._conn.execute(_SIGNED_ROOT, (sealed.seal.tree_size,)).fetchone()
            if row != (sealed.seal.tree_root,):
                self._find("chain", f"{place} step {sealed.position}", "seals a tree that was not published")
        return chain

    def _check_lost(self, current: Current, place: str) -> bool:
        """Of a chain that lost steps only the heads can be followed, from leaves and from what entries are left."""
        lost: dict[int, bytes] = dict(self._conn.execute(_LOST_STEPS, (current.chain_id,)).fetchall())
        if not lost:
            return False
        rows = {row[0]: row for row in self._conn.execute(_STEPS, (current.id,))}
        head = b""
        for seq in range(current.last_seq + 1):
            row = rows.get(seq)
            if (row is None) == (seq not in lost):
                self._find("chain", f"{place} step {seq}", "is neither there nor known as lost, or both")
                return True
            x = lost[seq] if row is None else row[5] if seq == 0 else entry_hash(row[1])
            head = x if seq == 0 else link(head, current.chain_id, seq, x)
            if row is not None and row[5] != head:
                self._find("chain", f"{place} step {seq}", "stored seq or head is not what its entries lead to")
        if head != current.head or len(rows) + len(lost) != current.last_seq + 1:
            self._find("row", place, "head or last seq are not those of its leaves and entries")
        self._counts["entries"] += len(rows)
        return True

    def _read_ending(self, current: Current, place: str) -> Any:
        """The end of the chain before, and that this one follows it as generations do."""
        before = None if current.predecessor is None else get_chain(self._conn, current.predecessor)
        same = before is not None and before.owner == current.owner
        generation = before.generation + 1 if before is not None and same else 0
        if current.generation != generation:
            self._find("chain", place, f"generation: got {current.generation}, want {generation}")
        if before is None:
            return None
        if self._conn.execute(_HAS_STEP, (before.id, before.last_seq)).fetchone() is None:
            raise Fatal(f"chain {before.id}, which it continues, has lost its end")
        return read_ending(self._conn, before)

    def _check_row(self, current: Current, chain: Chain, place: str) -> None:
        if not chain.steps:
            self._find("row", place, "has no entries")
            return
        content = chain.steps[chain.version].content
        size, digest = content[:2] if isinstance(content, Content) else (None, None)
        path = next((step.path for step in reversed(chain.steps) if step.path is not None), None)
        if path is MISSING:  # a live file's row keeps what the source says all the time
            path = current.path if chain.status == LIVE else None
        owner = get_owner(self._conn, current.owner)
        if owner.kind == OWNER and chains_of(self._conn, current.source, owner.user) != current.user:
            self._find("row", place, f"user: got {current.user!r}, and its owner is {owner.user!r}")
        want = chain.seq, chain.head, chain.status, chain.version, size, digest, path
        for name, got, wanted in zip(Current._fields[6:13], current[6:13], want, strict=True):
            if got != wanted:
                self._find("row", place, f"{name}: got {_shown(got)}, want {_shown(wanted)}")

    def _check_folders(self) -> None:
        for source, file_id, *seen, next_id in self._counted("known files", _ALL_KNOWN, "folder_known"):
            place = f"source {source} file {file_id}"
            current = find_current(self._conn, source, file_id)
            if current is None or current.status != LIVE:
                self._find("folder", place, "is known from a scan, and has no live chain")
            elif [current.path, current.size, current.digest] != seen:
                self._find("folder", place, "path, size or digest of the last scan are not those of its chain")
            if file_id >= next_id:
                self._find("folder", place, f"file id was never given out, the next one is {next_id}")
        for chain, file_id in self._conn.execute(_UNKNOWN):
            self._find("folder", f"chain {chain} (file {file_id})", "is live, and no scan knows of it")
        for source, file_id, *seen, in_trash in self._counted(
            "known in Nextcloud", _ALL_IN_NEXTCLOUD, "nextcloud_known"
        ):
            place = f"source {source} file {file_id}"
            current = find_current(self._conn, source, file_id)
            if current is None or current.status != (DELETED if in_trash else LIVE):
                self._find("nextcloud", place, "is known from a look, and its chain says otherwise")
            elif not in_trash and [current.user, current.path, current.digest] != seen:
                self._find("nextcloud", place, "user, path or digest of the last look are not those of its chain")

    # -- pending ------------------------------------------------------------------------------------------------

    def _check_pending(self) -> None:
        waiting = _Ahead(self._conn.execute(_WAITING), 2, self._not_pending)
        before = (0, 0)  # chain, n
        for n, leaf, chain, seq, owner in self._counted("pending", _PENDING_ENTRIES, "pending"):
            row = waiting.take(chain, seq)
            if row is None or owner is not None:
                self._find("pending", f"pending {n}", f"step {seq} of chain {chain} does not wait for the tree")
            elif leaf != _entry_leaf(*row[2:]):
                self._find("pending", f"pending {n}", f"is not the leaf of step {seq} of chain {chain}")
            if before[0] == chain and before[1] >= n:
                self._find("pending", f"pending {n}", f"step {seq} of chain {chain} is out of order")
            before = chain, n
        waiting.end()
        owners = _Ahead(self._conn.execute(_UNENROLLED), 1, lambda row: self._not_pending(("owner", row[0])))
        for n, leaf, _, _, owner in self._conn.execute(_PENDING_OTHERS):
            if owner is None and leaf[:1] == _LOG_KEY:
                self.announce(f"pending {n}", leaf[1:])
                continue
            row = None if owner is None else owners.take(owner)
            if row is None or leaf != encode_leaf(EnrolmentLeaf(row[1])):
                self._find("pending", f"pending {n}", f"is not the enrolment of an owner who waits (got {owner})")
        owners.end()

    def _not_pending(self, row: tuple[Any, ...]) -> None:
        place = f"{row[0]} {row[1]}" if row[0] == "owner" else f"chain {row[0]} step {row[1]}"
        self._find("pending", place, "is neither in the tree nor pending")

    # -- the log ------------------------------------------------------------------------------------------------

    def _check_log(self) -> None:
        with closing(sqlite3.connect("", isolation_level=None)) as replay:  # a file of SQLite's own, gone afterwards
            replay.execute(CREATE_MAP_PAGES)
            _Leaves(self, replay).run()
        for key in self._log_keys[1:]:
            if key.public_key not in self.announced:
                self._find("leaf", f"log key {key.key_id.hex()}", "no leaf says that this log has got it")

    def announce(self, place: str, public_key: bytes) -> None:
        """A leaf for a new log key, once for each."""
        if public_key in self.announced or public_key not in [key.public_key for key in self._log_keys[1:]]:
            self._find("leaf", place, "announces a key that this log has not got, or once more")
        self.announced.add(public_key)

    def check_notes(self, tree: Signed, place: str) -> None:
        """All notes are of this tree, each line of a known key holds, and the row's marks fit them."""
        for note in dict.fromkeys((tree.signed, tree.first_note, tree.newest_note)):
            if note is None:
                continue
            try:
                parsed, checkpoint = open_checkpoint(note, *self._log_keys)
                verify_cosignatures(parsed, self._cosigners)
            except Error as error:
                self._find("note", place, str(error))
                continue
            if (checkpoint.size, checkpoint.root) != (tree.size, tree.root):
                self._find("note", place, f"states size {checkpoint.size} and root {checkpoint.root.hex()}")
            if tree.audited and note == tree.newest_note:
                if not any(line.name.endswith(AUDITOR_SUFFIX) for line in parsed.signatures):
                    self._find("note", place, "is marked as audited, and no auditor has signed")
        if (tree.first_note is None) != (tree.published_at is None):
            self._find("note", place, "has a first note or a time of publication without the other")

    # -- the map ------------------------------------------------------------------------------------------------

    def _check_maps(self) -> None:
        maps, checked = MapStore(), None
        versions = maps.versions(self._conn)
        for done, version in enumerate(versions, 1):
            place = f"map {version}"
            try:
                root = maps.check(self._conn, version, checked)
                checked = version
                if self._conn.execute(_TREE_AT, (version,)).fetchone() != (root,):
                    self._find("map", place, "root is not that of a signed tree of this size")
            except MapError as error:
                self._find("map", place, str(error))
                checked = None
            self._progress("map versions", done, len(versions))
        self._counts["map versions"] = len(versions)
        shown = read_proof_tree(self._conn)
        for (size,) in self._conn.execute(_NOT_RETAINED, (shown.size if shown else 0,)):
            self._find("map", f"map {size}", "is not there, and proofs need it")


class _Leaves:
    """One walk over all leaves: against entries and owners, and up to tiles, map and every signed tree."""

    def __init__(self, check: _Check, replay: sqlite3.Connection) -> None:
        conn, find = check._conn, check._find
        self._check, self._conn, self._replay, self._find = check, conn, replay, find
        self._maps = MapStore()
        self._entries = _Ahead(conn.execute(_LOGGED), 1, lambda row: self._not_there("step", *row[:3:2]))
        self._lost = _Ahead(conn.execute(_LOST_LEAVES), 1, lambda row: self._not_there("lost leaf", *row[:2]))
        first, last = conn.execute(_LOST_RANGE).fetchone()
        self._came_back = range(first or 0, last or 0)  # trees that were signed in between left their commitment alone
        self._heads: dict[bytes, bytes] = (
            {} if last is not None else _Forgetful()
        )  # of every chain, where steps were lost
        self._owners = _Ahead(conn.execute(_ENROLLED), 1, lambda row: self._not_there("owner", *row))
        self._trees = _Ahead(conn.execute(_ALL_TREES), 1, lambda row: self._no_leaves(row[0]))
        self._levels: list[list[bytes]] = []  # of each level the hashes of the tile that is being filled
        self._numbers: list[int] = []  # and its number
        self._peaks: list[bytes] = []
        self._changed: dict[bytes, bytes] = {}  # of the map since the last tree
        self._again = range(0)  # leaves of the origin before: their trees and keys are not ours

    def run(self) -> None:
        (size,) = self._conn.execute(_NEWEST_SIZE).fetchone()
        index, tiles = 0, 0
        for number, data in self._check._counted("bundles", _ALL_BUNDLES, "bundles"):
            place = f"bundle {number}"
            try:
                if number * TILE_WIDTH != index:
                    raise Fatal(f"want bundle {index // TILE_WIDTH} here")
                leaves = decode_entry_bundle(data, min(TILE_WIDTH, size - index))
            except (Error, Fatal) as error:
                self._find("leaf", place, f"{error}; nothing behind it can be checked")
                return
            for leaf in leaves:
                self._leaf(index, leaf)
                index += 1
        for level, hashes in enumerate(self._levels):
            tiles += self._numbers[level] + bool(hashes)
            if hashes:
                self._tile(level, hashes)
        (rows,) = self._conn.execute(sql(select(func.count()).select_from(_TILES))).fetchone()
        if rows != tiles:
            self._find("tile", "tiles", f"got {rows} rows, want {tiles}")
        for ahead in (self._entries, self._owners, self._trees, self._lost):
            ahead.end()
        self._check._counts["leaves"] = index

    def _leaf(self, index: int, data: bytes) -> None:
        place = f"leaf {index}"
        hashed = leaf_hash(data)
        self._peaks = append_leaf(self._peaks, index, hashed)
        self._grow(0, hashed)
        try:
            leaf = decode_leaf(data)
        except Error as error:
            self._find("leaf", place, str(error))
            return
        lost = self._lost.take(index)
        if lost is not None:
            self._check_lost(index, leaf, lost)
        elif isinstance(leaf, EntryLeaf):
            row = self._entries.take(index)
            if row is None or data != _entry_leaf(*row[1:]):
                self._find("leaf", place, "is not the leaf of the entry that belongs there")
            if row is not None:
                self._changed[row[1]] = map_value(row[2], row[3], index)
                self._heads[row[1]] = row[3]
        elif isinstance(leaf, EnrolmentLeaf) and self._owners.take(index) != (index, leaf.root):
            self._find("leaf", place, "enrols a root that no owner has")
        elif isinstance(leaf, LogKeyLeaf) and index not in self._again:
            self._check.announce(place, leaf.public_key)
        elif isinstance(leaf, LossLeaf):
            self._check_loss(index, data)
        tree = self._trees.take(index + 1)
        if tree is not None and isinstance(leaf, MapLeaf):
            self._tree(Signed._make(tree), leaf.root)
        elif isinstance(leaf, MapLeaf) and (index in self._came_back or index in self._again):
            self._replay_map(index + 1, {"committed": leaf.root})
        elif tree is not None or isinstance(leaf, MapLeaf):
            self._find("leaf", place, "want a map commitment at the end of each signed tree, and nowhere else")

    def _check_loss(self, index: int, data: bytes) -> None:
        """Leaf 0 of a log that has declared a loss; up to its first tree, the leaves of the origin before follow."""
        if index:
            self._find("leaf", f"leaf {index}", "declares a loss, which only the first leaf may")
        elif self._check._store.loss is None or data != loss_leaf(parse_loss(self._check._store.loss)[0].note):
            self._find("leaf", "leaf 0", "declares another loss than the store knows")
        else:
            (first,) = self._conn.execute(_FIRST_SIZE).fetchone()
            self._again = range(first or 0)

    def _check_lost(self, index: int, leaf: object, lost: tuple[int, bytes, int | None, bytes | None]) -> None:
        """A leaf that came back from a mirror is what `lost_leaves` says, and moves its chain on in the map."""
        _, name, seq, x = lost
        if isinstance(leaf, LogKeyLeaf):
            self._check.announced.add(leaf.public_key)
        short = LogKeyLeaf(name) if isinstance(leaf, LogKeyLeaf) else EnrolmentLeaf(name)
        if leaf != (short if seq is None or x is None else EntryLeaf(name, seq, x)):
            self._find("leaf", f"leaf {index}", "is not the one that came back from a mirror")
        elif seq is not None and x is not None:
            head = x if seq == 0 else link(self._heads.get(name, b""), name, seq, x)
            self._heads[name] = head
            self._changed[name] = map_value(seq, head, index)

    def _grow(self, level: int, hashed: bytes) -> None:
        """Adds a hash to the tile that is being filled on a level."""
        if level == len(self._levels):
            self._levels.append([])
            self._numbers.append(0)
        self._levels[level].append(hashed)
        if len(self._levels[level]) == TILE_WIDTH:
            root = self._tile(level, self._levels[level])
            self._levels[level] = []
            self._numbers[level] += 1
            self._grow(level + 1, root)

    def _tile(self, level: int, hashes: list[bytes]) -> bytes:
        """Compares the stored tile; returns the root over it, which is one hash of the tile above once it is full."""
        data, root = build_tile(hashes)
        if read_tile(self._conn, level, self._numbers[level]) != (len(hashes), data):
            self._find("tile", f"tile {level}/{self._numbers[level]}", "is missing, or is not what its leaves lead to")
        return root[0] if root else b""

    def _tree(self, tree: Signed, committed: bytes) -> None:
        place = f"tree {tree.size}"
        if fold_right(self._peaks) != tree.root:
            self._find("tree", place, "root is not that of its leaves")
        self._replay_map(tree.size, {"committed": committed, "stored": tree.map_root})
        self._check.check_notes(tree, place)

    def _replay_map(self, size: int, roots: dict[str, bytes]) -> None:
        replayed = self._maps.update(self._replay, size, self._changed)
        self._maps.prune(self._replay, size)
        self._changed.clear()
        for what, root in roots.items():
            if root != replayed:
                self._find("tree", f"tree {size}", f"the {what} map root is not that of a replay of its leaves")

    def _not_there(self, what: str, index: int, name: object) -> None:
        self._find("leaf", f"leaf {index}", f"{what} {_shown(name)} says that it stands there, and it does not")

    def _no_leaves(self, size: int) -> None:
        self._find("tree", f"tree {size}", "was signed, and its leaves do not end there")


class _Forgetful(dict[bytes, bytes]):
    """Keeps nothing: where no step was lost, no head is asked for, and memory stays flat."""

    def __setitem__(self, key: bytes, value: bytes) -> None:
        pass


class _Ahead:
    """Rows in ascending order of their first columns, of which those are taken that are asked for, in order too."""

    def __init__(self, rows: Iterator[Any], width: int, left: Callable[[Any], object]) -> None:
        self._rows, self._width, self._left = rows, width, left
        self._next = next(rows, None)

    def take(self, *wanted: int) -> Any:
        """The row that begins with these values, or None. Rows before it are left over, as nobody asked for them."""
        while self._next is not None and self._next[: self._width] < wanted:
            self._skip()
        if self._next is None or self._next[: self._width] != wanted:
            return None
        row, self._next = self._next, next(self._rows, None)
        return row

    def end(self) -> None:
        while self._next is not None:
            self._skip()

    def _skip(self) -> None:
        self._left(self._next)
        self._next = next(self._rows, None)


def _entry_leaf(name: bytes, seq: int, head: bytes, entry: bytes) -> bytes:
    return encode_leaf(EntryLeaf(name, seq, entry_hash(entry) if seq else head))


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


# -- the command ------------------------------------------------------------------------------------------------------


def main(directory: str, as_json: bool = False) -> int:
    """`nextcloud-audit fsck`: 0 where all is well, 1 with findings. What can't be opened at all raises."""
    log = open_log(directory)
    try:
        report = check_log(log.store, Keys(log.signer.verifier_key, log.witnesses, log.auditors), _show_progress)
    finally:
        log.store.close()
    if as_json:
        counts = {what: str(count) for what, count in report.counts.items()}
        findings = [finding._asdict() for finding in report.findings]
        print(json.dumps({"findings": findings, "total": str(report.total), "checked": counts}, indent=2))
    else:
        for finding in report.findings:
            print(finding)
        if report.total > len(report.findings):
            print(f"and {report.total - len(report.findings)} more")
        checked = ", ".join(f"{count} {what}" for what, count in report.counts.items())
        print(f"{directory}: {report.total or 'no'} finding{'s' * (report.total != 1)} ({checked})")
    return 1 if report.total else 0


def _show_progress(what: str, done: int, total: int) -> None:
    """A line that is written over, where somebody looks at it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}: {done} of {total}", end="" if done < total else "\r\x1b[K", file=sys.stderr, flush=True)
