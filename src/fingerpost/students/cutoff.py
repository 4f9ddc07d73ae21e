"""The confidence cut-off of a cascade: above it, the student's accuracy has a guaranteed lower bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

LEVEL = 0.95
"""Confidence level of the bound."""
STEP = 0.02
"""Fraction of all rows by which the next cut-off to test goes down."""
ALLOWED_ERRORS = 2
"""Errors that the strictest cut-off tested may have; fewer where there are not enough rows."""


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A cut-off that was chosen on dev rows.

    Attributes:
        value: the lowest confidence at which the student answers itself.
        n: dev rows at or above `value`.
        of: all dev rows.
        right: of the `n` rows, those that the student has right.
        at_least: lower bound of the student's accuracy at or above `value`, at a confidence level of 95 %.
    """

    value: float
    n: int
    of: int
    right: int
    at_least: float

    @property
    def coverage(self) -> float:
        """The fraction of rows that the student answers itself."""
        return self.n / self.of


def choose_cutoff(confidence: Sequence[float], right: Sequence[bool], target: float) -> Cutoff | None:
    """The lowest cut-off above which the student's accuracy is at least `target`, at a confidence level of 95 %.

    The bound is the exact one-sided one of Clopper and Pearson (1934). Cut-offs are tested in a fixed sequence, from
    the strictest that can pass downwards, and the first failure ends it. So the bound holds although several cut-offs
    are tested (Angelopoulos et al. 2021, "Learn then Test").

    Args:
        confidence: the student's confidence in each row.
        right: whether its answer to the row is right.
        target: the accuracy to guarantee, 0 to 1.

    Returns:
        None where these rows cannot show that any cut-off reaches the target.
    """
    order = np.argsort(-np.asarray(confidence, dtype=float), kind="stable")
    descending = np.asarray(confidence, dtype=float)[order]
    hits = np.cumsum(np.asarray(right, dtype=bool)[order])
    total = len(descending)
    feasible = [n for n in range(1, total + 1) if at_least(n, n) >= target]
    if not feasible:
        return None
    starts = (
        next((n for n in feasible if at_least(n - errors, n) >= target), None)
        for errors in range(ALLOWED_ERRORS, 0, -1)
    )
    best: Cutoff | None = None
    n = next((n for n in starts if n is not None), feasible[0])
    step = max(1, round(STEP * total))
    while n <= total:
        while n < total and descending[n] == descending[n - 1]:  # no cut-off can separate equal confidences
            n += 1
        bound = at_least(int(hits[n - 1]), n)
        if bound < target:
            break
        best = Cutoff(float(descending[n - 1]), n, total, int(hits[n - 1]), bound)
        if n == total:
            break
        n = min(n + step, total)
    return best


def rows_needed(target: float) -> int | None:
    """The fewest rows, all of them right, that can show this accuracy; None for an accuracy of 1."""
    return None if target >= 1 else math.ceil(math.log(1 - LEVEL) / math.log(target))


def at_least(right: int, n: int) -> float:
    """Lower end of the exact one-sided 95 % confidence interval of the proportion right / n (Clopper, Pearson 1934)."""
    return 0.0 if right <= 0 else float(betaincinv(right, n - right + 1, 1 - LEVEL))
