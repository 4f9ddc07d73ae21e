"""The cut-off of `serve --accuracy`: reviewed training rows count, it says what is missing, and warns where the teacher harms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import question_text
from evaluation.test_cascade_report import Fixed

from fingerpost.core.text import question_id
from fingerpost.core.types import Example, Message, Question, Verdict
from fingerpost.evaluation.evaluate import Candidate, evaluate
from fingerpost.evaluation.metrics import error_reduction
from fingerpost.evaluation.project import cascade_curve
from fingerpost.evaluation.report import charts, sentences
from fingerpost.evaluation.rows import TestRow
from fingerpost.evaluation.thresholds import CascadeTarget, choose_for_project, describe_cutoff
from fingerpost.store.project import Store
from fingerpost.students.cutoff import at_least, rows_needed
from fingerpost.students.folder import DEV_ANSWERS, TRAIN_ANSWERS, DevAnswer, dev_answers, write_answers
from fingerpost.task.settings import Task

LABELS = ["billing", "delivery", "other"]


@pytest.fixture
def reviewed(store: Store, tmp_path: Path) -> Path:
    """120 training rows with human labels, all of which the student has right; the teacher is always wrong. No dev rows."""
    model, answers = tmp_path / "model", []
    model.mkdir()
    for number in range(120):
        messages = (Message("user", question_text(number)),)
        key, label = question_id(messages), LABELS[number % 3]
        store.add_questions([Question(key, messages, "user", key, "train")])
        store.add_verdicts(
            [Verdict(key, "human", "ann", label), Verdict(key, "teacher", "test-model", LABELS[number % 3 - 1])]
        )
        answers.append(DevAnswer(key, label, label, 0.5 + number / 400))
    write_answers(model / TRAIN_ANSWERS, answers)
    write_answers(model / DEV_ANSWERS, [])
    return model


def test_reviewed_training_rows_count_for_accuracy(reviewed: Path, store: Store, task: Task) -> None:
    assert not dev_answers(reviewed) and len(dev_answers(reviewed, cross_validated=True)) == 120
    choice = choose_for_project(task, store, reviewed, CascadeTarget(accuracy=0.95))
    assert choice.found is not None and choice.rows == 120 and choice.found.at_least >= 0.95
    agreement = choose_for_project(task, store, reviewed, CascadeTarget(agreement=0.95))
    assert agreement.cutoff == math.inf and agreement.rows == 0, "training labels come from the teacher itself"


def test_it_says_how_many_rows_are_needed(reviewed: Path, store: Store, task: Task) -> None:
    write_answers(reviewed / TRAIN_ANSWERS, dev_answers(reviewed, cross_validated=True)[:20])
    choice = choose_for_project(task, store, reviewed, CascadeTarget(accuracy=0.95))
    line = describe_cutoff(choice, "test-model", 0.95)
    assert "20 rows with human labels" in line and "at least 59 are needed" in line and "review --dev" in line


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.98, 0.99])
def test_the_rows_that_are_needed_are_the_fewest(target: float) -> None:
    needed = rows_needed(target)
    assert needed is not None
    assert at_least(needed, needed) >= target > at_least(needed - 1, needed - 1)


def test_a_teacher_that_is_worse_where_it_is_asked_is_told(reviewed: Path, store: Store, task: Task) -> None:
    choice = choose_for_project(task, store, reviewed, CascadeTarget(cutoff=0.6))
    assert (choice.unsure, choice.student_right, choice.teacher_right) == (40, 40, 0) and choice.lowers_accuracy


@pytest.fixture
def mixture(task: Task) -> tuple[Fixed, Fixed, list[TestRow]]:
    """40 rows: the student is right on all, unsure of 10; the teacher is wrong on those."""
    rows, student, teacher = [], {}, {}
    for number in range(40):
        text, gold = question_text(number), LABELS[number % 3]
        rows.append(TestRow(question_id((Message("user", text),)), (Message("user", text),), "user", gold))
        student[text] = (gold, 0.4 if number < 10 else 0.9)
        teacher[text] = (LABELS[(number + 1) % 3] if number < 10 else gold, 1.0)
    return Fixed("student", student, task), Fixed("llm", teacher, task, "teacher"), rows  # type: ignore[arg-type]


def test_the_report_warns_of_a_cascade_that_lowers_accuracy(mixture: tuple[Fixed, Fixed, list[TestRow]]) -> None:
    from fingerpost.students.cascade import Cascade

    student, teacher, rows = mixture
    both = Cascade(student, teacher, 0.5)
    candidates = [
        Candidate("base", teacher, timed=False),
        Candidate("student", student, timed=False),
        Candidate("cascade", both, timed=False, teacher="llm"),
    ]
    report = evaluate("shop", LABELS, rows, candidates)
    warning = sentences.warnings(report)[0]
    assert "student+teacher is less accurate than student alone: right on 30 and 40 of 40 rows" in warning


def test_the_curve_has_share_accuracy_and_money(mixture: tuple[Fixed, Fixed, list[TestRow]]) -> None:
    student, teacher, rows = mixture
    points = cascade_curve(student, teacher, rows)
    by_share = {round(point.asked, 2): point for point in points}
    assert by_share[0.0].accuracy is not None and by_share[0.0].accuracy.value == 1.0
    assert by_share[0.2].accuracy is not None and by_share[0.2].accuracy.value == 0.8
    assert by_share[1.0].accuracy is not None and by_share[1.0].accuracy.value == 0.75
    assert [point.cost_per_1000_usd for point in points] == pytest.approx([500 * point.asked for point in points])
    assert by_share[0.3].cutoff == 0.9


def test_a_model_without_errors_is_not_sure_to_be_perfect() -> None:
    base = np.array([True, False] * 30)
    found = error_reduction(base, np.ones(60, dtype=bool))
    assert found is not None and found.value == 1 and 0.8 < found.low < 1


def test_equal_costs_leave_a_chart_of_speed(mixture: tuple[Fixed, Fixed, list[TestRow]]) -> None:
    student, _, rows = mixture
    report = evaluate(
        "x", LABELS, rows, [Candidate("base", student, timed=False), Candidate("student", student, timed=False)]
    )
    assert not charts.cost_varies(report.models)
    drawn = charts.draw(report)
    assert "US dollars" not in drawn["cost"] and "milliseconds" in drawn["cost"] and "cost_varies" not in drawn
    report.models[0].cost_per_1000_usd = 0.1
    assert "US dollars" in charts.draw(report)["cost"]


def test_long_names_are_not_cut(mixture: tuple[Fixed, Fixed, list[TestRow]]) -> None:
    student, _, rows = mixture
    student.name = "a-student-of-a-very-long-name-with-many-parts-and-a-date-2026-11-27"
    report = evaluate(
        "x", LABELS, rows, [Candidate("base", student, timed=False), Candidate("student", student, timed=False)]
    )
    for name, chart in charts.draw(report).items():
        assert "…" not in chart, name


def test_new_served_questions_do_not_drop_the_teacher(store: Store, task: Task) -> None:
    from fingerpost.evaluation.rows import rows_from_store
    from fingerpost.evaluation.teachers import teachers_from_store

    for number in range(6):
        messages = (Message("user", question_text(number)),)
        key = question_id(messages)
        store.add_questions([Question(key, messages, "user", key, "test")])
        if number < 4:
            store.add_verdicts(
                [Verdict(key, "human", "ann", "billing"), Verdict(key, "teacher", "test-model", "billing")]
            )
    rows = rows_from_store(task, store)
    measured = [row for row in rows if row.gold is not None]
    assert len(rows) == 6 and len(measured) == 4
    assert [teacher.name for teacher in teachers_from_store(task, store, [row.id for row in measured])[0]] == [
        "test-model"
    ]


def test_examples_with_unknown_labels_are_left_out_and_noted(task: Task, tiny_encoder: Path) -> None:
    from fingerpost.evaluation.file import evaluate_examples

    settings = task.student.model_copy(update={"encoder": str(tiny_encoder)})
    examples = [
        Example(str(n), (Message("user", question_text(n)),), {label: 1.0})
        for n, label in enumerate([*LABELS, "new"] * 3)
    ]
    report = evaluate_examples(task.model_copy(update={"student": settings}), examples, [])
    assert report.n == 9 and "3 test rows were left out, because no training row has their label" in report.notes
