"""What a signer must never forget: DIR/witness.db, one SQLite file, keyed by origin (SPEC 8).

    create_store(path, names)                  once, beside new keys; refuses where the file exists
    store = open_store(path, names)            refuses where it does not, or where it is another key's
    store.allow_log(key, url)                  which logs are watched; a log is never removed, nor is a key of it
    store.allow_log(key, url, rotates=True)    one more key of a watched log, whose memory stays the one of its origin
    store.trust_only(key)                      of its keys, this one alone signs what is cosigned from now on
    store.advance(WITNESS, origin, request, now, decide)

    heads      signer, origin -> size, root, time, note       what witness and auditor cosigned last
    evidence   refused requests that the log signed, with the note that they speak against
    halts      logs for which the auditor found something: nothing is signed until an operator decides

`advance` is one transaction: it reads the head, asks `decide`, and writes the new head or the evidence. The answer
is returned after COMMIT (WAL, synchronous=FULL: one fsync). A crash before COMMIT leaves the old head and no answer;
one after it leaves the new head, for which the same request gets a fresh cosignature of the same tree.

Nothing is cached, so every decision rests on what is committed. An error of the disk makes the outcome of a COMMIT
unknown: the store closes itself and raises Fatal from then on, and opening it again is the recovery.

A node whose own cosignature turns up for more than this file knows has an older copy of it: it is retired (a row in
`meta`), and nothing is signed with either key again. An origin that has a successor (`audit.succession`, a row in
`meta`) is signed for by neither.

Keep this file out of every backup that may be restored: an older copy lets the key sign a second history. Whoever
loses it makes a new node with new keys. Evidence is bounded, MAX_EVIDENCE rows of each kind for each log and signer;
the first ones are kept, so no flood removes any. Anybody can spoil the proof of a log's honest checkpoint and fill that
up, so rows that prove something by themselves (`proves`) have as many places again, and take the place of a row for
the same checkpoint that does not.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import MetaData, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from audit.errors import Fatal, TryLater
from audit.schema import create_tables
from audit.witness import CONSISTENCY, Decision, Ended, Head, Inconsistent, OutOfStep, Retired, hash_origin
from verifier.errors import Usage
from verifier.note import VerifierKey, find_signature, format_vkey, parse_note, parse_vkey

SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 5000  # another process of the same node, such as the command line, holds the lock for less
MAX_EVIDENCE = 256
MAX_LOG_KEYS = 16  # of one origin; a log changes its key once in years
REPLACED = "+"  # in front of a vkey that signs no more; no vkey starts like this, since no name is empty

WITNESS = "witness"
AUDITOR = "auditor"


class Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of this file's tables, apart from those of every other database."""


class MetaRow(Table, table=True):
    __tablename__ = "meta"
    key: str = Field(primary_key=True)
    value: str


class LogRow(Table, table=True):
    __tablename__ = "logs"
    origin: str = Field(primary_key=True)
    vkey: str  # several with a space between, the first one first, once the log has a new key; REPLACED before some
    url: str


class HeadRow(Table, table=True):
    __tablename__ = "heads"
    signer: str = Field(primary_key=True)
    origin: str = Field(primary_key=True)
    size: int
    root: bytes
    time: int
    note: bytes


class EvidenceRow(Table, table=True):
    __tablename__ = "evidence"
    __table_args__ = (UniqueConstraint("signer", "origin", "kind", "digest"),)
    id: int | None = Field(default=None, primary_key=True)
    signer: str
    origin: str
    kind: str
    digest: bytes  # SHA-256 of the refused checkpoint's text
    request: bytes
    known_note: bytes
    detail: str
    time: int


class HaltRow(Table, table=True):
    __tablename__ = "halts"
    origin: str = Field(primary_key=True)
    reason: str
    time: int


class Log(NamedTuple):
    """A watched log. `url` is empty where its leaves are not mirrored.

    `keys` have signed what is known of it; `signers` are those of them whose signature gets a cosignature.
    """

    keys: tuple[VerifierKey, ...]
    url: str
    signers: tuple[VerifierKey, ...]

    @property
    def origin(self) -> str:
        return self.keys[0].name


class Offence(NamedTuple):
    """What is kept of a refused request: its bytes, and the checkpoint's text that makes it the same one again."""

    request: bytes
    text: bytes


class Halt(NamedTuple):
    """A log for which the auditor found something: the finding in words, and when."""

    origin: str
    reason: str
    time: int


