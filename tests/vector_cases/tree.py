"""Steps 1 to 7 of SPEC 9: names, the checkpoint and its cosigners, the tree that was seen before, the map."""

from __future__ import annotations

from tests import map_reference, reference
from tests.builder import ORIGIN, SEED, History, World, secret
from tests.vector_cases import MALFORMED, Ask, alone, case, small
from tests.verifier.worlds import a_file, created, noted, two_logs
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.encoding import u64
from verifier.entry import Operation
from verifier.map import map_value
from verifier.note import (
    COSIGNATURE,
    SIGNATURE,
    Note,
    Signature,
    SignerKey,
    cosignature_message,
    format_note,
    format_vkey,
    make_key,
    parse_note,
    sign_note,
)
from verifier.proof import Bracket, Loss, Proof
from verifier.verdict import Memory

NOT_PROVEN, FORK = "NOT PROVEN", "FORK"


# -- step 1 -----------------------------------------------------------------------------------------------------


@case(NOT_PROVEN, "other-log")
def another_log() -> Ask:
    """The proof names a log that is not the user's."""
    world = small()
    return Ask(world, world.prove(1)._replace(log=ORIGIN + "+" + "0" * 64))


@case(NOT_PROVEN, "other-source")
def another_source() -> Ask:
    """A proof of the same file id in another source."""
    world, elsewhere = small(), created(b"one", b"two", world=World(1, 1, source="folder:elsewhere"))
    return Ask(world, elsewhere.prove(1))


@case(NOT_PROVEN, "other-file")
def another_file_id() -> Ask:
    """The proof of file 1, asked was file 2."""
    world = small()
    return Ask(world, world.prove(1), file_id=2)


@case(NOT_PROVEN, "not-owner")
def another_owner() -> Ask:
    """The chain lies under a root that the server made."""
    custodial = created(b"one", b"two", world=World(1, 1, seed=SEED[::-1]))
    return Ask(small(), custodial.prove(1))


@case(NOT_PROVEN, "other-chain")
def second_chain_for_one_file() -> Ask:
    """The server keeps a second chain for the file, under a chain id that the owner did not compute."""
    world = small()
    world.histories[9] = History(world.binding(1)._replace(chain_id=bytes(32)), 0, None)
    world.record(9, Operation.CREATED, b"evil", "a.txt")
    world.publish()
    return Ask(world, world.prove(9)._replace(file_id=1), b"evil")


@case(NOT_PROVEN, "incomplete")
def short_proof_without_state() -> Ask:
    """A short proof, and the state has nothing to complete it with."""
    world = small()
    return Ask(world, world.prove(1, first_seq=1))


@case(NOT_PROVEN, "incomplete")
def short_proof_beyond_the_state() -> Ask:
    """A short proof that starts after the last step that the state has."""
    world = small(b"one")
    seen, size = world.prove(1), max(world.notes)
    for data in (b"two", b"three"):
        world.record(1, Operation.WRITTEN, data, "a.txt")
    world.publish()
    return Ask(world, world.prove(1, pinned=size, first_seq=2), b"three", memory=Memory(world.notes[size], seen))


# -- step 2 -----------------------------------------------------------------------------------------------------


def renoted(world: World, note: bytes) -> Proof:
    """The newest proof of file 1 under another note, which alone speaks of its times."""
    return world.prove(1)._replace(checkpoint=note, first=None, before=None)


@case(NOT_PROVEN, "unknown-log")
def checkpoint_of_another_log() -> Ask:
    """[R] Two logs of one policy: a checkpoint of the one proves nothing for a chain of the other."""
    one, two, _ = two_logs(1, 1)
    return Ask(one, two.prove(1), b"evil", path="d.txt")


@case(NOT_PROVEN, "unsigned")
def log_not_signed() -> Ask:
    """Another key under the log's name signed the checkpoint."""
    world, impostor = small(), alone()
    impostor.log = SignerKey(ORIGIN, SIGNATURE, secret("another key"))
    created(b"one", b"two", world=impostor)
    return Ask(world, impostor.prove(1))


@case(NOT_PROVEN, "bad-signature")
def forged_log_signature() -> Ask:
    """The line of the log's key does not hold."""
    world = small()
    note = parse_note(world.notes[max(world.notes)])
    forged = note.signatures[0]._replace(blob=bytes(64))
    return Ask(world, renoted(world, format_note(note._replace(signatures=(forged, *note.signatures[1:])))))


