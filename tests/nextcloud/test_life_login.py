"""`nextcloud-audit login` against a real Nextcloud: once granted it opens proofs, until it is revoked."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_main_path import run
from tests.nextcloud.browser import browsing
from tests.nextcloud.clouds import Cloud, Hand, throw_away_user
from tests.nextcloud.life import START, Life
from verifier.login import read_login

pytestmark = pytest.mark.e2e
GRANT_TIMEOUT_S = 60

Grant = Callable[[str, Hand], Awaitable[None]]


class Asking:
    """`nextcloud-audit login` as a process. `page`: what it asks its user to open."""

    def __init__(self, cloud: Cloud, output: Path) -> None:
        words = ["login", cloud.url, "-o", str(output), "--wait", f"{GRANT_TIMEOUT_S}s"]
        command = [sys.executable, "-m", "audit", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.process.stderr.readline()
        self.page = self.process.stderr.readline().strip()

    def end(self) -> int:
        out, said = self.process.communicate(timeout=GRANT_TIMEOUT_S + 10)
        print(out, said)
        return self.process.returncode


async def grant_by_forms(page: str, hand: Hand) -> None:
    """What a browser sends: it follows the page, logs in by the form, and presses Grant."""
    async with httpx.AsyncClient(follow_redirects=True, trust_env=False, timeout=60) as browser:
        browser.headers.update({"User-Agent": "Mozilla/5.0 (tests)", "Accept": "text/html"})
        first = await browser.get(page)
        picked = await browser.get(html.unescape(field(r'id="login-form" action="([^"]+)"', first)))
        form = {"user": hand.uid, "password": hand.account_password, "requesttoken": token_of(picked)}
        origin = {"Origin": str(httpx.URL(page).join("/")).rstrip("/")}
        granting = await browser.post(picked.url, data=form, headers=origin)
        state = html.unescape(field(r'name="stateToken" value="([^"]+)"', granting))
        form = {"stateToken": state, "requesttoken": token_of(granting)}
        done = await browser.post(httpx.URL(page).join("/index.php/login/v2/grant"), data=form, headers=origin)
        assert done.status_code == 200, done.text


# Forms are submitted by script, so that a server without its built JavaScript will do.
SUBMIT = "HTMLFormElement.prototype.submit.call(document.querySelector(arguments[0]))"
LOG_IN = """
const form = document.createElement("form"), token = document.head.dataset.requesttoken
const values = {user: arguments[0], password: arguments[1], requesttoken: token}
form.method = "post"
for (const name in values) form.append(Object.assign(document.createElement("input"), {name, value: values[name]}))
document.body.append(form)
HTMLFormElement.prototype.submit.call(form)
"""


def grant_in_browser(page: str, hand: Hand, directory: Path) -> None:
    """A real browser, with its cookies and its Content-Security-Policy."""
    with browsing(directory) as browser:
        browser.open(page)
        browser.until("return !!document.querySelector('#login-form')")
        browser.run("location.href = document.querySelector('#login-form').action")  # as the page's own script does
        browser.until("return location.pathname.endsWith('/login') && document.readyState == 'complete'")
        browser.run(LOG_IN, hand.uid, hand.account_password)
        browser.until("return !!document.querySelector('form[method=post] [name=stateToken]')")
        browser.run(SUBMIT, "form[method=post]:has([name=stateToken])")
        browser.until("return location.pathname.endsWith('/grant') && !document.querySelector('[name=stateToken]')")


def token_of(answer: httpx.Response) -> str:
    return html.unescape(field(r'data-requesttoken="([^"]+)"', answer))


def field(pattern: str, answer: httpx.Response) -> str:
    found = re.search(pattern, answer.text)
    assert found is not None, (answer.url, answer.status_code, answer.text[-2000:])
    return found[1]


def test_login_by_forms_opens_proofs(real: Cloud, life: Life) -> None:
    """Login Flow v2 as a browser's requests: an app password of the user's own, good for proofs until it is revoked."""
    asyncio.run(log_in(real, life, grant_by_forms))


def test_login_in_a_browser_opens_proofs(real: Cloud, life: Life, tmp_path: Path) -> None:
    """The same in a headless Chromium."""
    folder = tmp_path / "profile"

    async def grant(page: str, hand: Hand) -> None:
        await asyncio.to_thread(grant_in_browser, page, hand, folder)

    with browsing(tmp_path / "try"):  # skipped before anything else is made
        pass
    asyncio.run(log_in(real, life, grant))


async def log_in(cloud: Cloud, life: Life, grant: Grant) -> None:
    async with throw_away_user(cloud) as (hand, _):
        await hand.save("mine.txt", b"mine", START)
        life.record(cloud.url, [hand])
        await life.settle()
        file = life.directory / "granted.json"
        asking = Asking(cloud, file)
        await grant(asking.page, hand)
        assert await asyncio.to_thread(asking.end) == 0
        login = read_login(str(file))
        assert (login.server, login.user, file.stat().st_mode & 0o777) == (cloud.url, hand.uid, 0o600)
        assert login.password not in (hand.password, hand.account_password)
        words = ("prove", "mine.txt", "--server", life.server.url, "--login", file, "-o", life.proof)
        assert run(*words)["steps"] == "1"
        assert life.judge("mine.txt", b"mine")["verdict"] == "VERIFIED"
        async with httpx.AsyncClient(auth=(login.user, login.password), trust_env=False) as device:
            at = f"{cloud.url}/ocs/v2.php/core/apppassword"
            assert (await device.delete(at, headers={"OCS-APIRequest": "true"})).status_code == 200
        run(*words, expect=4)


def test_login_that_nobody_grants_ends(real: Cloud, tmp_path: Path) -> None:
    """Without a grant there is no file, and the command says so when its time is over."""
    file = tmp_path / "login.json"
    run("login", real.url, "-o", file, "--wait", "2s", expect=4)
    assert not file.exists()
