"""Every step that asks a model, with every fault of faults.py: one of our errors or a result, a ledger that adds up, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_questions
from faults import ALL, ANSWERED, LOST, REFUSED, REJECTED
from generation_helpers import generate_in
from reviewing import GOLD, fill
from teacher import Teacher

from fingerpost.core.errors import FingerpostError, TeacherError
from fingerpost.core.text import check_characters
from fingerpost.core.types import Message, Verdict
from fingerpost.data.importer import import_file
from fingerpost.labelling.descriptions import confused_labels, propose
from fingerpost.labelling.label import label, plan_labels
from fingerpost.labelling.teacher import LiveTeacher
from fingerpost.llm import client
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

QUESTIONS = 8


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 3)


@pytest.fixture
def ready(store: Store, task: Task, folder: Path) -> Store:
    import_file(store, task, write_questions(folder / "q.txt", QUESTIONS))
    return store


def check_ledger(store: Store) -> None:
    """No cost is missing, and what was answered is stored once and can be written to any terminal's files."""
    account = store.ledger.account()
    found = [verdict for given in store.verdicts().values() for verdict in given if verdict.kind == "teacher"]
    assert account.committed_usd + 1e-12 >= sum(verdict.usage.cost_usd or 0 for verdict in found)
    assert 0 <= account.committed_usd < 1
    assert all(check_characters(verdict.raw or "") is None for verdict in found)


@pytest.mark.parametrize("name", ALL)
def test_one_fault_while_labelling_ends_nothing_that_it_need_not_end(
    ready: Store, task: Task, folder: Path, teacher: Teacher, name: str
) -> None:
    teacher.raw = [("chat", ALL[name])]
    if name in REFUSED:
        with pytest.raises(TeacherError):
            label(task, ready, plan_labels(task, ready), folder)
        check_ledger(ready)
        label(task, ready, plan_labels(task, ready), folder)
    else:
        done = label(task, ready, plan_labels(task, ready), folder)
        assert done.done == QUESTIONS and done.usable >= QUESTIONS - (name in REJECTED or name in ANSWERED)
    assert ready.ledger.account().uncertain == (name in LOST)
    assert len(ready.verdicts()) == QUESTIONS and max(teacher.answered.values()) == 1
    check_ledger(ready)


def batch_label(task: Task, store: Store, folder: Path) -> None:
    label(task, store, plan_labels(task, store, batch=True), folder, batch=True)


def describe(task: Task, store: Store, folder: Path) -> None:
    fill(store)
    found = [question for question in store.questions("train") if GOLD.get(question.id) == "delivery"]
    store.add_verdicts(Verdict(question.id, "human", "ann", "delivery") for question in found)
    propose(task, store, confused_labels(task, store), folder)


def predict(task: Task, store: Store, folder: Path) -> None:
    with LiveTeacher(task, folder, store.ledger, 1.0) as live:
        live.predict([(Message("user", f"my invoice {number}"),) for number in range(4)])


def generate(task: Task, store: Store, folder: Path) -> None:
    generate_in(folder, 3)


STEPS: dict[str, tuple[Callable[[Task, Store, Path], Any], tuple[str, ...]]] = {
    "batch": (batch_label, ("/v1/files", "/v1/batches", "/content")),
    "define": (describe, ("chat",)),
    "predict": (predict, ("chat",)),
    "generate": (generate, ("chat",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("step", "path"), [(step, path) for step, (_, paths) in STEPS.items() for path in paths])
def test_a_fault_in_any_step_is_one_of_our_errors_or_nothing(
    ready: Store, task: Task, folder: Path, teacher: Teacher, name: str, step: str, path: str
) -> None:
    for times in (1, 200):
        teacher.raw = [(path, ALL[name])] * times
        try:
            STEPS[step][0](task, ready, folder)
        except FingerpostError as error:
            assert str(error).isprintable(), error
        check_ledger(ready)
    teacher.raw = []
    STEPS[step][0](task, ready, folder)
    check_ledger(ready)
