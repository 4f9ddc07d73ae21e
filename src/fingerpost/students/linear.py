"""Two classifiers on frozen embeddings: a linear head, and the vote of similar rows. Neither needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

Array = NDArray[np.float32]
FOLDS = 5
KERNEL_BETA = 20.0
COMMON = 0.5
"""Squared length of the mean of unit vectors from which on they are centred. MiniLM has about 0.2, E5 0.7."""
MAX_VOTERS = 20_000
BLOCK = 1_024
"""Queries whose votes are computed at once."""
MAX_ITERATIONS, MAX_EVALUATIONS, HISTORY = 100, 125, 10
GRADIENT_TOLERANCE, LOSS_TOLERANCE = 1e-5, 1e-9


@dataclass(frozen=True, slots=True)
class Head:
    """A softmax regression.

    Attributes:
        weights: shape (width, labels).
        bias: shape (labels,).
    """

    weights: Array
    bias: Array

    def logits(self, vectors: Array) -> Array:
        """Shape (rows, labels)."""
        return vectors @ self.weights + self.bias

    def probabilities(self, vectors: Array) -> Array:
        """Shape (rows, labels); rows sum to 1."""
        result: Array = softmax(self.logits(vectors), axis=1)
        return result


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map of embeddings, which a head is fitted behind.

    It takes out what all embeddings have in common, for encoders whose embeddings lie in a narrow cone; and it reduces
    embeddings of several parts to their principal components.

    Attributes:
        mean: is subtracted, shape (width,).
        scale: then everything is multiplied by it, so that vectors are about as long as before.
        matrix: then they are multiplied by it, shape (width, new width); None for the identity.
    """

    mean: Array
    scale: float = 1.0
    matrix: Array | None = None

    @classmethod
    def of(cls, vectors: Array, parts: int = 1) -> Projection:
        """The projection for embeddings like these.

        Args:
            vectors: shape (rows, width). The squared lengths of all parts of a row sum to 1.
            parts: number of equally long parts that an embedding consists of. Of one, the mean is taken out if it is long;
                of several, the mean of each, and the principal components of all are kept, as many as a part is long.
        """
        mean = vectors.mean(0) if len(vectors) else np.zeros(vectors.shape[1], dtype=np.float32)
        if parts == 1 and float(mean @ mean) <= COMMON:
            return cls(np.zeros_like(mean))
        centred = vectors - mean
        squares = (centred**2).mean(0).reshape(parts, -1).sum(1) if len(vectors) else np.ones(parts)
        scales = 1 / np.sqrt(parts * np.maximum(squares, 1e-12))
        if parts == 1:
            return cls(mean, float(scales[0]))
        columns = np.repeat(scales, vectors.shape[1] // parts).astype(np.float32)
        scaled = (centred * columns).astype(np.float64)
        _, axes = np.linalg.eigh(scaled.T @ scaled)  # ascending
        kept = axes[:, ::-1][:, : vectors.shape[1] // parts].astype(np.float32)
        return cls(mean, matrix=columns[:, None] * kept)

    def apply(self, vectors: Array) -> Array:
        """Shape (rows, new width)."""
        if self._is_identity:
            return vectors
        centred: Array = (vectors - self.mean) * np.float32(self.scale)
        return centred if self.matrix is None else centred @ self.matrix

    def fold(self, head: Head) -> Head:
        """A head for vectors that are not projected, with the same logits as `head` for projected ones."""
        if self._is_identity:
            return head
        weights = np.float32(self.scale) * (head.weights if self.matrix is None else self.matrix @ head.weights)
        return Head(weights, head.bias - self.mean @ weights)

    @property
    def _is_identity(self) -> bool:
        return self.matrix is None and not self.mean.any()


def fit_head(vectors: Array, targets: Array, weights: Array, strength: float) -> Head:
    """Fit a softmax regression to soft targets with L-BFGS.

    Minimises strength * sum of weighted cross-entropies + half the sum of squared weights. `strength` is C of
    scikit-learn's LogisticRegression, which accepts hard labels only. The bias is not regularised.

    Args:
        vectors: shape (rows, width).
        targets: shape (rows, labels); rows sum to 1.
        weights: shape (rows,).
        strength: inverse of the regularisation strength.
    """
    x = np.ascontiguousarray(vectors, dtype=np.float32)
    y = np.asarray(targets, dtype=np.float32)
    total = float(np.sum(weights, dtype=np.float64))
    row_shares = (np.asarray(weights, dtype=np.float32) / total)[:, None]
    width, labels = x.shape[1], y.shape[1]
    # The targets enter the loss only through these two sums, so they are computed once.
    target_weights = (x.T @ (row_shares * y)).astype(np.float64)
    target_bias = (row_shares * y).sum(0, dtype=np.float64)
    shrinkage = 1 / (strength * total)

    def loss_and_gradient(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        matrix, bias = parameters[:-labels].reshape(width, labels), parameters[-labels:]
        values = x @ matrix.astype(np.float32)
        values += bias.astype(np.float32)
        highest = values.max(1, keepdims=True)
        values -= highest
        np.exp(values, out=values)
        sums = values.sum(1, keepdims=True)
        log_sums = (highest + np.log(sums)).astype(np.float64)
        values *= row_shares / sums
        loss = float((row_shares * log_sums).sum() - (target_weights * matrix).sum() - target_bias @ bias)
        loss += shrinkage / 2 * float((matrix**2).sum())
        gradient = np.empty_like(parameters)
        gradient[:-labels] = (x.T @ values - target_weights + shrinkage * matrix).ravel()
        gradient[-labels:] = values.sum(0, dtype=np.float64) - target_bias
        return loss, gradient

    with threadpool_limits(1):  # between the products, L-BFGS-B makes many small BLAS calls: threads make it 7x slower
        found = minimize(
            loss_and_gradient,
            np.zeros((width + 1) * labels),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": MAX_ITERATIONS,
                "maxfun": MAX_EVALUATIONS,
                "maxcor": HISTORY,
                "gtol": GRADIENT_TOLERANCE,
                "ftol": LOSS_TOLERANCE,
            },
        ).x.astype(np.float32)
    return Head(found[:-labels].reshape(width, labels), found[-labels:])


def folds_of(groups: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of training rows and held-out rows that share no group; none with fewer than two groups."""
    count = min(FOLDS, len(set(groups)))
    return [] if count < 2 else list(GroupKFold(count).split(groups, groups=groups))


def logits_out_of_fold(
    vectors: Array,
    targets: Array,
    weights: Array,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    strength: float,
) -> Array:
    """The logits of each row by a head that was fitted without the row's fold; shape (rows, labels). Zero without folds."""
    logits = np.zeros_like(targets)
    for train, held_out in folds:
        head = fit_head(vectors[train], targets[train], weights[train], strength)
        logits[held_out] = head.logits(vectors[held_out])
    return logits


def out_of_fold(vectors: Array, targets: Array, weights: Array, groups: list[str], strength: float) -> Array:
    """The probabilities of each row by a head that was fitted without the row's group; shape (rows, labels).

    With fewer than two groups, all probabilities are equal.
    """
    predicted: Array = softmax(logits_out_of_fold(vectors, targets, weights, folds_of(groups), strength), axis=1)
    return predicted


def neighbour_votes(vectors: Array, targets: Array, seed: int, queries: Array | None = None) -> Array:
    """The label distribution of each query by kernel-weighted votes of the vectors; shape (queries, labels).

    The kernel is exp(KERNEL_BETA * (cosine - 1)). Of more than MAX_VOTERS vectors, a random sample votes.

    Args:
        vectors: unit vectors, shape (rows, width).
        targets: shape (rows, labels); rows sum to 1.
        seed: of the random sample.
        queries: unit vectors, shape (queries, width). Without them the vectors are the queries, and none votes on
            itself.
    """
    queried = vectors if queries is None else queries
    voters = np.random.default_rng(seed).permutation(len(vectors))[:MAX_VOTERS]
    votes = np.empty((len(queried), targets.shape[1]), dtype=np.float32)
    for start in range(0, len(queried), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(queried)))
        kernel = np.exp(KERNEL_BETA * (queried[block] @ vectors[voters].T - 1))
        if queries is None:
            kernel[block[:, None] == voters[None, :]] = 0
        votes[block] = kernel @ targets[voters] + 1e-9
    result: Array = votes / votes.sum(1, keepdims=True)
    return result
