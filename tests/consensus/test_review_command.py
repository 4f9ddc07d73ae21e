"""The command `review`: keys from a pipe and from a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reviewing import GOLD, bag_of_words, fill
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from fingerpost.cli import app
from fingerpost.cli.terminal import parse_numbers, printable
from fingerpost.consensus.history import decisions
from fingerpost.core.verdicts import active
from fingerpost.project import Project
from fingerpost.store.project import Store

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Review = Callable[..., str]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """More threads only wait for each other on arrays this small."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def filled(folder: Path) -> Path:
    with Store(folder / "fingerpost.db") as store:
        fill(store)
    return folder


@pytest.fixture
def review(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Review:
    """Run the command in this process, with cheap embeddings; returns its output."""
    monkeypatch.setattr(Project, "embed", lambda _, questions: bag_of_words(questions))

    def run(*arguments: str, keys: str = "") -> str:
        result = CliRunner().invoke(app, ["review", "-C", str(filled), "--by", "ann", *arguments], input=keys)
        assert result.exit_code == 0, result.output
        return result.output

    return run


def human_labels(folder: Path) -> list[str | None]:
    with Store(folder / "fingerpost.db") as store:
        found = [verdict for verdicts in store.verdicts().values() for verdict in active(verdicts)]
    return [verdict.label for verdict in found if verdict.kind == "human"]


def test_every_key(review: Review, filled: Path) -> None:
    shown = review(keys="1" * 3 + "?s" + "/deliv\n" + "nwhy not\n0" + "u" + "zq")
    assert shown.count("similar questions") >= 5 and "4 answers stored" in shown
    labels = human_labels(filled)
    assert len(labels) == 4 and "delivery" in labels and None not in labels
    history = review("--history").splitlines()
    assert len(history) == 5 and sum("taken back" in line for line in history) == 1
    assert sum("why not" in line for line in history) == 1
    last = next(line.split()[0] for line in history if "taken back" not in line)
    review("--take-back", last)
    assert len(human_labels(filled)) == 3


def test_groups_from_the_keyboard(review: Review, filled: Path) -> None:
    assert "no group" in review("--groups", keys="q")
    with Store(filled / "fingerpost.db") as store:
        project = Project(filled)
        from fingerpost.consensus.review import ReviewQueue

        queue = ReviewQueue(project.task, store, "ann", bag_of_words)
        for _ in range(30):
            card = queue.next()
            assert card
            queue.answer(card.question, GOLD[card.question.id])
        before = len(decisions(store))
    shown = review("--groups", keys="zax99\nx1-2\nq")
    assert "group 1 of" in shown
    with Store(filled / "fingerpost.db") as store:
        found = decisions(store)
    corrected = next(decision for decision in found if decision.count > 1)
    assert len(found) == before + 1 and corrected.label == "delivery" and corrected.count > 10


def test_keys_from_a_terminal_label_the_test_sample(filled: Path) -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fingerpost", "review", "--test", "4", "--by", "ann"]
    with subprocess.Popen(command, cwd=filled, stdin=theirs, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for key in "12u2s3":
            while "? help" not in (line := process.stdout.readline()):
                assert line
            while termios.tcgetattr(ours)[3] & termios.ICANON:  # keys before raw mode are discarded
                time.sleep(0.01)
            os.write(ours, key.encode())
        assert "3 of 4 test questions" in process.stdout.read()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0 and len(human_labels(filled)) == 3


@pytest.mark.slow
def test_review_with_the_real_encoder(cli: Cli, filled: Path) -> None:
    run = cli("review", "--by", "ann", stdin="11q")
    assert run.returncode == 0 and len(human_labels(filled)) == 2, run.stderr


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3, 5-7", [2, 4, 5, 6]), ("", []), ("3 3", [2]), ("5-3", None), ("0", None), ("9", None), ("1-", None),
     ("²", None), ("1-999999999999", None), ("x", None)],
)  # fmt: skip
def test_numbers_to_leave_out(text: str, numbers: list[int] | None) -> None:
    assert parse_numbers(text, 8) == numbers


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\u202ec\td\n") == "a\ufffd[2Jb\ufffdc\td\n"
