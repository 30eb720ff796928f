"""The main path: proof + keys + policies + memory -> report, in the numbered steps of SPEC 9.

    1  the proof is for this log and source, and its names follow from the owner's keys
    2  a key of the log signed the checkpoint, and no other view of the same size is known
    3  the witnesses' quorum saw it: the log only grew
    4  the auditors' quorum replayed it: map and chains are what the leaves say
    5  it continues the tree that this client has seen before
    6  the last leaf of the tree commits to the map
    7  the map holds this chain, with this last seq, head and leaf index
    8  earlier generations ended in the same map, and this one continues them
    9  the entries hash to that head, and their last leaf and the one that set the content are in the tree
    10 every step may follow the one before; nothing is hidden, nothing stands against the history; what the log has
       declared lost is accepted by the owner
    11 what this client saw of the chain before is still there
    12 the newest seal's tree is part of this one
    13 it is the file that was asked for, and it is there
    14 the bytes are those of the current version
    15 the times hold: entries are not from the future, and the proof is fresh enough

Each step is a function that raises. A step on which all later ones rest ends the run; the others add their
finding and the run goes on, so that the report says everything at once. The worst finding is the verdict:
FORK, CHANGED, NOT PROVEN, VERIFIED. Nothing here reads a file, a clock or a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from verifier import keys as owner_keys
from verifier.chain import (
    MISSING,
    Binding,
    Chain,
    Ending,
    Step,
    check_close_signature,
    genesis,
    link,
    open_step,
    unsigned_close,
)
from verifier.checkpoint import Checkpoint, open_checkpoint, open_earlier, parse_checkpoint_unverified
from verifier.entry import Closed, Content, Operation, Part, Seen, TaintKind, entry_hash
from verifier.errors import ChainBroken, Changed, Fork, Malformed, NotProven, NotVerified, Usage
from verifier.leaf import EntryLeaf, MapLeaf, encode_leaf
from verifier.map import map_value, verify_presence
from verifier.merkle import leaf_hash, verify_consistency, verify_inclusion
from verifier.note import Note, find_signature, parse_note, verify_cosignature
from verifier.policy import Cosigned, Policy, check_separate, verify_quorum
from verifier.proof import Bracket, Line, Proof
from verifier.verdict import Finding, Memory, Question, Report, Times, Trust, Verdict
from verifier.words import when

FUTURE_BOUND_S = 30  # SPEC 8.3: a cosignature may be this far ahead of the verifier's clock
_NEW_ORIGIN = (
    "the server says that this log has lost leaves and goes on under a new origin. If its operator tells you so too, "
    "get the new policies by file, compare the fingerprints, and give them once with `verify --replace-policy`"
)
CLOCK_BOUND_S = 300  # SPEC 8.3: an entry may claim to be recorded this much later than witnesses saw it


class Run:
    """The facts that the steps hand on to each other."""

    def __init__(self, proof: Proof, trust: Trust, question: Question, memory: Memory) -> None:
        self.proof, self.trust, self.question, self.memory = proof, trust, question, memory
        self.origin = trust.log_name.partition("+")[0]  # the first one; it has no other plus sign (SPEC 2.2)
        self.log_keys = trust.witnesses.log_keys
        self.lost: list[tuple[Note, Checkpoint]] = []  # what was declared lost, the newest first
        self.findings: list[Finding] = []
        self.note: Note
        self.checkpoint: Checkpoint | None = None
        self.binding: Binding
        self.witnesses: Cosigned | None = None
        self.auditors: Cosigned | None = None
        self.continues = False
        self.behind = False
        self.ending: Ending | None = None
        self.chain: Chain | None = None
        self.times: Times | None = None
        self.as_of: int | None = None
        self.older_version: int | None = None
        self.evidence: dict[str, object] | None = None

    @property
    def tree(self) -> Checkpoint:
        assert self.checkpoint is not None
        return self.checkpoint

    @cached_property
    def seen(self) -> tuple[Note, Checkpoint] | None:
        """The checkpoint that the state has pinned, opened once; None where it has none."""
        pinned = self.memory.checkpoint
        return None if pinned is None else open_checkpoint(pinned, *self.log_keys)

    @property
    def asks_content_alone(self) -> bool:
        """[R] Somebody who knows no blinding key and asks by file id: paths and contexts are the owner's to know.

        Which chain it is rests on the owner's seal then, and no path is said to be proven.
        """
        return self.trust.blinding is None and self.question.path is None

    @property
    def history(self) -> Chain:
        assert self.chain is not None
        return self.chain

    def add(self, error: NotVerified) -> None:
        """Turns a failed check into a finding."""
        if isinstance(error, Fork):
            self.evidence = error.evidence
            self.findings.append(Finding(Verdict.FORK, "fork", str(error)))
        elif isinstance(error, Changed):
            self.findings.append(Finding(Verdict.CHANGED, error.reason, str(error), error.seq))
        elif isinstance(error, NotProven):
            self.findings.append(Finding(Verdict.NOT_PROVEN, error.reason, str(error)))
        else:
            raise error


def verify(proof: Proof, trust: Trust, question: Question, memory: Memory) -> Report:
    """Takes a parsed proof through all steps. Raises only Malformed, for parts that are not in their format."""
    check_separate(trust.witnesses, trust.auditors)
    check_question(trust, question)
    run = Run(proof, trust, question, memory)
    for step, ends_run in _STEPS:
        try:
            step(run)
        except NotVerified as error:
            run.add(error)
            if ends_run:
                break
        except Malformed:
            if run.evidence is None:
                raise
            break  # a part that is not in its format never hides a fork
    return report_of(run)


def report_of(run: Run) -> Report:
    """The worst finding is the verdict; what may be remembered follows from it (SPEC 10.2)."""
    question = run.question
    verdict = max((finding.verdict for finding in run.findings), key=lambda v: v.rank, default=Verdict.VERIFIED)
    now = question.as_of is None
    whole = now and question.content is not None and not question.mends and not question.mends_loss
    return Report(
        verdict,
        run.findings,
        question,
        run.proof,
        run.chain,
        run.checkpoint,
        run.witnesses,
        run.auditors,
        run.times,
        run.as_of,
        run.older_version,
        run.evidence,
        pins_checkpoint=now and run.continues and run.witnesses is not None and verdict is not Verdict.FORK,
        pins_chain=whole and verdict is Verdict.VERIFIED,
    )


def check_question(trust: Trust, question: Question) -> None:
    """[R] The user says which file is meant; a proof never supplies it."""
    if question.path is None and question.file_id is None:
        raise Usage("say which file is meant: its path or its file id in the source")
    if trust.owner_key is None:
        raise Usage("an owner's key is needed: a seed, a reader key, or the owner's public key")
    if question.as_of is not None and question.as_of != "proof" and type(question.as_of) is not int:
        raise Usage(f"as of: want a time or 'proof', got {question.as_of!r}")


def join(proof: Proof, stored: Proof | None) -> Proof:
    """A short proof, completed by the entries of the stored whole one (SPEC 10.3)."""
    if proof.first_seq == 0:
        return proof
    same = stored is not None and (stored.chain_id, stored.root) == (proof.chain_id, proof.root)
    if stored is None or not same or len(stored.entries) < proof.first_seq:
        first = proof.first_seq
        raise NotProven("incomplete", f"the proof starts at step {first}, and the state lacks what comes before")
    return proof._replace(first_seq=0, entries=stored.entries[: proof.first_seq] + proof.entries)


# -- the steps ----------------------------------------------------------------------------------------------


def check_names(run: Run) -> None:
    """Step 1. Log, source and file id are the ones meant; root and chain id follow from the owner's keys."""
    run.proof = join(run.proof, run.memory.chain)
    proof, trust, asked = run.proof, run.trust, run.question.file_id
    if proof.log != trust.log_name:
        raise NotProven("other-log", f"the proof is for log {proof.log}, want {trust.log_name}")
    if proof.source != trust.source_id:
        raise NotProven("other-source", f"the proof is for source {proof.source}, want {trust.source_id}")
    if asked is not None and proof.file_id != asked:
        raise NotProven("other-file", f"the proof is for file {proof.file_id}, want {asked}")
    if trust.blinding is not None and trust.owner_key is not None:
        if proof.root != owner_keys.owner_root(trust.owner_key, trust.blinding):
            raise NotProven(
                "not-owner", "the chain does not belong to the owner of this key (or nobody has enrolled: custodial)"
            )
        wanted = owner_keys.chain_id(trust.blinding, proof.source, proof.file_id, proof.generation)
        if proof.chain_id != wanted:
            raise NotProven("other-chain", f"the chain shown is not the one of file {proof.file_id}")
    run.binding = Binding(proof.log, proof.source, proof.root, proof.file_id, proof.chain_id, trust.owner_key)


