"""The hash chain of one file, and which operation may follow which.

SPEC 4. Entries are linked, and the first link binds the chain to its log, owner and file:

    genesis = H("genesis", text(log name), root, chain id)
    d_i     = H("entry", entry bytes)
    head_i  = H("link", head_{i-1}, chain id, u64(i), d_i)          head_{-1} = genesis

`Chain.append` replays entries in order and enforces the legality table:

    operation  when       content part                 path part    also
    created    first      any                          any          nothing came before
    adopted    first      any; of a predecessor: same  same         a predecessor's taints live on
    copied     first      any                          any          nothing came before; context names the source
    written    live       any                          same
    moved      live       same                         another
    touched    live       same                         same
    restored   deleted    same as before the deletion  any          its bytes had not expired
    reverted   live       same as at the named seq     same         a live version, older than the current one
    altered    live       another                      same         taint: CHANGED
    deleted    live       none                         none
    gap        live       none                         none         taint: NOT PROVEN
    expired    not closed none                         none         not the current version of a live file; each once
    erased     not closed none                         none         never the current content, each part once
    sealed     not closed none                         none         see below
    closed     not closed same, none where deleted     the same     lists every taint; nothing follows

"Same" compares size and SHA3-256 of the opened parts. A rule that needs an erased part is no longer
checkable and is skipped; a missing opening that no `erased` entry names is NOT PROVEN.

Taints stick: `altered` and `gap` stay through every later operation, and into the next generation. Only the
owner's seal that lists a taint clears it. An `altered` is also mended when the file is `reverted` to a version from
before it, and stands again when it is reverted to one from between the two:

    seq          2          3                4          5
    operation    altered    reverted to 1    written    reverted to 2    (to 3 or 4: nothing would stand)
    standing     2          –                –          2

Nothing is cleared through an erased part, and no server-said `written` clears anything.

Not checked here: that the chain is in the log (`verifier.verify`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from hashlib import sha3_256
from itertools import chain as concatenate

from verifier import ed25519
from verifier.encoding import tag, tagged, text, u64
from verifier.entry import (
    ALL_PARTS,
    MAX_ENTRIES,
    MAX_LISTED,
    Closed,
    CloseReason,
    Content,
    ContextField,
    Entry,
    Erased,
    Expired,
    Operation,
    Part,
    Predecessor,
    Reverted,
    Seal,
    Taint,
    TaintKind,
    commit,
    decode_content,
    decode_context,
    decode_entry,
    decode_path,
    encode_entry,
    encode_seal_body,
    entry_hash,
)
from verifier.errors import BadSignature, Changed, IllegalStep, Malformed, NotProven
from verifier.record import NamedTuple, make

NO_SEAL = bytes(32)  # `previous` of a chain's first seal
_LINK_TAG = tag("link")


class Missing(Enum):
    """The opening of a part is not there (erased, or withheld)."""

    MISSING = 0


MISSING = Missing.MISSING

Openings = tuple[bytes | None, bytes | None, bytes | None]


class Binding(NamedTuple):
    """What a chain belongs to. `owner_key` is None for someone who cannot know the owner's public key."""

    log_name: str
    source_id: str
    root: bytes
    file_id: int
    chain_id: bytes
    owner_key: bytes | None


class Step(NamedTuple):
    """An entry, its hash, and its opened parts."""

    entry: Entry
    hash: bytes
    content: Content | None | Missing
    path: str | None | Missing
    context: dict[ContextField, str] | Missing


class Ending(NamedTuple):
    """How the chain before this one ended: what `adopted` must name and keep."""

    chain_id: bytes
    seq: int
    head: bytes
    content: Content | None | Missing
    path: str | None | Missing
    taints: tuple[Taint, ...]


class Version(NamedTuple):
    """A content of the file: the commitment of the entry that set it, and what is known of it."""

    commitment: bytes
    content: Content | Missing


class Mending(NamedTuple):
    """A revert to a version from before alterations: the version, its own seq, and the alterations, which ascend.

    They are mended if both contents are shown. What is reverted to again is none of them any more.
    """

    target: int
    seq: int
    shown: bool
    altered: list[int]


