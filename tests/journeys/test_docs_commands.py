"""Every command in the console blocks of README and docs runs as it stands, in a folder with the files that it names.

Paid commands ask a local test teacher. `make` and `pip` lines are not run here: CI's own steps are what they say.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import polars
import pytest
from articles import articles
from command_line import run_subprocess
from conftest import ROOT, TEXTS, task_text
from reviewing import ALL
from teacher import Teacher
from tiny_generator import tiny_generator_gguf

from fingerpost.core.types import Message
from fingerpost.store.server import ServerStore
from fingerpost.store.server_rows import RequestLogEntry
from fingerpost.tone.judge import key_of
from journeys.files import rows, write
from journeys.shell import Ended, commands_of, run

pytestmark = pytest.mark.slow
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
OTHER = ("make ", "pip ")
"""Commands of other programs."""


@pytest.fixture(scope="module")
def teacher() -> Iterator[Teacher]:
    server = Teacher().start()
    yield server
    server.stop()


def fingerpost(folder: Path, *arguments: str) -> None:
    ended = run_subprocess(arguments, folder, "", {})
    assert ended.returncode == 0, (arguments, ended.stderr)


@pytest.fixture(scope="module")
def prepared(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is a project with labels, reviews, a student and a report; and has the projects and files of the docs."""
    folder = tmp_path_factory.mktemp("prepared")
    task = task_text(teacher.base_url).replace('model = "test-model"', 'model = "gpt-4.1-mini"')
    task = task.replace(
        "prices = { input = 1.0, cached_input = 0.5, output = 4.0 }", "prices = { input = 0.0, output = 0.0 }"
    )
    (folder / "task.toml").write_text(task)
    names = {"billing": "billing", "delivery": "billing", "other": "other"}
    every = [(f"{text} {number % 7}", label) for number, (text, label) in enumerate(ALL)]
    write(folder / "teacher.csv", [(text, names[label]) for text, label in every], ("text", "label"))
    write(folder / "human.csv", every[::2], ("text", "label"))
    fingerpost(folder, "import", "teacher.csv", "--teacher", "gpt-4.1-mini")
    fingerpost(folder, "import", "human.csv", "--by", "ann")
    fingerpost(folder, "train")
    fingerpost(folder, "evaluate")
    fingerpost(folder, "review", "--test", "5", "--export", "x.csv")
    _write_log(folder / "served")
    for name in ("tickets", "shop"):
        (folder / name).mkdir()
        _write_log(folder / name / "served")
        for file in ("task.toml", "fingerpost.db"):
            shutil.copy(folder / file, folder / name)
        shutil.copytree(folder / "models", folder / name / "models")
    write(folder / "jane.csv", [("I am Jane Doe, where is my parcel?",), ("write to jane.doe@example.com",)], ("text",))
    fingerpost(folder, "import", "jane.csv", "-C", "shop")
    shutil.copytree(
        ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*.db*", "models", "reports", "cache")
    )
    _write_files(folder)
    fingerpost(folder, "train", "tickets.csv", "--epochs", "0")
    for name in ("queue", "angry", "urgency"):
        shutil.copytree(folder / "models" / "tickets", folder / "models" / name)
    return folder


def _write_log(served: Path) -> None:
    """The folder of a server that was asked a few questions."""
    served.mkdir()
    log = ServerStore(served / "fingerpost.db")
    for number, (text, label) in enumerate(ALL[:5]):
        turns = (Message("user", f"{text}, asked at the server"),)
        log.add_log_entries([RequestLogEntry(f"req-{number}", 1, None, "student", turns, label, 0.5, "student", 0.1)])
    place = {"path": ["action"], "tool": None, "by_tool": False, "named": False}
    log.add_decision(
        "route-message", 1, "observe", place, ["billing", "delivery", "other"], "Route it.", "gpt-4.1-mini"
    )
    log.close()


