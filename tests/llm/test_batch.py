"""Labelling through a batch API: against our own server, killed between any two steps, with lost and failed requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from command_line import Cli
from conftest import question_text, write_questions
from serving import Serving
from teacher import Teacher

from fingerpost.core.errors import BudgetError, TeacherError
from fingerpost.core.types import Progress
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import label, plan_labels
from fingerpost.labelling.requests import STEP, LabelSelection
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

COST = (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 2e6  # of one answer of the test teacher, in a batch


@pytest.fixture
def ready(store: Store, task: Task, folder: Path) -> Store:
    import_file(store, task, write_questions(folder / "q.txt", 30))
    return store


def post(task: Task, store: Store, folder: Path, **options: Any) -> Any:
    return label(task, store, plan_labels(task, store, batch=True), folder, batch=True, **options)


def test_our_own_server_labels_in_a_batch(store: Store, task: Task, folder: Path, server: Serving) -> None:
    assert task.teacher is not None
    teacher = task.teacher.model_copy(update={"model": "student", "base_url": server.url})
    task = task.model_copy(update={"teacher": teacher})
    import_file(store, task, write_questions(folder / "q.txt", 30))
    told: list[str] = []
    done = post(task, store, folder, on_progress=lambda progress: told.append(progress.message))
    assert (done.done, done.usable, done.stopped) == (30, 30, "")
    assert all(found[0].label in task.names for found in store.verdicts().values())
    (line,) = store.ledger.step_costs()
    assert (line.step, line.batch, line.calls) == ("label", True, 30) and line.prompt_tokens > 0
    assert any("completed, 30 of 30 answered" in each for each in told)
    assert len(plan_labels(task, store).jobs) == 0


def test_a_batch_costs_half_and_is_settled_to_the_cent(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    planned, live = plan_labels(task, ready, batch=True), plan_labels(task, ready)
    assert planned.at_most_usd == pytest.approx(live.at_most_usd / 2)
    done = post(task, ready, folder)
    assert done.usable == 30 and done.cost_usd == pytest.approx(30 * COST)
    account = ready.ledger.account()
    assert account.committed_usd == pytest.approx(30 * COST) and account.uncertain == 0
    assert teacher.batches.created == 1 and teacher.bodies[0]["temperature"] == 0


STEPS: list[tuple[str, Callable[..., Any]]] = [
    ("files", openai.resources.files.Files.create),
    ("batches", openai.resources.batches.Batches.create),
    ("batches", openai.resources.batches.Batches.retrieve),
    ("files", openai.resources.files.Files.content),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_killed_between_two_steps_it_asks_nothing_twice(
    ready: Store, task: Task, folder: Path, teacher: Teacher, step: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step it dies before or after, the next run goes on from there."""
    _, method = STEPS[step]
    owner = {
        "Files": openai.resources.files.Files,
        "Batches": openai.resources.batches.Batches,
    }[method.__qualname__.split(".")[0]]

    class Killed(BaseException):
        pass

    def dies(*arguments: Any, **options: Any) -> Any:
        if after:
            method(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, method.__name__, dies)
        with pytest.raises(Killed):
            post(task, ready, folder)
    assert ready.ledger.account().uncertain == 30  # reserved until it is known how they ended
    useful = [post(task, ready, folder).usable, post(task, ready, folder).usable]
    assert useful == ([0, 30] if (step, after) == (1, False) else [30, 0])  # at first it has to ask what was created
    assert teacher.answered == Counter({question_text(i): 1 for i in range(30)})
    assert ready.ledger.account().uncertain == 0
    assert ready.ledger.account().committed_usd == pytest.approx(30 * COST)


