"""The words that all of Fingerpost speaks: what is decided, asked, answered, learnt and measured.

Data and its validation only. Nothing here opens a file, a database or a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Split: TypeAlias = Literal["train", "dev", "test", "aside"]
"""`aside`: a near-duplicate of questions on another side; kept, and used on neither."""


# --- what is decided -------------------------------------------------------------------------------


class Strict(BaseModel):
    """Settings that people write: an unknown key is a mistake, not an extra."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(Strict):
    """One destination: its name, what belongs there, and the application's own code for it, if any."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    code: int | str | None = None


class Prices(Strict):
    """US dollars per million tokens, for models that the price library does not know."""

    input: Annotated[float, Field(ge=0)]
    cached_input: Annotated[float, Field(ge=0)] | None = None
    output: Annotated[float, Field(ge=0)]


class TeacherSettings(Strict):
    """Which LLM is asked, where, and how fast and how dearly it may be asked."""

    model: Annotated[str, Field(min_length=1)]
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    gguf: str | None = None
    recorded: str | None = None
    requests_per_minute: Annotated[int, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[int, Field(gt=0)] | None = None
    concurrency: Annotated[int, Field(gt=0, le=1024)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    max_tokens: Annotated[int, Field(gt=0)] = 64
    orders: Annotated[int, Field(gt=0, le=64)] = 4
    prices: Prices | None = None
    batch_price: Annotated[float, Field(ge=0, le=1)] = 0.5


class SplitSettings(Strict):
    """The share of groups that goes to the test and to the dev side; the rest is for training."""

    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    dev: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> SplitSettings:
        if self.test + self.dev >= 1:
            raise ValueError("test and dev together must leave something to train on")
        return self


class DataFile(Strict):
    """A file of questions that `fingerpost run` imports, and where its questions come from."""

    file: str
    source: str = "user"
    text: str | None = None
    label: str | None = None


class StudentSettings(Strict):
    """What the student starts from and what it sees."""

    encoder: str = "all-MiniLM-L6-v2"
    history: Annotated[int, Field(ge=0)] = 2
    seed: int = 0


class GenerateSettings(Strict):
    """Whom the questions that `generate` has written are for, who asks them, and which models write them.

    `about` says what is asked ("a bank's assistant"). Without writers the teacher writes.
    """

    about: str = ""
    personas: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    writers: tuple[TeacherSettings, ...] = ()


class Task(Strict):
    """What to decide: the content of task.toml."""

    name: Annotated[str, Field(min_length=1)]
    instructions: str = ""
    prompt: str | None = None
    answer_field: Annotated[str, Field(min_length=1)] = "action"
    fallback: str | None = None
    labels: Annotated[tuple[Label, ...], Field(min_length=2)]
    teacher: TeacherSettings | None = None
    data: tuple[DataFile, ...] = ()
    split: SplitSettings = SplitSettings()
    student: StudentSettings = StudentSettings()
    generate: GenerateSettings = GenerateSettings()

    @property
    def names(self) -> list[str]:
        """Label names, in the order of task.toml."""
        return [label.name for label in self.labels]


# --- what is asked and answered --------------------------------------------------------------------


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
    """One opinion on one question; `label` is None where the reply named none of the task's labels.

    A `writer` is the model that wrote the question, its label the one that the question was written for.
    `prompt` is the fingerprint of the prompt that was answered, `order` the number of the label order,
    `logprob` the log-probability of the whole reply. Verdicts with the same `mark` were given at one stroke and
    can be taken back together; `note` is what a person wrote beside it.
    """

    question_id: str
    kind: Literal["teacher", "person", "writer"]
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


@dataclass(frozen=True, slots=True)
class Example:
    """What a student learns from: a conversation, a probability for each label, a weight."""

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
    """A model's answer: label (None where it gave none), its probability, and the score of every label."""

    label: str | None
    confidence: float
    scores: dict[str, float] = field(default_factory=dict)
    by: str = ""
    usage: Usage = Usage()


class Predictor(Protocol):
    """All that evaluation and serving know of a model: teacher, base, student or a mixture of them."""

    @property
    def name(self) -> str: ...

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        """One prediction for each conversation, in order. A plain string is one user message."""
        ...


# --- what is kept and measured ---------------------------------------------------------------------


