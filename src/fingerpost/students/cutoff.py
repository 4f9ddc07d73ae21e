"""The cut-off of a cascade: from which confidence on a student answers itself, with a bound that holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

LEVEL = 0.95
STEP = 0.02
SPARE = 2  # mistakes that the first test allows; fewer where there are not rows enough


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Of `of` dev rows, `n` are at or above `value`, and the student has `right` of these right.

    With a confidence of 95 %, its accuracy there is at least `at_least`.
    """

    value: float
    n: int
    of: int
    right: int
    at_least: float

    @property
    def coverage(self) -> float:
        """The share of rows that the student answers itself."""
        return self.n / self.of


def choose_cutoff(confidence: Sequence[float], right: Sequence[bool], target: float) -> Cutoff | None:
    """The lowest cut-off above which the student is right at least `target` of the time, with a confidence of 95 %.

    None where these rows do not show that for any. The bound is Clopper and Pearson's (1934), exact and one-sided. As
    many cut-offs are looked at, they are tested in a fixed sequence, from the strictest that could pass down, and the
    first that fails ends it (Angelopoulos et al. 2021, "Learn then Test"): so the bound holds for the one chosen.
    """
    order = np.argsort(-np.asarray(confidence, dtype=float), kind="stable")
    sure = np.asarray(confidence, dtype=float)[order]
    hits = np.cumsum(np.asarray(right, dtype=bool)[order])
    total = len(sure)
    feasible = [n for n in range(1, total + 1) if at_least(n, n) >= target]
    if not feasible:
        return None
    starts = (next((n for n in feasible if at_least(n - spare, n) >= target), None) for spare in range(SPARE, 0, -1))
    best: Cutoff | None = None
    n = next((n for n in starts if n is not None), feasible[0])
    step = max(1, round(STEP * total))
    while n <= total:
        while n < total and sure[n] == sure[n - 1]:  # equal confidences go together
            n += 1
        bound = at_least(int(hits[n - 1]), n)
        if bound < target:
            break
        best = Cutoff(float(sure[n - 1]), n, total, int(hits[n - 1]), bound)
        if n == total:
            break
        n = min(n + step, total)
    return best


def at_least(right: int, n: int) -> float:
    """The lower end of the exact one-sided 95 % confidence interval of a share (Clopper and Pearson 1934)."""
    return 0.0 if right <= 0 else float(beta.ppf(1 - LEVEL, right, n - right + 1))