def test_what_lies_in_a_batch_is_not_asked_at_once(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.batches.polls = 1000

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    assert post(task, ready, folder, on_progress=interrupt).stopped == "interrupted"
    assert len(ready.batch_keys(STEP)) == 30 and len(plan_labels(task, ready).jobs) == 0
    assert len(plan_labels(task, ready, LabelSelection(votes=2)).jobs) == 30
    teacher.batches.batches["batch_1"]["polls"] = 0
    assert post(task, ready, folder).usable == 30
    assert teacher.batches.created == 1


def test_what_comes_back_unanswered_is_asked_again_and_not_charged(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.batches.lose = 10
    assert post(task, ready, folder).usable == 20
    assert ready.ledger.account().committed_usd == pytest.approx(20 * COST)
    assert post(task, ready, folder).usable == 10


def test_a_batch_that_fails_says_why(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.batches.fail = "the input file is too large"
    with pytest.raises(TeacherError, match="failed: the input file is too large"):
        post(task, ready, folder)
    teacher.batches.fail = ""
    assert ready.ledger.account().committed_usd == 0
    assert post(task, ready, folder).usable == 30


def test_a_provider_that_takes_files_but_no_batches_keeps_nothing_back(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.batches.none = True
    with pytest.raises(TeacherError, match="has no batches; run the command without --batch"):
        post(task, ready, folder)
    assert ready.ledger.account().committed_usd == pytest.approx(0)
    assert label(task, ready, plan_labels(task, ready), folder).usable == 30


def test_a_request_that_the_endpoint_does_not_understand_is_no_answer(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.refuse = {"logprobs": "logprobs are not supported"}
    with pytest.raises(TeacherError, match="refuses the requests: .*logprobs are not supported.*without --batch"):
        post(task, ready, folder)
    assert ready.verdicts() == {} and ready.ledger.account().committed_usd == pytest.approx(0)
    assert label(task, ready, plan_labels(task, ready), folder).usable == 30


def test_another_teacher_is_not_kept_waiting(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.batches.polls = 1000

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    post(task, ready, folder, on_progress=interrupt)
    assert task.teacher is not None
    other = task.model_copy(update={"teacher": task.teacher.model_copy(update={"model": "another"})})
    assert len(plan_labels(task, ready).jobs) == 0 and len(plan_labels(other, ready).jobs) == 30


def test_the_budget_holds(ready: Store, task: Task, folder: Path) -> None:
    most = plan_labels(task, ready, batch=True).at_most_usd
    with pytest.raises(BudgetError, match="raise --budget"):
        post(task, ready, folder, budget_usd=most / 100)
    done = post(task, ready, folder, budget_usd=most / 2)
    assert done.stopped == "budget" and 10 <= done.done <= 15
    assert ready.ledger.account().committed_usd <= most / 2


def test_another_provider_and_one_without_batches(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.batches.polls = 1000

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    post(task, ready, folder, on_progress=interrupt)
    assert task.teacher is not None
    moved = task.teacher.model_copy(update={"base_url": f"http://localhost:{teacher.port}/v1"})
    with pytest.raises(TeacherError, match="a batch of 30 requests lies at http://127.0.0.1.*set base_url back"):
        post(task.model_copy(update={"teacher": moved}), ready, folder)


def test_costs_tell_batches_and_what_it_would_have_cost(ready: Store, task: Task, folder: Path, cli: Cli) -> None:
    label(task, ready, plan_labels(task, ready, LabelSelection(limit=10)), folder)
    post(task, ready, folder)
    shown = cli("costs").stdout.splitlines()
    assert shown[0].split() == ["step", "model", "calls", "uncached", "cached", "reply", "seconds", "cost", "naively"]
    naive = (100 * 1.0 + 5 * 4.0) / 1e6
    assert shown[1].split()[:6] == ["label", "test-model", "10", "400", "600", "50"]
    assert shown[1].split()[-2:] == [f"${20 * COST:.4f}", f"${10 * naive:.4f}"]
    assert shown[2].split()[:3] == ["label", "(batch)", "test-model"]
    assert shown[2].split()[-2:] == [f"${20 * COST:.4f}", f"${20 * naive:.4f}"]
    assert f"total ${40 * COST:.4f}" in shown[3]


def test_results_that_lack_answers_are_looked_for_once_more(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.batches.hide = 4
    with pytest.raises(TeacherError, match="4 answers are missing"):
        label(task, ready, plan_labels(task, ready, batch=True), folder, batch=True)
    assert len(ready.verdicts()) == 26 and ready.ledger.account().uncertain == 4
    assert len(plan_labels(task, ready).jobs) == 0  # they are at the provider
    label(task, ready, plan_labels(task, ready, batch=True), folder, batch=True)
    assert len(ready.verdicts()) == 26 and ready.ledger.account().uncertain == 4
    label(task, ready, plan_labels(task, ready), folder)
    assert len(ready.verdicts()) == 30 and teacher.batches.created == 1
