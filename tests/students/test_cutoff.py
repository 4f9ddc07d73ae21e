"""The cut-off: its bound is exact, and holds as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from fingerpost.students.cutoff import at_least, choose_cutoff


@pytest.mark.parametrize(("right", "n"), [(1, 1), (9, 10), (50, 50), (290, 300), (3, 17)])
def test_the_bound_is_clopper_and_pearsons(right: int, n: int) -> None:
    """With an accuracy of just the bound, so many right ones or more come in 5 % of samples."""
    assert binom.sf(right - 1, n, at_least(right, n)) == pytest.approx(0.05, abs=1e-9)


def test_no_right_ones_bound_nothing() -> None:
    assert at_least(0, 10) == 0


def test_a_perfect_student_answers_all() -> None:
    found = choose_cutoff(list(np.linspace(0.3, 0.99, 400)), [True] * 400, 0.98)
    assert found is not None
    assert (found.coverage, found.value) == (1.0, pytest.approx(0.3))
    assert found.at_least == pytest.approx(at_least(400, 400))


def test_too_few_rows_to_show_it() -> None:
    assert choose_cutoff([0.9] * 100, [True] * 100, 0.98) is None
    assert choose_cutoff([], [], 0.9) is None
    found = choose_cutoff(list(np.linspace(0.5, 0.9, 149)), [True] * 149, 0.98)
    assert found is not None
    assert found.coverage == 1


def test_rows_of_equal_confidence_stay_together() -> None:
    found = choose_cutoff([0.9] * 100 + [0.5] * 100, [True] * 100 + [False] * 100, 0.9)
    assert found is not None
    assert (found.n, found.value) == (100, 0.9)


def test_the_promise_is_kept_in_19_of_20_draws() -> None:
    """Where accuracy grows with confidence, above the chosen cut-off it is below the target in at most 5 % of draws."""
    rng = np.random.default_rng(0)
    target, broken, chosen, draws = 0.9, 0, 0, 600
    grid = np.linspace(0, 1, 20_001)
    truth = 0.5 + 0.5 * grid**0.5  # how right the student is at each confidence
    above = np.cumsum(truth[::-1])[::-1] / np.arange(len(grid), 0, -1)
    for _ in range(draws):
        confidence = rng.random(300)
        right = rng.random(300) < 0.5 + 0.5 * confidence**0.5
        found = choose_cutoff(confidence, right, target)
        if found is not None:
            chosen += 1
            broken += above[np.searchsorted(grid, found.value)] < target
    assert chosen > draws / 2
    assert broken <= 0.05 * draws + 2 * np.sqrt(draws * 0.05 * 0.95)
