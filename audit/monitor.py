"""The periodic audit of every log that a node watches: what it shows us, what it shows others, and what its leaves say.

    found = await Monitor(node, folder, clock, settings).run()          [] when all is well

For each log, least recently audited first:

    1  URL/checkpoint: the log's signature, the quorum, its age                 unreachable, quorum-lost, stale
    2  WITNESS/ORIGINHASH/checkpoint: what each of the policy's witnesses saw   unreachable
    3  each of these trees against the one that was shown there before          rollback; a witness: stale
    4  the log's first: compared with the mirror, or mirrored and replayed      fork, chain-broken, map-wrong
    5  what the node itself refused since the last audit                        fork
    6  what was seen is written to DIR/seen/ORIGINHASH.json

Nothing is signed here: a log asks for its auditors' cosignatures itself, and names the tree that all of them sign. What
contradicts what is held is a fork, and evidence says so (`audit.evidence`); a log that merely fails to show what it
signed is "unreachable", and says why. What a witness saw before the log published it is no finding for LAG_S.

Not checked here: what entries mean, and witnesses that the policy gives no address for.
"""

from __future__ import annotations

import asyncio
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from audit.errors import AuditError, Conflict, Fatal, PeerFailed, Refused, TryLater
from audit.evidence import Files, Value, of_mirror, of_row, range_hash
from audit.mirror import Finding, Mirror
from audit.node import Node
from audit.succession import BadSuccession
from audit.witness import hash_origin
from audit.witness_store import Log
from verifier.canonical import format_object, members, parse_object
from verifier.checkpoint import Checkpoint, open_checkpoint
from verifier.conviction import FORK, ROLLBACK
from verifier.encoding import decode_decimal
from verifier.errors import BadSignature, Error, Malformed, NotProven, QuorumNotMet, Usage
from verifier.evidence import note_evidence
from verifier.files import read_bounded, write_atomic
from verifier.note import MAX_NOTE_SIZE, Note, VerifierKey, verify_cosignature
from verifier.policy import Cosigned, Policy, verify_quorum
from verifier.replay import CHAIN_BROKEN, MAP_ROOT, MAP_WRONG
from verifier.verdict import DEFAULT_MAX_AGE_S
from verifier.verify import FUTURE_BOUND_S

STALE, QUORUM_LOST, UNREACHABLE, SLOW = "stale", "quorum-lost", "unreachable", "slow"
EXIT = {FORK: 3, ROLLBACK: 3, CHAIN_BROKEN: 3, MAP_WRONG: 3, STALE: 2, QUORUM_LOST: 2, UNREACHABLE: 1, SLOW: 1}

SLOW_S = 10  # an answer that takes longer is worth a line
LAG_S = 3600  # how long witnesses may be ahead of what the log publishes, and auditors behind
SEEN_FORMAT = "nextcloud-audit/seen/1"
SEEN_FOLDER = "seen"
MAX_SEEN_SIZE = 64 * 2**20  # a note for each witness of a policy
THE_LOG = ""  # who showed a note: the log, or the witness with this key name


class Found(NamedTuple):
    """One finding, as one line says it."""

    kind: str
    origin: str
    message: str
    evidence: str | None = None


class Policies(NamedTuple):
    """What is known of a log's cosigners."""

    witnesses: Policy | None = None
    auditors: Policy | None = None

    def keys(self) -> list[VerifierKey]:
        return [w.key for policy in self if policy is not None for w in policy.witnesses.values()]


class Settings(NamedTuple):
    policies: Callable[[Log], Policies] = lambda _: Policies()
    max_age_s: int = DEFAULT_MAX_AGE_S
    deadline: Callable[[], bool] = lambda: False  # whether the budget is used up


class View(NamedTuple):
    """A tree that somebody was shown."""

    who: str
    data: bytes
    note: Note
    tree: Checkpoint


