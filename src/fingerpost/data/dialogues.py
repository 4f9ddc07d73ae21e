"""Chat JSONL as conversations to learn all replies from, whatever they say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerpost.core.errors import InputError
from fingerpost.core.text import check_characters, content_text
from fingerpost.data.chat import LEAST_ROWS, lines_of

SYSTEM = ("system", "developer")
RESULTS = ("tool", "function")


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a conversation to learn from.

    Attributes:
        weight: in the loss; with 0, the message is read and not learnt.
        ends: the message is complete, so that its end is learnt, too.
    """

    role: str
    content: str
    weight: float = 0.0
    ends: bool = True


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation to learn from. Its assistant turns with a weight are learnt.

    Attributes:
        calls: whether the last reply calls tools.
    """

    turns: tuple[Turn, ...]
    calls: bool = False

    @property
    def system(self) -> str:
        """The system prompt, or an empty text."""
        return self.turns[0].content if self.turns[0].role == "system" else ""

    @property
    def reply(self) -> str:
        """The last reply."""
        return self.turns[-1].content


def read_dialogues(path: Path, least: int = LEAST_ROWS) -> list[Dialogue]:
    """All conversations of a chat JSONL file. Every reply of the assistant is learnt unless its `weight` is 0.

    Raises:
        InputError: a line is no conversation with a reply to learn, or there are fewer than `least` lines.
    """
    found = [_dialogue(number, value) for number, value in lines_of(path)]
    if len(found) < least:
        raise InputError(f"the file has {len(found)} examples, at least {least} are needed; add more lines")
    return found


def _dialogue(line: int, value: Any) -> Dialogue:
    given = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(given, list) or not all(isinstance(message, dict) for message in given):
        raise InputError(f'line {line} has no list of messages; a line is {{"messages": [...]}}')
    turns = [turn for turn in map(turn_of, given) if turn is not None]
    while turns and not (turns[-1].role == "assistant" and turns[-1].weight):
        turns.pop()
    if not any(turn.role == "user" for turn in turns):
        raise InputError(f"line {line} has no assistant reply to a user message; add the answer to learn")
    for turn in turns:
        if turn.weight and not turn.content.strip():
            raise InputError(f"line {line}: the assistant's reply has neither text nor a tool call; add the answer")
        if reason := check_characters(turn.content):
            raise InputError(f"line {line}: {reason}")
    last = [message for message in given if message.get("role") == "assistant"][-1]
    return Dialogue(join_system(turns), bool(last.get("tool_calls") or last.get("function_call")))


def turn_of(message: Mapping[str, Any]) -> Turn | None:
    """A message of a chat as a turn; None for one of an unknown role.

    A call of tools is its JSON text, and a tool's result a turn of the user, because few chat templates know them.
    """
    role, content = message.get("role"), content_text(message.get("content"))
    if role in SYSTEM:
        return Turn("system", content)
    if role in RESULTS:
        return Turn("user", content)
    if role == "user":
        return Turn("user", content)
    if role != "assistant":
        return None
    calls = message.get("tool_calls")
    first = message.get("function_call")
    functions = (
        [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else [first]
    )
    named = [function for function in functions if isinstance(function, dict) and isinstance(function.get("name"), str)]
    weight = 0.0 if message.get("weight") == 0 else 1.0
    if not named:
        return Turn("assistant", content.strip(), weight)
    return Turn("assistant", "\n".join(call_text(function) for function in named), weight)


def call_text(function: Mapping[str, Any]) -> str:
    """A tool call as the text that a model writes for it."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = {}
    return json.dumps({"name": function["name"], "arguments": arguments or {}}, ensure_ascii=False)


def calls_in(text: str) -> list[dict[str, str]]:
    """The tool calls in a reply, each with `name` and `arguments`, a JSON text; none if a line is something else."""
    calls = []
    for line in text.strip().splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict) or set(value) != {"name", "arguments"} or not isinstance(value["name"], str):
            return []
        calls.append({"name": value["name"], "arguments": json.dumps(value["arguments"], ensure_ascii=False)})
    return calls


def join_system(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns with all system prompts as one at the beginning."""
    system = "\n".join(turn.content for turn in turns if turn.role == "system")
    rest = tuple(turn for turn in turns if turn.role != "system")
    return (Turn("system", system), *rest) if system else rest
