"""Measuring base, teacher and students on the same rows, with intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerpost import __version__, metrics
from fingerpost.consensus import consensus
from fingerpost.errors import InputError
from fingerpost.intake import Columns, Item, Rejected, read_items
from fingerpost.store import Store
from fingerpost.text import conversation, preview, question_id
from fingerpost.types import (
    Conversation,
    CurvePoint,
    DataReport,
    Example,
    Message,
    Mistake,
    ModelReport,
    Pair,
    Prediction,
    Predictor,
    Report,
    Task,
    Usage,
    Verdict,
)

LATENCY_ROWS = 200
WARM_UP = 5
MISTAKES = 200

Role: TypeAlias = Literal["base", "teacher", "student"]


@dataclass(frozen=True, slots=True)
class TestRow:
    """A row to be measured on; `gold` is the label that people gave it, if they did."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    id: str
    messages: Conversation
    source: str
    gold: str | None


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model to be measured. Its latency is measured here if `live`, else taken from its predictions."""

    role: Role
    predictor: Predictor
    live: bool = True


class Recorded:
    """A teacher as a predictor, by the answers that it has given: nothing is asked, nothing paid."""

    def __init__(self, name: str, answers: dict[str, list[Verdict]]) -> None:
        self.name = name
        self._answers = answers

    def has(self, row: TestRow) -> bool:
        """Whether it was asked about this row, with whatever result."""
        return bool(self._answers.get(row.id))

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        """The label that most of its votes name; its confidence is the reply's probability, or the share of votes."""
        return [self._one(self._answers[question_id(conversation(each))]) for each in conversations]

    def _one(self, votes: list[Verdict]) -> Prediction:
        shares = consensus(votes, "teacher") or {}
        label = max(shares, key=shares.__getitem__) if shares else None
        logprob = votes[-1].logprob if len(votes) == 1 else None
        confidence = math.exp(logprob) if logprob is not None else shares.get(label or "", math.nan)
        if logprob is None and len(votes) == 1:
            confidence = math.nan
        costs = [vote.usage.cost_usd for vote in votes]
        seconds = [vote.usage.latency_s for vote in votes if vote.usage.latency_s is not None]
        usage = Usage(
            cost_usd=sum(cost or 0.0 for cost in costs) if None not in costs else None,
            latency_s=float(np.mean(seconds)) if seconds else None,
        )
        return Prediction(label, confidence, shares, self.name, usage)


# --- what is measured on


def rows_from_store(store: Store) -> list[TestRow]:
    """The test questions, with the label that people gave them."""
    verdicts = store.verdicts()
    rows = []
    for question in store.questions("test"):
        shares = consensus(verdicts.get(question.id, []), "human")
        gold = max(shares, key=shares.__getitem__) if shares else None
        rows.append(TestRow(question.id, question.messages, question.source, gold))
    return rows


def rows_from_file(path: Path, columns: Columns) -> tuple[list[TestRow], list[Rejected]]:
    """The labelled rows of a file: where it has a `split` column its test rows, else all."""
    good: list[Item] = []
    rejected: list[Rejected] = []
    for item in read_items(path, columns, None):
        if isinstance(item, Rejected):
            rejected.append(item)
        elif item.label:
            good.append(item)
    chosen = [item for item in good if item.split == "test"] or [item for item in good if item.split is None]
    return [TestRow(question_id(item.messages), item.messages, item.source, item.label) for item in chosen], rejected


def teachers_from_store(store: Store, rows: Sequence[TestRow], notes: list[str]) -> list[Contestant]:
    """Every teacher that was asked about all of the rows; the others are named in the notes."""
    by_teacher: dict[str, dict[str, list[Verdict]]] = {}
    wanted = {row.id for row in rows}
    for key, verdicts in store.verdicts().items():
        for verdict in verdicts:
            if verdict.kind == "teacher" and key in wanted:
                by_teacher.setdefault(verdict.by, {}).setdefault(key, []).append(verdict)
    found = []
    for name, answers in sorted(by_teacher.items()):
        if len(answers) == len(wanted):
            found.append(Contestant("teacher", Recorded(name, answers), live=False))
        else:
            notes.append(
                f"{name} was asked about {len(answers)} of {len(wanted)} test rows and is left out; "
                "'fingerpost label' asks the rest"
            )
    return found


# --- measuring


