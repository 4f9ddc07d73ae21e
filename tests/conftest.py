"""Shared fixtures: a small task in a folder, a teacher on a real socket, a trained student, a running server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

# Before numpy and torch are imported: on a busy machine, the threads of their libraries burn CPU waiting for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from command_line import HOUR, Cli, run_in_process, run_subprocess
from teacher import LABELS, Teacher
from tiny_encoder import tiny_encoder_folder

from fingerpost.store.project import Store
from fingerpost.students.folder import Manifest
from fingerpost.task.loader import load_task
from fingerpost.task.settings import Task

if TYPE_CHECKING:
    from serving import Serving

ROOT = Path(__file__).parent.parent

TASK = """\
name = "shop"
instructions = "Route the message."
fallback = "other"

[labels]
billing = "invoices and payments"
delivery = "parcels and couriers"
other = "anything else"

[teacher]
model = "test-model"
base_url = "{base_url}"
concurrency = 4
orders = 3
timeout_s = 60
prices = {{ input = 1.0, cached_input = 0.5, output = 4.0 }}
"""


def task_text(base_url: str) -> str:
    """A task.toml whose teacher is at `base_url` and whose students start from the tiny encoder."""
    return TASK.format(base_url=base_url) + f'\n[student]\nencoder = "{tiny_encoder_folder().as_posix()}"\n'


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    server = Teacher().start()
    yield server
    server.stop()


@contextmanager
def teacher_process(folder: Path, delay_s: float) -> Iterator[Path]:
    """A teacher in its own process and a project in `folder` that asks it; yields the log of answered requests."""
    log = folder / "answered.log"
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("teacher.py")), str(delay_s), str(log)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout and server.stdin
    try:
        port = int(server.stdout.readline())
        (folder / "task.toml").write_text(task_text(f"http://127.0.0.1:{port}/v1"))
        yield log
    finally:
        server.stdin.close()
        server.wait(HOUR)
        server.stdout.close()


def lines_of(log: Path) -> int:
    """The number of lines of a file; 0 where there is none."""
    return len(log.read_bytes().splitlines()) if log.exists() else 0


@pytest.fixture
def folder(tmp_path: Path, teacher: Teacher) -> Path:
    """A project folder whose teacher is `teacher` and whose students start from the tiny encoder."""
    (tmp_path / "task.toml").write_text(task_text(teacher.base_url))
    return tmp_path


@pytest.fixture
def task(folder: Path) -> Task:
    return load_task(folder / "task.toml")


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with Store(folder / "fingerpost.db") as opened:
        yield opened


def question_text(number: int) -> str:
    """Texts that are no near-duplicates of each other, with their label in them."""
    words = [
        "amber",
        "birch",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "heron",
        "islet",
        "jetty",
        "kayak",
        "larch",
    ]
    middle = " ".join(words[(number // 12**power) % 12] for power in range(4))
    return f"{LABELS[number % 3]} {number * 7919 % 99991} {middle}"


def write_questions(file: Path, count: int) -> Path:
    file.write_text("".join(question_text(i) + "\n" for i in range(count)))
    return file


@pytest.fixture
def cli(folder: Path) -> Cli:
    """Run a command in the project's folder, in this process."""

    def run(
        *arguments: str, cwd: Path = folder, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return run_in_process(arguments, cwd, stdin, environment)

    return run


@pytest.fixture
def cli_process(folder: Path) -> Cli:
    """Run a command in the project's folder, in a process of its own, as a user does."""

    def run(
        *arguments: str, cwd: Path = folder, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return run_subprocess(arguments, cwd, stdin, environment)

    return run


TEXTS = {
    "billing": ["my invoice is wrong", "I was charged twice", "refund my payment", "the bill is too high",
                "which card did you debit", "send me the receipt", "the invoice has the wrong name",
                "payment failed yesterday", "why is there a fee on my account", "the amount on the bill is odd"],
    "delivery": ["where is my parcel", "the courier did not come", "my package is late", "deliver it to the neighbour",
                 "track my shipment", "the box arrived broken", "change the delivery address", "when does it arrive",
                 "the driver left it in the rain", "the parcel shop is closed"],
    "other": ["what a nice day", "tell me a joke", "do you like music", "who won the match", "I love your logo",
              "are you a robot", "good morning", "what is the capital of Peru", "sing me a song", "it is raining here"],
}  # fmt: skip


def write_labelled(file: Path, test: bool = True) -> Path:
    """A labelled CSV: 21 rows for training, 3 for dev, 6 for test."""
    lines = ["text,label,split"]
    for label, texts in TEXTS.items():
        for i, text in enumerate(texts):
            lines.append(f"{text},{label},{'train' if i < 7 else 'dev' if i < 8 else 'test' if test else 'train'}")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="session")
def tiny_encoder() -> Path:
    """The folder of an encoder that is cheap to train and to export; see tiny_encoder.py."""
    return tiny_encoder_folder()


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the tiny encoder, trained once for all tests that only read it."""
    from fingerpost.data.rows import Columns
    from fingerpost.training.dataset import from_file
    from fingerpost.training.train import train

    folder = tmp_path_factory.mktemp("student")
    data = from_file(write_labelled(folder / "data.csv"), Columns())
    manifest: Manifest = train(data, folder / "model", epochs=0, encoder=str(tiny_encoder_folder()))
    assert manifest.kind == "encoder"
    return folder / "model"


@pytest.fixture(scope="session")
def server(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server for all tests that neither stop nor break it."""
    from serving import Serving

    with Serving(tmp_path_factory.mktemp("served"), f"student={student}", "--training-threads", "1") as running:
        yield running


@pytest.fixture(scope="session")
def tuned(server: Serving) -> str:
    """The name of a model that a fine-tuning job of the server made: two files, a suffix, metadata, a seed."""
    from serving import chat_lines, finished, messages_of, upload

    client = server.client()
    train, validation = upload(client, chat_lines(times=2)), upload(client, chat_lines())
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini-2024-07-18", training_file=train, validation_file=validation, suffix="shop", seed=7,
        metadata={"who": "me"}, method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )  # fmt: skip
    assert job.status == "validating_files"
    job = finished(client, job.id)
    assert job.status == "succeeded", messages_of(client, job.id)
    return str(job.fine_tuned_model)
