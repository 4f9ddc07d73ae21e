"""Forgetting a message: nothing of it is left in any file, the rest stays, and verdicts are as protected as before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run_in_process
from conftest import task_text, write_labelled
from sqlalchemy.exc import IntegrityError
from teacher import Teacher

from fingerpost.core.errors import InputError
from fingerpost.core.types import Message
from fingerpost.project import Project
from fingerpost.project.erasure import forget
from fingerpost.store.project import Store
from fingerpost.store.server import ServerStore
from fingerpost.store.server_rows import RequestLogEntry, ResponseRow
from fingerpost.students.folder import read_manifest, trained_on

SECRET = 'I am Jane Doe, my invoice XQ4711ZW is "wrong", é'


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with the message in its data file, database, model lists, report, and its server's log and files."""
    folder = tmp_path_factory.mktemp("prepared")
    write_labelled(folder / "data.csv")
    quoted = SECRET.replace('"', '""')
    with (folder / "data.csv").open("a") as stream:
        stream.write(f'"{quoted}",billing,train\n')
    teacher = Teacher().start()
    (folder / "task.toml").write_text(task_text(teacher.base_url) + '\n[[data]]\nfile = "data.csv"\n')
    assert run_in_process(("run", "--yes", "--epochs", "0"), folder, "", {}).returncode == 0
    teacher.stop()
    (folder / "reports" / "report.json").write_text(json.dumps({"mistakes": [SECRET]}))
    (folder / "served" / "files").mkdir(parents=True)
    log = ServerStore(folder / "served" / "fingerpost.db")
    for text in (SECRET, "another one"):
        log.add_log_entries(
            [RequestLogEntry("req", 1, None, "student", (Message("user", text),), "billing", 0.9, "student", 0.1)]
        )
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": SECRET}]}
    log.add_response(ResponseRow("resp_1", 1, [item], {"output": []}))
    log.close()
    decision = folder / "served" / "decisions" / "route"
    decision.mkdir(parents=True)
    (decision / "task.toml").write_text(task_text(teacher.base_url))
    shutil.copy(folder / "fingerpost.db", decision / "fingerpost.db")
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in (SECRET, "another one")]
    (folder / "served" / "files" / "file-1").write_text("".join(lines))
    yield folder


@pytest.fixture
def used(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the project."""
    return shutil.copytree(prepared, tmp_path / "used")


def bytes_of(folder: Path) -> bytes:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "data.csv"]
    return b"\n".join(file.read_bytes() for file in files)


@pytest.mark.parametrize("target", [SECRET, SECRET.upper(), "Jane Doe"])
def test_not_a_byte_of_the_message_is_left(used: Path, target: str) -> None:
    assert b"Jane Doe" in bytes_of(used)
    receipt = forget(used, Project(used).task, target, containing=target == "Jane Doe")
    assert b"Jane Doe" not in bytes_of(used) and b"XQ4711ZW" not in bytes_of(used)
    assert receipt.erased["questions"] == 2, "the project's, and that of a decision on its server"
    assert receipt.erased["labels"] == 4, "the human's and the teacher's of both"
    for name in ("logged requests", "stored responses", "lines of uploaded files"):
        assert receipt.erased[name] == 1
    assert receipt.models_to_retrain == [str(used / "models" / "student")]
    assert receipt.files_still_containing == [str(used / "data.csv")]
    (key,) = receipt.ids
    assert key not in trained_on(used / "models" / "student")
    assert read_manifest(used / "models" / "student"), "the model still loads"
    with Store(used / "fingerpost.db") as store:
        assert len(store.questions()) == 30 and not store.questions_by_id([key])
    assert "another one" in (used / "served" / "files" / "file-1").read_text()
    log = ServerStore(used / "served" / "fingerpost.db")
    assert [entry.messages[0].content for entry in log.log_entries()] == ["another one"]
    log.close()


def test_by_the_id_of_a_question(used: Path) -> None:
    with Store(used / "fingerpost.db") as store:
        (key,) = [question.id for question in store.questions() if question.messages[0].content == SECRET]
    assert forget(used, Project(used).task, key).ids == [key]
    assert b"Jane Doe" not in bytes_of(used)


def test_other_peoples_messages_stay(used: Path) -> None:
    """A conversation that ends with "yes" is forgotten; another one's "yes", and words with it, are not."""
    turns = (Message("user", "write to jane@example.com"), Message("assistant", "shall I?"), Message("user", "yes"))
    other = (Message("user", "cancel it"), Message("assistant", "sure?"), Message("user", "yes"))
    log = ServerStore(used / "served" / "fingerpost.db")
    for given in (turns, other):
        log.add_log_entries([RequestLogEntry("req", 2, None, "student", given, "billing", 0.9, "student", 0.1)])
    log.close()
    with (used / "served" / "files" / "file-1").open("a") as stream:
        for given in (turns, other):
            stream.write(
                json.dumps({"messages": [{"role": turn.role, "content": turn.content} for turn in given]}) + "\n"
            )
    receipt = forget(used, None, "jane@example.com", containing=True)
    assert receipt.erased == {"logged requests": 1, "lines of uploaded files": 1}
    log = ServerStore(used / "served" / "fingerpost.db")
    assert other in [entry.messages for entry in log.log_entries()]
    log.close()
    assert "cancel it" in (used / "served" / "files" / "file-1").read_text()


def test_line_separators_inside_a_message_do_not_hide_it(used: Path) -> None:
    file = used / "served" / "files" / "file-2"
    text = "Bob Roe\u2028lives\x85here"
    file.write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n" + json.dumps({"text": "stay"}) + "\n")
    assert forget(used, None, text).erased == {"lines of uploaded files": 1}
    assert file.read_text() == '{"text": "stay"}\n'


def test_while_a_server_has_the_database_open_it_says_so_and_can_be_repeated(used: Path) -> None:
    server = ServerStore(used / "served" / "fingerpost.db")
    with server._engine.connect() as reading:
        reading.exec_driver_sql("BEGIN")
        reading.exec_driver_sql("SELECT count(*) FROM requests").all()
        with pytest.raises(InputError, match="end that program and run the command again|locked"):
            forget(used, None, SECRET)
        reading.exec_driver_sql("ROLLBACK")
    server.close()
    receipt = forget(used, None, SECRET)
    assert receipt.erased["questions"] == 2
    assert b"Jane Doe" not in bytes_of(used)


def test_verdicts_are_still_protected(used: Path) -> None:
    forget(used, None, SECRET)
    with (
        Store(used / "fingerpost.db") as store,
        pytest.raises(IntegrityError, match="never removed"),
        store._engine.begin() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM verdicts")


def test_nothing_found_changes_nothing(used: Path) -> None:
    before = shutil.copytree(used / "models", used.with_name("before"))
    with pytest.raises(InputError, match="nothing was found"):
        forget(used, None, "a message that nobody has sent")
    for file in before.rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (used / "models" / file.relative_to(before)).read_bytes()


def test_what_a_repair_kept_is_named(used: Path) -> None:
    damaged = used / "fingerpost.db.damaged"
    damaged.write_bytes(b"old bytes " + SECRET.encode())
    (used / "fingerpost.db.damaged-wal").write_bytes(b"nothing")
    assert forget(used, None, SECRET).files_still_containing == [str(damaged)]
