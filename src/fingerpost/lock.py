"""A lock between processes: the system frees it when its holder ends, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fingerpost.errors import InputError


@contextmanager
def locked(file: Path, taken: str) -> Iterator[None]:
    """Hold the lock on a file, which is made.

    Raises:
        InputError: another process holds it; `taken` is the message.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with file.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(taken) from None
        yield
