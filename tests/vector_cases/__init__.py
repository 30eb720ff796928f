"""The cases of tests/vectors: each is a function whose name is the fault and whose docstring says what is done.

    @case("NOT PROVEN", "other-log")
    def another_log() -> Ask:
        \"\"\"The proof names a log that is not the user's.\"\"\"
        world = small()
        return Ask(world, world.prove(1)._replace(log=...))

The verdict and reasons stand in the case, written by hand from SPEC 9; nothing here asks `verifier` for them.
`tests.make_vectors` imports all modules of this folder and writes one file for each case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.builder import World, content_of
from tests.verifier.worlds import created
from verifier.encoding import encode_base64
from verifier.proof import Line, Proof, format_proof
from verifier.verdict import DEFAULT_MAX_AGE_S, Memory

MALFORMED = "MALFORMED"


class Ask(NamedTuple):
    """One question about one proof, as a user with this world's keys and policies asks it."""

    world: World
    proof: Proof | str
    data: bytes = b"two"
    path: str | None = "a.txt"
    file_id: int | None = None
    memory: Memory = Memory()
    max_age_s: int = DEFAULT_MAX_AGE_S
    as_of: int | str | None = None
    require_seal: bool = False
    reader: bool = True  # holds the blinding key


class Case(NamedTuple):
    """What a verifier has to say to a question."""

    expect: str
    reasons: tuple[str, ...]
    what: str
    make: Callable[[], Ask]


CASES: dict[str, Case] = {}


def case(expect: str, *reasons: str) -> Callable[[Callable[[], Ask]], Callable[[], Ask]]:
    """Enters the function below it into CASES, under its name with hyphens."""

    def enter(make: Callable[[], Ask]) -> Callable[[], Ask]:
        name = make.__name__.replace("_", "-")
        assert name not in CASES, name
        CASES[name] = Case(expect, reasons, " ".join((make.__doc__ or "").split()), make)
        return make

    return enter


def alone() -> World:
    """A log with one witness and one auditor, for all cases that are not about quorums: small files."""
    return World(1, 1)


def small(*data: bytes) -> World:
    """File 1, created and then written at a.txt, in one published tree for each data."""
    return created(*(data or (b"one", b"two")), world=alone())


def withhold(proof: Proof) -> Proof:
    """What a log shows somebody who may read the file and does not own it (SPEC 11.4)."""

    def hide(line: Line) -> Line:
        return line._replace(path=None, context=None)

    earlier = [one._replace(step=hide(one.step)) for one in proof.earlier]
    return proof._replace(entries=[hide(line) for line in proof.entries], earlier=earlier, replaced=[])


def document(name: str) -> dict[str, object]:
    """The JSON value of a case (tests/vectors/README.md)."""
    expect, reasons, what, make = CASES[name]
    ask = make()
    world, content = ask.world, content_of(ask.data)
    return {
        "name": name,
        "what": what,
        "expect": expect,
        "reasons": list(reasons),
        "trust": {
            "log": world.log_name,
            "source": world.source,
            "policy": world.policy_text.decode(),
            "auditors": world.auditors_text.decode(),
            "owner": encode_base64(world.owner.public),
            "blinding": encode_base64(world.owner.blinding) if ask.reader else None,
        },
        "question": {
            "now": str(world.now),
            "path": ask.path,
            "file": _decimal(ask.file_id),
            "size": str(content.size),
            "sha3_256": encode_base64(content.sha3_256),
            "max_age": str(ask.max_age_s),
            "as_of": ask.as_of if ask.as_of == "proof" else _decimal(ask.as_of),
            "require_seal": ask.require_seal,
        },
        "memory": {
            "checkpoint": None if ask.memory.checkpoint is None else ask.memory.checkpoint.decode(),
            "chain": None if ask.memory.chain is None else format_proof(ask.memory.chain).decode(),
            "path_file": _decimal(ask.memory.path_file_id),
            "path_chain": None if ask.memory.path_chain is None else format_proof(ask.memory.path_chain).decode(),
        },
        "proof": ask.proof if isinstance(ask.proof, str) else format_proof(ask.proof).decode(),
    }


def _decimal(value: object) -> str | None:
    return None if value is None else str(value)