class Sealed(NamedTuple):
    """A valid seal in the chain: where it stands, what it says, the hash of its entry."""

    position: int
    seal: Seal
    hash: bytes


def genesis(binding: Binding) -> bytes:
    """head_{-1}: binds the log's permanent name, the owner's root and the chain id (SPEC 4.1)."""
    return tagged("genesis", text(binding.log_name), binding.root, binding.chain_id)


def link(head: bytes, chain_id: bytes, seq: int, hashed: bytes) -> bytes:
    """The next chain head (SPEC 4.1)."""
    return sha3_256(b"".join((_LINK_TAG, head, chain_id, seq.to_bytes(8, "big"), hashed))).digest()


def link_leaf(head: bytes, fields: bytes) -> bytes:
    """The next chain head, from chain id, seq and hash as they stand one after the other in a leaf (SPEC 6.1)."""
    return sha3_256(_LINK_TAG + head + fields).digest()


def seal_message(binding: Binding, seal: Seal) -> bytes:
    """The bytes that the owner's key signs in a seal (SPEC 5.1)."""
    return _owner_statement("seal", binding) + encode_seal_body(seal)


def close_message(binding: Binding, head: bytes, entry: Entry) -> bytes:
    """What the owner's key signs in a `closed`: the head before it and the entry without signature (SPEC 5.2)."""
    assert isinstance(entry.argument, Closed)
    unsigned = entry._replace(argument=entry.argument._replace(signature=b""))
    return _owner_statement("close", binding) + head + encode_entry(unsigned)


def _owner_statement(name: str, binding: Binding) -> bytes:
    named = text(binding.log_name) + text(binding.source_id)
    return tag(name) + named + binding.root + u64(binding.file_id) + binding.chain_id


def open_step(data: bytes, openings: Openings) -> Step:
    """Decodes an entry and opens its parts; a wrong opening is Changed, an absent one is MISSING."""
    entry = decode_entry(data)
    content, path, context = openings
    parts = (
        entry,
        entry_hash(data),
        MISSING if content is None else decode_content(_open(entry, Part.CONTENT, entry.content, content)),
        MISSING if path is None else decode_path(_open(entry, Part.PATH, entry.path, path)),
        MISSING if context is None else decode_context(_open(entry, Part.CONTEXT, entry.context, context)),
    )
    return make(Step, parts)


def _open(entry: Entry, part: Part, commitment: bytes, opening: bytes) -> bytes:
    if len(opening) < 32:
        raise Malformed("opening shorter than its salt", f"step {entry.seq} {part.word}", len(opening))
    if commit(part, opening) != commitment:
        raise Changed("history", f"step {entry.seq}: the {part.word} shown is not the one that was logged", entry.seq)
    return opening[32:]


