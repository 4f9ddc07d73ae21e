"""Common mistakes: what the commands say is one line that names the cause and the remedy. It is the table docs/mistakes.md.

After a change of a message, write the page again: WRITE_MISTAKES=1 pytest tests/journeys/test_mistakes.py
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pytest
from command_line import run_in_process
from conftest import ROOT, task_text, write_labelled, write_questions
from teacher import Teacher

FREE_PORT = 48613
PAGE = ROOT / "docs" / "mistakes.md"
HEAD = """\
# Common mistakes

What the commands say about common mistakes. Each message is one line, the last one on standard error; the exit code is 2 unless
the table names another. A test makes this page.
"""


@dataclass
class Box:
    """A folder with files, a project `shop`, and a student in `models/tickets`."""

    path: Path
    teacher: Teacher

    def write(self, name: str, content: str | bytes) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def task(self, old: str, new: str) -> None:
        file = self.path / "shop" / "task.toml"
        old = old.replace("TEACHER", self.teacher.base_url)
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def run(self, line: str, stdin: str = "") -> tuple[int, list[str]]:
        ended = run_in_process(tuple(shlex.split(line)[1:]), self.path, stdin, {"OPENAI_API_KEY": ""})
        assert "Traceback" not in ended.stderr
        return ended.returncode, ended.stderr.strip().splitlines()


@dataclass(frozen=True)
class Mistake:
    """A mistake, the command with it, and words of the cause and of the remedy in what the command says."""

    what: str
    command: str
    words: tuple[str, ...]
    prepare: Callable[[Box], object] = lambda _: None
    code: int = 2


def workbook(box: Box) -> None:
    openpyxl.Workbook().save(box.path / "book.xlsx")
    (box.path / "book.xlsx").rename(box.path / "book.csv")


def questions(box: Box) -> None:
    write_questions(box.path / "q.txt", 12)
    box.run("fingerpost import shop q.txt")


def failing(status: int, **headers: str) -> Callable[[Box], None]:
    def prepare(box: Box) -> None:
        questions(box)
        box.teacher.fail[:] = [(status, headers)] * 99

    return prepare


def with_task(old: str, new: str, then: Callable[[Box], object] = lambda _: None) -> Callable[[Box], None]:
    def prepare(box: Box) -> None:
        then(box)
        box.task(old, new)

    return prepare


def file(name: str, content: str | bytes) -> Callable[[Box], None]:
    return lambda box: box.write(name, content)


def unusable_replies(box: Box) -> None:
    questions(box)
    box.teacher.reply = "I cannot help with that"


def altered(box: Box) -> None:
    shutil.copytree(box.path / "models" / "tickets", box.path / "models" / "altered")
    with (box.path / "models" / "altered" / "tokenizer.json").open("a") as stream:
        stream.write(" ")


def taken_port(box: Box) -> None:
    listener = socket.create_server(("127.0.0.1", FREE_PORT))
    box.teacher.held = listener  # type: ignore[attr-defined]


ROWS = "".join(f"question number {n} about {label},{label}\n" for n in range(8) for label in ("billing", "delivery"))
SECTIONS: dict[str, list[Mistake]] = {
    "Files": [
        Mistake("a file that is not there", "fingerpost train ticket.csv", ("no file ticket.csv", "check its name")),
        Mistake("a folder in place of a file", "fingerpost train models", ("models is a folder", "name a file in it")),
        Mistake("a kind of file that is not read", "fingerpost train a.docx", ("'.docx'", ".xlsx"), file("a.docx", b"x")),
        Mistake("an empty file", "fingerpost train a.csv", ("is empty", "at least one row"), file("a.csv", b"")),
        Mistake("an image that is named .csv", "fingerpost train a.csv", ("PNG image", "no text file"), file("a.csv", b"\x89PNG\r\n")),
        Mistake("an Excel file that is named .csv", "fingerpost train book.csv", ("Excel file", "rename it to .xlsx"), workbook),
        Mistake("a compressed file", "fingerpost train a.csv", ("gzip", "unpack it"), file("a.csv", b"\x1f\x8b\x08\x00")),
        Mistake("a damaged workbook", "fingerpost train a.xlsx", ("cannot be read as a workbook", "save it again"), file("a.xlsx", b"PK\x03\x04")),
        Mistake("JSON Lines in a file that is named .json", "fingerpost train a.json", ("is not JSON", ".jsonl"), file("a.json", '{"text": "a"}\n{"text": "b"}\n')),
        Mistake("a header and no rows", "fingerpost train a.csv", ("no labelled training row", "--label"), file("a.csv", "text,label\n")),
        Mistake("an unknown encoding", "fingerpost train tickets.csv --encoding latin99", ("'latin99'", "windows-1252"),),
        Mistake("a delimiter of two characters", "fingerpost train tickets.csv --delimiter ';;'", ("one character", "';;'")),
        Mistake("an unknown way to read quotes", "fingerpost train tickets.csv --quote double", ("auto or none", "'double'")),
        Mistake("a quote that is never closed", "fingerpost train a.csv", ("never closed", "--quote none"), file("a.csv", 'text,label\n"one,a\n' + ROWS)),
        Mistake("the wrong encoding", "fingerpost train a.csv --encoding ascii", ("cannot be used", "name its encoding with --encoding"), file("a.csv", "text,label\n" + "grün,a\nblau,b\n" * 9)),
    ],
    "Columns and labels": [
        Mistake("no column with a usual name", "fingerpost train a.csv", ("no column text", "--text", "Anfrage"), file("a.csv", "Anfrage,Ziel\nx,a\n")),
        Mistake("a text column that is not there", "fingerpost train tickets.csv --text body", ("no column 'body'", "--text: text, label")),
        Mistake("a label column that is not there", "fingerpost train tickets.csv --label queue", ("no column 'queue'", "--label: text, label")),
        Mistake("a file without labels", "fingerpost train a.csv", ("no labelled training row", "--label"), file("a.csv", "text,queue\nx,\n")),
        Mistake("only one label", "fingerpost train a.csv --test-share 0", ("1 label found", "at least two"), file("a.csv", "text,label\n" + "".join(f"text {n},a\n" for n in range(20)))),
        Mistake("a label that the task does not have", "fingerpost import shop a.csv", ("1 of 1 rows of a.csv cannot be used", "correct them"), file("a.csv", "text,label\nx,biling\n"), 1),
        Mistake("test rows with labels that the model does not know", "fingerpost evaluate models/tickets a.csv", ("labels that the models do not know: refund", "--label"), file("a.csv", "text,label\nsend the money back,refund\n")),
        Mistake("measuring on the rows that the model was trained on", "fingerpost evaluate models/tickets seen.csv", ("was trained on all rows", "give other rows")),
        Mistake("more folds than texts", "fingerpost train a.csv --cross-validate 20", ("cannot be divided into 20 folds", "fewer folds"), file("a.csv", "text,label\none thing,a\nother stuff,b\n")),
        Mistake("--multi for a project", "fingerpost train shop --multi", ("for files", "multi = true in task.toml")),
        Mistake("--consensus-encoder for a file", "fingerpost train tickets.csv --consensus-encoder x", ("for projects", "no reviews")),
        Mistake("an unknown split", "fingerpost import shop tickets.csv --only tset", ("no split 'tset'", "train, dev or test")),
    ],
    "Projects": [
        Mistake("a folder that is no project", "fingerpost status elsewhere", ("elsewhere/task.toml", "fingerpost init")),
        Mistake("a project that exists", "fingerpost init shop --from tickets.csv", ("already exists", "another folder")),
        Mistake("no labels to start with", "fingerpost init new", ("no labels", "--from")),
        Mistake("a file with one label to start with", "fingerpost init new --from a.csv", ("1 labels", "at least two"), file("a.csv", "label\na\na\n")),
        Mistake("a prompt file that is not there", "fingerpost init new --from tickets.csv --prompt p.txt", ("no prompt file p.txt", "check the path")),
        Mistake("task.toml that is not TOML", "fingerpost status shop", ("task.toml, line 1",), with_task('name = "shop"', "name = shop")),
        Mistake("an unknown setting", "fingerpost status shop", ("concurency",), with_task("concurrency = 4", "concurency = 4")),
        Mistake("a setting out of range", "fingerpost status shop", ("task.toml, line", "greater than 0"), with_task("concurrency = 4", "concurrency = 0")),
        Mistake("no file to import", "fingerpost import shop", ("which file?", "--from-log")),
        Mistake("two projects at once", "fingerpost status shop -C elsewhere", ("two projects", "leave one of them out")),
        Mistake("no labels to learn from", "fingerpost train shop", ("no training question has a label", "fingerpost label")),
        Mistake("no student to measure", "fingerpost evaluate shop", ("no student yet", "fingerpost train")),
        Mistake("a cascade without a target", "fingerpost evaluate shop --cascade", ("one target", "--accuracy")),
        Mistake("a decision that is not there", "fingerpost review shop --take-back 12ab", ("no decision has the mark '12ab'", "--history")),
        Mistake("a review without questions", "fingerpost review shop", ("no training questions", "fingerpost import")),
        Mistake("a dev sample without dev questions", "fingerpost review shop --dev 20", ("no dev questions", "import more")),
        Mistake("a file that is no review", "fingerpost review shop --import tickets.csv", ("no columns id and label", "--export")),
        Mistake("a message to forget that is not there", "fingerpost forget 'my name is Jane' -C shop", ("nothing was found", "--containing"), questions),
        Mistake("too short a message to forget", "fingerpost forget a -C shop", ("too short", "three characters")),
        Mistake("a log of no server", "fingerpost import shop elsewhere --from-log", ("not the folder of a server", "--data")),
        Mistake("labels from nobody", "fingerpost train shop --labels mine", ("no labels from 'mine'", "consensus, best, teacher or human")),
    ],
    "The teacher and money": [
        Mistake("no API key", "fingerpost label shop --yes", ("OPENAI_API_KEY", "set the environment variable"), with_task("TEACHER", "http://example.invalid/v1", questions)),
        Mistake("an endpoint that does not answer", "fingerpost label shop --yes", ("cannot be reached", "is it running"), with_task("TEACHER", "http://127.0.0.1:9/v1", questions)),
        Mistake("a wrong API key", "fingerpost label shop --yes", ("refuses the API key", "OPENAI_API_KEY"), failing(401)),
        Mistake("a model that the endpoint does not have", "fingerpost label shop --yes", ("404", "model"), failing(404)),
        Mistake("replies without a label", "fingerpost label shop --yes", ("names a label", "--retry"), unusable_replies),
        Mistake("no teacher", "fingerpost label shop --yes", ("no teacher", "[teacher]"), lambda box: box.write("shop/task.toml", 'name = "shop"\n[labels]\na = "x"\nb = "y"\n')),
        Mistake("a model whose price is not known", "fingerpost label shop --yes", ("price", "prices"), with_task("prices = {", "# {", lambda box: (questions(box), box.task("TEACHER", "http://example.invalid/v1")))),
        Mistake("a price that nobody has confirmed", "fingerpost label shop", ("costs money", "--yes"), questions),
        Mistake("too small a budget", "fingerpost label shop --yes --budget 0.000001", ("no request was sent", "--budget"), questions, 3),
        Mistake("a budget that is no number", "fingerpost label shop --budget nan", ("--budget",)),
        Mistake("an unknown way to ask again", "fingerpost label shop --again often", ("prompt or doubtful", "'often'")),
        Mistake("a recording in a folder that is not there", "fingerpost label shop --record no/a.jsonl", ("no folder no", "create it")),
        Mistake("writing questions with recorded answers", "fingerpost generate shop --count 9", ("recorded", "remove 'recorded'"), with_task('model = "test-model"', 'model = "test-model"\nrecorded = "a.jsonl"')),
        Mistake("a second teacher that is not there", "fingerpost label shop --second-teacher", ("no second teacher", "[second_teacher]")),
        Mistake("a hosted fine-tuning without a price", "fingerpost train tickets.csv --student hosted", ("price is not known", "--price")),
    ],
    "Models": [
        Mistake("a project in place of a model", "fingerpost predict shop hello", ("shop is a project", "did you mean shop/models/student?")),
        Mistake("a folder without a model", "fingerpost predict models hello", ("no model folder", "fingerpost train")),
        Mistake("a model whose files were changed", "fingerpost predict models/altered hello", ("tokenizer.json", "copy it again"), altered),
        Mistake("an empty text", "fingerpost predict models/tickets ' '", ("the text is empty", "at least one word")),
        Mistake("a file without a place for the answers", "fingerpost predict models/tickets tickets.csv", ("where should the predictions", "-o")),
        Mistake("answers in a kind of file that is not written", "fingerpost predict models/tickets tickets.csv -o a.docx", ("'.docx'", ".csv, .jsonl or .parquet")),
        Mistake("nothing on standard input", "fingerpost predict models/tickets -", ("standard input is empty", "pipe texts")),
        Mistake("a fast tier that the model does not have", "fingerpost predict models/tickets hello --tiers fast", ("no fast tier", "--tiers auto")),
        Mistake("an unknown student", "fingerpost train tickets.csv --student big", ("no student 'big'", "encoder or hosted")),
        Mistake("a report in a folder that is not there", "fingerpost train tickets.csv --html no/a.html", ("no folder no", "create it")),
    ],
    "The server": [
        Mistake("a port that is in use", f"fingerpost serve models/tickets --port {FREE_PORT}", ("cannot listen on 127.0.0.1", "--port"), taken_port),
        Mistake("two models of one name", "fingerpost serve models/tickets a=shop tickets=models/tickets", ("two models have the name 'tickets'", "NAME=")),
        Mistake("two targets", "fingerpost serve models/tickets --accuracy 0.9 --cutoff 0.5", ("give one of --agreement, --accuracy and --cutoff",)),
        Mistake("a budget without a target", "fingerpost serve models/tickets --budget 5", ("which requests go to the teacher", "--cutoff")),
        Mistake("a target without a teacher", "fingerpost serve models/tickets --cutoff 0.5", ("no teacher", "--teacher")),
        Mistake("a function to redact that is not there", "fingerpost serve models/tickets --redact my:clean", ("cannot be imported", "MODULE:FUNCTION")),
        Mistake("a key that is not there", "fingerpost keys revoke web -C shop", ("'web'",)),
    ],
    "The command line": [
        Mistake("a command that is not there", "fingerpost trian", ("no command 'trian'", "did you mean train?")),
        Mistake("an option that is not there", "fingerpost train --fast", ("--fast",)),
        Mistake("a page of the docs that is not there", "fingerpost docs trian", ("no page 'trian'", "did you mean train?")),
    ],
}  # fmt: skip
MISTAKES = [mistake for mistakes in SECTIONS.values() for mistake in mistakes]


@pytest.fixture
def box(tmp_path: Path, teacher: Teacher, student: Path) -> Iterator[Box]:
    made = Box(tmp_path, teacher)
    write_labelled(tmp_path / "tickets.csv")
    lines = [line for line in (tmp_path / "tickets.csv").read_text().splitlines() if not line.endswith(",test")]
    made.write("seen.csv", "\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    made.write("shop/task.toml", task_text(teacher.base_url))
    made.write("elsewhere/readme.txt", "no project")
    (tmp_path / "models").mkdir()
    shutil.copytree(student, tmp_path / "models" / "tickets")
    yield made
    if held := getattr(teacher, "held", None):
        held.close()


def said(box: Box, mistake: Mistake) -> str:
    """The last line on standard error, with the names of this run replaced by those of the page."""
    mistake.prepare(box)
    code, lines = box.run(mistake.command)
    assert code == mistake.code, (code, lines)
    line = lines[-1].removeprefix("fingerpost: ").removeprefix("Error: ")
    return re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:8080", line.replace(str(box.path), "~"))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what.replace(" ", "-"))
def test_one_line_names_the_cause_and_the_remedy(box: Box, mistake: Mistake) -> None:
    line = said(box, mistake)
    assert all(word in line for word in mistake.words), line
    assert "This is a mistake in Fingerpost" not in line
    row = page_row(mistake, line)
    if os.environ.get("WRITE_MISTAKES"):
        ROWS_WRITTEN[mistake.what] = row
    else:
        assert row in PAGE.read_text(encoding="utf-8"), f"docs/mistakes.md does not say: {row}"


ROWS_WRITTEN: dict[str, str] = {}


def page_row(mistake: Mistake, line: str) -> str:
    code = "" if mistake.code == 2 else f" (exit code {mistake.code})"
    cells = (f"{mistake.what}{code}", f"`{mistake.command}`", line)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def test_the_page_has_every_mistake() -> None:
    """Runs last, and writes the page if that is wanted."""
    assert len(MISTAKES) >= 60
    if os.environ.get("WRITE_MISTAKES"):
        parts = [HEAD]
        for title, mistakes in SECTIONS.items():
            parts.append(f"\n## {title}\n\n| mistake | command | what it says |\n|---|---|---|\n")
            parts += [ROWS_WRITTEN[mistake.what] for mistake in mistakes]
        PAGE.write_text("".join(parts), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8").count("| `fingerpost ") == len(MISTAKES)
