"""The sentence-encoder student: an encoder with a linear head, trained with torch and served without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fingerpost.core.types import Example
    from fingerpost.students.encoder.predict import EncoderStudent, Tiers
    from fingerpost.students.folder import Manifest
    from fingerpost.task.settings import Task


def load(folder: Path, manifest: Manifest, threads: int = 1, tiers: Tiers = "auto") -> EncoderStudent:
    """Load a model folder whose manifest and hashes were checked by `read_manifest`."""
    from fingerpost.students.encoder.predict import EncoderStudent

    return EncoderStudent(folder, manifest, threads, tiers)


def fit(examples: Sequence[Example], dev: Sequence[Example], task: Task, folder: Path, **options: Any) -> Manifest:
    """Train a student into `folder`; see `fingerpost.students.encoder.train.fit` for options and errors."""
    from fingerpost.students.encoder import train

    return train.fit(examples, dev, task, folder, **options)
