"""Consensus and selection on synthetic questions whose true labels are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fingerpost.consensus.evidence import Evidence, compute_features, consensus_of
from fingerpost.consensus.model import Array, fit_consensus, lda_whitening, pool_votes
from fingerpost.consensus.selection import select_rows

LABELS, EACH, WIDTH = 6, 40, 24
NONE = np.array([], dtype=np.int64)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """More threads only wait for each other on arrays this small."""
    with threadpool_limits(1):
        yield


def world(seed: int, spread: float = 0.6) -> tuple[Array, NDArray[np.int64]]:
    """Unit vectors around one centre per label, and the true labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(LABELS, WIDTH))
    gold = np.repeat(np.arange(LABELS), EACH)
    vectors = centres[gold] + spread * rng.normal(size=(len(gold), WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), gold


def one_hot(labels: NDArray[np.int64]) -> Array:
    found: Array = np.where((labels >= 0)[:, None], np.eye(LABELS, dtype=np.float32)[labels], 0).astype(np.float32)
    return found


def evidence(
    vectors: Array, teacher: NDArray[np.int64], gold: NDArray[np.int64], reviewed: NDArray[np.int64]
) -> Evidence:
    groups = [str(i) for i in range(len(vectors))]
    return Evidence(vectors, groups, [one_hot(teacher)], reviewed, one_hot(gold[reviewed]), NONE)


def review(vectors: Array, teacher: NDArray[np.int64], gold: NDArray[np.int64], rounds: int) -> NDArray[np.int64]:
    """The labels by consensus after `rounds` rounds of ten reviews from the queue."""
    reviewed = NONE
    features = compute_features(evidence(vectors, teacher, gold, reviewed))
    for number in range(rounds):
        now = consensus_of(evidence(vectors, teacher, gold, reviewed), features)
        unseen = np.setdiff1d(np.arange(len(gold)), reviewed)
        picks = select_rows(features.embeddings, now.error_probability, unseen, reviewed, 10, seed=number)
        reviewed = np.append(reviewed, [pick.row for pick in picks])
    answer: NDArray[np.int64] = consensus_of(evidence(vectors, teacher, gold, reviewed), features).probabilities.argmax(
        1
    )
    return answer


def teachers(gold: NDArray[np.int64], seed: int) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    noisy = gold.copy()
    wrong = rng.random(len(gold)) < 0.2
    noisy[wrong] = rng.integers(0, LABELS, wrong.sum())
    return {"perfect": gold, "uniform noise": noisy, "one label never used": np.where(gold == 3, 4, gold)}


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), rounds=st.integers(0, 3))
@pytest.mark.parametrize("kind", ["perfect", "uniform noise", "one label never used"])
def test_never_less_accurate_than_the_teacher(kind: str, seed: int, rounds: int) -> None:
    vectors, gold = world(seed)
    teacher = teachers(gold, seed)[kind]
    assert (review(vectors, teacher, gold, rounds) == gold).mean() >= (teacher == gold).mean()


def test_a_few_reviews_correct_a_systematic_confusion() -> None:
    vectors, gold = world(1)
    teacher = np.where(gold == 2, 5, gold)
    assert (teacher == gold).mean() == pytest.approx(5 / 6)
    assert (review(vectors, teacher, gold, 2) == gold).mean() > 0.97


def test_without_reviews_the_votes_stand_and_the_estimates_show_its_mistakes() -> None:
    vectors, gold = world(2)
    teacher = teachers(gold, 2)["uniform noise"]
    case = evidence(vectors, teacher, gold, NONE)
    found = consensus_of(case, compute_features(case))
    assert (found.probabilities.argmax(1) == teacher).all()
    trusted = found.estimates[np.arange(len(gold)), teacher]
    assert trusted[teacher != gold].mean() < trusted[teacher == gold].mean() / 2


def test_reviewed_rows_keep_their_human_labels() -> None:
    vectors, gold = world(3)
    reviewed = np.arange(0, 240, 8)
    case = evidence(vectors, gold, gold, reviewed)
    human_votes = case.human_votes.copy()
    human_votes[0] = 0
    human_votes[0, [1, 5]] = 0.5
    found = consensus_of(replace(case, human_votes=human_votes), compute_features(case))
    assert (found.probabilities[reviewed[1:]].argmax(1) == gold[reviewed[1:]]).all()
    assert found.probabilities[reviewed[0], [1, 5]].sum() == pytest.approx(1, abs=1e-3)
    assert found.probabilities.sum(1) == pytest.approx(np.ones(len(gold)), abs=1e-4)


