"""Evaluates the untuned base, teachers and students on the same rows, with confidence intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerpost.consensus.evidence import answer_of_row, collect_evidence, compute_features, consensus_of
from fingerpost.core.errors import InputError
from fingerpost.core.label_sets import split_labels
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
from fingerpost.evaluation.compare import ModelAnswers, Role, compare
from fingerpost.evaluation.results import CurvePoint, DataReport, LabelQuality, ModelReport, Report
from fingerpost.evaluation.rows import TestRow
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

Embed: TypeAlias = Callable[[Sequence[Question]], NDArray[np.float32]]
"""Computes unit vectors of questions, shape (questions, width)."""

LATENCY_ROWS = 200
WARM_UP = 5  # requests before the latency measurement


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to evaluate.

    Attributes:
        role: the model's role in the report.
        predictor: the model.
        timed: measure latency here, one request at a time; otherwise it is taken from the predictions.
        teacher: for a cascade, the name of its teacher.
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
    multi: bool = False,
    ordinal: bool = False,
    notes: Sequence[str] = (),
    on_progress: ProgressCallback = no_progress,
) -> Report:
    """Evaluate all models on all rows and compare them.

    If any row has a human label, rows without one are left out. Otherwise models are measured by the teacher's answers.

    Args:
        name: the report's title.
        labels: label names, in the order of the report.
        spent_usd: cost of labelling in US dollars, for the break-even point.
        inputs: a fingerprint of the evaluated data and models, stored in the report.
        multi: a row may have several labels.
        ordinal: the labels are the levels of a scale, the lowest first.
        notes: remarks for the report.

    Raises:
        InputError: there are no rows, or a row has a label that no model knows.
    """
    if not rows:
        raise InputError("there are no test rows; import labelled rows with a split column that contains 'test'")
    with_gold = [row for row in rows if row.gold is not None]
    measured = with_gold or list(rows)
    used = {part for row in with_gold for part in (split_labels(str(row.gold)) if multi else (str(row.gold),))}
    if unknown := sorted(used - set(labels)):
        raise InputError(
            f"the test rows have labels that the models do not know: {', '.join(unknown[:5])}; "
            "give another column with --label, or train on these labels too"
        )
    answers: list[ModelAnswers] = []
    for number, candidate in enumerate(candidates):
        predictor = candidate.predictor
        on_progress(Progress("evaluate", f"evaluating {predictor.name}", number, len(candidates)))
        unique = _unique_name(predictor.name, {other.name for other in answers})
        predictions = predictor.predict([row.messages for row in measured])
        seconds = _latencies(candidate, measured, predictions)
        answers.append(ModelAnswers(unique, candidate.role, predictions, seconds, candidate.teacher))
    models, pairs = compare(list(labels), measured, answers, multi, ordinal)
    sources = sorted({row.source for row in measured})
    by_source = []
    for source in sources if len(sources) > 1 else []:
        chosen = [i for i, row in enumerate(measured) if row.source == source]
        taken = [answer.take(chosen) for answer in answers]
        found = compare(list(labels), [measured[i] for i in chosen], taken, multi, ordinal)
        by_source.append(DataReport(source=source, n=len(chosen), models=found[0], pairs=found[1]))
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
        multi=multi,
        ordinal=ordinal,
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

    The consensus does not see the human labels of test questions.

    Args:
        embed: computes unit vectors of questions, shape (questions, width).

    Returns:
        None if no training question was reviewed, or no test row has both a human label and a teacher's label.
    """
    labelled = store.labelled(task.answers, task.teacher_model, "train", "dev", "test")
    if not any(verdicts.label("human") for question, verdicts in labelled if question.split != "test"):
        return None
    rows, gold, teacher_answers = [], [], []
    for row, (question, verdicts) in enumerate(labelled):
        human = verdicts.label("human") if question.split == "test" else None
        answer = verdicts.teacher_label
        if human is not None and answer is not None:
            rows.append(row)
            gold.append(human)
            teacher_answers.append(answer)
    if not rows:
        return None
    questions = [question for question, _ in labelled]
    vectors = embed(questions)
    evidence = collect_evidence(task, labelled, vectors, hidden=frozenset({"test"}))
    agreed = consensus_of(evidence, compute_features(evidence), task.student.seed).probabilities[rows]
    answers = [answer_of_row(task, row) for row in agreed]
    teacher, consensus = np.array(teacher_answers) == gold, np.array(answers) == gold
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
    """Test accuracy of linear heads that are trained on 25, 50, 100, ... and all training examples.

    Args:
        vectors: known embeddings by example id, each of shape (width,).
    """
    from fingerpost.students.encoder.curve import learning_curve as curve

    rows = [row for row in rows if row.gold is not None]
    index = {label: i for i, label in enumerate(task.names)}
    gold = np.array([index[str(row.gold)] for row in rows])
    points = curve(examples, [row.messages for row in rows], task, vectors)
    return [
        CurvePoint(n=n, accuracy=metrics.proportion(answers == gold), measured_on=len(rows)) for n, answers in points
    ]


def _unique_name(name: str, used: set[str]) -> str:
    """The name, with a number appended if another model already has it."""
    return next(new for i in range(1, 1000) if (new := name if i == 1 else f"{name} #{i}") not in used)


def _latencies(candidate: Candidate, rows: Sequence[TestRow], answers: Sequence[Prediction]) -> list[float]:
    """Seconds per prediction: measured one request at a time, or as recorded in the predictions."""
    if not candidate.timed:
        return [answer.usage.latency_s for answer in answers if answer.usage.latency_s is not None]
    seconds = []
    for row in [*rows[:WARM_UP], *rows[:LATENCY_ROWS]]:
        began = time.perf_counter()
        (answer,) = candidate.predictor.predict([row.messages])
        # A recorded teacher in a cascade answers immediately, but reports its original latency.
        seconds.append(max(time.perf_counter() - began, answer.usage.latency_s or 0.0))
    return seconds[min(WARM_UP, len(rows)) :]


def _break_even(models: Sequence[ModelReport], spent_usd: float) -> dict[str, int]:
    """By student, the number of requests after which it has saved the cost of labelling."""
    teacher = next((model for model in models if model.role == "teacher"), None)
    if teacher is None or not teacher.cost_per_1000_usd or spent_usd <= 0:
        return {}
    return {
        model.name: math.ceil(spent_usd / (teacher.cost_per_1000_usd / 1000))
        for model in models
        if model.role == "student" and model.cost_per_1000_usd == 0
    }
