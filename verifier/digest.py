"""The digest of a file on this device: SHA3-256 over its bytes, read once, in pieces.

    content = hash_file("report.pdf")        Content(size, sha3_256), as an entry's content part has it (SPEC 3.4)

What `sha3sum -a 256` and `openssl dgst -sha3-256` print. A file that changes while it is read gives the digest of
what was read; its size is the number of bytes read, so the two always belong together.
"""

from __future__ import annotations

import os
import stat
import sys
from hashlib import sha3_256

from verifier.entry import Content
from verifier.errors import Usage
from verifier.words import escape

PIECE = 1024 * 1024  # bytes a read; larger ones are no faster
SMALL_PIECE = 64 * 1024  # for small files and pipes: memory that nothing is read into has to be cleared all the same
SHOWN_FROM = 64 * PIECE  # below this, hashing is over before a person could read how far it is

_BINARY: int = getattr(os, "O_BINARY", 0)


def hash_file(path: str) -> Content:
    """Size and SHA3-256 of a file or pipe. Progress goes to stderr for large files when that is a terminal."""
    try:
        fd = os.open(path, os.O_RDONLY | _BINARY)
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise Usage(f"file: {escape(path)} is a directory, want a file")
            shown = status.st_size >= SHOWN_FROM and sys.stderr.isatty()
            piece = PIECE if status.st_size > SMALL_PIECE else SMALL_PIECE
            return _hash(fd, bytearray(piece), status.st_size if shown else 0, path)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Usage(f"file: cannot read {escape(path)}: {reason.lower()}") from None


def _hash(fd: int, piece: bytearray, shown_size: int, path: str) -> Content:
    digest, size, percent = sha3_256(), 0, -1
    view = memoryview(piece)
    while count := os.readv(fd, [piece]) if hasattr(os, "readv") else _read_into(fd, view):
        digest.update(view[:count])
        size += count
        if shown_size and (now := min(100, size * 100 // shown_size)) != percent:
            percent = now
            print(f"\r{escape(path)}: {percent} % read", end="", file=sys.stderr, flush=True)
    if shown_size:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return Content(size, digest.digest())


def _read_into(fd: int, view: memoryview) -> int:
    data = os.read(fd, len(view))
    view[: len(data)] = data
    return len(data)
