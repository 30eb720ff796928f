"""What a witness answers, decided without clock, socket or disk (c2sp.org/tlog-witness, SPEC 8).

    old 20852014
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
    jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE...

    request = "old " decimal LF *63(base64(hash) LF) LF note    at most 128 KiB; numbers and hashes have one spelling

The checks, in the order of the specification; the error says what `audit.node` answers:

    1  the request is well formed                                       Malformed
    2  the origin is that of a log we watch, and not our own name       UnknownLog
    3  the log's key has a line, and it holds                           Untrusted
    4  old size <= checkpoint size                                      Malformed
    5  old size == the size that we cosigned last, 0 if never           OutOfStep (a Conflict)
    6  same size, same root; the proof leads from root to root          Inconsistent
    7  our clock is not before our last cosignature                     TryLater

A checkpoint that fails 5 or 6 is signed by the log, so it is worth keeping: `kind` says as what. Of two roots for one
size the two notes alone convince anybody ("fork"); a failed proof convinces nobody, but two notes and a full mirror do.

Foreign logs may have extension lines. A cosignature covers them and says nothing about them.

`decide` is a function: the caller persists `Decision.head` first and answers after that (`audit.witness_store`). Not
checked here: what the leaves say; that is an auditor's work (`audit.auditor`), which follows the same rules 5 to 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from audit.errors import Conflict, Refused, TryLater
from verifier.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint_unverified
from verifier.encoding import HASH_SIZE, decode_base64, decode_decimal, encode_base64
from verifier.errors import BadSignature, Malformed, NotVerified
from verifier.merkle import EMPTY_ROOT, MAX_PROOF_HASHES, verify_consistency
from verifier.note import (
    Note,
    SignerKey,
    VerifierKey,
    cosign,
    find_signature,
    format_note,
    format_signature_line,
    parse_note,
    verify_signature,
)

MAX_REQUEST_SIZE = 128 * 1024  # SPEC 1.5: as large as the largest note
EARLIEST_TIME = 1_735_689_600  # 2025-01-01: an earlier clock is one that nobody has set

FORK = "fork"  # one size, two roots, both signed by the log
CONSISTENCY = "consistency"  # the log could not show that the new tree holds the old one
CONFLICT = "conflict"  # another old size than ours: mostly a log that lost track
FINDING = "finding"  # leaves that break a rule of SPEC 6, under a signed root


def hash_origin(origin: str) -> str:
    """The name of a log in addresses and of its files: the origin's SHA-256, in hex."""
    return sha256(origin.encode("utf-8")).hexdigest()


class UnknownLog(Refused):
    """No log of this origin is watched here."""


class Untrusted(Refused):
    """No signature of the log's key, or one that does not hold."""


class Retired(Refused):
    """This node has lost its memory of what it signed, and signs nothing any more."""


class Ended(Refused):
    """The log goes on under another origin, and this one is signed for no more."""


class OutOfStep(Conflict):
    """The request starts from another size than the one cosigned last. `kind` is None where nothing is to be kept."""

    def __init__(self, known_size: int, kind: str | None) -> None:
        super().__init__(known_size)
        self.kind = kind