class Evidence(NamedTuple):
    signer: str
    origin: str
    kind: str
    request: bytes
    known_note: bytes
    detail: str
    time: int


_READ_EVIDENCE = "SELECT signer, origin, kind, request, known_note, detail, time FROM evidence"
_READ_SAME = f"{_READ_EVIDENCE} WHERE signer = ? AND origin = ? AND kind = ? AND digest = ?"
_DROP_SAME = "DELETE FROM evidence WHERE signer = ? AND origin = ? AND kind = ? AND digest = ?"

Decide = Callable[[Head | None, int], Decision]
Offending = OutOfStep | Inconsistent


def create_store(path: Path, vkeys: dict[str, str]) -> None:
    """An empty store for these keys (signer -> vkey). Only whoever makes the keys calls this."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise Usage(f"{path} exists: a signer's memory is never replaced") from None
    conn = connect(path)
    conn.execute("BEGIN IMMEDIATE")
    create_tables(conn, Table.metadata)
    rows = {"schema_version": str(SCHEMA_VERSION), **vkeys}
    conn.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", rows.items())
    conn.execute("COMMIT")
    conn.close()


def open_store(
    path: Path,
    vkeys: dict[str, str],
    factory: type[sqlite3.Connection] = sqlite3.Connection,
    proves: Callable[[Evidence], bool] = lambda row: False,
) -> Store:
    """The store that was created for exactly these keys."""
    if not path.is_file():
        raise Usage(f"{path} is missing: a signer without its memory may sign a fork; make a new node with new keys")
    conn = connect(path, factory)
    found = dict(
        conn.execute(
            "SELECT key, value FROM meta WHERE key <> 'retired' AND key NOT LIKE 'successor %'"
            " AND key NOT LIKE 'declaration %'"
        )
    )
    if found.pop("schema_version", None) != str(SCHEMA_VERSION) or found != vkeys:
        conn.close()
        raise Usage(f"{path}: made by another version of this program, or for other keys")
    return Store(conn, proves)


def connect(
    path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection, page_size: int = 4096
) -> sqlite3.Connection:
    """A connection on which every COMMIT is on disk when it returns. Never creates a file, but an empty one's pages."""
    uri = path.resolve().as_uri() + "?mode=rw"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=factory)
    pages, waits = f"page_size={page_size}", f"busy_timeout={BUSY_TIMEOUT_MS}"
    for pragma in (pages, "journal_mode=WAL", "synchronous=FULL", waits, "foreign_keys=ON"):
        conn.execute(f"PRAGMA {pragma}").fetchall()
    return conn


def _log_of(vkeys: str, url: str) -> Log:
    words = vkeys.split(" ")
    keys = tuple([parse_vkey(word.removeprefix(REPLACED)) for word in words])
    return Log(keys, url, tuple([key for key, word in zip(keys, words, strict=True) if word[0] != REPLACED]))


