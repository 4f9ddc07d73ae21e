"""What goes over the wire: requests as they are checked, errors and answers as official clients expect them."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Json: TypeAlias = dict[str, Any]

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class WireError(Exception):
    """Ends a request with the standard error object. `retry_after_s` tells the client when to come back."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry_after_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> Json:
        return error_body(self.status, self.message, self.code, self.param)


def error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> Json:
    """The error object of OpenAI's API."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# --- requests


def clean(value: Any) -> Any:
    """Refuse what cannot be stored or sent on, wherever it stands in a request."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if "\x00" in each or any("\ud800" <= character <= "\udfff" for character in each):
                raise ValueError("a text holds a null character or half a character (a lone surrogate)")
        elif isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            waiting += each
    return value


Name: TypeAlias = Annotated[str, AfterValidator(clean), Field(min_length=1, max_length=300)]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class Request(BaseModel):
    """Unknown fields are let through: clients send what was new last week."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Body(Request):
    """The whole of a request."""

    @model_validator(mode="before")
    @classmethod
    def _isclean(cls, value: Any) -> Any:
        return clean(value)


class Part(Request):
    """A part of a message's content; only text can be read."""

    type: str
    text: str | None = None


class Turn(Request):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None


class StreamOptions(Request):
    include_usage: bool | None = None


class ChatRequest(Body):
    """POST /v1/chat/completions."""

    model: Name
    messages: Annotated[list[Turn], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Json | None = None
    tool_choice: Any = None


class RouteRequest(Body):
    """POST /v1/route. `input` is a text, or a list of texts and conversations; `labels` are the ones allowed."""

    input: str | Annotated[list[str | Annotated[list[Turn], Field(min_length=1)]], Field(min_length=1, max_length=256)]
    model: Name | None = None
    labels: Annotated[list[str | int], Field(min_length=1, max_length=1000)] | None = None
    scores: bool = True


class Hyperparameters(Request):
    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=50)] | None = None
    batch_size: Literal["auto"] | int | None = None
    learning_rate_multiplier: Literal["auto"] | float | None = None


class MethodSettings(Request):
    hyperparameters: Hyperparameters | None = None


class Method(Request):
    type: str
    supervised: MethodSettings | None = None


class JobRequest(Body):
    """POST /v1/fine_tuning/jobs."""

    model: Name
    training_file: Name
    validation_file: Name | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    metadata: Metadata | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None


class BatchRequest(Body):
    """POST /v1/batches."""

    input_file_id: Name
    endpoint: str
    completion_window: str
    metadata: Metadata | None = None


# --- answers


def page_of(data: list[Json], more: bool) -> Json:
    """A page of a list."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def token(text: str, probability: float | None, others: list[Json] | None = None) -> Json:
    """A piece of the reply with its log-probability."""
    logprob = None if probability is None else math.log(max(probability, 1e-9))
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": others or []}


def completion(
    key: str, created: int, model: str, message: Json, usage: Json, tokens: list[Json] | None, n: int, finish: str
) -> Json:
    """A `chat.completion` with `n` equal choices."""
    logprobs = None if tokens is None else {"content": tokens, "refusal": None}
    return {
        "id": key,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": i, "message": message, "logprobs": logprobs, "finish_reason": finish} for i in range(n)],
        "usage": usage,
        "service_tier": "default",
    }


def chunks(whole: Json, pieces: list[str], with_usage: bool) -> list[str]:
    """A completion as server-sent events. `pieces` are the reply's, as many as it has tokens with log-probabilities."""

    def chunk(choices: list[Json], usage: Json | None = None) -> str:
        head = {key: whole[key] for key in ("id", "created", "model", "service_tier")}
        body = {**head, "object": "chat.completion.chunk", "choices": choices}
        if with_usage:
            body["usage"] = usage
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    def choice(index: int, delta: Json, logprobs: Json | None = None, finish: str | None = None) -> Json:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    events = []
    for each in whole["choices"]:
        i, message = each["index"], each["message"]
        calls = message.get("tool_calls")
        events.append(chunk([choice(i, {"role": "assistant", "content": None if calls else "", "refusal": None})]))
        if calls:
            events.append(chunk([choice(i, {"tool_calls": [{"index": 0, **call} for call in calls]})]))
        for number, piece in enumerate([] if calls else pieces):
            known = each["logprobs"]
            logprobs = known and {"content": [known["content"][number]], "refusal": None}
            events.append(chunk([choice(i, {"content": piece}, logprobs)]))
        events.append(chunk([choice(i, {}, None, each["finish_reason"])]))
    if with_usage:
        events.append(chunk([], whole["usage"]))
    return [*events, "data: [DONE]\n\n"]
