"""Every predictor of the project against the same contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TEXTS
from predictor_contract import Input, check_interface, check_predictor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from teacher import LABELS, Teacher
from tiny_generator import tiny_generative_student

import fingerpost
from fingerpost.core.conversations import conversation_of
from fingerpost.core.text import question_id
from fingerpost.core.types import Label, Message, Verdict
from fingerpost.evaluation.estimators import EstimatorPredictor
from fingerpost.evaluation.teachers import RecordedTeacher
from fingerpost.labelling.teacher import LiveTeacher
from fingerpost.students.cascade import Cascade
from fingerpost.students.folder import Manifest, write_manifest
from fingerpost.task.settings import StudentSettings, Task

SHOP = Task(name="shop", labels=tuple(Label(name=name, description=name) for name in LABELS))
CONVERSATIONS: list[Input] = [
    "where is my parcel for delivery",
    "my billing invoice is wrong",
    [Message("user", "hello"), Message("assistant", "yes?"), Message("user", "the delivery is late")],
    "what a nice day",
    "the parcel was lost in delivery " * 20,
]


def encoder_student(student: Path, request: pytest.FixtureRequest) -> Any:
    return fingerpost.load(student)


def base(student: Path, request: pytest.FixtureRequest) -> Any:
    from fingerpost.students.encoder.train import fit_base

    encoder = str(request.getfixturevalue("tiny_encoder"))
    labels = tuple(Label(name=name, description=name) for name in LABELS)
    folder = request.getfixturevalue("tmp_path") / "base"
    fit_base(Task(name="shop", labels=labels, student=StudentSettings(encoder=encoder)), folder)
    return fingerpost.load(folder)


def hosted_student(student: Path, request: pytest.FixtureRequest) -> Any:
    teacher: Teacher = request.getfixturevalue("teacher")
    folder = request.getfixturevalue("tmp_path") / "hosted"
    folder.mkdir()
    write_manifest(folder, Manifest(
        kind="hosted", name="m", created="", fingerpost="0", labels=[Label(name=name) for name in LABELS],
        answer_field="action", history=0, max_tokens=64, task_fingerprint="",
        hosted={"model": "ft:m", "base_url": teacher.base_url, "key_env": "NO_KEY", "job": "j"},
    ))  # fmt: skip
    return fingerpost.load(folder)


def generative_student(student: Path, request: pytest.FixtureRequest) -> Any:
    return fingerpost.load(tiny_generative_student())


def answers(votes: int, logprob: float | None) -> dict[str, list[Verdict]]:
    """A teacher's verdicts on the conversations: `votes` of them each, the last of which says "other"."""
    found = {}
    for given in CONVERSATIONS:
        turns = conversation_of(given, "text")
        for question in (turns, (turns[0],)):
            key = question_id(question)
            label = next((name for name in LABELS if name in question[-1].content), "other")
            named = [label] * max(1, votes - 1) + ["other"] * (votes > 1)
            found[key] = [
                Verdict(key, "teacher", "big", name, order=order, logprob=logprob) for order, name in enumerate(named)
            ]
    return found


def recorded_teacher(student: Path, request: pytest.FixtureRequest) -> Any:
    return RecordedTeacher("big", answers(votes=1, logprob=-0.1), SHOP)


def recorded_teacher_without_probabilities(student: Path, request: pytest.FixtureRequest) -> Any:
    return RecordedTeacher("big", answers(votes=1, logprob=None), SHOP)


def recorded_teacher_with_votes(student: Path, request: pytest.FixtureRequest) -> Any:
    return RecordedTeacher("big", answers(votes=3, logprob=-0.1), SHOP)


def live_teacher(student: Path, request: pytest.FixtureRequest) -> Any:
    return LiveTeacher(request.getfixturevalue("task"), request.getfixturevalue("tmp_path"))


def live_teacher_with_a_ledger(student: Path, request: pytest.FixtureRequest) -> Any:
    store = request.getfixturevalue("store")
    return LiveTeacher(request.getfixturevalue("task"), request.getfixturevalue("tmp_path"), store.ledger, 10.0)


def cascade(student: Path, request: pytest.FixtureRequest) -> Any:
    return Cascade(fingerpost.load(student), live_teacher(student, request), 0.9)


def scikit_learn_pipeline(student: Path, request: pytest.FixtureRequest) -> Any:
    texts = [text for texts in TEXTS.values() for text in texts]
    labels = [label for label, texts in TEXTS.items() for _ in texts]
    return EstimatorPredictor(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels))


PREDICTORS: list[Callable[[Path, pytest.FixtureRequest], Any]] = [
    encoder_student,
    base,
    hosted_student,
    generative_student,
    recorded_teacher,
    recorded_teacher_without_probabilities,
    recorded_teacher_with_votes,
    live_teacher,
    live_teacher_with_a_ledger,
    cascade,
    scikit_learn_pipeline,
]


@pytest.fixture(params=PREDICTORS, ids=lambda make: make.__name__)
def predictor(request: pytest.FixtureRequest, student: Path) -> Any:
    made = request.param(student, request)
    yield made
    made.close()


def test_predictions(predictor: Any) -> None:
    check_predictor(predictor, CONVERSATIONS)


def test_labels_manifest_probabilities_and_close(predictor: Any) -> None:
    check_interface(predictor, CONVERSATIONS)
