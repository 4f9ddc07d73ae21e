"""Forwards the requests that the student is unsure of to the teacher, within a budget."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy.exc import DatabaseError

from fingerpost.core.errors import TeacherError
from fingerpost.core.types import Usage
from fingerpost.core.utils import count
from fingerpost.llm import prices
from fingerpost.llm.completion import (
    DEFAULT_BASE_URL,
    Reply,
    RequestLost,
    api_key,
    is_maybe_charged,
    parse_reply,
)
from fingerpost.llm.recording import ReplayTransport, recorded_latency
from fingerpost.llm.transport import BoundedTransport
from fingerpost.server.inference.breaker import Breaker
from fingerpost.server.ops.logs import log
from fingerpost.store.ledger import Call, Ledger, Refusal, Settlement
from fingerpost.task.settings import TeacherSettings

STEP = "serve"
REFUSED = ("status-400", "status-422")  # the fault of the request, not of the teacher
UNBOUNDED = ("service_tier", "web_search_options", "audio", "modalities", "prediction")  # change what a token costs
LIMITS = ("max_completion_tokens", "max_tokens")
"""The parameters that bound a reply's length."""


class Unanswered(Exception):
    """The teacher gave no usable answer. `reason` is a code for headers and metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Teacher:
    """Forwards chat requests to the teacher, within a budget if there is one.

    Raises:
        TeacherError: on construction, without an API key, with a budget but no known price, or if it does not answer chat.
    """

    def __init__(
        self, settings: TeacherSettings, folder: Path, ledger: Ledger, timeout_s: float, budget_usd: float | None
    ) -> None:
        self.model = settings.model
        self.breaker = Breaker()
        self._settings, self._ledger, self._budget = settings, ledger, budget_usd
        self._timeout = timeout_s
        self._slots = asyncio.Semaphore(settings.concurrency)
        if settings.api == "decisions":
            raise TeacherError(
                'a teacher with api = "decisions" cannot answer chat requests; name a chat model with --teacher'
            )
        if budget_usd is not None:
            prices.cost(settings, Usage(prompt=1))
        base_url = (settings.base_url or DEFAULT_BASE_URL).rstrip("/") + "/"
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key(settings)}"},
            transport=ReplayTransport(folder / settings.recorded)
            if settings.recorded
            else BoundedTransport(base_url, settings.concurrency),
            timeout=timeout_s,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, request: dict[str, Any]) -> Reply:
        """The reply to a chat request, which is forwarded unchanged except for the model's name and streaming.

        Raises:
            Unanswered: the teacher timed out, is down or left alone by the breaker, or the budget is spent.
        """
        attempt = self.breaker.admit()
        if attempt is None:
            raise Unanswered("breaker-open")
        try:
            reply = await self._in_turn(request)
        except Unanswered as error:
            if error.reason.startswith(("timeout", "unreachable", "status-")) and error.reason not in REFUSED:
                self.breaker.failed(attempt)
            else:
                self.breaker.abandoned(attempt)
            raise
        except BaseException:
            self.breaker.abandoned(attempt)
            raise
        self.breaker.succeeded(attempt)
        return reply

    async def _in_turn(self, request: dict[str, Any]) -> Reply:
        """Wait for a free slot, then for the reply; each no longer than the time-out."""
        body = {key: value for key, value in request.items() if key not in ("stream", "stream_options", "n")}
        body["model"] = self.model
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise Unanswered("busy") from None
        try:
            async with asyncio.timeout(self._timeout):
                return await self._paid(body)
        except (TimeoutError, httpx2.TimeoutException):
            raise Unanswered("timeout") from None
        except httpx2.HTTPError:
            raise Unanswered("unreachable") from None
        finally:
            self._slots.release()

    async def _paid(self, body: dict[str, Any]) -> Reply:
        """Reserve the most that the request can cost, ask, and settle; a call that is cut off counts in full.

        With a budget, the reply's length is bounded, and a request whose price its bytes do not bound is not sent.
        """
        if self._budget is None:
            return await self._post(_encoded(body))
        body = {key: value for key, value in body.items() if key not in UNBOUNDED}
        if any(part.get("type") != "text" for part in _parts(body)):
            raise Unanswered("budget")
        limit, length = longest_reply(body, self._settings)
        body = {key: value for key, value in body.items() if key not in LIMITS} | {limit: length}
        content = _encoded(body)
        at_most = prices.at_most(self._settings.model_copy(update={"max_tokens": length}), len(content))
        number: int | Refusal = "budget"
        with suppress(DatabaseError):  # a call that cannot be booked is not made
            (number,) = await asyncio.to_thread(
                self._ledger.record, [], [Call(STEP, self.model, at_most)], self._budget
            )
        if not isinstance(number, int):
            raise Unanswered("budget")
        ending = Settlement(number, "lost")
        try:
            reply = await self._post(content)
            cost = at_most if reply.usage.prompt is None else prices.cost(self._settings, reply.usage)
            ending = Settlement(number, "paid", replace(reply.usage, cost_usd=cost))
        except Unanswered as error:
            status = error.reason.removeprefix("status-")
            if status.isdigit() and not is_maybe_charged(int(status)):
                ending = Settlement(number, "unsent")
            raise
        finally:
            await asyncio.shield(asyncio.to_thread(self._settle, ending))
        return reply

    def _settle(self, ending: Settlement) -> None:
        try:
            self._ledger.record([ending], [], self._budget)
        except DatabaseError as error:  # it stays reserved in full
            log("a teacher's call could not be settled", logging.ERROR, problem=str(error.orig))

    async def _post(self, body: bytes) -> Reply:
        began = time.perf_counter()
        response = await self._client.post(
            "chat/completions", content=body, headers={"Content-Type": "application/json"}
        )
        if response.status_code != 200:
            raise Unanswered(f"status-{response.status_code}")
        seconds = recorded_latency(response, time.perf_counter() - began)
        try:
            reply = parse_reply(response.content, seconds, "the teacher")
        except RequestLost:
            raise Unanswered("nonsense") from None
        if not reply.text:
            raise Unanswered("nonsense")
        return replace(reply, usage=self._with_cost(reply.usage))

    def _with_cost(self, usage: Usage) -> Usage:
        try:
            cost = prices.cost(self._settings, usage)
        except TeacherError:  # no price is known, and no budget asks for one
            return usage
        return replace(usage, cost_usd=cost)


def longest_reply(body: dict[str, Any], settings: TeacherSettings) -> tuple[str, int]:
    """The parameter that bounds the reply's length, and its value in tokens: the least that the client gave."""
    given = {key: count(body[key]) for key in LIMITS if key in body}
    length = min((value for value in given.values() if value), default=settings.max_tokens)
    return next(iter(given), "max_tokens"), length


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of all messages whose content is a list."""
    for turn in body["messages"]:
        if isinstance(turn.get("content"), list):
            yield from turn["content"]
