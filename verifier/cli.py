"""The client's command line: which command, its options, and what becomes of errors. No logic of its own.

    nextcloud-audit verify minutes.txt --seed seed.txt

Only the parser of the command that was asked for is built, and only its module imported: verifying starts without
anything that opens sockets, derives keys or asks for passphrases.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from verifier import outcome
from verifier.errors import Error, Usage

PROGRAM = "nextcloud-audit"
MAX_WIDTH = 100  # columns of help text
# argparse has no translations of its own words, but each time looks for some: `locale` is loaded, the disk searched.
argparse._ = str  # type: ignore[attr-defined]

WORDS = ("verify", "prove", "seal", "inspect", "enrol", "login", "seed")


class Command(Protocol):
    """What a command's module has."""

    DESCRIPTION: str
    EXAMPLES: str

    def add_arguments(self, parser: ArgumentParser, /) -> None: ...

    def run(self, args: Namespace, /) -> int: ...


class _Formatter(RawDescriptionHelpFormatter):
    """Knows its width without `shutil`, which argparse imports for every option that it adds."""

    def __init__(self, prog: str) -> None:
        try:
            width = os.get_terminal_size().columns
        except (OSError, ValueError):
            width = MAX_WIDTH
        super().__init__(prog, width=min(width, MAX_WIDTH) - 2)


class Parser(ArgumentParser):
    """Takes whole option names alone, and says what is wrong as an error of ours: exit code 4."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, **settings})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one client command and returns its exit code. Nothing but SystemExit of --help leaves this function."""
    return guarded(_run, _failed, list(sys.argv[1:] if argv is None else argv))


def guarded(run: Callable[[list[str]], int], failed: Callable[[Exception, bool], int], words: list[str]) -> int:
    """The exit code of `run`, or of what `failed` makes of an error, in data where --json is among the words."""
    try:
        for stream in (sys.stdout, sys.stderr):  # a path that the terminal's encoding lacks must not hide a verdict
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        code = run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return outcome.INTERRUPTED
    except BrokenPipeError:
        # What is buffered would raise again when the interpreter shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return outcome.BROKEN_PIPE
    except Exception as error:
        return failed(error, "--json" in words)


def _run(words: list[str]) -> int:
    word = words[0] if words else ""
    return run_command(_command(word), f"{PROGRAM} {word}", words[1:])


def run_command(command: Command, prog: str, words: list[str]) -> int:
    """Parses the words after a command's name and runs it."""
    parser = Parser(prog=prog, description=command.DESCRIPTION, epilog=command.EXAMPLES)
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


def _command(word: str) -> Command:
    match word:
        case "verify":
            from verifier.commands import verify

            return verify
        case "prove":
            from verifier.commands import prove

            return prove
        case "seal":
            from verifier.commands import seal

            return seal
        case "inspect":
            from verifier.commands import inspect

            return inspect
        case "enrol":
            from verifier.commands import enrol

            return enrol
        case "login":
            from verifier.commands import login

            return login
        case "seed":
            from verifier.commands import seed

            return seed
    raise Usage(f"command: got {word!r}, want one of {', '.join(WORDS)}")


def _failed(error: Exception, as_data: bool) -> int:
    if not isinstance(error, Error):
        import traceback

        traceback.print_exc()
    if as_data:
        print(outcome.format_json(outcome.error_data(error)), flush=True)
    else:
        print(f"{PROGRAM}: {outcome.format_error(error)}", file=sys.stderr)
    return outcome.error_code(error)
