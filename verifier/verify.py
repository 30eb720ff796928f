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

from verifier import keys as owner_keys
from verifier.chain import MISSING, Binding, Chain, genesis, link, open_step
from verifier.checkpoint import Checkpoint, open_checkpoint, open_earlier
from verifier.entry import ALL_PARTS, Content, Operation, Part, entry_hash
from verifier.errors import BadSignature, Changed, Fork, Malformed, NotProven, NotVerified, Usage
from verifier.leaf import EntryLeaf, MapLeaf, encode_leaf
from verifier.map import map_value, verify_presence
from verifier.merkle import leaf_hash, verify_consistency, verify_inclusion
from verifier.note import Note
from verifier.policy import Cosigned, Policy, check_separate, verify_quorum
from verifier.proof import Bracket, Proof
from verifier.verdict import Finding, Memory, Question, Report, Run, Times, Trust, Verdict

FUTURE_BOUND_S = 30  # SPEC 8.4: a cosignature may be this far ahead of the verifier's clock
CLOCK_BOUND_S = 300  # SPEC 8.4: an entry may claim to be recorded this much later than witnesses saw it


def verify(proof: Proof, trust: Trust, question: Question, memory: Memory) -> Report:
    """Takes a parsed proof through all steps.

    Raises only Malformed, for parts that are not in their format, and Usage, for a question that is none.
    """
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
    sound = run.continues and run.witnesses is not None and not run.spoiled
    pins_checkpoint = now and sound and verdict is not Verdict.FORK
    judged = verdict, run.findings, question, run.proof, run.chain, run.checkpoint
    shown = run.witnesses, run.auditors, run.times, run.as_of, run.older_version, run.evidence
    return Report(*judged, *shown, pins_checkpoint, whole and verdict is Verdict.VERIFIED)


def forked(report: Report, fork: Fork) -> Report:
    """The report, once something outside of its proof has shown a fork: nothing of it is remembered."""
    found = [*report.findings, Finding(Verdict.FORK, "fork", str(fork))]
    return report._replace(
        verdict=Verdict.FORK, findings=found, evidence=fork.evidence, pins_checkpoint=False, pins_chain=False
    )


def check_question(trust: Trust, question: Question) -> None:
    """[R] The user says which file is meant; a proof never supplies it."""
    if question.path is None and question.file_id is None:
        raise Usage("say which file is meant: its path or its file id in the source")
    if question.as_of is not None and question.as_of != "proof" and type(question.as_of) is not int:
        raise Usage(f"as of: want a time or 'proof', got {question.as_of!r}")


# -- the steps ----------------------------------------------------------------------------------------------


def check_names(run: Run) -> None:
    """Step 1. Log, source and file id are the ones meant; root and chain id follow from the owner's keys."""
    if run.proof.first_seq:
        from verifier.seen import join

        run.proof = join(run.proof, run.memory.chain)
    proof, trust, asked = run.proof, run.trust, run.question.file_id
    if proof.log != trust.log_name:
        raise NotProven("other-log", f"the proof is for log {proof.log}, want {trust.log_name}")
    if proof.source != trust.source_id:
        raise NotProven("other-source", f"the proof is for source {proof.source}, want {trust.source_id}")
    if asked is not None and proof.file_id != asked:
        raise NotProven("other-file", f"the proof is for file {proof.file_id}, want {asked}")
    if trust.blinding is not None:
        if proof.root != owner_keys.owner_root(trust.owner_key, trust.blinding):
            message = "the chain does not belong to the owner of this key (or nobody has enrolled: custodial)"
            raise NotProven("not-owner", message)
        wanted = owner_keys.chain_id(trust.blinding, proof.source, proof.file_id, proof.generation)
        if proof.chain_id != wanted:
            raise NotProven("other-chain", f"the chain shown is not the one of file {proof.file_id}")
    run.binding = Binding(proof.log, proof.source, proof.root, proof.file_id, proof.chain_id, trust.owner_key)


def check_checkpoint(run: Run) -> None:
    """Step 2. [R] Two trees of one size with different roots, both signed, are a fork."""
    loss = run.proof.loss
    try:
        run.note, checkpoint = open_checkpoint(run.proof.checkpoint, *run.log_keys)
    except NotProven as error:
        if error.reason == "unknown-log" and loss is not None:
            from verifier.loss import NEW_ORIGIN

            raise NotProven("unknown-log", f"{error}; {NEW_ORIGIN}") from None
        raise
    if checkpoint.size == 0:
        raise NotProven("empty-tree", "the checkpoint is of an empty tree")
    _check_one_root(run, checkpoint, run.proof.checkpoint)
    if (checkpoint.origin == run.origin) != (loss is None):
        what = f"checkpoint origin: got {checkpoint.origin!r}, which is not shown to be this log's"
        raise NotProven("unknown-log", what)
    if loss is not None:  # [R] another origin is this log's only by losses that lead back to it (SPEC 6.5)
        from verifier.loss import open_lost

        bound = run.question.now + FUTURE_BOUND_S
        run.lost = open_lost(loss, run.origin, checkpoint, run.trust.witnesses, bound)
    run.checkpoint = checkpoint


