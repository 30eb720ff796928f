"""What a Nextcloud keeps, in memory, with the habits that matter to an auditor. `fake.py` speaks HTTP for it.

old bytes are kept under the mtime they had, at the NEXT write: two writes with one mtime leave one version
empty content is never kept; the list of versions names the current content too, which has no bytes there
the etag of a file comes from mtime, id and size alone; those of the folders above it move up to the root
a restored version brings its mtime back; a file in the trash keeps its id and its versions, without authors
what is shared is the owner's, at the recipient's root; what a recipient deletes is in the owner's trash, and a copy
of it, with an id of its own, in the recipient's
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import md5

_NODE_EVENTS = "OCP\\Files\\Events\\Node\\"
_NAMESPACES = {"NodeRestoredEvent": "OCA\\Files_Trashbin\\Events\\"}


class Answer(Exception):
    """Ends a request with a status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class File:
    def __init__(self, file_id: int, owner: str) -> None:
        self.file_id, self.owner = file_id, owner
        self.data, self.mtime, self.upload_time = b"", 0, 0
        self.old: dict[int, bytes] = {}  # the `.v<mtime>` files
        self.rows: dict[int, tuple[int, str]] = {}  # mtime -> size, author
        self.ghosts: set[int] = set()  # taken out by a restore, still in the cache: a read ends in 500
        self.mount, self.is_encrypted = "", False
        self.readers = 0  # shared locks

    @property
    def etag(self) -> str:
        return md5(f"{self.mtime} {self.file_id} {len(self.data)}".encode()).hexdigest()

    def write(self, data: bytes, mtime: int, now: int, author: str) -> None:
        self.keep()
        self.data, self.mtime, self.upload_time = data, mtime, now
        self.rows[mtime] = (len(data), author)

    def keep(self) -> None:
        """The bytes go under their mtime, over what was there."""
        if self.data:
            self.old[self.mtime] = self.data
            self.ghosts.discard(self.mtime)
        else:
            self.rows.pop(self.mtime, None)

    def restore(self, version: int) -> None:
        data = self.old.pop(version)
        self.ghosts.add(version)
        self.keep()
        self.data, self.mtime = data, version

    def versions(self) -> dict[int, tuple[int, str]]:
        return {mtime: row for mtime, row in self.rows.items() if mtime in self.old or mtime == self.mtime}

    def thin(self, keep: int) -> None:
        """A background job drops the oldest; no event, no trace."""
        for mtime in sorted(self.old)[: max(0, len(self.old) - keep)]:
            del self.old[mtime]


class Folder:
    def __init__(self, file_id: int, owner: str, now: int) -> None:
        self.file_id, self.owner, self.mtime = file_id, owner, now
        self.children: dict[str, Node] = {}
        self.etag = f"{file_id:013x}"
        self.mount, self.is_encrypted = "", False
        self.upload_time = 0


Node = File | Folder


class Trash:
    """A deleted file or folder."""

    def __init__(self, name: str, path: str, node: Node, deleted_at: int) -> None:
        self.name, self.path, self.node, self.deleted_at = name, path, node, deleted_at


class User:
    def __init__(self, uid: str, password: str, root: Folder) -> None:
        self.uid, self.root = uid, root
        self.passwords = {password}
        self.trash: dict[str, Trash] = {}


