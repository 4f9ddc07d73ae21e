"""The parts of the loop: recognition, replies, and learning from logged answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import question_text
from tiny_encoder import tiny_encoder_folder

from fingerpost.core.types import Message, Usage
from fingerpost.project import STUDENT, Project
from fingerpost.server.loop.active import load_model
from fingerpost.server.loop.projects import answers_missing, human_labels, is_same_prompt, learn
from fingerpost.server.loop.recognition import ObservedReply, Place, Wire, read_reply, recognise
from fingerpost.server.loop.summary import summarise
from fingerpost.store.server import DATABASE, ServerStore
from fingerpost.store.server_rows import DecisionRow, LoggedTeacherReply, RequestLogEntry

LABELS = ["billing", "delivery", "other"]
ONE: dict[str, Any] = {"type": "object", "properties": {"queue": {"type": "string", "enum": LABELS}}}
TWO = {"type": "object", "properties": {**ONE["properties"], "urgency": {"enum": ["low", "high"]}}}
OPTIONS: dict[str, Any] = {"encoder": str(tiny_encoder_folder()), "epochs": 0}


def form(schema: dict[str, Any], name: str = "ticket") -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}}


def tool(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or {}}}


def found(
    body: dict[str, Any], name: str | None = None, wire: Wire = "chat"
) -> tuple[str, Place, tuple[Any, ...]] | None:
    turns = {"messages": [{"role": "user", "content": "x"}]} if wire == "chat" else {"input": "x"}
    recognised = recognise(wire, {"model": "m", **turns, **body}, name)
    return None if recognised is None else (recognised.hint, recognised.place, recognised.labels)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (form(ONE), ("ticket", Place(("queue",)), tuple(LABELS))),
        (form(ONE, "response"), ("queue", Place(("queue",)), tuple(LABELS))),
        (form({"type": "object", "properties": {"a": ONE}}), ("ticket", Place(("a", "queue")), tuple(LABELS))),
        (form({"properties": {"ok": {"anyOf": [{"const": 1}, {"const": 2}]}}}), ("ticket", Place(("ok",)), (1, 2))),
        (form(TWO), None),
        (form({"type": "object", "properties": {"all": {"type": "array", "items": {"enum": LABELS}}}}), None),
        (form({"type": "object", "properties": {"text": {"type": "string"}}}), None),
        ({**form(ONE), "n": 2}, None),
        ({"tools": [tool("route", ONE)], "tool_choice": "required"}, ("route", Place(("queue",), "route"), tuple(LABELS))),
        ({"tools": [tool("route", ONE)]}, None),
        (
            {"tools": [tool("search"), tool("route", ONE)], "tool_choice": {"type": "function", "function": {"name": "route"}}},
            ("route", Place(("queue",), "route"), tuple(LABELS)),
        ),
        ({"tools": [tool("a"), tool("b")], "tool_choice": "required"}, ("tools", Place(by_tool=True), ("a", "b"))),
        (form({**ONE, "properties": {**ONE["properties"], "confidence": {"type": "number"}, "why": {"const": "x"}}}),
         ("ticket", Place(("queue",)), tuple(LABELS))),
        (form({**ONE, "properties": {**ONE["properties"], "items": {"type": "array", "items": {"type": "string"}}}}), None),
        (form({**ONE, "properties": {**ONE["properties"], "due": {"type": ["string", "null"]}}}), None),
        ({**form(ONE), "tools": [tool("search")]}, None),
        ({**form(ONE), "messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]}, None),
        ({}, None),
        ({"tools": "x", "tool_choice": {"function": "y"}}, None),
        ({"messages": "x"}, None),
    ],
)  # fmt: skip
def test_what_is_a_decision(body: dict[str, Any], expected: Any) -> None:
    assert found(body) == expected


def test_a_header_names_a_decision() -> None:
    assert found({}, "mood") == ("", Place(), ())
    flat = {"text": {"format": {"type": "json_schema", "name": "ticket", "schema": ONE}}}
    assert found(flat, wire="responses") == ("ticket", Place(("queue",)), tuple(LABELS))
    assert found({**flat, "background": True}, wire="responses") is None


@pytest.mark.parametrize(
    ("wire", "kind", "body", "expected"),
    [
        ("chat", "application/json", {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 3}},
         ObservedReply("x", None, {"prompt_tokens": 3})),
        ("chat", "application/json", {"error": {}}, None),
        ("chat", "application/json", b"<html>", None),
        ("chat", "text/event-stream; charset=utf-8",
         b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"content":"b"}}]}\n\ndata: [DONE]\n\n',
         ObservedReply("ab")),
        ("chat", "text/event-stream",
         b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"t","arguments":"{"}}]}}]}\n\n'
         b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}\n\n',
         ObservedReply("{}", "t")),
        ("chat", "application/json", {"choices": [{"message": {"content": [{"type": "text", "text": "x"}]}}], "usage": [1]},
         ObservedReply("x")),
        ("chat", "application/json",
         {"choices": [{"message": {"tool_calls": [{"function": {"name": "t", "arguments": {"a": 1}}}]}}]},
         ObservedReply('{"a": 1}', "t")),
        ("responses", "application/json",
         {"output": [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": "x"}]}]},
         ObservedReply("x", None, dict.fromkeys(("prompt_tokens", "completion_tokens", "prompt_tokens_details")))),
    ],
)  # fmt: skip
def test_replies_are_read(wire: Wire, kind: str, body: Any, expected: ObservedReply | None) -> None:
    assert read_reply(wire, kind, body if isinstance(body, bytes) else json.dumps(body).encode()) == expected


def test_which_prompts_are_the_same() -> None:
    prompt = "Route it. Today is Monday, 3 March 2026."
    assert is_same_prompt(prompt, "Route it. Today is Friday, 27 November 2026.", False)
    assert not is_same_prompt(prompt, "Do not route it. Today is Monday, 3 March 2026.", False)
    assert is_same_prompt(f"{prompt} The customer is Ann.", f"{prompt} The customer is Bob.", True)


def test_the_value_in_a_reply() -> None:
    place = Place(("a", "queue"), "route")
    assert place.value_in(ObservedReply('{"a": {"queue": "billing"}}', "route")) == "billing"
    assert place.value_in(ObservedReply('{"a": {"queue": "billing"}}', "search")) is None
    for text in ('{"a": "billing"}', "[]", "no JSON", '{"a": {"queue": true}}'):
        assert place.value_in(ObservedReply(text, "route")) is None
    assert Place(("queue",)).value_in(ObservedReply('```json\n{"queue": 3}\n```')) == 3
    assert Place(by_tool=True).value_in(ObservedReply("{}", "billing")) == "billing"


class Logged:
    """A server's database with a decision and so many answers to it."""

    def __init__(self, folder: Path, *, labels: Sequence[str] = LABELS, path: Sequence[str] = ("queue",)) -> None:
        folder.mkdir(parents=True)
        self.store, self.folder = ServerStore(folder / DATABASE), folder / "decisions"
        self.row = self.version(labels, path)

    def version(
        self, labels: Sequence[str], path: Sequence[str] = ("queue",), prompt: str = "Route it.", number: int = 1
    ) -> DecisionRow:
        place = {"path": list(path), "tool": None, "by_tool": False}
        return self.store.add_decision("ticket", number, "observe", place, list(labels), prompt, "big")

    def add(self, row: DecisionRow, numbers: range, reply: str = '{{"queue": "{}"}}', text: str = "{}") -> None:
        known = bool(row.labels)
        self.store.add_log_entries(
            [
                RequestLogEntry(
                    f"req_{number}", number, None, "big", (Message("user", text.format(question_text(number))),),
                    label if known else None, 0.0, "upstream", 0.5,
                    LoggedTeacherReply("big", label if known else None, reply.format(label), None, Usage()), row.id,
                )
                for number in numbers for label in [LABELS[number % 3]]
            ]
        )  # fmt: skip

    def learn(self, row: DecisionRow) -> DecisionRow:
        return learn(self.store, row, self.folder, 0.1, **OPTIONS)

    def answers(self, row: DecisionRow, numbers: range, text: str = "{}") -> list[str | None]:
        model = load_model(row, self.folder / row.folder / "models" / STUDENT)
        conversations = [(Message("user", text.format(question_text(number))),) for number in numbers]
        return [one.label for one in model.student.predict(conversations)]


