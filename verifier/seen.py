"""What this client has seen before: it completes a short proof, and where a proof departs from it, something is wrong.

SPEC 9, steps 1, 2, 5, 9 and 11. `verifier.verify` compares, and comes here once something differs:

    two roots for one size                      FORK: the log signed both
    a smaller tree                              stale; FORK if a cosigner signed it after the bigger one
    a tree of another origin                    goes on only where a declared loss leads to it, and hides nothing seen
    another head than the map's, or no entry    CHANGED: what was logged is not what is shown
    another head for a step, or a step less     CHANGED; FORK where a question as of a time met an older tree
    another generation                          the one seen has to have ended after all that was seen of it

What has been seen is the state's checkpoint and its stored whole proof of this file (SPEC 10), never the proof's word.
"""

from __future__ import annotations

from verifier import conviction, evidence
from verifier.chain import Step, genesis, link
from verifier.checkpoint import Checkpoint, parse_checkpoint_unverified
from verifier.entry import Closed, decode_entry
from verifier.errors import BadSignature, ChainBroken, Changed, Fork, Malformed, NotProven
from verifier.note import VerifierKey, parse_note
from verifier.proof import Proof
from verifier.verdict import Run, Trust

# -- a short proof (step 1) ------------------------------------------------------------------------------------


def join(proof: Proof, stored: Proof | None) -> Proof:
    """A short proof, completed by the entries of the stored whole one (SPEC 10.3)."""
    if proof.first_seq == 0:
        return proof
    same = stored is not None and (stored.chain_id, stored.root) == (proof.chain_id, proof.root)
    if stored is None or not same or len(stored.entries) < proof.first_seq:
        first = proof.first_seq
        raise NotProven("incomplete", f"the proof starts at step {first}, and the state lacks what comes before")
    return proof._replace(first_seq=0, entries=stored.entries[: proof.first_seq] + proof.entries)


# -- trees (steps 2 and 5) --------------------------------------------------------------------------------------


def two_roots(run: Run, size: int, one: bytes, other: bytes) -> Fork:
    """Two notes that exclude each other."""
    message = f"the log signed two different trees of size {size}"
    return Fork(message, evidence.note_evidence(evidence.TWO_ROOTS, run.question.now, one, other))


def refuse_rollback(run: Run, seen: Checkpoint) -> None:
    """[R] A smaller tree is stale, or a fork if one witness signed it after the bigger one."""
    assert run.memory.checkpoint is not None
    fork = rolled_back(run.question.now, run.trust, run.memory.checkpoint, run.proof.checkpoint)
    if fork is not None:
        raise fork
    if run.question.as_of is None:
        raise NotProven("stale", f"the proof is of a tree of size {run.tree.size}, size {seen.size} was seen before")


def rolled_back(now: int, trust: Trust, one: bytes, other: bytes) -> Fork | None:
    """Whether a cosigner of both notes signed the smaller tree later. Each is signed and cosigned, as is known."""
    value = evidence.note_evidence(evidence.ROLLED_BACK, now, one, other)
    proven = conviction.find_proven(value, trust.witnesses.log_keys, trust.cosigners)
    return None if proven is None else Fork(proven.statement, value)


def cosigned_at(trust: Trust, note: bytes) -> dict[VerifierKey, int]:
    """The time of each known cosigner whose line holds."""
    parsed, times = parse_note(note), dict[VerifierKey, int]()
    for key in trust.cosigners:
        try:
            time = conviction.time_of(parsed, key)
        except (BadSignature, Malformed):
            continue
        if time is not None:
            times[key] = time
    return times


def continue_lost(run: Run, seen: Checkpoint) -> None:
    """[R] A loss never hides what this client has seen: its tree is not above the note of its origin."""
    assert run.memory.checkpoint is not None
    declared = run.proof.loss.declared if run.proof.loss is not None else []
    for one, (_, old) in zip(declared, run.lost, strict=True):
        if old.origin != seen.origin:
            continue
        if seen.excludes(old):
            raise two_roots(run, seen.size, run.memory.checkpoint, one.note)
        if seen.size > old.size:
            message = (
                f"everything after tree {old.size} of {old.origin} was declared lost, and {seen.size} was seen before"
            )
            raise NotProven("loss-hides", message)
        run.continues = True
        return
    _refuse_two_successors(run)
    if run.question.as_of is None:
        what = f"the proof is of {run.tree.origin!r}, and {seen.origin!r} was seen before"
        raise NotProven("unconnected", f"{what}: no declared loss leads from the one to the other")


def _refuse_two_successors(run: Run) -> None:
    """[R] The stored proof and this one say of one origin that it goes on, under two: a fork, if both are signed."""
    stored, loss = run.memory.chain, run.proof.loss
    if stored is None or stored.loss is None or loss is None:
        return
    seen = parse_checkpoint_unverified(parse_note(stored.checkpoint).text)
    shown = (seen.origin, stored.loss.declared[0]), (run.tree.origin, loss.declared[0])
    value = evidence.successor_evidence(run.question.now, *shown)
    if (proven := conviction.find_proven(value, run.log_keys)) is not None:
        raise Fork(proven.statement, value)


