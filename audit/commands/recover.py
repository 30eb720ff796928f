"""`nextcloud-audit recover`: after a restore from a backup, fetch the missing leaves from a node's mirror."""

from __future__ import annotations

import asyncio
import time
from argparse import ArgumentParser, Namespace

from audit.commands import common
from audit.directory import Directory, locked, open_log
from audit.node import HttpFetch, check_url
from audit.recovery import Recovered, recover
from verifier.errors import Usage

DESCRIPTION = "Fetch the leaves that a restored log lacks from a node that mirrors it, check them, and go on."
EXAMPLES = """examples:
  nextcloud-audit recover --data /var/lib/nextcloud-audit --from https://node.example.net

Stop `serve` first. Interrupted, it goes on where it was; until the end it changes nothing but DIR/recover.part."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory, as it was restored")
    parser.add_argument("--from", dest="source", metavar="URL", required=True, help="a node that audits this log")
    common.add_json(parser)


def run(args: Namespace) -> int:
    if not check_url(args.source):
        raise Usage("from: want the address of a node")
    with locked(args.data):
        log = open_log(args.data)
        try:
            done = asyncio.run(_recover(log, args.source))
        finally:
            log.store.close()
    data = {name: value if isinstance(value, bool) else str(value) for name, value in done._asdict().items()}
    common.emit(args, data, _describe(done))
    return 0


async def _recover(log: Directory, url: str) -> Recovered:
    fetch = HttpFetch()
    try:
        return await recover(log, url, fetch, int(time.time()), common.say)
    finally:
        await fetch.aclose()


def _describe(done: Recovered) -> str:
    state = "published" if done.published else "signed; `serve` gathers its quorum"
    return f"""The tree of size {done.size} is back ({state}).

  leaves     {done.leaves} fetched; they have the root that this log signed
  steps      {done.steps} of files: the steps themselves are lost, their hashes are not
  chains     {done.chains} end as lost, and go on as a new generation where the file is there
  withdrawn  {done.withdrawn} steps that were recorded since the restore and not logged
  unknown    {done.unknown} chains whose file is not known; each ends when its file is seen

For these files `verify` says NOT PROVEN (unsigned-close) until the owner's seal accepts it."""
