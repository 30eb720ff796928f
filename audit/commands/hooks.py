"""`nextcloud-audit hooks`: has a Nextcloud tell this log what happens to files."""

from __future__ import annotations

import asyncio
import os
from argparse import ArgumentParser, Namespace
from collections import Counter

from audit.commands import common
from audit.errors import Refused
from audit.nextcloud.client import Account, Config, NotAllowed, Secret, Server, as_user, basic, make_client, read_config
from audit.nextcloud.client import check_url as check_base
from audit.nextcloud.hooks import Done, register, remove
from audit.nextcloud.inbox import make_hook_secret
from verifier.errors import Usage
from verifier.login import read_login
from verifier.words import escape

PATH = "/hook"
DESCRIPTION = "Register this log's hook with a Nextcloud (30 and later), so that changes are looked at within a second."
EXAMPLES = """examples:
  nextcloud-audit hooks --data /var/lib/nextcloud-audit --url https://audit.example.org/hook
  nextcloud-audit hooks --data ... --url https://audit.example.org/hook --admin-login admin.json
  nextcloud-audit hooks --data ... --url http://127.0.0.1:8460/hook --remove

Says which registrations it made, changed in place, or found as they should be: run it as often as you like. Works
beside `serve`. It asks as the external app in DIR/nextcloud.json, or as the first account there that is an admin, or
with --admin-login, a file that `nextcloud-audit login` made for one; the admin is needed this once.
The URL is what Nextcloud calls: /hook of `serve`, through your proxy. An address of the own network needs
`occ config:system:set allow_local_remote_servers --value true --type boolean`, else Nextcloud drops its events.
Events are delivered by background jobs: cron does it every five minutes, a worker as a service within a second,
  occ background-job:worker 'OCA\\WebhookListeners\\BackgroundJobs\\WebhookCall'
What is lost on the way is found by the scans."""


def add_arguments(parser: ArgumentParser) -> None:
    common.add_data(parser, "the log's directory")
    parser.add_argument("--url", metavar="URL", required=True, help="where Nextcloud reaches POST /hook of this log")
    parser.add_argument("--admin-login", metavar="FILE", help="a login file of an admin (see `login --help`)")
    parser.add_argument("--remove", action="store_true", help="take all registrations for this URL away")
    common.add_json(parser)


def run(args: Namespace) -> int:
    url = check_url(args.url)
    if not os.path.isdir(args.data):
        raise Usage(f"data: there is no {args.data}")
    config = read_config(args.data)
    if args.admin_login is not None:
        login = read_login(args.admin_login)
        if check_base(login.server) != config.url:
            raise Usage(f"admin login: it is for {login.server}, want {config.url}")
        config = Config(config.url, (Account(login.user, Secret(login.password)),), None)
    done = asyncio.run(_run(config, url, make_hook_secret(args.data), args.remove))
    common.emit(args, [one._asdict() for one in done], hooks_text(url, done))
    return 0


def check_url(text: str) -> str:
    """https, or http on loopback: the secret goes there."""
    url = check_base(text)
    if url != text or not url.endswith(PATH):
        raise Usage(f"url: got {text!r}, want https://HOST[:PORT][/PATH]{PATH}")
    return url


async def _run(config: Config, url: str, secret: Secret, is_removal: bool) -> list[Done]:
    apps = [as_user(config.appapi, "")] if config.appapi is not None else []
    async with make_client() as client:
        server = Server(config.url, client)
        for headers in [*apps, *map(basic, config.accounts)]:
            try:
                return await (remove if is_removal else register)(server, headers, url, secret)
            except NotAllowed:
                continue
    raise Refused("nextcloud: none of these accounts is an admin: give one with --admin-login, see `login --help`")


def hooks_text(url: str, done: list[Done]) -> str:
    """A line for each event, and the sum."""
    counts = Counter(one.what for one in done)
    lines = [f"  {one.what:<9} {escape(one.event)}" for one in done]
    total = ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing is registered"
    return "\n".join([f"{escape(url)}: {total}", *lines])
