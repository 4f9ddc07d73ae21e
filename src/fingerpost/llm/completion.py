"""One chat completion: the request body, the reply, and what the error statuses mean."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import openai

from fingerpost.core.errors import TeacherError
from fingerpost.core.types import Usage
from fingerpost.task.settings import TeacherSettings

Form: TypeAlias = Literal["json_schema", "json_object"] | None


class Lost(Exception):
    """No usable answer to a request that was sent: it may have been answered, and charged."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its text (None where there is none, `refusal` says why), log-probability, and what it took.

    `rejected`: the endpoint did not take the request, so nothing was charged.
    """

    text: str | None
    usage: Usage
    logprob: float | None = None
    refusal: str | None = None
    rejected: bool = False


def extras_of(settings: TeacherSettings, temperature: float) -> dict[str, Any]:
    """What a request asks for beside its messages; log-probabilities where they mean something."""
    extras: dict[str, Any] = {"temperature": temperature, "max_tokens": settings.max_tokens}
    return extras | {"logprobs": True} if temperature == 0 else extras


def request_of(
    model: str,
    messages: list[dict[str, str]],
    schema: dict[str, Any],
    extras: dict[str, Any],
    form: Form = "json_schema",
) -> dict[str, Any]:
    """The body of a request to /chat/completions."""
    request = {"model": model, "messages": messages, **extras}
    if form == "json_schema":
        answer = {"name": "answer", "strict": True, "schema": schema}
        request["response_format"] = {"type": form, "json_schema": answer}
    elif form:
        request["response_format"] = {"type": form}
    return request


def read_reply(body: str, seconds: float | None, where: str) -> Reply:
    """A completion as it came over the wire.

    Raises:
        Lost: it is none.
    """
    try:
        data = json.loads(body)
        choice, used = data["choices"][0], data.get("usage") or {}
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        tokens = (choice.get("logprobs") or {}).get("content") or []
        logprob = sum(token["logprob"] for token in tokens) if tokens else None
        cached = (used.get("prompt_tokens_details") or {}).get("cached_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise Lost(f"{where} does not answer in OpenAI's chat format; does base_url end with /v1?") from None
    if text is not None:
        text = (text if isinstance(text, str) else json.dumps(text)).encode("utf-8", "replace").decode()
    usage = Usage(used.get("prompt_tokens"), cached, used.get("completion_tokens"), None, seconds)
    return Reply(text, usage, logprob, refusal or (None if text else "an empty reply"))


def api_key(settings: TeacherSettings) -> str:
    from fingerpost.llm.prices import is_local

    key = os.environ.get(settings.key_env, "")
    if not key and not is_local(settings):
        raise TeacherError(
            f"there is no API key: set the environment variable {settings.key_env}, "
            "or name another one with key_env in [teacher] of task.toml"
        )
    return key or "none"


def message_of(error: openai.APIStatusError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message)[:200]
