"""The worlds that the tests of the main path ask about, and how they ask.

Each helper builds an honest world, or one lie that several tests share.
"""

from __future__ import annotations

from tests import reference
from tests.builder import ORIGIN, SIGNATURE, World, secret
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.entry import CloseReason, Operation, TaintKind
from verifier.note import Note, SignerKey, cosign, format_note, format_vkey, sign_note
from verifier.proof import Proof
from verifier.verdict import Memory, Report

VERIFIED = ("VERIFIED",)
ALTERED = TaintKind.ALTERED


def said(report: Report) -> tuple[str, ...]:
    """The verdict and every reason, in order."""
    return report.verdict.value, *(finding.reason for finding in report.findings)


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


def created(*data: bytes, path: str = "a.txt", world: World | None = None) -> World:
    """A world with file 1, created and then written with each data, in one published tree for each."""
    world = world or World()
    for number, content in enumerate(data or (b"one",)):
        world.record(1, Operation.WRITTEN if number else Operation.CREATED, content, path)
        world.publish()
    return world


def ask(world: World, data: bytes | None = b"two", proof: Proof | None = None, **asked: object) -> tuple[str, ...]:
    """The verdict about file 1 at its own path, in the newest tree unless a proof is given."""
    memory = asked.pop("memory", None)
    chain = world.histories[1].chain
    path = asked.pop("path", chain.path)
    return said(world.verify(proof or world.prove(1), data, memory, path=path, **asked))  # type: ignore[arg-type]


def key_of(world: World, seq: int, file_id: int = 1) -> tuple[bytes, int]:
    """How a seal's `accepts` names a step of a file."""
    return world.histories[file_id].binding.chain_id, seq


def noted(world: World, size: int, witnesses: list[int], auditors: list[int] | None = None) -> bytes:
    """A checkpoint of the world's tree, cosigned by its first nodes at these times."""
    text = format_checkpoint(Checkpoint(ORIGIN, size, reference.mth(world.leaves[:size])))
    times = list(zip(world.witnesses, witnesses, strict=False))
    times += zip(world.auditors, auditors or witnesses, strict=False)
    lines = [sign_note(text, world.log)] + [cosign(text, signer, time) for signer, time in times]
    return format_note(Note(text, tuple(lines)))


def two_logs(nodes: int = 4, threshold: int = 3) -> tuple[World, World, SignerKey]:
    """Two logs of one operator in one policy, with the same nodes; the second one's key."""
    one, two = a_file(World(nodes, threshold)), World(nodes, threshold)
    other = SignerKey("other.example/files", SIGNATURE, secret("other log"))
    line = f"log {format_vkey(other.verifier_key)}\n".encode()
    one.policy_text, one.auditors_text = line + one.policy_text, line + one.auditors_text
    two.record(1, Operation.CREATED, b"evil", "d.txt")
    while len(two.leaves) < len(one.leaves) - 1:
        two.record(len(two.leaves) + 6, Operation.CREATED, b"x", "x")
    two.publish()
    text = format_checkpoint(Checkpoint("other.example/files", len(two.leaves), reference.mth(two.leaves)))
    lines = [sign_note(text, other)] + [cosign(text, signer, two.now) for signer in two.witnesses + two.auditors]
    two.notes[len(two.leaves)] = format_note(Note(text, tuple(lines)))
    return one, two, other


def two_generations(*, signed: bool = True, tainted: bool = False, world: World | None = None) -> World:
    """File 1 was closed and continued; in its first generation the bytes may have changed with no operation."""
    world = world or World()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    if tainted:
        world.record(1, Operation.ALTERED, b"two", "a.txt")
    else:
        world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.publish()
    world.close(1, signed=signed)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return world


def altered(world: World | None = None) -> World:
    """The bytes of file 1 changed with no operation, after two honest versions."""
    world = world or World()
    world.record(1, Operation.CREATED, b"zero", "a.txt")
    world.record(1, Operation.WRITTEN, b"one", "a.txt")
    world.record(1, Operation.ALTERED, b"evil", "a.txt")
    world.publish()
    return world


def sealed(world: World | None = None) -> World:
    """A world whose file 1 is sealed by its owner's device, and published since."""
    world = world or created(b"one", b"two")
    world.record_seal(1)
    world.publish()
    return world


def taken_over(*leave: Operation, world: World | None = None) -> tuple[World, Memory]:
    """File 1 was at a.txt when the client looked; now file 2 is there, after file 1 did what `leave` says."""
    world = created(b"one", world=world)
    memory = Memory(world.notes[max(world.notes)], None, 1)
    for operation in leave:
        if operation is Operation.CLOSED:
            world.close(1, CloseReason.REUSED_ID)
        elif operation is Operation.DELETED:
            world.record(1, operation)
        else:
            world.record(1, operation, b"one", "elsewhere.txt" if operation is Operation.MOVED else "a.txt")
    world.record(2, Operation.CREATED, b"new", "a.txt")
    world.publish()
    return world, memory
