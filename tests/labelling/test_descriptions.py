"""The command `define`: the teacher rewrites the descriptions of labels that it confuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TEXTS
from reviewing import GOLD, fill
from teacher import Teacher
from typer.testing import CliRunner

from fingerpost.cli import app
from fingerpost.core.errors import BudgetError, InputError
from fingerpost.core.types import Verdict
from fingerpost.labelling.descriptions import confused_labels, parse_description
from fingerpost.store.project import Store
from fingerpost.task.loader import load_task
from fingerpost.task.settings import Task

NEW = "where a parcel is, and when it comes"


@pytest.fixture
def reviewed(folder: Path) -> Path:
    """A project where humans labelled all training and test questions of `delivery`."""
    with Store(folder / "fingerpost.db") as store:
        fill(store)
        found = [question for question in store.questions("train", "test") if GOLD[question.id] == "delivery"]
        store.add_verdicts(Verdict(question.id, "human", "ann", "delivery") for question in found)
    return folder


def define(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["define", "-C", str(folder), *arguments])


def test_confusions_are_found_in_training_questions(reviewed: Path, task: Task) -> None:
    with Store(reviewed / "fingerpost.db") as store:
        found = {confused.label.name: confused for confused in confused_labels(task, store)}
        count = sum(GOLD[question.id] == "delivery" for question in store.questions("train"))
    assert set(found) == {"billing", "delivery"}
    assert len(found["delivery"].missed) == len(found["billing"].mistaken) == count
    assert not found["delivery"].mistaken and {other for _, other in found["delivery"].missed} == {"billing"}


def test_define_shows_a_diff_and_writes_only_with_write(reviewed: Path, teacher: Teacher) -> None:
    teacher.reply = json.dumps({"description": NEW})
    before = (reviewed / "task.toml").read_text()
    assert isinstance(define(reviewed).exception, InputError)
    run = define(reviewed, "--yes")
    assert run.exit_code == 0 and f'+delivery = "{NEW}"' in run.output
    assert (reviewed / "task.toml").read_text() == before
    run = define(reviewed, "--yes", "--write")
    assert run.exit_code == 0 and "--again prompt" in run.output
    after = {label.name: label.description for label in load_task(reviewed / "task.toml").labels}
    assert after["delivery"] == NEW and after["other"] == "anything else"
    assert "concurrency = 4" in (reviewed / "task.toml").read_text()


def test_test_questions_are_not_sent(reviewed: Path, teacher: Teacher) -> None:
    teacher.reply = json.dumps({"description": NEW})
    define(reviewed, "--yes")
    with Store(reviewed / "fingerpost.db") as store:
        hidden = [question.messages[-1].content for question in store.questions("test")]
    sent = "\n".join(body["messages"][-1]["content"] for body in teacher.bodies)
    assert any(text in sent for text in TEXTS["delivery"]) and not any(f"- {text} (" in sent for text in hidden)


def test_define_without_a_usable_reply_or_budget(reviewed: Path, teacher: Teacher) -> None:
    teacher.reply = "I would rather not"
    before = (reviewed / "task.toml").read_text()
    assert define(reviewed, "--yes", "--write").exit_code == 0
    assert isinstance(define(reviewed, "--yes", "--budget", "0.000001").exception, BudgetError)
    assert (reviewed / "task.toml").read_text() == before


@pytest.mark.parametrize("reply", [None, "", "[]", '{"description": 3}', '{"description": " "}', "x" * 500])
def test_replies_without_a_description(reply: str | None) -> None:
    assert parse_description(reply) is None
    assert parse_description(json.dumps({"description": "a\n  b"})) == "a b"
