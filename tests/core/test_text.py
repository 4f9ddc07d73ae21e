from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.core.text import (
    canonical_name,
    check_characters,
    check_text,
    encoder_input,
    humanise,
    normalise,
    question_id,
    shingles,
    shorten,
    storable,
)
from fingerpost.core.types import Message
from fingerpost.data.splits import split_of
from fingerpost.task.settings import SplitSettings


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_ids_ignore_case_and_space_but_not_words_or_roles() -> None:
    one = question_id((Message("user", "My  Invoice\n"),))
    assert one == question_id((Message("user", "my invoice"),))
    assert one != question_id((Message("user", "my invoices"),))
    assert one != question_id((Message("user", "my"), Message("user", "invoice")))
    assert len(one) == 16


@given(st.text(max_size=5))
def test_every_text_has_shingles(text: str) -> None:
    assert shingles((Message("user", text),))


def test_splits_have_their_shares() -> None:
    settings = SplitSettings(test=0.2, dev=0.1)
    sides = [split_of(f"group {i}", settings) for i in range(10_000)]
    assert 0.18 < sides.count("test") / 10_000 < 0.22
    assert 0.08 < sides.count("dev") / 10_000 < 0.12
    assert sides == [split_of(f"group {i}", settings) for i in range(10_000)]


def test_the_encoder_reads_the_last_turn_first() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert encoder_input(turns, 2) == "c [SEP] b [SEP] a"
    assert encoder_input(turns, 1) == "c [SEP] b"
    assert encoder_input(turns, 0) == "c"


def test_names_as_words() -> None:
    assert humanise("bookHoliday") == humanise("book_holiday") == "book holiday"
    assert canonical_name("Card arrival?") == canonical_name("card_arrival") == "cardarrival"
    assert shorten("a\n b " * 40, 10) == "a b a b a…"


@pytest.mark.parametrize("text", ["", " \n", "half \ud83d", "\udcff", "null\x00", "x" * 200_001])
def test_texts_that_cannot_be_used(text: str) -> None:
    assert check_text(text)


def test_texts_that_can_be_used() -> None:
    assert check_text("my bill 😀") is None
    assert check_text("x" * 200_000) is None
    assert check_characters("") is None


@given(st.text(st.characters()))
def test_replaced_surrogates_leave_valid_text(text: str) -> None:
    broken = f"{text}\ud83d"
    assert storable(broken) == f"{storable(text)}?"
    storable(broken).encode()