class Chain:
    """One file's history, replayed entry by entry. Attributes are read freely, changed only by `append`.

    status     "new", "live", "deleted" or "closed"
    seq, head  of the last entry; -1 and the genesis before the first
    version    seq that set the current content; `versions` holds each content whose bytes are not expired
    """

    def __init__(self, binding: Binding, predecessor: Ending | None = None) -> None:
        self.binding = binding
        self.predecessor = predecessor
        self.status = "new"
        self.seq = -1
        self.head = genesis(binding)
        self.version = -1
        self.content: Content | None | Missing = None
        self.path: str | None | Missing = None
        self.steps: list[Step] = []
        self.heads: list[bytes] = []
        self.carriers: list[tuple[int, bytes]] = []  # per seq: current version and the newest content commitment
        self.versions: dict[int, Version] = {}
        self.tainted_ever: set[tuple[bytes, int]] = set()
        self.erased: set[tuple[int, Part]] = set()
        self.seals: list[Sealed] = []
        self._carrier = b""
        self._taints: dict[tuple[bytes, int], Taint] = {}  # those that nothing but a seal clears
        self._altered_at: list[int] = []  # own alterations that no revert has mended; ascending, as all such lists
        self._mendings: list[Mending] = []
        self._accepted: set[int] = set()  # own alterations

    @property
    def taints(self) -> dict[tuple[bytes, int], Taint]:
        """What still stands against the history, by chain id and seq (SPEC 4.4)."""
        return self._standing([mending.altered for mending in self._mendings if not mending.shown])

    def _standing(self, unmended: list[list[int]]) -> dict[tuple[bytes, int], Taint]:
        if not self._altered_at and not unmended:
            return self._taints
        own, standing = self.binding.chain_id, {*self._altered_at, *concatenate.from_iterable(unmended)}
        altered = sorted(standing - self._accepted)
        return self._taints | {(own, seq): Taint(own, seq, TaintKind.ALTERED) for seq in altered}

    def append(self, step: Step) -> None:
        """Takes the next entry, or raises IllegalStep and leaves the chain unusable (SPEC 4.2)."""
        entry = step.entry
        if entry.seq != self.seq + 1:
            raise IllegalStep(entry.seq, f"got seq {entry.seq}, want {self.seq + 1}")
        allowed, rule = _RULES[entry.operation]
        if self.status not in allowed and not (self.status == "closed" and _ends_lost(entry)):
            raise IllegalStep(entry.seq, f"{entry.operation.word} cannot follow a chain that is {self.status}")
        if entry.seq == MAX_ENTRIES - 1 and entry.operation is not Operation.CLOSED:
            raise IllegalStep(entry.seq, f"a chain of {MAX_ENTRIES} entries ends with closed")
        rule(self, step)
        self.seq = entry.seq
        self.head = link(self.head, self.binding.chain_id, entry.seq, step.hash)
        self.steps.append(step)
        self.heads.append(self.head)
        self.carriers.append((self.version, self._carrier))

    def check_openings(self, parts: Collection[Part] = ALL_PARTS) -> None:
        """Every opening of these parts that is missing is named by an `erased` entry (SPEC 4.3)."""
        for seq, part in self.withheld():
            if part in parts:
                where = f"step {seq}: the {part.word} is not shown, and no entry says that it was erased"
                raise NotProven("opening-missing", where)

    def withheld(self) -> Iterator[tuple[int, Part]]:
        """The openings that are missing and not erased, step by step."""
        for step in self.steps:
            if step.content is not MISSING and step.path is not MISSING and step.context is not MISSING:
                continue
            for part, value in zip(ALL_PARTS, step[2:], strict=True):
                if value is MISSING and (step.entry.seq, part) not in self.erased:
                    yield step.entry.seq, part

    def ending(self) -> Ending:
        """What the next generation's `adopted` must name. An unsigned close is a taint of its own (SPEC 4.5)."""
        closed = self.steps[-1].entry.argument
        assert isinstance(closed, Closed)
        taints = closing_taints(closed, self.binding.chain_id, self.seq)
        return Ending(self.binding.chain_id, self.seq, self.head, self.content, self.path, taints)

    # -- the rules, one for each line of the table ------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        """[R] Only `adopted` may continue another chain, or its taints would be shed."""
        if self.predecessor is not None and step.entry.operation is not Operation.ADOPTED:
            raise IllegalStep(0, f"{step.entry.operation.word} cannot continue another chain")
        if step.entry.operation is Operation.COPIED and (
            step.context is not MISSING and ContextField.COPIED_FROM not in step.context
        ):
            raise IllegalStep(step.entry.seq, "copied names no source")
        self._set_content(step)
        self._set_path(step)
        self.status = "live"

    def _adopted(self, step: Step) -> None:
        named = step.entry.argument
        if named is not None or self.predecessor is not None:
            self._continue_from(step, named)
        self._begin(step)

    def _continue_from(self, step: Step, named: object) -> None:
        before = self.predecessor
        if before is None:
            raise NotProven("predecessor", "the chain continues another one, whose end is not shown")
        if named != Predecessor(before.chain_id, before.seq, before.head):
            raise IllegalStep(0, "adopted does not name the end of the chain before")
        if before.content is not None:
            _same(step, "content", step.content, before.content)
            _same(step, "path", step.path, before.path)
        for taint in before.taints:
            self._taint(taint)

    def _written(self, step: Step) -> None:
        self._keep_path(step)
        self._set_content(step)

    def _moved(self, step: Step) -> None:
        self._keep_content(step)
        if step.path is not MISSING and step.path == self.path:
            raise IllegalStep(step.entry.seq, "moved to the path where it was")
        self._set_path(step)

    def _touched(self, step: Step) -> None:
        self._keep_content(step)
        self._keep_path(step)

    def _restored(self, step: Step) -> None:
        if self.version not in self.versions:
            raise IllegalStep(step.entry.seq, "restored, though the bytes had expired")
        _same(step, "content", step.content, self.content)
        self._set_content(step)
        self._set_path(step)
        self.status = "live"

    def _reverted(self, step: Step) -> None:
        assert isinstance(step.entry.argument, Reverted)
        target = step.entry.argument.target
        version = self.versions.get(target)
        if version is None or target >= self.version:
            raise IllegalStep(step.entry.seq, f"reverted to step {target}, which is no older version with its bytes")
        _same(step, "content", step.content, version.content)
        self._keep_path(step)
        self._revert_alterations(target, step.entry.seq, MISSING not in (version.content, step.content))
        self._set_content(step)

    def _revert_alterations(self, target: int, seq: int, shown: bool) -> None:
        """[R] Only bytes from before an alteration mend it; with those from after it, it stands again.

        Which revert it is goes by the steps alone, whatever is shown: what was erased before it mends nothing. Lists
        are cut and joined as a whole, so that thousands of alterations that come and go cost a second, and not minutes.
        """
        later = self._altered_at[bisect_right(self._altered_at, target) :]
        again = [m for m in self._mendings if m.altered[0] <= target < m.seq]
        if later and (target, Part.CONTENT) not in self.erased:
            del self._altered_at[-len(later) :]
            self._mendings.append(Mending(target, seq, shown, later))
        for mending in again:
            end = bisect_right(mending.altered, target)
            self._altered_at += mending.altered[:end]
            del mending.altered[:end]
        if again:
            self._altered_at.sort()
            self._mendings = [mending for mending in self._mendings if mending.altered]

    def _altered(self, step: Step) -> None:
        if isinstance(step.content, Content) and isinstance(self.content, Content):
            if step.content.same_bytes(self.content):
                raise IllegalStep(step.entry.seq, "altered to the same bytes")
        self._keep_path(step)
        self._set_content(step)
        self._altered_at.append(step.entry.seq)
        self.tainted_ever.add((self.binding.chain_id, step.entry.seq))

    def _deleted(self, step: Step) -> None:
        _carries_nothing(step)
        self.status = "deleted"
        self._carrier = b""  # so that no seal can speak of a file that is not there

    def _gap(self, step: Step) -> None:
        _carries_nothing(step)
        self._taint(Taint(self.binding.chain_id, step.entry.seq, TaintKind.GAP))

    def _expired(self, step: Step) -> None:
        _carries_nothing(step)
        assert isinstance(step.entry.argument, Expired)
        for seq in step.entry.argument.seqs:
            current = seq == self.version and self.status == "live"
            if seq not in self.versions or current:
                raise IllegalStep(step.entry.seq, f"step {seq} is no older version that could expire")
            del self.versions[seq]

    def _erased(self, step: Step) -> None:
        _carries_nothing(step)
        assert isinstance(step.entry.argument, Erased)
        seq, part = step.entry.argument
        if seq > self.seq or (seq, part) in self.erased:
            raise IllegalStep(step.entry.seq, f"there is no {part.word} of step {seq} to erase")
        if part is Part.CONTENT and self.status == "live" and seq >= self.version:
            raise IllegalStep(step.entry.seq, "the current content cannot be erased")
        if part is Part.CONTENT and any(self._rests_on(mending, seq) for mending in self._mendings):
            raise IllegalStep(
                step.entry.seq, f"what mended an alteration rests on step {seq}: a seal must accept it first"
            )
        self.erased.add((seq, part))

    def _rests_on(self, mending: Mending, seq: int) -> bool:
        return seq in (mending.target, mending.seq) and not self._accepted.issuperset(mending.altered)

    def _sealed(self, step: Step) -> None:
        _carries_nothing(step)
        seal = step.entry.argument
        assert isinstance(seal, Seal)
        self.check_seal(seal, step.entry.seq)
        if self.binding.owner_key is None:
            return  # nobody here can tell whose signature this is, so it clears and covers nothing
        self.seals.append(Sealed(step.entry.seq, seal, step.hash))
        for key in seal.accepts:
            self._taints.pop(key, None)
        self._accepted.update(seq for chain_id, seq in seal.accepts if chain_id == self.binding.chain_id)

    def check_seal(self, seal: Seal, position: int) -> None:
        """The seal speaks of this chain as it was at `seal.seq`, and the owner's key signed it (SPEC 5.1)."""
        if seal.seq > self.seq:
            raise IllegalStep(position, f"seals step {seal.seq}, which was not there yet")
        version, commitment = self.carriers[seal.seq]
        if seal.head != self.heads[seal.seq] or seal.content != commitment:
            raise IllegalStep(position, f"seals a step {seal.seq} that is not the one in this chain")
        newest = self.seals[-1].seal if self.seals else None
        if newest is not None and not (newest.seq < seal.seq and newest.tree_size <= seal.tree_size):
            raise IllegalStep(position, f"seals step {seal.seq}, though step {newest.seq} is sealed already")
        if not version <= seal.checked_from <= seal.seq:
            raise IllegalStep(position, f"seal says checked from {seal.checked_from}, want {version} to {seal.seq}")
        if self.binding.owner_key is not None and seal.previous != self.newest_seal_at(seal.seq):
            raise IllegalStep(position, "seal does not name the newest seal before it")
        for chain_id, seq in seal.accepts:
            later = chain_id == self.binding.chain_id and seq > seal.seq
            if (chain_id, seq) not in self.tainted_ever or later:
                raise IllegalStep(position, f"seal accepts step {seq}, which nothing stood against")
        if self.binding.owner_key is not None:
            message = seal_message(self.binding, seal)
            _check_signed(self.binding.owner_key, seal.signature, message, position, "the seal")

    def newest_seal_at(self, seq: int) -> bytes:
        """The entry hash of the newest seal that stands at or below `seq`; zeros when there is none."""
        return next((sealed.hash for sealed in reversed(self.seals) if sealed.position <= seq), NO_SEAL)

    def _closed(self, step: Step) -> None:
        closed = step.entry.argument
        assert isinstance(closed, Closed)
        if closed.reason is CloseReason.LOSS:
            self._close_lost(step)
        elif self.status == "live":
            self._keep_content(step)
            self._keep_path(step)
        else:
            _carries_nothing(step)
            self.content = self.path = None
        if closed.reason is not CloseReason.LOSS:
            self._check_listed(step.entry.seq, closed)
        if closed.signature:
            check_close_signature(self.binding, self.head, step.entry)
        self.status = "closed"

    def _check_listed(self, seq: int, closed: Closed) -> None:
        """By the steps alone, whatever is shown, as whoever wrote it saw all of it.

        Who accepts an unsigned close accepts all that came before it, so a list that is full may end there.
        """
        taints = sorted(self._standing([]).values())
        if closed.taints != tuple(taints[:MAX_LISTED]):
            raise IllegalStep(seq, "closed does not list what stands against the history")
        if closed.signature and len(taints) > MAX_LISTED:
            raise IllegalStep(seq, f"closed is signed, though it lists {MAX_LISTED} of the {len(taints)} that stand")

    def _close_lost(self, step: Step) -> None:
        """The server lost steps before this one, so it says what it still knows, and nothing can be compared."""
        if (step.content is None) != (step.path is None):
            raise IllegalStep(step.entry.seq, "closed carries content or path without the other")
        self.content, self.path = step.content, step.path

    # -- shared pieces ------------------------------------------------------------------------------------------

    def _taint(self, taint: Taint) -> None:
        key = taint.chain_id, taint.seq
        self._taints[key] = taint
        self.tainted_ever.add(key)

    def _set_content(self, step: Step) -> None:
        if step.content is None:
            raise _lacks(step, "content")
        self.content, self.version, self._carrier = step.content, step.entry.seq, step.entry.content
        self.versions[step.entry.seq] = make(Version, (step.entry.content, step.content))

    def _keep_content(self, step: Step) -> None:
        if step.content is None:
            raise _lacks(step, "content")
        _same(step, "content", step.content, self.content)
        if self.content is MISSING:
            self.content = step.content
        self._carrier = step.entry.content

    def _set_path(self, step: Step) -> None:
        if step.path is None:
            raise _lacks(step, "path")
        self.path = step.path

    def _keep_path(self, step: Step) -> None:
        if step.path is None:
            raise _lacks(step, "path")
        _same(step, "path", step.path, self.path)
        self.path = step.path


