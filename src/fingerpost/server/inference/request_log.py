"""Keeps what was asked: whatever is waiting is written in one transaction, and only then it counts as kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fingerpost.server.inference.batching import Collector, Done
from fingerpost.store.server import Record, ServerStore

MOST_AT_ONCE = 500


class Journal:
    """Appends requests to the log, their texts passed through `redact` before.

    `on_lost` is told how many could not be kept, and why: they are answered all the same.
    """

    def __init__(
        self, store: ServerStore, redact: Callable[[str], str] | None, on_lost: Callable[[int, Exception], None]
    ) -> None:
        self._store, self._redact, self._on_lost = store, redact, on_lost
        self._collector: Collector[Record, None] = Collector("journal", self._write, MOST_AT_ONCE)

    async def write(self, record: Record) -> None:
        """Returns when the request is kept, or cannot be."""
        await self._collector.put(record)

    def close(self) -> None:
        """Write what is waiting, and end."""
        self._collector.close()

    def _write(self, records: Sequence[Record]) -> Iterator[Done[None]]:
        try:
            self._store.log([self._redacted(record) for record in records])
        except Exception as error:  # noqa: BLE001 - a full disk, a redactor's mistake: told, and no reason not to answer
            self._on_lost(len(records), error)
        yield [(place, None) for place in range(len(records))]

    def _redacted(self, record: Record) -> Record:
        if self._redact is None:
            return record
        messages = [[role, self._redact(text)] for role, text in record["messages"]]
        teacher = record["teacher"]
        if teacher is not None:
            teacher = {**teacher, "raw": self._redact(teacher["raw"])}
        return {**record, "messages": messages, "teacher": teacher}
