"""A chat endpoint that is asked many times at once, no faster than it allows.

This is the only layer that retries: an endpoint that answers "too many requests" slows down all requests in flight,
which the retries of a client library cannot do. Parameters that an endpoint does not understand (a JSON schema,
log-probabilities, a temperature) are left out from then on.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import openai
from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate

from fingerpost.core.errors import TeacherError
from fingerpost.core.types import Usage
from fingerpost.llm.completion import Form, Lost, Reply, api_key, extras_of, message_of, read_reply, request_of
from fingerpost.llm.recording import LATENCY_HEADER, Recorder, ReplayTransport, request_key
from fingerpost.task.settings import TeacherSettings

ATTEMPTS = 8

OVERLOADED = (429, 503)  # not taken, so not charged: asked again

MAYBE_CHARGED = (408, 500, 502, 504)  # the model may have answered all the same

TOKENS_A_UNIT = 100  # the limiter counts tokens in hundreds


class ChatModel:
    """An OpenAI-compatible chat endpoint. Use it in an `async with`.

    Raises:
        TeacherError: on construction, if the key's environment variable is not set.
    """

    def __init__(
        self, settings: TeacherSettings, folder: Path, record: Path | None = None, temperature: float = 0.0
    ) -> None:
        self.settings = settings
        self._recorder = Recorder(record) if record else None
        transport = ReplayTransport(folder / settings.recorded) if settings.recorded else None
        self._client = openai.AsyncOpenAI(
            api_key=api_key(settings),
            base_url=settings.base_url,
            max_retries=0,
            timeout=settings.timeout_s,
            http_client=httpx2.AsyncClient(
                transport=transport,
                timeout=settings.timeout_s,
                limits=httpx2.Limits(
                    max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency
                ),
            ),
        )
        self._extras = extras_of(settings, temperature)
        self._schema_form: list[Form] = ["json_schema", "json_object", None]
        self._requests = _limiter(settings.requests_per_minute)
        self._tokens = _limiter(settings.tokens_per_minute, TOKENS_A_UNIT)
        self._open_at = 0.0

    async def __aenter__(self) -> ChatModel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
        if self._recorder:
            self._recorder.close()

    async def ask(self, messages: list[dict[str, str]], schema: dict[str, Any]) -> Reply:
        """One answer, after as many attempts as the endpoint needs.

        Raises:
            Lost: no answer that can be read, but perhaps a charge; whoever pays decides whether to ask again.
            TeacherError: the endpoint cannot be reached, refuses the key or the model, or stays overloaded.
        """
        weight = sum(len(message["content"]) for message in messages) // 4 + self.settings.max_tokens
        for attempt in range(ATTEMPTS):
            await self._admit(weight)
            started = time.perf_counter()
            request = request_of(self.settings.model, messages, schema, self._extras, self._schema_form[0])
            try:
                # The client's own lower door: what goes out is the same, at less work for each request.
                raw = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=request)
            except openai.APIStatusError as error:
                if error.status_code in MAYBE_CHARGED:
                    raise Lost(f"status {error.status_code}") from None
                if error.status_code in (401, 403):
                    raise TeacherError(f"{self._where()} refuses the key; check ${self.settings.key_env}") from None
                if error.status_code == 400:
                    if self._adapt(error, request):
                        continue
                    return Reply(None, Usage(latency_s=time.perf_counter() - started), None, message_of(error), True)
                if error.status_code not in OVERLOADED:
                    raise TeacherError(f"{self._where()} says {error.status_code}: {message_of(error)}") from None
                if _says(error, "insufficient_quota"):
                    raise TeacherError(
                        f"the teacher's account is out of credit: {message_of(error)}; top it up"
                    ) from None
                await self._back_off(error, attempt)
                continue
            except openai.APITimeoutError:
                raise Lost(f"no answer within {self.settings.timeout_s:g} s") from None
            except openai.APIConnectionError as error:
                if isinstance(error.__cause__, httpx2.ConnectError):
                    raise TeacherError(
                        f"{self._where()} cannot be reached; is it running, and base_url right?"
                    ) from None
                raise Lost("the connection broke") from None
            taken = float(raw.headers.get(LATENCY_HEADER, time.perf_counter() - started))
            reply = read_reply(raw.text, taken, self._where())
            if self._recorder and reply.text is not None:
                self._recorder.add(request_key(self.settings.model, messages), _recorded(reply))
            return reply
        raise TeacherError(
            f"{self._where()} was overloaded {ATTEMPTS} times in a row; wait, or lower concurrency or "
            "requests_per_minute in task.toml, and run the command again: what was answered is kept"
        )

    def _adapt(self, error: openai.APIStatusError, request: dict[str, Any]) -> bool:
        """Leave out what the endpoint says it does not understand; False where that is nothing of ours.

        Also true where a request beside this one has adapted already.
        """
        if _says(error, "max_completion_tokens") and "max_tokens" in request:
            self._extras.pop("max_tokens", None)
            self._extras["max_completion_tokens"] = self.settings.max_tokens
            return True
        if _says(error, "temperature") and "temperature" in request:
            self._extras.pop("temperature", None)
            return True
        if _says(error, "logprobs") and "logprobs" in request:
            self._extras.pop("logprobs", None)
            return True
        form = request.get("response_format")
        if form and (_says(error, "response_format") or _says(error, "json_schema") or _says(error, "schema")):
            if form["type"] == self._schema_form[0]:
                self._schema_form.pop(0)
            return True
        return False

    async def _admit(self, tokens: int) -> None:
        while (wait := self._open_at - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self._requests:
            await self._requests.try_acquire_async("requests")
        if self._tokens and self.settings.tokens_per_minute:
            most = max(1, self.settings.tokens_per_minute // TOKENS_A_UNIT)
            await self._tokens.try_acquire_async("tokens", weight=min(most, -(-tokens // TOKENS_A_UNIT)))

    async def _back_off(self, error: openai.APIStatusError, attempt: int) -> None:
        """All requests wait as long as the endpoint asks for; or exponentially, with jitter, where it is silent."""
        asked = _retry_after(error.response.headers)
        wait = asked if asked is not None else min(30.0, 0.5 * 2**attempt) * random.uniform(0.75, 1.25)
        self._open_at = max(self._open_at, time.monotonic() + wait)
        await asyncio.sleep(wait)

    def _where(self) -> str:
        return f"the teacher at {self._client.base_url}"


def _limiter(a_minute: int | None, unit: int = 1) -> Limiter | None:
    if a_minute is None:
        return None
    return Limiter(InMemoryBucket([Rate(max(1, a_minute // unit), Duration.MINUTE)]))


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (RFC 9110: seconds, or a date)."""
    from email.utils import parsedate_to_datetime

    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _says(error: openai.APIStatusError, word: str) -> bool:
    return word in json.dumps(error.body, default=str) or word in str(error.message)


def _recorded(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    return {
        "reply": reply.text,
        "logprob": None if reply.logprob is None else round(reply.logprob, 4),
        "prompt_tokens": usage.prompt or 0,
        "cached_tokens": usage.cached or 0,
        "completion_tokens": usage.completion or 0,
        "latency_s": round(usage.latency_s or 0.0, 3),
    }
