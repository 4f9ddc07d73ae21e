"""Training: from verdicts, or from a file that has labels already, to a model folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fingerpost.errors import InputError, MissingExtra
from fingerpost.examples import TrainingSet
from fingerpost.intake import Columns, Rejected, read_items
from fingerpost.opinions import data_fingerprint
from fingerpost.students import encoder
from fingerpost.task import task_of_labels
from fingerpost.text import question_id, share
from fingerpost.types import Example, Manifest

DEV_SHARE = 0.1


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
    train, dev = held_out(train, dev)
    task = task_of_labels(path.stem, (each.label for each in train + dev))
    return TrainingSet(task, train, dev, {"file": len(train) + len(dev)}, data_fingerprint(train, dev), tuple(rejected))


def held_out(train: Sequence[Example], dev: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Training and dev rows; without dev a tenth of the others, by their texts, so that it is the same each time.

    A text that stands on both sides is left out of training.
    """
    drawn = {each.id for each in train if share(f"dev/{each.id}") < DEV_SHARE} or {train[-1].id}
    there = {each.id for each in dev} or drawn
    return [each for each in train if each.id not in there], list(dev) or [each for each in train if each.id in there]


def train(data: TrainingSet, folder: Path, *, show: Callable[[str], None] = lambda _: None, **options: Any) -> Manifest:
    """Train the sentence-encoder student into a folder; options as of `students.encoder.training.fit`.

    Raises:
        MissingExtra: torch and its company are not installed.
        InputError: too little to learn from.
        ModelError: the encoder cannot be had, or the folder is something else.
    """
    require_training("training")
    if data.changed:
        show(f"consensus: {data.changed:,} of the teacher's {data.teacher_labels:,} training labels are other ones now")
    return encoder.fit(
        data.train,
        data.dev,
        data.task,
        folder,
        facts={"labels_from": data.labels_from, "data_fingerprint": data.fingerprint},
        changed_labels=(data.changed, data.teacher_labels),
        vectors=data.vectors,
        show=show,
        **options,
    )


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
