"""Another file under a known path: shown is that the file which was there before has left it (SPEC 9, step 13).

    report.odt was file 3, and is file 9 now       an office program writes a new file and renames it over the old one

    replaced   the steps of file 3 since it was away from report.odt, linked from `before` to a head that the very map
               of this proof holds. The first one deletes, closes or moves it; none brings it back, hides where it
               is, or admits that steps are missing. After a `closed`, the map has no next generation of that file.

So a server cannot serve a second chain for a path and keep the first one to show to others. This is loaded only where
a client meets another file id than the one it knows.
"""

from __future__ import annotations

from verifier.chain import MISSING, Step, link, open_step
from verifier.encoding import HASH_SIZE
from verifier.entry import SETS_CONTENT, Operation
from verifier.errors import NotProven
from verifier.keys import chain_id
from verifier.map import map_value, verify_absence, verify_presence
from verifier.proof import Proof, Replaced
from verifier.seen import is_kept
from verifier.verdict import Run

WORD = "if you know why, say --other-file once"
_HAVE_PATH = SETS_CONTENT | {Operation.MOVED, Operation.TOUCHED}  # operations that say where the file is (SPEC 4.2)


def check_replaced(run: Run, blinding: bytes, path: str, file_id: int) -> Replaced:
    """What shows that this file, seen under this path, left it; else NotProven."""
    proof, stored = run.proof, run.memory.path_chain
    replaced = next((replaced for replaced in proof.replaced if replaced.file_id == file_id), None)
    if replaced is None:
        raise not_shown(path, file_id, proof.file_id)
    generation = 0 if stored is None else stored.generation
    if replaced.generation != generation:
        message = f"generation {generation} of file {file_id} was seen, {replaced.generation} is shown"
        raise NotProven("other-file-id", f"{message}: verify that file first")
    steps = [open_step(line.entry, line[1:]) for line in replaced.steps]
    if not steps or not _frees(steps, path):
        raise NotProven("other-file-id", f"the steps shown of file {file_id} do not free the path {path!r}")
    if stored is not None and run.continues and not is_kept(run, stored):
        raise NotProven("other-file-id", f"what was seen of file {file_id} was declared lost; {WORD}")
    chain = chain_id(blinding, proof.source, file_id, generation)
    head = replaced.before
    for seq, step in enumerate(steps, steps[0].entry.seq):
        if step.entry.seq != seq:
            raise NotProven("other-file-id", f"step {seq} of file {file_id} is not shown")
        head = link(head, chain, seq, step.hash)
    value = map_value(steps[-1].entry.seq, head, replaced.leaf_index)
    verify_presence(chain, value, replaced.siblings, proof.map.root)
    if any(step.entry.operation is Operation.CLOSED for step in steps):
        _check_no_next(proof, chain_id(blinding, proof.source, file_id, generation + 1), replaced)
    return replaced


def not_shown(path: str, old: int, new: int) -> NotProven:
    """Nothing at all speaks of the old file."""
    return NotProven(
        "other-file-id", f"{path!r} was file {old} before, now {new}, and nothing shows that the old one left; {WORD}"
    )


def _frees(steps: list[Step], path: str) -> bool:
    """Whether the file is away from the path after the first of these steps, and no later one brings it back."""
    first = steps[0]
    gone = first.entry.operation in (Operation.DELETED, Operation.CLOSED)
    left = gone or first.entry.operation in _HAVE_PATH and first.path not in (None, MISSING, path)
    return left and not any(_may_bring_back(step, path) for step in steps)


def _may_bring_back(step: Step, path: str) -> bool:
    """[R] A step that has to say where the file is says another path, and none hides what happened."""
    operation = step.entry.operation
    if operation is Operation.CLOSED:
        return False
    silent = step.path is None and operation in _HAVE_PATH
    return silent or step.path in (MISSING, path) or operation is Operation.GAP


def _check_no_next(proof: Proof, chain: bytes, replaced: Replaced) -> None:
    if replaced.next is None:
        raise NotProven("other-file-id", f"nothing shows that file {replaced.file_id} was not continued")
    other = replaced.next.other
    terminal = None if other is None else (other[:HASH_SIZE], other[HASH_SIZE:])
    verify_absence(chain, terminal, replaced.next.siblings, proof.map.root)
