"""Trains a student into a model folder: the one path that files, projects and fine-tuning jobs take."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.core.utils import require_training
from fingerpost.students import encoder
from fingerpost.students.folder import Manifest
from fingerpost.training.dataset import TrainingSet, from_texts

if TYPE_CHECKING:
    from fingerpost.students.encoder.predict import EncoderStudent


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained student's folder and manifest. `unreviewed` is the one trained without reviews, to compare with."""

    folder: Path
    manifest: Manifest
    unreviewed: Trained | None = None


def train(data: TrainingSet, folder: Path, *, on_progress: ProgressCallback = no_progress, **options: Any) -> Manifest:
    """Train the sentence-encoder student into a folder; options as of `students.encoder.train.fit`.

    Raises:
        MissingExtra: the extra `train` is not installed.
        InputError: there is too little to learn from.
        ModelError: the encoder cannot be loaded, or the folder is something else.
    """
    require_training("training")
    if data.changed:
        message = f"consensus: it changed {data.changed:,} of the teacher's {data.teacher_labels:,} training labels"
        on_progress(Progress("train", message))
    facts = {
        "labels_from": data.labels_from,
        "data_fingerprint": data.fingerprint,
        "reply_template": data.reply_template,
        "user_template": data.user_template,
        "system": data.system,
        "training": {"changed_labels": data.changed, "teacher_labels": data.teacher_labels},
    }
    return encoder.fit(
        data.train, data.dev, data.task, folder, facts=facts, vectors=data.vectors, on_progress=on_progress, **options
    )


def train_texts(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    folder: str | Path | None = None,
    name: str = "student",
    on_progress: ProgressCallback = no_progress,
    **options: Any,
) -> EncoderStudent:
    """Train a student on texts with labels, and load it. A tenth of the texts is held out to decide and calibrate on.

        student = fingerpost.train(texts, labels, folder="models/tickets")
        student.predict(["where is my parcel?"])[0].label

    Args:
        texts, labels: sequences, arrays, or columns of a pandas or polars frame, of the same length.
        folder: the model folder; without it the model lives as long as the student, or until `student.save(folder)`.
        name: the student's name where there is no folder.
        options: as of `fingerpost.students.encoder.train.fit`, such as `encoder`, `epochs`, `history` and `seed`.

    Raises:
        MissingExtra: the extra `train` is not installed.
        InputError: the lengths differ, a text is empty, or there are fewer than two labels.
    """
    require_training("training")
    from fingerpost.students.encoder.predict import EncoderStudent

    target = Path(tempfile.mkdtemp()) / name if folder is None else Path(folder)
    data = from_texts(texts, labels, target.name)
    manifest = train(data, target, on_progress=on_progress, **options)
    student = EncoderStudent(target, manifest, threads=1)
    if folder is None:
        student.delete_folder_at_end()
    return student
