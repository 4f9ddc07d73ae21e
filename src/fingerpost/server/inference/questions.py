"""Typed questions about one input: each is answered by the student that has its labels, the others by the teacher in one call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fingerpost.core.text import canonical_name, parse_json, strip_code_fence
from fingerpost.core.types import Conversation, Usage
from fingerpost.core.utils import finite
from fingerpost.server.inference.chat import ChatService
from fingerpost.server.inference.registry import ModelRegistry, ServedModel
from fingerpost.server.inference.teacher import Teacher, Unanswered
from fingerpost.server.schemas import ApiError, Json
from fingerpost.students.cascade import asks_teacher
from fingerpost.task.prompt import chat
from fingerpost.task.replies import resolve_label

Kind: TypeAlias = Literal["choice", "predicate", "score"]
SPELLINGS = {True: ("true", "yes", "1"), False: ("false", "no", "0")}
"""Labels that stand for a boolean."""
INSTRUCTIONS = "Answer the following questions about the conversation. Reply with a JSON object that has one field for each question."


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an input.

    Attributes:
        name: as the client calls it.
        values: the possible answers; of a score, its levels, the lowest first; of a predicate, false and true.
        descriptions: what some of them mean.
    """

    name: str | None
    kind: Kind
    instructions: str
    values: tuple[str | bool, ...]
    descriptions: Mapping[str | bool, str]


@dataclass(frozen=True, slots=True)
class Distribution:
    """An answer: the probability of each of the question's values, and who gave it."""

    probabilities: tuple[float, ...]
    by: Literal["student", "teacher"]

    @property
    def best(self) -> int:
        """The index of the most probable value."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def expected_level(self) -> float:
        """The mean index of the values: the score of ordered levels, counted from 0."""
        return sum(index * probability for index, probability in enumerate(self.probabilities))


class QuestionService:
    """Answers typed questions.

    A student answers a question if each of the question's values is one of its labels, and, of a predicate or of boolean values,
    if it also has the question's name or was asked for.
    """

    def __init__(self, models: ModelRegistry, chat: ChatService, teacher: Teacher | None) -> None:
        self._models, self._chat, self._teacher = models, chat, teacher

    async def answer(
        self, model: str, messages: Conversation, questions: Sequence[Question], key: str | None
    ) -> tuple[list[Distribution | None], Usage]:
        """The answers in the order of the questions, None where nobody can answer; and the tokens.

        Raises:
            ApiError: 404, there is no such model, and no student for any of the questions.
        """
        asked: ServedModel | None = None
        missing: ApiError | None = None
        try:
            asked = await self._models.find(model)
        except ApiError as error:
            missing = error
        found = [self._student_for(question, asked) for question in questions]
        if missing is not None and not any(found) and self._teacher is None:
            raise missing
        answers: list[Distribution | None] = [None] * len(questions)
        unsure: list[int] = []
        tokens = 0

        async def by_student(number: int, student: ServedModel, labels: tuple[str, ...]) -> None:
            nonlocal tokens
            decision = await self._chat.student_decision(student, messages, labels)
            tokens = max(tokens, decision.prompt_tokens)
            shares = tuple(decision.scores.get(label, 0.0) for label in labels)
            answers[number] = Distribution(shares, "student")
            if asks_teacher(decision.whole_confidence, student.cutoff):
                unsure.append(number)
            await self._chat.log_student_decision(decision, messages, key)

        await asyncio.gather(*(by_student(i, *pair) for i, pair in enumerate(found) if pair is not None))
        open_questions = sorted({*unsure, *(i for i, answer in enumerate(answers) if answer is None)})
        usage = Usage(prompt=tokens, completion=0)
        if self._teacher is not None and open_questions:
            by_teacher, usage = await self._ask_teacher(self._teacher, messages, [questions[i] for i in open_questions])
            for number, answer in zip(open_questions, by_teacher, strict=True):
                answers[number] = answer or answers[number]
        return answers, usage

    def _student_for(self, question: Question, asked: ServedModel | None) -> tuple[ServedModel, tuple[str, ...]] | None:
        """The student of a question, with its labels for the question's values."""
        others = [model for model in self._models.folder_models if model is not asked]
        for model in [*([asked] if asked is not None else []), *others]:
            named = question.name is not None and canonical_name(question.name) == canonical_name(model.name)
            if any(isinstance(value, bool) for value in question.values) and not (named or model is asked):
                continue
            labels = _labels(model, question)
            if labels is not None and not model.task.multi:
                return model, labels
        return None

    async def _ask_teacher(
        self, teacher: Teacher, messages: Conversation, questions: Sequence[Question]
    ) -> tuple[list[Distribution | None], Usage]:
        """The teacher's answers to several questions, in one call; None where it gives none."""
        try:
            reply = await teacher.ask(_teacher_request(messages, questions))
            value = parse_json(strip_code_fence(reply.text or ""))
        except (Unanswered, ValueError):
            return [None] * len(questions), Usage()
        given = value if isinstance(value, dict) else {}
        return [_distribution(q, given.get(f"q{i}")) for i, q in enumerate(questions, 1)], reply.usage


def _labels(model: ServedModel, question: Question) -> tuple[str, ...] | None:
    """A model's labels for the values of a question; None if it has not got all of them."""
    labels = []
    for value in question.values:
        spellings = SPELLINGS[value] if isinstance(value, bool) else (value,)
        label = next((found for one in spellings if (found := resolve_label(model.task, one))), None)
        if label is None or label in labels:
            return None
        labels.append(label)
    return tuple(labels)


def _teacher_request(messages: Conversation, questions: Sequence[Question]) -> Json:
    """The chat request that asks several questions about one conversation."""
    lines, properties = [INSTRUCTIONS], {}
    for number, question in enumerate(questions, 1):
        properties[f"q{number}"] = (
            {"type": "number"} if question.kind == "predicate" else {"enum": list(question.values)}
        )
        what = {"predicate": "the probability, from 0 to 1, that this is true", "score": "one of these levels, from low to high",
                "choice": "one of these"}[question.kind]  # fmt: skip
        lines.append(f"q{number}: {question.instructions}\nAnswer with {what}.")
        if question.kind != "predicate":
            lines += [
                f"- {json.dumps(value)}: {question.descriptions.get(value, '')}".rstrip(": ")
                for value in question.values
            ]
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    named = {"name": "answers", "strict": True, "schema": schema}
    turns = chat("\n".join(lines), messages)
    return {"messages": turns, "temperature": 0, "response_format": {"type": "json_schema", "json_schema": named}}


def _distribution(question: Question, given: object) -> Distribution | None:
    """A teacher's answer as probabilities; a choice has all of it, because the teacher says no more."""
    if question.kind == "predicate":
        probability = finite(given)
        if probability is None or not 0 <= probability <= 1:
            return None
        return Distribution((1 - probability, probability), "teacher")
    places = [i for i, value in enumerate(question.values) if type(value) is type(given) and value == given]
    if not places:
        return None
    return Distribution(tuple(float(i == places[0]) for i in range(len(question.values))), "teacher")
