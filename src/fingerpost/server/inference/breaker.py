"""A circuit breaker: a teacher that fails again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FAILURES = 5

OPEN_S, MOST_OPEN_S = 5.0, 60.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that the breaker has admitted; `probe`: the one that finds out whether the teacher is well again."""

    probe: bool = False


class Breaker:
    """After FAILURES failures in a row it opens: nothing is tried for a while, then a single attempt, the probe.

    That closes it, or opens it for twice as long, up to MOST_OPEN_S (Nygard 2007, "Release It!"). What requests come to
    that were admitted before it opened changes nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._wait = OPEN_S
        self._until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        if self._until is None:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._until else "open"

    def admit(self) -> Attempt | None:
        """An attempt, to be ended with `succeeded`, `failed` or `abandoned`; None while nothing may be tried."""
        if self._until is None:
            return Attempt()
        if self._probing or self._clock() < self._until:
            return None
        self._probing = True
        return Attempt(probe=True)

    def succeeded(self, attempt: Attempt) -> None:
        """The teacher has answered."""
        if attempt.probe or self._until is None:
            self._failures, self._wait, self._until, self._probing = 0, OPEN_S, None, False

    def failed(self, attempt: Attempt) -> None:
        """The teacher is ill."""
        if attempt.probe:
            self._wait = min(MOST_OPEN_S, 2 * self._wait)
            self._until, self._probing = self._clock() + self._wait, False
        elif self._until is None:
            self._failures += 1
            if self._failures >= FAILURES:
                self._until = self._clock() + self._wait

    def abandoned(self, attempt: Attempt) -> None:
        """It came to nothing that says how the teacher is."""
        if attempt.probe:
            self._probing = False
