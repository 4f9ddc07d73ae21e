"""The teacher's decisions: which questions it is still to be asked, in which label order, and its replies as verdicts."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from fingerpost.core.errors import TaskError
from fingerpost.core.types import Question, Split, Verdict
from fingerpost.llm.completion import Reply
from fingerpost.llm.requests import Chat, Key, Schema, teacher_of
from fingerpost.store.project import Store
from fingerpost.task.prompt import label_order, order_number, prompt_fingerprint, render, schema
from fingerpost.task.replies import parse
from fingerpost.task.settings import Task

STEP = "label"
SIDES: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class LabelJob:
    """One question to be asked in one label order."""

    question: Question
    order: int


@dataclass(frozen=True, slots=True)
class LabelSelection:
    """What the teacher is to be asked: every question in `votes` label orders, less what it has answered.

    `limit` is how many questions are asked at most; `retry` asks again what was answered without a label; `again` what
    was answered under another prompt. `only` names the questions, where it is not all of these sides.
    """

    votes: int = 1
    splits: tuple[Split, ...] = SIDES
    limit: int | None = None
    retry: bool = False
    again: bool = False
    only: Container[str] | None = None


EVERYTHING = LabelSelection()


def order_count(task: Task) -> int:
    """How many label orders the task's teacher is asked in: no more than there are labels."""
    return min(teacher_of(task).orders, len(task.labels))


def open_jobs(task: Task, store: Store, wanted: LabelSelection = EVERYTHING) -> list[LabelJob]:
    """What is still to be asked. Jobs of one label order stand together, so that a prompt cache stays warm.

    What lies in a batch at the provider is left out.

    Raises:
        TaskError: no teacher, or more votes than label orders.
    """
    teacher, orders = teacher_of(task), order_count(task)
    if wanted.votes > orders:
        raise TaskError(
            f"--votes {wanted.votes} needs as many label orders; set orders = {wanted.votes} in [teacher] "
            f"(it is {orders})"
        )
    answered: dict[str, set[int | None]] = {}
    prompt = prompt_fingerprint(task) if wanted.again else None
    for question_id, order, labelled in store.answered(teacher.model, prompt):
        if labelled or not wanted.retry:
            answered.setdefault(question_id, set()).add(order)
    for question_id, order, _ in store.batch_keys(STEP, teacher.model):
        answered.setdefault(question_id, set()).add(order)
    jobs: list[LabelJob] = []
    limit = wanted.limit
    for question in store.questions(*wanted.splits):
        done = answered.get(question.id, set())
        missing = wanted.votes - len(done)
        if missing <= 0 or (wanted.only is not None and question.id not in wanted.only):
            continue
        if limit is not None and (limit := limit - 1) < 0:
            break
        free = [order for vote in range(wanted.votes) if (order := order_number(question.id, vote, orders)) not in done]
        jobs += [LabelJob(question, order) for order in free[:missing]]
    return sorted(jobs, key=lambda job: job.order)


class LabelRequests:
    """The work of labelling, as `asking` takes it."""

    step, wants, after, temperature = STEP, "names a label", "then ask again with --retry", 0.0

    def __init__(self, task: Task) -> None:
        self._task, self._schema, self._prompt = task, schema(task), prompt_fingerprint(task)
        orders = order_count(task)
        self._orders = [label_order(task, number, orders) for number in range(orders)]

    def request(self, job: LabelJob) -> tuple[Chat, Schema]:
        return render(self._task, job.question.messages, self._orders[job.order]), self._schema

    def key(self, job: LabelJob) -> Key:
        return [job.question.id, job.order, self._prompt]

    def keep(self, key: Key, reply: Reply) -> tuple[Verdict, bool]:
        question_id, order, prompt = key
        label = parse(self._task, reply.text)
        verdict = Verdict(
            question_id,
            "teacher",
            teacher_of(self._task).model,
            label,
            origin=STEP,
            prompt=prompt,
            order=order,
            raw=reply.text if reply.text else reply.refusal,
            logprob=reply.logprob,
        )
        return verdict, label is not None
