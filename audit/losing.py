"""Nobody holds what a restored log lacks: it declares that lost, and goes on under a new origin (SPEC 6.5).

    nextcloud-audit recover --data DIR --declare-loss [--origin NAME]

    ask        every witness what it cosigned last, every auditor for a mirror; a node that has all leaves is named, and
               nothing is declared; what one has in part is taken first (`audit.recovery`)
    build      DIR/declaring/: a copy of log.db with the leaves logged again after leaf 0, new tiles and map, a new key,
               both policies with one more `log` line; `ready` is written last
    swap       DIR/log.db, log.key and policies go to DIR/before-N/, the new ones take their place

Until `ready` is there, nothing has happened, and the next run builds again. From then on the next run completes the
swap. Nothing is deleted: DIR/before-N is the old log as it was, whose key must never sign again.

The old note is the newest tree of all shown that has the witnesses' quorum; nodes that cosigned a newer one without a
quorum will not audit the new origin until their operators decide.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from audit.chains import FOLDER_SPEC
from audit.directory import (
    AUDITORS_FILE,
    DECLARED,
    KEY_FILE,
    NEXT_KEY_FILE,
    POLICY_FILE,
    POLICY_MODE,
    Directory,
    Random,
)
from audit.errors import AuditError, Fatal, PeerFailed, PeerLacks, Refused, TryLater
from audit.key_file import write_signer
from audit.mapstore import MapStore
from audit.peer_files import KINDS, changing
from audit.publisher import MARK_PREFIX, Signed, read_newest_signed
from audit.recovery import PROBED, Newest, Say, fetch_leaves, naming, rebuild
from audit.store import FILE_NAME, open_store
from audit.tile_reader import Fetch
from audit.tree import Tree, append_leaves, read_bundle
from audit.witness import hash_origin
from verifier.checkpoint import Checkpoint, format_checkpoint, open_checkpoint
from verifier.errors import Error, Malformed, NotVerified
from verifier.files import sync_directory_of, write_atomic
from verifier.keys import check_origin
from verifier.leaf import ENTRY, LOG_KEY, MAP, MapLeaf, encode_leaf
from verifier.loss import format_loss, loss_leaf, loss_message, parse_loss
from verifier.map import map_value
from verifier.merkle import extend_peaks, fold_right, leaf_hash
from verifier.note import (
    MAX_NOTE_SIZE,
    SIGNATURE,
    Note,
    Signature,
    SignerKey,
    VerifierKey,
    find_signature,
    format_note,
    parse_note,
    sign_note,
    verify_cosignature,
    verify_signature,
)
from verifier.policy import Policy, quorum_met
from verifier.proof import MAX_DECLARED, Declared
from verifier.replay import Tip, next_tip
from verifier.tile import ENTRIES, TILE_WIDTH, tile_width

BUILD, BEFORE = os.path.dirname(DECLARED), "before-"
PART = "declare.part"
MOVED = (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", KEY_FILE, NEXT_KEY_FILE, POLICY_FILE, AUDITORS_FILE)
LEAVES_AT_ONCE = 65_536
COMMITS_PER_PRUNE = 256

# The tables of the copy, all but those of the tree itself.
_EMPTIED = ("tiles", "bundles", "map_pages", "trees")


class Shown(NamedTuple):
    """What nodes show of this log."""

    trees: list[tuple[Checkpoint, Note]]
    mirrors: list[tuple[str, Checkpoint, bytes]]  # address of the mirror, its tree and note


class Lost(NamedTuple):
    """The declaration in the making: the note of the old origin, and the newest size that anybody has seen."""

    note: bytes
    tree: Checkpoint
    seen: int


class Declaration(NamedTuple):
    """What was declared."""

    old_origin: str
    origin: str
    key: VerifierKey
    note: Checkpoint
    kept: int
    size: int
    before: str


# -- asking ---------------------------------------------------------------------------------------------------------


async def ask(log: Directory, more: Iterable[str], without: Iterable[str], fetch: Fetch, say: Say) -> Shown:
    """What every node of the policies shows. One that does not answer may have it all, and one may say that it has what
    it does not give: a human alone passes it over, and then nothing of it counts.
    """
    name = hash_origin(log.store.origin)
    named = [w.url.rstrip("/") for policy in (log.witnesses, log.auditors) for w in policy.witnesses.values() if w.url]
    urls = list(dict.fromkeys([*named, *[url.rstrip("/") for url in more]]))
    skipped = {url.rstrip("/") for url in without}
    if unknown := skipped - set(urls):
        raise Refused(f"declare-loss: {min(unknown)} is no node of this log's policies")
    shown, silent = Shown([], []), []
    following = default_origin(log.store.origin, parse_loss(log.store.loss) if log.store.loss else [])
    for url in [url for url in urls if url not in skipped]:
        try:
            if await _knows(f"{url}/{hash_origin(following)}/checkpoint", fetch):
                raise Refused(
                    f"declare-loss: {url} knows {following} already, so this is a copy from before a loss that was "
                    f"declared. A second one would convict this log: put back a copy that goes on as {following}"
                )
            for path in (f"{url}/{name}/checkpoint", f"{url}/mirror/{name}"):
                await _look(log, path, fetch, shown)
        except Refused:
            raise
        except (AuditError, Error) as error:
            say(naming(url, error))
            silent.append(url)
    if silent:
        raise Refused(
            f"declare-loss: {', '.join(silent)} did not answer, and may have what is missing; if it never will, say "
            "`--without URL` for each"
        )
    return shown


async def _knows(path: str, fetch: Fetch) -> bool:
    """[R] Whether there is a successor of this origin: who declares a loss twice over one note is convicted by it."""
    try:
        await fetch(path, MAX_NOTE_SIZE)
    except PeerLacks:
        return False
    return True


async def _look(log: Directory, path: str, fetch: Fetch, shown: Shown) -> None:
    mirror = not path.endswith("/checkpoint")
    try:
        data = await fetch(f"{path}/checkpoint" if mirror else path, MAX_NOTE_SIZE)
    except PeerLacks:
        return
    note, tree = open_checkpoint(data, *log.log_keys)
    if tree.origin != log.store.origin:
        raise PeerFailed(f"{path}: shows {tree.origin!r}")
    shown.trees.append((tree, note))
    if mirror:
        shown.mirrors.append((path, tree, data))


def find_lost(log: Directory, shown: Shown) -> Lost:
    """[R] The newest tree with the witnesses' quorum, once somebody shows one that we do not have."""
    with log.store.snapshot() as conn:
        ours = read_newest_signed(conn)
        rows = [bytes(row[0]) for row in conn.execute("SELECT newest_note FROM trees WHERE first_note IS NOT NULL")]
    size = ours.size if ours else 0
    seen = max([tree.size for tree, _ in shown.trees], default=0)
    if seen <= size:
        raise Refused(f"declare-loss: nothing is lost: this store has size {size}, and no node shows a bigger tree")
    notes = [
        *shown.trees,
        *[(checkpoint, note) for note, checkpoint in (open_checkpoint(r, *log.log_keys) for r in rows)],
    ]
    roots: dict[int, bytes] = {}
    for tree, _ in notes:
        if roots.setdefault(tree.size, tree.root) != tree.root:
            raise Refused(f"declare-loss: two trees of size {tree.size} were signed with this log's key: a fork")
    for tree in sorted({tree for tree, _ in notes}, key=lambda tree: -tree.size):
        note = _merge([note for other, note in notes if other == tree], log)
        if _has_quorum(note, log.witnesses):
            return Lost(format_note(note), tree, seen)
    raise Refused("declare-loss: no tree of this log is shown with the quorum of its witnesses: ask more of them")


