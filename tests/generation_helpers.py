"""What the tests of generation share: a task, cheap embeddings, a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from teacher import MEANS

from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Conversation, Label, Message, Question
from fingerpost.generation.generate import Generated, generate
from fingerpost.store.project import Store
from fingerpost.task.loader import load_task
from fingerpost.task.settings import Task

SHOP = Task(
    name="shop",
    fallback="other",
    labels=tuple(Label(name=name, description=text) for name, text in (*MEANS.items(), ("other", "anything else"))),
)


def text_of(text: str) -> Conversation:
    return (Message("user", text),)


def embed(questions: Sequence[Question]) -> Any:
    """Vectors of bags of words: quick, and the same for the same words."""
    vectors = np.zeros((len(questions), 64), dtype=np.float32)
    for row, question in enumerate(questions):
        for word in " ".join(turn.content for turn in question.messages).split():
            vectors[row, int(hash_fraction(word) * 64)] += 2 * (hash_fraction(f"sign/{word}") < 0.5) - 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


@contextmanager
def one_thread() -> Iterator[None]:
    """Fits of tiny heads are many times slower in several threads than in one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(task: Task, store: Store, folder: Path, **options: Any) -> Generated:
    with one_thread():
        return generate(task, store, folder, embed, **options)


def writing_requests(bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The requests to a writer, not those for labels."""
    return [body for body in bodies if "1" in body["response_format"]["json_schema"]["schema"]["properties"]]


def generate_in(folder: Path, count: int) -> None:
    """Generate questions for the project in this folder, for at most $1."""
    with Store(folder / "fingerpost.db") as store:
        run(load_task(folder / "task.toml"), store, folder, count=count, budget_usd=1.0)
