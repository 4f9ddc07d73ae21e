"""What a step asks a language model for, and how far a run of requests is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from fingerpost.core.errors import BudgetError, TaskError, TeacherError
from fingerpost.core.text import shorten
from fingerpost.core.types import Progress, Usage, Verdict
from fingerpost.llm import gguf
from fingerpost.llm.completion import Chat, Reply, Schema
from fingerpost.store.ledger import WriterReply
from fingerpost.task.settings import Task, TeacherSettings

UNUSABLE_LIMIT = 10  # after so many replies without a usable one, the run ends
BYTES_PER_TOKEN = 4.0  # of English; for the estimate only, the budget assumes a token per byte

J = TypeVar("J", contravariant=True)

Key: TypeAlias = list[Any]
"""Identifies a job, as JSON: also when its reply comes back from a batch, days later."""


class RequestSpec(Protocol[J]):
    """The requests of one step, and what is stored of a reply.

    Attributes:
        step: the step's name in the ledger.
        expected: what a usable reply does, for messages ("names a label").
        retry: how to ask again once the model is fixed, for messages.
        temperature: sampling temperature of the requests.
    """

    @property
    def step(self) -> str: ...

    @property
    def expected(self) -> str: ...

    @property
    def retry(self) -> str: ...

    @property
    def temperature(self) -> float: ...

    def request(self, job: J) -> tuple[Chat, Schema]:
        """The chat messages, and the JSON schema of the reply."""
        ...

    def key(self, job: J) -> Key:
        """The job's key."""
        ...

    def keep(self, key: Key, reply: Reply) -> tuple[Verdict | WriterReply | None, bool]:
        """What is stored of a reply, and whether the reply was usable."""
        ...


@dataclass(slots=True)
class RunProgress:
    """How far a run of requests is, and its result when it has ended.

    Attributes:
        total, done: requests planned and answered; `usable` and `unusable` replies add up to `done`.
        cost_usd: US dollars of this run.
        stopped: why the run ended early.
        example: the first unusable reply.
    """

    total: int
    done: int = 0
    usable: int = 0
    unusable: int = 0
    cost_usd: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    stopped: Literal["", "budget", "interrupted"] = ""
    example: str = ""

    @property
    def rate(self) -> float:
        """Answers per second so far."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def count(self, reply: Reply, usage: Usage, usable: bool) -> None:
        """Add a reply."""
        self.done += 1
        self.usable += usable
        self.unusable += not usable
        self.cost_usd += usage.cost_usd or 0.0
        self.prompt_tokens += usage.prompt or 0
        self.cached_tokens += usage.cached or 0
        if not usable and not self.example:
            self.example = shorten(reply.text or reply.refusal or "", 80)

    def report(self, step: str) -> Progress:
        """What a progress callback gets; `data` is this object."""
        return Progress(step, done=self.done, total=self.total, cost_usd=self.cost_usd, data=self)


def teacher_of(task: Task) -> TeacherSettings:
    """The task's teacher.

    Raises:
        TaskError: the task has none.
    """
    if task.teacher is None:
        raise TaskError('the task has no teacher: add to task.toml a table [teacher] with a line model = "..."')
    return task.teacher


@contextmanager
def teacher_endpoint(teacher: TeacherSettings, folder: Path) -> Iterator[TeacherSettings]:
    """Settings with an address that can be asked: a GGUF file is served for as long as the context lasts.

    Raises:
        TeacherError: the model cannot be started.
    """
    if not teacher.gguf or teacher.recorded:
        yield teacher
        return
    with gguf.serving(folder / Path(teacher.gguf).expanduser()) as url:
        yield teacher.model_copy(update={"base_url": url, "concurrency": 1})


def all_unusable(spec: RequestSpec[Any], progress: RunProgress) -> TeacherError:
    """The error for a model of whose replies none is usable."""
    return TeacherError(
        f"none of the teacher's {progress.done} replies {spec.expected} (the first: '{progress.example}'); "
        f"check model, base_url and prompt, {spec.retry}"
    )


def out_of_budget(at_most_usd: float, budget_usd: float | None) -> BudgetError:
    """The error for a budget that has no room for a single request."""
    return BudgetError(
        f"nothing was asked: a request can cost up to ${at_most_usd:.4f}, and less than that is left of the budget of "
        f"${budget_usd:g} for this project; see 'fingerpost status', raise --budget"
    )