def _ends_lost(entry: Entry) -> bool:
    """A `closed` of a server that lost steps, which may have been a `closed` themselves (SPEC 4.6)."""
    return isinstance(entry.argument, Closed) and entry.argument.reason is CloseReason.LOSS


def closing_taints(closed: Closed, chain_id: bytes, seq: int, checkable: bool = True) -> tuple[Taint, ...]:
    """What the next generation takes over from a `closed`: what it lists, and itself where the owner did not sign it.

    `checkable`: whether its signature, where it has one, is known to be the owner's (SPEC 4.5).
    """
    signed = checkable and bool(closed.signature)
    return closed.taints if signed else (*closed.taints, Taint(chain_id, seq, TaintKind.UNSIGNED_CLOSE))


def check_close_signature(binding: Binding, head: bytes, entry: Entry) -> None:
    """The signature in a `closed` is the owner's, over the head before it."""
    assert isinstance(entry.argument, Closed)
    if binding.owner_key is not None:
        message = close_message(binding, head, entry)
        _check_signed(binding.owner_key, entry.argument.signature, message, entry.seq, "closed")


def _check_signed(key: bytes, signature: bytes, message: bytes, seq: int, what: str) -> None:
    try:
        ed25519.verify(key, signature, message, "owner", b"")
    except BadSignature:
        raise IllegalStep(seq, f"the signature under {what} is not the owner's") from None


