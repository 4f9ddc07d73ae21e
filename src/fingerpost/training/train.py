"""Trains a student and writes its model folder. Files, projects and fine-tuning jobs all use this module."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.core.utils import require_extra, require_training
from fingerpost.students import encoder
from fingerpost.students.folder import Manifest
from fingerpost.training.dataset import TrainingSet, from_texts

if TYPE_CHECKING:
    from fingerpost.students.encoder.predict import EncoderStudent


StudentKind: TypeAlias = Literal["encoder", "lora"]
ENCODER: StudentKind = "encoder"
LORA: StudentKind = "lora"


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained student.

    Attributes:
        folder: its model folder.
        manifest: the content of its manifest.
        unreviewed: a student trained without human reviews, for comparison.
    """

    folder: Path
    manifest: Manifest
    unreviewed: Trained | None = None


def train(
    data: TrainingSet,
    folder: Path,
    *,
    student: StudentKind = ENCODER,
    on_progress: ProgressCallback = no_progress,
    **options: Any,
) -> Manifest:
    """Train a student and write its model folder.

    Args:
        student: `encoder`, or `lora` for a language model.
        options: passed to `fingerpost.students.encoder.train.fit` or `fingerpost.students.lora.train.fit`.

    Raises:
        MissingExtra: the extra `train` is not installed.
        InputError: there are fewer than two labels or no dev rows.
        ModelError: the encoder cannot be loaded.
    """
    require_training("training")
    if data.changed:
        message = f"the consensus changed {data.changed:,} of the teacher's {data.teacher_labels:,} training labels"
        on_progress(Progress("train", message))
    facts = {
        "labels_from": data.labels_from,
        "trained_from": data.trained_from,
        "text_column": data.text_column,
        "data_fingerprint": data.fingerprint,
        "reply_template": data.reply_template,
        "user_template": data.user_template,
        "system": data.system,
        "companions": list(data.companions),
        "reply_schema": data.reply_schema,
        "training": {"changed_labels": data.changed, "teacher_labels": data.teacher_labels},
    }
    if student == LORA:
        require_extra("lora", "training a language model")
        from fingerpost.students.lora import train as lora

        return lora.fit(data.train, data.dev, data.task, folder, facts=facts, on_progress=on_progress, **options)
    return encoder.fit(
        data.train, data.dev, data.task, folder, facts=facts, vectors=data.vectors, on_progress=on_progress, **options
    )


def train_texts(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    folder: str | Path | None = None,
    name: str = "student",
    levels: Sequence[str] = (),
    on_progress: ProgressCallback = no_progress,
    **options: Any,
) -> EncoderStudent:
    """Train a student on texts with labels, and load it.

    A tenth of the texts is held out to choose between models and calibrate.

        student = fingerpost.train(texts, labels, folder="models/tickets")
        student.predict(["where is my parcel?"])[0].label

    Args:
        texts, labels: sequences, arrays, or columns of a pandas or polars frame, of the same length.
        folder: the model folder. Without it, the model is temporary: it is deleted with the student object, unless it
            is saved with `student.save(folder)`.
        name: the student's name if there is no folder.
        levels: the labels in their order, the lowest first, if they are the levels of a scale.
        options: passed to `fingerpost.students.encoder.train.fit`, such as `encoder`, `epochs`, `history` and `seed`.

    Raises:
        MissingExtra: the extra `train` is not installed.
        InputError: the lengths differ, a text is empty, or there are fewer than two labels.
    """
    require_training("training")
    from fingerpost.students.encoder.predict import EncoderStudent

    target = Path(tempfile.mkdtemp()) / name if folder is None else Path(folder)
    data = from_texts(texts, labels, target.name, levels)
    manifest = train(data, target, on_progress=on_progress, **options)
    student = EncoderStudent(target, manifest, threads=1)
    if folder is None:
        student.delete_folder_at_end()
    return student
