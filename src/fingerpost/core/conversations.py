"""Texts and messages from a caller's program as conversations. Every value that cannot be used is named with its index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fingerpost.core.errors import InputError
from fingerpost.core.text import content_text, shorten
from fingerpost.core.types import Conversation, Message

TextOrMessages: TypeAlias = str | Sequence[Message | Mapping[str, Any]]
"""A text, or messages: those of this package or OpenAI's dictionaries with `role` and `content`."""
TURNS = ("user", "assistant")
INSTRUCTIONS = ("system", "developer")
"""Roles of messages that a student does not read."""


def conversations_of(given: TextOrMessages | Iterable[TextOrMessages]) -> tuple[list[Conversation], bool]:
    """The conversations, and whether a single one was given instead of several.

    Args:
        given: a text, a conversation, or a list, array, column or generator of them.

    Raises:
        InputError: a value is no text and no conversation.
    """
    if isinstance(given, str | bytes | Mapping | Message):
        return [conversation_of(given, "the text")], True
    if not isinstance(given, Iterable):
        raise InputError(f"{_described(given)} where texts are needed; give a text, or a list of texts")
    if getattr(given, "ndim", 1) != 1:
        raise InputError(f"a {type(given).__name__} where texts are needed; give one of its columns")
    items = list(given)
    if items and all(isinstance(item, Mapping | Message) for item in items):
        return [conversation_of(items, "the conversation")], True
    return [conversation_of(item, f"text [{index}]") for index, item in enumerate(items)], False


def conversation_of(given: Any, name: str) -> Conversation:
    """A text as a conversation of one user message, or messages as a conversation.

    Args:
        name: what an error calls the value.

    Raises:
        InputError: it is neither a text nor messages that end with the user's.
    """
    if type(given) is str or isinstance(given, str):  # numpy's strings are strings, too
        return (Message("user", str(given)),)
    if isinstance(given, bytes):
        raise InputError(f"{name} is bytes; decode it first, with .decode('utf-8')")
    if isinstance(given, Mapping | Message):
        given = [given]
    if not isinstance(given, Sequence):
        raise InputError(f"{name} is {_described(given)}; give a string, or a list of messages")
    if all(isinstance(message, Message) for message in given):
        turns = tuple(given)
    else:
        turns = tuple(message for item in given if (message := _message(item, name)) is not None)
    if not turns:
        raise InputError(f"{name} has no message of a user; add the message to classify")
    return turns


def _message(item: Any, name: str) -> Message | None:
    """A message; None for instructions, which are not part of the conversation."""
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping) or not isinstance(item.get("role"), str):
        raise InputError(f'{name} holds {_described(item)}; write messages as {{"role": "user", "content": "..."}}')
    if item["role"] in INSTRUCTIONS:
        return None
    content = item.get("content")
    if item["role"] not in TURNS or not isinstance(content, str | list):
        raise InputError(
            f"{name} holds a message of the role '{shorten(item['role'], 20)}' with {_described(content)} as content; "
            "give user and assistant messages with texts"
        )
    return Message(item["role"], content_text(content))


def _described(value: Any) -> str:
    """A value as an error shows it."""
    return "None" if value is None else f"{shorten(repr(value), 40)} ({type(value).__name__})"
