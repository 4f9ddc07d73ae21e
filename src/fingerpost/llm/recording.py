"""Records the answers of a teacher in a file, and replays them through the same client code.

A recording is JSON Lines. Each line has the key of the request (a hash of model and messages), the reply, its
log-probability in nats, token counts and latency in seconds. Replaying a request that was not recorded is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any

import httpx2
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from fingerpost.core.errors import TeacherError
from fingerpost.llm.completion import Reply

LATENCY = "fingerpost_latency_s"
"""The extension of a replayed response that holds the recorded latency."""


def request_key(model: str, messages: Any) -> str:
    """A hash of the model and the messages: 24 hexadecimal digits."""
    body = json.dumps([model, messages], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:24]


def recorded_answer(reply: Reply) -> dict[str, Any]:
    """A reply as a line of a recording, without the request's key."""
    usage = reply.usage
    return {
        "reply": reply.text,
        "logprob": None if reply.logprob is None else round(reply.logprob, 4),
        "prompt_tokens": usage.prompt or 0,
        "cached_tokens": usage.cached or 0,
        "completion_tokens": usage.completion or 0,
        "latency_s": round(usage.latency_s or 0.0, 3),
    }


def recorded_latency(response: httpx2.Response, measured: float) -> float:
    """The latency in seconds of a replayed answer; `measured`, if the answer is not replayed."""
    return float(response.extensions.get(LATENCY, measured))


class _RecordedAnswer(BaseModel):
    """A line of a recording."""

    key: str
    reply: str
    logprob: FiniteFloat | None = None
    prompt_tokens: NonNegativeInt
    cached_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt
    latency_s: Annotated[FiniteFloat, Field(ge=0)]


def _is_answer(line: bytes) -> bool:
    try:
        _RecordedAnswer.model_validate_json(line)
    except ValidationError:
        return False
    return True


class Recorder:
    """Appends answers to a recording, one line at a time. A last line that a killed run left incomplete is cut off."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes() if path.is_file() else b""
        rest = data[data.rfind(b"\n") + 1 :]
        if rest and not _is_answer(rest):
            os.truncate(path, len(data) - len(rest))
            rest = b""
        self._file = path.open("a", encoding="utf-8")
        if rest:
            self._file.write("\n")

    def add(self, key: str, answer: dict[str, Any]) -> None:
        self._file.write(json.dumps({"key": key, **answer}, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ReplayTransport(httpx2.AsyncBaseTransport):
    """An HTTP transport that answers chat completions from a recording, with the recorded latency as an extension.

    Raises:
        TeacherError: on construction, if the file is missing or broken.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        self._answers: dict[str, _RecordedAnswer] = {}
        if not path.is_file():
            raise TeacherError(f"there is no recording {path}; correct the path 'recorded' in [teacher] of task.toml")
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                answer = _RecordedAnswer.model_validate_json(line)
            except ValidationError:
                raise TeacherError(f"{path}, line {number}: not a recorded answer; record again") from None
            self._answers[answer.key] = answer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(await request.aread())
        answer = self._answers.get(request_key(body["model"], body["messages"]))
        if answer is None:
            message = (
                f"{self._name} has no answer to this request: it was recorded with another prompt or model; "
                "record again with 'fingerpost label --record FILE' and a live teacher"
            )
            return httpx2.Response(404, json={"error": {"message": message, "type": "not_recorded"}})
        return httpx2.Response(200, json=_completion(body["model"], answer), extensions={LATENCY: answer.latency_s})


def _completion(model: str, answer: _RecordedAnswer) -> dict[str, Any]:
    """A recorded answer as an OpenAI chat completion object."""
    token: dict[str, Any] = {"token": answer.reply, "logprob": answer.logprob, "bytes": None, "top_logprobs": []}
    return {
        "id": f"chatcmpl-{answer.key}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.reply},
                "finish_reason": "stop",
                "logprobs": None if answer.logprob is None else {"content": [token], "refusal": None},
            }
        ],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
        },
    }
