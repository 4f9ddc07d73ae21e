"""Small helpers: chunks of a stream, a lock between processes, checks of extras and addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from fingerpost.core.errors import InputError, MissingExtra

T = TypeVar("T")


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


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


def require_training(what: str) -> None:
    """Raises MissingExtra where what the extra `train` installs is not there."""
    for module in (
        "torch",
        "transformers",
        "sklearn",
        "scipy",
        "statsmodels",
        "onnx",
        "onnxscript",
        "altair",
    ):
        if find_spec(module) is None:
            raise MissingExtra("train", what)


def is_loopback(url: str | None) -> bool:
    """Whether the URL is one of this machine."""
    host = urlsplit(url or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
