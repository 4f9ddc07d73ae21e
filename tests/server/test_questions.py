"""Typed questions with the official client, the older wire of the same idea, and embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from serving import Serving
from teacher import Teacher
from tiny_encoder import tiny_encoder_folder

import fingerpost

TEXT = "my invoice is wrong"
QUEUE: dict[str, Any] = {
    "type": "choice", "name": "queue", "instructions": "Where does this belong?",
    "choices": [{"value": "delivery", "description": "parcels"}, {"value": "billing"}, {"value": "other"}],
}  # fmt: skip
ANGRY: dict[str, Any] = {"type": "predicate", "name": "angry", "instructions": "The customer is angry."}
URGENCY: dict[str, Any] = {"type": "score", "name": "urgency", "instructions": "How urgent is it?",
                           "levels": [{"label": "low"}, {"label": "middle"}, {"label": "high"}]}  # fmt: skip


@pytest.fixture(scope="module")
def students(student: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student for each kind of question."""
    folder = tmp_path_factory.mktemp("students")
    calm = ["where is my parcel", "how do I pay", "thanks for the help", "what are your hours"]
    cross = ["this is a scandal", "I am furious about this", "you are useless, all of you", "never again, shame on you"]
    texts = [f"{text} {number}" for number in range(5) for text in (*calm, *cross)]
    options: dict[str, Any] = {"encoder": str(tiny_encoder_folder()), "epochs": 0}
    fingerpost.train(texts, [*(["no"] * 4 + ["yes"] * 4) * 5], folder=folder / "angry", **options)
    levels = ["low", "middle", "high"]
    urgent = [
        f"{words} {number}"
        for number in range(8)
        for words in ("whenever you like", "some time this week", "right now at once")
    ]
    fingerpost.train(urgent, levels * 8, folder=folder / "urgency", **options)
    return {"queue": student, "angry": folder / "angry", "urgency": folder / "urgency"}


