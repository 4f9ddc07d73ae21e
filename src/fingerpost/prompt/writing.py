"""What a language model is asked to write: questions by a brief, topics for them, better descriptions of labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from fingerpost.prompt.deciding import chat
from fingerpost.text import spoken
from fingerpost.types import Conversation, Label, Message, Task

Kind: TypeAlias = Literal["plain", "border", "near", "far", "error", "follow_up", "topics"]
"""`border`: of a label, and near another one; `near` and `far`: out of scope; `error`: like one the student gets wrong."""
Chat: TypeAlias = list[dict[str, str]]

TOPICS = 8
_WRITER = (
    "You write example messages for testing an assistant: short messages that its users type. You are the user, not "
    "the assistant. The user asks or wants something; never answer. Reply with JSON only."
)
_THINKER = "You know what people ask an assistant. Reply with JSON only."


@dataclass(frozen=True, slots=True)
class Brief:
    """What a writer is asked for in one call: a message for each of `openings`, all meant for `label`.

    `openings` are the first words, `topics` what each is about (empty: the writer chooses). `samples` are messages whose
    manner is to be met; of an `error`, the one whose wish is to be met in other words. `other` is the label that a
    border question could be taken for.
    """

    kind: Kind
    label: str
    openings: tuple[str, ...]
    topics: tuple[str, ...] = ()
    style: str = ""
    persona: str = ""
    language: str = ""
    samples: tuple[str, ...] = ()
    other: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> Brief:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()
        }
        return cls(**values)


def write(task: Task, brief: Brief) -> Chat:
    """The chat messages that ask for what the brief wants.

    Examples from another world come first, always the same ones, so that a small model sees what is meant and the
    provider's prompt cache stays warm; what changes stands at the end.
    """
    if brief.kind == "topics":
        examples = _BEYOND_EXAMPLES if brief.label == task.fallback else _TOPIC_EXAMPLES
        return chat(_THINKER, (*_turns(examples), Message("user", _topics_wanted(task, brief))))
    examples = _FOLLOW_UPS if brief.kind == "follow_up" else _MESSAGES
    return chat(_WRITER, (*_turns(examples), Message("user", _messages_wanted(task, brief))))


def written_schema(brief: Brief) -> dict[str, Any]:
    """The JSON schema of the reply: a text for each number, of a follow-up three."""
    turn: dict[str, Any] = {"type": "string"}
    if brief.kind == "follow_up":
        turn = _object({key: {"type": "string"} for key in _TURNS})
    return _object({str(number): turn for number in range(1, len(brief.openings) + 1)})


def read_written(brief: Brief, raw: str | None) -> list[Conversation]:
    """The conversations in a reply, at most as many as were asked for; of a broken reply, those that are whole."""
    return [found for value in _values(raw)[: len(brief.openings)] if (found := _conversation(brief, value))]


def surplus(brief: Brief, raw: str | None) -> int:
    """How many more a reply holds than were asked for."""
    return max(0, len(_values(raw)) - len(brief.openings))


def read_topics(raw: str | None) -> list[str]:
    """Short phrases in a reply."""
    found = (" ".join(value.split()).strip(" .") for value in _values(raw)[:TOPICS] if isinstance(value, str))
    return [each for each in dict.fromkeys(found) if 2 < len(each) <= 80]


def meaning(label: Label) -> str:
    """What belongs to a label, in words."""
    return label.description.strip().rstrip(".") or spoken(label.name)


def _messages_wanted(task: Task, brief: Brief) -> str:
    by_name = {label.name: label for label in task.labels}
    count, whom = len(brief.openings), task.generate.about or f"the assistant '{spoken(task.name)}'"
    what = "conversations with" if brief.kind == "follow_up" else "messages to"
    lines = [f"Write {count} {what} {whom}. {_wish(task, brief)}"]
    if brief.kind == "border":
        lines.append(f"But at first sight each could be taken for: {meaning(by_name[brief.other])}.")
    if brief.kind == "error":
        lines.append(f"They mean the same as this one, in quite other words: {brief.samples[0]}")
    elif brief.samples:
        lines += ["Its users write like this:", *(f"- {text}" for text in brief.samples)]
    if brief.persona:
        lines.append(f"Who writes: {brief.persona}.")
    lines.append(f"How they write: {brief.style}.")
    if brief.language:
        lines.append(f"All in {brief.language}.")
    topics = brief.topics or ("",) * count
    lines += [
        f"{number}. {opening}{f' ({topic})' if topic else ''}".rstrip()
        for number, (opening, topic) in enumerate(zip(brief.openings, topics, strict=True), 1)
    ]
    return "\n".join(lines)


def _wish(task: Task, brief: Brief) -> str:
    if brief.kind == "far":
        return "They have nothing to do with what it is for."
    if brief.kind == "near":
        others = "; ".join(meaning(label) for label in task.labels if label.name != brief.label)
        return f"None of them means one of these: {others}."
    label = next(each for each in task.labels if each.name == brief.label)
    return f"{'The last one of each' if brief.kind == 'follow_up' else 'Each one'} means: {meaning(label)}."


def _topics_wanted(task: Task, brief: Brief) -> str:
    whom = task.generate.about or f"the assistant '{spoken(task.name)}'"
    if brief.label == task.fallback:
        can = "\n".join(f"- {meaning(label)}" for label in task.labels if label.name != brief.label)
        return f"This can be asked of {whom}:\n{can}\nName {TOPICS} things that users may ask, but that are not among these, a few words each."
    label = next(each for each in task.labels if each.name == brief.label)
    return f"What can people want from {whom} when it is about this: {meaning(label)}? Name {TOPICS} different cases, a few words each."


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _conversation(brief: Brief, value: Any) -> Conversation:
    if brief.kind == "follow_up":
        given = [value.get(key) for key in _TURNS] if isinstance(value, dict) else []
        turns = [turn for turn in given if isinstance(turn, str) and turn.strip()]
        if len(turns) != len(_TURNS):
            return ()
        roles = ("user", "assistant", "user")
        return tuple(Message(role, " ".join(turn.split())) for role, turn in zip(roles, turns, strict=True))
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return (Message("user", " ".join(value.split())),) if isinstance(value, str) and value.strip() else ()


def _values(raw: str | None) -> list[Any]:
    """The values of the object or list in a reply, in a code fence or not; of a broken one, the whole texts."""
    text = (raw or "").strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [json.loads(found) for found in _NUMBERED.findall(text)]
    if isinstance(value, dict) and len(value) == 1 and isinstance(inner := next(iter(value.values())), list | dict):
        value = inner if isinstance(inner, list) or not set(inner) <= set(_TURNS) else value
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


_TURNS = ("first", "answer", "then")
_NUMBERED = re.compile(r'"\d+"\s*:\s*("(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")')


def _turns(examples: Sequence[tuple[str, dict[str, Any]]]) -> list[Message]:
    return [
        turn
        for wanted, given in examples
        for turn in (Message("user", wanted), Message("assistant", json.dumps(given, ensure_ascii=False)))
    ]


_MESSAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "Write 5 messages to a public library's assistant. Each one means: extend the loan of a book.\n"
        "How they write: in a hurry, few words, no punctuation.\n"
        "1. can (an atlas)\n2. need\n3. book (due today)\n4. how\n5. pls (several books)",
        {
            "1": "can i keep the blue atlas 1 more week",
            "2": "need more time w my book",
            "3": "book due today extend??",
            "4": "how to renew online",
            "5": "pls renew all 3 of mine till friday",
        },
    ),
    (
        "Write 4 messages to a public library's assistant. Each one means: ask about opening hours.\n"
        "Who writes: a teacher.\nHow they write: politely, in whole sentences.\n"
        "1. Could you\n2. I would (exam weeks)\n3. Is (the branch on Mill Street)\n4. We (a school class)",
        {
            "1": "Could you tell me until when the reading room is open on Saturdays?",
            "2": "I would like to know whether you open earlier during the exam weeks.",
            "3": "Is the branch on Mill Street closed on public holidays?",
            "4": "We are coming with a school class, so what time do the doors open on Monday?",
        },
    ),
)
_FOLLOW_UPS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "Write 2 conversations with a public library's assistant. The last one of each means: pay a fine.\n"
        "How they write: plainly, as one talks.\n1. okay\n2. can I",
        {
            "1": {
                "first": "is my account still blocked",
                "answer": "Yes, there is a late fee of 4.50 on it.",
                "then": "okay then I want to pay that now by card",
            },
            "2": {
                "first": "When is my novel due?",
                "answer": "It was due last Tuesday.",
                "then": "can I settle what I owe when I come in tomorrow?",
            },
        },
    ),
)
_TOPIC_EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "What can people want from a public library's assistant when it is about this: extend the loan of a book? "
        f"Name {TOPICS} different cases, a few words each.",
        {
            "1": "the book is due today",
            "2": "several books at once",
            "3": "an e-book",
            "4": "extended twice already",
            "5": "another reader has reserved it",
            "6": "the card has expired",
            "7": "a book from another branch",
            "8": "on holiday, cannot come",
        },
    ),
)
_BEYOND_EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "This can be asked of a public library's assistant:\n- extend the loan of a book\n- ask about opening hours\n"
        f"- pay a fine\nName {TOPICS} things that users may ask, but that are not among these, a few words each.",
        {
            "1": "recommend a novel",
            "2": "rent a room for a party",
            "3": "repair a torn page",
            "4": "where to park",
            "5": "a job as a librarian",
            "6": "print a document",
            "7": "the wifi password",
            "8": "donate old books",
        },
    ),
)


def describe(
    label: Label, confirmed: Sequence[str], missed: Sequence[tuple[str, str]], mistaken: Sequence[tuple[str, str]]
) -> Chat:
    """The chat messages that ask for a better description of a label.

    `confirmed` are texts that belong to it; of `missed`, (text, label), it was not seen that they do; of `mistaken`,
    (text, label), it was wrongly thought that they do: the label is where they belong.
    """
    parts = [f"Label: {label.name}", f"Description so far: {label.description or '(none)'}"]
    parts += ["", "These messages belong to it:", *(f"- {text}" for text in confirmed)]
    if missed:
        parts += ["", "These belong to it, but were taken for another label:"]
        parts += [f"- {text} (taken for {other})" for text, other in missed]
    if mistaken:
        parts += ["", "These were taken for it, but belong to another label:"]
        parts += [f"- {text} (belongs to {other})" for text, other in mistaken]
    system = (
        "You describe the labels of a message classifier, for someone who has to choose among them. Write one sentence "
        "of at most 30 words that says what belongs to the label and, where it matters, what does not. Describe the "
        'kind of message, do not repeat the examples. Reply with JSON only, {"description": "..."}.'
    )
    return chat(system, (Message("user", "\n".join(parts)),))


DESCRIPTION_SCHEMA = _object({"description": {"type": "string"}})


def parse_description(raw: str | None) -> str | None:
    """The description in a reply, on one line; None where there is none, or it is no description."""
    try:
        value = json.loads(raw or "")
    except ValueError:
        return None
    text = value.get("description") if isinstance(value, dict) else None
    line = " ".join(text.split()) if isinstance(text, str) else ""
    return line if 0 < len(line) <= 400 else None
