"""Shared by the tests of review: a project whose teacher confuses two labels, and cheap embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from conftest import TEXTS

from fingerpost.consensus.model import Array
from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question, Verdict
from fingerpost.data.splits import split_of
from fingerpost.store.project import Store
from fingerpost.task.settings import SplitSettings

PLACES = ["at home", "in the office", "on the train", "in town", "at school", "abroad", "in May", "tonight"]
ALL = [(f"{text} {place}", label) for label, texts in TEXTS.items() for text in texts for place in PLACES]
GOLD = {question_id((Message("user", text),)): label for text, label in ALL}
WIDTH = 48


def bag_of_words(questions: Sequence[Question], settings: object = None) -> Array:
    """Unit vectors, the sum of a random vector for each word: cheap, and similar texts are close."""
    vectors = np.zeros((len(questions), WIDTH), dtype=np.float32)
    for row, question in enumerate(questions):
        for word in question.messages[-1].content.lower().split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            vectors[row] += np.random.default_rng(seed).normal(size=WIDTH)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(store: Store) -> None:
    """Add 240 questions in all splits. The teacher labels every `delivery` question `billing`."""
    questions = []
    for text, _ in ALL:
        messages = (Message("user", text),)
        key = question_id(messages)
        questions.append(Question(key, messages, "user", key, split_of(key, SplitSettings())))
    store.add_questions(questions)
    answers = {"billing": "billing", "delivery": "billing", "other": "other"}
    store.add_verdicts(
        Verdict(question.id, "teacher", "test-model", answers[GOLD[question.id]]) for question in questions
    )
