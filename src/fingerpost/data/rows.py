"""Rows of a file, or sequences of values, as conversations with labels; or the reason why a row cannot be used."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.label_sets import join_labels, split_cell
from fingerpost.core.text import (
    MAX_CHARACTERS,
    check_characters,
    check_text,
    content_text,
    parse_json,
    shorten,
    storable,
)
from fingerpost.core.types import Conversation, Message, Split
from fingerpost.data.files import SPREADSHEETS, Row, read_rows
from fingerpost.data.formats import DEFAULT_FORMAT, FileFormat
from fingerpost.task.replies import parse, resolve, unknown_in
from fingerpost.task.settings import Task

TEXT_COLUMNS = ("text", "question", "message", "query", "utterance", "content", "input", "sentence")
LABEL_COLUMNS = ("label", "gold", "intent", "category", "class", "action", "target", "destination")
TABLES = (".csv", ".tsv", ".parquet", *SPREADSHEETS)
"""Kinds of files in which every row has every column."""
COLLECTIONS = (list, tuple, set, frozenset)
"""Types of a value that holds several labels."""
SPLIT_SYNONYMS = {"validation": "dev", "valid": "dev", "val": "dev", "training": "train"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to read, and who gave the labels.

    Attributes:
        text, label: names of columns; None looks for one of TEXT_COLUMNS, LABEL_COLUMNS.
        teacher: the model that gave the labels; None if a human did.
        person: the name of the human who gave them.
        source: the source of rows without a column `source`.
        only: the splits to import; empty for all rows.
        multi: without a task, whether a cell may name several labels, separated by `|`, `;` or `,`.
        format: how the file is written.
    """

    text: str | None = None
    label: str | None = None
    teacher: str | None = None
    person: str = "import"
    source: str = "user"
    only: tuple[Split, ...] = ()
    multi: bool = False
    format: FileFormat = DEFAULT_FORMAT


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A row that can be used.

    Attributes:
        line: its line in the file, or its number in Parquet and JSON.
        label: None if the row has none, or a teacher's answer names none of the task's labels. Several labels are one
            string (`core.label_sets`).
        raw: the label as it was written.
        split: the split that the row requests, if any.
        values: all values of the row by column.
        multi: the label was a list.
        text_column: the column of the text.
    """

    line: int
    messages: Conversation
    label: str | None
    raw: str | None
    split: Split | None
    source: str
    values: dict[str, Any]
    multi: bool = False
    text_column: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used, the reason, and its values by column as far as they can be read."""

    line: int
    reason: str
    values: dict[str, Any] = field(default_factory=dict)


def column_texts(values: Iterable[Any]) -> list[str]:
    """The texts in a list, tuple, NumPy array, pandas Series or polars Series.

    Raises:
        InputError: a value is missing or not a string, or the text cannot be used.
    """
    texts = _column_values(values, "text")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"row {number} holds {shorten(repr(text), 40)}, not a text; convert it to str")
        if reason := check_text(text):
            raise InputError(f"row {number}: {reason}")
    return texts


def column_labels(values: Iterable[Any]) -> list[str]:
    """The labels in a list, tuple, NumPy array, pandas Series or polars Series, as strings.

    Several labels of one text become one string (`core.label_sets`).

    Raises:
        InputError: a label is missing or empty.
    """
    labels = []
    for number, value in enumerate(_column_values(values, "label"), 1):
        if isinstance(value, COLLECTIONS):
            labels.append(join_labels(str(part).strip() for part in value))
            continue
        label = (str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)).strip()
        if not label:
            raise InputError(f"row {number} has an empty label; give it a label or remove the row")
        labels.append(label)
    return labels


def are_sets(values: Iterable[Any]) -> bool:
    """Whether a value is a list, tuple or set of labels.

    Raises:
        InputError: the values are a matrix.
    """
    if getattr(values, "ndim", 1) == 2:
        raise InputError("the labels are a matrix; give a list of label names for each text")
    return any(isinstance(value, COLLECTIONS) for value in values)


def _column_values(values: Iterable[Any], what: str) -> list[Any]:
    """The values as Python objects, none of them missing."""
    if isinstance(values, str | bytes):
        raise InputError(f"one {what} where a sequence of them is needed; write [{what}]")
    for method in ("to_list", "tolist"):  # of pandas and polars; of NumPy
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    found = list(values)
    for number, value in enumerate(found, 1):
        if (
            value is None
            or type(value).__name__ in ("NAType", "NaTType")
            or (isinstance(value, float | np.floating) and value != value)
        ):
            raise InputError(f"row {number} has no {what}; fill it in or remove the row")
    return found


def read_labelled_rows(path: Path, columns: Columns, task: Task | None) -> Iterable[LabelledRow | Rejected]:
    """The rows of a file as conversations with labels. Without a task, all labels are accepted as they are.

    Raises:
        InputError: no column holds the text, or a named column is missing.
    """
    layouts: dict[tuple[str, ...], _Layout] = {}
    for row in read_rows(path, columns.format):
        if row.error:
            yield Rejected(row.line, row.error, row.values)
            continue
        names = tuple(row.values)
        if names not in layouts:  # in JSON, rows may have different fields
            layouts[names] = _Layout(path, names, columns, strict=not layouts)
        yield _labelled_row(row, layouts[names], columns, task)


