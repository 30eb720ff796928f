"""A log made with aics-tlog and its feeder, against a witness at a URL. Runs in the peers' environment: SECRET_HEX.

Prints its vkey; then reads the witness's URL and vkey, and prints one line for each thing it tried.
"""

import sys

from aics_tlog import (  # type: ignore[import-not-found]
    Checkpoint,
    MerkleTree,
    format_vkey,
    parse_note,
    parse_vkey,
    sign_checkpoint,
    verify_checkpoint,
    vkey_from_ed25519,
)
from aics_witness.feeder import FeederError, WitnessClient, merge_cosignatures  # type: ignore[import-not-found]
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "aics.example/log"
SIZES = (1, 5, 5, 256, 257, 300)


def main(secret: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    vkey = vkey_from_ed25519(ORIGIN, key.public_key())
    print(format_vkey(vkey), flush=True)
    url, witness = sys.stdin.readline().strip(), parse_vkey(sys.stdin.readline().strip())
    tree = MerkleTree([b"leaf %d" % i for i in range(300)])
    for size in SIZES:
        with WitnessClient(url, witness) as client:  # a new one knows no size: its first answer is a 409
            note = sign_checkpoint(Checkpoint(ORIGIN, size, tree.root(size)), key, ORIGIN)
            lines = client.submit(note.to_bytes(), lambda old, new: tree.consistency_proof(old, new))
            whole = parse_note(merge_cosignatures(note.to_bytes(), lines))
            result = verify_checkpoint(whole, vkey, [witness], 1, expected_origin=ORIGIN, max_age_seconds=60)
            print(size, result.ok, result.cosignature_count, flush=True)
    other = MerkleTree([b"another %d" % i for i in range(400)])
    for size in (300, 400):
        with WitnessClient(url, witness) as client:
            note = sign_checkpoint(Checkpoint(ORIGIN, size, other.root(size)), key, ORIGIN)
            try:
                client.submit(note.to_bytes(), lambda old, new: other.consistency_proof(old, new))
            except FeederError as error:
                print(size, type(error).__name__, getattr(error, "status", None), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
