"""The results of an evaluation: one report, with a part for each model and each source of questions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


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
    role: Literal["base", "teacher", "student", "cascade"]
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
    teacher_share: Interval | None = None
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
