from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question, Split
from fingerpost.data.importer import import_file
from fingerpost.data.rows import Columns
from fingerpost.data.splits import NewQuestion, assign_in_store
from fingerpost.store.project import Store
from fingerpost.task.settings import SplitSettings, Task


def assign_splits(
    new_questions: Sequence[NewQuestion], stored: Sequence[Question], settings: SplitSettings
) -> list[Question]:
    with TemporaryDirectory() as folder, Store(Path(folder) / "db") as store:
        store.add_questions(stored)
        return assign_in_store(store, new_questions, settings)[0]


def new(text: str, requested: Split | None = None) -> NewQuestion:
    messages = (Message("user", text),)
    return NewQuestion(question_id(messages), messages, "user", requested)


def test_near_duplicates_share_a_group_and_others_do_not() -> None:
    one, two, three = assign_splits(
        [
            new("how do I get my payslip for october"),
            new("How do I get my payslip for October?!"),
            new("book a room"),
        ],
        [],
        SplitSettings(),
    )
    assert one.group == two.group != three.group
    assert one.split == two.split


def test_the_test_split_wins_and_its_near_duplicates_are_excluded() -> None:
    placed = assign_splits(
        [
            new("where is my parcel now", "train"),
            new("where is my parcel, now?", "test"),
            new("cancel it", "dev"),
        ],
        [],
        SplitSettings(),
    )
    assert [question.split for question in placed] == ["excluded", "test", "dev"]


def test_stored_questions_keep_their_split_and_new_duplicates_join_it() -> None:
    stored = assign_splits([new("where is my parcel now", "test")], [], SplitSettings())
    twin, wish = assign_splits(
        [new("where is my parcel now?"), new("where is my parcel now!", "train")], stored, SplitSettings()
    )
    assert (twin.split, twin.group) == ("test", stored[0].group)
    assert wish.split == "excluded"


def test_a_question_similar_to_two_splits_is_excluded() -> None:
    text = "please tell me where my parcel number twelve is today"
    near = (text + " and", text + " or so")
    stored = [
        Question("1", (Message("user", near[0]),), "user", "g1", "train"),
        Question("2", (Message("user", near[1]),), "user", "g2", "test"),
    ]
    (bridge,) = assign_splits([new(text)], stored, SplitSettings())
    assert bridge.split == "excluded"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["red fox jumps", "red fox jumps!", "blue whale sings", "green ant digs deep"]),
                min_size=1, max_size=8))  # fmt: skip
def test_no_group_is_in_two_splits(texts: list[str]) -> None:
    requests: list[Split | None] = ["train", "dev", "test", None]
    unique = {new(text).id: new(text, requests[i % 4]) for i, text in enumerate(texts)}
    splits_of_groups: dict[str, set[str]] = {}
    for question in assign_splits(list(unique.values()), [], SplitSettings()):
        splits_of_groups.setdefault(question.group, set()).add(question.split)
    assert all(len(splits - {"excluded"}) == 1 for splits in splits_of_groups.values())


def test_importing_again_changes_nothing(store: Store, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        "text,label,split\nmy invoice,billing,train\nmy parcel,delivery,test\nhello,,\nMY  invoice,other,\n"
    )
    first = import_file(store, task, file)
    assert (first.rows, first.new, first.verdicts) == (4, 3, 3)
    before = (store.questions(), store.verdicts())
    again = import_file(store, task, file)
    assert (again.new, again.verdicts) == (0, 0)
    assert (store.questions(), store.verdicts()) == before


def test_a_teachers_answers_keep_their_metadata(store: Store, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        "text,teacher,teacher_raw,label_order,logprob,prompt_tokens,latency_ms,cost_usd\n"
        'my invoice,Billing,"{""action"": ""Billing""}",2,-0.5,100,250,0.001\nwhat,,nonsense,,,,,\n'
    )
    done = import_file(store, task, file, Columns(label="teacher", teacher="big-model"))
    assert done.rejected == [] and done.verdicts == 2
    answers = {verdict.label: verdict for mine in store.verdicts().values() for verdict in mine}
    known = answers["billing"]
    assert (known.kind, known.by, known.order, known.logprob) == ("teacher", "big-model", 2, -0.5)
    assert (known.usage.prompt, known.usage.latency_s, known.usage.cost_usd) == (100, 0.25, 0.001)
    assert answers[None].raw == "nonsense"


def test_only_some_splits(store: Store, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label,split\na bill,billing,train\na box,delivery,test\n")
    assert import_file(store, task, file, Columns(only=("test",))).verdicts == 1
    assert [question.split for question in store.questions()] == ["test"]


def test_of_equal_rows_the_test_split_wins(store: Store, task: Task, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,split\nmy bill,train\nMy bill,test\n")
    import_file(store, task, tmp_path / "x.csv")
    assert [question.split for question in store.questions()] == ["test"]


def test_conversations_stay_whole(store: Store, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, '
        '{"role": "user", "content": "my bill"}], "label": "billing", "source": "chat"}\n'
    )
    import_file(store, task, file)
    (question,) = store.questions()
    assert len(question.messages) == 3 and question.source == "chat"
    assert store.verdicts()[question.id][0].label == "billing"


@pytest.mark.parametrize("count", [300])
def test_every_row_of_a_larger_file_is_imported(store: Store, task: Task, tmp_path: Path, count: int) -> None:
    from conftest import write_questions

    assert import_file(store, task, write_questions(tmp_path / "q.txt", count)).new == count
    groups = {question.group for question in store.questions()}
    assert len(groups) == count


def test_rows_that_are_repeated_in_a_file_do_not_confuse_the_search_for_near_duplicates(
    store: Store, task: Task, tmp_path: Path
) -> None:
    texts = ["where is my parcel number twelve today", "where is my parcel number twelve today please", "book a room"]
    rows = [texts[2], texts[2], "tell me a joke", texts[2], texts[0], "tell me a joke", texts[1], texts[0]]
    (tmp_path / "x.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in rows))
    assert import_file(store, task, tmp_path / "x.jsonl").new == 4
    groups = {question.messages[0].content: question.group for question in store.questions()}
    assert groups[texts[0]] == groups[texts[1]] and len(set(groups.values())) == 3
    assert [question.messages[0].content for question in store.questions()] == [
        texts[2], "tell me a joke", texts[0], texts[1]
    ]  # fmt: skip


def test_with_only_bad_rows_of_other_splits_are_no_complaint(store: Store, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        "text,label,split\nmy invoice,billing,test\nmy parcel,unknown,train\n,billing,test\nhello,nonsense,test\n"
    )
    done = import_file(store, task, file, Columns(only=("test",)))
    assert (done.rows, done.new, [row.line for row in done.rejected]) == (4, 1, [4, 5])
