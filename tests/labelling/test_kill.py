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
from command_line import HOUR
from conftest import lines_of, teacher_process, write_questions

from fingerpost.data.importer import import_file
from fingerpost.labelling.label import plan_labels
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
