"""Embeddings of a project's questions by the frozen encoder, cached so that each text is embedded only once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fingerpost.core.text import encoder_input, fingerprint
from fingerpost.core.types import ProgressCallback, Question, no_progress
from fingerpost.students.encoder.network import MAX_TOKENS, MULTILINGUAL_PARTS, Encoder, repeatable
from fingerpost.students.encoder.source import MULTILINGUAL, find_encoder
from fingerpost.students.linear import Array
from fingerpost.task.settings import StudentSettings


def vectors_of(
    questions: Sequence[Question],
    settings: StudentSettings,
    cache: Path | None = None,
    on_progress: ProgressCallback = no_progress,
) -> Array:
    """Embed questions with the pretrained encoder.

    Args:
        settings: names the encoder itself, and the tokens that are read at once; both would depend on the questions of this
            call otherwise.
        cache: a folder to read known embeddings from and add new ones to.
        on_progress: receives the number of embedded texts.

    Returns:
        Unit vectors, shape (questions, width), float32.

    Raises:
        ModelError: the encoder cannot be found or loaded.
    """
    max_tokens = settings.max_tokens or MAX_TOKENS
    origin = find_encoder(settings.encoder)[1]
    layers = str(MULTILINGUAL_PARTS) if settings.encoder == MULTILINGUAL else ""
    key = fingerprint([str(sorted(origin.items())), layers, str(settings.history), str(max_tokens)])
    file = None if cache is None else cache / f"vectors-{key}.npz"
    known: dict[str, int] = {}
    stored: Array | None = None
    if file is not None and file.is_file():
        with np.load(file, allow_pickle=False) as archive:
            known, stored = {name: i for i, name in enumerate(archive["ids"].tolist())}, archive["vectors"]
    missing = list({question.id: question for question in questions if question.id not in known}.values())
    if missing:
        with repeatable(0):
            embedded = Encoder(settings.encoder, max_tokens).embed(
                [encoder_input(question.messages, settings.history) for question in missing],
                plain=True,
                on_progress=on_progress,
            )
        stored = embedded if stored is None else np.concatenate([stored, embedded])
        known |= {question.id: len(known) + i for i, question in enumerate(missing)}
        if file is not None:
            file.parent.mkdir(exist_ok=True)
            temporary = file.with_name(f".{os.getpid()}-{file.name}")
            with temporary.open("wb") as stream:
                np.savez(stream, ids=np.array(list(known)), vectors=stored)
            temporary.replace(file)
    assert stored is not None
    vectors: Array = stored[[known[question.id] for question in questions]]
    return vectors
