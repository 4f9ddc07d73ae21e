"""Paid answers that the database did not take, in a file beside it until it does.

The space of the file is reserved before the first request, so that answers fit in when the disk is full.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fingerpost.core.errors import InputError
from fingerpost.store.holders import LeaseHolders
from fingerpost.store.ledger import Ledger, Settlement

RESERVED_BYTES = 2**20
_SETTLEMENT = TypeAdapter(Settlement)


class FallbackFile:
    """The file of one run. Use it in a `with`; if nothing was put aside, it is deleted at the end.

    Args:
        database: the file is beside it.
        holder: the name of this run among the `LeaseHolders`.

    Raises:
        InputError: on construction, if the disk is full.
    """

    def __init__(self, database: Path, holder: str) -> None:
        self.path = database.with_name(f"{database.name}.unstored-{holder}")
        self._size = 0
        self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600)
        try:
            _write(self._file, b"\0" * RESERVED_BYTES)
        except OSError as error:
            self.__exit__()
            reason = f"{database.parent} has no room for the answers ({error.strerror}); free some space first"
            raise InputError(reason) from None

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Put settlements aside, one JSON object per line.

        Raises:
            OSError: the reserved space is used up, and there is no more.
        """
        data = b"".join(_SETTLEMENT.dump_json(settlement) + b"\n" for settlement in settlements)
        os.lseek(self._file, self._size, os.SEEK_SET)
        _write(self._file, data)
        self._size += len(data)

    def __enter__(self) -> FallbackFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._size:
            os.ftruncate(self._file, self._size)
        os.close(self._file)
        if not self._size:
            self.path.unlink(missing_ok=True)


def recover_answers(database: Path, ledger: Ledger, holders: LeaseHolders) -> None:
    """Store what processes that have ended put aside. A call that is settled already does not change.

    A last line without its end was being written when its process was killed, and is left out.

    Raises:
        InputError: a file is damaged.
    """
    for path in sorted(database.parent.glob(f"{database.name}.unstored*")):
        if holders.is_alive(path.name.rpartition("-")[2]):
            continue
        try:
            *lines, _unfinished = path.read_bytes().rstrip(b"\0").split(b"\n")
        except FileNotFoundError:  # another process has taken it in
            continue
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(_SETTLEMENT.validate_json(line))
            except ValidationError:
                raise InputError(
                    f"{path}, line {number} is damaged; delete that line and run the command again. The answer in it is lost"
                ) from None
        if found:
            ledger.record(found, [], None)
        path.unlink(missing_ok=True)


def _write(file: int, data: bytes) -> None:
    """Write all of the data to a descriptor, and wait until it is on the disk."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.fsync(file)
