"""Waits for a job or batch at a provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_result, wait_exponential

FIRST_WAIT_S, MAX_WAIT_S = 0.5, 60.0
GROWTH = 1.5

T = TypeVar("T")


def poll(retrieve: Callable[[], T], ended: Callable[[T], bool], max_wait_s: float = MAX_WAIT_S) -> T:
    """Call `retrieve` with growing pauses until `ended` is true of its result, and return that result.

    The pauses grow by half each time, from FIRST_WAIT_S to `max_wait_s` seconds. Errors of `retrieve` are not caught.
    """
    wait = wait_exponential(multiplier=FIRST_WAIT_S, exp_base=GROWTH, max=max_wait_s)
    return Retrying(wait=wait, retry=retry_if_result(lambda result: not ended(result)))(retrieve)
