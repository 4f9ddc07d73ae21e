"""How a server is set up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fingerpost.store.server import DATABASE
from fingerpost.task.settings import Task, TeacherSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things lie and what is allowed. Sizes are bytes, times seconds, money US dollars.

    `models` maps names to model folders. With a `teacher`, what a student is unsure of goes there: below `cutoff`, or
    below the cut-off that dev rows give for `agreement` with the teacher or `accuracy` against people.
    """

    folder: Path
    models: dict[str, Path] = field(default_factory=dict)
    project: Path | None = None
    task: Task | None = None
    teacher: TeacherSettings | None = None
    teacher_timeout_s: float = 10.0
    budget_usd: float | None = None
    cutoff: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    encoder: str = "all-MiniLM-L6-v2"
    keys_required: bool = False
    allowed_hosts: tuple[str, ...] = ()
    keep_requests: bool = True
    keep_days: float = 30.0
    redact: Callable[[str], str] | None = None
    threads: int = 1
    training_threads: int = 1
    most_waiting: int = 512
    most_jobs: int = 100
    most_body: int = 4_000_000
    most_upload: int = 512_000_000
    requests_per_minute: int | None = None
    webhook: str | None = None
    webhook_secret: str | None = None

    @property
    def files(self) -> Path:
        """Uploaded files and results, by id."""
        return self.folder / "files"

    @property
    def tuned(self) -> Path:
        """Models of jobs, by the job's id."""
        return self.folder / "models"

    @property
    def database(self) -> Path:
        return self.folder / DATABASE
