"""A log's data directory: made once by a human, opened from then on, by one process at a time.

    DIR/log.key      0600; PRIVATE+KEY+ORIGIN+ID+KEY, what the log signs its trees with
    DIR/log-next.key its next one during a rotation (`audit.rotation`), 0600; DIR/log-old.key the one before, afterwards
    DIR/log.db       0600; entries, openings, tree, map (`audit.store`)
    DIR/policy       the log and its witnesses (c2sp.org/tlog-policy); made from the peers (`audit.peers`), or the
                     operator's to edit; read at start
    DIR/auditors     the log and its auditors, the same way
    DIR/peers.json   whose nodes these are, where `peer add` pinned them (`audit.peer_files`)
    DIR/before-N     the log as it was before it declared a loss (`audit.losing`); its key must never sign again
    DIR/lock         held by whoever writes

A new log has `quorum none` in both policies: it records, and publishes nothing until there are witnesses.

The key is written last, so that a directory which was not made completely never opens and has never signed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import insert

from audit.chains import OWNER
from audit.errors import Refused
from audit.key_file import read_signer, write_signer
from audit.schema import Token, sql, table
from audit.store import FILE_NAME, Store, create_store, open_store
from verifier.encoding import tagged
from verifier.errors import Malformed, Usage
from verifier.files import read_bounded, write_atomic
from verifier.keys import check_origin, format_log_name
from verifier.loss import parse_loss
from verifier.note import SIGNATURE, SignerKey, VerifierKey, format_vkey
from verifier.policy import (
    AUDITORS,
    MAX_POLICY_SIZE,
    NONE,
    WITNESSES,
    Kind,
    Log,
    Policy,
    check_separate,
    format_policy,
    parse_policy,
)

KEY_FILE, POLICY_FILE, AUDITORS_FILE, LOCK_FILE = "log.key", "policy", "auditors", "lock"
NEXT_KEY_FILE, OLD_KEY_FILE = "log-next.key", "log-old.key"
NODE_KEY_FILE = "witness.key"
DECLARED = os.path.join("declaring", "ready")  # there is a new log beside this one, which has not taken its place yet
_RESIDENTS = (KEY_FILE, FILE_NAME, os.path.dirname(DECLARED), NODE_KEY_FILE)  # one of them is where anything lives
POLICY_MODE = 0o644
TOKEN_SIZE = 16  # bytes of chance in a token: nobody guesses 128 bits over HTTP
DEFAULT_USER = "owner"

Random = Callable[[int], bytes]


class Occupied(Refused):
    """Another process works in the directory."""


_ADD_TOKEN = sql(insert(table(Token)))


class Created(NamedTuple):
    """What the operator of a new log hands on. The token is secret, and is stored as a hash alone."""

    vkey: str
    log_name: str
    user: str
    token: str


class Directory(NamedTuple):
    """An open log."""

    path: str
    store: Store
    signer: SignerKey
    witnesses: Policy
    auditors: Policy
    next_signer: SignerKey | None = None  # signs as well, during a rotation

    @property
    def log_keys(self) -> tuple[VerifierKey, ...]:
        """Every key that this log ever signed with."""
        return self.store.log_keys or (self.signer.verifier_key,)


def create_log(directory: str, origin: str, now: int, user: str = DEFAULT_USER, random: Random = os.urandom) -> Created:
    """A new log in `directory`, which may exist and must hold none."""
    check_origin(origin)
    _check_made(directory)
    for name in (KEY_FILE, NEXT_KEY_FILE, OLD_KEY_FILE, FILE_NAME, POLICY_FILE, AUDITORS_FILE):
        if os.path.lexists(os.path.join(directory, name)):
            raise Refused(f"{directory} holds a log already ({name} exists): nothing was changed")
    signer = SignerKey(origin, SIGNATURE, random(32))
    key = signer.verifier_key
    log_name = format_log_name(origin, key.public_key)
    create_store(directory, origin, log_name, now)
    store = open_store(directory)
    try:
        token = new_token(store, user, None, random)
    finally:
        store.close()
    kinds: tuple[tuple[str, Kind], ...] = ((POLICY_FILE, WITNESSES), (AUDITORS_FILE, AUDITORS))
    for name, kind in kinds:
        text = format_policy(Policy(kind, (Log(key, ""),), {}, {}, NONE))
        write_atomic(os.path.join(directory, name), text, POLICY_MODE)
    write_signer(os.path.join(directory, KEY_FILE), signer)
    return Created(format_vkey(key), log_name, user, token)


def _check_made(directory: str) -> None:
    """Refused where there is a store without its key, which is written last."""
    has_store, has_key = [os.path.lexists(os.path.join(directory, name)) for name in (FILE_NAME, KEY_FILE)]
    if has_store and not has_key:
        raise Refused(
            f"{directory} has {FILE_NAME} and no {KEY_FILE}. If `init` was cut short there, nothing was ever recorded "
            f"or signed: remove {FILE_NAME}*, {POLICY_FILE} and {AUDITORS_FILE}, and run it again. If this was "
            f"a log, put its {KEY_FILE} back"
        )


def open_log(directory: str) -> Directory:
    """The log that `create_log` made, whose key, store and policies speak of the same log."""
    if os.path.exists(os.path.join(directory, DECLARED)):  # what is recorded now would not be in the new log
        raise Refused(f"{directory}: a loss was declared, and not to the end: run `recover --declare-loss` again")
    if not any(os.path.lexists(os.path.join(directory, name)) for name in (FILE_NAME, KEY_FILE)):
        raise Refused(f"{directory}: holds no log; `nextcloud-audit init --data {directory}` makes one")
    _check_made(directory)
    signer = read_key(os.path.join(directory, KEY_FILE))
    key = signer.verifier_key
    witnesses = read_policy(os.path.join(directory, POLICY_FILE), WITNESSES)
    auditors = read_policy(os.path.join(directory, AUDITORS_FILE), AUDITORS)
    check_separate(witnesses, auditors)
    _check_named(key, witnesses)
    store = open_store(directory)
    try:
        next_signer = _check_keys(directory, store, key)
        if next_signer is not None:
            _check_named(next_signer.verifier_key, witnesses)
    except BaseException:
        store.close()
        raise
    return Directory(directory, store, signer, witnesses, auditors, next_signer)


def _check_named(key: VerifierKey, witnesses: Policy) -> None:
    if key not in witnesses.log_keys:
        raise Usage(f"{POLICY_FILE}: want a line for this log: log {format_vkey(key)}")


def _check_keys(directory: str, store: Store, key: VerifierKey) -> SignerKey | None:
    """log.key is the store's newest key, or the one before it; then log-next.key is the newest, and is returned."""
    keys = store.log_keys or (key,)
    is_named = store.log_name == format_log_name(store.origin, keys[0].public_key)
    if store.loss is not None:  # the log is named for its first origin; the declaration names this one's first key
        is_named = keys[0].name == store.origin and parse_loss(store.loss)[0].key == keys[0].public_key
    if not is_named or key not in keys[-2:]:
        raise Refused(f"{KEY_FILE}: is not the key of the log in {FILE_NAME}, which is {store.log_name}")
    if key == keys[-1]:
        return None
    next_signer = read_key(os.path.join(directory, NEXT_KEY_FILE))
    if next_signer.verifier_key != keys[-1]:
        raise Refused(f"{NEXT_KEY_FILE}: is not the next key of the log, which is {format_vkey(keys[-1])}")
    return next_signer


