"""What a job's own process does: `python -m fingerpost.server.work validate|train FOLDER JOB`.

It ends when its standard input closes: also when the server is killed. Whatever it comes to is in the database.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.text import shorten
from fingerpost.core.types import Example
from fingerpost.data.chat import LEAST_ROWS, ChatData, Row, as_classification, examples_of, read_chat
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.schemas import Json
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import JobRow
from fingerpost.task.reply_format import NoClassification
from fingerpost.training.dataset import held_out

if TYPE_CHECKING:
    from fingerpost.students.encoder.finetune import Measured

SECONDS_A_ROW, SECONDS_MORE = 0.03, 25  # for the estimated finish, until it is known better
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def validate(settings: Settings, store: ServerStore, job: JobRow) -> None:
    """Read the job's files; it is queued then, or has failed with the reason."""
    request = job.request
    store.add_event(job.id, f"Validating training file: {request['training_file']}")
    try:
        data, dev, notes = read(settings, store, request)
    except NoClassification as error:
        store.fail_job(job.id, "not_a_classification", str(error), "training_file")
        return
    except Unusable as error:
        store.fail_job(job.id, f"invalid_{error.param}", str(error), error.param)
        return
    sides = f"{len(data.examples):,} training" + (f" and {len(dev):,} validation" if dev else "")
    store.add_event(job.id, f"Found a classification: {len(data.task.labels)} labels in {sides} examples; replies such as "
               f"{data.form.before}...{data.form.after}")  # fmt: skip
    if data.frame.before or data.frame.after:
        store.add_event(job.id, f"All user messages have the same text around them, which is left out: "
                   f"{shorten(data.frame.before, 60)!r} ... {shorten(data.frame.after, 60)!r}")  # fmt: skip
    for note in notes:
        store.add_event(job.id, note, "warn")
    store.add_event(job.id, "Files validated, moving job to queued state")
    store.change_job(job.id, ("validating_files",), status="queued", attempts=0)


def read(settings: Settings, store: ServerStore, request: Json) -> tuple[ChatData, list[Example], list[str]]:
    """The job's examples for training and, if it has a validation file, for validation; and what is worth a warning.

    Raises:
        NoClassification, Unusable: what is wrong with a file.
    """
    files = FileStorage(settings, store)
    name = request.get("suffix") or "task"
    data = as_classification(_rows(files, request, "training_file", LEAST_ROWS), name)
    if not request.get("validation_file"):
        return data, [], []
    dev, missed = examples_of(_rows(files, request, "validation_file", 1), data)
    notes = [f"{missed} validation examples have a label that no training example has: left out"] if missed else []
    return data, dev, notes


class Unusable(InputError):
    """A file of a job cannot be used; `param` says which."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"the {param.replace('_', ' ')} cannot be used: {why}")
        self.param = param


def _rows(files: FileStorage, request: Json, param: str, least: int) -> list[Row]:
    path = files.path(request[param])
    if not path.is_file():
        raise Unusable(param, "it was deleted; upload it again, and create the job again")
    try:
        return read_chat(path, least)
    except InputError as error:
        raise Unusable(param, str(error)) from None


def train(settings: Settings, store: ServerStore, job: JobRow) -> None:
    """Train the job's model; it has succeeded then, or failed with the reason."""
    from fingerpost.students import encoder
    from fingerpost.training.dataset import data_fingerprint

    request = job.request
    steps: list[Json] = []

    def on_step(measured: Measured) -> None:
        metrics = {
            "step": measured.step,
            "train_loss": round(measured.train_loss, 5),
            "valid_loss": round(measured.dev_loss, 5),
            "valid_mean_token_accuracy": round(measured.dev_accuracy, 5),
            "total_steps": measured.of,
        }
        steps.append(metrics)
        text = f"Step {measured.step}/{measured.of}: training loss={measured.train_loss:.3f}, validation loss={measured.dev_loss:.3f}"
        store.add_event(job.id, text, data=metrics)

    try:
        data, dev, _ = read(settings, store, request)
        training, dev = held_out(data.examples, dev)
        epochs = _epochs(request)
        store.change_job(
            job.id,
            ("running",),
            estimated_finish=now() + SECONDS_MORE + int(SECONDS_A_ROW * len(training) * epochs),
        )
        manifest = encoder.fit(
            training,
            dev,
            data.task,
            settings.tuned / job.id,
            encoder=settings.encoder,
            seed=request.get("seed") or 0,
            epochs=epochs,
            facts={
                "labels_from": {"file": len(training) + len(dev)},
                "data_fingerprint": data_fingerprint(training, dev),
                "reply": data.form,
                "frame": data.frame,
                "system": data.system,
            },
            show=lambda text: store.add_event(job.id, text),
            on_step=on_step,
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
    kept = next(each for each in steps if each["step"] == manifest.training["epochs"])
    accuracy = f"{kept['valid_mean_token_accuracy']:.3f} of {len(dev)} validation labels matched"
    store.add_event(job.id, f"Checkpoint created at step {kept['step']}: {accuracy}", data=kept)
    name = model_name(job)
    store.add_event(job.id, f"New fine-tuned model created: {name}")
    tokens = sum(count_words(each) for each in training) * max(1, epochs)
    store.add_event(job.id, "The job has successfully completed")
    store.change_job(job.id, ("running",), status="succeeded", finished_at=now(), model=name, estimated_finish=None,
                 result_file=results.id, trained_tokens=tokens)  # fmt: skip


def model_name(job: JobRow) -> str:
    """ft:base:organization:suffix:id, as the hosted service names its models."""
    given = job.request["model"]
    base = given.split(":")[1] if given.startswith("ft:") and ":" in given[3:] else given
    base = re.sub(r"[^\w.\-/]+", "-", base)
    suffix = re.sub(r"[^\w\-]+", "-", job.request.get("suffix") or "")
    return f"ft:{base}:local:{suffix}:{job.id[-8:]}"


def count_words(example: Example) -> int:
    """About the tokens of an example: its words and marks."""
    return sum(len(re.findall(r"\w+|[^\w\s]", turn.content)) for turn in example.messages)


def _epochs(request: Json) -> int:
    from fingerpost.students.encoder.train import EPOCHS

    method = ((request.get("method") or {}).get("supervised") or {}).get("hyperparameters")
    given = (method or request.get("hyperparameters") or {}).get("n_epochs")
    return given if isinstance(given, int) else EPOCHS


def _end_with_server() -> None:
    """A thread that ends this process when the server's end of the pipe closes."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(75)

    threading.Thread(target=wait, daemon=True).start()


def main(verb: str, folder: str, job_id: str, options: str) -> None:
    """One verb on one job."""
    _end_with_server()
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