class Seen(NamedTuple):
    """What earlier audits saw: when the last one ended, and the biggest tree of each who showed one."""

    time: int
    notes: dict[str, str]


def exit_code(found: list[Found]) -> int:
    """3 where a log has contradicted itself, 2 where less than asked is proven, 1 where something did not answer."""
    return max([EXIT[one.kind] for one in found], default=0)


class Monitor:
    """One audit of one node's logs."""

    def __init__(self, node: Node, folder: Path, clock: Callable[[], int], settings: Settings) -> None:
        self._node, self._folder, self._clock, self._settings = node, folder, clock, settings
        self.sizes: dict[str, int] = {}  # origin -> leaves held and replayed
        self.errors: list[Error] = []  # of logs that could not be audited at all, such as a damaged memory

    async def run(self, logs: list[Log]) -> list[Found]:
        """Audits these logs, as far as the budget goes; what is left comes first the next time."""
        found: list[Found] = []
        for log in sorted(logs, key=self._last_audit):
            if self._node.store.successor(log.origin):
                continue  # it goes on under another origin, which is audited
            if self._settings.deadline():
                found.append(Found(SLOW, log.origin, "not reached within the budget; it comes first the next time"))
                continue
            found += await self._audit(log)
        return found

    async def _audit(self, log: Log) -> list[Found]:
        """What is found about one log. Whatever goes wrong with it, the others are audited all the same."""
        this: Round | None = None
        try:
            this = Round(self._node, self._folder, self._clock, self._settings, log)
            await this.run()
            self.sizes[log.origin] = self._node.auditor.mirror(log.origin).size
        except Error as error:
            self.errors.append(error)
        except (AuditError, sqlite3.Error, OSError) as error:
            self.errors.append(Usage(f"{log.origin}: {error}"))
        except Exception as error:  # [R] no log can end the audit of the others
            traceback.print_exc()
            self.errors.append(Usage(f"{log.origin}: could not be audited, {type(error).__name__}: {error}"))
        return [] if this is None else this.found

    def _last_audit(self, log: Log) -> int:
        try:
            return read_seen(self._folder, log).time
        except Error:
            return 0


