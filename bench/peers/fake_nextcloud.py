"""Run as fake_nextcloud.py DIRECTORY: the tests' Nextcloud on loopback, as slow for each request as a real one.

The directory is not used.
"""

from __future__ import annotations

from audit.server import serve
from tests.nextcloud.fake import FakeNextcloud

DELAY_S = 0.02  # about what a PROPFIND with an app password takes a real one


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    fake = FakeNextcloud()
    fake.delay_s = DELAY_S
    serve(lambda stop: fake.app, "127.0.0.1", 0, say)