# -- the chain (steps 9 and 11) -----------------------------------------------------------------------------------


def check_links(run: Run, steps: list[Step]) -> None:
    """The steps have seq 0 to map.seq and link to map.head, whether or not they are legal."""
    proof, shown = run.proof, run.proof.map
    head = genesis(run.binding)
    for seq, step in enumerate(steps):
        head = link(head, proof.chain_id, seq, step.hash)
        if step.entry.seq != seq:
            raise Changed("history", f"step {seq} is missing: the next one shown is {step.entry.seq}", seq)
    if len(steps) != shown.seq + 1:
        message = f"the log holds {shown.seq + 1} steps of this file, the proof shows {len(steps)}"
        raise Changed("history", message, len(steps))
    if head != shown.head:
        raise ChainBroken(_first_difference(run), shown.head, head)


def _first_difference(run: Run) -> int:
    """The step where a rewritten history departs from the stored one; the last step where that is not known."""
    stored = run.memory.chain
    if stored is not None and stored.chain_id == run.proof.chain_id:
        for seq, (old, new) in enumerate(zip(stored.entries, run.proof.entries, strict=False)):
            if old.entry != new.entry:
                return seq
    return len(run.proof.entries) - 1


def other_head(run: Run, stored: Proof, seq: int) -> Changed | Fork:
    """A step that the stored proof and this one share has two heads."""
    if run.behind and run.question.as_of is not None:
        value = evidence.history_evidence(run.question.now, stored, run.proof)
        if (proven := conviction.find_proven(value, run.log_keys)) is not None:
            return Fork(proven.statement, value)
    return Changed("pinned", f"step {seq} is not the one that was seen before", seq)


def check_ended(run: Run, stored: Proof) -> None:
    """[R] The generation that was seen is among those before this one, and ended after all that was seen of it."""
    earlier = next((one for one in run.proof.earlier if one.chain_id == stored.chain_id), None)
    if earlier is None:
        if run.question.as_of is not None and not run.continues:
            return  # an older tree, which says nothing of what came later
        message = (
            f"the proof is of generation {run.proof.generation}, and {stored.generation}, seen before, is not in it"
        )
        raise NotProven("stale" if stored.generation >= run.proof.generation else "generations", message)
    last = stored.map.seq
    closed = decode_entry(earlier.step.entry).seq
    if run.continues and not is_kept(run, stored):
        message = f"step {last} of generation {stored.generation} was seen before, and declared lost"
        raise Changed("pinned", message, last)
    if closed <= last or (closed == last + 1 and earlier.before != stored.map.head):
        message = f"generation {stored.generation} did not end after step {last}, which was seen before"
        raise Changed("pinned", message, last)


def has_given_up(proof: Proof, stored: Proof) -> bool:
    """[R] Whether the owner has ended a generation for what was seen: steps up to there are gone by the owner's word.

    A word that the stored proof shows already says nothing of what was seen since. Of another root's none counts: step
    8 knows no key to check it with.
    """
    known = [one.step.entry for one in stored.earlier]
    closed = [one.step.entry for one in proof.earlier[: proof.generation]]
    return any(_gives_up(entry, stored) for entry in closed if entry not in known)


def _gives_up(entry: bytes, stored: Proof) -> bool:
    end, last = decode_entry(entry).argument, stored.map
    seen = end.seen if isinstance(end, Closed) else None
    if seen is None or seen.chain_id != stored.chain_id:
        return False
    return seen.seq > last.seq or (seen.seq, seen.head) == (last.seq, last.head)


def is_kept(run: Run, stored: Proof) -> bool:
    """[R] Whether the last leaf of the stored proof's chain is there still, by all losses declared since (SPEC 6.5).

    Only the end of that chain is shown, and a chain that lost steps may have grown others in their place.
    """
    origin, index = parse_checkpoint_unverified(parse_note(stored.checkpoint).text).origin, stored.map.leaf_index
    if origin == run.tree.origin:
        return True
    declared = run.proof.loss.declared if run.proof.loss is not None else []
    origins = [old.origin for _, old in run.lost]
    if origin not in origins:
        return False
    _check_earlier(run, stored, origins.index(origin) + 1)
    for one, old in reversed(list(zip(declared, origins, strict=True))[: origins.index(origin) + 1]):
        if index >= one.kept:
            return False
        index += old == run.origin  # a later origin's leaf 0 was left out
    return True


def _check_earlier(run: Run, stored: Proof, since: int) -> None:
    """[R] Losses that the stored proof knew are declared as they were: what was kept then is not said anew."""
    assert run.proof.loss is not None
    after = [old.origin for _, old in run.lost][since - 1 :]
    known = stored.loss.declared if stored.loss is not None else []
    for origin, one, other in zip(after, run.proof.loss.declared[since:], known, strict=False):
        if one != other:
            value = evidence.successor_evidence(run.question.now, (origin, one), (origin, other))
            proven = conviction.find_proven(value, run.log_keys)
            raise Fork(proven.statement, value) if proven is not None else Changed("pinned", "a loss is declared anew")
