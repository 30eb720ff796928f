"""What Nextcloud says has happened, as hints: look at this file, or at this place, now.

    parse_webhook(body)        webhook_listeners, Nextcloud 30 and later
    parse_listener(body)       AppAPI's events_listener, Nextcloud 27 to 29
    parse_audit_line(line)     a line of admin_audit's audit.log on the same host

    {"event":{"node":{"id":80,"path":"/alice/files/ev.txt"},"class":"OCP\\Files\\Events\\Node\\NodeWrittenEvent"},
     "user":{"uid":"alice","displayName":"Alice"},"time":1795372693}          ->  Hint(80, "alice", "ev.txt")

An event is never believed: which operation it names, when, and by whom is not even read. It may be lost, late, doubled,
out of order, or forged by whoever can reach the address; at worst a file is looked at once more. Paths are the actor's
own, so a hint says in whose view to look. Events of a folder stand for all that is in it.

Where there is no file id (`NodeDeleted`, versions and trash in audit.log) the path is all there is, and where a name
could be read in two ways, the folder is hinted at: that claims less. What happens in the trash alone has no path
any more; reconciliation finds it.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from verifier.encoding import MAX_U64
from verifier.entry import MAX_PATH
from verifier.errors import Malformed

MAX_EVENT = 64 * 1024  # bytes of one event: two paths, and a display name
MAX_UID = 64  # Nextcloud's own bound
NODE_EVENTS = (
    "OCP\\Files\\Events\\Node\\NodeCreatedEvent",
    "OCP\\Files\\Events\\Node\\NodeWrittenEvent",
    "OCP\\Files\\Events\\Node\\NodeTouchedEvent",
    "OCP\\Files\\Events\\Node\\NodeRenamedEvent",
    "OCP\\Files\\Events\\Node\\NodeCopiedEvent",
    "OCP\\Files\\Events\\Node\\BeforeNodeDeletedEvent",
    "OCP\\Files\\Events\\Node\\NodeDeletedEvent",
    "OCA\\Files_Trashbin\\Events\\NodeRestoredEvent",
)
_VIEW = re.compile(r"/([^/]+)/files(?:/(.*))?", re.DOTALL)
_WITH_ID = re.compile(r'File with id "(\d{1,19})" (?:created|written to|deleted): "(.*)"', re.DOTALL)
_RENAMED = re.compile(r'File renamed with id "(\d{1,19})" from ".*', re.DOTALL)
_COPIED = re.compile(r'File id copied from: "\d{1,19}" to "(\d{1,19})", path from ".*', re.DOTALL)
_RESTORED_VERSION = re.compile(r'Version "\d{1,19}" of "/(.*)" was restored\.', re.DOTALL)
_DELETED_VERSION = re.compile(r'Version "/(.*)\d" was deleted\.', re.DOTALL)
_RESTORED = re.compile(r'File "/(.*)" restored from trash bin\.', re.DOTALL)


class Hint(NamedTuple):
    """Look there. `file_id` None: by path. `user`: in whose view; "" where nobody's name is known."""

    file_id: int | None
    user: str
    path: str | None


def parse_webhook(body: bytes) -> list[Hint]:
    """The hints of one webhook. Events that say nothing of a file give none; what is no event is Malformed."""
    event = _object(_parse(body).get("event"), "event")
    kind = event.get("class")
    if kind not in NODE_EVENTS:
        return []
    places = [event[name] for name in ("node", "source", "target") if name in event]
    return _unique([_webhook_hint(_object(place, "event node")) for place in places])


def parse_listener(body: bytes) -> list[Hint]:
    """The hints of one event that AppAPI pushes."""
    value = _parse(body)
    if value.get("event_type") != "node_event":
        return []
    data = _object(value.get("event_data"), "event_data")
    hints = []
    for name in ("source", "target"):
        if name in data:
            node = _object(data[name], name)
            folder = _text(node.get("directory"), "directory").strip("/")
            own = _text(node.get("name"), "name")
            path = _check_path(f"{folder}/{own}" if folder else own)
            hints.append(Hint(_file_id(node.get("fileId")), _uid(node.get("userId")), path))
    return _unique(hints)


def parse_audit_line(line: bytes) -> list[Hint]:
    """The hints of one line; lines about other things give none. A line that is cut short is Malformed."""
    value = _parse(line)
    if value.get("app") != "admin_audit":
        return []
    message = _text(value.get("message"), "message")
    user = value.get("user")
    user = user if isinstance(user, str) and user != "--" else ""
    if found := _WITH_ID.fullmatch(message):
        return [_view_hint(_file_id(int(found[1])), found[2])]
    if found := _RENAMED.fullmatch(message) or _COPIED.fullmatch(message):
        return [Hint(_file_id(int(found[1])), user, None)]
    if found := _RESTORED_VERSION.fullmatch(message) or _RESTORED.fullmatch(message):
        return [Hint(None, user, _check_path(found[1]))]
    if found := _DELETED_VERSION.fullmatch(message):  # the version's number follows the name without a gap
        return [Hint(None, user, found[1].rpartition("/")[0])]
    return []


def _webhook_hint(node: dict[str, object]) -> Hint:
    file_id = _file_id(node["id"]) if "id" in node else None
    return _view_hint(file_id, _text(node.get("path"), "event path"))


def _view_hint(file_id: int | None, absolute: str) -> Hint:
    """`/alice/files/a.txt` is a.txt as alice sees it; a path elsewhere (the trash) is no place to look at."""
    found = _VIEW.fullmatch(absolute)
    if found is None:
        return Hint(file_id, "", None)
    return Hint(file_id, _uid(found[1]), _check_path(found[2] or ""))


def _unique(hints: list[Hint]) -> list[Hint]:
    """Each once, and none that says nothing."""
    return [hint for hint in dict.fromkeys(hints) if hint.file_id is not None or hint.path is not None]


def _parse(data: bytes) -> dict[str, object]:
    if len(data) > MAX_EVENT:
        raise Malformed(f"want at most {MAX_EVENT} bytes", "event", len(data))
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("not JSON", "event") from None
    return _object(value, "event")


def _object(value: object, where: str) -> dict[str, object]:
    if type(value) is not dict:
        raise Malformed("want an object", where)
    return value


def _text(value: object, where: str) -> str:
    if type(value) is not str:
        raise Malformed("want a string", where)
    return value


def _file_id(value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_U64:
        raise Malformed("want a file id", "event id")
    return value


def _uid(value: object) -> str:
    uid = _text(value, "event user")
    if len(uid.encode("utf-8", "surrogatepass")) > MAX_UID:
        raise Malformed(f"want at most {MAX_UID} bytes", "event user")
    return uid


def _check_path(path: str) -> str:
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise Malformed("not UTF-8", "event path") from None
    if size > MAX_PATH:
        raise Malformed(f"want at most {MAX_PATH} bytes", "event path", size)
    return path
