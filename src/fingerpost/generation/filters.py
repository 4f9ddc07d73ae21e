"""Filters for generated texts: copies, other languages, label names and texts that are not messages are rejected.

Each rejected text is counted under one of REJECTIONS. The keys are stored with the drafts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fingerpost.core.languages import LANGUAGES
from fingerpost.core.text import humanise, normalise, question_id
from fingerpost.core.types import Conversation, Message, Question
from fingerpost.data.duplicates import DuplicateIndex
from fingerpost.generation.brief import Item, label_description
from fingerpost.students.linear import COMMON
from fingerpost.task.settings import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

KEPT = "kept"
REJECTIONS = {
    "no reply": "requested, but missing from the reply",
    "no label": "the label it was written for is no longer in the task",
    "surplus": "more messages than requested",
    "too short": "no words",
    "too long": "longer than a chat message",
    "placeholder": "contains a placeholder such as [name]",
    "copies the brief": "repeats the request's own words",
    "names a label": "contains a label's technical name",
    "language": "in another language than requested",
    "duplicate": "identical to a stored question",
    "near-duplicate": "nearly identical to a stored question",
    "like a test question": "nearly identical to a question of the test split",
}
DUPLICATE_COSINE = 0.95  # on real questions, pairs above it nearly always have the same label
MIN_VECTORS = 20  # below, the mean cosine says little
MAX_WORDS, MAX_CHARACTERS = 80, 600
MIN_LANGUAGE_PROBABILITY, MIN_LETTERS = 0.95, 20  # below these, language identification is unreliable
_PLACEHOLDER = re.compile(r"\[[A-Za-z _/]{2,30}\]|<[A-Za-z _/]{2,30}>|\{[A-Za-z _/]{2,30}\}|_{3,}|\bX{3,}\b")
_IDENTIFIER = re.compile(r"[_./]|(?<=[a-z0-9])[A-Z]|(?<=[A-Za-z])-(?=[A-Za-z])")
_LATIN_LANGUAGES = frozenset(LANGUAGES) - {"ar", "bg", "el", "he", "hi", "ja", "ko", "ru", "th", "uk", "zh"}
_OTHER_SCRIPTS = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "CYRILLIC", "ARABIC", "HEBREW", "THAI"})


def find_fault(task: Task, item: Item, messages: Conversation, language: str) -> str | None:
    """Why a text is rejected regardless of other texts: a key of REJECTIONS, or None.

    Args:
        item: what the text was written for.
        language: ISO 639-1 code of the requested language; empty for any.
    """
    text = messages[-1].content
    if not re.search(r"\w\w", text):
        return "too short"
    if any(len(turn.content) > MAX_CHARACTERS or len(turn.content.split()) > MAX_WORDS for turn in messages):
        return "too long"
    if any(_PLACEHOLDER.search(turn.content) for turn in messages):
        return "placeholder"
    if _copies_brief(task, item, text):
        return "copies the brief"
    normalised = normalise(text)
    if any(_IDENTIFIER.search(name) and normalise(name) in normalised for name in task.names):
        return "names a label"
    return "language" if language and _is_foreign(text, language) else None


def main_language(texts: Sequence[str]) -> str:
    """ISO 639-1 code of the language of all these texts together; empty if it cannot be identified reliably."""
    text = " ".join(texts)
    if len(text) < MIN_LETTERS:
        return ""
    code, probability = _language_identifier().classify(text)
    return str(code) if probability > MIN_LANGUAGE_PROBABILITY and code in LANGUAGES else ""


class NoveltyFilter:
    """Admits only texts that are unlike all stored questions and all texts admitted before.

    Args:
        stored: all stored questions, of every split.
        embed: unit vectors of questions, shape (questions, width).
    """

    def __init__(self, stored: Sequence[Question], embed: Callable[[Sequence[Question]], Array]) -> None:
        self._embed = embed
        self._alike = DuplicateIndex()
        self._splits = [question.split for question in stored]
        self._ids = {question.id for question in stored}
        for question in stored:
            self._alike.add(question.messages)
        self._vectors = embed(stored) if stored else None

    def admit(self, candidates: Sequence[Conversation]) -> list[str]:
        """KEPT or a key of REJECTIONS for each candidate. Of two similar candidates the first is kept."""
        if not candidates:
            return []
        questions = [Question(question_id(messages), messages, "", "", "train") for messages in candidates]
        new = self._embed(questions)
        vectors = new if self._vectors is None else np.concatenate([self._vectors, new])
        offset = len(vectors) - len(new)
        compared: NDArray[np.int64] = np.arange(offset)  # rows of stored and of admitted questions
        threshold = _duplicate_cosine(vectors)
        outcomes = []
        for number, question in enumerate(questions):
            similar = compared[vectors[compared] @ new[number] >= threshold]
            outcome = self._outcome(question, similar)
            if outcome == KEPT:
                self._ids.add(question.id)
                self._alike.add(question.messages)
                self._splits.append("train")
                compared = np.append(compared, offset + number)
            outcomes.append(outcome)
        self._vectors = vectors[compared]
        return outcomes

    def _outcome(self, question: Question, similar: NDArray[np.int64]) -> str:
        if question.id in self._ids:
            return "duplicate"
        alike = self._alike.find(question.messages)
        splits = [*(self._splits[row] for row in alike), *(self._split_of(row) for row in similar)]
        if "test" in splits:
            return "like a test question"
        return "near-duplicate" if splits else KEPT

    def _split_of(self, row: int) -> str:
        return self._splits[row] if row < len(self._splits) else "train"


def _copies_brief(task: Task, item: Item, text: str) -> bool:
    """Whether the text is just the given opening or topic, or nearly the label's name or description."""
    given = {normalise(words).strip(" .?!") for words in (item.opening, item.about)}
    if normalise(text).strip(" .?!:") in given:
        return True
    described = DuplicateIndex()
    for label in task.labels:
        if label.name == item.label:
            described.add((Message("user", label_description(label)),))
            described.add((Message("user", humanise(label.name)),))
    return bool(described.find((Message("user", text),)))


def _is_foreign(text: str, language: str) -> bool:
    """Whether the text is reliably in another language. A different script suffices, even in a short text."""
    letters = [letter for letter in text if letter.isalpha()]
    scripts = {unicodedata.name(letter, "").split()[0] for letter in letters}
    if language in _LATIN_LANGUAGES and scripts & _OTHER_SCRIPTS:
        return True
    if len(letters) < MIN_LETTERS:
        return False
    code, probability = _language_identifier().classify(text)
    return bool(probability > MIN_LANGUAGE_PROBABILITY and code != language)


def _duplicate_cosine(vectors: Array) -> float:
    """DUPLICATE_COSINE for vectors of which few resemble each other; higher where all of them lie in a narrow cone.

    Args:
        vectors: unit vectors, shape (questions, width).
    """
    count = len(vectors)
    if count < MIN_VECTORS:
        return DUPLICATE_COSINE
    total = vectors.sum(0)
    mean_cosine = float(total @ total - count) / (count * (count - 1))
    common = mean_cosine if mean_cosine > COMMON else 0.0
    return common + (1 - common) * DUPLICATE_COSINE


@cache
def _language_identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
