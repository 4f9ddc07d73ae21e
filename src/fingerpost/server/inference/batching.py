"""Threads that take whatever is waiting as one batch, so that load makes them efficient."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Done: TypeAlias = "list[tuple[int, Result]]"
"""Results by the place of their item in the batch."""


class Collector(Generic[Item, Result]):
    """Hands what was put in to `handle`, up to `most` items at once, in `threads` threads.

    `handle` gives results as they come, a part of the batch at a time. What it raises ends the items that have none yet.
    """

    def __init__(
        self, name: str, handle: Callable[[Sequence[Item]], Iterator[Done[Result]]], most: int, threads: int = 1
    ) -> None:
        self._handle, self._most = handle, most
        self._queue: queue.SimpleQueue[tuple[Item, asyncio.Future[Result]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items that no thread has taken yet."""
        return self._queue.qsize()

    async def put(self, item: Item) -> Result:
        """The item's result, or what was raised."""
        done: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put((item, done))
        return await done

    def close(self) -> None:
        """End the threads; what is waiting is handled first."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        ends = False
        while not ends and (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < self._most:
                try:
                    each = self._queue.get_nowait()
                except queue.Empty:
                    break
                if each is None:
                    ends = True
                    break
                batch.append(each)
            futures = [done for _, done in batch]
            try:
                for part in self._handle([item for item, _ in batch]):
                    self._loop.call_soon_threadsafe(_settle, [(futures[place], result) for place, result in part])
            except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
                self._loop.call_soon_threadsafe(_fail, futures, error)


def _settle(found: list[tuple[asyncio.Future[Result], Result]]) -> None:
    for done, result in found:
        if not done.done():  # else whoever waited has gone
            done.set_result(result)


def _fail(futures: list[asyncio.Future[Result]], error: Exception) -> None:
    for done in futures:
        if not done.done():
            done.set_exception(error)
