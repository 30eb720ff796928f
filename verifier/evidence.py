"""Evidence of a fork: two signed statements that cannot both be true, in one file that a third person can check.

SPEC 9.1. What it shows follows from public keys alone:

    two-roots       two notes that the log signed, of one size and with different roots
    rolled-back     two notes that one witness cosigned, the smaller tree at the later time
    two-histories   two proofs of one chain, both signed by the log, that differ at a step that they share
"""

from __future__ import annotations

from verifier.proof import Proof, format_proof

EVIDENCE_FORMAT = "nextcloud-audit/evidence/1-draft"


def note_evidence(kind: str, *notes: bytes) -> dict[str, object]:
    """Evidence made of signed notes, verbatim."""
    return {"format": EVIDENCE_FORMAT, "kind": kind, "notes": [note.decode("utf-8") for note in notes]}


def history_evidence(*proofs: Proof) -> dict[str, object]:
    """Evidence made of whole proofs."""
    texts = [format_proof(proof).decode("utf-8") for proof in proofs]
    return {"format": EVIDENCE_FORMAT, "kind": "two-histories", "proofs": texts}
