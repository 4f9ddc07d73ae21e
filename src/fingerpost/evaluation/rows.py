"""The rows that models are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.errors import InputError
from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation
from fingerpost.data.rows import Columns, LabelledRow, Rejected, read_labelled_rows
from fingerpost.store.project import Store
from fingerpost.task.settings import Task


@dataclass(frozen=True, slots=True)
class TestRow:
    """A row to be measured on; `gold` is the label that people gave it, if they did."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    id: str
    messages: Conversation
    source: str
    gold: str | None


def rows_from_store(task: Task, store: Store) -> list[TestRow]:
    """The test questions with their human label, where humans gave one that the task still has.

    Questions that humans say no label fits are left out: no answer to them is right.
    """
    return [
        TestRow(question.id, question.messages, question.source, verdicts.label("human"))
        for question, verdicts in store.labelled(task.names, task.teacher_model, "test")
        if not verdicts.none_fits
    ]


def rows_from_file(
    path: Path, columns: Columns, seen: set[str], notes: list[str]
) -> tuple[list[TestRow], list[Rejected]]:
    """The labelled rows of a file: where it has a `split` column its test rows, else those that are not `seen`.

    Raises:
        InputError: all of them are, or the file cannot be used.
    """
    good: list[LabelledRow] = []
    rejected: list[Rejected] = []
    for item in read_labelled_rows(path, columns, None):
        if isinstance(item, Rejected):
            rejected.append(item)
        elif item.label:
            good.append(item)
    tests = [item for item in good if item.split == "test"]
    if not tests:
        tests = [item for item in good if item.split is None and question_id(item.messages) not in seen]
        if good and not tests:
            raise InputError(f"the model was trained on all rows of {path}; give other rows, or a split column")
        if left_out := sum(item.split is None for item in good) - len(tests):
            notes.append(f"{left_out} rows that the model was trained on were left out")
    return [TestRow(question_id(item.messages), item.messages, item.source, item.label) for item in tests], rejected
