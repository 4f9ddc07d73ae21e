"""Endpoints under /v1/fine_tuning/jobs."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Unpack

from fastapi import APIRouter, Query, Request
from starlette.datastructures import QueryParams

from fingerpost.server.inference.registry import CHECKPOINT
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.jobs.runner import JobRunner, delete_models
from fingerpost.server.schemas import ApiError, JobRequest, Json, Name, page_of, step_metrics
from fingerpost.server.settings import Settings
from fingerpost.store.server import JOB_ACTIVE, ServerStore, new_id, now
from fingerpost.store.server_rows import EventRow, JobChanges, JobRow
from fingerpost.students.folder import epoch_folders, read_manifest

EVENT_PREFIX = "ftevent-"
MAX_EVENT_DIGITS = 15  # larger numbers do not fit into the database
HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")
METADATA = re.compile(r"metadata\[(.+)\]")
METRICS = ("step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")


def job_object(job: JobRow) -> Json:
    """The API's job object. `error` is never null and has no null texts: a widely used client fails on them."""
    request = job.request
    supervised = (request.get("method") or {}).get("supervised") or {}
    given = supervised.get("hyperparameters") or request.get("hyperparameters") or {}
    hyperparameters = {name: "auto" if given.get(name) is None else given[name] for name in HYPERPARAMETERS}
    return {
        "object": "fine_tuning.job",
        "id": job.id,
        "model": request["model"],
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "fine_tuned_model": job.model,
        "organization_id": "org-local",
        "result_files": [job.result_file] if job.result_file else [],
        "status": job.status,
        "training_file": request["training_file"],
        "validation_file": request.get("validation_file"),
        "hyperparameters": hyperparameters,
        "trained_tokens": job.trained_tokens,
        "error": asdict(job.error) if job.error else {"code": "", "message": "", "param": None},
        "seed": request.get("seed") or 0,
        "estimated_finish": job.estimated_finish,
        "integrations": [],
        "metadata": request.get("metadata"),
        "user_provided_suffix": request.get("suffix"),
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    }


def event_object(event: EventRow) -> Json:
    """The API's event object."""
    return {
        "object": "fine_tuning.job.event",
        "id": f"{EVENT_PREFIX}{event.seq}",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": event.kind,
        "data": event.data or {},
    }


def checkpoints_of(job: JobRow, store: ServerStore, tuned: Path) -> list[Json]:
    """The API's checkpoint objects, newest first: the last epochs of a language model, the final model of a classifier.

    Unless the job has succeeded, there are none.

    Args:
        tuned: folder of the jobs' models.
    """
    if job.status != "succeeded" or job.model is None:
        return []
    epochs = [read_manifest(folder).training["last_step"] for folder in reversed(epoch_folders(tuned / job.id))]
    if epochs:
        return [_checkpoint(job, step_metrics(figures)) for figures in epochs]
    events, _ = store.events_page(job.id, 1, kind="metrics")
    return [_checkpoint(job, (events[0].data if events else None) or {})]


def _checkpoint(job: JobRow, data: Json) -> Json:
    """The API's checkpoint object for the metrics of a step."""
    metrics = {name: data[name] for name in METRICS if name in data}
    if data:
        metrics["full_valid_loss"] = data.get("valid_loss", math.nan)
        metrics["full_valid_mean_token_accuracy"] = data.get("valid_mean_token_accuracy", math.nan)
    step = data.get("step", 0)
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt_{job.id.removeprefix('ftjob-')}{'-' + str(step) if 'train_mean_token_accuracy' in data else ''}",
        "created_at": job.finished_at,
        "fine_tuned_model_checkpoint": f"{job.model}{CHECKPOINT}{step}",
        "fine_tuning_job_id": job.id,
        "step_number": step,
        "metrics": metrics,
    }


def metadata_filter(parameters: QueryParams) -> dict[str, str] | None:
    """The metadata that listed jobs must have, from `metadata[key]=value`; `{}` from `metadata=null`: jobs without any."""
    if parameters.get("metadata") == "null":
        return {}
    named = ((METADATA.fullmatch(key), value) for key, value in parameters.items())
    return {found[1]: value for found, value in named if found} or None