def test_labels_without_reviews_stay_correct() -> None:
    vectors, gold = world(4)
    reviewed = np.flatnonzero(gold < 2)[::4]
    found = consensus_of(case := evidence(vectors, gold, gold, reviewed), compute_features(case))
    assert (found.probabilities.argmax(1) == gold).all()


def test_a_better_teacher_weighs_more() -> None:
    _, gold = world(5)
    rng = np.random.default_rng(5)
    good, bad = (np.where(rng.random(len(gold)) < share, gold, (gold + 1) % LABELS) for share in (0.95, 0.4))
    reviewed = np.arange(0, 240, 4)
    votes = pool_votes([one_hot(bad), one_hot(good), one_hot(bad)], reviewed, one_hot(gold[reviewed]))
    assert (votes.argmax(1) == good).mean() > 0.95
    assert votes.sum(1) == pytest.approx(np.ones(len(gold)), abs=1e-5)
    silent = pool_votes([one_hot(np.full(240, -1)), one_hot(np.full(240, -1))], NONE, one_hot(gold[NONE]))
    assert not silent.any()


def test_whitening_brings_questions_of_a_label_together() -> None:
    vectors, gold = world(6, spread=1.2)
    scales = np.linspace(0.1, 8, WIDTH).astype(np.float32)
    stretched = vectors * scales
    stretched /= np.linalg.norm(stretched, axis=1, keepdims=True)

    def contrast(space: Array) -> float:
        similar = space @ space.T
        same = gold[:, None] == gold[None, :]
        return float((similar[same].mean() - similar[~same].mean()) / similar.std())

    assert contrast(lda_whitening(stretched, gold, LABELS)) > 1.1 * contrast(stretched)
    assert (lda_whitening(vectors, np.full(240, -1), LABELS) == vectors).all()


def test_the_selection_is_diverse_and_excludes_reviewed_rows() -> None:
    vectors, gold = world(7)
    error_probability = np.full(len(gold), 0.3, dtype=np.float32)
    picks = select_rows(vectors, error_probability, np.arange(240), NONE, LABELS)
    assert {int(gold[pick.row]) for pick in picks} == set(range(LABELS))
    assert sum(pick.represents for pick in picks) > 120
    open_rows = np.array([3, 50, 99])
    assert (
        sorted(pick.row for pick in select_rows(vectors, error_probability, open_rows, np.arange(2), 25))
        == open_rows.tolist()
    )
    assert select_rows(vectors, error_probability, NONE, open_rows, 25) == []


def test_doubtful_rows_are_selected() -> None:
    vectors, gold = world(8)
    error_probability = np.where(gold == 4, 0.6, 0.0).astype(np.float32)
    assert [int(gold[pick.row]) for pick in select_rows(vectors, error_probability, np.arange(240), NONE, 3)] == [
        4,
        4,
        4,
    ]


def test_all_reviews_count_where_the_model_is_fitted_to_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fingerpost.consensus.model.MAX_ANCHORS", 30)
    vectors, gold = world(9)
    case = evidence(vectors, np.where(gold == 2, 5, gold), gold, np.arange(0, 240, 2))
    features = compute_features(case)
    found = fit_consensus(features.embeddings, features.student, case.teacher_votes[0], case.reviewed, case.human_votes)
    assert len(found.anchors) == 30
    assert (found.probabilities[case.reviewed].argmax(1) == gold[case.reviewed]).all()
    assert (found.probabilities.argmax(1) == gold).mean() > 0.97


def test_duplicate_reviews_do_no_harm() -> None:
    vectors, gold = world(10)
    same = vectors[np.repeat(np.arange(0, 240, 12), 12)]
    labels = gold[np.repeat(np.arange(0, 240, 12), 12)]
    case = evidence(same, labels, labels, np.arange(200))
    assert (consensus_of(case, compute_features(case)).probabilities.argmax(1) == labels).all()
