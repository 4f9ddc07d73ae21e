"""Filters: which texts are rejected, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from generation_helpers import SHOP, embed, one_thread, text_of
from hypothesis import given
from hypothesis import strategies as st
from teacher import words

from fingerpost.core.text import question_id
from fingerpost.core.types import Label, Question
from fingerpost.generation.brief import Item
from fingerpost.generation.filters import KEPT, REJECTIONS, NoveltyFilter, find_fault, main_language
from fingerpost.task.settings import StudentSettings

BILL = Item("plain", "billing", "my")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("?!", "too short"),
        ("word " * 81, "too long"),
        ("please pay [invoice number] for me", "placeholder"),
        ("dear ____ pay my bill", "placeholder"),
        ("my", "copies the brief"),
        ("Invoices and payments.", "copies the brief"),
        ("this one is get_payslip for me", "names a label"),
        ("我想知道我的账单", "language"),
        ("ich möchte gerne wissen, wann meine Rechnung bezahlt wurde", "language"),
        ("can you pay my bill today", None),
        ("pls bill asap", None),
    ],
)
def test_what_is_wrong_with_a_text_by_itself(text: str, reason: str | None) -> None:
    labels = (*SHOP.labels, Label(name="get_payslip"))
    assert find_fault(SHOP.model_copy(update={"labels": labels}), BILL, text_of(text), "en") == reason
    assert reason is None or reason in REJECTIONS


def test_the_language_is_that_of_what_is_there() -> None:
    assert main_language(["Rechnungen und Zahlungen", "Pakete und Boten, Sendungen verfolgen"]) == "de"
    assert main_language(["x"]) == ""
    assert find_fault(SHOP, BILL, text_of("ich möchte gerne wissen, wann meine Rechnung bezahlt wurde"), "de") is None


@given(st.lists(st.integers(0, 30), max_size=25), st.sets(st.integers(0, 30), max_size=10))
def test_of_what_is_alike_one_is_kept(drawn: list[int], there: set[int]) -> None:
    texts = [f"{words(i)} {'please' if i % 2 else ''}" for i in range(31)]
    stored = [Question(question_id(text_of(texts[i])), text_of(texts[i]), "user", str(i), "test") for i in there]
    novelty = NoveltyFilter(stored, embed)
    outcomes = novelty.admit([text_of(texts[i]) for i in drawn[:10]]) + novelty.admit(
        [text_of(texts[i]) for i in drawn[10:]]
    )
    seen: set[int] = set(there)
    for i, outcome in zip(drawn, outcomes, strict=True):
        assert (outcome == KEPT) == (i not in seen)
        seen.add(i)


def test_nothing_like_a_test_question_is_kept() -> None:
    first = "how do I send the parcel with the broken lamp back to your shop in Leeds"
    other = "where can I find the invoice for the two chairs that I bought in spring"
    stored = [
        Question(question_id(text_of(first)), text_of(first), "user", "a", "test"),
        Question(question_id(text_of(other)), text_of(other), "user", "b", "train"),
    ]
    outcomes = NoveltyFilter(stored, embed).admit(
        [text_of(first + "?"), text_of(f"Hi, {first} please"), text_of(f"{other}, please")]
    )
    assert outcomes == ["like a test question", "like a test question", "near-duplicate"]


def test_a_text_that_comes_twice_puts_no_vector_out_of_place(tmp_path: Path) -> None:
    from fingerpost.students.encoder.vectors import vectors_of

    texts = ["where is my parcel", "pay my bill", "where is my parcel", "the courier was late", "tell me a joke"]
    questions = [Question(question_id(text_of(text)), text_of(text), "", "", "train") for text in texts]
    settings = StudentSettings(encoder="all-MiniLM-L6-v2")
    with one_thread():
        plain = vectors_of(questions, settings)
        vectors_of(questions[:3], settings, tmp_path)
        assert np.allclose(vectors_of(questions, settings, tmp_path), plain, atol=1e-5)
        assert np.allclose(vectors_of(questions[3:], settings, tmp_path), plain[3:], atol=1e-5)