class Round:
    """One audit of one log."""

    def __init__(self, node: Node, folder: Path, clock: Callable[[], int], settings: Settings, log: Log) -> None:
        self._node, self._folder, self._clock, self._settings, self._log = node, folder, clock, settings, log
        self._files = Files(folder)
        self._policies = settings.policies(log)
        self.origin = log.origin
        self.found: list[Found] = []

    async def run(self) -> None:
        seen = read_seen(self._folder, self._log)
        views = await self._views()
        for view in views:
            if view.who == THE_LOG:
                self._check_age(view)
            self._compare_with_seen(view, seen)
        finished = True
        for view in sorted(views, key=lambda view: (view.who != THE_LOG, view.tree.size)):
            finished = finished and await self._follow(view)
        self._own_refusals(seen)
        self._halted()
        if finished:
            write_seen(self._folder, self._log, remember(seen, views, self._clock()))

    def _add(self, kind: str, message: str, value: Value | None = None) -> None:
        """A finding, with a file where `value` proves it."""
        path = None
        try:
            if value is not None:
                path = self._files.keep(value, self._log.keys, self._clock(), self._policies.keys())
        except (Error, OSError) as error:  # no room to write: the finding is said all the same
            message = f"{message}; its evidence could not be written: {error}"
        self.found.append(Found(kind, self.origin, message, None if path is None else str(path)))

    # What is shown

    async def _views(self) -> list[View]:
        """The log's newest checkpoint, and what each witness that can be reached cosigned last."""
        name = hash_origin(self.origin)
        asked: list[tuple[str, str, VerifierKey | None]] = [(THE_LOG, f"{self._log.url.rstrip('/')}/checkpoint", None)]
        witnesses = self._policies.witnesses.witnesses.values() if self._policies.witnesses else ()
        asked += [(w.key.name, f"{w.url.rstrip('/')}/{name}/checkpoint", w.key) for w in witnesses if w.url]
        views = await asyncio.gather(*[self._view(*one) for one in asked])
        return [view for view in views if view is not None]

    async def _view(self, who: str, url: str, key: VerifierKey | None) -> View | None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            data = await self._node.fetch(url, MAX_NOTE_SIZE)
            note, tree = open_checkpoint(data, *self._log.keys, origin=self.origin)
            if key is not None:
                verify_cosignature(note, key)
        except (PeerFailed, Error) as error:
            self._add(UNREACHABLE, f"{who or 'the log'}: {error}")
            return None
        if (took := loop.time() - begun) > SLOW_S:
            self._add(SLOW, f"{who or 'the log'}: took {took:.0f} s to answer")
        return View(who, data, note, tree)

    def _check_age(self, view: View) -> None:
        """The quorum over the log's newest checkpoint, and when that was still the newest."""
        now, (witnesses, auditors) = self._clock(), self._policies
        cosigned = self._quorum(witnesses, view) if witnesses is not None else None
        if cosigned is None:
            return
        at, by = cosigned.still_newest_at, cosigned.not_later_than
        if at is not None and now - at > self._settings.max_age_s:
            self._add(STALE, f"size {view.tree.size} was the newest {now - at} s ago, and nothing says so since")
        if auditors is not None and by is not None and now - by > LAG_S:
            self._quorum(auditors, view)

    def _quorum(self, policy: Policy, view: View) -> Cosigned | None:
        try:
            return verify_quorum(policy, view.note, self._clock() + FUTURE_BOUND_S)
        except (QuorumNotMet, BadSignature, Malformed) as error:
            self._add(QUORUM_LOST, f"size {view.tree.size}: {error}")
            return None

    def _compare_with_seen(self, view: View, seen: Seen) -> None:
        """[R] Nobody shows a smaller tree than before. A witness that does is a faulty one, and no word on the log."""
        before = seen.notes.get(view.who)
        if before is None:
            return
        try:
            _, old = open_checkpoint(before.encode("utf-8"), *self._log.keys, origin=self.origin)
        except (NotProven, Malformed) as error:
            raise Malformed(f"{self.origin}: {error}", "what was seen before") from None
        if view.tree.size < old.size:
            message = f"{view.who or 'the log'}: shows size {view.tree.size}, and showed size {old.size} before"
            value = note_evidence("rolled-back", self._clock(), before.encode("utf-8"), view.data)
            self._add(ROLLBACK if view.who == THE_LOG else STALE, message, value)

    # What the leaves say

    async def _follow(self, view: View) -> bool:
        """Compares a tree with the leaves that are held, or holds and replays it. False if that goes on next time."""
        while True:
            mirror = self._mirror()
            if view.tree.size <= mirror.size:
                await self._compare(view, mirror)
                return True
            if self._settings.deadline():
                self._add(SLOW, f"at {mirror.size} of {view.tree.size} leaves; goes on the next time")
                return False
            try:
                await self._replay(view)
            except TryLater:
                continue  # a part of it is done
            except PeerFailed as error:
                self._behind(view, error)
            except (Conflict, Refused) as error:
                self._refused(view, error)
            return True

    async def _replay(self, view: View) -> None:
        """Grows the mirror; the serving process of this node may have been at it just now, and that is tried again."""
        self._node.auditor.evidence.pop(self.origin, None)
        try:
            await self._node.auditor.replay(view.data, self._clock)
        except Fatal:
            await self._node.auditor.replay(view.data, self._clock)

    async def _compare(self, view: View, mirror: Mirror) -> None:
        if (view.tree.size, view.tree.root) == (mirror.size, mirror.root):
            return
        if await asyncio.to_thread(range_hash, mirror, 0, view.tree.size) == view.tree.root:
            return
        value = await asyncio.to_thread(of_mirror, view.data, mirror, self._clock())
        self._add(
            FORK, f"{view.who or 'the log'}: shows another tree of size {view.tree.size} than it showed here", value
        )

    def _behind(self, view: View, error: PeerFailed) -> None:
        """Leaves that cannot be had. What a witness has just seen may not be published yet."""
        if view.who == THE_LOG:
            self._add(UNREACHABLE, f"the log: {error}")
            return
        key = next(key for key in self._policies.keys() if key.name == view.who)
        age = self._clock() - verify_cosignature(view.note, key)
        if age > LAG_S:
            self._add(STALE, f"{view.who} cosigned size {view.tree.size} {age} s ago, and the log does not serve it")

    def _refused(self, view: View, error: Exception) -> None:
        """A tree that breaks a rule, or does not continue what is held."""
        path = self._node.auditor.evidence.get(self.origin)
        shown = None if path is None else str(path)
        if isinstance(error, Finding | BadSuccession):
            kind = error.fault
            self.found.append(Found(kind, self.origin, str(error), shown))
        elif path is not None:
            self.found.append(Found(FORK, self.origin, f"{view.who or 'the log'}: {error}", shown))
        else:
            self._add(UNREACHABLE, f"{view.who or 'the log'}: the log does not show the tree that it signed: {error}")

    def _mirror(self) -> Mirror:
        mirror = self._node.auditor.mirror(self.origin)
        mirror.refresh()
        return mirror

    # What the node knows already

    def _own_refusals(self, seen: Seen) -> None:
        """Requests that this node refused since the last audit, and that convict the log."""
        for row in self._node.store.each_evidence(self.origin):
            value = of_row(row, row.time) if row.time >= seen.time else None
            if value is None or (path := self._files.keep(value, self._log.keys, row.time)) is None:
                continue
            if str(path) not in [one.evidence for one in self.found]:
                self.found.append(Found(FORK, self.origin, f"refused as {row.signer}: {row.detail}", str(path)))

    def _halted(self) -> None:
        reason = self._node.store.halt(self.origin)
        if reason is not None and not {one.kind for one in self.found} & {CHAIN_BROKEN, MAP_WRONG}:
            kind = MAP_WRONG if f": {MAP_ROOT}" in reason else CHAIN_BROKEN
            self._add(kind, f"halted until an operator decides: {reason}")


