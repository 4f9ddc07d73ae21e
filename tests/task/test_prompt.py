from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.core.types import Label, Message
from fingerpost.task.prompt import label_order, order_number, prompt_fingerprint, render, reply, system_prompt
from fingerpost.task.replies import parse, resolve
from fingerpost.task.settings import Task

TASK = Task(
    name="hr",
    instructions="Route.",
    fallback="other",
    labels=(
        Label(name="get_policy", description="rules", code=1),
        Label(name="book_holiday", code="H"),
        Label(name="other"),
    ),
)
names = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=2, max_size=30, unique=True)


def task_of(labels: list[str]) -> Task:
    return Task(name="t", labels=tuple(Label(name=name) for name in labels))


@given(names, st.integers(1, 8))
def test_every_order_is_a_permutation_and_repeatable(labels: list[str], orders: int) -> None:
    task = task_of(labels)
    for number in range(orders):
        assert sorted(label_order(task, number, orders)) == sorted(labels)
        assert label_order(task, number, orders) == label_order(task, number, orders)


@given(st.integers(2, 6), st.integers(1, 8))
def test_each_label_stands_once_in_each_part_of_the_list(orders: int, a_part: int) -> None:
    task = task_of([f"label{i}" for i in range(orders * a_part)])
    parts = Counter(
        (name, place // a_part)
        for number in range(orders)
        for place, name in enumerate(label_order(task, number, orders))
    )
    assert set(parts.values()) == {1}


def test_orders_are_shared_evenly_and_votes_differ() -> None:
    drawn = Counter(order_number(f"question {i}", 0, 4) for i in range(4000))
    assert all(900 < count < 1100 for count in drawn.values())
    assert {order_number("q", vote, 4) for vote in range(4)} == {0, 1, 2, 3}


def test_the_prompt_lists_labels_in_the_given_order_and_ends_with_the_conversation() -> None:
    turns = (Message("user", "hi"), Message("assistant", "yes?"), Message("user", "friday off"))
    messages = render(TASK, turns, ["other", "book_holiday", "get_policy"])
    system = messages[0]["content"]
    assert system.index("- other") < system.index("- book_holiday") < system.index("- get_policy: rules")
    assert '{"action": "..."}' in system and 'it is "other"' in system
    assert [each["role"] for each in messages] == ["system", "user", "assistant", "user"]


def test_with_codes_prompt_and_reply_speak_in_codes() -> None:
    assert "- 1: get_policy: rules" in system_prompt(TASK, codes=True)
    assert json.loads(reply(TASK, "get_policy", codes=True)) == {"action": 1}
    assert json.loads(reply(TASK, "other", codes=True)) == {"action": "other"}


def test_ones_own_prompt_is_kept() -> None:
    task = TASK.model_copy(update={"prompt": 'Pick from\n{labels}\nas {"action": name}'})
    assert system_prompt(task) == 'Pick from\n- get_policy: rules\n- book_holiday\n- other\nas {"action": name}'


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ('{"action": "get_policy"}', "get_policy"),
        ('```json\n{"action": "get_policy"}\n```', "get_policy"),
        ('{"route": "Get Policy"}', "get_policy"),
        ('"book-holiday"', "book_holiday"),
        ("bookHoliday", "book_holiday"),
        ("1", "get_policy"),
        ('{"action": "H"}', "book_holiday"),
        ("The action is get_policy", None),
        ('{"action": "fly"}', None),
        ('{"a": "get_policy", "b": 1}', None),
        ('{"action": true}', None),
        ('{"action": null}', None),
        ("{}", None),
        ("", None),
        (None, None),
    ],
)
def test_replies_are_read_strictly(raw: str | None, label: str | None) -> None:
    assert parse(TASK, raw) == label


@given(names, st.data())
def test_what_reply_writes_parse_reads(labels: list[str], data: st.DataObject) -> None:
    task = task_of(labels)
    label = data.draw(st.sampled_from(labels))
    assert parse(task, reply(task, label)) == label


@given(st.text())
def test_no_text_makes_parse_fail_or_invent_a_label(text: str) -> None:
    assert parse(TASK, text) in (*TASK.names, None)


def test_names_that_fold_alike_are_not_confused() -> None:
    task = task_of(["a_b", "ab", "c"])
    assert resolve(task, "a_b") == "a_b" and resolve(task, "A B") is None


def test_the_fingerprint_changes_with_what_is_asked() -> None:
    other = TASK.model_copy(update={"instructions": "Route well."})
    assert prompt_fingerprint(TASK) != prompt_fingerprint(other)
    assert prompt_fingerprint(TASK) == prompt_fingerprint(TASK.model_copy(update={"name": "x"}))
