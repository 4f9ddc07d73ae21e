"""Steps that take long show that they are alive: on a terminal, in a log, and not at all with --quiet."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import HOUR, Cli
from conftest import write_questions

from fingerpost.cli import progress
from fingerpost.core.types import Progress


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.1)
    with progress.showing_progress("label") as show:
        show(Progress("label", done=30, total=120, detail="3.0/s"))
        time.sleep(0.35)
        show(Progress("label", "a remark \x1b[2J"))
        show(Progress("label", done=60, total=120))
    lines = capsys.readouterr().err.splitlines()
    assert "  labelling: 30 of 120 (25 %), 0 min 00 s, 3.0/s" in lines
    assert any("a remark" in line and "\x1b" not in line for line in lines)
    assert 2 <= sum("30 of 120" in line for line in lines) <= 4


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.05)
    progress.set_quiet(True)
    try:
        with progress.showing_progress("train") as show:
            show(Progress("train", "news", 1, 2))
            time.sleep(0.2)
    finally:
        progress.set_quiet(False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["import", "q.txt"], ["predict", "MODEL", "q.txt", "-o", "out.csv"]])
def test_a_terminal_shows_a_bar(arguments: list[str], folder: Path, student: Path) -> None:
    write_questions(folder / "q.txt", 6_000)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fingerpost", *[str(student) if word == "MODEL" else word for word in arguments]]
    run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4_096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert run.wait(HOUR) == 0
    activity = "importing" if arguments[0] == "import" else "predicting"
    assert activity in seen.decode() and "%" in seen.decode()


def test_the_options_are_everywhere(cli: Cli) -> None:
    from fingerpost.cli import COMMANDS

    for name in (name for names in COMMANDS.values() for name in names):
        shown = cli(name, "--help").stdout
        if name == "tone":
            assert all(
                "--quiet" in cli(name, step, "--help").stdout for step in ("check", "requests", "train", "evaluate")
            )
        elif name != "keys":
            assert "--quiet" in shown, name
        if name != "keys":
            assert "Examples:" in shown and "More: fingerpost docs " in shown, name
        assert all(len(line) <= 100 for line in shown.splitlines()), name


@pytest.mark.parametrize(
    "command", ["status", "costs", "label", "train", "evaluate", "review", "define", "export", "run"]
)
def test_the_folder_is_taken_both_ways(command: str, cli: Cli, tmp_path: Path) -> None:
    shown = [cli(command, *where, cwd=tmp_path).stderr for where in (["nowhere"], ["-C", "nowhere"])]
    if command in ("train", "evaluate"):  # these take files, too: a folder is a project if it has a task.toml
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "task.toml").write_text("name = 3")
        shown = [cli(command, *where, cwd=tmp_path).stderr for where in (["shop"], ["-C", "shop"])]
    assert shown[0] == shown[1] and "task.toml" in shown[0]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["import", "predict"])
def test_ctrl_c_ends_with_130_and_half_a_file_is_never_left(command: str, folder: Path, student: Path) -> None:
    with (folder / "q.txt").open("w") as stream:
        stream.writelines(f"{number} is a question with some words {number * 7919}\n" for number in range(200_000))
    words = {"import": ["import", "q.txt"], "predict": ["predict", str(student), "q.txt", "-o", "out.csv"]}[command]
    run = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    waiting = "fingerpost.db" if command == "import" else "out.csv.partial"
    while not (folder / waiting).exists():
        time.sleep(0.02)
    time.sleep(0.3)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=HOUR)
    assert run.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("fingerpost: interrupted; ")
    assert not list(folder.glob("out.csv*"))