@pytest.fixture(scope="module")
def client(students: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    models = [f"{name}={folder}" for name, folder in students.items()]
    with Serving(tmp_path_factory.mktemp("questions") / "served", *models) as server, server.client() as connected:
        yield connected


def test_each_question_is_answered_by_its_student_in_order(client: openai.OpenAI) -> None:
    asked = [ANGRY, QUEUE, URGENCY, {**QUEUE, "name": "unknown", "choices": [{"value": "red"}, {"value": "blue"}]}]
    for given in (TEXT, [{"role": "user", "type": "message", "content": [{"type": "input_text", "text": TEXT}]}]):
        answer = client.decisions.create(model="queue", input=given, questions=asked)  # type: ignore[arg-type]
    angry, queue, urgency, unknown = answer.answers
    assert angry.type == "predicate" and angry.name == "angry" and 0 <= angry.probability <= 1
    assert queue.type == "choice" and queue.choice == "billing"
    assert [row.value for row in queue.probabilities] == ["delivery", "billing", "other"]
    assert sum(row.probability for row in queue.probabilities) == pytest.approx(1, abs=1e-4)
    assert queue.confidence == max(row.probability for row in queue.probabilities)
    assert urgency.type == "score" and 0 <= urgency.score <= 2
    assert urgency.score == pytest.approx(sum(row.value * row.probability for row in urgency.probabilities), abs=1e-3)
    assert unknown.type == "refusal" and unknown.name == "unknown"
    assert answer.usage.input_tokens > 0


def test_students_tell_what_they_were_trained_for(client: openai.OpenAI) -> None:
    def answers(text: str) -> tuple[float, float]:
        angry, urgency = client.decisions.create(model="queue", input=text, questions=[ANGRY, URGENCY]).answers  # type: ignore[list-item]
        return angry.probability, urgency.score  # type: ignore[union-attr]

    assert answers("I am furious about this")[0] > 0.5 > answers("how do I pay")[0]
    assert answers("right now at once")[1] > answers("whenever you like")[1]


def test_booleans_as_choices_keep_their_type(client: openai.OpenAI) -> None:
    asked = {
        "type": "choice",
        "name": "angry",
        "instructions": "Angry?",
        "choices": [{"value": True}, {"value": False}],
    }
    (answer,) = client.decisions.create(model="angry", input="I am furious about this", questions=[asked]).answers  # type: ignore[list-item]
    assert answer.type == "choice" and answer.choice is True
    elsewhere = {**asked, "name": "refund"}
    (refused,) = client.decisions.create(model="queue", input=TEXT, questions=[elsewhere]).answers  # type: ignore[list-item]
    assert refused.type == "refusal"


@pytest.mark.parametrize(
    "change",
    [
        {"questions": []},
        {"questions": [{**QUEUE, "choices": [{"value": "one"}]}]},
        {"questions": [{**QUEUE, "choices": [{"value": "one"}, {"value": "one"}]}]},
        {"questions": [{"type": "essay", "instructions": "?"}]},
        {"questions": [QUEUE] * 401},
        {"input": ""},
    ],
)
def test_questions_that_cannot_be_asked(client: openai.OpenAI, change: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.decisions.create(**{"model": "queue", "input": TEXT, "questions": [QUEUE], **change})


def test_an_unknown_model_without_a_student_for_any_question(client: openai.OpenAI) -> None:
    unknown = {**QUEUE, "choices": [{"value": "red"}, {"value": "blue"}]}
    with pytest.raises(openai.NotFoundError):
        client.decisions.create(model="gpt-6-luna", input=TEXT, questions=[unknown])  # type: ignore[list-item]
    (answer,) = client.decisions.create(model="gpt-6-luna", input=TEXT, questions=[QUEUE]).answers  # type: ignore[list-item]
    assert answer.type == "choice" and answer.choice == "billing"


def test_the_older_wire(client: openai.OpenAI) -> None:
    questions = {
        "queue": {"type": "choice", "instructions": "Where to?", "criteria": {"billing": None, "delivery": "parcels"}},
        "angry": {"type": "noul", "instructions": "Is the customer angry?"},
        "urgency": {"type": "score", "instructions": "How urgent?", "criteria": ["low", "middle", "high"]},
        "unknown": {"type": "choice", "instructions": "?", "criteria": {"red": None, "blue": None}},
    }
    body = {"model": "queue", "state": {"message": TEXT}, "questions": questions}
    found = client.post("/systemone", body=body, cast_to=dict[str, Any])
    assert set(found["answers"]) == {"queue", "angry", "urgency"}
    queue, urgency = found["answers"]["queue"], found["answers"]["urgency"]
    assert queue["choice"] == "billing" and set(queue["probabilities"]) == {"billing", "delivery"}
    assert 0 <= queue["confidence"] <= 1 and 0 <= found["answers"]["angry"]["noul"] <= 1
    assert urgency["legend"] == {"0": "low", "1": "middle", "2": "high"}
    for wrong in ({"type": "choice"}, {"type": "score", "criteria": ["one"]}, {"type": "box"}):
        with pytest.raises(openai.BadRequestError):
            client.post("/systemone", body={**body, "questions": {"x": wrong}}, cast_to=dict[str, Any])


def test_what_no_student_knows_is_asked_of_the_teacher_in_one_call(
    student: Path, tmp_path: Path, teacher: Teacher
) -> None:
    arguments = (f"queue={student}", "--teacher", "t", "--teacher-url", teacher.base_url, "--cutoff", "0")
    teacher.reply = json.dumps({"q1": 0.75, "q2": "high", "q3": "green"})
    unknown = {**QUEUE, "name": "colour", "choices": [{"value": "red"}, {"value": "blue"}]}
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="none") as server, server.client() as client:
        asked = [ANGRY, QUEUE, URGENCY, unknown]
        angry, queue, urgency, colour = client.decisions.create(model="queue", input=TEXT, questions=asked).answers  # type: ignore[arg-type]
    assert angry.probability == 0.75 and urgency.score == 2 and queue.choice == "billing"  # type: ignore[union-attr]
    assert colour.type == "refusal"
    (body,) = teacher.bodies
    assert set(body["response_format"]["json_schema"]["schema"]["properties"]) == {"q1", "q2", "q3"}


def test_embeddings(client: openai.OpenAI) -> None:
    texts = [TEXT, "my invoice is wrong!", "where is my parcel?"]
    found = client.embeddings.create(model="queue", input=texts)  # the client asks for base64
    vectors = np.array([row.embedding for row in found.data])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    plain = client.embeddings.create(model="queue", input=TEXT, encoding_format="float")
    assert np.array(plain.data[0].embedding) == pytest.approx(vectors[0], abs=1e-6)
    assert found.usage.prompt_tokens > 0
    for wrong in ({"input": [""]}, {"dimensions": 3}, {"input": [1, 2]}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**{"model": "queue", "input": TEXT, **wrong})
