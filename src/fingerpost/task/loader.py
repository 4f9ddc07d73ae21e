"""Reads and validates task.toml. Errors name the line and the fix."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fingerpost.core.errors import TaskError
from fingerpost.core.label_sets import FORBIDDEN, split_labels
from fingerpost.core.languages import LANGUAGES
from fingerpost.core.text import canonical_name, humanise
from fingerpost.core.types import Label
from fingerpost.task.locate import line_of
from fingerpost.task.prompt import LABELS_PLACEHOLDER
from fingerpost.task.settings import (
    DataFile,
    GenerateSettings,
    Prices,
    SplitSettings,
    StudentSettings,
    Task,
    TeacherSettings,
)

TASK_FILE = "task.toml"

_TABLES: dict[str, type[BaseModel]] = {
    "teacher": TeacherSettings,
    "second_teacher": TeacherSettings,
    "split": SplitSettings,
    "data": DataFile,
    "generate": GenerateSettings,
    "writers": TeacherSettings,
    "student": StudentSettings,
    "prices": Prices,
    "labels": Label,
}


def load_task(path: Path) -> Task:
    """Read and validate a task.toml.

    The setting `prompt` is the path of a text file, relative to the folder of task.toml. The returned task holds the
    text of that file instead of its path.

    Raises:
        TaskError: the file is missing or is not valid TOML, a key is unknown, a value is out of range, or two labels
            are ambiguous. The message names the line and the fix.
    """
    if not path.is_file():
        raise TaskError(f"there is no {path}; create it with 'fingerpost init', or give the project's folder with -C")
    try:
        source = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}, line {line}: this is not UTF-8; save the file as UTF-8") from None
    try:
        content = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        where = f", line {found[1]}, column {found[2]}" if found else ""
        what = str(error).split(" (at")[0]
        raise TaskError(
            f'{path}{where}: not valid TOML: {what}; fix the syntax, for example put texts in "double quotes"'
        ) from None
    labels = content.get("labels")
    if not isinstance(labels, dict) or len(labels) < 2:
        raise TaskError(
            f'{path}: a [labels] table with at least two labels is missing; add lines such as name = "description"'
        )
    content["labels"] = [_label_fields(name, value) for name, value in labels.items()]
    if isinstance(content.get("prompt"), str):
        content["prompt"] = _read_prompt(path, source, path.parent / content["prompt"])
    try:
        task = Task.model_validate(content)
    except ValidationError as error:
        raise TaskError(validation_message(path, source, list(labels), error)) from None
    _check_labels_and_languages(path, source, task)
    return task


def task_of_labels(
    name: str, labels: Iterable[str], answer_field: str = "action", multi: bool = False, levels: Sequence[str] = ()
) -> Task:
    """A task from label names alone, for use without a task.toml.

    Labels are sorted and unique. Each label's description is its name written as words.

    Args:
        name: the task's name.
        labels: label names; repeats are ignored.
        answer_field: the JSON field of a reply that holds the label.
        multi: `labels` are sets of labels (`core.label_sets`).
        levels: all labels in their order, the lowest first, if they are the levels of a scale.

    Raises:
        TaskError: fewer than two labels, or a label is none of the levels.
    """
    unique = sorted({part for label in labels for part in (split_labels(label) if multi else (label,))})
    if len(unique) < 2:
        raise TaskError(
            f"{name}: {len(unique)} label found, at least two are needed; give the label column with --label"
        )
    if missing := next((label for label in unique if levels and label not in levels), None):
        raise TaskError(f"{name}: the label '{missing}' is not one of the levels {', '.join(levels)}; add it to them")
    return Task(
        name=name,
        answer_field=answer_field,
        multi=multi,
        ordinal=bool(levels),
        labels=tuple(Label(name=label, description=humanise(label)) for label in (levels or unique)),
    )


def _label_fields(name: str, value: object) -> dict[str, Any]:
    given = {"description": value} if isinstance(value, str) else value
    return {**given, "name": name} if isinstance(given, dict) else {"name": name, "description": value}


def _read_prompt(path: Path, source: str, file: Path) -> str:
    where = f"{path}, line {line_of(source, ('prompt',))}"
    if not file.is_file():
        raise TaskError(f"{where}: there is no file {file}; give the prompt's path relative to the folder of task.toml")
    text = file.read_text(encoding="utf-8", errors="replace")
    if LABELS_PLACEHOLDER not in text:
        raise TaskError(
            f"{where}: {file} has no placeholder for the labels; write {LABELS_PLACEHOLDER} where the list of labels belongs"
        )
    return text


def _check_labels_and_languages(path: Path, source: str, task: Task) -> None:
    """Checks that involve several fields: label names, codes, languages and the fallback.

    Raises:
        TaskError: a check fails.
    """
    codes: dict[str, str] = {}
    canonical: dict[str, str] = {}
    for label in task.labels:
        where = f"{path}, line {line_of(source, ('labels', label.name))}"
        if task.multi and any(character in label.name for character in FORBIDDEN):
            raise TaskError(
                f"{where}: with multi = true, '{label.name}' cannot contain {' or '.join(FORBIDDEN)}, which separate labels"
                " in a cell; rename it"
            )
        if (other := canonical.setdefault(canonical_name(label.name), label.name)) != label.name:
            raise TaskError(f"{where}: '{label.name}' and '{other}' differ only in spelling; rename one of them")
        if label.code is not None and (other := codes.setdefault(str(label.code), label.name)) != label.name:
            raise TaskError(
                f"{where}: '{label.name}' and '{other}' have the same code {label.code}; change one of them"
            )
    if clash := next((name for name in task.names if codes.get(name, name) != name), None):
        raise TaskError(
            f"{path}: '{clash}' is the name of one label and the code of '{codes[clash]}'; change that code"
        )
    for code in task.generate.languages:
        if code not in LANGUAGES:
            raise TaskError(
                f"{path}, line {line_of(source, ('generate', 'languages'))}: the language '{code}' is not supported; "
                f"use one of: {', '.join(LANGUAGES)}"
            )
    if task.fallback and task.fallback not in task.names:
        raise TaskError(
            f"{path}, line {line_of(source, ('fallback',))}: the fallback '{task.fallback}' is not one of the labels; "
            f"add it to [labels]{_did_you_mean(task.fallback, task.names)}"
        )


def validation_message(
    path: Path, source: str, labels: list[str], error: ValidationError, whole: type[BaseModel] = Task
) -> str:
    """A message for the first validation error: its line, the key, and the fix; `whole` is the class of the file's content."""
    first = error.errors()[0]
    loc: list[Any] = list(first["loc"])
    if len(loc) > 1 and loc[0] == "labels" and isinstance(loc[1], int):
        loc[1] = labels[loc[1]]
    key = ".".join(str(part) for part in loc)
    where = f"{path}, line {line_of(source, tuple(loc))}"
    if first["type"] == "extra_forbidden":
        table = next((str(part) for part in reversed(loc[:-1]) if part in _TABLES), "")
        known = list((_TABLES.get(table, whole)).model_fields)
        return f"{where}: unknown setting '{key}'{_did_you_mean(str(loc[-1]), known) or '; use one of: ' + ', '.join(known)}"
    if first["type"] == "missing":
        return f"{where}: '{key}' is missing; add the line {loc[-1]} = ..."
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: '{key}' cannot be {json.dumps(first['input'], default=str)[:60]}: {message}; correct the value"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