def check_checkpoint(run: Run) -> None:
    """Step 2. [R] Two trees of one size with different roots, both signed, are a fork."""
    try:
        run.note, checkpoint = open_checkpoint(run.proof.checkpoint, *run.log_keys)
    except NotProven as error:
        if error.reason == "unknown-log" and run.proof.loss is not None:
            raise NotProven("unknown-log", f"{error}; {_NEW_ORIGIN}") from None
        raise
    if checkpoint.size == 0:
        raise NotProven("empty-tree", "the checkpoint is of an empty tree")
    run.lost = _lost(run, checkpoint)
    run.checkpoint = checkpoint
    _compare_with_seen(run, checkpoint, run.proof.checkpoint)


def check_witnesses(run: Run) -> None:
    """Step 3."""
    cosigned = _quorum(run, run.trust.witnesses, run.note)
    if run.trust.witnesses.ov == 0:
        raise NotProven("weak-policy", "two quorums of the witnesses need not overlap (ov = 0): no policy to rely on")
    run.witnesses = cosigned


def check_auditors(run: Run) -> None:
    """Step 4. [R] Without it the map is only what the server committed to."""
    run.auditors = _quorum(run, run.trust.auditors, run.note)
    if run.auditors.still_newest_at is None:
        raise NotProven("not-replayed", "newest that the server committed to; nobody has replayed it")


