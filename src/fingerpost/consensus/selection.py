"""Selects the questions to review next: those that represent many others and whose label is likely wrong.

Pure functions of arrays. Greedy facility location (Wei, Iyer and Bilmes 2015) spreads the selection over the embedding
space. A candidate's gain is multiplied by the probability that its label is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fingerpost.consensus.model import Array, Rows

KERNEL_BETA = 6.0  # of the kernel exp(beta (cosine - 1)): how well one question represents another
BASE_ERROR = 0.05  # added to every error probability, so that confident rows are explored too
SAMPLE_ROWS = 4_000  # most rows that stand for all, and most candidates
REPRESENTED = 0.2  # kernel above which a question represents another


@dataclass(frozen=True, slots=True)
class Selection:
    """A row to review.

    Attributes:
        row: its number.
        represents: about how many rows it represents, itself included.
        error_probability: estimated probability that its label is wrong.
    """

    row: int
    represents: int
    error_probability: float


def select_rows(
    embeddings: Array, error_probability: Array, open_rows: Rows, reviewed: Rows, count: int, *, seed: int = 0
) -> list[Selection]:
    """The next `count` rows to review, best first; fewer where fewer are open.

    Args:
        embeddings: (rows, width), unit vectors.
        error_probability: (rows,), from the consensus.
        open_rows: numbers of the rows that may be selected.
        reviewed: numbers of the rows that are reviewed; what they represent gains nothing.
        seed: of the sample. With different seeds, two reviewers at the same time get different questions.
    """
    if not len(open_rows):
        return []
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(embeddings))[:SAMPLE_ROWS]
    candidate_count = min(SAMPLE_ROWS, max(4 * count, len(open_rows) // 2))
    candidates = rng.permutation(open_rows)[:candidate_count]
    covered = _coverage(embeddings, sample, reviewed)
    kernel = np.exp(KERNEL_BETA * (embeddings[candidates] @ embeddings[sample].T - 1))
    weights = BASE_ERROR + error_probability[candidates]
    free = np.ones(len(candidates), dtype=bool)
    gains = np.full(len(candidates), np.inf, dtype=np.float32)
    scale = len(embeddings) / len(sample)
    selected: list[Selection] = []
    while len(selected) < min(count, len(candidates)):
        best = _best_candidate(kernel, covered, weights, gains, free)
        row = int(candidates[best])
        represents = ((kernel[best] > covered) & (kernel[best] > REPRESENTED)).sum()
        selected.append(Selection(row, max(1, round(float(represents) * scale)), float(error_probability[row])))
        free[best] = False
        covered = np.maximum(covered, kernel[best])
    return selected


def _best_candidate(kernel: Array, covered: Array, weights: Array, gains: Array, free: np.ndarray) -> int:
    """The free candidate with the largest gain, by lazy evaluation: gains only shrink (Minoux 1978)."""
    if np.isinf(gains).all():
        gains[:] = np.maximum(kernel - covered, 0).sum(1) * weights
    current = np.zeros(len(gains), dtype=bool)
    while True:
        best = int(np.where(free, gains, -1.0).argmax())
        if current[best]:
            return best
        gains[best] = np.maximum(kernel[best] - covered, 0).sum() * weights[best]
        current[best] = True


def _coverage(embeddings: Array, sample: Rows, reviewed: Rows) -> Array:
    """How well the nearest reviewed row represents each row of the sample; shape (sample,)."""
    covered = np.zeros(len(sample), dtype=np.float32)
    for start in range(0, len(reviewed), SAMPLE_ROWS):
        similarity = embeddings[sample] @ embeddings[reviewed[start : start + SAMPLE_ROWS]].T
        covered = np.maximum(covered, np.exp(KERNEL_BETA * (similarity - 1)).max(1))
    return covered
