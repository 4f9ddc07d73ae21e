"""What of a writer's texts is kept: no copies, no other language, no label names, nothing that is no message.

Every text that is not kept is counted by its reason, one of REASONS.
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
from fingerpost.generation.brief import Item, meaning
from fingerpost.task.settings import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

KEPT = "kept"
REASONS = {
    "no reply": "a message that was asked for and is not in the reply",
    "no label": "the label that it was written for is no longer there",
    "surplus": "more messages than were asked for",
    "too short": "no words",
    "too long": "longer than a message",
    "placeholder": "a place to be filled in",
    "copies the brief": "says no more than the brief did",
    "names a label": "a label's own name stands in it",
    "language": "another language than was asked for",
    "duplicate": "is there already",
    "near-duplicate": "nearly the same is there already",
    "like a test question": "nearly the same as a question of the test side",
}
SAME = 0.95  # cosine of two embeddings; on real questions, pairs above it nearly always have the same label
LONGEST_WORDS, LONGEST = 80, 600
SURE, LETTERS = 0.95, 20  # below these, a language is not recognised reliably
_PLACEHOLDER = re.compile(r"\[[A-Za-z _/]{2,30}\]|<[A-Za-z _/]{2,30}>|\{[A-Za-z _/]{2,30}\}|_{3,}|\bX{3,}\b")
_IDENTIFIER = re.compile(r"[_./]|(?<=[a-z0-9])[A-Z]|(?<=[A-Za-z])-(?=[A-Za-z])")


def fault(task: Task, item: Item, messages: Conversation, language: str) -> str | None:
    """What is wrong with a text by itself: one of REASONS, or None. `language` is an ISO 639-1 code, or empty."""
    text = messages[-1].content
    if not re.search(r"\w\w", text):
        return "too short"
    if any(len(turn.content) > LONGEST or len(turn.content.split()) > LONGEST_WORDS for turn in messages):
        return "too long"
    if any(_PLACEHOLDER.search(turn.content) for turn in messages):
        return "placeholder"
    if _says_no_more(task, item, text):
        return "copies the brief"
    words = normalise(text)
    if any(_IDENTIFIER.search(name) and normalise(name) in words for name in task.names):
        return "names a label"
    return "language" if language and _foreign(text, language) else None


def main_language(texts: Sequence[str]) -> str:
    """The ISO 639-1 code of the language that these texts are in all together; empty where it cannot be told."""
    text = " ".join(texts)
    if len(text) < LETTERS:
        return ""
    code, sure = _identifier().classify(text)
    return str(code) if sure > SURE and code in LANGUAGES else ""


class Gate:
    """Keeps what is new: compared with all stored questions, and with what it has kept itself.

    `vectors` gives unit vectors of questions, (questions, width).
    """

    def __init__(self, stored: Sequence[Question], vectors: Callable[[Sequence[Question]], Array]) -> None:
        self._vectors = vectors
        self._alike = DuplicateIndex()
        self._sides = [question.split for question in stored]
        self._ids = {question.id for question in stored}
        for question in stored:
            self._alike.add(question.messages)
        self._stored = vectors(stored) if stored else None

    def new(self, candidates: Sequence[Conversation]) -> list[str]:
        """KEPT or one of REASONS for each; the first of two that are alike is kept."""
        if not candidates:
            return []
        questions = [Question(question_id(each), each, "", "", "train") for each in candidates]
        vectors = self._vectors(questions)
        there = vectors if self._stored is None else np.concatenate([self._stored, vectors])
        rows: NDArray[np.int64] = np.arange(len(there) - len(vectors))  # of what there is, and of what is kept
        fates = []
        for number, question in enumerate(questions):
            fate = self._fate(question, rows[there[rows] @ vectors[number] >= SAME])
            if fate == KEPT:
                self._ids.add(question.id)
                self._alike.add(question.messages)
                self._sides.append("train")
                rows = np.append(rows, len(there) - len(vectors) + number)
            fates.append(fate)
        self._stored = there[rows]
        return fates

    def _fate(self, question: Question, close: NDArray[np.int64]) -> str:
        if question.id in self._ids:
            return "duplicate"
        alike = self._alike.find(question.messages)
        sides = [*(self._sides[each] for each in alike), *(self._side_of(each) for each in close)]
        if "test" in sides:
            return "like a test question"
        return "near-duplicate" if sides else KEPT

    def _side_of(self, row: int) -> str:
        return self._sides[row] if row < len(self._sides) else "train"


def _says_no_more(task: Task, item: Item, text: str) -> bool:
    """Whether the text is the first words or the subject that were given, or nearly the label's name or description."""
    given = {normalise(each).strip(" .?!") for each in (item.opening, item.about)}
    if normalise(text).strip(" .?!:") in given:
        return True
    described = DuplicateIndex()
    for label in task.labels:
        if label.name == item.label:
            described.add((Message("user", meaning(label)),))
            described.add((Message("user", humanise(label.name)),))
    return bool(described.find((Message("user", text),)))


def _foreign(text: str, language: str) -> bool:
    """Whether the text is surely in another language. Another script is enough, also in a short text."""
    letters = [each for each in text if each.isalpha()]
    scripts = {unicodedata.name(each, "").split()[0] for each in letters}
    if language in _LATIN and scripts & {
        "CJK",
        "HIRAGANA",
        "KATAKANA",
        "HANGUL",
        "CYRILLIC",
        "ARABIC",
        "HEBREW",
        "THAI",
    }:
        return True
    if len(letters) < LETTERS:
        return False
    code, sure = _identifier().classify(text)
    return bool(sure > SURE and code != language)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


_LATIN = frozenset(LANGUAGES) - {"ar", "bg", "el", "he", "hi", "ja", "ko", "ru", "th", "uk", "zh"}
