"""The requests that ask the teacher for labels, and its replies as verdicts."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from fingerpost.core.errors import TaskError
from fingerpost.core.types import Question, Split, Verdict
from fingerpost.llm.completion import Chat, Reply, Schema
from fingerpost.llm.requests import Key, teacher_of
from fingerpost.store.project import Store
from fingerpost.task.prompt import label_order, order_number, prompt_fingerprint, render, schema
from fingerpost.task.replies import parse
from fingerpost.task.settings import Task

STEP = "label"
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A question, and the number of the label order that it is asked in."""

    question: Question
    order: int


@dataclass(frozen=True, slots=True)
class LabelSelection:
    """Which questions the teacher is asked about. What it has answered already is left out.

    Attributes:
        votes: label orders that each question is asked in.
        splits: only questions of these splits.
        limit: ask about this many questions at most.
        retry: ask again where the reply named no label.
        again: ask again where the answer was given to an earlier prompt.
        only: only questions with these ids.
    """

    votes: int = 1
    splits: tuple[Split, ...] = SPLITS
    limit: int | None = None
    retry: bool = False
    again: bool = False
    only: Container[str] | None = None


EVERYTHING = LabelSelection()


def order_count(task: Task) -> int:
    """The number of label orders in use: the teacher's setting, but no more than there are labels."""
    return min(teacher_of(task).orders, len(task.labels))


def open_jobs(task: Task, store: Store, selection: LabelSelection = EVERYTHING) -> list[LabelJob]:
    """The requests that are still to be sent, sorted by label order so that the prompt cache stays warm.

    Requests in a batch that has not been fetched are left out.

    Raises:
        TaskError: the task has no teacher, or fewer label orders than votes.
    """
    teacher, orders = teacher_of(task), order_count(task)
    if selection.votes > orders:
        raise TaskError(
            f"--votes {selection.votes} needs as many label orders; set orders = {selection.votes} in [teacher] "
            f"(it is {orders})"
        )
    answered: dict[str, set[int | None]] = {}
    prompt = prompt_fingerprint(task) if selection.again else None
    for question_id, order, labelled in store.answered(teacher.model, prompt):
        if labelled or not selection.retry:
            answered.setdefault(question_id, set()).add(order)
    for question_id, order, _ in store.batch_keys(STEP, teacher.model):
        answered.setdefault(question_id, set()).add(order)
    jobs: list[LabelJob] = []
    limit = selection.limit
    for question in store.questions(*selection.splits):
        done = answered.get(question.id, set())
        missing = selection.votes - len(done)
        if missing <= 0 or (selection.only is not None and question.id not in selection.only):
            continue
        if limit is not None and (limit := limit - 1) < 0:
            break
        free = [
            order for vote in range(selection.votes) if (order := order_number(question.id, vote, orders)) not in done
        ]
        jobs += [LabelJob(question, order) for order in free[:missing]]
    return sorted(jobs, key=lambda job: job.order)


class LabelRequests:
    """The requests of the step `label`; a `RequestSpec`."""

    step, expected, retry, temperature = STEP, "names a label", "then ask again with --retry", 0.0

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
