"""The teacher labels what it has not labelled yet, within the limits and the budget, at once or as a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.types import Usage
from fingerpost.labelling.requests import EVERYTHING, LabelJob, LabelRequests, LabelSelection, open_jobs
from fingerpost.llm import prices
from fingerpost.llm.batch import run_requests_or_batch
from fingerpost.llm.requests import BYTES_A_TOKEN, RunProgress, Show, size, teacher_endpoint, teacher_of
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

REPLY_TOKENS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be asked, and about what it would take. `at_most_usd` is what no bill can exceed."""

    jobs: tuple[LabelJob, ...]
    prompt_tokens: int
    about_usd: float
    at_most_usd: float


def plan(task: Task, store: Store, wanted: LabelSelection = EVERYTHING, *, batch: bool = False) -> Plan:
    """What is still to be asked, with its cost: as a batch, at the batch's price.

    Raises:
        TaskError: no teacher, or more votes than label orders.
        TeacherError: no price is known.
    """
    teacher = teacher_of(task)
    jobs = open_jobs(task, store, wanted)
    does, share = LabelRequests(task), teacher.batch_price if batch else 1.0
    sizes = [size(*does.request(job)) for job in jobs]
    tokens = round(sum(sizes) / BYTES_A_TOKEN)
    return Plan(
        jobs=tuple(jobs),
        prompt_tokens=tokens,
        about_usd=share * prices.cost(teacher, Usage(prompt=tokens, cached=0, completion=REPLY_TOKENS * len(jobs))),
        at_most_usd=share * sum(prices.at_most(teacher, each) for each in sizes),
    )


def label(
    task: Task,
    store: Store,
    planned: Plan,
    folder: Path,
    *,
    budget_usd: float | None = None,
    record: Path | None = None,
    batch: bool = False,
    on_progress: Show = lambda _: None,
    show: Callable[[str], None] = lambda _: None,
) -> RunProgress:
    """Ask the teacher. Ctrl-C lets the requests in flight finish; the budget ends it with `stopped`.

    With `batch`, what is planned is handed in as a batch, and an earlier one is fetched.

    Raises:
        TeacherError: the teacher cannot be used, or its replies name no label.
        BudgetError: not even one request fits into the budget.
    """
    does = LabelRequests(task)
    with teacher_endpoint(teacher_of(task), folder) as teacher:
        return run_requests_or_batch(
            does,
            planned.jobs,
            store,
            teacher,
            folder,
            batch=batch,
            budget_usd=budget_usd,
            record=record,
            on_progress=on_progress,
            show=show,
        )
