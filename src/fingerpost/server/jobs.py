"""Fine-tuning jobs: taken, validated and trained one at a time in processes of their own, across restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import sys
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fingerpost.server.files import Files
from fingerpost.server.logs import log
from fingerpost.server.models import CHECKPOINT
from fingerpost.server.settings import Settings
from fingerpost.server.wire import JobRequest, Json, Name, WireError, page_of
from fingerpost.server.work import fail
from fingerpost.store.served import ENDED, EVENTS, JOBS, Record, ServerStore, new_id, now

ATTEMPTS = 3
NICE = 10
POLL_S = 0.5


class Runner:
    """Runs the jobs that wait, the oldest first. `stop` sends the one that trains back to the queue."""

    def __init__(self, settings: Settings, store: ServerStore) -> None:
        self._settings, self._store = settings, store
        self._wake = {"validate": asyncio.Event(), "train": asyncio.Event()}
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Go on where the last server ended: what was running then is queued again."""
        for job in self._store.jobs_with("running"):
            self._again(job, "the server ended while this job was running: it starts again")
        self._tasks = [asyncio.create_task(self._work(verb), name=f"jobs-{verb}") for verb in self._wake]

    @property
    def alive(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def stop(self) -> None:
        self._stopping = True
        for child in list(self._children.values()):
            child.kill()
        for event in self._wake.values():
            event.set()
        await asyncio.gather(*self._tasks)

    def wake(self) -> None:
        """There is something new to do."""
        for event in self._wake.values():
            event.set()

    def kill(self, job_id: str) -> None:
        """End the job's process, if it has one."""
        child = self._children.get(job_id)
        if child is not None and child.returncode is None:
            child.kill()

    async def _work(self, verb: str) -> None:
        status = {"validate": "validating_files", "train": "queued"}[verb]
        while not self._stopping:
            self._wake[verb].clear()
            waiting = await asyncio.to_thread(self._store.waiting_jobs)
            job = next((each for each in waiting if each["status"] == status), None)
            if job is None:
                await self._wake[verb].wait()
                continue
            if verb == "train":
                job = self._store.change(JOBS, job["id"], ("queued",), status="running", attempts=job["attempts"] + 1)
                if job is None:
                    continue
                self._store.tell(job["id"], "Fine-tuning job started")
            code = await self._run(verb, job)
            await asyncio.to_thread(self._ended, verb, job, code)
            self.wake()

    async def _run(self, verb: str, job: Record) -> int:
        options = {"encoder": self._settings.encoder, "threads": self._settings.training_threads, "nice": NICE}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fingerpost.server.work", verb, str(self._settings.folder), job["id"],
            json.dumps(options), stdin=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._children[job["id"]] = child
        try:
            current = await asyncio.to_thread(self._store.get, JOBS, job["id"])
            if self._stopping or current is None or current["status"] in ENDED or current["paused"]:
                child.kill()  # it was cancelled or paused while the process began
            return await child.wait()
        finally:
            del self._children[job["id"]]

    def _ended(self, verb: str, job: Record, code: int) -> None:
        """Of a process that did not come to an end by itself: the job starts again, or has failed."""
        current = self._store.get(JOBS, job["id"])
        if current is None or current["status"] in ENDED:
            log("job", job=job["id"], status=current and current["status"])
            if current is not None and current["status"] != "succeeded":
                shutil.rmtree(self._settings.tuned / job["id"], ignore_errors=True)
            return
        if verb == "validate" and current["status"] == "queued":
            return
        if current["paused"] or self._stopping:
            if verb == "train":
                self._again(job, "paused: it starts from the beginning when it is resumed" if current["paused"]
                            else "the server was stopped: the job starts again with it", attempts=job["attempts"] - 1)  # fmt: skip
            return
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        log("job process ended", logging.ERROR, job=job["id"], verb=verb, code=code)
        if verb == "train" and code < 0 and current["attempts"] < ATTEMPTS:
            self._again(
                job, f"the job's process {how}: it starts again, attempt {current['attempts'] + 1} of {ATTEMPTS}"
            )
            return
        hint = "; is there memory enough?" if code == -9 else "; the server's log has more"
        fail(self._store, job, "worker_died", f"the job's process {how}{hint}", None)

    def _again(self, job: Record, why: str, **values: Any) -> None:
        self._store.tell(job["id"], why, "warn")
        self._store.change(JOBS, job["id"], ("running",), status="queued", estimated_finish=None, **values)


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
    if job["status"] != "succeeded":
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
        job = await asyncio.to_thread(
            store.add_job, record | {"paused": False, "attempts": 0, "announced": False}, settings.most_jobs
        )
        if job is None:
            raise WireError(429, f"{settings.most_jobs} jobs are waiting already; try again later",
                            code="queue_full", retry_after_s=30)  # fmt: skip
        store.tell(job["id"], f"Created fine-tuning job: {job['id']}")
        if request.model != settings.encoder:
            store.tell(job["id"], f"'{request.model}' is taken as a name for the local base model {settings.encoder}")
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
        job = store.change(JOBS, key, ("validating_files", "queued", "running"), **values)
        if job is None:
            raise WireError(400, f"the job is {found(key)['status']} and cannot be {how}", code="job_ended")
        return job_object(job)

    @routes.post("/{job_id}/cancel")
    async def cancel(job_id: Name) -> Json:
        job = changed(job_id, "cancelled", status="cancelled", finished_at=now(), estimated_finish=None)
        store.tell(job_id, "The job was cancelled")
        runner.kill(job_id)
        return job

    @routes.post("/{job_id}/pause")
    async def pause(job_id: Name) -> Json:
        job = changed(job_id, "paused", paused=True)
        runner.kill(job_id)
        return job

    @routes.post("/{job_id}/resume")
    async def resume(job_id: Name) -> Json:
        job = changed(job_id, "resumed", paused=False)
        store.tell(job_id, "The job was resumed")
        runner.wake()
        return job

    return routes
