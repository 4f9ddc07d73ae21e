"""Chat JSONL for fine-tuning, read as conversations with labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerpost.core.errors import InputError
from fingerpost.core.text import content_text, question_id
from fingerpost.core.types import Conversation, Example, Label, Message
from fingerpost.task.reply_format import (
    ReplyTemplate,
    UserTemplate,
    Value,
    find_reply_template,
    find_user_template,
    label_in,
    labels_of,
    without_template,
)
from fingerpost.task.settings import Task

LEAST_ROWS = 10
"""Rows that a file must have."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file: the conversation, the reply to learn, and the system prompt."""

    line: int
    messages: Conversation
    reply: str
    system: str


@dataclass(frozen=True, slots=True)
class ChatData:
    """A fine-tuning file as examples of a classification task.

    Attributes:
        task: the task, with the labels found in the replies.
        form: the format of the replies.
        frame: the constant text around the users' messages; the examples' last turns are without it.
        system: the most frequent system prompt.
        examples: one per row.
    """

    task: Task
    form: ReplyTemplate
    frame: UserTemplate
    system: str
    examples: list[Example]


def read_chat(path: Path, least: int = LEAST_ROWS) -> list[Row]:
    """Read a chat JSONL file for fine-tuning.

    The reply to learn is the last assistant message whose `weight` is not 0; the turns before it are its input.

    Raises:
        InputError: a line is not a conversation with an assistant's reply, or there are fewer than `least` lines.
    """
    rows: list[Row] = []
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if raw.strip():
                try:
                    rows.append(_row(number, json.loads(raw.decode("utf-8-sig"))))
                except UnicodeDecodeError:
                    raise InputError(f"line {number} is not UTF-8; save the file as UTF-8") from None
                except (ValueError, RecursionError):
                    raise InputError(f"line {number} is not JSON; each line must be one JSON object") from None
    if len(rows) < least:
        raise InputError(f"the file has {len(rows)} examples, at least {least} are needed; add more lines")
    return rows


def _row(number: int, value: Any) -> Row:
    turns = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise InputError(f'line {number} has no list of messages; a line is {{"messages": [...]}}')
    system = "\n".join(
        content_text(turn.get("content")) for turn in turns if turn.get("role") in ("system", "developer")
    )
    dialogue = [turn for turn in turns if turn.get("role") in ("user", "assistant")]
    for end in range(len(dialogue) - 1, 0, -1):
        turn = dialogue[end]
        if turn["role"] == "assistant" and turn.get("weight") != 0 and dialogue[end - 1]["role"] == "user":
            reply = content_text(turn.get("content")).strip()
            if not reply:
                raise InputError(
                    f"line {number}: the assistant's reply has no text; tool calls cannot be learnt; remove the line"
                )
            before = tuple(Message(turn["role"], content_text(turn.get("content"))) for turn in dialogue[:end])
            return Row(number, before, reply, system)
    raise InputError(f"line {number} has no assistant's reply to a user's message; add the answer that is to be learnt")


def as_classification(rows: Sequence[Row], name: str) -> ChatData:
    """Interpret the rows as examples of a classification task.

    Raises:
        NoClassification: the replies are not labels.
    """
    form, field, values = find_reply_template([row.reply for row in rows])
    system = Counter(row.system for row in rows).most_common(1)[0][0]
    labels = labels_of(values, system)
    form = form.model_copy(update={"codes": any(label.code is not None for label in labels.values())})
    task = Task(name=name, answer_field=field, labels=tuple(labels.values()))
    frame = find_user_template([row.messages[-1].content for row in rows])
    return ChatData(task, form, frame, system, list(_examples(rows, values, labels, frame)))


def examples_of(rows: Sequence[Row], data: ChatData) -> tuple[list[Example], int]:
    """Interpret further rows as examples of the same task.

    Returns:
        The examples, and the number of rows left out: their replies have another format or an unknown label.
    """
    labels = {label.name: label for label in data.task.labels}
    found = [(row, label_in(data.form, data.task, row.reply)) for row in rows]
    fitting = [(row, name) for row, name in found if name is not None]
    examples = _examples([row for row, _ in fitting], [name for _, name in fitting], labels, data.frame)
    return list(examples), len(rows) - len(fitting)


def _examples(
    rows: Sequence[Row], values: Sequence[Value], labels: Mapping[Any, Label], frame: UserTemplate
) -> Iterator[Example]:
    for row, value in zip(rows, values, strict=True):
        messages = without_template(row.messages, frame)
        key = question_id(messages)
        yield Example(key, messages, {labels[value].name: 1.0}, group=key)
