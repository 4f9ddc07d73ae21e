"""Detect labels that are probably wrong, using no other label source, and reduce their influence on training.

A student can learn its teacher's systematic errors. Two predictions that were made without a row's own label, by a
linear head and by the votes of similar rows, tell how plausible that label is. The approach follows confident
learning (Northcutt et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fingerpost.students.linear import Array, Head, fit_head, neighbour_votes, out_of_fold

STRENGTH = 10.0
"""Inverse regularisation strength of the linear head. 3 and 30 are no better on cleaned rows (benchmarks/noise.py)."""
PLAUSIBLE_MIX, IMPLAUSIBLE_MIX = 0.2, 0.5
"""How much of a soft target comes from the predictions, where the given label is plausible and where it is not."""
HALF_SEVERITY_EXAMPLES = 5.0
"""With this many other examples of its label, a row is corrected half as much as with very many."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Training examples as arrays.

    Attributes:
        texts: the encoder's input texts.
        vectors: unit vectors, shape (rows, width).
        targets: label probabilities, shape (rows, labels); rows sum to 1.
        weights: shape (rows,).
        groups: the near-duplicate group of each row.
    """

    texts: list[str]
    vectors: Array
    targets: Array
    weights: Array
    groups: list[str]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The index of each row's most probable label; shape (rows,)."""
        best: NDArray[np.int64] = self.targets.argmax(1)
        return best

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            self.texts + other.texts,
            np.concatenate([self.vectors, other.vectors]),
            np.concatenate([self.targets, other.targets]),
            np.concatenate([self.weights, other.weights]),
            self.groups + other.groups,
        )

    def take(self, positions: NDArray[np.int64]) -> Rows:
        """The rows at these positions."""
        return Rows(
            [self.texts[i] for i in positions],
            self.vectors[positions],
            self.targets[positions],
            self.weights[positions],
            [self.groups[i] for i in positions],
        )


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Rows with softened targets and reduced weights, for training.

    Attributes:
        plausibility: of each row's given label, 0 to 1; shape (rows,).
    """

    rows: Rows
    plausibility: Array


def clean(given: Rows, seed: int) -> Cleaned:
    """Soften the targets and reduce the weights of rows whose labels are implausible.

    Part of each target is replaced by the predictions (bootstrapping, Reed et al. 2015), more where the label is
    implausible. Labels with few examples are corrected less, because the predictions know little about them.

    Args:
        given: the rows with their given labels.
        seed: of the random sample of rows that vote.
    """
    by_head = out_of_fold(given.vectors, given.targets, given.weights, given.groups, STRENGTH)
    predicted = (by_head + neighbour_votes(given.vectors, given.targets, seed)) / 2
    other_examples = given.targets.sum(0)[given.labels] - 1
    severity = np.clip(other_examples / (other_examples + HALF_SEVERITY_EXAMPLES), 0, 1).astype(np.float32)
    plausible = 1 - severity * (1 - plausibility(given.targets, predicted))
    mix = (severity * (PLAUSIBLE_MIX + (IMPLAUSIBLE_MIX - PLAUSIBLE_MIX) * (1 - plausible)))[:, None]
    targets = (1 - mix) * given.targets + mix * predicted
    return Cleaned(replace(given, targets=targets, weights=given.weights * plausible), plausible)


def plausibility(targets: Array, predicted: NDArray[np.floating]) -> Array:
    """How plausible the targets are, 0 to 1; shape (rows,).

    1 where the predicted probability of the given label is at least half of the highest one; proportionally less below.

    Args:
        targets: shape (rows, labels); rows sum to 1.
        predicted: probabilities that were predicted without these targets; shape (rows, labels).
    """
    ratio = (targets * predicted).sum(1) / predicted.max(1)
    plausible: Array = np.minimum(1.0, 2 * ratio).astype(np.float32)
    return plausible


def plausibility_of(held_out: Rows, train: Rows, head: Head, seed: int) -> Array:
    """The plausibility of the labels of held-out rows; shape (rows,).

    Args:
        held_out: rows that are not in `train`.
        train: the rows that vote.
        head: a head that was fitted to `train`.
        seed: of the random sample of rows that vote.
    """
    votes = neighbour_votes(train.vectors, train.targets, seed, held_out.vectors)
    return plausibility(held_out.targets, (head.probabilities(held_out.vectors) + votes) / 2)


def fit_cleaned(cleaned: Cleaned) -> Head:
    """Fit the linear head to cleaned rows."""
    return fit_head(cleaned.rows.vectors, cleaned.rows.targets, cleaned.rows.weights, STRENGTH)
