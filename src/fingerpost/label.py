"""The teacher labels what it has not labelled yet: many at once, within the limits and the budget.

Whatever happens, what was answered is stored: a reply, its cost and the next reservation are one transaction.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fingerpost.errors import BudgetError, TaskError, TeacherError
from fingerpost.llm import gguf, prices
from fingerpost.llm.chat import ChatModel, Lost, Reply
from fingerpost.prompt import (
    label_order,
    order_number,
    parse,
    prompt_fingerprint,
    render,
    schema,
    system_prompt,
)
from fingerpost.store import Call, Settlement, Store
from fingerpost.text import preview
from fingerpost.types import Question, Split, Task, TeacherSettings, Usage, Verdict

STEP = "label"
NONSENSE = 10  # so many replies without a single label, and the teacher is not asked on
LOST_ATTEMPTS = 3
BYTES_A_TOKEN = 4.0  # of English; only for the estimate, the budget reckons with bytes
REPLY_TOKENS = 10


@dataclass(frozen=True, slots=True)
class Job:
    """One question to be asked in one label order; `bytes` is the size of its prompt."""

    question: Question
    order: int
    bytes: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be asked, and about what it would take. `at_most_usd` is what no bill can exceed."""

    jobs: tuple[Job, ...]
    orders: int
    prompt_tokens: int
    about_usd: float
    at_most_usd: float


@dataclass(slots=True)
class Progress:
    """Where labelling stands. `stopped` says why it ended before its time."""

    total: int
    done: int = 0
    labelled: int = 0
    no_answer: int = 0
    cost_usd: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    stopped: Literal["", "budget", "interrupted"] = ""
    example: str = ""

    @property
    def rate(self) -> float:
        """Answers a second so far."""
        return self.done / max(time.monotonic() - self.started, 1e-9)


def teacher_of(task: Task) -> TeacherSettings:
    """The task's teacher.

    Raises:
        TaskError: it has none.
    """
    if task.teacher is None:
        raise TaskError('the task has no teacher: add to task.toml a table [teacher] with a line model = "..."')
    return task.teacher


def plan(
    task: Task,
    store: Store,
    *,
    votes: int = 1,
    splits: tuple[Split, ...] = ("train", "dev", "test"),
    limit: int | None = None,
    retry: bool = False,
    again: bool = False,
) -> Plan:
    """Every question in `votes` label orders, less what this teacher has answered.

    `limit` is how many questions are asked at most; `retry` asks again what was answered without a label; `again` what was answered under another prompt.
    Jobs of one label order stand together, so that the provider's prompt cache stays warm.
    """
    teacher = teacher_of(task)
    jobs = open_jobs(task, store, votes=votes, splits=splits, limit=limit, retry=retry, again=again)
    sizes = list(_sizes(task, (job.question for job in jobs)))
    tokens = round(sum(sizes) / BYTES_A_TOKEN)
    return Plan(
        jobs=tuple(replace(job, bytes=size) for job, size in zip(jobs, sizes, strict=True)),
        orders=order_count(task),
        prompt_tokens=tokens,
        about_usd=prices.cost(teacher, Usage(prompt=tokens, cached=0, completion=REPLY_TOKENS * len(jobs))),
        at_most_usd=sum(prices.at_most(teacher, size) for size in sizes),
    )


def order_count(task: Task) -> int:
    """How many label orders the task's teacher is asked in: no more than there are labels."""
    return min(teacher_of(task).orders, len(task.labels))


def open_jobs(
    task: Task,
    store: Store,
    *,
    votes: int = 1,
    splits: tuple[Split, ...] = ("train", "dev", "test"),
    limit: int | None = None,
    retry: bool = False,
    again: bool = False,
) -> list[Job]:
    """What is still to be asked; see `plan`.

    Raises:
        TaskError: more votes than label orders.
    """
    teacher, orders = teacher_of(task), order_count(task)
    if votes > orders:
        raise TaskError(
            f"--votes {votes} needs as many label orders; set orders = {votes} in [teacher] (it is {orders})"
        )
    answered: dict[str, set[int | None]] = {}
    for question_id, order, labelled in store.answered(teacher.model, prompt_fingerprint(task) if again else None):
        if labelled or not retry:
            answered.setdefault(question_id, set()).add(order)
    jobs: list[Job] = []
    for question in store.questions(*splits):
        done = answered.get(question.id, set())
        missing = votes - len(done)
        if missing <= 0:
            continue
        if limit is not None and (limit := limit - 1) < 0:
            break
        free = [order for vote in range(votes) if (order := order_number(question.id, vote, orders)) not in done]
        jobs += [Job(question, order) for order in free[:missing]]
    return sorted(jobs, key=lambda job: job.order)


