"""Rows of a file as conversations with labels, or the reason why a row is not taken."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from fingerpost.core.errors import InputError
from fingerpost.core.text import content_text, shorten
from fingerpost.core.types import Conversation, Message, Split
from fingerpost.data.files import Row, read_rows
from fingerpost.task.replies import parse, resolve
from fingerpost.task.settings import Task

TEXT_NAMES = ("text", "question", "message", "query", "utterance", "content", "input", "sentence")
LABEL_NAMES = ("label", "gold", "intent", "category", "class", "action", "target", "destination")
MAX_CHARACTERS = 20_000
TABLES = (".csv", ".tsv", ".parquet")  # where every row has every column


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to read; None is found by name. `teacher` names whose answers the labels are, if not people's."""

    text: str | None = None
    label: str | None = None
    teacher: str | None = None
    person: str = "import"
    source: str = "user"
    only: tuple[Split, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One good row: a conversation, its label (None: none given), and what else the row says."""

    line: int
    messages: Conversation
    label: str | None
    raw: str | None
    split: Split | None
    source: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not taken, and why."""

    line: int
    reason: str


def read_items(path: Path, columns: Columns, task: Task | None) -> Iterable[Item | Rejected]:
    """The rows of a file as conversations with labels. Without a task, any label is taken as it is.

    Raises:
        InputError: no column holds the text, or a named column is not there.
    """
    picks: dict[tuple[str, ...], _Pick] = {}
    for row in read_rows(path):
        if row.error:
            yield Rejected(row.line, row.error)
            continue
        names = tuple(row.values)
        if names not in picks:  # in JSON, each row may have fields of its own
            picks[names] = _Pick(path, names, columns, strict=not picks)
        yield _item(row, picks[names], columns, task)


def column_values(values: Any, what: str) -> list[str]:
    """The values of a sequence, array or column as texts."""
    del what
    items = values.to_list() if hasattr(values, "to_list") else values.tolist() if hasattr(values, "tolist") else values
    return [str(item) for item in items]


class _Pick:
    """The columns of the rows that have the same ones. Only the first rows must have what was named."""

    def __init__(self, path: Path, names: Sequence[str], columns: Columns, strict: bool) -> None:
        self._strict = strict
        self.chat = "messages" in names and columns.text is None
        self.text = "messages" if self.chat else self._find(path, names, columns.text, TEXT_NAMES, "text")
        if self.text is None and strict:
            raise InputError(
                f"{path} has no column {' or '.join(TEXT_NAMES[:3])}; name it with --text ({', '.join(names)})"
            )
        self.label = self._find(path, names, columns.label, LABEL_NAMES, "label")

    def _find(
        self, path: Path, names: Sequence[str], wanted: str | None, usual: Sequence[str], what: str
    ) -> str | None:
        if wanted is not None and wanted not in names:
            if not self._strict or (what == "label" and path.suffix.lower() not in TABLES):
                return None
            raise InputError(
                f"{path} has no column '{wanted}'; name one of its columns with --{what}: {', '.join(names)}"
            )
        lower = {name.lower(): name for name in reversed(names)}
        return wanted or next((lower[name] for name in usual if name in lower), None)


def _item(row: Row, pick: _Pick, columns: Columns, task: Task | None) -> Item | Rejected:
    values = row.values
    try:
        messages, answer = _conversation(values.get(str(pick.text)), pick.chat, task)
        label, raw = _label(values, pick, answer, columns, task)
        split = _split(values.get("split"))
    except _Bad as bad:
        return Rejected(row.line, str(bad))
    source = str(values.get("source") or columns.source)
    return Item(row.line, messages, label, raw, split, source, values)


class _Bad(Exception):
    """Why a row is not taken."""


def _conversation(given: Any, chat: bool, task: Task | None) -> tuple[Conversation, str | None]:
    """The turns up to the last of the user's; and what the assistant answered to it, if it named a label."""
    turns = _turns(given) if chat else [Message("user", _text(given))]
    answer = None
    if turns and turns[-1].role == "assistant":
        answer = turns[-1].content
        turns = turns[:-1]
        if task is not None and parse(task, answer) is None and not _looks_like_answer(task, answer):
            answer = None  # the assistant talked: a log of conversations, not of decisions
    if not turns or turns[-1].role != "user":
        raise _Bad("no message of the user at the end")
    if sum(len(turn.content) for turn in turns) > MAX_CHARACTERS:
        size = sum(len(turn.content) for turn in turns)
        raise _Bad(f"{size:,} characters, at most {MAX_CHARACTERS:,} can be taken; shorten it, or split it")
    return tuple(turns), answer


def _turns(given: Any) -> list[Message]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise _Bad("'messages' is not JSON") from None
    if not isinstance(given, list):
        raise _Bad("'messages' is no list of messages")
    turns = []
    for each in given:
        if not isinstance(each, dict) or not isinstance(each.get("role"), str):
            raise _Bad('a message is not {"role": ..., "content": ...}')
        if each["role"] in ("user", "assistant"):  # the system prompt is the task's own
            turns.append(Message(each["role"], _text(each.get("content"))))
    return turns


def _text(given: Any) -> str:
    if isinstance(given, list):  # content parts of the chat format
        given = content_text(given)
    text = "" if given is None else str(given).replace("\x00", "").strip()
    if not text:
        raise _Bad("the text is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Bad("half a character (a lone surrogate); mend the text")
    return text


def _looks_like_answer(task: Task, text: str) -> bool:
    return text.strip().startswith("{") and f'"{task.answer_field}"' in text


def _label(
    values: dict[str, Any], pick: _Pick, answer: str | None, columns: Columns, task: Task | None
) -> tuple[str | None, str | None]:
    given = values.get(pick.label) if pick.label else None
    raw = str(values.get(f"{pick.label}_raw") or given or "") or None
    if given in (None, "") and answer is not None:
        given = raw = answer
    if given in (None, ""):
        return None, raw if columns.teacher else None
    if task is None:
        return _bare(answer) if answer is not None and given is answer else str(given).strip(), raw
    label = parse(task, given) if given is answer else resolve(task, given)
    if label is None and not columns.teacher:
        close = difflib.get_close_matches(str(given), task.names, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; add it to [labels] in task.toml, or correct the row"
        raise _Bad(f"unknown label '{shorten(str(given), 40)}'{hint}")
    return label, raw


def _bare(answer: str) -> str:
    """The label in an assistant's reply of a task that is not known: of a JSON object its one value."""
    try:
        value = json.loads(answer)
    except ValueError:
        return answer.strip()
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return str(value).strip() if isinstance(value, str | int) else answer.strip()


def _split(given: Any) -> Split | None:
    if given in (None, ""):
        return None
    name = str(given).strip().lower()
    name = {"validation": "dev", "valid": "dev", "val": "dev", "training": "train"}.get(name, name)
    if name not in get_args(Split) or name == "excluded":
        raise _Bad(f"unknown split '{given}'; write train, dev or test")
    return cast(Split, name)
