"""Fine-tuning jobs: taken, validated and trained one at a time in processes of their own, across restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import sys
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fingerpost.server.files import Files
from fingerpost.server.logs import log
from fingerpost.server.models import CHECKPOINT
from fingerpost.server.settings import Settings
from fingerpost.server.supervise import forever
from fingerpost.server.wire import JobRequest, Json, Name, WireError, page_of
from fingerpost.store.served import ALIVE, ENDED, EVENTS, JOBS, Record, ServerStore, new_id, now

ATTEMPTS = 3
NICE = 10


class Runner:
    """Runs the jobs that wait, the oldest first. `stop` sends the one that trains back to the queue."""

    def __init__(self, settings: Settings, store: ServerStore) -> None:
        self._settings, self._store = settings, store
        self._wake = {"validate": asyncio.Event(), "train": asyncio.Event()}
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._meant: set[str] = set()  # jobs whose process was ended on purpose
        self._busy: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Go on where the last server ended: what was running then is queued again, what it left over removed."""
        kept = {job["id"] for job in self._store.jobs_with("succeeded")}
        for path in self._settings.tuned.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        self._tasks = [asyncio.create_task(forever(f"jobs: {v}", partial(self._next, v)), name=v) for v in self._wake]

    @property
    def alive(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def stop(self) -> None:
        self._stopping = True
        while self._busy:
            for job_id in list(self._children):
                self.kill(job_id)
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """There is something new to do."""
        for event in self._wake.values():
            event.set()

    def kill(self, job_id: str) -> None:
        """End the job's process, if it has one; that is no failure of the job."""
        child = self._children.get(job_id)
        if child is not None:
            self._meant.add(job_id)
            if child.returncode is None:
                child.kill()

    async def _next(self, verb: str) -> None:
        """Do the next job's part, or wait for one."""
        self._wake[verb].clear()
        self._busy.add(verb)
        try:
            job = None if self._stopping else await asyncio.to_thread(self._take, verb)
            if job is not None:
                code = await self._run(verb, job)
                await asyncio.to_thread(self._ended, verb, job, code)
                self._children.pop(job["id"], None)
                self._meant.discard(job["id"])
                self.wake()
        finally:
            self._busy.discard(verb)
        await self._wake[verb].wait()

    def _take(self, verb: str) -> Record | None:
        """The oldest job that waits for this. A training job that still counts as running has lost its process."""
        if verb == "train":
            for lost in self._store.jobs_with("running"):
                self._died(lost, "the server ended while this job was running")
        status = {"validate": "validating_files", "train": "queued"}[verb]
        job = next((each for each in self._store.waiting_jobs() if each["status"] == status), None)
        if job is None:
            return None
        after = {"validate": "validating_files", "train": "running"}[verb]
        job = self._store.change(JOBS, job["id"], (status,), status=after, attempts=job["attempts"] + 1)
        if job is not None and verb == "train":
            self._store.tell(job["id"], "Fine-tuning job started")
        return job

    async def _run(self, verb: str, job: Record) -> int:
        options = {"encoder": self._settings.encoder, "threads": self._settings.training_threads, "nice": NICE}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fingerpost.server.work", verb, str(self._settings.folder), job["id"],
            json.dumps(options), stdin=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._children[job["id"]] = child
        current = await asyncio.to_thread(self._store.get, JOBS, job["id"])
        if self._stopping or current is None or current["status"] in ENDED or current["paused"]:
            self.kill(job["id"])  # it was cancelled or paused while the process began
        return await child.wait()

    def _ended(self, verb: str, job: Record, code: int) -> None:
        """What becomes of a job whose process has ended."""
        current = self._store.get(JOBS, job["id"])
        if current is None or current["status"] in ENDED:
            log("job", job=job["id"], status=current and current["status"])
            if current is not None and current["status"] != "succeeded":
                shutil.rmtree(self._settings.tuned / job["id"], ignore_errors=True)
            return
        if verb == "validate" and current["status"] == "queued":
            return
        if job["id"] in self._meant:
            why = (
                "the server was stopped: the job starts again with it"
                if self._stopping
                else "paused: it starts from the beginning"
            )
            self._again(current, why, attempts=current["attempts"] - 1)
            return
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        log("job process ended", logging.ERROR, job=job["id"], verb=verb, code=code)
        self._died(current, f"the job's process {how}", again=code < 0)

    def _died(self, job: Record, how: str, again: bool = True) -> None:
        """The job starts again, unless it has died too often."""
        if again and job["attempts"] < ATTEMPTS:
            self._again(job, f"{how}: it starts again, attempt {job['attempts'] + 1} of {ATTEMPTS}")
        else:
            hint = "is there memory enough?" if again else "the server's log has more"
            self._store.fail(job["id"], "worker_died", f"{how}; {hint}")

    def _again(self, job: Record, why: str, **values: Any) -> None:
        self._store.tell(job["id"], why, "warn")
        status = "queued" if job["status"] == "running" else job["status"]
        self._store.change(JOBS, job["id"], (job["status"],), status=status, estimated_finish=None, **values)


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
