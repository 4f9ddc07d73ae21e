"""HTTP with limits on the size of a response and on the time until it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from fingerpost.core.utils import is_loopback, run_async

SLOWEST_BYTES_PER_S, PART_BYTES = 50_000, 2**16
MAX_BYTES = 16 * 2**20
"""The most bytes of a response, after decompression."""


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Reads each response whole, up to `max_bytes` of decompressed data; a longer one is a `ReadError`.

    Args:
        url: the endpoint. The proxy in the environment is used for it, unless it is on this machine or excepted.
        connections: the most connections at once.
    """

    def __init__(self, url: str, connections: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        parts, proxies = urlsplit(url), getproxies()
        direct = is_loopback(url) or proxy_bypass(parts.hostname or "")
        super().__init__(
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            proxy=None if direct else proxies.get(parts.scheme) or proxies.get("all"),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        parts, size = [], 0
        try:
            async for part in response.aiter_bytes():
                size += len(part)
                if size > self._max_bytes:
                    raise httpx2.ReadError(f"the response has more than {self._max_bytes:,} bytes", request=request)
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


class DeadlineTransport(httpx2.BaseTransport):
    """For synchronous clients: as `BoundedTransport`, with a deadline for each whole response.

    The time-outs of a synchronous client are those of each read: an endpoint that sends a byte now and then would hold it up
    for ever.

    Args:
        url: the endpoint.
        max_bytes: the most bytes of a response, after decompression.
        deadline_s: seconds in which a response has to be complete, and one more for each SLOWEST_BYTES_PER_S of the request;
            later it is a `ReadTimeout`.
    """

    def __init__(self, url: str, max_bytes: int, deadline_s: float) -> None:
        self._url, self._max_bytes, self._deadline_s = url, max_bytes, deadline_s

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        content = request.read()
        deadline_s = self._deadline_s + len(content) / SLOWEST_BYTES_PER_S

        async def parts() -> AsyncIterator[bytes]:  # the time-out of writing is that of each part
            for start in range(0, len(content), PART_BYTES):
                yield content[start : start + PART_BYTES]

        async def send() -> httpx2.Response:
            sent = httpx2.Request(
                request.method,
                request.url,
                headers=request.headers,
                content=parts() if content else None,
                extensions=request.extensions,
            )
            async with asyncio.timeout(deadline_s), BoundedTransport(self._url, 1, self._max_bytes) as transport:
                return await transport.handle_async_request(sent)

        try:
            return run_async(send())
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole response within {deadline_s:.0f} s", request=request) from None
