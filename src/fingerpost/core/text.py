"""Text as keys and as model input: normalisation, ids, shingles, hashes, an encoder's input."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from fingerpost.core.types import Conversation, Message

SHINGLE = 4

_SPACE = re.compile(r"\s+")

_NO_LETTER = re.compile(r"[^\w]+")


def normalise(text: str) -> str:
    """Unicode NFKC, case folded, white space collapsed: two texts that differ only there are one question."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


def question_id(messages: Conversation) -> str:
    """16 hexadecimal digits of the SHA-256 of the normalised turns."""
    turns = "\x1e".join(f"{turn.role}\x1f{normalise(turn.content)}" for turn in messages)
    return hashlib.sha256(turns.encode()).hexdigest()[:16]


def shingles(messages: Conversation) -> set[str]:
    """Overlapping runs of four characters of all turns, for near-duplicate search (Broder 1997)."""
    text = " | ".join(_NO_LETTER.sub(" ", normalise(turn.content)).strip() for turn in messages)
    padded = f" {text} "
    return {padded[i : i + SHINGLE] for i in range(max(1, len(padded) - SHINGLE + 1))}


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on nothing but the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def conversation(given: str | Sequence[Message]) -> Conversation:
    """A plain string as a conversation of one user message; anything else as a tuple of turns."""
    return (Message("user", given),) if isinstance(given, str) else tuple(given)


def content_text(content: object) -> str:
    """The text of a chat message's content: itself, or the texts of its parts."""
    if isinstance(content, list):
        return " ".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def strip_code_fence(text: str) -> str:
    """The text inside a Markdown code fence (``` or ```json), or the text itself; outer white space is removed."""
    text = text.strip()
    return text.strip("`").removeprefix("json").strip() if text.startswith("```") else text


def encoder_input(messages: Conversation, history: int) -> str:
    """What a sentence encoder reads: the last turn first, so that truncation takes the oldest words.

    `history` is how many earlier turns follow, newest first.
    """
    last, *earlier = reversed(messages)
    return " [SEP] ".join([last.content, *(turn.content for turn in earlier[:history])])


def humanise(name: str) -> str:
    """A label's name as words: `book_holiday` and `bookHoliday` become `book holiday`."""
    return normalise(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-./]+", " ", name))


def canonical_name(name: str) -> str:
    """A label's name without case, spaces and punctuation, to recognise it however it is spelt."""
    return _NO_LETTER.sub("", normalise(name)).replace("_", "")


def fingerprint(parts: Iterable[str]) -> str:
    """16 hexadecimal digits that change when any of the parts does."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:16]


def shorten(text: str, width: int = 60) -> str:
    """The text on one line, shortened to `width` characters."""
    line = _SPACE.sub(" ", text).strip()
    return line if len(line) <= width else line[: width - 1] + "…"


def replace_surrogates(text: str) -> str:
    """The text with a question mark for each lone surrogate, which JSON may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
