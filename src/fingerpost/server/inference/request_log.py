"""The request log: waiting entries are written in one transaction, and a request is answered after its entry is stored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from fingerpost.core.types import Message
from fingerpost.server.inference.batching import MicroBatcher, PartialResults
from fingerpost.server.ops.logs import log_sometimes
from fingerpost.server.ops.metrics import Metrics
from fingerpost.store.server import ServerStore
from fingerpost.store.server_rows import RequestLogEntry

MAX_BATCH = 500


class RequestLog:
    """Appends requests to the log.

    Entries that cannot be stored are counted in the metrics and logged; the requests are answered nevertheless.

    Args:
        redact: applied to all texts before they are stored.
    """

    def __init__(self, store: ServerStore, redact: Callable[[str], str] | None, metrics: Metrics) -> None:
        self._store, self._redact, self._metrics = store, redact, metrics
        self._batcher: MicroBatcher[RequestLogEntry, None] = MicroBatcher("request-log", self._write, MAX_BATCH)

    def start(self) -> None:
        """Start the writing thread, in the running event loop."""
        self._batcher.start()

    async def write(self, entry: RequestLogEntry) -> None:
        """Append an entry; returns when it is stored, or cannot be."""
        await self._batcher.put(entry)

    def close(self) -> None:
        """Write what is waiting and end the thread."""
        self._batcher.close()

    def _write(self, entries: Sequence[RequestLogEntry]) -> Iterator[PartialResults[None]]:
        try:
            self._store.add_log_entries([self._redacted(entry) for entry in entries])
        except Exception as error:  # noqa: BLE001 - neither a full disk nor a bug in `redact` may prevent the answer
            self._metrics.log_lost.inc(len(entries))
            log_sometimes("request log write failed", logging.ERROR, error, count=len(entries))
        yield [(index, None) for index in range(len(entries))]

    def _redacted(self, entry: RequestLogEntry) -> RequestLogEntry:
        if self._redact is None:
            return entry
        messages = tuple(Message(turn.role, self._redact(turn.content)) for turn in entry.messages)
        teacher = entry.teacher and replace(entry.teacher, raw=self._redact(entry.teacher.raw))
        return replace(entry, messages=messages, teacher=teacher)
