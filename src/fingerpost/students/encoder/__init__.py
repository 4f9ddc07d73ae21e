"""The sentence-encoder student: an encoder and a linear head, trained with torch, served without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fingerpost.core.types import Example
    from fingerpost.students.encoder.predict import EncoderStudent
    from fingerpost.students.folder import Manifest
    from fingerpost.task.settings import Task


def load(folder: Path, manifest: Manifest, threads: int = 1) -> EncoderStudent:
    """Open a checked model folder."""
    from fingerpost.students.encoder.predict import EncoderStudent

    return EncoderStudent(folder, manifest, threads)


def fit(examples: Sequence[Example], dev: Sequence[Example], task: Task, folder: Path, **options: Any) -> Manifest:
    """Train a student into `folder`; see `fingerpost.students.encoder.train.fit` for the options."""
    from fingerpost.students.encoder import train

    return train.fit(examples, dev, task, folder, **options)
