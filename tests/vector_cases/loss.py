"""Declared losses (SPEC 6.5 and 4.7): the log goes on under a new origin, and what came after a tree is gone."""

from __future__ import annotations

from collections.abc import Callable

from tests import map_reference, reference
from tests.builder import ORIGIN, World, secret
from tests.vector_cases import MALFORMED, Ask, case, small
from tests.vector_cases.honest import another_root
from tests.verifier.worlds import sealed, two_logs
from verifier.entry import Operation, Seen
from verifier.loss import loss_message
from verifier.note import SIGNATURE, SignerKey, format_vkey
from verifier.proof import Bracket, Declared, Earlier, Loss, Proof, format_proof
from verifier.verdict import Memory

VERIFIED, NOT_PROVEN, CHANGED, FORK = "VERIFIED", "NOT PROVEN", "CHANGED", "FORK"
SECOND, THIRD = "log.example/files/2", "log.example/files/3"


def lost(name: str = SECOND, world: World | None = None) -> World:
    """The last step of file 1 was published, and is gone: under the new origin it has two of three."""
    world = written(world)
    world.declare_loss(4, name)
    return world


def written(world: World | None = None) -> World:
    """File 1 in three steps, each in a tree of its own: sizes 2, 4 and 6."""
    world = world or small()
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish()
    return world


def seal(world: World) -> World:
    """The owner seals file 1 under the origin of now, and the seal is published."""
    world.record_seal(1)
    world.publish()
    return world


def seen() -> tuple[World, Memory]:
    """A log before its loss, and the state of a client that saw file 1 with all its steps."""
    world = written()
    return world, Memory(world.notes[6], world.prove(1))


def with_declared(world: World, **change: object) -> Proof:
    """The proof of file 1 with another newest declaration."""
    proof = world.prove(1)
    assert proof.loss is not None
    newest = proof.loss.declared[0]._replace(**change)  # type: ignore[arg-type]
    return proof._replace(loss=proof.loss._replace(declared=[newest, *proof.loss.declared[1:]]))


# -- what an honest server shows ----------------------------------------------------------------------------------


@case(NOT_PROVEN, "declared-loss")
def declared_loss() -> Ask:
    """[R] The server declared lost what came after a tree, and the owner has not sealed since."""
    world = lost()
    return Ask(world, world.prove(1))


@case(VERIFIED)
def declared_loss_that_is_sealed() -> Ask:
    """The owner's seal over a tree of the new origin accepts what that tree begins with."""
    world = seal(lost())
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "declared-loss")
def declared_loss_with_an_older_seal() -> Ask:
    """[R] A seal over a tree of the old origin says nothing of the loss."""
    world = sealed(small())
    world.declare_loss(max(world.notes))
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "declared-loss")
def file_created_after_a_declared_loss() -> Ask:
    """[R] Nobody can show that this file is not one of those that were lost."""
    world = lost()
    world.record(2, Operation.CREATED, b"new", "b.txt")
    world.publish()
    return Ask(world, world.prove(2), b"new", path="b.txt")


@case(VERIFIED)
def declared_loss_after_nothing_that_was_seen() -> Ask:
    """A client that saw the old origin before the loss goes on under the new one."""
    world = small()
    memory = Memory(world.notes[4], world.prove(1))
    world = seal(lost(world=world))
    return Ask(world, world.prove(1, pinned=4), memory=memory)


@case(VERIFIED)
def two_declared_losses() -> Ask:
    """A log that lost its newest trees twice; the client saw it before the first time."""
    world = small()
    memory = Memory(world.notes[4], world.prove(1))
    world = lost(world=world)
    world.record(1, Operation.MOVED, b"two", "b.txt")
    world.publish()
    world.declare_loss(5, THIRD)
    seal(world)
    return Ask(world, world.prove(1), memory=memory)


# -- what was seen ------------------------------------------------------------------------------------------------


