"""`nextcloud-audit seed`: make, show, write down, restore and check a seed; hand out a reader key.

The seed is shown in two ways only: as the file that its owner makes, and as the phrase that its owner asks for.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace

from verifier import seed as seeds
from verifier.commands import common
from verifier.encoding import encode_base64
from verifier.errors import Usage
from verifier.files import write_secret_new
from verifier.keys import SEED_SIZE, ReaderKey, format_reader
from verifier.state import LogState
from verifier.words import count, escape

DESCRIPTION = "The seed: 32 random bytes that make your files' history yours. Whoever has it, is you."
EXAMPLES = """examples:
  nextcloud-audit seed new seed.txt --passphrase     make one; keep the phrase on paper, elsewhere
  nextcloud-audit seed show seed.txt                 its fingerprint, never the secret
  nextcloud-audit seed phrase seed.txt               24 words for paper, and the fingerprint to go with them
  nextcloud-audit seed restore seed.txt              from those words
  nextcloud-audit seed check seed.txt                does it open, and does the state belong to it?
  nextcloud-audit seed reader seed.txt -o reader.json    for those who may verify, and not seal
  nextcloud-audit seed owner seed.txt                the public key, for whom you share a file with"""


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, about in (
        ("new", "make a seed file; never over an existing one"),
        ("show", "its fingerprint, never the secret"),
        ("phrase", "the recovery phrase, for paper"),
        ("restore", "make a seed file from a recovery phrase on standard input"),
        ("check", "open it, and compare its keys with those in the state"),
        ("reader", "export the key that lets others verify"),
        ("owner", "the public key: with it others verify what you share with them and have sealed"),
    ):
        example = next(line for line in EXAMPLES.splitlines() if f" seed {name} " in line)
        action = actions.add_parser(name, help=about, description=about, epilog=f"example:\n{example}")
        action.add_argument("file", metavar="FILE", help="the seed file")
        action.add_argument("--passphrase-file", metavar="FILE", help="read the passphrase from its first line")
        if name in ("new", "restore"):
            action.add_argument("--passphrase", action="store_true", help="protect the file by a passphrase")
        if name == "restore":
            action.add_argument("--fingerprint", metavar="HEX", help="what was written down beside the phrase")
        if name in ("check", "reader", "owner"):
            common.add_state(action)
        if name == "reader":
            action.add_argument("-o", "--output", metavar="OUT", required=True, help="the reader key file to make")
        common.add_json(action)


def run(args: Namespace) -> int:
    actions = {
        "new": _new,
        "show": _show,
        "phrase": _phrase,
        "restore": _restore,
        "check": _check,
        "reader": _reader,
        "owner": _owner,
    }
    return actions[args.action](args)


def _new(args: Namespace) -> int:
    _write(args, os.urandom(SEED_SIZE))
    return 0


def _show(args: Namespace) -> int:
    mark = seeds.fingerprint(common.read_seed(args, args.file))
    common.emit(args, {"file": args.file, "fingerprint": mark}, f"fingerprint {mark}")
    return 0


def _phrase(args: Namespace) -> int:
    seed = common.read_seed(args, args.file)
    phrase, mark = seeds.phrase_from_seed(seed), seeds.fingerprint(seed)
    words = phrase.split()
    lines = [" ".join(f"{n + 1:>2} {words[n]:<9}" for n in range(row, row + 6)).rstrip() for row in range(0, 24, 6)]
    text = "\n".join([*lines, "", f"fingerprint {mark}", "On paper, both. Whoever reads the words has the seed."])
    common.emit(args, {"phrase": phrase, "fingerprint": mark}, text)
    return 0


def _restore(args: Namespace) -> int:
    if sys.stdin.isatty():
        common.say("The 24 words, on one line:")
    seed = seeds.seed_from_phrase(_without_numbers(sys.stdin.readline(seeds.MAX_PHRASE + 1)))
    if args.fingerprint:
        seeds.verify_fingerprint(seed, args.fingerprint)
    _write(args, seed)
    if not args.fingerprint:
        common.say("compare the fingerprint with the one on paper: one wrong phrase in 256 looks right")
    return 0


def _check(args: Namespace) -> int:
    seed = common.read_seed(args, args.file)
    logs = common.home_of(args, args.file).logs()
    if args.log:
        logs = [log for log in logs if log.log == args.log]
    wrong = [log.log for log in logs if not _belongs(log, seed)]
    if wrong:
        raise Usage(f"seed: its keys are not those in the state for {', '.join(wrong)}")
    mark = seeds.fingerprint(seed)
    text = f"The seed opens (fingerprint {mark}); {_state_words(len(logs))}"
    common.emit(args, {"file": args.file, "fingerprint": mark, "logs": [log.log for log in logs]}, text)
    return 0


def _belongs(log: LogState, seed: bytes) -> bool:
    try:
        common.keys_of(log, seed)
    except Usage:
        return False
    return True


def _state_words(logs: int) -> str:
    return f"its keys are those in the state, for {count(logs, 'log')}." if logs else "the state knows no log yet."


def _reader(args: Namespace) -> int:
    log = common.enrolled_log(common.home_of(args, args.file), args.log)
    if log.blinding is None:
        raise Usage("state: it holds no blinding key, so there is no reader key to hand out")
    write_secret_new(args.output, format_reader(ReaderKey(log.log, log.source, log.owner, log.blinding)))
    text = f"{escape(args.output)} lets whoever has it see which chain is which file, and verify. It cannot seal."
    common.emit(args, {"file": args.output, "log": log.log, "source": log.source}, text)
    return 0


def _owner(args: Namespace) -> int:
    """Hand it over yourself, or read it out: whoever has another one verifies for somebody else."""
    log = common.enrolled_log(common.home_of(args, args.file), args.log)
    common.keys_of(log, common.read_seed(args, args.file))
    owner = encode_base64(log.owner)
    data = {"owner": owner, "log": log.log, "source": log.source}
    common.emit(args, data, f"--owner-key {owner} --source {escape(log.source)} --log {escape(log.log)}")
    return 0


def _write(args: Namespace, seed: bytes) -> None:
    if os.path.lexists(args.file):  # asked before anybody types a passphrase; write_secret_new makes sure of it
        raise Usage(f"{args.file!r} exists and is not overwritten: choose another name or move it away")
    if args.passphrase or args.passphrase_file:
        data = seeds.format_locked(
            seed, _new_passphrase(args), os.urandom(seeds.SALT_SIZE), os.urandom(seeds.NONCE_SIZE)
        )
    else:
        data = seeds.format_seed(seed)
    write_secret_new(args.file, data)
    mark, name = seeds.fingerprint(seed), escape(args.file)
    text = f"{name} made, fingerprint {mark}. Write its recovery phrase down: `nextcloud-audit seed phrase {name}`"
    common.emit(args, {"file": args.file, "fingerprint": mark}, text)


def _new_passphrase(args: Namespace) -> str:
    first = common.passphrase(args, "New passphrase: ")
    if not args.passphrase_file and common.passphrase(args, "Once more: ") != first:
        raise Usage("passphrase: the two are not the same")
    return first


def _without_numbers(line: str) -> str:
    """The words of a phrase as `seed phrase` prints it, without the numbers between them."""
    return " ".join(word for word in line.split() if not word.isdigit())
