"""Files: taken whole and for good before they are acknowledged, listed, given back, deleted."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import FileResponse, Response
from sqlalchemy.exc import DatabaseError

from fingerpost.server.settings import Settings
from fingerpost.server.wire import Json, Name, WireError, page_of
from fingerpost.store.served import FILES, Record, ServerStore, new_id, now

PURPOSES = ("fine-tune", "batch", "assistants", "vision", "user_data", "evals")
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


def file_object(record: Record) -> Json:
    """A file as the wire has it."""
    found = {key: record[key] for key in ("id", "bytes", "created_at", "filename", "purpose")}
    found |= {"object": "file", "status": "processed"}
    return found | ({"expires_at": record["expires_at"]} if record["expires_at"] else {})


def router(files: Files, store: ServerStore, most: int) -> APIRouter:
    """The endpoints under /v1/files."""
    routes = APIRouter(tags=["files"])

    @routes.post("/v1/files")
    def upload(
        file: UploadFile,
        purpose: Annotated[str, Form()],
        seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=2_592_000)] = None,
    ) -> Json:
        if purpose not in PURPOSES:
            raise WireError(
                400, f"there is no purpose '{purpose[:40]}'; send one of {', '.join(PURPOSES)}", param="purpose"
            )
        if (file.size or 0) > most:
            raise WireError(413, f"the file is larger than {most:,} bytes", code="file_too_large", param="file")
        name = (file.filename or "file").replace("\x00", "").encode("utf-8", "replace").decode()[:255]
        record = files.add(
            name, purpose, lambda stream: shutil.copyfileobj(file.file, stream), seconds and now() + seconds
        )
        return file_object(record)

    @routes.get("/v1/files")
    def list_files(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
        after: Name | None = None,
        purpose: Name | None = None,
    ) -> Json:
        rows, more = store.page(FILES, limit, after, order == "desc", purpose=purpose)
        return page_of([file_object(row) for row in rows], more)

    @routes.get("/v1/files/{file_id}")
    def get_file(file_id: Name) -> Json:
        return file_object(files.get(file_id))

    @routes.delete("/v1/files/{file_id}")
    def delete_file(file_id: Name) -> Json:
        files.get(file_id)
        files.remove(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    @routes.get("/v1/files/{file_id}/content")
    def content(file_id: Name) -> Response:
        record = files.get(file_id)
        return FileResponse(files.path(file_id), media_type="application/octet-stream", filename=record["filename"])

    return routes
