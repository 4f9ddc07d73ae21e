"""The hosted student: a model fine-tuned by a provider with an OpenAI-compatible API, and its predictor.

The state of a fine-tuning job is stored in a file next to the model's folder. An interrupted run resumes with the files
that it uploaded and the job that it created, and never creates a second, paid job.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.text import fingerprint, shorten
from fingerpost.core.types import Conversation, Example, Progress, ProgressCallback, no_progress
from fingerpost.core.utils import count, is_loopback, locked
from fingerpost.llm.completion import Chat, teacher_error
from fingerpost.llm.polling import poll
from fingerpost.llm.predictor import ChatPredictor
from fingerpost.llm.provider import call_provider, provider_client
from fingerpost.students.folder import (
    TRAINED_ON,
    Manifest,
    MultiLabel,
    manifest_of,
    require_free,
    task_of,
    write_manifest,
    writing,
)
from fingerpost.task.prompt import chat, system_prompt, training_line
from fingerpost.task.settings import Task, TeacherSettings

STEP = "train"
CONCURRENCY = 8
MAX_WAIT_S = 20.0
REPLY_TOKENS = 64
TIMEOUT_S = 600.0
MAX_SEARCHED = 100  # recent jobs to search for one whose id was not stored because the run was interrupted
JOB_ENDED = ("succeeded", "failed", "cancelled")
TRUST_VARIABLE = "FINGERPOST_TRUST"  # environment variable: comma-separated hosts that may receive an API key


def training_lines(task: Task, examples: Sequence[Example]) -> list[str]:
    """Chat JSONL, one line per example: system prompt, conversation, and the reply with the most probable label."""
    return [training_line(task, example.messages, example.label) for example in examples]


def fit(
    examples: Sequence[Example],
    dev: Sequence[Example],
    task: Task,
    folder: Path,
    *,
    model: str,
    suffix: str | None = None,
    base_url: str | None = None,
    key_env: str = "OPENAI_API_KEY",
    epochs: int | None = None,
    labels_from: dict[str, int] | None = None,
    data_fingerprint: str = "",
    on_progress: ProgressCallback = no_progress,
) -> Manifest:
    """Upload the data, create a fine-tuning job, wait for it, and write a model folder that refers to the hosted model.

    Args:
        examples, dev: training and validation rows.
        folder: the model folder to write.
        model: the provider's base model.
        suffix: part of the fine-tuned model's name.
        base_url: address of the provider; default is OpenAI.
        key_env: environment variable of the API key.
        epochs: training epochs; default is the provider's choice.
        labels_from, data_fingerprint: stored in the manifest.
        on_progress: receives a message for each stage and each event of the job.

    Raises:
        InputError: there is no API key, or the folder exists and is not a model folder.
        ModelError: the job failed or was cancelled.
        TeacherError: the provider cannot be reached or refuses a request; run the command again to resume.
    """
    require_free(folder)
    client = client_of(base_url, key_env)
    files = {"training_file": training_lines(task, examples), "validation_file": training_lines(task, dev)}
    key = fingerprint(
        [*files["training_file"], *files["validation_file"], model, suffix or "", base_url or "", str(epochs)]
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    state = _JobState(folder.with_name(f".{folder.name}-{key}.json"))
    with locked(state.file.with_suffix(".lock"), f"another run is training {folder}; let it finish first"):
        job = _finished_job(client, state, files, model, suffix, epochs, key_env, on_progress)
    with writing(folder) as staging:
        ids = sorted({example.id for example in (*examples, *dev)})
        (staging / TRAINED_ON).write_text("\n".join(ids) + "\n", encoding="ascii")
        hosted = {"model": job.fine_tuned_model, "base_url": str(client.base_url), "key_env": key_env, "job": job.id}
        manifest = manifest_of(
            "hosted", folder.name, task,
            system=system_prompt(task, codes=True),
            hosted=hosted,
            history=0,
            max_tokens=REPLY_TOKENS,
            data_fingerprint=data_fingerprint,
            labels_from=labels_from or {},
            multi=MultiLabel(thresholds=[], empty=True) if task.multi else None,
            training={"train_rows": len(examples), "dev_rows": len(dev), "tokens": count(job.trained_tokens) or 0},
            versions={"openai": version("openai")},
        )  # fmt: skip
        manifest = write_manifest(staging, manifest)
    state.delete()
    return manifest


class HostedStudent(ChatPredictor):
    """Predicts with a fine-tuned model at a provider, using the system prompt that it was trained with.

    Raises:
        InputError: on construction, if there is no API key.
        ModelError: on construction, if the folder names a host that the user does not trust.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        hosted = manifest.hosted
        _require_trust(folder, hosted["base_url"])
        _require_key(hosted["base_url"], hosted["key_env"])
        settings = TeacherSettings(
            model=hosted["model"],
            base_url=hosted["base_url"],
            key_env=hosted["key_env"],
            max_tokens=REPLY_TOKENS,
            concurrency=CONCURRENCY,
        )

        def request(messages: Conversation) -> tuple[Chat, None]:
            return chat(manifest.system, messages), None

        super().__init__(folder.name, manifest, task_of(manifest), settings, folder, request)


def load(folder: Path, manifest: Manifest, *_: object) -> HostedStudent:
    """Load a model folder whose manifest and hashes were checked by `read_manifest`. The provider computes the answers."""
    return HostedStudent(folder, manifest)