def label(
    task: Task,
    store: Store,
    planned: Plan,
    folder: Path,
    *,
    budget_usd: float | None = None,
    record: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Ask the teacher. Ctrl-C lets the requests in flight finish; the budget ends it with `stopped`.

    Raises:
        TeacherError: the teacher cannot be used, or its replies name no label.
        BudgetError: not even one request fits into the budget.
    """
    teacher = teacher_of(task)
    with ExitStack() as stack:
        if teacher.gguf and not teacher.recorded:
            url = stack.enter_context(gguf.serving(folder / Path(teacher.gguf).expanduser()))
            teacher = teacher.model_copy(update={"base_url": url, "concurrency": 1})
        run = _Run(task, teacher, store, planned, budget_usd, on_progress)
        asyncio.run(run.work(folder, record))
    if run.error is not None:
        raise run.error
    return run.progress


def _sizes(task: Task, questions: Iterable[Question]) -> Iterator[int]:
    """UTF-8 bytes of each question's prompt and schema, with room for the chat format's own tokens."""
    prompt = len(system_prompt(task).encode()) + len(str(schema(task))) + 64
    for question in questions:
        yield prompt + sum(len(turn.content.encode()) + 16 for turn in question.messages)


def workers_for(concurrency: int) -> int:
    """A few more workers than requests at once: while one books an answer, another uses its place."""
    return concurrency + concurrency // 16


class _Run:
    """One run of labelling: its jobs, and as many workers as requests may be in flight."""

    def __init__(
        self,
        task: Task,
        teacher: TeacherSettings,
        store: Store,
        planned: Plan,
        budget_usd: float | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.task, self.teacher, self.plan, self.budget = task, teacher, planned, budget_usd
        self.progress = Progress(total=len(planned.jobs))
        self.error: TeacherError | BudgetError | None = None
        self._jobs = deque(planned.jobs)
        self._book = _GroupCommit(store, budget_usd)
        self._report = on_progress
        self._schema = schema(task)
        self._prompt = prompt_fingerprint(task)
        self._orders = {job.order: label_order(task, job.order, planned.orders) for job in planned.jobs}
        self._slots = asyncio.Semaphore(teacher.concurrency)
        self._in_flight = 0

    async def work(self, folder: Path, record: Path | None) -> None:
        async with ChatModel(self.teacher, folder, record) as model:
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
        if self.error is None and self.progress.done and not self.progress.labelled:
            self.error = self._nonsense()

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
                job = self._jobs.popleft()
                call = Call(STEP, self.teacher.model, prices.at_most(self.teacher, job.bytes))
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
                settled = await self._ask(model, job, call_id, call)
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

    async def _ask(self, model: ChatModel, job: Job, call_id: int, call: Call) -> Settlement:
        """Ask once. A call that is cancelled keeps its reservation: it may have been charged."""
        messages = render(self.task, job.question.messages, self._orders[job.order])
        try:
            async with self._slots:
                reply = await model.ask(messages, self._schema)
        except Lost as error:
            self._again(job, error)
            return Settlement(call_id, "lost")
        except TeacherError as error:
            self.error = self.error or error
            return Settlement(call_id, "unsent")
        label = parse(self.task, reply.text)
        usage = replace(reply.usage, cost_usd=0.0 if reply.rejected else self._cost(reply.usage, call))
        verdict = Verdict(
            job.question.id,
            "teacher",
            self.teacher.model,
            label,
            origin=STEP,
            prompt=self._prompt,
            order=job.order,
            raw=reply.text if reply.text else reply.refusal,
            logprob=reply.logprob,
            usage=usage,
        )
        self._count(reply, usage, label)
        return Settlement(call_id, "paid", usage, verdict)

    def _cost(self, usage: Usage, call: Call) -> float:
        """By the endpoint's own count of tokens; where it counts none, the most it can have been."""
        return call.at_most_usd if usage.prompt is None else prices.cost(self.teacher, usage)

    def _again(self, job: Job, error: Lost) -> None:
        if not self._goes_on():
            return
        if job.lost + 1 < LOST_ATTEMPTS:
            self._jobs.append(replace(job, lost=job.lost + 1))
        elif self.error is None:
            self.error = TeacherError(
                f"the teacher was lost {LOST_ATTEMPTS} times on one question ({error}); raise timeout_s or lower "
                "concurrency in task.toml, and run the command again: what was answered is kept"
            )

    def _count(self, reply: Reply, usage: Usage, label: str | None) -> None:
        progress = self.progress
        progress.done += 1
        progress.labelled += label is not None
        progress.no_answer += label is None
        progress.cost_usd += usage.cost_usd or 0.0
        progress.prompt_tokens += usage.prompt or 0
        progress.cached_tokens += usage.cached or 0
        if label is None and not progress.example:
            progress.example = preview(reply.text or reply.refusal or "", 80)
        if progress.done == NONSENSE and not progress.labelled:
            self.error = self.error or self._nonsense()
        self._report(progress)

    def _nonsense(self) -> TeacherError:
        return TeacherError(
            f"none of the teacher's {self.progress.done} replies names a label (the first: "
            f"'{self.progress.example}'); check model, base_url and prompt, then ask again with --retry"
        )

    def _out_of_budget(self, call: Call) -> None:
        if not self._goes_on():
            return
        self.progress.stopped = "budget"
        if not self.progress.done and self.error is None:
            self.error = BudgetError(
                f"nothing was asked: a request can cost up to ${call.at_most_usd:.4f}, and of the budget of "
                f"${self.budget:g} for this project not so much is left; see 'fingerpost status', raise --budget"
            )


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
                ids = await asyncio.to_thread(self._ledger.book, settled, [call for call, _ in wanted], self._budget)
            except BaseException as error:
                for _, _, done in batch:
                    done.set_exception(error)
                raise
            for (_, done), call_id in zip(wanted, ids, strict=True):
                done.set_result(call_id)
            for _, call, done in batch:
                if call is None:
                    done.set_result(None)
