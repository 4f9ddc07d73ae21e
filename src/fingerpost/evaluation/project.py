"""Evaluates the models of a project on its test questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError
from fingerpost.core.types import Example, Predictor, Progress, ProgressCallback, no_progress
from fingerpost.evaluation.baseline import baseline_candidate
from fingerpost.evaluation.evaluate import Candidate, Embed, evaluate, label_quality, learning_curve
from fingerpost.evaluation.metrics import proportion
from fingerpost.evaluation.results import CascadePoint, Report
from fingerpost.evaluation.rows import TestRow, rows_from_store
from fingerpost.evaluation.teachers import RecordedTeacher, teachers_from_store
from fingerpost.evaluation.thresholds import CascadeTarget, choose_for_project, describe_cutoff
from fingerpost.store.project import Store
from fingerpost.students import load
from fingerpost.students.cascade import Cascade
from fingerpost.students.folder import MANIFEST, matches_task, read_manifest
from fingerpost.task.settings import Task

HOSTED = "hosted"
ASKED_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Of the test rows, in the curve of a cascade."""


def evaluate_project(
    task: Task,
    store: Store,
    folders: Sequence[Path],
    base: Path,
    embed: Embed,
    *,
    inputs: str = "",
    cascade: CascadeTarget | None = None,
    training: Sequence[Example] = (),
    curve: bool = False,
    vectors: Mapping[str, NDArray[np.float32]] | None = None,
    on_progress: ProgressCallback = no_progress,
) -> Report:
    """Evaluate the untuned base, teachers and students, and the quality of the training labels.

    Args:
        folders: model folders of the students.
        base: model folder of the untuned base; it is created if it is missing or belongs to another task.
        embed: computes unit vectors of questions, shape (questions, width).
        inputs: a fingerprint of the evaluated data and models, stored in the report.
        cascade: also evaluate each student in a cascade with the task's teacher that has this target.
        training: the training examples, for the baseline and the learning curve.
        curve: whether to measure the learning curve.
        vectors: known embeddings by example id, each of shape (width,).

    Raises:
        InputError: there are no test questions, or the teacher of the cascade has not answered all of them.
    """
    rows = rows_from_store(task, store)
    measured = [row for row in rows if row.gold is not None] or rows
    teachers, notes = teachers_from_store(task, store, [row.id for row in measured])
    students = [student_candidate(folder) for folder in folders]
    candidates = [Candidate("base", load(_base(task, base, on_progress)))]
    if baseline := baseline_candidate(training):
        candidates.append(baseline)
    candidates += [Candidate("teacher", teacher, timed=False) for teacher in teachers]
    candidates += students
    if cascade is not None:
        teacher = _teacher_of(task, teachers)
        for folder, student in zip(folders, students, strict=True):
            choice = choose_for_project(task, store, folder, cascade)
            assert choice.cutoff is not None
            combined = Cascade(student.predictor, teacher, choice.cutoff)
            candidates.append(Candidate("cascade", combined, teacher=teacher.name))
            notes.append(
                f"{combined.name}: {describe_cutoff(choice, teacher.name, cascade.accuracy or cascade.agreement)}"
            )
    report = evaluate(
        task.name, task.names, rows, candidates, multi=task.multi, ordinal=task.ordinal,
        spent_usd=store.ledger.account().committed_usd, inputs=inputs, notes=notes, on_progress=on_progress,
    )  # fmt: skip
    curves = {}
    if cascade is not None:
        curves = {
            found.predictor.name: cascade_curve(found.predictor, _teacher_of(task, teachers), rows)
            for found in students
            if found.timed  # a hosted student would be paid for again
        }
    report = report.model_copy(update={"label_quality": label_quality(task, store, embed), "cascade_curve": curves})
    if curve and task.multi:
        report.notes.append("a learning curve is measured only where each text has one label")
    elif curve:
        on_progress(Progress("evaluate", "training on fewer examples"))
        points = learning_curve(task, training, rows, vectors or None)
        report = report.model_copy(update={"learning_curve": points})
    return report


def cascade_curve(student: Predictor, teacher: Predictor, rows: Sequence[TestRow]) -> list[CascadePoint]:
    """What a cascade would reach on the test rows, by the share of them that the teacher is asked about."""
    measured = [row for row in rows if row.gold is not None] or list(rows)
    conversations = [row.messages for row in measured]
    guesses, answers = student.predict(conversations), teacher.predict(conversations)
    order = sorted(range(len(measured)), key=lambda row: guesses[row].confidence)
    points = []
    for share in ASKED_SHARES:
        asked = set(order[: round(share * len(order))])
        cutoff = guesses[order[len(asked)]].confidence if len(asked) < len(order) else 1.0
        label_of = [
            answers[row].label if row in asked and answers[row].label is not None else guesses[row].label
            for row in range(len(measured))
        ]
        right = [label == row.gold for label, row in zip(label_of, measured, strict=True)]
        costs = [answers[row].usage.cost_usd for row in asked]
        known = [cost for cost in costs if cost is not None]
        points.append(
            CascadePoint(
                cutoff=cutoff,
                asked=len(asked) / len(measured),
                accuracy=proportion(np.array(right)) if measured[0].gold is not None else None,
                cost_per_1000_usd=1000 * sum(known) / len(measured) if len(known) == len(costs) else None,
            )
        )
    return points


def student_candidate(folder: Path) -> Candidate:
    """A student to evaluate. Latencies of a hosted student are taken from its answers, to avoid paying for more requests."""
    return Candidate("student", load(folder), timed=read_manifest(folder).kind != HOSTED)


def _teacher_of(task: Task, teachers: Sequence[RecordedTeacher]) -> RecordedTeacher:
    """The task's teacher as a predictor of its stored answers.

    Raises:
        InputError: the teacher has not answered all test questions.
    """
    name = task.teacher_model
    found = next((teacher for teacher in teachers if teacher.name == name), None)
    if found is None:
        raise InputError(
            "the cascade needs the teacher's answers to all test questions; run 'fingerpost label --split test'"
        )
    return found


def _base(task: Task, folder: Path, on_progress: ProgressCallback) -> Path:
    """The model folder of the untuned base, created if it is missing or belongs to another task."""
    from fingerpost.students.encoder.train import fit_base

    if not (folder / MANIFEST).is_file() or not matches_task(read_manifest(folder), task):
        on_progress(Progress("evaluate", "exporting the untuned base"))
        fit_base(task, folder)
    return folder
