"""The rows that models are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.errors import InputError
from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation
from fingerpost.core.verdicts import shares
from fingerpost.data.rows import Columns, Item, Rejected, read_items
from fingerpost.store.project import Store


@dataclass(frozen=True, slots=True)
class TestRow:
    """A row to be measured on; `gold` is the label that people gave it, if they did."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    id: str
    messages: Conversation
    source: str
    gold: str | None


def rows_from_store(store: Store) -> list[TestRow]:
    """The test questions, with the label that people gave them."""
    verdicts = store.verdicts()
    rows = []
    for question in store.questions("test"):
        found = shares(verdicts.get(question.id, []), "human")
        gold = max(found, key=found.__getitem__) if found else None
        rows.append(TestRow(question.id, question.messages, question.source, gold))
    return rows


def rows_from_file(
    path: Path, columns: Columns, seen: set[str], notes: list[str]
) -> tuple[list[TestRow], list[Rejected]]:
    """The labelled rows of a file: where it has a `split` column its test rows, else those that are not `seen`.

    Raises:
        InputError: all of them are, or the file cannot be used.
    """
    good: list[Item] = []
    rejected: list[Rejected] = []
    for item in read_items(path, columns, None):
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
