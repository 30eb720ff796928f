"""Rows on verifying, in this process: parse, then all numbered steps, against the bare signatures in the same proof.

"As many bare Ed25519 verifications" are counted, not assumed: one run is watched, and the very keys, signatures and
messages that it verified are verified again by `cryptography` alone. Two proofs are measured, of the same file: with
the newest checkpoint alone (log, three witnesses, three auditors: 7), and as the log makes it, with the checkpoints
around the file's last change (`first` and `before`, log and witnesses each).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bench.dataset import Data, question_for
from bench.measure import US, Round, Row, at_most, explained, interleave, middle, over
from bench.proving import some_files
from verifier import ed25519
from verifier.proof import format_proof, parse_proof
from verifier.verdict import Memory, Verdict
from verifier.verify import verify

Signed = tuple[Ed25519PublicKey, bytes, bytes]


def verify_proof(data: Data, file_id: int, proof: bytes) -> None:
    """What `nextcloud-audit verify` does between reading its files and writing its state."""
    report = verify(parse_proof(proof), data.trust, question_for(file_id), Memory())
    if report.verdict is not Verdict.VERIFIED:
        raise AssertionError(f"file {file_id}: {report.verdict}: {report.findings}")


def rows(data: Data, rounds: int, calls: int, many: int) -> list[Row]:
    """One proof again and again; then many different ones; each with and without brackets."""
    found = []
    for brackets in (False, True):
        how = "with brackets" if brackets else "newest checkpoint alone"
        proofs = proofs_of(data, many, brackets)
        signed = signatures_in(data, *proofs[0])
        against = f"{len(signed)} bare Ed25519 verifications"
        for name, judged, count, turns in (
            (f"verify, {how}", proofs[:1], calls, rounds),
            (f"verify {many:,} proofs in one process, {how}", proofs, many, max(3, rounds // 4)),
        ):
            times = interleave(
                turns,
                verify=over(judged, lambda one: verify_proof(data, *one), count),
                signatures=over([signed], verify_bare, count),
                rest=without_signatures(over(judged, lambda one: verify_proof(data, *one), count)),
            )
            row = at_most(name, times["verify"], times["signatures"], 1.5, US, against)
            rest = f"all but the signatures takes {middle(times['rest'], US):.0f} us of it, measured in the same rounds"
            found.append(explained(row, rest))
    return found


def without_signatures(run: Round) -> Round:
    """The same round, with every signature taken for good: what is left is parsing, hashing and the rules."""

    def one_round() -> float:
        with replaced(lambda public_key, signature, message, name, key_id: message):
            return run()

    return one_round


@contextmanager
def replaced(verify_signature: Callable[[bytes, bytes, bytes, str, bytes], bytes]) -> Iterator[None]:
    """Another `ed25519.verify`, for as long as the block runs."""
    whole = ed25519.verify
    ed25519.verify = verify_signature  # type: ignore[assignment]
    try:
        yield
    finally:
        ed25519.verify = whole


def scaling_rows(big: Data, small: Data, rounds: int, calls: int) -> list[Row]:
    """Different proofs of the big log and of one that is a hundredth of it, as the logs make them."""
    pairs = {"big": (big, proofs_of(big, calls, True)), "small": (small, proofs_of(small, calls, True))}

    def judge(data: Data) -> Callable[[tuple[int, bytes]], None]:
        return lambda one: verify_proof(data, *one)

    times = interleave(rounds, **{name: over(list(p), judge(d), calls) for name, (d, p) in pairs.items()})
    against = f"at {small.files * 10:,} entries"
    return [at_most(f"verify at {big.files * 10:,} entries", times["big"], times["small"], 1.5, US, against)]


def proofs_of(data: Data, count: int, brackets: bool) -> list[tuple[int, bytes]]:
    """Proofs of files from all over the log: with both brackets, or with none."""
    found: list[tuple[int, bytes]] = []
    for file_id in itertools.islice(itertools.cycle(some_files(data, 8 * count)), 64 * count):
        proof = parse_proof(data.prover.prove(data.source, file_id))
        if proof.first is not None and proof.before is not None:
            found.append((file_id, format_proof(proof if brackets else proof._replace(first=None, before=None))))
        if len(found) == count:
            return found
    raise AssertionError(f"the log has fewer than {count} proofs with brackets")


def signatures_in(data: Data, file_id: int, proof: bytes) -> list[Signed]:
    """Every signature that verifying this proof verifies."""
    signed: list[Signed] = []
    whole = ed25519.verify

    def watch(public_key: bytes, signature: bytes, message: bytes, name: str, key_id: bytes) -> bytes:
        signed.append((ed25519.load_public_key(public_key), signature, message))
        return whole(public_key, signature, message, name, key_id)

    with replaced(watch):
        verify_proof(data, file_id, proof)
    return signed


def verify_bare(signed: list[Signed]) -> None:
    for key, signature, message in signed:
        key.verify(signature, message)
