"""The wall clock, which may jump: nothing is deleted or ended because of its time until it has been steady for a while."""

from __future__ import annotations

import logging
import time

from fingerpost.server.ops.logs import log

JUMP_S, HOLD_S, START_S = 60.0, 3600.0, 600.0
"""A difference from the monotonic clock that is a jump; for how long the wall clock is not trusted after one; and after the
start, in which a wrong clock is often set right."""


class WallClock:
    """Compares the wall clock with the monotonic one. Ask it regularly."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._not_before = time.monotonic() + START_S

    @property
    def is_steady(self) -> bool:
        """Whether the wall clock has not jumped for HOLD_S seconds, and for START_S seconds after the start."""
        offset, now = time.time() - time.monotonic(), time.monotonic()
        if abs(offset - self._offset) > JUMP_S:
            jump = round(offset - self._offset)
            log("the clock jumped: nothing expires for an hour", logging.WARNING, seconds=jump)
            self._not_before = now + HOLD_S
        self._offset = offset
        return now >= self._not_before
