"""The API's wire format, compatible with OpenAI's: request schemas, error objects, response objects."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from fingerpost.core.text import check_characters, content_text

Json: TypeAlias = dict[str, Any]

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """Ends a request with an HTTP status and the API's error object.

    Args:
        code: machine-readable reason.
        param: the request field at fault.
        retry_after_s: value of the `retry-after` header in seconds; 0 sends none.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry_after_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> Json:
        """The response body."""
        return error_body(self.status, self.message, self.code, self.param)


def error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> Json:
    """The error object of OpenAI's API."""
    error_type = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": error_type, "param": param, "code": code}}


# --- requests


def require_storable_text(value: Any) -> Any:
    """Return a JSON value unchanged if all texts in it can be stored as UTF-8.

    Raises:
        ValueError: a text contains a null character or a lone surrogate.
    """
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if reason := check_characters(item):
                raise ValueError(reason)
        elif isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
    return value


Name: TypeAlias = Annotated[str, AfterValidator(require_storable_text), Field(min_length=1, max_length=300)]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class Request(BaseModel):
    """Unknown fields are accepted, because clients send fields that are newer than this server."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Body(Request):
    """The body of a request."""

    @model_validator(mode="before")
    @classmethod
    def _require_storable_text(cls, value: Any) -> Any:
        return require_storable_text(value)


class Part(Request):
    """A part of a message's content. The student reads only text."""

    type: str
    text: str | None = None


class Turn(Request):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None


def turn_text(turn: Turn) -> str:
    """The text of a message; its other parts are left out."""
    content = turn.content
    return content_text([part.model_dump() for part in content] if isinstance(content, list) else content)


class StreamOptions(Request):
    include_usage: bool | None = None


def refuse_storing(store: bool | None) -> bool | None:
    """Raises ValueError if a client wants to find its completion again later."""
    if store:
        raise ValueError("completions are not stored for later; leave 'store' out, or send false")
    return store


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
    store: Annotated[bool | None, AfterValidator(refuse_storing)] = None


class RouteRequest(Body):
    """POST /v1/route. `input` is a text, or a list of texts and conversations; `labels` restricts the answer."""

    input: str | Annotated[list[str | Annotated[list[Turn], Field(min_length=1)]], Field(min_length=1, max_length=256)]
    model: Name | None = None
    labels: Annotated[list[str | int], Field(min_length=1, max_length=1000)] | None = None
    scores: bool = True


class Hyperparameters(Request):
    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=50)] | None = None
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] | None = None
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None


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


class UploadRequest(Body):
    """POST /v1/uploads."""

    filename: Name
    purpose: Name
    bytes: Annotated[int, Field(ge=0)]
    mime_type: str | None = None


class UploadCompletion(Body):
    """POST /v1/uploads/{id}/complete."""

    part_ids: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    md5: Annotated[str, Field(max_length=64)] | None = None


class CompletionRequest(Body):
    """POST /v1/completions: the older wire, a prompt without turns."""

    model: Name
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


Instructions: TypeAlias = str | list[Json]


class ChoiceValue(Request):
    value: StrictStr | StrictBool
    description: str | None = None


class ChoiceQuestion(Request):
    """Which of these values fits?"""

    type: Literal["choice"]
    instructions: Instructions
    choices: Annotated[list[ChoiceValue], Field(min_length=2, max_length=255)]
    name: str | None = None


class PredicateQuestion(Request):
    """How likely is this statement?"""

    type: Literal["predicate"]
    instructions: Instructions
    name: str | None = None


class ScoreLevel(Request):
    label: str
    description: str | None = None


class ScoreQuestion(Request):
    """Which of these levels, from low to high?"""

    type: Literal["score"]
    instructions: Instructions
    levels: Annotated[list[ScoreLevel], Field(min_length=2, max_length=255)]
    name: str | None = None


class DecisionsRequest(Body):
    """POST /v1/decisions."""

    model: Name
    input: str | Annotated[list[Json], Field(min_length=1)]
    questions: Annotated[
        list[Annotated[ChoiceQuestion | PredicateQuestion | ScoreQuestion, Field(discriminator="type")]],
        Field(min_length=1, max_length=400),
    ]


class SystemOneRequest(Body):
    """POST /v1/systemone: questions by name about a state."""

    model: Name
    state: str | Json | list[Any]
    questions: Annotated[dict[Name, Json], Field(min_length=1, max_length=400)]


class EmbeddingsRequest(Body):
    """POST /v1/embeddings."""

    model: Name
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None


class ResponsesRequest(Body):
    """POST /v1/responses."""

    model: Name
    input: str | list[Json] | None = None
    instructions: str | None = None
    text: Json | None = None
    tools: list[Json] | None = None
    tool_choice: Any = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: Name | None = None
    metadata: Metadata | None = None


# --- responses


