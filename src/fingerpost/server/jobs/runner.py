"""Fine-tuning jobs: validated and trained one at a time, each in a process of its own. Resumed after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import run_forever
from fingerpost.server.settings import Settings
from fingerpost.store.server import JOB_ACTIVE, JOB_ENDED, ServerStore
from fingerpost.store.server_rows import JobRow
from fingerpost.students.folder import EPOCH_NAME, checkpoint_folder

MAX_ATTEMPTS = 3
MAX_INTERRUPTIONS, FREE_INTERRUPTIONS, FIRST_HOLD_S = 10, 3, 30.0
"""A job that ran at each kill of the server may be the cause. From FREE_INTERRUPTIONS kills on, it starts only when the server
has been up for FIRST_HOLD_S seconds, doubled with each further kill. After MAX_INTERRUPTIONS kills it fails."""
VALIDATION_S = 600.0
"""The most that reading and checking the files of a job may take."""
HOLD_POLL_S = 2.0
NICE = 10  # CPU priority of training processes

Phase: TypeAlias = Literal["validate", "train"]
WAITING_STATUS: dict[Phase, str] = {"validate": "validating_files", "train": "queued"}
RUNNING_STATUS: dict[Phase, str] = {"validate": "validating_files", "train": "running"}


def delete_models(tuned: Path, job_id: str) -> None:
    """Delete the folders of a job's model, of its companions, epochs and checkpoints."""
    for path in [tuned / job_id, *tuned.glob(f"{job_id}~*"), checkpoint_folder(tuned / job_id)]:
        shutil.rmtree(path, ignore_errors=True)


