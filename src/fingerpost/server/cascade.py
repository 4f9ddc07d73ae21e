"""The way back to the teacher: what a student is unsure of, as it was asked, with a breaker for when the teacher is ill."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from fingerpost.errors import TeacherError
from fingerpost.llm import prices
from fingerpost.llm.chat import api_key
from fingerpost.llm.recording import LATENCY_HEADER, ReplayTransport
from fingerpost.store import Call, Settlement
from fingerpost.store.ledger import Ledger
from fingerpost.types import TeacherSettings, Usage

STEP = "serve"
FAILURES = 5
OPEN_S, MOST_OPEN_S = 5.0, 60.0
DEFAULT_BASE_URL = "https://api.openai.com/v1"


class Unanswered(Exception):
    """No answer by the teacher; `reason` is a word for headers and metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Breaker:
    """After FAILURES failures in a row it opens: nothing is tried for a while, then a single attempt.

    That attempt closes it, or opens it for twice as long, up to MOST_OPEN_S (Nygard 2007, "Release It!").
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._wait = OPEN_S
        self._until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        if self._until is None:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._until else "open"

    def admits(self) -> bool:
        """Whether a request may be tried now; if so, say how it ended with `succeeded`, `failed` or `abandoned`."""
        if self._until is None:
            return True
        if self._probing or self._clock() < self._until:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures, self._wait, self._until, self._probing = 0, OPEN_S, None, False

    def failed(self) -> None:
        self._failures += 1
        if self._probing:
            self._wait = min(MOST_OPEN_S, 2 * self._wait)
        if self._probing or self._failures >= FAILURES:
            self._until = self._clock() + self._wait
        self._probing = False

    def abandoned(self) -> None:
        """The request was given up by its client: nothing is known of the teacher."""
        self._probing = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The teacher's answer: its text, what it took, and the log-probability of the whole."""

    text: str
    usage: Usage
    logprob: float | None


class Teacher:
    """Forwards chat requests to the teacher, within a budget if there is one.

    Raises:
        TeacherError: on construction: no key, or a budget without a known price.
    """

    def __init__(
        self, settings: TeacherSettings, folder: Path, ledger: Ledger, timeout_s: float, budget_usd: float | None
    ) -> None:
        self.model = settings.model
        self.breaker = Breaker()
        self._settings, self._ledger, self._budget = settings, ledger, budget_usd
        self._timeout = timeout_s
        self._slots = asyncio.Semaphore(settings.concurrency)
        if budget_usd is not None:
            prices.cost(settings, Usage(prompt=1))
        self._client = httpx2.AsyncClient(
            base_url=(settings.base_url or DEFAULT_BASE_URL).rstrip("/") + "/",
            headers={"Authorization": f"Bearer {api_key(settings)}"},
            transport=ReplayTransport(folder / settings.recorded) if settings.recorded else None,
            timeout=timeout_s,
            limits=httpx2.Limits(max_connections=settings.concurrency),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, request: dict[str, Any]) -> Asked:
        """The answer to a chat request, which goes out as it is, but for the model's name and streaming.

        Raises:
            Unanswered: after the time-out, when the teacher is down or the breaker open, when the budget is spent.
        """
        if not self.breaker.admits():
            raise Unanswered("breaker-open")
        try:
            body = {key: value for key, value in request.items() if key not in ("stream", "stream_options", "n")}
            body["model"] = self.model
            async with asyncio.timeout(self._timeout):
                async with self._slots:
                    asked = await self._paid(json.dumps(body, ensure_ascii=False).encode())
        except (TimeoutError, httpx2.TimeoutException):
            self.breaker.failed()
            raise Unanswered("timeout") from None
        except httpx2.HTTPError:
            self.breaker.failed()
            raise Unanswered("unreachable") from None
        except Unanswered as error:
            if error.reason in ("budget", "status-400", "status-422"):
                self.breaker.abandoned()
            else:
                self.breaker.failed()
            raise
        except BaseException:
            self.breaker.abandoned()
            raise
        self.breaker.succeeded()
        return asked

    async def _paid(self, body: bytes) -> Asked:
        """Reserve the most that it can cost, ask, and settle; what is cut off counts in full."""
        if self._budget is None:
            return await self._post(body)
        at_most = prices.at_most(self._settings, len(body))
        call = Call(STEP, self.model, at_most)
        (number,) = await asyncio.to_thread(self._ledger.book, [], [call], self._budget)
        if number is None:
            raise Unanswered("budget")
        ending = Settlement(number, "lost")
        try:
            asked = await self._post(body)
            cost = at_most if asked.usage.prompt is None else prices.cost(self._settings, asked.usage)
            ending = Settlement(
                number, "paid", Usage(asked.usage.prompt, asked.usage.cached, asked.usage.completion, cost)
            )
        except Unanswered as error:
            if error.reason.startswith("status-4"):
                ending = Settlement(number, "unsent")
            raise
        finally:
            await asyncio.shield(asyncio.to_thread(self._ledger.book, [ending], [], self._budget))
        return asked

    async def _post(self, body: bytes) -> Asked:
        began = time.perf_counter()
        response = await self._client.post(
            "chat/completions", content=body, headers={"Content-Type": "application/json"}
        )
        if response.status_code != 200:
            raise Unanswered(f"status-{response.status_code}")
        seconds = float(response.headers.get(LATENCY_HEADER, time.perf_counter() - began))
        try:
            answer = response.json()
            choice, used = answer["choices"][0], answer.get("usage") or {}
            text = choice["message"]["content"]
            tokens = (choice.get("logprobs") or {}).get("content") or []
            logprob = sum(float(each["logprob"]) for each in tokens) if tokens else None
            cached = (used.get("prompt_tokens_details") or {}).get("cached_tokens")
            usage = Usage(used.get("prompt_tokens"), cached, used.get("completion_tokens"), None, seconds)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise Unanswered("nonsense") from None
        if not isinstance(text, str):
            raise Unanswered("nonsense")
        return Asked(text, self._with_cost(usage), logprob)

    def _with_cost(self, usage: Usage) -> Usage:
        try:
            cost = prices.cost(self._settings, usage)
        except TeacherError:  # no price is known, and no budget asks for one
            return usage
        return Usage(usage.prompt, usage.cached, usage.completion, cost, usage.latency_s)
