"""The data that a student is trained on: a project's labelled questions, or a file that has labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.text import fingerprint, hash_fraction, question_id
from fingerpost.core.types import Conversation, Example, Message, Question
from fingerpost.core.verdicts import LabelsFrom, QuestionVerdicts
from fingerpost.data.chat import Row, as_classification, examples_of, is_chat_file, read_chat
from fingerpost.data.rows import Columns, Rejected, column_labels, column_texts, read_labelled_rows
from fingerpost.store.project import Store
from fingerpost.task.loader import task_of_labels
from fingerpost.task.reply_format import ReplyTemplate, UserTemplate
from fingerpost.task.settings import Task

if TYPE_CHECKING:
    from fingerpost.consensus.model import Array

REVIEWED_WEIGHT = 5.0  # of an example that a human has decided, where the rest is consensus
DEV_FRACTION = 0.1
LEAST_LABELS = 2

Embed: TypeAlias = "Callable[[Sequence[Question]], Array]"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The data that a student is trained on.

    Attributes:
        train, dev: examples to learn from, and to decide and calibrate on.
        labels_from: number of examples by the source of their label.
        fingerprint: changes when a question or a verdict does.
        rejected: rows of the file that cannot be used.
        changed, teacher_labels: of this many labels that the teacher gave to training questions, the consensus changed
            so many.
        vectors: embeddings by example id, where the consensus needed them.
        reply_template, user_template, system: of chat JSONL, the form of the replies, the constant text around users'
            messages and the system prompt.
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
    reply_template: ReplyTemplate | None = None
    user_template: UserTemplate = field(default_factory=UserTemplate)
    system: str = ""


def from_store(task: Task, store: Store, use: LabelsFrom, embed: Embed) -> TrainingSet:
    """The project's train and dev questions that have a label.

    Args:
        embed: vectors of questions, shape (questions, width); called only where human labels and a teacher's are combined.

    Raises:
        InputError: no training question has a label.
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


def from_file(path: Path, columns: Columns) -> TrainingSet:
    """The labelled rows of a file: its train and dev rows where it has a `split` column, else all rows.

    Chat JSONL for fine-tuning also gives the form of its replies. Without dev rows, a tenth of the others becomes dev, by
    their texts, so that it is the same tenth each time.

    Raises:
        InputError: no column of texts or labels, or fewer than two labels.
    """
    if is_chat_file(path, columns):
        return from_chat(path.stem, read_chat(path, LEAST_LABELS))
    train: list[Example] = []
    dev: list[Example] = []
    rejected: list[Rejected] = []
    for item in read_labelled_rows(path, columns, None):
        if isinstance(item, Rejected):
            rejected.append(item)
        elif item.label and item.split != "test":
            (dev if item.split == "dev" else train).append(_example(item.messages, item.label))
    if not train:
        raise InputError(f"{path} has no labelled training row; name the label column with --label")
    train, dev = held_out(train, dev)
    task = task_of_labels(path.stem, (example.label for example in train + dev))
    return _training_set(task, train, dev, rejected=tuple(rejected))


def from_chat(name: str, rows: Sequence[Row], dev_rows: Sequence[Row] = ()) -> TrainingSet:
    """The rows of chat JSONL, with the form of its replies and the system prompt, which the student takes over.

    `rejected` are the dev rows whose reply has another form or a label that no training row has.

    Raises:
        NoClassification: the replies are no labels.
    """
    data = as_classification(rows, name)
    dev, missed = examples_of(dev_rows, data)
    train, dev = held_out(data.examples, dev)
    rejected = tuple(Rejected(row.line, "a reply that no training row has") for row in missed)
    return _training_set(
        data.task,
        train,
        dev,
        rejected=rejected,
        reply_template=data.reply_template,
        user_template=data.user_template,
        system=data.system,
    )


def from_texts(texts: Sequence[str], labels: Sequence[str], name: str = "task") -> TrainingSet:
    """Texts with their labels, each a sequence, array or column of the same length.

    Raises:
        InputError: the lengths differ, a text is empty, or there are fewer than two labels.
    """
    given, names = column_texts(texts), column_labels(labels)
    if len(given) != len(names):
        raise InputError(f"there are {len(given):,} texts and {len(names):,} labels; give one label for each text")
    if not given:
        raise InputError("there are no texts; give at least a few for each label")
    examples = [_example((Message("user", text),), label) for text, label in zip(given, names, strict=True)]
    train, dev = held_out(examples, [])
    return _training_set(task_of_labels(name, names), train, dev)


def held_out(train: Sequence[Example], dev: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Training and dev rows; without dev a tenth of the others, by their texts, so that it is the same tenth each time.

    A text that is in both is left out of training.
    """
    drawn = {example.id for example in train if hash_fraction(f"dev/{example.id}") < DEV_FRACTION} or {train[-1].id}
    chosen = {example.id for example in dev} or drawn
    kept = [example for example in train if example.id not in chosen]
    return kept, list(dev) or [example for example in train if example.id in chosen]


def data_fingerprint(examples: Sequence[Example], dev: Sequence[Example]) -> str:
    """Changes when a question, a target or a weight does."""
    return fingerprint(
        f"{split}/{example.id}/{sorted(example.target.items())}/{example.weight}"
        for split, part in (("train", examples), ("dev", dev))
        for example in part
    )


def _example(messages: Conversation, label: str) -> Example:
    key = question_id(messages)
    return Example(key, messages, {label: 1.0}, group=key)


def _training_set(task: Task, train: list[Example], dev: list[Example], **more: Any) -> TrainingSet:
    return TrainingSet(task, train, dev, {"file": len(train) + len(dev)}, data_fingerprint(train, dev), **more)
