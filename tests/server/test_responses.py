"""The Responses wire, with the official client: text, schemas, tools, streams, history, stored responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from serving import Serving
from teacher import Teacher

LABELS = ["billing", "delivery", "other"]
TEXT = "my invoice is wrong"
ROUTE = {
    "type": "function",
    "name": "route",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"queue": {"type": "string", "enum": LABELS}},
        "required": ["queue"],
        "additionalProperties": False,
    },
}


class Routed(BaseModel):
    queue: Literal["billing", "delivery", "other"]


@pytest.fixture(scope="module")
def serving(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("responses") / "served", f"student={student}") as server:
        yield server


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[openai.OpenAI]:
    with serving.client() as connected:
        yield connected


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.responses.create(**{"model": "student", "input": TEXT, **options})


def test_a_text_in_all_shapes_of_input(client: openai.OpenAI) -> None:
    turn: dict[str, Any] = {"role": "user", "content": TEXT}
    parts = {"role": "user", "type": "message", "content": [{"type": "input_text", "text": TEXT}]}
    for given in (TEXT, [turn], [parts], [{"role": "developer", "content": "Route."}, turn]):
        answer = ask(client, input=given, instructions="Route the message.")
        assert json.loads(answer.output_text) == {"action": "billing"}
    assert answer.status == "completed" and answer.usage.total_tokens > 0
    with pytest.raises(openai.BadRequestError):
        ask(client, input=[])
    with pytest.raises(openai.NotFoundError):
        ask(client, model="gpt-nobody")


def test_a_schema_is_kept(client: openai.OpenAI) -> None:
    answer = client.responses.parse(model="student", input=TEXT, text_format=Routed)
    assert answer.output_parsed == Routed(queue="billing")
    broken = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
    form = {"format": {"type": "json_schema", "name": "x", "schema": broken}}
    with pytest.raises(openai.BadRequestError, match="days|labels"):
        ask(client, text=form)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "name": "route"}])
def test_a_tool_is_called_once(client: openai.OpenAI, choice: Any) -> None:
    first = ask(client, tools=[ROUTE], tool_choice=choice)
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "route", {"queue": "billing"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    if isinstance(choice, str):
        for given in ({"input": [{"role": "user", "content": TEXT}, call.model_dump(), result]},
                      {"input": [result], "previous_response_id": first.id}):  # fmt: skip
            assert "billing" in ask(client, tools=[ROUTE], tool_choice=choice, **given).output_text


def test_streams_end_with_the_whole_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="student", input=TEXT, text_format=Routed) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_parsed == Routed(queue="billing")
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert "response.output_text.delta" in kinds and "response.content_part.done" in kinds
    events = list(ask(client, stream=True, tools=[ROUTE], tool_choice="required"))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert next(event for event in events if event.type == "response.function_call_arguments.done").name == "route"


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = ask(client, include=["message.output_text.logprobs"], top_logprobs=2)
    tokens = answer.output[0].content[0].logprobs
    assert "".join(token.token for token in tokens) == answer.output_text
    assert any(len(token.top_logprobs) == 2 for token in tokens)


def test_the_history_is_remembered(client: openai.OpenAI) -> None:
    first = ask(client, input="where is my parcel?")
    second = ask(client, input="thanks", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    third = ask(client, input=[{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": TEXT}])
    assert "billing" in third.output_text
    for wrong in ({"previous_response_id": "resp_none"}, {"input": [{"type": "item_reference", "id": "msg_none"}]}):
        with pytest.raises(openai.BadRequestError, match="no stored response"):
            ask(client, **wrong)


def test_stored_responses(client: openai.OpenAI) -> None:
    kept = ask(client, metadata={"team": "hr"})
    found = client.responses.retrieve(kept.id)
    assert found.model_dump() == kept.model_dump()
    events = list(client.responses.retrieve(kept.id, stream=True))
    assert events[-1].type == "response.completed"
    (item,) = client.responses.input_items.list(kept.id).data
    assert item.content[0].text == TEXT  # type: ignore[union-attr]
    client.responses.delete(kept.id)
    for gone in (kept.id, ask(client, store=False).id):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(gone)
    with pytest.raises(openai.BadRequestError, match="background"):
        ask(client, background=True)


def test_without_a_log_nothing_is_stored(student: Path, tmp_path: Path) -> None:
    with Serving(tmp_path / "served", f"student={student}", "--no-log-requests") as server, server.client() as client:
        answer = ask(client)
        assert answer.store is False
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(answer.id)


def test_the_teacher_answers_what_the_student_is_unsure_of(student: Path, tmp_path: Path, teacher: Teacher) -> None:
    arguments = (f"student={student}", "--teacher", "t", "--teacher-url", teacher.base_url, "--cutoff", "1")
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="none") as server, server.client() as client:
        answer = client.responses.with_raw_response.create(model="student", input=TEXT, instructions="Route.")
    assert answer.headers["x-fingerpost-by"] == "teacher"
    assert [turn["role"] for turn in teacher.bodies[-1]["messages"]] == ["system", "user"]
