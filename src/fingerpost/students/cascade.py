"""The cascade: the student answers confident requests, the teacher answers the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fingerpost.core.errors import TeacherError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.types import Conversation, Prediction, Predictor, Usage


def asks_teacher(confidence: float, cutoff: float | None) -> bool:
    """Whether a student's calibrated confidence is below the cut-off. Without a cut-off it never is."""
    return cutoff is not None and confidence < cutoff


class Cascade(BasePredictor):
    """A student that forwards requests with low confidence to a teacher.

    `Prediction.by` names the model that answered. If the teacher fails or gives no label, the student's prediction is
    used. The server behaves the same way.

    Args:
        cutoff: requests with a lower confidence are forwarded; `math.inf` forwards all of them.
        name: the cascade's name in reports; default is the names of both models.
    """

    def __init__(self, student: Predictor, teacher: Predictor, cutoff: float, name: str | None = None) -> None:
        self.student, self.teacher, self.cutoff = student, teacher, cutoff
        self.name = name or f"{student.name}+teacher"
        self.labels, self.manifest = student.labels, student.manifest

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """One prediction for each conversation, in order. Cost and latency are the sums over both models that were called."""
        predictions = list(self.student.predict(conversations))
        unsure = [row for row, guess in enumerate(predictions) if asks_teacher(guess.confidence, self.cutoff)]
        try:
            answers = self.teacher.predict([conversations[row] for row in unsure]) if unsure else []
        except TeacherError:
            return predictions
        for row, answer in zip(unsure, answers, strict=True):
            usage = _total_usage(predictions[row].usage, answer.usage)
            if answer.label in self.labels:
                predictions[row] = replace(answer, by=self.teacher.name, usage=usage)
            else:
                predictions[row] = replace(predictions[row], usage=usage)
        return predictions

    def close(self) -> None:
        """Close both models."""
        self.student.close()
        self.teacher.close()


def _total_usage(student: Usage, teacher: Usage) -> Usage:
    """The teacher's usage with the cost and latency of both models; unknown where the teacher's is unknown."""

    def total(first: float | None, second: float | None) -> float | None:
        return None if second is None else (first or 0.0) + second

    return replace(
        teacher,
        cost_usd=total(student.cost_usd, teacher.cost_usd),
        latency_s=total(student.latency_s, teacher.latency_s),
    )
