"""The student as a scikit-learn classifier of texts, for pipelines, cross-validation and grid search."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from fingerpost.students import load
from fingerpost.training.train import train_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.students.encoder.predict import EncoderStudent


class FingerpostClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies texts with a sentence-encoder student.

        cross_val_score(FingerpostClassifier(), texts, labels, cv=5)

    Args:
        encoder: a sentence encoder: folder or hub name; `auto` chooses by the language of the texts.
        epochs: epochs of fine-tuning; 0 for none. Default: 3, 2 on a processor, if a trial on some rows promises a gain.
        random_state: seed of the training.

    Attributes:
        classes_: the labels as they were given, sorted; shape (labels,).
        student_: the trained student; `student_.save(folder)` writes its model folder.
    """

    def __init__(self, encoder: str = "auto", epochs: int | None = None, random_state: int = 0) -> None:
        self.encoder, self.epochs, self.random_state = encoder, epochs, random_state

    def fit(self, X: Any, y: Any) -> FingerpostClassifier:
        """Train a student.

        Args:
            X: texts, shape (texts,).
            y: labels, shape (texts,); numbers are kept as numbers.

        Raises:
            MissingExtra: the extra `train` is not installed.
            InputError: the lengths differ, a text is empty, or there are fewer than two labels.
        """
        labels = np.asarray(y)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        names = [str(label) for label in self.classes_]
        options: dict[str, Any] = {"encoder": self.encoder, "epochs": self.epochs, "seed": self.random_state}
        self.student_: EncoderStudent = train_texts(X, [names[number] for number in numbers], **options)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The labels of texts, shape (texts,)."""
        rows = self.predict_proba(X)
        found: NDArray[Any] = self.classes_[rows.argmax(axis=1)]
        return found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (texts, labels), columns in the order of `classes_`."""
        check_is_fitted(self, "student_")
        rows = self.student_.predict_proba(list(X))
        order = [self.student_.labels.index(str(label)) for label in self.classes_]
        return rows[:, order]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        student = state.pop("student_", None)
        if student is not None:
            state["_files"] = {file.name: file.read_bytes() for file in student.folder.iterdir()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            folder = Path(tempfile.mkdtemp()) / "student"
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            self.student_ = cast("EncoderStudent", load(folder))
            self.student_.delete_folder_at_end()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags
