"""Background work that runs as long as the server: errors are logged and the work is retried."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fingerpost.server.ops.logs import log_sometimes

RETRY_S = 1.0


async def run_forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Call `work` again and again. After an error, log it with its trace and wait RETRY_S seconds."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a full disk or a bug must not end the work for good
            log_sometimes("background work failed", logging.ERROR, error, work=name)
            await asyncio.sleep(RETRY_S)


async def run_periodically(name: str, seconds: float, work: Callable[[], None]) -> None:
    """Call the blocking `work` in a thread, and again `seconds` seconds after it has returned."""

    async def once() -> None:
        await asyncio.to_thread(work)
        await asyncio.sleep(seconds)

    await run_forever(name, once)
