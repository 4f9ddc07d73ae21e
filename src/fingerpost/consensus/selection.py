"""Which questions to ask a person next: those that speak for many others, and that are likely answered wrong.

Pure functions of arrays, and of no screen. Greedy facility location (Wei, Iyer and Bilmes 2015) spreads the choice over
the space; each candidate's gain is multiplied by the chance that its label is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fingerpost.consensus.model import Array, Rows

REACH = 6.0  # of the kernel exp(beta (cosine - 1)): how far a question speaks for others
CURIOSITY = 0.05  # the chance of an error that is reckoned with even where consensus is sure
SAMPLE = 4_000  # questions that stand for all, and candidates
NEAR = 0.2  # kernel above which a question speaks for another


@dataclass(frozen=True, slots=True)
class Pick:
    """A row to be reviewed; about how many questions it speaks for; the chance that its label is wrong."""

    row: int
    speaks_for: int
    doubt: float


def choose(space: Array, doubt: Array, open_rows: Rows, reviewed: Rows, count: int, *, seed: int = 0) -> list[Pick]:
    """The next `count` of the rows that are open to review, best first.

    Args:
        space: (rows, width) unit vectors; doubt: (rows,), the consensus' chance of being wrong.
        open_rows: rows that may be asked; reviewed: rows that have been.
    """
    if not len(open_rows):
        return []
    rng = np.random.default_rng(seed)
    demand = rng.permutation(len(space))[:SAMPLE]
    drawn = min(SAMPLE, max(4 * count, len(open_rows) // 2))  # a draw: two people at once are asked different ones
    candidates = rng.permutation(open_rows)[:drawn]
    covered = _covered(space, demand, reviewed)
    kernel = np.exp(REACH * (space[candidates] @ space[demand].T - 1))
    worth = CURIOSITY + doubt[candidates]
    free = np.ones(len(candidates), dtype=bool)
    gains = np.full(len(candidates), np.inf, dtype=np.float32)
    scale = len(space) / len(demand)
    picks: list[Pick] = []
    while len(picks) < min(count, len(candidates)):
        best = _greediest(kernel, covered, worth, gains, free)
        speaks_for = ((kernel[best] > covered) & (kernel[best] > NEAR)).sum()
        picks.append(
            Pick(int(candidates[best]), max(1, round(float(speaks_for) * scale)), float(doubt[candidates[best]]))
        )
        free[best] = False
        covered = np.maximum(covered, kernel[best])
    return picks


def _greediest(kernel: Array, covered: Array, worth: Array, gains: Array, free: np.ndarray) -> int:
    """The free candidate of the greatest gain. Gains only shrink, so most need no second look (Minoux 1978)."""
    if np.isinf(gains).all():
        gains[:] = np.maximum(kernel - covered, 0).sum(1) * worth
    fresh = np.zeros(len(gains), dtype=bool)
    while True:
        best = int(np.where(free, gains, -1.0).argmax())
        if fresh[best]:
            return best
        gains[best] = np.maximum(kernel[best] - covered, 0).sum() * worth[best]
        fresh[best] = True


def _covered(space: Array, demand: Rows, reviewed: Rows) -> Array:
    """How well the nearest reviewed question speaks for each of the demand; shape (demand,)."""
    covered = np.zeros(len(demand), dtype=np.float32)
    for start in range(0, len(reviewed), SAMPLE):
        part = space[demand] @ space[reviewed[start : start + SAMPLE]].T
        covered = np.maximum(covered, np.exp(REACH * (part - 1)).max(1))
    return covered
