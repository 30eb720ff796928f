"""Run as fake_nextcloud.py DIRECTORY: the tests' Nextcloud on loopback, as slow for each request as a real one.

It answers WORKERS requests at a time, and the others wait, as PHP does it. The directory is not used.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from audit.server import serve
from tests.nextcloud.fake import FakeNextcloud

DELAY_S = 0.02  # about what a PROPFIND with an app password takes a real one
WORKERS = 4


def say(text: str) -> None:
    print(text, flush=True)


def with_workers(app: ASGIApp) -> ASGIApp:
    """The app, so many requests at a time."""
    workers = asyncio.Semaphore(WORKERS)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        async with workers:
            await app(scope, receive, send)

    return answer


if __name__ == "__main__":
    fake = FakeNextcloud()
    fake.delay_s = DELAY_S
    serve(lambda stop: with_workers(fake.app), "127.0.0.1", 0, say)
