"""Builds the requests that ask the teacher for labels, and turns its replies into verdicts."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from fingerpost.core.errors import TaskError
from fingerpost.core.text import fingerprint
from fingerpost.core.types import Question, Split, Verdict
from fingerpost.core.verdicts import WITH_EXAMPLES
from fingerpost.llm.completion import Chat, Reply, Schema
from fingerpost.llm.requests import Key, teacher_of
from fingerpost.store.project import Store
from fingerpost.task.prompt import Shots, label_order, order_number, prompt_fingerprint, render, schema
from fingerpost.task.replies import parse
from fingerpost.task.settings import Task

STEP = "label"
SHOTS = "+"
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A question, the index of the label order to ask it in, and the examples that its prompt shows."""

    question: Question
    order: int
    shots: Shots = ()


@dataclass(frozen=True, slots=True)
class LabelSelection:
    """Selects the questions that the teacher is asked. Questions that it has already answered are left out.

    Attributes:
        votes: number of answers per question, each with a different label order.
        splits: only questions of these splits.
        limit: maximum number of questions.
        retry: repeat requests whose reply named no label.
        again: repeat requests that were answered with an earlier prompt.
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
    """The number of label orders in use: the teacher's setting, but at most the number of labels.

    Raises:
        TaskError: the task has no teacher.
    """
    return min(teacher_of(task).orders, len(task.labels))


def open_jobs(task: Task, store: Store, selection: LabelSelection = EVERYTHING) -> list[LabelJob]:
    """The requests that are still to be sent, sorted by label order to make use of the prompt cache.

    Requests in a batch that was not fetched yet are left out.

    Raises:
        TaskError: the task has no teacher, or fewer label orders than votes.
    """
    teacher, orders = teacher_of(task), order_count(task)
    if selection.votes > orders:
        raise TaskError(
            f"--votes {selection.votes} needs {selection.votes} label orders, but there are {orders}; "
            f"set orders = {selection.votes} in [teacher]"
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
        answered_orders = answered.get(question.id, set())
        missing = selection.votes - len(answered_orders)
        if missing <= 0 or (selection.only is not None and question.id not in selection.only):
            continue
        if limit is not None and (limit := limit - 1) < 0:
            break
        open_orders = [
            order
            for vote in range(selection.votes)
            if (order := order_number(question.id, vote, orders)) not in answered_orders
        ]
        jobs += [LabelJob(question, order) for order in open_orders[:missing]]
    return sorted(jobs, key=lambda job: job.order)


def jobs_with_shots(task: Task, store: Store, found: Sequence[tuple[Question, Shots]]) -> list[LabelJob]:
    """The requests that ask questions again with examples, in each label order that the teacher has answered.

    Requests in a batch that was not fetched yet are left out.

    Raises:
        TaskError: the task has no teacher.
    """
    teacher, orders = teacher_of(task), order_count(task)
    answered: dict[str, set[int]] = {}
    for question_id, order, _ in store.answered(teacher.model):
        if order is not None and order < orders:
            answered.setdefault(question_id, set()).add(order)
    waiting = {(key, order) for key, order, _ in store.batch_keys(STEP, teacher.model)}
    jobs: list[LabelJob] = []
    for question, shots in found:
        for order in sorted(answered.get(question.id) or {order_number(question.id, 0, orders)}):
            if (question.id, order) not in waiting:
                jobs.append(LabelJob(question, order, shots))
    return sorted(jobs, key=lambda job: job.order)


def fingerprint_with(prompt: str, shots: Shots) -> str:
    """The fingerprint of a prompt, and after SHOTS that of its examples, if there are any."""
    if not shots:
        return prompt
    return prompt + SHOTS + fingerprint(f"{text}\x1f{answer}" for text, answer in shots)


class LabelRequests:
    """The `RequestSpec` of the step `label`."""

    step, expected, retry, temperature = STEP, "names a label", "then ask again with --retry", 0.0

    def __init__(self, task: Task) -> None:
        self._task, self._schema, self._prompt = task, schema(task), prompt_fingerprint(task)
        orders = order_count(task)
        self._orders = [label_order(task, number, orders) for number in range(orders)]

    def request(self, job: LabelJob) -> tuple[Chat, Schema]:
        """The chat messages of a job, and the JSON schema of the reply."""
        return render(self._task, job.question.messages, self._orders[job.order], shots=job.shots), self._schema

    def key(self, job: LabelJob) -> Key:
        """The id of the question, the label order and the fingerprint of the prompt."""
        return [job.question.id, job.order, fingerprint_with(self._prompt, job.shots)]

    def keep(self, key: Key, reply: Reply) -> tuple[Verdict, bool]:
        """The reply as a verdict, and whether it names a label."""
        question_id, order, prompt = key
        label = parse(self._task, reply.text)
        verdict = Verdict(
            question_id,
            "teacher",
            teacher_of(self._task).model,
            label,
            origin=WITH_EXAMPLES if SHOTS in prompt else STEP,
            prompt=prompt,
            order=order,
            raw=reply.text if reply.text else reply.refusal,
            logprob=reply.logprob,
        )
        return verdict, label is not None
