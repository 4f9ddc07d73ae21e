"""Whether more synthetic questions are worth their while: how far they are from real ones, and how much they still teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fingerpost.students.linear import fit_head, out_of_fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

STRENGTH = 3.0  # of the heads that are fitted here
LEAST = 20  # questions of each kind, fewer tell nothing
DRAWS = 5
FOLDS, REPEATS = 5, 2


@dataclass(frozen=True, slots=True)
class Gap:
    """How well a classifier tells synthetic questions from real ones: 0 not at all, 1 always.

    `n` of each kind; `p` is the probability of so much if both came from one source (Mann-Whitney). `real` has, for
    each synthetic question, the mean probability that it is real, or not a number where it was not drawn.
    """

    value: float
    n: int
    p: float
    real: Array


@dataclass(frozen=True, slots=True)
class Curve:
    """Cross-validated accuracy on the questions' own labels after learning from half of the others and from all."""

    n: int
    half: float
    full: float

    @property
    def gain(self) -> float:
        """What doubling brought last."""
        return self.full - self.half


def synthetic_gap(
    real: Array,
    synthetic: Array,
    real_labels: Sequence[str | None],
    synthetic_labels: Sequence[str | None],
    most: int | None = None,
    seed: int = 0,
) -> Gap | None:
    """A classifier two-sample test (Lopez-Paz and Oquab 2017) on unit vectors, (questions, width).

    Of each label as many real as synthetic questions are drawn, so that what differs is how people write, not how often
    about what; `most` of each kind in all, so that gaps of different rounds can be compared. The gap is 2 AUC - 1 of
    out-of-fold scores, the mean of several draws. None where there are too few.
    """
    values, ps, count = [], [], 0
    total, times = np.zeros(len(synthetic)), np.zeros(len(synthetic))
    for number in range(DRAWS):
        draw = np.random.default_rng([seed, number])
        mine, theirs = _matched(real_labels, synthetic_labels, most, draw)
        count = len(mine)
        if count < LEAST:
            return None
        vectors = np.concatenate([real[mine], synthetic[theirs]])
        is_real = np.repeat([1.0, 0.0], count)
        scores = out_of_fold(
            vectors,
            np.stack([is_real, 1 - is_real], 1).astype(np.float32),
            np.ones(len(vectors), dtype=np.float32),
            [str(i) for i in draw.permutation(len(vectors))],
            STRENGTH,
        )[:, 0]
        auc, p = _auc(scores[:count], scores[count:])
        values.append(2 * auc - 1)
        ps.append(p)
        np.add.at(total, theirs, scores[count:])
        np.add.at(times, theirs, 1)
    with np.errstate(invalid="ignore"):
        return Gap(max(0.0, float(np.mean(values))), count, float(np.median(ps)), (total / times).astype(np.float32))


def learning_curve(vectors: Array, labels: Sequence[str], seed: int = 0) -> Curve | None:
    """What half and what all of the questions teach about the ones held out; None where there are too few."""
    names = sorted(set(labels))
    if len(labels) < LEAST or len(names) < 2:
        return None
    index = np.array([names.index(each) for each in labels])
    targets = np.eye(len(names), dtype=np.float32)[index]
    right = {"half": 0, "full": 0}
    for repeat in range(REPEATS):
        draw = np.random.default_rng([seed, repeat])
        folds = draw.permutation(len(labels)) % FOLDS
        for fold in range(FOLDS):
            train, held_out = draw.permutation(np.flatnonzero(folds != fold)), np.flatnonzero(folds == fold)
            for how, rows in (("half", train[: len(train) // 2]), ("full", train)):
                head = fit_head(vectors[rows], targets[rows], np.ones(len(rows), dtype=np.float32), STRENGTH)
                right[how] += int((head.logits(vectors[held_out]).argmax(1) == index[held_out]).sum())
    seen = REPEATS * len(labels)
    return Curve(len(labels), right["half"] / seen, right["full"] / seen)


def _matched(
    real: Sequence[str | None], synthetic: Sequence[str | None], most: int | None, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of both kinds, as many of each label."""
    mine: list[int] = []
    theirs: list[int] = []
    for label in sorted({each for each in real if each} & {each for each in synthetic if each}):
        one = draw.permutation([i for i, each in enumerate(real) if each == label])
        other = draw.permutation([i for i, each in enumerate(synthetic) if each == label])
        count = min(len(one), len(other))
        mine += one[:count].tolist()
        theirs += other[:count].tolist()
    keep = draw.permutation(len(mine))[:most]
    return np.array(mine, dtype=np.int64)[keep], np.array(theirs, dtype=np.int64)[keep]


def _auc(higher: Array, lower: Array) -> tuple[float, float]:
    """Area under the curve, and the p of a two-sided Mann-Whitney test."""
    from scipy.stats import mannwhitneyu

    test = mannwhitneyu(higher, lower)
    return float(test.statistic) / (len(higher) * len(lower)), float(test.pvalue)
