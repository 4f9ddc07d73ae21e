"""Trains a student into a model folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fingerpost.core.utils import require_training
from fingerpost.students import encoder
from fingerpost.students.folder import Manifest
from fingerpost.training.dataset import TrainingSet


def train(data: TrainingSet, folder: Path, *, show: Callable[[str], None] = lambda _: None, **options: Any) -> Manifest:
    """Train the sentence-encoder student into a folder; options as of `students.encoder.training.fit`.

    Raises:
        MissingExtra: torch and its company are not installed.
        InputError: too little to learn from.
        ModelError: the encoder cannot be had, or the folder is something else.
    """
    require_training("training")
    if data.changed:
        show(f"consensus: {data.changed:,} of the teacher's {data.teacher_labels:,} training labels are other ones now")
    return encoder.fit(
        data.train,
        data.dev,
        data.task,
        folder,
        facts={"labels_from": data.labels_from, "data_fingerprint": data.fingerprint},
        changed_labels=(data.changed, data.teacher_labels),
        vectors=data.vectors,
        show=show,
        **options,
    )
