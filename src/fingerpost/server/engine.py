"""Where students predict: a few threads that take whatever is waiting as one batch, so that load makes it efficient."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fingerpost.chunks import chunks
from fingerpost.server.wire import WireError
from fingerpost.types import Conversation, Prediction, Predictor

MOST_AT_ONCE = 32  # are taken from the queue, and predicted
GROUP = 8  # at a time, of similar length: little padding


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    student: Predictor
    messages: Conversation
    done: asyncio.Future[Prediction]


class Engine:
    """Predicts in `threads` threads. At most `most_waiting` conversations wait; more are refused."""

    def __init__(self, threads: int, most_waiting: int) -> None:
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._most_waiting = most_waiting
        self._loop = asyncio.get_running_loop()
        self._threads = [threading.Thread(target=self._work, name=f"student-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Conversations that no thread has taken yet."""
        return self._queue.qsize()

    def require_room(self, count: int) -> None:
        """Raises WireError, 503, where so many more would be too many."""
        if self._queue.qsize() + count > self._most_waiting:
            raise WireError(503, "the server is overloaded; try again shortly", code="overloaded", retry_after_s=1)

    async def predict(self, student: Predictor, messages: Conversation) -> Prediction:
        """The student's prediction.

        Raises:
            WireError: 503, too many are waiting.
        """
        self.require_room(1)
        done: asyncio.Future[Prediction] = self._loop.create_future()
        self._queue.put(_Waiting(student, messages, done))
        return await done

    def close(self) -> None:
        """End the threads; what is waiting is predicted first."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, ends = [first], False
            while len(batch) < MOST_AT_ONCE and not ends:
                try:
                    each = self._queue.get_nowait()
                except queue.Empty:
                    break
                if each is None:
                    ends = True
                else:
                    batch.append(each)
            self._predict(batch)
            if ends:
                return

    def _predict(self, batch: list[_Waiting]) -> None:
        by_student: dict[int, list[_Waiting]] = defaultdict(list)
        for each in batch:
            by_student[id(each.student)].append(each)
        for waiting in by_student.values():
            waiting.sort(key=lambda each: len(each.messages[-1].content))
            for group in chunks(waiting, GROUP):
                ready: list[tuple[asyncio.Future[Prediction], Callable[[Any], None], Any]]
                try:
                    found = group[0].student.predict([each.messages for each in group])
                    ready = [(each.done, each.done.set_result, one) for each, one in zip(group, found, strict=True)]
                except Exception as error:  # noqa: BLE001 - it is raised where the prediction is awaited
                    ready = [(each.done, each.done.set_exception, error) for each in group]
                self._loop.call_soon_threadsafe(_resolve, ready)


def _resolve(ready: list[tuple[asyncio.Future[Prediction], Callable[[Any], None], Any]]) -> None:
    for done, settle, value in ready:
        if not done.done():  # else whoever waited has gone
            settle(value)
