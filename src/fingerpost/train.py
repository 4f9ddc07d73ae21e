"""Training: from verdicts, or from a file that has labels already, to a model folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fingerpost.consensus import LabelsFrom, consensus
from fingerpost.errors import InputError, MissingExtra
from fingerpost.intake import Columns, Rejected, read_items
from fingerpost.store import Store
from fingerpost.students import encoder
from fingerpost.task import task_of_labels
from fingerpost.text import question_id, share
from fingerpost.types import Example, Manifest, Task

DEV_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a student learns from and what is decided with; and whose labels they are (counts)."""

    task: Task
    train: list[Example]
    dev: list[Example]
    labels_from: dict[str, int]
    rejected: tuple[Rejected, ...] = ()


def from_store(task: Task, store: Store, use: LabelsFrom = "best") -> TrainingSet:
    """The project's train and dev questions that have a label.

    Raises:
        InputError: none has one.
    """
    verdicts = store.verdicts()
    sides: dict[str, list[Example]] = {"train": [], "dev": []}
    origin = {"human": 0, "teacher": 0}
    known = set(task.names)
    for question in store.questions("train", "dev"):
        mine = [each for each in verdicts.get(question.id, []) if each.label is None or each.label in known]
        target = consensus(mine, use, task.teacher.model if task.teacher else None)
        if target is None:
            continue
        human = use != "teacher" and any(each.kind == "person" and each.label for each in mine)
        origin["human" if human else "teacher"] += 1
        sides[question.split].append(Example(question.id, question.messages, target, group=question.group))
    if not sides["train"]:
        whose = {"best": "a label", "teacher": "a teacher's label", "human": "a person's label"}[use]
        raise InputError(f"no training question has {whose}; run 'fingerpost label', or import a file with labels")
    return TrainingSet(task, sides["train"], sides["dev"], {key: n for key, n in origin.items() if n})


def from_file(path: Path, columns: Columns) -> TrainingSet:
    """The labelled rows of a file: where it has a `split` column its train and dev rows, else all.

    Without dev rows a tenth of the others becomes dev, by their texts, so that it is the same each time.

    Raises:
        InputError: no column of texts or labels, or fewer than two labels.
    """
    train: list[Example] = []
    dev: list[Example] = []
    rejected: list[Rejected] = []
    for item in read_items(path, columns, None):
        if isinstance(item, Rejected):
            rejected.append(item)
        elif item.label and item.split != "test":
            key = question_id(item.messages)
            (dev if item.split == "dev" else train).append(Example(key, item.messages, {item.label: 1.0}, group=key))
    if not train:
        raise InputError(f"{path} has no labelled training row; name the label column with --label")
    if not dev:
        dev = [each for each in train if share(f"dev/{each.id}") < DEV_SHARE]
        train = [each for each in train if share(f"dev/{each.id}") >= DEV_SHARE]
    task = task_of_labels(path.stem, (each.label for each in train + dev))
    return TrainingSet(task, train, dev, {"file": len(train) + len(dev)}, tuple(rejected))


def train(data: TrainingSet, folder: Path, *, show: Callable[[str], None] = lambda _: None, **options: Any) -> Manifest:
    """Train the sentence-encoder student into a folder; options as of `students.encoder.training.fit`.

    Raises:
        MissingExtra: torch and its company are not installed.
        InputError: too little to learn from.
        ModelError: the encoder cannot be had, or the folder is something else.
    """
    require_training("training")
    return encoder.fit(data.train, data.dev, data.task, folder, labels_from=data.labels_from, show=show, **options)


def require_training(what: str) -> None:
    """Raises MissingExtra where what the extra `train` installs is not there."""
    for module in (
        "torch",
        "transformers",
        "sklearn",
        "scipy",
        "statsmodels",
        "onnx",
        "onnxscript",
        "altair",
    ):
        if find_spec(module) is None:
            raise MissingExtra("train", what)
