"""What a step asks a language model for, the progress of a run, and the cost of a reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from fingerpost.core.errors import BudgetError, TaskError, TeacherError
from fingerpost.core.text import shorten
from fingerpost.core.types import Usage, Verdict
from fingerpost.llm import gguf, prices
from fingerpost.llm.completion import Reply
from fingerpost.store.ledger import WriterReply
from fingerpost.task.settings import Task, TeacherSettings

NONSENSE = 10  # so many replies without a single usable one, and the model is not asked on

BYTES_A_TOKEN = 4.0  # of English; only for the estimate, the budget reckons with bytes

J = TypeVar("J", contravariant=True)

Key: TypeAlias = list[Any]
"""What a job is known by, as JSON: also when it comes back from a batch, days later."""

Chat = list[dict[str, str]]

Schema = dict[str, Any]


class RequestSpec(Protocol[J]):
    """What a step asks for, and what it makes of a reply.

    For messages: `wants` says what a usable reply does, `after` what to do when the model has been mended.
    """

    @property
    def step(self) -> str: ...

    @property
    def wants(self) -> str: ...

    @property
    def after(self) -> str: ...

    @property
    def temperature(self) -> float: ...

    def request(self, job: J) -> tuple[Chat, Schema]:
        """The chat messages, and the JSON schema of the reply."""
        ...

    def key(self, job: J) -> Key: ...

    def keep(self, key: Key, reply: Reply) -> tuple[Verdict | WriterReply | None, bool]:
        """What is stored of a reply, and whether it was of use."""
        ...


@dataclass(slots=True)
class RunProgress:
    """Where asking stands: replies of use and others. `stopped` says why it ended before its time."""

    total: int
    done: int = 0
    useful: int = 0
    useless: int = 0
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


Show = Callable[[RunProgress], None]


def teacher_of(task: Task) -> TeacherSettings:
    """The task's teacher.

    Raises:
        TaskError: it has none.
    """
    if task.teacher is None:
        raise TaskError('the task has no teacher: add to task.toml a table [teacher] with a line model = "..."')
    return task.teacher


@contextmanager
def teacher_endpoint(teacher: TeacherSettings, folder: Path) -> Iterator[TeacherSettings]:
    """The settings by which the model can be asked: a GGUF file is served for as long as the context lasts.

    Raises:
        TeacherError: it cannot be started.
    """
    if not teacher.gguf or teacher.recorded:
        yield teacher
        return
    with gguf.serving(folder / Path(teacher.gguf).expanduser()) as url:
        yield teacher.model_copy(update={"base_url": url, "concurrency": 1})


def size(messages: Chat, schema: Schema) -> int:
    """UTF-8 bytes of a request, with room for the chat format's own tokens."""
    return sum(len(turn["content"].encode()) + 16 for turn in messages) + len(str(schema)) + 64


def cost_of(teacher: TeacherSettings, reply: Reply, at_most_usd: float) -> Usage:
    """What a reply took, with its cost: by the endpoint's own count of tokens; without one, the most it can have been."""
    if reply.rejected:
        return replace(reply.usage, cost_usd=0.0)
    counted = reply.usage.prompt is not None
    return replace(reply.usage, cost_usd=prices.cost(teacher, reply.usage) if counted else at_most_usd)


def nonsense(work: RequestSpec[Any], progress: RunProgress) -> TeacherError:
    """None of so many replies is of use."""
    return TeacherError(
        f"none of the teacher's {progress.done} replies {work.wants} (the first: '{progress.example}'); "
        f"check model, base_url and prompt, {work.after}"
    )


def count(progress: RunProgress, reply: Reply, usage: Usage, useful: bool) -> None:
    """Add a reply to where asking stands."""
    progress.done += 1
    progress.useful += useful
    progress.useless += not useful
    progress.cost_usd += usage.cost_usd or 0.0
    progress.prompt_tokens += usage.prompt or 0
    progress.cached_tokens += usage.cached or 0
    if not useful and not progress.example:
        progress.example = shorten(reply.text or reply.refusal or "", 80)


def out_of_budget(at_most_usd: float, budget_usd: float | None) -> BudgetError:
    """Not even one request fits."""
    return BudgetError(
        f"nothing was asked: a request can cost up to ${at_most_usd:.4f}, and of the budget of "
        f"${budget_usd:g} for this project not so much is left; see 'fingerpost status', raise --budget"
    )
