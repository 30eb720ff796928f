"""`verifier.record` against what it stands in for: `typing.NamedTuple` and `enum.IntEnum`."""

from __future__ import annotations

import copy
import enum
import json
import pickle
import typing
from collections.abc import Callable

import pytest

from verifier.record import MAX_FIELDS, IntEnum, NamedTuple


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
    with pytest.raises(TypeError, match="without a default"):
        type(Ours)("Late", (NamedTuple,), {"__annotations__": {"first": "int", "last": "int"}, "first": 1})


class OurPart(IntEnum):
    """Two numbers, not in order, and a word for each."""

    PATH = 2
    CONTENT = 1

    @property
    def word(self) -> str:
        return self.name.lower()


class TheirPart(enum.IntEnum):
    """The same, as the standard library makes it."""

    PATH = 2
    CONTENT = 1

    @property
    def word(self) -> str:
        return self.name.lower()


SAME_NUMBERS: list[Callable[[typing.Any], object]] = [
    lambda C: [C.PATH.name, C.PATH.value, C.PATH.word, C.__doc__ is not None],
    lambda C: [C(1) is C.CONTENT, C(C.PATH) is C.PATH, C["PATH"] is C.PATH, C(2).value],
    lambda C: [[member.name for member in C], len(C), sorted(C), list(C.__members__)],
    lambda C: [C.PATH == 2, C.PATH != C.CONTENT, C.CONTENT < C.PATH, C.PATH + 1, hash(C.PATH) == hash(C(2))],
    lambda C: [isinstance(C.PATH, C), isinstance(C.PATH, int), isinstance(2, C), C.PATH in C],
    lambda C: [str(C.PATH), f"{C.PATH}", f"{C.PATH:04}", json.dumps([C.PATH]), bytes([C.PATH]), (0, 1, 2)[C.PATH]],
    lambda C: repr(C.PATH).replace(C.__name__, "Part"),
    lambda C: [
        pickle.loads(pickle.dumps(C.PATH)) is C.PATH,
        copy.copy(C.PATH) is C.PATH,
        copy.deepcopy(C.PATH) is C.PATH,
    ],
    lambda C: {C.PATH: "a", C.CONTENT: "b"}[C(1)],
]


@pytest.mark.parametrize("use", SAME_NUMBERS)
def test_int_enum_does_what_enum_does(use: Callable[[typing.Any], object]) -> None:
    """Called, indexed, gone through, compared, shown and copied, a number is what the standard library's would be."""
    assert use(OurPart) == use(TheirPart)


@pytest.mark.parametrize("value", [0, 3, -1, "PATH", None, []])
def test_int_enum_has_no_other_members(value: typing.Any) -> None:
    """A number that the class does not name is none of its members."""
    for kind in (OurPart, TheirPart):
        with pytest.raises(ValueError, match="is not a valid"):
            kind(value)


def test_int_enum_names_a_number_once() -> None:
    """Two names for one number are an error at once, where the standard library makes the second an alias."""
    with pytest.raises(TypeError, match="each number once"):
        type(OurPart)("Twice", (IntEnum,), {"ONE": 1, "EINS": 1})
