"""A scikit-learn classifier as a predictor, so that it can be compared with a student."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation, Prediction, Usage
from fingerpost.students.folder import manifest_of
from fingerpost.task.loader import task_of_labels


class StoredAnswers(BasePredictor):
    """Answers that are known already, as a predictor: those of several models, each of which knows some of the rows.

    Args:
        name: its name in reports.
        answers: the predictions by question id.
        labels: names of the labels.
    """

    def __init__(self, name: str, answers: Mapping[str, Prediction], labels: Sequence[str]) -> None:
        self.name, self.labels, self._answers = name, list(labels), answers
        self.manifest = manifest_of("stored", name, task_of_labels(name, labels))

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """The stored predictions, in order."""
        return [self._answers[question_id(given)] for given in conversations]


class EstimatorPredictor(BasePredictor):
    """A fitted classifier of texts, such as a scikit-learn pipeline. It sees only the last message of a conversation.

    Args:
        estimator: has `predict`, `classes_` and optionally `predict_proba`.
        name: its name in reports; default is its class name.
        multi: its answers are sets of labels (`core.label_sets`).

    Raises:
        InputError: on construction, if the estimator is not fitted (it has no `classes_`).
    """

    def __init__(self, estimator: Any, name: str | None = None, multi: bool = False) -> None:
        if not hasattr(estimator, "classes_"):
            raise InputError(f"{type(estimator).__name__} is not fitted; call its fit method first")
        self.name = name or type(estimator).__name__
        self.labels = [str(label) for label in estimator.classes_]
        self.manifest = manifest_of("estimator", self.name, task_of_labels(self.name, self.labels))
        self._estimator, self._multi = estimator, multi

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """One prediction for each conversation, in order. Without `predict_proba` the confidence is NaN."""
        if not conversations:
            return []
        texts = [given[-1].content for given in conversations]
        began = time.perf_counter()
        answers = [str(label) for label in self._estimator.predict(texts)]
        rows = self._estimator.predict_proba(texts) if hasattr(self._estimator, "predict_proba") else None
        usage = Usage(cost_usd=0.0, latency_s=(time.perf_counter() - began) / len(texts))
        if rows is None:
            return [Prediction(label, np.nan, {}, self.name, usage, multi=self._multi) for label in answers]
        return [
            Prediction(label, float(row.max()), dict(zip(self.labels, map(float, row), strict=True)), self.name, usage)
            for label, row in zip(answers, rows, strict=True)
        ]
