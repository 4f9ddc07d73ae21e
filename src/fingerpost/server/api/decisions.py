"""Endpoints /v1/decisions, as OpenAI's client speaks it, and /v1/systemone, the older wire of the same idea.

The shape of /v1/systemone is that of https://docs.fireworks.ai/api-reference/post-systemone and of
https://docs.bespokelabs.ai/nimble/questions: named questions about a `state`, of the types `noul`, `choice` and `score`.
"""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from pydantic import ValidationError

from fingerpost.core.types import Conversation, Usage
from fingerpost.server.inference.answers import conversation_of
from fingerpost.server.inference.questions import Distribution, Question, QuestionService
from fingerpost.server.inference.responses import chat_turns
from fingerpost.server.schemas import (
    ApiError,
    ChoiceQuestion,
    DecisionsRequest,
    Json,
    PredicateQuestion,
    ScoreQuestion,
    SystemOneRequest,
    Turn,
)


def router(service: QuestionService) -> APIRouter:
    """The endpoints for typed questions."""
    routes = APIRouter(tags=["decisions"])

    @routes.post("/v1/decisions")
    async def decide(request: DecisionsRequest, http: Request) -> Json:
        questions = [_question(asked) for asked in request.questions]
        messages = _messages(request.input)
        answers, usage = await service.answer(request.model, messages, questions, http.state.key)
        objects = [_answer_object(question, answer) for question, answer in zip(questions, answers, strict=True)]
        return {"answers": objects, "model": request.model, "usage": _usage_object(usage)}

    @routes.post("/v1/systemone")
    async def system_one(request: SystemOneRequest, http: Request) -> Json:
        questions = [_system_one_question(name, asked) for name, asked in request.questions.items()]
        state = request.state if isinstance(request.state, str) else json.dumps(request.state, ensure_ascii=False)
        answers, usage = await service.answer(request.model, _messages(state), questions, http.state.key)
        found = {
            str(question.name): _system_one_answer(question, answer)
            for question, answer in zip(questions, answers, strict=True)
            if answer is not None
        }
        tokens = {"input_tokens": usage.prompt or 0, "output_tokens": usage.completion or 0}
        return {"model": request.model, "answers": found, "usage": tokens}

    return routes


def _messages(given: str | list[Json]) -> Conversation:
    """The conversation that questions are about.

    Raises:
        ApiError: it has no text.
    """
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    try:
        return conversation_of([Turn(**turn) for item in items for turn in chat_turns(item)])
    except ValidationError as error:
        raise ApiError(400, f"input: {error.errors()[0]['msg']}", param="input") from None


def _text(given: str | list[Json]) -> str:
    """Instructions as a text; parts that are no text are left out."""
    return given if isinstance(given, str) else "\n".join(str(part["text"]) for part in given if "text" in part)


def _question(asked: ChoiceQuestion | PredicateQuestion | ScoreQuestion) -> Question:
    """A question as the service takes it.

    Raises:
        ApiError: two of its values are the same.
    """
    values: tuple[str | bool, ...]
    if isinstance(asked, ChoiceQuestion):
        described: dict[str | bool, str] = {one.value: one.description or "" for one in asked.choices}
        values = tuple(one.value for one in asked.choices)
    elif isinstance(asked, ScoreQuestion):
        described = {one.label: one.description or "" for one in asked.levels}
        values = tuple(one.label for one in asked.levels)
    else:
        described, values = {}, (False, True)
    if len({(type(value), value) for value in values}) < len(values):
        raise ApiError(400, "two values of a question are the same; remove one", param="questions")
    return Question(asked.name, asked.type, _text(asked.instructions), values, described)


def _answer_object(question: Question, answer: Distribution | None) -> Json:
    if answer is None:
        return {"type": "refusal", "name": question.name}
    shares = [round(share, 6) for share in answer.probabilities]
    named: Json = {"type": question.kind, "name": question.name}
    if question.kind == "predicate":
        return named | {"probability": shares[1]}
    if question.kind == "choice":
        rows = [{"value": value, "probability": share} for value, share in zip(question.values, shares, strict=True)]
        return named | {
            "choice": question.values[answer.best],
            "confidence": shares[answer.best],
            "probabilities": rows,
        }
    rows = [
        {"label": value, "value": index, "probability": shares[index]} for index, value in enumerate(question.values)
    ]
    return named | {"score": answer.expected_level, "confidence": shares[answer.best], "probabilities": rows}


def _system_one_question(name: str, asked: Json) -> Question:
    """A question of the older wire.

    Raises:
        ApiError: it is of no known type, or lists no values.
    """
    kind, criteria = asked.get("type"), asked.get("criteria")
    instructions = asked.get("instructions")
    text = instructions if isinstance(instructions, str) else json.dumps(instructions, ensure_ascii=False)
    if kind == "noul":
        return Question(name, "predicate", text, (False, True), {})
    if kind == "choice" and isinstance(criteria, dict) and 2 <= len(criteria) <= 255:
        described: dict[str | bool, str] = {str(value): str(meaning or "") for value, meaning in criteria.items()}
        return Question(name, "choice", text, tuple(described), described)
    if kind == "score" and isinstance(criteria, list) and 2 <= len(set(map(str, criteria))) == len(criteria) <= 255:
        return Question(name, "score", text, tuple(map(str, criteria)), {})
    raise ApiError(
        400, f"the question '{name}' is not of the type noul, choice with 2 to 255 'criteria', or score with a list of them",
        param="questions",
    )  # fmt: skip


def _system_one_answer(question: Question, answer: Distribution) -> Json:
    """An answer of the older wire. Its `confidence` is 0 where all values are equally probable, and 1 where one is certain."""
    shares = [round(share, 6) for share in answer.probabilities]
    if question.kind == "predicate":
        return {"type": "noul", "noul": shares[1]}
    n = len(shares)
    confidence = max(0.0, (n * shares[answer.best] - 1) / (n - 1))
    if question.kind == "choice":
        by_value = {str(value): share for value, share in zip(question.values, shares, strict=True)}
        return {"type": "choice", "choice": question.values[answer.best], "probabilities": by_value,
                "confidence": confidence}  # fmt: skip
    return {
        "type": "score",
        "score": answer.expected_level,
        "legend": {str(index): value for index, value in enumerate(question.values)},
        "probabilities": {str(index): share for index, share in enumerate(shares)},
        "confidence": confidence,
    }


def _usage_object(usage: Usage) -> Json:
    prompt, completion = usage.prompt or 0, usage.completion or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": usage.cached or 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
