"""Tells a URL when a job or batch has ended, signed as the Standard Webhooks are, which official clients can check."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging

import httpx2

from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import forever
from fingerpost.server.schemas import Json
from fingerpost.store.server import JOBS, ServerStore, now

ATTEMPTS = 8
POLL_S = 1.0
SECRET_PREFIX = "whsec_"


def signature(secret: str, identity: str, at: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 over id, time and body, in base64 (Standard Webhooks)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX)) if secret.startswith(SECRET_PREFIX) else secret.encode()
    signed = f"{identity}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Announcer:
    """Posts the end of each job and batch, again and again with growing pauses until it is taken or hope is lost."""

    def __init__(self, store: ServerStore, url: str | None, secret: str | None) -> None:
        self._store, self._url, self._secret = store, url, secret
        self._tries: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """For as long as the server does."""
        async with httpx2.AsyncClient(timeout=10) as client:
            await forever("webhooks", lambda: self._round(client))

    async def _round(self, client: httpx2.AsyncClient) -> None:
        for table, record in await asyncio.to_thread(self._store.unannounced):
            kind = "fine_tuning.job" if table is JOBS else "batch"
            if await self._told(client, kind, record["id"], record["status"]):
                await asyncio.to_thread(self._store.change, table, record["id"], announced=True)
        await asyncio.sleep(POLL_S)

    async def _told(self, client: httpx2.AsyncClient, kind: str, key: str, status: str) -> bool:
        """Whether nothing is left to be told."""
        if self._url is None:
            return True
        tried, not_before = self._tries.get(key, (0, 0.0))
        clock = asyncio.get_running_loop().time()
        if clock < not_before:
            return False
        identity = f"evt_{hashlib.sha256(f'{key}/{status}'.encode()).hexdigest()[:24]}"
        at = now()
        event: Json = {
            "id": identity,
            "object": "event",
            "created_at": at,
            "type": f"{kind}.{status}",
            "data": {"id": key},
        }
        body = json.dumps(event).encode()
        headers = {"content-type": "application/json", "webhook-id": identity, "webhook-timestamp": str(at)}
        if self._secret:
            headers["webhook-signature"] = signature(self._secret, identity, at, body)
        try:
            response = await client.post(self._url, content=body, headers=headers)
            if response.is_success:
                log("webhook", type=event["type"], id=key)
                return True
            problem = f"status {response.status_code}"
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            problem = type(error).__name__
        self._tries[key] = (tried + 1, clock + 2.0**tried)
        log("webhook failed", logging.WARNING, type=event["type"], id=key, problem=problem, attempt=tried + 1)
        return tried + 1 >= ATTEMPTS
