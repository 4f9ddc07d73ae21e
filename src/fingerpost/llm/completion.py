"""One chat completion: request body, reply parsing, errors and cost. All code that calls a model uses this module."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fingerpost.core.errors import TeacherError
from fingerpost.core.text import parse_json, shorten, storable
from fingerpost.core.types import Usage
from fingerpost.core.utils import count, finite
from fingerpost.llm import prices
from fingerpost.task.settings import TeacherSettings

if TYPE_CHECKING:
    import openai

Chat: TypeAlias = list[dict[str, str]]
"""Chat messages, dicts with `role` and `content`."""
Schema: TypeAlias = dict[str, Any]
"""The JSON schema of a reply."""
SchemaMode: TypeAlias = Literal["json_schema", "json_object"] | None
"""How the reply's schema is requested: the full schema, any JSON object, or no constraint."""


DEFAULT_BASE_URL = "https://api.openai.com/v1"
OVERLOADED = (429, 503)
"""Statuses of requests that were refused, so not charged: it is safe to send them again."""
MAX_REPLY_CHARACTERS = 200_000
"""Longer replies are cut: they are stored."""


class RequestLost(Exception):
    """A request was sent but no readable answer came back. It may have been charged."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply.

    Attributes:
        text: None if there is no text; `refusal` then gives the reason.
        usage: tokens, cost in US dollars and latency in seconds.
        logprob: log-probability of the whole reply, in nats.
        refusal: the model's refusal or the endpoint's error message.
        rejected: the endpoint rejected the request, so nothing was charged.
        message: the message object as it came.
        probabilities: of an answer of the Decisions API, the probability of each value; else None.
    """

    text: str | None
    usage: Usage
    logprob: float | None = None
    refusal: str | None = None
    rejected: bool = False
    message: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    probabilities: Mapping[str, float] | None = None


def request_parameters(settings: TeacherSettings, temperature: float) -> dict[str, Any]:
    """The parameters of a request besides its messages. Log-probabilities are requested only at temperature 0."""
    parameters: dict[str, Any] = {"temperature": temperature, "max_tokens": settings.max_tokens}
    return parameters | {"logprobs": True} if temperature == 0 else parameters


def request_body(
    model: str, messages: Chat, schema: Schema | None, parameters: Mapping[str, Any], mode: SchemaMode = "json_schema"
) -> dict[str, Any]:
    """The body of a request to /chat/completions."""
    body = {"model": model, "messages": messages, **parameters}
    if schema is None or mode is None:
        return body
    if mode == "json_object":
        return body | {"response_format": {"type": mode}}
    answer = {"name": "answer", "strict": True, "schema": schema}
    return body | {"response_format": {"type": mode, "json_schema": answer}}


def request_bytes(messages: Chat, schema: Schema | None) -> int:
    """UTF-8 bytes of a request, with an allowance for the tokens of the chat format.

    An upper bound of its tokens, as no tokenizer produces more tokens than bytes.
    """
    return sum(len(turn["content"].encode()) + 16 for turn in messages) + len(str(schema)) + 64


def parse_reply(body: str | bytes, seconds: float | None, where: str) -> Reply:
    """Parse the response body of /chat/completions; see `parse_completion`."""
    try:
        completion = parse_json(body)
    except ValueError:
        completion = None
    return parse_completion(completion, seconds, where)


def parse_completion(completion: object, seconds: float | None, where: str) -> Reply:
    """Parse a completion object: its message's content, or the arguments of its first tool call.

    Args:
        seconds: latency of the request, stored in the reply's usage.
        where: the endpoint, for the error message.

    Raises:
        RequestLost: the object is not a chat completion.
    """
    try:
        choice = completion["choices"][0]  # type: ignore[index]
        message = choice["message"]
        text = message.get("content")
        if not text and message.get("tool_calls"):
            text = message["tool_calls"][0]["function"]["arguments"]
        refusal = message.get("refusal")
        if text is not None:
            text = storable(text if isinstance(text, str) else json.dumps(text))[:MAX_REPLY_CHARACTERS]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise RequestLost(f"{where} does not answer in OpenAI's chat format; does base_url end with /v1?") from None
    usage = _usage(_object(completion).get("usage"), seconds)
    reason = storable(str(refusal)[:MAX_REPLY_CHARACTERS]) if refusal else None
    return Reply(text, usage, _logprob(choice), reason or (None if text else "an empty reply"), message=message)


