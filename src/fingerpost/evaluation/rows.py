"""Loads the test rows that models are evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.errors import InputError
from fingerpost.core.text import question_id, shorten
from fingerpost.core.types import Conversation
from fingerpost.data.chat import is_chat_file, read_chat
from fingerpost.data.rows import Columns, LabelledRow, Rejected, read_labelled_rows
from fingerpost.store.project import Store
from fingerpost.students.folder import Manifest, task_of
from fingerpost.task.reply_format import ReplyTemplate, label_in, without_template
from fingerpost.task.settings import Task


@dataclass(frozen=True, slots=True)
class TestRow:
    """A test row.

    Attributes:
        id: the question's id.
        messages: the conversation.
        source: the origin of the question, such as `user` or `synthetic`.
        gold: the human label, or None.
    """

    __test__ = False  # tells pytest that this is not a test case

    id: str
    messages: Conversation
    source: str
    gold: str | None


def rows_from_store(task: Task, store: Store) -> list[TestRow]:
    """The test questions of a project, with their human label if the task still has that label.

    Questions that no label fits according to humans are left out, because every answer to them is wrong.
    """
    return [
        TestRow(question.id, question.messages, question.source, verdicts.label("human"))
        for question, verdicts in store.labelled(task.answers, task.teacher_model, "test")
        if not verdicts.none_fits
    ]


def rows_from_file(
    path: Path, columns: Columns, seen: set[str], notes: list[str], manifest: Manifest | None = None
) -> tuple[list[TestRow], list[Rejected]]:
    """The labelled rows of a file: its test rows if it has a `split` column, else all rows that are not `seen`.

    Args:
        columns: the columns of texts and labels.
        seen: ids of questions that the models were trained on.
        notes: a remark is added here if rows were left out.
        manifest: the manifest of an evaluated model; its templates are used to read chat JSONL.

    Returns:
        The test rows, and the rows that cannot be used.

    Raises:
        InputError: the models were trained on all rows, or the file cannot be used.
    """
    if manifest is not None and is_chat_file(path, columns):
        return _chat_rows(path, seen, notes, manifest)
    labelled: list[LabelledRow] = []
    rejected: list[Rejected] = []
    for item in read_labelled_rows(path, columns, None):
        if isinstance(item, Rejected):
            rejected.append(item)
        elif item.label:
            labelled.append(item)
    tests = [item for item in labelled if item.split == "test"]
    if not tests:
        tests = [item for item in labelled if item.split is None and question_id(item.messages) not in seen]
        if labelled and not tests:
            raise InputError(f"the model was trained on all rows of {path}; give other rows, or a split column")
        if left_out := sum(item.split is None for item in labelled) - len(tests):
            notes.append(f"{left_out} rows that the model was trained on were left out")
    return [TestRow(question_id(item.messages), item.messages, item.source, item.label) for item in tests], rejected


def _chat_rows(
    path: Path, seen: set[str], notes: list[str], manifest: Manifest
) -> tuple[list[TestRow], list[Rejected]]:
    """The rows of chat JSONL, read with the templates of the model's training data."""
    task, template = task_of(manifest), manifest.reply_template or ReplyTemplate()
    rows: list[TestRow] = []
    rejected: list[Rejected] = []
    left_out = 0
    for row in read_chat(path, least=1):
        label = label_in(template, task, row.reply)
        messages = without_template(row.messages, manifest.user_template)
        key = question_id(messages)
        if label is None:
            rejected.append(
                Rejected(row.line, f"the reply '{shorten(row.reply, 40)}' does not name a label of the model")
            )
        elif key in seen:
            left_out += 1
        else:
            rows.append(TestRow(key, messages, "user", label))
    if not rows and left_out:
        raise InputError(f"the model was trained on all rows of {path}; give other rows")
    if left_out:
        notes.append(f"{left_out} rows that the model was trained on were left out")
    return rows, rejected
