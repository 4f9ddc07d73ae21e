"""The baseline of every report: TF-IDF features with a linear support vector machine, from scikit-learn as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from fingerpost.core.types import Example
from fingerpost.evaluation.estimators import EstimatorPredictor
from fingerpost.evaluation.evaluate import Candidate

BASELINE = "TF-IDF + linear SVM"


def baseline_candidate(examples: Sequence[Example]) -> Candidate | None:
    """The baseline trained on these examples, each with its most probable label; None with fewer than two labels.

    Of a conversation it sees the last message.
    """
    labels = [example.label for example in examples]
    if len(set(labels)) < 2:
        return None
    texts = [example.messages[-1].content for example in examples]
    try:
        return Candidate("baseline", EstimatorPredictor(fit_baseline(texts, labels), BASELINE))
    except ValueError:  # the texts hold no words
        return None


def fit_baseline(texts: Sequence[str], labels: Sequence[str]) -> Any:
    """Fit the baseline: one and two words, two to five characters within words, otherwise scikit-learn's defaults.

    Args:
        texts, labels: of the same length, with at least two labels.

    Returns:
        A fitted scikit-learn pipeline of texts.
    """
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    return make_pipeline(features, LinearSVC(random_state=0)).fit(list(texts), list(labels))
