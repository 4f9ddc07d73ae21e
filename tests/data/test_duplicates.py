"""Near-duplicate search: results do not depend on what is read from the store, and sketches are kept."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation, Message, Question, Split
from fingerpost.data import duplicates
from fingerpost.data.duplicates import DuplicateIndex, duplicate_groups, shingles_at
from fingerpost.data.importer import import_file
from fingerpost.data.sketches import check_value, shingles_of, sketches_of
from fingerpost.data.splits import NewQuestion, assign_in_store
from fingerpost.store.project import Store
from fingerpost.task.settings import SplitSettings, Task

WORDS = [
    "where",
    "is",
    "my",
    "parcel",
    "number",
    "twelve",
    "today",
    "please",
    "tell",
    "me",
    "when",
    "the",
    "courier",
    "comes",
    "back",
    "home",
    "again",
]


def conversation(text: str) -> Conversation:
    return (Message("user", text),)


def variants(seed: int, count: int) -> list[str]:
    """Distinct texts, many of them near the limit of similarity to others."""
    draw = random.Random(seed)
    bases = [draw.sample(WORDS, 9) for _ in range(3)]
    texts = []
    for _ in range(count):
        words = list(draw.choice(bases))
        for _ in range(draw.randint(0, 3)):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        texts.append(" ".join(words))
    return list(dict.fromkeys(texts))


def incremental_groups(conversations: list[Conversation]) -> list[int]:
    """The reference: connected components of the pairs that DuplicateIndex finds one by one."""
    index, group = DuplicateIndex(), list(range(len(conversations)))
    for number, messages in enumerate(conversations):
        for other in index.add(messages):
            old, new = sorted((group[other], group[number]), reverse=True)
            group = [new if value == old else value for value in group]
    return group


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_groups_are_those_of_the_incremental_search(seed: int, count: int) -> None:
    conversations = [conversation(text) for text in variants(seed, count)]
    found = duplicate_groups(shingles_at(conversations), sketches_of(conversations))
    assert found.tolist() == incremental_groups(conversations)


def test_few_near_duplicates_are_missed_among_many_texts_that_are_nearly_as_similar() -> None:
    conversations = [conversation(text) for seed in range(8) for text in variants(seed, 80)]
    found = duplicate_groups(shingles_at(conversations), sketches_of(conversations)).tolist()
    index = DuplicateIndex()
    pairs = [(number, other) for number, one in enumerate(conversations) for other in index.add(one)]
    together = [found[one] == found[other] for one, other in pairs]
    assert len(pairs) > 100 and sum(together) >= 0.97 * len(pairs)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_near_duplicates_are_never_in_two_splits_however_they_arrive(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    draw = random.Random(seed)
    texts = variants(seed, 20)
    requests: list[Split | None] = ["train", "dev", "test", None, None, None]
    with Store(tmp_path_factory.mktemp("store") / "db") as store:
        while texts:
            part, texts = texts[: (size := draw.randint(1, 8))], texts[size:]
            new = [
                NewQuestion(question_id(conversation(text)), conversation(text), "user", draw.choice(requests))
                for text in part
            ]
            found, sketches = assign_in_store(store, new, SplitSettings())
            assert [question.id for question in found] == [question.id for question in new]
            store.add_questions(found, sketches if draw.random() < 0.7 else {})
        index, splits = DuplicateIndex(), [question.split for question in store.questions()]
        for number, question in enumerate(store.questions()):
            for other in index.add(question.messages):
                assert len({splits[number], splits[other]} - {"excluded"}) < 2


def test_the_index_finds_what_is_similar_enough() -> None:
    index = DuplicateIndex()
    assert index.add(conversation("where is my parcel now")) == []
    assert index.add(conversation("book a room")) == []
    assert index.add(conversation("Where is my parcel, now?")) == [0]
    assert sorted(index.find(conversation("where is my parcel now!"))) == [0, 2]
    assert index.find(conversation("something else entirely")) == []


def missing(store: Store) -> list[str]:
    return store.ids_without_sketch(check_value().to_bytes(4, "little"), duplicates.SKETCH_BYTES)


def test_sketches_are_stored_once_and_missing_or_outdated_ones_are_replaced(
    store: Store, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.txt").write_text("where is my parcel\nbook a room\n")
    import_file(store, task, tmp_path / "one.txt")
    first = dict(store.sketches())
    assert len(first) == 2 and missing(store) == []
    store.add_questions([Question("x", conversation("written by an older version"), "user", "x", "test")])
    assert missing(store) == ["x"]
    with sqlite3.connect(store.path) as raw:
        raw.execute("UPDATE sketches SET sketch = x'00000000' WHERE question_id = ?", (min(first),))
    computed: list[int] = []
    monkeypatch.setattr(
        duplicates, "sketches_of", lambda found: computed.append(len(found := list(found))) or sketches_of(found)
    )
    (tmp_path / "two.txt").write_text("written by an older version!\n")
    import_file(store, task, tmp_path / "two.txt")
    assert computed == [2]
    sketches = dict(store.sketches())
    assert len(sketches) == 4 and {key: sketches[key] for key in first} == first
    assert {question.split for question in store.questions() if "older" in question.messages[0].content} == {"test"}
    (tmp_path / "three.txt").write_text("something new\n")
    import_file(store, task, tmp_path / "three.txt")
    assert computed == [2]


def test_an_import_compares_only_candidates(
    store: Store, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import write_questions

    import_file(store, task, write_questions(tmp_path / "many.txt", 300))
    compared: list[Conversation] = []
    monkeypatch.setattr(duplicates, "shingles_of", lambda found: compared.append(found) or shingles_of(found))
    (tmp_path / "new.txt").write_text("an entirely different sentence\n")
    import_file(store, task, tmp_path / "new.txt")
    assert len(compared) < 10


def test_sketches_depend_on_the_text_alone() -> None:
    found = sketches_of([conversation("my invoice"), conversation("My  Invoice!"), conversation("a parcel")])
    assert (found[0] == found[1]).all()
    assert (found[:, 0] == check_value()).all()
    assert not (found[0, 1:] == found[2, 1:]).any()
    assert sketches_of([]).shape == (0, found.shape[1])
