"""Steps 8 to 11 of SPEC 9: generations, entries, what stands against a history, and what was seen of it."""

from __future__ import annotations

from tests import reference
from tests.builder import SIGNATURE, History, SignerKey, World, secret
from tests.vector_cases import Ask, alone, case, small
from tests.vector_cases.honest import another_root
from tests.verifier.worlds import a_file, altered, two_generations
from verifier.chain import genesis
from verifier.entry import (
    MAX_LISTED,
    Closed,
    CloseReason,
    Erased,
    Expired,
    ExpiryReason,
    Gap,
    GapReason,
    Operation,
    Part,
    Predecessor,
    Reverted,
)
from verifier.leaf import EntryLeaf, encode_leaf
from verifier.map import map_value
from verifier.proof import Included
from verifier.verdict import Memory

NOT_PROVEN, CHANGED = "NOT PROVEN", "CHANGED"


# -- step 8 -----------------------------------------------------------------------------------------------------


@case(NOT_PROVEN, "generations")
def generations_left_out() -> Ask:
    """[R] The end of the generation before is not shown."""
    world = two_generations(world=alone())
    return Ask(world, world.prove(1)._replace(earlier=[]))


@case(NOT_PROVEN, "generations")
def generation_shown_that_was_not_closed() -> Ask:
    """[R] The chain before did not end."""
    world = small()
    old = world.histories[1]
    world.histories[1] = History(world.binding(1, 1), 1, None)
    world.histories[1].previous = old
    named = Predecessor(old.binding.chain_id, old.chain.seq, old.chain.head)
    world.record(1, Operation.ADOPTED, b"evil", "a.txt", named, replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(NOT_PROVEN, "broken-proof")
def generation_that_is_not_in_the_map() -> Ask:
    """[R] The head before the last entry of the earlier chain is another one."""
    world = two_generations(world=alone())
    proof = world.prove(1)
    return Ask(world, proof._replace(earlier=[proof.earlier[0]._replace(before=bytes(32))]))


@case(NOT_PROVEN, "opening-missing")
def end_of_a_generation_withheld() -> Ask:
    """[R] What `adopted` must keep is not shown of the chain before."""
    world = two_generations(world=alone())
    proof = world.prove(1)
    hidden = proof.earlier[0]._replace(step=proof.earlier[0].step._replace(content=None))
    return Ask(world, proof._replace(earlier=[hidden]))


@case(CHANGED, "history")
def end_of_a_generation_with_another_opening() -> Ask:
    """[R] What is shown of the end of the chain before is not what was logged there."""
    world = two_generations(world=alone())
    proof = world.prove(1)
    other = proof.earlier[0]._replace(step=proof.earlier[0].step._replace(path=secret("salt") + b"b.txt"))
    return Ask(world, proof._replace(earlier=[other]))


@case(CHANGED, "illegal")
def close_signed_by_another_key() -> Ask:
    """The signature in `closed` is there and is not the owner's."""
    world = small()
    owner, world.owner_signer = world.owner_signer, SignerKey("owner", SIGNATURE, secret("server"))
    history = world.histories[1]
    history.binding = history.binding._replace(owner_key=world.owner_signer.verifier_key.public_key)
    history.chain.binding = history.binding
    world.close(1)
    world.owner_signer = owner
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return Ask(world, world.prove(1))


# -- step 9 -----------------------------------------------------------------------------------------------------


@case(CHANGED, "history")
def entry_left_out() -> Ask:
    """The second of three entries is not shown."""
    world = a_file(alone())
    proof = world.prove(1)
    return Ask(world, proof._replace(entries=[proof.entries[0], proof.entries[2]]), path="d.txt")


@case(CHANGED, "history")
def last_entry_left_out() -> Ask:
    """The log holds one entry more than the proof shows."""
    world = a_file(alone())
    proof = world.prove(1)
    return Ask(world, proof._replace(entries=proof.entries[:2]))


@case(CHANGED, "history")
def no_entries() -> Ask:
    """The proof shows no entry at all."""
    world = small()
    return Ask(world, world.prove(1)._replace(entries=[]))


@case(CHANGED, "history")
def rewritten_entry() -> Ask:
    """An entry was replaced by one that says something else."""
    world, other = small(b"one", b"two", b"three"), small(b"one", b"evil", b"three")
    proof, forged = world.prove(1), other.prove(1)
    return Ask(world, proof._replace(entries=[proof.entries[0], forged.entries[1], proof.entries[2]]), b"three")


@case(CHANGED, "history")
def opening_of_another_entry() -> Ask:
    """A content is shown that does not open the commitment."""
    world = small()
    proof = world.prove(1)
    wrong = proof.entries[1]._replace(content=proof.entries[0].content)
    return Ask(world, proof._replace(entries=[proof.entries[0], wrong]), b"one")


@case(CHANGED, "history")
def map_of_a_seq_that_no_entry_has() -> Ask:
    """Map and log say that the last entry has seq 5; head and entries are those of seq 1."""
    world = small()
    binding, chain = world.histories[1].binding, world.histories[1].chain
    index = len(world.leaves)
    world.leaves.append(encode_leaf(EntryLeaf(binding.chain_id, 5, chain.steps[1].hash)))
    world.map[binding.chain_id] = map_value(5, chain.head, index)
    world.publish()
    proof = world.prove(1)
    last = reference.path(index, world.leaves)
    shown = proof.map._replace(seq=5, leaf_index=index)
    return Ask(world, proof._replace(map=shown, last=last, first=None, before=None))


@case(CHANGED, "not-replayed", "history")
def map_of_a_chain_without_entries() -> Ask:
    """The map, which nobody replayed, holds the genesis as the head, and the proof has no entry."""
    world = small()
    binding = world.histories[1].binding
    world.map[binding.chain_id] = map_value(0, genesis(binding), 0)
    world.publish(auditors=0)
    proof = world.prove(1)
    shown = proof.map._replace(seq=0, head=genesis(binding), leaf_index=0)
    last = reference.path(0, world.leaves)
    return Ask(world, proof._replace(entries=[], map=shown, last=last, current=None, first=None, before=None))


@case(CHANGED, "illegal")
def moved_with_other_bytes() -> Ask:
    """`moved` must keep the content."""
    world = small()
    world.record(1, Operation.MOVED, b"evil", "b.txt", replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"evil", path="b.txt")


@case(CHANGED, "illegal")
def written_after_deleted() -> Ask:
    """Only `restored`, `closed` and what carries nothing may follow `deleted`."""
    world = small()
    world.record(1, Operation.DELETED)
    world.record(1, Operation.WRITTEN, b"new", "a.txt", replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"new")


@case(CHANGED, "illegal")
def copied_without_a_source() -> Ask:
    """`copied` whose context does not name what was copied."""
    world = alone()
    world.record(1, Operation.COPIED, b"two", "a.txt", replay=False)
    world.publish()
    return Ask(world, world.prove(1))


@case(CHANGED, "illegal")
def reverted_to_an_expired_version() -> Ask:
    """Bytes that are gone can't come back."""
    world = small()
    world.record(1, Operation.EXPIRED, argument=Expired(ExpiryReason.PURGED, (0,)))
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(0), replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "illegal")
def current_content_erased() -> Ask:
    """[R] The current content can't be erased."""
    world = small()
    world.record(1, Operation.ERASED, argument=Erased(1, Part.CONTENT), replay=False)
    world.publish()
    return Ask(world, world.prove(1))