@case(NOT_PROVEN, "bad-signature")
def changed_root_in_the_checkpoint() -> Ask:
    """The root differs from the one that everybody signed."""
    world = small()
    note = parse_note(world.notes[max(world.notes)])
    text = format_checkpoint(Checkpoint(ORIGIN, max(world.notes), bytes(32)))
    return Ask(world, renoted(world, format_note(note._replace(text=text))))


def rotated(*signers: SignerKey, named: tuple[SignerKey, ...]) -> World:
    """A file that was created before the log had a new key and written after these signed; both policies name these."""
    return rename(written_after(small(b"one"), *signers), *named)


def written_after(world: World, *signers: SignerKey) -> World:
    """File 1 is written in a tree that these keys sign."""
    world.signers = list(signers)
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.publish()
    return world


def rename(world: World, *named: SignerKey) -> World:
    """The world with policies that name these log keys."""
    line = f"log {format_vkey(world.log.verifier_key)}\n".encode()
    lines = b"".join([f"log {format_vkey(key.verifier_key)}\n".encode() for key in named])
    world.policy_text = world.policy_text.replace(line, lines)
    world.auditors_text = world.auditors_text.replace(line, lines)
    return world


OLD_KEY = SignerKey(ORIGIN, SIGNATURE, secret("log"))
NEW_KEY = SignerKey(ORIGIN, SIGNATURE, secret("next log key"))


@case("VERIFIED")
def two_log_keys_sign_and_the_policy_names_the_old_one() -> Ask:
    """The log is getting a new key: its line is one of an unknown key."""
    world = rotated(OLD_KEY, NEW_KEY, named=(OLD_KEY,))
    return Ask(world, world.prove(1))


@case("VERIFIED")
def two_log_keys_sign_and_the_policy_names_both() -> Ask:
    """The log is getting a new key, and both lines hold."""
    world = rotated(OLD_KEY, NEW_KEY, named=(OLD_KEY, NEW_KEY))
    return Ask(world, world.prove(1))


@case("VERIFIED")
def new_log_key_alone_and_the_policy_names_both() -> Ask:
    """The old key signs no more; `before` has its line alone, and the state's checkpoint too."""
    world = rotated(NEW_KEY, named=(OLD_KEY, NEW_KEY))
    size = min(world.notes)
    return Ask(world, world.prove(1, pinned=size), memory=Memory(world.notes[size]))


@case(NOT_PROVEN, "unsigned")
def new_log_key_alone_and_the_policy_names_the_old_one() -> Ask:
    """[R] A key that the user's policy does not name proves nothing, whatever the log says of it."""
    world = rotated(NEW_KEY, named=(OLD_KEY,))
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "bad-signature")
def one_of_two_log_lines_forged() -> Ask:
    """[R] The line of the old key holds, that of the new one does not: no line counts."""
    world = rotated(OLD_KEY, NEW_KEY, named=(OLD_KEY, NEW_KEY))
    note = parse_note(world.notes[max(world.notes)])
    forged = note.signatures[1]._replace(blob=bytes(64))
    lines = (note.signatures[0], forged, *note.signatures[2:])
    return Ask(world, renoted(world, format_note(note._replace(signatures=lines))))


@case("VERIFIED")
def forged_line_of_a_log_key_that_the_policy_does_not_name() -> Ask:
    """A line of an unknown key is not looked at, though its name is the log's."""
    world = rotated(OLD_KEY, NEW_KEY, named=(OLD_KEY,))
    note = parse_note(world.notes[max(world.notes)])
    forged = note.signatures[1]._replace(blob=bytes(64))
    lines = (note.signatures[0], forged, *note.signatures[2:])
    return Ask(world, renoted(world, format_note(note._replace(signatures=lines))))


@case("VERIFIED")
def before_signed_by_a_log_key_that_the_policy_does_not_name() -> Ask:
    """The policy names the new key alone, and `before` is from before it: times are the witnesses' word."""
    world = rotated(NEW_KEY, named=(NEW_KEY,))
    return Ask(world, world.prove(1))


@case("VERIFIED")
def first_and_before_signed_by_a_log_key_that_the_policy_does_not_name() -> Ask:
    """The entry itself is from before the new key: both checkpoints around it have the old key's line alone."""
    world = small(b"one")
    world.record(2, Operation.CREATED, b"new", "b.txt")
    world.publish()
    rename(written_after(world, NEW_KEY), NEW_KEY)
    proof = world.prove(2)
    assert proof.first is not None
    assert proof.before is not None
    return Ask(world, proof, b"new", path="b.txt")


