"""WebDAV as Nextcloud speaks it: what is asked, and what the answers say. No socket, no clock.

    PROPFIND /remote.php/dav/files/alice/letters    Depth: 1    NODE_PROPERTIES
    207  <d:multistatus xmlns:d="DAV:" …>
           <d:response><d:href>/remote.php/dav/files/alice/letters/</d:href>
             <d:propstat><d:prop><oc:fileid>49</oc:fileid> …</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>
             <d:propstat><d:prop><nc:upload_time/></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>
           </d:response> …

    listing = Multistatus()                 one answer (RFC 4918 section 13), fed as it arrives
    for chunk in body: listing.feed(chunk)
    nodes = parse_nodes(listing.close(), ("remote.php", "dav", "files", "alice"))

Seen from Nextcloud 27 and 32. Taken: href, propstat, and the properties under a status of 200, whose values are text or
`d:resourcetype`. Refused as Malformed: what is no XML or ends early, any DTD or entity, other elements or namespaces in
the frame, a property twice, a href outside the folder asked for, and every number, time or name in another spelling.
Refused too is what exceeds the bounds below. What a user can choose must not make a listing unreadable, for it would
hide the folder: names hold any bytes of UTF-8, times any year. Not checked: the spelling of percent-encoding beyond its
syntax (servers differ), and whether anything said is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from audit.nextcloud.values import Node, Trashed, Version
from verifier.encoding import MAX_U64, decode_decimal
from verifier.errors import Malformed

MAX_BODY = 512 << 20  # bytes of one answer: a folder with 262,144 files takes about 300 MB
MAX_ENTRIES = 262_144
MAX_VALUE = 16_384  # characters of one property or href: a path of 4,000 bytes is 12,000 when percent-encoded
MAX_PROPERTIES = 64
MAX_DEPTH = 16
MAX_WORD = 255  # characters of an etag, uid, mime type, version id

_DAV, _OC, _NC = "{DAV:}", "{http://owncloud.org/ns}", "{http://nextcloud.org/ns}"
_XMLNS = 'xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns" xmlns:nc="http://nextcloud.org/ns"'
_NODE = (
    "<d:getetag/><d:getlastmodified/><d:getcontentlength/><d:getcontenttype/><d:resourcetype/><oc:id/><oc:fileid/>"
    "<oc:size/><oc:owner-id/><nc:upload_time/><nc:mount-type/><nc:is-encrypted/><nc:e2ee-is-encrypted/>"
)
_DATED = "<d:getlastmodified/><d:getcontentlength/><d:resourcetype/>"
_TRASH = f"{_DATED}<oc:fileid/><oc:size/><nc:trashbin-deletion-time/>"


def _propfind(properties: str) -> bytes:
    return f'<?xml version="1.0"?><d:propfind {_XMLNS}><d:prop>{properties}</d:prop></d:propfind>'.encode()


NODE_PROPERTIES = _propfind(_NODE)
VERSION_PROPERTIES = _propfind(f"{_DATED}<nc:version-author/>")
TRASH_PROPERTIES = _propfind(f"{_TRASH}<nc:trashbin-original-location/>")
TRASH_WITHOUT_PATHS = _propfind(_TRASH)

_IGNORED = {_DAV + "responsedescription", _DAV + "error"}
_FOUND = re.compile(r"HTTP/1\.[01] 200( .*)?")
_STATUS = re.compile(r"HTTP/1\.[01] [1-5][0-9]{2}( .*)?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ID = re.compile(r"([0-9]{8,19}?)(oc[0-9a-z]{4,30})")
_ETAG = re.compile(r'(W/)?"([^"]*)"|([^"]*)')
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(r"([A-Z][a-z]{2}), ([0-9]{2}) ([A-Z][a-z]{2}) (-?[0-9]{4,12}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT")
_EPOCH = date(1970, 1, 1).toordinal()
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097  # after which the Gregorian calendar repeats, weekdays included


class Response(NamedTuple):
    """One `d:response`: the href as sent, and the properties found, by `{namespace}name`; a folder has `is_folder`."""

    href: str
    properties: dict[str, str]
    is_folder: bool


# Reading XML


class Multistatus:
    """Takes an answer in pieces, so that nothing but its values is ever held; `close` gives the responses."""

    def __init__(self, where: str = "multistatus") -> None:
        self._where, self._size = where, 0
        self._frame = _Frame(where)
        self._parser = DefusedXMLParser(target=self._frame, forbid_dtd=True)

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY:
            raise Malformed(f"want at most {MAX_BODY} bytes", self._where, self._size)
        self._checked(lambda: self._parser.feed(data))

    def close(self) -> list[Response]:
        self._checked(self._parser.close)
        return self._frame.responses

    def _checked(self, step: Callable[[], object]) -> None:
        try:
            step()
        except ParseError as error:
            raise Malformed(f"no XML ({error})", self._where) from None
        except DefusedXmlException as error:
            raise Malformed(f"forbidden in XML ({type(error).__name__})", self._where) from None
        except (LookupError, ValueError):  # an encoding that nobody knows
            raise Malformed("no XML in a known encoding", self._where) from None


class _Frame:
    """The parser's target: a stack of elements, checked against the one frame that an answer may have."""

    _INSIDE = {
        (): {_DAV + "multistatus"},
        ("multistatus",): {_DAV + "response"},
        ("multistatus", "response"): {_DAV + "href", _DAV + "propstat"},
        ("multistatus", "response", "propstat"): {_DAV + "prop", _DAV + "status"},
    }

    def __init__(self, where: str) -> None:
        self.responses: list[Response] = []
        self._where = where
        self._stack: list[str] = []
        self._text: list[str] = []
        self._length = 0
        self._href: str | None = None
        self._found: dict[str, str] = {}
        self._is_folder = self._has_propstat = False
        self._properties: dict[str, str] = {}
        self._collection = False
        self._status: str | None = None

    def start(self, tag: str, _: dict[str, str]) -> None:
        self._no_stray_text()
        depth = len(self._stack)
        if depth >= MAX_DEPTH:
            raise self._bad(f"want at most {MAX_DEPTH} elements deep", tag)
        if depth < 4:
            allowed = self._INSIDE.get(tuple(name.removeprefix(_DAV) for name in self._stack))
            if not self._is_ignored() and tag not in (allowed or ()) and not (depth and tag in _IGNORED):
                raise self._bad("element out of place", tag)
        elif self._stack[3] == _DAV + "prop" and depth == 5 and self._stack[4] == _DAV + "resourcetype":
            self._collection |= tag == _DAV + "collection"
        self._stack.append(tag)
        self._text, self._length = [], 0

    def data(self, data: str) -> None:
        self._length += len(data)
        if self._length > MAX_VALUE:
            raise self._bad(f"want at most {MAX_VALUE} characters", self._stack[-1] if self._stack else "")
        self._text.append(data)

    def end(self, tag: str) -> None:
        value, depth = "".join(self._text), len(self._stack)
        if self._is_ignored():
            pass
        elif depth == 5:
            self._end_property(tag, value)
        elif tag == _DAV + "href" and depth == 3:
            self._href = self._once(self._href, value, tag)
        elif tag == _DAV + "status" and depth == 4:
            self._status = self._once(self._status, value, tag)
        elif depth < 5:
            self._no_stray_text()
            if tag == _DAV + "propstat":
                self._end_propstat()
            elif tag == _DAV + "response":
                self._end_response()
        self._stack.pop()
        self._text, self._length = [], 0

    def close(self) -> None:
        """The parser has seen the end of the document element."""

    def _end_property(self, tag: str, value: str) -> None:
        if tag in self._properties or len(self._properties) >= MAX_PROPERTIES:
            raise self._bad("property twice, or too many of them", tag)
        self._properties[tag] = value

    def _end_propstat(self) -> None:
        if self._status is None or not _STATUS.fullmatch(self._status):
            raise self._bad("want a status for each propstat", self._status)
        if _FOUND.fullmatch(self._status):
            if self._found.keys() & self._properties.keys():
                raise self._bad("property twice", None)
            self._found |= self._properties
            self._is_folder |= self._collection
        self._has_propstat = True
        self._properties, self._collection, self._status = {}, False, None

    def _end_response(self) -> None:
        if self._href is None or not self._has_propstat:
            raise self._bad("want a href and a propstat in each response", self._href)
        if len(self.responses) >= MAX_ENTRIES:
            raise self._bad(f"want at most {MAX_ENTRIES} responses", None)
        self.responses.append(Response(self._href, self._found, self._is_folder))
        self._href, self._found, self._is_folder, self._has_propstat = None, {}, False, False

    def _is_ignored(self) -> bool:
        return any(tag in _IGNORED for tag in self._stack[1:4])

    def _once(self, before: str | None, value: str, tag: str) -> str:
        if before is not None:
            raise self._bad("element twice", tag)
        return value

    def _no_stray_text(self) -> None:
        if len(self._stack) < 5 and not self._is_ignored() and "".join(self._text).strip(" \t\r\n"):
            raise self._bad("text out of place", self._stack[-1] if self._stack else "")

    def _bad(self, what: str, got: object) -> Malformed:
        return Malformed(what, self._where, got)


