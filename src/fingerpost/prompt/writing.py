"""What a language model is asked to write: questions by a brief, things beyond a task, better descriptions of labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from fingerpost.prompt.deciding import chat
from fingerpost.text import spoken
from fingerpost.types import Conversation, Label, Message, Task

Form: TypeAlias = Literal["messages", "wordings", "follow_ups", "beyond"]
"""Messages of several labels side by side; one label in ever other words; conversations whose last message counts;
things that users may want and no label covers."""
Kind: TypeAlias = Literal["plain", "named", "border", "near", "far", "error"]
"""`named`: by the label's name alone; `border`: near another label, too; `near` and `far`: out of scope; `error`: like
one that a student gets wrong."""
Chat: TypeAlias = list[dict[str, str]]

BEYOND = 10  # things that are asked for at once
_WRITER = (
    "You write example messages for testing an assistant: short messages that its users type. You are the user, not "
    "the assistant. The user asks or wants something; never answer. Reply with JSON only."
)
_THINKER = "You know what people ask an assistant. Reply with JSON only."


@dataclass(frozen=True, slots=True)
class Item:
    """One message to be written: the label that it is meant for and the words that it begins with.

    `about` is, out of scope, the thing that is wanted; of a border question the other label that it could be taken for;
    of an error the text that is to be said in other words.
    """

    kind: Kind
    label: str
    opening: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Brief:
    """What a writer is asked for in one call: a message for each item.

    Several labels side by side are kept apart from each other. Wordings of one label, asked for at once, differ from
    those before them, and so find words that its description does not have. `samples` are messages of users whose
    manner is to be met.
    """

    form: Form
    items: tuple[Item, ...]
    style: str = ""
    persona: str = ""
    language: str = ""
    samples: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> Brief:
        items = tuple(Item(**each) for each in kept["items"])
        return cls(**{**kept, "items": items, "samples": tuple(kept["samples"])})


def write(task: Task, brief: Brief) -> Chat:
    """The chat messages that ask for what the brief wants.

    Examples from another world come first, always the same ones, so that a small model sees what is meant and the
    provider's prompt cache stays warm; what changes stands at the end.
    """
    system = _THINKER if brief.form == "beyond" else _WRITER
    wanted = _beyond_wanted(task) if brief.form == "beyond" else _messages_wanted(task, brief)
    return chat(system, (*_turns(_EXAMPLES[brief.form]), Message("user", wanted)))


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


def meaning(label: Label) -> str:
    """What belongs to a label, in words."""
    return label.description.strip().rstrip(".") or spoken(label.name)


def telling(label: Label) -> bool:
    """Whether the name has words that the description does not have: users may have them. A number is no word."""
    more = set(spoken(label.name).split()) - set(spoken(meaning(label)).split())
    return any(re.search(r"[^\W\d_]", word) for word in more)


def _messages_wanted(task: Task, brief: Brief) -> str:
    by_name = {label.name: label for label in task.labels}
    count = len(brief.items)
    if brief.form == "wordings":
        wanted = f"All {count} users want the same: {_wish(by_name, brief.items[0])}. {_OTHER_WORDS}"
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
    return task.generate.about or f"the assistant '{spoken(task.name)}'"


def _wish(by_name: dict[str, Label], item: Item) -> str:
    if item.kind in ("near", "far"):
        return f"something else: {item.about}"
    label = by_name[item.label]
    if item.kind == "named":
        return spoken(label.name)
    wish = meaning(label) + (f" ({spoken(label.name)})" if telling(label) else "")
    if item.kind == "border":
        return f"{wish}; at first sight it looks as if it meant: {meaning(by_name[item.about])}"
    return f"{wish}; the same as '{item.about}', in other words" if item.kind == "error" else wish


def _beyond_wanted(task: Task) -> str:
    can = "\n".join(f"- {meaning(label)}" for label in task.labels if label.name != task.fallback)
    return f"This can be asked of {_whom(task)}:\n{can}\n{_NAME_OTHERS}"


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


_NAME_OTHERS = f"Name {BEYOND} things that users may ask, but that are not among these, a few words each."
_OTHER_WORDS = "Each says it in quite other words than the ones before."
_EXAMPLES: dict[Form, tuple[tuple[str, dict[str, Any]], ...]] = {
    "messages": (
        (
            "Write 5 messages to a public library's assistant, one for each line.\n"
            "How they write: in a hurry, few words, no punctuation.\n"
            "1. can: extend the loan of a book (renewal)\n2. ask about opening hours\n3. pls: pay a fine\n"
            "4. something else: a train ticket\n5. what: ask about opening hours",
            {
                "1": "can i keep the blue atlas 1 more week",
                "2": "how long r u open sat",
                "3": "pls let me pay what i owe by card",
                "4": "where do i get a ticket to york",
                "5": "what time does mill st branch close",
            },
        ),
        (
            "Write 4 messages to a public library's assistant, one for each line.\n"
            "Who writes: a teacher.\nHow they write: politely, in whole sentences.\n"
            "1. ask about opening hours\n2. I would: extend the loan of a book (renewal)\n"
            "3. We: ask about opening hours\n4. pay a fine",
            {
                "1": "Could you tell me until when the reading room is open on Saturdays?",
                "2": "I would like to have two more weeks with my novel, please.",
                "3": "We are coming with a school class, so what time do the doors open on Monday?",
                "4": "Is there a way to settle my late fee when I come in tomorrow?",
            },
        ),
    ),
    "wordings": (
        (
            "Write 6 messages to a public library's assistant. All 6 users want the same: extend the loan of a book "
            f"(renewal). {_OTHER_WORDS}",
            {
                "1": "can I keep the blue atlas one more week",
                "2": "renew my novel please",
                "3": "I won't have finished this by Friday, is there any way to move the due date",
                "4": "two more weeks with my paperback?",
                "5": "push back the return date of what I borrowed",
                "6": "how do I hold on to a title for longer",
            },
        ),
        (
            f"Write 6 messages to a public library's assistant. All 6 users want the same: pay a fine. {_OTHER_WORDS}",
            {
                "1": "where can I settle what I owe",
                "2": "take the late fee off my card",
                "3": "I brought it back two days too late, how do I pay",
                "4": "clear my overdue charge from March please",
                "5": "is there a way to transfer Anna's penalty online",
                "6": "I'd like to get rid of that debt on my account",
            },
        ),
    ),
    "follow_ups": (
        (
            "Write 2 conversations with a public library's assistant, one for each line.\n"
            "How they write: plainly, as one talks.\n1. okay: pay a fine\n2. extend the loan of a book (renewal)",
            {
                "1": {
                    "first": "is my account still blocked",
                    "answer": "Yes, there is a late fee of 4.50 on it.",
                    "then": "okay then I want to pay that now by card",
                },
                "2": {
                    "first": "When is my novel due?",
                    "answer": "It is due next Tuesday.",
                    "then": "can I have it for another week?",
                },
            },
        ),
    ),
    "beyond": (
        (
            "This can be asked of a public library's assistant:\n- extend the loan of a book\n- ask about opening hours\n"
            f"- pay a fine\n{_NAME_OTHERS}",
            {
                "1": "recommend a novel",
                "2": "rent a room for a party",
                "3": "repair a torn page",
                "4": "where to park",
                "5": "a job as a librarian",
                "6": "print a document",
                "7": "the wifi password",
                "8": "donate old books",
                "9": "a lost umbrella",
                "10": "who founded the library",
            },
        ),
    ),
}


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