def stolen(size: int) -> bytes:
    """[R] Another history of this size, signed by the old log key alone, and cosigned."""
    other = small(b"evil", b"more")
    other.signers = [OLD_KEY]
    return other.note(size, reference.mth(other.leaves[:size]), 1)


@case(NOT_PROVEN, "broken-proof")
def before_of_another_tree_by_a_stolen_old_log_key() -> Ask:
    """[R] Another tree by the old key, and even cosigned: the newest tree does not continue it."""
    world = rotated(NEW_KEY, named=(NEW_KEY,))
    proof = world.prove(1)
    assert proof.before is not None
    return Ask(world, proof._replace(before=proof.before._replace(checkpoint=stolen(2))))


@case(NOT_PROVEN, "broken-proof")
def first_of_the_same_size_by_a_stolen_old_log_key() -> Ask:
    """[R] A second tree of the newest size, by a key that the policy no longer names, does not make it a fork."""
    world = rotated(NEW_KEY, named=(NEW_KEY,))
    return Ask(world, world.prove(1)._replace(first=Bracket(stolen(4), [])))


@case(NOT_PROVEN, "unwitnessed")
def first_by_a_stolen_old_log_key_not_witnessed() -> Ask:
    """[R] An earlier tree of the log that nobody saw when it says, signed by the old key: no time follows from it."""
    world = rotated(NEW_KEY, named=(NEW_KEY,))
    world.signers = [OLD_KEY]
    note = world.note(4, reference.mth(world.leaves), 0)
    return Ask(world, world.prove(1)._replace(first=Bracket(note, [])))


@case(NOT_PROVEN, "bad-signature")
def before_with_a_forged_line_of_the_new_log_key() -> Ask:
    """The old key's line under `before` is not looked at; that of the key which the policy names does not hold."""
    world = rotated(NEW_KEY, named=(NEW_KEY,))
    proof = world.prove(1)
    assert proof.before is not None
    note = parse_note(proof.before.checkpoint)
    forged = Signature(ORIGIN, NEW_KEY.verifier_key.key_id, bytes(64))
    note = note._replace(signatures=(*note.signatures, forged))
    return Ask(world, proof._replace(before=proof.before._replace(checkpoint=format_note(note))))


@case(NOT_PROVEN, "unsigned")
def checkpoint_signed_by_a_log_key_that_the_policy_does_not_name() -> Ask:
    """[R] What the old key alone signed as the newest tree counts for nothing under a policy without it."""
    world = rotated(OLD_KEY, named=(NEW_KEY,))
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "empty-tree")
def empty_tree() -> Ask:
    """A tree of size 0 has no last leaf that could commit to a map."""
    world = small()
    return Ask(world, renoted(world, world.note(0, reference.mth([]))))


@case(FORK, "fork")
def two_roots_of_one_size() -> Ask:
    """The log signed two trees of one size, and the state holds the other one."""
    mine, other = small(b"one"), small(b"evil")
    return Ask(other, other.prove(1), b"evil", memory=Memory(mine.notes[2]))


@case(FORK, "fork")
def two_roots_of_one_size_beside_a_loss_that_is_none() -> Ask:
    """[R] What the server adds to a proof never hides a fork: another log's declared loss is shown with it."""
    from tests.vector_cases.loss import lost

    mine, other = small(b"one"), small(b"evil")
    proof = other.prove(1)._replace(loss=Loss(lost().declared, []))
    return Ask(other, proof, b"evil", memory=Memory(mine.notes[2]))


@case(MALFORMED)
def extension_line() -> Ask:
    """The checkpoint has a fourth line, though all signed it."""
    world = small()
    size = max(world.notes)
    text = format_checkpoint(Checkpoint(ORIGIN, size, reference.mth(world.leaves))) + b"more\n"
    return Ask(world, renoted(world, format_note(Note(text, (sign_note(text, world.log),)))))


@case(MALFORMED)
def note_without_signatures() -> Ask:
    """A checkpoint's text alone is no signed note."""
    world = small()
    return Ask(world, renoted(world, parse_note(world.notes[max(world.notes)]).text + b"\n"))


# -- steps 3 and 4 ----------------------------------------------------------------------------------------------


@case(NOT_PROVEN, "unwitnessed")
def two_of_three_witnesses() -> Ask:
    """One witness short of the quorum; all auditors are there."""
    world = a_file()
    return Ask(world, renoted(world, world.note(max(world.notes), reference.mth(world.leaves), 2)), path="d.txt")


