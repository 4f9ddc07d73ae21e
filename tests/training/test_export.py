from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from fingerpost.core.errors import InputError
from fingerpost.core.types import Label
from fingerpost.data.importer import import_file
from fingerpost.data.rows import Columns
from fingerpost.store.project import Store
from fingerpost.task.settings import Task
from fingerpost.training.export import count_tokens, export


@pytest.fixture
def labelled(store: Store, task: Task, folder: Path) -> Store:
    rows = ["text,label,split"]
    for i in range(120):
        name = ["billing", "delivery", "other"][0 if i % 6 < 3 else 1 if i % 6 < 5 else 2]
        rows.append(f"{name} {i * 7919 % 99991} {i * 104729 % 1299709},{name},{'test' if i >= 100 else 'train'}")
    (folder / "x.csv").write_text("\n".join(rows))
    import_file(store, task, folder / "x.csv")
    return store


def labels_in(file: Path) -> list[str]:
    return [json.loads(json.loads(line)["messages"][-1]["content"])["action"] for line in file.read_text().splitlines()]


def test_four_fifths_train_stratified_and_no_test_question(labelled: Store, task: Task, folder: Path) -> None:
    train, validation = folder / "t.jsonl", folder / "v.jsonl"
    done = export(task, labelled, train, validation)
    assert (done.train, done.validation) == (80, 20)
    whole = Counter(labels_in(train)) + Counter(labels_in(validation))
    for label, count in Counter(labels_in(validation)).items():
        assert count == pytest.approx(0.2 * whole[label], abs=1)
    tests = {question.messages[0].content for question in labelled.questions("test")}
    assert not any(text in train.read_text() + validation.read_text() for text in tests)
    first = json.loads(train.read_text().splitlines()[0])["messages"]
    assert [turn["role"] for turn in first] == ["system", "user", "assistant"]
    assert done.train_tokens > 80 and done.counted == "o200k_base"


def test_groups_are_not_torn_apart(store: Store, task: Task, folder: Path) -> None:
    rows = [f"where is parcel number {i // 3} of {i // 3 * 7919}{'!' * (i % 3)} please" for i in range(90)]
    (folder / "x.csv").write_text("text,label,split\n" + "\n".join(f"{row},delivery,train" for row in rows))
    import_file(store, task, folder / "x.csv")
    export(task, store, folder / "t.jsonl", folder / "v.jsonl")
    texts = {question.messages[0].content: question.group for question in store.questions()}
    sides = [
        {texts[json.loads(line)["messages"][1]["content"]] for line in (folder / name).read_text().splitlines()}
        for name in ("t.jsonl", "v.jsonl")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_what_is_written_reads_back_to_the_same_questions_and_labels(
    labelled: Store, task: Task, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    coded = task.model_copy(
        update={"labels": tuple(Label(name=name, code=i + 10) for i, name in enumerate(task.names))}
    )
    for each in (task, coded):
        export(each, labelled, folder / "t.jsonl", folder / "v.jsonl")
        with Store(tmp_path_factory.mktemp("again") / "db") as other:
            for name in ("t.jsonl", "v.jsonl"):
                assert import_file(other, each, folder / name, Columns()).rejected == []
            expected = {
                question.id: labelled.verdicts()[question.id][0].label
                for question in labelled.questions("train", "dev")
            }
            assert {key: mine[0].label for key, mine in other.verdicts().items()} == expected
            assert {q.id: q.messages for q in other.questions()} == {
                q.id: q.messages for q in labelled.questions("train", "dev")
            }
    assert set(labels_in(folder / "t.jsonl")) == {10, 11, 12}


def test_nothing_to_export(store: Store, task: Task, folder: Path) -> None:
    with pytest.raises(InputError, match="fingerpost label"):
        export(task, store, folder / "t.jsonl", folder / "v.jsonl")
    with pytest.raises(InputError, match="there is no folder"):
        export(task, store, folder / "no" / "t.jsonl", folder / "v.jsonl")


def test_tokens_are_counted() -> None:
    assert count_tokens(["hello world"]) == (2, "o200k_base")