def _merge(notes: list[Note], log: Directory) -> Note:
    """One note with the lines of the log and of known cosigners, as far as they hold."""
    cosigners = [witness.key for policy in (log.witnesses, log.auditors) for witness in policy.witnesses.values()]
    keys = {(key.name, key.key_id): key for key in (*log.log_keys, *cosigners)}
    kept: dict[VerifierKey, Signature] = {}
    for note in notes:
        for line in note.signatures:
            key = keys.get((line.name, line.key_id))
            if key is not None and key not in kept and _holds(Note(note.text, (line,)), key):
                kept[key] = line
    return Note(notes[0].text, tuple(kept.values()))


def _holds(note: Note, key: VerifierKey) -> bool:
    try:
        (verify_signature if key.algorithm == SIGNATURE else verify_cosignature)(note, key)
    except (Malformed, NotVerified):
        return False
    return True


def _has_quorum(note: Note, policy: Policy) -> bool:
    signed = [name for name, witness in policy.witnesses.items() if find_signature(note, witness.key) is not None]
    return quorum_met(policy, dict.fromkeys(signed, 1))


async def take_what_is_left(log: Directory, shown: Shown, lost: Lost, fetch: Fetch, now: int, say: Say) -> int:
    """[R] A mirror that has it all ends this; the one that has most of the rest gives it first. Returns our size.

    What a mirror says that it has is its word: where it does not give that, the next one is asked.
    """
    with log.store.snapshot() as conn:
        ours = read_newest_signed(conn)
    size, failed = ours.size if ours else 0, []
    for url, tree, note in sorted(shown.mirrors, key=lambda one: -one[1].size):
        node = url.partition("/mirror/")[0]
        if tree.size >= lost.seen:
            raise Refused(
                f"declare-loss: nothing is lost: {node} has every leaf; run `recover --from {node}`, and where it does "
                f"not give them, say `--without {node}`"
            )
        if tree.size > size:
            say(f"{url}: has leaves up to {tree.size}, which are taken")
            try:
                await _take(log, url, Newest(tree, [note], tree.size), fetch, size, now, say)
                size = tree.size
            except (Refused, PeerFailed) as error:
                say(naming(url, error))
                failed.append((tree.size, node))
    if missed := [node for claimed, node in failed if claimed > size]:
        raise Refused(
            f"declare-loss: {', '.join(missed)} did not give the leaves that it shows; try again later, and if it "
            "never will, say `--without URL` for each"
        )
    return size


