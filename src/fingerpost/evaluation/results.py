"""The results of an evaluation: one report, with a part for each model and each source of questions."""

from __future__ import annotations

from html import escape
from typing import Literal

from pydantic import BaseModel

from fingerpost.evaluation.formatting import dollars, milliseconds, ratio, with_interval


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
    """The accuracy of training labels, on test rows with a human label that nothing was learnt from."""

    n: int
    teacher: Interval
    consensus: Interval
    only_teacher_right: int
    only_consensus_right: int
    p: float


class Report(BaseModel):
    """The result of an evaluation. `models` and `pairs` are over all test rows.

    In a notebook it shows itself as a table.
    """

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

    def __getitem__(self, name: str) -> ModelReport:
        """The model of this name.

        Raises:
            KeyError: there is none.
        """
        found = next((model for model in self.models if model.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def teacher(self) -> ModelReport | None:
        """The first teacher."""
        return next((model for model in self.models if model.role == "teacher"), None)

    @property
    def students(self) -> list[ModelReport]:
        """The students, cascades left out."""
        return [model for model in self.models if model.role == "student"]

    @property
    def best(self) -> ModelReport | None:
        """The most accurate model; None without human labels."""
        measured = [model for model in self.models if model.accuracy is not None]
        return max(measured, key=lambda model: model.accuracy or 0.0, default=None)

    def significant(self, better: str, worse: str) -> bool:
        """Whether one model is more accurate than the other, by McNemar's exact test at 5 %, corrected by Holm."""
        for pair in self.pairs:
            if {pair.a, pair.b} == {better, worse}:
                gain = pair.only_a_right - pair.only_b_right
                return pair.p_holm < 0.05 and (gain > 0) == (pair.a == better) and gain != 0
        return False

    def _repr_html_(self) -> str:
        """The models as a table, for notebooks."""
        head = ("model", "n", "accuracy", "macro F1", "agreement", "latency p50", "per 1,000")
        rows = [
            (
                model.name,
                f"{model.n:,}",
                with_interval(model.accuracy, model.accuracy_low, model.accuracy_high),
                with_interval(model.macro_f1, model.macro_f1_low, model.macro_f1_high),
                ratio(model.agreement.value if model.agreement else None),
                milliseconds(model.latency_p50_ms),
                dollars(model.cost_per_1000_usd),
            )
            for model in self.models
        ]
        table = "".join(_row("td", row) for row in rows)
        title = f"{self.task}: n = {self.n:,}, against {self.against}, 95 % intervals"
        return f"<table><caption>{escape(title)}</caption>{_row('th', head)}{table}</table>"


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
