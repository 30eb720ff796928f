"""State files: one spelling, and nothing that was damaged passes for something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builder import World
from verifier import state
from verifier.errors import Malformed
from verifier.state import FileState, LocalState, LogState, PathState

WORLD = World()
LOG = LogState(
    WORLD.log_name,
    WORLD.source,
    "ada",
    WORLD.policy_text,
    WORLD.auditors_text,
    WORLD.owner.public,
    WORLD.owner.blinding,
    "note\n\n— x AAAA\n".encode(),
)
FORMATS = [
    (state.format_log, state.parse_log, LOG),
    (state.format_log, state.parse_log, LOG._replace(user=None, blinding=None, checkpoint=None)),
    (state.format_file, state.parse_file, FileState("nc-1", 17, "a/b.txt", b'{"proof":"x"}\n')),
    (state.format_file, state.parse_file, FileState("nc-1", 17, None, None)),
    (state.format_path, state.parse_path, PathState("nc-1", "ä\x1b\n.txt", 3)),
    (state.format_local, state.parse_local, LocalState("/home/ada/\n", "nc-1", "a.txt")),
]
PATHS = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda path: path not in (".", "..")
)


@pytest.mark.parametrize(("form", "parse", "value"), FORMATS)
def test_state_comes_back_as_it_was_written(form, parse, value) -> None:  # type: ignore[no-untyped-def]
    """Every value that was written is read again."""
    assert parse(form(value)) == value


@given(PATHS, st.integers(0, 2**63 - 1))
def test_state_of_any_path_comes_back(path: str, file_id: int) -> None:
    """Paths of any Unicode text and all file ids have a place in the state."""
    value = PathState("nc-1", path, file_id)
    assert state.parse_path(state.format_path(value)) == value


@pytest.mark.parametrize(("form", "parse", "value"), FORMATS)
def test_state_with_a_changed_byte_is_refused_or_says_something_else(form, parse, value) -> None:  # type: ignore[no-untyped-def]
    """No damaged byte leaves the meaning as it was: there is one spelling."""
    data = form(value)
    for at in range(len(data)):
        for byte in {data[at] ^ 1, data[at] ^ 0x80, 0x20} - {data[at]}:
            try:
                found = parse(data[:at] + bytes([byte]) + data[at + 1 :])
            except Malformed:
                continue
            assert found != value


@pytest.mark.parametrize(("form", "parse", "value"), FORMATS)
def test_state_that_is_cut_or_longer_is_refused(form, parse, value) -> None:  # type: ignore[no-untyped-def]
    """A file that a crash or an editor cut or extended is malformed."""
    data = form(value)
    for wrong in (b"", data[:-1], data[: len(data) // 2], data + b"\n", b" " + data, data + data):
        with pytest.raises(Malformed):
            parse(wrong)


def test_state_of_another_version_is_refused() -> None:
    """A newer format is not guessed at."""
    data = state.format_path(PathState("nc-1", "a", 3)).replace(b"state/1", b"state/2")
    with pytest.raises(Malformed, match="format"):
        state.parse_path(data)


def test_state_never_shows_the_blinding_key() -> None:
    """Neither repr nor an error about it holds the secret."""
    assert "blinding" not in repr(LOG)
    data = state.format_log(LOG).replace(b'"blinding":"', b'"blinding":"!')
    with pytest.raises(Malformed) as caught:
        state.parse_log(data)
    assert state.encode_base64(WORLD.owner.blinding) not in str(caught.value)


def test_state_refuses_an_unsound_owner_key() -> None:
    """A small-order key in the state would accept anybody's signature."""
    data = state.format_log(LOG._replace(owner=b"\1" + bytes(31)))
    with pytest.raises(Malformed, match="small order"):
        state.parse_log(data)


def test_names_differ_by_source_and_kind() -> None:
    """One path in two sources, or a path that looks like another kind's name, are different files."""
    names = {
        state.path_name("nc-1", "a"),
        state.path_name("nc-2", "a"),
        state.local_name("a"),
        state.file_name("nc-1", 1),
        state.file_name("nc-1", 2),
    }
    assert len(names) == 5
