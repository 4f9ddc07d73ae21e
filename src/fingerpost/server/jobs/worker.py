"""The process of a job: `python -m fingerpost.server.jobs.worker validate|train FOLDER JOB OPTIONS`.

It ends when its standard input closes, so also when the server is killed. Its result is in the database.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.text import shorten
from fingerpost.core.types import Example, Progress
from fingerpost.core.utils import end_with_parent, require_extra
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.jobs.job_data import UnusableFile, read, read_texts
from fingerpost.server.schemas import Json, step_metrics
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import JobRow
from fingerpost.students.folder import CHECKPOINT_WRITTEN, epoch_folders, read_manifest, read_steps
from fingerpost.task.reply_format import NoClassification
from fingerpost.training.dataset import TrainingSet
from fingerpost.training.train import train as train_student

SECONDS_PER_ROW, SECONDS_MORE = 0.03, 25  # of the estimated finish, until it is known better
KEPT_EPOCHS = 3
"""Epochs of a language model that can be called as checkpoints."""
N = TypeVar("N", int, float)
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def validate(settings: Settings, store: ServerStore, job: JobRow) -> None:
    """Read the job's files; the job is then queued, or has failed with the reason."""
    request = job.request
    store.add_event(job.id, f"Validating training file: {request['training_file']}")
    try:
        try:
            data = read(settings, store, request)
        except NoClassification as error:
            _validate_texts(settings, store, job, error)
            return
    except UnusableFile as error:
        store.fail_job(job.id, f"invalid_{error.param}", str(error), error.param)
        return
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:  # would only come again
        found = shorten(f"{type(error).__name__}: {error}", 200)
        store.fail_job(job.id, "invalid_training_file", f"the files cannot be read ({found})", "training_file")
        return
    for part in data:
        template = part.reply_template
        assert template is not None
        store.add_event(
            job.id,
            f"Found a classification: {len(part.task.labels)} labels in {len(part.train):,} training and "
            f"{len(part.dev):,} validation examples; replies such as {template.before}...{template.after}",
        )
    if len(data) > 1:
        store.add_event(job.id, f"{len(data)} fields of the replies vary: each gets a student of its own")
    user = data[0].user_template
    if user.before or user.after:
        store.add_event(
            job.id,
            "All user messages have the same text around them, which is left out: "
            f"{shorten(user.before, 60)!r} ... {shorten(user.after, 60)!r}",
        )
    rejected = max(len(part.rejected) for part in data)
    if rejected:
        message = f"{rejected} validation examples have a label that no training example has: left out"
        store.add_event(job.id, message, "warn")
    store.add_event(job.id, "Files validated, moving job to queued state")
    store.change_job(job.id, ("validating_files",), status="queued", attempts=0)


def _validate_texts(settings: Settings, store: ServerStore, job: JobRow, reason: NoClassification) -> None:
    """As `validate`, for replies that are no labels: a language model learns them, if the server has one.

    Raises:
        UnusableFile: a file is missing, or no chat JSONL.
    """
    if settings.base_for(job.request["model"]) is None:
        message = f"{reason}. To train a language model on such replies, start the server with --base MODEL"
        store.fail_job(job.id, "not_a_classification", message, "training_file")
        return
    data = read_texts(settings, store, job.request)
    found = f"{len(data.train):,} training and {len(data.dev):,} validation conversations"
    kind = f"JSON of {len(data.schema['properties'])} fields" if data.schema else "texts"
    store.add_event(job.id, f"The replies are {kind}, which a language model learns: {found}")
    store.add_event(job.id, "Files validated, moving job to queued state")
    store.change_job(job.id, ("validating_files",), status="queued", attempts=0)