def router(settings: Settings, store: ServerStore, files: FileStorage, runner: JobRunner) -> APIRouter:
    """The endpoints under /v1/fine_tuning/jobs."""
    routes = APIRouter(tags=["fine-tuning"], prefix="/v1/fine_tuning/jobs")

    def require(job_id: str) -> JobRow:
        job = store.get_job(job_id)
        if job is None:
            message = f"there is no fine-tuning job '{job_id}'; GET /v1/fine_tuning/jobs lists the jobs"
            raise ApiError(404, message, code="fine_tune_not_found")
        return job

    def change_active(job_id: str, action: str, **changes: Unpack[JobChanges]) -> Json:
        job = store.change_job(job_id, JOB_ACTIVE, **changes)
        if job is None:
            message = f"the job is {require(job_id).status}; an ended job cannot be {action}"
            raise ApiError(400, message, code="job_ended")
        return job_object(job)

    @routes.post("")
    async def create(request: JobRequest) -> Json:
        if request.method is not None and request.method.type != "supervised":
            method = request.method.type[:40]
            raise ApiError(400, f"method '{method}' is not supported; use 'supervised'", param="method")
        for param in ("training_file", "validation_file"):
            if (file_id := getattr(request, param)) is not None:
                purpose = files.get(file_id, param).purpose
                if purpose != "fine-tune":
                    message = f"'{file_id}' was uploaded with purpose '{purpose}'; upload it with purpose 'fine-tune'"
                    raise ApiError(400, message, param=param)
        fields = request.model_dump(include=set(JobRequest.model_fields), exclude_none=True, mode="json")
        row = JobRow(id=new_id("ftjob-"), created_at=now(), status="validating_files", request=fields)
        base = settings.base_for(request.model)
        texts = f"; for texts: the language model {base}" if base else ""
        stands_for = (
            f"'{request.model}' stands for local models; for labels: the sentence encoder {settings.encoder}{texts}"
        )
        events = [f"Created fine-tuning job: {row.id}", stands_for]
        job = await asyncio.to_thread(store.add_job, row, settings.max_jobs, events)
        if job is None:
            message = f"{settings.max_jobs} jobs are waiting already; try again later"
            raise ApiError(429, message, code="queue_full", retry_after_s=30)
        runner.wake()
        return job_object(job)

    @routes.get("")
    def list_jobs(http: Request, limit: Annotated[int, Query(ge=1, le=1_000)] = 20, after: Name | None = None) -> Json:
        if after is not None:
            require(after)
        rows, more = store.jobs_page(limit, after, metadata_filter(http.query_params))
        return page_of([job_object(row) for row in rows], more)

    @routes.get("/{job_id}")
    def get_job(job_id: Name) -> Json:
        return job_object(require(job_id))

    @routes.get("/{job_id}/events")
    def events(job_id: Name, limit: Annotated[int, Query(ge=1, le=1_000)] = 20, after: Name | None = None) -> Json:
        require(job_id)
        number = None if after is None else after.removeprefix(EVENT_PREFIX)
        if number is not None and not (number.isdecimal() and len(number) <= MAX_EVENT_DIGITS):
            raise ApiError(400, f"'{after}' is not the id of an event", param="after")
        if number is not None and not store.has_event(job_id, int(number)):
            raise ApiError(404, f"the job has no event '{after}'", param="after")
        rows, more = store.events_page(job_id, limit, None if number is None else int(number))
        return page_of([event_object(row) for row in rows], more)

    @routes.get("/{job_id}/checkpoints")
    def checkpoints(job_id: Name, limit: Annotated[int, Query(ge=1, le=1_000)] = 10, after: Name | None = None) -> Json:
        found = checkpoints_of(require(job_id), store, settings.tuned)
        known = [checkpoint["id"] for checkpoint in found]
        if after is not None and after not in known:
            raise ApiError(404, f"the job has no checkpoint '{after}'", param="after")
        rest = found[known.index(after) + 1 :] if after else found
        return page_of(rest[:limit], len(rest) > limit)

    @routes.post("/{job_id}/cancel")
    async def cancel(job_id: Name) -> Json:
        job = await asyncio.to_thread(
            change_active, job_id, "cancelled", status="cancelled", finished_at=now(), estimated_finish=None
        )
        runner.kill(job_id)
        await asyncio.to_thread(
            delete_models, settings.tuned, job_id
        )  # one that waits has no process whose end does it
        await asyncio.to_thread(store.add_event, job_id, "The job was cancelled")
        return job

    @routes.post("/{job_id}/pause")
    async def pause(job_id: Name) -> Json:
        job = await asyncio.to_thread(change_active, job_id, "paused", paused=True)
        runner.kill(job_id)
        return job

    @routes.post("/{job_id}/resume")
    async def resume(job_id: Name) -> Json:
        job = await asyncio.to_thread(change_active, job_id, "resumed", paused=False)
        await asyncio.to_thread(store.add_event, job_id, "The job was resumed")
        runner.wake()
        return job

    return routes
