"""Fingerpost turns an expensive LLM classifier into a small one that is better than its teacher.

    student = fingerpost.train(texts, labels, folder="models/tickets")
    student.predict(["where is my parcel?"])[0].label

Everything heavy is imported on use: importing this package reads nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fingerpost.core.version import __version__

if TYPE_CHECKING:
    from fingerpost.core.errors import FingerpostError
    from fingerpost.core.types import Message, Prediction, Predictor, Progress
    from fingerpost.evaluation.file import evaluate_texts as evaluate
    from fingerpost.project import Project
    from fingerpost.students import load
    from fingerpost.students.cascade import Cascade
    from fingerpost.training.train import train_texts as train

__all__ = [
    "Cascade",
    "FingerpostError",
    "Message",
    "Prediction",
    "Predictor",
    "Progress",
    "Project",
    "__version__",
    "evaluate",
    "load",
    "train",
]

_HOMES = {
    "Cascade": ("fingerpost.students.cascade", "Cascade"),
    "FingerpostError": ("fingerpost.core.errors", "FingerpostError"),
    "Message": ("fingerpost.core.types", "Message"),
    "Prediction": ("fingerpost.core.types", "Prediction"),
    "Predictor": ("fingerpost.core.types", "Predictor"),
    "Progress": ("fingerpost.core.types", "Progress"),
    "Project": ("fingerpost.project", "Project"),
    "evaluate": ("fingerpost.evaluation.file", "evaluate_texts"),
    "load": ("fingerpost.students", "load"),
    "train": ("fingerpost.training.train", "train_texts"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fingerpost' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