@case(CHANGED, "pinned")
def declared_loss_of_a_step_that_was_seen() -> Ask:
    """[R] A loss hides nothing from who has seen it: the step is gone, whatever is sealed since."""
    world, memory = seen()
    world.declare_loss(4)
    return Ask(seal(world), world.prove(1), memory=memory)


@case(NOT_PROVEN, "loss-hides", "declared-loss")
def declared_loss_of_a_tree_that_was_seen() -> Ask:
    """[R] The declaration names an older note as the last one, and this client has seen a newer tree."""
    world = written()
    newest = world.notes.pop(6)
    world.declare_loss(4)
    return Ask(world, world.prove(1), memory=Memory(newest))


@case(FORK, "fork", "declared-loss")
def note_of_a_declared_loss_with_another_root() -> Ask:
    """The note has another root than the tree of that size which was seen."""
    world, other = lost(), small(b"evil", b"two")
    other.record(1, Operation.WRITTEN, b"three", "a.txt")
    other.publish()
    return Ask(world, world.prove(1), memory=Memory(other.notes[6]))


@case(NOT_PROVEN, "unconnected", "declared-loss")
def two_declared_losses_of_one_origin() -> Ask:
    """[R] Two origins go on from one note: who has seen the one is not moved to the other."""
    world, other = lost(), lost("log.example/files/other")
    line = f"log {format_vkey(other.log.verifier_key)}\n".encode()
    world.policy_text, world.auditors_text = line + world.policy_text, line + world.auditors_text
    return Ask(world, world.prove(1), memory=Memory(max_note(other)))


@case(FORK, "fork", "declared-loss")
def two_declared_losses_of_one_origin_both_shown() -> Ask:
    """[R] The same, where the client has stored a proof under the one origin: both declarations convict the log."""
    world, other = lost(), seal(lost("log.example/files/other"))
    line = f"log {format_vkey(other.log.verifier_key)}\n".encode()
    world.policy_text, world.auditors_text = line + world.policy_text, line + world.auditors_text
    return Ask(world, world.prove(1), memory=Memory(max_note(other), other.prove(1)))


@case(NOT_PROVEN, "unconnected")
def old_origin_after_a_declared_loss() -> Ask:
    """[R] The old origin goes on as if nothing had been declared, and the client has seen the new one."""
    world = written()
    proof = world.prove(1)
    world.declare_loss(4)
    return Ask(world, proof, b"three", memory=Memory(max_note(world)))


def max_note(world: World) -> bytes:
    return world.notes[max(world.notes)]


@case(CHANGED, "declared-loss", "pinned")
def as_of_a_tree_after_a_loss_that_went_on_otherwise() -> Ask:
    """What was seen under the origin before, and another step under this one: said openly, so no fork, and CHANGED."""
    world, memory = seen()
    world.declare_loss(4, SECOND)
    world.record(1, Operation.WRITTEN, b"other", "a.txt")
    world.publish()
    size = max(world.notes)
    world.record(2, Operation.CREATED, b"x", "b.txt")
    world.publish()
    return Ask(
        seal(world), world.prove(1, size=size), b"other", memory=Memory(max_note(world), memory.chain), as_of="proof"
    )


def regrown(kept: int, *, first: World | None = None) -> Ask:
    """After the loss file 1 got as many steps as were seen and more, was closed, and goes on in another generation."""
    world = written(first)
    memory = Memory(world.notes[6], world.prove(1))
    world.declare_loss(kept)
    for data in (b"other", b"two", b"more"):
        world.record(1, Operation.WRITTEN, data, "a.txt")
    world.publish()
    world.close(1)
    world.continue_(1, b"more", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), b"more", memory=memory)


@case(CHANGED, "pinned")
def declared_loss_of_a_step_that_was_seen_in_a_generation_that_ended() -> Ask:
    """[R] Other steps have taken the place of the lost one, and of that chain the end alone is shown."""
    return regrown(4)


@case(VERIFIED)
def generation_that_ended_after_a_declared_loss_of_other_steps() -> Ask:
    """All that this client has seen of the generation was kept."""
    return regrown(5)