@case(CHANGED, "illegal")
def what_mended_an_alteration_erased() -> Ask:
    """[R] The version that a clearing rests on stays shown until a seal accepts the alteration."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.ERASED, argument=Erased(1, Part.CONTENT), replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "illegal")
def generation_that_keeps_nothing() -> Ask:
    """[R] `adopted` carries another content than `closed`."""
    world = small()
    world.close(1)
    old, end = world.histories[1], world.histories[1].chain.ending()
    history = world.histories[1] = History(world.binding(1, 1), 1, end)
    history.previous = old
    world.record(1, Operation.ADOPTED, b"evil", "a.txt", Predecessor(end.chain_id, end.seq, end.head), replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(CHANGED, "illegal")
def generation_that_starts_anew() -> Ask:
    """[R] `created` in place of `adopted` would shed what stood against the chain before."""
    world = altered(alone())
    world.close(1)
    old = world.histories[1]
    history = world.histories[1] = History(world.binding(1, 1), 1, None)
    history.previous = old
    world.record(1, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(CHANGED, "illegal")
def close_that_hides_a_taint() -> Ask:
    """[R] `closed` must list every taint that stands."""
    world = altered(alone())
    world.record(1, Operation.CLOSED, b"evil", "a.txt", Closed(CloseReason.FULL, (), b""), replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(CHANGED, "illegal")
def close_after_a_loss_with_content_and_no_path() -> Ask:
    """[R] Nothing is compared after a loss (SPEC 4.6), but content and path are both there or both not."""
    world = small()
    world.record(1, Operation.CLOSED, b"other", None, Closed(CloseReason.LOSS, (), b""), replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"other")


@case(NOT_PROVEN, "closed")
def close_after_a_loss_with_another_content() -> Ask:
    """A client that has seen the lost steps finds nothing illegal in a `closed` that knows less (SPEC 4.6)."""
    world = small()
    world.record(1, Operation.CLOSED, b"other", "b.txt", Closed(CloseReason.LOSS, (), b""), replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"other")


@case(NOT_PROVEN, "closed")
def close_after_a_loss_of_a_close() -> Ask:
    """The server lost that it had closed the chain, and a client has seen it (SPEC 4.6)."""
    world = small()
    world.close(1, signed=False)
    world.record(1, Operation.CLOSED, None, None, Closed(CloseReason.LOSS, (), b""))
    world.publish()
    return Ask(world, world.prove(1))


@case(CHANGED, "illegal")
def close_after_a_close_for_another_reason() -> Ask:
    """[R] Nothing but a `closed` after a loss follows `closed`."""
    world = small()
    world.close(1, signed=False)
    world.record(1, Operation.CLOSED, None, None, Closed(CloseReason.FULL, (), b""), replay=False)
    world.publish()
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "unsigned-close")
def generation_after_a_loss() -> Ask:
    """[R] The generation after a loss stands, once its owner has accepted what nobody can see any more."""
    world = small()
    world.record(1, Operation.CLOSED, b"other", "a.txt", Closed(CloseReason.LOSS, (), b""))
    world.continue_(1, b"other", "a.txt")
    world.publish()
    return Ask(world, world.prove(1), b"other")


@case(NOT_PROVEN, "predecessor")
def predecessor_not_shown() -> Ask:
    """The first entry names a chain before, whose end is not shown."""
    world = alone()
    world.record(1, Operation.ADOPTED, b"two", "a.txt", Predecessor(bytes(32), 3, bytes(32)), replay=False)
    world.publish()
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "broken-proof")
def entry_in_the_map_and_not_in_the_log() -> Ask:
    """[R] The map names the index of another leaf."""
    world = small(b"one")
    history = world.histories[1]
    world.record(1, Operation.WRITTEN, b"evil", "a.txt", leaf=False)
    world.map[history.binding.chain_id] = map_value(1, history.chain.head, 0)
    history.records[1].index = 0
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(NOT_PROVEN, "broken-proof")
def leaf_that_set_the_content_not_shown() -> Ask:
    """[R] The last entry is `moved`, and the leaf of the current version is missing."""
    world = a_file(alone())
    return Ask(world, world.prove(1)._replace(current=None), path="d.txt")


@case(NOT_PROVEN, "broken-proof")
def leaf_that_set_the_content_at_another_index() -> Ask:
    """A leaf and its path fit one index of the signed size alone."""
    world = a_file(alone())
    proof = world.prove(1)
    assert proof.current is not None
    other = Included(proof.current.leaf_index - 1, reference.path(proof.current.leaf_index, world.leaves))
    return Ask(world, proof._replace(current=other), path="d.txt")


# -- step 10 ----------------------------------------------------------------------------------------------------


@case(CHANGED, "altered")
def altered_bytes() -> Ask:
    """The bytes changed with no operation."""
    world = altered(alone())
    return Ask(world, world.prove(1), b"evil")


@case(CHANGED, "altered")
def altered_then_written() -> Ask:
    """[R] A server-said `written` hides nothing."""
    world = altered(alone())
    world.record(1, Operation.WRITTEN, b"new", "a.txt")
    world.publish()
    return Ask(world, world.prove(1), b"new")


@case(CHANGED, "altered")
def altered_then_moved_deleted_and_restored() -> Ask:
    """[R] Nor do moving, deleting and restoring."""
    world = altered(alone())
    world.record(1, Operation.MOVED, b"evil", "b.txt")
    world.record(1, Operation.DELETED)
    world.record(1, Operation.RESTORED, b"evil", "a.txt")
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case(CHANGED, "altered")
def altered_then_reverted_to_a_later_version() -> Ask:
    """[R] A version from after the alteration mends nothing."""
    world = altered(alone())
    world.record(1, Operation.WRITTEN, b"one", "a.txt")
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(3))
    world.publish()
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "altered")
def reverted_to_the_altered_bytes() -> Ask:
    """[R] The alteration stands again after a revert to it."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.REVERTED, b"evil", "a.txt", Reverted(2))
    world.publish()
    return Ask(world, world.prove(1), b"evil")


