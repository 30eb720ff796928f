"""Every way a check can fail. Nothing else leaves this package.

    Error
    ├── Malformed            the bytes are not in the format at all            exit 4
    ├── Usage                the caller asked for something that makes no sense exit 4
    └── NotVerified          well formed, and not what it would have to be
        ├── NotProven        nothing speaks against the file, too little for it exit 2
        │   ├── BadSignature     a known key's signature does not hold
        │   ├── QuorumNotMet     too few cosigners
        │   └── RootMismatch     a Merkle path does not lead to the signed root
        ├── Changed          bytes or history differ from what was logged       exit 1
        │   ├── ChainBroken      entries do not hash to the committed head
        │   └── IllegalStep      an operation that may not follow the one before
        └── Fork             two signed views that exclude each other           exit 3

Messages are lower case, name the field first, say "got …, want …", and never hold a secret.
"""

from __future__ import annotations


class Error(Exception):
    """Base of everything that `verifier` raises on purpose."""


class Malformed(Error):
    """The input is not in the format. `where` names the field or line."""

    def __init__(self, what: str, where: str, got: object = None) -> None:
        shown = "" if got is None else f", got {_short(got)}"
        super().__init__(f"{where}: {what}{shown}")
        self.what, self.where, self.got = what, where, got


class Usage(Error):
    """A request that cannot be carried out as asked. The message says what to do instead."""


class NotVerified(Error):
    """Well formed, and yet not proven to be what it claims."""


class NotProven(NotVerified):
    """Too little is shown. `reason` is a stable word from SPEC 9 (`stale`, `unwitnessed`, ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadSignature(NotProven):
    """A signature line of a key that we know does not hold. Unknown keys never raise this."""

    def __init__(self, name: str, key_id: bytes, why: str = "does not hold") -> None:
        super().__init__("bad-signature", f"signature of {name} ({key_id.hex()}) {why}")
        self.name, self.key_id = name, key_id


class QuorumNotMet(NotProven):
    """Too few valid cosignatures. The counts are names of the policy, not lines of the note."""

    def __init__(self, reason: str, needed: str, valid: tuple[str, ...], missing: tuple[str, ...]) -> None:
        super().__init__(
            reason,
            f"quorum {needed} not met: valid {_names(valid)}, missing {_names(missing)}",
        )
        self.needed, self.valid, self.missing = needed, valid, missing


class RootMismatch(NotProven):
    """A Merkle path leads elsewhere. `expected` is the signed root, `computed` where the path led."""

    def __init__(self, what: str, expected: bytes, computed: bytes) -> None:
        super().__init__(
            "broken-proof",
            f"{what}: path leads to root {computed.hex()}, want {expected.hex()}",
        )
        self.expected, self.computed = expected, computed


class Changed(NotVerified):
    """Bytes or history differ from what was logged. `seq` is the step where it shows, if known."""

    def __init__(self, reason: str, message: str, seq: int | None = None) -> None:
        super().__init__(message)
        self.reason, self.seq = reason, seq


class ChainBroken(Changed):
    """The entries shown do not hash to the chain head that the log committed to."""

    def __init__(self, seq: int, expected: bytes, got: bytes) -> None:
        super().__init__(
            "history",
            f"history up to step {seq} differs from what was logged: head {got.hex()}, want {expected.hex()}",
            seq,
        )


class IllegalStep(Changed):
    """An operation that the legality table (SPEC 4) does not allow at this place."""

    def __init__(self, seq: int, why: str) -> None:
        super().__init__("illegal", f"step {seq} is not legitimate: {why}", seq)


class Fork(NotVerified):
    """Two statements, each signed, that cannot both be true. `evidence` convinces a third person."""

    def __init__(self, message: str, evidence: dict[str, object]) -> None:
        super().__init__(message)
        self.evidence = evidence


def _short(value: object) -> str:
    if isinstance(value, list | dict):  # as deep as somebody likes
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "none"
