"""Honest histories: every one is VERIFIED."""

from __future__ import annotations

from hashlib import sha3_256

from tests.builder import START, History, World, secret
from tests.vector_cases import Ask, alone, case, small, withhold
from tests.verifier.worlds import a_file, altered, key_of, noted, sealed, taken_over, two_generations
from verifier import keys
from verifier.chain import Binding, Ending
from verifier.entry import (
    CloseReason,
    Content,
    ContextField,
    Entry,
    Erased,
    Expired,
    ExpiryReason,
    Gap,
    GapReason,
    Operation,
    Part,
    Predecessor,
    Reverted,
    Seen,
    Taint,
    TaintKind,
    commit,
    encode_content,
    encode_entry,
    encode_path,
)
from verifier.note import SIGNATURE, SignerKey, format_note, parse_note, sign_note
from verifier.proof import Line
from verifier.verdict import Memory


@case("VERIFIED")
def worked_example() -> Ask:
    """The worked example of SPEC 13: one file, created and written, beside another one."""
    world = alone()
    world.record(17, Operation.CREATED, b"one\n", "a.txt")
    world.publish()
    world.record(17, Operation.WRITTEN, b"two\n", "a.txt")
    world.record(18, Operation.CREATED, b"other\n", "b.txt")
    world.publish()
    return Ask(world, world.prove(17), b"two\n")


@case("VERIFIED")
def created_only() -> Ask:
    """One entry, the first of the log: no checkpoint lies before it, and no leaf but the last set its content."""
    world = small(b"one")
    return Ask(world, world.prove(1), b"one")


@case("VERIFIED")
def written() -> Ask:
    """Created, published, written: one checkpoint before the last entry and one after it."""
    world = small()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def moved_with_four_nodes() -> Ask:
    """Created, written, moved, among other files; three of four witnesses and auditors are the quorum."""
    world = a_file()
    return Ask(world, world.prove(1), path="d.txt")


@case("VERIFIED")
def asked_by_file_id() -> Ask:
    """The user names the file by its id alone."""
    world = small()
    return Ask(world, world.prove(1), path=None, file_id=1)


@case("VERIFIED")
def empty_file() -> Ask:
    """A file of no bytes has a content: size 0, and the digest of nothing."""
    world = small(b"")
    return Ask(world, world.prove(1), b"")


@case("VERIFIED")
def copied_with_context() -> Ask:
    """The context names the source of the copy, and whatever else it may say."""
    world = alone()
    context = {
        ContextField.ACTOR: "anna",
        ContextField.COPIED_FROM: "Vorlagen/Brief é.txt",
        ContextField.VERSION: "1799999990",
        ContextField.MIME: "text/plain",
        ContextField.REMARK: "",
    }
    world.record(1, Operation.COPIED, b"two", "a.txt", context=context)
    world.publish()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def path_of_odd_characters() -> Ask:
    """A path may hold quotes, backslashes, control characters, and characters outside the basic plane."""
    world, path = alone(), 'Ä"\\\t\x7f\u2028/\U0001f512.txt'
    world.record(1, Operation.CREATED, b"two", path)
    world.publish()
    return Ask(world, world.prove(1), path=path)


@case("VERIFIED")
def unknown_signature_lines() -> Ask:
    """Lines of keys that no policy names are ignored; their names show how a JSON string is escaped."""
    world = small()
    size = max(world.notes)
    note = parse_note(world.notes[size])
    odd = SignerKey('un"known\\key/\u007e\U0001f512', SIGNATURE, secret("unknown"))
    world.notes[size] = format_note(note._replace(signatures=(*note.signatures, sign_note(note.text, odd))))
    return Ask(world, world.prove(1))


@case("VERIFIED")
def digest_of_an_unknown_algorithm() -> Ask:
    """A content part may carry further digests; they are carried along and not read."""
    world = alone()
    content = Content(3, sha3_256(b"two").digest(), ((7, b"\x01" * 20), (255, b"")))
    parts = (encode_content(content), encode_path("a.txt"), b"")
    openings = [secret(part.word) + data for part, data in zip(Part, parts, strict=True)]
    commitments = [commit(part, opening) for part, opening in zip(Part, openings, strict=True)]
    history = world.histories[1] = History(world.binding(1), 0, None)
    world.append(history, Line(encode_entry(Entry(Operation.CREATED, 0, world.now, 0, *commitments)), *openings))
    world.publish()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def touched_and_restored() -> Ask:
    """Touched, deleted, restored at another path."""
    world = small()
    world.record(1, Operation.TOUCHED, b"two", "a.txt")
    world.record(1, Operation.DELETED)
    world.record(1, Operation.RESTORED, b"two", "c.txt")
    world.publish()
    return Ask(world, world.prove(1), path="c.txt")


