"""HTTP at the edges, the same for log and node: bodies that are read, answers that are written, what is fetched.

body = await read_body(request, MAX_BODY)          bounded while it is read, whatever Content-Length says
data = await HttpFetch()(url, limit)               GET: no redirects, no proxies, bounded and timed
uvicorn.Config(app, http=OneWriteProtocol)         one write for each answer
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from audit.answers import read_answer
from audit.errors import PeerFailed, PeerLacks, PeerUnreached
from verifier.errors import Malformed

READ_TIMEOUT_S = 10
FETCH_TIMEOUT_S = 30


# What comes in


class TooLarge(Malformed):
    """A body beyond its bound; the rest of it is not read."""


class TooSlow(Malformed):
    """A body that did not arrive in time."""


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of which never more than `limit` bytes are held, whatever its headers promise."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared[:20]) > limit:
        raise TooLarge(f"want at most {limit} bytes", "body", declared)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"want at most {limit} bytes", "body")
    except TimeoutError:
        raise TooSlow(f"not complete after {READ_TIMEOUT_S} s", "body") from None
    except ClientDisconnect:
        raise Malformed("cut short", "body") from None
    return bytes(body)


# What is fetched


class HttpFetch:
    """GET over HTTP: no redirects, no proxies from the environment, bounded and timed."""

    def __init__(self) -> None:
        headers = {"accept-encoding": "identity"}
        self._client = httpx.AsyncClient(
            follow_redirects=False, trust_env=False, timeout=FETCH_TIMEOUT_S, headers=headers
        )

    async def __call__(self, url: str, limit: int) -> bytes:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S), self._client.stream("GET", url) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    raise PeerLacks(f"{url}: got status 404: it is not there")
                if response.status_code != httpx.codes.OK or "content-encoding" in response.headers:
                    raise PeerFailed(f"{url}: got status {response.status_code}, want 200 and no encoding")
                return await read_answer(response, limit, url)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            kind = PeerUnreached if isinstance(error, httpx.ConnectError) else PeerFailed
            raise kind(f"{url}: {type(error).__name__}") from None

    async def aclose(self) -> None:
        await self._client.aclose()


async def fetch_nothing(url: str, limit: int) -> bytes:
    """For a node that only answers from what it has."""
    raise PeerFailed(f"{url}: this node fetches nothing")


# What goes out


class OneWriteProtocol(HttpToolsProtocol):
    """Sends head and body together: two small packets may wait for an acknowledgement that the peer delays."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, OneWriteTransport(transport)))


class OneWriteTransport:
    """A transport that writes at the end of the event loop's step whatever came up in it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts and not self._transport.is_closing():
            self._transport.write(b"".join(self._parts))
        self._parts.clear()
