"""Who may enrol, and who may have a proof: nonces, one-time tokens, signed requests (SPEC 11).

    nonce = nonces.issue(now)                                    single use, NONCE_TTL_S long, MAX_NONCES of them
    nonces.take(enrolment.nonce, now)                            whatever comes of it, it is gone
    source = decide_enrolment(enrolment, signature, standing)    pure: what the store says, against what was sent
    owner = authorise(header, log_name, method, target, body, now)
    find_own(conn, owner)                                        what that key is the enrolled owner of, and no more

A token is for one user, once; the store knows its hash alone. A folder has one enrolled owner, a Nextcloud one for each
user. A token of kind `instance` makes the root under which everybody's files are who enrols none. One of a kind with
`/replace` behind it enrols in place of who is enrolled: a seed was lost, or the files have a new owner. Whoever is
refused is not told which half of it was wrong. A request is authorised before anything is looked up, so that without
the key of some owner nobody learns anything, and with it nobody learns what another one has.

The enrolment and the use of its token are one transaction. A client that runs again finds itself enrolled.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import bindparam, literal_column, select, update

from audit.chains import CUSTODIAL, FOLDER_SPEC, INSTANCE, OWNER, OwnerRow, chains_of, find_owner
from audit.directory import REPLACE, hash_token
from audit.errors import Refused
from audit.recorder import Recorder
from audit.schema import EMPTY, ONE, ZERO, Owner, Source, Token, sql, table
from audit.store import Store
from verifier.canonical import members, parse_object
from verifier.ed25519 import SIGNATURE_SIZE
from verifier.encoding import check_text, decode_base64
from verifier.errors import Error, NotProven
from verifier.keys import KEY_SIZE, MAX_LOG_NAME, check_source_id
from verifier.request import (
    MAX_TOKEN,
    MAX_USER,
    NONCE_SIZE,
    Authorization,
    Enrolment,
    parse_authorization,
    verify_enrolment,
    verify_request,
)

NONCE_TTL_S = 300  # SPEC 11.2: typing a passphrase may take a while
MAX_NONCES = 4_096  # of all clients together; beyond that the oldest goes
FIELDS = ("log", "source", "user", "token", "nonce", "owner", "blinding", "signature")

_SOURCES, _TOKENS, _OWNERS = table(Source), table(Token), table(Owner)
_other = _OWNERS.alias("other")
_FIND_SOURCE = sql(select(_SOURCES.c.id).where(_SOURCES.c.source_id == bindparam("source_id")))
# As `find_enrolled` says, for all sources at once: rows of owners that have this key, and what each is the owner of.
_own_folder: Any = select(literal_column("1")).where(
    _other.c.source == _SOURCES.c.id, _other.c.active == ONE, _other.c.chains_of == EMPTY
)
_covers = (_OWNERS.c.source == _SOURCES.c.id) | (_OWNERS.c.source.is_(None) & ~_own_folder.exists())
_own = (
    select(_SOURCES.c.id, _SOURCES.c.spec, _OWNERS.c.id)
    .select_from(_OWNERS.join(_SOURCES, _covers))
    .where(
        _OWNERS.c.owner_key == bindparam("owner_key"), _OWNERS.c.active == ONE, _OWNERS.c.kind != bindparam("custodial")
    )
    .order_by(_SOURCES.c.id)
)
_FIND_OWN = sql(_own)
_FIND_OWN_NAMED = sql(_own.where(_SOURCES.c.source_id == bindparam("source_id")))
_SOURCE_IDS = sql(select(_SOURCES.c.source_id).order_by(_SOURCES.c.id))
_FIND_TOKEN = sql(
    select(_TOKENS.c.user, _TOKENS.c.source, _TOKENS.c.used, _TOKENS.c.kind).where(
        _TOKENS.c.token_hash == bindparam("token_hash")
    )
)
_USE_TOKEN = sql(
    update(_TOKENS)
    .values(used=bindparam("now"))
    .where(_TOKENS.c.token_hash == bindparam("token_hash_"), _TOKENS.c.used == ZERO)
)


class EnrolmentRefused(Refused):
    """Log, source, nonce, token or signature do not allow this enrolment."""


class AlreadyEnrolled(Refused):
    """These files have an owner."""


class Unauthorised(Refused):
    """No request signed by a key, for this log, just now."""


class TokenRow(NamedTuple):
    """A token as stored. `source` is None where it is good for any."""

    user: str
    source: int | None
    used: int
    kind: str = OWNER

    @property
    def makes(self) -> str:
        """The kind of owner that it makes."""
        return self.kind.removesuffix(REPLACE)

    @property
    def replaces(self) -> bool:
        """Whether that is in place of who is enrolled."""
        return self.kind.endswith(REPLACE)


class Standing(NamedTuple):
    """What the store says about an enrolment: None for a source or token that it does not know.

    `owner`: who has what the token is for.
    """

    log_name: str
    source: int | None
    token: TokenRow | None
    owner: OwnerRow | None


class Nonces:
    """Nonces that were given out and did not come back yet. In memory: after a restart clients ask for a new one."""

    def __init__(self, random: Callable[[int], bytes] = os.urandom, limit: int = MAX_NONCES) -> None:
        self._random, self._limit = random, limit
        self._open: dict[bytes, int] = {}  # nonce -> when it ends; in the order of their making
        self._lock = Lock()

    def issue(self, now: int) -> bytes:
        nonce = self._random(NONCE_SIZE)
        with self._lock:
            if len(self._open) >= self._limit:
                del self._open[next(iter(self._open))]
            self._open[nonce] = now + NONCE_TTL_S
        return nonce

    def take(self, nonce: bytes, now: int) -> None:
        """The nonce was given out here not long ago, and is used up from now on."""
        with self._lock:
            ends = self._open.pop(nonce, None)
        if ends is None or now >= ends:
            raise EnrolmentRefused("nonce: unknown, used or too old: ask for a new one and enrol again")


def parse_enrolment(body: bytes) -> tuple[Enrolment, bytes]:
    """The request's fields and the signature, well formed and nothing more."""
    values = members(parse_object(body, "enrolment"), "enrolment", *FIELDS)
    log = check_text(values[0], "enrolment log", MAX_LOG_NAME)
    source = check_source_id(values[1], "enrolment source")
    user, token = check_text(values[2], "user", MAX_USER), check_text(values[3], "token", MAX_TOKEN)
    nonce, owner, blinding = [
        decode_base64(value, f"enrolment {name}", size=KEY_SIZE)
        for name, value in zip(FIELDS[4:7], values[4:7], strict=True)
    ]
    signature = decode_base64(values[7], "enrolment signature", size=SIGNATURE_SIZE)
    return Enrolment(log, source, user, token, nonce, owner, blinding), signature