@case("VERIFIED")
def reverted() -> Ask:
    """Reverted to an older version."""
    world = small(b"two", b"one")
    world.record(1, Operation.REVERTED, b"two", "a.txt", Reverted(0))
    world.publish()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def reverted_to_before_the_alteration() -> Ask:
    """The bytes changed with no operation, and a revert to a version from before that mends it."""
    world = altered(alone())
    world.record(1, Operation.REVERTED, b"one", "a.txt", Reverted(1))
    world.publish()
    return Ask(world, world.prove(1), b"one")


@case("VERIFIED")
def expired() -> Ask:
    """The bytes of an older version are gone."""
    world = small()
    world.record(1, Operation.EXPIRED, argument=Expired(ExpiryReason.THINNED, (0,)))
    world.publish()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def erased_parts() -> Ask:
    """All three parts of the first entry are erased, and logged as erased."""
    world = small()
    for part in Part:
        world.record(1, Operation.ERASED, argument=Erased(0, part))
        world.erase(world.histories[1], 0, part)
    world.publish()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def erased_path_asked_by_file_id() -> Ask:
    """Where the current path is erased, the file id can still be asked for."""
    world = small()
    world.record(1, Operation.ERASED, argument=Erased(1, Part.PATH))
    world.erase(world.histories[1], 1, Part.PATH)
    world.publish()
    return Ask(world, world.prove(1), path=None, file_id=1)


@case("VERIFIED")
def sealed_and_required() -> Ask:
    """The owner's device sealed the current version, and the user demands that."""
    world = sealed(small())
    return Ask(world, world.prove(1), require_seal=True)


@case("VERIFIED")
def sealed_twice() -> Ask:
    """Two seals; the second one names the first, and is the one whose tree is asked for."""
    world = sealed(small())
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish()
    sealed(world)
    return Ask(world, world.prove(1), b"three", require_seal=True)


@case("VERIFIED")
def alteration_and_gap_accepted_by_a_seal() -> Ask:
    """The owner's seal lists an alteration and a gap."""
    world = altered(alone())
    world.record(1, Operation.GAP, argument=Gap(GapReason.UNOBSERVED))
    world.publish()
    world.record_seal(1, accepts=(key_of(world, 2), key_of(world, 3)))
    world.publish()
    return Ask(world, world.prove(1), b"evil")


@case("VERIFIED")
def stranger_with_a_seal() -> Ask:
    """Who has the owner's key and no blinding key is told by the seal which file this is."""
    world = sealed(small())
    return Ask(world, world.prove(1), reader=False)


@case("VERIFIED")
def stranger_who_is_shown_contents_alone() -> Ask:
    """Who has the owner's key alone and asks by file id need not see paths and contexts; other bytes under it fail."""
    world = small()
    world.record(1, Operation.MOVED, b"two", "private/b.txt")
    world.publish()
    sealed(world)
    return Ask(world, withhold(world.prove(1)), path=None, file_id=1, reader=False)


@case("VERIFIED")
def stranger_who_is_shown_contents_alone_of_two_generations() -> Ask:
    """Nor those of the end of the generation before."""
    world = two_generations(world=alone())
    world.record_seal(1)
    world.publish()
    return Ask(world, withhold(world.prove(1)), path=None, file_id=1, reader=False)


@case("VERIFIED")
def generation_1() -> Ask:
    """The chain was closed by its owner and continued."""
    world = two_generations(world=alone())
    return Ask(world, world.prove(1))


@case("VERIFIED")
def generation_2() -> Ask:
    """Closed and continued twice: two ends are shown, the newest first."""
    world = two_generations(world=alone())
    world.close(1)
    world.continue_(1, b"two", "a.txt")
    world.publish()
    return Ask(world, world.prove(1))


@case("VERIFIED")
def generation_after_deletion() -> Ask:
    """A chain that was closed while the file was deleted: the next one may have any content and path."""
    world = small()
    world.record(1, Operation.DELETED)
    world.close(1)
    world.continue_(1, b"new", "b.txt")
    world.publish()
    return Ask(world, world.prove(1), b"new", path="b.txt")


@case("VERIFIED")
def unsigned_close_accepted_by_a_seal() -> Ask:
    """The server closed the chain before; the owner's seal accepts that."""
    world = two_generations(signed=False, world=alone())
    world.record_seal(1, accepts=((world.prove(1).earlier[0].chain_id, 2),))
    world.publish()
    return Ask(world, world.prove(1))


