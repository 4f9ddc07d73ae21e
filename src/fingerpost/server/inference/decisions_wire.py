"""Two wires for typed questions: /v1/decisions, as OpenAI's client speaks it, and /v1/systemone, the older one of the same idea.

The shape of /v1/systemone is that of https://docs.fireworks.ai/api-reference/post-systemone and of
https://docs.bespokelabs.ai/nimble/questions: named questions about a `state`, of the types `noul`, `choice` and `score`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fingerpost.core.types import Conversation, Usage
from fingerpost.core.utils import finite
from fingerpost.server.inference.answers import conversation_of
from fingerpost.server.inference.questions import Distribution, Question
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

DECISIONS, SYSTEM_ONE = "/v1/decisions", "/v1/systemone"


@dataclass(frozen=True, slots=True)
class QuestionsRequest:
    """A request on either wire."""

    path: str
    model: str
    messages: Conversation
    questions: list[Question]


def read_questions(request: DecisionsRequest | SystemOneRequest) -> QuestionsRequest:
    """The questions of a request.

    Raises:
        ApiError: there is no text, two values of a question are the same, or it is of no known type.
    """
    if isinstance(request, DecisionsRequest):
        questions = [_question(asked) for asked in request.questions]
        return QuestionsRequest(DECISIONS, request.model, _messages(request.input), questions)
    questions = [_system_one_question(name, asked) for name, asked in request.questions.items()]
    state = request.state if isinstance(request.state, str) else json.dumps(request.state, ensure_ascii=False)
    return QuestionsRequest(SYSTEM_ONE, request.model, _messages(state), questions)


def questions_response(asked: QuestionsRequest, answers: Sequence[Distribution | None], usage: Usage) -> Json:
    """The response with these answers; None is a refusal."""
    pairs = list(zip(asked.questions, answers, strict=True))
    if asked.path == DECISIONS:
        objects = [_answer_object(question, answer) for question, answer in pairs]
        return {"answers": objects, "model": asked.model, "usage": _usage_object(usage)}
    found = {
        str(question.name): _system_one_answer(question, answer) for question, answer in pairs if answer is not None
    }
    tokens = {"input_tokens": usage.prompt or 0, "output_tokens": usage.completion or 0}
    return {"model": asked.model, "answers": found, "usage": tokens}


def read_answers(asked: QuestionsRequest, response: object) -> list[Distribution | None]:
    """The answers in a response of another endpoint, in the order of the questions; None where it is none."""
    answers = response.get("answers") if isinstance(response, dict) else None
    if isinstance(answers, list) and asked.path == DECISIONS:
        given = [*answers, *[None] * len(asked.questions)]
    elif isinstance(answers, dict) and asked.path == SYSTEM_ONE:
        given = [answers.get(str(question.name)) for question in asked.questions]
    else:
        given = [None] * len(asked.questions)
    return [_read_answer(question, answer) for question, answer in zip(asked.questions, given, strict=False)]


def _read_answer(question: Question, answer: Any) -> Distribution | None:
    if not isinstance(answer, dict):
        return None
    if question.kind == "predicate":
        probability = finite(answer.get("probability", answer.get("noul")))
        return (
            Distribution((1 - probability, probability), "teacher")
            if probability is not None and 0 <= probability <= 1
            else None
        )
    rows, shares = answer.get("probabilities"), dict.fromkeys(question.values, 0.0)
    if isinstance(rows, Mapping):  # on the older wire: by value, or by the number of the level
        levels = (
            {str(number): level for number, level in enumerate(question.values)} if question.kind == "score" else {}
        )
        rows = [{"value": levels.get(key, key), "probability": share} for key, share in rows.items()]
    elif question.kind == "score" and isinstance(rows, list):
        rows = [{**row, "value": row.get("label")} for row in rows if isinstance(row, dict)]
    for row in rows if isinstance(rows, list) else []:
        value, share = (row.get("value"), finite(row.get("probability"))) if isinstance(row, dict) else (None, None)
        if isinstance(value, str | bool) and value in shares and share is not None and share >= 0:
            shares[value] = share
    total = sum(shares.values())
    if total <= 0 and isinstance(choice := answer.get("choice"), str | bool) and choice in shares:
        shares[choice], total = 1.0, 1.0
    return Distribution(tuple(share / total for share in shares.values()), "teacher") if total > 0 else None


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
