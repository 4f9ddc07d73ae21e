"""Has the teacher label questions, within rate limits and the budget, directly or as a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.types import ProgressCallback, Usage, no_progress
from fingerpost.labelling.requests import EVERYTHING, LabelJob, LabelRequests, LabelSelection, open_jobs
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
        made_after: the number of the newest verdict when the plan was made.
    """

    jobs: tuple[LabelJob, ...]
    prompt_tokens: int
    about_usd: float
    at_most_usd: float
    made_after: int


def plan_labels(task: Task, store: Store, selection: LabelSelection = EVERYTHING, *, batch: bool = False) -> LabelPlan:
    """The requests that are still to be sent, and their cost. With `batch`, batch prices apply.

    Raises:
        TaskError: the task has no teacher, or fewer label orders than votes.
        TeacherError: the model's price is not known.
    """
    last = store.last_verdict()
    return plan_of(task, open_jobs(task, store, selection), last, batch=batch)


def plan_of(task: Task, jobs: Sequence[LabelJob], made_after: int, *, batch: bool = False) -> LabelPlan:
    """These requests and their cost. With `batch`, batch prices apply.

    Args:
        made_after: the number of the newest verdict when the requests were chosen.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: the model's price is not known.
    """
    teacher = teacher_of(task)
    spec, discount = LabelRequests(task), teacher.batch_price if batch else 1.0
    sizes = [request_bytes(*spec.request(job)) for job in jobs]
    tokens = round(sum(sizes) / BYTES_PER_TOKEN)
    typical = Usage(prompt=tokens, cached=0, completion=REPLY_TOKENS * len(jobs))
    return LabelPlan(
        jobs=tuple(jobs),
        prompt_tokens=tokens,
        about_usd=discount * prices.cost(teacher, typical),
        at_most_usd=discount * sum(prices.at_most(teacher, size) for size in sizes),
        made_after=made_after,
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
    requests are submitted as a new batch. What another process has asked since the plan was made is not asked again.

    Args:
        folder: the project's folder, which recordings and GGUF files are relative to.
        budget_usd: limit in US dollars on the total cost of the project, past costs included.
        record: a file to append the teacher's answers to.

    Raises:
        TeacherError: the teacher cannot be used, or none of its replies names a label.
        BudgetError: the budget has no room for a single request.
        InputError: another process is asking the teacher, or the database cannot be written.
    """
    from fingerpost.llm.batch import run_requests_or_batch  # imports the client library, which takes half a second

    with store.asking_teacher(), teacher_endpoint(teacher_of(task), folder) as teacher:
        answered = store.answered_since(plan.made_after, teacher.model)
        return run_requests_or_batch(
            LabelRequests(task),
            [job for job in plan.jobs if (job.question.id, job.order) not in answered],
            store,
            teacher,
            folder,
            batch=batch,
            budget_usd=budget_usd,
            record=record,
            on_progress=on_progress,
        )