def another_root(*, accepted: bool, word: Seen | None = None) -> World:
    """File 1 began under a root that the server held, and its owner has enrolled since. `word`: what it gives up."""
    world = alone()
    foreign = keys.owner_root(bytes(32), bytes(32))
    chain_id = keys.chain_id(bytes(32), world.source, 1, 0)
    old = world.histories[1] = History(Binding(world.log_name, world.source, foreign, 1, chain_id, None), 0, None)
    world.record(1, Operation.CREATED, b"one", "a.txt")
    world.publish()
    world.close(1, CloseReason.DECLARED if word else CloseReason.ENROLMENT, signed=word is not None, seen=word)
    end: Ending = old.chain.ending()
    end = end._replace(taints=(Taint(end.chain_id, end.seq, TaintKind.UNSIGNED_CLOSE),))  # whatever signature it has
    history = world.histories[1] = History(world.binding(1), 0, end)
    history.previous = old
    world.record(1, Operation.ADOPTED, b"one", "a.txt", Predecessor(end.chain_id, end.seq, end.head))
    world.record(1, Operation.WRITTEN, b"two", "a.txt")
    world.publish()
    if accepted:
        world.record_seal(1, accepts=((end.chain_id, end.seq),))
        world.publish()
    return world


@case("VERIFIED")
def predecessor_under_another_root() -> Ask:
    """The chain before belonged to another root, and the owner's seal accepts what was done there."""
    world = another_root(accepted=True)
    return Ask(world, world.prove(1))


@case("VERIFIED")
def path_of_a_file_that_moved() -> Ask:
    """Another file was at this path when the client looked; its move away is in the same map."""
    world, memory = taken_over(Operation.MOVED, world=alone())
    return Ask(world, world.prove(2, pinned=2, replaces=(1,)), b"new", memory=memory)


@case("VERIFIED")
def path_of_a_file_whose_chain_ended() -> Ask:
    """Another file was at this path; its chain is closed, and the map has no next generation."""
    world, memory = taken_over(Operation.CLOSED, world=alone())
    return Ask(world, world.prove(2, pinned=2, replaces=(1,)), b"new", memory=memory)


@case("VERIFIED")
def short_proof() -> Ask:
    """The proof starts at step 2, and the state has the steps before it."""
    world = small()
    seen, size = world.prove(1), max(world.notes)
    world.record(1, Operation.WRITTEN, b"three", "a.txt")
    world.publish()
    memory = Memory(world.notes[size], seen, 1)
    return Ask(world, world.prove(1, pinned=size, first_seq=2), b"three", memory=memory)


@case("VERIFIED")
def short_proof_without_new_steps() -> Ask:
    """Nothing happened to the file since: the proof has no entry at all."""
    world = small()
    seen, size = world.prove(1), max(world.notes)
    world.record(2, Operation.CREATED, b"other", "b.txt")
    world.publish()
    return Ask(world, world.prove(1, pinned=size, first_seq=2), memory=Memory(world.notes[size], seen, 1))


@case("VERIFIED")
def same_tree_as_seen() -> Ask:
    """The tree is the one that was seen: nothing has to be shown, though newer cosignatures are there."""
    world = small()
    size = max(world.notes)
    memory = Memory(world.notes[size], world.prove(1), 1)
    world.tick()
    return Ask(world, world.prove(1)._replace(checkpoint=noted(world, size, [world.now])), memory=memory)


@case("VERIFIED")
def times_of_cosigners_differ() -> Ask:
    """Four cosigners of which three are a quorum sign 10, 20, 30 and 1000 s after the log: times come from the rule."""
    world = a_file()
    size = max(world.notes)
    note = noted(world, size, [START + 10 + seconds for seconds in (10, 20, 30, 1_000)])
    world.now = START + 2_000
    return Ask(world, world.prove(1)._replace(checkpoint=note, first=None), path="d.txt", max_age_s=1_970)


@case("VERIFIED")
def quorum_of_groups() -> Ask:
    """The quorum is two of two groups, each of two witnesses of whom one or both must sign."""
    world = a_file()
    for role in ("policy_text", "auditors_text"):
        lines = getattr(world, role).split(b"group g")[0]
        setattr(world, role, lines + b"group a any w0 w1\ngroup b all w2 w3\ngroup both 2 a b\nquorum both\n")
    return Ask(world, world.prove(1), path="d.txt")
