"""Has the teacher label questions, within rate limits and the budget, directly or as a batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.types import ProgressCallback, Usage, no_progress
from fingerpost.labelling.requests import EVERYTHING, LabelRequests, LabelSelection, OpenJobs, open_jobs
from fingerpost.llm import prices
from fingerpost.llm.completion import request_bytes
from fingerpost.llm.requests import BYTES_PER_TOKEN, RunProgress, teacher_endpoint, teacher_of
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

REPLY_TOKENS = 10  # tokens of a typical reply, for the cost estimate


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """The requests to send, and their cost.

    Attributes:
        jobs: the requests.
        prompt_tokens: estimated tokens of all prompts.
        about_usd: estimated cost in US dollars.
        at_most_usd: upper bound of the cost in US dollars.
    """

    jobs: OpenJobs
    prompt_tokens: int
    about_usd: float
    at_most_usd: float


def plan_labels(task: Task, store: Store, selection: LabelSelection = EVERYTHING, *, batch: bool = False) -> LabelPlan:
    """The requests that are still to be sent, and their cost. With `batch`, batch prices apply.

    Raises:
        TaskError: the task has no teacher, or fewer label orders than votes.
        TeacherError: the model's price is not known.
    """
    return plan_of(task, store, open_jobs(task, store, selection), batch=batch)


def plan_of(task: Task, store: Store, jobs: OpenJobs, *, batch: bool = False) -> LabelPlan:
    """These requests and their cost. With `batch`, batch prices apply.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: the model's price is not known.
    """
    teacher = teacher_of(task)
    spec, discount = LabelRequests(task), teacher.batch_price if batch else 1.0
    size, at_most = 0, 0.0
    for job in jobs.read(store):
        job_size = request_bytes(*spec.request(job))
        size += job_size
        at_most += prices.at_most(teacher, job_size)
    tokens = round(size / BYTES_PER_TOKEN)
    typical = Usage(prompt=tokens, cached=0, completion=REPLY_TOKENS * len(jobs))
    return LabelPlan(
        jobs=jobs,
        prompt_tokens=tokens,
        about_usd=discount * prices.cost(teacher, typical),
        at_most_usd=discount * at_most,
    )


def label(
    task: Task,
    store: Store,
    plan: LabelPlan,
    folder: Path,
    *,
    budget_usd: float | None = None,
    record: Path | None = None,
    batch: bool = False,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress:
    """Send the planned requests and store the teacher's answers as verdicts.

    Ctrl-C lets the requests in flight finish. With `batch`, the results of an earlier batch are fetched first, then the
    requests are submitted as a new batch. Other processes may label at the same time: what one of them has asked since the
    plan was made is not asked again.

    Args:
        folder: the project's folder, which recordings and GGUF files are relative to.
        budget_usd: limit in US dollars on the total cost of the project, past costs included.
        record: a file to append the teacher's answers to.

    Raises:
        TeacherError: the teacher cannot be used, or none of its replies names a label.
        BudgetError: the budget has no room for a single request.
        InputError: another process waits for a batch, or the database cannot be written.
    """
    from fingerpost.llm.batch import run_requests_or_batch  # imports the client library, which takes half a second

    with teacher_endpoint(teacher_of(task), folder) as teacher:
        return run_requests_or_batch(
            LabelRequests(task),
            plan.jobs.read(store),
            store,
            teacher,
            folder,
            planned_at=plan.jobs.planned_at,
            batch=batch,
            budget_usd=budget_usd,
            record=record,
            on_progress=on_progress,
        )