class Own(NamedTuple):
    """What a key may have of a source: chains under these owners; all of a folder's, which has one owner."""

    source: int
    owners: frozenset[int] | None

    def has(self, owner: int) -> bool:
        return self.owners is None or owner in self.owners


def decide_enrolment(enrolment: Enrolment, signature: bytes, standing: Standing) -> int | None:
    """The source that the enrolment is for, None for the instance, once key, token and source allow it."""
    if enrolment.log != standing.log_name:
        raise EnrolmentRefused(f"log: got {enrolment.log!r}, want {standing.log_name}")
    try:
        verify_enrolment(enrolment, signature)
    except NotProven as error:
        raise EnrolmentRefused(str(error)) from None
    token = standing.token
    if token is None or token.used or token.user != enrolment.user or token.source not in (None, standing.source):
        raise EnrolmentRefused(f"token: it is no open token of {enrolment.user!r} for this source")
    if standing.source is None:
        raise EnrolmentRefused(f"source: there is no {enrolment.source!r}")
    owner = standing.owner
    if owner is not None and (
        not token.replaces or (owner.owner_key, owner.blinding_key) == (enrolment.owner, enrolment.blinding)
    ):
        raise AlreadyEnrolled(f"source: {enrolment.source} has an enrolled owner already")
    return None if token.makes == INSTANCE else standing.source


class Enrolments:
    """Enrols, one at a time, so that no token is used twice."""

    def __init__(self, store: Store, recorder: Recorder, random: Callable[[int], bytes] = os.urandom) -> None:
        self._store, self._recorder = store, recorder
        self.nonces = Nonces(random)
        self._lock = Lock()

    def enrol(self, body: bytes, now: int) -> bytes:
        """Enrols; returns the root, whose leaf is pending."""
        enrolment, signature = parse_enrolment(body)
        self.nonces.take(enrolment.nonce, now)
        with self._lock:
            standing = self._standing(enrolment)
            source = decide_enrolment(enrolment, signature, standing)
            replaces = standing.token is not None and standing.token.replaces

            def use_token(conn: sqlite3.Connection) -> None:  # with the owner or not at all
                conn.execute(_USE_TOKEN, (now, hash_token(enrolment.token)))

            owner = enrolment.user, enrolment.owner, enrolment.blinding
            return self._recorder.enrol(source, *owner, replaces, also=use_token)

    def _standing(self, enrolment: Enrolment) -> Standing:
        with self._store.snapshot() as conn:
            source = find_source(conn, enrolment.source)
            row = conn.execute(_FIND_TOKEN, (hash_token(enrolment.token),)).fetchone()
            token = None if row is None else TokenRow._make(row)
            if token is not None and token.makes == INSTANCE:
                owner = find_owner(conn, INSTANCE, None)
            else:
                whose = chains_of(conn, source, enrolment.user)
                owner = None if source is None else find_owner(conn, OWNER, source, whose)
        return Standing(self._store.log_name, source, token, owner)


def authorise(header: str | None, log_name: str, method: str, target: str, body: bytes, now: int) -> bytes:
    """The owner key that signed this very request not long ago. What it may have: `find_own`."""
    if header is None:
        raise Unauthorised("Authorization: want a request signed with the owner's key (SPEC 11.1)")
    try:
        authorization: Authorization = parse_authorization(header)
        return verify_request(authorization, log_name, method, target, body, now)
    except Error as error:
        raise Unauthorised(f"{error} (the server's clock: {now})") from None


def find_own(conn: sqlite3.Connection, owner_key: bytes, source_id: str | None = None) -> list[Own]:
    """What this key may have: of all sources, or of the one that is named.

    A folder is its enrolled owner's, and where it has none the instance's. In a Nextcloud a key has the chains under
    its own roots: a user's, or those under the instance root.
    """
    if source_id is None:
        rows = conn.execute(_FIND_OWN, (owner_key, CUSTODIAL))
    else:
        rows = conn.execute(_FIND_OWN_NAMED, (owner_key, CUSTODIAL, source_id))
    found: dict[int, Own] = {}
    for source, spec, owner in rows:
        before = found.get(source)
        owners = {owner} if before is None or before.owners is None else {owner, *before.owners}
        found[source] = Own(source, None if spec.startswith(FOLDER_SPEC) else frozenset(owners))
    return list(found.values())


def find_source(conn: sqlite3.Connection, source_id: str) -> int | None:
    """The row of a source by its id."""
    row = conn.execute(_FIND_SOURCE, (source_id,)).fetchone()
    return None if row is None else int(row[0])


def list_sources(conn: sqlite3.Connection) -> list[str]:
    """The ids of all sources, in the order of their making."""
    return [str(row[0]) for row in conn.execute(_SOURCE_IDS)]
