"""Compares the answers of several models to the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.label_sets import LabelSets, split_labels
from fingerpost.core.text import shorten
from fingerpost.core.types import FAST, Prediction
from fingerpost.evaluation import metrics
from fingerpost.evaluation.results import Mistake, ModelReport, Pair
from fingerpost.evaluation.rows import TestRow

MISTAKES = 200

Role: TypeAlias = Literal["base", "baseline", "teacher", "student", "cascade"]


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """One model's answers.

    Attributes:
        predictions: one for each row, in order.
        seconds: latencies of the timed predictions; there may be fewer than rows.
        teacher: of a cascade, the name that predictions of its teacher carry in `by`.
    """

    name: str
    role: Role
    predictions: Sequence[Prediction]
    seconds: Sequence[float]
    teacher: str = ""

    def take(self, chosen: Sequence[int]) -> ModelAnswers:
        """The answers to the rows at these positions, with all latencies."""
        return ModelAnswers(self.name, self.role, [self.predictions[i] for i in chosen], self.seconds, self.teacher)


def compare(
    labels: Sequence[str],
    rows: Sequence[TestRow],
    answers: Sequence[ModelAnswers],
    multi: bool = False,
    ordinal: bool = False,
) -> tuple[list[ModelReport], list[Pair]]:
    """Measure every model on the rows and test every pair of models.

    Args:
        labels: the label names; a prediction of any other label counts as no label.
        rows: at least one; either all have a human label, or none has.
        answers: each model's answers to these rows.
        multi: a row may have several labels; an answer is right if all of them are.
        ordinal: the labels are the levels of a scale, the lowest first.

    Returns:
        A report for each model in order, and the paired tests; no tests where the rows have no human labels.
    """
    known = LabelSets(labels)
    given = [row.gold for row in rows] + [found.label for model in answers for found in model.predictions]
    sets = dict.fromkeys(answer for answer in given if answer in known) if multi else ()
    index = {label: i for i, label in enumerate(sets or labels)}
    predicted = {
        model.name: np.array([index.get(str(prediction.label), -1) for prediction in model.predictions])
        for model in answers
    }
    teacher = next((predicted[model.name] for model in answers if model.role == "teacher"), None)
    reports = [_without_labels(model, predicted[model.name], teacher) for model in answers]
    if rows[0].gold is None:
        return reports, []
    gold = np.array([index[str(row.gold)] for row in rows])
    right = {name: labels_of_model == gold for name, labels_of_model in predicted.items()}
    base = next((right[model.name] for model in answers if model.role == "base"), None)
    for report, model in zip(reports, answers, strict=True):
        _against_gold(report, model, rows, gold, predicted[model.name], base)
        if multi:
            _measure_sets(report, model, rows, labels)
        else:
            _measure_labels(report, gold, predicted[model.name], labels, ordinal)
    return reports, _pairs(right, {model.name: model.role for model in answers})


def _without_labels(
    answers: ModelAnswers, predicted: NDArray[np.int64], teacher: NDArray[np.int64] | None
) -> ModelReport:
    """Agreement, latency and cost, which need no human labels."""
    model = ModelReport(name=answers.name, role=answers.role, n=len(predicted), no_answer=int((predicted < 0).sum()))
    if teacher is not None and answers.role != "teacher" and (asked := teacher >= 0).any():
        model.agreement = metrics.proportion((predicted == teacher)[asked])
        model.agreement_n = int(asked.sum())
    if answers.seconds:
        model.latency_n = len(answers.seconds)
        p50, p95 = np.quantile(answers.seconds, [0.5, 0.95])
        model.latency_p50_ms, model.latency_p95_ms = float(1000 * p50), float(1000 * p95)
    if answers.role == "cascade":
        model.teacher_share = metrics.proportion(
            np.array([prediction.by == answers.teacher for prediction in answers.predictions])
        )
    costs = [prediction.usage.cost_usd for prediction in answers.predictions]
    if known := [cost for cost in costs if cost is not None]:
        model.cost_n, model.cost_per_1000_usd = len(known), float(1000 * np.mean(known))
    return model


def _against_gold(
    model: ModelReport,
    answers: ModelAnswers,
    rows: Sequence[TestRow],
    gold: NDArray[np.int64],
    predicted: NDArray[np.int64],
    base: NDArray[np.bool_] | None,
) -> None:
    """Add to the report what is measured against human labels."""
    right = predicted == gold
    accuracy = metrics.proportion(right)
    model.accuracy, model.accuracy_low, model.accuracy_high = accuracy.value, accuracy.low, accuracy.high
    if base is not None and answers.role != "base":
        model.error_reduction = metrics.error_reduction(base, right)
    by_fast_tier = np.array([prediction.tier == FAST for prediction in answers.predictions])
    if by_fast_tier.any():
        model.fast_share = metrics.proportion(by_fast_tier)
        model.fast_accuracy = metrics.proportion(right[by_fast_tier])
        if not by_fast_tier.all():
            model.whole_accuracy = metrics.proportion(right[~by_fast_tier])
    confidence = np.array([prediction.confidence for prediction in answers.predictions])
    if not np.isnan(confidence).any():
        model.calibration_error = metrics.calibration_error(confidence, right)
        model.reliability = metrics.reliability(confidence, right)
        model.coverage = metrics.coverage(confidence, right)
    wrong = sorted(np.flatnonzero(~right).tolist(), key=lambda i: -float(np.nan_to_num(confidence[i])))
    model.mistakes = [
        Mistake(
            text=shorten(" | ".join(turn.content for turn in rows[i].messages), 300),
            source=rows[i].source,
            gold=str(rows[i].gold),
            answer=answers.predictions[i].label,
            confidence=None if np.isnan(confidence[i]) else float(confidence[i]),
        )
        for i in wrong[:MISTAKES]
    ]


def _measure_labels(
    model: ModelReport, gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str], ordinal: bool
) -> None:
    """Add what is measured by label, where each row has one."""
    matrix = metrics.confusion(gold, predicted, len(labels))
    f1 = metrics.macro_f1(matrix)
    model.macro_f1, model.macro_f1_low, model.macro_f1_high = f1.value, f1.low, f1.high
    model.confusion = matrix.tolist()
    if ordinal:
        model.kappa, model.mean_absolute_error = metrics.quadratic_kappa(matrix), metrics.mean_absolute_error(matrix)
    model.labels = metrics.by_label(gold, predicted, labels)


def _measure_sets(model: ModelReport, answers: ModelAnswers, rows: Sequence[TestRow], labels: Sequence[str]) -> None:
    """Add what is measured by label, where a row may have several."""
    gold = _as_sets([str(row.gold) for row in rows], labels)
    given = _as_sets([prediction.label or "" for prediction in answers.predictions], labels)
    micro, macro = metrics.f1_of_sets(gold, given)
    model.micro_f1 = micro
    model.macro_f1, model.macro_f1_low, model.macro_f1_high = macro.value, macro.low, macro.high
    model.labels = metrics.scores_of_sets(gold, given, labels)


def _as_sets(answers: Sequence[str], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which labels each answer names, shape (answers, labels)."""
    found = [set(split_labels(answer)) for answer in answers]
    return np.array([[label in names for label in labels] for names in found], dtype=bool)


def _pairs(right: dict[str, NDArray[np.bool_]], roles: dict[str, Role]) -> list[Pair]:
    """McNemar's tests of all pairs; the baseline is compared with students and cascades only."""
    compared = [
        pair
        for pair in combinations(right, 2)
        if "baseline" not in (found := {roles[name] for name in pair}) or found & {"student", "cascade"}
    ]
    tests = [(a, b, *metrics.exact_mcnemar(right[a], right[b])) for a, b in compared]
    corrected = metrics.holm([test[4] for test in tests])
    return [
        Pair(a=a, b=b, n=len(right[a]), only_a_right=only_a, only_b_right=only_b, p=p, p_holm=p_holm)
        for (a, b, only_a, only_b, p), p_holm in zip(tests, corrected, strict=True)
    ]