def evaluate(
    name: str,
    labels: Sequence[str],
    rows: Sequence[TestRow],
    contestants: Sequence[Contestant],
    *,
    spent_usd: float = 0.0,
    inputs: str = "",
    notes: Sequence[str] = (),
    show: Callable[[str], None] = lambda _: None,
) -> Report:
    """Let every model answer every row, and compare. Rows without a human label count only where none has one.

    Raises:
        InputError: no rows, or a label that no model knows.
    """
    if not rows:
        raise InputError("there are no test rows; import labelled ones with a split column that says test")
    with_gold = [row for row in rows if row.gold is not None]
    measured = with_gold or list(rows)
    if unknown := sorted({str(row.gold) for row in with_gold} - set(labels)):
        raise InputError(
            f"the test rows have labels that the models do not know: {', '.join(unknown[:5])}; "
            "name another column with --label, or train on these labels too"
        )
    answers: dict[str, list[Prediction]] = {}
    latencies: dict[str, list[float]] = {}
    for each in contestants:
        show(f"asking {each.predictor.name}")
        answers[each.predictor.name] = each.predictor.predict([row.messages for row in measured])
        latencies[each.predictor.name] = _latencies(each, measured, answers[each.predictor.name])
    bench = _Bench(list(labels), list(contestants), answers, latencies)
    everything = np.arange(len(measured))
    models, pairs = bench.measure(measured, everything)
    sources = sorted({row.source for row in measured})
    by_source = []
    for source in sources if len(sources) > 1 else []:
        chosen = np.array([i for i in everything if measured[i].source == source])
        parts = bench.measure([measured[i] for i in chosen], chosen)
        by_source.append(DataReport(source=source, n=len(chosen), models=parts[0], pairs=parts[1]))
    notes = list(notes)
    if len(measured) < len(rows):
        notes.append(f"{len(rows) - len(measured)} test rows without a human label were left out")
    return Report(
        task=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerpost=__version__,
        labels=list(labels),
        against="human labels" if with_gold else "teacher's answers",
        n=len(measured),
        models=models,
        pairs=pairs,
        by_source=by_source,
        spent_usd=spent_usd,
        break_even=_break_even(models, spent_usd),
        notes=notes,
        inputs=inputs,
    )


def learning_curve(task: Task, examples: Sequence[Example], rows: Sequence[TestRow]) -> list[CurvePoint]:
    """Accuracy on the test rows of a linear head that has seen 25, 50, 100, ... of the training examples."""
    from fingerpost.students.encoder.curve import learning_curve as curve

    rows = [row for row in rows if row.gold is not None]
    index = {label: i for i, label in enumerate(task.names)}
    gold = np.array([index[str(row.gold)] for row in rows])
    points = curve(examples, [row.messages for row in rows], task)
    return [
        CurvePoint(n=n, accuracy=metrics.proportion(answers == gold), measured_on=len(rows)) for n, answers in points
    ]


def _latencies(contestant: Contestant, rows: Sequence[TestRow], answers: Sequence[Prediction]) -> list[float]:
    """Seconds a prediction: one at a time in this process, or what was recorded."""
    if not contestant.live:
        return [each.usage.latency_s for each in answers if each.usage.latency_s is not None]
    seconds = []
    for row in [*rows[:WARM_UP], *rows[:LATENCY_ROWS]]:
        began = time.perf_counter()
        contestant.predictor.predict([row.messages])
        seconds.append(time.perf_counter() - began)
    return seconds[min(WARM_UP, len(rows)) :]


def _break_even(models: Sequence[ModelReport], spent_usd: float) -> dict[str, int]:
    """After how many requests a student has saved what labelling cost."""
    teacher = next((model for model in models if model.role == "teacher"), None)
    if teacher is None or not teacher.cost_per_1000_usd or spent_usd <= 0:
        return {}
    return {
        model.name: math.ceil(spent_usd / (teacher.cost_per_1000_usd / 1000))
        for model in models
        if model.role == "student"
    }


