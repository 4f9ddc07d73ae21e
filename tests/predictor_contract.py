"""What every predictor must do. A test of a new predictor calls `check_predictor` and `check_interface`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fingerpost.core.conversations import conversation_of
from fingerpost.core.types import Message, Prediction

Input = str | Sequence[Message]

TOLERANCE = 0.01
"""How far a confidence may differ between a batch and a single call: int8 kernels round differently."""


def check_predictor(predictor: Any, conversations: Sequence[Input]) -> None:
    """Check the predictions for at least two conversations that have different labels.

    Raises:
        AssertionError: naming what does not hold.
    """
    assert isinstance(predictor.name, str) and predictor.name
    assert predictor.predict([]) == []
    together = predictor.predict(list(conversations))
    assert isinstance(together, list) and len(together) == len(conversations)
    assert len({prediction.label for prediction in together}) > 1, "give conversations with different labels"
    for given, prediction in zip(conversations, together, strict=True):
        check_prediction(prediction)
        (alone,) = predictor.predict([given])
        assert_same(alone, prediction, "a batch and a single call differ")
    for given, prediction in zip(
        reversed(conversations), predictor.predict(list(reversed(conversations))), strict=True
    ):
        expected = together[list(conversations).index(given)]
        assert_same(prediction, expected, "predictions do not follow the order of the conversations")
    for text in [
        conversation_of(given, "text")[0].content for given in conversations if len(conversation_of(given, "text")) == 1
    ]:
        plain, message = predictor.predict([text, [Message("user", text)]])
        assert_same(plain, message, "a text and a conversation of one user message differ")


def check_interface(predictor: Any, conversations: Sequence[Input]) -> None:
    """Check `labels`, `manifest`, `predict_proba` and `close`; closes the predictor.

    Raises:
        AssertionError: naming what does not hold.
        AttributeError: the predictor lacks one of them.
    """
    labels = predictor.labels
    assert len(labels) == len(set(labels)) >= 2 and all(isinstance(label, str) and label for label in labels)
    assert [label.name for label in predictor.manifest.labels] == list(labels)
    predictions = predictor.predict(list(conversations))
    for prediction in predictions:
        assert prediction.label is None or prediction.label in labels
        assert set(prediction.scores) <= set(labels)
    rows = predictor.predict_proba(list(conversations))
    assert isinstance(rows, np.ndarray) and np.issubdtype(rows.dtype, np.floating)
    assert rows.shape == (len(conversations), len(labels))
    assert (rows >= 0).all() and rows.sum(axis=1) == pytest.approx(1)
    for row, prediction in zip(rows, predictions, strict=True):
        if set(prediction.scores) == set(labels):
            assert row == pytest.approx([prediction.scores[label] for label in labels], abs=TOLERANCE)
    assert predictor.predict_proba([]).shape == (0, len(labels))
    predictor.close()
    predictor.close()


def check_prediction(prediction: Prediction) -> None:
    assert prediction.label is None or (isinstance(prediction.label, str) and prediction.label)
    assert isinstance(prediction.confidence, float)
    assert math.isnan(prediction.confidence) or 0 <= prediction.confidence <= 1
    assert all(0 <= score <= 1 for score in prediction.scores.values())
    total = sum(prediction.scores.values())
    assert total <= 1 + 1e-6, "scores are probabilities"
    if len(prediction.scores) > 1:
        assert total == pytest.approx(1), "several scores sum to 1"
    if prediction.scores:
        assert prediction.label == max(prediction.scores, key=prediction.scores.__getitem__)


def assert_same(one: Prediction, other: Prediction, message: str) -> None:
    assert one.label == other.label, message
    assert one.confidence == pytest.approx(other.confidence, abs=TOLERANCE, nan_ok=True), message
