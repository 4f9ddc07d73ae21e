"""The data that a student is trained on: a project's labelled questions, or a file that has labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.text import fingerprint, hash_fraction, question_id
from fingerpost.core.types import Example, Question, Verdict
from fingerpost.core.verdicts import LabelsFrom, doubted, fits_none, known, shares
from fingerpost.data.rows import Columns, Rejected, read_items
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
    verdicts, questions = _labelled(task, store, use)
    origin = {"human": 0, "teacher": 0}
    targets: dict[str, dict[str, float]] = {}
    people: set[str] = set()
    name = task.teacher.model if task.teacher else None
    for question in questions:
        mine = verdicts[question.id]
        targets[question.id] = shares(mine, use, name) or {}
        if use != "teacher" and any(each.kind == "person" and each.label for each in mine):
            people.add(question.id)
        origin["human" if question.id in people else "teacher"] += 1
    weights = dict.fromkeys(targets, 1.0)
    print_ = _fingerprint(task, questions, verdicts, use)
    sides: dict[str, list[Question]] = {"train": [], "dev": []}
    for question in questions:
        sides[question.split].append(question)
    changed = asked = 0
    vectors: dict[str, Array] = {}
    if use == "consensus" and all(origin.values()):
        from fingerpost.consensus.evidence import agree, gather, ground

        embedded = embed(questions)
        vectors = {question.id: vector for question, vector in zip(questions, embedded, strict=True)}
        # What people said of dev questions decides, and must not have taught: it labels these alone.
        evidence = gather(task.names, questions, verdicts, embedded, hidden=frozenset({"dev"}))
        agreed = agree(evidence, ground(evidence), task.student.seed).probabilities
        for question, row in zip(questions, agreed, strict=True):
            vote = shares(verdicts[question.id], "teacher", name)
            if vote and question.split == "train":
                asked += 1
                changed += task.names[int(row.argmax())] != max(vote, key=vote.__getitem__)
            if question.split == "dev" and question.id in people:
                continue
            targets[question.id] = {task.names[i]: float(row[i]) for i in np.flatnonzero(row > 1e-4)}
        weights |= dict.fromkeys(people, REVIEWED_WEIGHT)
    made = {
        side: [Example(each.id, each.messages, targets[each.id], weights[each.id], each.group) for each in part]
        for side, part in sides.items()
    }
    counted = {key: n for key, n in origin.items() if n}
    return TrainingSet(task, made["train"], made["dev"], counted, print_, (), changed, asked, vectors)


def fingerprint_of(task: Task, store: Store, use: LabelsFrom = "consensus") -> str:
    """The `fingerprint` of the training set that `from_store` would give, without making it.

    Raises:
        InputError: there is none.
    """
    verdicts, questions = _labelled(task, store, use)
    return _fingerprint(task, questions, verdicts, use)


def _labelled(task: Task, store: Store, use: LabelsFrom) -> tuple[dict[str, list[Verdict]], list[Question]]:
    """Current opinions by question, and the train and dev questions that get a label from them."""
    names, name = set(task.names), task.teacher.model if task.teacher else None
    verdicts = {key: known(found, names) for key, found in store.verdicts().items()}
    questions = []
    for question in store.questions("train", "dev"):
        mine = verdicts.get(question.id, [])
        if shares(mine, use) and not (use != "teacher" and fits_none(mine)) and not doubted(mine, name):
            questions.append(question)
    if not any(question.split == "train" for question in questions):
        whose = {"teacher": "a teacher's label", "human": "a person's label"}.get(use, "a label")
        raise InputError(f"no training question has {whose}; run 'fingerpost label', or import a file with labels")
    return verdicts, questions


def _fingerprint(task: Task, questions: Sequence[Question], verdicts: dict[str, list[Verdict]], use: LabelsFrom) -> str:
    kinds = {"teacher": ("teacher",), "human": ("person",)}.get(use, ("teacher", "person"))
    return fingerprint(
        f"{use}/{task.teacher.model if task.teacher else None}/{question.split}/{question.id}/"
        f"{[(each.kind, each.by, each.order, each.label) for each in verdicts[question.id] if each.kind in kinds]}"
        for question in questions
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
