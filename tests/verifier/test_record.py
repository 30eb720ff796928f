"""`verifier.record.NamedTuple` against `typing.NamedTuple`, the one that it stands in for."""

from __future__ import annotations

import copy
import pickle
import typing
from collections.abc import Callable

import pytest

from verifier.record import MAX_FIELDS, NamedTuple


class Ours(NamedTuple):
    """Three fields, the last two with defaults."""

    name: str
    seq: int = 7
    parts: tuple[int, ...] = (1, 2)

    @property
    def next(self) -> int:
        return self.seq + 1


class Theirs(typing.NamedTuple):
    """The same, as the standard library makes it."""

    name: str
    seq: int = 7
    parts: tuple[int, ...] = (1, 2)

    @property
    def next(self) -> int:
        return self.seq + 1


SAME: list[Callable[[typing.Any], object]] = [
    lambda C: C("a", 1, (3,)),
    lambda C: C("a", 1),
    lambda C: C("a"),
    lambda C: C("a", parts=()),
    lambda C: C(parts=(), name="b", seq=2),
    lambda C: [C("a").name, C("a").seq, C("a").parts, C("a").next, C("a")[1], C("a")[1:], len(C("a"))],
    lambda C: C("a")._replace(seq=3),
    lambda C: C._make(["a", 2, ()]),
    lambda C: C("a")._asdict(),
    lambda C: [C._fields, C._field_defaults, C.__match_args__, C.__doc__ is not None, C.__slots__],
    lambda C: [C("a") == ("a", 7, (1, 2)), C("a") == C("a", 8), C("a") < C("a", 8), hash(C("a"))],
    lambda C: repr(C("a", 1)).removeprefix(C.__name__),
    lambda C: [pickle.loads(pickle.dumps(C("a"))), copy.copy(C("a")), copy.deepcopy(C("a"))],
    lambda C: [(name, seq, parts) for name, seq, parts in [C("a")]],
]
REFUSED: list[Callable[[typing.Any], object]] = [
    lambda C: C(),
    lambda C: C("a", 1, (), 4),
    lambda C: C("a", name="b"),
    lambda C: C("a", other=1),
    lambda C: C(seq=1),
    lambda C: C("a", 1, (), seq=2),
    lambda C: C._make(["a", 2, (), 4]),
    lambda C: C("a")._replace(other=1),
    lambda C: setattr(C("a"), "seq", 1),
    lambda C: setattr(C("a"), "other", 1),
]


@pytest.mark.parametrize("use", SAME)
def test_named_tuple_does_what_typing_does(use: Callable[[typing.Any], object]) -> None:
    """Made, read, compared, copied and shown, a record is what the standard library's class would be."""
    assert use(Ours) == use(Theirs)


@pytest.mark.parametrize("use", REFUSED)
def test_named_tuple_refuses_what_typing_refuses(use: Callable[[typing.Any], object]) -> None:
    """No field is left out, given twice, unknown or set later; the error is of the same kind."""
    with pytest.raises((TypeError, ValueError, AttributeError)) as wanted:
        use(Theirs)
    with pytest.raises(wanted.type):
        use(Ours)


def test_named_tuple_keeps_its_class() -> None:
    """Copies and replacements are records again, and patterns know their fields."""
    for made in (Ours("a"), Ours("a")._replace(seq=1), pickle.loads(pickle.dumps(Ours("a"))), copy.copy(Ours("a"))):
        assert type(made) is Ours
    match Ours("a", 3):
        case Ours(name, seq=3):
            assert name == "a"
        case _:
            pytest.fail("no match")


def test_named_tuple_refuses_classes_that_it_cannot_make() -> None:
    """A class without fields, with too many, or on top of a record is an error at once."""
    with pytest.raises(TypeError):
        type(Ours)("Empty", (NamedTuple,), {})
    with pytest.raises(TypeError):
        type(Ours)("Many", (NamedTuple,), {"__annotations__": {f"f{n}": "int" for n in range(MAX_FIELDS + 1)}})
    with pytest.raises(TypeError):
        type(Ours)("Below", (Ours,), {"__annotations__": {"more": "int"}})