# What the answers say


def parse_nodes(responses: Iterable[Response], base: tuple[str, ...]) -> list[Node]:
    """Files and folders below `base`, the names of the path in the URL (`remote.php`, `dav`, `files`, uid)."""
    return [_node(response, "/".join(decode_href(response.href, base))) for response in responses]


def parse_versions(responses: list[Response], base: tuple[str, ...]) -> list[Version]:
    """The version list by mtime, oldest first; the collection itself is left out."""
    found = [_version(response, names[0]) for response, names in _below(responses, base)]
    if len({version.version_id for version in found}) != len(found):
        raise Malformed("version id twice", "version list")
    return sorted(found, key=lambda version: (version.mtime, version.version_id))


def parse_trash(responses: list[Response], base: tuple[str, ...]) -> list[Trashed]:
    """The trash, folders left out: a folder is restored as one, and its files are seen when it is."""
    return [_trashed(response, names[0]) for response, names in _below(responses, base) if not response.is_folder]


def parse_instance_id(responses: list[Response]) -> str:
    """The letters after the file id in `oc:id`: `00000031ocemfs775i3v` is file 31 of `ocemfs775i3v`."""
    where = "oc:id"
    if len(responses) != 1:
        raise Malformed("want one response", where, len(responses))
    properties = responses[0].properties
    value = properties.get(_OC + "id", "")
    found = _ID.fullmatch(value)
    if found is None or found[1] != str(_file_id(properties, where)).zfill(8):
        raise Malformed("want the file id and the instance id", where, value)
    return found[2]


