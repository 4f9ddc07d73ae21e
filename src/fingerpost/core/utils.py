"""Small helpers: batches of a stream, a lock between processes, checks of extras and URLs."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from fingerpost.core.errors import InputError, MissingExtra

T = TypeVar("T")
PARENT_ENDED = 75
"""Exit code of a child whose parent has ended."""
EXTRAS = {
    "parquet": ("polars",),
    "project": ("alembic", "genai_prices", "httpx2", "json_repair", "openai", "rensa", "sqlalchemy", "tomlkit"),
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "cachetools", "scipy", "sqlalchemy"),
    "lora": ("accelerate", "gguf", "llguidance", "peft", "safetensors", "torch", "transformers", "scipy", "sqlalchemy"),
    "ui": ("itsdangerous", "jinja2", "starlette", "uvicorn", "torch", "sklearn"),
    "train": ("sqlalchemy", "torch", "transformers", "sklearn", "scipy", "statsmodels", "onnx", "onnxscript", "altair"),
}
"""By extra, modules that it installs and that are imported where they are needed."""
MAX_COUNT = 10_000_000
"""The most tokens of one call that are believed: more than any model reads."""


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last one may be shorter."""
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


@contextmanager
def locked(file: Path, taken: str) -> Iterator[None]:
    """Hold an exclusive lock between processes, on a file that is created where needed.

    Args:
        file: the lock file. It may stay behind; only the lock on it counts.
        taken: the message of the error.

    Raises:
        InputError: another process holds the lock.
    """
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(taken) from None
    try:
        yield
    finally:
        lock.release()


def require_extra(extra: str, what: str) -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: a key of EXTRAS.
        what: the step that needs them, for the message.

    Raises:
        MissingExtra: one of them is not installed.
    """
    try:
        complete = all(find_spec(module) is not None for module in EXTRAS[extra])
    except ModuleNotFoundError:
        complete = False
    if not complete:
        raise MissingExtra(extra, what)


def require_training(what: str) -> None:
    """Check that the packages of the extra `train` are installed; see `require_extra`."""
    require_extra("train", what)


def is_loopback(url: str | None) -> bool:
    """Whether the URL points to this machine."""
    host = urlsplit(url or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def end_with_parent() -> None:
    """End this process at once when its standard input closes: when its parent has ended, however that was."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(PARENT_ENDED)

    threading.Thread(target=wait, daemon=True).start()


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop runs already, as in a notebook: then in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def count(value: object) -> int | None:
    """A number of tokens from outside; None where it is not a whole number from 0 to MAX_COUNT."""
    number = finite(value)
    return int(number) if number is not None and 0 <= number <= MAX_COUNT and number == int(number) else None


def finite(value: object) -> float | None:
    """A finite number from outside; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
