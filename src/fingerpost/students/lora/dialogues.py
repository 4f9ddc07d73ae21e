"""Conversations as tokens, by the base model's own chat template, with a mark on what is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from fingerpost.core.errors import InputError
from fingerpost.data.dialogues import Dialogue


@dataclass(frozen=True, slots=True)
class Item:
    """A reply to learn: the tokens before it, its own tokens, its weight in the loss, and whether it or its prompt was cut."""

    prompt: list[int]
    reply: list[int]
    weight: float
    cut: bool = False


def prompt_text(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The text that the model reads before it replies.

    Raises:
        InputError: the chat template refuses the messages.
    """
    return _template(tokenizer, messages, add_generation_prompt=True)


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """A rendered text's tokens; the template has written the special ones."""
    found: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return found


def reply_tokens(tokenizer: Any, reply: str) -> list[int]:
    """The tokens of a reply and of what ends it."""
    return tokens_of(tokenizer, reply + end_of_reply(tokenizer))


@lru_cache(maxsize=8)
def end_of_reply(tokenizer: Any) -> str:
    """The text that the template writes after an assistant's reply, up to its first white space."""
    before = [{"role": "user", "content": "a"}]
    prompt = prompt_text(tokenizer, before)
    full = _template(tokenizer, [*before, {"role": "assistant", "content": "b"}])
    if not full.startswith(f"{prompt}b"):
        return str(tokenizer.eos_token)
    return full[len(prompt) + 1 :].split()[0] if full[len(prompt) + 1 :].strip() else str(tokenizer.eos_token)


def items_of(tokenizer: Any, dialogue: Dialogue, limit: int) -> list[Item]:
    """The replies that a conversation teaches, each with everything before it.

    Args:
        limit: the most tokens of an item. What is longer loses the first tokens of its prompt; a reply that still does not fit
            beside half of the limit loses its last ones.
    """
    found = []
    messages = [{"role": turn.role, "content": turn.content} for turn in dialogue.turns]
    for number, turn in enumerate(dialogue.turns):
        if turn.role == "assistant" and turn.weight:
            prompt = tokens_of(tokenizer, prompt_text(tokenizer, messages[:number]))
            whole = reply_tokens(tokenizer, turn.content) if turn.ends else tokens_of(tokenizer, turn.content)
            reply = whole[: limit - min(len(prompt), limit // 2)]
            kept = prompt[-(limit - len(reply)) :]
            found.append(Item(kept, reply, turn.weight, len(kept) + len(reply) < len(prompt) + len(whole)))
    return found


def common_beginning(lists: Sequence[list[int]]) -> list[int]:
    """The tokens that all of these lists begin with."""
    first, last = min(lists), max(lists)  # what these two share, all share
    for place, token in enumerate(first):
        if place >= len(last) or last[place] != token:
            return first[:place]
    return list(first)


def _template(tokenizer: Any, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
    try:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    except (ValueError, TypeError, KeyError, AttributeError, TemplateError) as error:
        raise InputError(
            f"the base model's chat template refuses these messages ({error}); change their roles"
        ) from None
    return text
