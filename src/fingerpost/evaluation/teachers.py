"""Teachers as predictors of their stored answers. No requests are sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation, Prediction, Usage, Verdict
from fingerpost.core.verdicts import QuestionVerdicts
from fingerpost.data.importer import teacher_verdict
from fingerpost.data.rows import Columns, Rejected, read_labelled_rows
from fingerpost.store.project import Store
from fingerpost.students.folder import manifest_of
from fingerpost.task.settings import Task


class RecordedTeacher(BasePredictor):
    """A teacher as a predictor of its stored answers.

    The label is the one with the most votes. The confidence is its share of the votes. With a single vote, it is the
    probability of the reply, or NaN if that is unknown.

    Args:
        answers: the teacher's verdicts by question id.
    """

    def __init__(self, name: str, answers: Mapping[str, Sequence[Verdict]], task: Task) -> None:
        self.name, self.labels, self.manifest = name, task.names, manifest_of("teacher", name, task)
        self._verdicts, self._answers, self._multi = answers, task.answers, task.multi

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """One prediction for each conversation, in order.

        Raises:
            InputError: the teacher has not answered one of them.
        """
        return [self._prediction(question_id(given)) for given in conversations]

    def _prediction(self, key: str) -> Prediction:
        verdicts = self._verdicts.get(key)
        if not verdicts:
            raise InputError(f"{self.name} has not answered one of these questions; run 'fingerpost label'")
        verdicts_that_count = QuestionVerdicts(verdicts, self._answers)
        shares, label = verdicts_that_count.votes("teacher") or {}, verdicts_that_count.teacher_label
        votes = verdicts_that_count.valid or verdicts[-1:]
        if len(votes) > 1:
            confidence = shares.get(label or "", 0.0)
        else:
            confidence = math.nan if votes[0].logprob is None else math.exp(votes[0].logprob)
        costs = [vote.usage.cost_usd for vote in votes]
        seconds = [vote.usage.latency_s for vote in votes if vote.usage.latency_s is not None]
        usage = Usage(
            cost_usd=sum(cost or 0.0 for cost in costs) if None not in costs else None,
            latency_s=float(np.mean(seconds)) if seconds else None,
        )
        return Prediction(label, confidence, {} if self._multi else shares, self.name, usage, multi=self._multi)


def teachers_from_store(task: Task, store: Store, ids: Sequence[str]) -> tuple[list[RecordedTeacher], list[str]]:
    """The teachers that have answered all of these questions, and a note for every other teacher.

    Args:
        ids: ids of the test questions.
    """
    test_ids = set(ids)
    by_teacher: dict[str, dict[str, list[Verdict]]] = {}
    for key, verdicts in store.verdicts().items():
        for verdict in verdicts:
            if verdict.kind == "teacher" and key in test_ids:
                by_teacher.setdefault(verdict.by, {}).setdefault(key, []).append(verdict)
    found: list[RecordedTeacher] = []
    notes: list[str] = []
    for name, answers in sorted(by_teacher.items()):
        if len(answers) == len(test_ids):
            found.append(RecordedTeacher(name, answers, task))
        else:
            notes.append(
                f"{name} has answered {len(answers)} of {len(test_ids)} test rows and is left out; "
                "label the rest with 'fingerpost label'"
            )
    return found, notes


def teacher_from_file(file: Path, columns: Columns, column: str, task: Task) -> RecordedTeacher:
    """A teacher whose answers are in a column of a file.

    Raises:
        InputError: the file cannot be read or has no such column.
    """
    answers: dict[str, list[Verdict]] = {}
    for item in read_labelled_rows(file, replace(columns, label=column, teacher=column), task):
        if not isinstance(item, Rejected):
            key = question_id(item.messages)
            answers[key] = [teacher_verdict(item, key, column)]
    return RecordedTeacher(column, answers, task)
