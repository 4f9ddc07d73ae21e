"""Endpoints under /v1/batches."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from fingerpost.server.jobs.batches import ENDPOINTS, WINDOW, WINDOW_S, BatchRunner
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.schemas import ApiError, BatchRequest, Json, Name, page_of
from fingerpost.store.server import BATCH_ENDED, ServerStore, new_id, now
from fingerpost.store.server_rows import BatchRow

TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def batch_object(batch: BatchRow) -> Json:
    """The API's batch object, without fields of None."""
    request = batch.request
    found = {
        "id": batch.id,
        "object": "batch",
        "endpoint": request["endpoint"],
        "errors": batch.errors,
        "input_file_id": request["input_file_id"],
        "completion_window": request["completion_window"],
        "status": batch.status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": batch.created_at,
        "expires_at": batch.created_at + WINDOW_S,
        **{f"{status}_at": batch.times.get(f"{status}_at") for status in TIMES},
        "request_counts": asdict(batch.counts),
        "metadata": request.get("metadata"),
    }
    return {key: value for key, value in found.items() if value is not None}


def router(store: ServerStore, files: FileStorage, batches: BatchRunner) -> APIRouter:
    """The endpoints under /v1/batches."""
    routes = APIRouter(tags=["batches"], prefix="/v1/batches")

    def require(batch_id: str) -> BatchRow:
        batch = store.get_batch(batch_id)
        if batch is None:
            message = f"there is no batch '{batch_id}'; GET /v1/batches lists the batches"
            raise ApiError(404, message, code="batch_not_found")
        return batch

    @routes.post("")
    async def create(request: BatchRequest) -> Json:
        if request.endpoint not in ENDPOINTS:
            raise ApiError(400, f"endpoint must be one of {', '.join(ENDPOINTS)}", param="endpoint")
        if request.completion_window != WINDOW:
            raise ApiError(400, f"completion_window must be '{WINDOW}'", param="completion_window")
        if files.get(request.input_file_id, "input_file_id").purpose != "batch":
            raise ApiError(400, "the input file must be uploaded with purpose 'batch'", param="input_file_id")
        fields = request.model_dump(include=set(BatchRequest.model_fields), exclude_none=True, mode="json")
        row = BatchRow(id=new_id("batch_"), created_at=now(), status="validating", request=fields)
        batch = await asyncio.to_thread(store.add_batch, row)
        batches.wake()
        return batch_object(batch)

    @routes.get("")
    def list_batches(limit: Annotated[int, Query(ge=1, le=100)] = 20, after: Name | None = None) -> Json:
        if after is not None:
            require(after)
        rows, more = store.batches_page(limit, after)
        return page_of([batch_object(row) for row in rows], more)

    @routes.get("/{batch_id}")
    def get_batch(batch_id: Name) -> Json:
        return batch_object(require(batch_id))

    @routes.post("/{batch_id}/cancel")
    def cancel(batch_id: Name) -> Json:
        batch = require(batch_id)
        times = {**batch.times, "cancelling_at": now()}
        changed = store.change_batch(batch_id, ("validating", "in_progress"), status="cancelling", times=times)
        if changed is None and batch.status in BATCH_ENDED:
            raise ApiError(409, f"the batch is {batch.status}; an ended batch cannot be cancelled", code="batch_ended")
        return batch_object(changed or require(batch_id))

    return routes
