"""Prompts that ask a writer for questions, and the parsing of its replies.

The prompt texts are kept as they were measured: changing them changes what is generated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from fingerpost.core.text import humanise, parse_json, storable, strip_code_fence
from fingerpost.core.types import Conversation, Label, Message
from fingerpost.generation.brief import OUT_OF_SCOPE, Brief, Item, has_informative_name, label_description
from fingerpost.generation.shots import FEW_SHOT_EXAMPLES, NAME_OTHERS, OTHER_WORDS, TOPIC_COUNT
from fingerpost.task.prompt import chat
from fingerpost.task.settings import Task

Chat: TypeAlias = list[dict[str, str]]

_MESSAGES_SYSTEM = (
    "You write example messages for testing an assistant: short messages that its users type. You are the user, not "
    "the assistant. The user asks or wants something; never answer. Reply with JSON only."
)

_TOPICS_SYSTEM = "You know what people ask an assistant. Reply with JSON only."


def writing_prompt(task: Task, brief: Brief) -> Chat:
    """The chat messages that ask for what the brief describes.

    Few-shot examples from an unrelated domain come first. They are the same in all requests of one form, so that the
    provider's prompt cache can be used.
    """
    topics = brief.form == OUT_OF_SCOPE
    system = _TOPICS_SYSTEM if topics else _MESSAGES_SYSTEM
    request = _topics_request(task) if topics else _messages_request(task, brief)
    return chat(system, (*_few_shot_turns(FEW_SHOT_EXAMPLES[brief.form]), Message("user", request)))


def reply_schema(brief: Brief) -> dict[str, Any]:
    """The JSON schema of the reply: one text for each number, or the three turns of a follow-up."""
    turn: dict[str, Any] = {"type": "string"}
    if brief.form == "follow_ups":
        turn = _object_schema({key: {"type": "string"} for key in _TURNS})
    count = TOPIC_COUNT if brief.form == OUT_OF_SCOPE else len(brief.items)
    return _object_schema({str(number): turn for number in range(1, count + 1)})


def read_conversations(brief: Brief, raw: str | None) -> dict[int, Conversation]:
    """The complete conversations in a reply, by item number, counted from 0."""
    found = ((number - 1, _conversation(brief, value)) for number, value in _numbered_values(raw))
    return {number: messages for number, messages in found if messages and 0 <= number < len(brief.items)}


def count_surplus(brief: Brief, raw: str | None) -> int:
    """How many texts a reply holds beyond the requested number."""
    return sum(number > len(brief.items) for number, _ in _numbered_values(raw))


def read_out_of_scope_topics(raw: str | None) -> list[str]:
    """The out-of-scope topics in a reply, without repetitions."""
    values = _numbered_values(raw)[:TOPIC_COUNT]
    topics = (_one_line(value).strip(" .?") for _, value in values if isinstance(value, str))
    return [topic for topic in dict.fromkeys(topics) if 2 < len(topic) <= 80]


def _messages_request(task: Task, brief: Brief) -> str:
    by_name = {label.name: label for label in task.labels}
    count = len(brief.items)
    if brief.form == "wordings":
        wanted = f"All {count} users want the same: {_intent(by_name, brief.items[0])}. {OTHER_WORDS}"
        lines = [f"Write {count} messages to {_assistant(task)}. {wanted}"]
    else:
        what = "conversations with" if brief.form == "follow_ups" else "messages to"
        lines = [f"Write {count} {what} {_assistant(task)}, one for each line."]
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
        lines.append(f"{number}. {opening}{_intent(by_name, item)}")
    return "\n".join(lines)


def _assistant(task: Task) -> str:
    return task.generate.about or f"the assistant '{humanise(task.name)}'"


def _intent(by_name: dict[str, Label], item: Item) -> str:
    if item.kind in ("near", "far"):
        return f"something else: {item.about}"
    label = by_name[item.label]
    if item.kind == "named":
        return humanise(label.name)
    wish = label_description(label) + (f" ({humanise(label.name)})" if has_informative_name(label) else "")
    if item.kind == "border":
        return f"{wish}; at first sight it looks as if it meant: {label_description(by_name[item.about])}"
    return f"{wish}; the same as '{item.about}', in other words" if item.kind == "error" else wish


def _topics_request(task: Task) -> str:
    can = "\n".join(f"- {label_description(label)}" for label in task.labels if label.name != task.fallback)
    return f"This can be asked of {_assistant(task)}:\n{can}\n{NAME_OTHERS}"


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
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
        return tuple(Message(role, _one_line(turn)) for role, turn in zip(roles, turns, strict=True))
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return (Message("user", _one_line(value)),) if isinstance(value, str) and value.strip() else ()


def _one_line(text: str) -> str:
    """The text on one line. A lone surrogate, which JSON can contain, becomes a question mark."""
    return storable(" ".join(text.split()))


def _numbered_values(raw: str | None) -> list[tuple[int, Any]]:
    """The numbered values of the JSON object or list in a reply, in a code fence or not. Broken JSON is repaired."""
    text = strip_code_fence(raw or "")
    try:
        value = parse_json(text)
    except ValueError:
        return _repaired_values(text)
    value = _unwrap(value)
    if isinstance(value, dict):
        numbers = [int(key) if _NUMBER.fullmatch(key) else place for place, key in enumerate(value, 1)]
        return list(zip(numbers, value.values(), strict=True))
    return list(enumerate(value, 1)) if isinstance(value, list) else []


def _repaired_values(text: str) -> list[tuple[int, Any]]:
    """The numbered values of broken JSON, without a last text that was cut off.

    A mark is appended before the repair: a value that contains it was still open where the reply ends.
    """
    import json_repair

    try:
        value = _unwrap(json_repair.loads(text + _CUT_OFF, skip_json_loads=True))
    except (ValueError, RecursionError):  # nested too deeply
        return []
    if isinstance(value, list):
        numbered = [item for item in value if isinstance(item, dict) and all(map(_NUMBER.fullmatch, item))]
        if not numbered and _JSON_START.match(text):
            return [(number, item) for number, item in enumerate(value, 1) if not _is_cut_off(item)]
        value = {key: item for found in numbered for key, item in found.items()}  # one object for each message
    if not isinstance(value, dict):
        return []
    # The repair may make objects and lists of brackets in prose: without numbers, they are not trusted.
    return [(int(key), item) for key, item in value.items() if _NUMBER.fullmatch(key) and not _is_cut_off(item)]


def _unwrap(value: Any) -> Any:
    """The list or object inside an object with a single key, such as {"messages": [...]}."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(inner := next(iter(value.values())), list | dict):
        return inner if isinstance(inner, list) or not set(inner) <= set(_TURNS) else value
    return value


def _is_cut_off(value: Any) -> bool:
    return _CUT_OFF in json.dumps(value, ensure_ascii=False)


_TURNS = ("first", "answer", "then")

_NUMBER = re.compile(r"[0-9]{1,6}")

_CUT_OFF = "\ue000"  # for private use: no text contains it

_JSON_START = re.compile(r'\{|\[\s*"')


def _few_shot_turns(examples: Sequence[tuple[str, dict[str, Any]]]) -> list[Message]:
    return [
        turn
        for request, reply in examples
        for turn in (Message("user", request), Message("assistant", json.dumps(reply, ensure_ascii=False)))
    ]
