"""Measures base, teacher and students on the same rows, with confidence intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerpost.consensus.evidence import collect_evidence, compute_features, consensus_of
from fingerpost.core.errors import InputError
from fingerpost.core.text import conversation, question_id
from fingerpost.core.types import Example, Message, Prediction, Predictor, Question, Usage, Verdict
from fingerpost.core.verdicts import QuestionVerdicts, active
from fingerpost.core.version import __version__
from fingerpost.evaluation import metrics
from fingerpost.evaluation.compare import Answers, Role, compare
from fingerpost.evaluation.results import CurvePoint, DataReport, LabelQuality, ModelReport, Report
from fingerpost.evaluation.rows import TestRow
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

Embed: TypeAlias = Callable[[Sequence[Question]], NDArray[np.float32]]
"""Unit vectors of questions, (questions, width)."""

LATENCY_ROWS = 200

WARM_UP = 5


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

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        """The label that most of its votes name; its confidence is the share of votes, of one vote its probability."""
        return [self._one(self._answers[question_id(conversation(each))]) for each in conversations]

    def _one(self, votes: list[Verdict]) -> Prediction:
        counted = QuestionVerdicts(votes, {str(verdict.label) for verdict in votes})
        found = counted.votes("teacher") or {}
        votes = active(votes) or votes[-1:]
        label = max(found, key=found.__getitem__) if found else None
        if len(votes) > 1:
            confidence = found.get(label or "", 0.0)
        else:
            confidence = math.nan if votes[0].logprob is None else math.exp(votes[0].logprob)
        costs = [vote.usage.cost_usd for vote in votes]
        seconds = [vote.usage.latency_s for vote in votes if vote.usage.latency_s is not None]
        usage = Usage(
            cost_usd=sum(cost or 0.0 for cost in costs) if None not in costs else None,
            latency_s=float(np.mean(seconds)) if seconds else None,
        )
        return Prediction(label, confidence, found, self.name, usage)


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
    answers: list[Answers] = []
    for each in contestants:
        show(f"asking {each.predictor.name}")
        unique = _unused(each.predictor.name, {other.name for other in answers})
        predictions = each.predictor.predict([row.messages for row in measured])
        answers.append(Answers(unique, each.role, predictions, _latencies(each, measured, predictions)))
    models, pairs = compare(list(labels), measured, answers)
    sources = sorted({row.source for row in measured})
    by_source = []
    for source in sources if len(sources) > 1 else []:
        chosen = [i for i, row in enumerate(measured) if row.source == source]
        parts = compare(list(labels), [measured[i] for i in chosen], [each.take(chosen) for each in answers])
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


def label_quality(task: Task, store: Store, embed: Embed) -> LabelQuality | None:
    """The accuracy of the teacher's labels and of the consensus on the test rows that people decided.

    What people said of test questions is kept from the consensus. None where no person reviewed a training question,
    or there is no test row with both a person's label and the teacher's.
    """
    labelled = store.labelled(task.names, task.teacher_model, "train", "dev", "test")
    if not any(verdicts.label("human") for question, verdicts in labelled if question.split != "test"):
        return None
    rows, gold, taught = [], [], []
    for row, (question, verdicts) in enumerate(labelled):
        human = verdicts.label("human") if question.split == "test" else None
        answer = verdicts.teacher_label
        if human is not None and answer is not None:
            rows.append(row)
            gold.append(task.names.index(human))
            taught.append(task.names.index(answer))
    if not rows:
        return None
    questions = [question for question, _ in labelled]
    vectors = embed(questions)
    evidence = collect_evidence(task.names, labelled, vectors, hidden=frozenset({"test"}))
    agreed = consensus_of(evidence, compute_features(evidence), task.student.seed).probabilities[rows].argmax(1)
    teacher, consensus = np.array(taught) == gold, agreed == gold
    only_teacher, only_consensus, p = metrics.exact_mcnemar(teacher, consensus)
    return LabelQuality(
        n=len(rows),
        teacher=metrics.proportion(teacher),
        consensus=metrics.proportion(consensus),
        only_teacher_right=only_teacher,
        only_consensus_right=only_consensus,
        p=p,
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


def _unused(name: str, used: set[str]) -> str:
    """The name, numbered where another model has it already."""
    return next(new for i in range(1, 1000) if (new := name if i == 1 else f"{name} #{i}") not in used)


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
        if model.role == "student" and model.cost_per_1000_usd == 0
    }