def check_witnesses(run: Run) -> None:
    """Step 3."""
    cosigned = _quorum(run, run.trust.witnesses, run.note)
    if run.trust.witnesses.ov == 0:
        raise NotProven("weak-policy", "two quorums of the witnesses need not overlap (ov = 0): no policy to rely on")
    run.witnesses = cosigned


def check_auditors(run: Run) -> None:
    """Step 4. [R] Without it the map is only what the server committed to."""
    try:
        run.auditors = _quorum(run, run.trust.auditors, run.note)
    except BadSignature:
        run.spoiled = True
        raise
    if run.auditors.still_newest_at is None:
        raise NotProven("not-replayed", "newest that the server committed to; nobody has replayed it")


def check_continues(run: Run) -> None:
    """Step 5. [R] Old size and root come from the state, never from the proof."""
    if run.seen is None:
        run.continues = True
        return
    _, seen = run.seen
    if seen.origin != run.tree.origin:
        from verifier.seen import continue_lost

        continue_lost(run, seen)
    elif run.tree.size < seen.size:
        from verifier.seen import refuse_rollback

        run.behind = True
        refuse_rollback(run, seen)
    elif run.tree.size == seen.size:
        run.continues = True
    else:
        pinned = run.proof.pinned
        if pinned is None or pinned.size != seen.size:
            message = f"the proof does not start from the tree of size {seen.size} that was seen before"
            raise NotProven("unconnected", message)
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
    earlier, generation = len(run.proof.earlier), run.proof.generation
    if earlier - generation not in (0, 1):  # one more: a predecessor under another root
        raise NotProven("generations", f"{earlier} earlier generations are shown, want {generation}")
    if earlier:
        from verifier.generations import check_ends

        run.ending = check_ends(run)


def check_history(run: Run) -> None:
    """Step 9. A rewritten, dropped or added entry shows here; the entries are in the tree, not only in the map."""
    proof, shown = run.proof, run.proof.map
    steps = [open_step(line.entry, line[1:]) for line in proof.entries]
    chain = Chain(run.binding, run.ending)
    try:
        for step in steps:
            chain.append(step)
    except NotVerified:
        from verifier.seen import check_links

        check_links(run, steps)  # that it was not logged comes before anything else that can be said of it
        raise
    if (chain.seq, chain.head) != (shown.seq, shown.head):
        from verifier.seen import check_links

        check_links(run, steps)
    run.chain = chain
    _check_leaf(run, chain.seq, shown.leaf_index, proof.last)
    if chain.version != chain.seq:
        if proof.current is None:
            raise NotProven("broken-proof", "the leaf that set the current content is not shown")
        _check_leaf(run, chain.version, *proof.current)
    elif proof.current is not None:
        raise Malformed("want null, the last leaf set the content", "current")


def check_standing(run: Run) -> None:
    """Step 10. [R] A taint goes only with the owner's seal; a later `written` hides nothing."""
    if run.history.taints:
        from verifier.standing import raise_taints

        raise_taints(run.history, run.question.mends)


def check_lost(run: Run) -> None:
    """Step 10. [R] What the log has declared lost stands until a seal whose tree is the new origin's (step 12)."""
    if not run.lost or run.question.mends_loss or run.history.seals and run.proof.sealed is not None:
        return
    from verifier.standing import declared_lost

    note, old = run.lost[0]
    raise declared_lost(old, _quorum(run, run.trust.witnesses, note).still_newest_at or 0)


def check_openings(run: Run) -> None:
    """Step 10. [R] What is not shown is logged as erased; content always, the rest where the file is asked by path."""
    run.history.check_openings((Part.CONTENT,) if run.asks_content_alone else ALL_PARTS)


def check_memory(run: Run) -> None:
    """Step 11. [R] Nothing before what this client has seen was changed or dropped."""
    stored, chain = run.memory.chain, run.history
    if stored is None:
        return
    if run.proof.earlier:
        from verifier.seen import has_given_up

        if has_given_up(run.proof, stored):
            return
    if stored.chain_id == chain.binding.chain_id:
        _compare_heads(run, stored)
    elif stored.root == chain.binding.root:
        from verifier.seen import check_ended

        check_ended(run, stored)


