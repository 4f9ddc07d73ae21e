"""Interrupted generation: kills at random moments, budgets, batches."""

from __future__ import annotations

import json
import multiprocessing
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import lines_of, teacher_process
from generation_helpers import generate_in, run
from teacher import Teacher

from fingerpost.core.errors import BudgetError
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

CONCURRENCY = 4  # of the task in conftest


class Forked:
    """A run of generation in a process that has its imports done already; as a `Popen`."""

    def __init__(self, folder: Path, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["generation_helpers"])
        self._process = context.Process(target=generate_in, args=(folder, count))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode


@pytest.mark.slow
def test_killed_once(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, lambda: Forked(tmp_path, 40), 40, kills=1)


@pytest.mark.slow
def test_the_command_killed_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fingerpost", "generate", "--count", "100", "--yes", "--budget", "1"]
    kill_at_random_moments(
        tmp_path, lambda: subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL), 100, kills=6
    )


def kill_at_random_moments(
    folder: Path, start: Callable[[], Forked | subprocess.Popen[bytes]], count: int, kills: int
) -> None:
    """Only requests in flight at a kill are paid for twice, nothing is lost, and the budget of $1 holds."""
    with teacher_process(folder, 0.02) as log:
        draw = random.Random(3)
        for _ in range(kills):
            before, asked, wait_for = time.monotonic(), lines_of(log), draw.randint(3, 30)
            running = start()
            while lines_of(log) < asked + wait_for and running.poll() is None and time.monotonic() < before + 60:
                time.sleep(0.005)
            assert running.poll() is None
            running.kill()
            running.wait()
            with Store(folder / "fingerpost.db") as store:
                assert store.ledger.account().committed_usd <= 1
        assert start().wait(3600) == 0
    answered = Counter(json.loads(line) for line in log.read_text().splitlines())
    with Store(folder / "fingerpost.db") as store:
        drafts = store.drafts()
        once = len(drafts) + len(store.questions())
        assert sum(answered.values()) - once <= kills * CONCURRENCY
        assert all(draft.answered and draft.outcomes is not None for draft in drafts)
        found = store.verdicts()
        assert len(found) == len(store.questions()) >= count
        assert all(sum(verdict.kind == "teacher" for verdict in given) == 1 for given in found.values())
        assert store.ledger.account().uncertain <= kills * CONCURRENCY


def test_the_budget_holds_and_a_higher_one_goes_on(store: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    with pytest.raises(BudgetError, match="raise --budget"):
        run(task, store, folder, count=30, budget_usd=1e-6)
    done = run(task, store, folder, count=30, budget_usd=0.004)
    assert done.stopped == "budget" and store.ledger.account().committed_usd <= 0.004
    asked = Counter(teacher.asked)
    assert run(task, store, folder, count=30).kept >= 30
    assert all(teacher.asked[text] == n for text, n in asked.items() if text.startswith("Write"))


def test_in_batches_at_half_the_price(store: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.batches.polls = 1
    done = run(task, store, folder, count=40, batch=True)
    assert done.kept >= 40 and teacher.batches.created >= 3
    lines = store.ledger.step_costs()
    assert {(line.step, line.batch) for line in lines} == {("generate", True), ("label", True)}
    full = sum(line.calls for line in lines) * (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6
    assert store.ledger.account().committed_usd == pytest.approx(full / 2)
    assert store.ledger.account().uncertain == 0