class _Bench:
    """All answers of all models, measured on any part of the rows."""

    def __init__(
        self,
        labels: list[str],
        contestants: list[Contestant],
        answers: dict[str, list[Prediction]],
        latencies: dict[str, list[float]],
    ) -> None:
        self.labels, self.contestants, self.answers, self.latencies = labels, contestants, answers, latencies
        self.index = {label: i for i, label in enumerate(labels)}

    def measure(self, rows: Sequence[TestRow], chosen: NDArray[np.int64]) -> tuple[list[ModelReport], list[Pair]]:
        """`chosen` are the positions of `rows` among the answers."""
        has_gold = rows[0].gold is not None
        gold = np.array([self.index.get(str(row.gold), -1) for row in rows])
        predicted = {
            each.predictor.name: np.array(
                [self.index.get(str(self.answers[each.predictor.name][i].label), -1) for i in chosen]
            )
            for each in self.contestants
        }
        right = {name: (answer == gold) & (gold >= 0) for name, answer in predicted.items()}
        base = next((right[each.predictor.name] for each in self.contestants if each.role == "base"), None)
        teacher = next((predicted[each.predictor.name] for each in self.contestants if each.role == "teacher"), None)
        models = []
        for each in self.contestants:
            model = self._model(each, rows, chosen, predicted[each.predictor.name], teacher)
            if has_gold:
                self._against_gold(model, each, rows, chosen, gold, predicted[each.predictor.name], base)
            models.append(model)
        return models, _pairs(right) if has_gold else []

    def _model(
        self,
        contestant: Contestant,
        rows: Sequence[TestRow],
        chosen: NDArray[np.int64],
        predicted: NDArray[np.int64],
        teacher: NDArray[np.int64] | None,
    ) -> ModelReport:
        """What needs no human label."""
        name = contestant.predictor.name
        model = ModelReport(name=name, role=contestant.role, n=len(rows), no_answer=int((predicted < 0).sum()))
        if teacher is not None and contestant.role != "teacher" and (asked := teacher >= 0).any():
            model.agreement = metrics.proportion((predicted == teacher)[asked])
            model.agreement_n = int(asked.sum())
        if seconds := self.latencies[name]:
            model.latency_n = len(seconds)
            model.latency_p50_ms, model.latency_p95_ms = (float(1000 * x) for x in np.quantile(seconds, [0.5, 0.95]))
        costs = (
            [self.answers[name][i].usage.cost_usd for i in chosen]
            if contestant.role == "teacher"
            else [0.0] * len(rows)
        )
        known = [cost for cost in costs if cost is not None]
        if known:
            model.cost_n, model.cost_per_1000_usd = len(known), float(1000 * np.mean(known))
        return model

    def _against_gold(
        self,
        model: ModelReport,
        contestant: Contestant,
        rows: Sequence[TestRow],
        chosen: NDArray[np.int64],
        gold: NDArray[np.int64],
        predicted: NDArray[np.int64],
        base: NDArray[np.bool_] | None,
    ) -> None:
        right = predicted == gold
        accuracy = metrics.proportion(right)
        model.accuracy, model.accuracy_low, model.accuracy_high = accuracy.value, accuracy.low, accuracy.high
        matrix = metrics.confusion(gold, predicted, len(self.labels))
        f1 = metrics.macro_f1(matrix)
        model.macro_f1, model.macro_f1_low, model.macro_f1_high = f1.value, f1.low, f1.high
        model.confusion = matrix.tolist()
        model.labels = metrics.by_label(gold, predicted, self.labels)
        if base is not None and contestant.role != "base":
            model.error_reduction = metrics.error_reduction(base, right)
        given = [self.answers[model.name][i] for i in chosen]
        confidence = np.array([each.confidence for each in given])
        if not np.isnan(confidence).any():
            model.calibration_error = metrics.calibration_error(confidence, right)
            model.reliability = metrics.reliability(confidence, right)
            model.coverage = metrics.coverage(confidence, right)
        wrong = sorted(np.flatnonzero(~right).tolist(), key=lambda i: -float(np.nan_to_num(confidence[i])))
        model.mistakes = [
            Mistake(
                text=preview(" | ".join(turn.content for turn in rows[i].messages), 300),
                source=rows[i].source,
                gold=str(rows[i].gold),
                answer=given[i].label,
                confidence=None if np.isnan(confidence[i]) else float(confidence[i]),
            )
            for i in wrong[:MISTAKES]
        ]


def _pairs(right: dict[str, NDArray[np.bool_]]) -> list[Pair]:
    tests = [(a, b, *metrics.exact_mcnemar(right[a], right[b])) for a, b in combinations(right, 2)]
    corrected = metrics.holm([test[4] for test in tests])
    return [
        Pair(a=a, b=b, n=len(right[a]), only_a_right=only_a, only_b_right=only_b, p=p, p_holm=p_holm)
        for (a, b, only_a, only_b, p), p_holm in zip(tests, corrected, strict=True)
    ]
