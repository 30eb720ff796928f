"""What goes into a verification, what its steps hand on, what comes out: trust, question, memory; run; report.

SPEC 9. These are values, without a rule among them; the rules are in `verifier.verify`.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property

from verifier.chain import Binding, Chain, Ending
from verifier.checkpoint import Checkpoint, open_checkpoint
from verifier.entry import Content
from verifier.errors import Changed, Fork, NotProven, NotVerified
from verifier.note import Note, VerifierKey
from verifier.policy import Cosigned, Policy
from verifier.proof import Proof
from verifier.record import NamedTuple

DEFAULT_MAX_AGE_S = 7 * 24 * 3600  # SPEC 8.4


class Verdict(Enum):
    """What the report says, worst last. The values are the words that users read."""

    VERIFIED = "VERIFIED"
    NOT_PROVEN = "NOT PROVEN"
    CHANGED = "CHANGED"
    FORK = "FORK"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {Verdict.VERIFIED: 0, Verdict.NOT_PROVEN: 1, Verdict.CHANGED: 2, Verdict.FORK: 3}


class Trust(NamedTuple):
    """What the user brings: policies by file, and keys. `blinding` None: neither seed nor reader key is held."""

    log_name: str
    source_id: str
    witnesses: Policy
    auditors: Policy
    owner_key: bytes
    blinding: bytes | None

    @property
    def cosigners(self) -> list[VerifierKey]:
        return [witness.key for policy in (self.witnesses, self.auditors) for witness in policy.witnesses.values()]


class Question(NamedTuple):
    """What the user asks. Times in POSIX seconds. `content` None asks about the history alone."""

    now: int
    content: Content | None = None
    path: str | None = None
    file_id: int | None = None
    max_age_s: int = DEFAULT_MAX_AGE_S
    as_of: int | str | None = None  # a time, or "proof"
    require_seal: bool = False
    mends: frozenset[tuple[bytes, int]] = frozenset()  # taints that a seal in the making will accept
    mends_loss: bool = False  # and so it will a declared loss


class Memory(NamedTuple):
    """What this client's state holds that bears on the proof (SPEC 10)."""

    checkpoint: bytes | None = None
    chain: Proof | None = None  # the last whole proof that was VERIFIED for this file
    path_file_id: int | None = None  # the file id that this path had
    path_chain: Proof | None = None  # the last whole proof that was VERIFIED for that file


class Finding(NamedTuple):
    """One thing that keeps the verdict from VERIFIED. `reason` is a stable word, `seq` the step where it shows."""

    verdict: Verdict
    reason: str
    message: str
    seq: int | None = None


class Times(NamedTuple):
    """When, in POSIX seconds, as the quorum says. `not_before` None: the proof has no earlier checkpoint."""

    not_before: int | None
    not_later_than: int
    still_newest_at: int


class Report(NamedTuple):
    """The verdict and everything that it rests on. `proof` is whole: a short one was joined to the stored one."""

    verdict: Verdict
    findings: list[Finding]
    question: Question
    proof: Proof
    chain: Chain | None
    checkpoint: Checkpoint | None
    witnesses: Cosigned | None
    auditors: Cosigned | None
    times: Times | None
    as_of: int | None
    older_version: int | None  # the bytes given are those of this earlier seq
    evidence: dict[str, object] | None
    pins_checkpoint: bool  # step 5 held and the witnesses' quorum stands: the state takes the checkpoint
    pins_chain: bool  # VERIFIED as current: the state takes the whole proof


class Run:
    """The facts that the steps hand on to each other."""

    def __init__(self, proof: Proof, trust: Trust, question: Question, memory: Memory) -> None:
        self.proof, self.trust, self.question, self.memory = proof, trust, question, memory
        self.origin = trust.log_name.partition("+")[0]  # the first one; it has no other plus sign (SPEC 2.2)
        self.log_keys = trust.witnesses.log_keys
        self.lost: list[tuple[Note, Checkpoint]] = []  # what was declared lost, the newest first
        self.findings: list[Finding] = []
        self.note: Note
        self.checkpoint: Checkpoint | None = None
        self.binding: Binding
        self.witnesses: Cosigned | None = None
        self.auditors: Cosigned | None = None
        self.spoiled = False  # an auditor's line does not hold: the note is nothing to remember
        self.continues = False
        self.behind = False
        self.ending: Ending | None = None
        self.chain: Chain | None = None
        self.times: Times | None = None
        self.as_of: int | None = None
        self.older_version: int | None = None
        self.evidence: dict[str, object] | None = None

    @property
    def tree(self) -> Checkpoint:
        assert self.checkpoint is not None
        return self.checkpoint

    @cached_property
    def seen(self) -> tuple[Note, Checkpoint] | None:
        """The checkpoint that the state has pinned, opened once; None where it has none."""
        pinned = self.memory.checkpoint
        if pinned == self.proof.checkpoint and self.checkpoint is not None:
            return self.note, self.checkpoint  # the very bytes that step 2 has opened
        return None if pinned is None else open_checkpoint(pinned, *self.log_keys)

    @property
    def asks_content_alone(self) -> bool:
        """[R] Somebody who knows no blinding key and asks by file id: paths and contexts are the owner's to know.

        Which chain it is rests on the owner's seal then, and no path is said to be proven.
        """
        return self.trust.blinding is None and self.question.path is None

    @property
    def history(self) -> Chain:
        assert self.chain is not None
        return self.chain

    def add(self, error: NotVerified) -> None:
        """Turns a failed check into a finding."""
        if isinstance(error, Fork):
            self.evidence = error.evidence
            self.findings.append(Finding(Verdict.FORK, "fork", str(error)))
        elif isinstance(error, Changed):
            self.findings.append(Finding(Verdict.CHANGED, error.reason, str(error), error.seq))
        elif isinstance(error, NotProven):
            self.findings.append(Finding(Verdict.NOT_PROVEN, error.reason, str(error)))
        else:
            raise error
