"""The data that a student is trained on: a project's labelled questions, or a file that has labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.text import fingerprint, hash_fraction, question_id
from fingerpost.core.types import Example, Question
from fingerpost.core.verdicts import LabelsFrom, QuestionVerdicts
from fingerpost.data.rows import Columns, Rejected, read_labelled_rows
from fingerpost.store.project import Store
from fingerpost.task.loader import task_of_labels
from fingerpost.task.settings import Task

if TYPE_CHECKING:
    from fingerpost.consensus.model import Array

REVIEWED_WEIGHT = 5.0  # of an example that a person has decided, where the rest is consensus

Embed: TypeAlias = "Callable[[Sequence[Question]], Array]"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a student learns from and what is decided with; and whose labels they are (counts).

    `fingerprint` changes when questions or opinions do. Where the consensus labels, `changed` of the `teacher_labels`
    that the teacher gave to training questions are other ones now.
    """

    task: Task
    train: list[Example]
    dev: list[Example]
    labels_from: dict[str, int]
    fingerprint: str
    rejected: tuple[Rejected, ...] = ()
    changed: int = 0
    teacher_labels: int = 0
    vectors: dict[str, Array] = field(default_factory=dict)


def from_store(task: Task, store: Store, use: LabelsFrom, embed: Embed) -> TrainingSet:
    """The project's train and dev questions that have a label.

    `embed` gives the questions' vectors, (questions, width); it is called only where people and a teacher have to be
    brought together.

    Raises:
        InputError: none has one.
    """
    labelled = _labelled(task, store, use)
    origin = {"human": 0, "teacher": 0}
    targets: dict[str, dict[str, float]] = {}
    reviewed: set[str] = set()
    sides: dict[str, list[Question]] = {"train": [], "dev": []}
    for question, verdicts in labelled:
        targets[question.id] = verdicts.label_distribution(use) or {}
        if use != "teacher" and verdicts.votes("human"):
            reviewed.add(question.id)
        origin["human" if question.id in reviewed else "teacher"] += 1
        sides[question.split].append(question)
    weights = dict.fromkeys(targets, 1.0)
    data_print = _fingerprint(task, labelled, use)
    changed = asked = 0
    vectors: dict[str, Array] = {}
    if use == "consensus" and all(origin.values()):
        from fingerpost.consensus.evidence import agree, gather, ground

        embedded = embed([question for question, _ in labelled])
        vectors = {question.id: vector for (question, _), vector in zip(labelled, embedded, strict=True)}
        # Human labels of dev questions decide, and must not have taught: they label these questions alone.
        evidence = gather(task.names, labelled, embedded, hidden=frozenset({"dev"}))
        agreed = agree(evidence, ground(evidence), task.student.seed).probabilities
        for (question, verdicts), row in zip(labelled, agreed, strict=True):
            answer = verdicts.teacher_label
            if answer is not None and question.split == "train":
                asked += 1
                changed += task.names[int(row.argmax())] != answer
            if question.split == "dev" and question.id in reviewed:
                continue
            targets[question.id] = {task.names[i]: float(row[i]) for i in np.flatnonzero(row > 1e-4)}
        weights |= dict.fromkeys(reviewed, REVIEWED_WEIGHT)
    made = {
        side: [Example(each.id, each.messages, targets[each.id], weights[each.id], each.group) for each in part]
        for side, part in sides.items()
    }
    counted = {key: n for key, n in origin.items() if n}
    return TrainingSet(task, made["train"], made["dev"], counted, data_print, (), changed, asked, vectors)


def fingerprint_of(task: Task, store: Store, use: LabelsFrom = "consensus") -> str:
    """The `fingerprint` of the training set that `from_store` would give, without making it.

    Raises:
        InputError: there is none.
    """
    return _fingerprint(task, _labelled(task, store, use), use)


def _labelled(task: Task, store: Store, use: LabelsFrom) -> list[tuple[Question, QuestionVerdicts]]:
    """The train and dev questions with a label that may be learnt from, each with the verdicts on it."""
    labelled = [
        (question, verdicts)
        for question, verdicts in store.labelled(task.names, task.teacher_model, "train", "dev")
        if verdicts.label_distribution(use)
    ]
    if not any(question.split == "train" for question, _ in labelled):
        whose = {"teacher": "a teacher's label", "human": "a human label"}.get(use, "a label")
        raise InputError(f"no training question has {whose}; run 'fingerpost label', or import a file with labels")
    return labelled


def _fingerprint(task: Task, labelled: Sequence[tuple[Question, QuestionVerdicts]], use: LabelsFrom) -> str:
    kinds = {"teacher": ("teacher",), "human": ("human",)}.get(use, ("teacher", "human"))
    return fingerprint(
        f"{use}/{task.teacher_model}/{question.split}/{question.id}/"
        f"{[(each.kind, each.by, each.order, each.label) for each in verdicts.valid if each.kind in kinds]}"
        for question, verdicts in labelled
    )


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
    for item in read_labelled_rows(path, columns, None):
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
    drawn = {each.id for each in train if hash_fraction(f"dev/{each.id}") < DEV_SHARE} or {train[-1].id}
    there = {each.id for each in dev} or drawn
    return [each for each in train if each.id not in there], list(dev) or [each for each in train if each.id in there]


def data_fingerprint(examples: Sequence[Example], dev: Sequence[Example]) -> str:
    """Changes when a question, a target or a weight does."""
    return fingerprint(
        f"{side}/{each.id}/{sorted(each.target.items())}/{each.weight}"
        for side, part in (("train", examples), ("dev", dev))
        for each in part
    )
