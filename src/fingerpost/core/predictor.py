"""The base class of all predictors, which derives probabilities and class names from `predict`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from fingerpost.core.conversations import TextOrMessages, conversations_of
from fingerpost.core.types import Conversation, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BasePredictor:
    """Base class of all predictors. A subclass sets the attributes and overrides `_predict`.

    A predictor is a context manager that closes itself.

    Attributes:
        name: the model's name in reports.
        labels: names of the labels that the model predicts.
        manifest: the model's description, a `fingerpost.students.folder.Manifest`.
    """

    name: str
    labels: list[str]
    manifest: Any

    @overload
    def predict(self, conversations: str) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, conversations: Iterable[TextOrMessages]) -> list[Prediction]: ...

    def predict(self, conversations: TextOrMessages | Iterable[TextOrMessages]) -> Prediction | list[Prediction]:
        """One prediction for a text or a conversation; a list, in order, for several of them.

        Args:
            conversations: a text, which is one user message; a conversation: a list of `Message` or of dictionaries with
                `role` and `content`, as OpenAI's; or a list, array, column or generator of texts and conversations.

        Raises:
            InputError: a value is no text and no conversation; it is named with its index.
        """
        given, single = conversations_of(conversations)
        answers = self._predict(given)
        return answers[0] if single else answers

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """One prediction for each conversation, in order."""
        raise NotImplementedError

    def predict_proba(self, conversations: TextOrMessages | Iterable[TextOrMessages]) -> NDArray[np.float64]:
        """Probabilities, shape (conversations, labels), columns in the order of `labels`; rows sum to 1.

        A single text has one row.

        Those of a multi-label model are independent of each other: rows do not sum to 1. Where it gives no scores, the labels
        of its answer have probability 1 and the others 0. If a model does not score all labels, its predicted label gets its confidence, and the other labels share the rest
        equally. Without a predicted label or a confidence, all labels have the same probability.
        """
        import numpy as np

        predictions = self._predict(conversations_of(conversations)[0])
        rows = np.full((len(predictions), len(self.labels)), 1 / len(self.labels))
        for row, prediction in zip(rows, predictions, strict=True):
            if len(prediction.scores) == len(self.labels):
                row[:] = [prediction.scores[label] for label in self.labels]
            elif prediction.multi:
                row[:] = [label in prediction.labels for label in self.labels]
            elif prediction.label in self.labels and prediction.confidence == prediction.confidence:
                row[:] = (1 - prediction.confidence) / max(1, len(self.labels) - 1)
                row[self.labels.index(prediction.label)] = prediction.confidence
        if any(prediction.multi for prediction in predictions):
            return rows
        result: NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
        return result

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The labels as an array of shape (labels,), under the name that scikit-learn uses."""
        import numpy as np

        return np.array(self.labels)

    def close(self) -> None:
        """Release resources such as connections. Repeated calls have no effect."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
