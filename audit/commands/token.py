"""`nextcloud-audit token`: lets one more user enrol, or the organisation its root, or anew who lost a seed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.chains import INSTANCE, OWNER
from audit.commands import common
from audit.directory import REPLACE, new_token, open_log
from audit.enrolment import find_source
from verifier.encoding import check_text
from verifier.errors import Usage
from verifier.keys import MAX_USER

DESCRIPTION = "Make a one-time token with which somebody enrols. Works beside a running `serve`."
EXAMPLES = """examples:
  nextcloud-audit token --data /var/lib/nextcloud-audit --user alice --source nextcloud:oc8k2x
  nextcloud-audit token --data /var/lib/nextcloud-audit --instance --user records-office
  nextcloud-audit token --data /var/lib/nextcloud-audit --user alice --replace

In a Nextcloud each user enrols for their own files: --user is the uid there. The instance's root is for the files of
all who have not, from a seed that the organisation keeps off this server. It is best enrolled before anything else.

--replace is for a lost seed, or for a new owner of a folder: whoever enrols with it takes the place of who is enrolled.
The old key opens nothing any more, every file starts a new generation, and each is NOT PROVEN (unsigned-close) until
the new owner has looked at it and sealed it: `seal FILE --accept ...`, as `verify` says. It is logged for good."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("--user", metavar="UID", required=True, help="who enrols")
    parser.add_argument("--source", metavar="ID", help="for this source alone (default: any)")
    parser.add_argument("--instance", action="store_true", help="for the root of all who enrol none of their own")
    parser.add_argument("--replace", action="store_true", help="in place of who is enrolled: a lost seed, a new owner")
    common.add_json(parser)


def run(args: Namespace) -> int:
    user = check_text(args.user, "user", MAX_USER)
    log = open_log(args.data)
    try:
        source = None if args.source is None else find_source(log.store.reader(), args.source)
        if args.source is not None and source is None:
            raise Usage(f"source: the log has no {args.source!r}")
        kind = (INSTANCE if args.instance else OWNER) + (REPLACE if args.replace else "")
        token = new_token(log.store, user, source, kind=kind)
    finally:
        log.store.close()
    what = "the instance's root" if args.instance else f"the files of {user!r}"
    place = ", in place of who is enrolled" if args.replace else ""
    text = f"{token}\nOne enrolment, by user {user!r}, for {what}{place}; it is shown only now."
    common.emit(args, {"user": user, "token": token, "kind": kind}, text)
    return 0
