"""A declared loss: a log that goes on under a new origin, and says what of the old one it has lost (SPEC 6.5).

    {"format":"nextcloud-audit/loss/1","declared":[
      {"note":"log.example/files\\n40\\n…","key":"…","kept":"34","signature":"…"},…]}

Each declaration, the newest first, links two origins: `note` is the last cosigned note of the one before, `key` the
first public key of the one after, `kept` the number of old leaves that are there again, and a key that signed the note
has signed all of it. Leaf 0 of the newest origin holds the hash of the file. A log that has only its old name in
common, or somebody else's note, has no such signature; and two declarations over one origin that differ, signed by one
key, convict it.

In a proof the same list stands under `loss`, with the inclusion of leaf 0. As a file it is what the log serves under
/loss, for those who replay it.

Not checked here: that all leaves which survived are there (auditors).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha3_256

from verifier import ed25519
from verifier.canonical import members, parse_object
from verifier.checkpoint import Checkpoint, open_checkpoint
from verifier.encoding import tag, text
from verifier.errors import BadSignature, Malformed, NotProven
from verifier.leaf import LOSS, LossLeaf, encode_leaf
from verifier.merkle import leaf_hash, verify_inclusion
from verifier.note import Note, VerifierKey, find_signature
from verifier.policy import Policy, verify_quorum
from verifier.proof import Declared, Loss, format_declared, parse_declared

FORMAT = "nextcloud-audit/loss/1"
MAX_LOSS_SIZE = 4 * 1024 * 1024  # bytes of the file
NEW_ORIGIN = (
    "the server says that this log has lost leaves and goes on under a new origin. If its operator tells you so too, "
    "get the new policies by file, compare the fingerprints, and give them once with `verify --replace-policy`"
)


def loss_message(origin: str, key: bytes, kept: int, note: bytes) -> bytes:
    """What the old origin's key signs: the log of this note goes on from it under `origin`, with this first key.

    [R] And which leaves it goes on with: those below `kept`. Without that word a leaf that was changed could not be
    told from one that was lost, and an honest log not from a liar (SPEC 9.1, changed-leaf).
    """
    return tag("loss") + text(origin) + key + kept.to_bytes(8, "big") + sha3_256(note).digest()


def shift_after(first: bytes) -> int:
    """How much further the leaves stand under the new origin, by leaf 0 of the old one: a leaf 04 is not kept."""
    return 0 if first[:1] == bytes([LOSS]) else 1


def format_loss(declared: Sequence[Declared]) -> bytes:
    """The one spelling of the file."""
    return b'{"format":"%b","declared":%b}\n' % (FORMAT.encode("ascii"), format_declared(declared))


def loss_leaf(declared: Sequence[Declared]) -> bytes:
    """Leaf 0 of the newest origin. [R] All that is declared is in the tree, so nobody is told another `kept`."""
    return encode_leaf(LossLeaf(sha3_256(format_loss(declared)).digest()))


def parse_loss(data: bytes) -> list[Declared]:
    """A file to its declarations, the newest first; well formed, and nothing more."""
    if len(data) > MAX_LOSS_SIZE:
        raise Malformed(f"want at most {MAX_LOSS_SIZE} bytes", "loss", len(data))
    name, declared = members(parse_object(data, "loss"), "loss", "format", "declared")
    if name != FORMAT:
        raise Malformed(f"want {FORMAT}", "loss format", name)
    found = parse_declared(declared)
    if format_loss(found) != data:
        raise Malformed("not the canonical spelling", "loss")
    return found


def open_declared(one: Declared, origin: str, old_keys: Sequence[VerifierKey]) -> tuple[Note, Checkpoint]:
    """The old origin's note, once its log signed it, and one of those keys has handed on to `origin` and `one.key`."""
    try:
        note, checkpoint = open_checkpoint(one.note, *old_keys)
    except NotProven as error:
        raise NotProven("loss-note", f"the note of a declared loss: {error}") from None
    if checkpoint.origin == origin or checkpoint.size == 0:
        raise NotProven(
            "loss-note", "the note of a declared loss is of another origin, and of a tree that is not empty"
        )
    message = loss_message(origin, one.key, one.kept, one.note)
    signers = [key for key in old_keys if key.name == checkpoint.origin and find_signature(note, key) is not None]
    if not any(_has_signed(key, one.signature, message) for key in signers):
        raise NotProven("loss-note", f"no key that signed the note of {checkpoint.origin!r} hands on to {origin!r}")
    return note, checkpoint


def open_lost(
    loss: Loss, first_origin: str, tree: Checkpoint, witnesses: Policy, not_after: int
) -> list[tuple[Note, Checkpoint]]:
    """[R] The notes of all origins before this tree's, the newest first, each with its quorum of witnesses."""
    lost = open_chain(loss, first_origin, tree, witnesses.log_keys)
    for note, old in lost:
        try:
            verify_quorum(witnesses, note, not_after)
        except NotProven as error:
            raise NotProven("loss-note", f"the last note of {old.origin!r}: {error}") from None
    return lost


def _has_signed(key: VerifierKey, signature: bytes, message: bytes) -> bool:
    try:
        ed25519.verify(key.public_key, signature, message, key.name, key.key_id)
    except BadSignature:
        return False
    return True


def open_chain(
    loss: Loss, first_origin: str, tree: Checkpoint, keys: Sequence[VerifierKey]
) -> list[tuple[Note, Checkpoint]]:
    """The notes of all origins before this tree's, the newest first, linked to the origin that names the log."""
    opened: list[tuple[Note, Checkpoint]] = []
    origin = tree.origin
    for one in loss.declared:
        if (origin, one.key) not in [(key.name, key.public_key) for key in keys]:
            raise NotProven("loss-note", f"the policy does not name the key with which {origin!r} began")
        opened.append(open_declared(one, origin, keys))
        origin = opened[-1][1].origin
    if origin != first_origin or len({tree.origin, *[old.origin for _, old in opened]}) != len(opened) + 1:
        raise NotProven("loss-note", f"the declared losses do not lead back to {first_origin!r}")
    leaf = leaf_hash(loss_leaf(loss.declared))
    verify_inclusion(0, tree.size, leaf, loss.hashes, tree.root)
    return opened
