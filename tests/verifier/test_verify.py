"""The main path, step by step; each attack that a rule of the design stops has a test named after it."""

from __future__ import annotations

from tests.builder import World
from verifier.entry import Operation
from verifier.proof import format_proof, parse_proof
from verifier.verdict import Verdict


def a_file(world: World | None = None) -> World:
    """A world with one file that was created, written and moved, next to two others, in two published trees."""
    world = world or World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.record(2, Operation.CREATED, b"other", "b.txt")
    world.publish()
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record(3, Operation.CREATED, b"third", "c.txt")
    world.record(1, Operation.MOVED, b"two", "d.txt")
    world.publish()
    return world


def test_verify_honest_file() -> None:
    """An honest log, its owner and the right bytes give VERIFIED."""
    world = a_file()
    proof = world.prove(1)
    assert parse_proof(format_proof(proof)) == proof
    report = world.verify(proof, b"two", path="d.txt")
    assert report.findings == []
    assert report.verdict is Verdict.VERIFIED
