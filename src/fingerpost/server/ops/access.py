"""Access to the server: API keys, rate limits, size limits, and one log line for each request."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from typing import Any
from urllib.parse import urlsplit

from cachetools import TTLCache
from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate, RateItem
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerpost.server.ops.logs import log
from fingerpost.server.ops.metrics import Metrics
from fingerpost.server.schemas import ApiError
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, hash_key, new_id

KEY_CACHE_S = 2.0
OPEN_PATHS = ("/healthz", "/readyz")
UPLOAD_PATH = re.compile(r"/v1/(files|uploads/[^/]+/parts)")
READ_PATHS = frozenset(
    f"/v1/{name}"
    for name in ("chat/completions", "responses", "completions", "embeddings", "route", "decisions", "systemone")
)
"""Paths whose requests are read before it is known who answers them."""
MAX_READ = 50_000_000
"""Bytes of such a request in front of an upstream endpoint, which may take images."""
BODY_S, SLOWEST_BYTES_PER_S = 30.0, 100_000
"""A request body has to arrive in so many seconds, and one more for so many bytes of the largest body that is allowed."""
CUT_OFF = (408, 413)
"""After these statuses the connection is closed, because the rest of the body may be endless."""
FORM_OVERHEAD = 100_000  # bytes that an upload's form may add to the file
AZURE = re.compile(r"/openai/(?:v1/|deployments/[^/]+/)?(.+)")
"""Paths of Azure's clients; the model is in the request's body, too."""


class AccessMiddleware:
    """ASGI middleware: request id, API key, limits, metrics, log line."""

    def __init__(self, app: ASGIApp, settings: Settings, store: ServerStore, metrics: Metrics) -> None:
        self._app, self._settings, self._store, self._metrics = app, settings, store, metrics
        self._key_cache: TTLCache[str, dict[str, str]] = TTLCache(maxsize=1, ttl=KEY_CACHE_S)
        self._limiters: dict[str, tuple[InMemoryBucket, Limiter]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, request_id = time.perf_counter(), new_id("req_")
        scope["path"] = known_path(scope["path"])
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "key": None}
        status, started = 500, False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                took_ms = 1000 * (time.perf_counter() - began)
                given = message.get("headers", [])
                own = [(b"x-request-id", request_id.encode()), (b"openai-processing-ms", str(round(took_ms)).encode())]
                there = {name for name, _ in given}  # those of an upstream endpoint say more
                message["headers"] = [
                    *given,
                    *(pair for pair in own if pair[0] not in there),
                    *([(b"connection", b"close")] if status in CUT_OFF else []),
                    *scope["state"].get("rate_limit_headers", []),
                ]
            await send(message)

        try:
            scope["state"]["key"] = self._authorise(scope, headers)
            await self._app(scope, self._size_limited(scope, headers, receive), send_with_headers)
        except ApiError as error:
            if started:
                raise
            await _send_error(error, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            took_s = time.perf_counter() - began
            self._metrics.requests.labels(route, status).inc()
            self._metrics.request_seconds.labels(route).observe(took_s)
            log(
                "request", logging.WARNING if status >= 500 else logging.INFO, request_id=request_id,
                method=scope["method"], path=scope["path"], status=status, ms=round(1000 * took_s, 2),
                key=scope["state"]["key"],
            )  # fmt: skip

    def _authorise(self, scope: Scope, headers: dict[str, str]) -> str | None:
        """The name of the API key, where keys are required.

        Raises:
            ApiError: the key is missing or unknown, the rate limit is exceeded, or the request comes from a web page
                of another host.
        """
        if scope["path"] in OPEN_PATHS:
            return None
        name = None
        if self._settings.keys_required:
            try:
                name = self._key_name(headers.get("authorization") or f"Bearer {headers.get('api-key', '')}")
            except ApiError:
                sent = any(headers.get(name) for name in ("authorization", "api-key", "x-api-key"))
                if self._settings.upstream is None or not scope["path"].startswith("/v1/") or not sent:
                    raise
                scope["state"]["foreign"] = True  # the upstream endpoint says what its key may
        else:
            self._require_allowed_host(headers)
        self._apply_rate_limit(name or "", scope["state"])
        return name

    def _key_name(self, authorization: str) -> str:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                401, "no API key was sent; create one with 'fingerpost keys add' and set OPENAI_API_KEY to it",
                code="missing_api_key",
            )  # fmt: skip
        name = self._active_keys().get(hash_key(key.strip()))
        if name is None:
            raise ApiError(
                401, "the API key is unknown or revoked; create one with 'fingerpost keys add'", code="invalid_api_key"
            )
        return name

    def _active_keys(self) -> dict[str, str]:
        """Names of all keys that are not revoked, by hash; at most KEY_CACHE_S seconds old."""
        names = self._key_cache.get("names")
        if names is None:
            names = {key.sha256: key.name for key in self._store.all_keys() if key.revoked_at is None}
            self._key_cache["names"] = names
        return names

    def _require_allowed_host(self, headers: dict[str, str]) -> None:
        """Without keys, accept only this machine's own programs: no web page of another host, no DNS rebinding."""
        for address in (f"//{headers.get('host', '')}", headers.get("origin")):
            if address in self._settings.cors_origins:
                continue
            if address is not None and _host(address) not in self._settings.allowed_hosts:
                raise ApiError(
                    403, "without API keys only programs on this machine are served; create a key with "
                    "'fingerpost keys add' and start the server with --require-keys", code="forbidden",
                )  # fmt: skip

    def _apply_rate_limit(self, name: str, state: dict[str, Any]) -> None:
        """Count a request. The response gets OpenAI's headers with what is left, and the true time to wait.

        Raises:
            ApiError: the limit is exceeded.
        """
        limit = self._settings.requests_per_minute
        if limit is None:
            return
        if name not in self._limiters:
            made = InMemoryBucket([Rate(limit, Duration.MINUTE)])
            self._limiters[name] = made, Limiter(made)
        bucket, limiter = self._limiters[name]
        accepted = limiter.try_acquire("requests", blocking=False)
        bucket.leak(bucket.now())
        wait_ms = 0 if accepted else bucket.waiting(RateItem("requests", bucket.now()))
        wait_s = wait_ms / 1000 if isinstance(wait_ms, int) else 0.0
        state["rate_limit_headers"] = [
            (b"x-ratelimit-limit-requests", str(limit).encode()),
            (b"x-ratelimit-remaining-requests", str(max(0, limit - bucket.count())).encode()),
            (b"x-ratelimit-reset-requests", f"{wait_s:.3f}s".encode()),
        ]
        if not accepted:
            raise ApiError(
                429, f"the limit of {limit} requests per minute is exceeded; wait {wait_s:.1f} s and try again",
                code="rate_limit_exceeded", retry_after_s=max(1, math.ceil(wait_s)),
            )  # fmt: skip

    def _size_limited(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Receive:
        """`receive`, raising ApiError 413 where the body is too large."""
        upload, limit = self._settings.max_upload + FORM_OVERHEAD, self._settings.max_body
        if UPLOAD_PATH.fullmatch(scope["path"]):
            limit = upload
        elif self._settings.upstream is not None:  # what is passed on is not held in memory; requests that are read are
            limit = max(limit, min(upload, MAX_READ)) if scope["path"] in READ_PATHS else upload
        error = ApiError(
            413, f"the request body is larger than {limit:,} bytes; split the request", code="body_too_large"
        )
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise error
        received, complete = 0, False
        until = time.monotonic() + BODY_S + limit / SLOWEST_BYTES_PER_S

        async def counted() -> Message:
            nonlocal received, complete
            if complete:  # from here on, only a disconnection can come
                return await receive()
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, "the request body did not arrive in time; send it again", code="timeout") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise error
            return message

        return counted


def known_path(path: str) -> str:
    """The path under which the server knows what a client asks for: without a slash at the end, and Azure's paths as OpenAI's."""
    path = path.rstrip("/") or "/"
    azure = AZURE.fullmatch(path)
    return f"/v1/{azure[1]}" if azure else path


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


async def _send_error(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers: list[tuple[bytes, Any]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if error.retry_after_s:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
