"""Real sockets on 127.0.0.1 for tests: a node that listens, and bytes sent as they are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from audit.node import Node, create_app
from audit.server import Server
from tests.fakes import FakeClock

TIMEOUT_S = 10


@contextmanager
def running(node: Node, clock: Callable[[], int] | None = None) -> Iterator[int]:
    """The node on a free port of 127.0.0.1. Whoever made it closes it."""
    config = Server(create_app(node, clock or FakeClock()), lambda _: None).config
    config.lifespan = "off"
    with _served(config) as port:
        yield port


@contextmanager
def on_loopback(app: Starlette) -> Iterator[str]:
    """The address of an application on a free port of 127.0.0.1."""
    with _served(uvicorn.Config(app, log_level="error", lifespan="off")) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _served(config: uvicorn.Config) -> Iterator[int]:
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def talk(port: int, data: bytes, half_close: bool = False) -> bytes:
    """Sends bytes as they are and returns all that comes back until the connection closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough; what it answered is read all the same
        reply = b""
        try:
            while chunk := connection.recv(65536):
                reply += chunk
        except ConnectionResetError:
            pass
        return reply