@case(CHANGED, "pinned")
def second_declared_loss_of_a_step_that_was_seen() -> Ask:
    """[R] The step was kept the first time and lost the second time: each loss counts where its origin has the leaf."""
    world, memory = seen()
    world.declare_loss(5)
    world.publish()
    world.declare_loss(5, THIRD)
    for data in (b"other", b"two"):
        world.record(1, Operation.WRITTEN, data, "a.txt")
    world.publish()
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), b"two", memory=memory)


@case(VERIFIED)
def second_declared_loss_after_a_step_that_was_seen() -> Ask:
    """Under the second origin the leaf stands one further: it was kept both times."""
    world, memory = seen()
    world.declare_loss(5)
    world.publish()
    world.declare_loss(6, THIRD)
    world.close(1)
    world.continue_(1, b"three", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), b"three", memory=memory)


@case(VERIFIED)
def third_declared_loss_after_a_step_that_was_seen() -> Ask:
    """Under the third origin the leaf stands where it stood under the second, whose leaf 0 was left out."""
    world, memory = seen()
    world.declare_loss(5)
    world.publish()
    world.declare_loss(6, THIRD)
    world.publish()
    world.declare_loss(6, "log.example/files/4")
    world.close(1)
    world.continue_(1, b"three", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), b"three", memory=memory)


def given_up_late(seen: Callable[[Proof], Seen]) -> Ask:
    """The server ended the generation whose steps were lost; the owner ends the next one for what was seen."""
    ask = regrown(4)
    world, memory = ask.world, ask.memory
    assert memory.chain is not None
    world.close_declared(1, seen(memory.chain))
    world.continue_(1, b"more", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), b"more", memory=memory)


@case(VERIFIED)
def declared_loss_closed_by_the_owner_in_a_later_generation() -> Ask:
    """The steps that were seen are lost, and their chain has ended: the owner gives them up all the same."""
    return given_up_late(lambda stored: Seen(stored.chain_id, stored.map.seq, stored.map.head))


@case(VERIFIED)
def declared_loss_closed_in_a_later_generation_by_who_saw_more() -> Ask:
    """[R] The owner names the chain, so whoever has seen less of it is freed as well."""
    return given_up_late(lambda stored: Seen(stored.chain_id, stored.map.seq + 1, bytes(32)))


@case(CHANGED, "pinned")
def declared_loss_closed_for_a_later_step_of_another_generation() -> Ask:
    """[R] A seq of another chain says nothing of the one that was seen."""
    return given_up_late(lambda stored: Seen(bytes(32), stored.map.seq + 1, bytes(32)))


def whole_generation_lost() -> Ask:
    """Generation 1 was seen, and is lost altogether; the owner ends what is left, and there is a generation 1 anew."""
    world = small(b"one")
    size = max(world.notes)
    world.close(1)
    world.continue_(1, b"one", "a.txt")
    for data in (b"two", b"three", b"four", b"five"):
        world.record(1, Operation.WRITTEN, data, "a.txt")
    world.publish()
    memory = Memory(world.notes[max(world.notes)], world.prove(1))
    left = world.histories[1].previous
    assert memory.chain is not None
    assert left is not None
    world.histories[1] = left
    world.declare_loss(size)
    last = memory.chain.map
    world.close_declared(1, Seen(memory.chain.chain_id, last.seq, last.head))
    world.continue_(1, b"one", "a.txt")
    world.publish()
    seal(world)
    return Ask(world, world.prove(1), b"one", memory=memory)


@case(VERIFIED)
def declared_loss_of_a_whole_generation_given_up() -> Ask:
    """The owner's `closed` of the generation before names the one that is gone."""
    return whole_generation_lost()


@case(CHANGED, "pinned")
def given_up_before_what_was_seen_last() -> Ask:
    """[R] The owner's word was there when the stored proof was seen: it gives up nothing of what that one shows."""
    one, other = whole_generation_lost().world, whole_generation_lost().world
    return differing(one, seal(other))


