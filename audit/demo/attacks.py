"""The attacks of the demo, each from outside: files, databases, and processes that lie.

An attack gets the story and a directory of its own, changes something, and returns which file and proof to verify,
and how to undo the change. Attacks on the server work on a *copy* of the whole deployment with the same keys, which
is what a dishonest operator can always make; the client's state is a copy too, so that each attack stands alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha3_256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from audit.demo import lies
from audit.demo.deployment import Deployment, run
from verifier.entry import Content, Operation
from verifier.proof import Proof, format_proof, parse_proof

if TYPE_CHECKING:
    from audit.demo.story import Story

REPORT, COPY, LEDGER, MEMO = "report.txt", "copy of report.txt", "ledger.csv", "memo.txt"


class Tried(NamedTuple):
    """What to verify while the attack stands, and how to undo it."""

    file: Path
    proof: Path
    remote: str
    undo: Callable[[], object]


class Attack(NamedTuple):
    """`fresh_state`: the honest state is put back with the undoing, because the attack had changed what was seen.

    `undone` says what the undoing is.
    """

    title: str
    exit_code: int
    reason: str
    act: Callable[[Story, Path], Tried]
    fresh_state: bool = False
    undone: str = "undone"


def flipped_byte(story: Story, place: Path) -> Tried:
    """One bit of one byte of the file itself."""
    copy = place / REPORT
    honest = (story.files / REPORT).read_bytes()
    copy.write_bytes(bytes([honest[0] ^ 1]) + honest[1:])
    return Tried(copy, story.proofs / f"{REPORT}.proof", REPORT, lambda: copy.write_bytes(honest))


def rewritten_history(story: Story, place: Path) -> Tried:
    """The first version is replaced in the database, commitment and all; then the history goes on and is cosigned."""
    with lying(story, place) as other:
        directory = other.directory / "log"
        lies.rewrite_entry(directory, REPORT, 0, b"There was no meeting.\n")
        lies.record(directory, REPORT, Operation.TOUCHED)
        return swapped(story, place, REPORT, lambda proof: prove(story, other, place, REPORT, proof))


def dropped_last_entry(story: Story, place: Path) -> Tried:
    """The newest step is left out of the proof."""
    return edited(story, place, lambda proof: proof._replace(entries=proof.entries[:-1]))


def older_map(story: Story, place: Path) -> Tried:
    """A log that signs a map naming an older head. Witnesses cosign, since they never see the map; auditors refuse."""
    with lying(story, place) as other:
        lies.sign_older_map(other.directory / "log", MEMO)
        other.start()
        other.wait_witnessed()
        return swapped(
            *(story, place, MEMO),
            lambda proof: lies.prove_older(other.directory / "log", MEMO, proof),
            b"first thoughts\n",
        )


def second_chain(story: Story, place: Path) -> Tried:
    """Another file id for the same path, with a history of its own, honestly cosigned and replayed."""
    with lying(story, place) as other:
        data = b"There was no meeting.\n"
        lies.record_new(other.directory / "log", REPORT, Content(len(data), sha3_256(data).digest()))
        return swapped(story, place, REPORT, lambda proof: prove(story, other, place, REPORT, proof), data)


def other_path(story: Story, place: Path) -> Tried:
    """The proof of a copy with the same bytes, served for the path that was asked."""
    return swapped(story, place, REPORT, lambda proof: prove(story, story.deployment, place, COPY, proof))


def two_cosignatures(story: Story, place: Path) -> Tried:
    """All but two of the witnesses' lines are taken from the checkpoint."""
    return edited(story, place, lambda proof: proof._replace(checkpoint=lies.keep_cosigners(proof.checkpoint, 2)))


def forked_log(story: Story, place: Path) -> Tried:
    """Two histories from one moment on, shown to different people; both trees are signed, of one size."""
    with lying(story, place) as other:
        directory = other.directory / "log"
        lies.record(directory, MEMO, Operation.TOUCHED)
        other.start()
        other.wait_published()
        (story.files / LEDGER).touch()
        story.deployment.wait_scanned()
        story.prove(REPORT)
        run("verify", f"files/{REPORT}", *story.asked(REPORT), "--state", str(place / "state"), cwd=story.root)
        return swapped(story, place, REPORT, lambda proof: prove(story, other, place, REPORT, proof))


