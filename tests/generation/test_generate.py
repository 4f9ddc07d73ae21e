"""Rounds of generation: questions are written, labelled without the intended label, counted, and trusted or not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import write_labelled
from generation_helpers import embed, run, text_of, writing_requests
from teacher import Teacher, words

from fingerpost.core.errors import TeacherError
from fingerpost.core.text import question_id
from fingerpost.core.types import Progress, Question, Verdict
from fingerpost.data.importer import import_file
from fingerpost.generation.brief import Brief
from fingerpost.generation.filters import KEPT
from fingerpost.generation.generate import find_hard_examples
from fingerpost.generation.next_round import MAX_TOPIC_QUESTIONS
from fingerpost.generation.rounds import Round
from fingerpost.store.project import Store
from fingerpost.task.settings import Task


def test_questions_are_written_labelled_blind_and_counted(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    done = run(task, store, folder, count=60)
    questions = store.questions()
    confirmed = sum(each.confirmed for each in done.rounds)
    assert done.kept == len(questions) and confirmed >= 60 and done.reason == f"there are {confirmed} trusted questions"
    assert {each.source for each in questions} == {"synthetic"}
    verdicts = store.verdicts()
    for question in questions:
        writer = [each for each in verdicts[question.id] if each.kind == "writer"]
        blind = [each for each in verdicts[question.id] if each.kind == "teacher"]
        assert len(writer) == 1 and len(blind) == 1
    assert sum(each.confirmed + each.border + each.unanswered for each in done.rounds) == len(questions)
    assert sum(each.confirmed for each in done.rounds) > 0.8 * len(questions)
    written = writing_requests(teacher.bodies)
    assert all(body["temperature"] == 1 and "logprobs" not in body for body in written)
    calls = {line.step: line.calls for line in store.ledger.step_costs()}
    assert calls == {"generate": len(written), "label": len(questions)}
    asked = sum(teacher.asked.values())
    again = run(task, store, folder, count=60)
    assert again.kept == done.kept and sum(teacher.asked.values()) == asked


def test_what_the_teacher_does_not_confirm_is_no_training_row_until_a_person_has_decided(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    from fingerpost.training.dataset import from_store

    teacher.reply = '{"action": "other"}'
    done = run(task, store, folder, count=40)
    border = [
        key for key, found in store.verdicts().items() if {e.label for e in found if e.kind == "writer"} != {"other"}
    ]
    assert len(border) == sum(each.border for each in done.rounds) > 0
    trained = {each.id for each in from_store(task, store, "consensus", embed).train}
    assert trained and not trained & set(border)
    decided = next(q.id for q in store.questions("train") if q.id in border)
    store.add_verdicts([Verdict(decided, "human", "me", "billing")])
    assert decided in {each.id for each in from_store(task, store, "best", embed).train}


def test_subjects_of_which_nothing_is_confirmed_are_dropped_and_new_ones_come(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.reply = '{"action": "billing"}'
    run(task, store, folder, count=100)
    plans = [(each.round, Brief.from_json(each.brief)) for each in store.drafts()]
    near = [(number, item.about) for number, brief in plans for item in brief.items if item.kind == "near"]
    last = max(number for number, _ in plans)
    assert last > 3 and len({number for number, brief in plans if brief.form == "beyond"}) == last + 1
    for number, about in near:
        assert sum(before < number and subject == about for before, subject in near) < MAX_TOPIC_QUESTIONS
    assert {about for number, about in near if number == last} - {about for number, about in near if number == 1}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (json.dumps([f"billing {words(i)}" for i in range(2_000)]), "surplus"),
        (json.dumps({str(i): "billing the same one a hundred times" for i in range(1, 6)}), "duplicate"),
        (json.dumps({"1": "billing " + "very " * 200, "2": "pay"}), "too long"),
    ],
)
def test_nonsense_is_survived_and_counted(
    store: Store, task: Task, folder: Path, teacher: Teacher, written: str, reason: str
) -> None:
    teacher.written = written
    done = run(task, store, folder, count=30)
    outcomes = sum((ended.outcomes for ended in done.rounds), Counter[str]())
    assert outcomes[reason] >= 20 and outcomes[KEPT] == len(store.questions()) < 30
    assert "repeats itself" in done.reason or "were requested, but only" in done.reason


@pytest.mark.parametrize("written", ["Sure! Here are five questions.", '{"1": 7', ""])
def test_a_writer_that_only_talks_is_not_asked_on(
    store: Store, task: Task, folder: Path, teacher: Teacher, written: str
) -> None:
    teacher.written = written
    with pytest.raises(TeacherError, match=r"none of the teacher's \d+ replies holds a message"):
        run(task, store, folder, count=30)
    assert sum(teacher.asked.values()) < 25
    teacher.written = None
    assert run(task, store, folder, count=30).kept >= 30


def test_more_than_one_model_writes(store: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    assert task.teacher is not None
    writers = (task.teacher, task.teacher.model_copy(update={"model": "another"}))
    mixed = task.model_copy(update={"generate": task.generate.model_copy(update={"writers": writers})})
    run(mixed, store, folder, count=40)
    by = Counter(e.by for found in store.verdicts().values() for e in found if e.kind == "writer")
    assert set(by) == {"test-model", "another"} and min(by.values()) > 5


def test_with_real_questions_the_gap_is_measured_and_tests_are_not_shown(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    real = [
        Question(question_id(text_of(text)), text_of(text), "user", str(i), "test" if i % 5 == 0 else "train")
        for i in range(200)
        for text in [f"{'billing' if i % 2 else 'delivery'} wheres {words(1000 + i)}"]
    ]
    store.add_questions(real)
    store.add_verdicts(
        Verdict(each.id, "teacher", "test-model", each.messages[0].content.split()[0], order=0) for each in real
    )
    done = run(task, store, folder, count=80)
    assert done.rounds[-1].gap is not None and 0 <= done.rounds[-1].gap.value <= 1
    shown = " ".join(body["messages"][-1]["content"] for body in writing_requests(teacher.bodies))
    assert any(each.messages[0].content in shown for each in real if each.split == "train")
    assert not any(each.messages[0].content in shown for each in real if each.split == "test")


def test_without_a_count_it_ends_when_more_bring_nothing(store: Store, task: Task, folder: Path) -> None:
    done = run(task, store, folder)
    assert "learning curve no longer rises" in done.reason and 2 < len(done.rounds) < 10


def test_each_round_reads_the_verdicts_once_and_reports_itself(
    task: Task, folder: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()

    class Counting(Store):
        def verdicts(self) -> dict[str, list[Verdict]]:
            reads["verdicts"] += 1
            return super().verdicts()

    reported: list[Progress] = []
    with Counting(folder / "fingerpost.db") as store:
        done = run(task, store, folder, count=130, on_progress=reported.append)
    plans = 1 + len(done.rounds)  # the first one asks for out-of-scope topics only
    assert len(done.rounds) >= 2 and reads["verdicts"] == 2 + plans  # also at the start, and before the first plan
    ended = [progress for progress in reported if isinstance(progress.data, Round)]
    assert [progress.data for progress in ended] == done.rounds and all(progress.message for progress in ended)
    assert {progress.step for progress in reported} == {"generate", "label"}
    assert ended[-1].cost_usd == max(progress.cost_usd for progress in reported) > 0


def test_more_like_the_dev_questions_that_a_student_gets_wrong(
    store: Store, task: Task, folder: Path, teacher: Teacher, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fingerpost.generation.generate.UNSURE_CONFIDENCE", 1.01)
    import_file(store, task, write_labelled(folder / "data.csv"))
    errors = find_hard_examples(task, store, student)
    dev = {each.messages[0].content for each in store.questions("dev")}
    assert errors and {each.text for each in errors} <= dev
    done = run(task, store, folder, hard_examples=errors, count=6)
    assert done.reason.endswith("trusted questions")
    wanted = [body["messages"][-1]["content"] for body in writing_requests(teacher.bodies)]
    assert wanted and all("the same as '" in each for each in wanted)
    meant = {each.label for found in store.verdicts().values() for each in found if each.kind == "writer"}
    assert meant == {each.label for each in errors}
    asked = sum(teacher.asked.values())
    assert run(task, store, folder, hard_examples=errors, count=6).kept == done.kept
    assert sum(teacher.asked.values()) == asked
