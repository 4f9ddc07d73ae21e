"""Webhook: reports ended jobs, ended batches and alarms to a URL, signed as Standard Webhooks, which OpenAI's clients can verify."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging

import httpx2

from fingerpost.llm.transport import BoundedTransport
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import run_forever
from fingerpost.server.schemas import Json
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import BatchRow, DecisionRow, JobRow

MAX_ATTEMPTS = 8
POLL_S = 1.0
TIMEOUT_S = 10.0
SECRET_PREFIX = "whsec_"


def signature(secret: str, webhook_id: str, at: int, body: bytes) -> str:
    """`v1,` and the base64 HMAC-SHA256 of id, time and body (Standard Webhooks)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX)) if secret.startswith(SECRET_PREFIX) else secret.encode()
    signed = f"{webhook_id}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _event_of(row: JobRow | BatchRow | DecisionRow) -> tuple[str, str, str]:
    """The type of the event, the id of what it is about, and the state that makes it another event than earlier ones."""
    if isinstance(row, DecisionRow):
        if not row.upstream_announced:
            return "decision.upstream_changed", row.name, str(row.upstream_alarm)
        return "decision.alarm", row.name, str(row.alarm)
    kind = "fine_tuning.job" if isinstance(row, JobRow) else "batch"
    return f"{kind}.{row.status}", row.id, row.status


class WebhookSender:
    """Posts an event for each ended job and batch, and for each alarm of a decision.

    A failed request is repeated after 1, 2, 4, ... seconds, at most MAX_ATTEMPTS times in all.

    Args:
        url: None sends nothing; the jobs and batches are marked as announced.
        secret: signs the requests; None sends no signature.
    """

    def __init__(self, store: ServerStore, url: str | None, secret: str | None) -> None:
        self._store, self._url, self._secret = store, url, secret
        self._attempts: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Send events until cancelled."""
        transport = BoundedTransport(self._url or "", 1)
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, transport=transport) as client:
            await run_forever("webhook", lambda: self._send_all(client))

    async def _send_all(self, client: httpx2.AsyncClient) -> None:
        for row in await asyncio.to_thread(self._store.unannounced):
            if self._url is None or await self._send(client, self._url, row):
                await asyncio.to_thread(self._store.mark_announced, row)
        await asyncio.sleep(POLL_S)

    async def _send(self, client: httpx2.AsyncClient, url: str, row: JobRow | BatchRow | DecisionRow) -> bool:
        """Post the event if it is due; whether it was delivered or given up."""
        kind, row_id, state = _event_of(row)
        attempts, not_before = self._attempts.get(row_id, (0, 0.0))
        clock = asyncio.get_running_loop().time()
        if clock < not_before:
            return False
        webhook_id = f"evt_{hashlib.sha256(f'{row_id}/{state}'.encode()).hexdigest()[:24]}"
        at = now()
        event: Json = {"id": webhook_id, "object": "event", "created_at": at, "type": kind, "data": {"id": row_id}}
        body = json.dumps(event).encode()
        headers = {"content-type": "application/json", "webhook-id": webhook_id, "webhook-timestamp": str(at)}
        if self._secret:
            headers["webhook-signature"] = signature(self._secret, webhook_id, at, body)
        try:
            async with asyncio.timeout(TIMEOUT_S):  # the client's time-out is that of each read
                response = await client.post(url, content=body, headers=headers)
            if response.is_success:
                log("webhook delivered", type=event["type"], id=row_id)
                return True
            problem = f"status {response.status_code}"
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            problem = type(error).__name__
        self._attempts[row_id] = (attempts + 1, clock + 2.0**attempts)
        log("webhook failed", logging.WARNING, type=event["type"], id=row_id, problem=problem, attempt=attempts + 1)
        return attempts + 1 >= MAX_ATTEMPTS
