"""Decisions on conversations, and the chat completions that state them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fingerpost.core.text import MAX_CHARACTERS
from fingerpost.core.types import FAST, WHOLE, Conversation, Message, Usage
from fingerpost.llm.completion import Reply
from fingerpost.server.inference.registry import ServedModel
from fingerpost.server.inference.response_format import ResponseFormat
from fingerpost.server.schemas import ApiError, ChatRequest, Json, Turn, completion, token_logprob, turn_text
from fingerpost.store.server import new_id, now


@dataclass(frozen=True, slots=True)
class Decision:
    """The label of a conversation.

    Attributes:
        confidence: the student's calibrated probability of its own best label.
        scores: the student's probability of each allowed label.
        by: who gave the label, `student` or `teacher`.
        prompt_tokens: tokens that the student read; words, if its fast tier answered.
        tier: the tier of the student that answered, FAST or WHOLE.
        whole_confidence: the student's probability of the label among all labels, also those that are not allowed.
        teacher_reply: the teacher's reply, if there is one.
        teacher_failure: why the teacher gave no usable label although it was needed, as a word for headers and metrics.
    """

    model: ServedModel
    label: str
    confidence: float
    scores: dict[str, float]
    by: str
    latency_s: float
    prompt_tokens: int
    tier: str = WHOLE
    whole_confidence: float = 0.0
    teacher_reply: Reply | None = None
    teacher_failure: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that describe the decision."""
        headers = {
            "x-fingerpost-by": f"{self.by}/fast" if self.by == "student" and self.tier == FAST else self.by,
            "x-fingerpost-confidence": f"{self.confidence:.4f}",
            "x-fingerpost-latency-ms": f"{1000 * self.latency_s:.2f}",
        }
        return headers | ({"x-fingerpost-teacher": self.teacher_failure} if self.teacher_failure else {})


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A `chat.completion` object, its reply split into tokens with log-probabilities, and headers that say how it was found."""

    completion: Json
    pieces: list[str]
    headers: dict[str, str]


def answer_of(
    request: ChatRequest,
    response_format: ResponseFormat,
    decision: Decision,
    completion_id: str,
    others: Mapping[tuple[str, ...], str] = MappingProxyType({}),
) -> ChatAnswer:
    """The answer that states a decision in the form that a request asks for.

    Args:
        others: the labels of the further fields of the reply, by path.

    Raises:
        ApiError: the reply cannot keep the schema.
    """
    whole = response_format.pieces(decision.label, decision.confidence, others)
    pieces = [piece for piece in whole if piece]
    tokens = _token_logprobs(request, response_format, decision, whole) if request.logprobs else None
    reply = "".join(pieces)
    message: Json = {"role": "assistant", "content": reply, "refusal": None, "annotations": []}
    finish = "stop"
    tool = response_format.tool
    if tool is not None:
        function = {"name": tool.name_for(decision.label), "arguments": reply}
        tokens = None
        if tool.legacy:
            finish = "function_call"
            message |= {"content": None, "function_call": function}
        else:
            finish = "tool_calls"
            calls = [{"id": new_id("call_"), "type": "function", "function": function}]
            message |= {"content": None, "tool_calls": calls}
    usage = _usage(decision, reply)
    body = completion(completion_id, now(), request.model, message, usage, tokens, request.n or 1, finish)
    return ChatAnswer(body, pieces, decision.headers)


def conversation_of(turns: Sequence[Turn]) -> Conversation:
    """The turns of user and assistant, up to the last one of the user. Where no user speaks, the last prompt is the text.

    Raises:
        ApiError: there is no text, or the conversation is too long.
    """
    messages = [Message(turn.role, turn_text(turn).strip()) for turn in turns if turn.role in ("user", "assistant")]
    while messages and messages[-1].role != "user":
        messages.pop()
    messages = [message for i, message in enumerate(messages) if message.content or i == len(messages) - 1]
    if not messages:
        prompts = (turn_text(turn).strip() for turn in reversed(turns) if turn.role in ("system", "developer"))
        messages = [Message("user", prompt) for prompt in prompts if prompt][:1]
    if not messages or not messages[-1].content:
        raise ApiError(400, "there is no user message with text; send a message with role 'user'", param="messages")
    if sum(len(message.content) for message in messages) > MAX_CHARACTERS:
        raise ApiError(
            400, f"the conversation has more than {MAX_CHARACTERS:,} characters; shorten it", param="messages"
        )
    return tuple(messages)


def _token_logprobs(
    request: ChatRequest, response_format: ResponseFormat, decision: Decision, pieces: tuple[str, str, str]
) -> list[Json] | None:
    """Log-probabilities of the reply's pieces; None where the teacher sent none.

    Only the label is uncertain, so that the sum is the log-probability of the answer.
    """
    multi = decision.model.task.multi
    probability: float | None = decision.confidence if multi else decision.scores.get(decision.label, 0.0)
    others: list[Json] = []
    if decision.by == "teacher":
        if decision.teacher_reply is None or decision.teacher_reply.logprob is None:
            return None
        probability = math.exp(min(0.0, decision.teacher_reply.logprob))
    else:
        # Of several labels, the other sets have no score.
        ranked = [] if multi else sorted(decision.scores.items(), key=lambda item: -item[1])
        ranked = ranked[: request.top_logprobs or 0]
        for name, score in ranked:
            token = token_logprob(response_format.label_text(name), score)
            del token["top_logprobs"]
            others.append(token)
    before, value, after = pieces
    return [
        *([token_logprob(before, 1.0)] if before else []),
        token_logprob(value, probability, others),
        *([token_logprob(after, 1.0)] if after else []),
    ]


def _usage(decision: Decision, reply: str) -> Json:
    """The API's token counts: the teacher's where it answered, else the student's."""
    usage = decision.teacher_reply.usage if decision.by == "teacher" and decision.teacher_reply else None
    student: Any = decision.model.student
    if usage is not None:
        return usage_object(usage)
    return usage_object(Usage(prompt=decision.prompt_tokens, completion=student.count_tokens(reply)))


def usage_object(usage: Usage) -> Json:
    """The API's token counts of a chat completion."""
    prompt, completed = usage.prompt or 0, usage.completion or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completed,
        "total_tokens": prompt + completed,
        "prompt_tokens_details": {"cached_tokens": usage.cached or 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip
