"""Text as keys and as model input: checks, normalisation, ids, shingles, hashes, an encoder's input."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from fingerpost.core.types import Conversation

SHINGLE = 4
"""Characters in a shingle."""
MAX_CHARACTERS = 200_000
"""Of a conversation. Longer ones are most likely mistakes, such as an unclosed quote."""

_SPACE = re.compile(r"\s+")
_NO_LETTER = re.compile(r"[^\w]+")
_SURROGATE, _UNSTORABLE = re.compile("[\ud800-\udfff]"), re.compile("[\0\ud800-\udfff]")


def check_text(text: str) -> str | None:
    """The reason why a text cannot be stored or sent to a model, with the fix; None where it can.

    Refused are texts that are empty or blank, hold a lone surrogate (half of a character, as in broken UTF-16) or a
    null character, or have more than MAX_CHARACTERS characters.
    """
    if not text or text.isspace():
        return "the text is empty; give at least one word"
    if len(text) > MAX_CHARACTERS:
        return f"the text has {len(text):,} characters, the maximum is {MAX_CHARACTERS:,}; shorten or split it"
    return check_characters(text)


def check_characters(text: str) -> str | None:
    """As `check_text`, but only for characters that cannot be stored: also for texts that may be empty or long."""
    if "\x00" in text:
        return "the text holds a null character; remove it"
    if _SURROGATE.search(text):
        return "the text holds a lone surrogate (half of a character); save or send it as valid UTF-8"
    return None


def storable(text: str) -> str:
    """The text with a question mark for each lone surrogate and null character, so that it can be stored and sent."""
    return _UNSTORABLE.sub("?", text)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text from outside.

    Raises:
        ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def normalise(text: str) -> str:
    """The text in Unicode NFKC, case-folded, with collapsed white space. Texts that differ only there are one question."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


def question_id(messages: Conversation) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the normalised turns."""
    turns = "\x1e".join(f"{turn.role}\x1f{normalise(turn.content)}" for turn in messages)
    return hashlib.sha256(turns.encode()).hexdigest()[:16]


def shingle_text(messages: Conversation) -> str:
    """The normalised text that shingles are taken from, without punctuation; at least SHINGLE characters long."""
    text = " | ".join(_NO_LETTER.sub(" ", normalise(turn.content)).strip() for turn in messages)
    return f" {text} ".ljust(SHINGLE)


def shingles(messages: Conversation) -> set[str]:
    """All overlapping substrings of SHINGLE characters, without punctuation, for near-duplicate search (Broder 1997)."""
    text = shingle_text(messages)
    return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


def hash_fraction(key: str) -> float:
    """A number in [0, 1), uniformly distributed, that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def content_text(content: object) -> str:
    """The text of a chat message's content: the string itself, or the texts of its content parts; else empty."""
    if isinstance(content, list):
        return " ".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def strip_code_fence(text: str) -> str:
    """The text inside a Markdown code fence (``` or ```json), or the text itself; outer white space is removed."""
    text = text.strip()
    return text.strip("`").removeprefix("json").strip() if text.startswith("```") else text


def encoder_input(messages: Conversation, history: int) -> str:
    """The input of a sentence encoder: the last turn first, so that truncation removes the oldest turns.

    Args:
        messages: the conversation.
        history: the number of earlier turns that follow, newest first.
    """
    last, *earlier = reversed(messages)
    return " [SEP] ".join([last.content, *(turn.content for turn in earlier[:history])])


def humanise(name: str) -> str:
    """A label's name as words: `book_holiday` and `bookHoliday` become `book holiday`."""
    return normalise(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-./]+", " ", name))


def canonical_name(name: str) -> str:
    """A label's name in lower case without spaces and punctuation, to recognise it in any spelling."""
    return _NO_LETTER.sub("", normalise(name)).replace("_", "")


def fingerprint(parts: Iterable[str]) -> str:
    """16 hexadecimal digits that change if any of the parts changes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:16]


def shorten(text: str, width: int = 60) -> str:
    """The text on one line, shortened to `width` characters."""
    line = _SPACE.sub(" ", text).strip()
    return line if len(line) <= width else line[: width - 1] + "…"
