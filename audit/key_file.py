"""A private key in a file of its own, 0600: `PRIVATE+KEY+NAME+ID+KEY` and a line feed. Logs and nodes have some."""

from __future__ import annotations

from verifier.errors import Malformed, Usage
from verifier.files import read_secret, write_secret_new
from verifier.note import SignerKey, format_private_key, parse_private_key


def read_signer(path: str, where: str, algorithm: int) -> SignerKey:
    """The key in a file that nobody else may read. What is wrong with it is said with its path, and never shown."""
    data, warnings = read_secret(path, where)
    if warnings:
        raise Usage(warnings[0])
    try:
        signer = parse_private_key(data.decode("utf-8").removesuffix("\n"))
    except (UnicodeDecodeError, Malformed) as error:
        why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Usage(
            f"{where}: {path} is damaged ({why}). Put a whole copy of it back. If there is none: an empty one was left "
            "by a command that was cut short, and may be removed; a key that has signed is lost, and not made anew"
        ) from None
    if signer.verifier_key.algorithm != algorithm:
        raise Malformed(f"want a key of type 0x{algorithm:02x}", where)
    return signer


def write_signer(path: str, signer: SignerKey) -> None:
    """A new file with this key; one that exists is not touched."""
    write_secret_new(path, format_private_key(signer).encode("utf-8") + b"\n")
