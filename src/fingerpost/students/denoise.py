"""Detect labels that are probably wrong, using no other label source, and reduce their influence on training.

A student can learn its teacher's systematic errors. Two predictions that were made without a row's own label, by both
views of a student and by the votes of similar rows, tell how plausible that label is. The approach follows confident
learning (Northcutt et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import vstack
from scipy.special import softmax

from fingerpost.students.folder import Stack
from fingerpost.students.lexical import LinearScores, familiarity_of, fit_scores, scores_out_of_fold
from fingerpost.students.linear import Array, Head, fit_head, folds_of, logits_out_of_fold, neighbour_votes
from fingerpost.students.stack import fit_stack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

STRENGTH = 10.0
"""Inverse regularisation strength of the linear head for WIDTH dimensions; in proportion for wider vectors. 3 and 30 are
no better on cleaned rows (benchmarks/noise.py)."""
WIDTH = 384
PLAUSIBLE_MIX, IMPLAUSIBLE_MIX = 0.0, 0.5
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
        ngrams: features of the lexical view, shape (rows, features); without them that view is left out.
        read_width: the width of the embeddings that the vectors were projected from; None for the vectors' own.
    """

    texts: list[str]
    vectors: Array
    targets: Array
    weights: Array
    groups: list[str]
    ngrams: csr_matrix | None = None
    read_width: int | None = None

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
            None if self.ngrams is None else vstack([self.ngrams, other.ngrams], format="csr"),
            self.read_width,
        )

    def take(self, positions: NDArray[np.int64]) -> Rows:
        """The rows at these positions."""
        return Rows(
            [self.texts[i] for i in positions],
            self.vectors[positions],
            self.targets[positions],
            self.weights[positions],
            [self.groups[i] for i in positions],
            None if self.ngrams is None else self.ngrams[positions],
            self.read_width,
        )


@dataclass(frozen=True, slots=True)
class Views:
    """The fitted models of both views, with their weights.

    Attributes:
        lexical: None if the rows had no n-grams.
    """

    head: Head
    lexical: LinearScores | None
    stack: Stack

    def lexical_scores(self, rows: Rows) -> Array:
        """Scores of the lexical view, shape (rows, labels); zero without it, and for rows that are unfamiliar to it."""
        if self.lexical is None or rows.ngrams is None:
            return np.zeros_like(rows.targets)
        scores = self.lexical.scores(rows.ngrams)
        if self.stack.encoder:
            scores[familiarity_of(rows.ngrams) < self.stack.familiarity] = 0
        return scores

    def logits(self, rows: Rows) -> Array:
        """Combined logits, shape (rows, labels)."""
        return self.stack.combine(self.head.logits(rows.vectors), self.lexical_scores(rows))


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Rows with softened targets and reduced weights, for training.

    Attributes:
        plausibility: of each row's given label, 0 to 1; shape (rows,).
        encoder, lexical: scores of each view for rows that it was not fitted to, shape (rows, labels).
        stack: the weights of the views, found on these scores.
    """

    rows: Rows
    plausibility: Array
    encoder: Array
    lexical: Array
    stack: Stack


def clean(given: Rows, seed: int) -> Cleaned:
    """Soften the targets and reduce the weights of rows whose labels are implausible, and weigh the views.

    Part of each target is replaced by the predictions (bootstrapping, Reed et al. 2015), more where the label is
    implausible. Labels with few examples are corrected less, because the predictions know little about them.

    Args:
        given: the rows with their given labels.
        seed: of the random sample of rows that vote.
    """
    folds = folds_of(given.groups)
    encoder = logits_out_of_fold(given.vectors, given.targets, given.weights, folds, head_strength(given))
    lexical, stack = np.zeros_like(encoder), Stack()
    if given.ngrams is not None:
        lexical = scores_out_of_fold(given.ngrams, given.targets, given.weights, folds)
        stack = fit_stack(encoder, lexical, given.targets, given.weights)
    votes = neighbour_votes(given.vectors, given.targets, seed)
    rows, plausible = _soften(given, (softmax(stack.combine(encoder, lexical), axis=1) + votes) / 2, given)
    if given.ngrams is not None:
        stack = fit_stack(encoder, lexical, given.targets, rows.weights)
    return Cleaned(rows, plausible, encoder, lexical, stack)


def clean_held_out(held_out: Rows, train: Rows, views: Views, seed: int) -> tuple[Rows, Array]:
    """Soften the targets of rows that `views` were not fitted to; returns the rows and their plausibility, shape (rows,).

    Args:
        train: the rows that vote, with their given labels.
        seed: of the random sample of rows that vote.
    """
    votes = neighbour_votes(train.vectors, train.targets, seed, held_out.vectors)
    return _soften(held_out, (softmax(views.logits(held_out), axis=1) + votes) / 2, train)


def _soften(given: Rows, predicted: Array, known: Rows) -> tuple[Rows, Array]:
    """Rows with softened targets and reduced weights, and the plausibility of the given labels, shape (rows,).

    Args:
        predicted: probabilities that were predicted without these targets, shape (rows, labels).
        known: the rows that the predictions were learnt from.
    """
    other_examples = np.maximum(known.targets.sum(0)[given.labels] - (known is given), 0)
    severity = severity_of(other_examples)
    plausible: Array = 1 - severity * (1 - plausibility(given.targets, predicted))
    mix = (severity * (PLAUSIBLE_MIX + (IMPLAUSIBLE_MIX - PLAUSIBLE_MIX) * (1 - plausible)))[:, None]
    targets = ((1 - mix) * given.targets + mix * predicted).astype(np.float32)
    return replace(given, targets=targets, weights=given.weights * plausible), plausible


def severity_of(other_examples: NDArray[np.floating] | NDArray[np.int64]) -> Array:
    """How strongly labels with this many other examples are corrected, 0 to 1, in the same shape."""
    severity: Array = np.clip(other_examples / (other_examples + HALF_SEVERITY_EXAMPLES), 0, 1).astype(np.float32)
    return severity


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


def fit_views(rows: Rows, stack: Stack, *, lexical: bool = True) -> Views:
    """Fit both views to cleaned rows.

    Args:
        lexical: whether to fit the lexical view.
    """
    fitted = fit_scores(rows.ngrams, rows.targets, rows.weights) if lexical and rows.ngrams is not None else None
    return Views(fit_head(rows.vectors, rows.targets, rows.weights, head_strength(rows)), fitted, stack)


def head_strength(rows: Rows) -> float:
    """Each of many dimensions of a unit vector is small, so wider embeddings need less regularisation."""
    return STRENGTH * max(1.0, (rows.read_width or int(rows.vectors.shape[1])) / WIDTH)