class _Layout:
    """The columns of rows that have the same ones. With `strict`, a missing column is an error."""

    def __init__(self, path: Path, names: Sequence[str], columns: Columns, strict: bool) -> None:
        self._strict = strict
        self.chat = "messages" in names and columns.text is None
        self.text = "messages" if self.chat else self._find(path, names, columns.text, TEXT_COLUMNS, "text")
        if self.text is None and strict:
            raise InputError(
                f"{path} has no column named {', '.join(TEXT_COLUMNS[:3])} or the like; name the text column with --text (the columns: "
                f"{', '.join(names)})"
            )
        self.label = self._find(path, names, columns.label, LABEL_COLUMNS, "label")

    def _find(
        self, path: Path, names: Sequence[str], requested: str | None, usual: Sequence[str], what: str
    ) -> str | None:
        if requested is not None and requested not in names:
            if not self._strict or (what == "label" and path.suffix.lower() not in TABLES):
                return None
            raise InputError(
                f"{path} has no column '{requested}'; name one of its columns with --{what}: {', '.join(names)}"
            )
        lower = {name.lower(): name for name in reversed(names)}
        return requested or next((lower[name] for name in usual if name in lower), None)


def _labelled_row(row: Row, layout: _Layout, columns: Columns, task: Task | None) -> LabelledRow | Rejected:
    values = row.values
    try:
        messages, answer = _conversation(values.get(str(layout.text)), layout.chat, task)
        label, raw = _label(values, layout, answer, columns, task)
        if label is not None and (reason := check_characters(label)):
            raise _UnusableError(reason.replace("the text", "the label", 1))
        split = _split(values.get("split"))
    except _UnusableError as error:
        return Rejected(row.line, str(error), values)
    source = storable(str(values.get("source") or columns.source))
    multi = isinstance(values.get(str(layout.label)), list)
    raw = None if raw is None else storable(raw)
    return LabelledRow(row.line, messages, label, raw, split, source, values, multi, str(layout.text))


class _UnusableError(Exception):
    """Why a row cannot be used."""


def _conversation(value: Any, chat: bool, task: Task | None) -> tuple[Conversation, str | None]:
    """The turns up to the user's last one; and the assistant's answer to it, if that is a label."""
    turns = _turns(value) if chat else [Message("user", _text(value))]
    answer = None
    if turns and turns[-1].role == "assistant":
        answer = turns[-1].content
        turns = turns[:-1]
        if task is not None and parse(task, answer) is None and not _looks_like_answer(task, answer):
            answer = None  # a log of conversations, not of classifications
    if not turns or turns[-1].role != "user":
        raise _UnusableError("no user message at the end; add the message to classify")
    size = sum(len(turn.content) for turn in turns)
    if size > MAX_CHARACTERS:
        raise _UnusableError(f"{size:,} characters, the maximum is {MAX_CHARACTERS:,}; shorten or split the text")
    return tuple(turns), answer


def _turns(value: Any) -> list[Message]:
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            raise _UnusableError("'messages' is not JSON; write a list of messages") from None
    if not isinstance(value, list):
        raise _UnusableError("'messages' is not a list; write a list of messages")
    turns = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _UnusableError('not a message; write {"role": ..., "content": ...}')
        if message["role"] in ("user", "assistant"):  # the system prompt is the task's own
            turns.append(Message(message["role"], _text(message.get("content"))))
    return turns


def _text(value: Any) -> str:
    if isinstance(value, list):  # content parts of the chat format
        value = content_text(value)
    text = "" if value is None else str(value).replace("\x00", "").strip()
    if (reason := check_text(text)) is not None:
        raise _UnusableError(reason)
    return text


def _looks_like_answer(task: Task, text: str) -> bool:
    return text.strip().startswith("{") and f'"{task.answer_field}"' in text


def _label(
    values: dict[str, Any], layout: _Layout, answer: str | None, columns: Columns, task: Task | None
) -> tuple[str | None, str | None]:
    """The row's label, and how it was written."""
    given = values.get(layout.label) if layout.label else None
    raw = str(values.get(f"{layout.label}_raw") or given or "") or None
    if isinstance(given, list):
        raw = json.dumps(given, ensure_ascii=False)
    if given in (None, "") and answer is not None:
        given = raw = answer
    if given in (None, ""):
        return None, raw if columns.teacher else None
    if task is None:
        if isinstance(given, list) or columns.multi:
            cell = given if isinstance(given, list) else split_cell(str(given))
            return join_labels(text for value in cell if (text := str(value).strip())), raw
        return _label_in_answer(answer) if answer is not None and given is answer else str(given).strip(), raw
    label = parse(task, given) if given is answer else resolve(task, given)
    if label is None and not columns.teacher:
        unknown = unknown_in(task, given)
        close = difflib.get_close_matches(unknown, task.names, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; add it to [labels] in task.toml, or correct the row"
        raise _UnusableError(f"unknown label '{shorten(unknown, 40)}'{hint}")
    return label, raw


def _label_in_answer(answer: str) -> str:
    """The label in an assistant's reply where the task is not known: the only value of a JSON object, or the reply."""
    try:
        value = parse_json(answer)
    except ValueError:
        return answer.strip()
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return str(value).strip() if isinstance(value, str | int) else answer.strip()


def requested_split(values: Mapping[str, Any]) -> Split | None:
    """The split that a row's values ask for; None without a known one."""
    try:
        return _split(values.get("split"))
    except _UnusableError:
        return None


def _split(given: Any) -> Split | None:
    if given in (None, ""):
        return None
    name = str(given).strip().lower()
    name = SPLIT_SYNONYMS.get(name, name)
    if name not in get_args(Split) or name == "excluded":
        raise _UnusableError(f"unknown split '{given}'; write train, dev or test")
    return cast(Split, name)