def train(settings: Settings, store: ServerStore, job: JobRow) -> None:
    """Train the job's model; the job has then succeeded, or failed with the reason."""
    request = job.request
    steps: list[Json] = []

    try:
        try:
            parts = read(settings, store, request)
        except NoClassification:
            tokens = _train_texts(settings, store, job, steps)
        else:
            tokens = _train_labels(settings, store, job, parts, steps)
        results = _write_steps(FileStorage(settings, store), steps)
    except InputError as error:
        store.fail_job(job.id, "invalid_training_file", str(error), "training_file")
        return
    except (FingerpostError, OSError) as error:
        store.fail_job(job.id, "server_error", str(error))
        return
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # such as a GPU without room
        traceback.print_exc()
        found = shorten(f"{type(error).__name__}: {error}", 200)
        store.fail_job(job.id, "server_error", f"training failed ({found}); see the server's log")
        return
    model = model_name(job)
    store.add_event(job.id, f"New fine-tuned model created: {model}")
    store.add_event(job.id, "The job has successfully completed")
    store.change_job(
        job.id,
        ("running",),
        status="succeeded",
        finished_at=now(),
        model=model,
        estimated_finish=None,
        result_file=results,
        trained_tokens=tokens,
    )


def _train_labels(
    settings: Settings, store: ServerStore, job: JobRow, parts: list[TrainingSet], steps: list[Json]
) -> int:
    """Train the classifiers of a job; returns the number of trained tokens."""
    request, (first, *others) = job.request, parts

    def on_progress(progress: Progress) -> None:
        step = progress.data
        if step is None:
            if progress.message:
                store.add_event(job.id, progress.message)
            return
        steps.append(_report_step(store, job, step))

    epochs = _epochs(request)
    seconds = (SECONDS_MORE + int(SECONDS_PER_ROW * len(first.train) * epochs)) * (1 + len(others))
    store.change_job(job.id, ("running",), estimated_finish=now() + seconds)
    companions = tuple(f"{job.id}~{number}" for number in range(1, len(others) + 1))
    data = replace(first, companions=companions)
    for part, name in [*zip(others, companions, strict=True), (data, job.id)]:
        steps.clear()
        manifest = train_student(
            part,
            settings.tuned / name,
            encoder=settings.encoder,
            seed=request.get("seed") or 0,
            epochs=epochs,
            on_progress=on_progress,
        )
    kept = next(step for step in steps if step["step"] == manifest.training["epochs"])
    accuracy = f"{kept['valid_mean_token_accuracy']:.3f} of {len(data.dev)} validation labels matched"
    store.add_event(job.id, f"Checkpoint created at step {kept['step']}: {accuracy}", data=kept)
    return sum(count_words(example) for example in data.train) * max(1, epochs)


def _train_texts(settings: Settings, store: ServerStore, job: JobRow, steps: list[Json]) -> int:
    """Train a language model on a job's replies; returns the number of trained tokens.

    Raises:
        MissingExtra: the extra `lora` is not installed.
    """
    require_extra("lora", "a job whose replies are texts")
    from fingerpost.students.lora.train_text import EPOCHS, fit_text
    from fingerpost.students.lora.tuning import BATCH, PATIENCE, Recipe

    base = settings.base_for(job.request["model"])
    if base is None:
        raise InputError("the server has no base language model any more; start it with --base MODEL")
    data = read_texts(settings, store, job.request)
    given = _hyperparameters(job.request)
    recipe = Recipe(
        epochs=_number(given.get("n_epochs"), EPOCHS),
        batch=_number(given.get("batch_size"), BATCH),
        rate_multiplier=_number(given.get("learning_rate_multiplier"), 1.0),
        seed=job.request.get("seed") or 0,
        patience=None if isinstance(given.get("n_epochs"), int) else PATIENCE,
    )

    def on_progress(progress: Progress) -> None:
        step = progress.data
        if progress.message:
            store.add_event(job.id, progress.message)
        if progress.detail == CHECKPOINT_WRITTEN:  # it does not start again from the beginning, so it may start again
            store.change_job(job.id, ("running",), attempts=1)
        if step is None:
            return
        _report_step(store, job, step)
        if step.step % 10 == 3 or step.dev_loss is not None:
            left = (step.total - step.step) * step.mean_seconds
            store.change_job(job.id, ("running",), estimated_finish=now() + round(left))

    manifest = fit_text(
        data.train, data.dev, settings.tuned / job.id, base=base, recipe=recipe, reply_schema=data.schema,
        facts={"training": {"calls": any(one.calls for one in data.train)}}, keep_epochs=KEPT_EPOCHS,
        on_progress=on_progress,
    )  # fmt: skip
    steps += map(step_metrics, read_steps(settings.tuned / job.id))
    for folder in epoch_folders(settings.tuned / job.id):
        metrics = step_metrics(read_manifest(folder).training["last_step"])
        losses = f"validation loss {metrics['valid_loss']:.3f}"
        store.add_event(job.id, f"Checkpoint created at step {metrics['step']}: {losses}", data=metrics)
    return int(manifest.training["tokens"])


