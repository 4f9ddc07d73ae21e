"""Fingerpost turns an expensive LLM classifier into a small one that is better than its teacher.

    router = fingerpost.load("models/student")
    router.predict(["how many days off do I have left?"])

Everything heavy is imported on use: importing this package reads nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError
    from fingerpost.students import load
    from fingerpost.types import Message, Prediction, Predictor

__version__ = "0.1.0"
__all__ = ["FingerpostError", "Message", "Prediction", "Predictor", "__version__", "load"]

_HOMES = {
    "FingerpostError": "fingerpost.errors",
    "Message": "fingerpost.types",
    "Prediction": "fingerpost.types",
    "Predictor": "fingerpost.types",
    "load": "fingerpost.students",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fingerpost' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
