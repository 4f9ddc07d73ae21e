"""Evaluates models on the labelled rows of a file, or on texts and labels in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fingerpost.core.errors import InputError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.text import question_id
from fingerpost.core.types import Example, Message, Predictor, Progress, ProgressCallback, no_progress
from fingerpost.core.utils import require_training
from fingerpost.data.rows import Columns, are_sets, column_labels, column_texts
from fingerpost.evaluation.baseline import baseline_candidate
from fingerpost.evaluation.estimators import EstimatorPredictor
from fingerpost.evaluation.evaluate import Candidate, evaluate
from fingerpost.evaluation.project import student_candidate
from fingerpost.evaluation.results import Report
from fingerpost.evaluation.rows import TestRow, rows_from_file
from fingerpost.evaluation.teachers import RecordedTeacher, teacher_from_file
from fingerpost.llm.predictor import ChatPredictor
from fingerpost.students import load
from fingerpost.students.cascade import Cascade
from fingerpost.students.folder import Manifest, read_manifest, task_of, trained_on
from fingerpost.task.settings import StudentSettings, Task


def evaluate_file(
    file: Path,
    folders: Sequence[Path],
    columns: Columns,
    *,
    teacher: str | None = None,
    training: Sequence[Example] = (),
    on_progress: ProgressCallback = no_progress,
) -> tuple[Report, Task, list[TestRow]]:
    """Evaluate model folders and the untuned base on the labelled rows of a file.

    Args:
        columns: the columns of texts and labels.
        teacher: a column with a teacher's answers, to evaluate it as well.
        training: the first model's training examples, for the baseline.

    Returns:
        The report, the task of the models, and the test rows.

    Raises:
        MissingExtra: the extra `train` is not installed.
        InputError: there is no model, the file cannot be used, or the models were trained on all of its rows.
    """
    require_training("measuring")
    if not folders:
        raise InputError("there is no model to evaluate; give its folder before the file")
    notes: list[str] = []
    manifest = read_manifest(folders[0])
    seen = set().union(*(trained_on(folder) for folder in folders))
    multi = manifest.multi is not None
    rows, rejected = rows_from_file(file, replace(columns, multi=multi), seen, notes, manifest)
    if rejected:
        first = rejected[0]
        notes.append(f"{len(rejected)} rows were left out, the first in line {first.line}: {first.reason}")
    task = task_of_model(file.stem, manifest)
    teachers = []
    if teacher is not None:
        teachers.append(Candidate("teacher", teacher_from_file(file, columns, teacher, task), timed=False))
    baseline = baseline_candidate(training)
    if baseline is None:
        notes.append(f"there is no baseline, because the training data of {folders[0]} is not at hand")
    students = [student_candidate(folder) for folder in folders]
    report = evaluate_with_base(
        task, rows, [*([baseline] if baseline else []), *teachers, *students],
        manifest=manifest, notes=notes, on_progress=on_progress,
    )  # fmt: skip
    return report, task, rows


def evaluate_with_base(
    task: Task,
    rows: Sequence[TestRow],
    candidates: Sequence[Candidate],
    *,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
    on_progress: ProgressCallback = no_progress,
) -> Report:
    """Evaluate the untuned base and other models.

    Args:
        task: its labels, and the encoder of the base.
        manifest: of the student; the base of a language model is that model without its adapter.
        notes: remarks for the report.
    """
    from fingerpost.students.encoder.train import fit_base

    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        on_progress(Progress("evaluate", "exporting the untuned base"))
        if manifest is not None and manifest.kind == "lora":
            from fingerpost.students.lora.train import write_untuned

            write_untuned(manifest, base)
        else:
            fit_base(task, base)
        return evaluate(
            task.name,
            task.names,
            rows,
            [Candidate("base", load(base)), *candidates],
            multi=task.multi,
            ordinal=task.ordinal,
            notes=notes,
            on_progress=on_progress,
        )


def evaluate_examples(
    task: Task,
    examples: Sequence[Example],
    candidates: Sequence[Candidate],
    *,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
    on_progress: ProgressCallback = no_progress,
) -> Report:
    """Evaluate the untuned base and other models on labelled examples; see `evaluate_with_base`.

    Examples with a label that the task does not have are left out, with a note.
    """
    rows = [
        TestRow(example.id, example.messages, "user", example.label)
        for example in examples
        if example.target.keys() <= set(task.names)
    ]
    if left_out := len(examples) - len(rows):
        notes = [*notes, f"{left_out} test rows were left out, because no training row has their label"]
    return evaluate_with_base(task, rows, candidates, manifest=manifest, notes=notes, on_progress=on_progress)


def evaluate_texts(
    models: Sequence[Any],
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    name: str = "evaluation",
    on_progress: ProgressCallback = no_progress,
) -> Report:
    """Evaluate models on texts with human labels, with 95 % confidence intervals and paired tests.

    Args:
        models: predictors (students, teachers, cascades), model folders, or fitted scikit-learn classifiers of texts.
        texts, labels: sequences, arrays, or columns of a pandas or polars frame, of the same length. A label may be a
            list of labels.
        name: the report's title.

    Raises:
        MissingExtra: the extra `train` is not installed.
        InputError: the lengths differ, there is no model, a label is unknown to all models, or an estimator is not fitted.
    """
    require_training("measuring")
    multi = are_sets(labels)
    given_texts, gold = column_texts(texts), column_labels(labels)
    if len(given_texts) != len(gold):
        raise InputError(f"there are {len(given_texts):,} texts and {len(gold):,} labels; give one label for each text")
    if not models:
        raise InputError("there is no model to evaluate; give at least one")
    candidates = [_as_candidate(model) for model in models]
    rows = []
    for text, label in zip(given_texts, gold, strict=True):
        messages = (Message("user", text),)
        rows.append(TestRow(question_id(messages), messages, "user", label))
    known = list(dict.fromkeys(label for candidate in candidates for label in candidate.predictor.labels))
    ordinal = all(candidate.predictor.manifest.ordinal for candidate in candidates)
    return evaluate(name, known, rows, candidates, multi=multi, ordinal=ordinal, on_progress=on_progress)


def _as_candidate(model: Any) -> Candidate:
    """A model folder, predictor or scikit-learn classifier as a candidate."""
    if isinstance(model, str | Path):
        return student_candidate(Path(model))
    if isinstance(model, Cascade):
        return Candidate("cascade", model, teacher=model.teacher.name)
    if not isinstance(model, BasePredictor):
        return Candidate("student", EstimatorPredictor(model))
    predictor: Predictor = model
    if isinstance(model, RecordedTeacher) or model.manifest.kind == "teacher":
        return Candidate("teacher", predictor, timed=False)
    return Candidate("student", predictor, timed=not isinstance(model, ChatPredictor))


def task_of_model(name: str, manifest: Manifest) -> Task:
    """A task with a model's labels, and the encoder that the model was trained from."""
    settings = StudentSettings(
        encoder=manifest.encoder.get("name", StudentSettings().encoder), history=manifest.history, seed=manifest.seed
    )
    return task_of(manifest).model_copy(update={"name": name, "student": settings})