@case(NOT_PROVEN, "unwitnessed", "not-replayed")
def policy_of_other_nodes() -> Ask:
    """The policies are the user's: cosignatures of nodes that they do not name count for nothing."""
    world, strangers = small(), alone()
    strangers.witnesses = [SignerKey("n0.example", 4, secret("a stranger"))]
    strangers.auditors = [SignerKey("n0.example/auditor", 4, secret("a strange auditor"))]
    strangers.policy_text = strangers.policy_file(strangers.witnesses, 1)
    strangers.auditors_text = strangers.policy_file(strangers.auditors, 1)
    strangers.now = world.now
    return Ask(strangers, world.prove(1))


@case("VERIFIED")
def witness_key_that_is_no_point() -> Ask:
    """One of three witnesses has a key with a y that no point of the curve has: its signature is missing for ever."""
    world = created(b"one", b"two", world=World(2, 2))
    key = make_key("n9.example", COSIGNATURE, (2).to_bytes(32, "little"))
    added = f"witness w2 {format_vkey(key)}\ngroup g 2 w0 w1 w2\n".encode()
    world.policy_text = world.policy_text.replace(b"group g 2 w0 w1\n", added)
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "unwitnessed")
def auditors_in_place_of_witnesses() -> Ask:
    """Witness and auditor sign the same bytes, and neither counts for the other."""
    world = small()
    return Ask(world, renoted(world, world.note(max(world.notes), reference.mth(world.leaves), 0)))


@case(MALFORMED)
def one_witness_twice() -> Ask:
    """The line of one witness is there twice, to make up for a third one."""
    world = a_file()
    note = parse_note(world.note(max(world.notes), reference.mth(world.leaves), 2))
    return Ask(
        world,
        renoted(world, format_note(note._replace(signatures=(*note.signatures, note.signatures[2])))),
        path="d.txt",
    )


@case(NOT_PROVEN, "bad-signature")
def cosignature_of_another_tree() -> Ask:
    """A witness's line was copied from an older checkpoint."""
    world = small()
    old, new = (parse_note(world.notes[size]) for size in sorted(world.notes))
    mixed = (new.signatures[0], old.signatures[1], new.signatures[2])
    return Ask(world, renoted(world, format_note(Note(new.text, mixed))))


@case(NOT_PROVEN, "bad-signature")
def auditors_cosignature_of_another_tree() -> Ask:
    """An auditor's line was copied from an older checkpoint: it fails its own quorum, and the witnesses' holds."""
    world = small()
    old, new = (parse_note(world.notes[size]) for size in sorted(world.notes))
    mixed = (*new.signatures[:2], old.signatures[2])
    return Ask(world, renoted(world, format_note(Note(new.text, mixed))))


@case(NOT_PROVEN, "bad-signature")
def cosignature_without_a_time() -> Ask:
    """[R] A time of 0 makes the line invalid, though the witness signed it."""
    world = small()
    note = parse_note(world.notes[max(world.notes)])
    signed = world.witnesses[0].sign(cosignature_message(note.text, 0))
    zero = note.signatures[1]._replace(blob=bytes(8) + signed)
    return Ask(world, renoted(world, format_note(Note(note.text, (note.signatures[0], zero, note.signatures[2])))))


@case(NOT_PROVEN, "unwitnessed", "not-replayed")
def cosignature_from_the_future() -> Ask:
    """Cosigners that are 31 seconds ahead of the verifier's clock count for nothing."""
    world = small()
    return Ask(world, renoted(world, noted(world, max(world.notes), [world.now + 31])))


@case("VERIFIED")
def cosignature_from_the_near_future() -> Ask:
    """30 seconds ahead of the verifier's clock still count."""
    world = small()
    return Ask(world, renoted(world, noted(world, max(world.notes), [world.now + 30])))


@case(NOT_PROVEN, "weak-policy")
def quorums_that_need_not_overlap() -> Ask:
    """One witness of two is enough, so two histories pass though nobody lies."""
    world = created(b"one", b"two", world=World(2, 1))
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "weak-policy")
def quorum_none_of_witnesses() -> Ask:
    """`quorum none` asks nothing of any witness."""
    world = small()
    world.policy_text = world.policy_text.replace(b"quorum g", b"quorum none")
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "not-replayed")
def quorum_none_of_auditors() -> Ask:
    """`quorum none` asks nothing of any auditor."""
    world = small()
    world.auditors_text = world.auditors_text.replace(b"quorum g", b"quorum none")
    return Ask(world, world.prove(1))


