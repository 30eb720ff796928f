"""`nextcloud-audit recover`: after a restore from a backup, fetch the missing leaves, or declare them lost."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from argparse import ArgumentParser, Namespace

from audit.commands import common
from audit.directory import Directory, locked, open_log
from audit.errors import PeerFailed, Refused
from audit.http import HttpFetch
from audit.losing import Declaration, ask, declare, default_origin, find_lost, is_ready, swap, take_what_is_left
from audit.node import check_url
from audit.peer_files import read_files
from audit.recovery import Recovered, recover
from verifier.errors import Usage
from verifier.loss import parse_loss
from verifier.note import format_vkey

DESCRIPTION = """Fetch the leaves that a restored log lacks from a node that mirrors it, check them, and go on.
Where nobody has them: declare them lost, and go on under a new origin."""
EXAMPLES = """examples:
  nextcloud-audit recover --data /var/lib/nextcloud-audit --from https://node.example.net
  nextcloud-audit recover --data /var/lib/nextcloud-audit --declare-loss

Stop `serve` first. Interrupted, it goes on where it was; until the end it changes nothing but DIR/recover.part.

`--declare-loss` asks every node of the policies first, and declares nothing while one has the leaves. It cannot be
taken back: every file is NOT PROVEN until its owner seals it, every node and every client has to accept the new origin
by hand, and whoever saw what is lost goes on saying so."""

NOBODY = "try another node that audits this log; where none has the leaves, `recover --declare-loss` is the way out"
MEANING = """This declares lost what this log published after tree {kept}, up to tree {seen}, for good.

  - it goes on as {origin}, with a new key; {old} never signs again
  - every file is NOT PROVEN (declared-loss) until its owner seals it
  - every node and every client has to accept the new origin by hand
  - who saw what is lost will be told that it is gone

Type the new origin to go on: """


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory, as it was restored")
    parser.add_argument("--from", dest="source", metavar="URL", help="a node that audits this log; or one more to ask")
    parser.add_argument("--declare-loss", action="store_true", help="nobody has the leaves: go on under a new origin")
    parser.add_argument("--origin", metavar="NAME", help="the new origin (default: the old one and /2)")
    parser.add_argument(
        "--without",
        metavar="URL",
        action="append",
        default=[],
        help="nothing that this node says counts; repeat",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask whether a loss is to be declared")
    common.add_json(parser)


def run(args: Namespace) -> int:
    if args.declare_loss:
        return _run_declare(args)
    if args.origin or args.without or args.yes:
        raise Usage("recover: --origin, --without and --yes go with --declare-loss")
    if not args.source or not check_url(args.source):
        raise Usage("from: want the address of a node with --from, or --declare-loss")
    with locked(args.data):
        log = open_log(args.data)
        try:
            done = asyncio.run(_recover(log, args.source))
        except PeerFailed as error:
            raise PeerFailed(f"{error}; {NOBODY}") from None
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


# -- where nobody has them ------------------------------------------------------------------------------------------


def _run_declare(args: Namespace) -> int:
    with locked(args.data):
        done = None
        if not is_ready(args.data):  # else an earlier run was cut short after the point of no return
            log = open_log(args.data)
            try:
                done = asyncio.run(_declare(log, args))
            finally:
                log.store.close()
        before = swap(args.data)
        log = open_log(args.data)
        log.store.close()
    key = format_vkey(log.signer.verifier_key)
    data = {"origin": log.store.origin, "log": log.store.log_name, "vkey": key, "before": before}
    if done is not None:
        data |= {"old_origin": done.old_origin, "kept": str(done.kept), "note": str(done.note.size)}
    common.emit(args, data, _describe_declared(args.data, log, before, done))
    return 0


async def _declare(log: Directory, args: Namespace) -> Declaration:
    fetch, now = HttpFetch(), int(time.time())
    try:
        shown = await ask(log, [args.source] if args.source else [], args.without, fetch, common.say)
        lost = find_lost(log, shown)
        kept = await take_what_is_left(log, shown, lost, fetch, now, common.say)
    finally:
        await fetch.aclose()
    origin = args.origin or default_origin(log.store.origin, parse_loss(log.store.loss) if log.store.loss else [])
    if not args.yes:
        _confirm(MEANING.format(kept=kept, seen=lost.seen, origin=origin, old=log.store.origin), origin)
    return declare(log, lost, origin, now, os.urandom, common.say)


def _confirm(question: str, wanted: str) -> None:
    """Only the name of the new origin, typed, is a yes."""
    print(question, end="", file=sys.stderr, flush=True)
    try:
        typed = input()
    except EOFError:
        raise Usage("declare-loss: nobody is there to confirm it: say --yes") from None
    if typed.strip() != wanted:
        raise Refused("declare-loss: not confirmed: nothing was declared")


def _describe_declared(directory: str, log: Directory, before: str, done: Declaration | None) -> str:
    key, url = format_vkey(log.signer.verifier_key), read_files(directory).peers.url or "URL"
    kept = "" if done is None else f"\n  kept    {done.kept} leaves of {done.old_origin}, logged again in their order"
    return f"""The loss is declared: this log goes on as {log.store.origin}.
{kept}
  key     {key}
  before  {before}: the log as it was. Keep it, and keep its key off this machine: it must never sign again

Each node's operator runs, once you have told them why:
  nextcloud-audit node allow --data DIR {key} {url}

A cache or CDN in front of this log has its old tiles, which were said never to change: empty it before you go on.

Then start `serve`, and give everybody who verifies the new policies by file (`policy export`): they name both origins.
Whoever has them says once: nextcloud-audit verify FILE --policy ... --auditors ... --replace-policy
Every file is NOT PROVEN (declared-loss) until its owner says: nextcloud-audit seal FILE --accept loss"""
