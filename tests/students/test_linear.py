"""The linear head and the votes of neighbours."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fingerpost.students.linear import Head, Projection, fit_head, neighbour_votes, out_of_fold


def one_hot(labels: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[labels]


def test_soft_labels_and_weights_are_learnt_from() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    targets = np.array([[1, 0], [0, 1], [0.2, 0.8], [0.2, 0.8]], dtype=np.float32)
    even = fit_head(vectors, targets, np.ones(4, dtype=np.float32), 1e4).probabilities(vectors)
    assert even[0, 0] == pytest.approx(0.5, abs=0.02) and even[2, 1] == pytest.approx(0.8, abs=0.02)
    heavy = fit_head(vectors, targets, np.array([9, 1, 1, 1], dtype=np.float32), 1e4).probabilities(vectors)
    assert heavy[0, 0] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("strength", [0.1, 3.0])
def test_hard_labels_give_scikit_learns_logistic_regression(strength: float) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(200, 8)).astype(np.float32)
    labels = (vectors @ draw.normal(size=(8, 3))).argmax(1)
    reference = LogisticRegression(C=strength, max_iter=1000).fit(vectors, labels)
    head = fit_head(vectors, one_hot(labels, 3), np.ones(200, dtype=np.float32), strength)
    assert head.weights.dtype == head.bias.dtype == np.float32
    assert np.allclose(head.probabilities(vectors), reference.predict_proba(vectors), atol=2e-3)


def test_repeated_fits_are_identical() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(300, 16)).astype(np.float32)
    targets = draw.dirichlet(np.ones(5), 300).astype(np.float32)
    one, two = (fit_head(vectors, targets, np.ones(300, dtype=np.float32), 10.0) for _ in range(2))
    assert np.array_equal(one.weights, two.weights) and np.array_equal(one.bias, two.bias)


def test_large_logits_stay_finite() -> None:
    vectors = 1e3 * np.eye(2, dtype=np.float32)
    head = fit_head(vectors, np.eye(2, dtype=np.float32), np.ones(2, dtype=np.float32), 1e6)
    found = head.probabilities(1e3 * vectors)
    assert np.isfinite(found).all()
    assert found.argmax(1).tolist() == [0, 1]


def test_held_out_probabilities_do_not_see_the_rows_own_group() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(40, 4)).astype(np.float32)
    labels = np.arange(40) % 2
    groups = [f"g{i // 4}" for i in range(40)]
    before = out_of_fold(vectors, one_hot(labels, 2), np.ones(40, dtype=np.float32), groups, 3.0)
    changed = labels.copy()
    changed[:4] = 1 - changed[:4]  # the labels of the first group
    after = out_of_fold(vectors, one_hot(changed, 2), np.ones(40, dtype=np.float32), groups, 3.0)
    assert np.array_equal(before[:4], after[:4])
    assert not np.array_equal(before, after)


def test_one_group_gives_equal_probabilities() -> None:
    vectors = np.eye(4, dtype=np.float32)
    found = out_of_fold(vectors, one_hot(np.arange(4), 4), np.ones(4, dtype=np.float32), ["g"] * 4, 3.0)
    assert (found == 0.25).all()


def test_vectors_do_not_vote_on_themselves() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    targets = np.eye(3, dtype=np.float32)
    votes = neighbour_votes(vectors, targets, seed=0)
    assert votes.argmax(1)[:2].tolist() == [1, 0]
    assert np.allclose(votes.sum(1), 1)
    assert neighbour_votes(vectors, targets, 0, vectors[2:])[0].argmax() == 2


def test_torch_is_not_loaded() -> None:
    code = "import sys, fingerpost.students.linear, fingerpost.students.denoise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=3600).returncode == 0


@pytest.mark.parametrize(("parts", "common"), [(1, 0.0), (1, 3.0), (3, 0.5)])
def test_a_folded_head_gives_the_logits_of_the_projected_vectors(parts: int, common: float) -> None:
    rng = np.random.default_rng(0)
    halves = [rng.normal(size=(80, 12)) + common * number for number in range(1, parts + 1)]
    units = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in halves]
    vectors = (np.hstack(units) / parts**0.5).astype(np.float32)
    projection = Projection.of(vectors, parts)
    projected = projection.apply(vectors)
    assert projected.shape == (80, 12)
    if common:
        assert np.allclose(projected.mean(0), 0, atol=1e-5) and np.isclose((projected**2).sum(1).mean(), 1, atol=0.5)
    head = Head(rng.normal(size=(12, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32))
    assert np.allclose(projection.fold(head).logits(vectors), head.logits(projected), atol=1e-3)
