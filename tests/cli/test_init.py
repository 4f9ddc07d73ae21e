"""Starting a project: in a terminal it asks for labels, teacher, endpoint and prompt, and tries the teacher."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from command_line import HOUR, Cli
from teacher import Teacher

from fingerpost.task.loader import load_task


def test_a_terminal_is_asked_for_everything(tmp_path: Path, teacher: Teacher) -> None:
    (tmp_path / "prompt.txt").write_text("Choose one of:\n{labels}")
    answers = ["shop", "billing: invoices and payments", "delivery", "other: anything else", "",
               "test-model", teacher.base_url, "prompt.txt", "where is my delivery?"]  # fmt: skip
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", "init", "new"],
        cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    printed, errors = run.communicate(timeout=HOUR)
    os.close(ours)
    assert run.returncode == 0, errors
    task = load_task(tmp_path / "new" / "task.toml")
    assert (task.name, task.names, task.fallback) == ("shop", ["billing", "delivery", "other"], "other")
    assert task.teacher is not None and (task.teacher.model, task.teacher.base_url) == ("test-model", teacher.base_url)
    assert task.prompt and "Choose one of" in task.prompt
    assert "1 labels have no description of their own (delivery)" in printed
    assert "the teacher answers: delivery" in printed or "the trial failed: no price is known" in errors
    assert printed.splitlines()[-1] == "next: fingerpost status new"


def test_a_trial_shows_the_answer_and_what_it_cost(folder: Path, cli: Cli, teacher: Teacher) -> None:
    from fingerpost.project import Project

    answer = Project(folder).ask_teacher("where is my delivery?", budget_usd=1)
    assert (answer.label, answer.by) == ("delivery", "test-model") and answer.usage.cost_usd
    assert "test-model" in cli("costs").stdout and "questions, " not in cli("status").stdout


def test_a_file_of_labels_needs_no_texts(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "labels.csv").write_bytes("id;Ziel\n1;Büro\n2;Lohn\n3;Büro\n".encode("cp1252"))
    told = cli("init", "new", "--from", "labels.csv", "--label", "Ziel", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert load_task(tmp_path / "new" / "task.toml").names == ["Büro", "Lohn"]
    assert 'label = "Ziel"' in (tmp_path / "new" / "task.toml").read_text(), (
        "run imports the file with the same options"
    )