def check_continues(run: Run) -> None:
    """Step 5. [R] Old size and root come from the state, never from the proof."""
    if run.seen is None:
        run.continues = True
        return
    seen_note, seen = run.seen
    if seen.origin != run.tree.origin:
        _continue_lost(run, seen)
    elif run.tree.size < seen.size:
        run.behind = True
        _refuse_rollback(run, seen_note, seen)
    elif run.tree.size == seen.size:
        run.continues = True
    else:
        pinned = run.proof.pinned
        if pinned is None or pinned.size != seen.size:
            raise NotProven(
                "unconnected", f"the proof does not start from the tree of size {seen.size} that was seen before"
            )
        verify_consistency(seen.size, seen.root, run.tree.size, run.tree.root, pinned.hashes)
        run.continues = True


def check_commitment(run: Run) -> None:
    """Step 6. [R] The last leaf, at size - 1, commits to the map root."""
    leaf = leaf_hash(encode_leaf(MapLeaf(run.proof.map.root)))
    verify_inclusion(run.tree.size - 1, run.tree.size, leaf, run.proof.commitment, run.tree.root)


def check_map(run: Run) -> None:
    """Step 7."""
    shown = run.proof.map
    value = map_value(shown.seq, shown.head, shown.leaf_index)
    verify_presence(run.proof.chain_id, value, shown.siblings, shown.root)


def check_earlier(run: Run) -> None:
    """Step 8. [R] Every earlier generation is in the same map and ends with `closed`."""
    proof, trust = run.proof, run.trust
    if len(proof.earlier) - proof.generation not in (0, 1):  # one more: a predecessor under another root
        raise NotProven("generations", f"{len(proof.earlier)} earlier generations are shown, want {proof.generation}")
    for distance, earlier in enumerate(proof.earlier, 1):
        generation = proof.generation - distance
        binding = run.binding._replace(chain_id=earlier.chain_id)
        if generation < 0:
            binding = binding._replace(owner_key=None)  # another root's: its owner's key is not known here
        elif trust.blinding is not None:
            wanted = owner_keys.chain_id(trust.blinding, proof.source, proof.file_id, generation)
            if earlier.chain_id != wanted:
                raise NotProven(
                    "generations", f"the chain shown is not generation {generation} of file {proof.file_id}"
                )
        step = _open(earlier.step)
        if distance == 1:
            _check_shown(step, proof.entries[:1], run.asks_content_alone)
        head = link(earlier.before, earlier.chain_id, step.entry.seq, step.hash)
        value = map_value(step.entry.seq, head, earlier.leaf_index)
        verify_presence(earlier.chain_id, value, earlier.siblings, proof.map.root)
        ending = closed_ending(binding, earlier.before, step, head)
        run.ending = run.ending or ending


