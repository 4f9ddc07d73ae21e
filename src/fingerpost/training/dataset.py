"""Builds the training set of a student, from a project's labelled questions, a labelled file, or texts in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.label_sets import split_labels
from fingerpost.core.text import fingerprint, hash_fraction, question_id
from fingerpost.core.types import Conversation, Example, Message, Question, Verdict
from fingerpost.core.verdicts import LabelsFrom, QuestionVerdicts
from fingerpost.data.chat import ChatData, Row, as_classification, examples_of, is_chat_file, read_chat, rows_by_field
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import (
    Columns,
    LabelledRow,
    Rejected,
    are_sets,
    column_labels,
    column_texts,
    read_labelled_rows,
)
from fingerpost.store.project import Store
from fingerpost.students.folder import Manifest
from fingerpost.task.loader import task_of_labels
from fingerpost.task.reply_format import ReplyTemplate, UserTemplate
from fingerpost.task.settings import Task
from fingerpost.training.holdout import split_train_test

if TYPE_CHECKING:
    from fingerpost.consensus.model import Array

REVIEWED_WEIGHT = 5.0  # weight of an example with a human label, relative to consensus labels
DEV_FRACTION = 0.1
MIN_ROWS = 2
LEVEL_SEPARATOR = ","

Embed: TypeAlias = "Callable[[Sequence[Question]], Array]"
"""Computes unit vectors of questions, shape (questions, width)."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The data that a student is trained on.

    Attributes:
        train, dev: examples to train on, and examples to choose between models and calibrate on.
        labels_from: number of examples by the source of their label.
        fingerprint: a hash of questions, targets and verdicts.
        rejected: rows of the file that cannot be used.
        teacher_labels: number of training questions that the teacher labelled.
        changed: number of those labels that the consensus changed.
        vectors: embeddings by example id, each of shape (width,), if the consensus needed them.
        reply_template, user_template, system: template of replies, template of user messages and system prompt, if the
            data is chat JSONL.
        trained_from: of a file, its path, the named columns, how it is written, and the test share.
        test: rows that are neither trained on nor used to choose between models.
        text_column: of a file, its column of texts.
        companions, reply_schema: see `Manifest`.
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
    trained_from: dict[str, str] = field(default_factory=dict)
    test: list[Example] = field(default_factory=list)
    text_column: str = ""
    companions: tuple[str, ...] = ()
    reply_schema: dict[str, Any] | None = None


def from_store(task: Task, store: Store, use: LabelsFrom, embed: Embed) -> TrainingSet:
    """The training set of a project: its train and dev questions that have a label.

    Args:
        use: whose labels to use.
        embed: computes unit vectors of questions, shape (questions, width). It is called only if labels of humans
            and teachers, or of several teachers, are combined.

    Raises:
        InputError: no training question has a label.
    """
    labelled = list(_labelled(task, store, use))
    origin = {"human": 0, "teacher": 0}
    targets: dict[str, dict[str, float]] = {}
    reviewed: set[str] = set()
    splits: dict[str, list[Question]] = {"train": [], "dev": []}
    for question, verdicts in labelled:
        targets[question.id] = _target(task, verdicts.label_distribution(use) or {})
        if use != "teacher" and verdicts.votes("human"):
            reviewed.add(question.id)
        origin["human" if question.id in reviewed else "teacher"] += 1
        splits[question.split].append(question)
    weights = dict.fromkeys(targets, 1.0)
    data_hash = _fingerprint(task, labelled, use)
    changed = teacher_labels = 0
    vectors: dict[str, Array] = {}
    if use == "consensus" and (all(origin.values()) or _several_teachers(labelled)):
        from fingerpost.consensus.evidence import answer_of_row, collect_evidence, compute_features, consensus_of

        embedded = embed([question for question, _ in labelled])
        vectors = {question.id: vector for (question, _), vector in zip(labelled, embedded, strict=True)}
        # Human labels of dev questions are kept for evaluation: the consensus must not see them.
        evidence = collect_evidence(task, labelled, embedded, hidden=frozenset({"dev"}))
        agreed = consensus_of(evidence, compute_features(evidence), task.student.seed).probabilities
        for (question, verdicts), row in zip(labelled, agreed, strict=True):
            answer = verdicts.teacher_label
            if answer is not None and question.split == "train":
                teacher_labels += 1
                changed += answer_of_row(task, row) != answer
            if question.split == "dev" and question.id in reviewed:
                continue
            targets[question.id] = {task.names[i]: float(row[i]) for i in np.flatnonzero(row > 1e-4)}
        weights |= dict.fromkeys(reviewed, REVIEWED_WEIGHT)
    examples = {
        split: [
            Example(
                question.id, question.messages, targets[question.id], weights[question.id], question.group, task.multi
            )
            for question in questions
        ]
        for split, questions in splits.items()
    }
    counted = {key: n for key, n in origin.items() if n}
    return TrainingSet(
        task, examples["train"], examples["dev"], counted, data_hash, (), changed, teacher_labels, vectors
    )


