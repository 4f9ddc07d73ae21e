"""The upstream endpoint: requests are passed on as they came, with the caller's own key, and responses as they come."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeAlias
from urllib.parse import unquote

import httpx2
from starlette.types import Receive, Scope, Send

from fingerpost.server.ops.access import known_path
from fingerpost.server.ops.logs import log_sometimes
from fingerpost.server.schemas import ApiError

CONNECT_S, READ_S = 10.0, 600.0
NOT_PASSED_ON = {
    b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
"""Headers of one connection (RFC 9110, section 7.6.1), and those that the client sets anew."""
OURS, BY = b"x-fingerpost-", b"x-fingerpost-by"
LAST_EVENTS = (b"data: [DONE]", b"event: response.completed", b'"type":"response.completed"')
"""What the last part of a stream contains. It is sent when the answer is stored."""

Headers: TypeAlias = list[tuple[bytes, bytes]]
OnAnswer: TypeAlias = Callable[["UpstreamAnswer"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A whole response of the upstream endpoint. `seconds` is the time until its end."""

    status: int
    content_type: str
    body: bytes
    seconds: float


class Upstream:
    """An endpoint that requests are passed on to.

    Args:
        base_url: its address, ending with /v1 or the like.
        key: sent in place of the caller's key where that is one of this server's own; None where there is none.
    """

    def __init__(self, base_url: str, key: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(READ_S, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=200),
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # those of one caller are not for others
        )
        self._client.headers.clear()
        self._open: bool | None = None

    async def close(self) -> None:
        await self._client.aclose()

    async def is_open(self) -> bool:
        """Whether the endpoint answers without a key, so that a key proves nothing. It is asked once.

        Raises:
            ApiError: 502, the endpoint cannot be reached.
        """
        if self._open is None:
            async with self.send("GET", "/v1/models", b"", [], b"") as response:
                self._open = response.status_code == 200
        return self._open

    def headers(self, scope: Scope, readable: bool) -> Headers:
        """The headers of a request that are passed on.

        Args:
            readable: ask for a response that is not compressed, because it will be read here.

        Raises:
            ApiError: 401, the caller has a key of this server, and there is none for the endpoint.
        """
        passed = [
            (name, value)
            for name, value in scope["headers"]
            if name not in NOT_PASSED_ON and not name.startswith(OURS) and not (readable and name == b"accept-encoding")
        ]
        if readable:
            passed.append((b"accept-encoding", b"identity"))
        if scope["state"].get("key") is not None:
            if self._key is None:
                raise ApiError(
                    401, "this request goes to the upstream endpoint, and FINGERPOST_UPSTREAM_KEY, the key for callers with a "
                    "key of this server, is not set", code="missing_upstream_key",
                )  # fmt: skip
            passed = [pair for pair in passed if pair[0] not in (b"authorization", b"api-key")]
            passed.append((b"authorization", f"Bearer {self._key}".encode()))
        return passed

    @asynccontextmanager
    async def send(
        self, method: str, path: str, query: bytes, headers: Headers, body: bytes | AsyncIterator[bytes]
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request; yields the response before its body is read.

        Raises:
            ApiError: 502, the endpoint cannot be reached.
        """
        if any(segment in (".", "..") for segment in re.split(r"[/\\]", unquote(path))):
            raise ApiError(400, "the path has a segment '.' or '..'; leave it out")
        url = self.base_url + path.removeprefix("/v1") + (f"?{query.decode('latin-1')}" if query else "")
        try:
            request = self._client.build_request(method, url, headers=headers, content=body)
            response = await self._client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ApiError(
                502, f"the upstream endpoint {self.base_url} cannot be reached ({type(error).__name__})",
                code="upstream_unreachable",
            ) from None  # fmt: skip
        try:
            yield response
        finally:
            await response.aclose()

    async def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes | AsyncIterator[bytes],
        on_answer: OnAnswer | None = None,
    ) -> None:
        """Pass a request on, and its response back as it comes.

        Args:
            on_answer: is awaited with the whole response before the end of it is sent.

        Raises:
            ApiError: the endpoint cannot be reached.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        headers = self.headers(scope, readable=on_answer is not None)
        if not isinstance(body, bytes):
            headers += [pair for pair in scope["headers"] if pair[0] == b"content-length"]
        path = known_path(scope["raw_path"].decode("latin-1"))
        async with self.send(scope["method"], path, scope["query_string"], headers, body) as response:
            kind = response.headers.get("content-type", "")
            passed = [
                (name, value)
                for name, value in response.headers.raw
                if name.lower() not in (*NOT_PASSED_ON, BY, b"date")
            ]
            length = response.headers.get("content-length")
            passed += [(b"content-length", length.encode())] if length is not None else []
            passed.append((BY, b"upstream"))
            await send({"type": "http.response.start", "status": response.status_code, "headers": passed})
            kept: list[bytes] = []
            sent = 0  # parts of `kept`
            gone = asyncio.create_task(_disconnected(receive, body))
            try:
                async for part in response.aiter_raw():
                    if gone.done():
                        return
                    if on_answer is None:
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                        continue
                    kept.append(part)
                    if "event-stream" not in kind or any(mark in part for mark in LAST_EVENTS):
                        continue  # the end, or a response that has to be whole anyway
                    await send({"type": "http.response.body", "body": b"".join(kept[sent:]), "more_body": True})
                    sent = len(kept)
            finally:
                gone.cancel()
            if on_answer is not None:
                answer = UpstreamAnswer(response.status_code, kind, b"".join(kept), loop.time() - began)
                try:
                    await on_answer(answer)
                except Exception as error:  # noqa: BLE001 - the client gets its answer, whatever becomes of ours
                    log_sometimes("an upstream answer could not be learnt from", logging.ERROR, error)
            await send({"type": "http.response.body", "body": b"".join(kept[sent:]), "more_body": False})

    async def ask(self, path: str, headers: Headers, body: bytes) -> UpstreamAnswer:
        """The whole response to a request, for a check that no client waits for.

        Raises:
            ApiError: the endpoint cannot be reached.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self.send("POST", path, b"", headers, body) as response:
            content = await response.aread()
            kind = response.headers.get("content-type", "")
            return UpstreamAnswer(response.status_code, kind, content, loop.time() - began)


async def _disconnected(receive: Receive, body: bytes | AsyncIterator[bytes]) -> None:
    """Returns when the client has gone. While the body is still being read, nobody else may listen."""
    if not isinstance(body, bytes):
        await asyncio.Event().wait()
    while (await receive())["type"] != "http.disconnect":
        pass