def check_seal_tree(run: Run) -> None:
    """Step 12. [R] The tree that the owner's device saw when it sealed is part of this one."""
    seals = run.history.seals
    if not seals and run.proof.sealed is not None:
        raise NotProven("seal-tree", "the proof starts from a sealed tree, and nothing is sealed")
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
        deleted = max([step.entry.seq for step in chain.steps if step.entry.operation is Operation.DELETED])
        raise NotProven("deleted", f"the file was deleted at step {deleted}")
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
        check_replaced(run, run.trust.blinding, question.path, known)


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
    first, before = _brackets(run)
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


def _check_leaf(run: Run, seq: int, index: int, path: list[bytes]) -> None:
    """The leaf of this step is in the tree: x is the head at seq 0, else the hash of the entry (SPEC 6.1)."""
    chain = run.history
    leaf = EntryLeaf(run.proof.chain_id, seq, chain.steps[seq].hash if seq else chain.heads[0])
    verify_inclusion(index, run.tree.size, leaf_hash(encode_leaf(leaf)), path, run.tree.root)


def _quorum(run: Run, policy: Policy, note: Note) -> Cosigned:
    return verify_quorum(policy, note, run.question.now + FUTURE_BOUND_S)


def _check_one_root(run: Run, shown: Checkpoint, note: bytes) -> None:
    """[R] A tree that a log key signed has no other root than the one seen before, or the newest one, at its size."""
    pinned = run.memory.checkpoint  # these very bytes: one root
    seen = None if pinned == note or run.seen is None else run.seen[1]
    for known, known_note in (seen, pinned), (run.checkpoint, run.proof.checkpoint):
        if known is not None and known_note is not None and known.excludes(shown):
            from verifier.seen import two_roots

            raise two_roots(run, shown.size, known_note, note)


def _compare_heads(run: Run, stored: Proof) -> None:
    """Every step shared with the stored whole proof has the same head."""
    chain, head = run.history, genesis(run.history.binding)
    for seq, line in enumerate(stored.entries[: chain.seq + 1]):
        head = link(head, stored.chain_id, seq, entry_hash(line.entry))
        if head != chain.heads[seq]:
            from verifier.seen import other_head

            raise other_head(run, stored, seq)
    if chain.seq < stored.map.seq and run.continues:
        raise Changed("pinned", f"step {stored.map.seq} was seen before and is gone", stored.map.seq)


def _brackets(run: Run) -> list[tuple[Checkpoint, Cosigned] | None]:
    """`first` and `before`, once each is cosigned, and an earlier state of the newest tree. A fork is looked for first.

    [R] Their times are the witnesses' word, their trees are covered by the newest one's signature. So the log's own
    line is not asked for, and a key that was replaced, or stolen since, gets no say; nor does it make a fork.
    """
    opened: list[tuple[Note, Checkpoint, list[bytes]] | None] = []
    wrong: NotProven | None = None
    for bracket, where in (run.proof.first, "first"), (run.proof.before, "before"):
        try:
            opened.append(None if bracket is None else _open_bracket(run, bracket, where))
        except NotProven as error:
            wrong = wrong or error
    if wrong is not None:
        raise wrong
    return [None if one is None else _follow_bracket(run, *one) for one in opened]


def _open_bracket(run: Run, bracket: Bracket, where: str) -> tuple[Note, Checkpoint, list[bytes]]:
    note, checkpoint, signers = open_earlier(bracket.checkpoint, *run.log_keys)
    if checkpoint.size == 0:
        raise NotProven("empty-tree", f"the checkpoint {where} is of an empty tree")
    if checkpoint.origin != run.tree.origin:
        raise NotProven("unknown-log", f"the checkpoint {where} is of {checkpoint.origin!r}")
    if signers:
        _check_one_root(run, checkpoint, bracket.checkpoint)
    return note, checkpoint, bracket.hashes


def _follow_bracket(run: Run, note: Note, checkpoint: Checkpoint, hashes: list[bytes]) -> tuple[Checkpoint, Cosigned]:
    verify_consistency(checkpoint.size, checkpoint.root, run.tree.size, run.tree.root, hashes)
    return checkpoint, _quorum(run, run.trust.witnesses, note)


def _check_freshness(run: Run, times: Times) -> None:
    as_of, now = run.question.as_of, run.question.now
    if as_of is None:
        if now - times.still_newest_at > run.question.max_age_s:
            age = now - times.still_newest_at
            message = f"still the newest {age} s ago, want at most {run.question.max_age_s} s: fetch a new proof"
            raise NotProven("stale", message)
        return
    if as_of == "proof":
        run.as_of = times.still_newest_at  # a quorum saw the tree then, and the entry is in it
        return
    run.as_of = int(as_of)
    if not times.not_later_than <= run.as_of <= times.still_newest_at:
        shown = f"{times.not_later_than} to {times.still_newest_at}"
        raise NotProven("as-of", f"the proof speaks of {shown}, asked was {run.as_of}")
