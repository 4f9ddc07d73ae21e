"""Runs many requests to one model at once, within its rate limits and the budget.

A reply, its cost and the next reservation are stored in one transaction, so nothing that was answered is lost.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic

from fingerpost.core.errors import BudgetError, TeacherError
from fingerpost.core.types import ProgressCallback, no_progress
from fingerpost.core.utils import run_async
from fingerpost.llm import prices
from fingerpost.llm.client import ChatModel
from fingerpost.llm.completion import Lost, Reply, request_bytes, usage_with_cost
from fingerpost.llm.requests import (
    UNUSABLE_LIMIT,
    J,
    RequestSpec,
    RunProgress,
    all_unusable,
    out_of_budget,
)
from fingerpost.store.ledger import Call, Settlement
from fingerpost.store.project import Store
from fingerpost.task.settings import TeacherSettings

LOST_ATTEMPTS = 3


def run_requests(
    spec: RequestSpec[J],
    jobs: Sequence[J],
    store: Store,
    teacher: TeacherSettings,
    folder: Path,
    *,
    budget_usd: float | None = None,
    record: Path | None = None,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress:
    """Ask for each job once. Ctrl-C lets the requests in flight finish; at the end of the budget the run stops.

    Raises:
        TeacherError: the model cannot be used, or none of its replies is usable.
        BudgetError: the budget has no room for a single request.
    """
    run = _Run(spec, jobs, store, teacher, budget_usd, on_progress)
    run_async(run.work(folder, record))
    if run.error is not None:
        raise run.error
    return run.progress


def workers_for(concurrency: int) -> int:
    """A few more workers than requests at once: while one books an answer, another uses its place."""
    return concurrency + concurrency // 16


class _Run(Generic[J]):
    """One run: its jobs, and as many workers as requests may be in flight."""

    def __init__(
        self,
        spec: RequestSpec[J],
        jobs: Sequence[J],
        store: Store,
        teacher: TeacherSettings,
        budget_usd: float | None,
        on_progress: ProgressCallback,
    ) -> None:
        self.spec, self.teacher, self.budget = spec, teacher, budget_usd
        self.progress = RunProgress(total=len(jobs))
        self.error: TeacherError | BudgetError | None = None
        self._jobs = deque((job, 0) for job in jobs)  # with how often it was lost
        self._book = _GroupCommit(store, budget_usd)
        self._report = on_progress
        self._slots = asyncio.Semaphore(teacher.concurrency)
        self._in_flight = 0

    async def work(self, folder: Path, record: Path | None) -> None:
        async with ChatModel(self.teacher, folder, record, self.spec.temperature) as model:
            workers = asyncio.gather(
                *(self._worker(model) for _ in range(workers_for(self.teacher.concurrency))), return_exceptions=True
            )
            loop = asyncio.get_running_loop()
            # Not on Windows, nor off the main thread: there Ctrl-C cuts the requests off; what was answered is kept.
            with suppress(NotImplementedError, RuntimeError):
                loop.add_signal_handler(signal.SIGINT, self._interrupt, workers)
            try:
                ended = await workers
            except asyncio.CancelledError:
                self.progress.stopped, ended = "interrupted", []
            await self._book.drain()
        for each in ended:
            if isinstance(each, BaseException):
                raise each
        if self.error is None and self.progress.done >= UNUSABLE_LIMIT and not self.progress.usable:
            self.error = all_unusable(self.spec, self.progress)

    def _interrupt(self, workers: asyncio.Future[list[BaseException | None]]) -> None:
        if self.progress.stopped == "interrupted":
            workers.cancel()
        self.progress.stopped = "interrupted"
        self._jobs.clear()

    async def _worker(self, model: ChatModel) -> None:
        """Ask until nothing is left to ask. Where this fails unforeseen, the others finish what they have begun."""
        settled: Settlement | None = None
        try:
            while self._jobs and self._goes_on():
                job, lost = self._jobs.popleft()
                messages, schema = self.spec.request(job)
                most = prices.at_most(self.teacher, request_bytes(messages, schema))
                call = Call(self.spec.step, self.teacher.model, most)
                call_id = await self._settle(settled, call)
                settled = None
                while (
                    call_id is None and self._in_flight and self._goes_on()
                ):  # what others have reserved may come free
                    await asyncio.sleep(0.01)
                    call_id = await self._book.book(None, call)
                if call_id is None:
                    self._out_of_budget(call)
                    return
                self._in_flight += 1
                try:
                    async with self._slots:
                        reply = await model.ask(messages, schema)
                except Lost as error:
                    self._again(job, lost + 1, error)
                    settled = Settlement(call_id, "lost")
                except TeacherError as error:
                    self.error = self.error or error
                    settled = Settlement(call_id, "unsent")
                else:  # a call that is cancelled keeps its reservation: it may have been charged
                    settled = self._answered(job, reply, call_id, most)
            if settled is not None:
                await self._settle(settled, None)
        except BaseException:
            self._jobs.clear()
            raise

    def _goes_on(self) -> bool:
        return self.error is None and not self.progress.stopped

    async def _settle(self, settled: Settlement | None, wanted: Call | None) -> int | None:
        """Book the end of a call, which is in flight until then, and reserve the next."""
        call_id = await self._book.book(settled, wanted)
        self._in_flight -= settled is not None
        return call_id

    def _answered(self, job: J, reply: Reply, call_id: int, most: float) -> Settlement:
        usage = usage_with_cost(self.teacher, reply, most)
        kept, usable = self.spec.keep(self.spec.key(job), reply)
        self.progress.count(reply, usage, usable)
        if self.progress.done == UNUSABLE_LIMIT and not self.progress.usable:
            self.error = self.error or all_unusable(self.spec, self.progress)
        self._report(self.progress.report(self.spec.step))
        return Settlement(call_id, "paid", usage, kept)

    def _again(self, job: J, lost: int, error: Lost) -> None:
        if not self._goes_on():
            return
        if lost < LOST_ATTEMPTS:
            self._jobs.append((job, lost))
        elif self.error is None:
            self.error = TeacherError(
                f"the teacher was lost {LOST_ATTEMPTS} times on one question ({error}); raise timeout_s or lower "
                "concurrency in task.toml, and run the command again: what was answered is kept"
            )

    def _out_of_budget(self, call: Call) -> None:
        if not self._goes_on():
            return
        self.progress.stopped = "budget"
        if not self.progress.done and self.error is None:
            self.error = out_of_budget(call.at_most_usd, self.budget)


class _GroupCommit:
    """Collects what the workers have to book while a transaction runs, and books it all in the next one."""

    def __init__(self, store: Store, budget_usd: float | None) -> None:
        self._ledger, self._budget = store.ledger, budget_usd
        self._waiting: list[tuple[Settlement | None, Call | None, asyncio.Future[int | None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def book(self, settled: Settlement | None, wanted: Call | None) -> int | None:
        """Settle, then reserve; the id of the new call, or None where it does not fit into the budget."""
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((settled, wanted, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._commit())
        return await asyncio.shield(done)

    async def drain(self) -> None:
        """Wait until everything is booked."""
        if self._task is not None:
            await self._task

    async def _commit(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            settled = [each for each, _, _ in batch if each is not None]
            wanted = [(call, done) for _, call, done in batch if call is not None]
            try:
                ids = await asyncio.to_thread(self._ledger.record, settled, [call for call, _ in wanted], self._budget)
            except BaseException as error:
                for _, _, done in batch:
                    done.set_exception(error)
                raise
            for (_, done), call_id in zip(wanted, ids, strict=True):
                done.set_result(call_id)
            for _, call, done in batch:
                if call is None:
                    done.set_result(None)
