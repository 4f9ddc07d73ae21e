"""Keeps what was asked: a thread writes whatever is waiting in one transaction, and only then it counts as kept."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

from fingerpost.store.served import Record, ServerStore

MOST_AT_ONCE = 500


class Journal:
    """Appends requests to the log, their texts passed through `redact` before.

    `on_lost` is told how many could not be kept, and why: they are answered all the same.
    """

    def __init__(
        self, store: ServerStore, redact: Callable[[str], str] | None, on_lost: Callable[[int, str], None]
    ) -> None:
        self._store, self._redact, self._on_lost = store, redact, on_lost
        self._queue: queue.SimpleQueue[tuple[Record, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    async def write(self, record: Record) -> None:
        """Returns when the request is kept, or cannot be."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((record, done))
        await done

    def close(self) -> None:
        """Write what is waiting, and end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        ends = False
        while not ends and (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < MOST_AT_ONCE and not self._queue.empty():
                each = self._queue.get()
                if each is None:
                    ends = True
                    break
                batch.append(each)
            try:
                self._store.log([self._redacted(record) for record, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must be let go
                self._loop.call_soon_threadsafe(self._on_lost, len(batch), str(getattr(error, "orig", error)))
            self._loop.call_soon_threadsafe(_resolve, [done for _, done in batch])

    def _redacted(self, record: Record) -> Record:
        if self._redact is None:
            return record
        messages = [[role, self._redact(text)] for role, text in record["messages"]]
        teacher = record["teacher"]
        if teacher is not None:
            teacher = {**teacher, "raw": self._redact(teacher["raw"])}
        return {**record, "messages": messages, "teacher": teacher}


def _resolve(ready: list[asyncio.Future[None]]) -> None:
    for done in ready:
        if not done.done():
            done.set_result(None)
