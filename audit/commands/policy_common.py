"""What the `policy` commands do alike: read the two policies of a log's directory, or one file of anybody's."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from audit.commands import common
from audit.directory import parse_policy_file
from audit.peer_files import KINDS, read_files
from verifier.errors import Usage
from verifier.files import read_bounded
from verifier.policy import AUDITORS, MAX_POLICY_SIZE, WITNESSES, Policy
from verifier.record import NamedTuple


class Read(NamedTuple):
    """A policy as it came."""

    path: str
    data: bytes
    policy: Policy


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="the directory of a log: its policy and auditors")
    parser.add_argument("files", metavar="FILE", nargs="*", help="or policy files: any C2SP tlog-policy")
    common.add_json(parser)


def read_all(args: Namespace) -> tuple[list[Read], dict[str, str], bool]:
    """The policies, the operators that are declared for their cosigners, and whether files and declaration agree."""
    if bool(args.files) == (args.data is not None):
        raise Usage("policy: want --data DIR, or one or two policy files")
    if args.files:
        return [read_file(path) for path in args.files], {}, True
    files = read_files(args.data)
    paths = [os.path.join(args.data, name) for name, _ in KINDS]
    read = [Read(*one) for one in zip(paths, files.policies, files.parse(), strict=True)]
    return read, files.operators, files.in_step


def read_file(path: str) -> Read:
    """A policy of either kind: auditors' key names tell what it is. Half and half is neither."""
    data = read_bounded(path, MAX_POLICY_SIZE, "policy")
    lines = [line.split() for line in data.split(b"\n")]
    names = [words[2].partition(b"+")[0] for words in lines if words[:1] == [b"witness"] and len(words) > 2]
    kind = AUDITORS if names and all(name.endswith(b"/auditor") for name in names) else WITNESSES
    return Read(path, data, parse_policy_file(data, kind, path))
