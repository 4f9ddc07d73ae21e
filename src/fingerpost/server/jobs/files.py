"""File storage: a file is on disk and in the database before its upload is acknowledged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.exc import DatabaseError

from fingerpost.server.schemas import ApiError
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, new_id, now
from fingerpost.store.server_rows import FileRow

UNFINISHED = ".new-"
ABANDONED_S = 3600  # a file that is older and not in the database belongs to an upload that was cut off


class FileStorage:
    """The server's files: content in a folder, the rest in the database."""

    def __init__(self, settings: Settings, store: ServerStore) -> None:
        self._store = store
        self._folder = settings.files
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, file_id: str) -> Path:
        """Where the file's content is stored."""
        return self._folder / file_id

    def add(
        self, filename: str, purpose: str, write: Callable[[BinaryIO], Any], expires_at: int | None = None
    ) -> FileRow:
        """Store a file whose content `write` writes. A failed upload leaves nothing behind.

        Raises:
            OSError, DatabaseError: the file cannot be stored.
        """
        file_id = new_id("file-")
        unfinished = self._folder / f"{UNFINISHED}{file_id}"
        try:
            with unfinished.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            size = unfinished.stat().st_size
            unfinished.replace(self.path(file_id))
            sync_folder(self._folder)
            return self._store.add_file(FileRow(file_id, now(), filename, purpose, size, expires_at))
        except (OSError, DatabaseError):
            unfinished.unlink(missing_ok=True)
            self.path(file_id).unlink(missing_ok=True)
            raise

    def get(self, file_id: str, param: str | None = None) -> FileRow:
        """The file's database row.

        Raises:
            ApiError: there is no such file; 400 where the request field `param` names it, else 404.
        """
        file = self._store.get_file(file_id)
        if file is None or not self.path(file_id).is_file():
            raise ApiError(
                400 if param else 404, f"there is no file '{file_id}'; GET /v1/files lists the files",
                code="file_not_found", param=param,
            )  # fmt: skip
        return file

    def delete(self, file_id: str) -> None:
        """Delete the file from the database and the disk."""
        self._store.delete_file(file_id)
        self.path(file_id).unlink(missing_ok=True)

    def clean_up(self) -> None:
        """Delete expired files, and leftovers of uploads that were cut off."""
        known = set()
        for file in self._store.all_files():
            if file.expires_at is not None and file.expires_at <= now():
                self.delete(file.id)
            else:
                known.add(file.id)
        for path in self._folder.iterdir():
            if path.name not in known and path.stat().st_mtime < time.time() - ABANDONED_S:
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure, on systems that support it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
