"""What several commands do alike: find the state and the log in it, open the seed, print.

Which log is meant never comes from a proof or a server: it is the one that the reader key or the option `--log` names,
the one that knows the local file, or the only one there is.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from verifier.checkpoint import open_checkpoint
from verifier.errors import Malformed, NotVerified, Usage
from verifier.files import read_bounded, read_secret
from verifier.home import Home, default_directory
from verifier.keys import MAX_READER_SIZE, OwnerKeys, ReaderKey, derive_keys, parse_reader
from verifier.note import format_note, keep_valid, parse_note
from verifier.outcome import format_json
from verifier.policy import (
    AUDITORS,
    MAX_POLICY_SIZE,
    WITNESSES,
    Policy,
    check_separate,
    fingerprint,
    parse_policy,
)
from verifier.state import LogState
from verifier.verdict import Trust
from verifier.words import escape


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of words")


def add_state(parser: ArgumentParser) -> None:
    parser.add_argument("--state", metavar="DIR", help="the state directory (default: beside the key file, FILE.state)")
    parser.add_argument("--log", metavar="NAME", help="which log, when the state knows several (evidence: its vkey)")


def add_seed(parser: ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--seed", metavar="FILE", required=required, help="the seed file")
    parser.add_argument("--passphrase-file", metavar="FILE", help="read the passphrase from its first line")


def add_policies(parser: ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--policy", metavar="FILE", required=required, help="the log and its witnesses")
    parser.add_argument("--auditors", metavar="FILE", required=required, help="the log and its auditors")
    parser.add_argument("--source", metavar="ID", help="the source, as the log's operator named it")


def add_other_file(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--other-file", action="store_true", help="you know why another file is at this path: forget which one it was"
    )


# -- printing -------------------------------------------------------------------------------------------------


def emit(args: Namespace, data: object, text: str) -> None:
    """The answer of a command, on standard output."""
    print(format_json(data) if args.json else text.removesuffix("\n"))


def say(message: str) -> None:
    """Something on the way to the answer, on standard error. Everything unprintable is escaped."""
    print(escape(message), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    say(f"warning: {message}")


# -- state and log --------------------------------------------------------------------------------------------


def home_of(args: Namespace, *key_files: str | None) -> Home:
    """The state directory that was asked for, or the one beside the first key file."""
    beside = next((path for path in key_files if path), None)
    if args.state is None and beside is None:
        raise Usage("state: want --state DIR, since no seed or reader key says where it is")
    directory = args.state or default_directory(str(beside))
    warn_of_state(directory)
    return Home(directory)


def choose_log(home: Home, wanted: str | None, knows: Callable[[LogState], bool] | None = None) -> LogState | None:
    """The log that is meant, or None where the state knows none. `knows` may single one out of several."""
    logs = home.logs() if wanted is None else [log for log in [home.read_log(wanted)] if log]
    if len(logs) > 1 and knows is not None:
        logs = [log for log in logs if knows(log)] or logs
    if len(logs) > 1:
        names = "\n  ".join(log.log for log in logs)
        raise Usage(f"log: the state knows several, want one of them with --log:\n  {names}")
    return logs[0] if logs else None


def enrolled_log(home: Home, wanted: str | None) -> LogState:
    """The log that is meant, once this state is enrolled there."""
    log = choose_log(home, wanted)
    if log is None:
        raise Usage(f"state: {home.directory!r} knows {'no such log' if wanted else 'no log'} yet: enrol first")
    return log


def trust_of(log: LogState) -> Trust:
    """What the state says is trusted. The policies were pinned, and are parsed as strictly as on the first day."""
    witnesses, auditors = parse_policies(log.policy, log.auditors)
    return Trust(log.log, log.source, witnesses, auditors, log.owner, log.blinding)


def parse_policies(policy: bytes, auditors: bytes) -> tuple[Policy, Policy]:
    """Both policies, once they are about the same log and share no key."""
    parsed = parse_policy(policy, WITNESSES), parse_policy(auditors, AUDITORS)
    check_separate(*parsed)
    return parsed


def read_policies(args: Namespace) -> tuple[bytes, bytes]:
    """The policy files that the user names, with what a linter has to say about them on standard error."""
    from verifier.lint import lint

    data = [read_bounded(path, MAX_POLICY_SIZE, where) for path, where in _policy_files(args)]
    for policy, path in zip(parse_policies(*data), (args.policy, args.auditors), strict=True):
        for warning in lint(policy):
            warn(f"{path}: {warning}")
    return data[0], data[1]


def _policy_files(args: Namespace) -> tuple[tuple[str, str], tuple[str, str]]:
    if not args.policy or not args.auditors:
        raise Usage("policy: want both --policy FILE and --auditors FILE; they never come from a server or a proof")
    return (args.policy, "policy"), (args.auditors, "auditors policy")


def check_same_policies(log: LogState, policy: bytes, auditors: bytes) -> None:
    """[R] A policy is pinned: another one is refused, so that nobody slips one in."""
    for what, pinned, given in (("policy", log.policy, policy), ("auditors", log.auditors, auditors)):
        if pinned != given:
            raise Usage(
                f"{what}: got fingerprint {fingerprint(given)[:16]}, the state has pinned {fingerprint(pinned)[:16]}: "
                "say --replace-policy if you have the new files from whom you trust"
            )


def replace_policies(home: Home, log: LogState, policy: bytes, auditors: bytes) -> LogState:
    """[R] Pins other policies, on the user's word, once they know a key that signed what was seen last (SPEC 10.4).

    So a new policy is about the same log, and nothing that was seen is forgotten with the old one. Lines of keys that
    the old policies did not know may be anything: of them only those that hold stay.
    """
    if (policy, auditors) == (log.policy, log.auditors):
        return log
    checkpoint, parsed = log.checkpoint, parse_policies(policy, auditors)
    if checkpoint is not None:
        log_keys = parsed[0].log_keys
        cosigners = [witness.key for one in parsed for witness in one.witnesses.values()]
        note = keep_valid(parse_note(checkpoint), [*log_keys, *cosigners])
        try:
            checkpoint = format_note(note)
            open_checkpoint(checkpoint, *log_keys)
        except (NotVerified, Malformed):  # not one line is left
            raise Usage(
                "policy: none of its keys of this log signed the checkpoint in the state: while a log changes its key, "
                "and when it has declared a loss, the policy to take names both, the old one and the new one"
            ) from None
    replaced = log._replace(policy=policy, auditors=auditors, checkpoint=checkpoint)
    home.write_log(replaced)
    say(f"policies replaced: {fingerprint(policy)[:16]} (witnesses), {fingerprint(auditors)[:16]} (auditors)")
    return replaced


# -- keys -----------------------------------------------------------------------------------------------------


def read_seed(args: Namespace, path: str) -> bytes:
    """The seed in a file; asks for its passphrase where there is one."""
    from verifier.seed import is_locked, open_locked, parse_seed

    data, warnings = read_secret(path)
    for warning in warnings:
        warn(warning)
    if not is_locked(data):
        return parse_seed(data)
    return open_locked(data, passphrase(args, f"Passphrase of {escape(path)}: "))


def passphrase(args: Namespace, prompt: str) -> str:
    """The first line of --passphrase-file, or what a person types, unseen."""
    if args.passphrase_file:
        return first_line(args.passphrase_file, "passphrase file")
    from getpass import getpass

    try:
        return getpass(prompt)
    except EOFError:
        raise Usage("passphrase: nobody is there to type it: use --passphrase-file") from None


def first_line(path: str, where: str) -> str:
    """The first line of a file that holds a secret."""
    data, warnings = read_secret(path, where)
    for warning in warnings:
        warn(warning)
    try:
        return data.decode("utf-8").split("\n", 1)[0].removesuffix("\r")
    except UnicodeDecodeError:
        pass
    raise Malformed("not UTF-8", where)


def read_reader(path: str) -> ReaderKey:
    data, warnings = read_secret(path, "reader key", MAX_READER_SIZE)
    for warning in warnings:
        warn(warning)
    return parse_reader(data)


def keys_of(log: LogState, seed: bytes) -> OwnerKeys:
    """The owner's keys for a log, once they are the ones that the state was enrolled with."""
    keys = derive_keys(seed, log.log)
    if keys.public != log.owner or keys.blinding != log.blinding:
        raise Usage(f"seed: its keys for {log.log} are not those in the state: it is another seed or another state")
    return keys


def warn_of_state(directory: str) -> None:
    """Who can write the state can make its owner forget what was seen. That there is none yet is no news."""
    import stat

    try:
        mode = stat.S_IMODE(os.stat(directory).st_mode)
    except (OSError, ValueError):
        return
    if os.name != "nt" and mode & 0o022:
        warn(f"state: others on this machine may write to {directory}, got mode {mode:04o}, want 0700")


def warn_of_seed(path: str) -> None:
    """Verifying needs the state, not the seed; that the seed is there and shut is looked at all the same."""
    import stat

    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Usage(f"seed file: cannot read {escape(path)}: {reason.lower()}") from None
    if os.name != "nt" and mode & 0o077:
        warn(f"seed file: {path} is open to others on this machine, got mode {mode:04o}, want 0600")