def mended_twice(erased: int) -> Ask:
    """The bytes from before an alteration came back twice, and one of these versions is erased later."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record(1, Operation.ERASED, argument=Erased(erased, Part.CONTENT), replay=False)
    world.publish()
    world.erase(world.histories[1], erased, Part.CONTENT)
    return Ask(world, world.prove(1))


@case(CHANGED, "illegal")
def mended_twice_and_the_first_time_erased() -> Ask:
    """[R] The clearing rests on the first revert, which may not be erased."""
    return mended_twice(3)


@case("VERIFIED")
def mended_twice_and_the_second_time_erased() -> Ask:
    """The clearing rests on the first revert, and not on the second."""
    return mended_twice(4)


@case("VERIFIED")
def mended_and_reverted_to_what_mended() -> Ask:
    """The first revert cleared the alteration, so it is no version from after it, whatever came later."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(3))
    world.publish()
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "altered")
def reverted_to_what_came_back_unseen() -> Ask:
    """[R] A revert to an erased version clears nothing, so what it brought back is from after the alteration."""
    world = altered(alone())
    world.record(1, Operation.ERASED, argument=Erased(0, Part.CONTENT))
    world.erase(world.histories[1], 0, Part.CONTENT)
    world.record(1, Operation.REVERTED, b"evil", "a.txt", Reverted(0), replay=False)  # "zero", says the server
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.REVERTED, b"evil", "a.txt", Reverted(4), replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case("VERIFIED")
def mended_after_a_revert_to_an_erased_version() -> Ask:
    """The revert that clears an alteration is the first one to a version that is not erased."""
    world = altered(alone())
    world.record(1, Operation.ERASED, argument=Erased(0, Part.CONTENT))
    world.erase(world.histories[1], 0, Part.CONTENT)
    world.record(1, Operation.REVERTED, b"zero", "a.txt", Reverted(0))
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.record(1, Operation.ERASED, argument=Erased(4, Part.CONTENT))
    world.erase(world.histories[1], 4, Part.CONTENT)
    world.publish()
    return Ask(world, world.prove(1))


