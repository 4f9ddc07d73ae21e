"""The prompt that asks for a label. This module alone turns a question into chat messages.

The teacher, exported training files and hosted students all use `render`: a model that is fine-tuned on one prompt and
queried with another loses accuracy.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, TypeAlias

from fingerpost.core.errors import TaskError
from fingerpost.core.text import fingerprint, hash_fraction
from fingerpost.core.types import Conversation, Label, Message
from fingerpost.task.settings import Task

LABELS_PLACEHOLDER = "{labels}"

Shots: TypeAlias = tuple[tuple[str, str], ...]
"""Examples in a prompt: messages and their right answers."""


def label_order(task: Task, number: int, orders: int) -> list[str]:
    """The label names in one of a fixed number of orders.

    Language models prefer some positions in a list to others, so the order of the labels must vary. A new order for
    each question would defeat the provider's prompt cache; a few fixed orders avoid both problems. They are stratified
    like a Latin square: the list is cut into `orders` strips, each label appears in each strip once over all orders,
    at a random position within it. The result depends only on the task and the arguments.

    Args:
        number: index of the order, from 0.
        orders: how many orders are in use.
    """
    names = list(task.names)
    random.Random(f"{task.name}/base").shuffle(names)
    strips = [names[i * len(names) // orders : (i + 1) * len(names) // orders] for i in range(orders)]
    rotated = strips[number % orders :] + strips[: number % orders]
    for strip in rotated:
        random.Random(f"{task.name}/{number}/{strip}").shuffle(strip)
    return [name for strip in rotated for name in strip]


def order_number(question_id: str, vote: int, orders: int) -> int:
    """The index of the label order for one of a question's votes, counted from 0.

    It is fixed by the question's id, and differs between the votes of a question while `vote` is below `orders`.
    """
    return (int(hash_fraction(f"order/{question_id}") * orders) + vote) % orders


def answer_of(label: Label, codes: bool) -> str | int:
    """The value that represents a label in a reply: its name, or with `codes` its application code if it has one."""
    return label.code if codes and label.code is not None else label.name


def system_prompt(task: Task, order: Sequence[str] | None = None, codes: bool = False) -> str:
    """The system prompt: instructions, the list of labels, and the required reply format.

    Args:
        order: label names in the order to list them; default is the order of task.toml.
        codes: list labels by their application code where they have one.
    """
    by_name = {label.name: label for label in task.labels}
    listed = [by_name[name] for name in (order or task.names)]
    lines = [f"- {answer_of(label, codes)}: {_description(label, codes)}".rstrip(": ") for label in listed]
    text = task.prompt if task.prompt is not None else f"{task.instructions.strip()}\n\nActions:\n{LABELS_PLACEHOLDER}"
    text = text.replace(LABELS_PLACEHOLDER, "\n".join(lines)).strip()
    if task.prompt is not None and task.answer_field in task.prompt:
        return text
    if task.multi:
        reply_format = json.dumps({task.answer_field: ["..."]})
        text += f"\n\nReply with JSON only, {reply_format}, a list of all actions listed above that apply."
        fallback = [answer_of(by_name[task.fallback], codes)] if task.fallback else []
        return f"{text} If none fits, it is {json.dumps(fallback)}."
    reply_format = json.dumps({task.answer_field: "..."})
    text += f"\n\nReply with JSON only, {reply_format}, where ... is exactly one of the actions listed above."
    if task.fallback:
        text += f" If none fits, it is {json.dumps(answer_of(by_name[task.fallback], codes))}."
    return text


def decision_question(
    task: Task, messages: Conversation, order: Sequence[str] | None = None, shots: Shots = ()
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """A request of the Decisions API: chat messages, the first of them with the instructions, and the question.

    Args:
        order: label names in the order to list them. The levels of an ordinal task keep theirs.
        shots: examples, which are added to the instructions.

    Raises:
        TaskError: a message may have several labels, which one question cannot ask for.
    """
    if task.multi:
        raise TaskError(
            'multi = true needs a teacher with api = "chat": a question of the Decisions API has one answer'
        )
    by_name = {label.name: label for label in task.labels}
    text = (task.prompt if task.prompt is not None else task.instructions).replace(LABELS_PLACEHOLDER, "").strip()
    examples = [f"{given!r}: {answer}" for given, answer in shots]
    text = "\n".join([text or "Which of these fits?", *(["Examples:", *examples] if examples else [])])
    if task.ordinal:
        values = [{"label": label.name, "description": label.description} for label in task.labels]
        return chat(text, messages), {"type": "score", "name": task.answer_field, "levels": values}
    values = [{"value": name, "description": by_name[name].description} for name in (order or task.names)]
    return chat(text, messages), {"type": "choice", "name": task.answer_field, "choices": values}


def _description(label: Label, codes: bool) -> str:
    """The text after a label in the list; it starts with the name where the label is listed by code."""
    if codes and label.code is not None:
        return f"{label.name}: {label.description}" if label.description else label.name
    return label.description


def render(
    task: Task, messages: Conversation, order: Sequence[str] | None = None, codes: bool = False, shots: Shots = ()
) -> list[dict[str, str]]:
    """The chat messages that ask for a label: the system prompt, then the turns of the conversation.

    Args:
        order, codes: as for `system_prompt`.
        shots: examples that come first, as turns of their own (few-shot prompting).
    """
    examples = [
        turn
        for text, answer in shots
        for turn in (Message("user", text), Message("assistant", reply(task, answer, codes)))
    ]
    return chat(system_prompt(task, order, codes), (*examples, *messages))


def chat(system: str, messages: Conversation) -> list[dict[str, str]]:
    """A system prompt and a conversation as chat messages with `role` and `content`."""
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    return [{"role": "system", "content": system}, *turns]


def reply_value(task: Task, answer: str, codes: bool = False) -> str | int | list[str | int]:
    """The value that states an answer in a reply: a label's name or code; of a multi-label task, a list of them."""
    by_name = {known.name: known for known in task.labels}
    values = [answer_of(by_name[name], codes) for name in task.labels_in(answer)]
    return values if task.multi else values[0]


def reply(task: Task, answer: str, codes: bool = False) -> str:
    """The assistant's reply that states an answer, as a JSON object."""
    return json.dumps({task.answer_field: reply_value(task, answer, codes)}, ensure_ascii=False)


def training_line(task: Task, messages: Conversation, label: str) -> str:
    """One line of chat JSONL for fine-tuning: system prompt, conversation, reply. Labels appear by code if they have one."""
    turns = [*render(task, messages, codes=True), {"role": "assistant", "content": reply(task, label, codes=True)}]
    return json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def schema(task: Task) -> dict[str, Any]:
    """The JSON schema of a reply. The order of its enum is fixed, so that a provider compiles the schema only once."""
    one: dict[str, Any] = {"type": "string", "enum": task.names}
    return {
        "type": "object",
        "properties": {task.answer_field: {"type": "array", "items": one} if task.multi else one},
        "required": [task.answer_field],
        "additionalProperties": False,
    }


def prompt_fingerprint(task: Task) -> str:
    """A fingerprint of the prompt and the reply schema: 16 hexadecimal digits."""
    parts = [system_prompt(task), json.dumps(schema(task))]
    if task.teacher is not None and task.teacher.api == "decisions":
        parts.append(task.teacher.api)
    return fingerprint(parts)
