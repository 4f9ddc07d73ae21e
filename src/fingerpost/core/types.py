"""The types that every package uses: labels, questions, verdicts, examples, predictions.

Data and its validation only: nothing here opens a file, a database or a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, overload

from pydantic import BaseModel, ConfigDict, Field

from fingerpost.core.label_sets import join_labels, split_labels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split: TypeAlias = Literal["train", "dev", "test", "excluded"]
"""`excluded`: a near-duplicate of questions in another split; stored, and used in none."""

Tuning: TypeAlias = Literal["auto", "on", "off"]
"""Whether to fine-tune the encoder; `auto` asks a trial."""
FAST, WHOLE = "fast", "whole"
"""The tiers of a student: its lexical view alone, or all of its views."""


class Strict(BaseModel):
    """Settings that people write: an unknown key is a mistake, not an extra."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(Strict):
    """One destination: its name, what belongs there, and the application's own code for it, if any."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    code: int | str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is `user` or `assistant`."""

    role: str
    content: str


Conversation: TypeAlias = tuple[Message, ...]
"""One or more turns, the last of them the user's: what is to be decided."""


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation to decide on. `id` and `split` never change once they are stored."""

    id: str
    messages: Conversation
    source: str
    group: str
    split: Split


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call of a model took: tokens (`cached` are part of `prompt`), US dollars, seconds."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A label given to a question by a teacher, a human or the model that wrote it; never edited once stored.

    Attributes:
        kind: `writer` is the model that wrote the question; its label is the one that the question was written for.
        by: the model's name, or the human's.
        label: None where the reply named none of the task's labels, or a human says that none fits.
        origin: the step that the verdict comes from.
        prompt: fingerprint of the prompt that was answered.
        order: number of the label order in that prompt.
        raw: the reply as it came.
        logprob: log-probability of the whole reply, in nats.
        probabilities: the probability that a teacher gave each label, where it says more than one label; they sum to 1.
        mark: verdicts with the same mark were given together and can be taken back together.
        note: what a human wrote beside it.
        draft, item: of a writer, the id of the draft and the number of the item in it that the question answers.
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
    probabilities: Mapping[str, float] | None = None

    @property
    def label_shares(self) -> Mapping[str, float]:
        """Its vote, which sums to 1: for its label, or divided by the probabilities; empty without a label."""
        if self.probabilities is not None:
            return self.probabilities
        return {} if self.label is None else {self.label: 1.0}


@dataclass(frozen=True, slots=True)
class Example:
    """What a student learns from: a conversation, a probability for each label, a weight.

    With `multi`, the probabilities are independent of each other, and labels that are missing have probability 0.
    """

    id: str
    messages: Conversation
    target: dict[str, float]
    weight: float = 1.0
    group: str = ""
    multi: bool = False

    @property
    def label(self) -> str:
        """The most probable label; with `multi`, the labels with a probability of at least 0.5 (`core.label_sets`)."""
        if self.multi:
            return join_labels(label for label, probability in self.target.items() if probability >= 0.5)
        return max(self.target, key=self.target.__getitem__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer: label (None where it gave none), its probability, and the score of every label.

    In a multi-label task, `label` is the set of labels as one string (`core.label_sets`), which `labels` splits, and
    `confidence` is the probability that the whole set is right. `tier` is FAST if a student's lexical view answered alone, WHOLE if all of its views did, and empty for other models.
    """

    label: str | None
    confidence: float
    scores: dict[str, float] = field(default_factory=dict)
    by: str = ""
    usage: Usage = Usage()
    tier: str = ""
    multi: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the answer's labels."""
        if self.label is None:
            return ()
        return split_labels(self.label) if self.multi else (self.label,)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running step reports.

    Attributes:
        step: the step's name, such as "label" or "train".
        message: one line for humans, where there is news.
        done, total: finished units of work (requests, texts, epochs), and how many there are; None where unknown.
        cost_usd: US dollars spent by this run so far.
        detail: more figures, such as the rate.
        data: the step's own record of what just finished: a generation round, the metrics of a training epoch.
    """

    step: str
    message: str = ""
    done: int = 0
    total: int | None = None
    cost_usd: float = 0.0
    data: Any = None
    detail: str = ""


ProgressCallback: TypeAlias = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """A callback that ignores all progress."""


class Predictor(Protocol):
    """All that evaluation and serving know of a model: teacher, base, student or a cascade of them.

    Attributes:
        name: what reports call it.
        labels: the names of the labels it chooses from.
        manifest: the model's own description, a `fingerpost.students.folder.Manifest`.
    """

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> list[str]: ...

    @property
    def manifest(self) -> Any: ...

    @overload
    def predict(self, conversations: str) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, conversations: Iterable[str | Sequence[Message | Mapping[str, Any]]]) -> list[Prediction]: ...

    def predict(
        self, conversations: str | Iterable[str | Sequence[Message | Mapping[str, Any]]]
    ) -> Prediction | list[Prediction]:
        """One prediction for each conversation, in order. A plain string is one user message, and gets one prediction."""
        ...

    def predict_proba(
        self, conversations: Iterable[str | Sequence[Message | Mapping[str, Any]]]
    ) -> NDArray[np.float64]:
        """Probabilities, shape (conversations, labels), columns in the order of `labels`; rows sum to 1."""
        ...

    def close(self) -> None:
        """Release what the predictor holds, such as connections."""
        ...