@case(NOT_PROVEN, "not-replayed")
def nobody_replayed() -> Ask:
    """[R] Witnesses vouch that the log grew, and not for the map."""
    world = small()
    return Ask(world, renoted(world, world.note(max(world.notes), reference.mth(world.leaves), 1, 0)))


@case(NOT_PROVEN, "not-replayed")
def map_of_an_older_head() -> Ask:
    """[R] The newest map leaves out the last entry, which no honest auditor signs."""
    world = small()
    history = world.histories[1]
    world.map[history.binding.chain_id] = map_value(0, history.chain.heads[0], history.records[0].index)
    old = world.prove(1, size=min(world.notes))
    size = world.publish(auditors=0)
    mapped = old.map._replace(root=map_reference.build_map(world.maps[size]), siblings=[])
    paths = {
        "commitment": reference.path(size - 1, world.leaves),
        "last": reference.path(history.records[0].index, world.leaves),
    }
    return Ask(world, old._replace(map=mapped, checkpoint=world.notes[size], first=None, **paths), b"one")


@case(NOT_PROVEN, "not-replayed")
def rewritten_history_continued() -> Ask:
    """[R] The leaves hold the old entry, the map a head over a rewritten one: replay gets another map."""
    world, other = small(), small(b"one", b"evil")
    history, chain = world.histories[1], world.histories[1].chain
    history.records[1].line = other.histories[1].records[1].line
    chain.head = chain.heads[1] = other.histories[1].chain.head
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish(auditors=0)
    return Ask(world, world.prove(1), b"three")


# -- step 5 -----------------------------------------------------------------------------------------------------


@case("VERIFIED")
def continues_the_tree_seen() -> Ask:
    """Consistency from the tree that the state holds."""
    world = small()
    size = min(world.notes)
    return Ask(world, world.prove(1, pinned=size), memory=Memory(world.notes[size]))


@case(NOT_PROVEN, "unconnected")
def not_connected_to_the_tree_seen() -> Ask:
    """[R] The proof starts from another size than the one that the state holds."""
    world = small(b"one", b"one", b"two")
    one, two, _ = sorted(world.notes)
    return Ask(world, world.prove(1, pinned=one), memory=Memory(world.notes[two]))


@case(NOT_PROVEN, "unconnected")
def no_consistency_shown() -> Ask:
    """The state holds a smaller tree, and the proof shows no consistency at all."""
    world = small()
    return Ask(world, world.prove(1), memory=Memory(world.notes[min(world.notes)]))


@case(NOT_PROVEN, "broken-proof")
def another_history_than_the_tree_seen() -> Ask:
    """[R] Consistency that merely fails is no evidence of a fork; no other checkpoint is shown."""
    mine, other = small(b"one"), small(b"evil", b"two")
    proof = other.prove(1, pinned=2)._replace(first=None, before=None)
    return Ask(other, proof, memory=Memory(mine.notes[2]))


@case(NOT_PROVEN, "stale")
def smaller_tree_than_seen() -> Ask:
    """An honest, older proof."""
    world = small()
    return Ask(world, world.prove(1, size=min(world.notes)), b"one", memory=Memory(world.notes[max(world.notes)]))


@case(NOT_PROVEN, "unsigned")
def pinned_tree_that_no_key_of_the_policy_signed() -> Ask:
    """[R] The state's checkpoint opens like any other: one that does not is no reason to forget what was seen."""
    world = small()
    proof, pinned = world.prove(1, pinned=2), world.notes[2]
    other = SignerKey(ORIGIN, SIGNATURE, secret("another log key"))
    text = parse_note(pinned).text
    return Ask(world, proof, memory=Memory(format_note(Note(text, (sign_note(text, other),)))))


@case(FORK, "fork")
def rolled_back() -> Ask:
    """A witness signed the smaller tree later than the bigger one."""
    world = small()
    one, two = sorted(world.notes)
    world.tick(60)
    again = noted(world, one, [world.now])
    proof = world.prove(1, size=one)._replace(checkpoint=again)
    return Ask(world, proof, b"one", memory=Memory(world.notes[two]))


@case(NOT_PROVEN, "stale")
def rolled_back_within_a_second() -> Ask:
    """Both trees were signed at one time: nobody knows in which order."""
    world = small()
    one, two = sorted(world.notes)
    world.notes[two] = noted(world, two, [world.now])
    proof = world.prove(1, size=one)._replace(checkpoint=noted(world, one, [world.now]))
    return Ask(world, proof, b"one", memory=Memory(world.notes[two]))


