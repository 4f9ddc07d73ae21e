"""The commands of the command line: what they print, their exit codes, and their error messages."""

from __future__ import annotations

import csv
import errno
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import typer
from command_line import Cli
from conftest import ROOT, write_labelled, write_questions
from serving import Serving
from sqlalchemy.exc import OperationalError
from teacher import Teacher


def failed(run: CompletedProcess[str], *words: str, code: int = 2) -> None:
    """The run ended with this exit code, and the last line on standard error has all of the words; no traceback."""
    assert run.returncode == code, run.stdout + run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("fingerpost: ") and "Traceback" not in run.stderr
    for word in words:
        assert word in last, last


def test_run_does_every_step_once(cli: Cli, folder: Path, teacher: Teacher) -> None:
    write_labelled(folder / "data.csv")
    with (folder / "task.toml").open("a") as stream:
        stream.write('\n[[data]]\nfile = "data.csv"\n')
    assert "next: fingerpost import FILE" in cli("status").stdout
    first = cli("run", "--yes", "--budget", "1")
    assert first.returncode == 0, first.stderr
    assert "error reduction" in first.stdout and "test-model" in first.stdout
    assert (folder / "reports" / "report.html").is_file() and (folder / "models" / "student" / "model.onnx").is_file()
    asked = sum(teacher.asked.values())
    second = cli("run", "--yes")
    assert (
        second.returncode == 0 and "up to date" in second.stdout and "trained on these labels already" in second.stdout
    )
    assert sum(teacher.asked.values()) == asked == 30
    status = cli("status").stdout
    assert "next: fingerpost serve" in status and "cost: $0.00" in status and "30 questions" in status
    answer = cli("predict", "models/student", "my invoice is wrong")
    assert answer.stdout.startswith("billing\t0.")


def test_nothing_is_asked_without_yes_or_above_the_budget(cli: Cli, folder: Path, teacher: Teacher) -> None:
    write_questions(folder / "q.txt", 3)
    assert cli("import", "q.txt").returncode == 0
    run = cli("label")
    failed(run, "--yes", "--budget")
    assert "at most $" in run.stdout and not teacher.asked
    failed(cli("label", "--yes", "--budget", "0.000001"), "no request was sent", "--budget", code=3)


def test_errors_are_one_line_with_exit_code_2(cli: Cli, folder: Path, teacher: Teacher, student: Path) -> None:
    (folder / "bad.csv").write_bytes(
        "text,label\nfïne,billing\n,billing\nodd,refund\nx".encode() + b"\xff,other\n" + b"y" * 300_000 + b",other\n"
    )
    run = cli("import", "bad.csv")
    assert run.returncode == 1 and "4 of 5 rows of bad.csv cannot be used" in run.stderr
    assert len(re.findall(r"bad\.csv, line [3-6]: ", run.stderr)) == 4
    assert "1 new questions" in run.stdout and "questions, user: 1 " in cli("status").stdout
    failed(cli("import", "missing.csv"), "there is no file missing.csv")
    failed(cli("import", "bad.csv", "--text", "words"), "no column 'words'", "--text")
    failed(cli("import", "bad.csv", "--only", "tset"), "no split 'tset'")
    failed(cli("label", "-C", "elsewhere"), "fingerpost init")
    failed(cli("train", "--labels", "teacher"), "no training question has a teacher's label", "fingerpost label")
    failed(cli("train", "bad.csv"), "nothing was trained", "--skip-bad-rows")
    failed(cli("train", "--labels", "mine"), "best, teacher or human")
    failed(cli("evaluate"), "fingerpost train")
    failed(cli("evaluate", str(student), "bad.csv", "--label", "none"), "no column 'none'")
    failed(cli("predict", "nowhere", "x"), "no model folder")
    failed(cli("predict", str(student), " "), "the text is empty")
    failed(cli("predict", str(student), "x" * 300_000), "300,000 characters")
    failed(cli("predict", str(student), "bad.csv", "-o", "out.doc"), ".csv, .jsonl or .parquet")
    failed(cli("export", "--train", "no/t.jsonl"), "there is no folder")
    teacher.reply = "I cannot help with that"
    write_questions(folder / "q.txt", 12)
    cli("import", "q.txt")
    failed(cli("label", "--yes"), "names a label", "--retry")
    task = folder / "task.toml"
    good = task.read_text()
    task.write_text(good.replace("concurrency = 4", "concurrency = 0"))
    failed(cli("status"), "task.toml, line 13", "greater than 0")
    task.write_text(good.replace(teacher.base_url, "http://127.0.0.1:9/v1"))
    failed(cli("label", "--yes", "--retry"), "cannot be reached")
    task.write_text(good.replace(teacher.base_url, "http://example.invalid/v1"))
    failed(cli("label", "--yes", "--retry", OPENAI_API_KEY=""), "set the environment variable OPENAI_API_KEY")


