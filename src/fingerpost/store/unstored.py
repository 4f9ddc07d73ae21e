"""Paid answers that the database did not take, in a file beside it until it does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from fingerpost.core.errors import InputError
from fingerpost.core.utils import append_private
from fingerpost.store.ledger import Ledger, Settlement

RESERVED_BYTES = 2**20
_SETTLEMENT = TypeAdapter(Settlement)


def file_of(database: Path) -> Path:
    """The file with the answers that this database did not take."""
    return database.with_name(f"{database.name}.unstored")


@contextmanager
def reserved_space(database: Path) -> Iterator[BinaryIO]:
    """Disk space for answers that are put aside: a file without a name. Close it to make the space free.

    Raises:
        InputError: the disk is full.
    """
    with tempfile.TemporaryFile(dir=database.parent, buffering=0) as stream:
        try:
            stream.write(b"\0" * RESERVED_BYTES)
        except OSError as error:
            raise InputError(
                f"{database.parent} has no room for the answers ({error.strerror}); free some space first"
            ) from None
        yield stream


def put_aside(database: Path, settlements: Sequence[Settlement]) -> None:
    """Append settlements to the file, one JSON object per line.

    Raises:
        OSError: the file cannot be written either.
    """
    with _lock(database), append_private(file_of(database)) as stream:
        stream.writelines(_SETTLEMENT.dump_json(settlement) + b"\n" for settlement in settlements)
        stream.flush()
        os.fsync(stream.fileno())


def take_in(database: Path, ledger: Ledger) -> None:
    """Store what was put aside. A call that is settled already does not change, so taking in twice does no harm.

    A last line without its end was being written when the process was killed, and is left out.

    Raises:
        InputError: the file is damaged.
    """
    file = file_of(database)
    if not file.is_file():
        return
    with _lock(database):
        *lines, _unfinished = file.read_bytes().split(b"\n") if file.is_file() else [b""]
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(_SETTLEMENT.validate_json(line))
            except ValidationError:
                raise InputError(
                    f"{file} is damaged in line {number}; delete that line: its answer is then lost"
                ) from None
        ledger.record(found, [], None)
        file.unlink(missing_ok=True)


def _lock(database: Path) -> FileLock:
    return FileLock(file_of(database).with_suffix(".lock"))
