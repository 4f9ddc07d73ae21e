"""Labels that are probably wrong: found without looking at any other label source, and taken less seriously.

A teacher's mistakes are learnable, so the student that agrees best with its teacher has copied them. Two views of a
row that have not seen its label, a linear head and the vote of its neighbours, tell how plausible the label is
(in the spirit of confident learning, Northcutt et al. 2021). LOG.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fingerpost.students.linear import Array, Head, fit_head, neighbour_votes, out_of_fold

STRENGTH = 10.0  # of the head; on cleaned rows 3 and 30 are no better (benchmarks/noise.py)
VIEWS, DOUBTED_VIEWS = 0.2, 0.5  # the views' share of a target: of a plausible label, of an implausible one
FEW = 5.0  # a label with so many other examples is judged with half the severity


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples as arrays: texts, vectors (rows, width), targets (rows, labels), weights (rows,), groups."""

    texts: list[str]
    vectors: Array
    targets: Array
    weights: Array
    groups: list[str]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The index of each row's most probable label."""
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

    def take(self, chosen: NDArray[np.int64]) -> Rows:
        """The rows at these positions."""
        return Rows(
            [self.texts[i] for i in chosen],
            self.vectors[chosen],
            self.targets[chosen],
            self.weights[chosen],
            [self.groups[i] for i in chosen],
        )


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Rows to learn from, and the plausibility (0 to 1) of each row's given label."""

    rows: Rows
    plausibility: Array


def clean(given: Rows, seed: int) -> Cleaned:
    """Soften targets and weigh rows by the plausibility of their labels.

    A part of each target comes from the views (bootstrapped targets, Reed et al. 2015), more of it where the label is
    doubtful. Both changes shrink for labels with few examples, of which the views know little.
    """
    head = out_of_fold(given.vectors, given.targets, given.weights, given.groups, STRENGTH)
    views = (head + neighbour_votes(given.vectors, given.targets, seed)) / 2
    others = given.targets.sum(0)[given.labels] - 1
    severity = np.clip(others / (others + FEW), 0, 1).astype(np.float32)
    plausible = 1 - severity * (1 - plausibility(given.targets, views))
    mixture = (severity * (VIEWS + (DOUBTED_VIEWS - VIEWS) * (1 - plausible)))[:, None]
    targets = (1 - mixture) * given.targets + mixture * views
    return Cleaned(replace(given, targets=targets, weights=given.weights * plausible), plausible)


def plausibility(targets: Array, views: NDArray[np.floating]) -> Array:
    """1 where the views give the label at least half of what they give their favourite, and less below; (rows,)."""
    ratio = (targets * views).sum(1) / views.max(1)
    plausible: Array = np.minimum(1.0, 2 * ratio).astype(np.float32)
    return plausible


def plausibility_of(held_out: Rows, train: Rows, head: Head, seed: int) -> Array:
    """The plausibility of the labels of rows that the head and the training rows have not seen; shape (rows,)."""
    votes = neighbour_votes(train.vectors, train.targets, seed, held_out.vectors)
    return plausibility(held_out.targets, (head.probabilities(held_out.vectors) + votes) / 2)


def fit_cleaned(cleaned: Cleaned) -> Head:
    """The linear head on cleaned rows."""
    return fit_head(cleaned.rows.vectors, cleaned.rows.targets, cleaned.rows.weights, STRENGTH)
