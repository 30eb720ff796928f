"""`nextcloud-audit node evidence`: what a node has kept against the logs that it watches."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.commands import common
from audit.evidence import Files
from audit.http import fetch_nothing
from audit.node import open_node
from verifier.words import escape, when

DESCRIPTION = "List what was kept against logs: refused requests that a log signed, and files that prove it to anybody."
EXAMPLES = """examples:
  nextcloud-audit node evidence --data DIR
  nextcloud-audit node evidence --data DIR --export       a file for every request that proves something by itself
  nextcloud-audit verify --evidence DIR/evidence/FILE --log VKEY"""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the node's directory")
    parser.add_argument("--export", action="store_true", help="write the files that are not there yet")
    common.add_json(parser)


def run(args: Namespace) -> int:
    files = Files(Path(args.data))
    node = open_node(Path(args.data), fetch=fetch_nothing)
    try:
        rows = [row._replace(request=b"", known_note=b"") for row in node.store.each_evidence()]
        if args.export:
            files.keep_rows(node.store, int(time.time()))
    finally:
        node.close()
    paths = [str(path) for path in files.paths()]
    kept = [
        {"time": str(row.time), "origin": row.origin, "by": row.signer, "kind": row.kind, "detail": row.detail}
        for row in rows
    ]
    lines = [f"{when(row.time)}  {row.origin}  {row.signer}  {row.kind}: {row.detail}" for row in rows]
    text = "\n".join([escape(line) for line in [*lines, *paths]]) or "nothing is kept against any log"
    common.emit(args, {"kept": kept, "files": paths}, text)
    return 0
