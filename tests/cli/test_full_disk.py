"""Commands whose disk is full: one line, nothing that was paid for is lost, and the next run goes on."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Cli
from conftest import task_text, write_labelled, write_questions
from teacher import Teacher

from fingerpost.store.project import Store

QUESTIONS = 60


class Disk:
    """A small file system, which can be filled up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as stream:
            for size in (65_536, 512):
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(b"x" * size)

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    (folder / "task.toml").write_text(task_text(teacher.base_url))
    write_questions(folder / "q.txt", QUESTIONS)
    write_labelled(folder / "data.csv")
    yield Disk(folder)
    subprocess.run(["umount", str(folder)], check=True)


def in_one_line(run: subprocess.CompletedProcess[str]) -> None:
    lines = run.stderr.strip().splitlines()
    assert run.returncode == 2 and "Traceback" not in run.stderr, run.stderr
    assert any(word in lines[-1] for word in ("disk is full", "No space left", "has no room")), run.stderr
    assert "free some space" in lines[-1] or "Free disk space" in lines[-1], lines[-1]


def test_import_train_predict_and_export(disk: Disk, cli: Cli, tiny_encoder: Path) -> None:
    commands = [
        ["import", "q.txt"],
        ["import", "data.csv"],
        ["train", "data.csv", "-o", "model", "--epochs", "0", "--encoder", str(tiny_encoder)],
        ["predict", "model", "data.csv", "-o", "out.csv"],
        ["export", "--labels", "best"],
        ["backup", "copy.db"],
    ]
    for command in commands:
        disk.fill()
        in_one_line(cli(*command, cwd=disk.folder))
        disk.free()
        before = {path.name for path in disk.folder.iterdir()}
        run = cli(*command, cwd=disk.folder)
        assert run.returncode == 0, (command, run.stderr)
        left = [name for name in before if name.endswith((".partial", ".parts")) or name.startswith(".model")]
        assert not left, left


def test_answers_that_come_while_the_disk_fills_up_are_kept(disk: Disk, cli: Cli, teacher: Teacher) -> None:
    assert cli("import", "q.txt", cwd=disk.folder).returncode == 0
    database = disk.folder / "fingerpost.db"
    teacher.delay_s, ended = 0.2, threading.Event()

    def fill_up() -> None:
        while sum(teacher.answered.values()) < 8:
            time.sleep(0.01)
        while not ended.is_set():
            disk.fill()
            time.sleep(0.01)

    thread = threading.Thread(target=fill_up)
    thread.start()
    run = cli("label", "--yes", cwd=disk.folder)
    ended.set()
    thread.join()
    in_one_line(run)
    assert list(disk.folder.glob("*.unstored-*")) and "paid answers are kept" in run.stderr
    disk.free()
    teacher.delay_s = 0.0
    assert cli("label", "--yes", cwd=disk.folder).returncode == 0
    with Store(database) as store:
        assert len(store.verdicts()) == QUESTIONS and store.ledger.account().uncertain == 0
    assert set(teacher.answered.values()) == {1} and not list(disk.folder.glob("*.unstored-*"))


def test_nothing_is_asked_on_a_disk_that_is_full_already(disk: Disk, cli: Cli, teacher: Teacher) -> None:
    assert cli("import", "q.txt", cwd=disk.folder).returncode == 0
    disk.fill()
    in_one_line(cli("label", "--yes", cwd=disk.folder))
    assert not teacher.asked