def hidden_alteration(story: Story, place: Path) -> Tried:
    """Bytes change on the disk with no operation, and a later write tries to hide that; Alice's seal accepts it."""
    ledger = story.files / LEDGER
    seen = ledger.stat()
    ledger.write_text("pay;999;mario\n"[: seen.st_size])
    os.utime(ledger, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    story.deployment.wait_scanned()
    ledger.write_text("pay;100;alice\npay;5;bob\n")
    story.deployment.wait_scanned()
    story.prove(LEDGER)

    def accept() -> None:
        words = ("--server", story.deployment.url, "--seed", "alice.seed", "--as", LEDGER)
        seq = lies.altered_seq(parse_proof((story.proofs / f"{LEDGER}.proof").read_bytes()))
        run("seal", f"files/{LEDGER}", *words, "--accept", str(seq), cwd=story.root)
        story.deployment.wait_published()
        story.prove(LEDGER)

    return Tried(ledger, story.proofs / f"{LEDGER}.proof", LEDGER, accept)


def old_proof(story: Story, place: Path) -> Tried:
    """A proof that was good once, shown after a newer one has been seen."""
    old = place / "old.proof"
    story.prove(MEMO)
    shutil.copy(story.proofs / f"{MEMO}.proof", old)
    (story.files / MEMO).write_text("third thoughts\n")
    story.deployment.wait_scanned()
    story.prove(MEMO)
    words = ("--proof", f"proofs/{MEMO}.proof", "--seed", "alice.seed", "--as", MEMO)
    run("verify", f"files/{MEMO}", *words, "--state", str(place / "state"), cwd=story.root)
    before = place / MEMO
    before.write_text("second thoughts\n")

    def undo() -> None:
        shutil.copy(story.proofs / f"{MEMO}.proof", old)
        shutil.copy(story.files / MEMO, before)

    return Tried(before, old, MEMO, undo)


# -- shared moves ---------------------------------------------------------------------------------------------


@contextmanager
def lying(story: Story, place: Path) -> Iterator[Deployment]:
    """A copy of the whole deployment, not started; stopped at the end."""
    story.deployment.wait_published()
    other = story.deployment.copy(place / "servers")
    try:
        yield other
    finally:
        other.stop()


def prove(story: Story, deployment: Deployment, place: Path, remote: str, target: Path) -> None:
    """Fetches a proof as Alice's client would, from a deployment that it has no reason to mistrust."""
    if deployment.log is None:
        deployment.start()
        deployment.wait_published()
    words = ("--server", deployment.url, "--seed", str(story.seed), "--state", str(place / "state"), "--full")
    run("prove", remote, *words, "-o", str(target), cwd=story.root)


def swapped(story: Story, place: Path, remote: str, show: Callable[[Path], object], data: bytes | None = None) -> Tried:
    """What a lying server hands out: a proof that `show` writes, and its own bytes where some are given."""
    honest_proof, honest = story.proofs / f"{remote}.proof", story.files / remote
    if not honest_proof.exists():
        story.prove(remote)
    shown, file = place / "shown.proof", place / remote
    show(shown)
    file.write_bytes(honest.read_bytes() if data is None else data)

    def undo() -> None:
        shutil.copy(honest_proof, shown)
        shutil.copy(honest, file)

    return Tried(file, shown, remote, undo)


def edited(story: Story, place: Path, edit: Callable[[Proof], Proof]) -> Tried:
    """The honest file with an edited copy of its honest proof."""

    def show(target: Path) -> None:
        proof = parse_proof((story.proofs / f"{REPORT}.proof").read_bytes())
        target.write_bytes(format_proof(edit(proof)))

    return swapped(story, place, REPORT, show)


ATTACKS = (
    Attack("one flipped byte in the file", 1, "bytes", flipped_byte),
    Attack("a history rewritten in the database, and continued", 1, "history", rewritten_history, True),
    Attack("a dropped last entry", 1, "history", dropped_last_entry),
    Attack("a map naming an older head", 2, "not-replayed", older_map, True),
    Attack("a second chain for the same file", 2, "other-file-id", second_chain, True),
    Attack("a copy served under the asked path", 2, "other-path", other_path),
    Attack("a proof with two of three cosignatures", 2, "unwitnessed", two_cosignatures),
    Attack("a forked log", 3, "fork", forked_log, True),
    Attack("an alteration that a later write tries to hide", 1, "altered", hidden_alteration, True, "sealed by Alice"),
    Attack("an old proof replayed after a newer one was seen", 2, "stale", old_proof),
)