class JobRunner:
    """Runs the waiting jobs, oldest first: one in validation and one in training at a time."""

    def __init__(self, settings: Settings, store: ServerStore) -> None:
        self._settings, self._store = settings, store
        self._wake: dict[Phase, asyncio.Event] = {"validate": asyncio.Event(), "train": asyncio.Event()}
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._killed: set[str] = set()  # jobs whose process was ended on purpose
        self._busy: set[Phase] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._started_at = time.monotonic()

    def start(self) -> None:
        """Delete models of unfinished jobs, and start to run jobs in the running event loop."""
        self._handle_interruptions()
        kept = {job.id for job in self._store.jobs_by_status("succeeded")}
        resumed = {job.id for job in self._store.jobs_by_status(*JOB_ACTIVE)}
        checkpoints = {checkpoint_folder(Path(job_id)).name for job_id in resumed}
        for path in self._settings.tuned.iterdir():
            owner = path.name.split("~")[0]
            of_epoch = owner in resumed and EPOCH_NAME in path.name
            if owner not in kept and not of_epoch and path.name not in checkpoints:
                shutil.rmtree(path, ignore_errors=True)
        self._tasks = [
            asyncio.create_task(run_forever(f"jobs: {phase}", partial(self._run_next, phase)), name=phase)
            for phase in self._wake
        ]

    @property
    def alive(self) -> bool:
        """Whether the runner is started and none of its tasks has ended."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def stop(self) -> None:
        """End all processes; the job in training goes back to the queue."""
        self._stopping = True
        while self._busy:
            for job_id in list(self._children):
                self.kill(job_id)
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """Look for waiting jobs."""
        for event in self._wake.values():
            event.set()

    def kill(self, job_id: str) -> None:
        """End the job's process, if it has one. This does not count as a failed attempt."""
        child = self._children.get(job_id)
        if child is not None:
            self._killed.add(job_id)
            if child.returncode is None:
                child.kill()

    async def _run_next(self, phase: Phase) -> None:
        """Run the phase of the next waiting job, then wait for `wake`."""
        self._wake[phase].clear()
        self._busy.add(phase)
        try:
            job = None if self._stopping else await asyncio.to_thread(self._take, phase)
            if job is not None:
                code = await self._run(phase, job)
                await asyncio.to_thread(self._handle_exit, phase, job, code)
                self._children.pop(job.id, None)
                self._killed.discard(job.id)
                self.wake()
        finally:
            self._busy.discard(phase)
        held = await asyncio.to_thread(self._has_held)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake[phase].wait(), HOLD_POLL_S if held else None)

    def _take(self, phase: Phase) -> JobRow | None:
        """The oldest job that waits for the phase, with its new status and attempt number."""
        if phase == "train":  # a job that is still marked as running has lost its process
            for lost in self._store.jobs_by_status("running"):
                self._retry_or_fail(lost, "the server lost the process of this job")
        status = WAITING_STATUS[phase]
        waiting = (job for job in self._store.startable_jobs() if job.status == status)
        job = next((job for job in waiting if not self._is_held(job)), None)
        if job is None:
            return None
        job = self._store.change_job(job.id, (status,), status=RUNNING_STATUS[phase], attempts=job.attempts + 1)
        if job is not None and phase == "train":
            self._store.add_event(job.id, "Fine-tuning job started")
        return job

    async def _run(self, phase: Phase, job: JobRow) -> int:
        """Run the job's process; returns its exit code, negative for a signal."""
        options = {
            "encoder": self._settings.encoder,
            "bases": self._settings.bases,
            "threads": self._settings.training_threads,
            "nice": NICE,
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fingerpost.server.jobs.worker", phase, str(self._settings.folder), job.id,
            json.dumps(options), stdin=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._children[job.id] = child
        current = await asyncio.to_thread(self._store.get_job, job.id)
        if self._stopping or current is None or current.status in JOB_ENDED or current.paused:
            self.kill(job.id)  # the job was cancelled or paused while the process started
        try:
            async with asyncio.timeout(VALIDATION_S if phase == "validate" else None):
                return await child.wait()
        except TimeoutError:
            message = f"reading and checking the files took more than {VALIDATION_S:g} s; make the files smaller"
            await asyncio.to_thread(self._store.fail_job, job.id, "validation_timeout", message, "training_file")
            child.kill()
            return await child.wait()

    def _has_held(self) -> bool:
        """Whether a job waits because it was interrupted several times."""
        return any(self._is_held(job) for job in self._store.startable_jobs())

    def _is_held(self, job: JobRow) -> bool:
        """Whether the job has to wait until the server has run for longer, because the server was killed with it."""
        doubled = job.interrupted - FREE_INTERRUPTIONS
        return doubled >= 0 and time.monotonic() - self._started_at < FIRST_HOLD_S * 2**doubled

    def _handle_interruptions(self) -> None:
        """Requeue the jobs that the server was killed with; fail those that this has happened to MAX_INTERRUPTIONS times."""
        for job in self._store.jobs_by_status("validating_files", "running"):
            if not job.attempts:  # it had no process yet
                continue
            number = job.interrupted + 1
            if number < MAX_INTERRUPTIONS:
                self._requeue(job, "the server was killed while this job ran; the job restarts", job.attempts - 1)
                self._store.change_job(job.id, interrupted=number)
            else:
                message = f"the server was killed {number} times while this job ran; check that there is enough memory"
                self._store.fail_job(job.id, "server_died", message)

    def _handle_exit(self, phase: Phase, job: JobRow, code: int) -> None:
        current = self._store.get_job(job.id)
        if current is None or current.status in JOB_ENDED:
            log("job ended", job=job.id, status=current and current.status)
            if current is not None and current.status != "succeeded":
                delete_models(self._settings.tuned, job.id)
            return
        if phase == "validate" and current.status in ("queued", "running"):  # its training may have begun already
            return
        if job.id in self._killed:
            reason = (
                "the server is stopping; the job goes on with the server"
                if self._stopping
                else "the job is paused; it goes on when it is resumed, from its last checkpoint if it has one"
            )
            self._requeue(current, reason, current.attempts - 1)
            return
        log("job process failed", logging.ERROR, job=job.id, phase=phase, code=code)
        if code < 0:
            self._retry_or_fail(current, f"the job's process was ended by signal {-code}")
        else:
            message = f"the job's process ended with exit code {code}; see the server's log"
            self._store.fail_job(job.id, "worker_died", message)

    def _retry_or_fail(self, job: JobRow, reason: str) -> None:
        """Requeue the job, or fail it after MAX_ATTEMPTS attempts."""
        if job.attempts < MAX_ATTEMPTS:
            reason = f"{reason}; the job restarts, attempt {job.attempts + 1} of {MAX_ATTEMPTS}"
            self._requeue(job, reason, job.attempts)
        else:
            message = f"{reason}, in the last of {MAX_ATTEMPTS} attempts; check that there is enough memory"
            self._store.fail_job(job.id, "worker_died", message)

    def _requeue(self, job: JobRow, reason: str, attempts: int) -> None:
        self._store.add_event(job.id, reason, "warn")
        status = "queued" if job.status == "running" else job.status
        self._store.change_job(job.id, (job.status,), status=status, estimated_finish=None, attempts=attempts)
