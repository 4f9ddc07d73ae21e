"""Reviewing: answers become verdicts, rounds learn, groups are corrected and taken back, the sample measures."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS, write_labelled
from hypothesis import given
from hypothesis import strategies as st
from teacher import Teacher

from fingerpost.cli.review import _numbers
from fingerpost.consensus.history import strokes, take_back
from fingerpost.consensus.model import Array
from fingerpost.consensus.review import Review
from fingerpost.consensus.session import Sample
from fingerpost.core.errors import InputError
from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question, Verdict
from fingerpost.core.verdicts import WITHDRAWN, QuestionVerdicts, active
from fingerpost.data.splits import split_of
from fingerpost.evaluation.evaluate import label_quality
from fingerpost.store.project import Store
from fingerpost.students.encoder.vectors import vectors_of
from fingerpost.task.loader import load_task
from fingerpost.task.settings import SplitSettings, StudentSettings, Task
from fingerpost.training.dataset import fingerprint_of, from_store
from fingerpost.training.export import export

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Vectors = Callable[[Sequence[Question]], Array]
PLACES = ["at home", "in the office", "on the train", "in town", "at school", "abroad", "in May", "tonight"]
ALL = [(f"{text} {place}", label) for label, texts in TEXTS.items() for text in texts for place in PLACES]
GOLD = {question_id((Message("user", text),)): label for text, label in ALL}


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """The real encoder, with one cache for all tests."""
    cache = tmp_path_factory.mktemp("vectors")
    return lambda questions: vectors_of(questions, StudentSettings(), cache)


@pytest.fixture
def filled(store: Store) -> Store:
    """240 questions; the teacher calls everything of `delivery` that it is asked about `billing`."""
    questions = []
    for text, _ in ALL:
        messages = (Message("user", text),)
        key = question_id(messages)
        questions.append(Question(key, messages, "user", key, split_of(key, SplitSettings())))
    store.add_questions(questions)
    said = {"billing": "billing", "delivery": "billing", "other": "other"}
    store.add_verdicts(Verdict(each.id, "teacher", "test-model", said[GOLD[each.id]]) for each in questions)
    return store


def answer(desk: Review, count: int = 1) -> None:
    """Answer the next cards rightly."""
    for _ in range(count):
        card = desk.next()
        assert card
        desk.answer(card.question, GOLD[card.question.id])


def test_rounds_teach_and_test_questions_are_never_asked(task: Task, filled: Store, vectors: Vectors) -> None:
    desk = Review(task, filled, "ann", vectors)
    train = {each.id for each in filled.questions("train")}
    seen = []
    for _ in range(51):
        card = desk.next()
        assert card is not None and card.question.id in train
        assert (card.teacher in ("billing", "other") and "speaks for" in card.reason) or "stands alone" in card.reason
        seen.append(card)
        desk.answer(card.question, GOLD[card.question.id])
    assert len({card.question.id for card in seen}) == 51
    assert len(desk.rounds) == 2 and desk.rounds[0].answers == 25
    assert desk.rounds[0].changed > 20 and desk.rounds[0].foreseen < 25
    assert all(label in task.names for _, label in seen[-1].neighbours) and len(seen[-1].neighbours) == 3
    assert any("delivery" in card.reason for card in seen[25:])
    stored = [each for found in filled.verdicts().values() for each in found if each.kind == "human"]
    assert len(stored) == 51 and {each.origin for each in stored} == {"review"}
    data = from_store(task, filled, "consensus", vectors)
    right = np.mean([example.label == GOLD[example.id] for example in data.train])
    assert right > 0.95 and data.changed > 40 and data.labels_from["human"] == 51
    assert {example.weight for example in data.train} == {1.0, 5.0}


def test_undo_skip_none_and_notes(task: Task, filled: Store, vectors: Vectors) -> None:
    desk = Review(task, filled, "ann", vectors)
    first, second = desk.next(), desk.next()
    assert first and second
    desk.answer(first.question, "other", "odd")
    assert QuestionVerdicts(filled.verdicts()[first.question.id], task.names).votes("human") == {"other": 1.0}
    assert desk.undo() == (first.question.id,) and desk.undo() == ()
    assert QuestionVerdicts(filled.verdicts()[first.question.id], task.names).votes("human") is None
    desk.put_back(first.question.id)
    assert (again := desk.next()) and again.question.id == first.question.id
    desk.answer(first.question, None)
    desk.skip(second.question)
    shown = {card.question.id for card in itertools.takewhile(bool, (desk.next() for _ in range(300)))}
    assert not shown & {first.question.id, second.question.id}
    data = from_store(task, filled, "consensus", vectors)
    assert first.question.id not in {example.id for example in data.train}
    assert first.question.id in {example.id for example in from_store(task, filled, "teacher", vectors).train}
    with pytest.raises(InputError, match="no label 'parcels'"):
        desk.answer(second.question, "parcels")


def test_groups_are_corrected_at_one_stroke_and_taken_back(task: Task, filled: Store, vectors: Vectors) -> None:
    desk = Review(task, filled, "ann", vectors)
    answer(desk, 30)
    desk.refresh()
    group = next(each for each in desk.groups() if (each.said, each.likely) == ("billing", "delivery"))
    assert len(group.questions) > 10
    before = fingerprint_of(task, filled)
    mark = desk.correct(group, leave_out=[0, 2])
    corrected = [key for key, found in filled.verdicts().items() if any(each.mark == mark for each in found)]
    assert set(corrected) == {each.id for i, each in enumerate(group.questions) if i not in (0, 2)}
    stroke = next(each for each in strokes(filled) if each.mark == mark)
    assert (stroke.count, stroke.label, stroke.holds) == (len(group.questions) - 2, "delivery", True)
    assert fingerprint_of(task, filled) != before
    assert take_back(filled, mark) == stroke.count and take_back(filled, mark) == 0
    assert not next(each for each in strokes(filled) if each.mark == mark).holds
    assert fingerprint_of(task, filled) == before
    with pytest.raises(InputError, match="--history"):
        take_back(filled, "nothing")
    again = desk.correct(group)
    assert again != mark and len(desk.undo()) == len(group.questions) and fingerprint_of(task, filled) == before


def test_what_was_taken_back_is_not_exported(task: Task, filled: Store, vectors: Vectors, tmp_path: Path) -> None:
    desk = Review(task, filled, "ann", vectors)
    card = desk.next()
    assert card
    desk.answer(card.question, "delivery")
    desk.undo()
    export(task, filled, tmp_path / "t.jsonl", tmp_path / "v.jsonl", use="best")
    written = (tmp_path / "t.jsonl").read_text() + (tmp_path / "v.jsonl").read_text()
    assert "action" in written and 'delivery\\"}' not in written


def test_undo_leaves_the_round_as_it_was(task: Task, filled: Store, vectors: Vectors) -> None:
    desk = Review(task, filled, "ann", vectors)
    for number in range(24):
        answer(desk)
        if number % 3 == 0:
            (back,) = desk.undo()
            desk.put_back(back)
    assert desk.round_left == 25 - 16 and desk.reviewed == 16
    while len(desk.rounds) < 1:
        answer(desk)
    assert desk.rounds[0].answers == 25 and 0 <= desk.rounds[0].foreseen <= 25


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3, 5-7", [2, 4, 5, 6]), ("", []), ("3 3", [2]), ("5-3", None), ("0", None), ("9", None), ("1-", None),
     ("²", None), ("1-999999999999", None), ("x", None)],
)  # fmt: skip
def test_numbers_to_leave_out(text: str, numbers: list[int] | None) -> None:
    assert _numbers(text, 8) == numbers


def test_the_sample_is_the_same_for_everyone_and_gives_no_hints(task: Task, filled: Store, vectors: Vectors) -> None:
    ann = Sample(task, filled, "ann", 20)
    cards = [ann.next() for _ in range(5)]
    for card in cards:
        assert card and card.question.split == "test" and not card.likely and card.teacher is None and not card.reason
        ann.answer(card.question, GOLD[card.question.id])
    bob = Sample(task, filled, "bob", 20)
    assert [each.id for each in bob.questions] == [each.id for each in ann.questions] and bob.left == 15
    assert label_quality(task, filled, vectors) is None  # nobody has reviewed a training question
    desk = Review(task, filled, "ann", vectors)
    answer(desk, 30)
    while card := bob.next():
        bob.answer(card.question, GOLD[card.question.id])
    quality = label_quality(task, filled, vectors)
    assert quality and quality.n == 20 and quality.consensus.value > quality.teacher.value
    assert quality.teacher.low < quality.teacher.value < quality.teacher.high


names = st.sampled_from(["ann", "bob"])
acts = st.lists(st.tuples(names, st.sampled_from(["a", "b", None, "back"])), max_size=12)


@given(acts)
def test_what_everyone_thinks_is_the_last_that_was_not_taken_back(history: list[tuple[str, str | None]]) -> None:
    verdicts: list[Verdict] = []
    thinks: dict[str, list[tuple[str, str | None]]] = {"ann": [], "bob": []}
    for number, (by, act) in enumerate(history):
        if act != "back":
            verdicts.append(Verdict("q", "human", by, act, origin="review", mark=f"m{number}"))
            thinks[by].append((f"m{number}", act))
        elif thinks[by]:
            mark, _ = thinks[by].pop()
            verdicts.append(Verdict("q", "human", by, None, origin=WITHDRAWN, mark=mark))
    found = {each.by: each.label for each in active(verdicts)}
    assert found == {by: given[-1][1] for by, given in thinks.items() if given}


def fill(cli: Cli, folder: Path, teacher: Teacher) -> None:
    """The questions of `write_labelled`; the teacher calls half of what is `delivery` `other`."""
    write_labelled(folder / "data.csv", test=True)
    assert cli("import", "data.csv", "--only", "test").returncode == 0
    lines = (folder / "data.csv").read_text().splitlines()
    (folder / "texts.csv").write_text("\n".join(line.split(",")[0] + "," + line.split(",")[2] for line in lines) + "\n")
    assert cli("import", "texts.csv").returncode == 0
    assert cli("label", "--yes").returncode == 0


def test_the_command_line_with_keys_from_a_pipe(cli: Cli, folder: Path, teacher: Teacher) -> None:
    fill(cli, folder, teacher)
    keys = "1" * 3 + "?s" + "/deliv\n" + "nwhy not\n0" + "u" + "zq"
    run = cli("review", "--by", "ann", stdin=keys)
    assert run.returncode == 0, run.stderr
    assert "4 answers of this sitting are stored" in run.stdout and "stands alone" in run.stdout
    assert "1-9" in run.stdout and "none of these" in run.stdout
    history = cli("review", "--history").stdout
    assert history.count("ann") == 5 and "taken back" in history and "why not" in history
    mark = history.split()[0]
    assert "taken back" in cli("review", "--take-back", mark).stdout
    sample = cli("review", "--test", "4", "--by", "ann", stdin="123")
    assert "a uniform sample of 4 test questions, 0 of them open" in sample.stdout
    groups = cli("review", "--groups", stdin="q")
    assert groups.returncode == 0 and "no confusion is large enough" in groups.stdout


def test_define_shows_a_diff_and_writes_only_when_told(cli: Cli, folder: Path, teacher: Teacher) -> None:
    fill(cli, folder, teacher)
    with Store(folder / "fingerpost.db") as store:
        parcels = [each for each in store.questions("train") if each.messages[0].content in TEXTS["delivery"]]
        store.add_verdicts(Verdict(each.id, "human", "ann", "delivery") for each in parcels)
    teacher.reply = json.dumps({"description": "where a parcel is, and when it comes"})
    before = (folder / "task.toml").read_text()
    run = cli("define")
    assert run.returncode == 2 and "--yes" in run.stderr and "were taken for other" in run.stdout
    run = cli("define", "--yes")
    assert run.returncode == 0, run.stderr
    assert '+delivery = "where a parcel is, and when it comes"' in run.stdout and "stays as it is" in run.stdout
    assert (folder / "task.toml").read_text() == before
    asked = teacher.bodies[-1]["messages"][-1]["content"]
    tests = {line.split(",")[0] for line in (folder / "data.csv").read_text().splitlines() if line.endswith(",test")}
    assert not any(text in asked for text in tests)
    run = cli("define", "--yes", "--write")
    assert run.returncode == 0 and re.search(r"labelling again .* 30 requests, about \$0\.\d+", run.stdout)
    after = load_task(folder / "task.toml")
    assert {label.name: label.description for label in after.labels}[
        "delivery"
    ] == "where a parcel is, and when it comes"
    assert "concurrency = 4" in (folder / "task.toml").read_text()
    teacher.reply = "I would rather not"
    assert "proposes nothing new" in cli("define", "--yes", "--write").stdout
    assert "budget" in cli("define", "--yes", "--budget", "0.000001").stderr