def search_by_id(user: str, file_id: int) -> bytes:
    """The body of a SEARCH at /remote.php/dav/ for this user's file with this id."""
    return (
        f'<?xml version="1.0"?><d:searchrequest {_XMLNS}><d:basicsearch><d:select><d:prop>{_NODE}</d:prop></d:select>'
        f"<d:from><d:scope><d:href>/files/{quote(user, safe='')}</d:href><d:depth>infinity</d:depth></d:scope></d:from>"
        f"<d:where><d:eq><d:prop><oc:fileid/></d:prop><d:literal>{file_id}</d:literal></d:eq></d:where>"
        "<d:orderby/></d:basicsearch></d:searchrequest>"
    ).encode()


def encode_href(names: Iterable[str]) -> str:
    """The path of a URL, each name percent-encoded whole."""
    return "".join("/" + quote(name, safe="") for name in names)


def decode_href(href: str, base: tuple[str, ...]) -> list[str]:
    """The names below `base`. Each is whole: an encoded slash cannot make two of it, nor a dot lead elsewhere."""
    if not href.startswith("/") or not href.isascii() or re.search(r"[\x00-\x20?#\x7f]", href):
        raise Malformed("want an absolute path in ASCII", "href", href)
    if _BAD_PERCENT.search(href):
        raise Malformed("bad percent-encoding", "href", href)
    names = [_name(part, href) for part in href.removesuffix("/")[1:].split("/")]
    if tuple(names[: len(base)]) != base:
        raise Malformed(f"want it below {encode_href(base)}", "href", href)
    return names[len(base) :]


def _name(part: str, href: str) -> str:
    try:
        name = unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8", "href", href) from None
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Malformed("no name of a file", "href", href)
    return name


def _below(responses: list[Response], base: tuple[str, ...]) -> Iterable[tuple[Response, list[str]]]:
    """What is directly in a collection; the collection comes first and is left out."""
    for place, response in enumerate(responses):
        names = decode_href(response.href, base)
        if len(names) != (place > 0):
            raise Malformed("want the collection, then what is directly in it", "href", response.href)
        if names:
            yield response, names


