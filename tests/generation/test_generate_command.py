"""The command `generate`: price, results, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from generation_helpers import one_thread
from typer.testing import CliRunner

from fingerpost.cli import app
from fingerpost.core.errors import FingerpostError, ModelError, TaskError
from fingerpost.task.loader import load_task


def test_the_command_with_the_real_encoder(folder: Path) -> None:
    with one_thread():
        done = CliRunner().invoke(
            app, ["generate", "-C", str(folder), "--count", "20", "--yes"], catch_exceptions=False
        )
    assert done.exit_code == 0
    assert "at most $" in done.stdout and "round 1: " in done.stdout and "done: there are 2" in done.stdout
    status = CliRunner().invoke(app, ["status", str(folder)])
    assert "written by test-model: 2" in status.stdout and "next: fingerpost train" in status.stdout


def test_nothing_is_asked_without_consent(folder: Path) -> None:
    with pytest.raises(FingerpostError, match="add --yes"):
        CliRunner().invoke(app, ["generate", "-C", str(folder), "--count", "20"], catch_exceptions=False)


def test_errors_of_a_student_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModelError, match="models/student"):
        CliRunner().invoke(app, ["generate", "-C", str(folder), "--from-errors", "--yes"], catch_exceptions=False)


def test_an_unknown_language(folder: Path) -> None:
    file = folder / "task.toml"
    file.write_text(file.read_text() + '\n[generate]\nlanguages = ["xx"]\n')
    with pytest.raises(TaskError, match="'xx'"):
        load_task(file)
