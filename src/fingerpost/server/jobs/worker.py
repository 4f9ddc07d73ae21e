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
from dataclasses import replace
from pathlib import Path

from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.text import shorten
from fingerpost.core.types import Example, Progress
from fingerpost.core.utils import end_with_parent
from fingerpost.data.chat import LEAST_ROWS, Row, read_chat
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.schemas import Json
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import JobRow
from fingerpost.task.reply_format import NoClassification
from fingerpost.training.dataset import TrainingSet, from_chat_by_field
from fingerpost.training.train import train as train_student

SECONDS_PER_ROW, SECONDS_MORE = 0.03, 25  # of the estimated finish, until it is known better
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def validate(settings: Settings, store: ServerStore, job: JobRow) -> None:
    """Read the job's files; the job is then queued, or has failed with the reason."""
    request = job.request
    store.add_event(job.id, f"Validating training file: {request['training_file']}")
    try:
        data = read(settings, store, request)
    except NoClassification as error:
        store.fail_job(job.id, "not_a_classification", str(error), "training_file")
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


def read(settings: Settings, store: ServerStore, request: Json) -> list[TrainingSet]:
    """The job's training sets, one for each field that varies; without a validation file, a part of the training file is held out.

    Raises:
        NoClassification: the replies are no labels.
        UnusableFile: a file is missing, or no chat JSONL.
    """
    files = FileStorage(settings, store)
    rows = _rows(files, request, "training_file", LEAST_ROWS)
    dev_rows = _rows(files, request, "validation_file", 1) if request.get("validation_file") else []
    return from_chat_by_field(request.get("suffix") or "task", rows, dev_rows)


class UnusableFile(InputError):
    """A file of a job cannot be used; `param` says which."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"the {param.replace('_', ' ')} cannot be used: {why}")
        self.param = param


def _rows(files: FileStorage, request: Json, param: str, least: int) -> list[Row]:
    path = files.path(request[param])
    if not path.is_file():
        raise UnusableFile(param, "it was deleted; upload it again, and create the job again")
    try:
        return read_chat(path, least)
    except InputError as error:
        raise UnusableFile(param, str(error)) from None


def train(settings: Settings, store: ServerStore, job: JobRow) -> None:
    """Train the job's model; the job has then succeeded, or failed with the reason."""
    request = job.request
    steps: list[Json] = []

    def on_progress(progress: Progress) -> None:
        step = progress.data
        if step is None and not progress.message:
            return
        if step is None:
            store.add_event(job.id, progress.message)
            return
        metrics = {
            "step": step.step,
            "train_loss": round(step.train_loss, 5),
            "valid_loss": round(step.dev_loss, 5),
            "valid_mean_token_accuracy": round(step.dev_accuracy, 5),
            "total_steps": step.total,
        }
        steps.append(metrics)
        losses = f"training loss={step.train_loss:.3f}, validation loss={step.dev_loss:.3f}"
        store.add_event(job.id, f"Step {step.step}/{step.total}: {losses}", data=metrics)

    try:
        first, *others = read(settings, store, request)
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
        report = io.StringIO()
        writer = csv.DictWriter(report, COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(steps)
        results = FileStorage(settings, store).add(
            "step_metrics.csv", "fine-tune-results", lambda stream: stream.write(report.getvalue().encode())
        )
    except InputError as error:
        store.fail_job(job.id, "invalid_training_file", str(error), "training_file")
        return
    except (FingerpostError, OSError) as error:
        store.fail_job(job.id, "server_error", str(error))
        return
    kept = next(step for step in steps if step["step"] == manifest.training["epochs"])
    accuracy = f"{kept['valid_mean_token_accuracy']:.3f} of {len(data.dev)} validation labels matched"
    store.add_event(job.id, f"Checkpoint created at step {kept['step']}: {accuracy}", data=kept)
    model = model_name(job)
    store.add_event(job.id, f"New fine-tuned model created: {model}")
    tokens = sum(count_words(example) for example in data.train) * max(1, epochs)
    store.add_event(job.id, "The job has successfully completed")
    store.change_job(
        job.id,
        ("running",),
        status="succeeded",
        finished_at=now(),
        model=model,
        estimated_finish=None,
        result_file=results.id,
        trained_tokens=tokens,
    )


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


def _epochs(request: Json) -> int:
    from fingerpost.students.encoder.finetune import EPOCHS
    from fingerpost.students.encoder.network import best_device

    method = ((request.get("method") or {}).get("supervised") or {}).get("hyperparameters")
    given = (method or request.get("hyperparameters") or {}).get("n_epochs")
    return given if isinstance(given, int) else EPOCHS if best_device().type != "cpu" else 0


def main(verb: str, folder: str, job_id: str, options: str) -> None:
    """One verb on one job."""
    end_with_parent()
    given = json.loads(options)
    settings = Settings(folder=Path(folder), encoder=given["encoder"])
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
