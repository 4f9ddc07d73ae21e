"""`evaluate` measures the mixture that `serve` runs: the student where it is sure, the teacher elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import write_labelled
from teacher import Teacher

from fingerpost.core.errors import InputError, TeacherError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.types import Message, Prediction, Usage
from fingerpost.data.rows import Columns
from fingerpost.evaluation.file import evaluate_texts
from fingerpost.evaluation.thresholds import CascadeTarget
from fingerpost.project import Project
from fingerpost.students.cascade import Cascade
from fingerpost.students.folder import manifest_of
from fingerpost.task.settings import Task

LABELS = ["billing", "delivery", "other"]


class Fixed(BasePredictor):
    """Answers each text by a table: text to (label, confidence)."""

    def __init__(self, name: str, answers: dict[str, tuple[str | None, float]], task: Task, kind: str = "test") -> None:
        self.name, self.labels, self.manifest = name, LABELS, manifest_of(kind, name, task)
        self._answers = answers
        self.asked: list[str] = []

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        found = []
        for given in conversations:
            text = given if isinstance(given, str) else given[-1].content
            self.asked.append(text)
            label, confidence = self._answers[text]
            found.append(Prediction(label, confidence, {}, self.name, Usage(cost_usd=0.5, latency_s=0.25)))
        return found


@pytest.fixture
def models(task: Task) -> tuple[Fixed, Fixed]:
    student = Fixed("student", {"a": ("billing", 0.9), "b": ("billing", 0.4), "c": ("other", 0.2)}, task)
    teacher = Fixed("llm", {"a": ("other", 1.0), "b": ("delivery", 0.8), "c": (None, math.nan)}, task, "teacher")
    return student, teacher


def test_the_teacher_answers_only_what_the_student_is_unsure_of(models: tuple[Fixed, Fixed]) -> None:
    student, teacher = models
    found = Cascade(student, teacher, 0.5).predict(["a", "b", "c"])
    assert teacher.asked == ["b", "c"]
    assert [(answer.label, answer.by) for answer in found] == [
        ("billing", "student"),
        ("delivery", "llm"),
        ("other", "student"),  # the teacher gave no label
    ]
    assert [answer.usage.cost_usd for answer in found] == [0.5, 1.0, 1.0]


def test_a_failing_teacher_leaves_the_students_answers(models: tuple[Fixed, Fixed]) -> None:
    class Down(Fixed):
        def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
            raise TeacherError(f"down, {len(conversations)} unanswered")

    student, teacher = models
    teacher.__class__ = Down
    assert [answer.label for answer in Cascade(student, teacher, 1.0).predict(["a", "b"])] == ["billing", "billing"]


def test_the_report_has_accuracy_share_cost_and_latency_of_the_mixture(models: tuple[Fixed, Fixed]) -> None:
    student, teacher = models
    report = evaluate_texts(
        [student, Cascade(student, teacher, 0.5)], ["a", "b", "c"], ["billing", "delivery", "other"]
    )
    alone, mixture = report.models
    assert (alone.accuracy, mixture.accuracy) == (pytest.approx(2 / 3), 1.0)
    assert mixture.role == "cascade" and alone.teacher_share is None
    assert mixture.teacher_share is not None and mixture.teacher_share.value == pytest.approx(1 / 3)
    assert mixture.cost_per_1000_usd == pytest.approx(1000 * (0.5 + 1 + 1) / 3)
    assert mixture.latency_p95_ms is not None and mixture.latency_p95_ms >= 250


@pytest.fixture
def labelled(folder: Path) -> Project:
    """A project whose teacher has answered every question."""
    project = Project(folder)
    project.import_file(write_labelled(folder / "data.csv"), Columns())
    project.label(project.plan_labels())
    return project


def test_a_project_measures_what_it_serves(labelled: Project, teacher: Teacher) -> None:
    labelled.train(epochs=0)
    report = labelled.evaluate(cascade=CascadeTarget(cutoff=1.0))
    answered = next(model for model in report.models if model.role == "teacher")
    mixture = next(model for model in report.models if model.role == "cascade")
    assert mixture.name == "student+teacher"
    assert mixture.accuracy == answered.accuracy and mixture.teacher_share is not None
    assert mixture.teacher_share.value == 1.0
    assert mixture.cost_per_1000_usd == pytest.approx(answered.cost_per_1000_usd)
    stored = json.loads((labelled.reports / "report.json").read_text())
    assert "cascade" in {model["role"] for model in stored["models"]}
    few = labelled.evaluate(cascade=CascadeTarget(accuracy=0.95))
    assert any("all requests are forwarded to test-model" in note for note in few.notes)  # three dev rows show nothing


def test_without_the_teachers_answers_it_says_what_to_run(folder: Path) -> None:
    project = Project(folder)
    project.import_file(write_labelled(folder / "data.csv"), Columns())
    project.train("human", epochs=0)
    with pytest.raises(InputError, match="fingerpost label"):
        project.evaluate(cascade=CascadeTarget(accuracy=0.9))
