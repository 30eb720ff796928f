"""What stands against a history until the owner's seal accepts it: taints, and what the log has declared lost.

SPEC 9, step 10 (4.4 and 6.5). No later operation of the server clears any of it. This is loaded only where something
stands.
"""

from __future__ import annotations

from verifier.chain import Chain
from verifier.checkpoint import Checkpoint
from verifier.entry import TaintKind
from verifier.errors import Changed, NotProven
from verifier.words import when


def raise_taints(chain: Chain, mended: frozenset[tuple[bytes, int]]) -> None:
    """The worst taint that stands and is not about to be mended."""
    for kind in TaintKind:  # the worst first
        _raise_taints(chain, kind, mended)


def _raise_taints(chain: Chain, kind: TaintKind, mended: frozenset[tuple[bytes, int]]) -> None:
    taints = [t for key, t in chain.taints.items() if t.kind is kind and key not in mended]
    if not taints:
        return
    own = [taint.seq for taint in taints if taint.chain_id == chain.binding.chain_id]
    where = "step " + ", ".join(map(str, own)) if own else "an earlier generation"
    if kind is TaintKind.ALTERED:
        message = f"the bytes changed with no operation ({where}), and no seal of the owner accepts that"
        raise Changed("altered", message, own[0] if own else None)
    if kind is TaintKind.GAP:
        raise NotProven("gap", f"history is known to be missing ({where}), and no seal of the owner accepts that")
    raise NotProven("unsigned-close", "an earlier generation was closed without the owner, and no seal accepts that")


def declared_lost(old: Checkpoint, until: int) -> NotProven:
    """All of the log's history after this tree, the newest that was declared lost, which stood at that time."""
    return NotProven(
        "declared-loss",
        f"history after {when(until)} (tree {old.size} of {old.origin}) was declared lost by the server, and no seal "
        "of the owner accepts that",
    )
