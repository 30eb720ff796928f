"""`nextcloud-audit serve`: the log, running."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from fastapi import FastAPI

from audit.api import create_app
from audit.commands import common
from audit.directory import locked, open_log
from audit.nextcloud.tail import Tail
from audit.peer_files import read_files
from audit.server import check_public, parse_listen, serve
from audit.service import Pace, Service
from audit.sources import SPECS, HintedSource, ScanSource, list_sources, make_event_keys, open_source, with_limits
from verifier.errors import Error, Usage
from verifier.lint import lint
from verifier.policy import AUDITORS, Policy
from verifier.words import parse_duration

LISTEN = "127.0.0.1:8460"
DESCRIPTION = "Run a log: scan its sources, sign, have it cosigned and replayed, answer its owners."
EXAMPLES = """examples:
  nextcloud-audit serve --data /var/lib/nextcloud-audit --source folder:/srv/letters
  nextcloud-audit serve --data ... --source folder:/srv/letters --enrol-first
  nextcloud-audit serve --data ... --source nextcloud:https://cloud.example.org
  nextcloud-audit serve --data ... --audit-log /srv/nextcloud/data/audit.log
  nextcloud-audit serve --data ... --share 50% --again-days 14 --again-hours 3 --again-rate 30MB

What is recorded before an owner enrolled stands under a key that the server made: it proves nothing until the owner
has sealed it, file by file. --enrol-first waits for the owner.
A Nextcloud is read by the accounts in DIR/nextcloud.json (see `record --help`). `hooks` has it tell of changes, which
are then looked at within a second; on its own host, --audit-log does the same, once admin_audit logs:
  occ app:enable admin_audit; occ config:system:set log.condition apps 0 --value admin_audit
Scans ask a Nextcloud one thing at a time, and leave it alone for three times as long as it took to answer (--share
25%); what events tell of is looked at without a pause. Stored bytes are read again: everything within --again-days, for
at most --again-hours a day, at most --again-rate a second. "limits" in DIR/nextcloud.json says the same for good, and
`coverage` judges by that file.
Sources are remembered: without --source, all known ones are scanned. Recording starts at once; publishing needs
witnesses in DIR/policy whose quorums overlap. `peer add` makes both policies; they are read once, at start.
SIGTERM ends it, and at no moment is anything lost that was recorded."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("--source", metavar=SPECS, action="append", default=[], help="what to record; repeat")
    parser.add_argument("--listen", metavar="HOST:PORT", default=LISTEN, help=f"(default: {LISTEN}; port 0: any)")
    parser.add_argument("--behind-tls", action="store_true", help="a proxy with TLS is in front: listen elsewhere")
    parser.add_argument("--scan-every", metavar="60s", default="60s", help="the pause between scans (default: 60s)")
    parser.add_argument(
        "--publish-after", metavar="5s", default="5s", help="how long changes are gathered (default: 5s)"
    )
    parser.add_argument(
        "--enrol-first", action="store_true", help="scan no source before its owner enrolled, so that all is theirs"
    )
    parser.add_argument("--audit-log", metavar="PATH", help="follow the audit.log of a Nextcloud on this host")
    common.add_limits(parser)
    common.add_json(parser)


def run(args: Namespace) -> int:
    host, port = parse_listen(args.listen)
    check_public(host, args.behind_tls)
    pace = Pace(scan_every_s=parse_duration(args.scan_every), publish_after_s=parse_duration(args.publish_after))
    if pace.scan_every_s < 1:
        raise Usage(f"scan every: got {args.scan_every}, want at least 1s")
    fatal: list[BaseException] = []
    with locked(args.data):
        log = open_log(args.data)
        try:
            say_weaknesses(args.data, log.witnesses, log.auditors)
            named = [open_source(log.store, args.data, spec) for spec in args.source]
            given = common.limits_of(args)
            sources = [with_limits(source, given) for source in named or list_sources(log.store, args.data)]
            keys = make_event_keys(sources, args.data)
            tail = open_tail(args.data, args.audit_log, sources)

            def make_app(stop: Callable[[], None]) -> FastAPI:
                def on_fatal(error: BaseException) -> None:
                    fatal.append(error)
                    stop()

                service = Service(
                    log,
                    sources,
                    pace=pace,
                    enrol_first=args.enrol_first,
                    say=common.say,
                    on_fatal=on_fatal,
                    event_keys=keys,
                    tail=tail,
                )
                return create_app(service)

            serve(make_app, host, port, lambda url: common.emit(args, {"listening": url}, f"listening on {url}"))
        finally:
            log.store.close()
    if fatal:
        raise fatal[0]
    return 0


def open_tail(directory: str, path: str | None, sources: list[ScanSource]) -> Tail | None:
    """What follows an audit.log, where one is named."""
    if path is None:
        return None
    if not any(isinstance(source, HintedSource) for source in sources):
        raise Usage("audit log: this log has no Nextcloud, want --source nextcloud:URL")
    return Tail(directory, path)


def say_weaknesses(directory: str, *policies: Policy) -> None:
    """What a linter has to say. The policies alone decide; a declaration that can't be read stops nothing."""
    operators: dict[str, str] = {}
    try:
        operators = read_files(directory).operators
    except Error as error:
        common.say(f"peers: {error}")
    for policy in policies:
        for warning in lint(policy, operators):
            common.say(f"{'auditors' if policy.kind == AUDITORS else 'policy'}: {warning}")
