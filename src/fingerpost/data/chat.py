"""Chat JSONL for fine-tuning, read as conversations with labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fingerpost.core.errors import InputError
from fingerpost.core.text import check_characters, content_text, parse_json, question_id, shorten
from fingerpost.core.types import Conversation, Example, Message
from fingerpost.data.files import read_rows
from fingerpost.data.rows import LABEL_COLUMNS, Columns
from fingerpost.task.reply_format import (
    NoClassification,
    ReplyTemplate,
    UserTemplate,
    find_reply_template,
    find_user_template,
    label_in,
    labels_of,
    single_values,
    split_by_field,
    value_at,
    without_template,
)
from fingerpost.task.settings import Task

LEAST_ROWS = 10


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the file: the conversation up to the user's last message, the reply to learn, the system prompt.

    A reply that calls a tool is the call's arguments, and `tool` the tool's name.
    """

    line: int
    messages: Conversation
    reply: str
    system: str
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class ChatData:
    """The rows of a chat JSONL file as examples of a classification task.

    Attributes:
        reply_template: the constant text around the label in every reply.
        user_template: the constant text around every user message; the examples' last turns are without it.
        system: the most frequent system prompt.
    """

    task: Task
    reply_template: ReplyTemplate
    user_template: UserTemplate
    system: str
    examples: list[Example]


def is_chat_file(path: Path, columns: Columns) -> bool:
    """Whether a file is chat JSONL whose labels are the assistant's replies, not a column of labels."""
    if path.suffix.lower() not in (".jsonl", ".ndjson") or columns.text or columns.label:
        return False
    first = next((row.values for row in read_rows(path, columns.format) if not row.error), {})
    turns = first.get("messages")
    if not isinstance(turns, list) or any(name in first for name in (*LABEL_COLUMNS, "split")):
        return False
    return any(isinstance(turn, dict) and turn.get("role") == "assistant" for turn in turns)


def read_chat(path: Path, least: int = LEAST_ROWS) -> list[Row]:
    """All lines of a chat JSONL file.

    Of each conversation, the last assistant message whose `weight` is not 0 is the reply, with the turns before it.

    Raises:
        InputError: a line that is no conversation with an assistant reply, or fewer than `least` lines.
    """
    rows = [_row(number, value) for number, value in lines_of(path)]
    if len(rows) < least:
        raise InputError(f"the file has {len(rows)} examples, at least {least} are needed; add more lines")
    return rows


def lines_of(path: Path) -> Iterator[tuple[int, Any]]:
    """The JSON values of a file's lines, with the lines' numbers from 1.

    Raises:
        InputError: a line is not UTF-8 or no JSON.
    """
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if raw.strip():
                try:
                    yield number, parse_json(raw.decode("utf-8-sig"))
                except UnicodeDecodeError:
                    raise InputError(f"line {number} is not UTF-8; save the file as UTF-8") from None
                except ValueError:
                    raise InputError(f"line {number} is not JSON; each line must be one JSON object") from None


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
            reply, tool = _reply(turn)
            if not reply:
                raise InputError(
                    f"line {number}: the assistant's reply has neither text nor a tool call; add the answer"
                )
            before = tuple(Message(turn["role"], content_text(turn.get("content"))) for turn in dialogue[:end])
            for text in (system, reply, tool or "", *(message.content for message in before)):
                if reason := check_characters(text):
                    raise InputError(f"line {number}: {reason}")
            return Row(number, before, reply, system, tool)
    raise InputError(f"line {number} has no assistant reply to a user message; add the answer to learn")