def _usage(given: object, seconds: float | None) -> Usage:
    """The token counts of a completion; all unknown where the prompt's or the reply's is not a possible count."""
    used = _object(given)
    prompt, completion = count(used.get("prompt_tokens")), count(used.get("completion_tokens"))
    if prompt is None or completion is None:
        return Usage(latency_s=seconds)
    cached = count(_object(used.get("prompt_tokens_details")).get("cached_tokens"))
    return Usage(prompt, cached, completion, None, seconds)


def _logprob(choice: object) -> float | None:
    """The log-probability of the whole reply, in nats; None where it is missing or impossible."""
    tokens = _object(_object(choice).get("logprobs")).get("content")
    if not isinstance(tokens, list) or not tokens:
        return None
    values = [finite(_object(token).get("logprob")) for token in tokens]
    known = [value for value in values if value is not None]
    total = sum(known)
    return min(0.0, total) if len(known) == len(values) and math.isfinite(total) else None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def is_maybe_charged(status: int) -> bool:
    """Whether the model may have answered in spite of this status, so that a retry may be charged twice."""
    return status == 408 or (status >= 500 and status not in OVERLOADED)


def usage_with_cost(settings: TeacherSettings, reply: Reply, at_most_usd: float) -> Usage:
    """The reply's usage with its cost in US dollars.

    Without possible token counts from the endpoint, the cost is `at_most_usd`; a rejected request costs nothing.

    Raises:
        TeacherError: the model's price is not known.
    """
    if reply.rejected:
        return replace(reply.usage, cost_usd=0.0)
    counted = reply.usage.prompt is not None
    return replace(reply.usage, cost_usd=prices.cost(settings, reply.usage) if counted else at_most_usd)


def api_key(settings: TeacherSettings) -> str:
    """The endpoint's API key from the environment. A local endpoint needs none.

    Raises:
        TeacherError: the environment variable is not set.
    """
    key = os.environ.get(settings.key_env, "")
    if not key and not prices.is_local(settings):
        raise TeacherError(
            f"there is no API key: set the environment variable {settings.key_env}, "
            "or name another one with key_env in [teacher] of task.toml"
        )
    return key or "none"


def teacher_error(error: openai.OpenAIError, where: object, key_env: str, then: str = "is it running?") -> TeacherError:
    """Convert an error of the openai client to a TeacherError that says how to fix it.

    Args:
        where: the endpoint's name or address.
        then: advice in case the endpoint cannot be reached.
    """
    import openai  # half a second that most commands do not need

    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return TeacherError(f"{where} refuses the API key; check the environment variable {key_env}")
    if isinstance(error, openai.APIStatusError):
        if mentions(error, "insufficient_quota"):
            return TeacherError(f"the account at {where} is out of credit: {error_message(error)}; top it up")
        told = error_message(error)
        status = f"status {error.status_code}"
        more = "" if told == status else f": {told}"
        return TeacherError(f"{where} answers with {status}{more}; check model and base_url")
    return TeacherError(f"{where} cannot be reached; {then}")


def mentions(error: openai.APIStatusError, word: str) -> bool:
    """Whether the endpoint's error contains this parameter or code."""
    return word in json.dumps(error.body, default=str) or word in str(error.message)


def error_message(error: openai.APIStatusError) -> str:
    """The endpoint's error message, on one line and cut to 200 characters."""
    body = error.body if isinstance(error.body, dict) else {}
    return shorten(storable(str(body.get("message") or error.message)), 200)