@case(CHANGED, "pinned")
def given_up_by_another_root() -> Ask:
    """[R] The server ends the chain of a root of its own with a word on the owner's: nobody can check who signed it."""
    one = another_root(accepted=True)
    return differing(one, another_root(accepted=True, word=Seen(one.binding(1).chain_id, 9, bytes(32))))


def differing(one: World, other: World) -> Ask:
    """The client has seen file 1 in one world, and is shown it in the other."""
    for world, data in ((one, b"mine"), (other, b"other")):
        world.record(1, Operation.WRITTEN, data, "a.txt")
        world.publish()
    return Ask(other, other.prove(1), b"other", memory=Memory(None, one.prove(1)))


@case(FORK, "fork")
def earlier_loss_told_otherwise_at_a_later_one() -> Ask:
    """[R] The old key signs anew, for more kept leaves; this client has stored a proof with its first word."""
    world = small(b"one")
    world.declare_loss(1)
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.publish()
    memory = Memory(world.notes[max(world.notes)], world.prove(1))
    one = world.declared[0]
    more = world.old_logs[0].sign(loss_message(SECOND, one.key, 2, one.note))
    world.declared[0] = one._replace(kept=2, signature=more)
    world.declare_loss(max(world.notes), THIRD)
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), memory=memory)


def freed(kept: int) -> Ask:
    """File 1 was seen at a.txt. After the loss it was deleted, and file 2 is there."""
    world, memory = seen()
    world.declare_loss(kept)
    world.record(1, Operation.DELETED)
    world.record(2, Operation.CREATED, b"new", "a.txt")
    world.publish()
    world.record_seal(2)
    world.publish()
    memory = Memory(memory.checkpoint, None, 1, memory.chain)
    return Ask(world, world.prove(2, replaces=(1,)), b"new", memory=memory)


@case(NOT_PROVEN, "other-file-id")
def path_freed_by_a_file_whose_steps_were_declared_lost() -> Ask:
    """[R] What was seen of the file that had the path is gone, so its end shows nothing."""
    return freed(4)


@case(VERIFIED)
def path_freed_after_a_declared_loss() -> Ask:
    """All that was seen of the file that had the path was kept."""
    return freed(5)


# -- what a server may make up --------------------------------------------------------------------------------------


@case(NOT_PROVEN, "loss-note")
def note_of_a_declared_loss_without_quorum() -> Ask:
    """[R] The old origin's note is signed by the log alone."""
    world = written()
    world.notes[6] = world.note(6, reference.mth(world.leaves), witnesses=0)
    world.declare_loss(4)
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "loss-note")
def note_of_a_declared_loss_from_another_log() -> Ask:
    """[R] Another log of the policy says that it goes on from its own note, and shows this log's chains."""
    world = lost()
    _, two, other = two_logs(1, 1)
    note = two.notes[max(two.notes)]
    line = f"log {format_vkey(other.verifier_key)}\n".encode()
    world.policy_text, world.auditors_text = line + world.policy_text, line + world.auditors_text
    key = world.log.verifier_key.public_key
    message = loss_message(SECOND, key, world.declared[0].kept, note)
    return Ask(world, with_declared(world, note=note, signature=other.sign(message)))


@case(NOT_PROVEN, "loss-note")
def declared_loss_not_signed_by_the_old_key() -> Ask:
    """[R] Another log of the policy takes this one's name and last note, and signs for itself."""
    world = lost()
    one = world.declared[0]
    message = loss_message(SECOND, one.key, one.kept, one.note)
    return Ask(world, with_declared(world, signature=world.log.sign(message)))


@case(NOT_PROVEN, "loss-note")
def declared_loss_signed_by_a_key_that_did_not_sign_the_note() -> Ask:
    """[R] Another key of the old origin hands on: one that the log got later, or one that was replaced and stolen."""
    world = lost()
    other = SignerKey(ORIGIN, SIGNATURE, secret("another log key"))
    line = f"log {format_vkey(other.verifier_key)}\n".encode()
    world.policy_text, world.auditors_text = line + world.policy_text, line + world.auditors_text
    one = world.declared[0]
    return Ask(world, with_declared(world, signature=other.sign(loss_message(SECOND, one.key, one.kept, one.note))))


