"""The map of SPEC 6 on disk: every published version, in pages of four levels, copied on write.

    store = MapStore()                                       one per process, shared by its threads
    root = store.update(conn, 17, {chain_id: value_hash})    inside the caller's transaction
    value_hash, siblings, terminal = store.prove(conn, chain_id, 17)

The pages are those of `audit.map_page`, each under its prefix and the version that wrote it. An update writes the
pages that changed, and always the root page: the retained versions are the versions of root rows. A parent names its
child's version and hash, so a cached page is right for every version of the map that refers to it, even where a
transaction was rolled back.

A page that comes from disk is checked once: decoded, hashed again from its slots, encoded, compared with its bytes
and with the hash in its reference. A damaged row raises MapDamaged and never gets into a proof. The root page can
only be checked against itself: whoever signs compares the root with the map commitment.

Connections are raw `sqlite3` ones, transactions are the caller's. Where `prune` may run at the same time, the reads
of one proof belong into one read transaction. Rows grow to about 1.5 KiB. The table keeps its rowid: new rows then
go to the end of the file instead of dirtying a database page each, and a commit is several times faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from sqlite3 import Connection
from typing import NamedTuple

from audit.cache import Cache
from audit.errors import AuditError, Damaged, Fatal
from audit.map_page import (
    LEAF_SIZE,
    NO_PAGE,
    REF_SIZE,
    SLOT0,
    TOP,
    Node,
    check_page,
    decode_page,
    descend,
    digits_of,
    encode_page,
    fold_page,
    hash_node,
    nibble,
)
from verifier.encoding import HASH_SIZE, MAX_U64, u64
from verifier.errors import Malformed

# What this module relies on. The schema itself declares the same table.
CREATE_MAP_PAGES = (
    "CREATE TABLE map_pages (prefix BLOB NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY (prefix, version))"
)

CACHE_BYTES = 32 * 2**20  # holds every page of a map of about 100,000 keys
WRITE_BATCH = 500  # pages for each executemany, at most 0.8 MiB


class MapError(AuditError):
    """Base of what a map store refuses."""


class MapDamaged(MapError, Fatal):
    """A page is missing, or is not what was written. `prefix` and `version` name its row."""

    def __init__(self, what: str, prefix: bytes, version: int) -> None:
        super().__init__(f"map page {digits_of(prefix) or 'root'} at version {version}: {what}")
        self.prefix, self.version = prefix, version


class NotRetained(MapError):
    """There is no map at this version: before the first one, or pruned."""


class OutOfOrder(MapError):
    """An update whose version is not above the newest one."""


class MapProof(NamedTuple):
    """What `verify_presence` takes, or `verify_absence` where value_hash is None; siblings deepest first."""

    value_hash: bytes | None
    siblings: list[bytes]
    terminal: tuple[bytes, bytes] | None


class MapStore:
    """Updates, proofs and checks over a `map_pages` table. One store belongs to one database."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._pages = Cache(cache_bytes)  # reference -> page
        self._roots = Cache(cache_bytes // 16)  # root page -> root, as nothing refers to a root page

    def root(self, conn: Connection, version: int) -> bytes:
        """The root of the newest map whose version is not above `version`."""
        return self._load_root(conn, version)[1]

    def prove(self, conn: Connection, key: bytes, version: int) -> MapProof:
        """The one proof that the map at `version` gives for `key`, present or absent."""
        _check_size(key, "map key")
        page, _ = self._load_root(conn, version)
        siblings: list[bytes] = []  # the root's side first, until the end is reached
        depth = 0
        while (node := descend(page, nibble(key, depth), siblings)) is not None and len(node) == REF_SIZE:
            depth += 1
            page = self._pages.get(node) or self._load(conn, _prefix(key, depth), node)
        siblings.reverse()
        if node is None:
            return MapProof(None, siblings, None)
        found, value_hash = node[:HASH_SIZE], node[HASH_SIZE:]
        return MapProof(value_hash, siblings, None) if found == key else MapProof(None, siblings, (found, value_hash))

    def update(self, conn: Connection, version: int, updates: Mapping[bytes, bytes]) -> bytes:
        """Writes the changed pages under `version` and returns the new root. Keys are never removed."""
        row = _root_row(conn, MAX_U64)
        if row is not None and version <= row[0]:
            raise OutOfOrder(f"map version: got {version}, want above {row[0]}")
        for key, value_hash in updates.items():
            _check_size(key, "map key")
            _check_size(value_hash, "map value")
        nodes = decode_page(self._load_root(conn, row[0])[0] if row else NO_PAGE, 0)
        return _Update(self, conn, version).write_root(nodes, [key + updates[key] for key in sorted(updates)])

    def prune(self, conn: Connection, keep_from: int) -> int:
        """Deletes the rows that no version from `keep_from` on can see, and returns how many.

        It visits only what changed after the oldest retained version: a page that is not younger has no row
        before it, as the prune that made that version the oldest has deleted it.
        """
        row = _root_row(conn, keep_from)
        if row is None:
            return 0
        oldest: int = conn.execute("SELECT min(version) FROM map_pages WHERE prefix = x''").fetchone()[0]
        deleted, todo = _delete_below(conn, b"", row[0]), _children(b"", self._load_root(conn, row[0])[0])
        while todo:
            prefix, ref = todo.pop()
            if _version(ref) > oldest:
                deleted += _delete_below(conn, prefix, _version(ref))
                todo += _children(prefix, self._load(conn, prefix, ref))
        return deleted

    def items(self, conn: Connection, version: int) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its value hash at `version`, in key order; each page is read from disk and checked."""
        row = _require_root_row(conn, version)
        _checked(row[1], b"", row[0])
        return _walk(conn, b"", row[1])

    def check(self, conn: Connection, version: int, checked: int | None = None) -> bytes:
        """Returns the root at `version` once every page below it was read from disk and hashed again.

        Pages that it shares with the version `checked`, which was checked before, are not read twice.
        """
        row = _require_root_row(conn, version)
        root = hash_node(_checked(row[1], b"", row[0])[1])
        _check_children(conn, b"", row[1], NO_PAGE if checked is None else _require_root_row(conn, checked)[1])
        return root

    def versions(self, conn: Connection) -> list[int]:
        """The retained versions, oldest first."""
        return [row[0] for row in conn.execute("SELECT version FROM map_pages WHERE prefix = x'' ORDER BY version")]

    def _load_root(self, conn: Connection, version: int) -> tuple[bytes, bytes]:
        """(root page, root). The row is read every time: it alone knows what is committed and retained."""
        row = _require_root_row(conn, version)
        root = self._roots.get(row[1])
        if root is None:
            root = hash_node(_checked(row[1], b"", row[0])[1])
            self._roots.put(row[1], root)
        return row[1], root

    def _load(self, conn: Connection, prefix: bytes, ref: bytes) -> bytes:
        """The child page that `ref` names, from the cache or the disk."""
        page = self._pages.get(ref)
        if page is None:
            page = _read(conn, prefix, ref)
            self._pages.put(ref, page)
        return page


class _Update:
    """One update on its way down and back: rewrites pages, children before their parents."""

    def __init__(self, store: MapStore, conn: Connection, version: int) -> None:
        self._store, self._conn, self._version, self._suffix = store, conn, version, u64(version)
        self._rows: list[tuple[bytes, int, bytes]] = []

    def write_root(self, nodes: list[Node], leaves: list[bytes]) -> bytes:
        fold_page(nodes, self._place(nodes, b"", leaves) | TOP)
        page, root = encode_page(nodes), hash_node(nodes[1])
        self._add(b"", page)
        self._flush()
        self._store._roots.put(page, root)
        return root

    def _write_page(self, prefix: bytes, ref: Node, leaves: list[bytes]) -> Node:
        """The reference to the page of `prefix` after the change: `ref` itself where nothing changed."""
        nodes = decode_page(self._store._load(self._conn, prefix, ref) if ref else NO_PAGE, len(prefix))
        changed = self._place(nodes, prefix, leaves)
        if not changed:
            return ref
        fold_page(nodes, changed)
        page, ref = encode_page(nodes), hash_node(nodes[1]) + self._suffix
        self._add(prefix, page)
        self._store._pages.put(ref, page)
        return ref

    def _place(self, nodes: list[Node], prefix: bytes, leaves: list[bytes]) -> int:
        """Puts leaves into the slots of a page; returns the bitmap of the slots that changed."""
        changed = 0
        for digit, group in _by_nibble(leaves, len(prefix)).items():
            slot = SLOT0 + digit
            old = nodes[slot]
            new = self._place_slot(old, prefix + bytes((digit,)), group)
            if new != old:
                nodes[slot] = new
                changed |= 1 << slot
        return changed

    def _place_slot(self, old: Node, prefix: bytes, leaves: list[bytes]) -> Node:
        if old is not None and len(old) == REF_SIZE:
            return self._write_page(prefix, old, leaves)
        if old is not None and all(leaf[:HASH_SIZE] != old[:HASH_SIZE] for leaf in leaves):
            leaves = [*leaves, old]
        return leaves[0] if len(leaves) == 1 else self._write_page(prefix, None, leaves)

    def _add(self, prefix: bytes, page: bytes) -> None:
        self._rows.append((prefix, self._version, page))
        if len(self._rows) >= WRITE_BATCH:
            self._flush()

    def _flush(self) -> None:
        self._conn.executemany("INSERT INTO map_pages (prefix, version, data) VALUES (?, ?, ?)", self._rows)
        self._rows.clear()


# Rows


def _root_row(conn: Connection, version: int) -> tuple[int, bytes] | None:
    row: tuple[int, bytes] | None = conn.execute(
        "SELECT version, data FROM map_pages WHERE prefix = x'' AND version <= ? ORDER BY version DESC LIMIT 1",
        (version,),
    ).fetchone()
    return row


def _require_root_row(conn: Connection, version: int) -> tuple[int, bytes]:
    row = _root_row(conn, version)
    if row is None:
        raise NotRetained(f"map version: got {version}, and no map is retained at or below it")
    return row


def _read(conn: Connection, prefix: bytes, ref: bytes) -> bytes:
    """The page that `ref` names, from disk, checked against the hash in `ref`."""
    version = _version(ref)
    sql = "SELECT data FROM map_pages WHERE prefix = ? AND version = ?"
    row = conn.execute(sql, (prefix, version)).fetchone()
    if row is None:
        raise MapDamaged("missing", prefix, version)
    if _checked(row[0], prefix, version)[1] != ref[:HASH_SIZE]:
        raise MapDamaged("does not have the hash that its parent names", prefix, version)
    page: bytes = row[0]
    return page


def _checked(page: object, prefix: bytes, version: int) -> list[Node]:
    try:
        return check_page(page, prefix)
    except Damaged as error:
        raise MapDamaged(str(error), prefix, version) from None


def _delete_below(conn: Connection, prefix: bytes, version: int) -> int:
    return conn.execute("DELETE FROM map_pages WHERE prefix = ? AND version < ?", (prefix, version)).rowcount


def _walk(conn: Connection, prefix: bytes, page: bytes) -> Iterator[tuple[bytes, bytes]]:
    for slot, node in enumerate(decode_page(page, len(prefix))[SLOT0:]):
        if node is None:
            continue
        if len(node) == LEAF_SIZE:
            yield node[:HASH_SIZE], node[HASH_SIZE:]
        else:
            child = prefix + bytes((slot,))
            yield from _walk(conn, child, _read(conn, child, node))


def _check_children(conn: Connection, prefix: bytes, page: bytes, checked: bytes) -> None:
    """Reads and checks every page below `page`, but for those that the page `checked` at this place refers to too."""
    known = dict(_children(prefix, checked))
    for child, ref in _children(prefix, page):
        before = known.get(child)
        if before != ref:
            _check_children(conn, child, _read(conn, child, ref), _read(conn, child, before) if before else NO_PAGE)


def _children(prefix: bytes, page: bytes) -> list[tuple[bytes, bytes]]:
    slots = enumerate(decode_page(page, len(prefix))[SLOT0:])
    return [(prefix + bytes((slot,)), node) for slot, node in slots if node is not None and len(node) == REF_SIZE]


def _by_nibble(leaves: Iterable[bytes], depth: int) -> dict[int, list[bytes]]:
    groups: dict[int, list[bytes]] = {}
    for leaf in leaves:
        groups.setdefault(nibble(leaf, depth), []).append(leaf)
    return groups


def _prefix(key: bytes, depth: int) -> bytes:
    return bytes(nibble(key, i) for i in range(depth))


def _version(ref: bytes) -> int:
    return int.from_bytes(ref[HASH_SIZE:], "big")


def _check_size(value: bytes, where: str) -> None:
    if type(value) is not bytes or len(value) != HASH_SIZE:
        raise Malformed(f"want {HASH_SIZE} bytes", where, value)