async def _take(log: Directory, url: str, newest: Newest, fetch: Fetch, size: int, now: int, say: Say) -> None:
    part = os.path.join(log.path, PART)
    leaves = await fetch_leaves(part, url, fetch, size, newest.checkpoint, say)
    try:
        rebuild(log, newest, leaves, now)
    finally:
        os.unlink(part)  # taken, or the wrong ones


# -- building -------------------------------------------------------------------------------------------------------


def default_origin(old: str, declared: Sequence[Declared]) -> str:
    """NAME/2, and after that NAME/3."""
    return f"{old.removesuffix(f'/{len(declared) + 1}') if declared else old}/{len(declared) + 2}"


def declare(log: Directory, lost: Lost, origin: str, now: int, random: Random, say: Say) -> Declaration:
    """Builds the new log beside the old one and swaps them. The caller holds the directory's lock."""
    check_origin(origin)
    earlier = parse_loss(log.store.loss) if log.store.loss else []
    taken = {log.store.origin, *[open_checkpoint(one.note, *log.witnesses.log_keys)[1].origin for one in earlier]}
    if origin in taken:
        raise Refused(f"origin: {origin} is one that this log has had; a new one is wanted")
    if len(earlier) >= MAX_DECLARED:
        raise Refused(f"declare-loss: this log has done so {MAX_DECLARED} times, which is all that a proof can show")
    before = os.path.join(log.path, f"{BEFORE}{len(earlier) + 1}")
    if os.path.lexists(before):
        raise Refused(f"declare-loss: {before} is in the way, and is not overwritten: move it away")
    old = next((signer for signer in (log.signer, log.next_signer) if signer and _signed(signer, lost.note)), None)
    if old is None:
        raise Refused("declare-loss: the log's key did not sign its last cosigned note: bring back the key that did")
    build = os.path.join(log.path, BUILD)
    shutil.rmtree(build, ignore_errors=True)  # of a run that was cut short before `ready`
    os.mkdir(build, 0o700)
    signer = SignerKey(origin, SIGNATURE, random(32))
    key = signer.verifier_key.public_key
    with log.store.snapshot() as conn:
        ours = read_newest_signed(conn)
    kept = ours.size if ours else 0
    word = old.sign(loss_message(origin, key, kept, lost.note))
    declared = [Declared(lost.note, key, kept, word), *earlier]
    try:
        size = _copy(log, os.path.join(build, FILE_NAME), declared, signer, now, lost.seen, say)
    except sqlite3.Error as error:
        raise TryLater(f"declare-loss: {error}: nothing was declared") from None
    _write_policies(log, build, signer.verifier_key)
    write_signer(os.path.join(build, KEY_FILE), signer)
    write_atomic(os.path.join(log.path, DECLARED), f"{BEFORE}{len(declared)}\n".encode("ascii"))
    return Declaration(log.store.origin, origin, signer.verifier_key, lost.tree, kept, size, before)


