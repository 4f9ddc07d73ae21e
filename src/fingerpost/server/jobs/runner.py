"""Fine-tuning jobs: validated and trained one at a time in processes of their own, across restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
from functools import partial
from typing import Any

from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import forever
from fingerpost.server.settings import Settings
from fingerpost.store.server import ENDED, JOBS, Record, ServerStore

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
            sys.executable, "-m", "fingerpost.server.jobs.worker", verb, str(self._settings.folder), job["id"],
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
