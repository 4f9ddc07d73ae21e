"""The lexical view: n-grams, the linear model on them, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from fingerpost.core.errors import ModelError
from fingerpost.students import lexical
from fingerpost.students.lexical import (
    LexicalView,
    LinearScores,
    Ngrams,
    character_ngrams,
    familiarity_of,
    fit_scores,
    held_out_familiarity,
    scores_out_of_fold,
    word_ngrams,
)

TEXTS = ["where is my parcel", "where is my invoice", "my parcel is late", "the invoice is wrong", "WHERE is it?"]


def test_ngrams_are_those_of_scikit_learn() -> None:
    text = "where is my parcel"
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)).build_analyzer()
    assert sorted(character_ngrams(text)) == sorted(characters(text))
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").build_analyzer()
    assert sorted(word_ngrams(text)) == sorted(words(text))


def test_features_are_those_of_scikit_learn_where_all_words_are_known() -> None:
    texts = [text.lower() for text in TEXTS[:4]] * 2
    ours = Ngrams.fit(texts)
    reference = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+").fit(texts)
    expected = reference.transform(texts).toarray()
    found = ours.matrix(texts).toarray()[:, : len(ours.words)]
    assert ours.words == sorted(reference.vocabulary_)
    assert found == pytest.approx(expected, abs=1e-6)


def test_an_unfamiliar_text_has_small_features() -> None:
    ngrams = Ngrams.fit(TEXTS * 2)
    known, mixed, unknown = ngrams.matrix(["my parcel", "my parcel zzz qqq xxx vvv", "zzz qqq"]).toarray()
    assert np.linalg.norm(known) > np.linalg.norm(mixed) > 0
    assert not unknown.any()


def fitted() -> tuple[LexicalView, np.ndarray]:
    texts = [f"{word} {number % 4}" for number in range(40) for word in ("parcel", "invoice", "weather")]
    targets = np.eye(4, dtype=np.float32)[[0, 1, 2] * 40]  # the last label has no rows
    ngrams = Ngrams.fit(texts)
    model = fit_scores(ngrams.matrix(texts), targets, np.ones(120, dtype=np.float32))
    return LexicalView(ngrams, model), targets


def test_labels_are_learnt_and_a_label_without_rows_never_wins() -> None:
    view, _ = fitted()
    scores = view.scores(["a parcel", "an invoice", "weather", "", "something else"])
    assert scores[:3].argmax(1).tolist() == [0, 1, 2]
    assert (scores.argmax(1) != 3).all()
    assert np.isfinite(scores).all()


def test_two_labels_have_opposite_scores() -> None:
    ngrams = Ngrams.fit(["yes please", "no thanks"] * 5)
    targets = np.eye(2, dtype=np.float32)[[0, 1] * 5]
    view = LexicalView(ngrams, fit_scores(ngrams.matrix(["yes please", "no thanks"] * 5), targets, np.ones(10)))
    scores = view.scores(["yes", "no"])
    assert scores.argmax(1).tolist() == [0, 1] and scores[:, 0] == pytest.approx(-scores[:, 1])


def test_the_file_holds_the_same_view(tmp_path: Path) -> None:
    view, _ = fitted()
    view.save(tmp_path / "lexical.npz")
    read = LexicalView.load(tmp_path / "lexical.npz")
    texts = ["where is the parcel 3", "日本語の天気", "", "weather\nweather"]
    assert read.scores(texts) == pytest.approx(view.scores(texts), abs=0.02)  # weights are stored in 8 bits
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match="train the model again"):
        LexicalView.load(tmp_path / "broken.npz")


def test_scores_out_of_fold_do_not_see_the_rows_own_label() -> None:
    texts = [f"{word} {number}" for number in range(10) for word in ("parcel", "invoice")]
    matrix = Ngrams.fit(texts).matrix(texts)
    targets = np.eye(2, dtype=np.float32)[[0, 1] * 10]
    folds = [(np.arange(4, 20), np.arange(4)), (np.arange(16), np.arange(16, 20))]
    before = scores_out_of_fold(matrix, targets, np.ones(20, dtype=np.float32), folds)
    changed = targets.copy()
    changed[:4] = changed[:4, ::-1]
    after = scores_out_of_fold(matrix, changed, np.ones(20, dtype=np.float32), folds)
    assert np.array_equal(before[:4], after[:4]) and not np.array_equal(before[16:], after[16:])


def test_scores_are_sums_of_weights() -> None:
    ngrams = Ngrams(["parcel"], [], np.ones(1, dtype=np.float32), 1.0)
    view = LexicalView(
        ngrams, LinearScores(np.array([[2.0, -2.0]], dtype=np.float32), np.array([0.5, 0.0], dtype=np.float32))
    )
    assert view.scores(["parcel"]).tolist() == [[2.5, -2.0]]


def test_familiarity_without_the_texts_own_ngrams() -> None:
    texts = [f"{word} once" for word in ("amber", "birch", "cedar", "delta")] + ["amber again", "amber again"]
    ngrams = Ngrams.fit(texts)
    matrix = ngrams.matrix(texts)
    seen, held_out = familiarity_of(matrix), held_out_familiarity(matrix)
    assert (held_out <= seen + 1e-6).all() and held_out[4] < seen[4]
    assert held_out[0] > held_out[1]  # `amber` occurs in two other texts, `birch` in none


def test_remembered_words_change_nothing_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "MAX_WORDS_SEEN", 3)
    texts = ["amber birch cedar", "birch cedar delta", "amber " + "x" * 100, "delta delta amber"]
    ngrams = Ngrams.fit(texts)
    first = [ngrams.features(text) for text in texts]
    assert [ngrams.features(text) for text in texts] == first
    assert len(ngrams._words_seen) <= 3 and not any(len(word) > 32 for word in ngrams._words_seen)
