"""Student predictions in worker threads, in micro-batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from fingerpost.core.types import Conversation, Prediction, Predictor
from fingerpost.core.utils import chunks
from fingerpost.server.inference.batching import MicroBatcher, PartialResults
from fingerpost.server.schemas import ApiError

MAX_BATCH = 32  # conversations that a thread takes from the queue at once
GROUP = 8  # of these, how many are predicted together: similar lengths need little padding

PredictionRequest: TypeAlias = tuple[Predictor, Conversation]


class Engine:
    """Predicts in `threads` threads. Refuses requests when more than `max_waiting` conversations would wait."""

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._batcher: MicroBatcher[PredictionRequest, Prediction] = MicroBatcher(
            "student", _predict, MAX_BATCH, threads
        )

    def start(self) -> None:
        """Start the threads, in the running event loop."""
        self._batcher.start()

    @property
    def waiting(self) -> int:
        """Number of conversations that no thread has taken yet."""
        return self._batcher.waiting

    def require_room(self, count: int) -> None:
        """Check that `count` more conversations may wait.

        Raises:
            ApiError: 503, too many are waiting.
        """
        if self.waiting + count > self._max_waiting:
            raise ApiError(503, "the server is overloaded; try again shortly", code="overloaded", retry_after_s=1)

    async def predict(self, student: Predictor, messages: Conversation) -> Prediction:
        """The student's prediction.

        Raises:
            ApiError: 503, too many conversations are waiting.
        """
        self.require_room(1)
        return await self._batcher.put((student, messages))

    def close(self) -> None:
        """Predict what is waiting and end the threads."""
        self._batcher.close()


def _predict(requests: Sequence[PredictionRequest]) -> Iterator[PartialResults[Prediction]]:
    by_student: dict[int, list[int]] = defaultdict(list)
    for index, (student, _) in enumerate(requests):
        by_student[id(student)].append(index)
    for indices in by_student.values():
        indices.sort(key=lambda index: len(requests[index][1][-1].content))
        for group in chunks(indices, GROUP):
            student = requests[group[0]][0]
            yield list(zip(group, student.predict([requests[index][1] for index in group]), strict=True))
