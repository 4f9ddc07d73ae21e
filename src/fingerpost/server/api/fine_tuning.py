"""The endpoints under /v1/fine_tuning/jobs."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fingerpost.server.inference.registry import CHECKPOINT
from fingerpost.server.jobs.files import Files
from fingerpost.server.jobs.runner import Runner
from fingerpost.server.schemas import JobRequest, Json, Name, WireError, page_of
from fingerpost.server.settings import Settings
from fingerpost.store.server import ALIVE, EVENTS, JOBS, Record, ServerStore, new_id, now


def job_object(job: Record) -> Json:
    """A job as the wire has it. `error` is never null: a well-known client breaks on that; nor are its texts."""
    request = job["request"]
    supervised = (request.get("method") or {}).get("supervised") or {}
    given = supervised.get("hyperparameters") or request.get("hyperparameters") or {}
    hyperparameters = {
        key: "auto" if given.get(key) is None else given[key]
        for key in ("n_epochs", "batch_size", "learning_rate_multiplier")
    }
    return {
        "object": "fine_tuning.job",
        "id": job["id"],
        "model": request["model"],
        "created_at": job["created_at"],
        "finished_at": job["finished_at"],
        "fine_tuned_model": job["model"],
        "organization_id": "org-local",
        "result_files": [job["result_file"]] if job["result_file"] else [],
        "status": job["status"],
        "training_file": request["training_file"],
        "validation_file": request.get("validation_file"),
        "hyperparameters": hyperparameters,
        "trained_tokens": job["trained_tokens"],
        "error": job["error"] or {"code": "", "message": "", "param": None},
        "seed": request.get("seed") or 0,
        "estimated_finish": job["estimated_finish"],
        "integrations": [],
        "metadata": request.get("metadata"),
        "user_provided_suffix": request.get("suffix"),
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    }


def event_object(event: Record) -> Json:
    return {
        "object": "fine_tuning.job.event",
        "id": f"ftevent-{event['seq']}",
        "created_at": event["created_at"],
        "level": event["level"],
        "message": event["message"],
        "type": event["kind"],
        "data": event["data"] or {},
    }


def checkpoints_of(job: Record, store: ServerStore) -> list[Json]:
    """The one state of the model that is kept: its last."""
    if job["status"] != "succeeded" or job["model"] is None:
        return []
    events, _ = store.page(EVENTS, 1, job_id=job["id"], kind="metrics")
    found = events[0]["data"] if events else {}
    metrics = {
        key: found[key] for key in ("step", "train_loss", "valid_loss", "valid_mean_token_accuracy") if key in found
    }
    metrics |= {"full_valid_loss": found.get("valid_loss", math.nan),
                "full_valid_mean_token_accuracy": found.get("valid_mean_token_accuracy", math.nan)} if found else {}  # fmt: skip
    step = found.get("step", 0)
    return [{
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt_{job['id'].removeprefix('ftjob-')}",
        "created_at": job["finished_at"],
        "fine_tuned_model_checkpoint": f"{job['model']}{CHECKPOINT}{step}",
        "fine_tuning_job_id": job["id"],
        "step_number": step,
        "metrics": metrics,
    }]  # fmt: skip


def router(settings: Settings, store: ServerStore, files: Files, runner: Runner) -> APIRouter:
    """The endpoints under /v1/fine_tuning/jobs."""
    routes = APIRouter(tags=["fine-tuning"], prefix="/v1/fine_tuning/jobs")

    def found(key: str) -> Record:
        job = store.get(JOBS, key)
        if job is None:
            raise WireError(404, f"there is no fine-tuning job '{key}'", code="fine_tune_not_found")
        return job

    @routes.post("")
    async def create(request: JobRequest) -> Json:
        if request.method is not None and request.method.type != "supervised":
            raise WireError(400, f"method '{request.method.type[:40]}' is not offered; supervised is", param="method")
        for param in ("training_file", "validation_file"):
            if (key := getattr(request, param)) is not None:
                record = files.get(key, param)
                if record["purpose"] != "fine-tune":
                    raise WireError(
                        400,
                        f"'{key}' was uploaded for {record['purpose']}; upload it with purpose fine-tune",
                        param=param,
                    )
        kept = request.model_dump(include=set(JobRequest.model_fields), exclude_none=True, mode="json")
        record = {"id": new_id("ftjob-"), "created_at": now(), "status": "validating_files", "request": kept}
        events = [f"Created fine-tuning job: {record['id']}"]
        if request.model != settings.encoder:
            events.append(f"'{request.model}' is taken as a name for the local base model {settings.encoder}")
        record |= {"paused": False, "attempts": 0, "announced": False}
        job = await asyncio.to_thread(store.add_job, record, settings.most_jobs, events)
        if job is None:
            raise WireError(429, f"{settings.most_jobs} jobs are waiting already; try again later",
                            code="queue_full", retry_after_s=30)  # fmt: skip
        runner.wake()
        return job_object(job)

    @routes.get("")
    def list_jobs(limit: Annotated[int, Query(ge=1, le=1_000)] = 20, after: Name | None = None) -> Json:
        rows, more = store.page(JOBS, limit, after)
        return page_of([job_object(row) for row in rows], more)

    @routes.get("/{job_id}")
    def get_job(job_id: Name) -> Json:
        return job_object(found(job_id))

    @routes.get("/{job_id}/events")
    def events(job_id: Name, limit: Annotated[int, Query(ge=1, le=1_000)] = 20, after: Name | None = None) -> Json:
        found(job_id)
        cursor = None if after is None else after.removeprefix("ftevent-")
        if cursor is not None and not (cursor.isdecimal() and len(cursor) < 16):
            raise WireError(400, f"'{after}' is no event", param="after")
        rows, more = store.page(EVENTS, limit, cursor, job_id=job_id)
        return page_of([event_object(row) for row in rows], more)

    @routes.get("/{job_id}/checkpoints")
    def checkpoints(job_id: Name, limit: Annotated[int, Query(ge=1, le=1_000)] = 10, after: Name | None = None) -> Json:
        return page_of([] if after else checkpoints_of(found(job_id), store)[:limit], False)

    def changed(key: str, how: str, **values: Any) -> Json:
        job = store.change(JOBS, key, ALIVE, **values)
        if job is None:
            raise WireError(400, f"the job is {found(key)['status']} and cannot be {how}", code="job_ended")
        return job_object(job)

    @routes.post("/{job_id}/cancel")
    async def cancel(job_id: Name) -> Json:
        ended = {"status": "cancelled", "finished_at": now(), "estimated_finish": None}
        job = await asyncio.to_thread(changed, job_id, "cancelled", **ended)
        runner.kill(job_id)
        await asyncio.to_thread(store.tell, job_id, "The job was cancelled")
        return job

    @routes.post("/{job_id}/pause")
    async def pause(job_id: Name) -> Json:
        job = await asyncio.to_thread(changed, job_id, "paused", paused=True)
        runner.kill(job_id)
        return job

    @routes.post("/{job_id}/resume")
    async def resume(job_id: Name) -> Json:
        job = await asyncio.to_thread(changed, job_id, "resumed", paused=False)
        await asyncio.to_thread(store.tell, job_id, "The job was resumed")
        runner.wake()
        return job

    return routes
