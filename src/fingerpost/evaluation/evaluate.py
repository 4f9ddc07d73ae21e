"""Measures base, teacher and students on the same rows, with confidence intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerpost.consensus.evidence import agree, gather, ground
from fingerpost.core.errors import InputError
from fingerpost.core.types import (
    Example,
    Prediction,
    Predictor,
    Progress,
    ProgressCallback,
    Question,
    no_progress,
)
from fingerpost.core.version import __version__
from fingerpost.evaluation import metrics
from fingerpost.evaluation.compare import Answers, Role, compare
from fingerpost.evaluation.results import CurvePoint, DataReport, LabelQuality, ModelReport, Report
from fingerpost.evaluation.rows import TestRow
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

Embed: TypeAlias = Callable[[Sequence[Question]], NDArray[np.float32]]
"""Unit vectors of questions, (questions, width)."""

LATENCY_ROWS = 200

WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be measured.

    Attributes:
        timed: whether its latency is measured here, one request at a time; else it is taken from the predictions.
        teacher: of a cascade, the name of the model that it asks.
    """

    role: Role
    predictor: Predictor
    timed: bool = True
    teacher: str = ""


def evaluate(
    name: str,
    labels: Sequence[str],
    rows: Sequence[TestRow],
    candidates: Sequence[Candidate],
    *,
    spent_usd: float = 0.0,
    inputs: str = "",
    notes: Sequence[str] = (),
    on_progress: ProgressCallback = no_progress,
) -> Report:
    """Let every model answer every row, and compare. Rows without a human label count only where no row has one.

    Args:
        name: the report's title.
        labels: the label names, in the order of the report.
        spent_usd: US dollars that labelling has cost, for the break-even point.
        inputs: a fingerprint of what was measured, kept in the report.

    Raises:
        InputError: there are no rows, or a label that no model knows.
    """
    if not rows:
        raise InputError("there are no test rows; import labelled ones with a split column that says test")
    with_gold = [row for row in rows if row.gold is not None]
    measured = with_gold or list(rows)
    if unknown := sorted({str(row.gold) for row in with_gold} - set(labels)):
        raise InputError(
            f"the test rows have labels that the models do not know: {', '.join(unknown[:5])}; "
            "name another column with --label, or train on these labels too"
        )
    answers: list[Answers] = []
    for number, candidate in enumerate(candidates):
        predictor = candidate.predictor
        on_progress(Progress("evaluate", f"asking {predictor.name}", number, len(candidates)))
        unique = _unused(predictor.name, {other.name for other in answers})
        predictions = predictor.predict([row.messages for row in measured])
        seconds = _latencies(candidate, measured, predictions)
        answers.append(Answers(unique, candidate.role, predictions, seconds, candidate.teacher))
    models, pairs = compare(list(labels), measured, answers)
    sources = sorted({row.source for row in measured})
    by_source = []
    for source in sources if len(sources) > 1 else []:
        chosen = [i for i, row in enumerate(measured) if row.source == source]
        parts = compare(list(labels), [measured[i] for i in chosen], [each.take(chosen) for each in answers])
        by_source.append(DataReport(source=source, n=len(chosen), models=parts[0], pairs=parts[1]))
    notes = list(notes)
    if len(measured) < len(rows):
        notes.append(f"{len(rows) - len(measured)} test rows without a human label were left out")
    return Report(
        task=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerpost=__version__,
        labels=list(labels),
        against="human labels" if with_gold else "teacher's answers",
        n=len(measured),
        models=models,
        pairs=pairs,
        by_source=by_source,
        spent_usd=spent_usd,
        break_even=_break_even(models, spent_usd),
        notes=notes,
        inputs=inputs,
    )


def label_quality(task: Task, store: Store, embed: Embed) -> LabelQuality | None:
    """The accuracy of the teacher's labels and of the consensus on test rows with a human label.

    The consensus does not see the human labels of test questions. None where no training question was reviewed, or no
    test row has both a human label and the teacher's.
    """
    labelled = store.labelled(task.names, task.teacher_model, "train", "dev", "test")
    if not any(verdicts.label("human") for question, verdicts in labelled if question.split != "test"):
        return None
    rows, gold, taught = [], [], []
    for row, (question, verdicts) in enumerate(labelled):
        human = verdicts.label("human") if question.split == "test" else None
        answer = verdicts.teacher_label
        if human is not None and answer is not None:
            rows.append(row)
            gold.append(task.names.index(human))
            taught.append(task.names.index(answer))
    if not rows:
        return None
    questions = [question for question, _ in labelled]
    vectors = embed(questions)
    evidence = gather(task.names, labelled, vectors, hidden=frozenset({"test"}))
    agreed = agree(evidence, ground(evidence), task.student.seed).probabilities[rows].argmax(1)
    teacher, consensus = np.array(taught) == gold, agreed == gold
    only_teacher, only_consensus, p = metrics.exact_mcnemar(teacher, consensus)
    return LabelQuality(
        n=len(rows),
        teacher=metrics.proportion(teacher),
        consensus=metrics.proportion(consensus),
        only_teacher_right=only_teacher,
        only_consensus_right=only_consensus,
        p=p,
    )


def learning_curve(
    task: Task,
    examples: Sequence[Example],
    rows: Sequence[TestRow],
    vectors: Mapping[str, NDArray[np.float32]] | None = None,
) -> list[CurvePoint]:
    """Accuracy on the test rows of a linear head that has seen 25, 50, 100, ... of the training examples.

    Args:
        vectors: embeddings by example id, each of shape (width,), where they are known already.
    """
    from fingerpost.students.encoder.curve import learning_curve as curve

    rows = [row for row in rows if row.gold is not None]
    index = {label: i for i, label in enumerate(task.names)}
    gold = np.array([index[str(row.gold)] for row in rows])
    points = curve(examples, [row.messages for row in rows], task, vectors)
    return [
        CurvePoint(n=n, accuracy=metrics.proportion(answers == gold), measured_on=len(rows)) for n, answers in points
    ]


def _unused(name: str, used: set[str]) -> str:
    """The name, numbered where another model has it already."""
    return next(new for i in range(1, 1000) if (new := name if i == 1 else f"{name} #{i}") not in used)


def _latencies(candidate: Candidate, rows: Sequence[TestRow], answers: Sequence[Prediction]) -> list[float]:
    """Seconds per prediction: one at a time in this process, or what was recorded."""
    if not candidate.timed:
        return [answer.usage.latency_s for answer in answers if answer.usage.latency_s is not None]
    seconds = []
    for row in [*rows[:WARM_UP], *rows[:LATENCY_ROWS]]:
        began = time.perf_counter()
        (answer,) = candidate.predictor.predict([row.messages])
        # A recorded teacher in a cascade answers at once, and says how long it took.
        seconds.append(max(time.perf_counter() - began, answer.usage.latency_s or 0.0))
    return seconds[min(WARM_UP, len(rows)) :]


def _break_even(models: Sequence[ModelReport], spent_usd: float) -> dict[str, int]:
    """After how many requests a student has saved what labelling cost."""
    teacher = next((model for model in models if model.role == "teacher"), None)
    if teacher is None or not teacher.cost_per_1000_usd or spent_usd <= 0:
        return {}
    return {
        model.name: math.ceil(spent_usd / (teacher.cost_per_1000_usd / 1000))
        for model in models
        if model.role == "student" and model.cost_per_1000_usd == 0
    }
