"""`nextcloud-audit upgrade`: brings a log's database to the version of this program."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from audit.commands import common
from audit.directory import locked
from audit.upgrade import upgrade_store

DESCRIPTION = "Bring a log's database to the version of this program. Stop `serve` first, and keep a copy."
EXAMPLES = """examples:
  nextcloud-audit upgrade --data /var/lib/nextcloud-audit

Nothing that is logged changes; a crash leaves the old version or the new one. `fsck` afterwards says if all is well."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    common.add_json(parser)


def run(args: Namespace) -> int:
    with locked(args.data):
        versions = upgrade_store(args.data)
    text = f"{args.data}: schema version {versions[-1]}"
    text += f", was {versions[0]}" if len(versions) > 1 else ": nothing to do"
    common.emit(args, {"versions": [str(version) for version in versions]}, text)
    return 0
