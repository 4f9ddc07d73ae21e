"""The linear head on frozen embeddings, and the vote of neighbours: two views of what a label should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

Array = NDArray[np.float32]
FOLDS = 5
BETA = 20.0
ANCHORS = 20_000
BLOCK = 1_024


@dataclass(frozen=True, slots=True)
class Head:
    """weights (width, labels) and bias (labels,) of a softmax regression."""

    weights: Array
    bias: Array

    def logits(self, vectors: Array) -> Array:
        """Shape (rows, labels)."""
        return vectors @ self.weights + self.bias

    def probabilities(self, vectors: Array) -> Array:
        """Shape (rows, labels), rows sum to 1."""
        return torch.softmax(torch.from_numpy(self.logits(vectors)), dim=1).numpy()


def fit_head(vectors: Array, targets: Array, weights: Array, strength: float) -> Head:
    """Softmax regression on soft targets, by L-BFGS.

    Minimises strength * sum of weighted cross-entropies + half the squared weights: `strength` is
    scikit-learn's C, which takes hard labels only.

    Args:
        vectors: (rows, width); targets: (rows, labels), rows sum to 1; weights: (rows,).
    """
    x, y, w = (torch.from_numpy(np.ascontiguousarray(each, dtype=np.float32)) for each in (vectors, targets, weights))
    matrix = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = torch.zeros(y.shape[1], requires_grad=True)
    total = w.sum()
    optimiser = torch.optim.LBFGS(
        [matrix, bias], max_iter=100, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        entropy = -(y * torch.log_softmax(x @ matrix + bias, dim=1)).sum(1)
        loss = (w * entropy).sum() / total + (matrix**2).sum() / (2 * strength * total)
        loss.backward()
        return loss

    optimiser.step(closure)
    return Head(matrix.detach().numpy(), bias.detach().numpy())


def out_of_fold(vectors: Array, targets: Array, weights: Array, groups: list[str], strength: float) -> Array:
    """Each row's probabilities by a head that has not seen the row's group; shape (rows, labels)."""
    folds = min(FOLDS, len(set(groups)))
    predicted = np.full_like(targets, 1 / targets.shape[1])
    if folds < 2:
        return predicted
    for train, held_out in GroupKFold(folds).split(vectors, groups=groups):
        head = fit_head(vectors[train], targets[train], weights[train], strength)
        predicted[held_out] = head.probabilities(vectors[held_out])
    return predicted


def neighbour_votes(vectors: Array, targets: Array, seed: int, queries: Array | None = None) -> Array:
    """The label distribution of each query by its neighbours among the vectors; shape (queries, labels).

    Without queries, of each of the vectors itself, which then does not vote on itself. A kernel vote,
    exp(BETA (cosine - 1)); of more than ANCHORS rows a random part votes.
    """
    asked = vectors if queries is None else queries
    anchors = np.random.default_rng(seed).permutation(len(vectors))[:ANCHORS]
    votes = np.empty((len(asked), targets.shape[1]), dtype=np.float32)
    for start in range(0, len(asked), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(asked)))
        kernel = np.exp(BETA * (asked[block] @ vectors[anchors].T - 1))
        if queries is None:
            kernel[block[:, None] == anchors[None, :]] = 0
        votes[block] = kernel @ targets[anchors] + 1e-9
    result: Array = votes / votes.sum(1, keepdims=True)
    return result
