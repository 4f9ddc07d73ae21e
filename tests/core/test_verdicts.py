"""Whose label counts, and that every step asks the same owner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fingerpost.core.types import Message, Question, Verdict
from fingerpost.core.verdicts import WITHDRAWN, QuestionVerdicts
from fingerpost.evaluation.rows import rows_from_store
from fingerpost.labelling.descriptions import confused_labels
from fingerpost.store.project import Store
from fingerpost.task.settings import Task
from fingerpost.training.dataset import from_store
from fingerpost.training.export import export

LABELS = ("billing", "delivery", "other")


def human(label: str | None, by: str = "ann", **more: str) -> Verdict:
    return Verdict("q", "human", by, label, **more)


def teacher(label: str | None, by: str = "llm", order: int = 0) -> Verdict:
    return Verdict("q", "teacher", by, label, order=order)


def writer(label: str) -> Verdict:
    return Verdict("q", "writer", "llm", label, draft=1, item=0)


@pytest.mark.parametrize(
    ("verdicts", "use", "expected"),
    [
        ([], "best", None),
        ([teacher("billing")], "best", {"billing": 1.0}),
        ([teacher("billing"), human("other")], "best", {"other": 1.0}),
        ([teacher("billing"), human("other")], "teacher", {"billing": 1.0}),
        ([teacher("billing")], "human", None),
        ([teacher("billing", order=0), teacher("other", order=1)], "best", {"billing": 0.5, "other": 0.5}),
        ([teacher("billing"), teacher(None)], "best", {"billing": 1.0}),
        ([teacher("gone")], "best", None),
        ([teacher("billing"), human("gone")], "best", {"billing": 1.0}),
        ([human("billing"), human(None, "bob")], "human", None),
        ([human("billing"), human(None, "bob")], "best", None),
        ([teacher("other"), human(None)], "teacher", {"other": 1.0}),
        ([human("billing"), human("billing", "bob"), human(None, "eve")], "human", {"billing": 1.0}),
        ([human("billing"), human("other")], "human", {"other": 1.0}),
        ([human("billing", mark="m"), human(None, mark="m", origin=WITHDRAWN)], "human", None),
        ([writer("billing"), teacher("other")], "best", None),
        ([writer("billing"), teacher("other")], "teacher", None),
        ([writer("billing"), teacher("other"), human("other")], "best", {"other": 1.0}),
        ([writer("billing"), teacher("billing")], "best", {"billing": 1.0}),
    ],
)
def test_the_label_that_counts(verdicts: list[Verdict], use: str, expected: dict[str, float] | None) -> None:
    assert QuestionVerdicts(verdicts, LABELS).label_distribution(use) == expected  # type: ignore[arg-type]


def test_the_named_teacher_counts_alone_where_it_has_answered() -> None:
    both = [teacher("billing", "a"), teacher("other", "b")]
    assert QuestionVerdicts(both, LABELS, "b").label() == "other"
    assert QuestionVerdicts(both[:1], LABELS, "b").label() == "billing"


@pytest.fixture
def filled(store: Store) -> Store:
    """Per split: agreed, disputed, "none fits" by half of the reviewers, and a label that the task no longer has."""
    cases = {
        "agreed": [teacher("billing"), human("billing")],
        "disputed": [writer("billing"), teacher("other")],
        "none": [teacher("billing"), human("billing"), human(None, "bob")],
        "renamed": [human("invoices")],
    }
    for split in ("train", "dev", "test"):
        for number in range(3):
            for case, verdicts in cases.items():
                key = f"{split}-{case}-{number}"
                store.add_questions([Question(key, (Message("user", key),), "user", key, split)])  # type: ignore[arg-type]
                store.add_verdicts(
                    Verdict(key, v.kind, v.by, v.label, order=v.order, draft=v.draft, item=v.item) for v in verdicts
                )
    return store


def test_export_leaves_out_what_training_leaves_out(task: Task, filled: Store, tmp_path: Path) -> None:
    export(task, filled, tmp_path / "train.jsonl", tmp_path / "dev.jsonl")
    lines = [*(tmp_path / "train.jsonl").read_text().splitlines(), *(tmp_path / "dev.jsonl").read_text().splitlines()]
    exported = {json.loads(line)["messages"][1]["content"] for line in lines}
    trained = from_store(task, filled, "best", lambda questions: np.zeros((len(questions), 4), dtype=np.float32))
    assert exported == {example.id for example in (*trained.train, *trained.dev)}
    assert exported == {f"{split}-agreed-{i}" for split in ("train", "dev") for i in range(3)}


def test_test_rows_have_only_labels_of_the_task(task: Task, filled: Store) -> None:
    gold = {row.id: row.gold for row in rows_from_store(task, filled)}
    assert [gold[f"test-{case}-0"] for case in ("agreed", "renamed")] == ["billing", None]


def test_test_rows_leave_out_what_no_label_fits(task: Task, filled: Store) -> None:
    assert not [row.id for row in rows_from_store(task, filled) if "none" in row.id]


def test_descriptions_learn_from_the_same_labels(task: Task, filled: Store) -> None:
    assert confused_labels(task, filled) == []