def _report_step(store: ServerStore, job: JobRow, step: Any) -> Json:
    """Add an event with a step's metrics, and return them."""
    metrics = step_metrics(asdict(step))
    losses = ", ".join(
        f"{name} loss={metrics[key]:.3f}"
        for name, key in (("training", "train_loss"), ("validation", "valid_loss"))
        if key in metrics
    )
    store.add_event(job.id, f"Step {step.step}/{step.total}: {losses}", data=metrics)
    return metrics


def _write_steps(files: FileStorage, steps: list[Json]) -> str:
    """Write the result file of a job, one line for each step; returns its id."""
    report = io.StringIO()
    writer = csv.DictWriter(report, COLUMNS, extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows({**step, "train_accuracy": step.get("train_mean_token_accuracy", "")} for step in steps)
    return files.add(
        "step_metrics.csv", "fine-tune-results", lambda stream: stream.write(report.getvalue().encode())
    ).id


def model_name(job: JobRow) -> str:
    """`ft:base:organization:suffix:id`, as the hosted service names its models."""
    given = job.request["model"]
    base = given.split(":")[1] if given.startswith("ft:") and ":" in given[3:] else given
    base = re.sub(r"[^\w.\-/]+", "-", base)
    suffix = re.sub(r"[^\w\-]+", "-", job.request.get("suffix") or "")
    return f"ft:{base}:local:{suffix}:{job.id[-8:]}"


def count_words(example: Example) -> int:
    """Approximate tokens of an example: its words and punctuation marks."""
    return sum(len(re.findall(r"\w+|[^\w\s]", turn.content)) for turn in example.messages)


def _hyperparameters(request: Json) -> Json:
    """The job's hyperparameters, from the new place or the old one."""
    method = ((request.get("method") or {}).get("supervised") or {}).get("hyperparameters")
    return method or request.get("hyperparameters") or {}


def _number(given: Any, default: N) -> N:
    """A hyperparameter, or its default where it is `auto` or missing."""
    return type(default)(given) if isinstance(given, int | float) and not isinstance(given, bool) else default


def _epochs(request: Json) -> int:
    from fingerpost.students.encoder.finetune import EPOCHS
    from fingerpost.students.encoder.network import best_device

    given = _hyperparameters(request).get("n_epochs")
    return given if isinstance(given, int) else EPOCHS if best_device().type != "cpu" else 0


def main(verb: str, folder: str, job_id: str, options: str) -> None:
    """One verb on one job."""
    end_with_parent()
    given = json.loads(options)
    settings = Settings(folder=Path(folder), encoder=given["encoder"], bases=given["bases"])
    if verb == "train":
        os.nice(given["nice"])
        os.environ["OMP_NUM_THREADS"] = str(given["threads"])
    store = ServerStore(settings.database)
    job = store.get_job(job_id)
    if job is not None:
        {"validate": validate, "train": train}[verb](settings, store, job)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
