"""Training on several GPUs: one process for each, started by `accelerate launch`. Without it, there is one process.

Each process computes the gradients of its share of a step's replies; their sum is the same as that of one process. Only the first
process writes files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@cache
def _state() -> Any:
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def processes() -> int:
    """How many processes train together."""
    return int(_state().num_processes) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 1


def is_first() -> bool:
    """Whether this process writes the files and reports the progress."""
    return processes() == 1 or bool(_state().is_main_process)


def share_of(items: Sequence[T]) -> list[T]:
    """This process' share of the items of a step."""
    return list(items) if processes() == 1 else list(items[_state().process_index :: processes()])


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Replace tensors by their sums over all processes."""
    if processes() > 1:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def wait_for_all() -> None:
    """Return when all processes are here."""
    if processes() > 1:
        _state().wait_for_everyone()
