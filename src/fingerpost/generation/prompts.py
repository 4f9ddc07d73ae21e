"""The prompts that ask a writer for questions, and its replies as conversations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from fingerpost.core.text import humanise
from fingerpost.core.types import Conversation, Label, Message
from fingerpost.generation.brief import Brief, Item, meaning, telling
from fingerpost.generation.shots import BEYOND, NAME_OTHERS, OTHER_WORDS, SHOTS
from fingerpost.task.prompt import chat
from fingerpost.task.settings import Task

Chat: TypeAlias = list[dict[str, str]]

_WRITER = (
    "You write example messages for testing an assistant: short messages that its users type. You are the user, not "
    "the assistant. The user asks or wants something; never answer. Reply with JSON only."
)

_THINKER = "You know what people ask an assistant. Reply with JSON only."


def write(task: Task, brief: Brief) -> Chat:
    """The chat messages that ask for what the brief wants.

    Examples from another world come first, always the same ones, so that a small model sees what is meant and the
    provider's prompt cache stays warm; what changes stands at the end.
    """
    system = _THINKER if brief.form == "beyond" else _WRITER
    wanted = _beyond_wanted(task) if brief.form == "beyond" else _messages_wanted(task, brief)
    return chat(system, (*_turns(SHOTS[brief.form]), Message("user", wanted)))


def written_schema(brief: Brief) -> dict[str, Any]:
    """The JSON schema of the reply: a text for each number, of a follow-up three."""
    turn: dict[str, Any] = {"type": "string"}
    if brief.form == "follow_ups":
        turn = _object({key: {"type": "string"} for key in _TURNS})
    count = BEYOND if brief.form == "beyond" else len(brief.items)
    return _object({str(number): turn for number in range(1, count + 1)})


def read_written(brief: Brief, raw: str | None) -> dict[int, Conversation]:
    """The conversations in a reply, by the number of their item, from 0; of a broken reply, those that are whole."""
    found = ((number - 1, _conversation(brief, value)) for number, value in _values(raw))
    return {number: each for number, each in found if each and 0 <= number < len(brief.items)}


def surplus(brief: Brief, raw: str | None) -> int:
    """How many more a reply holds than were asked for."""
    return sum(number > len(brief.items) for number, _ in _values(raw))


def read_beyond(raw: str | None) -> list[str]:
    """The things in a reply that no label covers."""
    found = (_clean(value).strip(" .?") for _, value in _values(raw)[:BEYOND] if isinstance(value, str))
    return [each for each in dict.fromkeys(found) if 2 < len(each) <= 80]


def _messages_wanted(task: Task, brief: Brief) -> str:
    by_name = {label.name: label for label in task.labels}
    count = len(brief.items)
    if brief.form == "wordings":
        wanted = f"All {count} users want the same: {_wish(by_name, brief.items[0])}. {OTHER_WORDS}"
        lines = [f"Write {count} messages to {_whom(task)}. {wanted}"]
    else:
        what = "conversations with" if brief.form == "follow_ups" else "messages to"
        lines = [f"Write {count} {what} {_whom(task)}, one for each line."]
    if brief.samples:
        lines += ["Its users write like this:", *(f"- {text}" for text in brief.samples)]
    if brief.persona:
        lines.append(f"Who writes: {brief.persona}.")
    if brief.style:
        lines.append(f"How they write: {brief.style}.")
    if brief.language:
        lines.append(f"All in {brief.language}.")
    for number, item in enumerate(brief.items if brief.form != "wordings" else (), 1):
        opening = f"{item.opening}: " if item.opening else ""
        lines.append(f"{number}. {opening}{_wish(by_name, item)}")
    return "\n".join(lines)


def _whom(task: Task) -> str:
    return task.generate.about or f"the assistant '{humanise(task.name)}'"


def _wish(by_name: dict[str, Label], item: Item) -> str:
    if item.kind in ("near", "far"):
        return f"something else: {item.about}"
    label = by_name[item.label]
    if item.kind == "named":
        return humanise(label.name)
    wish = meaning(label) + (f" ({humanise(label.name)})" if telling(label) else "")
    if item.kind == "border":
        return f"{wish}; at first sight it looks as if it meant: {meaning(by_name[item.about])}"
    return f"{wish}; the same as '{item.about}', in other words" if item.kind == "error" else wish


def _beyond_wanted(task: Task) -> str:
    can = "\n".join(f"- {meaning(label)}" for label in task.labels if label.name != task.fallback)
    return f"This can be asked of {_whom(task)}:\n{can}\n{NAME_OTHERS}"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _conversation(brief: Brief, value: Any) -> Conversation:
    if brief.form == "follow_ups":
        given = [value.get(key) for key in _TURNS] if isinstance(value, dict) else []
        turns = [turn for turn in given if isinstance(turn, str) and turn.strip()]
        if len(turns) != len(_TURNS):
            return ()
        roles = ("user", "assistant", "user")
        return tuple(Message(role, _clean(turn)) for role, turn in zip(roles, turns, strict=True))
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return (Message("user", _clean(value)),) if isinstance(value, str) and value.strip() else ()


def _clean(text: str) -> str:
    """On one line; half a character (a lone surrogate), as JSON may hold one, becomes a question mark."""
    return " ".join(text.split()).encode("utf-8", "replace").decode()


def _values(raw: str | None) -> list[tuple[int, Any]]:
    """The numbered values of the object or list in a reply, in a code fence or not; of a broken one, the whole texts."""
    text = (raw or "").strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [(int(number), json.loads(found)) for number, found in _NUMBERED.findall(text)]
    if isinstance(value, dict) and len(value) == 1 and isinstance(inner := next(iter(value.values())), list | dict):
        value = inner if isinstance(inner, list) or not set(inner) <= set(_TURNS) else value
    if isinstance(value, dict):
        numbers = [int(key) if _NUMBER.fullmatch(key) else place for place, key in enumerate(value, 1)]
        return list(zip(numbers, value.values(), strict=True))
    return list(enumerate(value, 1)) if isinstance(value, list) else []


_TURNS = ("first", "answer", "then")

_NUMBER = re.compile(r"[0-9]{1,6}")

_NUMBERED = re.compile(r'"([0-9]{1,6})"\s*:\s*("(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")')


def _turns(examples: Sequence[tuple[str, dict[str, Any]]]) -> list[Message]:
    return [
        turn
        for wanted, given in examples
        for turn in (Message("user", wanted), Message("assistant", json.dumps(given, ensure_ascii=False)))
    ]
