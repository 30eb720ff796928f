"""The ends of earlier generations of a file's chain, and what the next one has to take over from them (SPEC 4.5).

    generation 0   created … written closed        closed lists the taints that stand, and is signed by the owner
    generation 1   adopted … closed                adopted names chain id, last seq and head of what it continues
    generation 2   adopted … written               the chain that the proof shows whole

SPEC 9, step 8. A proof of generation 2 carries the two `closed`, the newest first, each with the head before it, and
the very map that holds the chain holds both heads. So nobody sheds what stands against a file by starting another
chain. A `closed` without the owner's signature is a taint of its own. A predecessor under another root (a new owner,
a new seed) comes last; its chain id and signature cannot be checked.

This is loaded only where a chain continues another one.
"""

from __future__ import annotations

from verifier.chain import MISSING, Binding, Ending, Step, check_close_signature, closing_taints, link, open_step
from verifier.entry import Closed
from verifier.errors import NotProven
from verifier.keys import chain_id
from verifier.map import map_value, verify_presence
from verifier.proof import Earlier, Line
from verifier.verdict import Run


def check_ends(run: Run) -> Ending:
    """How the newest of the earlier generations ended, once all of them are shown to have ended in the proof's map."""
    endings = [_check_end(run, earlier, run.proof.generation - n) for n, earlier in enumerate(run.proof.earlier, 1)]
    return endings[0]


def _check_end(run: Run, earlier: Earlier, generation: int) -> Ending:
    proof, trust = run.proof, run.trust
    binding = run.binding._replace(chain_id=earlier.chain_id)
    if generation < 0:
        binding = binding._replace(owner_key=None)  # another root's: its owner's key is not known here
    elif trust.blinding is not None:
        if earlier.chain_id != chain_id(trust.blinding, proof.source, proof.file_id, generation):
            message = f"the chain shown is not generation {generation} of file {proof.file_id}"
            raise NotProven("generations", message)
    step = open_step(earlier.step.entry, earlier.step[1:])
    if generation == proof.generation - 1:
        _check_shown(step, proof.entries[:1], run.asks_content_alone)
    head = link(earlier.before, earlier.chain_id, step.entry.seq, step.hash)
    value = map_value(step.entry.seq, head, earlier.leaf_index)
    verify_presence(earlier.chain_id, value, earlier.siblings, proof.map.root)
    return _ending(binding, earlier.before, step, head)


def _ending(binding: Binding, before: bytes, step: Step, head: bytes) -> Ending:
    """What a `closed` says of its chain. A close that the owner did not sign is a taint of its own (SPEC 4.5)."""
    closed = step.entry.argument
    if not isinstance(closed, Closed):
        raise NotProven("generations", "an earlier generation does not end with closed")
    checkable = binding.owner_key is not None
    if closed.signature and checkable:
        check_close_signature(binding, before, step.entry)
    taints = closing_taints(closed, binding.chain_id, step.entry.seq, checkable)
    return Ending(binding.chain_id, step.entry.seq, head, step.content, step.path, taints)


def _check_shown(closed: Step, first: list[Line], content_alone: bool) -> None:
    """[R] What `adopted` must keep is shown on both sides, or on neither: then that it is erased shows in step 10."""
    for line in first:
        content = closed.content is MISSING and line.content is not None
        path = closed.path is MISSING and line.path is not None
        if content or not content_alone and (path or closed.context is MISSING):
            raise NotProven("opening-missing", "the end of the generation before is not shown whole")
