"""Labels that are the levels of a scale: in files, in Python, in projects, in the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Cli
from teacher import words
from tiny_encoder import tiny_encoder_folder

import fingerpost
from fingerpost.core.errors import TaskError
from fingerpost.evaluation.report import page
from fingerpost.students.denoise import Rows
from fingerpost.students.folder import read_manifest
from fingerpost.students.ordinal import over_levels
from fingerpost.task.loader import load_task

LEVELS = ["low", "middle", "high"]
SAID = {"low": "whenever you like", "middle": "some time this week", "high": "right now at once"}
OPTIONS: dict[str, Any] = {"encoder": str(tiny_encoder_folder()), "epochs": 0}


def rows(count: int, offset: int = 0) -> tuple[list[str], list[str]]:
    levels = [LEVELS[number % 3] for number in range(count)]
    return [f"{SAID[level]} {words(offset + number)}" for number, level in enumerate(levels)], levels


def test_a_level_is_spread_over_its_neighbours() -> None:
    targets = np.eye(4, dtype=np.float32)
    spread = over_levels(Rows([], np.zeros((4, 1), np.float32), targets, np.ones(4, np.float32), [])).targets
    assert spread.sum(1) == pytest.approx(np.ones(4)) and (spread.argmax(1) == np.arange(4)).all()
    assert spread[0, 0] > spread[0, 1] > spread[0, 2] > spread[0, 3] > 0
    assert spread[1, 0] == pytest.approx(spread[1, 2])


@pytest.mark.slow
def test_a_student_of_a_scale_and_its_report() -> None:
    student = fingerpost.train(*rows(60), levels=LEVELS, **OPTIONS)
    assert student.labels == LEVELS and student.manifest.ordinal
    report = fingerpost.evaluate([student], *rows(30, 1_000))
    (found,) = report.models
    assert report.ordinal and found.kappa is not None and found.mean_absolute_error is not None
    assert found.kappa.low <= found.kappa.value <= 1 and 0 <= found.mean_absolute_error.value <= 2
    assert "quadratic kappa" in report._repr_html_() and "mean absolute error" in page.render(report)
    ordinary = fingerpost.train(*rows(60), **OPTIONS)
    assert not fingerpost.evaluate([ordinary], *rows(30, 1_000)).ordinal
    with pytest.raises(TaskError, match="'middle' is not one of the levels"):
        fingerpost.train(*rows(60), levels=["low", "high"], **OPTIONS)


@pytest.mark.slow
def test_a_scale_in_a_file_and_in_a_project(cli: Cli, folder: Path) -> None:
    texts, levels = rows(60)
    lines = [f"{text},{level}" for text, level in zip(texts, levels, strict=True)]
    (folder / "tickets.csv").write_text("\n".join(["text,urgency", *lines]))
    options = ("--encoder", str(tiny_encoder_folder()), "--epochs", "0")
    done = cli("train", "tickets.csv", "--label", "urgency", "--levels", "low, middle,high", *options)
    assert done.returncode == 0 and "quadratic kappa" in done.stdout, done
    assert [label.name for label in read_manifest(folder / "models" / "tickets").labels] == LEVELS
    again = cli("evaluate", "models/tickets", "tickets.csv", "--label", "urgency")
    assert "mean abs. error" in again.stdout or "trained on all" in again.stderr, again
    assert "--levels is for files" in cli("train", "--levels", "low,high").stderr
    assert "--multi and --levels" in cli("train", "tickets.csv", "--multi", "--levels", "low,high").stderr
    text = (folder / "task.toml").read_text()
    (folder / "task.toml").write_text("ordinal = true\n" + text)
    with pytest.raises(TaskError, match="ordinal"):
        load_task(folder / "task.toml")  # it has a fallback
    (folder / "task.toml").write_text("ordinal = true\n" + text.replace('fallback = "other"\n', ""))
    assert load_task(folder / "task.toml").ordinal
