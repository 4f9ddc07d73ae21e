"""The endpoints under /v1/batches."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from fingerpost.server.jobs.batches import ENDPOINT, WINDOW, WINDOW_S, Batches
from fingerpost.server.jobs.files import Files
from fingerpost.server.schemas import BatchRequest, Json, Name, WireError, page_of
from fingerpost.store.server import BATCH_ENDED, BATCHES, Record, ServerStore, new_id, now


def batch_object(batch: Record) -> Json:
    """A batch as the wire has it."""
    request, times = batch["request"], batch["times"]
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    found = {
        "id": batch["id"],
        "object": "batch",
        "endpoint": request["endpoint"],
        "errors": batch["errors"],
        "input_file_id": request["input_file_id"],
        "completion_window": request["completion_window"],
        "status": batch["status"],
        "output_file_id": batch["output_file"],
        "error_file_id": batch["error_file"],
        "created_at": batch["created_at"],
        "expires_at": batch["created_at"] + WINDOW_S,
        **{f"{moment}_at": times.get(f"{moment}_at") for moment in moments},
        "request_counts": batch["counts"],
        "metadata": request.get("metadata"),
    }
    return {key: value for key, value in found.items() if value is not None}


def router(store: ServerStore, files: Files, batches: Batches) -> APIRouter:
    """The endpoints under /v1/batches."""
    routes = APIRouter(tags=["batches"], prefix="/v1/batches")

    @routes.post("")
    async def create(request: BatchRequest) -> Json:
        if request.endpoint != ENDPOINT:
            raise WireError(400, f"batches are taken for {ENDPOINT}", param="endpoint")
        if request.completion_window != WINDOW:
            raise WireError(400, f"completion_window is '{WINDOW}'", param="completion_window")
        if files.get(request.input_file_id, "input_file_id")["purpose"] != "batch":
            raise WireError(400, "the input file must be uploaded with purpose batch", param="input_file_id")
        kept = request.model_dump(include=set(BatchRequest.model_fields), exclude_none=True, mode="json")
        batch = await asyncio.to_thread(store.add, BATCHES, {
            "id": new_id("batch_"), "created_at": now(), "status": "validating", "request": kept, "times": {},
            "counts": {"total": 0, "completed": 0, "failed": 0}, "announced": False,
        })  # fmt: skip
        batches.wake()
        return batch_object(batch)

    @routes.get("")
    def list_batches(limit: Annotated[int, Query(ge=1, le=100)] = 20, after: Name | None = None) -> Json:
        rows, more = store.page(BATCHES, limit, after)
        return page_of([batch_object(row) for row in rows], more)

    def found(key: str) -> Record:
        batch = store.get(BATCHES, key)
        if batch is None:
            raise WireError(404, f"there is no batch '{key}'", code="batch_not_found")
        return batch

    @routes.get("/{batch_id}")
    def get_batch(batch_id: Name) -> Json:
        return batch_object(found(batch_id))

    @routes.post("/{batch_id}/cancel")
    def cancel(batch_id: Name) -> Json:
        batch = found(batch_id)
        times = {**batch["times"], "cancelling_at": now()}
        changed = store.change(BATCHES, batch_id, ("validating", "in_progress"), status="cancelling", times=times)
        if changed is None and batch["status"] in BATCH_ENDED:
            raise WireError(409, f"the batch is {batch['status']} and cannot be cancelled", code="batch_ended")
        return batch_object(changed or found(batch_id))

    return routes