def many_gaps() -> World:
    """File 1 has as many gaps as one entry can list, and one more."""
    world = alone()
    world.record(1, Operation.CREATED, b"one", "a.txt")
    for _ in range(MAX_LISTED + 1):
        world.record(1, Operation.GAP, argument=Gap(GapReason.UNKNOWN), leaf=False)
    return world


@case(NOT_PROVEN, "gap")
def more_taints_than_closed_can_list() -> Ask:
    """An unsigned `closed` lists the first ones: who accepts it accepts all that came before."""
    world = many_gaps()
    world.close(1, signed=False)
    world.continue_(1, b"one", "a.txt")
    world.publish()
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "illegal")
def signed_close_that_leaves_taints_out() -> Ask:
    """[R] The owner's signature vouches for a whole list alone."""
    world = many_gaps()
    world.close(1, signed=False)
    world.continue_(1, b"one", "a.txt")
    world.close(1, replay=False)
    world.publish()
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "altered", "opening-missing")
def altered_with_what_mended_it_withheld() -> Ask:
    """[R] Nothing is cleared through a part that is not shown."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.publish()
    world.erase(world.histories[1], 1, Part.CONTENT)
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "altered", "opening-missing", "closed")
def closed_with_what_mended_it_withheld() -> Ask:
    """What `closed` lists goes by the steps alone: an honest one is no illegal step, whatever is withheld."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.close(1)
    world.publish()
    world.erase(world.histories[1], 1, Part.CONTENT)
    return Ask(world, world.prove(1), b"one")


