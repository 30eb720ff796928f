"""Run by this environment's Python: log_server.py DATA. The log's own application over a data directory, no sources."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from audit.api import create_app
from audit.directory import open_log
from audit.server import serve
from audit.service import Service


def make_app(directory: str) -> FastAPI:
    return create_app(Service(open_log(directory), []))


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    serve(lambda stop: make_app(sys.argv[1]), "127.0.0.1", 0, say)