class Store:
    """An open store. Used from one thread at a time; other processes are kept out by transactions."""

    def __init__(self, conn: sqlite3.Connection, proves: Callable[[Evidence], bool]) -> None:
        self._conn: sqlite3.Connection | None = conn
        self._proves = proves

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    # Logs

    def allow_log(self, key: VerifierKey, url: str, rotates: bool = False) -> None:
        """Watch this log. Saying it again is fine, with another url too; another key for its origin needs `rotates`.

        Without a url the one that is known stays: what is replayed goes on being replayed.

        [R] Heads are kept by origin: whatever key signs, there is one history for this node to cosign.
        """
        with self._transaction() as conn:
            row = conn.execute("SELECT vkey, url FROM logs WHERE origin = ?", (key.name,)).fetchone()
            known = row[0].split(" ") if row else []
            if REPLACED + format_vkey(key) in known:
                raise Usage(f"log {key.name}: this key was replaced (`--only`), and never signs for it again")
            if rotates and not known:
                raise Usage(f"log {key.name}: is not watched here, so it has no key that another one may follow")
            if known and not rotates and format_vkey(key) not in known:
                raise Usage(
                    f"log {key.name}: got another key, want {row[0]}; if its operator has told you of a new one, say "
                    "`--rotates`"
                )
            vkeys = known if format_vkey(key) in known else [*known, format_vkey(key)]
            if len(vkeys) > MAX_LOG_KEYS:
                raise Usage(f"log {key.name}: has {MAX_LOG_KEYS} keys already")
            sql = "INSERT OR REPLACE INTO logs (origin, vkey, url) VALUES (?, ?, ?)"
            conn.execute(sql, (key.name, " ".join(vkeys), url or (row[1] if row else "")))

    def trust_only(self, key: VerifierKey) -> None:
        """[R] Whoever steals a key that was replaced gets nothing cosigned with it. What it signed stays readable.

        Only once our own memory of the log has a line of this key: then nothing that is under way needs another one.
        """
        with self._transaction() as conn:
            rows = self._read("SELECT vkey, url FROM logs WHERE origin = ?", key.name)
            if not rows or key not in _log_of(*rows[0]).signers:
                raise Usage(f"log {key.name}: this is none of the keys that it is watched by; `--rotates` adds one")
            notes = self._read("SELECT note FROM heads WHERE origin = ?", key.name)
            if not notes or any(find_signature(parse_note(bytes(note)), key) is None for (note,) in notes):
                raise Usage(
                    f"log {key.name}: what was cosigned last here has no signature of this key yet; it will once the "
                    "log has published a tree with it"
                )
            words = [word.removeprefix(REPLACED) for word in rows[0][0].split(" ")]
            vkeys = " ".join([word if word == format_vkey(key) else REPLACED + word for word in words])
            conn.execute("UPDATE logs SET vkey = ? WHERE origin = ?", (vkeys, key.name))

    def log(self, origin: str) -> Log | None:
        row = self._read("SELECT vkey, url FROM logs WHERE origin = ?", origin)
        return _log_of(*row[0]) if row else None

    def logs(self) -> list[Log]:
        return [_log_of(vkeys, url) for vkeys, url in self._read("SELECT vkey, url FROM logs ORDER BY origin")]

    # Heads

    def head(self, signer: str, origin: str) -> Head | None:
        """What this signer cosigned last for this log."""
        rows = self._read("SELECT size, root, time, note FROM heads WHERE signer = ? AND origin = ?", signer, origin)
        return Head(*rows[0]) if rows else None

    def note_by_hash(self, signer: str, origin_hash: str) -> bytes | None:
        """The newest cosigned note of the log whose origin has this SHA-256."""
        for origin, note in self._read("SELECT origin, note FROM heads WHERE signer = ?", signer):
            if hash_origin(origin) == origin_hash:
                return bytes(note)
        return None

    def advance(self, signer: str, origin: str, offence: Offence, now: int, decide: Decide) -> bytes:
        """The answer of `decide`, once its head is on disk. If it refuses what the log signed, the evidence is."""
        with self._transaction() as conn:
            if reason := self.retired():
                raise Retired(reason)
            self.check_goes_on(origin)
            head, latest = self.head(signer, origin), self._latest(signer)
            refusal: Offending | None = None
            try:
                decision = decide(head, latest)
            except (OutOfStep, Inconsistent) as error:
                self._keep(conn, signer, origin, offence, head.note if head else b"", error, now)
                refusal = error
            else:
                sql = "INSERT OR REPLACE INTO heads (signer, origin, size, root, time, note) VALUES (?, ?, ?, ?, ?, ?)"
                conn.execute(sql, (signer, origin, *decision.head))
        if refusal is not None:
            raise refusal
        return decision.answer

    def _latest(self, signer: str) -> int:
        latest: int = self._read("SELECT coalesce(max(time), 0) FROM heads WHERE signer = ?", signer)[0][0]
        return latest

    # Origins after a declared loss

    def succeed(self, old: str, origin: str, declaration: str) -> str:
        """The one origin that goes on from an old one: this one from now on, where there was none."""
        rows = (f"successor {old}", origin), (f"declaration {old}", declaration)
        with self._transaction() as conn:
            conn.executemany("INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)", rows)
        return self.successor(old) or origin

    def declaration(self, old: str) -> str:
        """What the successor served as its word for it; it stands against another one."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", f"declaration {old}")
        return str(rows[0][0]) if rows else ""

    def successor(self, old: str) -> str | None:
        """The origin that goes on from this one, for which nothing is cosigned any more."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", f"successor {old}")
        found: str | None = rows[0][0] if rows else None
        return found

    def check_goes_on(self, origin: str) -> None:
        """Ended where another origin goes on from this one."""
        if successor := self.successor(origin):
            raise Ended(f"{origin} has declared a loss and goes on as {successor}: nothing more is signed for it")

    def predecessor(self, origin: str) -> str | None:
        """The origin that this one goes on from."""
        rows = self._read("SELECT key FROM meta WHERE key LIKE 'successor %' AND value = ?", origin)
        return rows[0][0].removeprefix("successor ") if rows else None

    # The end

    def retired(self) -> str | None:
        """Why nothing is signed any more."""
        rows = self._read("SELECT value FROM meta WHERE key = 'retired'")
        reason: str | None = rows[0][0] if rows else None
        return reason

    def retire(self, reason: str) -> None:
        """For ever. The first reason stays."""
        with self._transaction() as conn:
            conn.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('retired', ?)", (reason,))

    # Evidence

    def halt(self, origin: str) -> str | None:
        """Why the auditor no longer signs for this log."""
        rows = self._read("SELECT reason FROM halts WHERE origin = ?", origin)
        reason: str | None = rows[0][0] if rows else None
        return reason

    def report(
        self, origin: str, offence: Offence, known_note: bytes, refusal: Offending, now: int, halt: bool
    ) -> None:
        """Keeps what the auditor found, and with `halt` stops it for this log, in one transaction."""
        with self._transaction() as conn:
            self._keep(conn, AUDITOR, origin, offence, known_note, refusal, now)
            if halt:
                sql = "INSERT OR IGNORE INTO halts (origin, reason, time) VALUES (?, ?, ?)"
                conn.execute(sql, (origin, str(refusal), now))

    def halts(self) -> list[Halt]:
        """The logs that the auditor no longer signs for."""
        return [Halt(*row) for row in self._read("SELECT origin, reason, time FROM halts ORDER BY origin")]

    def resume(self, origin: str) -> None:
        """An operator's decision: the auditor may sign for this log again. The evidence stays."""
        with self._transaction() as conn:
            if conn.execute("DELETE FROM halts WHERE origin = ?", (origin,)).rowcount != 1:
                raise Usage(f"log {origin!r}: not halted; `node halts` lists those that are")

    def evidence(self, origin: str | None = None) -> list[Evidence]:
        """What was kept, oldest first."""
        return list(self.each_evidence(origin))

    def each_evidence(self, origin: str | None = None) -> Iterator[Evidence]:
        """The same, one in memory at a time: a row may have a quarter of a MiB, and there may be a thousand."""
        ids = self._read("SELECT id FROM evidence WHERE ?1 = '' OR origin = ?1 ORDER BY id", origin or "")
        for (number,) in ids:
            for row in self._read(f"{_READ_EVIDENCE} WHERE id = ?", number):
                yield Evidence(*row)

    def _keep(
        self,
        conn: sqlite3.Connection,
        signer: str,
        origin: str,
        offence: Offence,
        known_note: bytes,
        refusal: Offending,
        now: int,
    ) -> None:
        if refusal.kind is None:
            return
        key, digest = (signer, origin, refusal.kind), sha256(offence.text).digest()
        row = Evidence(*key, offence.request, known_note, str(refusal), now)
        places = MAX_EVIDENCE
        if refusal.kind == CONSISTENCY and self._proves(row):  # of the other kinds all rows prove something, or none
            places += MAX_EVIDENCE
            same = conn.execute(_READ_SAME, (*key, digest)).fetchone()
            if same is not None and not self._proves(Evidence(*same)):
                conn.execute(_DROP_SAME, (*key, digest))
        sql = "SELECT count(*) FROM evidence WHERE signer = ? AND origin = ? AND kind = ?"
        if conn.execute(sql, key).fetchone()[0] >= places:
            return
        conn.execute(
            "INSERT OR IGNORE INTO evidence (signer, origin, kind, digest, request, known_note, detail, time)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, digest, *row[3:]),
        )

    # The connection

    def _read(self, sql: str, *values: str | int) -> list[Any]:
        if self._conn is None:
            raise Fatal("store: closed after an error of the disk; open the node again")
        try:
            return self._conn.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            self.close()
            raise Fatal(f"store: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on disk when it ends, undone when the block raises."""
        conn = self._conn
        if conn is None:
            raise Fatal("store: closed after an error of the disk; open the node again")
        try:
            try:
                conn.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                    raise TryLater("store: locked by another process") from None
                raise
            try:
                yield conn
            except BaseException:
                conn.execute("ROLLBACK")
                raise
            conn.execute("COMMIT")
        except sqlite3.Error as error:
            self.close()  # whether the COMMIT happened is unknown, so nobody goes on from here
            raise Fatal(f"store: {error}") from error
