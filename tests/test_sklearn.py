"""FingerpostClassifier as scikit-learn expects its estimators.

`check_estimator` stops after its first check for estimators of texts, because its other checks pass two-dimensional
arrays of numbers. Those that need no data are called here by name; the most important of the others run on texts.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from fingerpost.sklearn import FingerpostClassifier

X = np.array([text for texts in TEXTS.values() for text in texts], dtype=object)
Y = np.array([label for label, texts in TEXTS.items() for _ in texts])

DATA_FREE = [
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_parameters_default_constructible",
    "check_mixin_order",
]


@pytest.fixture(scope="module")
def fitted(tiny_encoder: Path) -> FingerpostClassifier:
    return FingerpostClassifier(str(tiny_encoder), epochs=0).fit(X, Y)


def test_check_estimator() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it cannot pass texts
        results = estimator_checks.check_estimator(FingerpostClassifier(), on_fail=None)
    assert results and {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize("name", DATA_FREE)
def test_checks_that_need_no_data(name: str) -> None:
    getattr(estimator_checks, name)("FingerpostClassifier", FingerpostClassifier(epochs=0))


def test_fit_returns_the_estimator_and_sets_classes(fitted: FingerpostClassifier) -> None:
    assert list(fitted.classes_) == sorted(TEXTS)
    assert fitted.predict(X).shape == Y.shape and fitted.score(X, Y) >= 0.8


def test_fitting_again_gives_the_same(fitted: FingerpostClassifier) -> None:
    again = clone(fitted).fit(X, Y)
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_rows_do_not_depend_on_each_other(fitted: FingerpostClassifier) -> None:
    order = np.random.default_rng(0).permutation(len(X))
    whole = fitted.predict_proba(X)
    assert np.allclose(fitted.predict_proba(X[order]), whole[order], atol=1e-6)
    assert np.allclose(
        np.concatenate([fitted.predict_proba(X[i : i + 7]) for i in range(0, len(X), 7)]), whole, atol=1e-6
    )


def test_numbers_as_labels_stay_numbers(tiny_encoder: Path) -> None:
    numbers = np.array([10 * list(TEXTS).index(label) for label in Y])
    model = FingerpostClassifier(str(tiny_encoder), epochs=0).fit(list(X), numbers)
    assert model.classes_.tolist() == [0, 10, 20] and model.predict(list(X)).dtype == numbers.dtype


def test_a_pickled_classifier_answers_the_same(fitted: FingerpostClassifier) -> None:
    again: Any = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(X[:5]), fitted.predict_proba(X[:5]))


def test_without_fit_it_says_so() -> None:
    with pytest.raises(NotFittedError):
        FingerpostClassifier().predict(["x"])


def test_in_a_pipeline_and_in_cross_validation(tiny_encoder: Path) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    scores = cross_val_score(make_pipeline(lower, FingerpostClassifier(str(tiny_encoder), epochs=0)), X, Y, cv=2)
    assert scores.shape == (2,) and scores.min() > 0
