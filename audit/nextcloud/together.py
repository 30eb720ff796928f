"""Metadata of many files at once: whoever asks about files of one folder at about one time is answered by one listing.

    together = Together(share)
    node = await together.stat(session, "letters/a.odt")        as `session.stat`

A Nextcloud takes as long for one file's metadata as for a listing of some hundred. Each look asks twice, before and
after it read; so where several looks wait for files of the same folder, they share a PROPFIND of depth 1, which starts
after all of them asked: what it says is as young as each wanted it. Nobody waits unless others are at work. Where
requests have turns (`share`), whoever asks before the listing has its turn is answered by it too.
"""

from __future__ import annotations

import asyncio
from asyncio import Future

from audit.errors import AuditError, Fatal
from audit.nextcloud.share import FREELY, Share
from audit.nextcloud.values import Node, Session
from verifier.errors import Error

WAIT_S = 0.05  # for others who ask about the same folder; other requests run meanwhile
FEW = 3  # so few are asked about one by one
WORTH = 64  # entries that may be listed for each file asked about
LARGE = 4_096  # folders of so many entries are remembered, so that they are not listed for a few files

_Place = tuple[str, str]  # user and folder


class Together:
    """One for a looker. `at_work` counts the looks that are under way."""

    def __init__(self, share: Share = FREELY) -> None:
        self.at_work, self._share = 0, share
        self._large: dict[_Place, int] = {}
        self._asked: dict[_Place, list[tuple[str, Future[Node | None]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def stat(self, session: Session, path: str) -> Node | None:
        """The file or folder at a path."""
        if self.at_work <= FEW:
            return await session.stat(path)
        place = session.user, path.rpartition("/")[0]
        asked, done = self._asked.setdefault(place, []), Future[Node | None]()
        asked.append((path, done))
        if len(asked) == 1:
            task = asyncio.create_task(self._answer(session, place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await done

    def saw(self, user: str, folder: str, entries: int) -> None:
        """How large a folder is."""
        if entries >= LARGE:
            self._large[user, folder] = entries
        else:
            self._large.pop((user, folder), None)

    async def _answer(self, session: Session, place: _Place) -> None:
        await asyncio.sleep(WAIT_S)
        asked, nodes = [], None
        try:
            async with self._share.turn():
                asked = self._asked.pop(place)  # who asks from here on waits for the next answer
                if len(asked) > FEW and self._large.get(place, 0) <= WORTH * len(asked):
                    nodes = await self._list(session, place)
            await asyncio.gather(*(self._tell(session, path, done, nodes) for path, done in asked))
        except BaseException as error:
            for _, done in asked:
                if not done.done():
                    done.set_exception(error)
            if not isinstance(error, Exception):
                raise

    async def _list(self, session: Session, place: _Place) -> dict[str, Node] | None:
        """None where it fails: one entry that cannot be read must not hide the others."""
        try:
            listed = await session.list_folder(place[1])
        except Fatal:
            raise
        except (AuditError, Error):
            return None
        self.saw(*place, len(listed))
        return {node.path: node for node in listed}

    async def _tell(
        self, session: Session, path: str, done: Future[Node | None], nodes: dict[str, Node] | None
    ) -> None:
        try:
            node = await session.stat(path) if nodes is None else nodes.get(path)
        except Exception as error:
            if not done.done():  # whoever asked may have been cancelled
                done.set_exception(error)
            return
        if not done.done():
            done.set_result(node)
