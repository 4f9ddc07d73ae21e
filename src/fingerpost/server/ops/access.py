"""At the door: who may come in, how much they may bring, how often; and a line of the log for each."""

from __future__ import annotations

import json
import logging
import time
from typing import Any
from urllib.parse import urlsplit

from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerpost.server.ops.logs import log
from fingerpost.server.ops.metrics import Metrics
from fingerpost.server.schemas import WireError
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, hash_key, new_id

KEYS_FRESH_S = 2.0
OPEN_PATHS = ("/healthz", "/readyz")
UPLOADS = "/v1/files"


class Door:
    """ASGI middleware: request id, bearer key, limits, metrics, log line."""

    def __init__(self, app: ASGIApp, settings: Settings, store: ServerStore, metrics: Metrics) -> None:
        self._app, self._settings, self._store, self._metrics = app, settings, store, metrics
        self._keys: dict[str, str] = {}
        self._fresh_until = 0.0
        self._limits: dict[str, Limiter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, identity = time.perf_counter(), new_id("req_")
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        scope["state"] = {**scope.get("state", {}), "request_id": identity, "key": None}
        status, started = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                took = 1000 * (time.perf_counter() - began)
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", identity.encode()),
                    (b"openai-processing-ms", str(round(took)).encode()),
                ]
            await send(message)

        try:
            scope["state"]["key"] = self._enter(scope, headers)
            await self._app(scope, self._limited(scope, headers, receive), answer)
        except WireError as error:
            if started:
                raise
            await _refuse(error, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            took_s = time.perf_counter() - began
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(took_s)
            log(
                "request", logging.WARNING if status >= 500 else logging.INFO, request_id=identity,
                method=scope["method"], path=scope["path"], status=status, ms=round(1000 * took_s, 2),
                key=scope["state"]["key"],
            )  # fmt: skip

    def _enter(self, scope: Scope, headers: dict[str, str]) -> str | None:
        """The name of the key, where keys are required.

        Raises:
            WireError: no key or a wrong one, too many requests, or a page in a browser that has no business here.
        """
        if scope["path"] in OPEN_PATHS:
            return None
        name = None
        if self._settings.keys_required:
            name = self._name_of(headers.get("authorization", ""))
        else:
            self._keep_pages_out(headers)
        self._slow_down(name or "")
        return name

    def _name_of(self, authorization: str) -> str:
        kind, _, key = authorization.partition(" ")
        if kind.lower() != "bearer" or not key.strip():
            raise WireError(401, "no API key was sent; set OPENAI_API_KEY to one made by 'fingerpost keys add'",
                            code="missing_api_key")  # fmt: skip
        if time.monotonic() >= self._fresh_until:
            self._keys = {row["sha256"]: row["name"] for row in self._store.all_keys() if row["revoked_at"] is None}
            self._fresh_until = time.monotonic() + KEYS_FRESH_S
        name = self._keys.get(hash_key(key.strip()))
        if name is None:
            raise WireError(401, "this API key is not known here, or was revoked", code="invalid_api_key")
        return name

    def _keep_pages_out(self, headers: dict[str, str]) -> None:
        """Without keys, only what this machine itself asks: no page of a stranger that a browser here has open."""
        for each in (f"//{headers.get('host', '')}", headers.get("origin")):
            if each is not None and _host(each) not in self._settings.allowed_hosts:
                raise WireError(
                    403, "without API keys only programs on this machine are served; make one with 'fingerpost keys add' "
                    "and start the server with --require-keys", code="forbidden",
                )  # fmt: skip

    def _slow_down(self, name: str) -> None:
        most = self._settings.requests_per_minute
        if most is None:
            return
        limiter = self._limits.get(name)
        if limiter is None:
            limiter = self._limits[name] = Limiter(InMemoryBucket([Rate(most, Duration.MINUTE)]))
        if not limiter.try_acquire("requests", blocking=False):
            raise WireError(
                429, f"more than {most} requests a minute; wait, and try again", code="rate_limit_exceeded",
                retry_after_s=max(1, 60 // most),
            )  # fmt: skip

    def _limited(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Receive:
        """The request's body, cut off where it is too long."""
        upload = scope["path"].rstrip("/") == UPLOADS
        most = self._settings.most_upload + 100_000 if upload else self._settings.most_body
        error = WireError(413, f"the body is larger than {most:,} bytes; send less at once", code="body_too_large")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise error
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise error
            return message

        return counted


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


async def _refuse(error: WireError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers: list[tuple[bytes, Any]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if error.retry_after_s:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
