"""A project folder: task.toml, the database, models and reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.core.types import Question
    from fingerpost.store.project import Store
    from fingerpost.task.settings import StudentSettings, Task


class Project:
    """Where the parts of a project lie. Opening it reads and checks task.toml."""

    def __init__(self, folder: Path) -> None:
        from fingerpost.task.loader import TASK_FILE, load_task

        self.folder = folder
        self.task: Task = load_task(folder / TASK_FILE)
        self.models = folder / "models"
        self.reports = folder / "reports"

    def embed(self, questions: Sequence[Question], settings: StudentSettings | None = None) -> NDArray[np.float32]:
        """Unit vectors of questions, (questions, width), kept in the project's folder `cache`."""
        from fingerpost.core.utils import require_training

        require_training("comparing texts")
        from fingerpost.students.encoder.vectors import vectors_of

        return vectors_of(questions, settings or self.task.student, self.folder / "cache")

    def store(self) -> Store:
        """The project's database, made on first use."""
        from fingerpost.store.project import Store

        return Store(self.folder / "fingerpost.db")
