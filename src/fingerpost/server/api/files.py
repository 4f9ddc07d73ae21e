"""The endpoints under /v1/files."""

from __future__ import annotations

import shutil
from typing import Annotated

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import FileResponse, Response

from fingerpost.server.jobs.files import Files
from fingerpost.server.schemas import Json, Name, WireError, page_of
from fingerpost.store.server import FILES, Record, ServerStore, now

PURPOSES = ("fine-tune", "batch", "assistants", "vision", "user_data", "evals")


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
