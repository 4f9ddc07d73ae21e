"""Synthetic gap and learning curve on artificial vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from generation_helpers import one_thread

from fingerpost.generation.quality import learning_curve, synthetic_gap


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def _cloud(centre: int, count: int, seed: int) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    vectors[:, centre] += 4
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_gap_is_none_between_equals_and_whole_between_strangers() -> None:
    labels = ["a", "b"] * 100
    same = synthetic_gap(_cloud(0, 200, 1), _cloud(0, 200, 2), labels, labels)
    far = synthetic_gap(_cloud(0, 200, 1), _cloud(5, 200, 2), labels, labels)
    assert same and far and same.value < 0.2 and same.p > 0.01 and far.value > 0.95 and far.p < 1e-6
    assert synthetic_gap(_cloud(0, 200, 1), _cloud(0, 10, 2), labels, labels[:10]) is None


def test_how_often_a_label_comes_is_no_gap() -> None:
    """Real questions are nearly all of one kind, synthetic ones of both: the texts of each are alike all the same."""
    real = np.concatenate([_cloud(0, 190, 1), _cloud(5, 60, 2)])
    synthetic = np.concatenate([_cloud(0, 100, 3), _cloud(5, 100, 4)])
    gap = synthetic_gap(real, synthetic, ["a"] * 190 + ["b"] * 60, ["a"] * 100 + ["b"] * 100)
    assert gap is not None and gap.value < 0.25 and gap.n == 160


def test_the_learning_curve_rises_only_where_there_is_more_to_learn() -> None:
    easy = learning_curve(np.concatenate([_cloud(0, 100, 1), _cloud(5, 100, 2)]), ["a"] * 100 + ["b"] * 100)
    draw = np.random.default_rng(0)
    hard_vectors = draw.normal(size=(60, 16)).astype(np.float32)
    hard = learning_curve(hard_vectors, ["a" if row[0] + row[1] + row[2] > 0 else "b" for row in hard_vectors])
    assert easy and hard and easy.full > 0.95 and abs(easy.gain) < 0.02
    assert hard.full < easy.full
    assert learning_curve(hard_vectors[:10], ["a"] * 10) is None
