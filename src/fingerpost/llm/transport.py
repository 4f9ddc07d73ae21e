"""HTTP to endpoints that are not trusted to send little."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from fingerpost.core.utils import is_loopback

MAX_BYTES = 16 * 2**20
"""The most bytes of a response, after decompression."""


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Reads each response whole, up to MAX_BYTES of decompressed data; a longer one is a `ReadError`.

    Args:
        url: the endpoint. The proxy in the environment is used for it, unless it is on this machine or excepted.
        connections: the most connections at once.
    """

    def __init__(self, url: str, connections: int) -> None:
        parts = urlsplit(url)
        direct = is_loopback(url) or proxy_bypass(parts.hostname or "")
        super().__init__(
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            proxy=None if direct else getproxies().get(parts.scheme),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        parts, size = [], 0
        try:
            async for part in response.aiter_bytes():
                size += len(part)
                if size > MAX_BYTES:
                    raise httpx2.ReadError(f"the response has more than {MAX_BYTES:,} bytes", request=request)
                parts.append(part)
        finally:
            await response.aclose()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name not in ("content-encoding", "content-length", "transfer-encoding")
        ]
        return httpx2.Response(
            response.status_code, headers=headers, content=b"".join(parts), extensions=response.extensions
        )