def test_answers_become_a_project_with_a_student_and_a_proven_cutoff(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "served")
    logged.add(logged.row, range(240))
    row = logged.learn(logged.row)
    assert row.training["at_least"] >= 0.9 and row.training["rows"] == 240 and row.imported == 240
    right = [label == LABELS[number % 3] for number, label in enumerate(logged.answers(row, range(500, 560)), 500)]
    assert sum(right) > 50
    project = Project(logged.folder / "ticket")
    assert project.task.answer_field == "queue" and project.task.teacher_model == "big"
    logged.add(row, range(240, 260))
    assert answers_missing(row, 20) == 100
    turns = (Message("user", "the student's"),)
    logged.store.add_log_entries(
        [
            RequestLogEntry(f"own_{i}", i, None, "big", turns, "other", 0.9, "student", 0.1, None, row.id, "other")
            for i in range(9)
        ]
    )
    again = logged.learn(row)
    assert again.training["rows"] == 260 and again.imported == 269 and again.training["stamp"] != row.training["stamp"]
    with project.store() as store:
        assert sum(store.counts().values()) == 260


def test_labels_of_replies_in_plain_text_and_a_prompt_in_the_users_turn(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "served", labels=(), path=())
    wrapped = "Where does this message of a customer belong? Message: {}"
    logged.add(logged.row, range(120), "Queue: {}", wrapped)
    row = logged.learn(logged.row)
    assert sorted(row.labels) == LABELS and row.user_template is not None and row.reply_template is not None
    assert "Where does" in row.user_template["before"] and row.reply_template["before"] == "Queue: "
    project = Project(logged.folder / "ticket")
    with project.store() as store:
        assert all("Where does" not in question.messages[-1].content for question in store.questions())


