"""Mistakes in the labels of a file are found before anything is trained on them."""

from __future__ import annotations

import pytest

from fingerpost.data.label_counts import describe_counts, label_warnings


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def test_clean_labels_give_no_warning() -> None:
    assert label_warnings(texts(20), ["a", "b"] * 10) == []


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (["ja", "Ja", "JA ", "nein"] * 5, "'ja' / 'Ja' / 'JA'"),
        (["book holiday", "book_holiday"] * 5, "count as different ones"),
        (["a"] * 10 + ["b"] * 10 + ["c"] * 4, "fewer than 5 rows can hardly be learnt: 'c' (4)"),
        (["A|B", "A", "B"] * 6, "6 rows seem to have several labels, such as 'A|B'; --multi"),
        (["A; B", "A", "B"] * 6, "6 rows seem to have several labels"),
        ([f"id {number}" for number in range(40)], "is this the column of labels?"),
    ],
)
def test_what_is_probably_a_mistake_is_said(labels: list[str], part: str) -> None:
    assert any(part in warning for warning in label_warnings(texts(len(labels)), labels)), labels


def test_a_text_under_two_labels_is_named() -> None:
    found = label_warnings(["Hello  there", "hello there", *texts(10)], ["a", "b", *["a", "b"] * 5])
    assert found == ["1 texts have more than one label: 'hello there' (a, b)"]


def test_commas_in_a_name_are_no_list() -> None:
    assert label_warnings(texts(10), ["rent, monthly", "rent, yearly"] * 5) == []


def test_many_labels_are_shown_in_part() -> None:
    line = describe_counts([f"label{number}" for number in range(30) for _ in range(30 - number)])
    assert (
        line.startswith("30 labels: label0 30, label1 29") and "... 15 more ..." in line and line.endswith("label29 1")
    )
