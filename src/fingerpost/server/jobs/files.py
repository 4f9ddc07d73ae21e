"""Uploaded files: on disk and in the database before they are acknowledged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.exc import DatabaseError

from fingerpost.server.schemas import WireError
from fingerpost.server.settings import Settings
from fingerpost.store.server import FILES, Record, ServerStore, new_id, now

UNFINISHED = ".new-"

ABANDONED_S = 3600  # what is in the folder and not in the database for so long is of an upload that was cut off


class Files:
    """The files of a server: bytes in the folder, the rest in the database."""

    def __init__(self, settings: Settings, store: ServerStore) -> None:
        self._settings, self._store = settings, store
        self._folder = settings.files
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        return self._folder / key

    def add(
        self, filename: str, purpose: str, write: Callable[[BinaryIO], Any], expires_at: int | None = None
    ) -> Record:
        """Keep a file. It is on disk, and in the database, when this returns; of one that fails nothing stays."""
        key = new_id("file-")
        fresh = self._folder / f"{UNFINISHED}{key}"
        try:
            with fresh.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            size = fresh.stat().st_size
            fresh.replace(self.path(key))
            sync_folder(self._folder)
            return self._store.add(FILES, {
                "id": key, "created_at": now(), "filename": filename, "purpose": purpose, "bytes": size,
                "expires_at": expires_at,
            })  # fmt: skip
        except (OSError, DatabaseError):
            fresh.unlink(missing_ok=True)
            self.path(key).unlink(missing_ok=True)
            raise

    def get(self, key: str, param: str | None = None) -> Record:
        """The file's record.

        Raises:
            WireError: 404, or 400 where a parameter names it.
        """
        record = self._store.get(FILES, key)
        if record is None or not self.path(key).is_file():
            raise WireError(400 if param else 404, f"there is no file '{key}'", code="file_not_found", param=param)
        return record

    def remove(self, key: str) -> None:
        self._store.remove(FILES, key)
        self.path(key).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete what expired, and what a server that was killed left unfinished."""
        known = set()
        for record in self._store.page(FILES, 1_000_000)[0]:
            if record["expires_at"] is not None and record["expires_at"] <= now():
                self.remove(record["id"])
            else:
                known.add(record["id"])
        for path in self._folder.iterdir():
            if path.name not in known and path.stat().st_mtime < time.time() - ABANDONED_S:
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