def _several_teachers(labelled: Sequence[tuple[Question, QuestionVerdicts]]) -> bool:
    """Whether more than one teacher has labelled these questions."""
    return len({found.by for _, verdicts in labelled for found in verdicts.valid if found.kind == "teacher"}) > 1


def _target(task: Task, distribution: Mapping[str, float]) -> dict[str, float]:
    """A probability for each label, from a distribution over answers."""
    target: dict[str, float] = {}
    for answer, probability in distribution.items():
        for label in task.labels_in(answer):
            target[label] = target.get(label, 0.0) + probability
    return target


def fingerprint_of(task: Task, store: Store, use: LabelsFrom = "consensus") -> str:
    """The `fingerprint` of the training set that `from_store` would return, without building it.

    Raises:
        InputError: no training question has a label.
    """
    return _fingerprint(task, _labelled(task, store, use), use)


def _labelled(task: Task, store: Store, use: LabelsFrom) -> Iterator[tuple[Question, QuestionVerdicts]]:
    """The train and dev questions with a usable label, and the verdicts on them, read while they are used.

    Raises:
        InputError: at the end, if no training question has a label.
    """
    trained = False
    for question, verdicts in store.stream_labelled(task.answers, task.teacher_model, "train", "dev"):
        if verdicts.label_distribution(use):
            trained = trained or question.split == "train"
            yield question, verdicts
    if not trained:
        whose = {"teacher": "a teacher's label", "human": "a human label"}.get(use, "a label")
        raise InputError(f"no training question has {whose}; run 'fingerpost label', or import a file with labels")


def _fingerprint(task: Task, labelled: Iterable[tuple[Question, QuestionVerdicts]], use: LabelsFrom) -> str:
    """A hash of the questions and of the verdicts that `use` counts."""
    kinds = {"teacher": ("teacher",), "human": ("human",)}.get(use, ("teacher", "human"))
    with_encoder = [task.student.consensus_encoder] if task.student.consensus_encoder and use == "consensus" else []
    rows = (
        f"{use}/{task.teacher_model}/{question.split}/{question.id}/"
        f"{[_identity(found) for found in verdicts.valid if found.kind in kinds]}"
        for question, verdicts in labelled
    )
    return fingerprint([*with_encoder, *rows])


def levels_of(given: str | None) -> list[str]:
    """The levels in a text that separates them by commas; none in an empty one."""
    return [level.strip() for level in (given or "").split(LEVEL_SEPARATOR) if level.strip()]


def _identity(verdict: Verdict) -> tuple[Any, ...]:
    """What distinguishes a verdict from others on its question."""
    soft = () if verdict.probabilities is None else (sorted(verdict.probabilities.items()),)
    return (verdict.kind, verdict.by, verdict.order, verdict.label, *soft)


def from_file(path: Path, columns: Columns, test_share: float = 0.0, levels: Sequence[str] = ()) -> TrainingSet:
    """The training set of a labelled file: its train and dev rows if it has a `split` column, else all rows.

    Chat JSONL for fine-tuning also defines the reply template. Without dev rows, a tenth of the rows is held out for dev;
    the choice depends only on their texts.

    Args:
        columns: the columns of texts and labels.
        levels: the labels in their order, the lowest first, if they are the levels of a scale.
        test_share: the fraction of the rows that are held out for testing, if no row is in a split.

    Raises:
        InputError: a column is missing, no training row has a label, or there are fewer than two labels.
    """
    named = {
        "file": str(path), "text": columns.text, "label": columns.label, "multi": "true" if columns.multi else None,
        **columns.format.options(), "test_share": str(test_share) if test_share else None,
        "levels": LEVEL_SEPARATOR.join(levels),
    }  # fmt: skip
    trained_from = {key: value for key, value in named.items() if value}
    if is_chat_file(path, columns):
        if levels:
            raise InputError(f"{path} is chat JSONL, whose labels have no order; leave out --levels")
        data = as_classification(read_chat(path, MIN_ROWS), path.stem)
        rest, test = split_train_test(data.examples, test_share)
        return replace(_chat_set(data, *held_out(rest, [])), trained_from=trained_from, test=test)
    rows: list[LabelledRow] = []
    rejected: list[Rejected] = []
    for item in read_labelled_rows(path, columns, None):
        if isinstance(item, Rejected):
            rejected.append(item)
        elif item.label:
            rows.append(item)
    multi = columns.multi or any(row.multi for row in rows)
    divided = any(row.split for row in rows)
    splits: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for row in rows:
        splits[row.split or "train"].append(_example(row.messages, str(row.label), multi))
    train, test = splits["train"], splits["test"]
    if rejected and len({row.label for row in rows}) < 2:
        first, total = rejected[0], len(rejected) + len(rows)
        raise InputError(
            f"{len(rejected):,} of {total:,} rows of {path} cannot be used, and the others have fewer than two labels; the "
            f"first one is in line {first.line}: {first.reason}"
        )
    if not train:
        raise InputError(f"{path} has no labelled training row; give the label column with --label")
    if not divided:
        train, test = split_train_test(train, test_share)
    train, dev = held_out(train, splits["dev"])
    task = task_of_labels(path.stem, (example.label for example in train + dev), multi=multi, levels=levels)
    text_column = rows[0].text_column
    return _training_set(
        task, train, dev, rejected=tuple(rejected), trained_from=trained_from, test=test, text_column=text_column
    )