def _lacks(step: Step, what: str) -> IllegalStep:
    """A live file always has a content and a path, even where what they were before is erased."""
    return IllegalStep(step.entry.seq, f"{step.entry.operation.word} carries no {what}")


def _carries_nothing(step: Step) -> None:
    for part, value in (("content", step.content), ("path", step.path)):
        if value is not None and value is not MISSING:
            raise IllegalStep(step.entry.seq, f"{step.entry.operation.word} carries a {part}")


def _same(step: Step, what: str, got: object, want: object) -> None:
    """Compares two opened parts; what is erased is no longer checkable."""
    if got is MISSING or want is MISSING:
        return
    equal = got.same_bytes(want) if isinstance(got, Content) and isinstance(want, Content) else got == want
    if not equal:
        raise IllegalStep(step.entry.seq, f"{step.entry.operation.word} does not keep the {what}")


_Rule = Callable[[Chain, Step], None]
_NEW, _LIVE, _DELETED, _OPEN = {"new"}, {"live"}, {"deleted"}, {"live", "deleted"}
_RULES: dict[Operation, tuple[set[str], _Rule]] = {
    Operation.CREATED: (_NEW, Chain._begin),
    Operation.WRITTEN: (_LIVE, Chain._written),
    Operation.MOVED: (_LIVE, Chain._moved),
    Operation.TOUCHED: (_LIVE, Chain._touched),
    Operation.COPIED: (_NEW, Chain._begin),
    Operation.DELETED: (_LIVE, Chain._deleted),
    Operation.RESTORED: (_DELETED, Chain._restored),
    Operation.REVERTED: (_LIVE, Chain._reverted),
    Operation.EXPIRED: (_OPEN, Chain._expired),
    Operation.ADOPTED: (_NEW, Chain._adopted),
    Operation.GAP: (_LIVE, Chain._gap),
    Operation.ALTERED: (_LIVE, Chain._altered),
    Operation.SEALED: (_OPEN, Chain._sealed),
    Operation.ERASED: (_OPEN, Chain._erased),
    Operation.CLOSED: (_OPEN, Chain._closed),
}