def client_of(base_url: str | None, key_env: str) -> openai.OpenAI:
    """A client for the provider. A local server needs no API key.

    Raises:
        InputError: the environment variable of the API key is not set.
    """
    _require_key(base_url, key_env)
    return provider_client(os.environ.get(key_env) or "none", base_url, TIMEOUT_S)


def _require_key(base_url: str | None, key_env: str) -> None:
    if not os.environ.get(key_env) and not is_loopback(base_url):
        raise InputError(
            f"there is no API key: set the environment variable {key_env}, or name another one with --key-env"
        )


def _require_trust(folder: Path, base_url: str) -> None:
    """Check that the user trusts the host named in a model folder, because it receives the user's API key.

    Raises:
        ModelError: the host is not local, not OpenAI's, not that of $OPENAI_BASE_URL, and not in $FINGERPOST_TRUST.
    """
    host = urlsplit(base_url).hostname
    named = urlsplit(os.environ.get("OPENAI_BASE_URL", "")).hostname
    trusted = {"api.openai.com", named, *os.environ.get(TRUST_VARIABLE, "").split(",")}
    if not is_loopback(base_url) and host not in trusted:
        raise ModelError(
            f"{folder} sends requests and your API key to {host}; if you trust this host, set {TRUST_VARIABLE}={host}"
        )


def _finished_job(
    client: openai.OpenAI,
    state: _JobState,
    files: dict[str, list[str]],
    model: str,
    suffix: str | None,
    epochs: int | None,
    key_env: str,
    on_progress: ProgressCallback,
) -> Any:
    """Run a fine-tuning job, or resume the one of an earlier run, and return it once it has succeeded.

    Raises:
        ModelError: the job failed or was cancelled.
        TeacherError: the provider cannot be reached or refuses a request.
    """
    try:
        for name, lines in files.items():
            if lines and name not in state.values:
                on_progress(Progress(STEP, f"uploading {len(lines):,} rows"))
                named = (f"{name}.jsonl", "".join(lines).encode())
                upload = call_provider(
                    client.base_url, partial(client.files.create, file=named, purpose="fine-tune"), "id"
                )
                state.set(name, upload.id)
        job = _create_or_resume(client, state, model, suffix, epochs)
        on_progress(Progress(STEP, f"job {job.id} at {client.base_url}"))
        job = _wait_for_job(client, job.id, on_progress)
    except openai.OpenAIError as error:
        advice = "run the command again: it resumes the same job"
        raise teacher_error(error, client.base_url, key_env, advice) from None
    if job.status != "succeeded" or not isinstance(job.fine_tuned_model, str):
        state.delete()
        reason = shorten(str(getattr(job.error, "message", None) or "no reason was given"), 200)
        raise ModelError(f"the job {job.id} {job.status}: {reason}; fix that, and run the command again")
    return job


class _JobState:
    """The state of a job, stored in a file. The file's name depends on the data and the base model."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.values: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def set(self, name: str, value: str) -> None:
        self.values[name] = value
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.values), encoding="utf-8")
        part.replace(self.file)

    def delete(self) -> None:
        for file in (self.file, self.file.with_suffix(".lock")):
            file.unlink(missing_ok=True)


def _create_or_resume(
    client: openai.OpenAI, state: _JobState, model: str, suffix: str | None, epochs: int | None
) -> Any:
    """The job for the uploaded files: the stored one, one created just before an interruption, or a new one."""
    if "job" in state.values:
        return call_provider(
            client.base_url, lambda: client.fine_tuning.jobs.retrieve(state.values["job"]), "id", "status"
        )
    job: Any = None
    if "creating" in state.values:
        training_file = state.values["training_file"]
        recent = call_provider(client.base_url, lambda: list(islice(client.fine_tuning.jobs.list(), MAX_SEARCHED)))
        job = next((found for found in recent if getattr(found, "training_file", None) == training_file), None)
    if job is None:
        state.set("creating", "1")
        options: dict[str, Any] = {}
        if "validation_file" in state.values:
            options["validation_file"] = state.values["validation_file"]
        if suffix:
            options["suffix"] = suffix
        if epochs:
            options["method"] = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}}
        # No retries: a second attempt could create, and charge for, a second job. The next run searches for it instead.
        once = client.with_options(max_retries=0)
        given = {"model": model, "training_file": state.values["training_file"], **options}
        job = call_provider(client.base_url, lambda: once.fine_tuning.jobs.create(**given), "id")
    state.set("job", job.id)
    return job


def _wait_for_job(client: openai.OpenAI, job_id: str, on_progress: ProgressCallback) -> Any:
    """Wait until a job has ended, reporting its events; returns the job."""
    reported: set[str] = set()

    def retrieve() -> Any:
        job = call_provider(client.base_url, lambda: client.fine_tuning.jobs.retrieve(job_id), "id", "status")
        events = call_provider(
            client.base_url, lambda: list(client.fine_tuning.jobs.list_events(job_id, limit=50).data)
        )
        for event in reversed(events):
            number, message = getattr(event, "id", None), getattr(event, "message", None)
            if isinstance(number, str) and isinstance(message, str) and number not in reported:
                reported.add(number)
                on_progress(Progress(STEP, message))
        return job

    return poll(retrieve, lambda job: job.status in JOB_ENDED, MAX_WAIT_S)
