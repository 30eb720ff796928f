"""Named tuples and numbers that cost nothing to define: as the standard library's, but for the time that it takes.

    from verifier.record import IntEnum, NamedTuple

    class Version(NamedTuple):
        commitment: bytes
        seq: int = 0

    class Part(IntEnum):
        CONTENT = 1
        PATH = 2

For whoever checks types this *is* `typing.NamedTuple`. That one evaluates every annotation and compiles a constructor
for each class, 0.1 ms of a process's life; the verify path has fifty such classes and would take longer to define them
than to verify a file. Here a class is a tuple with getters that all classes share, and one constructor serves all.

`make` builds one from all its fields at once, unchecked: for the few places where constructors are a cost.

Alike: fields by name, position and pattern, defaults, unpacking, equality, hash, order, repr, `_replace`, `_make`,
`_asdict`, `_fields`, `_field_defaults`, pickle; no attribute can be set. Calls with names or left-out defaults are
slower than with all fields in order, so hot paths give all of them in order.

Not there: subclasses of such a class, and annotations that are evaluated (`from __future__ import annotations` stands
on top of each module).

`IntEnum` is `enum.IntEnum` for whoever checks types, and costs a tenth: members are ints of the class's own type, one
for each number, with `name` and `value`. Alike: the class is called with a number, indexed by a name, counted, gone
through in order, asked whether it has a member; repr, str, pickle. Not there: aliases, flags, `auto`.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING

MAX_FIELDS = 20

if TYPE_CHECKING:
    from collections.abc import Iterable
    from enum import IntEnum as IntEnum
    from typing import NamedTuple as NamedTuple
    from typing import TypeVar

    _Record = TypeVar("_Record", bound=tuple[object, ...])

    def make(cls: type[_Record], values: Iterable[object]) -> _Record: ...

else:
    _POSITIONS = namedtuple("_POSITIONS", [f"at_{n}" for n in range(MAX_FIELDS)])
    _GETTERS = [vars(_POSITIONS)[name] for name in _POSITIONS._fields]
    _new = make = tuple.__new__

    class _Definition(type):
        """Turns the annotations of a class into the fields of a tuple."""

        def __new__(cls, name, bases, space):
            if bases != (tuple,):
                fields = tuple(space.get("__annotations__", ()))
                if bases != (NamedTuple,) or not 1 <= len(fields) <= MAX_FIELDS:
                    raise TypeError(f"{name}: want NamedTuple as the one base, and 1 to {MAX_FIELDS} fields")
                defaults = {field: space[field] for field in fields if field in space}
                if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                    raise TypeError(f"{name}: want no field without a default after one that has one")
                space["_field_defaults"] = defaults
                space["_last"] = tuple(defaults.values())
                space["_fields"] = space["__match_args__"] = fields
                space["_size"] = len(fields)
                space.update(zip(fields, _GETTERS, strict=False))
            space["__slots__"] = ()
            return super().__new__(cls, name, bases, space)

    class NamedTuple(tuple, metaclass=_Definition):
        def __new__(cls, *values, **named):
            left_out = cls._size - len(values)
            if named or left_out > len(cls._last) or left_out < 0:
                values = cls._complete(values, named)
            elif left_out:
                values += cls._last[-left_out:]
            return _new(cls, values)

        @classmethod
        def _complete(cls, values, named):
            """All values in order, from those in order, those by name, and the defaults."""
            rest = cls._fields[len(values) :]
            known = {**cls._field_defaults, **named} if named else cls._field_defaults
            whole = values + tuple([known[field] for field in rest if field in known])
            if len(whole) != cls._size or not named.keys() <= set(rest):
                raise TypeError(f"{cls.__name__}: want {', '.join(cls._fields)}")
            return whole

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _replace(self, /, **changes):
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"{type(self).__name__}: no fields {', '.join(changes)}")
            return made

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join([f'{k}={v!r}' for k, v in self._asdict().items()])})"

        def __getnewargs__(self):
            return tuple(self)

    class _Members(type):
        """Turns the numbers in a class into its only instances."""

        def __new__(cls, name, bases, space):
            numbers = {key: value for key, value in space.items() if type(value) is int}
            if len(set(numbers.values())) != len(numbers):
                raise TypeError(f"{name}: want each number once")
            made = super().__new__(cls, name, bases, {key: space[key] for key in space if key not in numbers})
            made.__members__, made._by_value = {}, {}
            for key, value in numbers.items():
                member = int.__new__(made, value)
                member.name, member.value = key, value
                made.__members__[key] = made._by_value[value] = member
                setattr(made, key, member)
            return made

        def __call__(cls, value):
            try:
                return cls._by_value[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __getitem__(cls, name):
            return cls.__members__[name]

        def __iter__(cls):
            return iter(cls.__members__.values())

        def __len__(cls):
            return len(cls.__members__)

        def __contains__(cls, member):
            return isinstance(member, cls)

    class IntEnum(int, metaclass=_Members):
        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value}>"

        __str__ = int.__repr__

        def __reduce__(self):
            return type(self), (self.value,)