class Inconsistent(Refused):
    """The checkpoint is signed and does not follow from the one cosigned before. `kind` says as what it is kept."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Request(NamedTuple):
    """An add-checkpoint request, parsed, nothing verified."""

    old_size: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


class Head(NamedTuple):
    """What a signer cosigned last for a log: tree head, time, and the note with the log's line and the signer's own."""

    size: int
    root: bytes
    time: int
    note: bytes


class Decision(NamedTuple):
    """Store `head`, and when it is on disk answer with these signature lines."""

    head: Head
    answer: bytes


def parse_request(body: bytes) -> Request:
    """The request that `format_request` gives these bytes for."""
    where = "add-checkpoint request"
    if len(body) > MAX_REQUEST_SIZE:
        raise Malformed(f"want at most {MAX_REQUEST_SIZE} bytes", where, len(body))
    top, separator, rest = body.partition(b"\n\n")
    try:
        old, *hashes = top.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Malformed("not ASCII", "old size and proof") from None
    if not separator or not old.startswith("old "):
        raise Malformed("want an old size line, proof lines and an empty line", where)
    if len(hashes) > MAX_PROOF_HASHES:
        raise Malformed(f"want at most {MAX_PROOF_HASHES} lines", "consistency proof", len(hashes))
    size = decode_decimal(old.removeprefix("old "), "old size")
    proof = tuple([decode_base64(line, "consistency proof", HASH_SIZE) for line in hashes])
    note = parse_note(rest)
    return Request(size, proof, note, parse_checkpoint_unverified(note.text, extensions=True))


def format_request(old_size: int, proof: tuple[bytes, ...], note: bytes) -> bytes:
    """The body of an add-checkpoint request."""
    hashes = "".join([encode_base64(value) + "\n" for value in proof])
    return f"old {old_size}\n{hashes}\n".encode("ascii") + note


def open_log_note(note: Note, keys: Sequence[VerifierKey], origin: str, own_names: tuple[str, ...]) -> Note:
    """The note with the log's lines alone, once there is one and all hold: whoever else signed is not passed on."""
    if not keys or origin in own_names:
        raise UnknownLog(f"checkpoint origin: {origin!r} is not watched here")
    signed = [key for key in keys if find_signature(note, key) is not None]
    if not signed:
        ids = ", ".join([key.key_id.hex() for key in keys])
        raise Untrusted(f"checkpoint: no signature of {origin} ({ids})")
    try:
        for key in signed:
            verify_signature(note, key)
    except BadSignature as error:
        raise Untrusted(f"checkpoint: {error}") from None
    lines = {(key.name, key.key_id) for key in signed}
    return Note(note.text, tuple([s for s in note.signatures if (s.name, s.key_id) in lines]))


def decide(request: Request, head: Head | None, latest: int, now: int, signer: SignerKey) -> Decision:
    """The cosignature for a request whose note `open_log_note` gave, and the head to store before it leaves.

    `head` is what this signer cosigned last for this origin, `latest` its newest time for any log.
    """
    checkpoint, known_size = request.checkpoint, head.size if head else 0
    if request.old_size > checkpoint.size:
        raise Malformed(f"want at most the checkpoint's size {checkpoint.size}", "old size", request.old_size)
    if request.old_size != known_size:
        raise OutOfStep(known_size, evidence_kind(checkpoint, head))
    known_root = head.root if head else EMPTY_ROOT
    if is_fork(checkpoint, head):
        raise Inconsistent(FORK, f"checkpoint root of size {known_size}: got another one than was cosigned before")
    try:
        verify_consistency(known_size, known_root, checkpoint.size, checkpoint.root, request.proof)
    except (Malformed, NotVerified) as error:
        raise Inconsistent(CONSISTENCY, str(error)) from None
    return advance(request.note, checkpoint, latest, now, signer)


def is_fork(checkpoint: Checkpoint, head: Head | None) -> bool:
    """Whether the log signed another root for the very size that was cosigned last."""
    return head is not None and head.size == checkpoint.size and head.root != checkpoint.root


def evidence_kind(checkpoint: Checkpoint, head: Head | None) -> str | None:
    """What a checkpoint from the wrong old size is kept as: nothing where it is the one that we have."""
    if head and (head.size, head.root) == (checkpoint.size, checkpoint.root):
        return None
    return FORK if is_fork(checkpoint, head) else CONFLICT


def advance(note: Note, checkpoint: Checkpoint, latest: int, now: int, signer: SignerKey) -> Decision:
    """Signs a checkpoint that passed every other check. What is signed is encoded anew from what was parsed."""
    if now < max(latest, EARLIEST_TIME):
        raise TryLater(
            f"clock: got {now}, want at least {max(latest, EARLIEST_TIME)}, when this node cosigned last: "
            "its clock went back, and it signs nothing until that is set right"
        )
    line = cosign(format_checkpoint(checkpoint), signer, now)
    cosigned = format_note(Note(note.text, (*note.signatures, line)))
    return Decision(Head(checkpoint.size, checkpoint.root, now, cosigned), format_signature_line(line))
