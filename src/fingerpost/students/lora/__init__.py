"""The generative student: a causal language model with a LoRA adapter (Hu et al. 2021), trained and run with torch.

It keeps what a classifier gives up: labels that are read from the prompt, replies of several fields, free text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fingerpost.core.utils import require_extra

if TYPE_CHECKING:
    from fingerpost.students.folder import Manifest
    from fingerpost.students.lora.predict import LoraStudent


def load(folder: Path, manifest: Manifest, *_: object) -> LoraStudent:
    """Load a model folder whose manifest and hashes were checked by `read_manifest`. torch chooses the number of threads.

    Raises:
        MissingExtra: the extra `lora` is not installed.
        ModelError: the base model cannot be loaded.
    """
    require_extra("lora", "a student of kind 'lora'")
    from fingerpost.students.lora.predict import LoraStudent

    return LoraStudent(folder, manifest)
