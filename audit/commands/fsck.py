"""`nextcloud-audit fsck`: verify the whole store again."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.commands import common

DESCRIPTION = "Verify a whole log again: entries, chains, tree, map, and everything that was ever signed."
EXAMPLES = """examples:
  nextcloud-audit fsck --data /var/lib/nextcloud-audit

Exit code 0: everything holds. 1: something does not, and what. It only reads, and may run while the log is served."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    common.add_json(parser)


def run(args: Namespace) -> int:
    from audit.fsck import main

    return main(args.data, args.json)