REPLACE = "/replace"  # of a token's kind: in place of the owner that is enrolled


def new_token(store: Store, user: str, source: int | None, random: Random = os.urandom, kind: str = OWNER) -> str:
    """A one-time token that lets this user enrol, for any source where none is given; or the instance's root."""
    token = random(TOKEN_SIZE).hex()
    with store.transaction() as conn:
        add_token(conn, token, user, source, kind)
    return token


def add_token(conn: sqlite3.Connection, token: str, user: str, source: int | None, kind: str = OWNER) -> None:
    conn.execute(_ADD_TOKEN, (hash_token(token), user, source, 0, kind))


def hash_token(token: str) -> bytes:
    """What the store knows of a token."""
    return tagged("token", token.encode("utf-8"))


@contextmanager
def locked(directory: str, name: str = LOCK_FILE) -> Iterator[None]:
    """Holds the directory for this process; a second one is refused. The lock ends when the process does.

    Where neither a log nor a node lives, no lock file is left behind.
    """
    if os.path.isdir(directory) and not any(os.path.lexists(os.path.join(directory, name)) for name in _RESIDENTS):
        raise Refused(f"{directory}: holds no log and no node; `init` and `node init` make them")
    try:
        fd = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise Refused(f"{directory}: there is no such directory; `init` makes one") from None
    except OSError as error:
        raise Refused(f"{directory}: cannot be locked ({error.strerror})") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 20).decode("ascii", "replace").strip()
            raise Occupied(f"{directory}: process {pid} works in it; one process for each data directory") from None
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(fd)


def read_key(path: str) -> SignerKey:
    """A log's private key, in a file that nobody else may read."""
    return read_signer(path, "log key", SIGNATURE)


def read_policy(path: str, kind: Kind) -> Policy:
    """The policy in a file."""
    return parse_policy_file(read_bounded(path, MAX_POLICY_SIZE, "policy"), kind, path)


def parse_policy_file(data: bytes, kind: Kind, path: str) -> Policy:
    """A policy, with its path in what is wrong with it."""
    try:
        return parse_policy(data, kind)
    except Malformed as error:
        raise Usage(f"{path}: {error}") from None
