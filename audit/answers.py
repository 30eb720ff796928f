"""What other servers answer, read no further than its bound."""

from __future__ import annotations

import httpx

from audit.errors import PeerFailed


async def read_answer(response: httpx.Response, limit: int, what: str) -> bytes:
    """The body of a streamed response as it came, of at most `limit` bytes; `what` names it in PeerFailed."""
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > limit:
            raise PeerFailed(f"{what}: answer too large, want at most {limit} bytes")
    return bytes(data)
