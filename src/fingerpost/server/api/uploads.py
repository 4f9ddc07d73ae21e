"""Endpoints under /v1/uploads: files in parts."""

from __future__ import annotations

from fastapi import APIRouter, UploadFile

from fingerpost.server.api.files import clean_name, file_object, require_purpose
from fingerpost.server.jobs.uploads import Upload, UploadStorage
from fingerpost.server.schemas import ApiError, Json, Name, UploadCompletion, UploadRequest
from fingerpost.store.server import now
from fingerpost.store.server_rows import FileRow


def upload_object(upload: Upload, file: FileRow | None = None) -> Json:
    """The API's upload object."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "expires_at": upload.expires_at,
        "file": None if file is None else file_object(file),
    }


def router(uploads: UploadStorage, max_bytes: int) -> APIRouter:
    """The endpoints under /v1/uploads; `max_bytes` limits the size of a file."""
    routes = APIRouter(tags=["files"], prefix="/v1/uploads")

    @routes.post("")
    def create(request: UploadRequest) -> Json:
        require_purpose(request.purpose)
        if request.bytes > max_bytes:
            raise ApiError(
                413, f"the file is larger than {max_bytes:,} bytes; split it", code="file_too_large", param="bytes"
            )
        return upload_object(uploads.create(clean_name(request.filename), request.purpose, request.bytes))

    @routes.post("/{upload_id}/parts")
    def add_part(upload_id: Name, data: UploadFile) -> Json:
        part_id = uploads.add_part(upload_id, data.file)
        return {"id": part_id, "object": "upload.part", "created_at": now(), "upload_id": upload_id}

    @routes.post("/{upload_id}/complete")
    def complete(upload_id: Name, request: UploadCompletion) -> Json:
        return upload_object(*uploads.complete(upload_id, request.part_ids, request.md5))

    @routes.post("/{upload_id}/cancel")
    def cancel(upload_id: Name) -> Json:
        return upload_object(uploads.cancel(upload_id))

    return routes
