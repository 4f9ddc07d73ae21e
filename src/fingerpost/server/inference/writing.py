"""Replies that a generative model writes: texts, JSON that keeps a schema, tool calls."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.types import Usage
from fingerpost.data.dialogues import calls_in, join_system, turn_of
from fingerpost.server.inference.answers import ChatAnswer, usage_object
from fingerpost.server.inference.response_format import requested_schema
from fingerpost.server.schemas import ApiError, ChatRequest, Json, chunk_event, completion, token_logprob
from fingerpost.store.server import new_id, now

MAX_AT_ONCE, MAX_WAITING = 8, 64
"""Replies that are written at the same time, and requests that may wait for one of them to end."""
DEFAULT_TOKENS = 1024
"""The most tokens of a reply whose request names no limit."""
MAX_CHOICES = 16


class SamplingRequest(BaseModel):
    """The parameters of a chat request that say how a reply is sampled."""

    model_config = ConfigDict(extra="ignore")

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None


@dataclass
class _Written:
    """A reply as far as it is written."""

    text: str = ""
    usage: tuple[int, int] = (0, 0)
    finish: str = "stop"
    logprobs: list[Json] = field(default_factory=list)


class WritingService:
    """Writes replies with generative models, several at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._threads = ThreadPoolExecutor(MAX_AT_ONCE, "writer")  # of its own: a piece can take long
        self._waiting = 0

    async def answer(self, request: ChatRequest, raw: Json, student: Any) -> ChatAnswer:
        """The whole answer of a generative student to a chat request.

        Raises:
            ApiError: a parameter or the schema cannot be used, or too many requests are waiting.
        """
        given = _Given.of(request, raw, student)
        written = [_Written() for _ in range(given.choices)]
        for index, one in enumerate(written):
            async for piece in self._pieces(given, index):
                _add(one, piece, given)
        return given.answer(request, written)

    async def stream(self, request: ChatRequest, raw: Json, student: Any) -> AsyncIterator[str]:
        """The answer as server-sent events, each sent as soon as its token is written.

        Raises:
            ApiError: before the first event, as for `answer`.
        """
        given = _Given.of(request, raw, student)
        pieces = [self._pieces(given, index) for index in range(given.choices)]
        first = await anext(pieces[0])  # what is wrong with the request is found here, while a status can still be sent
        return _until_error(self._events(request, given, pieces, first))

    async def _events(
        self, request: ChatRequest, given: _Given, pieces: Sequence[AsyncIterator[Any]], first: Any
    ) -> AsyncIterator[str]:
        head = {"id": new_id("chatcmpl-"), "created": now(), "model": request.model, "service_tier": "default"}
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        usages: list[tuple[int, int]] = []

        def event(choices: list[Json], usage: Json | None = None) -> str:
            return chunk_event(head, choices, usage, with_usage)

        def choice(index: int, delta: Json, logprobs: Json | None = None, finish: str | None = None) -> Json:
            return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

        for index, one in enumerate(pieces):
            yield event([choice(index, {"role": "assistant", "content": "", "refusal": None})])
            written = _Written()
            if index == 0:
                before = _add(written, first, given)
                if before is not None:
                    yield event([choice(index, *before)])
            async for piece in one:
                part = _add(written, piece, given)
                if part is not None:
                    yield event([choice(index, *part)])
            usages.append(written.usage)
            calls = calls_in(written.text) if given.calls else []
            if calls:
                yield event(
                    [choice(index, {"tool_calls": [{"index": k, **call} for k, call in enumerate(_tool_calls(calls))]})]
                )
            elif given.calls:
                yield event([choice(index, {"content": written.text})])
            yield event([choice(index, {}, None, "tool_calls" if calls else written.finish)])
        if with_usage:
            yield event([], _usage(usages))
        yield "data: [DONE]\n\n"

    async def _pieces(self, given: _Given, index: int) -> AsyncIterator[Any]:
        """The pieces of one choice, each written in a thread."""
        if self._places.locked() and self._waiting >= MAX_WAITING:
            raise ApiError(503, "the server is overloaded; try again shortly", code="overloaded", retry_after_s=1)
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            steps = given.steps(index)
            loop = asyncio.get_running_loop()
            while (piece := await loop.run_in_executor(self._threads, next, steps, None)) is not None:
                yield piece
        except InputError as error:
            raise ApiError(400, str(error), param="messages") from None
        except FingerpostError as error:
            raise ApiError(500, str(error), code="model_damaged") from None
        finally:
            self._places.release()


