"""The baseline of every report: TF-IDF features with a linear support vector machine, from scikit-learn as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

from fingerpost.core.label_sets import join_labels, split_labels
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
    multi = any(example.multi for example in examples)
    try:
        return Candidate("baseline", EstimatorPredictor(fit_baseline(texts, labels, multi), BASELINE, multi))
    except ValueError:  # the texts hold no words
        return None


def fit_baseline(texts: Sequence[str], labels: Sequence[str], multi: bool = False) -> Any:
    """Fit the baseline: one and two words, two to five characters within words, otherwise scikit-learn's defaults.

    Args:
        texts, labels: of the same length, with at least two labels.
        multi: `labels` are sets of labels (`core.label_sets`); one classifier is fitted for each label.

    Returns:
        A fitted scikit-learn pipeline of texts. With `multi`, it predicts sets.
    """
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    if not multi:
        return make_pipeline(features, LinearSVC(random_state=0)).fit(list(texts), list(labels))
    binarizer = MultiLabelBinarizer()
    columns = binarizer.fit_transform([split_labels(label) for label in labels])
    fitted = make_pipeline(features, OneVsRestClassifier(LinearSVC(random_state=0))).fit(list(texts), columns)
    return _SetClassifier(fitted, binarizer)


class _SetClassifier:
    """A fitted one-vs-rest classifier whose answers are sets of labels."""

    def __init__(self, fitted: Any, binarizer: MultiLabelBinarizer) -> None:
        self._fitted, self._binarizer, self.classes_ = fitted, binarizer, binarizer.classes_

    def predict(self, texts: Sequence[str]) -> list[str]:
        return [join_labels(labels) for labels in self._binarizer.inverse_transform(self._fitted.predict(texts))]
