"""Watches how often a student disagrees with its teacher, with bounds that hold however often they are looked at.

The evidence against "the disagreement is at most the limit" is an e-process: its expected value is at most 1 as long as that is
true, so that it ever reaches 20 with a probability of at most 5 % (Ville 1939). It is a bet on each checked answer, mixed over all
higher rates of disagreement (Robbins 1970) and over the time at which a change may have begun (Shin, Ramdas and Rinaldo 2024,
"E-detectors").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaln

LEVEL = 0.95
"""Confidence level of the alarm and of the interval."""
BLOCK = 12
"""Checked answers between two times at which a change may have begun."""
MOST_STARTS = 400
GOOD, BAD = 0.6, 1.5
"""The rates of disagreement between which a probation decides, as multiples of the limit."""
PASSED = -math.log(10)
"""The logarithm of the likelihood ratio of BAD to GOOD at which a probation ends well."""
LEAST_SHARE, MOST_SHARE, FIRST = 0.01, 0.03, 500
"""The share of a student's answers that are checked: the second of these at first, the first one after some FIRST / LEAST_SHARE."""
PRIOR = (0.5, 1.0)
"""The beta distribution over rates of disagreement that the bets are mixed with."""


@dataclass(slots=True)
class DriftMonitor:
    """Collects checked answers of a student, and tells when it disagrees with its teacher more often than is allowed.

    Attributes:
        limit: the disagreement that is allowed, from 0 to 1.
        outcomes: whether student and teacher disagreed, for each checked answer, oldest first.
        probation: the teacher answers all requests, so that the student can be compared with it on each, without harm. So
            it begins, and so it goes on after each disagreement, until a sequential probability ratio test (Wald 1945) finds
            the student good enough.
        score: the logarithm of that test's likelihood ratio.
        alarm: the disagreement was above the limit, at a confidence level of 95 %. An alarm stays.
    """

    limit: float
    outcomes: list[bool] = field(default_factory=list)
    probation: bool = True
    score: float = 0.0
    alarm: bool = False

    def add(self, disagrees: bool) -> None:
        """Count a checked answer: one that was drawn at random, or any during a probation."""
        self.outcomes.append(disagrees)
        if disagrees and not self.alarm:  # only a disagreement adds evidence
            self.alarm = self.evidence >= 1 / (1 - LEVEL)
        good, bad = GOOD * self.limit, BAD * self.limit
        self.score += math.log(bad / good) if disagrees else math.log((1 - bad) / (1 - good))
        if self.probation and self.score <= PASSED:
            self.probation, self.score = False, 0.0
        elif not self.probation:
            self.probation, self.score = disagrees, max(0.0, self.score)

    def share_to_check(self, answered: int) -> float:
        """The share of requests, of those that the student is sure of, to put to the teacher as well.

        Args:
            answered: how many the student has answered so far.
        """
        return 1.0 if self.probation else min(MOST_SHARE, max(LEAST_SHARE, FIRST / max(1, answered)))

    @property
    def evidence(self) -> float:
        """The e-value against "the disagreement is at most the limit"."""
        if not self.outcomes:
            return 1.0
        numbers, values = self._by_start()
        weights = 1 / (numbers * (numbers + 1))  # they sum to 1 over all starts; those still to come are worth 1 each
        return float((weights * np.exp(np.minimum(values, 700.0))).sum() + 1 / (numbers[-1] + 1))

    def _by_start(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers of the possible times of a change, from 1, and the logarithm of the bet since each of them.

        The first and the most recent MOST_STARTS; to leave out the others only takes evidence away.
        """
        total = np.concatenate(([0], np.cumsum(np.asarray(self.outcomes, dtype=np.int64))))
        numbers = np.arange(1, (len(self.outcomes) - 1) // BLOCK + 2)
        numbers = np.concatenate((numbers[:1], numbers[1:][-MOST_STARTS:]))
        starts = BLOCK * (numbers - 1)
        n = len(self.outcomes) - starts
        wrong = total[-1] - total[starts]
        a, b = PRIOR
        tail = 1 - betainc(a + wrong, b + n - wrong, self.limit)
        prior = 1 - betainc(a, b, self.limit)
        with np.errstate(divide="ignore"):
            mixed = np.log(tail) + betaln(a + wrong, b + n - wrong) - np.log(prior) - betaln(a, b)
        return numbers, np.asarray(mixed - wrong * math.log(self.limit) - (n - wrong) * math.log1p(-self.limit))


def confidence_sequence(n: int, successes: int, level: float = LEVEL) -> tuple[float, float]:
    """An interval for a proportion that holds at all times at once: what a beta mixture of bets does not reject.

    Source: Robbins (1970); Waudby-Smith and Ramdas (2024).

    Args:
        n: trials so far.
        successes: of them, those that count.
        level: the probability that the interval always covers the proportion.
    """
    if n == 0:
        return 0.0, 1.0
    a, b = 0.5, 0.5
    mixed = float(betaln(a + successes, b + n - successes) - betaln(a, b))

    def evidence(rate: float) -> float:
        """The logarithm of the e-value against this rate, less the threshold."""
        likelihood = successes * math.log(rate) + (n - successes) * math.log1p(-rate)
        return mixed - likelihood + math.log(1 - level)

    peak = min(max(successes / n, 1e-9), 1 - 1e-9)
    low = 0.0 if successes == 0 or evidence(1e-12) < 0 else float(brentq(evidence, 1e-12, peak))
    high = 1.0 if successes == n or evidence(1 - 1e-12) < 0 else float(brentq(evidence, peak, 1 - 1e-12))
    return low, high
