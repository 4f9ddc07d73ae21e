"""Student models. Each kind is a module with `fit(...)` and `load(folder, ...)`, imported when it is needed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fingerpost.core.errors import FingerpostError, ModelError
from fingerpost.students.folder import read_manifest

if TYPE_CHECKING:
    from fingerpost.core.types import Predictor
    from fingerpost.students.encoder.predict import Tiers

KINDS = {
    "encoder": "fingerpost.students.encoder",
    "hosted": "fingerpost.students.hosted",
    "lora": "fingerpost.students.lora",
}


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
    module = import_module(KINDS[manifest.kind])
    try:
        predictor: Predictor = module.load(path, manifest, threads, tiers)
    except FingerpostError:
        raise
    except Exception as error:  # what a file of the folder may cause in the library that reads it is not foreseeable
        found = " ".join(str(error).split())[:120]
        raise ModelError(f"{path} cannot be loaded ({type(error).__name__}: {found}); train it again") from error
    return predictor
