"""`nextcloud-audit policy export`: both policies for those who verify, with the fingerprints to read to them."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from audit.commands import common
from audit.directory import POLICY_MODE
from audit.peer_files import KINDS, read_files
from verifier.errors import Usage
from verifier.files import read_bounded, write_atomic
from verifier.policy import MAX_POLICY_SIZE, check_separate, fingerprint
from verifier.words import escape

DESCRIPTION = "Write both policies of a log into a folder, for those who enrol and verify. Overwrites nothing else."
EXAMPLES = """examples:
  nextcloud-audit policy export --data /var/lib/nextcloud-audit -o for-alice

They are C2SP tlog-policy files. Read the fingerprints to those who get them, on another way than the files went:
`enrol --trust-fingerprint` compares."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where to put policy and auditors")
    common.add_json(parser)


def run(args: Namespace) -> int:
    files = read_files(args.data)
    check_separate(*files.parse())
    targets = [os.path.join(args.output, name) for name, _ in KINDS]
    for path, data in zip(targets, files.policies, strict=True):
        if os.path.lexists(path) and read_bounded(path, MAX_POLICY_SIZE, "policy") != data:
            raise Usage(f"{path} exists and is another policy: choose another folder, or move it away")
    try:
        os.makedirs(args.output, exist_ok=True)
    except OSError as error:
        raise Usage(f"output: cannot make {args.output}: {error.strerror or error}") from None
    for path, data in zip(targets, files.policies, strict=True):
        write_atomic(path, data, POLICY_MODE)
    prints = [fingerprint(data) for data in files.policies]
    text = "\n".join([f"{escape(path)}\n  fingerprint {one}" for path, one in zip(targets, prints, strict=True)])
    common.emit(args, {"policy": prints[0], "auditors": prints[1], "files": targets}, text)
    return 0
