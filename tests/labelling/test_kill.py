"""SIGKILL while the teacher labels: no answer is lost or paid twice, and the budget holds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from command_line import HOUR, Cli
from conftest import lines_of, teacher_process, write_questions

from fingerpost.core.types import Verdict
from fingerpost.core.verdicts import REVIEW
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import label, plan_labels
from fingerpost.store.project import Store
from fingerpost.task.loader import load_task

CONCURRENCY = 4
COST = (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6


@pytest.mark.parametrize(("kills", "questions"), [(2, 60), pytest.param(20, 600, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_loses_and_repeats_no_answer(tmp_path: Path, kills: int, questions: int) -> None:
    with teacher_process(tmp_path, 0.03) as log:
        task = load_task(tmp_path / "task.toml")
        with Store(tmp_path / "fingerpost.db") as store:
            import_file(store, task, write_questions(tmp_path / "q.txt", questions))
            budget = plan_labels(task, store).at_most_usd
        command = [sys.executable, "-m", "fingerpost", "label", "--yes", "--budget", str(budget)]
        draw = random.Random(5)
        for _ in range(kills):
            before = lines_of(log)
            run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, env=os.environ)
            while lines_of(log) < before + draw.randint(1, 12) and run.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.random() * 0.05)
            run.send_signal(signal.SIGKILL)
            run.wait()
            with Store(tmp_path / "fingerpost.db") as store:
                assert store.ledger.account().committed_usd <= budget
                assert lines_of(log) * COST <= store.ledger.account().committed_usd + CONCURRENCY * 1e-9
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HOUR)
        assert finished.returncode == 0, finished.stderr
    answered = Counter(json.loads(line) for line in log.read_text().splitlines())
    assert len(answered) == questions
    assert sum(answered.values()) - questions <= kills * CONCURRENCY
    with Store(tmp_path / "fingerpost.db") as store:
        verdicts = store.verdicts()
        assert len(verdicts) == questions and all(len(mine) == 1 for mine in verdicts.values())
        account = store.ledger.account()
        assert account.uncertain <= kills * CONCURRENCY
        assert sum(answered.values()) * COST <= account.committed_usd <= budget


def start_label(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fingerpost", "label", "--yes"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("questions", [200, pytest.param(1_000, marks=pytest.mark.slow)])
def test_labellers_at_once_share_the_questions_beside_an_import_and_a_review(tmp_path: Path, questions: int) -> None:
    with teacher_process(tmp_path, 0.02) as log:
        task = load_task(tmp_path / "task.toml")
        with Store(tmp_path / "fingerpost.db") as store:
            import_file(store, task, write_questions(tmp_path / "q.txt", questions))
            early = plan_labels(task, store)
        runs = [start_label(tmp_path) for _ in range(3)]
        with Store(tmp_path / "fingerpost.db") as store:
            import_file(store, task, write_questions(tmp_path / "more.txt", questions + 10))
            reviewed = store.questions("train")[:20]
            for question in reviewed:
                store.add_verdicts([Verdict(question.id, "human", "me", "other", origin=REVIEW, mark=question.id)])
        for run in runs:
            assert run.communicate(timeout=HOUR)[1] == "" and run.returncode == 0
        with Store(tmp_path / "fingerpost.db") as store:
            label(task, store, early, tmp_path)  # a plan from before
            label(task, store, plan_labels(task, store), tmp_path)
            kinds = Counter(verdict.kind for found in store.verdicts().values() for verdict in found)
        answered = Counter(json.loads(line) for line in log.read_text().splitlines())
    assert len(answered) == questions + 10 and set(answered.values()) == {1}
    assert kinds == {"teacher": questions + 10, "human": len(reviewed)}


def test_what_a_killed_labeller_was_asking_is_asked_by_another_one_that_waits_for_it(tmp_path: Path) -> None:
    with teacher_process(tmp_path, 3.0) as log:
        task = load_task(tmp_path / "task.toml")
        with Store(tmp_path / "fingerpost.db") as store:
            import_file(store, task, write_questions(tmp_path / "q.txt", CONCURRENCY))
            first = start_label(tmp_path)
            while store.ledger.account().calls < CONCURRENCY:
                time.sleep(0.01)
            second = start_label(tmp_path)
            time.sleep(1.0)
            first.kill()
            first.communicate()
            assert second.communicate(timeout=HOUR)[1] == "" and second.returncode == 0
            assert len(store.verdicts()) == CONCURRENCY
            account = store.ledger.account()
        assert CONCURRENCY <= lines_of(log) <= 2 * CONCURRENCY
    assert (account.calls, account.uncertain) == (2 * CONCURRENCY, CONCURRENCY)


def test_reservations_of_a_killed_run_are_released_by_hand(tmp_path: Path, cli: Cli) -> None:
    with teacher_process(tmp_path, 1.0) as log:
        task = load_task(tmp_path / "task.toml")
        with Store(tmp_path / "fingerpost.db") as store:
            import_file(store, task, write_questions(tmp_path / "q.txt", 40))
        command = [sys.executable, "-m", "fingerpost", "label", "--yes"]
        run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        while not lines_of(log):
            time.sleep(0.01)
        assert "of 0 interrupted calls" in cli("costs", "--release", cwd=tmp_path).stdout  # it is still asking
        run.kill()
        run.wait()
        with Store(tmp_path / "fingerpost.db") as store:
            before = store.ledger.account()
        assert before.uncertain_usd > 0
        assert f"of {before.uncertain} interrupted calls" in cli("costs", "--release", cwd=tmp_path).stdout
        with Store(tmp_path / "fingerpost.db") as store:
            after = store.ledger.account()
    assert after.uncertain == 0
    assert after.committed_usd == pytest.approx(before.committed_usd - before.uncertain_usd)
