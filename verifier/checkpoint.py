"""Checkpoints: the text in which a log states its name, size and root (c2sp.org/tlog-checkpoint@v1.0.0).

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    text = origin LF size LF base64(root) LF *(extension LF)

The origin is the log's name: opaque, compared byte by byte, never fetched as a URL; at most 255 bytes
(tlog-cosignature, `log_origin<1..2^8-1>`), no control characters. The size is a decimal of at most 2^63-1, the root
32 bytes.

Extension lines are not covered by what witnesses vouch for, and no log of ours has any, so they are Malformed unless
the caller asks for them. A witness of other logs has to (C2SP lets them have some, and a cosignature covers the whole
text), and finds them in `extensions`.

Not checked here: cosigners (`policy`), consistency with an earlier checkpoint (`merkle`), and that a tree of size 0
has the empty tree's root (`merkle.verify_consistency` from size 0 does; proofs refuse size 0 altogether).
"""

from __future__ import annotations

from verifier.encoding import HASH_SIZE, MAX_U64, check_text, decode_base64, decode_decimal, encode_base64
from verifier.errors import Malformed, NotProven
from verifier.note import MAX_NOTE_SIZE, Note, VerifierKey, find_signature, parse_note, verify_signature
from verifier.record import NamedTuple

MAX_ORIGIN_SIZE = 255  # tlog-cosignature: opaque log_origin<1..2^8-1>


class Checkpoint(NamedTuple):
    """A tree head under the log's name."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def excludes(self, other: Checkpoint) -> bool:
        """Not both are trees of one log that only grew: it has two roots for one size."""
        return self.size == other.size and self.origin == other.origin and self.root != other.root


def parse_checkpoint_unverified(text: bytes, extensions: bool = False) -> Checkpoint:
    """What a note's text states. Nobody's signature is checked: callers want `open_checkpoint`."""
    try:
        lines = text.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8", "checkpoint") from None
    if len(lines) < 4 or lines.pop():
        raise Malformed("want three lines or more that end in a newline", "checkpoint", text)
    if len(lines) > 3 and not extensions:
        raise Malformed("want no extension lines", "checkpoint", lines[3])
    return Checkpoint(
        check_text(lines[0], "checkpoint origin", MAX_ORIGIN_SIZE),
        decode_decimal(lines[1], "checkpoint size"),
        decode_base64(lines[2], "checkpoint root", HASH_SIZE),
        tuple([check_text(line, "checkpoint extension", MAX_NOTE_SIZE) for line in lines[3:]]),
    )


def format_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The text that `parse_checkpoint_unverified` gives this checkpoint for."""
    origin, size, root, extensions = checkpoint
    if not 0 <= size <= MAX_U64:
        raise Malformed(f"want at most {MAX_U64}", "checkpoint size", size)
    if len(root) != HASH_SIZE:
        raise Malformed(f"want {HASH_SIZE} bytes", "checkpoint root", len(root))
    check_text(origin, "checkpoint origin", MAX_ORIGIN_SIZE)
    for line in extensions:
        check_text(line, "checkpoint extension", MAX_NOTE_SIZE)
    lines = [origin, str(size), encode_base64(root), *extensions]
    return "".join([line + "\n" for line in lines]).encode("utf-8")


def open_checkpoint(
    data: bytes, *log_keys: VerifierKey, origin: str | None = None, extensions: bool = False
) -> tuple[Note, Checkpoint]:
    """Note and checkpoint, once a key of the log has signed: the log stands by this size and root.

    A key is the log's if its name equals the origin (tlog-policy: MUST). For logs where it does not, like Go's sum
    database, the caller gives the origin that all these keys speak for. Every line of these keys has to hold.
    """
    note, checkpoint, signers = open_earlier(data, *log_keys, origin=origin, extensions=extensions)
    if not signers:
        raise NotProven(
            "unsigned",
            f"checkpoint: no signature of {checkpoint.origin!r} by a key of this policy. The log may have a new key: "
            "get the new policy by file from its operator, and compare the fingerprint; never take one from the server",
        )
    return note, checkpoint


def open_earlier(
    data: bytes, *log_keys: VerifierKey, origin: str | None = None, extensions: bool = False
) -> tuple[Note, Checkpoint, list[VerifierKey]]:
    """The same for a tree which the caller shows to be the beginning of one that the log signed; and who signed it.

    The bigger tree's signature covers the smaller one, so none of these keys has to have signed here: a key that has
    been replaced may be the only one that did (SPEC 8.1). Without a signer this convicts the log of nothing.
    """
    note = parse_note(data)
    checkpoint = parse_checkpoint_unverified(note.text, extensions)
    if origin is None:
        log_keys = tuple([key for key in log_keys if key.name == checkpoint.origin])
    elif origin != checkpoint.origin:
        raise NotProven("unknown-log", f"checkpoint origin: got {checkpoint.origin!r}, want {origin!r}")
    if not log_keys:
        raise NotProven("unknown-log", f"checkpoint origin: no key of {checkpoint.origin!r} is known")
    signers = [key for key in log_keys if find_signature(note, key) is not None]
    for key in signers:
        verify_signature(note, key)
    return note, checkpoint, signers
