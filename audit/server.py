"""Runs an application on one address until a signal comes, and says where.

    listening on http://127.0.0.1:8460

Port 0 takes a free port. Anything but loopback needs the word that TLS is spoken in front of it. SIGTERM and SIGINT end
what is under way and return normally.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from audit.http import OneWriteProtocol
from verifier.client import is_loopback
from verifier.encoding import decode_decimal
from verifier.errors import Malformed, Usage

GRACE_S = 10  # for requests that are being answered
MAX_CONNECTIONS = 1_000  # at once; more get 503
BACKLOG = 512


def parse_listen(text: str) -> tuple[str, int]:
    """HOST:PORT; an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    try:
        number = decode_decimal(port, "port", 65_535)
    except Malformed:
        number = -1
    if not colon or not host or number < 0 or (":" in host) != host.startswith("["):
        raise Usage(f"listen: got {text!r}, want HOST:PORT")
    return host.strip("[]"), number


def check_public(host: str, behind_tls: bool) -> None:
    """Plain HTTP goes no further than this machine."""
    if not behind_tls and not is_loopback(host):
        raise Usage(
            f"listen: {host} can be reached from other machines, and this speaks plain HTTP: "
            "put a proxy with TLS in front and say --behind-tls"
        )


class Server(uvicorn.Server):
    """Says where it listens once it does. `stop` may be called from anywhere."""

    def __init__(self, app: Any, said: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            app,
            http=OneWriteProtocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,  # nothing here depends on who asks from where
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._said = said

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            for listening in sockets or []:
                host, port = listening.getsockname()[:2]
                self._said(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def stop(self) -> None:
        self.should_exit = True


def serve(make_app: Callable[[Callable[[], None]], Any], host: str, port: int, said: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. `make_app` gets what stops the server."""
    listening = listen(host, port)
    # uvicorn raises the signal once more when it is done, for whoever handled it before: that is nobody.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    server: Server

    def stop() -> None:
        server.stop()

    try:
        server = Server(make_app(stop), said)
        server.run(sockets=[listening])
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Usage(f"listen: cannot listen on {host}:{port}: {error.strerror or error}") from None


def _ignore(_: int, __: FrameType | None) -> None:
    pass
