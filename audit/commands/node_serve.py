"""`nextcloud-audit node serve`: a witness and auditor, running."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.commands import common
from audit.directory import locked
from audit.node import HOST, PORT, create_app, open_node
from audit.server import check_public, parse_listen, serve

LISTEN = f"{HOST}:{PORT}"
DESCRIPTION = "Run a node: cosign the logs that it was told to watch, and replay those whose address it knows."
EXAMPLES = """examples:
  nextcloud-audit node serve --data /var/lib/nextcloud-audit-node
  nextcloud-audit node serve --data ... --no-audit        a witness only: nothing is fetched from anybody"""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the node's directory")
    parser.add_argument("--listen", metavar="HOST:PORT", default=LISTEN, help=f"(default: {LISTEN}; port 0: any)")
    parser.add_argument("--behind-tls", action="store_true", help="a proxy with TLS is in front: listen elsewhere")
    parser.add_argument(
        "--no-audit",
        action="store_true",
        help="be a witness only: nothing is mirrored or replayed",
    )
    common.add_json(parser)


def run(args: Namespace) -> int:
    host, port = parse_listen(args.listen)
    check_public(host, args.behind_tls)
    with locked(args.data):
        node = open_node(Path(args.data))
        app = create_app(node, audits=not args.no_audit)
        role = " (a witness only)" if args.no_audit else ""

        def said(url: str) -> None:
            common.emit(args, {"listening": url, "audits": not args.no_audit}, f"listening on {url}{role}")

        serve(lambda _: app, host, port, said)
    return 0
