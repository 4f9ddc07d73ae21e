"""The cut-off: its bound is exact, and holds at the stated confidence level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from fingerpost.students.cutoff import at_least, choose_cutoff


@pytest.mark.parametrize(("right", "n"), [(1, 1), (9, 10), (50, 50), (290, 300), (3, 17)])
def test_the_bound_is_clopper_and_pearsons(right: int, n: int) -> None:
    """If the accuracy equals the bound, 5 % of samples have at least this many right answers."""
    assert binom.sf(right - 1, n, at_least(right, n)) == pytest.approx(0.05, abs=1e-9)


def test_without_right_answers_the_bound_is_zero() -> None:
    assert at_least(0, 10) == 0


def test_a_perfect_student_answers_all() -> None:
    found = choose_cutoff(list(np.linspace(0.3, 0.99, 400)), [True] * 400, 0.98)
    assert found is not None
    assert (found.coverage, found.value) == (1.0, pytest.approx(0.3))
    assert found.at_least == pytest.approx(at_least(400, 400))


def test_too_few_rows_give_no_cutoff() -> None:
    assert choose_cutoff([0.9] * 100, [True] * 100, 0.98) is None
    assert choose_cutoff([], [], 0.9) is None
    found = choose_cutoff(list(np.linspace(0.5, 0.9, 149)), [True] * 149, 0.98)
    assert found is not None
    assert found.coverage == 1


def test_rows_of_equal_confidence_stay_together() -> None:
    found = choose_cutoff([0.9] * 100 + [0.5] * 100, [True] * 100 + [False] * 100, 0.9)
    assert found is not None
    assert (found.n, found.value) == (100, 0.9)


def test_the_bound_holds_in_95_percent_of_samples() -> None:
    """The true accuracy above the chosen cut-off is below the target in at most 5 % of random samples."""
    rng = np.random.default_rng(0)
    target, violated, chosen, draws = 0.9, 0, 0, 200
    grid = np.linspace(0, 1, 20_001)
    truth = 0.5 + 0.5 * grid**0.5  # accuracy at each confidence
    above = np.cumsum(truth[::-1])[::-1] / np.arange(len(grid), 0, -1)
    for _ in range(draws):
        confidence = rng.random(300)
        right = rng.random(300) < 0.5 + 0.5 * confidence**0.5
        found = choose_cutoff(confidence, right, target)
        if found is not None:
            chosen += 1
            violated += above[np.searchsorted(grid, found.value)] < target
    assert chosen > draws / 2
    assert violated <= 0.05 * draws + 2 * np.sqrt(draws * 0.05 * 0.95)
