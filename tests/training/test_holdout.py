"""Held-out rows: a fair share of every label, and no near-duplicate on both sides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.core.errors import InputError
from fingerpost.core.text import question_id
from fingerpost.core.types import Example, Message
from fingerpost.training.holdout import MIN_ROWS, fold_numbers, split_train_test

WORDS = [
    "invoice",
    "parcel",
    "password",
    "holiday",
    "salary",
    "laptop",
    "door",
    "coffee",
    "meeting",
    "train",
    "ticket",
    "window",
    "garden",
]


def example(text: str, label: str) -> Example:
    messages = (Message("user", text),)
    return Example(question_id(messages), messages, {label: 1.0})


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [f"{' '.join(random.choice(WORDS, 7))} {number:x}" for number in range(count)]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.33, 0.5])
def test_the_share_is_met_for_every_label(share: float) -> None:
    rows = [example(text, "abc"[number % 3]) for number, text in enumerate(texts(300))]
    train, test = split_train_test(rows, share)
    assert len(test) == pytest.approx(share * 300, abs=12)
    counts = Counter(row.label for row in test)
    assert max(counts.values()) - min(counts.values()) <= 6
    assert {row.id for row in train} | {row.id for row in test} == {row.id for row in rows}


def test_near_duplicates_are_on_one_side() -> None:
    families = texts(40, seed=1)
    rows = [
        example(f"{text} {end}", "ab"[n % 2]) for n, text in enumerate(families) for end in ("please", "please!", "pls")
    ]
    train, test = split_train_test(rows, 0.2)
    sides = [{row.messages[0].content.rsplit(" ", 1)[0] for row in part} for part in (train, test)]
    assert test and not sides[0] & sides[1]


def test_a_label_with_one_row_is_learnt_and_not_only_measured() -> None:
    rows = [example(text, "rare" if number == 7 else "ab"[number % 2]) for number, text in enumerate(texts(60))]
    train, _ = split_train_test(rows, 0.3)
    assert "rare" in {row.label for row in train}


def test_few_rows_are_all_for_training() -> None:
    rows = [example(text, "ab"[number % 2]) for number, text in enumerate(texts(MIN_ROWS - 1))]
    assert split_train_test(rows, 0.2) == (rows, [])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=4, max_size=60), st.integers(2, 4))
def test_every_row_is_in_one_fold(labels: list[str], folds: int) -> None:
    numbers = fold_numbers(
        [example(text, label) for text, label in zip(texts(len(labels)), labels, strict=True)], folds
    )
    assert set(numbers) <= set(range(folds)) and len(set(numbers)) > 1


def test_the_same_text_again_and_again_cannot_be_divided() -> None:
    with pytest.raises(InputError, match="1 different texts cannot be divided"):
        fold_numbers([example("the same", "ab"[number % 2]) for number in range(30)], 5)
