"""An async client for a chat endpoint, with concurrent requests, rate limits and retries.

Only this layer retries. When an endpoint answers "too many requests", all further requests wait, which the retries of a
client library cannot do. A parameter that the endpoint does not support (JSON schema, log-probabilities, temperature) is
left out of all later requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import openai
from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate

from fingerpost.core.errors import TeacherError
from fingerpost.core.text import fingerprint
from fingerpost.core.types import Usage
from fingerpost.core.utils import finite
from fingerpost.llm.completion import (
    DEFAULT_BASE_URL,
    OVERLOADED,
    Chat,
    Reply,
    RequestLost,
    Schema,
    SchemaMode,
    api_key,
    error_message,
    is_maybe_charged,
    mentions,
    parse_reply,
    request_body,
    request_parameters,
    teacher_error,
)
from fingerpost.llm.decisions import decision_body, parse_decision
from fingerpost.llm.recording import Recorder, ReplayTransport, recorded_answer, recorded_latency, request_key
from fingerpost.llm.transport import BoundedTransport
from fingerpost.task.settings import TeacherSettings

ATTEMPTS = 8
LONGEST_WAIT_S = 600.0
"""The most that an endpoint is believed when it says how long to wait."""
TOKENS_PER_UNIT = 100  # the rate limiter counts in units of this many tokens


class ChatModel:
    """An OpenAI-compatible chat endpoint. Use it in an `async with`.

    Args:
        settings: endpoint, model and limits.
        folder: the folder that a recording named in the settings is relative to.
        record: a file to append all answers to, for replay.
        temperature: sampling temperature.

    Raises:
        TeacherError: on construction, if the environment variable of the API key is not set, or the answers cannot be
            recorded.
    """

    def __init__(
        self, settings: TeacherSettings, folder: Path, record: Path | None = None, temperature: float = 0.0
    ) -> None:
        self.settings = settings
        if record is not None and settings.api == "decisions":
            raise TeacherError('answers with api = "decisions" cannot be recorded; leave out --record')
        self._recorder = Recorder(record) if record else None
        transport = (
            ReplayTransport(folder / settings.recorded)
            if settings.recorded
            else BoundedTransport(
                settings.base_url or os.environ.get("OPENAI_BASE_URL", DEFAULT_BASE_URL), settings.concurrency
            )
        )
        self._client = openai.AsyncOpenAI(
            api_key=api_key(settings),
            base_url=settings.base_url,
            max_retries=0,
            timeout=settings.timeout_s,
            http_client=httpx2.AsyncClient(transport=transport, timeout=settings.timeout_s),
        )
        on_decisions = settings.api == "decisions"
        self._path, self._parse = ("/decisions", parse_decision) if on_decisions else ("/chat/completions", parse_reply)
        self._parameters = request_parameters(settings, temperature)
        self._schema_modes: list[SchemaMode] = ["json_schema", "json_object", None]
        self._requests = _limiter(settings.requests_per_minute)
        self._tokens = _limiter(settings.tokens_per_minute, TOKENS_PER_UNIT)
        self._blocked_until = 0.0

    @property
    def where(self) -> str:
        """The endpoint's description for error messages."""
        return f"the teacher at {self._client.base_url}"

    async def __aenter__(self) -> ChatModel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
        if self._recorder:
            self._recorder.close()

    async def ask(self, messages: Chat, schema: Schema | None, idempotency_key: str | None = None) -> Reply:
        """Send a request and return the reply, retrying while the endpoint is overloaded.

        Args:
            schema: JSON schema of the reply, None for free text; of the Decisions API, the question.
            idempotency_key: identifies the request, in the header that the settings name, if they name one.

        Raises:
            RequestLost: no readable reply came, but the request may have been charged. The caller decides on a retry.
            TeacherError: the endpoint cannot be reached, refuses the key or the model, stays overloaded, or does not answer
                chat.
        """
        tokens = sum(len(message["content"]) for message in messages) // 4 + self.settings.max_tokens
        header = self.settings.idempotency_header
        for attempt in range(ATTEMPTS):
            await self._wait_for_limits(tokens)
            started = time.perf_counter()
            body = self._body(messages, schema)
            # Another body needs another key: a parameter that the endpoint rejects is left out of the next attempt.
            headers = {header: fingerprint([idempotency_key, json.dumps(body)])} if header and idempotency_key else {}
            try:
                # The same request as `client.chat.completions.create`, without the cost of building its response objects.
                async with asyncio.timeout(self.settings.timeout_s):  # the client's own limits each read, not their sum
                    response = await self._client.post(
                        self._path, cast_to=httpx2.Response, body=body, options={"headers": headers}
                    )
            except openai.APIStatusError as error:
                if is_maybe_charged(error.status_code):
                    raise RequestLost(f"status {error.status_code}") from None
                if error.status_code == 400:
                    if self._adapt(error, body):
                        continue
                    usage = Usage(latency_s=time.perf_counter() - started)
                    return Reply(None, usage, None, error_message(error), rejected=True)
                if error.status_code not in OVERLOADED or mentions(error, "insufficient_quota"):
                    raise teacher_error(error, self.where, self.settings.key_env) from None
                await self._back_off(error, attempt)
                continue
            except (openai.APITimeoutError, TimeoutError):
                raise RequestLost(f"no answer within {self.settings.timeout_s:g} s") from None
            except openai.APIConnectionError as error:
                if isinstance(error.__cause__, httpx2.ConnectError):
                    then = "is it running, and is base_url right?"
                    raise teacher_error(error, self.where, self.settings.key_env, then) from None
                raise RequestLost("the connection broke") from None
            seconds = recorded_latency(response, time.perf_counter() - started)
            reply = self._parse(response.content, seconds, self.where)
            if self._recorder and reply.text is not None:
                self._recorder.add(request_key(self.settings.model, messages), recorded_answer(reply))
            return reply
        raise TeacherError(
            f"{self.where} was overloaded {ATTEMPTS} times in a row; wait, or lower concurrency or "
            "requests_per_minute in task.toml, and run the command again: finished requests are kept"
        )

    def _body(self, messages: Chat, schema: Schema | None) -> dict[str, Any]:
        if self.settings.api == "decisions":
            return decision_body(self.settings.model, messages, schema)
        return request_body(self.settings.model, messages, schema, self._parameters, self._schema_modes[0])

    def _adapt(self, error: openai.APIStatusError, body: dict[str, Any]) -> bool:
        """Leave out the parameter that the endpoint's error rejects.

        Returns:
            Whether the error is about such a parameter, so that a retry makes sense. Also true if a concurrent request
            has already removed the parameter.
        """
        if mentions(error, "max_completion_tokens") and "max_tokens" in body:
            self._parameters.pop("max_tokens", None)
            self._parameters["max_completion_tokens"] = self.settings.max_tokens
            return True
        for parameter in ("temperature", "logprobs"):
            if mentions(error, parameter) and parameter in body:
                self._parameters.pop(parameter, None)
                return True
        mode = body.get("response_format")
        if mode and any(mentions(error, word) for word in ("response_format", "json_schema", "schema")):
            if mode["type"] == self._schema_modes[0]:
                self._schema_modes.pop(0)
            return True
        return False

    async def _wait_for_limits(self, tokens: int) -> None:
        """Wait until the rate limits allow a request of this many tokens."""
        while (wait := self._blocked_until - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self._requests:
            await self._requests.try_acquire_async("requests")
        if self._tokens and self.settings.tokens_per_minute:
            largest = max(1, self.settings.tokens_per_minute // TOKENS_PER_UNIT)
            await self._tokens.try_acquire_async("tokens", weight=min(largest, -(-tokens // TOKENS_PER_UNIT)))

    async def _back_off(self, error: openai.APIStatusError, attempt: int) -> None:
        """Pause all requests for as long as the endpoint asks, else by exponential backoff with jitter."""
        requested = retry_after(error.response.headers)
        wait = (
            min(LONGEST_WAIT_S, requested)
            if requested is not None
            else min(30.0, 0.5 * 2**attempt) * random.uniform(0.75, 1.25)
        )
        self._blocked_until = max(self._blocked_until, time.monotonic() + wait)
        await asyncio.sleep(wait)


def _limiter(per_minute: int | None, unit: int = 1) -> Limiter | None:
    """A limiter that counts in multiples of `unit`; None without a limit."""
    if per_minute is None:
        return None
    return Limiter(InMemoryBucket([Rate(max(1, per_minute // unit), Duration.MINUTE)]))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait according to `retry-after-ms` or `retry-after` (RFC 9110: seconds or a date), or None.

    A date is compared with the endpoint's own clock, the header `date`, as this machine's may be wrong.
    """
    try:
        if "retry-after-ms" in headers:
            wait = finite(float(headers["retry-after-ms"]))
            return None if wait is None else max(0.0, wait / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return finite(float(value))
        then = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    try:
        now = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        now = time.time()
    return max(0.0, then - now)