def test_a_new_label_begins_a_version_that_takes_the_answers_over(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "served")
    logged.add(logged.row, range(150))
    more = logged.version([*LABELS, "refund"], number=2)
    other = logged.version(LABELS, prompt="Entirely different words decide what this message means now", number=3)
    logged.add(more, range(150, 180))
    logged.add(other, range(150, 240))
    assert (more.folder, other.folder) == ("ticket.2", "ticket.3")
    for row, questions in ((logged.learn(more), 180), (logged.learn(other), 90)):
        with Project(logged.folder / row.folder).store() as store:
            assert sum(store.counts().values()) == questions


def test_reviews_are_learnt_and_shown(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "served")
    logged.add(logged.row, range(200))
    row = logged.learn(logged.row)
    place = logged.folder / "ticket"
    assert human_labels(place) == 0
    project = Project(place)
    with project.store() as store:
        queue = project.review(store, "ann")
        while queue.reviewed < 60 and (card := queue.next()) is not None:
            text = card.question.messages[-1].content
            queue.answer(card.question, next(label for label in LABELS if label in text))
    assert human_labels(place) == 60
    row = logged.learn(row)
    assert row.training["humans"] == 60 and row.training["corrected"] and row.training["differs"] >= 0
    summary = summarise(logged.store, row, logged.folder)
    assert summary.humans is not None and summary.humans.n == 60
    assert 0 <= summary.humans.student.low <= summary.humans.student.value <= 1
    assert "--mode shadow" in summary.next_step