def training_examples(manifest: Manifest) -> list[Example]:
    """The examples that a model was trained on, read again; empty if its training file is gone or has changed."""
    given = manifest.trained_from
    path = Path(given.get("file", ""))
    if not given or not path.is_file():
        return []
    try:
        form = format_of_options(given.get("quote"), given.get("encoding"), given.get("delimiter"))
        columns = Columns(given.get("text"), given.get("label"), multi="multi" in given, format=form)
        levels = levels_of(given.get("levels"))
        data = from_file(path, columns, float(given.get("test_share", 0)), levels)
    except InputError:
        return []
    return data.train if data.fingerprint == manifest.data_fingerprint else []


def from_chat(name: str, rows: Sequence[Row], dev_rows: Sequence[Row] = ()) -> TrainingSet:
    """The training set of chat JSONL, with the reply template and system prompt that the student will reproduce.

    `rejected` lists dev rows whose reply does not match the template or names a label that no training row has.

    Args:
        name: the task's name.
        dev_rows: rows for dev; without them a tenth of `rows` is held out.

    Raises:
        NoClassification: the replies are not labels of a classifier.
    """
    data = as_classification(rows, name)
    dev, missed = examples_of(dev_rows, data)
    train, dev = held_out(data.examples, dev)
    rejected = tuple(Rejected(row.line, "its label is in no training row") for row in missed)
    return _chat_set(data, train, dev, rejected)


def from_chat_by_field(name: str, rows: Sequence[Row], dev_rows: Sequence[Row] = ()) -> list[TrainingSet]:
    """The training sets of chat JSONL, one for each field of the replies that varies; see `from_chat`.

    The first one has the replies' schema, if there are several.
    """
    found = rows_by_field(rows, dev_rows)
    if found is None:
        return [from_chat(name, rows, dev_rows)]
    schema, fields = found
    first, *others = [from_chat(name, part, dev) for part, dev in fields]
    return [replace(first, reply_schema=schema), *others]


def _chat_set(
    data: ChatData, train: list[Example], dev: list[Example], rejected: tuple[Rejected, ...] = ()
) -> TrainingSet:
    return _training_set(
        data.task,
        train,
        dev,
        rejected=rejected,
        reply_template=data.reply_template,
        user_template=data.user_template,
        system=data.system,
    )


def from_texts(
    texts: Sequence[str], labels: Sequence[str], name: str = "task", levels: Sequence[str] = ()
) -> TrainingSet:
    """The training set of texts with labels. A tenth of the texts is held out for dev.

    Args:
        texts, labels: sequences, arrays or columns of the same length. A label may be a list of labels.
        name: the task's name.
        levels: the labels in their order, the lowest first, if they are the levels of a scale.

    Raises:
        InputError: the lengths differ, a text is empty, or there are fewer than two labels.
    """
    multi = are_sets(labels)
    given_texts, names = column_texts(texts), column_labels(labels)
    if len(given_texts) != len(names):
        raise InputError(
            f"there are {len(given_texts):,} texts and {len(names):,} labels; give one label for each text"
        )
    if not given_texts:
        raise InputError("there are no texts; give at least a few texts for each label")
    examples = [
        _example((Message("user", text),), label, multi) for text, label in zip(given_texts, names, strict=True)
    ]
    train, dev = held_out(examples, [])
    return _training_set(task_of_labels(name, names, multi=multi, levels=levels), train, dev)


def held_out(train: Sequence[Example], dev: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Training and dev rows. Without dev rows, a tenth of the training rows is held out, chosen by a hash of their ids.

    Rows that are in both are removed from training.
    """
    drawn = {example.id for example in train if hash_fraction(f"dev/{example.id}") < DEV_FRACTION} or {train[-1].id}
    dev_ids = {example.id for example in dev} or drawn
    rest = [example for example in train if example.id not in dev_ids]
    return rest, list(dev) or [example for example in train if example.id in dev_ids]


def data_fingerprint(examples: Sequence[Example], dev: Sequence[Example]) -> str:
    """A hash of questions, targets and weights: 16 hexadecimal digits."""
    return fingerprint(
        f"{split}/{example.id}/{sorted(example.target.items())}/{example.weight}"
        for split, part in (("train", examples), ("dev", dev))
        for example in part
    )


def _example(messages: Conversation, label: str, multi: bool) -> Example:
    """An example with a certain label, or set of labels, in a group of its own."""
    key = question_id(messages)
    return Example(
        key, messages, dict.fromkeys(split_labels(label) if multi else (label,), 1.0), group=key, multi=multi
    )


def _training_set(task: Task, train: list[Example], dev: list[Example], **fields: Any) -> TrainingSet:
    return TrainingSet(task, train, dev, {"file": len(train) + len(dev)}, data_fingerprint(train, dev), **fields)
