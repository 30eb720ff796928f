"""`nextcloud-audit init`: a new log, its keys, and the token with which its owner enrols."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace

from audit.commands import common
from audit.directory import AUDITORS_FILE, POLICY_FILE, create_log

DESCRIPTION = "Make a new log: keys, store, policies with `quorum none`. Refuses where a log exists."
EXAMPLES = """examples:
  nextcloud-audit init --data /var/lib/nextcloud-audit --origin audit.example.org/files

The origin is the log's name for ever. Add nodes with `peer add` before you serve."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "where the log will live")
    parser.add_argument("--origin", metavar="NAME", required=True, help="its name: a host name you own, and a path")
    common.add_json(parser)


def run(args: Namespace) -> int:
    created = create_log(args.data, args.origin, int(time.time()))
    files = {name: os.path.join(args.data, name) for name in (POLICY_FILE, AUDITORS_FILE)}
    data = {"log": created.log_name, "vkey": created.vkey, "user": created.user, "token": created.token}
    text = f"""A new log in {args.data}.

  log    {created.log_name}
  key    {created.vkey}
  token  {created.token}     one enrolment, by user {created.user!r}; it is shown only now

Next: add the nodes that cosign and replay it, which makes {files[POLICY_FILE]} and {files[AUDITORS_FILE]},
  nextcloud-audit peer add --data {args.data} URL-OF-NODE --url URL-OF-THIS-LOG
have the log allowed at each node, by the line that this prints, then
  nextcloud-audit serve --data {args.data} --source folder:PATH"""
    common.emit(args, data, text)
    return 0
