"""Whether more synthetic questions are worth their price: their distance from real ones, and what they still teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fingerpost.students.linear import fit_head, out_of_fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

HEAD_STRENGTH = 3.0  # `strength` of `fit_head`
MIN_QUESTIONS = 20  # of each kind; fewer are not informative
DRAWS = 5
FOLDS, REPEATS = 5, 2


@dataclass(frozen=True, slots=True)
class SyntheticGap:
    """How well a classifier tells synthetic questions from real ones.

    Attributes:
        value: 0 if it cannot tell them apart, 1 if it always can.
        n: number of questions of each kind.
        p: probability of such a value if both kinds came from one source (Mann-Whitney test, two-sided).
        real_probability: for each synthetic question, the mean predicted probability that it is real; NaN if the
            question was never drawn. Shape (synthetic questions,).
    """

    value: float
    n: int
    p: float
    real_probability: Array


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Cross-validated accuracy of a linear head on the questions' labels.

    Attributes:
        n: number of questions.
        half, full: accuracy after training on half of the training folds, and on all of them.
    """

    n: int
    half: float
    full: float

    @property
    def gain(self) -> float:
        """The accuracy gained by doubling the training data."""
        return self.full - self.half


def synthetic_gap(
    real: Array,
    synthetic: Array,
    real_labels: Sequence[str | None],
    synthetic_labels: Sequence[str | None],
    max_count: int | None = None,
    seed: int = 0,
) -> SyntheticGap | None:
    """A classifier two-sample test (Lopez-Paz and Oquab 2017). None if there are fewer than MIN_QUESTIONS of a kind.

    As many real as synthetic questions are drawn of each label, so that the test compares how people write, not how
    often they ask about a topic. The value is 2 AUC - 1 of out-of-fold scores, averaged over DRAWS draws.

    Args:
        real, synthetic: unit vectors of the questions, shape (questions, width).
        real_labels, synthetic_labels: their labels. Questions without a label are not drawn.
        max_count: at most this many questions of each kind, which makes gaps of different rounds comparable.
    """
    values, p_values, count = [], [], 0
    total, times = np.zeros(len(synthetic)), np.zeros(len(synthetic))
    for number in range(DRAWS):
        draw = np.random.default_rng([seed, number])
        real_rows, synthetic_rows = _matched_rows(real_labels, synthetic_labels, max_count, draw)
        count = len(real_rows)
        if count < MIN_QUESTIONS:
            return None
        vectors = np.concatenate([real[real_rows], synthetic[synthetic_rows]])
        is_real = np.repeat([1.0, 0.0], count)
        scores = out_of_fold(
            vectors,
            np.stack([is_real, 1 - is_real], 1).astype(np.float32),
            np.ones(len(vectors), dtype=np.float32),
            [str(group) for group in draw.permutation(len(vectors))],
            HEAD_STRENGTH,
        )[:, 0]
        auc, p = _auc(scores[:count], scores[count:])
        values.append(2 * auc - 1)
        p_values.append(p)
        np.add.at(total, synthetic_rows, scores[count:])
        np.add.at(times, synthetic_rows, 1)
    with np.errstate(invalid="ignore"):
        probability = (total / times).astype(np.float32)
    return SyntheticGap(max(0.0, float(np.mean(values))), count, float(np.median(p_values)), probability)


def learning_curve(vectors: Array, labels: Sequence[str], seed: int = 0) -> LearningCurve | None:
    """Accuracy on held-out questions after training on half, and on all, of the other questions.

    Args:
        vectors: unit vectors, shape (questions, width).
        labels: one label per question.

    Returns:
        None if there are fewer than MIN_QUESTIONS questions or fewer than two labels.
    """
    names = sorted(set(labels))
    if len(labels) < MIN_QUESTIONS or len(names) < 2:
        return None
    index = np.array([names.index(label) for label in labels])
    targets = np.eye(len(names), dtype=np.float32)[index]
    correct = {"half": 0, "full": 0}
    for repeat in range(REPEATS):
        draw = np.random.default_rng([seed, repeat])
        folds = draw.permutation(len(labels)) % FOLDS
        for fold in range(FOLDS):
            train, held_out = draw.permutation(np.flatnonzero(folds != fold)), np.flatnonzero(folds == fold)
            for part, rows in (("half", train[: len(train) // 2]), ("full", train)):
                head = fit_head(vectors[rows], targets[rows], np.ones(len(rows), dtype=np.float32), HEAD_STRENGTH)
                correct[part] += int((head.logits(vectors[held_out]).argmax(1) == index[held_out]).sum())
    predicted = REPEATS * len(labels)
    return LearningCurve(len(labels), correct["half"] / predicted, correct["full"] / predicted)


def _matched_rows(
    real_labels: Sequence[str | None],
    synthetic_labels: Sequence[str | None],
    max_count: int | None,
    draw: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of real and synthetic questions, equally many of each label."""
    real_rows: list[int] = []
    synthetic_rows: list[int] = []
    for label in sorted({name for name in real_labels if name} & {name for name in synthetic_labels if name}):
        real = draw.permutation([row for row, name in enumerate(real_labels) if name == label])
        synthetic = draw.permutation([row for row, name in enumerate(synthetic_labels) if name == label])
        count = min(len(real), len(synthetic))
        real_rows += real[:count].tolist()
        synthetic_rows += synthetic[:count].tolist()
    chosen = draw.permutation(len(real_rows))[:max_count]
    return np.array(real_rows, dtype=np.int64)[chosen], np.array(synthetic_rows, dtype=np.int64)[chosen]


def _auc(higher: Array, lower: Array) -> tuple[float, float]:
    """Area under the ROC curve, and the p-value of a two-sided Mann-Whitney test."""
    from scipy.stats import mannwhitneyu

    test = mannwhitneyu(higher, lower)
    return float(test.statistic) / (len(higher) * len(lower)), float(test.pvalue)