def check_history(run: Run) -> None:
    """Step 9. A rewritten, dropped or added entry shows here; the entries are in the tree, not only in the map."""
    proof, shown = run.proof, run.proof.map
    steps = [_open(line) for line in proof.entries]
    chain = Chain(run.binding, run.ending)
    try:
        for step in steps:
            chain.append(step)
    except NotVerified:
        _check_links(run, steps)  # that it was not logged comes before anything else that can be said of it
        raise
    if (chain.seq, chain.head) != (shown.seq, shown.head):
        _check_links(run, steps)
    run.chain = chain
    leaf = chain_leaf(proof.chain_id, shown.seq, chain.head, steps[-1].hash)
    verify_inclusion(shown.leaf_index, run.tree.size, leaf, proof.last, run.tree.root)
    _check_current_leaf(run)


def _check_links(run: Run, steps: list[Step]) -> None:
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
        raise ChainBroken(_first_difference(run, steps), shown.head, head)


def check_standing(run: Run) -> None:
    """Step 10. [R] A taint goes only with the owner's seal; a later `written` hides nothing."""
    if run.history.taints:
        for kind in TaintKind:  # the worst first
            _raise_taints(run.history, kind, run.question.mends)


def check_lost(run: Run) -> None:
    """Step 10. [R] What the log has declared lost stands until a seal whose tree is the new origin's (step 12)."""
    if not run.lost or run.question.mends_loss or run.history.seals and run.proof.sealed is not None:
        return
    note, old = run.lost[0]
    until = _quorum(run, run.trust.witnesses, note).still_newest_at or 0
    raise NotProven(
        "declared-loss",
        f"history after {when(until)} (tree {old.size} of {old.origin}) was declared lost by the server, and no seal "
        "of the owner accepts that",
    )


def check_openings(run: Run) -> None:
    """Step 10. [R] What is not shown is logged as erased; content always, the rest where the file is asked by path."""
    run.history.check_openings((Part.CONTENT,) if run.asks_content_alone else tuple(Part))


def check_memory(run: Run) -> None:
    """Step 11. [R] Nothing before what this client has seen was changed or dropped."""
    stored, chain = run.memory.chain, run.history
    if stored is None:
        return
    if stored.chain_id == chain.binding.chain_id:
        _compare_heads(run, stored)
    elif stored.root == chain.binding.root and stored.generation < run.proof.generation:
        earlier = run.proof.earlier[run.proof.generation - stored.generation - 1]
        closed = _open(earlier.step).entry.seq
        last = stored.map.seq
        if _gave_up(earlier.step, stored):
            return
        if closed <= last or (closed == last + 1 and earlier.before != stored.map.head):
            raise Changed(
                "pinned", f"generation {stored.generation} did not end after step {last}, which was seen before", last
            )
    elif stored.root == chain.binding.root and run.question.as_of is None:
        raise NotProven(
            "stale", f"the proof is of generation {run.proof.generation}, {stored.generation} was seen before"
        )


def check_seal_tree(run: Run) -> None:
    """Step 12. [R] The tree that the owner's device saw when it sealed is part of this one."""
    seals = run.history.seals
    if seals and not (run.lost and run.proof.sealed is None):  # a seal of an origin before this one's: step 10
        seal, shown = seals[-1].seal, run.proof.sealed
        if shown is None or shown.size != seal.tree_size or shown.size > run.tree.size:
            raise NotProven("seal-tree", f"the proof does not start from the sealed tree of size {seal.tree_size}")
        verify_consistency(seal.tree_size, seal.tree_root, run.tree.size, run.tree.root, shown.hashes)
    sealed_now = bool(seals) and seals[-1].seal.seq >= run.history.version
    if run.question.require_seal and not sealed_now:
        raise NotProven("unsealed", "the current version is not sealed by the owner's device")
    if run.trust.blinding is None and not seals:
        raise NotProven("not-owner", "you hold neither seed nor reader key, and no seal says which file this chain is")