@case(FORK, "fork")
def rolled_back_as_of_a_time() -> Ask:
    """[R] Asked as of a time, a smaller tree that was signed later is a fork all the same."""
    world = small()
    one, two = sorted(world.notes)
    world.tick(60)
    proof = world.prove(1, size=one)._replace(checkpoint=noted(world, one, [world.now]))
    return Ask(world, proof, b"one", memory=Memory(world.notes[two]), as_of="proof")


@case(FORK, "not-replayed", "fork")
def rolled_back_by_an_auditor_in_time() -> Ask:
    """One auditor of four signed the smaller tree later than the bigger one; everyone else signed before."""
    world = a_file()
    one, two = sorted(world.notes)
    now = world.now
    text_of = noted(world, one, [now - 20] * 4, [now])
    proof = world.prove(1, size=one)._replace(checkpoint=text_of)
    return Ask(world, proof, b"one", memory=Memory(world.notes[two]))


@case(FORK, "bad-signature", "fork")
def rolled_back_beside_an_auditors_bad_line() -> Ask:
    """[R] An auditor's line that does not hold does not hide that a witness signed the smaller tree later."""
    world = small()
    one, two = sorted(world.notes)
    world.tick(60)
    again = parse_note(noted(world, one, [world.now]))
    *others, auditor = again.signatures
    spoiled = again._replace(signatures=(*others, auditor._replace(blob=u64(1) + bytes(64))))
    proof = world.prove(1, size=one)._replace(checkpoint=format_note(spoiled))
    return Ask(world, proof, b"one", memory=Memory(world.notes[two]))


@case(FORK, "fork")
def malformed_part_after_a_fork() -> Ask:
    """[R] A part that is not in its format hides no fork that was found before."""
    world = small()
    one, two = sorted(world.notes)
    world.tick(60)
    proof = world.prove(1, size=one)._replace(checkpoint=noted(world, one, [world.now]))
    line = proof.entries[0]._replace(content=b"short")
    return Ask(world, proof._replace(entries=[line]), b"one", memory=Memory(world.notes[two]))


# -- steps 6 and 7 ----------------------------------------------------------------------------------------------


@case(NOT_PROVEN, "broken-proof")
def older_map_in_a_newer_tree() -> Ask:
    """[R] The map commitment shown is in the tree, and is not its last leaf."""
    world = small()
    one, two = sorted(world.notes)
    commitment = reference.path(one - 1, world.leaves)
    old = world.prove(1, size=one)
    return Ask(world, old._replace(checkpoint=world.notes[two], commitment=commitment, first=None), b"one")


@case(NOT_PROVEN, "broken-proof")
def tree_that_ends_in_an_entry() -> Ask:
    """[R] The last leaf of the signed tree commits to no map."""
    world = small()
    proof, size = world.prove(1), max(world.notes)
    world.record(4, Operation.CREATED, b"x", "x")
    changes = {
        "commitment": reference.path(size, world.leaves),
        "last": reference.path(proof.map.leaf_index, world.leaves),
    }
    note = world.note(size + 1, reference.mth(world.leaves))
    return Ask(world, proof._replace(checkpoint=note, first=None, before=None, **changes))


def map_that_says(**change: object) -> Ask:
    world = a_file(alone())
    proof = world.prove(1)
    return Ask(world, proof._replace(map=proof.map._replace(**change)), path="d.txt")  # type: ignore[arg-type]


@case(NOT_PROVEN, "broken-proof")
def another_head_than_the_map_holds() -> Ask:
    """The head shown is not the one in the map."""
    return map_that_says(head=bytes(32))


@case(NOT_PROVEN, "broken-proof")
def another_last_seq_than_the_map_holds() -> Ask:
    """The last seq shown is not the one in the map."""
    return map_that_says(seq=1)


@case(NOT_PROVEN, "broken-proof")
def another_map_root() -> Ask:
    """The map root shown is not the one that the tree commits to."""
    return map_that_says(root=bytes(32))


@case(NOT_PROVEN, "broken-proof")
def another_sibling_in_the_map() -> Ask:
    """The siblings shown do not lead to the map root."""
    return map_that_says(siblings=[bytes([1]) * 32])


@case(MALFORMED)
def empty_deepest_sibling() -> Ask:
    """[R] A deepest sibling that is the empty constant would let one key stand at two depths."""
    world = a_file(alone())
    proof = world.prove(1)
    shown = proof.map
    return Ask(world, proof._replace(map=shown._replace(siblings=[bytes(32), *shown.siblings])), path="d.txt")
