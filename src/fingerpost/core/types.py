"""The types that every package uses: labels, questions, verdicts, examples, predictions.

Data and its validation only: nothing here opens a file, a database or a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Split: TypeAlias = Literal["train", "dev", "test", "excluded"]
"""`excluded`: a near-duplicate of questions in another split. It is stored but not used."""


class Strict(BaseModel):
    """Base class of settings files: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(Strict):
    """A class that questions are sorted into: name, description, and the application's own code for it, if any."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    code: int | str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is `user` or `assistant`."""

    role: str
    content: str


Conversation: TypeAlias = tuple[Message, ...]
"""One or more turns; the last is the user's message to classify."""


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation to classify. A stored question never changes."""

    id: str
    messages: Conversation
    source: str
    group: str
    split: Split


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call of a model used: tokens (`cached` is part of `prompt`), US dollars, seconds. None: not known."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A label for a question from a teacher, a human or the model that wrote it. A stored verdict never changes.

    Attributes:
        kind: `writer` is the model that generated the question; its label is the one it generated the question for.
        by: the name of the model or human.
        label: None if the reply names none of the task's labels, or a human decided that none fits.
        origin: the step that the verdict comes from.
        prompt: fingerprint of the prompt.
        order: number of the label order in that prompt.
        raw: the unparsed reply.
        logprob: log-probability of the whole reply, in nats.
        mark: verdicts with the same mark were given together and can be withdrawn together.
        note: a human's comment.
        draft, item: of a writer, the id of the draft and the position in it of the item that the question was written for.
    """

    question_id: str
    kind: Literal["teacher", "human", "writer"]
    by: str
    label: str | None
    origin: str = "import"
    prompt: str | None = None
    order: int | None = None
    raw: str | None = None
    logprob: float | None = None
    usage: Usage = Usage()
    at: datetime | None = None
    mark: str | None = None
    note: str | None = None
    draft: int | None = None
    item: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: a conversation, a probability for each label, a weight."""

    id: str
    messages: Conversation
    target: dict[str, float]
    weight: float = 1.0
    group: str = ""

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.target, key=self.target.__getitem__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer: the label (None if it names none), its probability, and the score of every label."""

    label: str | None
    confidence: float
    scores: dict[str, float] = field(default_factory=dict)
    by: str = ""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a running step.

    Attributes:
        step: the step's name, such as "label" or "train".
        message: one line for humans; may be empty.
        done, total: finished units of work (requests, texts, epochs), and how many there are; None where unknown.
        cost_usd: US dollars spent by this run so far.
        data: the step's own record of what just finished: a generation round, the metrics of a training epoch.
    """

    step: str
    message: str = ""
    done: int = 0
    total: int | None = None
    cost_usd: float = 0.0
    data: Any = None


ProgressCallback: TypeAlias = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """A callback that ignores all progress."""


class Predictor(Protocol):
    """The interface of all models in evaluation and serving: teacher, baseline, student, or a cascade of them."""

    @property
    def name(self) -> str: ...

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        """One prediction for each conversation, in order. A plain string is one user message."""
        ...
