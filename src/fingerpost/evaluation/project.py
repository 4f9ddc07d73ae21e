"""Measures the models of a project on its test questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError
from fingerpost.core.types import Example, Progress, ProgressCallback, no_progress
from fingerpost.evaluation.evaluate import Candidate, Embed, evaluate, label_quality, learning_curve
from fingerpost.evaluation.results import Report
from fingerpost.evaluation.rows import rows_from_store
from fingerpost.evaluation.teachers import RecordedTeacher, teachers_from_store
from fingerpost.evaluation.thresholds import CascadeTarget, choose_for_project, describe_cutoff
from fingerpost.store.project import Store
from fingerpost.students import load
from fingerpost.students.cascade import Cascade
from fingerpost.students.folder import MANIFEST, matches_task, read_manifest
from fingerpost.task.settings import Task

HOSTED = "hosted"


def evaluate_project(
    task: Task,
    store: Store,
    folders: Sequence[Path],
    base: Path,
    embed: Embed,
    *,
    inputs: str = "",
    cascade: CascadeTarget | None = None,
    curve_examples: Sequence[Example] = (),
    vectors: Mapping[str, NDArray[np.float32]] | None = None,
    on_progress: ProgressCallback = no_progress,
) -> Report:
    """Measure base, teachers and students, with the quality of the training labels.

    Args:
        folders: model folders of the students.
        base: folder of the untuned base; created where it is missing or of another task.
        cascade: also measure each student together with the task's teacher.
        curve_examples: training examples for the learning curve; none, no curve.
        vectors: embeddings by example id.

    Raises:
        InputError: there are no test questions, or the cascade's teacher was not asked about all of them.
    """
    rows = rows_from_store(task, store)
    teachers, notes = teachers_from_store(task, store, [row.id for row in rows])
    students = [student_candidate(folder) for folder in folders]
    candidates = [Candidate("base", load(_base(task, base, on_progress)))]
    candidates += [Candidate("teacher", teacher, timed=False) for teacher in teachers]
    candidates += students
    if cascade is not None:
        teacher = _teacher_of(task, teachers)
        for folder, student in zip(folders, students, strict=True):
            choice = choose_for_project(task, store, folder, cascade)
            assert choice.cutoff is not None
            mixture = Cascade(student.predictor, teacher, choice.cutoff)
            candidates.append(Candidate("cascade", mixture, teacher=teacher.name))
            notes.append(
                f"{mixture.name}: {describe_cutoff(choice, teacher.name, cascade.accuracy or cascade.agreement)}"
            )
    report = evaluate(
        task.name, task.names, rows, candidates,
        spent_usd=store.ledger.account().committed_usd, inputs=inputs, notes=notes, on_progress=on_progress,
    )  # fmt: skip
    report = report.model_copy(update={"label_quality": label_quality(task, store, embed)})
    if curve_examples:
        on_progress(Progress("evaluate", "training on fewer examples"))
        curve = learning_curve(task, curve_examples, rows, vectors or None)
        report = report.model_copy(update={"learning_curve": curve})
    return report


def student_candidate(folder: Path) -> Candidate:
    """A student to be measured. A hosted one is timed as its answers come: it is not asked twice."""
    return Candidate("student", load(folder), timed=read_manifest(folder).kind != HOSTED)


def _teacher_of(task: Task, teachers: Sequence[RecordedTeacher]) -> RecordedTeacher:
    """The task's teacher, if it has answered all test questions."""
    name = task.teacher_model
    found = next((teacher for teacher in teachers if teacher.name == name), None)
    if found is None:
        raise InputError(
            "the cascade needs the teacher's answers to all test questions; run 'fingerpost label --split test'"
        )
    return found


def _base(task: Task, folder: Path, on_progress: ProgressCallback) -> Path:
    """The folder of the untuned base, created where it is missing or of another task."""
    from fingerpost.students.encoder.train import fit_base

    if not (folder / MANIFEST).is_file() or not matches_task(read_manifest(folder), task):
        on_progress(Progress("evaluate", "exporting the untuned base"))
        fit_base(task, folder)
    return folder
