"""Canonical JSON (SPEC 7.1): whatever of ours is JSON is one object, and has one spelling.

    {"format":"nextcloud-audit/reader/1","log":"example.org/files+6f0c…","source":"folder:docs",…}

No white space between tokens, the members in the format's order, strings escaped as JSON.stringify and
`json.dumps(..., ensure_ascii=False)` both do, a line feed at the end. There are no JSON numbers. What a format has read
with `parse_object` and `members` it refuses unless writing it again gives the same bytes: that is the format's to do,
as it alone knows its values. Errors name members and show no value, which may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from verifier.errors import Malformed

MAX_SHOWN = 40  # characters of a member's name that an error shows

encode_value = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def format_object(fields: Mapping[str, object], where: str) -> bytes:
    """An object of texts, lists and nulls as its file."""
    try:
        return encode_value(fields).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        raise Malformed("not UTF-8", where) from None


def parse_object(data: bytes, where: str) -> dict[str, object]:
    """A JSON object in UTF-8, no member twice; other JSON values and numbers are refused."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON in UTF-8 ({error})", where) from None
    if type(value) is not dict:
        raise Malformed("want a JSON object", where)
    return value


def members(value: object, where: str, *names: str) -> list[object]:
    """The members of a JSON object that has exactly these names, in this order."""
    if type(value) is not dict:
        raise Malformed("want a JSON object", where)
    if tuple(value) != names:
        odd = [name for name in value if name not in names] or [name for name in names if name not in value]
        what = f"unknown or missing member {odd[0][:MAX_SHOWN]!r}" if odd else "members out of order"
        raise Malformed(what, where)
    return list(value.values())


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member twice")
    return value


def _no_number(text: str) -> object:
    raise ValueError("a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_int=_no_number, parse_float=_no_number)
