from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score

from fingerpost.evaluation import metrics


def flags(right: int, wrong: int) -> np.ndarray:
    return np.array([True] * right + [False] * wrong)


def test_wilsons_interval_by_its_formula() -> None:
    found = metrics.proportion(flags(81, 19))
    z, p, n = 1.959964, 0.81, 100
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((0.81, centre - half, centre + half), abs=1e-4)


def test_the_published_error_reduction() -> None:
    base, tuned = flags(52, 48), flags(78, 22)
    found = metrics.error_reduction(base, tuned)
    assert found is not None and found.value == pytest.approx(26 / 48)  # 52 % to 78 % is 54 %
    assert found.low < found.value < found.high
    worse = metrics.error_reduction(tuned, base)
    assert worse is not None and worse.value < 0
    assert metrics.error_reduction(flags(5, 0), flags(3, 2)) is None


def test_mcnemar_against_the_binomial() -> None:
    from scipy.stats import binomtest

    a = np.array([True] * 30 + [True] * 9 + [False] * 2 + [False] * 5)
    b = np.array([True] * 30 + [False] * 9 + [True] * 2 + [False] * 5)
    only_a, only_b, p = metrics.exact_mcnemar(a, b)
    assert (only_a, only_b) == (9, 2)
    assert p == pytest.approx(binomtest(2, 11).pvalue)
    assert metrics.exact_mcnemar(a, a) == (0, 0, 1.0)


def test_holm() -> None:
    assert metrics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert metrics.holm([]) == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=60))
def test_macro_f1_is_scikit_learns(rows: list[tuple[int, int]]) -> None:
    gold, answers = (np.array(column) for column in zip(*rows, strict=True))
    matrix = metrics.confusion(gold, answers, 5)
    assert matrix.sum() == len(rows) and matrix.shape == (5, 6)
    found = metrics.macro_f1(matrix)
    expected = f1_score(gold, answers, labels=np.unique(gold), average="macro", zero_division=0)
    assert found.value == pytest.approx(expected)
    assert 0 <= found.low <= found.high <= 1


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 80), st.integers(0, 2**31))
def test_calibration_and_coverage(n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    confidence, right = draw.random(n), draw.random(n) < 0.5
    error = metrics.calibration_error(confidence, right)
    assert 0 <= error.value <= 1 and 0 <= error.low <= error.high <= 1
    bins = metrics.reliability(confidence, right)
    assert sum(part.n for part in bins) == n
    by_bins = sum(part.n * abs(part.confidence - part.accuracy) for part in bins) / n
    assert error.value == pytest.approx(by_bins)
    points = metrics.coverage(confidence, right)
    assert points[-1].n == n and points[-1].accuracy.value == pytest.approx(right.mean())
    assert [point.n for point in points] == sorted({point.n for point in points})
    for point in points:
        assert point.n == (confidence >= point.cutoff).sum()


def test_a_perfectly_calibrated_model_has_little_error() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.random(20_000)
    right = draw.random(20_000) < confidence
    assert metrics.calibration_error(confidence, right).value < 0.02
    assert metrics.calibration_error(np.ones(100), flags(50, 50)).value == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=8, max_size=40))
def test_kappa_and_mean_error_as_scikit_learn_computes_them(pairs: list[tuple[int, int]]) -> None:
    gold, answers = np.array(pairs).T
    matrix = metrics.confusion(gold, answers, 4)
    error = metrics.mean_absolute_error(matrix)
    assert error.value == pytest.approx(np.abs(gold - answers).mean()) and error.low <= error.value <= error.high
    if len({*gold.tolist(), *answers.tolist()}) > 1:
        expected = cohen_kappa_score(gold, answers, labels=range(4), weights="quadratic")
        assert metrics.quadratic_kappa(matrix).value == pytest.approx(expected)


def test_no_answer_is_as_far_off_as_possible() -> None:
    gold, answers = np.array([0, 1, 2, 2]), np.array([0, 1, 2, -1])
    matrix = metrics.confusion(gold, answers, 3)
    assert metrics.mean_absolute_error(matrix).value == pytest.approx(2 / 4)
    assert metrics.quadratic_kappa(matrix).value < 1


def test_a_proxy_helps_as_much_as_it_tells() -> None:
    random = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(200):
        right = random.random(2_050) < 0.8
        agrees = np.where(random.random(2_050) < 0.9, right, ~right)
        found = metrics.prediction_powered(agrees[50:], agrees[:50], right[:50])
        covered += found.low <= 0.8 <= found.high
        widths.append(found.high - found.low)
    alone = metrics.proportion(np.arange(50) < 40)
    assert covered >= 180 and np.mean(widths) < 0.95 * (alone.high - alone.low)
    for n, accuracy in (
        (20, 0.95),
        (50, 0.97),
        (100, 0.97),
    ):  # the proxy differs so rarely that a sample shows nothing of it
        covered = 0
        for _ in range(200):
            upstream_right = random.random(n + 1_000) < accuracy
            agrees = random.random(n + 1_000) < 0.85
            judged = np.where(upstream_right, agrees, ~agrees)
            found = metrics.prediction_powered(agrees[n:], agrees[:n], judged[:n])
            covered += found.low <= accuracy * 0.85 + (1 - accuracy) * 0.15 <= found.high
        assert covered >= 184
    noise = metrics.prediction_powered(random.random(2_000) < 0.5, random.random(50) < 0.5, flags(40, 10))
    assert abs(noise.value - 0.8) < 0.1
    perfect = metrics.prediction_powered(flags(100, 0), flags(30, 0), flags(30, 0))
    assert perfect.value == 1 and perfect.low < 0.99
    assert metrics.prediction_powered(flags(0, 0), flags(10, 0), flags(5, 5)).value == 0.5
