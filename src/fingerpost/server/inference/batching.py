"""Micro-batching: threads that process whatever is waiting as one batch."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
PartialResults: TypeAlias = "list[tuple[int, Result]]"
"""Results of a part of a batch, each with its item's index in the batch."""


class MicroBatcher(Generic[Item, Result]):
    """Passes queued items to `handle` in batches.

    Args:
        name: prefix of the thread names.
        handle: processes a batch and yields results part by part. An exception ends all items that have no result yet.
        max_batch: the most items of one batch.
        threads: number of threads that call `handle`.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[Sequence[Item]], Iterator[PartialResults[Result]]],
        max_batch: int,
        threads: int = 1,
    ) -> None:
        self._handle, self._max_batch = handle, max_batch
        self._queue: queue.SimpleQueue[tuple[Item, asyncio.Future[Result]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]

    def start(self) -> None:
        """Start the threads. Call it in the event loop that calls `put`."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Number of items that no thread has taken yet."""
        return self._queue.qsize()

    async def put(self, item: Item) -> Result:
        """The result for the item. Raises what `handle` raised."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put((item, future))
        return await future

    def close(self) -> None:
        """Process what is waiting and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        closing = False
        while not closing and (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < self._max_batch:
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    closing = True
                    break
                batch.append(entry)
            futures = [future for _, future in batch]
            try:
                for part in self._handle([item for item, _ in batch]):
                    self._loop.call_soon_threadsafe(_resolve, [(futures[index], result) for index, result in part])
            except Exception as error:  # noqa: BLE001 - it is raised again where the result is awaited
                self._loop.call_soon_threadsafe(_reject, futures, error)


def _resolve(results: list[tuple[asyncio.Future[Result], Result]]) -> None:
    for future, result in results:
        if not future.done():  # a client that disconnected has cancelled it
            future.set_result(result)


def _reject(futures: list[asyncio.Future[Result]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
