"""Builds the requests that ask the teacher for labels, and turns its replies into verdicts."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import TaskError
from fingerpost.core.text import fingerprint
from fingerpost.core.types import Conversation, Question, Split, Verdict
from fingerpost.core.utils import chunks
from fingerpost.core.verdicts import WITH_EXAMPLES
from fingerpost.llm.completion import Chat, Reply, Schema
from fingerpost.llm.requests import Key, teacher_of
from fingerpost.store.project import Store
from fingerpost.task.prompt import (
    Shots,
    decision_question,
    label_order,
    order_number,
    prompt_fingerprint,
    render,
    schema,
)
from fingerpost.task.replies import label_probabilities, parse
from fingerpost.task.settings import Task

STEP = "label"
SHOTS = "+"
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
CHUNK = 1_000
"""Questions that are read at once."""


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A question, the index of the label order to ask it in, and the examples that its prompt shows."""

    question: Question
    order: int
    shots: Shots = ()


class OpenJobs:
    """Requests that are still to be sent. The questions stay in the store, so that a million requests take 18 MB.

    Args:
        jobs: (question id, index of the label order) of each request.
        planned_at: `Ledger.settled` when they were chosen.
        shots: the examples in the prompts, by question id.
    """

    def __init__(
        self, jobs: Iterator[tuple[str, int]], planned_at: int, shots: Mapping[str, Shots] | None = None
    ) -> None:
        parts = [np.array(part, dtype=_JOB) for part in chunks(jobs, CHUNK)]
        found = np.concatenate(parts) if parts else np.empty(0, dtype=_JOB)
        self._jobs: NDArray[np.void] = found[np.argsort(found["order"], kind="stable")]  # to use the prompt cache
        self._shots = shots or {}
        self.planned_at = planned_at

    def __len__(self) -> int:
        return len(self._jobs)

    def read(self, store: Store) -> ReadJobs:
        """The requests with their questions, sorted by label order."""
        return ReadJobs(self._jobs, self._shots, store)


_JOB = np.dtype([("question", "S16"), ("order", "<u2")])


class ReadJobs:
    """Requests with their questions, which are read from the store chunk by chunk."""

    def __init__(self, jobs: NDArray[np.void], shots: Mapping[str, Shots], store: Store) -> None:
        self._jobs, self._shots, self._store = jobs, shots, store

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[LabelJob]:
        for start in range(0, len(self._jobs), CHUNK):
            part = [(key.decode(), order) for key, order in self._jobs[start : start + CHUNK].tolist()]
            found = {question.id: question for question in self._store.questions_by_id({key for key, _ in part})}
            for key, order in part:
                yield LabelJob(found[key], order, self._shots.get(key, ()))


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


def open_jobs(task: Task, store: Store, selection: LabelSelection = EVERYTHING) -> OpenJobs:
    """The requests that are still to be sent.

    Requests in a batch that was not fetched yet are left out.

    Raises:
        TaskError: the task has no teacher, or fewer label orders than votes.
    """
    orders = order_count(task)
    if selection.votes > orders:
        raise TaskError(
            f"--votes {selection.votes} needs {selection.votes} label orders, but there are {orders}; "
            f"set orders = {selection.votes} in [teacher]"
        )
    planned_at = store.ledger.settled
    return OpenJobs(_open_jobs(task, store, selection, orders), planned_at)


def _open_jobs(task: Task, store: Store, selection: LabelSelection, orders: int) -> Iterator[tuple[str, int]]:
    teacher, limit = teacher_of(task).model, selection.limit
    prompt = prompt_fingerprint(task) if selection.again else None
    in_batches = {(key, order) for key, order, _ in store.batch_keys(STEP, teacher)}
    for part in chunks(store.question_ids(*selection.splits), CHUNK):
        answered: dict[str, set[int | None]] = {key: set() for key in part}
        for key, order, labelled in store.answered(teacher, part, prompt):
            if labelled or not selection.retry:
                answered[key].add(order)
        for key in part:
            if selection.only is not None and key not in selection.only:
                continue
            drawn = [order_number(key, vote, orders) for vote in range(selection.votes)]
            asked = answered[key] | {order for order in drawn if (key, order) in in_batches}
            missing = selection.votes - len(asked)
            if missing <= 0:
                continue
            if limit is not None and (limit := limit - 1) < 0:
                return
            yield from [(key, order) for order in drawn if order not in asked][:missing]


def jobs_with_shots(task: Task, store: Store, found: Sequence[tuple[Question, Shots]]) -> OpenJobs:
    """The requests that ask questions again with examples, in each label order that the teacher has answered.

    Requests in a batch that was not fetched yet are left out.

    Raises:
        TaskError: the task has no teacher.
    """
    teacher, orders, planned_at = teacher_of(task), order_count(task), store.ledger.settled
    answered: dict[str, set[int]] = {}
    for key, order, _ in store.answered(teacher.model, [question.id for question, _ in found]):
        if order is not None and order < orders:
            answered.setdefault(key, set()).add(order)
    waiting = {(key, order) for key, order, _ in store.batch_keys(STEP, teacher.model)}
    jobs = [
        (question.id, order)
        for question, _ in found
        for order in sorted(answered.get(question.id) or {order_number(question.id, 0, orders)})
        if (question.id, order) not in waiting
    ]
    return OpenJobs(iter(jobs), planned_at, {question.id: shots for question, shots in found})


def label_request(task: Task, messages: Conversation, order: Sequence[str], shots: Shots = ()) -> tuple[Chat, Schema]:
    """The chat messages that ask the teacher for a label, and the JSON schema of the reply; or the question, of the Decisions API.

    Args:
        order: label names in the order to list them.
        shots: examples in the prompt.

    Raises:
        TaskError: the task has no teacher, or one that cannot answer with several labels.
    """
    if teacher_of(task).api == "decisions":
        return decision_question(task, messages, order, shots)
    return render(task, messages, order, shots=shots), schema(task)


def fingerprint_with(prompt: str, shots: Shots) -> str:
    """The fingerprint of a prompt, and after SHOTS that of its examples, if there are any."""
    if not shots:
        return prompt
    return prompt + SHOTS + fingerprint(f"{text}\x1f{answer}" for text, answer in shots)


class LabelRequests:
    """The `RequestSpec` of the step `label`."""

    step, expected, retry, temperature = STEP, "names a label", "then ask again with --retry", 0.0

    def __init__(self, task: Task) -> None:
        self._task, self._prompt = task, prompt_fingerprint(task)
        orders = order_count(task)
        self._orders = [label_order(task, number, orders) for number in range(orders)]

    def request(self, job: LabelJob) -> tuple[Chat, Schema]:
        """The chat messages of a job, and the JSON schema of the reply; or the question, of the Decisions API."""
        return label_request(self._task, job.question.messages, self._orders[job.order], job.shots)

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
            probabilities=label_probabilities(self._task, reply.probabilities),
        )
        return verdict, label is not None
