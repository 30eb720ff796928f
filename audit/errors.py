"""What log and node raise across their floors. Which HTTP status each gets is said in `api.STATUS` and `node.STATUS`.

    AuditError
    ├── Refused      the caller asked for what may not be; nothing was written
    ├── TryLater     not now, and nothing was written; the same request may succeed later
    │   └── Busy     another node says so, and how long to wait
    ├── Conflict     the caller is behind; `known_size` is where we are
    ├── PeerFailed   another node did not answer, or not as the protocol says
    │   ├── PeerUnreached   nobody listens there
    │   └── PeerLacks       it answered, and does not have what was asked for
    ├── Fatal        what is on disk is no longer known: stop, the next start recovers
    └── Damaged      a row on disk is not what was written; becomes Fatal where it is known which one

Messages as in `verifier.errors`: lower case, the field first, "got …, want …", never a secret.
"""

from __future__ import annotations


class AuditError(Exception):
    """Base of what the service raises on purpose."""


class Refused(AuditError):
    """The caller's fault. `position` says which item of a batch, where there is one; nothing of it was written."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class TryLater(AuditError):
    """Pushback, no failure: nothing was written, and nothing is wrong with the request."""


class Busy(TryLater):
    """The peer asks to come again, `retry_s` seconds from now."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Conflict(AuditError):
    """The request builds on a state that is not ours. `known_size` is the tree size that we know."""

    def __init__(self, known_size: int) -> None:
        super().__init__(f"tree size: known is {known_size}")
        self.known_size = known_size


class PeerFailed(AuditError):
    """Another node, or the network on the way to it, did not do its part."""


class PeerUnreached(PeerFailed):
    """Nobody listens at another node's address, or no way leads there."""


class PeerLacks(PeerFailed):
    """Another node answered, and does not have what it was asked for."""


class Fatal(AuditError):
    """A write may or may not have reached the disk. The process stops; recovery is the normal start."""


class Damaged(AuditError):
    """A row is not what was written. Whoever reads it knows which one, and what that means."""