def _signed(signer: SignerKey, note: bytes) -> bool:
    return find_signature(parse_note(note), signer.verifier_key) is not None


def is_ready(directory: str) -> bool:
    """Whether a log was built here, and has not taken its place yet."""
    return os.path.exists(os.path.join(directory, DECLARED))


def swap(directory: str) -> str:
    """Moves the old log aside and the new one in. Run again, it goes on where it was. Returns where the old one is."""
    build = os.path.join(directory, BUILD)
    with open(os.path.join(directory, DECLARED), encoding="ascii") as file:
        before = os.path.join(directory, file.read().strip())
    os.makedirs(before, 0o700, exist_ok=True)
    for name in MOVED:
        new, here, aside = (os.path.join(folder, name) for folder in (build, directory, before))
        if os.path.lexists(here) and not os.path.lexists(aside) and (os.path.lexists(new) or not _is_new(name)):
            os.rename(here, aside)
    sync_directory_of(os.path.join(before, FILE_NAME))
    for name in MOVED:
        if os.path.lexists(os.path.join(build, name)):
            os.rename(os.path.join(build, name), os.path.join(directory, name))
    sync_directory_of(os.path.join(directory, FILE_NAME))
    shutil.rmtree(build)
    return before


def _is_new(name: str) -> bool:
    """Whether the new log has a file of this name."""
    return name in (FILE_NAME, KEY_FILE, POLICY_FILE, AUDITORS_FILE)


def _write_policies(log: Directory, build: str, key: VerifierKey) -> None:
    with changing(log.path) as files:
        made = files.with_log(key)
    for (name, _), data in zip(KINDS, made, strict=True):
        write_atomic(os.path.join(build, name), data, POLICY_MODE)