def check_identity(run: Run) -> None:
    """Step 13. [R] The file asked for, by path and file id, and it is neither deleted nor closed.

    [R] Another file id under a path that this client knows: the old file has left that path and has not come back.
    """
    chain, question = run.history, run.question
    if chain.status == "deleted":
        raise NotProven("deleted", f"the file was deleted at step {_last_of(chain, Operation.DELETED)}")
    if chain.status == "closed":
        raise NotProven("closed", "this chain is closed: fetch the proof of the generation that continues it")
    if question.path is None:
        return
    if chain.path is MISSING:
        raise NotProven("path-erased", f"the path is not shown: ask by file id {run.proof.file_id}")
    if chain.path != question.path:
        raise NotProven("other-path", f"the file is at {chain.path!r}, want {question.path!r}")
    known = run.memory.path_file_id
    if known is not None and known != run.proof.file_id:
        from verifier.replaced import check_replaced, not_shown

        if run.trust.blinding is None:
            raise not_shown(question.path, known, run.proof.file_id)
        check_replaced(run.proof, run.trust.blinding, question.path, known, run.memory.path_generation)


def check_bytes(run: Run) -> None:
    """Step 14."""
    given, chain = run.question.content, run.history
    if given is None or chain.status != "live":
        return
    if not isinstance(chain.content, Content):
        raise NotProven("opening-missing", "the current content is not shown")
    if given.same_bytes(chain.content):
        return
    older = [step for step in chain.steps if isinstance(step.content, Content) and given.same_bytes(step.content)]
    if older:
        run.older_version = chain.carriers[older[-1].entry.seq][0]  # not the move or touch that carried it on
    what = "it is an older version" if older else "no version of it ever had these bytes"
    raise Changed(
        "bytes", f"the bytes are not those of the current version (step {chain.version}): {what}", chain.version
    )


def check_times(run: Run) -> None:
    """Step 15. Times are the quorum's: never one clock's, never a minimum, maximum or mean."""
    if run.witnesses is None or run.witnesses.still_newest_at is None or run.witnesses.not_later_than is None:
        return
    first = _bracket(run, run.proof.first, "first")
    before = _bracket(run, run.proof.before, "before")
    index = run.proof.map.leaf_index
    not_later_than = run.witnesses.not_later_than
    if first is not None and first[0].size > index and first[1].not_later_than is not None:
        not_later_than = min(not_later_than, first[1].not_later_than)
    not_before = before[1].still_newest_at if before is not None and before[0].size <= index else None
    run.times = Times(not_before, not_later_than, run.witnesses.still_newest_at)
    for step in run.history.steps if run.chain else ():
        if step.entry.recorded > not_later_than + CLOCK_BOUND_S:
            raise NotProven(
                "clock",
                f"step {step.entry.seq} claims to be recorded after witnesses saw it: the server's clock is wrong",
            )
    _check_freshness(run, run.times)


_STEPS: tuple[tuple[Callable[[Run], None], bool], ...] = (
    (check_names, True),
    (check_checkpoint, True),
    (check_witnesses, False),
    (check_auditors, False),
    (check_continues, False),
    (check_commitment, True),
    (check_map, True),
    (check_earlier, True),
    (check_history, True),
    (check_standing, False),
    (check_lost, False),
    (check_openings, False),
    (check_memory, False),
    (check_seal_tree, False),
    (check_identity, False),
    (check_bytes, False),
    (check_times, False),
)


# -- pieces ---------------------------------------------------------------------------------------------------


def chain_leaf(chain_id: bytes, seq: int, head: bytes, hashed: bytes) -> bytes:
    """The leaf hash of a chain's entry: x is the head at seq 0, else the entry's hash (SPEC 6.1)."""
    return leaf_hash(encode_leaf(EntryLeaf(chain_id, seq, hashed if seq else head)))


def closed_ending(binding: Binding, before: bytes, step: Step, head: bytes) -> Ending:
    """What a `closed` says of its chain. A close that the owner did not sign is a taint of its own (SPEC 4.5)."""
    closed = step.entry.argument
    if not isinstance(closed, Closed):
        raise NotProven("generations", "an earlier generation does not end with closed")
    taints = closed.taints
    if closed.signature and binding.owner_key is not None:
        check_close_signature(binding, before, step.entry)
    else:
        taints = (*taints, unsigned_close(binding.chain_id, step.entry.seq))
    return Ending(binding.chain_id, step.entry.seq, head, step.content, step.path, taints)


def _open(line: Line) -> Step:
    return open_step(line.entry, line[1:])


def _check_shown(closed: Step, first: list[Line], content_alone: bool) -> None:
    """[R] What `adopted` must keep is shown on both sides, or on neither: then that it is erased shows in step 10."""
    for line in first:
        content = closed.content is MISSING and line.content is not None
        path = closed.path is MISSING and line.path is not None
        if content or not content_alone and (path or closed.context is MISSING):
            raise NotProven("opening-missing", "the end of the generation before is not shown whole")


