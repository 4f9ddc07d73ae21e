"""From a labelled file to a model with an honest score: training, and measuring on rows that the model has not seen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fingerpost.core.errors import InputError
from fingerpost.core.types import Example, Prediction, Progress, ProgressCallback, no_progress
from fingerpost.evaluation.results import Report
from fingerpost.students import load
from fingerpost.students.folder import Manifest
from fingerpost.training.dataset import TrainingSet, data_fingerprint, held_out
from fingerpost.training.train import train

if TYPE_CHECKING:
    from fingerpost.evaluation.evaluate import Candidate

TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class FileTraining:
    """A student that was trained on a file.

    Attributes:
        report: its measurement; None without test rows.
    """

    manifest: Manifest
    data: TrainingSet
    report: Report | None


def train_on_file(
    data: TrainingSet, folder: Path, *, folds: int = 0, on_progress: ProgressCallback = no_progress, **options: Any
) -> FileTraining:
    """Train a student and measure it, the untuned base and the baseline on the same rows.

    Args:
        folder: the model folder.
        folds: measure by cross-validation, with so many further students, each on the rows that it was not trained on; the
            student in `folder` is trained on all rows.
        options: as of `fingerpost.students.encoder.train.fit`.

    Raises:
        InputError: there are too few rows or labels.
    """
    if folds and data.test:
        raise InputError("the file has test rows in its split column; leave out --cross-validate, or the column")
    answers = _cross_validate(data, folds, on_progress, options) if folds else None
    manifest = train(data, folder, on_progress=on_progress, **options)
    if answers is None and not data.test:
        return FileTraining(manifest, data, None)
    from fingerpost.evaluation.baseline import baseline_candidate
    from fingerpost.evaluation.evaluate import Candidate
    from fingerpost.evaluation.file import evaluate_examples, task_of_model

    task = task_of_model(data.task.name, manifest)
    if answers is None:
        baseline = baseline_candidate(data.train)
        candidates = [*([baseline] if baseline else []), Candidate("student", load(folder))]
        report = evaluate_examples(task, data.test, candidates, manifest=manifest, on_progress=on_progress)
    else:
        note = f"{folds}-fold cross-validation: {folds} students, each measured on the rows that it was not trained on"
        report = evaluate_examples(
            task,
            [*data.train, *data.dev],
            _stored_candidates(answers, folder.name, task.names),
            manifest=manifest,
            notes=[f"{note}; {folder} is trained on all rows"],
            on_progress=on_progress,
        )
    return FileTraining(manifest, data, report)


def _cross_validate(
    data: TrainingSet, folds: int, on_progress: ProgressCallback, options: dict[str, Any]
) -> dict[str, dict[str, Prediction]]:
    """The answers of student and baseline to every row, each by a model that was not trained on it: by role and question id."""
    from fingerpost.evaluation.baseline import baseline_candidate
    from fingerpost.training.holdout import fold_numbers

    examples: list[Example] = [*data.train, *data.dev]
    numbers = fold_numbers(examples, folds)
    answers: dict[str, dict[str, Prediction]] = {"baseline": {}, "student": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for fold in range(folds):
            on_progress(Progress("train", f"fold {fold + 1} of {folds}"))
            rest = [example for example, number in zip(examples, numbers, strict=True) if number != fold]
            held = [example for example, number in zip(examples, numbers, strict=True) if number == fold]
            learnt, dev = held_out(rest, [])
            part = replace(data, train=learnt, dev=dev, test=[], fingerprint=data_fingerprint(learnt, dev))
            train(part, Path(scratch) / "model", **options)
            baseline = baseline_candidate(learnt)
            models = {"student": load(Path(scratch) / "model"), "baseline": baseline.predictor if baseline else None}
            for role, model in models.items():
                if model is not None:
                    found = model.predict([example.messages for example in held])
                    answers[role].update(zip((example.id for example in held), found, strict=True))
    return answers


def _stored_candidates(answers: dict[str, dict[str, Prediction]], name: str, labels: Sequence[str]) -> list[Candidate]:
    """Baseline and student as models to evaluate; a baseline that could not be fitted in some fold is left out."""
    from fingerpost.evaluation.baseline import BASELINE
    from fingerpost.evaluation.estimators import StoredAnswers
    from fingerpost.evaluation.evaluate import Candidate

    student = Candidate("student", StoredAnswers(name, answers["student"], labels), timed=False)
    if answers["baseline"].keys() < answers["student"].keys():
        return [student]
    return [Candidate("baseline", StoredAnswers(BASELINE, answers["baseline"], labels), timed=False), student]