# What was seen


def seen_path(folder: Path, log: Log) -> Path:
    return folder / SEEN_FOLDER / f"{hash_origin(log.origin)}.json"


def read_seen(folder: Path, log: Log) -> Seen:
    """What earlier audits saw of a log. A damaged file is an error: taken for nothing, it would hide a rollback."""
    path = seen_path(folder, log)
    if not path.exists():
        return Seen(0, {})
    value = parse_object(read_bounded(str(path), MAX_SEEN_SIZE, "seen"), "seen")
    form, time, notes = members(value, f"{path}", "format", "time", "notes")
    if form != SEEN_FORMAT or type(notes) is not dict or not all(type(note) is str for note in notes.values()):
        raise Malformed(f"want {SEEN_FORMAT} with notes", str(path))
    return Seen(decode_decimal(time, f"{path}"), notes)


def write_seen(folder: Path, log: Log, seen: Seen) -> None:
    path = seen_path(folder, log)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    value = {"format": SEEN_FORMAT, "time": str(seen.time), "notes": seen.notes}
    write_atomic(str(path), format_object(value, "seen"))


def remember(seen: Seen, views: list[View], now: int) -> Seen:
    """The biggest tree that each one showed, the first note of it."""
    notes = dict(seen.notes)
    for view in views:
        if view.who not in notes or view.tree.size > _size(notes[view.who]):
            notes[view.who] = view.data.decode("utf-8")
    return Seen(now, notes)


def _size(note: str) -> int:
    return decode_decimal(note.split("\n", 2)[1], "seen size")
