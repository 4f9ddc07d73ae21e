"""The requests of a step, the progress of a run of requests, and the errors that end a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from fingerpost.core.errors import BudgetError, TaskError, TeacherError
from fingerpost.core.text import fingerprint, shorten
from fingerpost.core.types import Progress, Usage, Verdict
from fingerpost.llm import gguf
from fingerpost.llm.completion import Chat, Reply, Schema
from fingerpost.store.ledger import WriterReply
from fingerpost.task.settings import Task, TeacherSettings

UNUSABLE_LIMIT = 10  # the run ends if none of this many first replies is usable
BYTES_PER_TOKEN = 4.0  # of English; only for cost estimates, the budget assumes one token per byte

J = TypeVar("J", contravariant=True)
J_co = TypeVar("J_co", covariant=True)


class Jobs(Protocol[J_co]):
    """Jobs whose number is known, and which may be read from a database one after the other."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[J_co]: ...


Key: TypeAlias = list[Any]
"""A JSON list that identifies a job. It is stored with a batch, whose replies may arrive days later."""


def lease_key(step: str, model: str, key: Key) -> str:
    """The key in the ledger of a job's call: equal for calls that ask the same of the same model."""
    return fingerprint([step, model, *map(str, key)])


class RequestSpec(Protocol[J]):
    """Builds the requests of one step, and turns replies into records to store.

    Attributes:
        step: the step's name in the ledger.
        expected: the property of a usable reply, as a verb phrase for messages, such as "names a label".
        retry: how to run the step again once the model is fixed, for messages.
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
        """The chat messages of a job, and the JSON schema of the reply."""
        ...

    def key(self, job: J) -> Key:
        """The job's key."""
        ...

    def keep(self, key: Key, reply: Reply) -> tuple[Verdict | WriterReply | None, bool]:
        """The record to store for a reply, if any, and whether the reply is usable."""
        ...


@dataclass(slots=True)
class RunProgress:
    """The progress of a run of requests, and its result once it has ended.

    Attributes:
        total, done: requests planned and answered.
        usable, unusable: replies by whether they are usable; they add up to `done`.
        cost_usd: cost of this run in US dollars.
        prompt_tokens, cached_tokens: prompt tokens, and those of them that were cached.
        elsewhere: requests left out, because another process or a batch has asked or is asking them.
        started: time of the start, by the monotonic clock, in seconds.
        stopped: why the run ended early, or an empty string.
        example: the first unusable reply, shortened.
    """

    total: int
    done: int = 0
    usable: int = 0
    unusable: int = 0
    cost_usd: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    elsewhere: int = 0
    started: float = field(default_factory=time.monotonic)
    stopped: Literal["", "budget", "interrupted"] = ""
    example: str = ""

    @property
    def rate(self) -> float:
        """Replies per second so far."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def count(self, reply: Reply, usage: Usage, usable: bool) -> None:
        """Count a reply."""
        self.done += 1
        self.usable += usable
        self.unusable += not usable
        self.cost_usd += usage.cost_usd or 0.0
        self.prompt_tokens += usage.prompt or 0
        self.cached_tokens += usage.cached or 0
        if not usable and not self.example:
            self.example = shorten(reply.text or reply.refusal or "", 80)

    def report(self, step: str) -> Progress:
        """The progress as a callback receives it; `data` is this object."""
        detail = f"{self.rate:.1f}/s, ${self.cost_usd:.4f}, {self.unusable:,} without a label"
        done = self.done + self.elsewhere
        return Progress(step, done=done, total=self.total, cost_usd=self.cost_usd, data=self, detail=detail)


def teacher_of(task: Task) -> TeacherSettings:
    """The settings of the task's teacher.

    Raises:
        TaskError: the task has no teacher.
    """
    if task.teacher is None:
        raise TaskError('the task has no teacher; add a table [teacher] with a line model = "..." to task.toml')
    return task.teacher


@contextmanager
def teacher_endpoint(teacher: TeacherSettings, folder: Path) -> Iterator[TeacherSettings]:
    """Teacher settings with a reachable endpoint. A GGUF file is served while the context is open.

    Raises:
        MissingExtra: the model is a GGUF file, and the extra `local-teacher` is not installed.
        TeacherError: the model cannot be started.
    """
    if not teacher.gguf or teacher.recorded:
        yield teacher
        return
    with gguf.serving(folder / Path(teacher.gguf).expanduser()) as url:
        yield teacher.model_copy(update={"base_url": url, "concurrency": 1})


def all_unusable(spec: RequestSpec[Any], progress: RunProgress) -> TeacherError:
    """The error for a run without a single usable reply."""
    return TeacherError(
        f"none of the teacher's {progress.done} replies {spec.expected} (the first: '{progress.example}'); "
        f"check model, base_url and prompt, {spec.retry}"
    )


def out_of_budget(at_most_usd: float, budget_usd: float | None) -> BudgetError:
    """The error for a budget without room for a single request."""
    return BudgetError(
        f"no request was sent: one may cost up to ${at_most_usd:.4f}, more than is left of the budget of "
        f"${format(budget_usd or 0.0, '.6f').rstrip('0').rstrip('.')}; raise --budget, or see 'fingerpost status'"
    )
