"""The learning curve: predictions of a linear head on the frozen encoder, trained on fewer examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.text import encoder_input
from fingerpost.core.types import Conversation, Example
from fingerpost.students.denoise import clean, fit_views
from fingerpost.students.encoder.network import Encoder, repeatable
from fingerpost.students.encoder.train import encoder_of, rows_of
from fingerpost.students.linear import Projection
from fingerpost.task.settings import Task

FIRST_SIZE = 25


def learning_curve(
    examples: Sequence[Example],
    test: Sequence[Conversation],
    task: Task,
    vectors: Mapping[str, NDArray[np.float32]] | None = None,
) -> list[tuple[int, NDArray[np.int64]]]:
    """Train linear heads on 25, 50, 100, ... and all examples, drawn at random.

    Args:
        test: conversations to predict.
        vectors: known embeddings of the examples by id, each of shape (width,).

    Returns:
        For each head the number of its examples and its predicted label indices, shape (test,).

    Raises:
        ModelError: the encoder cannot be loaded.
    """
    history, seed = task.student.history, task.student.seed
    with repeatable(seed):
        base = Encoder(encoder_of(task.student.encoder, examples, history))
        base.read_at_once(task.student.max_tokens or base.covering([turns[-1].content for turns in test]))
        rows = rows_of(base, examples, task, history, vectors)
        projection = Projection.of(rows.vectors, base.projected_parts)
        rows = replace(rows, vectors=projection.apply(rows.vectors), read_width=rows.vectors.shape[1])
        embedded = projection.apply(base.embed([encoder_input(messages, history) for messages in test]))
        order = np.random.default_rng(seed).permutation(len(examples))
        sizes = []
        size = FIRST_SIZE
        while size < len(examples):
            sizes.append(size)
            size *= 2
        points = []
        for size in [*sizes, len(examples)]:
            part = rows.take(order[:size])
            cleaned = clean(part, seed)
            head = fit_views(cleaned.rows, cleaned.stack).head
            points.append((size, head.logits(embedded).argmax(1)))
    return points
