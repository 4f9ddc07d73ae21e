from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import TEXTS, write_labelled

import fingerpost
from fingerpost.core.errors import InputError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Prediction, Usage, Verdict
from fingerpost.data.importer import import_file
from fingerpost.data.rows import Columns
from fingerpost.evaluation.evaluate import Candidate, evaluate, learning_curve
from fingerpost.evaluation.report import page, tables
from fingerpost.evaluation.results import Report
from fingerpost.evaluation.rows import TestRow, rows_from_file, rows_from_store
from fingerpost.evaluation.teachers import RecordedTeacher, teachers_from_store
from fingerpost.store.project import Store
from fingerpost.students.folder import manifest_of
from fingerpost.task.loader import task_of_labels
from fingerpost.task.settings import Task
from fingerpost.training.dataset import from_file

LABELS = ["billing", "delivery", "other"]
TASK_OF_LABELS = task_of_labels("t", LABELS)


class Fixed(BasePredictor):
    """Answers the row's gold label, or another one where it is told to be wrong."""

    def __init__(self, name: str, wrong: set[int]) -> None:
        self.name, self.labels, self.manifest = name, LABELS, manifest_of("test", name, TASK_OF_LABELS)
        self.wrong = wrong

    def predict(self, conversations: Sequence[object]) -> list[Prediction]:
        answers = []
        for each in conversations:
            number = int(each[-1].content.split()[-1])  # type: ignore[index]
            label = LABELS[(number + (number in self.wrong)) % 3]
            answers.append(Prediction(label, 0.6 if number in self.wrong else 0.9, usage=Usage(cost_usd=0.0)))
        return answers


def rows(count: int) -> list[TestRow]:
    made = []
    for i in range(count):
        messages = (Message("user", f"number {i}"),)
        made.append(TestRow(question_id(messages), messages, "user" if i % 2 else "synthetic", LABELS[i % 3]))
    return made


def teacher_of(test_rows: list[TestRow], wrong: set[int]) -> Candidate:
    answers = {
        row.id: [
            Verdict(
                row.id,
                "teacher",
                "big",
                LABELS[(i + (i in wrong)) % 3],
                logprob=-0.1,
                usage=Usage(cost_usd=0.002, latency_s=0.5),
            )
        ]
        for i, row in enumerate(test_rows)
    }
    return Candidate("teacher", RecordedTeacher("big", answers, TASK_OF_LABELS), timed=False)


@pytest.fixture(scope="module")
def measured() -> Report:
    test_rows = rows(100)
    base = Candidate("base", Fixed("base", set(range(48))))
    student = Candidate("student", Fixed("student", set(range(22))))
    return evaluate("t", LABELS, test_rows, [base, teacher_of(test_rows, set(range(30))), student], spent_usd=1.0)


@pytest.fixture
def report(measured: Report) -> Report:
    return measured.model_copy(deep=True)


def test_all_models_on_the_same_rows(report: Report) -> None:
    base, teacher, student = report.models
    assert [model.n for model in report.models] == [100] * 3
    assert [model.accuracy for model in report.models] == [0.52, 0.70, 0.78]
    assert student.error_reduction is not None and student.error_reduction.value == pytest.approx(26 / 48)
    assert student.accuracy_low is not None and student.accuracy_high is not None
    assert student.accuracy_low < 0.78 < student.accuracy_high
    assert student.agreement is not None and student.agreement.value == pytest.approx(0.92)
    assert teacher.agreement is None
    assert sum(score.n for score in student.labels) == np.sum(student.confusion) == 100
    assert len(student.mistakes) == 22 and student.mistakes[0].gold != student.mistakes[0].answer
    assert base.latency_n == 100 and teacher.latency_p50_ms == 500


def test_pairs_costs_and_break_even(report: Report) -> None:
    pair = next(each for each in report.pairs if (each.a, each.b) == ("big", "student"))
    assert (pair.only_a_right, pair.only_b_right) == (0, 8)
    assert pair.p == pytest.approx(2 / 2**8) and pair.p_holm >= pair.p
    assert report.models[1].cost_per_1000_usd == pytest.approx(2.0)
    assert report.break_even == {"student": 500}


def test_sources_apart(report: Report) -> None:
    assert [(part.source, part.n) for part in report.by_source] == [("synthetic", 50), ("user", 50)]
    assert all(part.models[2].accuracy == 0.78 for part in report.by_source)


def test_without_human_labels_there_is_agreement_and_no_accuracy() -> None:
    test_rows = [TestRow(row.id, row.messages, row.source, None) for row in rows(40)]
    student = Candidate("student", Fixed("student", set(range(10))))
    found = evaluate("t", LABELS, test_rows, [teacher_of(test_rows, set()), student])
    assert found.against == "teacher's answers"
    model = found.models[1]
    assert model.accuracy is None and model.agreement is not None and model.agreement.value == 0.75
    assert "agreement" in page.render(found)


def test_a_teacher_without_an_answer_is_wrong_there() -> None:
    test_rows = rows(10)
    contestant = teacher_of(test_rows, set())
    key = test_rows[0].id
    contestant.predictor._verdicts[key] = [Verdict(key, "teacher", "big", None)]  # type: ignore[attr-defined]
    found = evaluate("t", LABELS, test_rows, [contestant])
    assert found.models[0].accuracy == 0.9 and found.models[0].no_answer == 1
    assert found.models[0].cost_n == 9


