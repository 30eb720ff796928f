"""A new key for a log, without a moment in which nobody can verify: `nextcloud-audit rotate-key start|finish`.

    start      DIR/log-next.key     the new key, 0600; a run that was cut short goes on with the one it finds
               policy, auditors     get a second `log` line, after the old one
               one COMMIT           meta log_keys = "OLD NEW", and the leaf 05 || new public key is pending
               from then on         both keys sign every checkpoint: one origin, two signature lines
    finish     the leaf is published, so whoever follows the log has been told
               log.key              is linked as log-old.key, then log-next.key takes its name
               from then on         the new key signs alone

The log keeps its name, which holds a hash of the first key (SPEC 2.2), and its origin, by which nodes keep their one
memory of it. The old `log` lines stay in DIR/policy, since whoever enrols knows the log by its first key; who has
verified a tree of the new key may drop them (SPEC 8.1, 10.4). Both functions are called while no other process works
in the directory, and may be run again at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import bindparam, insert, select

from audit.directory import KEY_FILE, NEXT_KEY_FILE, OLD_KEY_FILE, POLICY_MODE, Directory, open_log, read_key
from audit.errors import Refused
from audit.key_file import write_signer
from audit.peer_files import KINDS, changing
from audit.publisher import read_newest_signed
from audit.schema import Pending, sql, table
from audit.store import put_meta
from verifier.errors import Usage
from verifier.files import sync_directory_of, write_atomic
from verifier.leaf import LogKeyLeaf, encode_leaf
from verifier.note import SIGNATURE, SignerKey, VerifierKey, format_vkey

LOG_KEYS = "log_keys"

_PENDING = table(Pending)
_ADD_LEAF = sql(insert(_PENDING).values(leaf=bindparam("leaf")))
_WAITS = sql(select(_PENDING.c.n).where(_PENDING.c.leaf == bindparam("leaf")))

Random = Callable[[int], bytes]


class Rotation(NamedTuple):
    """The key that signs so far, and the one that follows it."""

    old: VerifierKey
    new: VerifierKey


def start(directory: str, random: Random = os.urandom) -> Rotation:
    """From now on two keys sign. What a crash left half done is completed; nothing happens twice."""
    new = _next_key(directory, random)
    with changing(directory) as files:
        for (name, _), old, made in zip(KINDS, files.policies, files.with_log(new.verifier_key), strict=True):
            if made != old:
                write_atomic(os.path.join(directory, name), made, POLICY_MODE)
    log = open_log(directory)
    try:
        _announce(log, new.verifier_key)
    finally:
        log.store.close()
    return Rotation(log.signer.verifier_key, new.verifier_key)


def finish(directory: str) -> Rotation:
    """From now on the new key signs alone. Refused while somebody may not have been told of it."""
    log = open_log(directory)
    try:
        if log.next_signer is None:
            raise Refused("rotate-key: no key waits to take over; `rotate-key start` makes one")
        old, new = log.signer.verifier_key, log.next_signer.verifier_key
        _check_published(log, new)
    finally:
        log.store.close()
    key, following, aside = (os.path.join(directory, name) for name in (KEY_FILE, NEXT_KEY_FILE, OLD_KEY_FILE))
    if not os.path.lexists(aside):
        os.link(key, aside)
        sync_directory_of(aside)
    elif not os.path.samefile(key, aside):
        raise Refused(_in_the_way(directory))
    os.replace(following, key)
    sync_directory_of(key)
    return Rotation(old, new)


def _next_key(directory: str, random: Random) -> SignerKey:
    path = os.path.join(directory, NEXT_KEY_FILE)
    if os.path.lexists(path):
        return read_key(path)
    log = open_log(directory)  # a log that cannot be opened gets no new key
    log.store.close()
    if os.path.lexists(os.path.join(directory, OLD_KEY_FILE)):
        raise Refused(_in_the_way(directory))
    signer = SignerKey(log.store.origin, SIGNATURE, random(32))
    write_signer(path, signer)
    return signer


def _in_the_way(directory: str) -> str:
    return f"{os.path.join(directory, OLD_KEY_FILE)}: is the key of an earlier rotation; put it away safely first"


def _announce(log: Directory, new: VerifierKey) -> None:
    """Key and leaf in one transaction: a key that signs is announced in the log."""
    if new in log.log_keys:
        return
    if new.name != log.store.origin:
        raise Usage(f"{NEXT_KEY_FILE}: got a key of {new.name}, want one of {log.store.origin}")
    vkeys = " ".join([format_vkey(key) for key in (*log.log_keys, new)])
    with log.store.transaction() as conn:
        put_meta(conn, LOG_KEYS, vkeys.encode("utf-8"))
        conn.execute(_ADD_LEAF, (encode_leaf(LogKeyLeaf(new.public_key)),))


def _check_published(log: Directory, new: VerifierKey) -> None:
    """The leaf is in a tree, and every signed tree has its quorum: so the one with the leaf has it."""
    with log.store.snapshot() as conn:
        waits = conn.execute(_WAITS, (encode_leaf(LogKeyLeaf(new.public_key)),)).fetchone()
        newest = read_newest_signed(conn)
    if waits is not None or newest is None or newest.first_note is None:
        raise Refused(
            "rotate-key: the new key is not published yet; `serve` publishes it once the nodes' quorum answers, then "
            "run this again. The old key goes on signing"
        )
