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
from typing import NoReturn

from verifier import outcome
from verifier.errors import Error, Usage
from verifier.record import NamedTuple

PROGRAM = "nextcloud-audit"
MAX_WIDTH = 100  # columns of help text
# argparse has no translations of its own words, but each time looks for some: `locale` is loaded, the disk searched.
argparse._ = str  # type: ignore[attr-defined]

WORDS = ("verify", "prove", "seal", "inspect", "enrol", "login", "seed")


class Command(NamedTuple):
    """What a command's module brings."""

    description: str
    examples: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


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
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        for stream in (sys.stdout, sys.stderr):  # a path that the terminal's encoding lacks must not hide a verdict
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return outcome.INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return outcome.BROKEN_PIPE
    except Exception as error:
        return _failed(error, "--json" in words)


def drop_output() -> None:
    """What is buffered would raise again when the interpreter shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    word = words[0] if words else ""
    command = _command(word)
    parser = Parser(prog=f"{PROGRAM} {word}", description=command.description, epilog=command.examples)
    command.add_arguments(parser)
    return command.run(parser.parse_args(words[1:]))


def _command(word: str) -> Command:
    match word:
        case "verify":
            from verifier.commands import verify

            return Command(verify.DESCRIPTION, verify.EXAMPLES, verify.add_arguments, verify.run)
        case "prove":
            from verifier.commands import prove

            return Command(prove.DESCRIPTION, prove.EXAMPLES, prove.add_arguments, prove.run)
        case "seal":
            from verifier.commands import seal

            return Command(seal.DESCRIPTION, seal.EXAMPLES, seal.add_arguments, seal.run)
        case "inspect":
            from verifier.commands import inspect

            return Command(inspect.DESCRIPTION, inspect.EXAMPLES, inspect.add_arguments, inspect.run)
        case "enrol":
            from verifier.commands import enrol

            return Command(enrol.DESCRIPTION, enrol.EXAMPLES, enrol.add_arguments, enrol.run)
        case "login":
            from verifier.commands import login

            return Command(login.DESCRIPTION, login.EXAMPLES, login.add_arguments, login.run)
        case "seed":
            from verifier.commands import seed

            return Command(seed.DESCRIPTION, seed.EXAMPLES, seed.add_arguments, seed.run)
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
