"""Work that must go on for as long as the server does: what goes wrong once is told, and tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fingerpost.server.ops.logs import log

PAUSE_S = 1.0


async def forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work again and again. An error is logged with its trace, and the next try comes after a pause."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a full disk or a bug must not end it for good
            log("failed, trying again", logging.ERROR, error, work=name)
            await asyncio.sleep(PAUSE_S)