def _write_files(folder: Path) -> None:
    """The files that the docs name, of the example's messages."""
    some = [(text, label) for label, texts in TEXTS.items() for text in texts]
    write(folder / "tickets.csv", rows()[:120], ("text", "label"))
    write(folder / "new.csv", rows()[120:180], ("text", "label"))
    write(folder / "messages.csv", some, ("message", "queue"))
    write(folder / "log.csv", [(f"{text} please", label, "test") for text, label in some], ("text", "gold", "split"))
    polars.DataFrame({"message": [text for text, _ in some]}).write_parquet(folder / "messages.parquet")
    polars.DataFrame({"text": [f"{text} now" for text, _ in some]}).write_parquet(folder / "more.parquet")
    book = openpyxl.Workbook()
    for cells in [("text",), *((f"{text} again",) for text, _ in some)]:
        book.worksheets[0].append(cells)
    book.save(folder / "tickets.xlsx")
    (folder / "messages.txt").write_text("".join(f"{text}\n" for text, _ in some))
    (folder / "questions.txt").write_text("".join(f"{text} soon\n" for text, _ in some))
    chats = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": json.dumps({"action": label})}]}
             for text, label in some]  # fmt: skip
    for name in ("SmolLM2-360M-Instruct.gguf", "SmolLM2-1.7B-Instruct.gguf"):
        shutil.copy(tiny_generator_gguf(), folder / name)
    (folder / "articles").mkdir()
    for number, text in enumerate(articles(120)):
        (folder / "articles" / f"{number:03}.txt").write_text(text)
    for name in ("chat.jsonl", "chats.jsonl"):
        (folder / name).write_text("".join(json.dumps(chat) + "\n" for chat in chats))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str, prepared: Path, teacher: Teacher, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    shutil.copytree(prepared, folder)
    environment = {"OPENAI_BASE_URL": teacher.base_url, "OPENAI_API_KEY": "sk-test", "PROVIDER_KEY": "sk-test"}
    for line in commands_of(page):
        if line.startswith(OTHER):
            continue
        command = _adapted(line, folder, teacher)
        ended = run(command, folder, environment)
        assert ended.code == 0, f"{command}: {ended.stdout}{ended.stderr}"
        assert "Traceback" not in ended.stderr
        _prepare_next(command, folder, ended)


def _adapted(line: str, folder: Path, teacher: Teacher) -> str:
    """The line with the addresses and marks of this run, and a project that is there where it would be created."""
    if line.startswith("fingerpost init tickets"):
        shutil.rmtree(folder / "tickets")
    line = line.replace("https://provider.example/v1", teacher.base_url)
    mark = folder / "mark.txt"
    return line.replace("24d3f69f", mark.read_text()) if mark.exists() else line


def _prepare_next(command: str, folder: Path, ended: Ended) -> None:
    """What a reader does between two lines: fill in the spreadsheet, note the mark."""
    if "--export" in command and "review" in command:
        file = folder / "queue.csv"
        with file.open(encoding="utf-8-sig", newline="") as stream:
            cells = list(csv.DictReader(stream))
        for cell in cells:
            cell["label"] = cell["suggestion"]
        write(file, [tuple(cell.values()) for cell in cells], tuple(cells[0]))
        fingerpost(folder, "review", "--import", "queue.csv", "--by", "ben")
    if command.startswith("fingerpost tone init"):
        file = folder / "voice" / "task.toml"
        settings = "prices = { input = 0.0, output = 0.0 }"
        file.write_text(file.read_text().replace('model = "gpt-4.1-mini"', f'model = "gpt-4.1-mini"\n{settings}'))
    if command.startswith("fingerpost tone evaluate"):
        samples = json.loads((folder / "voice" / "reports" / "tone.json").read_text())["samples"]
        key = key_of([sample["tuned"] for sample in samples])
        (folder / "choices.json").write_text(
            json.dumps({"key": key, "choices": {"pair1": "first", "pair2": "neither"}})
        )
    if "--history" in command:
        (folder / "mark.txt").write_text(ended.stdout.split()[0])