def page_of(data: list[Json], more: bool) -> Json:
    """The list object for one page; `more`: whether another page follows."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def token_logprob(text: str, probability: float | None, others: list[Json] | None = None) -> Json:
    """A token of the reply with its log-probability; `others` are its `top_logprobs`."""
    logprob = None if probability is None else math.log(max(probability, 1e-9))
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": others or []}


def step_metrics(figures: Json) -> Json:
    """A training step's metrics under the API's names; `figures` are those of a `TrainingStep` or a `LoraStep`."""
    names = {
        "step": "step", "total": "total_steps", "train_loss": "train_loss", "train_accuracy": "train_mean_token_accuracy",
        "dev_loss": "valid_loss", "dev_accuracy": "valid_mean_token_accuracy",
    }  # fmt: skip
    return {name: round(value, 5) for key, name in names.items() if (value := figures.get(key)) is not None}


def completion(
    completion_id: str,
    created: int,
    model: str,
    message: Json,
    usage: Json,
    tokens: list[Json] | None,
    n: int,
    finish: str,
) -> Json:
    """A `chat.completion` object with `n` equal choices."""
    logprobs = None if tokens is None else {"content": tokens, "refusal": None}
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": i, "message": message, "logprobs": logprobs, "finish_reason": finish} for i in range(n)],
        "usage": usage,
        "service_tier": "default",
    }


def chunk_event(head: Json, choices: list[Json], usage: Json | None, with_usage: bool) -> str:
    """A `chat.completion.chunk` object as a server-sent event.

    Args:
        head: `id`, `created`, `model` and `service_tier`.
    """
    body = {**head, "object": "chat.completion.chunk", "choices": choices}
    if with_usage:
        body["usage"] = usage
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def stream_events(whole: Json, pieces: list[str], with_usage: bool) -> list[str]:
    """A chat completion as server-sent events.

    Args:
        whole: the `chat.completion` object.
        pieces: the reply split into the tokens that log-probabilities are given for.
        with_usage: add an event with the token counts.
    """

    head = {key: whole[key] for key in ("id", "created", "model", "service_tier")}

    def chunk(choices: list[Json], usage: Json | None = None) -> str:
        return chunk_event(head, choices, usage, with_usage)

    def delta_choice(index: int, delta: Json, logprobs: Json | None = None, finish: str | None = None) -> Json:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    events = []
    for choice in whole["choices"]:
        i, message, logprobs = choice["index"], choice["message"], choice["logprobs"]
        calls, function = message.get("tool_calls"), message.get("function_call")
        role = {"role": "assistant", "content": None if calls or function else "", "refusal": None}
        events.append(chunk([delta_choice(i, role)]))
        if calls:
            events.append(
                chunk([delta_choice(i, {"tool_calls": [{"index": k, **call} for k, call in enumerate(calls)]})])
            )
        if function:
            events.append(chunk([delta_choice(i, {"function_call": function})]))
        for number, piece in enumerate([] if calls or function else pieces):
            piece_logprobs = logprobs and {"content": [logprobs["content"][number]], "refusal": None}
            events.append(chunk([delta_choice(i, {"content": piece}, piece_logprobs)]))
        events.append(chunk([delta_choice(i, {}, None, choice["finish_reason"])]))
    if with_usage:
        events.append(chunk([], whole["usage"]))
    return [*events, "data: [DONE]\n\n"]


def text_completion(first: Json, choices: list[Json], usage: Json) -> Json:
    """A `text_completion` object; `first` is the chat completion of the first prompt."""
    head = {"id": first["id"].replace("chatcmpl-", "cmpl-"), "object": "text_completion", "created": first["created"]}
    return {**head, "model": first["model"], "choices": choices, "usage": usage}


def text_choice(index: int, text: str, offset: int, logprobs: Json | None, top: int | None) -> Json:
    """A choice of a text completion, with the older form of log-probabilities.

    Args:
        offset: characters of the prompt that come before the text.
        logprobs: the `logprobs` of the chat completion.
        top: how many alternatives were asked for.
    """
    found = None
    if logprobs is not None:
        tokens = [token["token"] for token in logprobs["content"]]
        starts = [offset + sum(map(len, tokens[:i])) for i in range(len(tokens))]
        others = [
            {other["token"]: other["logprob"] for other in (*token["top_logprobs"], token)}
            for token in logprobs["content"]
        ]
        values = [token["logprob"] for token in logprobs["content"]]
        found = {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": others if top else None,
            "text_offset": starts,
        }
    return {"text": text, "index": index, "logprobs": found, "finish_reason": "stop"}


def text_events(whole: Json, with_usage: bool) -> list[str]:
    """A text completion as server-sent events, one for each choice."""
    head = {key: value for key, value in whole.items() if key not in ("choices", "usage")}
    bodies = [{**head, "choices": [choice]} for choice in whole["choices"]]
    if with_usage:
        bodies = [*({**body, "usage": None} for body in bodies), {**head, "choices": [], "usage": whole["usage"]}]
    return [*(f"data: {json.dumps(body, ensure_ascii=False)}\n\n" for body in bodies), "data: [DONE]\n\n"]