@case(NOT_PROVEN, "loss-note")
def declared_loss_with_a_key_that_the_policy_lacks() -> Ask:
    """The declaration hands on to a key which the user's policy does not name under the new origin."""
    world = lost()
    old, key = world.old_logs[0], world.old_logs[0].verifier_key.public_key
    message = loss_message(SECOND, key, world.declared[0].kept, world.declared[0].note)
    return Ask(world, with_declared(world, key=key, signature=old.sign(message)))


@case(NOT_PROVEN, "broken-proof")
def note_of_a_declared_loss_that_leaf_0_does_not_name() -> Ask:
    """[R] An older note of the old origin, duly signed and handed on, and not the one that leaf 0 names."""
    world = written()
    older = world.notes[4]
    world.declare_loss(4)
    key = world.log.verifier_key.public_key
    message = loss_message(SECOND, key, 4, older)
    return Ask(world, with_declared(world, note=older, signature=world.old_logs[0].sign(message)))


@case(NOT_PROVEN, "broken-proof")
def declared_loss_with_more_kept_than_leaf_0_names() -> Ask:
    """[R] The old key has signed for another number of kept leaves as well, which the tree's auditors never saw."""
    world = written()
    world.declare_loss(4)
    one = world.declared[0]
    message = loss_message(SECOND, one.key, 5, one.note)
    return Ask(world, with_declared(world, kept=5, signature=world.old_logs[0].sign(message)))


@case(NOT_PROVEN, "unknown-log")
def declared_loss_not_shown() -> Ask:
    """[R] The proof of a new origin that does not say from which one it goes on."""
    world = lost()
    return Ask(world, world.prove(1)._replace(loss=None))


@case(NOT_PROVEN, "unknown-log")
def declared_loss_of_the_first_origin() -> Ask:
    """A proof under the log's first origin that speaks of a loss all the same."""
    world, other = small(), lost()
    loss = Loss(other.declared, [])
    return Ask(world, world.prove(1)._replace(loss=loss))


@case(NOT_PROVEN, "loss-note")
def second_declared_loss_without_the_first() -> Ask:
    """The declarations do not lead back to the origin that names the log."""
    world = lost()
    world.declare_loss(max(world.notes), THIRD)
    proof = world.prove(1)
    assert proof.loss is not None
    return Ask(world, proof._replace(loss=proof.loss._replace(declared=proof.loss.declared[:1])))


@case(NOT_PROVEN, "declared-loss", "unknown-log")
def checkpoint_before_a_declared_loss() -> Ask:
    """A time from a tree of the old origin says nothing of the new one."""
    world = written()
    note = world.notes[4]
    world.declare_loss(4)
    return Ask(world, world.prove(1)._replace(first=Bracket(note, [])))


# -- the owner's way out ------------------------------------------------------------------------------------------


def given_up(step: tuple[int, bytes] | None = None, server: bool = False) -> Ask:
    """The owner saw all steps of file 1, ends the chain for the head seen last, and seals the next generation."""
    world, memory = seen()
    assert memory.chain is not None
    world.declare_loss(4)
    last = memory.chain.map
    chain_id = memory.chain.chain_id
    named = Seen(chain_id, *step) if step else Seen(chain_id, last.seq, last.head)
    world.close_declared(1, named, world.log if server else None)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), memory=memory)


@case(VERIFIED)
def declared_loss_closed_by_the_owner() -> Ask:
    """Steps that were seen are lost: a `closed` of the owner names both heads, and the next generation is sealed."""
    return given_up()


@case(VERIFIED)
def declared_loss_closed_for_a_later_step() -> Ask:
    """The owner's word goes further than what this client has seen, such as on another device."""
    return given_up((3, bytes(32)))


