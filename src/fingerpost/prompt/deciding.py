"""The one place where a question becomes a prompt and a reply becomes a label.

Teacher, exported training files and served models all see what `render` writes: a student that is tuned
on one wording and asked with another loses what it learnt.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fingerpost.text import fingerprint, fold, share
from fingerpost.types import Conversation, Label, Task

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
    return (int(share(f"order/{question_id}") * orders) + vote) % orders


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


def parse(task: Task, raw: str | None) -> str | None:
    """The label that a reply names, or None. Nothing is guessed from prose.

    Taken are: a JSON object with the answer field (or with one field only), a JSON string or number, or the
    bare label; in a code fence or not; the name or the code, whatever the case and punctuation.
    """
    if raw is None:
        return None
    text = raw.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict):
        value = value.get(task.answer_field, next(iter(value.values())) if len(value) == 1 else None)
    return resolve(task, value)


def resolve(task: Task, value: object) -> str | None:
    """The name of the label that a name or a code stands for, or None."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    exact, folded = _names(task)
    return exact.get(str(value).strip()) or folded.get(fold(str(value)))


@lru_cache(maxsize=32)
def _names(task: Task) -> tuple[dict[str, str], dict[str, str]]:
    exact = {str(label.code): label.name for label in task.labels if label.code is not None}
    exact |= {label.name: label.name for label in task.labels}
    folded: dict[str, str] = {}
    for name in task.names:
        key = fold(name)
        folded[key] = "" if key in folded else name  # two names that fold alike: neither is recognised so
    return exact, {key: name for key, name in folded.items() if key and name}


def prompt_fingerprint(task: Task) -> str:
    """Changes when the teacher would be asked something else."""
    return fingerprint([system_prompt(task), json.dumps(schema(task))])