def _reply(turn: dict[str, Any]) -> tuple[str, str | None]:
    """The reply in an assistant's message: its text, or the arguments and the name of the first tool that it calls."""
    calls = turn.get("tool_calls")
    first = calls[0] if isinstance(calls, list) and calls else {"function": turn.get("function_call")}
    function = first.get("function") if isinstance(first, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        arguments = function.get("arguments")
        return (arguments if isinstance(arguments, str) else json.dumps(arguments or {})).strip() or "{}", function[
            "name"
        ]
    return content_text(turn.get("content")).strip(), None


def _replies(rows: Sequence[Row]) -> list[str]:
    """What the replies say: their texts, or the arguments of the tool that they call; or, if the tools differ, their names.

    Raises:
        NoClassification: some replies call a tool and others do not, or both the tools and their arguments differ.
    """
    tools = {row.tool for row in rows}
    if tools == {None}:
        return [row.reply for row in rows]
    if None in tools:
        calls = sum(row.tool is not None for row in rows)
        raise NoClassification(
            f"{calls} replies call a tool and {len(rows) - calls} are texts; make them all calls, or all texts"
        )
    if len(tools) == 1:
        return [row.reply for row in rows]
    arguments = {row.reply for row in rows}
    if len(arguments) > 1:
        raise NoClassification(
            f"the replies call {len(tools)} tools with {len(arguments)} different arguments; only one of both may vary"
        )
    return [str(row.tool) for row in rows]


def rows_by_field(
    rows: Sequence[Row], dev: Sequence[Row]
) -> tuple[dict[str, Any], list[tuple[list[Row], list[Row]]]] | None:
    """Rows whose replies have several fields that vary, for each field with replies of that field alone.

    Returns:
        The JSON schema of the replies, and rows and dev rows of each field. None if there are no such fields.
    """
    found = split_by_field([row.reply for row in rows]) if len({row.tool for row in rows}) == 1 else None
    if found is None:
        return None
    schema, fields = found
    return schema, [
        (
            [replace(row, reply=reply) for row, reply in zip(rows, replies, strict=True)],
            [replace(row, reply=value_at(row.reply, path)) for row in dev],
        )
        for path, replies in fields.items()
    ]


def as_classification(rows: Sequence[Row], name: str) -> ChatData:
    """The rows as examples of a classification task of this name.

    Raises:
        NoClassification: the replies are no labels.
    """
    reply_template, field, values = find_reply_template(_replies(rows))
    system = Counter(row.system for row in rows).most_common(1)[0][0]
    multi = isinstance(values[0], list)
    try:
        labels = labels_of(single_values(values), system)
        codes = any(label.code is not None for label in labels.values())
        reply_template = reply_template.model_copy(update={"codes": codes})
        task = Task(name=name, answer_field=field, labels=tuple(labels.values()), multi=multi)
    except ValidationError as error:
        raise NoClassification(f"the replies have a label that cannot be used: {_reason(error)}") from None
    user_template = find_user_template([row.messages[-1].content for row in rows])
    answers = [task.answer(labels[value].name for value in single_values([answer])) for answer in values]
    examples = [_example(task, row, answer, user_template) for row, answer in zip(rows, answers, strict=True)]
    return ChatData(task, reply_template, user_template, system, examples)


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{shorten(repr(first['input']), 60)}: {first['msg'].removeprefix('Value error, ')}"


def examples_of(rows: Sequence[Row], data: ChatData) -> tuple[list[Example], list[Row]]:
    """Further rows as examples of the same task; and the rows whose reply names none of its labels."""
    examples: list[Example] = []
    missed: list[Row] = []
    for row in rows:
        label = label_in(data.reply_template, data.task, row.reply)
        if label is None and row.tool is not None:
            label = label_in(data.reply_template, data.task, row.tool)
        if label is None:
            missed.append(row)
        else:
            examples.append(_example(data.task, row, label, data.user_template))
    return examples, missed


def _example(task: Task, row: Row, answer: str, user_template: UserTemplate) -> Example:
    messages = without_template(row.messages, user_template)
    key = question_id(messages)
    return Example(key, messages, dict.fromkeys(task.labels_in(answer), 1.0), group=key, multi=task.multi)
