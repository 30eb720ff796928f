"""What happened to a file of a Nextcloud: from what was recorded last and what is there now. Pure.

    wanted = versions_to_read(known, history, look)             which old versions have to be read first
    conclude(known, history, look._replace(readings=...))       [Conclusion(WRITTEN, ...), Conclusion(MOVED, ...)]

An event never says what happened, it only says where to look. What is concluded, in this order:

    no chain yet          adopted (it was there when the first walk came by), copied (only if that is proven), created;
                          the oldest version first, the others and the current content after it
    deleted, and there    restored; where its bytes were purged: closed (reused id), and a chain that continues it
    another path          moved
    unseen versions       written, oldest first; a version that is listed and cannot be read, or whose bytes are not of
                          the listed size, is a gap
    other bytes           altered, where etag, mtime, size and upload time are what they were and no version is new;
                          reverted, where the mtime of an older version came back with its bytes; else written
    the same bytes        touched, where the mtime is another one
    versions that left    expired (thinned), where the list has others: an empty list says that there is none at all
    nothing there         deleted; and expired (purged), once it is not in the trash either

Where two explanations fit, the one that claims less: a write of the very same bytes is `touched`, bytes of an older
version under a new mtime are `written`. Nextcloud never keeps empty content, and calls a version by its mtime, which
the client picks: two writes with one mtime are one version there. Not to be seen, and so never said: what was written
and overwritten between two looks and is in no list (SPEC 12). `thinned` says that the list of a file that is there has
lost the version, by a job or by hand: the list does not say which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from audit.chains import DELETED, LIVE
from audit.nextcloud.values import Node, Reading, Version
from verifier.entry import (
    MAX_LISTED,
    Argument,
    CloseReason,
    Content,
    ContextField,
    Expired,
    ExpiryReason,
    Gap,
    GapReason,
    Operation,
    Reverted,
)

NEW = "new"  # beside those of a chain
MAX_FIELD = 255  # bytes of a context field that we take over from the server
ENCRYPTED = "end-to-end encrypted: the bytes are ciphertext"

Identity = tuple[str, int, int, int]


class Known(NamedTuple):
    """What was recorded last about a file, with the metadata that it had then."""

    file_id: int
    user: str
    viewer: str
    path: str
    etag: str
    mtime: int
    size: int
    upload_time: int
    digest: bytes
    checked: int
    in_trash: int

    @property
    def identity(self) -> Identity:
        return self.etag, self.mtime, self.size, self.upload_time


class Past(NamedTuple):
    """A version of the file, as the log has it. `seq` is None in an earlier generation, which none may name."""

    seq: int | None
    content: Content | None  # None: erased
    mtimes: frozenset[int]  # under which it was current, one after the other
    has_bytes: bool  # not expired


class History(NamedTuple):
    """A file's chain as far as a look needs it; versions in their order, the current one last."""

    status: str
    path: str | None
    content: Content | None
    mtime: int
    current: int  # seq of the current version
    versions: tuple[Past, ...]

    def knows(self, version: Version) -> bool:
        return any(
            version.mtime in past.mtimes and (past.content is None or past.content.size == version.size)
            for past in self.versions
        )


NOTHING = History(NEW, None, None, 0, -1, ())


def nameless(history: History) -> History:
    """The same before another chain starts: no step there may name a seq of this one (`expired`, `reverted`)."""
    return history._replace(versions=tuple([past._replace(seq=None) for past in history.versions]))


class Look(NamedTuple):
    """What was observed. `readings`: of the old versions that were asked for; None where the bytes are not there."""

    node: Node | None
    reading: Reading | None = None
    versions: Sequence[Version] = ()
    readings: Mapping[str, Reading | None] = {}
    is_in_trash: bool = False
    predates: bool = False
    copied_from: int | None = None  # the file id, where it is proven


class Conclusion(NamedTuple):
    """One entry to be."""

    operation: Operation
    mtime: int = 0
    content: Content | None = None
    path: str | None = None
    context: Mapping[ContextField, str] = {}
    argument: Argument | CloseReason | None = None