def _copy(
    log: Directory, path: str, declared: list[Declared], signer: SignerKey, now: int, lost_size: int, say: Say
) -> int:
    """The new log.db: all that the old one knows, and its leaves again behind leaf 0. Returns the new size."""
    with log.store.snapshot() as conn:
        ours = read_newest_signed(conn)
    size = declared[0].kept
    if size and Tree().root(log.store.reader(), size) != (ours.root if ours else b""):
        raise Fatal(f"tree on disk is not the one that was signed at size {size}: run `fsck`")
    log.store.checkpoint_wal()
    with closing(sqlite3.connect(log.store.path)) as source:
        source.execute("VACUUM INTO ?", (path,))
    os.chmod(path, 0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute("BEGIN IMMEDIATE")
        for name in _EMPTIED:
            conn.execute(f"DELETE FROM {name}")  # noqa: S608  # a constant
        begun_lost = log.store.loss is not None  # then leaf 0 says so, and is not logged again
        survivors = _leaves_of(log, size, int(begun_lost))
        total, map_root = relog(conn, loss_leaf(declared), survivors, say)
        _move_indexes(conn, 0 if begun_lost else 1)
        root = Tree().root(conn, total)
        text = format_checkpoint(Checkpoint(signer.verifier_key.name, total, root))
        note = format_note(Note(text, (sign_note(text, signer),)))
        row = Signed(total, root, map_root, now, note, None, note, 0, None)
        conn.execute(f"INSERT INTO trees VALUES ({','.join('?' * len(row))})", row)  # noqa: S608
        # [R] An id of a folder's file is never used again: each lost leaf may have begun the chain of one.
        skipped = max(lost_size - size, 0) + PROBED
        conn.execute(
            "UPDATE sources SET next_file_id = next_file_id + ? WHERE spec LIKE ?", (skipped, f"{FOLDER_SPEC}%")
        )
        conn.execute("DELETE FROM pending WHERE substr(leaf, 1, 1) = ?", (bytes([LOG_KEY]),))
        conn.execute("DELETE FROM meta WHERE key IN ('log_keys', 'loss') OR key LIKE ?", (f"{MARK_PREFIX}%",))
        conn.execute("UPDATE meta SET value = ? WHERE key = 'origin'", (signer.verifier_key.name.encode("utf-8"),))
        conn.execute("INSERT INTO meta (key, value) VALUES ('loss', ?)", (format_loss(declared),))
        conn.execute("COMMIT")
    open_store(os.path.dirname(path)).close()  # what does not open is not swapped in
    return total


def _leaves_of(log: Directory, size: int, start: int = 0) -> Iterator[bytes]:
    """The leaves start..size-1 of the old tree. [R] One that changed on disk would convict this log (SPEC 9.1)."""
    reader, peaks = log.store.reader(), list[bytes]()
    for number in range(-(-size // TILE_WIDTH)):
        leaves = read_bundle(reader, number, tile_width(ENTRIES, number, size))
        peaks = extend_peaks(peaks, number * TILE_WIDTH, [leaf_hash(leaf) for leaf in leaves])
        yield from leaves[start:] if number == 0 else leaves
    if fold_right(peaks) != Tree().root(reader, size):
        raise Fatal("leaves on disk are not those that were signed: run `fsck`")


def relog(conn: sqlite3.Connection, first: bytes, leaves: Iterable[bytes], say: Say) -> tuple[int, bytes]:
    """Writes tiles, bundles and map: leaf 0, then these, each map commitment made anew. Returns size and map root."""
    maps = MapStore()
    tips: dict[bytes, Tip] = {}
    fresh: set[bytes] = set()
    chunk, start, commits, root = [first], 0, 0, b""
    for leaf in _with_end(leaves):
        index = start + len(chunk)
        if leaf[0] == MAP:
            root = maps.update(conn, index + 1, {chain: map_value(*tips[chain]) for chain in fresh})
            fresh.clear()
            leaf = encode_leaf(MapLeaf(root))
            commits += 1
            if commits % COMMITS_PER_PRUNE == 0:
                maps.prune(conn, index + 1)
        elif leaf[0] == ENTRY:
            chain = leaf[1:33]
            tips[chain] = next_tip(tips.get(chain), index, leaf)
            fresh.add(chain)
        chunk.append(leaf)
        if len(chunk) >= LEAVES_AT_ONCE:
            append_leaves(conn, start, chunk)
            start, chunk = start + len(chunk), []
            say(f"leaves: {start} logged again")
    append_leaves(conn, start, chunk)
    size = start + len(chunk)
    maps.prune(conn, size)
    return size, root


def _with_end(leaves: Iterable[bytes]) -> Iterator[bytes]:
    """The leaves, which end with a map commitment; of a log that has kept nothing, that alone."""
    leaf = b""
    for leaf in leaves:
        yield leaf
    if leaf[:1] != bytes([MAP]):
        yield encode_leaf(MapLeaf(bytes(32)))


def _move_indexes(conn: sqlite3.Connection, shift: int) -> None:
    """Every row that names a leaf names its new place."""
    if not shift:
        return
    conn.execute("UPDATE entries SET leaf_index = leaf_index + 1 WHERE leaf_index IS NOT NULL")
    conn.execute("UPDATE owners SET enrolled_index = enrolled_index + 1 WHERE enrolled_index IS NOT NULL")
    conn.execute("UPDATE lost_leaves SET leaf_index = -leaf_index - 1")  # two steps: it is a key
    conn.execute("UPDATE lost_leaves SET leaf_index = -leaf_index")
