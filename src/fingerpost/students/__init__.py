"""Student models. Each kind is a module with `fit(...)` and `load(folder, ...)`, imported when it is needed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fingerpost.core.errors import ModelError
from fingerpost.students.folder import read_manifest

if TYPE_CHECKING:
    from fingerpost.core.types import Predictor
    from fingerpost.students.encoder.predict import Tiers

KINDS = {"encoder": "fingerpost.students.encoder", "hosted": "fingerpost.students.hosted"}


def load(folder: str | Path, threads: int = 1, tiers: Tiers = "auto") -> Predictor:
    """Load a model folder as a predictor. Does not need torch.

    Args:
        folder: a folder written by `fingerpost train`.
        threads: number of threads per prediction; 1 gives the best latency if many requests share the machine.
        tiers: `auto` lets the fast tier of a student answer where it is sure; `all` uses the whole student for every
            text, `fast` the fast tier alone. Hosted students have no tiers.

    Raises:
        InputError: `tiers` is `fast` and the model has no fast tier.
        ModelError: the folder is missing, incomplete or altered, or its kind of model is unknown to this version.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    if manifest.kind not in KINDS:
        raise ModelError(
            f"{path} contains a student of kind '{manifest.kind}', which this version does not know; "
            "update with pip install -U fingerpost"
        )
    predictor: Predictor = import_module(KINDS[manifest.kind]).load(path, manifest, threads, tiers)
    return predictor
