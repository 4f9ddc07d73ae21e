"""Runs concurrent requests to one model, within its rate limits and the budget.

A reply, its cost and the reservation for the next request are stored in one transaction, so no answer that was paid for
is lost. Several processes may run the same jobs at once: each asks what no other one is asking or has answered.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic

from sqlalchemy.exc import DatabaseError

from fingerpost.core.errors import BudgetError, InputError, TeacherError
from fingerpost.core.text import fingerprint
from fingerpost.core.types import ProgressCallback, no_progress
from fingerpost.core.utils import run_async
from fingerpost.llm import prices
from fingerpost.llm.client import ChatModel
from fingerpost.llm.completion import Reply, RequestLost, request_bytes, usage_with_cost
from fingerpost.llm.requests import (
    UNUSABLE_LIMIT,
    J,
    Jobs,
    RequestSpec,
    RunProgress,
    all_unusable,
    lease_key,
    out_of_budget,
)
from fingerpost.store.fallback import FallbackFile
from fingerpost.store.ledger import Call, Ledger, Refusal, Settlement
from fingerpost.store.project import Store
from fingerpost.task.settings import TeacherSettings

LOST_ATTEMPTS = 3
LEASE_POLL_S, MAX_LEASED = 0.5, 500
"""Seconds between checks of jobs that other processes lease; MAX_LEASED such jobs are checked at once."""
STORE_ATTEMPTS, STORE_PAUSE_S = 3, 1.0
"""Each attempt to write to the database waits a minute for its lock."""


def run_requests(
    spec: RequestSpec[J],
    jobs: Jobs[J],
    store: Store,
    teacher: TeacherSettings,
    folder: Path,
    *,
    planned_at: int | None = None,
    budget_usd: float | None = None,
    record: Path | None = None,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress:
    """Send one request per job and store the replies.

    The run stops when the budget has no room for another request. Ctrl-C lets the requests in flight finish. Jobs that
    another process is asking are left to it; if it ends without an answer, they are asked after all.

    Args:
        folder: the project's folder, which a recording is relative to.
        planned_at: `Ledger.settled` when the jobs were chosen, now by default: what was answered since is not asked again.
        budget_usd: limit in US dollars on the total of the project's ledger.
        record: a file to append the model's answers to.

    Raises:
        TeacherError: the model cannot be used, or none of its replies is usable.
        BudgetError: the budget has no room for a single request.
    """
    planned_at = store.ledger.settled if planned_at is None else planned_at
    run = _Run(spec, jobs, teacher, planned_at, budget_usd, on_progress)
    run_async(run.execute(store, folder, record))
    if run.error is not None:
        raise run.error
    return run.progress


def workers_for(concurrency: int) -> int:
    """The number of workers: slightly more than concurrent requests, because some workers are storing replies."""
    return concurrency + concurrency // 16


class _Run(Generic[J]):
    """One run: a queue of jobs, and workers that send their requests."""

    def __init__(
        self,
        spec: RequestSpec[J],
        jobs: Jobs[J],
        teacher: TeacherSettings,
        planned_at: int,
        budget_usd: float | None,
        on_progress: ProgressCallback,
    ) -> None:
        self.spec, self.teacher, self.budget = spec, teacher, budget_usd
        self.progress = RunProgress(total=len(jobs))
        self.error: TeacherError | BudgetError | None = None
        self._jobs: Iterator[J] = iter(jobs)
        self._lost: deque[tuple[J, int]] = deque()  # with the number of times that its request was lost
        self._leased: deque[tuple[J, int]] = deque()  # by other processes
        self._again: deque[tuple[J, int]] = deque()  # leased a while ago
        self._planned_at = planned_at
        self._on_progress = on_progress
        self._slots = asyncio.Semaphore(teacher.concurrency)
        self._in_flight = 0
        self._broken = False

    async def execute(self, store: Store, folder: Path, record: Path | None) -> None:
        with store.request_session() as (ledger, fallback):
            self._ledger, self._commits = ledger, _GroupCommit(ledger, fallback, self.budget)
            async with ChatModel(self.teacher, folder, record, self.spec.temperature) as model:
                await self._ask_all(model)
        if self.error is None and self.progress.done >= UNUSABLE_LIMIT and not self.progress.usable:
            self.error = all_unusable(self.spec, self.progress)

    async def _ask_all(self, model: ChatModel) -> None:
        workers = asyncio.gather(
            *(self._worker(model) for _ in range(workers_for(self.teacher.concurrency))), return_exceptions=True
        )
        loop = asyncio.get_running_loop()
        # Unavailable on Windows and outside the main thread. There Ctrl-C aborts requests; stored replies are kept.
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(signal.SIGINT, self._interrupt, workers)
        try:
            ended = await workers
        except asyncio.CancelledError:
            self.progress.stopped, ended = "interrupted", []
        await self._commits.drain()
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome

    def _interrupt(self, workers: asyncio.Future[list[BaseException | None]]) -> None:
        if self.progress.stopped == "interrupted":
            workers.cancel()
        self.progress.stopped = "interrupted"

    async def _worker(self, model: ChatModel) -> None:
        """Send requests until no jobs are left. After an unexpected error, the other workers finish their current request."""
        settlement: Settlement | None = None
        try:
            while self._running():
                taken = self._take()
                if taken is None and not self._leased:
                    break
                ended, settlement = settlement, None
                if taken is None:
                    await self._wait_for_others(ended)
                    continue
                job, times_lost = taken
                messages, schema = self.spec.request(job)
                max_usd = prices.at_most(self.teacher, request_bytes(messages, schema))
                key = lease_key(self.spec.step, self.teacher.model, self.spec.key(job))
                call = Call(self.spec.step, self.teacher.model, max_usd, key, self._planned_at)
                call_id = await self._reserve(ended, call)
                if call_id == "budget":
                    self._out_of_budget(max_usd)
                    break
                if call_id == "answered":
                    self.progress.elsewhere += 1
                    self._report()
                    continue
                if call_id == "leased":
                    self._leased.append(taken)
                    continue
                self._in_flight += 1
                try:
                    async with self._slots:
                        reply = await model.ask(messages, schema, await self._idempotency_key(key))
                except RequestLost as error:
                    settlement = Settlement(call_id, "lost")
                    self._retry(job, times_lost + 1, error)
                except TeacherError as error:
                    settlement = Settlement(call_id, "unsent")
                    self.error = self.error or error
                else:  # a cancelled call keeps its reservation, because it may have been charged
                    settlement = self._record_reply(job, reply, call_id, max_usd)
                    self._report()
        except BaseException:
            self._broken = True
            raise
        finally:
            if settlement is not None:
                await self._settle(settlement, None)

    def _take(self) -> tuple[J, int] | None:
        """The next job, with the number of times that its request was lost; None if none is left but leased ones."""
        if len(self._leased) >= MAX_LEASED:
            self._again, self._leased = self._leased, deque()
        if self._again:
            return self._again.popleft()
        for job in self._jobs:
            return job, 0
        return self._lost.popleft() if self._lost else None

    async def _wait_for_others(self, settlement: Settlement | None) -> None:
        """All that is left is leased by other processes: wait a moment before looking at it again."""
        if settlement is not None:
            await self._settle(settlement, None)
        await asyncio.sleep(LEASE_POLL_S)
        self._again.extend(self._leased)
        self._leased.clear()

    def _report(self) -> None:
        self._on_progress(self.progress.report(self.spec.step))

    def _running(self) -> bool:
        return self.error is None and not self.progress.stopped and not self._broken

    async def _reserve(self, settlement: Settlement | None, call: Call) -> int | Refusal:
        """Record the end of a call and reserve the cost of the next one."""
        reserved = await self._settle(settlement, call)
        # Requests in flight may cost less than is reserved for them, which frees budget.
        while reserved == "budget" and self._in_flight and self._running():
            await asyncio.sleep(0.01)
            reserved = await self._commits.book(None, call)
        return "budget" if reserved is None else reserved

    async def _idempotency_key(self, key: str) -> str | None:
        """The idempotency key of the next request for this job; None without a header for it.

        It stays the same until the job is answered, so that retries reuse it. Asking again on purpose gets a new key.
        """
        if self.teacher.idempotency_header is None:
            return None
        return fingerprint([key, str(await asyncio.to_thread(self._ledger.times_answered, key))])

    async def _settle(self, settlement: Settlement | None, next_call: Call | None) -> int | Refusal | None:
        """Record the end of a call, which counts as in flight until then, and reserve the cost of the next one."""
        call_id = await self._commits.book(settlement, next_call)
        self._in_flight -= settlement is not None
        return call_id

    def _record_reply(self, job: J, reply: Reply, call_id: int, max_usd: float) -> Settlement:
        usage = usage_with_cost(self.teacher, reply, max_usd)
        stored, usable = self.spec.keep(self.spec.key(job), reply)
        self.progress.count(reply, usage, usable)
        if self.progress.done == UNUSABLE_LIMIT and not self.progress.usable:
            self.error = self.error or all_unusable(self.spec, self.progress)
        return Settlement(call_id, "paid", usage, stored, idempotent=self.teacher.idempotency_header is not None)

    def _retry(self, job: J, times_lost: int, error: RequestLost) -> None:
        if not self._running():
            return
        if times_lost < LOST_ATTEMPTS:
            self._lost.append((job, times_lost))
        elif self.error is None:
            self.error = TeacherError(
                f"a request to the teacher was lost {LOST_ATTEMPTS} times ({error}); raise timeout_s or lower "
                "concurrency in task.toml, and run the command again: finished requests are kept"
            )

    def _out_of_budget(self, max_usd: float) -> None:
        if not self._running():
            return
        self.progress.stopped = "budget"
        if not self.progress.done and self.error is None:
            self.error = out_of_budget(max_usd, self.budget)


class _GroupCommit:
    """Collects the ledger entries of all workers while a transaction runs, and stores them in the next transaction.

    Args:
        fallback: where answers go that cannot be stored.
    """

    def __init__(self, ledger: Ledger, fallback: FallbackFile, budget_usd: float | None) -> None:
        self._ledger, self._fallback, self._budget = ledger, fallback, budget_usd
        self._waiting: list[tuple[Settlement | None, Call | None, asyncio.Future[int | Refusal | None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def book(self, settlement: Settlement | None, next_call: Call | None) -> int | Refusal | None:
        """Settle a call, then reserve the cost of the next one.

        Returns:
            The id of the next call, or why it may not be sent; None if none was requested.
        """
        done: asyncio.Future[int | Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((settlement, next_call, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._commit_waiting())
        return await asyncio.shield(done)

    async def drain(self) -> None:
        """Wait until all entries are stored."""
        if self._task is not None:
            await self._task

    async def _commit_waiting(self) -> None:
        """Every entry gets a result or an error, also those that come while a transaction fails."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            settlements = [settlement for settlement, _, _ in batch if settlement is not None]
            calls = [(call, done) for _, call, done in batch if call is not None]
            try:
                ids = await self._record(settlements, [call for call, _ in calls])
            except BaseException as error:
                for _, _, done in batch:
                    done.set_exception(error)
                if isinstance(error, Exception):
                    continue
                raise
            for (_, done), call_id in zip(calls, ids, strict=True):
                done.set_result(call_id)
            for _, call, done in batch:
                if call is None:
                    done.set_result(None)

    async def _record(self, settlements: list[Settlement], calls: list[Call]) -> list[int | Refusal]:
        """Store the entries, if need be in several attempts; what cannot be stored is put aside.

        Raises:
            InputError: the database takes nothing.
        """
        for attempt in range(1, STORE_ATTEMPTS + 1):
            try:
                return await asyncio.to_thread(self._ledger.record, settlements, calls, self._budget)
            except DatabaseError as error:
                if attempt < STORE_ATTEMPTS:
                    await asyncio.sleep(STORE_PAUSE_S)
                    continue
                await asyncio.to_thread(self._fallback.add, settlements)
                raise InputError(
                    f"the database cannot be written ({error.orig}); paid answers are kept in {self._fallback.path}. Free "
                    "disk space, or end the program that locks the database, and run the command again"
                ) from None
        raise AssertionError
