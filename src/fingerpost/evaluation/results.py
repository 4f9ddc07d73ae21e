"""The results of an evaluation, as pydantic models that are stored as JSON."""

from __future__ import annotations

from html import escape
from typing import Any, Literal

from pydantic import BaseModel

from fingerpost.evaluation.formatting import dollars, milliseconds, percent_with_interval, ratio, with_interval

KAPPA, MEAN_ERROR = "quadratic kappa", "mean abs. error"
"""Headings of what is measured of ordinal tasks."""


class Interval(BaseModel):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class LabelScore(BaseModel):
    """A model's scores on one label; `n` is the number of test rows with this human label."""

    label: str
    n: int
    precision: float
    recall: float
    f1: float


class Reliability(BaseModel):
    """One bin of the reliability diagram: rows with a confidence from `low` to `high`, their mean confidence and accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class CoveragePoint(BaseModel):
    """The share of rows whose confidence is at or above a cut-off, and the accuracy on them."""

    cutoff: float
    coverage: float
    n: int
    accuracy: Interval


class Mistake(BaseModel):
    """A misclassified test row. `answer` is None where the model named no label."""

    text: str
    source: str
    gold: str
    answer: str | None
    confidence: float | None


class ModelReport(BaseModel):
    """One model's metrics on one set of rows. Metrics that were not measured are None or empty.

    Attributes:
        n: number of rows.
        no_answer: number of rows where the model named no label; they count as wrong.
        accuracy: of a multi-label task, the share of rows on which all labels are right (exact match).
        micro_f1: of a multi-label task, the F1 of all labels counted together.
        kappa: of an ordinal task, the quadratic weighted kappa.
        mean_absolute_error: of an ordinal task, the mean distance from the right level, in levels.
        error_reduction: relative to the base.
        agreement: with the first teacher, on the `agreement_n` rows that it answered.
        confusion: (labels, labels + 1) counts; rows are human labels, columns are answers, the last for "no label".
        teacher_share: of a cascade, the share of rows that the teacher answered.
        fast_share: of a student, the share of rows that its fast tier answered; its accuracy on them is `fast_accuracy`,
            that of the whole student on the others `whole_accuracy`.
        latency_n: number of predictions that were timed.
        cost_n: number of predictions whose cost is known.
    """

    name: str
    role: Literal["base", "baseline", "teacher", "student", "cascade"]
    n: int
    no_answer: int
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    micro_f1: Interval | None = None
    macro_f1: float | None = None
    macro_f1_low: float | None = None
    macro_f1_high: float | None = None
    kappa: Interval | None = None
    mean_absolute_error: Interval | None = None
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
    fast_share: Interval | None = None
    fast_accuracy: Interval | None = None
    whole_accuracy: Interval | None = None
    latency_n: int = 0
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    cost_n: int = 0
    cost_per_1000_usd: float | None = None


class Pair(BaseModel):
    """McNemar's exact test of two models on the same rows; `p_holm` is corrected for the number of pairs (Holm 1979)."""

    a: str
    b: str
    n: int
    only_a_right: int
    only_b_right: int
    p: float
    p_holm: float


class DataReport(BaseModel):
    """All models on the rows of one source."""

    source: str
    n: int
    models: list[ModelReport]
    pairs: list[Pair]


class CurvePoint(BaseModel):
    """Accuracy on `measured_on` test rows after training on `n` examples; the interval is over the test rows."""

    n: int
    accuracy: Interval
    measured_on: int


class CascadePoint(BaseModel):
    """A student with its teacher at one cut-off.

    Attributes:
        cutoff: requests with a lower confidence are forwarded.
        asked: share of the test rows that the teacher answers.
        accuracy: of both together; None without human labels.
        cost_per_1000_usd: cost of the teacher's answers, in US dollars for 1,000 requests; None if it is not known.
    """

    cutoff: float
    asked: float
    accuracy: Interval | None
    cost_per_1000_usd: float | None


class LabelQuality(BaseModel):
    """Accuracy of the teacher's and the consensus' labels, on test rows with human labels that are kept from both."""

    n: int
    teacher: Interval
    consensus: Interval
    only_teacher_right: int
    only_consensus_right: int
    p: float


