"""Values in words, and the other way round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import Error, Usage
from verifier.words import count, escape, format_duration, parse_duration, parse_remote, parse_when, when


@given(st.text(st.characters(exclude_categories=[])))
def test_escape_leaves_nothing_that_steers_a_terminal(text: str) -> None:
    """Whatever a server put into a path, all that is printed is printable."""
    assert escape(text).isprintable()


def test_escape_shows_what_was_there() -> None:
    """Escapes, line ends and bidirectional marks are seen; ordinary letters stay."""
    assert escape("a\x1b[2J\n\u202eb ä") == "a\\x1b[2J\\n\\u202eb ä"


@pytest.mark.parametrize(("text", "want"), [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800)])
def test_duration_is_read(text: str, want: int) -> None:
    """Seconds, minutes, hours and days."""
    assert parse_duration(text) == want


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "1w", "٣d", "1_0", "9" * 20])
def test_duration_that_is_none_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(Usage):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1800000000", "2027-01-15T08:00:00Z", "2027-01-15 08:00", "2027-01-15T09:00+01:00"])
def test_time_is_read_as_utc(text: str) -> None:
    """A time without a zone is UTC, not the zone of whoever asks."""
    assert parse_when(text) == 1_800_000_000
    assert when(parse_when(text)) == "2027-01-15 08:00:00 UTC"


@pytest.mark.parametrize("text", ["", "yesterday", "1969-01-01", "2027-13-01"])
def test_time_that_is_none_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(Usage):
        parse_when(text)


def test_when_far_in_the_future_is_still_shown() -> None:
    """A number that no calendar has does not stop a report."""
    assert when(2**63 - 1).endswith("after 1970")


@pytest.mark.parametrize(
    ("text", "want"),
    [("a/b.txt", ("a/b.txt", None)), ("17", (None, 17)), ("./17", ("17", None)), ("./a", ("a", None))],
)
def test_remote_is_a_path_or_a_file_id(text: str, want: tuple[str | None, int | None]) -> None:
    """Digits are a file id; a path of digits is written ./17."""
    assert parse_remote(text) == want


@pytest.mark.parametrize("text", ["", "./", "/a", "a//b", "../a", "a/..", "017", "a\0b"])
def test_remote_that_is_neither_is_refused(text: str) -> None:
    """What no entry could hold is refused before anything is asked."""
    with pytest.raises(Error):
        parse_remote(text)


def test_count_speaks_plainly() -> None:
    """One and many, with thousands apart."""
    assert (count(1, "step"), count(1234, "byte"), count(2, "entry", "entries")) == (
        "1 step",
        "1,234 bytes",
        "2 entries",
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")]
)
def test_durations_are_said_in_words(seconds: int, text: str) -> None:
    """As exact as anybody needs."""
    assert format_duration(seconds) == text
