"""Answers that are not as WebDAV says are refused, and what users choose is read."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.nextcloud import dav
from audit.nextcloud.dav import Multistatus, Response, decode_href, encode_href, parse_date, parse_nodes, parse_trash
from audit.nextcloud.values import Node
from verifier.errors import Malformed

BASE = ("remote.php", "dav", "files", "alice")
NS = 'xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns" xmlns:nc="http://nextcloud.org/ns"'
OK, NOT_FOUND = "HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"
PROPS = (
    "<d:getetag>&quot;e1&quot;</d:getetag><d:getlastmodified>Sun, 22 Nov 2026 18:34:00 GMT</d:getlastmodified>"
    "<d:getcontentlength>10</d:getcontentlength><d:resourcetype/><oc:id>00000031ocabcdefghij</oc:id>"
    "<oc:fileid>31</oc:fileid><oc:owner-id>alice</oc:owner-id><nc:upload_time>1795372440</nc:upload_time>"
)
HREF = "/remote.php/dav/files/alice/doc.txt"


def document(inside: str, namespaces: str = NS) -> bytes:
    return f'<?xml version="1.0"?><d:multistatus {namespaces}>{inside}</d:multistatus>'.encode()


def propstat(props: str = PROPS, status: str = OK) -> str:
    return f"<d:propstat><d:prop>{props}</d:prop><d:status>{status}</d:status></d:propstat>"


def response(parts: str = propstat(), href: str = HREF) -> str:
    return f"<d:response><d:href>{href}</d:href>{parts}</d:response>"


def read(body: bytes) -> list[Response]:
    listing = Multistatus()
    listing.feed(body)
    return listing.close()


def node_of(props: str) -> Node:
    return parse_nodes(read(document(response(propstat(props)))), BASE)[0]


def test_a_file_is_read() -> None:
    """Every property lands in its field; what was not found is empty."""
    body = document(response(propstat() + propstat("<nc:mount-type/>", NOT_FOUND)))
    expected = Node(31, "doc.txt", False, "e1", 1795372440, 10, 1795372440, "alice", "", "", None)
    assert parse_nodes(read(body), BASE) == [expected]
    assert dav.parse_instance_id(read(body)) == "ocabcdefghij"


def test_the_pieces_of_an_answer_do_not_matter() -> None:
    """An answer fed byte by byte gives the same."""
    body = document(response() + response(href=HREF + "2"))
    listing = Multistatus()
    for at in range(len(body)):
        listing.feed(body[at : at + 1])
    assert listing.close() == read(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html><body>login</body></html>", id="html"),
        pytest.param(b"not xml", id="text"),
        pytest.param(document(response())[:-1], id="truncated"),
        pytest.param(document(response()) + b"<d:error/>", id="trailing"),
        pytest.param(document(response(), 'xmlns:d="DAW:" xmlns:oc="o" xmlns:nc="n"'), id="other-namespace"),
        pytest.param(document("<d:unknown/>"), id="unknown-element"),
        pytest.param(document(response("<d:href>/x</d:href>" + propstat())), id="two-hrefs"),
        pytest.param(document(response("")), id="no-propstat"),
        pytest.param(document(f"<d:response>{propstat()}</d:response>"), id="no-href"),
        pytest.param(document(response("<d:propstat><d:prop/></d:propstat>")), id="no-status"),
        pytest.param(document(response(propstat(status="200 OK"))), id="no-http-status"),
        pytest.param(document(response(propstat(PROPS + "<oc:fileid>31</oc:fileid>"))), id="property-twice"),
        pytest.param(document(response(propstat() + propstat())), id="property-in-two-propstats"),
        pytest.param(document("words" + response()), id="stray-text"),
        pytest.param(document(response(propstat("<d:x>" * 20 + "</d:x>" * 20))), id="too-deep"),
        pytest.param(document(response(propstat(f"<d:x>{'x' * 16_385}</d:x>"))), id="too-long"),
        pytest.param(b'<?xml version="1.0" encoding="x-none"?>' + document(response())[21:], id="unknown-encoding"),
    ],
)
def test_what_is_no_multistatus_is_refused(body: bytes) -> None:
    """Nothing but one whole multistatus in its namespace is read."""
    with pytest.raises(Malformed):
        read(body)


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">',
        "<!DOCTYPE x>",
    ],
)
def test_a_dtd_is_refused(declared: str) -> None:
    """No entity is ever declared, so none can grow or fetch."""
    with pytest.raises(Malformed, match="forbidden in XML"):
        read(document(response()).replace(b"?>", b"?>" + declared.encode(), 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<oc:fileid>31<", "<oc:fileid>031<"),
        ("<oc:fileid>31<", "<oc:fileid>+31<"),
        ("<oc:fileid>31<", "<oc:fileid>31 <"),
        ("<oc:fileid>31<", "<oc:fileid>9223372036854775808<"),
        ("<oc:fileid>31</oc:fileid>", ""),
        ("length>10<", "length>1e1<"),
        ("length>10<", "length>-1<"),
        ("upload_time>1795372440<", "upload_time>1795372440.5<"),
        ("Sun, 22", "Mon, 22"),
        ("22 Nov", "31 Nov"),
        ("18:34:00", "18:34:60"),
        ("18:34:00 GMT", "18:34:00 CET"),
        ("&quot;e1&quot;", "&quot;e1"),
        ("&quot;e1&quot;", "&quot;e\n1&quot;"),
    ],
)
def test_values_in_another_spelling_are_refused(old: str, new: str) -> None:
    """A number, a time or an etag has one spelling."""
    assert old in PROPS
    with pytest.raises(Malformed):
        node_of(PROPS.replace(old, new))


@pytest.mark.parametrize(
    "href",
    [
        "/remote.php/dav/files/bob/doc.txt",
        "/remote.php/dav/files/alice/../bob/doc.txt",
        "/remote.php/dav/files/alice/%2e%2e/bob/doc.txt",
        "/remote.php/dav/files/alice/a%2Fb",
        "/remote.php/dav/files/alice/a%00b",
        "/remote.php/dav/files/alice//b",
        "/remote.php/dav/files/alice/%ff",
        "/remote.php/dav/files/alice/%c0%ae",
        "/remote.php/dav/files/alice/%ed%a0%80",
        "/remote.php/dav/files/alice/a%4",
        "/remote.php/dav/files/alice/a%zz",
        "/remote.php/dav/files/alice/a?b",
        "/remote.php/dav/files/alice/a#b",
        "/remote.php/dav/files/alice/a b",
        "/remote.php/dav/files/alice/\u00fc",
        "https://evil.example/remote.php/dav/files/alice/a",
        "remote.php/dav/files/alice/a",
        "/remote.php/dav/files",
        "",
    ],
)
def test_a_href_outside_or_unclear_is_refused(href: str) -> None:
    """A href names something below the folder asked for, or nothing is read."""
    with pytest.raises(Malformed):
        decode_href(href, BASE)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1), max_size=4))
def test_any_name_survives_the_wire(names: list[str]) -> None:
    """Newlines, control characters and every script: the names decoded are those that were encoded."""
    names = [name for name in names if name not in (".", "..")]
    assert decode_href(encode_href((*BASE, *names)), BASE) == names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", 0),
        ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
        ("Sat, 01 Jan 10000 00:00:00 GMT", 253_402_300_800),
        ("Sun, 04 Dec 292277026596 15:30:07 GMT", 2**63 - 1),
    ],
)
def test_a_time_of_any_year_is_read(text: str, seconds: int) -> None:
    """Whatever time a user chose, it makes no listing unreadable."""
    assert parse_date(text, "time") == seconds


def test_an_end_to_end_encrypted_folder_says_so() -> None:
    """The mark of a folder, and nothing but 0 or 1."""
    folder = PROPS.replace("<d:resourcetype/>", "<d:resourcetype><d:collection/></d:resourcetype>")
    assert node_of(folder + "<nc:is-encrypted>1</nc:is-encrypted>").is_encrypted
    with pytest.raises(Malformed):
        node_of(folder + "<nc:is-encrypted>true</nc:is-encrypted>")


def test_the_trash_keeps_spaces_and_line_ends() -> None:
    """Where a file was is said to the letter; a path that leads out is refused."""
    base = ("remote.php", "dav", "trashbin", "alice", "trash")
    at = "/remote.php/dav/trashbin/alice/trash/"
    collection = response(propstat("<d:resourcetype><d:collection/></d:resourcetype>"), at)

    def trash(where: str) -> bytes:
        place = f"<nc:trashbin-original-location>{where}</nc:trashbin-original-location>"
        return document(collection + response(propstat(PROPS + place), f"{at}%20a%0ab.d1"))

    (item,) = parse_trash(read(trash(" d/ a\nb")), base)
    assert (item.name, item.path) == (" a\nb.d1", " d/ a\nb")
    with pytest.raises(Malformed, match="no path"):
        parse_trash(read(trash("../a")), base)


def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither bytes nor entries without end."""
    monkeypatch.setattr(dav, "MAX_ENTRIES", 2)
    assert len(read(document(response() * 2))) == 2
    with pytest.raises(Malformed, match="at most 2 responses"):
        read(document(response() * 3))
    monkeypatch.setattr(dav, "MAX_BODY", 100)
    with pytest.raises(Malformed, match="at most 100 bytes"):
        read(document(response()))


def test_what_is_asked_is_xml() -> None:
    """Bodies are well formed whatever the user's name is."""
    assert b"%3C" in dav.search_by_id("<a&b>", 7)
    bodies = (dav.NODE_PROPERTIES, dav.VERSION_PROPERTIES, dav.TRASH_PROPERTIES, dav.search_by_id("<a&b>", 7))
    assert all(ElementTree.fromstring(body).tag.startswith("{DAV:}") for body in bodies)
