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

from conftest import TASK, write_questions

from fingerpost.ingest import import_file
from fingerpost.label import plan
from fingerpost.store import Store
from fingerpost.task import load_task

KILLS, QUESTIONS, CONCURRENCY = 20, 600, 4
COST = (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6


def test_killed_at_random_moments(tmp_path: Path) -> None:
    log = tmp_path / "answered.log"
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("teacher.py")), "0.03", str(log)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout and server.stdin
    try:
        port = int(server.stdout.readline())
        (tmp_path / "task.toml").write_text(TASK.format(base_url=f"http://127.0.0.1:{port}/v1"))
        task = load_task(tmp_path / "task.toml")
        with Store(tmp_path / "fingerpost.db") as store:
            import_file(store, task, write_questions(tmp_path / "q.txt", QUESTIONS))
            budget = plan(task, store).at_most_usd
        command = [sys.executable, "-m", "fingerpost", "label", "--yes", "--budget", str(budget)]
        draw = random.Random(5)
        for _ in range(KILLS):
            before = _lines(log)
            run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, env=os.environ)
            while _lines(log) < before + draw.randint(1, 12) and run.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.random() * 0.05)
            run.send_signal(signal.SIGKILL)
            run.wait()
            with Store(tmp_path / "fingerpost.db") as store:
                assert store.ledger.account().committed_usd <= budget
                assert _lines(log) * COST <= store.ledger.account().committed_usd + CONCURRENCY * 1e-9
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert finished.returncode == 0, finished.stderr
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()
    answered = Counter(json.loads(line) for line in log.read_text().splitlines())
    assert len(answered) == QUESTIONS
    assert sum(answered.values()) - QUESTIONS <= KILLS * CONCURRENCY
    with Store(tmp_path / "fingerpost.db") as store:
        verdicts = store.verdicts()
        assert len(verdicts) == QUESTIONS and all(len(mine) == 1 for mine in verdicts.values())
        account = store.ledger.account()
        assert account.uncertain <= KILLS * CONCURRENCY
        assert sum(answered.values()) * COST <= account.committed_usd <= budget


def _lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0
