"""The prompt that asks for a label: the one place where a question becomes chat messages.

Teacher, exported training files and served models all see what `render` writes: a student that is tuned on one wording
and asked with another loses what it learnt.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from fingerpost.core.text import fingerprint, hash_fraction
from fingerpost.core.types import Conversation, Label
from fingerpost.task.settings import Task

PLACE = "{labels}"


def label_order(task: Task, number: int, orders: int) -> list[str]:
    """Order `number` of `orders` in which the label names are listed to the teacher.

    A language model prefers some places of a list to others, so the order must vary; but a new order for
    each question throws the prompt cache away. A few fixed orders do both. They are stratified like a Latin
    square: the list is cut into `orders` strips, each label stands in each strip once over all orders, and
    at random within it.
    """
    names = list(task.names)
    random.Random(f"{task.name}/base").shuffle(names)
    strips = [names[i * len(names) // orders : (i + 1) * len(names) // orders] for i in range(orders)]
    turned = strips[number % orders :] + strips[: number % orders]
    for strip in turned:
        random.Random(f"{task.name}/{number}/{strip}").shuffle(strip)
    return [name for strip in turned for name in strip]


def order_number(question_id: str, vote: int, orders: int) -> int:
    """Which order a question's vote (counted from 0) is asked in: fixed by its id, different for each vote."""
    return (int(hash_fraction(f"order/{question_id}") * orders) + vote) % orders


def answer_of(label: Label, codes: bool) -> str | int:
    """What stands for the label in a reply: the application's code where it is wanted and there is one."""
    return label.code if codes and label.code is not None else label.name


def system_prompt(task: Task, order: Sequence[str] | None = None, codes: bool = False) -> str:
    """Instructions, label list in the given order, and the form of the answer."""
    by_name = {label.name: label for label in task.labels}
    listed = [by_name[name] for name in (order or task.names)]
    lines = [f"- {answer_of(label, codes)}: {_explained(label, codes)}".rstrip(": ") for label in listed]
    text = task.prompt if task.prompt is not None else f"{task.instructions.strip()}\n\nActions:\n{PLACE}"
    text = text.replace(PLACE, "\n".join(lines)).strip()
    if task.prompt is not None and task.answer_field in task.prompt:
        return text
    form = json.dumps({task.answer_field: "..."})
    text += f"\n\nReply with JSON only, {form}, where ... is exactly one of the actions listed above."
    if task.fallback:
        text += f" If none fits, it is {json.dumps(answer_of(by_name[task.fallback], codes))}."
    return text


def _explained(label: Label, codes: bool) -> str:
    if codes and label.code is not None:
        return f"{label.name}: {label.description}" if label.description else label.name
    return label.description


def render(
    task: Task, messages: Conversation, order: Sequence[str] | None = None, codes: bool = False
) -> list[dict[str, str]]:
    """The chat messages that ask for a decision: the system prompt, then the conversation's own turns."""
    return chat(system_prompt(task, order, codes), messages)


def chat(system: str, messages: Conversation) -> list[dict[str, str]]:
    """A system prompt and a conversation as chat messages."""
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    return [{"role": "system", "content": system}, *turns]


def reply(task: Task, label: str, codes: bool = False) -> str:
    """The assistant's reply that names the label, as valid JSON."""
    by_name = {each.name: each for each in task.labels}
    return json.dumps({task.answer_field: answer_of(by_name[label], codes)}, ensure_ascii=False)


def training_line(task: Task, messages: Conversation, label: str) -> str:
    """A line of chat JSONL for fine-tuning: system, the conversation, the reply, with codes where labels have some."""
    turns = [*render(task, messages, codes=True), {"role": "assistant", "content": reply(task, label, codes=True)}]
    return json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def schema(task: Task) -> dict[str, Any]:
    """The JSON schema of a reply. The enum's order is fixed, so that a provider compiles it once."""
    return {
        "type": "object",
        "properties": {task.answer_field: {"type": "string", "enum": task.names}},
        "required": [task.answer_field],
        "additionalProperties": False,
    }


def prompt_fingerprint(task: Task) -> str:
    """Changes when the teacher would be asked something else."""
    return fingerprint([system_prompt(task), json.dumps(schema(task))])
