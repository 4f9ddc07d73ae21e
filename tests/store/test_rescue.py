"""A database that cannot be written, is damaged, or is read by others."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest
from command_line import Cli
from conftest import write_questions
from teacher import Teacher

from fingerpost.core.errors import InputError
from fingerpost.core.types import Message, Question, Usage, Verdict
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import label, plan_labels
from fingerpost.llm import runner
from fingerpost.store import engine
from fingerpost.store.fallback import RESERVED_BYTES, FallbackFile
from fingerpost.store.ledger import Call, Settlement, WriterReply
from fingerpost.store.project import Store
from fingerpost.store.rescue import repair
from fingerpost.task.settings import Task

PAGE = 4_096


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LOCK_S", 0.2)
    monkeypatch.setattr(runner, "STORE_PAUSE_S", 0.05)


def test_answers_that_the_database_does_not_take_are_kept_beside_it(
    impatient: None, task: Task, folder: Path, teacher: Teacher
) -> None:
    database = folder / "fingerpost.db"
    with Store(database) as store:
        import_file(store, task, write_questions(folder / "q.txt", 40))
        planned = plan_labels(task, store)
        locker = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        teacher.delay_s = 0.5

        def lock_once_all_are_asked() -> None:
            while sum(teacher.asked.values()) < 8:
                time.sleep(0.01)
            locker.execute("BEGIN IMMEDIATE")

        thread = threading.Thread(target=lock_once_all_are_asked)
        thread.start()
        with pytest.raises(InputError, match="paid answers are kept"):
            label(task, store, planned, folder)
        thread.join()
        locker.rollback()
        locker.close()
        answered, stored = sum(teacher.answered.values()), len(store.verdicts())
        assert answered > stored and unstored(database)
    with Store(database) as store:
        assert len(store.verdicts()) == answered and not unstored(database)
        teacher.delay_s = 0.0
        label(task, store, plan_labels(task, store), folder)
        assert set(teacher.asked.values()) == {1} and len(store.verdicts()) == 40
        assert store.ledger.account().uncertain == 0


def unstored(database: Path) -> list[Path]:
    return list(database.parent.glob(f"{database.name}.unstored*"))


def test_what_was_put_aside_is_taken_in_once(tmp_path: Path) -> None:
    database = tmp_path / "db"
    with Store(database) as store:
        store.add_questions([Question("q", (Message("user", "hello"),), "user", "q", "train")])
        ids = store.ledger.record([], [Call("label", "m", 1.0), Call("generate", "m", 1.0)], None)
    usage = Usage(10, 0, 2, 0.25, 0.5)
    answers = [
        Settlement(ids[0], "paid", usage, Verdict("q", "teacher", "m", "a", "label", raw="é\n")),
        Settlement(ids[1], "paid", usage, WriterReply(7, "text")),
    ]
    with FallbackFile(database, "a") as one, FallbackFile(database, "b") as other:
        one.add(answers)
        one.add(answers[:1])
        other.add(answers[1:])
        assert one.path.stat().st_size == RESERVED_BYTES
    with Store(database) as store:
        ((verdict,),) = store.verdicts().values()
        assert (verdict.label, verdict.raw, verdict.usage) == ("a", "é\n", usage)
        assert store.ledger.account().committed_usd == pytest.approx(0.5)
    assert not unstored(database)
    database.with_name("db.unstored-c").write_bytes(b'{"call_id": 1, "outc' + b"\0" * 99)  # its process was killed
    Store(database).close()
    assert not unstored(database)
    database.with_name("db.unstored-c").write_bytes(b'{"call_id": 1, "outc\n')
    with pytest.raises(InputError, match="line 1 is damaged; delete that line"):
        Store(database)


def fill(database: Path, count: int) -> None:
    with Store(database) as store:
        texts = [f"question {number} " + "x" * 200 for number in range(count)]
        store.add_questions(
            Question(f"{i:016x}", (Message("user", t),), "user", "g", "train") for i, t in enumerate(texts)
        )
        store.add_verdicts(Verdict(f"{i:016x}", "human", "me", "a", "import", raw="y" * 200) for i in range(count))
        store.ledger.record([], [Call("label", "m", 0.5)], None)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_repair_saves_what_lies_outside_a_damaged_page(tmp_path: Path, cli: Cli, place: float) -> None:
    database = tmp_path / "fingerpost.db"
    fill(database, 3_000)
    data = bytearray(database.read_bytes())
    start = int(len(data) * place) // PAGE * PAGE
    data[start : start + PAGE] = os.urandom(PAGE)
    database.write_bytes(data)
    done = cli("repair", "-C", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Store(database) as store:
        questions, verdicts = len(store.questions()), sum(len(found) for found in store.verdicts().values())
        assert questions > 2_000 and verdicts > 2_000 and questions + verdicts > 5_500
        assert store.ledger.account().committed_usd == 0.5
    assert (tmp_path / "fingerpost.db.damaged").read_bytes() == bytes(data)


def test_repair_of_a_whole_database_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "db", 700)
    with Store(tmp_path / "db") as store:
        before = store.questions(), store.verdicts()
    counts, _ = repair(tmp_path / "db")
    assert counts["questions"] == counts["verdicts"] == 700
    with Store(tmp_path / "db") as store:
        assert (store.questions(), store.verdicts()) == before
    with pytest.raises(InputError, match="earlier repair"):
        repair(tmp_path / "db")


@pytest.mark.parametrize("damage", ["page", "table", "text"])
def test_a_damaged_database_is_one_line_in_every_command(cli: Cli, folder: Path, damage: str) -> None:
    database = folder / "fingerpost.db"
    fill(database, 3_000)
    if damage == "page":
        data = bytearray(database.read_bytes())
        for page in range(10, len(data) // PAGE, 3):
            data[page * PAGE : page * PAGE + PAGE] = os.urandom(PAGE)
        database.write_bytes(data)
    else:
        with sqlite3.connect(database) as raw:
            raw.execute("DROP TABLE questions" if damage == "table" else "DROP TRIGGER questions_never_change")
            if damage == "text":
                raw.execute("UPDATE questions SET messages = 'nonsense' WHERE rowid = 7")
    for command in (["status"], ["label", "--yes"], ["train"], ["export"], ["costs"]):
        ended = cli(*command)
        assert "Traceback" not in ended.stderr and len(ended.stderr.strip().splitlines()) <= 1, ended.stderr
        if damage != "text":
            assert command[0] == "costs" or "repair" in ended.stderr, (command, ended.stderr)


def test_a_copy_of_the_file_alone_is_complete_when_a_command_has_ended(tmp_path: Path) -> None:
    fill(tmp_path / "db", 100)
    with Store(tmp_path / "db") as other:  # another process keeps the database open
        assert other.questions()
        with Store(tmp_path / "db") as store:
            store.add_verdicts([Verdict(f"{0:016x}", "human", "you", "b", "import")])
        (tmp_path / "copy").write_bytes((tmp_path / "db").read_bytes())
    with Store(tmp_path / "copy") as copy:
        assert sum(len(found) for found in copy.verdicts().values()) == 101


def test_a_backup_is_complete_while_another_process_writes(tmp_path: Path, cli: Cli) -> None:
    fill(tmp_path / "fingerpost.db", 100)
    with Store(tmp_path / "fingerpost.db") as store:
        store.add_verdicts([Verdict(f"{0:016x}", "human", "you", "b", "import")])  # still in the write-ahead log
        assert cli("backup", "-C", str(tmp_path), "copy.db", cwd=tmp_path).returncode == 0
        assert cli("backup", "-C", str(tmp_path), "copy.db", cwd=tmp_path).returncode == 2
    with Store(tmp_path / "copy.db") as copy:
        assert sum(len(found) for found in copy.verdicts().values()) == 101


@pytest.mark.skipif(os.name == "nt", reason="no POSIX permissions")
def test_a_database_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        fill(tmp_path / "db", 1)
        with Store(tmp_path / "db") as store:
            store.add_verdicts([Verdict(f"{0:016x}", "human", "you", "b", "import")])
            ids = store.ledger.record([], [Call("label", "m", 0.5)], None)
            assert isinstance(ids[0], int)
            with store.request_session() as (_, aside):
                aside.add([Settlement(ids[0], "lost")])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes.pop("db.holders") == 0o700
    assert set(modes.values()) == {0o600}, modes
