"""`nextcloud-audit login`: an app password for this device, granted in the browser (Login Flow v2)."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from verifier.client import Server
from verifier.commands import common
from verifier.errors import NotProven, Usage
from verifier.files import write_secret_new
from verifier.login import Flow, Login, format_login, poll, start
from verifier.words import escape, parse_duration

DESCRIPTION = """Ask a Nextcloud for an app password, which you grant in a browser, and keep it in a file (mode 0600).
Take it back in Nextcloud's settings, under Security."""
EXAMPLES = """examples:
  nextcloud-audit login https://cloud.example.org -o login.json
  nextcloud-audit prove Shared/plan.odt --server https://audit.example.org --login login.json -o plan.odt.proof"""

POLL_S = 1.0
DEFAULT_WAIT = "10m"  # Nextcloud forgets the request after twenty minutes


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("server", metavar="URL", help="the Nextcloud")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the login file to make")
    parser.add_argument("--wait", metavar="10m", default=DEFAULT_WAIT, help="how long to wait for you (default: 10m)")
    common.add_json(parser)


def run(args: Namespace) -> int:
    server = Server(args.server)
    flow = start(server)
    common.say("open this page in a browser, log in and grant access:")
    common.say(f"  {flow.login}")
    login = wait_for(server, flow, parse_duration(args.wait))
    write_secret_new(args.output, format_login(login))
    text = f"{escape(args.output)}: {escape(login.user)} at {escape(login.server)}. Keep it as you keep a password."
    common.emit(args, {"login": args.output, "server": login.server, "user": login.user}, text)
    return 0


def wait_for(server: Server, flow: Flow, wait_s: int) -> Login:
    """Asks until the user has granted it, through short failures of the network."""
    ends = time.monotonic() + wait_s
    while time.monotonic() < ends:
        try:
            login = poll(server, flow)
        except NotProven:
            login = None
        if login is not None:
            return login
        time.sleep(POLL_S)
    raise Usage(f"login: not granted within {wait_s} s: begin again")