def identity_of(node: Node) -> Identity:
    return node.etag, node.mtime, node.size, node.upload_time


def known_of(look: Look, user: str, viewer: str, now: int) -> Known:
    """What is remembered of a look at a file that is there."""
    assert look.node is not None
    assert look.reading is not None
    node = look.node
    return Known(node.file_id, user, viewer, node.path, *identity_of(node), look.reading.sha3_256, now, 0)


def versions_to_read(known: Known | None, history: History, look: Look) -> list[Version]:
    """The old versions whose bytes are needed: the unseen ones, and the one that we knew as current till now.

    Bytes that were overwritten twice within a second, or under equal metadata, stand under the mtime that we know.
    """
    if look.node is None:
        return []
    return [
        version
        for version in _older(look)
        if not history.knows(version) or known is not None and version.mtime == known.mtime
    ]


def conclude(known: Known | None, history: History, look: Look) -> list[Conclusion]:
    """The entries that lead from what is recorded to what is there; none where nothing happened."""
    if look.node is None:
        return _gone(history, look)
    assert look.reading is not None
    return _Conclude(known, history, look, look.node).run(_content(look.reading))


class _Conclude:
    """One file that is there. `content`, `path` and `mtime` are those after the steps so far."""

    def __init__(self, known: Known | None, history: History, look: Look, node: Node) -> None:
        self.known, self.history, self.look, self.node = known, history, look, node
        self.content, self.path, self.mtime = history.content, history.path, history.mtime
        self.steps: list[Conclusion] = []
        self.has_news = False

    def run(self, content: Content) -> list[Conclusion]:
        if self.history.status == DELETED:
            self._come_back()
        elif self.history.status == LIVE:
            self._move(content)
        else:
            self.content = None
        for version in _older(self.look):
            self._take_version(version)
        self._take_current(content)
        if self.history.status == LIVE:
            self._expire()
        return self.steps

    # -- the path -----------------------------------------------------------------------------------------------

    def _come_back(self) -> None:
        """From the trash; or, where its bytes had been purged, as something else under a used id."""
        history = self.history
        last = next((past for past in history.versions if past.seq == history.current), None)
        if last is None or not last.has_bytes or history.content is None:
            self.steps.append(Conclusion(Operation.CLOSED, argument=CloseReason.REUSED_ID))
            self.content = None
            return
        self.path = self.node.path
        self.steps.append(Conclusion(Operation.RESTORED, history.mtime, history.content, self.path))

    def _move(self, content: Content) -> None:
        if self.path == self.node.path:
            return
        self.path = self.node.path
        is_all = self.content is not None and self.content.same_bytes(content)
        self.mtime = self.node.mtime if is_all else self.mtime
        self.steps.append(Conclusion(Operation.MOVED, self.mtime, None, self.path))

    # -- contents -----------------------------------------------------------------------------------------------

    def _take_version(self, version: Version) -> None:
        """An older version, if it is one that no step has told of."""
        if version.version_id not in self.look.readings:
            return
        reading, is_new = self.look.readings[version.version_id], not self.history.knows(version)
        self.has_news |= is_new
        if reading is None:
            if is_new and self.content is not None:  # before the first content there is nothing that we claim
                self.steps.append(Conclusion(Operation.GAP, argument=Gap(GapReason.UNOBSERVED)))
            return
        content = _content(reading)
        if not is_new and any(
            past.content is not None and version.mtime in past.mtimes and past.content.same_bytes(content)
            for past in self.history.versions
        ):
            return
        self.has_news = True
        self._set(content, version.mtime, _context(version.author, version.version_id, ""))
        if reading.size != version.size:
            self.steps.append(Conclusion(Operation.GAP, argument=Gap(GapReason.COLLAPSED)))

    def _take_current(self, content: Content) -> None:
        node = self.node
        author = next((v.author for v in self.look.versions if v.mtime == node.mtime), "")
        context = _context(author, str(node.mtime), node.mime, ENCRYPTED if node.is_encrypted else "")
        if self.content is None or self.content.same_bytes(content):
            self._set(content, node.mtime, context)
        elif self.known is not None and self.known.identity == identity_of(node) and not self.has_news:
            self._append(Operation.ALTERED, content, node.mtime, context)
        elif (target := self._older_seq(content)) is not None:
            self._append(Operation.REVERTED, content, node.mtime, context, Reverted(target))
        else:
            self._append(Operation.WRITTEN, content, node.mtime, context)

    def _set(self, content: Content, mtime: int, context: Mapping[ContextField, str]) -> None:
        """The first content, another one, or the same one under another mtime."""
        if self.content is None:
            self._begin(content, mtime, context)
        elif not self.content.same_bytes(content):
            self._append(Operation.WRITTEN, content, mtime, context)
        elif mtime != self.mtime:
            self.mtime = mtime
            self.steps.append(Conclusion(Operation.TOUCHED, mtime))

    def _begin(self, content: Content, mtime: int, context: Mapping[ContextField, str]) -> None:
        operation = Operation.ADOPTED if self.look.predates else Operation.CREATED
        if self.look.copied_from is not None and self.history.status == NEW:
            operation = Operation.COPIED
            context = {**context, ContextField.COPIED_FROM: f"file {self.look.copied_from}"}
        self.content, self.path, self.mtime = content, self.node.path, mtime
        self.steps.append(Conclusion(operation, mtime, content, self.path, context))

    def _append(
        self,
        operation: Operation,
        content: Content,
        mtime: int,
        context: Mapping[ContextField, str],
        argument: Argument | None = None,
    ) -> None:
        self.content, self.mtime = content, mtime
        self.steps.append(Conclusion(operation, mtime, content, None, context, argument))

    def _older_seq(self, content: Content) -> int | None:
        """The newest older version of this chain that had these bytes and this mtime."""
        for past in reversed(self.history.versions):
            if past.seq is None or past.content is None or not past.has_bytes or past.seq >= self.history.current:
                continue
            if self.node.mtime in past.mtimes and past.content.same_bytes(content):
                return past.seq
        return None

    def _expire(self) -> None:
        """Versions that the list has lost. Empty ones were never there, one without a known mtime may be."""
        listed = {self.node.mtime, *(version.mtime for version in self.look.versions)}
        is_replaced = any(step.content is not None for step in self.steps)
        gone = [
            past.seq
            for past in self.history.versions
            if past.seq is not None
            and past.has_bytes
            and (is_replaced or past.seq != self.history.current)
            and past.content is not None
            and past.content.size
            and past.mtimes - {0}
            and not past.mtimes & listed
        ]
        if self.look.versions:
            self.steps += _expired(ExpiryReason.THINNED, gone)


