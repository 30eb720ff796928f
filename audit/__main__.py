"""The one entry point: looks at the first word and hands over, so that each side loads only what it needs.

Client words go to `verifier.cli`, which knows nothing of this package; server words to `audit.cli`, which needs the
extra `server`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

CLIENT = {
    "verify": "is this file the current version of what was logged? (offline)",
    "prove": "fetch the proof of a file",
    "seal": "sign that this device has checked these bytes",
    "inspect": "what is in a proof, in words",
    "enrol": "make a log's history of your files yours, with your seed",
    "login": "an app password of a Nextcloud, granted in the browser, for those without a seed",
    "seed": "make, show, write down, restore and check a seed; hand out a reader key",
}
SERVER = {
    "init": "start a new log",
    "serve": "run a log",
    "record": "scan a source once",
    "node": "run a witness and auditor for others",
    "token": "let somebody enrol",
    "coverage": "what of a Nextcloud is recorded, read again lately, or unreadable",
    "erase": "erase what is stored of one step of a file, and log that",
    "hooks": "have a Nextcloud tell a log what happens to files",
    "upgrade": "bring a log's database to this version",
    "peer": "the nodes that cosign and replay a log: add, list, remove",
    "policy": "show, judge and hand out the policies that follow",
    "audit": "look into every log that a node watches; for cron and timers",
    "fsck": "verify a whole log again",
    "recover": "after a restore from a backup: fetch what is missing from a node that mirrors the log",
    "rotate-key": "give a log a new key, while everybody goes on verifying",
    "demo": "everything, on this machine alone",
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    word = words[0] if words else ""
    if word in CLIENT:
        return _client(words, whole_process=argv is None)
    if word in SERVER:
        return _server(words)
    if word in ("--version", "-V"):
        from importlib.metadata import version

        print(f"nextcloud-audit {version('nextcloud-audit')}")
        return 0
    if word in ("--help", "-h", "help"):
        print(overview())
        return 0
    wrong = f"there is no command {word!r}" if word else "want a command"
    return _usage(f"{overview()}\n\nnextcloud-audit: {wrong}")


def overview() -> str:
    """All commands, a line each."""
    lines = ["usage: nextcloud-audit COMMAND ...     (COMMAND --help says more, with examples)", "", "for everybody:"]
    lines += [f"  {word:<10} {about}" for word, about in CLIENT.items()]
    lines += ["", "for those who run a log or a node:"]
    lines += [f"  {word:<10} {about}" for word, about in SERVER.items()]
    return "\n".join(lines)


def _client(words: list[str], whole_process: bool) -> int:
    if whole_process:
        # A short life: looking for cycles while modules load takes longer than they would save.
        gc.set_threshold(100_000)
    from verifier.cli import main as client

    code = client(words)
    if whole_process:
        # Nothing is left to be written or closed, and freeing all objects one by one takes as long as verifying.
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            pass  # the reader went away, as the exit code says already
        os._exit(code)
    return code


def _server(words: list[str]) -> int:
    try:
        from audit.cli import main as server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("audit", "verifier"):
            raise  # a fault of this package, not an extra that is missing
        return _usage(
            f"nextcloud-audit {words[0]}: needs the extra `server` ({error.name} is not installed):\n"
            "  python -m pip install 'nextcloud-audit[server]'"
        )
    code: int = server(words)
    return code


def _usage(message: str) -> int:
    from verifier.outcome import USAGE

    print(message, file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
