"""`label --again doubtful` and a second teacher: few-shot prompts, what is replaced, what is pooled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reviewing import GOLD, bag_of_words, fill
from teacher import Teacher
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from fingerpost.cli import app
from fingerpost.consensus.doubtful import EXAMPLES
from fingerpost.core.errors import InputError
from fingerpost.core.types import Verdict
from fingerpost.core.verdicts import REVIEW
from fingerpost.project import Project
from fingerpost.training.dataset import from_store

if TYPE_CHECKING:
    import subprocess

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose teacher labels every `delivery` question `billing`, with cheap embeddings."""
    monkeypatch.setattr(Project, "embed", lambda _, *given: bag_of_words(*given))
    opened = Project(folder)
    with opened.store() as store:
        fill(store)
    return opened


def review(project: Project, count: int) -> set[str]:
    """Give `count` training questions their right label; returns their ids."""
    with project.store() as store:
        reviewed = store.questions("train")[::3][:count]
        store.add_verdicts(
            Verdict(question.id, "human", "ann", GOLD[question.id], origin=REVIEW) for question in reviewed
        )
    return {question.id for question in reviewed}


def run(project: Project, *arguments: str) -> str:
    with threadpool_limits(1):
        done = CliRunner().invoke(app, ["label", "-C", str(project.folder), "--yes", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_doubtful_labels_are_asked_again_with_reviewed_examples(project: Project, teacher: Teacher) -> None:
    reviewed = review(project, 40)
    teacher.reply = '{"action": "delivery"}'
    assert "5 requests" in run(project, "--again", "doubtful", "--limit", "5")
    assert len(teacher.bodies) == 5
    for body in teacher.bodies:
        roles = [turn["role"] for turn in body["messages"]]
        assert roles == ["system", *["user", "assistant"] * EXAMPLES, "user"]
        assert {turn["content"] for turn in body["messages"] if turn["role"] == "assistant"} <= {
            f'{{"action": "{label}"}}' for label in ("billing", "delivery", "other")
        }
    with project.store() as store:
        asked = {key: found for key, found in store.verdicts().items() if any(verdict.raw for verdict in found)}
        assert len(asked) == 5 and not reviewed & set(asked)
        prompts = {verdict.prompt for found in asked.values() for verdict in found if verdict.raw}
    assert len(prompts) == 5  # of each row's own examples
    assert len({str(prompt).split("+")[0] for prompt in prompts}) == 1
    assert all(found[-1].label == "delivery" and found[-1].usage.cost_usd for found in asked.values())
    run(project, "--again", "doubtful", "--limit", "5")
    last = [body["messages"][-1]["content"] for body in teacher.bodies]
    assert len(set(last)) == len(last)  # the same request is not sent twice


def test_too_few_reviews_and_unknown_values_are_said(project: Project, cli: Cli) -> None:
    review(project, 3)
    with pytest.raises(InputError, match="3 training questions were reviewed, 20 are needed"):
        project.plan_doubtful()
    assert "--again takes prompt or doubtful, not 'all'" in cli("label", "--again", "all").stderr
    assert "add a table [second_teacher]" in cli("label", "--second-teacher").stderr


def test_the_answers_of_a_second_teacher_are_pooled(project: Project, teacher: Teacher) -> None:
    task = project.folder / "task.toml"
    text = task.read_text()
    task.write_text(f'{text}\n[second_teacher]\nmodel = "second"\nbase_url = "{teacher.base_url}"\n')
    second = Project(project.folder)
    teacher.reply = '{"action": "delivery"}'
    assert "to second" in run(second, "--second-teacher", "--split", "train")
    with second.store() as store, threadpool_limits(1):
        by = {found.by for given in store.verdicts().values() for found in given if found.kind == "teacher"}
        assert by == {"test-model", "second"}
        pooled = from_store(second.task, store, "consensus", bag_of_words)
        alone = from_store(second.task, store, "teacher", bag_of_words)
    disputed = [example for example in pooled.train if len([p for p in example.target.values() if p > 0.01]) > 1]
    assert disputed and all(max(example.target.values()) == 1 for example in alone.train)
    assert all("delivery" in example.target for example in disputed)
