"""Typed questions on their way to an upstream endpoint: each is a decision, on both wires."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run_subprocess
from serving import Serving, wait
from teacher import LABELS, Teacher, words

from fingerpost.core.text import fingerprint
from fingerpost.server.loop.projects import task_of_decision
from fingerpost.server.loop.recognition import Place
from fingerpost.server.loop.typed_questions import asked_questions, observed_answers, recognise_question
from fingerpost.store.server import DATABASE, ServerStore
from fingerpost.store.server_rows import DecisionRow, RequestLogEntry

QUEUE: dict[str, Any] = {
    "type": "choice", "name": "queue", "instructions": "Where does it belong?",
    "choices": [{"value": "delivery", "description": "parcels"}, {"value": "billing"}, {"value": "other"}],
}  # fmt: skip
ANGRY: dict[str, Any] = {"type": "predicate", "instructions": "The customer is angry."}
URGENCY: dict[str, Any] = {"type": "score", "name": "urgency", "instructions": "How urgent?",
                           "levels": [{"label": "low"}, {"label": "middle"}, {"label": "high"}]}  # fmt: skip
ANGRY_HINT = f"question-{fingerprint([ANGRY['instructions']])[:8]}"
OLDER: dict[str, Any] = {
    "model": "m", "state": {"text": "hello"},
    "questions": {
        "queue": {"type": "choice", "instructions": "Where?", "criteria": {"billing": "money", "other": ""}},
        "angry": {"type": "noul", "instructions": "Angry?"},
        "urgency": {"type": "score", "instructions": "How urgent?", "criteria": ["low", "high"]},
    },
}  # fmt: skip


def answers(path: str, body: dict[str, Any], response: Any) -> list[tuple[Any, Any] | None]:
    """The text and the probabilities of each answer that is read from a response."""
    asked = asked_questions(path, body)
    assert asked is not None
    recognised = [recognise_question(asked, number, None) for number in range(len(asked.questions))]
    raw = response if isinstance(response, bytes) else json.dumps(response).encode()
    found = observed_answers(asked, recognised, raw)
    return [None if reply is None else (json.loads(reply.text or ""), reply.probabilities) for reply in found]


def test_each_question_is_a_decision() -> None:
    body = {"model": "m", "input": "hello", "questions": [QUEUE, ANGRY, URGENCY]}
    asked = asked_questions("/v1/decisions", body)
    assert asked is not None
    queue, angry, urgency = [recognise_question(asked, number, None, body) for number in range(3)]
    assert (queue.hint, queue.labels, queue.place) == ("queue", ("delivery", "billing", "other"), Place(("queue",)))
    assert queue.system == "Where does it belong?\n- delivery: parcels"
    assert angry.hint.startswith("question-") and (angry.labels, angry.ordinal) == (("false", "true"), False)
    assert urgency.ordinal and urgency.body == {}
    alone = {**body, "questions": [QUEUE]}
    asked = asked_questions("/v1/decisions", alone)
    assert asked is not None and recognise_question(asked, 0, "mood", alone).body == alone
    assert asked_questions("/v1/decisions", {"model": "m"}) is None


def test_answers_are_read_on_both_wires() -> None:
    rows = [{"value": "delivery", "probability": 0.25}, {"value": "billing", "probability": 0.75}]
    levels = [{"label": "low", "value": 0, "probability": 0.1}, {"label": "middle", "value": 1, "probability": 0.9}]
    response = {"answers": [{"type": "choice", "probabilities": rows}, {"type": "predicate", "probability": 0.875},
                            {"type": "score", "probabilities": levels}]}  # fmt: skip
    body = {"model": "m", "input": "hello", "questions": [QUEUE, ANGRY, URGENCY]}
    assert answers("/v1/decisions", body, response) == [
        ({"queue": "billing"}, {"delivery": 0.25, "billing": 0.75}),
        ({ANGRY_HINT: "true"}, {"false": 0.125, "true": 0.875}),
        ({"urgency": "middle"}, {"low": 0.1, "middle": 0.9}),
    ]
    older = {"answers": {"queue": {"choice": "other", "probabilities": {"billing": 0.4, "other": 0.6}}, "angry": {"noul": 0.25},
                         "urgency": {"probabilities": {"0": 0.3, "1": 0.7}}}}  # fmt: skip
    assert answers("/v1/systemone", OLDER, older) == [
        ({"queue": "other"}, {"billing": 0.4, "other": 0.6}),
        ({"angry": "false"}, {"false": 0.75, "true": 0.25}),
        ({"urgency": "high"}, {"low": 0.3, "high": 0.7}),
    ]


@pytest.mark.parametrize(
    "response",
    [
        b"<html>", [], {"answers": []}, {"answers": [None, 1, "x"]}, {"answers": {"queue": {}}},
        {"answers": [{"type": "choice", "probabilities": "x"}, {"probability": 7}, {"probabilities": [{"label": "low"}]}]},
        {"answers": [{"type": "refusal"}, {"probability": "0.5x"}, {"probabilities": [1]}]},
    ],
)  # fmt: skip
def test_what_is_no_answer_is_left_out(response: Any) -> None:
    body = {"model": "m", "input": "hello", "questions": [QUEUE, ANGRY, URGENCY]}
    assert answers("/v1/decisions", body, response) == [None, None, None]


def test_a_choice_without_probabilities_counts_in_full() -> None:
    body = {"model": "m", "input": "hello", "questions": [QUEUE]}
    (found,) = answers("/v1/decisions", body, {"answers": [{"type": "choice", "choice": "billing"}]})
    assert found == ({"queue": "billing"}, {"billing": 1.0})


def decisions(server: Serving) -> list[tuple[DecisionRow, list[RequestLogEntry]]]:
    store = ServerStore(server.folder / DATABASE)
    try:
        return [(row, [entry for _, entry in store.decision_log(row.id)]) for row in store.decisions()]
    finally:
        store.close()


def test_questions_pass_through_and_are_kept(tmp_path: Path, teacher: Teacher) -> None:
    with Serving(tmp_path / "served", "--upstream", teacher.base_url) as front, front.client() as client:
        for number in range(2):
            found = client.decisions.create(
                model="big", input=f"my billing {words(number)} yes high", questions=[QUEUE, ANGRY, URGENCY]  # type: ignore[list-item]
            )  # fmt: skip
        assert [answer.type for answer in found.answers] == ["choice", "predicate", "score"]
        assert found.answers[0].choice == "billing"  # type: ignore[union-attr]
        kept = {row.name: (row, entries) for row, entries in decisions(front)}
    assert sorted(kept) == [ANGRY_HINT, "queue", "urgency"]
    row, entries = kept["urgency"]
    task = task_of_decision(row)
    assert task is not None and task.ordinal and task.names == ["low", "middle", "high"]
    assert [entry.label for entry in entries] == ["high", "high"] and entries[0].teacher is not None
    assert entries[0].teacher.probabilities == {"low": 0.1, "middle": 0.1, "high": 0.8}
    assert kept[ANGRY_HINT][1][0].label == "true"


@pytest.mark.slow
def test_students_answer_when_all_of_them_are_sure(tmp_path: Path, teacher: Teacher) -> None:
    options = ("--upstream", teacher.base_url, "--auto", "--disagreement", "0.2")
    with Serving(tmp_path / "served", *options) as front, front.client() as client:
        raw = client.decisions.with_raw_response

        def ask(numbers: range) -> list[Any]:
            texts = [f"{words(number)} {LABELS[number % 3]} {words(number + 10_000)}" for number in numbers]
            return [raw.create(model="big", input=text, questions=[QUEUE]) for text in texts]  # type: ignore[list-item]

        ask(range(240))
        wait(lambda: decisions(front)[0][0].training.get("cutoff"))
        numbers = iter(range(1_000, 100_000, 40))

        def answers_itself() -> list[Any]:
            start = next(numbers)
            return [one for one in ask(range(start, start + 40)) if one.headers["x-fingerpost-by"] == "student"]

        (first, *_) = wait(answers_itself)
        answer = first.parse().answers[0]
        assert answer.choice in LABELS and sum(one.probability for one in answer.probabilities) == pytest.approx(1)
        assert "0.8" not in str(answer.confidence)


@pytest.mark.slow
def test_questions_that_differ_in_one_character_are_different_decisions(tmp_path: Path, teacher: Teacher) -> None:
    asked = [{**ANGRY, "name": "older", "instructions": f"Is the customer older than {age}?"} for age in (18, 65)]
    with Serving(tmp_path / "served", "--upstream", teacher.base_url) as front, front.client() as client:
        for question in asked:
            client.decisions.create(model="big", input="I am 30", questions=[question])  # type: ignore[list-item]
        client.decisions.create(model="big", input="yes", questions=[asked[0], asked[0]])  # type: ignore[list-item]
        kept = decisions(front)
        turns: Any = [{"role": "developer", "content": "Count in dog years."}, {"role": "user", "content": "I am 30"}]
        client.decisions.create(model="big", input=turns, questions=[asked[0]])  # type: ignore[list-item]
        assert len(decisions(front)) == 2
    assert [row.prompt for row, _ in kept] == [one["instructions"] for one in asked]
    assert [len(entries) for _, entries in kept] == [2, 1]  # twice the same question counts once


@pytest.mark.slow
def test_numbers_as_values_keep_their_names(tmp_path: Path, teacher: Teacher) -> None:
    swapped = {
        **QUEUE,
        "name": "swapped",
        "choices": [{"value": "1", "description": "5"}, {"value": "5", "description": "1"}],
    }
    with Serving(tmp_path / "served", "--upstream", teacher.base_url) as front, front.client() as client:
        client.decisions.create(model="big", input="it is 5", questions=[swapped])  # type: ignore[list-item]
        ((row, entries),) = decisions(front)
    task = task_of_decision(row)
    assert task is not None and sorted(task.names) == ["1", "5"] and entries[0].label == "5"
    assert entries[0].teacher is not None and entries[0].teacher.probabilities == {"1": 0.2, "5": 0.8}


@pytest.mark.slow
def test_an_empty_value_is_no_label(tmp_path: Path, teacher: Teacher) -> None:
    schema = {"type": "object", "properties": {"action": {"enum": ["", "b"]}}, "required": ["action"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "empty", "schema": schema}}
    with Serving(tmp_path / "served", "--upstream", teacher.base_url) as front, front.client() as client:
        turns: Any = [{"role": "user", "content": "hello"}]
        client.chat.completions.create(model="big", messages=turns, response_format=form)
        ((_, entries),) = decisions(front)
        listed = run_subprocess(("decisions", "--data", str(front.folder)), tmp_path, "", {})
    assert len(entries) == 1 and listed.returncode == 0 and "fewer than two labels" in listed.stdout
