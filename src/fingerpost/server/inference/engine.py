"""Where students predict, in threads beside the one that serves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from fingerpost.core.types import Conversation, Prediction, Predictor
from fingerpost.core.utils import chunks
from fingerpost.server.inference.batching import Collector, Done
from fingerpost.server.schemas import WireError

MOST_AT_ONCE = 32  # are taken from the queue, and predicted
GROUP = 8  # at a time, of similar length: little padding

Asked: TypeAlias = tuple[Predictor, Conversation]


class Engine:
    """Predicts in `threads` threads. At most `most_waiting` conversations wait; more are refused."""

    def __init__(self, threads: int, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._collector: Collector[Asked, Prediction] = Collector("student", _predict, MOST_AT_ONCE, threads)

    @property
    def waiting(self) -> int:
        """Conversations that no thread has taken yet."""
        return self._collector.waiting

    def require_room(self, count: int) -> None:
        """Raises WireError, 503, where so many more would be too many."""
        if self.waiting + count > self._most_waiting:
            raise WireError(503, "the server is overloaded; try again shortly", code="overloaded", retry_after_s=1)

    async def predict(self, student: Predictor, messages: Conversation) -> Prediction:
        """The student's prediction.

        Raises:
            WireError: 503, too many are waiting.
        """
        self.require_room(1)
        return await self._collector.put((student, messages))

    def close(self) -> None:
        """End the threads; what is waiting is predicted first."""
        self._collector.close()


def _predict(asked: Sequence[Asked]) -> Iterator[Done[Prediction]]:
    places: dict[int, list[int]] = defaultdict(list)
    for place, (student, _) in enumerate(asked):
        places[id(student)].append(place)
    for mine in places.values():
        mine.sort(key=lambda place: len(asked[place][1][-1].content))
        for group in chunks(mine, GROUP):
            found = asked[group[0]][0].predict([asked[place][1] for place in group])
            yield list(zip(group, found, strict=True))