class Report(BaseModel):
    """The result of an evaluation. A notebook displays it as a table.

    Attributes:
        created: ISO 8601 time.
        fingerpost: the version that made the report.
        against: what accuracy and agreement are measured against.
        multi: a text may have several labels.
        ordinal: the labels are the levels of a scale, the lowest first.
        n: number of test rows.
        models, pairs: on all test rows.
        by_source: the same by source of the rows, where there are several.
        spent_usd: cost of labelling, in US dollars.
        cascade_curve: by student, what each cut-off of a cascade would bring.
        break_even: by student, the number of requests after which it has saved `spent_usd`.
        inputs: fingerprint of what was measured.
    """

    task: str
    created: str
    fingerpost: str
    labels: list[str]
    against: Literal["human labels", "teacher's answers"]
    n: int
    multi: bool = False
    ordinal: bool = False
    models: list[ModelReport]
    pairs: list[Pair]
    by_source: list[DataReport] = []
    learning_curve: list[CurvePoint] = []
    cascade_curve: dict[str, list[CascadePoint]] = {}
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
    def accuracy(self) -> dict[str, Interval]:
        """The accuracy of each model by name; empty without human labels."""
        return {
            model.name: Interval(value=model.accuracy, low=model.accuracy_low, high=model.accuracy_high)
            for model in self.models
            if model.accuracy is not None and model.accuracy_low is not None and model.accuracy_high is not None
        }

    @property
    def teacher(self) -> ModelReport | None:
        """The first teacher."""
        return next((model for model in self.models if model.role == "teacher"), None)

    @property
    def students(self) -> list[ModelReport]:
        """The students, cascades left out."""
        return [model for model in self.models if model.role == "student"]

    @property
    def student(self) -> ModelReport | None:
        """The first student."""
        return next(iter(self.students), None)

    @property
    def baseline(self) -> ModelReport | None:
        """scikit-learn's TF-IDF with a linear SVM, trained on the student's labels."""
        return next((model for model in self.models if model.role == "baseline"), None)

    @property
    def best(self) -> ModelReport | None:
        """The most accurate model; None without human labels."""
        measured = [model for model in self.models if model.accuracy is not None]
        return max(measured, key=lambda model: model.accuracy or 0.0, default=None)

    def table(self) -> list[dict[str, Any]]:
        """One row for each model, with all single figures: for `pandas.DataFrame` or `polars.DataFrame`."""
        rows = []
        for model in self.models:
            row: dict[str, Any] = {}
            for name, value in model:
                if isinstance(value, Interval):
                    row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
                elif not isinstance(value, list):
                    row[name] = value
            rows.append(row)
        columns = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in columns} for row in rows]

    def significant(self, better: str, worse: str) -> bool:
        """Whether one model is more accurate than the other, by McNemar's exact test at 5 %, corrected by Holm."""
        for pair in self.pairs:
            if {pair.a, pair.b} == {better, worse}:
                gain = pair.only_a_right - pair.only_b_right
                return pair.p_holm < 0.05 and (gain > 0) == (pair.a == better) and gain != 0
        return False

    def _repr_html_(self) -> str:
        """The models as a table, for notebooks."""
        head = (
            "model",
            "exact match" if self.multi else "accuracy",
            *(("micro F1",) if self.multi else ()),
            *((KAPPA, MEAN_ERROR) if self.ordinal else ()),
            "macro F1",
            "error reduction",
            "agreement",
            "calibration error",
            "p50",
            "per 1,000",
        )
        rows = [
            (
                model.name,
                with_interval(model.accuracy, model.accuracy_low, model.accuracy_high),
                *((_with_interval(model.micro_f1),) if self.multi else ()),
                *((_with_interval(model.kappa), _with_interval(model.mean_absolute_error)) if self.ordinal else ()),
                with_interval(model.macro_f1, model.macro_f1_low, model.macro_f1_high),
                percent_with_interval(reduction.value, reduction.low, reduction.high) if reduction else ratio(None),
                ratio(model.agreement.value if model.agreement else None),
                ratio(model.calibration_error.value if model.calibration_error else None),
                milliseconds(model.latency_p50_ms),
                dollars(model.cost_per_1000_usd),
            )
            for model in self.models
            for reduction in [model.error_reduction]
        ]
        table = "".join(_row("td", row) for row in rows)
        title = f"{self.task}: n = {self.n:,}, against {self.against}, 95 % intervals"
        return f"<table><caption>{escape(title)}</caption>{_row('th', head)}{table}</table>"


def _with_interval(estimate: Interval | None) -> str:
    return with_interval(estimate.value, estimate.low, estimate.high) if estimate else ratio(None)


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