def test_a_labelled_file_is_enough_to_train_evaluate_and_predict(cli: Cli, tmp_path: Path, tiny_encoder: Path) -> None:
    data = write_labelled(tmp_path / "data.csv")
    run = cli("train", "data.csv", "-o", "model", "--epochs", "0", "--encoder", str(tiny_encoder))
    assert run.returncode == 0, run.stderr
    assert "21 training rows" in run.stdout
    run = cli("evaluate", "model", "data.csv", "--json", "out.json", "--html", "out.html", "--teacher", "label")
    assert run.returncode == 0, run.stderr
    models = {model["name"]: model for model in json.loads((tmp_path / "out.json").read_text())["models"]}
    assert models["model"]["n"] == 6 and models["label"]["accuracy"] == 1.0
    run = cli("predict", "model", "data.csv", "-o", "out.csv")
    assert run.returncode == 0, run.stderr
    with data.open() as before, (tmp_path / "out.csv").open() as after:
        rows, answers = list(csv.DictReader(before)), list(csv.DictReader(after))
    assert [row["text"] for row in rows] == [row["text"] for row in answers]
    assert sum(row["label"] == answer["predicted"] for row, answer in zip(rows, answers, strict=True)) >= 24


def test_a_missing_training_extra_is_named_with_the_command_that_installs_it(folder: Path) -> None:
    write_labelled(folder / "data.csv")
    program = """if True:
        import sys
        sys.modules["scipy"] = sys.modules["torch"] = None
        from fingerpost.cli import main
        for command in ["train data.csv -o model", "evaluate model data.csv", "evaluate"]:
            sys.argv = ["fingerpost", *command.split()]
            try:
                main()
            except SystemExit as ended:
                assert ended.code == 2
    """
    run = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stderr.splitlines()
    assert len(lines) == 3 and all("pip install 'fingerpost[train]'" in line for line in lines), run.stderr


def test_the_installed_command_ends_with_exit_codes(cli_process: Cli, tmp_path: Path) -> None:
    failed(cli_process("status", "elsewhere"), "fingerpost init")
    assert cli_process("--version").returncode == 0
    unknown = cli_process("fly")
    assert unknown.returncode == 2 and "there is no command" in unknown.stderr


def test_init_writes_a_task_from_a_file(cli: Cli, tmp_path: Path) -> None:
    write_labelled(tmp_path / "data.csv")
    run = cli("init", "new", "--from", "data.csv", "--base-url", "http://localhost:1/v1")
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "new" / "task.toml").read_text()
    assert 'fallback = "other"' in text and 'billing = "billing"' in text
    assert cli("import", "data.csv", "-C", "new").returncode == 0
    failed(cli("init", "new", "--from", "data.csv"), "already exists")
    failed(cli("init", "newer"), "--from")