def test_a_teacher_that_was_not_asked_everything_is_left_out_and_named(store: Store, task: Task, folder: Path) -> None:
    import_file(store, task, write_labelled(folder / "x.csv"))
    test_rows = rows_from_store(task, store)
    assert len(test_rows) == 6 and all(row.gold for row in test_rows)
    store.add_verdicts([Verdict(test_rows[0].id, "teacher", "big", "billing")])
    ids = [row.id for row in test_rows]
    none, notes = teachers_from_store(task, store, ids)
    assert none == [] and "1 of 6" in notes[0]
    store.add_verdicts([Verdict(row.id, "teacher", "big", "billing") for row in test_rows])
    (found,), _ = teachers_from_store(task, store, ids)
    assert found.name == "big"


def test_bad_rows_and_unknown_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no test rows"):
        evaluate("t", LABELS, [], [])
    odd = [TestRow("1", (Message("user", "x 1"),), "user", "refund")]
    with pytest.raises(InputError, match="do not know: refund"):
        evaluate("t", LABELS, odd, [])
    (tmp_path / "x.csv").write_text("text,label,split\na,billing,train\nb,other,test\n,other,test\n")
    found, rejected = rows_from_file(tmp_path / "x.csv", Columns(), set(), [])
    assert len(found) == 1 and len(rejected) == 1


def test_rows_that_were_trained_on_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label\na b,billing\nc d,other\n")
    seen = question_id((Message("user", "A  B"),))
    notes: list[str] = []
    found, _ = rows_from_file(file, Columns(), {seen}, notes)
    assert [row.gold for row in found] == ["other"] and "1 rows" in notes[0]
    with pytest.raises(InputError, match="trained on all rows"):
        rows_from_file(file, Columns(), {seen, found[0].id}, [])


def test_models_of_the_same_name_are_kept_apart() -> None:
    pair = [Candidate("student", Fixed("student", set())), Candidate("student", Fixed("student", set(range(100))))]
    found = evaluate("t", LABELS, rows(30), pair)
    assert [(model.name, model.accuracy) for model in found.models] == [("student", 1.0), ("student #2", 0.0)]
    assert len(found.pairs) == 1


def test_an_answer_that_was_asked_again_counts_once() -> None:
    test_rows = rows(1)
    key = test_rows[0].id
    usage = Usage(cost_usd=0.002, latency_s=0.5)
    answers = {
        key: [
            Verdict(key, "teacher", "big", None, order=1, logprob=-3.0, usage=usage),
            Verdict(key, "teacher", "big", LABELS[0], order=1, logprob=-0.1, usage=usage),
        ]
    }
    (answer,) = RecordedTeacher("big", answers, TASK_OF_LABELS).predict([test_rows[0].messages])
    assert answer.label == LABELS[0] and answer.usage.cost_usd == 0.002
    assert answer.confidence == pytest.approx(np.exp(-0.1))


def test_the_learning_curve_rises(tmp_path: Path, tiny_encoder: Path) -> None:
    data = from_file(write_labelled(tmp_path / "x.csv", test=False), Columns())
    settings = data.task.student.model_copy(update={"encoder": str(tiny_encoder)})
    task = data.task.model_copy(update={"student": settings})
    test_rows = [
        TestRow("", (Message("user", text),), "user", label) for label, texts in TEXTS.items() for text in texts
    ]
    points = learning_curve(task, data.train, test_rows)
    assert [point.n for point in points] == [25, 27] and points[0].measured_on == 30
    assert points[-1].accuracy.value > 0.8


def test_the_html_report_escapes_texts_and_loads_nothing(report: Report) -> None:
    text = "<script>alert('x')</script>"
    report.models[2].mistakes[0].text = text
    report.learning_curve = []
    html = page.render(report)
    assert text not in html and "&lt;script&gt;" in html
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)|@import|url\((?!#|&)""", html)
    assert html.count("<svg") == 5 and "student is right on 78.0% of 100 test rows" in html
    assert fingerpost.__version__ in html


def test_the_tables_show_every_model(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(report)
    shown = capsys.readouterr().out
    assert shown.count("0.780 [0.") == 3 and "54% [" in shown and "$2.00" in shown
    assert "student is better than base" in shown and "500 requests" in shown


def test_the_report_is_json(report: Report) -> None:
    data = json.loads(report.model_dump_json())
    for key in ("name", "n", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "latency_p50_ms"):
        assert data["models"][2][key] is not None


def test_the_report_in_python(report: Report) -> None:
    assert {name: found.value for name, found in report.accuracy.items()} == {
        "base": 0.52,
        "big": 0.70,
        "student": 0.78,
    }
    assert report.student is report.best is report["student"] and report.teacher is report["big"]
    assert report.significant("student", "base") and not report.significant("base", "student")
    frame = pl.DataFrame(report.table())
    assert frame["accuracy"].to_list() == [0.52, 0.70, 0.78] and frame["error_reduction_low"][2] > 0
    with pytest.raises(KeyError):
        report["nothing"]


def test_the_report_in_a_notebook_is_an_escaped_table(report: Report) -> None:
    report.models[2].name = "<b>student"
    html = report._repr_html_()
    assert html.count("<tr>") == 4 and "<b>" not in html and "&lt;b&gt;student" in html and "54% [" in html


@pytest.mark.parametrize("code", [0, 1, 7, 27, 0x9B, 0x202E, 0xFFFE, 0xFFFF, 0x1FFFE, 0xD800])
def test_charts_of_strange_names_are_drawn(report: Report, code: int) -> None:
    from fingerpost.evaluation.report.page import render

    name = f"a{chr(code)}[/b]<script>"
    models = [report.models[0].model_copy(update={"name": name}), *report.models[1:]]
    strange = report.model_copy(update={"models": models, "labels": [name, *report.labels[1:]]})
    page = render(strange)
    assert "<script>" not in page
