"""Runs of requests beside other runs, and runs that break off: no job is dropped, no paid answer is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import write_questions
from teacher import Teacher

from fingerpost.core.types import Progress
from fingerpost.data.importer import import_file
from fingerpost.labelling import requests
from fingerpost.labelling.label import label, plan_labels
from fingerpost.labelling.requests import LabelRequests, LabelSelection
from fingerpost.llm import runner
from fingerpost.llm.requests import lease_key
from fingerpost.store.ledger import Call
from fingerpost.store.project import Store
from fingerpost.store.rescue import repair
from fingerpost.task.settings import Task

QUESTIONS = 40


@pytest.fixture
def ready(store: Store, task: Task, folder: Path) -> Store:
    import_file(store, task, write_questions(folder / "q.txt", QUESTIONS))
    return store


def calls_of(task: Task, store: Store) -> list[Call]:
    """The calls of all requests that are still to be sent."""
    spec = LabelRequests(task)
    return [
        Call("label", "test-model", 0.01, lease_key("label", "test-model", spec.key(job)))
        for job in plan_labels(task, store).jobs.read(store)
    ]


@pytest.mark.parametrize("most", [2, 500])
def test_jobs_that_another_process_leaves_unanswered_are_asked(
    ready: Store, task: Task, folder: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(runner, "MAX_LEASED", most)
    teacher.delay_s = 0.01
    with Store(ready.path) as other:
        other.ledger.record([], calls_of(task, ready)[:7], None)
        threading.Timer(1.0, other.close).start()
        done = label(task, ready, plan_labels(task, ready), folder)
    assert (done.done, done.elsewhere) == (QUESTIONS, 0)
    assert len(ready.verdicts()) == QUESTIONS and set(teacher.answered.values()) == {1}


def test_two_runs_count_what_the_other_one_answered(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.delay_s = 0.02
    found: list[Any] = []

    def run() -> None:
        with Store(ready.path) as store:
            found.append(label(task, store, plan, folder))

    plan = plan_labels(task, ready)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done.done for done in found) == QUESTIONS
    assert all(done.done + done.elsewhere == QUESTIONS and done.done for done in found)


def test_a_run_that_breaks_off_leaves_no_lease_and_no_answer_behind(
    ready: Store, task: Task, folder: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(progress: Progress) -> None:
        if progress.done >= 5:
            raise KeyError("shown")

    with pytest.raises(KeyError):
        label(task, ready, plan_labels(task, ready), folder, on_progress=break_off)
    assert len(ready.verdicts()) == sum(teacher.answered.values()) < QUESTIONS
    monkeypatch.setattr(requests, "CHUNK", 10)
    plan, read = plan_labels(task, ready), ready.questions_by_id
    monkeypatch.setattr(ready, "questions_by_id", lambda ids: read(ids) if len(teacher.answered) < 12 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        label(task, ready, plan, folder)
    assert len(ready.verdicts()) == sum(teacher.answered.values())
    monkeypatch.undo()
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    began = time.monotonic()
    label(task, ready, plan_labels(task, ready), folder)
    assert time.monotonic() - began < 30 and set(teacher.answered.values()) == {1}
    assert ready.ledger.account().uncertain == 0


def test_after_a_repair_questions_can_be_asked_again(store: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    import_file(store, task, write_questions(folder / "q.txt", 8))
    teacher.reply = "nonsense"
    label(task, store, plan_labels(task, store), folder)
    store.close()
    repair(store.path)
    teacher.reply = None
    with Store(store.path) as repaired:
        done = label(task, repaired, plan_labels(task, repaired, LabelSelection(retry=True)), folder)
    assert (done.done, done.usable, done.elsewhere) == (8, 8, 0)