def _quorum(run: Run, policy: Policy, note: Note) -> Cosigned:
    return verify_quorum(policy, note, run.question.now + FUTURE_BOUND_S)


def _compare_with_seen(run: Run, checkpoint: Checkpoint, note: bytes) -> None:
    """No checkpoint of the proof has another root than the state's for the same size."""
    if run.seen is not None and run.memory.checkpoint is not None:
        _refuse_fork(run, run.seen[1], run.memory.checkpoint, checkpoint, note)


def _refuse_fork(run: Run, one: Checkpoint, one_note: bytes, other: Checkpoint, other_note: bytes) -> None:
    if (one.origin, one.size) == (other.origin, other.size) and one.root != other.root:
        from verifier.evidence import note_evidence

        message = f"the log signed two different trees of size {one.size}"
        raise Fork(message, note_evidence("two-roots", run.question.now, one_note, other_note))


def _refuse_rollback(run: Run, seen_note: Note, seen: Checkpoint) -> None:
    """[R] A smaller tree is stale, or a fork if one witness signed it after the bigger one."""
    cosigners = (*run.trust.witnesses.witnesses.values(), *run.trust.auditors.witnesses.values())
    for witness in cosigners:
        if find_signature(seen_note, witness.key) is None or find_signature(run.note, witness.key) is None:
            continue
        if verify_cosignature(run.note, witness.key) > verify_cosignature(seen_note, witness.key):
            from verifier.evidence import note_evidence

            message = f"{witness.key.name} signed size {run.tree.size} after it had signed size {seen.size}"
            assert run.memory.checkpoint is not None
            notes = run.memory.checkpoint, run.proof.checkpoint
            raise Fork(message, note_evidence("rolled-back", run.question.now, *notes))
    if run.question.as_of is None:
        raise NotProven("stale", f"the proof is of a tree of size {run.tree.size}, size {seen.size} was seen before")


def _lost(run: Run, tree: Checkpoint) -> list[tuple[Note, Checkpoint]]:
    """[R] Another origin than the first is this log's only by declared losses that lead back to it (SPEC 6.5)."""
    loss = run.proof.loss
    if (tree.origin == run.origin) != (loss is None):
        raise NotProven("unknown-log", f"checkpoint origin: got {tree.origin!r}, which is not shown to be this log's")
    if loss is None:
        return []
    from verifier.loss import open_lost

    not_after = run.question.now + FUTURE_BOUND_S
    return open_lost(loss, run.origin, tree, run.trust.witnesses, not_after)


def _continue_lost(run: Run, seen: Checkpoint) -> None:
    """[R] A loss never hides what this client has seen: its tree is not above the note of its origin."""
    assert run.memory.checkpoint is not None
    declared = run.proof.loss.declared if run.proof.loss is not None else []
    for one, (_, old) in zip(declared, run.lost, strict=True):
        if old.origin != seen.origin:
            continue
        _refuse_fork(run, seen, run.memory.checkpoint, old, one.note)
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
    from verifier import evidence

    seen = parse_checkpoint_unverified(parse_note(stored.checkpoint).text)
    shown = (seen.origin, stored.loss.declared[0]), (run.tree.origin, loss.declared[0])
    value = evidence.successor_evidence(run.question.now, *shown)
    try:
        data = evidence.format_evidence(value)
        proven = evidence.verify_evidence(evidence.parse_evidence(data), run.log_keys)
    except (Malformed, NotProven):
        return
    raise Fork(proven.statement, value)


def _gave_up(closed: Line, stored: Proof) -> bool:
    """[R] The owner ended the chain for the head seen last: steps up to there are gone by the owner's own word."""
    end = _open(closed).entry.argument
    seen = end.seen if isinstance(end, Closed) else None
    last = stored.map
    return seen is not None and (seen.seq > last.seq or seen == Seen(last.seq, last.head))


def _first_difference(run: Run, steps: list[Step]) -> int:
    """The step where a rewritten history departs from the stored one; the last step where that is not known."""
    stored = run.memory.chain
    if stored is not None and stored.chain_id == run.proof.chain_id:
        for seq, (old, new) in enumerate(zip(stored.entries, run.proof.entries, strict=False)):
            if old.entry != new.entry:
                return seq
    return len(steps) - 1


