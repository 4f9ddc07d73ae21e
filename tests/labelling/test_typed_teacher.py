"""A teacher on the decisions wire: it says how probable each label is, and students learn from that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import question_text, write_questions
from serving import Serving
from teacher import Teacher

import fingerpost
from fingerpost.core.errors import TaskError, TeacherError
from fingerpost.core.types import Message, Verdict
from fingerpost.core.verdicts import QuestionVerdicts
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import label, plan_labels
from fingerpost.labelling.requests import LabelSelection, label_request
from fingerpost.labelling.teacher import LiveTeacher
from fingerpost.llm.completion import RequestLost
from fingerpost.llm.decisions import decision_body, parse_decision
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.task.prompt import prompt_fingerprint
from fingerpost.task.settings import Task, TeacherSettings
from fingerpost.training.dataset import from_store


@pytest.fixture
def typed(task: Task, folder: Path, store: Store) -> Task:
    """The task with its teacher on the decisions wire, and thirty questions."""
    import_file(store, task, write_questions(folder / "q.txt", 30))
    assert task.teacher is not None
    return task.model_copy(update={"teacher": task.teacher.model_copy(update={"api": "decisions"})})


def test_probabilities_are_kept_and_learnt_from(typed: Task, store: Store, folder: Path, teacher: Teacher) -> None:
    done = label(typed, store, plan_labels(typed, store, LabelSelection(votes=2)), folder)
    assert (done.usable, done.unusable) == (60, 0)
    orders = {tuple(one["value"] for one in body["questions"][0]["choices"]) for body in teacher.bodies}
    assert len(orders) > 1  # the label order varies
    body = teacher.bodies[0]
    assert body["questions"][0]["instructions"] and "messages" not in body and "temperature" not in body
    described = {one["value"]: one["description"] for one in body["questions"][0]["choices"]}
    assert described == {one.name: one.description for one in typed.labels}
    for question in store.questions():
        verdicts = store.verdicts()[question.id]
        name = question.messages[0].content.split()[0]
        assert [found.label for found in verdicts] == [name, name]
        assert verdicts[0].probabilities is not None and verdicts[0].probabilities[name] == pytest.approx(0.8)
        distribution = QuestionVerdicts(verdicts, typed.names).label_distribution()
        assert distribution is not None and len(distribution) == 3 and distribution[name] == pytest.approx(0.8)
    data = from_store(typed, store, "teacher", Project(folder).embed_for_consensus)
    assert all(sorted(example.target.values()) == pytest.approx([0.1, 0.1, 0.8]) for example in data.train)
    assert store.ledger.account().committed_usd > 0


@pytest.mark.slow
def test_a_server_of_ours_is_such_a_teacher(task: Task, student: Path, tmp_path: Path) -> None:
    with Serving(tmp_path / "served", f"queue={student}") as server:
        settings = TeacherSettings(model="queue", api="decisions", base_url=server.url)
        own = task.model_copy(update={"teacher": settings})
        texts = [question_text(number) for number in range(6)]
        found = LiveTeacher(own, tmp_path).predict(texts)
    assert [one.label for one in found] == [one.label for one in fingerpost.load(student).predict(texts)]
    assert found[0].confidence == pytest.approx(max(found[0].scores.values()), abs=1e-4) and len(found[0].scores) > 1


def test_levels_are_asked_for_as_a_score(typed: Task) -> None:
    messages, question = label_request(
        typed.model_copy(update={"ordinal": True}), (Message("user", "x"),), typed.names[::-1], (("y", "other"),)
    )
    assert [one["label"] for one in question["levels"]] == typed.names
    assert "Examples:\n'y': other" in messages[0]["content"]
    body = decision_body("m", messages, question)
    assert body["input"] == [{"role": "user", "content": "x"}]


def test_what_such_a_teacher_cannot_do_is_said(typed: Task, store: Store, folder: Path) -> None:
    plan = plan_labels(typed, store)
    with pytest.raises(TeacherError, match="without --batch"):
        label(typed, store, plan, folder, batch=True)
    with pytest.raises(TeacherError, match="leave out --record"):
        label(typed, store, plan, folder, record=folder / "answers.jsonl")
    with pytest.raises(TaskError, match="multi = true"):
        label_request(typed.model_copy(update={"multi": True}), (Message("user", "x"),), typed.names)
    with pytest.raises(TeacherError, match="neither write questions nor describe"):
        decision_body("m", [], {"type": "object"})
    with pytest.raises(ValueError, match="leave out gguf and recorded"):
        TeacherSettings(model="m", api="decisions", gguf="x.gguf")


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"answers": []}', b'{"answers": [{"type": "choice"}]}', b"[1]",
                                  b'{"answers": [{"type": "score", "probabilities": []}]}'])  # fmt: skip
def test_nonsense_is_no_answer(body: bytes) -> None:
    with pytest.raises(RequestLost):
        parse_decision(body, 0.1, "there")


def test_a_refusal_names_no_label() -> None:
    reply = parse_decision(b'{"answers": [{"type": "refusal", "name": "action"}]}', 0.1, "there")
    assert reply.text is None and reply.refusal and reply.usage.prompt is None


def test_odd_probabilities_are_left_out(typed: Task) -> None:
    rows: Any = [{"value": "billing", "probability": 0.5}, {"value": "other", "probability": 7}]
    body = json.dumps({"answers": [{"type": "choice", "name": "action", "choice": "billing", "probabilities": rows}]})
    reply = parse_decision(body, 0.1, "there")
    assert reply.probabilities == {"billing": 0.5} and reply.text == '{"action": "billing"}'


def test_a_label_that_was_removed_is_no_longer_learnt(typed: Task, store: Store, folder: Path) -> None:
    label(typed, store, plan_labels(typed, store), folder)
    fewer = typed.model_copy(update={"labels": typed.labels[:2], "fallback": None})
    data = from_store(fewer, store, "teacher", Project(folder).embed_for_consensus)
    assert data.train and all(set(example.target) <= set(fewer.names) for example in data.train)
    assert all(sum(example.target.values()) == pytest.approx(1) for example in data.train)


def test_other_probabilities_are_another_training_set(typed: Task, store: Store, folder: Path) -> None:
    before = prompt_fingerprint(typed)
    assert typed.teacher is not None
    assert before != prompt_fingerprint(
        typed.model_copy(update={"teacher": typed.teacher.model_copy(update={"api": "chat"})})
    )
    key = next(iter(store.questions())).id
    soft = {"billing": 0.6, "other": 0.4}
    store.add_verdicts([Verdict(key, "teacher", "test-model", "billing", probabilities=soft)])
    assert store.add_verdicts([Verdict(key, "teacher", "test-model", "billing", probabilities={"billing": 1.0})]) == 1
