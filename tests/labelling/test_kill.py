"""kill -9 while the teacher labels: nothing lost, nothing paid twice, the budget never exceeded."""

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

from conftest import lines_of, teacher_process, write_questions

from fingerpost.data.importer import import_file
from fingerpost.labelling.label import plan
from fingerpost.store.project import Store
from fingerpost.task.loader import load_task

KILLS, QUESTIONS, CONCURRENCY = 20, 600, 4
COST = (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6


def test_killed_at_random_moments(tmp_path: Path) -> None:
    with teacher_process(tmp_path, 0.03) as log:
        task = load_task(tmp_path / "task.toml")
        with Store(tmp_path / "fingerpost.db") as store:
            import_file(store, task, write_questions(tmp_path / "q.txt", QUESTIONS))
            budget = plan(task, store).at_most_usd
        command = [sys.executable, "-m", "fingerpost", "label", "--yes", "--budget", str(budget)]
        draw = random.Random(5)
        for _ in range(KILLS):
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
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert finished.returncode == 0, finished.stderr
    answered = Counter(json.loads(line) for line in log.read_text().splitlines())
    assert len(answered) == QUESTIONS
    assert sum(answered.values()) - QUESTIONS <= KILLS * CONCURRENCY
    with Store(tmp_path / "fingerpost.db") as store:
        verdicts = store.verdicts()
        assert len(verdicts) == QUESTIONS and all(len(mine) == 1 for mine in verdicts.values())
        account = store.ledger.account()
        assert account.uncertain <= KILLS * CONCURRENCY
        assert sum(answered.values()) * COST <= account.committed_usd <= budget
