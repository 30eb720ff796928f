"""The worked example of SPEC 13, computed: `python -m tests.example` prints the block that stands there."""

from __future__ import annotations

from hashlib import sha256

from tests import map_reference, reference
from tests.builder import SEED, SOURCE, World
from verifier.chain import genesis, open_step
from verifier.encoding import tagged
from verifier.entry import Operation, Part
from verifier.map import map_value
from verifier.proof import format_proof


def example() -> str:
    """One file, created and then written, in two trees, with one other file beside it."""
    world = World(nodes=1, threshold=1)
    world.record(17, Operation.CREATED, b"one\n", "a.txt")
    world.publish()
    world.record(17, Operation.WRITTEN, b"two\n", "a.txt")
    world.record(18, Operation.CREATED, b"other\n", "b.txt")
    size = world.publish()
    history = world.histories[17]
    first, second = (record.line for record in history.records)
    binding = history.binding
    log_key = world.log.verifier_key.public_key
    rows: list[tuple[str, bytes | str]] = [
        ("seed", SEED),
        ("log key", log_key),
        ("log name", world.log_name),
        ("owner secret", world.owner.private),
        ("owner key", world.owner.public),
        ("blinding key", world.owner.blinding),
        ("root", world.root),
        (f"chain id ({SOURCE}, 17, 0)", binding.chain_id),
        ("genesis", genesis(binding)),
    ]
    for name, line in (("0", first), ("1", second)):
        rows += [(f"{part.word} opening {name}", line[part] or b"") for part in Part]
        step = open_step(line.entry, line[1:])
        rows += [
            (f"entry {name}", line.entry),
            (f"d_{name}", step.hash),
            (f"head_{name}", history.chain.heads[int(name)]),
        ]
    rows += [(f"leaf {index}", leaf) for index, leaf in enumerate(world.leaves)]
    value = map_value(1, history.chain.heads[1], history.records[1].index)
    rows += [
        ("map value of the chain", value),
        ("map siblings", b"".join(map_reference.prove(world.maps[size], binding.chain_id)[1])),
        ("map root", map_reference.build_map(world.maps[size])),
        (f"tree root, size {size}", reference.mth(world.leaves)),
    ]
    text = "".join(f"{name}\n{wrapped(value)}" for name, value in rows)
    proof = format_proof(world.prove(17))
    policies = f"policy, fingerprint {tagged('policy', world.policy_text).hex()}\n{indented(world.policy_text)}"
    policies += f"auditors, fingerprint {tagged('policy', world.auditors_text).hex()}\n{indented(world.auditors_text)}"
    note = f"checkpoint\n{indented(world.notes[size])}"
    report = world.verify(world.prove(17), b"two\n", path="a.txt")
    end = f"the proof file has {len(proof)} bytes, SHA-256 {sha256(proof).hexdigest()}\n"
    end += f'asked at {world.now} for a.txt with the bytes "two", line feed: {report.verdict.value}\n'
    return text + policies + note + end


def wrapped(value: bytes | str) -> str:
    """Hexadecimal in lines of 64 digits, text as it is."""
    shown = value if isinstance(value, str) else value.hex()
    return "".join(f"    {shown[i : i + 96]}\n" for i in range(0, len(shown), 96)) or "    (empty)\n"


def indented(text: bytes) -> str:
    return "".join(f"    {line}\n" for line in text.decode("utf-8").splitlines())


if __name__ == "__main__":
    print(example(), end="")
