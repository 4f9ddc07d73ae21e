"""Temporary files of byte strings, which are read by their position."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fingerpost.core.types import Conversation
from fingerpost.data.sketches import Shingles, shingles_of


class Records:
    """Byte strings in a temporary file, read by their position.

    Args:
        folder: where the file is. It has no name, and is gone when it is closed or the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def extend(self, records: Iterable[bytes]) -> None:
        """Append records."""
        self._file.seek(self._ends[-1])
        for record in records:
            self._file.write(record)
            self._ends.append(self._ends[-1] + len(record))

    def __getitem__(self, position: int) -> bytes:
        start, end = self._ends[position : position + 2]
        self._file.seek(start)
        return self._file.read(end - start)

    def close(self) -> None:
        self._file.close()


class ShingleRecords:
    """The shingles of conversations by their position."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder)

    def extend(self, conversations: Iterable[Conversation]) -> None:
        """Add the shingles of conversations."""
        self._records.extend(shingles_of(conversation).tobytes() for conversation in conversations)

    def __call__(self, position: int) -> Shingles:
        return np.frombuffer(self._records[position], dtype=np.uint32)

    def close(self) -> None:
        self._records.close()
