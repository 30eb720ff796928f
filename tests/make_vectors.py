"""Writes tests/vectors: `python -m tests.make_vectors` rewrites the folder, one JSON file for each case.

Everything is deterministic, so that a change of a format shows as a change of these files. The form of a file is in
tests/vectors/README.md, the cases are in tests/vector_cases.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.vector_cases import (
    CASES,
    document,
    evidence,
    history,
    honest,
    identity,
    loss,
    malformed,
    seals,
    steps,
    times,
    tree,
)

FOLDER = Path(__file__).resolve().parent / "vectors"
MODULES = (honest, tree, history, steps, seals, identity, times, malformed, loss)  # in the order of SPEC 9


def vectors() -> dict[str, bytes]:
    """Every file of the folder by its name, but for the README."""
    return {f"{name}.json": _encode(document(name)) for name in CASES}


def evidence_vectors() -> dict[str, bytes]:
    """Every file of the folder `evidence` by its name."""
    return {f"{name}.json": _encode(evidence.document(name)) for name in evidence.CASES}


def _encode(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def main() -> None:
    for folder, made in ((FOLDER, vectors()), (FOLDER / "evidence", evidence_vectors())):
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*.json"):
            if path.name not in made:
                path.unlink()
        for name, data in made.items():
            (folder / name).write_bytes(data)
        print(f"{folder.name}: {len(made)} vectors, {sum(map(len, made.values()))} bytes")


if __name__ == "__main__":
    main()