def _node(response: Response, path: str) -> Node:
    properties, is_folder = response.properties, response.is_folder
    where = f"properties of {path!r}"
    return Node(
        file_id=_file_id(properties, where),
        path=path,
        is_folder=is_folder,
        etag=_etag(properties.get(_DAV + "getetag", ""), where),
        mtime=_mtime(properties, where),
        size=_size(properties, is_folder, where),
        upload_time=_number(properties, _NC + "upload_time", where),
        owner=_word(properties, _OC + "owner-id", where),
        mount=_word(properties, _NC + "mount-type", where),
        mime=_word(properties, _DAV + "getcontenttype", where),
        is_encrypted=_is_encrypted(properties, where),
    )


def _version(response: Response, version_id: str) -> Version:
    properties, where = response.properties, f"version {version_id!r}"
    if len(version_id) > MAX_WORD or response.is_folder:
        raise Malformed("no version", where)
    author = _word(properties, _NC + "version-author", where)
    return Version(version_id, _mtime(properties, where), _size(properties, False, where), author)


def _trashed(response: Response, name: str) -> Trashed:
    properties, where = response.properties, f"trash {name!r}"
    return Trashed(
        file_id=_file_id(properties, where),
        name=name,
        path=_location(properties.get(_NC + "trashbin-original-location", ""), where),
        deleted_at=_number(properties, _NC + "trashbin-deletion-time", where),
        size=_size(properties, False, where),
        mtime=_mtime(properties, where),
    )


def _location(value: str, where: str) -> str:
    path = value.removeprefix("/")
    if path and any(name in ("", ".", "..") for name in path.split("/")):
        raise Malformed("no path", where, value)
    return path


def _file_id(properties: dict[str, str], where: str) -> int:
    return decode_decimal(properties.get(_OC + "fileid"), f"{where}, file id")


def _number(properties: dict[str, str], name: str, where: str) -> int:
    value = properties.get(name, "")
    return decode_decimal(value, f"{where}, {name}") if value else 0


def _size(properties: dict[str, str], is_folder: bool, where: str) -> int:
    """A file's is what a GET would say. A folder's may be negative, which says that it is not known."""
    value = properties.get(_DAV + "getcontentlength") or properties.get(_OC + "size", "")
    if not value or (is_folder and value in ("-1", "-2", "-3")):
        return 0
    return decode_decimal(value, f"{where}, size")


def _word(properties: dict[str, str], name: str, where: str) -> str:
    value = properties.get(name, "")
    if len(value) > MAX_WORD:
        raise Malformed(f"want at most {MAX_WORD} characters", f"{where}, {name}", value)
    return value


def _is_encrypted(properties: dict[str, str], where: str) -> bool | None:
    """Nextcloud says it of folders, end_to_end_encryption of files too, from its version 1.17 (Nextcloud 31) on."""
    said = [properties.get(_NC + name, "") for name in ("is-encrypted", "e2ee-is-encrypted")]
    for value in said:
        if value not in ("", "0", "1"):
            raise Malformed("want 0 or 1", f"{where}, is-encrypted", value)
    return "1" in said if any(said) else None


def _etag(value: str, where: str) -> str:
    found = _ETAG.fullmatch(value)
    if found is None or len(value) > MAX_WORD or not (value.isascii() and value.isprintable()):
        raise Malformed("no etag", f"{where}, etag", value)
    return found[2] if found[2] is not None else found[3]


def _mtime(properties: dict[str, str], where: str) -> int:
    value = properties.get(_DAV + "getlastmodified", "")
    return parse_date(value, f"{where}, time") if value else 0


def parse_date(value: str, where: str) -> int:
    """POSIX seconds of a date of RFC 9110 5.6.7, with any year: users choose these times. Before 1970 is 0, unknown."""
    found = _DATE.fullmatch(value)
    if found is None or found[1] not in _DAYS or found[3] not in _MONTHS:
        raise Malformed("no date", where, value)
    year, clock = int(found[4]), [int(found[i]) for i in (5, 6, 7)]
    cycles, rest = divmod(year - 1, _CYCLE_YEARS)
    try:
        day = date(rest + 1, _MONTHS.index(found[3]) + 1, int(found[2]))
    except ValueError:
        raise Malformed("no date", where, value) from None
    if clock[0] > 23 or clock[1] > 59 or clock[2] > 59 or found[1] != _DAYS[day.weekday()]:
        raise Malformed("no date", where, value)
    days = day.toordinal() - _EPOCH + cycles * _CYCLE_DAYS
    return min(max(0, days * 86_400 + clock[0] * 3600 + clock[1] * 60 + clock[2]), MAX_U64)
