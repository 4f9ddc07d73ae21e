"""Frozen embeddings of a project's questions, kept beside the database so that each text is embedded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fingerpost.core.text import encoder_input, fingerprint
from fingerpost.core.types import Question
from fingerpost.students.encoder.network import Encoder, repeatable
from fingerpost.students.encoder.source import find_encoder
from fingerpost.students.encoder.train import MAX_TOKENS
from fingerpost.students.linear import Array
from fingerpost.task.settings import StudentSettings


def vectors_of(questions: Sequence[Question], settings: StudentSettings, cache: Path | None = None) -> Array:
    """Unit vectors of the questions, shape (questions, width), in float32.

    With `cache`, a folder, what was embedded before is read from it and what is new is added.

    Raises:
        ModelError: the encoder cannot be had.
    """
    origin = find_encoder(settings.encoder)[1]
    key = fingerprint([str(sorted(origin.items())), str(settings.history), str(MAX_TOKENS)])
    file = None if cache is None else cache / f"vectors-{key}.npz"
    known: dict[str, int] = {}
    kept: Array | None = None
    if file is not None and file.is_file():
        with np.load(file, allow_pickle=False) as found:
            known, kept = {name: i for i, name in enumerate(found["ids"].tolist())}, found["vectors"]
    missing = list({each.id: each for each in questions if each.id not in known}.values())
    if missing:
        with repeatable(0):
            fresh = Encoder(settings.encoder, MAX_TOKENS).embed(
                [encoder_input(each.messages, settings.history) for each in missing]
            )
        kept = fresh if kept is None else np.concatenate([kept, fresh])
        known |= {each.id: len(known) + i for i, each in enumerate(missing)}
        if file is not None:
            file.parent.mkdir(exist_ok=True)
            part = file.with_name(f".{os.getpid()}-{file.name}")
            with part.open("wb") as stream:
                np.savez(stream, ids=np.array(list(known)), vectors=kept)
            part.replace(file)
    assert kept is not None
    vectors: Array = kept[[known[each.id] for each in questions]]
    return vectors
