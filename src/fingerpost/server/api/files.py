"""Endpoints under /v1/files."""

from __future__ import annotations

import shutil
from typing import Annotated

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import FileResponse, Response

from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.schemas import ApiError, Json, Name, page_of
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import FileRow

PURPOSES = ("fine-tune", "batch", "assistants", "vision", "user_data", "evals")


def file_object(file: FileRow) -> Json:
    """The API's file object."""
    found = {
        "id": file.id,
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "object": "file",
        "status": "processed",
    }
    return found | ({"expires_at": file.expires_at} if file.expires_at else {})


def require_purpose(purpose: str) -> None:
    """Raises ApiError if files cannot have this purpose."""
    if purpose not in PURPOSES:
        raise ApiError(400, f"unknown purpose '{purpose[:40]}'; send one of {', '.join(PURPOSES)}", param="purpose")


def clean_name(given: str | None) -> str:
    """A file name that can be stored."""
    return (given or "file").replace("\x00", "").encode("utf-8", "replace").decode()[:255]


def router(files: FileStorage, store: ServerStore, max_bytes: int) -> APIRouter:
    """The endpoints under /v1/files; `max_bytes` limits the size of an upload."""
    routes = APIRouter(tags=["files"])

    @routes.post("/v1/files")
    def upload(
        file: UploadFile,
        purpose: Annotated[str, Form()],
        seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=2_592_000)] = None,
    ) -> Json:
        require_purpose(purpose)
        if (file.size or 0) > max_bytes:
            raise ApiError(
                413, f"the file is larger than {max_bytes:,} bytes; split it", code="file_too_large", param="file"
            )
        name, expires_at = clean_name(file.filename), seconds and now() + seconds
        return file_object(files.add(name, purpose, lambda stream: shutil.copyfileobj(file.file, stream), expires_at))

    @routes.get("/v1/files")
    def list_files(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
        after: Name | None = None,
        purpose: Name | None = None,
    ) -> Json:
        if after is not None:
            files.get(after)
        rows, more = store.files_page(limit, after, order == "desc", purpose)
        return page_of([file_object(row) for row in rows], more)

    @routes.get("/v1/files/{file_id}")
    def get_file(file_id: Name) -> Json:
        return file_object(files.get(file_id))

    @routes.delete("/v1/files/{file_id}")
    def delete_file(file_id: Name) -> Json:
        files.get(file_id)
        files.delete(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    @routes.get("/v1/files/{file_id}/content")
    def content(file_id: Name) -> Response:
        file = files.get(file_id)
        return FileResponse(files.path(file_id), media_type="application/octet-stream", filename=file.filename)

    return routes