@case(CHANGED, "altered")
def altered_in_the_generation_before() -> Ask:
    """[R] A taint lives on in the next generation."""
    world = two_generations(tainted=True, world=alone())
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "gap")
def gap_then_written_and_reverted() -> Ask:
    """[R] A gap stays, whatever follows."""
    world = small()
    world.record(1, Operation.GAP, argument=Gap(GapReason.COLLAPSED))
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.record(1, Operation.REVERTED, b"two", "a.txt", Reverted(1))
    world.publish()
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "unsigned-close")
def unsigned_close() -> Ask:
    """[R] The server closed the chain before, and no seal accepts that."""
    world = two_generations(signed=False, world=alone())
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "unsigned-close")
def predecessor_under_another_root_not_accepted() -> Ask:
    """[R] What happened under another root is nobody's word here."""
    world = another_root(accepted=False)
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "opening-missing")
def opening_withheld() -> Ask:
    """[R] The path of the first entry is not shown, and no entry says that it was erased."""
    world = small()
    world.erase(world.histories[1], 0, Part.PATH)
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "opening-missing", "opening-missing")
def current_content_withheld() -> Ask:
    """The current content is not shown: once for the history, once for the bytes."""
    world = small()
    world.erase(world.histories[1], 1, Part.CONTENT)
    return Ask(world, world.prove(1))


# -- step 11 ----------------------------------------------------------------------------------------------------


@case(CHANGED, "pinned")
def history_that_differs_from_the_one_seen() -> Ask:
    """[R] Log, witnesses and auditors vouch for it, and the client has seen another one."""
    seen, other = small().prove(1), small(b"one", b"evil")
    return Ask(other, other.prove(1), b"evil", memory=Memory(None, seen, 1))


@case(CHANGED, "pinned")
def history_shorter_than_the_one_seen() -> Ask:
    """[R] A tree that is not older holds fewer steps than were seen."""
    seen, other = small().prove(1), small(b"one")
    return Ask(other, other.prove(1), b"one", memory=Memory(None, seen, 1))


@case(CHANGED, "pinned")
def generation_closed_before_what_was_seen() -> Ask:
    """[R] The chain seen had more steps than the one that was closed."""
    seen = small(b"two", b"one", b"two").prove(1)
    world = two_generations(world=alone())
    return Ask(world, world.prove(1), memory=Memory(None, seen, 1))


@case(NOT_PROVEN, "stale")
def older_generation_than_seen() -> Ask:
    """A proof of the generation before the one that was seen."""
    world, old = two_generations(world=alone()), small()
    old.now = world.now
    return Ask(world, old.prove(1), memory=Memory(None, world.prove(1), 1))


@case(CHANGED, "history")
def short_proof_that_does_not_continue_what_was_seen() -> Ask:
    """[R] Joined to the steps that the state has, the new ones do not reach the head."""
    seen, other = small().prove(1), small(b"one", b"evil", b"three")
    return Ask(other, other.prove(1, first_seq=2), b"three", memory=Memory(None, seen, 1))


def as_of_an_older_tree(now: World, then: World) -> Ask:
    """The older proof of one world, asked as of its own time with the state of the other."""
    memory = Memory(now.notes[max(now.notes)], now.prove(1), 1)
    return Ask(then, then.prove(1, size=min(then.notes)), b"one", memory=memory, as_of="proof")


@case("VERIFIED")
def as_of_an_older_tree_than_seen() -> Ask:
    """As of its own time a smaller tree is no rollback; its steps are those that were seen later."""
    world = small()
    return as_of_an_older_tree(world, world)


@case("FORK", "fork")
def as_of_an_older_tree_with_another_history() -> Ask:
    """[R] A smaller tree whose steps differ from those of the stored proof."""
    return as_of_an_older_tree(small(b"zero", b"two"), small(b"one"))