def _check_current_leaf(run: Run) -> None:
    """[R] The leaf that set the current content is in the tree, when it is not the last one."""
    chain, current = run.history, run.proof.current
    if chain.version == chain.seq:
        if current is not None:
            raise Malformed("want null, the last leaf set the content", "current")
        return
    if current is None:
        raise NotProven("broken-proof", "the leaf that set the current content is not shown")
    seq = chain.version
    leaf = chain_leaf(run.proof.chain_id, seq, chain.heads[seq], chain.steps[seq].hash)
    verify_inclusion(current.leaf_index, run.tree.size, leaf, current.hashes, run.tree.root)


def _raise_taints(chain: Chain, kind: TaintKind, mended: frozenset[tuple[bytes, int]]) -> None:
    taints = [t for key, t in chain.taints.items() if t.kind is kind and key not in mended]
    if not taints:
        return
    own = [taint.seq for taint in taints if taint.chain_id == chain.binding.chain_id]
    where = "step " + ", ".join(map(str, own)) if own else "an earlier generation"
    if kind is TaintKind.ALTERED:
        message = f"the bytes changed with no operation ({where}), and no seal of the owner accepts that"
        raise Changed("altered", message, own[0] if own else None)
    if kind is TaintKind.GAP:
        raise NotProven("gap", f"history is known to be missing ({where}), and no seal of the owner accepts that")
    raise NotProven("unsigned-close", "an earlier generation was closed without the owner, and no seal accepts that")


def _compare_heads(run: Run, stored: Proof) -> None:
    """Every step shared with the stored whole proof has the same head."""
    chain, head = run.history, genesis(run.history.binding)
    for seq, line in enumerate(stored.entries[: chain.seq + 1]):
        head = link(head, stored.chain_id, seq, entry_hash(line.entry))
        if head != chain.heads[seq]:
            if run.behind and run.question.as_of is not None:
                from verifier.evidence import history_evidence

                evidence = history_evidence(run.question.now, stored, run.proof)
                raise Fork(f"two signed histories differ at step {seq}", evidence)
            raise Changed("pinned", f"step {seq} is not the one that was seen before", seq)
    if chain.seq < stored.map.seq and run.continues:
        raise Changed("pinned", f"step {stored.map.seq} was seen before and is gone", stored.map.seq)


def _bracket(run: Run, bracket: Bracket | None, where: str) -> tuple[Checkpoint, Cosigned] | None:
    """Another checkpoint of the proof, once it is cosigned, and an earlier state of the newest one.

    [R] Its times are the witnesses' word, its tree is covered by the newest one's signature. So the log's own line is
    not asked for, and a key that was replaced, or stolen since, gets no say; nor does it make a fork.
    """
    if bracket is None:
        return None
    note, checkpoint, signers = open_earlier(bracket.checkpoint, *run.log_keys)
    if checkpoint.size == 0:
        raise NotProven("empty-tree", f"the checkpoint {where} is of an empty tree")
    if checkpoint.origin != run.tree.origin:
        raise NotProven("unknown-log", f"the checkpoint {where} is of {checkpoint.origin!r}")
    if signers:
        _compare_with_seen(run, checkpoint, bracket.checkpoint)
        _refuse_fork(run, checkpoint, bracket.checkpoint, run.tree, run.proof.checkpoint)
    verify_consistency(checkpoint.size, checkpoint.root, run.tree.size, run.tree.root, bracket.hashes)
    return checkpoint, _quorum(run, run.trust.witnesses, note)


def _check_freshness(run: Run, times: Times) -> None:
    as_of, now = run.question.as_of, run.question.now
    if as_of is None:
        if now - times.still_newest_at > run.question.max_age_s:
            age = now - times.still_newest_at
            raise NotProven(
                "stale", f"still the newest {age} s ago, want at most {run.question.max_age_s} s: fetch a new proof"
            )
        return
    if as_of == "proof":
        run.as_of = times.still_newest_at  # a quorum saw the tree then, and the entry is in it
        return
    run.as_of = int(as_of)
    if not times.not_later_than <= run.as_of <= times.still_newest_at:
        shown = f"{times.not_later_than} to {times.still_newest_at}"
        raise NotProven("as-of", f"the proof speaks of {shown}, asked was {run.as_of}")


def _last_of(chain: Chain, operation: Operation) -> int:
    return next(step.entry.seq for step in reversed(chain.steps) if step.entry.operation is operation)