class ReplyForm(BaseModel):
    """How a reply names its label: `before`, the name or code, `after`. In JSON, a text stands in quotes."""

    model_config = ConfigDict(frozen=True)

    before: str = ""
    after: str = ""
    json_value: bool = False
    codes: bool = False


class Frame(BaseModel):
    """The constant text around what users say, where the application writes its prompt into the user's turn."""

    model_config = ConfigDict(frozen=True)

    before: str = ""
    after: str = ""

    def inside(self, text: str) -> str:
        """The text without its frame; as it is where it has none."""
        found = text.strip()
        if not (found.startswith(self.before) and found.endswith(self.after)):
            return text
        return found[len(self.before) : len(found) - len(self.after)].strip() or text


class Manifest(BaseModel):
    """What a model folder says of itself. `files` maps each file to its SHA-256.

    `reply`, `frame` and `system` are the form of the replies, the text around the users' and the system prompt that the
    training data had, where it was chat JSONL. `hosted` says where a model answers that lies with a provider.
    """

    format: Literal[1] = 1
    kind: str
    name: str
    created: str
    fingerpost: str
    labels: list[Label]
    answer_field: str
    reply: ReplyForm | None = None
    frame: Frame = Frame()
    system: str = ""
    hosted: dict[str, str] = {}
    history: int
    max_tokens: int
    temperature: float = 1.0
    precision: Literal["int8", "fp32"] = "fp32"
    encoder: dict[str, str] = {}
    task_fingerprint: str
    data_fingerprint: str = ""
    labels_from: dict[str, int] = {}
    seed: int = 0
    training: dict[str, Any] = {}
    versions: dict[str, str] = {}
    files: dict[str, str] = {}


class Interval(BaseModel):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class LabelScore(BaseModel):
    """How a model does on one label; `n` is the number of test rows that have it."""

    label: str
    n: int
    precision: float
    recall: float
    f1: float


class Reliability(BaseModel):
    """One bin of the reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class CoveragePoint(BaseModel):
    """With this cut-off, the share of rows that the model answers itself, and its accuracy on them."""

    cutoff: float
    coverage: float
    n: int
    accuracy: Interval


class Mistake(BaseModel):
    """A misclassified test row."""

    text: str
    source: str
    gold: str
    answer: str | None
    confidence: float | None


class ModelReport(BaseModel):
    """One model on one set of rows. Without human labels there is agreement with the teacher only."""

    name: str
    role: Literal["base", "teacher", "student"]
    n: int
    no_answer: int
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    macro_f1: float | None = None
    macro_f1_low: float | None = None
    macro_f1_high: float | None = None
    error_reduction: Interval | None = None
    agreement: Interval | None = None
    agreement_n: int = 0
    calibration_error: Interval | None = None
    labels: list[LabelScore] = []
    reliability: list[Reliability] = []
    coverage: list[CoveragePoint] = []
    confusion: list[list[int]] = []
    mistakes: list[Mistake] = []
    latency_n: int = 0
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    cost_n: int = 0
    cost_per_1000_usd: float | None = None


class Pair(BaseModel):
    """McNemar's exact test of two models on the same rows; `p_holm` is corrected for all pairs of the set."""

    a: str
    b: str
    n: int
    only_a_right: int
    only_b_right: int
    p: float
    p_holm: float


class DataReport(BaseModel):
    """All models on the rows of one source (`all`: of every source)."""

    source: str
    n: int
    models: list[ModelReport]
    pairs: list[Pair]


class CurvePoint(BaseModel):
    """Accuracy on the test rows after training on `n` examples; the interval is over rows."""

    n: int
    accuracy: Interval
    measured_on: int


class LabelQuality(BaseModel):
    """How right the labels are that a student learns from, on test rows that people decided and that taught nothing."""

    n: int
    teacher: Interval
    consensus: Interval
    only_teacher_right: int
    only_consensus_right: int
    p: float


class Report(BaseModel):
    """What one evaluation measured. `models` and `pairs` are over all test rows."""

    task: str
    created: str
    fingerpost: str
    labels: list[str]
    against: Literal["human labels", "teacher's answers"]
    n: int
    models: list[ModelReport]
    pairs: list[Pair]
    by_source: list[DataReport] = []
    learning_curve: list[CurvePoint] = []
    label_quality: LabelQuality | None = None
    spent_usd: float = 0.0
    break_even: dict[str, int] = {}
    notes: list[str] = []
    inputs: str = ""