class Cloud:
    """All users, and the clock. Paths are tuples of names."""

    def __init__(self, now: int = 1_800_000_000) -> None:
        self.now = now
        self.users: dict[str, User] = {}
        self.events: list[dict[str, object]] = []  # what webhook_listeners would send, in order
        self._last_id, self._changes = 30, 0

    def add_user(self, uid: str, password: str) -> User:
        if uid in self.users:
            raise Answer(400)
        user = self.users[uid] = User(uid, password, Folder(self._next_id(), uid, self.now))
        return user

    def find(self, user: User, path: tuple[str, ...]) -> Node | None:
        node: Node = user.root
        for name in path:
            child = node.children.get(name) if isinstance(node, Folder) else None
            if child is None:
                return None
            node = child
        return node

    def get(self, user: User, path: tuple[str, ...]) -> Node:
        node = self.find(user, path)
        if node is None:
            raise Answer(404)
        return node

    def file_by_id(self, user: User, file_id: int) -> tuple[tuple[str, ...], File] | None:
        return next(((path, node) for path, node in self.walk(user) if node.file_id == file_id), None)

    def walk(self, user: User) -> Iterator[tuple[tuple[str, ...], File]]:
        todo: list[tuple[tuple[str, ...], Node]] = [((), user.root)]
        while todo:
            path, node = todo.pop()
            if isinstance(node, File):
                yield path, node
            else:
                todo += [((*path, name), child) for name, child in node.children.items()]

    def put(self, user: User, path: tuple[str, ...], data: bytes, mtime: int | None = None, bulk: bool = False) -> File:
        parent, node = self._parent(user, path), self.find(user, path)
        if isinstance(node, Folder):
            raise Answer(409)
        is_new = node is None
        file = node or File(self._next_id(), parent.owner)
        self._free(file)
        file.write(data, self.now if mtime is None else mtime, 0 if bulk else self.now, user.uid)
        parent.children[path[-1]] = file
        self._touch_above(user, path)
        self._event("NodeCreatedEvent" if is_new else "NodeWrittenEvent", user, path, file)
        return file

    def make_folder(self, user: User, path: tuple[str, ...]) -> None:
        if self.find(user, path) is not None:
            raise Answer(405)
        folder = self._parent(user, path).children[path[-1]] = Folder(self._next_id(), user.uid, self.now)
        self._touch_above(user, path)
        self._event("NodeCreatedEvent", user, path, folder)

    def touch(self, user: User, path: tuple[str, ...], mtime: int) -> None:
        file = self.get(user, path)
        if isinstance(file, File):
            row = file.rows.pop(file.mtime, (len(file.data), user.uid))
            file.mtime, file.rows[mtime] = mtime, row
        self._touch_above(user, path)
        self._event("NodeTouchedEvent", user, path, file)

    def delete(self, user: User, path: tuple[str, ...]) -> None:
        node = self.get(user, path)
        self._free(node)
        self._event("BeforeNodeDeletedEvent", user, path, node)
        parent = self._parent(user, path)
        del parent.children[path[-1]]
        name = f"{path[-1]}.d{self.now}"
        while name in user.trash:
            name += "0"
        owner = self.users[node.owner]
        if owner is not user and isinstance(node, File):
            user.trash[name] = Trash(name, "/".join(path), self._copy_of(node, user), self.now)
            path_there = next((at for at, one in self.walk_folders(owner) if one is parent), ())
            owner.trash[name] = Trash(name, "/".join((*path_there, path[-1])), node, self.now)
        else:
            user.trash[name] = Trash(name, "/".join(path), node, self.now)
        self._touch_above(user, path)
        self._event("NodeDeletedEvent", user, path, None)

    def restore_from_trash(self, user: User, name: str) -> None:
        if name not in user.trash:
            raise Answer(404)
        item = user.trash.pop(name)
        path = tuple(item.path.split("/"))
        if not isinstance(self.find(user, path[:-1]), Folder):
            path = path[-1:]
        if isinstance(item.node, File):
            item.node.rows = {mtime: (size, "") for mtime, (size, _) in item.node.rows.items()}
        self._parent(user, path).children[path[-1]] = item.node
        self._touch_above(user, path)
        before: dict[str, object] = {"path": f"/{user.uid}/files_trashbin/files/{name}"}
        self._moved_event("NodeRestoredEvent", user, before, path, item.node)

    def restore_version(self, user: User, file_id: int, version: int) -> None:
        found = self.file_by_id(user, file_id)
        if found is None or version not in found[1].old:
            raise Answer(404)
        found[1].restore(version)
        self._touch_above(user, found[0])
        self._event("NodeTouchedEvent", user, found[0], found[1])

    def move(self, user: User, path: tuple[str, ...], target: tuple[str, ...]) -> None:
        node, parent = self.get(user, path), self._parent(user, target)
        if isinstance(node, File) and node.readers:
            raise Answer(500)
        del self._parent(user, path).children[path[-1]]
        parent.children[target[-1]] = node
        self._touch_above(user, path)
        self._touch_above(user, target)
        self._moved_event("NodeRenamedEvent", user, {"path": _path(user, path)}, target, node)

    def copy(self, user: User, path: tuple[str, ...], target: tuple[str, ...]) -> None:
        node, parent = self.get(user, path), self._parent(user, target)
        if not isinstance(node, File):
            raise Answer(501)
        file = parent.children[target[-1]] = self._copy_of(node, user)
        self._touch_above(user, target)
        source: dict[str, object] = {"id": node.file_id, "path": _path(user, path)}
        self._moved_event("NodeCopiedEvent", user, source, target, file)

    def share(self, user: User, path: tuple[str, ...], recipient: str) -> None:
        node = self.get(user, path)
        other = self.users[recipient]
        other.root.children[path[-1]] = node
        self._touch_above(other, path[-1:])

    def walk_folders(self, user: User) -> Iterator[tuple[tuple[str, ...], Folder]]:
        todo: list[tuple[tuple[str, ...], Folder]] = [((), user.root)]
        while todo:
            path, folder = todo.pop()
            yield path, folder
            todo += [((*path, name), one) for name, one in folder.children.items() if isinstance(one, Folder)]

    def _copy_of(self, node: File, user: User) -> File:
        file = File(self._next_id(), user.uid)
        file.data, file.mtime, file.upload_time = node.data, node.mtime, node.upload_time
        file.old, file.rows = dict(node.old), dict(node.rows)
        return file

    def _parent(self, user: User, path: tuple[str, ...]) -> Folder:
        if not path:
            raise Answer(403)
        parent = self.find(user, path[:-1])
        if not isinstance(parent, Folder):
            raise Answer(409)
        return parent

    def _free(self, node: Node) -> None:
        if isinstance(node, File) and node.readers:
            raise Answer(423)

    def _touch_above(self, user: User, path: tuple[str, ...]) -> None:
        """New etags for the folders on the way, up to each root that shows one of them."""
        parent = self.find(user, path[:-1])
        for other in self.users.values():
            for at in [at for at, folder in self.walk_folders(other) if folder is parent]:
                for end in range(len(at) + 1):
                    self._touch(self.find(other, at[:end]))

    def _touch(self, folder: Node | None) -> None:
        if isinstance(folder, Folder):
            self._changes += 1
            folder.etag, folder.mtime = f"6b{self._changes:011x}", self.now

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _event(self, name: str, user: User, path: tuple[str, ...], node: Node | None) -> None:
        where: dict[str, object] = {} if node is None else {"id": node.file_id}
        self._send(name, user, {"node": where | {"path": _path(user, path)}})

    def _moved_event(self, name: str, user: User, source: dict[str, object], path: tuple[str, ...], node: Node) -> None:
        self._send(name, user, {"source": source, "target": {"id": node.file_id, "path": _path(user, path)}})

    def _send(self, name: str, user: User, fields: dict[str, object]) -> None:
        event = {**fields, "class": f"{_NAMESPACES.get(name, _NODE_EVENTS)}{name}"}
        self.events.append({"event": event, "user": {"uid": user.uid, "displayName": user.uid}, "time": self.now})


def _path(user: User, path: tuple[str, ...]) -> str:
    return "/".join((f"/{user.uid}/files", *path))
