"""What every predictor offers beyond `predict`: probabilities as an array, class names, an end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fingerpost.core.types import Message, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BasePredictor:
    """Base of all predictors. A subclass sets the attributes and overrides `predict`; use it in a `with` to close it.

    Attributes:
        name: what reports call the model.
        labels: the names of the labels it chooses from.
        manifest: the model's own description, a `fingerpost.students.folder.Manifest`.
    """

    name: str
    labels: list[str]
    manifest: Any

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        """One prediction for each conversation, in order. A plain string is one user message."""
        raise NotImplementedError

    def predict_proba(self, conversations: Sequence[str | Sequence[Message]]) -> NDArray[np.float64]:
        """Probabilities, shape (conversations, labels), columns in the order of `labels`; rows sum to 1.

        Where a model gives no score for every label, its own label gets its confidence and the others share the rest
        evenly; without a label or a confidence, all labels are equally likely.
        """
        import numpy as np

        predictions = self.predict(conversations)
        rows = np.full((len(predictions), len(self.labels)), 1 / len(self.labels))
        for row, prediction in zip(rows, predictions, strict=True):
            if len(prediction.scores) == len(self.labels):
                row[:] = [prediction.scores[label] for label in self.labels]
            elif prediction.label in self.labels and prediction.confidence == prediction.confidence:
                row[:] = (1 - prediction.confidence) / max(1, len(self.labels) - 1)
                row[self.labels.index(prediction.label)] = prediction.confidence
        result: NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
        return result

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The labels as an array, as scikit-learn names them."""
        import numpy as np

        return np.array(self.labels)

    def close(self) -> None:
        """Release what the predictor holds, such as connections. Calling it again does nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
