"""The decisions in a request with typed questions: each question is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from fingerpost.core.text import fingerprint, parse_json
from fingerpost.server.inference.answers import Decision
from fingerpost.server.inference.decisions_wire import DECISIONS, QuestionsRequest, read_answers, read_questions
from fingerpost.server.inference.questions import Distribution, Question
from fingerpost.server.loop.recognition import ObservedReply, Place, Recognised
from fingerpost.server.schemas import ApiError, ChatRequest, DecisionsRequest, Json, SystemOneRequest, Turn

UNREAD = ("image", "file", "audio", "video", "image_url", "input_audio")
"""How the types of parts end that are no text."""
LEAST_SHARE = 0.001
"""Probabilities below are not kept."""


def asked_questions(path: str, body: Json) -> QuestionsRequest | None:
    """The typed questions in the body of a request, by the path of their wire; None if there are none that can be read."""
    try:
        return read_questions(DecisionsRequest(**body) if path == DECISIONS else SystemOneRequest(**body))
    except (ValidationError, TypeError, ApiError):
        return None


def has_more_than_text(body: Json) -> bool:
    """Whether a request has parts that a student does not read, such as images or turns of the system."""

    def parts(value: Any) -> bool:
        if isinstance(value, dict):
            unread = value.get("role") in ("system", "developer") or str(value.get("type", "")).endswith(UNREAD)
            return unread or any(parts(part) for part in value.values())
        return isinstance(value, list) and any(parts(part) for part in value)

    return any(parts(body.get(key)) for key in ("input", "questions"))


def recognise_question(asked: QuestionsRequest, number: int, name: str | None, body: Json | None = None) -> Recognised:
    """A typed question as a decision of its own.

    Args:
        number: the question's, from 0.
        name: what the request's header calls the decision, if it asks one question.
        body: the request's body.
    """
    question = asked.questions[number]
    hint = question.name or f"question-{fingerprint([question.instructions])[:8]}"
    values = [spelling(value) for value in question.values]
    listed = [f"- {spelling(value)}: {meaning}" for value, meaning in question.descriptions.items() if meaning]
    system = "\n".join([question.instructions, *listed])
    schema = {"type": "object", "properties": {hint: {"enum": values}}, "required": [hint]}
    request = ChatRequest(
        model=asked.model,
        messages=[
            Turn(role="system", content=system),
            *(
                Turn(role="assistant" if turn.role == "assistant" else "user", content=turn.content)
                for turn in asked.messages
            ),
        ],
        response_format={"type": "json_schema", "json_schema": {"name": hint, "schema": schema}},
    )
    ordinal = question.kind == "score"
    alone = body if body is not None and len(asked.questions) == 1 else {}
    return Recognised(
        request,
        name,
        hint,
        tuple(values),
        Place((hint,)),
        system,
        is_question=True,
        ordinal=ordinal,
        path=asked.path,
        body=alone,
    )


def student_answer(question: Question, decision: Decision) -> Distribution:
    """A student's decision as the answer to a typed question."""
    shares = [decision.scores.get(spelling(value), 0.0) for value in question.values]
    total = sum(shares) or 1.0
    return Distribution(tuple(share / total for share in shares), "student")


def observed_answers(
    asked: QuestionsRequest, recognised: Sequence[Recognised], body: bytes
) -> list[ObservedReply | None]:
    """The answers in the body of an upstream response, in the order of the questions; None where there is none."""
    try:
        response = parse_json(body)
    except ValueError:
        return [None] * len(recognised)
    answers = read_answers(asked, response)
    usage = response.get("usage") if isinstance(response, dict) else None
    counted = (
        {
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
            "prompt_tokens_details": usage.get("input_tokens_details"),
        }
        if isinstance(usage, dict) and len(recognised) == 1
        else {}
    )  # of several questions, nobody knows each one's share
    return [
        None if answer is None else _observed(one, question, answer, counted)
        for one, question, answer in zip(recognised, asked.questions, answers, strict=True)
    ]


def _observed(recognised: Recognised, question: Question, answer: Distribution, usage: Json) -> ObservedReply:
    """An upstream answer to a typed question, as a reply."""
    values = [spelling(value) for value in question.values]
    shares = {
        value: round(share, 6)
        for value, share in zip(values, answer.probabilities, strict=True)
        if share >= LEAST_SHARE
    }
    return ObservedReply(json.dumps({recognised.hint: values[answer.best]}), None, usage, shares)


def spelling(value: str | bool) -> str:
    """The label for a value of a typed question."""
    return value if isinstance(value, str) else str(value).lower()