def _gone(history: History, look: Look) -> list[Conclusion]:
    """Nothing under this id any more."""
    steps = [Conclusion(Operation.DELETED)] if history.status == LIVE else []
    if history.status in (LIVE, DELETED) and not look.is_in_trash:
        seqs = [past.seq for past in history.versions if past.seq is not None and past.has_bytes]
        steps += _expired(ExpiryReason.PURGED, seqs)
    return steps


def _expired(reason: ExpiryReason, seqs: Sequence[int]) -> Iterator[Conclusion]:
    for start in range(0, len(seqs), MAX_LISTED):
        argument = Expired(reason, tuple(sorted(seqs[start : start + MAX_LISTED])))
        yield Conclusion(Operation.EXPIRED, argument=argument)


def _older(look: Look) -> list[Version]:
    """The list without the current content, which stands in it under the file's own mtime."""
    assert look.node is not None
    return [version for version in look.versions if version.mtime != look.node.mtime]


def _content(reading: Reading) -> Content:
    return Content(reading.size, reading.sha3_256)


def _context(actor: str, version: str, mime: str, remark: str = "") -> dict[ContextField, str]:
    """What is known and of a bearable size."""
    fields = {
        ContextField.ACTOR: actor,
        ContextField.VERSION: version,
        ContextField.MIME: mime,
        ContextField.REMARK: remark,
    }
    return {field: value for field, value in fields.items() if 0 < len(value.encode("utf-8")) <= MAX_FIELD}
