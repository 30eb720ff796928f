"""A headless Chromium, driven through its ChromeDriver's own HTTP (W3C WebDriver): no library in between.

with browsing(directory) as browser:
    browser.open("https://...")
    browser.run("return document.title")
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
START_TIMEOUT_S, PAGE_TIMEOUT_S = 30, 60


class Browser:
    """One window."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client, self._at = client, f"/session/{session}"

    def open(self, url: str) -> None:
        self._ask("/url", {"url": url})

    def run(self, script: str, *values: str) -> Any:
        """The value of a script in the page."""
        return self._ask("/execute/sync", {"script": script, "args": values})

    def until(self, script: str) -> None:
        """Until a script in the page is true: only the page knows when it is there."""
        wait_for(lambda: bool(self.run(script)), PAGE_TIMEOUT_S, script)

    def _ask(self, path: str, body: dict[str, object]) -> Any:
        answer = self._client.post(self._at + path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]


@contextmanager
def browsing(directory: Path) -> Iterator[Browser]:
    """A browser with an empty profile below `directory`; skips where there is none."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary is None or shutil.which("chromedriver") is None:
        pytest.skip("chromium and chromedriver are not installed: no browser was tried (Debian: chromium-driver)")
    driver = subprocess.Popen(["chromedriver", "--port=0", "--log-level=SEVERE"], stdout=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port_of(driver)}", trust_env=False, timeout=120) as client:
            options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={directory}"]}
            wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
            made = client.post("/session", json={"capabilities": wanted}).json()["value"]
            try:
                yield Browser(client, made["sessionId"])
            finally:
                client.delete(f"/session/{made['sessionId']}")
    finally:
        driver.terminate()
        driver.wait()
        assert driver.stdout is not None
        driver.stdout.close()


def port_of(driver: subprocess.Popen[str]) -> int:
    """What ChromeDriver says when it listens."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if "started successfully on port" in line:
            return int(line.rstrip(".\n").rsplit(" ", 1)[1])
    raise AssertionError("chromedriver did not start")


def wait_for(probe: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
