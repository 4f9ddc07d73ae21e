"""Settings of one server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fingerpost.store.server import DATABASE
from fingerpost.task.settings import Task, TeacherSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths, models, limits and access rules of a server.

    Attributes:
        folder: the server's data folder.
        models: model folders by the name that they are served under.
        project: the project folder, if there is one; its `task` is used in prompts to the teacher.
        teacher: the model that uncertain requests are forwarded to.
        teacher_timeout_s: seconds to wait for a free connection to the teacher, and again for its reply.
        budget_usd: the most that the teacher may cost this server, in US dollars.
        cutoff: requests with a lower student confidence go to the teacher.
        agreement, accuracy: choose the cut-off on dev rows for this target agreement with the teacher, or accuracy
            against human labels. At most one of `cutoff`, `agreement` and `accuracy` is set.
        upstream: base URL of the endpoint that gets what this server does not decide itself.
        upstream_key: its key for callers with a key of this server; others send their own.
        disagreement: the share of a decision's answers that may differ from the upstream's.
        auto: take the next step of a decision without being asked, when it is proven.
        panel: requests of each decision that are put to the upstream endpoint once a day; 0 for none.
        panel_every_s: seconds between two repetitions.
        encoder: base encoder of fine-tuning jobs, a folder or a hub name; `auto` chooses by the language of a job's texts.
        bases: base language models of fine-tuning jobs whose replies are no labels, by the name that a job asks for; that of the
            name `*` stands for all others.
        engine: base URL of the endpoint that runs the models that write their replies; default is this machine.
        allowed_hosts: host names that requests without API keys may come from.
        cors_origins: web pages that may use the server from a browser, such as https://app.example.com.
        log_requests: whether requests are stored, for `keep_days` days.
        redact: applied to all texts before they are stored.
        threads, training_threads: number of threads for prediction and for a training job.
        max_waiting: conversations that may wait for prediction.
        max_jobs: fine-tuning jobs that may wait.
        max_body, max_upload: largest request body and uploaded file, in bytes.
        requests_per_minute: limit for each API key.
        webhook: URL that is told when a job or batch ends.
        webhook_secret: secret that signs webhook requests.
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
    upstream: str | None = None
    upstream_key: str | None = None
    disagreement: float = 0.05
    auto: bool = False
    panel: int = 0
    panel_every_s: float = 86_400.0
    encoder: str = "auto"
    bases: dict[str, str] = field(default_factory=dict)
    engine: str | None = None
    keys_required: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    log_requests: bool = True
    keep_days: float = 30.0
    redact: Callable[[str], str] | None = None
    threads: int = 1
    training_threads: int = 1
    max_waiting: int = 512
    max_jobs: int = 100
    max_body: int = 4_000_000
    max_upload: int = 512_000_000
    requests_per_minute: int | None = None
    webhook: str | None = None
    webhook_secret: str | None = None

    def base_for(self, model: str) -> str | None:
        """The base language model for a job that asks for this model; None where there is none."""
        return self.bases.get(model, self.bases.get("*"))

    @property
    def files(self) -> Path:
        """Folder of uploaded files and results, named by file id."""
        return self.folder / "files"

    @property
    def tuned(self) -> Path:
        """Folder of fine-tuned models, named by job id."""
        return self.folder / "models"

    @property
    def database(self) -> Path:
        """The server's database file."""
        return self.folder / DATABASE