async def _until_error(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """The events, up to an error, which is the last event."""
    try:
        async for event in events:
            yield event
    except ApiError as error:
        yield f"data: {json.dumps(error.body, ensure_ascii=False)}\n\n"


@dataclass(frozen=True)
class _Given:
    """A request as a generative student reads it.

    Attributes:
        calls: the model was trained to call tools, so that its replies may be calls.
        logprobs: whether log-probabilities are asked for.
    """

    student: Any
    messages: list[dict[str, str]]
    sampling: Any
    schema: Json | None
    choices: int
    calls: bool
    logprobs: bool

    @classmethod
    def of(cls, request: ChatRequest, raw: Json, student: Any) -> _Given:
        from fingerpost.students.lora.generation import Sampling

        try:
            asked = SamplingRequest.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            param = str(first["loc"][0])
            raise ApiError(400, f"'{param}' cannot be used: {first['msg']}", param=param) from None
        choices = request.n or 1
        if choices > MAX_CHOICES:
            raise ApiError(400, f"at most {MAX_CHOICES} choices can be written for a request", param="n")
        turns = [turn for message in raw["messages"] if (turn := turn_of(message)) is not None]
        messages = [{"role": turn.role, "content": turn.content} for turn in join_system(turns)]
        stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        sampling = Sampling(
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=asked.top_p or 1.0,
            max_tokens=asked.max_completion_tokens or asked.max_tokens or DEFAULT_TOKENS,
            stop=tuple(text for text in stop if text),
            seed=asked.seed,
            frequency_penalty=asked.frequency_penalty or 0.0,
            presence_penalty=asked.presence_penalty or 0.0,
            alternatives=request.top_logprobs or 0,
        )
        schema = requested_schema(request)
        kind = (request.response_format or {}).get("type")
        if schema is None and kind in (None, "json_object"):
            schema = student.manifest.reply_schema
        if schema is None and kind == "json_object":
            schema = {"type": "object"}
        calls = bool(student.manifest.training.get("calls"))
        return cls(student, messages, sampling, schema, choices, calls, bool(request.logprobs))

    def steps(self, index: int) -> Any:
        """An iterator over the pieces of a choice. Choices have seeds of their own."""
        return self.student.reply(self.messages, self.sampling.for_choice(index), self.schema)

    def answer(self, request: ChatRequest, written: Sequence[_Written]) -> ChatAnswer:
        """The `chat.completion` object of all choices."""
        usage = _usage([one.usage for one in written])
        body = completion(new_id("chatcmpl-"), now(), request.model, {}, usage, None, 0, "stop")
        for index, one in enumerate(written):
            calls = calls_in(one.text) if self.calls else []
            message: Json = {"role": "assistant", "content": one.text, "refusal": None, "annotations": []}
            if calls:
                message |= {"content": None, "tool_calls": _tool_calls(calls)}
            logprobs = None if not self.logprobs else {"content": one.logprobs, "refusal": None}
            finish = "tool_calls" if calls else one.finish
            body["choices"].append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
        return ChatAnswer(body, [written[0].text], {"x-fingerpost-by": "student"})


def _add(written: _Written, piece: Any, given: _Given) -> tuple[Json, Json | None] | None:
    """Add a piece to a reply; returns the delta that is streamed, and its log-probabilities. None where there is none."""
    written.text += piece.text
    written.usage = piece.usage or written.usage
    written.finish = piece.finish or written.finish
    logprobs = None
    if given.logprobs and piece.text:
        others = []
        for text, logprob in piece.alternatives:
            other = token_logprob(text, math.exp(logprob))
            del other["top_logprobs"]
            others.append(other)
        written.logprobs.append(token_logprob(piece.text, math.exp(piece.logprob), others))
        logprobs = {"content": [written.logprobs[-1]], "refusal": None}
    if not piece.text or given.calls:  # a call is not known before its end
        return None
    return {"content": piece.text}, logprobs


def _usage(usages: Sequence[tuple[int, int]]) -> Json:
    """The token counts of all choices; the prompt counts once."""
    return usage_object(Usage(prompt=usages[0][0], completion=sum(completed for _, completed in usages)))


def _tool_calls(calls: Sequence[Mapping[str, str]]) -> list[Json]:
    return [{"id": new_id("call_"), "type": "function", "function": dict(call)} for call in calls]