@case(CHANGED, "pinned")
def declared_loss_closed_for_another_head() -> Ask:
    """[R] The owner gave up another head than the one that was seen."""
    return given_up((2, bytes(32)))


@case(CHANGED, "pinned")
def declared_loss_closed_for_an_earlier_head() -> Ask:
    """[R] The owner gave up less than what was seen."""
    return given_up((1, bytes(32)))


@case(CHANGED, "pinned")
def declared_loss_closed_by_the_server() -> Ask:
    """[R] A close that only the server signs gives up nothing."""
    world, memory = seen()
    world.declare_loss(4)
    world.close(1, signed=False)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    closed = world.prove(1).earlier[0].chain_id, 2
    world.record_seal(1, accepts=(closed,))
    world.publish()
    return Ask(world, world.prove(1), memory=memory)


# -- form ---------------------------------------------------------------------------------------------------------


@case(MALFORMED)
def declared_loss_of_nothing() -> Ask:
    """A list of no declaration."""
    world = lost()
    proof = world.prove(1)
    return Ask(world, proof._replace(loss=Loss([], [])))


@case(MALFORMED)
def declared_loss_null() -> Ask:
    """A proof without a loss has no such member."""
    world = small()
    return Ask(world, format_proof(world.prove(1)).decode().removesuffix("}\n") + ',"loss":null}\n')


@case(MALFORMED)
def declared_loss_in_another_place() -> Ask:
    """The member stands last."""
    world = lost()
    text = format_proof(world.prove(1)).decode()
    head, loss = text.removesuffix("}\n").split(',"loss":')
    return Ask(world, head.replace(',"replaced":', f',"loss":{loss},"replaced":') + "}\n")


@case(MALFORMED)
def too_many_declared_losses() -> Ask:
    """At most 16 origins before this one."""
    world = lost()
    proof = world.prove(1)
    one = Declared(*world.declared[0])
    return Ask(world, proof._replace(loss=Loss([one] * 17, [])))


def made_up(world: World) -> Ask:
    """Somebody who holds the owner's public key alone saw file 1 with a step that was lost; it goes on without it.

    Chain ids of generations are nothing to them, so how many there were is the server's word.
    """
    world.record_seal(1)
    world.publish()
    memory = Memory(max_note(world), world.prove(1))
    world.declare_loss(4)
    world.record(9, Operation.CREATED, b"x", "x")
    world.close(9, signed=False)
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return Ask(seal(world), world.prove(1), path=None, file_id=1, memory=memory, reader=False)


@case(CHANGED, "pinned")
def lost_steps_that_a_stranger_has_seen() -> Ask:
    """[R] The generation that was seen has ended without steps that were seen of it."""
    return made_up(written())


@case(CHANGED, "pinned")
def lost_steps_behind_a_generation_that_is_made_up() -> Ask:
    """[R] The generation that was seen is found by its chain id, not by a number that the server makes up."""
    ask = made_up(written())
    assert isinstance(ask.proof, Proof)
    return ask._replace(proof=ask.proof._replace(generation=2, earlier=[*ask.proof.earlier, end_of(ask.world, 9)]))


@case(NOT_PROVEN, "generations")
def generation_that_was_seen_is_left_out() -> Ask:
    """[R] A stranger has seen a generation that is not among those which are shown."""
    ask = made_up(written())
    world = ask.world
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    proof = seal(world).prove(1)
    return ask._replace(proof=proof._replace(earlier=[proof.earlier[0], end_of(world, 9)]))


def end_of(world: World, file_id: int) -> Earlier:
    """How a closed chain ended, as it is shown where another one continues it."""
    history, mapped = world.histories[file_id], world.maps[max(world.notes)]
    last, chain_id = history.records[-1], history.binding.chain_id
    siblings = map_reference.prove(mapped, chain_id)[1]
    return Earlier(chain_id, history.chain.heads[-2], last.line, last.index, siblings)
