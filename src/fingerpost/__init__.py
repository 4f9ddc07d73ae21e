"""Fingerpost turns an expensive LLM classifier into a small one that is better than its teacher.

    router = fingerpost.load("models/student")
    router.predict(["how many days off do I have left?"])

Everything heavy is imported on use: importing this package reads nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fingerpost.core.version import __version__

if TYPE_CHECKING:
    from fingerpost.core.errors import FingerpostError
    from fingerpost.core.types import Message, Prediction, Predictor
    from fingerpost.students import load


__all__ = ["FingerpostError", "Message", "Prediction", "Predictor", "__version__", "load"]

_HOMES = {
    "FingerpostError": "fingerpost.core.errors",
    "Message": "fingerpost.core.types",
    "Prediction": "fingerpost.core.types",
    "Predictor": "fingerpost.core.types",
    "load": "fingerpost.students",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fingerpost' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