@pytest.mark.slow
def test_the_readmes_commands_run_as_they_stand(cli_process: Cli, tmp_path: Path) -> None:
    """Every line of README.md's `console` blocks that starts with `$ fingerpost`, in a copy of the example."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.db*", "models", "reports")
    )
    write_labelled(tmp_path / "tickets.csv")
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", readme, flags=re.DOTALL)
    commands = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    ours = [command for command in commands if command.startswith("fingerpost ")]
    assert len(ours) >= 8
    for command in ours:
        if command.startswith("fingerpost serve "):
            with Serving(tmp_path / "served", *shlex.split(command)[2:], cwd=tmp_path) as server:
                assert server.client().models.list().data
            continue
        run = cli_process(*shlex.split(command, comments=True)[1:], cwd=tmp_path)
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    assert [command for command in commands if command.startswith("make ")] == ["make demo", "make test"]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_the_docs_name_only_options_that_exist(cli: Cli, page: Path) -> None:
    used = re.findall(r"^\$? ?fingerpost (\w+)(.*)$", page.read_text(), flags=re.MULTILINE)
    helps: dict[str, str] = {}
    for command, rest in used:
        text = helps.setdefault(command, cli(command, "--help").stdout)
        assert text, f"{page.name}: there is no command {command}"
        for option in re.findall(r"--[\w-]+", rest.split("#")[0]):
            assert option in text, f"{page.name}: fingerpost {command} has no {option}"


def test_every_command_of_the_overview_can_be_loaded() -> None:
    from fingerpost.cli import COMMANDS, app

    group = typer.main.get_command(app)
    names = [name for commands in COMMANDS.values() for name in commands]
    assert len(names) == len(set(names)) == 22
    for name in names:
        command = group.get_command(None, name)
        assert command is not None and command.name == name and command.help


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied"),
        (sqlite3.OperationalError("database is locked"), "another program"),
        (sqlite3.OperationalError("database or disk is full"), "disk is full"),
        (sqlite3.DatabaseError("database disk image is malformed"), "fingerpost repair"),
        (OperationalError("SELECT", {}, sqlite3.OperationalError("no such table: questions")), "fingerpost repair"),
        (RecursionError("x"), "nested too deeply"),
        (MemoryError(), "memory"),
        (KeyError("a\nb\x1b[2J"), "mistake in Fingerpost"),
    ],
)
def test_any_error_of_a_command_is_one_line_without_control_characters(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("fingerpost.cli.app", fail)
    ended = cli("status")
    assert ended.returncode == 2 and says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1 and "\x1b" not in ended.stderr


def test_a_budget_that_is_no_number_allows_nothing(cli: Cli, folder: Path, teacher: Teacher) -> None:
    (folder / "q.txt").write_text("billing\n")
    cli("import", "q.txt")
    for number in ("nan", "inf", "-1", "1e999"):
        ended = cli("label", "--yes", "--budget", number)
        assert ended.returncode == 2 and "--budget" in ended.stderr and not teacher.asked
    assert "not a finite number" in cli("serve", "--keep-days", "inf").stderr
    (folder / "task.toml").write_text((folder / "task.toml").read_text().replace("input = 1.0", "input = inf"))
    assert "task.toml, line" in cli("label", "--yes").stderr and not teacher.asked


def test_formulas_in_predictions_are_counted_and_made_harmless_on_request(
    cli: Cli, folder: Path, student: Path
) -> None:
    (folder / "x.csv").write_text('text,=head,n\n"=HYPERLINK(""http://x"")",a,-5\n@sum,b,+49 170\nplain,c,1\n')
    for options, start in (((), "="), (("--safe-csv",), "'=")):
        run = cli("predict", str(student), "x.csv", "-o", "y.csv", *options)
        assert run.returncode == 0, run.stderr
        assert ("4 cells begin with" in run.stderr) == (not options)
        header, first, *_ = csv.reader((folder / "y.csv").read_text().splitlines())
        assert header[1].startswith(start) and first[0].startswith(start) and first[2] == "-5"


def test_texts_and_labels_cannot_send_commands_to_the_terminal(student: Path) -> None:
    from unittest.mock import patch

    from fingerpost.cli import predict as command
    from fingerpost.students import load

    with patch.object(command.sys.stdout, "isatty", lambda: True), patch("builtins.print") as shown:
        command._print_answers(
            load(student), ["my \x1b]0;evil\x07 invoice", "\x9bparcel \u202e"], command.OutputOptions(), with_text=True
        )
    printed = "".join(call.args[0] for call in shown.call_args_list)
    assert "invoice" in printed and not set(printed) & set("\x1b\x07\x9b\u202e")


def test_ctrl_c_while_modules_are_loaded_leaves_no_traceback() -> None:
    code = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "fingerpost.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from fingerpost.__main__ import main
main()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (130, "fingerpost: interrupted\n")


@pytest.mark.slow
def test_no_command_prints_what_others_could_command_the_terminal_with(
    cli: Cli, folder: Path, teacher: Teacher, tiny_encoder: Path
) -> None:
    evil = "\x1b]0;x\x07\x9b2J[/b][red]\u202e"
    write_labelled(folder / "data.csv")
    rows = list(csv.DictReader((folder / "data.csv").read_text().splitlines()))
    lines = [json.dumps({**row, "source": evil, "text": f"{row['text']} {evil}"}) for row in rows]
    (folder / "x.jsonl").write_text("\n".join([*lines, json.dumps({"text": evil, "label": evil})]) + "\n")
    teacher.reply = evil
    outputs = [
        cli("import", "x.jsonl", "--source", evil),
        cli("label", "--yes", "--limit", "5"),
        cli("import", "x.jsonl", "--teacher", f"t{evil}"),
        cli("status"),
        cli("train", "--encoder", str(tiny_encoder), "--epochs", "0"),
        cli("evaluate"),
        cli("costs"),
        cli("export", "--labels", "best"),
        cli("keys", "add", evil),
        cli("keys", "list"),
        cli("train", "x.jsonl", "-o", "model", "--encoder", str(tiny_encoder), "--epochs", "0"),
        cli("evaluate", "model", "x.jsonl"),
    ]
    for run in outputs:
        assert "mistake in Fingerpost" not in run.stderr, run.stderr
        assert not set(run.stdout + run.stderr) & set("\x1b\x07\x9b\u202e"), (run.args, run.stdout, run.stderr)
