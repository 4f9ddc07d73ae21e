"""Limits of connections: how many there may be, and how long one may take to send a request's header."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from fingerpost.server.ops.logs import log

HEADER_S = 10.0
"""Seconds in which a client has to send the header of a request. Idle connections are closed earlier."""
RESERVED_FILES = 200
"""File handles that are kept for models, the database and uploads."""
MOST_CONNECTIONS = 20_000


def most_connections() -> int:
    """How many connections there may be at once: by the limit of file handles, which is raised as far as possible."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard or hard == resource.RLIM_INFINITY:
        wanted = MOST_CONNECTIONS + RESERVED_FILES if hard == resource.RLIM_INFINITY else hard
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            log("the limit of file handles cannot be raised", logging.WARNING, limit=soft)
    return max(16, min(MOST_CONNECTIONS, soft - RESERVED_FILES))


class LimitedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, for at most `most` connections, half of them from one client."""

    most = MOST_CONNECTIONS
    _by_client: ClassVar[Counter[str]] = Counter()
    _refused = False
    _last_cycle: Any = None

    def connection_made(self, transport: Any) -> None:
        """Refuse a connection too many, and watch the others."""
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        counts = LimitedProtocol._by_client
        self._refused = counts.total() >= self.most or counts[self._client] >= max(1, self.most // 2)
        if self._refused:
            log("connection refused: too many are open", logging.WARNING, client=self._client, open=counts.total())
            transport.abort()
            return
        counts[self._client] += 1
        super().connection_made(transport)
        self._watch = asyncio.get_running_loop().call_later(HEADER_S, self._close_without_header)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection as closed."""
        if self._refused:
            return
        counts = LimitedProtocol._by_client
        counts[self._client] -= 1
        if not counts[self._client]:
            del counts[self._client]
        self._watch.cancel()
        super().connection_lost(exc)

    def _close_without_header(self) -> None:
        """Close the connection if no request has begun since the last time, and none is being answered."""
        cycle = self.cycle
        if cycle is self._last_cycle and (cycle is None or cycle.response_complete):
            self.transport.close()
            return
        self._last_cycle = cycle
        self._watch = asyncio.get_running_loop().call_later(HEADER_S, self._close_without_header)
