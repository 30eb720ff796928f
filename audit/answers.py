"""What other servers answer, read no further than its bound."""

from __future__ import annotations

import httpx

from audit.errors import PeerFailed


def parse_retry_after(response: httpx.Response, most: float, usual: float) -> float:
    """The seconds that `Retry-After` asks for, within bounds; a date, or what is no number, is the usual."""
    value = response.headers.get("retry-after", "")
    return min(float(value), most) if value.isascii() and value.isdigit() and len(value) < 9 else usual


async def read_answer(response: httpx.Response, limit: int, what: str) -> bytes:
    """The body of a streamed response as it came, of at most `limit` bytes; `what` names it in PeerFailed."""
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > limit:
            raise PeerFailed(f"{what}: answer too large, want at most {limit} bytes")
    return bytes(data)
