"""The owner's end of a chain whose steps were declared lost: an entry made and signed by the owner (SPEC 4.7)."""

from __future__ import annotations

import os

from verifier import ed25519
from verifier.chain import Chain, close_message
from verifier.client import Signer
from verifier.entry import (
    MAX_LISTED,
    SALT_SIZE,
    Closed,
    CloseReason,
    Content,
    Entry,
    Operation,
    Part,
    Seen,
    commit,
    encode_content,
    encode_entry,
    encode_path,
)
from verifier.errors import Usage
from verifier.proof import Line


def sign_closed(chain: Chain, seen: Seen, signer: Signer, now: int, path: str | None = None) -> Line:
    """`closed` after the chain's last step, with its openings: it keeps content and path, and lists what stands.

    `path`: where the file is by the owner's word, for a chain whose current path is erased.
    """
    if len(chain.taints) > MAX_LISTED:
        raise Usage(f"closed: {len(chain.taints)} taints stand, and what an owner signs lists {MAX_LISTED} at most")
    live = chain.status == "live"
    content = chain.content if live and isinstance(chain.content, Content) else None
    if live and isinstance(chain.path, str):
        path = chain.path
    elif not live:
        path = None
    openings = [os.urandom(SALT_SIZE) + part for part in (encode_content(content), encode_path(path), b"")]
    commitments = [commit(part, opening) for part, opening in zip(Part, openings, strict=True)]
    closed = Closed(CloseReason.DECLARED, tuple(sorted(chain.taints.values())), b"", seen)
    content_hash, path_hash, context_hash = commitments
    entry = Entry(Operation.CLOSED, chain.seq + 1, now, 0, content_hash, path_hash, context_hash, closed)
    signature = ed25519.load_private_key(signer.private).sign(close_message(chain.binding, chain.head, entry))
    return Line(encode_entry(entry._replace(argument=closed._replace(signature=signature))), *openings)
