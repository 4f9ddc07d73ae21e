"""Parsing of a writer's replies: any form, broken JSON, texts that are cut off."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.generation.brief import Brief, Item
from fingerpost.generation.prompts import count_surplus, read_conversations, read_out_of_scope_topics

BILL = Item("plain", "billing", "my")
BRIEF = Brief("messages", (BILL, Item("plain", "billing")), style="plainly")


@pytest.mark.parametrize(
    ("raw", "texts", "more"),
    [
        ('{"1": "pay my bill", "2": " two  spaces "}', ["pay my bill", "two spaces"], 0),
        ('```json\n{"1": "a b", "2": "c d"}\n```', ["a b", "c d"], 0),
        ('{"messages": ["a b", "c d", "e f"]}', ["a b", "c d"], 1),
        ('["a b", "c d"]', ["a b", "c d"], 0),
        ('{"1": {"message": "a b"}, "2": 7}', ["a b"], 0),
        ('{"2": "only the second"}', ["only the second"], 0),
        ('{"1": "whole", "2": "cut of', ["whole"], 0),
        ('{"1": "a \\"quoted\\" b", "2": "x', ['a "quoted" b'], 0),
        ("Sure! Here are some messages: pay my bill", [], 0),
        ("", [], 0),
        ('{"1": "", "2": null}', [], 0),
        ('{"1": "half \\ud83d a smile"}', ["half ? a smile"], 0),
        ("[" * 100_000, [], 0),
        ('{"1": "say "hello" now", "2": "c d"}', ['say "hello" now', "c d"], 0),
        ("{'1': 'a b', '2': 'c d',}", ["a b", "c d"], 0),
        ('{"1": "a b" "2": "c d"}', ["a b", "c d"], 0),
        ('{"1": "a b"}\n{"2": "c d"}', ["a b", "c d"], 0),
        ('Sure! {"1": "a b", "2": "c d"} Is that "fine"', ["a b", "c d"], 0),
        ('["a b", "cut of', ["a b"], 0),
        ('{"messages": ["a b", "cut of', ["a b"], 0),
        ("I cannot [sorry] write {this: way}", [], 0),
    ],
)  # fmt: skip
def test_replies_are_read_whatever_their_form(raw: str, texts: list[str], more: int) -> None:
    assert [each[-1].content for each in read_conversations(BRIEF, raw).values()] == texts
    assert count_surplus(BRIEF, raw) == more
    if raw.startswith('{"2"'):
        assert list(read_conversations(BRIEF, raw)) == [1]


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), st.data())
def test_a_text_that_is_cut_off_is_not_taken(texts: list[str], data: st.DataObject) -> None:
    """Of a reply that ends anywhere, exactly the texts before the end are read."""
    whole = json.dumps({str(number): text for number, text in enumerate(texts, 1)})
    end = data.draw(st.integers(1, len(whole) - 1))
    ends, position = [], 1
    for number, text in enumerate(texts, 1):
        position = whole.index(f'"{number}": ', position) + len(f'"{number}": ') + len(json.dumps(text))
        ends.append(position)
    brief = Brief("messages", (BILL,) * len(texts))
    assert list(read_conversations(brief, whole[:end])) == [i for i, last in enumerate(ends) if last <= end]


@given(st.one_of(st.text(), st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)))  # fmt: skip
def test_no_reply_is_too_strange(raw: str) -> None:
    for brief in (BRIEF, Brief("follow_ups", BRIEF.items)):
        found = read_conversations(brief, raw)
        assert set(found) <= {0, 1} and all(turn.content.strip() for each in found.values() for turn in each)
        assert count_surplus(brief, raw) >= 0
    assert all(2 < len(thing) <= 80 for thing in read_out_of_scope_topics(raw))


def test_a_follow_up_is_a_conversation() -> None:
    brief = Brief("follow_ups", (BILL,))
    raw = '{"1": {"first": "hi", "answer": "Hello.", "then": "and my bill?"}}'
    found = read_conversations(brief, raw)[0]
    assert [turn.role for turn in found] == ["user", "assistant", "user"] and found[-1].content == "and my bill?"
    assert read_conversations(brief, '{"1": {"first": "hi", "then": "and my bill?"}}') == {}
    assert read_conversations(brief, raw[:-2])[0] == found
    assert read_conversations(brief, raw[:-6]) == {}
